"""Runs that tasks read from, kept open by the process that does the tasks."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from recon.features.types import InterestPoints
from recon.run.folder import POINTS, RunFolder
from recon.run.photos import PHOTO_SET

_POINTS_IN_MEMORY = 256
"""Photos whose interest points stay in memory; 4096 points are 0.6 MB."""


def opened(root: Path) -> RunFolder:
    """The run in a folder as its stages left it last; opened again when its photos have changed."""
    return _opened(root, (root / PHOTO_SET).stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _opened(root: Path, stamp: int) -> RunFolder:  # noqa: ARG001
    return RunFolder(root)


def opened_points(root: Path, number: int) -> InterestPoints:
    """The interest points of a photo; those that were asked for last stay in memory."""
    return _points(root, number, (root / POINTS / f"{number}.npz").stat().st_mtime_ns)


@lru_cache(maxsize=_POINTS_IN_MEMORY)
def _points(root: Path, number: int, stamp: int) -> InterestPoints:  # noqa: ARG001
    return RunFolder(root).points(number)
