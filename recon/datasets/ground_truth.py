"""The one door to ground truth: finds out how a folder is laid out and reads what is known of it."""

from __future__ import annotations

from pathlib import Path

from recon.datasets.readers import READERS
from recon.datasets.readers.common import Reader
from recon.datasets.types import GroundTruth, TruthCamera, TruthPair
from recon.errors import ReconError, UsageError

__all__ = ["GroundTruth", "TruthCamera", "TruthPair", "has_ground_truth", "load_ground_truth"]


def has_ground_truth(folder: Path) -> bool:
    """Whether some reader knows the layout of a folder (or file, for lists of pairs and ``cameras.json``)."""
    return _reader(Path(folder)) is not None


def load_ground_truth(folder: Path, layout: str | None = None) -> GroundTruth:
    """Read what is known of a scene.

    Args:
        folder: of the scene, as its publisher lays it out; or one file: a ``cameras.json``, a list of pairs.
        layout: name of a reader (see ``layouts``); None finds out.

    Raises:
        UsageError: the folder is not there, or no such layout.
        ReconError: no reader knows the layout, or what is there cannot be read.
    """
    folder = Path(folder)
    if not folder.exists():
        raise UsageError(f"{folder}: there is no such folder")
    if layout is not None:
        for reader in READERS:
            if reader.name == layout:
                return reader.read(folder)
        raise UsageError(f"no layout {layout!r}; there are: {', '.join(layouts())}")
    found = _reader(folder)
    if found is None:
        raise ReconError(
            f"{folder}: no ground truth that recon can read; it looked for: "
            + "; ".join(f"{reader.name} ({reader.looks_for})" for reader in READERS)
        )
    return found.read(folder)


def layouts() -> list[str]:
    """Names of the layouts that can be read."""
    return [reader.name for reader in READERS]


def _reader(folder: Path) -> Reader | None:
    return next((reader for reader in READERS if reader.knows(folder)), None)
