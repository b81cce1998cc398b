"""Cameras that the user gives for the photos of a run: another run's, a COLMAP model's, or the true ones."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Float64

from recon.core.cameras import Intrinsics
from recon.core.colmap import read_reconstruction
from recon.core.posed import Camera, registered_cameras
from recon.datasets.ground_truth import has_ground_truth, load_ground_truth
from recon.errors import ReconError, UsageError
from recon.photos.intrinsics import resized_to_photo
from recon.photos.types import PhotoSet
from recon.run.state import refuse_old

ESTIMATE = "estimate"
"""The value of ``map.poses`` for which cameras are found from the photos."""


def read_cameras(where: str | Path) -> dict[str, Camera]:
    """Read cameras by photo name.

    Args:
        where: a workspace, a folder with a COLMAP model, a ``cameras.json``, or a scene whose truth has cameras.

    Raises:
        UsageError: there is no such place. ReconError: it holds no cameras that can be read, or old ones.
    """
    place = Path(where).expanduser()
    if not place.exists():
        raise UsageError(f"map.poses = {where}: there is no such file or folder")
    refuse_old(place, "sparse/0")
    for model in (place, place / "sparse" / "0"):
        if any((model / f"images{suffix}").is_file() for suffix in (".bin", ".txt")):
            return registered_cameras(read_reconstruction(model), known=True)
    if has_ground_truth(place):
        found = load_ground_truth(place).cameras
        if found:
            return dict(found)
    raise ReconError(
        f"{place}: holds no cameras; give a finished run, a COLMAP model (cameras.bin and images.bin), "
        "a cameras.json or a scene with true cameras"
    )


def cameras_fingerprint(where: str | Path) -> str:
    """Hash of the cameras, whatever file they come from."""
    digest = hashlib.sha256()
    for name, camera in sorted(read_cameras(where).items()):
        digest.update(f"{name}\0{camera.intrinsics}\n".encode())
        digest.update(np.ascontiguousarray(camera.cam_from_world, np.float64).tobytes())
    return digest.hexdigest()


def with_given_intrinsics(photos: PhotoSet, cameras: Mapping[str, Camera], where: str | Path) -> PhotoSet:
    """The photo set with the given intrinsics at working size; photos that have none keep their own.

    Raises:
        ReconError: fewer than two photos have a camera. UsageError: a camera is for a photo of another shape.
    """
    given = _by_photo(photos, cameras)
    if len(given) < 2:
        have, want = sorted(cameras), [photo.name for photo in photos.photos]
        raise ReconError(
            f"{where}: has cameras for {len(given)} of the {len(want)} photos, two are needed. It names "
            f"{_some(have)}; the photos are {_some(want)}. Give the cameras of these photos"
        )
    index: dict[Intrinsics, int] = {}
    chosen = []
    for photo in photos.photos:
        intrinsics = photos.cameras[photo.camera]
        if photo.id in given:
            intrinsics = replace(
                resized_to_photo(
                    given[photo.id].intrinsics, photo.width, photo.height, f"{where}: {photo.name}"
                ),
                known=True,
                has_focal_prior=True,
            )
        chosen.append(replace(photo, camera=index.setdefault(intrinsics, len(index))))
    return PhotoSet(tuple(chosen), tuple(index), photos.left_out)


def given_poses(photos: PhotoSet, cameras: Mapping[str, Camera]) -> dict[int, Float64[np.ndarray, "3 4"]]:
    """Poses by photo id, of the photos that have one."""
    return {photo: camera.cam_from_world for photo, camera in _by_photo(photos, cameras).items()}


def photos_with_given_cameras(
    photos: PhotoSet, where: str
) -> tuple[PhotoSet, dict[int, Float64[np.ndarray, "3 4"]] | None]:
    """The photo set with the intrinsics that are to be used, and the poses by photo id; None to estimate them.

    Args:
        where: ``ESTIMATE``, or as ``read_cameras`` takes it, with its errors.
    """
    if where == ESTIMATE:
        return photos, None
    cameras = read_cameras(where)
    photos = with_given_intrinsics(photos, cameras, where)
    return photos, given_poses(photos, cameras)


def _by_photo(photos: PhotoSet, cameras: Mapping[str, Camera]) -> dict[int, Camera]:
    """Cameras by photo id: the same name, else the same file name where that is unique on both sides."""
    files = Counter(PurePosixPath(name).name for name in cameras)
    unique = {
        PurePosixPath(name).name: one for name, one in cameras.items() if files[PurePosixPath(name).name] == 1
    }
    mine = Counter(PurePosixPath(photo.name).name for photo in photos.photos)
    found = {}
    for photo in photos.photos:
        file = PurePosixPath(photo.name).name
        if photo.name in cameras:
            found[photo.id] = cameras[photo.name]
        elif file in unique and mine[file] == 1:
            found[photo.id] = unique[file]
    return found


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
