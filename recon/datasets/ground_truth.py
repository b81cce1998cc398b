"""The one door to ground truth: finds out how a folder is laid out and reads what is known of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from recon.datasets.cards import Card
from recon.datasets.readers import READERS
from recon.datasets.readers.common import Reader
from recon.datasets.types import GroundTruth, TruthPair, true_camera
from recon.errors import ReconError, UsageError
from recon.io.cameras_json import CONVENTION, camera_entry

__all__ = [
    "GroundTruth",
    "TruthPair",
    "complete_layout",
    "has_ground_truth",
    "layouts",
    "load_ground_truth",
    "true_camera",
    "write_cameras_json",
]


def has_ground_truth(folder: Path) -> bool:
    """Tell whether some reader knows the layout of a folder (or file, for lists of pairs and ``cameras.json``)."""
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


def write_cameras_json(truth: GroundTruth, path: Path) -> None:
    """Write true cameras in recon's own form, which every tool of recon reads (``layout`` "cameras.json").

    Raises:
        ReconError: a camera has distortion, which that form does not hold.
    """
    distorted = [name for name, camera in truth.cameras.items() if not camera.intrinsics.is_pinhole]
    if distorted:
        raise ReconError(f"{truth.name}: {distorted[0]} has lens distortion, which {path.name} does not hold")
    document: dict[str, object] = {"convention": CONVENTION, "name": truth.name}
    if truth.unit_in_metres == 1.0:
        document["world_unit"] = "metre"
    elif truth.unit_in_metres == 0.001:
        document["world_unit"] = "millimetre"
    if truth.note:
        document["note"] = truth.note
    document["images"] = [
        camera_entry(name, camera.K, (camera.width, camera.height), camera.cam_from_world)
        for name, camera in sorted(truth.cameras.items())
    ]
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)


def complete_layout(card: Card, root: Path) -> list[Path]:
    """Make what a card's layout promises and the publisher's files do not have: a ``cameras.json``.

    Returns:
        The files that were made.

    Raises:
        ReconError: the publisher's files cannot be read.
    """
    folder = card.target(root)
    wanted = card.layout.get("cameras")
    if wanted != "cameras.json" or (folder / wanted).exists() or not has_ground_truth(folder):
        return []
    truth = load_ground_truth(folder)
    if not truth.cameras or any(not camera.intrinsics.is_pinhole for camera in truth.cameras.values()):
        return []
    write_cameras_json(truth, folder / wanted)
    return [folder / wanted]


def _reader(folder: Path) -> Reader | None:
    return next((reader for reader in READERS if reader.knows(folder)), None)
