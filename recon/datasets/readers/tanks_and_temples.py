"""Tanks and Temples (Knapitsch et al. 2017): trajectory, alignment, crop volume, laser scan."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float64

from recon.datasets.readers.common import Reader, image_files, image_size, numbers, read_text, rotation
from recon.datasets.types import GroundTruth, true_camera
from recon.errors import ReconError
from recon.io.files import parse_json

_LOG = "_COLMAP_SfM.log"
_FOCAL_SHARE = 1166 / 1920
"""The benchmark publishes no intrinsics; its frames are commonly used with 1166 px at a width of 1920."""


def knows(folder: Path) -> bool:
    """Tell whether a folder holds a trajectory ``NAME_COLMAP_SfM.log``."""
    return folder.is_dir() and any(folder.glob(f"*{_LOG}"))


def read(folder: Path) -> GroundTruth:
    """Read one training scene; the world is the laser scan's, in metres.

    The log gives per photo a line of three numbers and a 4x4 ``world_from_camera`` in the frame of the
    benchmark's own COLMAP run; ``NAME_trans.txt`` (a similarity) takes that frame to the scan. ``NAME.json`` is
    the volume in which the benchmark judges. K is that of ``intrinsics.txt`` (3x3) if the folder has one;
    otherwise the principal point is the middle of the photo and the focal length 0.607 of its longer side.

    Raises:
        ReconError: something cannot be read, or photos and poses differ in number.
    """
    log = sorted(folder.glob(f"*{_LOG}"))[0]
    name = log.name.removesuffix(_LOG)
    images = next((folder / n for n in ("images", name) if image_files(folder / n)), folder)
    photos = image_files(images)
    poses = read_log(log)
    aligned = folder / f"{name}_trans.txt"
    move = numbers(read_text(aligned), aligned, 16).reshape(4, 4) if aligned.is_file() else np.eye(4)
    scale = float(np.cbrt(np.linalg.det(move[:3, :3])))
    if not scale > 0:
        raise ReconError(f"{aligned}: is no similarity")
    turn = rotation(move[:3, :3] / scale, aligned)
    cameras = {}
    if len(photos) < len(poses):
        raise ReconError(f"{images}: holds {len(photos)} photos, but {log.name} has {len(poses)} poses")
    calibration = folder / "intrinsics.txt"
    known = numbers(read_text(calibration), calibration, 9).reshape(3, 3) if calibration.is_file() else None
    for index, world_from_camera in poses.items():
        if not 0 <= index < len(photos):
            raise ReconError(f"{log}: has a pose for photo {index}, but there are {len(photos)} photos")
        photo = photos[index]
        width, height = image_size(photo)
        focal = _FOCAL_SHARE * max(width, height)
        K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
        R = rotation(world_from_camera[:3, :3], log).T @ turn.T
        center = move[:3, :3] @ world_from_camera[:3, 3] + move[:3, 3]
        cameras[photo.name] = true_camera(
            width, height, known.copy() if known is not None else K, R, -R @ center
        )
    scan = folder / f"{name}.ply"
    crop = folder / f"{name}.json"
    notes = []
    if known is None:
        notes.append("no intrinsics are published: focal length taken as 0.607 of the longer side")
    if not aligned.is_file():
        notes.append(f"no {aligned.name}: the world is that of the benchmark's COLMAP run, without scale")
    return GroundTruth(
        name,
        images,
        cameras,
        1.0 if aligned.is_file() else None,
        READER.name,
        points=(scan,) if scan.is_file() else (),
        region=read_crop(crop) if crop.is_file() else None,
        note="; ".join(notes),
    )


def read_log(path: Path) -> dict[int, Float64[np.ndarray, "4 4"]]:
    """Read a trajectory: per photo ``index index 0`` and four rows of ``world_from_camera``; by index.

    Raises:
        ReconError: the file is not of this form.
    """
    values = numbers(read_text(path), path)
    if len(values) == 0 or len(values) % 19:
        raise ReconError(f"{path}: is no trajectory: {len(values)} numbers, not a multiple of 19")
    rows = values.reshape(-1, 19)
    return {int(row[0]): row[3:].reshape(4, 4) for row in rows}


def read_crop(path: Path) -> Callable[[Float[np.ndarray, "n 3"]], Bool[np.ndarray, " n"]]:
    """Read a volume: a polygon in two axes (``bounding_polygon``), a range in the third (``orthogonal_axis``).

    Raises:
        ReconError: the file is not of this form.
    """
    try:
        document = parse_json(read_text(path))
        axis = "XYZ".index(str(document["orthogonal_axis"]).upper())
        low, high = float(document["axis_min"]), float(document["axis_max"])
        corners = np.asarray(document["bounding_polygon"], np.float64).reshape(-1, 3)
    except (ValueError, KeyError, TypeError) as error:
        raise ReconError(f"{path}: is no crop volume ({type(error).__name__}: {error})") from error
    others = [i for i in range(3) if i != axis]
    polygon = corners[:, others]

    def inside(points: Float[np.ndarray, "n 3"]) -> Bool[np.ndarray, " n"]:
        points = np.asarray(points, np.float64)
        within = (points[:, axis] >= low) & (points[:, axis] <= high)
        out = np.zeros(len(points), bool)
        out[within] = in_polygon(points[within][:, others], polygon)
        return out

    return inside


def in_polygon(xy: Float64[np.ndarray, "n 2"], polygon: Float64[np.ndarray, "k 2"]) -> Bool[np.ndarray, " n"]:
    """Tell whether points are inside a polygon: a ray towards +x crosses its edges an odd number of times."""
    inside = np.zeros(len(xy), bool)
    for a, b in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        crosses = (a[1] > xy[:, 1]) != (b[1] > xy[:, 1])
        if a[1] != b[1]:
            at = a[0] + (xy[:, 1] - a[1]) * (b[0] - a[0]) / (b[1] - a[1])
            inside ^= crosses & (xy[:, 0] < at)
    return inside


READER = Reader("tanks-and-temples", "a file *_COLMAP_SfM.log", knows, read)
