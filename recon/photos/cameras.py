"""Grouping of photos by camera, and what is known of each camera before mapping."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from recon.core.cameras import FOCAL_AND_CENTRE, NUMBER_OF_PARAMS, Intrinsics
from recon.photos.exif import DEFAULT_FOCAL_FACTOR, ExifFacts

CameraSharing = Literal["auto", "single", "per-photo"]
CameraModel = Literal[
    "auto", "SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV", "SIMPLE_RADIAL_FISHEYE",
    "RADIAL_FISHEYE", "OPENCV_FISHEYE",
]  # fmt: skip

_ONE_CAMERA_SIZES = 2
_PHOTOS_PER_SIZE = 3
"""Photos without EXIF are from one camera per size if there are at most two sizes in their folder, or on
average at least three photos of each; a collection from the internet has nearly as many sizes as photos."""


@dataclass(frozen=True)
class CameraCandidate:
    """Input of grouping: a photo's name, original size, working size and EXIF."""

    name: str
    original_width: int
    original_height: int
    width: int
    height: int
    exif: ExifFacts


def assign_cameras(
    photos: Sequence[CameraCandidate],
    sharing: CameraSharing = "auto",
    model: CameraModel = "auto",
    known: Mapping[str, Intrinsics] | None = None,
) -> tuple[tuple[Intrinsics, ...], tuple[int, ...]]:
    """Cameras at working size, and for each photo the index of its camera.

    With "auto", photos share a camera when EXIF names the same make, model, serial number, lens, focal length, digital
    zoom, size and orientation; without EXIF, when they lie in one folder and have one size (unless the folder looks
    like a collection of many cameras). "single" shares one camera among all photos of one size, "per-photo" shares
    nothing. Photos with known intrinsics share when these are the same.

    Args:
        photos: in the order of their ids.
        sharing: as above.
        model: COLMAP camera model where nothing is known. With "auto" and fisheye models it is SIMPLE_RADIAL at first:
            without a focal length nothing can be said of a pair of fisheye photos, and mapping finds that.
        known: intrinsics by photo name, at the original size.
    """
    known = known or {}
    collections = _collections(photos)
    cameras: list[Intrinsics] = []
    index_of: dict[Hashable, int] = {}
    indices: list[int] = []
    for photo in photos:
        given = known.get(photo.name)
        key = _known_key(given, photo, sharing) if given else _group_key(photo, sharing, collections)
        if key not in index_of:
            index_of[key] = len(cameras)
            camera = given.resized(photo.width, photo.height) if given else _guess(photo, model)
            cameras.append(camera)
        indices.append(index_of[key])
    return tuple(cameras), tuple(indices)


def _known_key(given: Intrinsics, photo: CameraCandidate, sharing: CameraSharing) -> Hashable:
    if sharing == "per-photo":
        return ("known", photo.name)
    return ("known", given.model, given.params, given.width, given.height)


def _group_key(photo: CameraCandidate, sharing: CameraSharing, collections: set[str]) -> Hashable:
    size = (photo.original_width, photo.original_height)
    if sharing == "single":
        return ("single", size)
    folder = str(PurePosixPath(photo.name).parent)
    exif = photo.exif
    cropped = exif.was_cropped(*size)  # each crop has its middle elsewhere
    if sharing == "per-photo" or cropped or (not exif.names_camera and folder in collections):
        return ("photo", photo.name)
    if exif.names_camera:
        focal = (exif.focal_mm, exif.focal_35mm)
        body = (exif.make, exif.model, exif.serial, exif.lens)
        return ("exif", body, focal, exif.digital_zoom, size, exif.orientation)
    return ("folder", folder, size, exif.orientation)


def _collections(photos: Sequence[CameraCandidate]) -> set[str]:
    """Folders whose photos without EXIF come from many cameras, judged by their sizes."""
    sizes: dict[str, Counter[tuple[int, int]]] = {}
    for photo in photos:
        if not photo.exif.names_camera:
            folder = str(PurePosixPath(photo.name).parent)
            sides = sorted((photo.original_width, photo.original_height))
            sizes.setdefault(folder, Counter())[(sides[0], sides[1])] += 1
    return {
        folder
        for folder, counts in sizes.items()
        if len(counts) > _ONE_CAMERA_SIZES and counts.total() < _PHOTOS_PER_SIZE * len(counts)
    }


def _guess(photo: CameraCandidate, model: CameraModel) -> Intrinsics:
    """A camera with the focal length that EXIF tells, or COLMAP's default; principal point in the middle."""
    focal = photo.exif.focal_pixels(photo.original_width, photo.original_height)
    has_prior = focal is not None
    if focal is None:
        focal = photo.exif.zoomed_focal_pixels(photo.original_width, photo.original_height)
    if focal is None:
        focal = DEFAULT_FOCAL_FACTOR * max(photo.original_width, photo.original_height)
    # One scale for both axes: pixels are square, the working size is only rounded.
    focal *= max(photo.width, photo.height) / max(photo.original_width, photo.original_height)
    cx, cy = (photo.width - 1) / 2, (photo.height - 1) / 2
    first = "SIMPLE_RADIAL" if model == "auto" or model.endswith("FISHEYE") else model
    params = [0.0] * NUMBER_OF_PARAMS[first]
    for index, value in zip(FOCAL_AND_CENTRE[first], (focal, focal, cx, cy), strict=True):
        params[index] = value
    return Intrinsics(first, tuple(params), photo.width, photo.height, has_focal_prior=has_prior)
