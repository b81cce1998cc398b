"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real photos and reference outputs; tests that need it skip where it is absent."""
    named = os.environ.get("RECON_DATA")
    root = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    if not (root / "datasets").is_dir():
        pytest.skip(f"no data under {root}; set RECON_DATA to the folder that holds datasets/ and reference/")
    return root
