"""Makes the fake stages importable and gives a folder with numbers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the file that the fake stages read."""
    (tmp_path / "numbers.txt").write_text("3 1 4 15 9 2 6\n")
    return tmp_path
