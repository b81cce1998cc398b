"""Scenes with a ``cameras.json``: recon's own form, which rendered scenes have too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32

from recon.core.posed import Camera
from recon.datasets.readers.common import Reader, read_text, rotation
from recon.datasets.types import GroundTruth, true_camera
from recon.errors import ReconError, reading
from recon.io.cameras_json import pinhole_of_entry
from recon.io.depth_maps import read_depth_map
from recon.io.files import parse_json

_METRES = {"metre": 1.0, "meter": 1.0, "m": 1.0, "centimetre": 0.01, "millimetre": 0.001}


def knows(folder: Path) -> bool:
    """Tell whether a folder has a ``cameras.json``, or a file is one."""
    return (folder / "cameras.json").is_file() or (folder.is_file() and folder.suffix == ".json")


def read(folder: Path) -> GroundTruth:
    """Read ``cameras.json`` and what lies under ``truth/``: mesh, depth, masks.

    Args:
        folder: the scene, or its cameras file: ``cameras_1536.json`` goes with ``images_1536``.

    Raises:
        ReconError: the file cannot be read, or lacks something.
    """
    path = folder if folder.is_file() else folder / "cameras.json"
    scene = path.parent
    with reading(path, "it is no cameras.json"):
        document = parse_json(read_text(path))
        cameras = {str(entry["name"]): _camera(entry, path) for entry in document["images"]}
    images = scene / ("images" + path.stem.removeprefix("cameras"))
    truth = scene / "truth"
    mesh = truth / "mesh.ply"
    points = truth / "points.ply"
    masks = truth / "masks"
    return GroundTruth(
        name=str(document.get("name", scene.name)),
        images=images if images.is_dir() else scene / "images",
        cameras=cameras,
        unit_in_metres=_METRES.get(str(document.get("world_unit", "")).lower()),
        layout="cameras.json",
        depth=_depth(truth / "depth", cameras) if (truth / "depth").is_dir() else None,
        mesh=mesh if mesh.is_file() else None,
        points=(points,) if points.is_file() else (),
        masks=masks if masks.is_dir() else None,
        region=_inside(document["bbox"], path) if "bbox" in document else None,
        note=str(document.get("note", "")),
    )


def _camera(entry: Mapping[str, Any], path: Path) -> Camera:
    K, width, height = pinhole_of_entry(entry)
    R = rotation(np.asarray(entry["R"], np.float64).reshape(3, 3), path)
    t = np.asarray(entry["t"], np.float64).reshape(3)
    if not (np.isfinite(K).all() and np.isfinite(t).all()):
        raise ReconError(f"{path}: {entry['name']} has a number that is not finite")
    return true_camera(width, height, K, R, t)


def _depth(folder: Path, cameras: dict[str, Camera]) -> Callable[[str], Float32[np.ndarray, "h w"] | None]:
    def depth(name: str) -> Float32[np.ndarray, "h w"] | None:
        path = folder / f"{Path(name).stem}.npz"
        if name not in cameras or not path.is_file():
            return None
        return read_depth_map(path)

    return depth


def _inside(box: object, path: Path) -> Callable[[Float[np.ndarray, "n 3"]], Bool[np.ndarray, " n"]]:
    corners = np.asarray(box, np.float64)
    if corners.shape != (2, 3):
        raise ReconError(f"{path}: bbox must be [[x, y, z], [x, y, z]]")

    def inside(points: Float[np.ndarray, "n 3"]) -> Bool[np.ndarray, " n"]:
        return np.asarray(((points >= corners[0]) & (points <= corners[1])).all(axis=1))

    return inside


READER = Reader("cameras.json", "a file cameras.json", knows, read)
