"""COLMAP models as truth, and what ETH3D lays beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from recon.core.posed import Camera
from recon.datasets.readers.common import Reader, read_text
from recon.datasets.types import GroundTruth
from recon.errors import ReconError

_MODELS = ("sparse/0", "sparse", ".")


def knows(folder: Path) -> bool:
    """Tell whether a folder has a COLMAP model with its photos beside it."""
    return _model(folder) is not None


def read(folder: Path) -> GroundTruth:
    """Read a model in COLMAP's text or binary form; photos are in ``images``, or right in the folder.

    Raises:
        ReconError: the model cannot be read.
    """
    model = _model(folder)
    if model is None:
        raise ReconError(f"{folder}: has no COLMAP model")
    images = folder / "images"
    return GroundTruth(
        folder.name,
        images if images.is_dir() else folder,
        cameras_of_model(model),
        layout=READER.name,
        note="cameras of a reconstruction, not measured by other means",
    )


def has_model(folder: Path) -> bool:
    """Tell whether a COLMAP model is right in this folder."""
    return any(
        (folder / f"cameras{suffix}").is_file() and (folder / f"images{suffix}").is_file()
        for suffix in (".bin", ".txt")
    )


def _model(folder: Path) -> Path | None:
    if not folder.is_dir():
        return None
    return next((folder / name for name in _MODELS if has_model(folder / name)), None)


def cameras_of_model(model: Path) -> dict[str, Camera]:
    """Read the posed photos of a COLMAP model; half a pixel is taken off its principal points.

    The text form is read here, because ETH3D's comes without the files that newer COLMAPs write beside it.

    Raises:
        ReconError: the model cannot be read.
    """
    if (model / "cameras.txt").is_file():
        return _from_text(model)
    from recon.core.colmap import pycolmap

    try:
        reconstruction = pycolmap.Reconstruction(model)
    except (OSError, ValueError, RuntimeError, IndexError) as error:
        raise ReconError(f"{model}: is no COLMAP model that can be read: {error}") from error
    found = {}
    for image in reconstruction.images.values():
        if image.has_pose:
            pose = np.asarray(image.cam_from_world().matrix(), np.float64)
            found[image.name] = _camera(
                reconstruction.cameras[image.camera_id], pose[:, :3], pose[:, 3], model
            )
    return found


def _from_text(model: Path) -> dict[str, Camera]:
    from recon.core.colmap import pycolmap

    path = model / "cameras.txt"
    cameras: dict[int, Any] = {}
    try:
        for line in _lines(path):
            words = line.split()
            cameras[int(words[0])] = pycolmap.Camera(
                model=words[1],
                width=int(words[2]),
                height=int(words[3]),
                params=[float(word) for word in words[4:]],
            )
        path = model / "images.txt"
        found = {}
        # Two lines a photo: its pose, and its points, which may be an empty line.
        rows = [row for row in read_text(path).split("\n") if not row.startswith("#")]
        for row in rows[::2]:
            words = row.split(maxsplit=9)
            if not words:
                continue
            numbers = np.array([float(word) for word in words[1:8]])
            name = words[9].strip()
            quaternion = numbers[:4]
            if not np.isfinite(numbers).all() or np.linalg.norm(quaternion) == 0:
                raise ValueError(f"the pose of {name} is not finite")
            found[name] = _camera(cameras[int(words[8])], _rotation(quaternion), numbers[4:7], model)
    except (ValueError, IndexError, KeyError, RuntimeError) as error:  # pycolmap: an unknown model
        raise ReconError(f"{path}: is not in COLMAP's text form ({type(error).__name__}: {error})") from error
    return found


def _lines(path: Path) -> list[str]:
    return [line for line in read_text(path).splitlines() if line.strip() and not line.startswith("#")]


def _rotation(wxyz: np.ndarray) -> np.ndarray:
    w, x, y, z = wxyz / np.linalg.norm(wxyz)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def _camera(camera: Any, R: np.ndarray, t: np.ndarray, model: Path) -> Camera:
    from recon.core.colmap import intrinsics_from_camera

    if not camera.verify_params():
        raise ReconError(f"{model}: a camera has the wrong number of parameters for {camera.model.name}")
    intrinsics = intrinsics_from_camera(camera, known=True, has_focal_prior=True)
    return Camera(intrinsics, np.column_stack([R, t]).astype(np.float64))


READER = Reader("colmap", "a COLMAP model in sparse/0, sparse or the folder itself", knows, read)
