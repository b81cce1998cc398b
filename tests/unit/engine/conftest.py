"""A folder with numbers for the fake stages."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the file that the fake stages read."""
    (tmp_path / "numbers.txt").write_text("3 1 4 15 9 2 6\n")
    return tmp_path
