"""DTU (Jensen et al. 2014, Aanæs et al. 2016): projection matrices, structured-light scans, ObsMask."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float64

from recon.core.posed import Camera
from recon.datasets.readers import mvsnet
from recon.datasets.readers.common import Reader, image_files, image_size, numbers, read_text
from recon.datasets.types import GroundTruth, true_camera
from recon.errors import ReconError

_CALIBRATIONS = ("Calibration/cal18",)
_SIZE = (1600, 1200)
_LIGHT = "_3_r5000"
"""Of the seven lights and their maximum the one that most papers report on."""


def knows(folder: Path) -> bool:
    """Tell whether a folder is called ``scanN``, holds rectified photos or MVSNet's form, and lies in DTU."""
    if _number(folder) is None or not folder.is_dir():
        return False
    if any(folder.glob("rect_*")):
        return _calibration(folder) is not None
    return mvsnet.knows_mvsnet(folder)


def read(folder: Path) -> GroundTruth:
    """Read one scan, in millimetres.

    Args:
        folder: ``Rectified/scanN`` with ``Calibration/cal18/pos_XXX.txt`` in a folder above; or ``scanN`` as
            MVSNet lays it out. ``Points/stl/stlXXX_total.ply`` and ``ObsMask`` are found above either.

    Each ``pos_XXX.txt`` is a 3x4 projection matrix for 1600x1200 pixels, which is split into K, R and t; pixels
    are taken to count from the centre of the top-left one. Of the photos of one place, one light is read.

    Raises:
        ReconError: something cannot be read.
    """
    number = _number(folder)
    if number is None:
        raise ReconError(f"{folder}: is not called scanN")
    if mvsnet.knows_mvsnet(folder):
        images = folder / "images"
        cameras = mvsnet.cameras_in(folder / "cams", images)
        pairs = mvsnet.pairs_in(folder / "pair.txt", cameras)
    else:
        images, pairs = folder, ()
        cameras = _cameras(folder)
    scan = _above(folder, (f"Points/stl/stl{number:03d}_total.ply",))
    mask = _above(folder, (f"ObsMask/ObsMask{number}_10.mat",))
    return GroundTruth(
        folder.name,
        images,
        cameras,
        0.001,
        READER.name,
        points=(scan,) if scan is not None else (),
        pairs=pairs,
        region=_observed(mask) if mask is not None else None,
    )


def _cameras(folder: Path) -> dict[str, Camera]:
    calibration = _calibration(folder)
    if calibration is None:
        raise ReconError(f"{folder}: no Calibration/cal18 in a folder above")
    photos: dict[int, Path] = {}
    for path in image_files(folder):
        match = re.match(r"rect_(\d+)(_.*)?$", path.stem)
        if match and (int(match[1]) not in photos or match[2] == _LIGHT):
            photos[int(match[1])] = path
    cameras = {}
    for place, photo in sorted(photos.items()):
        path = calibration / f"pos_{place:03d}.txt"
        K, R, t = split_projection(numbers(read_text(path), path, 12).reshape(3, 4), path)
        size = image_size(photo)
        camera = true_camera(*_SIZE, K, R, t)
        cameras[photo.name] = camera if size == _SIZE else camera.resized(*size)
    return cameras


def split_projection(
    P: Float64[np.ndarray, "3 4"], path: Path
) -> tuple[Float64[np.ndarray, "3 3"], Float64[np.ndarray, "3 3"], Float64[np.ndarray, "3"]]:
    """Split a projection matrix, known up to a factor, into K (positive, K[2, 2] = 1), R and t.

    Source: Hartley & Zisserman, Multiple View Geometry, section 6.2.4.

    Raises:
        ReconError: it is not a finite camera.
    """
    from scipy.linalg import rq

    # The sign of a projection matrix is free; the one that gives a right-handed camera is ours.
    P = P * np.sign(np.linalg.det(P[:, :3]))
    K, R = rq(P[:, :3])
    signs = np.diag(np.where(np.diag(K) < 0, -1.0, 1.0))
    K, R = K @ signs, signs @ R
    if abs(K[2, 2]) < 1e-12 or not np.isfinite(K).all():
        raise ReconError(f"{path}: is not the matrix of a camera")
    t = np.linalg.solve(K, P[:, 3])
    return np.asarray(K / K[2, 2], np.float64), np.asarray(R, np.float64), np.asarray(t, np.float64)


def _observed(path: Path) -> Callable[[Float[np.ndarray, "n 3"]], Bool[np.ndarray, " n"]]:
    """Points whose voxel of ``ObsMask`` (size ``Res``, from the low corner of ``BB``) was observed."""
    from scipy.io import loadmat

    try:
        data = loadmat(path)
        seen = np.asarray(data["ObsMask"]).astype(bool)
        low, step = np.asarray(data["BB"], np.float64)[0], float(np.asarray(data["Res"]).reshape(-1)[0])
    except (OSError, ValueError, KeyError, IndexError, NotImplementedError) as error:
        raise ReconError(f"{path}: is no ObsMask of DTU: {error}") from error

    def observed(points: Float[np.ndarray, "n 3"]) -> Bool[np.ndarray, " n"]:
        # The benchmark's BaseEval2Obj_web.m: round((p - low) / step), away from zero at a half.
        voxel = np.floor((np.asarray(points, np.float64) - low) / step + 0.5).astype(np.int64)
        inside = ((voxel >= 0) & (voxel < seen.shape)).all(axis=1)
        out = np.zeros(len(points), bool)
        out[inside] = seen[tuple(voxel[inside].T)]
        return out

    return observed


def _number(folder: Path) -> int | None:
    match = re.match(r"scan(\d+)(_train)?$", folder.name)
    return int(match[1]) if match else None


def _calibration(folder: Path) -> Path | None:
    return _above(folder, _CALIBRATIONS)


def _above(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The first of these that is in the folder or one of the four above it."""
    for parent in [folder, *folder.resolve().parents[:4]]:
        for prefix in ("", "SampleSet/MVS Data/", "MVS Data/"):
            for name in names:
                if (parent / f"{prefix}{name}").exists():
                    return parent / f"{prefix}{name}"
    return None


READER = Reader(
    "dtu", "scanN with rect_* photos and Calibration/cal18 above, or in MVSNet's form", knows, read
)
