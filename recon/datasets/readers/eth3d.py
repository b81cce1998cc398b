"""ETH3D (Schöps et al. 2017), multi-view: COLMAP text, laser scans with their alignment, raw depth."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64

from recon.core.posed import Camera
from recon.core.undistort import pixel_grid
from recon.datasets.readers.colmap import cameras_of_model, has_model
from recon.datasets.readers.common import Reader, numbers, read_text
from recon.datasets.types import GroundTruth
from recon.errors import ReconError

# Calibration folder, image folder; undistorted photos first, since a pinhole is what most methods want.
_VERSIONS = (
    ("dslr_calibration_undistorted", "dslr_images_undistorted"),
    ("dslr_calibration_jpg", "dslr_images"),
    ("rig_calibration_undistorted", "rig_images_undistorted"),
    ("rig_calibration", "rig_images"),
)
_SCANS = ("dslr_scan_eval", "rig_scan_eval", "scan_clean")


def knows(folder: Path) -> bool:
    """Tell whether a folder has a calibration under one of ETH3D's names."""
    return any(has_model(folder / calibration) for calibration, _ in _VERSIONS)


def read(folder: Path) -> GroundTruth:
    """Read one scene.

    Where both versions of the photos are there, the undistorted ones are taken. Half a pixel is taken off
    COLMAP's principal points. Scans are moved by the matrices of ``scan_alignment.mlp``. Depth (float32, row
    by row, infinite where unknown) belongs to the original, distorted photos; for undistorted ones each pixel
    looks up the nearest pixel of the original, which needs ``dslr_calibration_jpg`` too.

    Raises:
        ReconError: something cannot be read.
    """
    present = [pair for pair in _VERSIONS if has_model(folder / pair[0])]
    calibration, wanted = next(
        (pair for pair in present if (folder / "images" / pair[1]).is_dir()), present[0]
    )
    cameras = cameras_of_model(folder / calibration)
    images = folder / "images"
    # Names are like dslr_images_undistorted/DSC_0286.JPG; a run on that very folder knows them without it.
    if all(name.startswith(f"{wanted}/") for name in cameras):
        images = images / wanted
        cameras = {name.removeprefix(f"{wanted}/"): camera for name, camera in cameras.items()}
    points, moves = _scans(folder)
    return GroundTruth(
        folder.name,
        images,
        cameras,
        1.0,
        READER.name,
        depth=_depth(folder, calibration, cameras),
        points=points,
        world_from_points=moves,
    )


def _scans(folder: Path) -> tuple[tuple[Path, ...], tuple[Float64[np.ndarray, "4 4"], ...]]:
    project = next((folder / n / "scan_alignment.mlp" for n in _SCANS if (folder / n).is_dir()), None)
    if project is None or not project.is_file():
        return (), ()
    try:
        root = ElementTree.fromstring(read_text(project))
    except ElementTree.ParseError as error:
        raise ReconError(f"{project}: is no MeshLab project: {error}") from error
    points, moves = [], []
    for mesh in root.iter("MLMesh"):
        path = project.parent / str(mesh.get("filename", ""))
        if not path.is_file():
            raise ReconError(f"{project}: names {path.name}, which is not there")
        points.append(path)
        moves.append(numbers(mesh.findtext("MLMatrix44", ""), project, 16).reshape(4, 4))
    return tuple(points), tuple(moves)


def _depth(
    folder: Path, calibration: str, cameras: Mapping[str, Camera]
) -> Callable[[str], Float32[np.ndarray, "h w"] | None] | None:
    maps = folder / "ground_truth_depth" / "dslr_images"
    if not maps.is_dir() or not calibration.startswith("dslr"):
        return None
    undistorted = calibration.endswith("undistorted")
    if undistorted and not has_model(folder / "dslr_calibration_jpg"):
        return None
    originals = cameras_of_model(folder / "dslr_calibration_jpg") if undistorted else dict(cameras)
    originals = {Path(name).name: camera for name, camera in originals.items()}

    def depth(name: str) -> Float32[np.ndarray, "h w"] | None:
        path = maps / Path(name).name
        original = originals.get(Path(name).name)
        if not path.is_file() or original is None or name not in cameras:
            return None
        raw = np.fromfile(path, "<f4")
        if raw.size != original.width * original.height:
            raise ReconError(
                f"{path}: holds {raw.size} values where {original.width}x{original.height} are expected"
            )
        z = raw.reshape(original.height, original.width)
        z = np.where(np.isfinite(z) & (z > 0), z, 0).astype(np.float32)
        return _undistorted(z, original, cameras[name]) if undistorted else z

    return depth


def _undistorted(
    z: Float32[np.ndarray, "h w"], original: Camera, camera: Camera
) -> Float32[np.ndarray, "h2 w2"]:
    """The z-depth that a pinhole camera at the same place sees: depth does not change, only its pixel."""
    xy = pixel_grid(camera.width, camera.height)
    rays = np.column_stack([xy, np.ones(len(xy))]) @ np.linalg.inv(camera.K).T
    found = original.pixels(rays)
    column, row = np.rint(np.nan_to_num(found, nan=-9)).astype(np.int64).T
    inside = (column >= 0) & (column < original.width) & (row >= 0) & (row < original.height)
    out = np.zeros(len(xy), np.float32)
    out[inside] = z[row[inside], column[inside]]
    return out.reshape(camera.height, camera.width)


READER = Reader("eth3d", "dslr_calibration_undistorted or dslr_calibration_jpg", knows, read)
