"""The way of a photo into a run: decoded, brought to working size, compared with the others, given a camera."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recon.core.cameras import Intrinsics
from recon.core.resize import resize_mask, resize_rgb, working_size
from recon.errors import ReconError
from recon.photos.cameras import CameraCandidate, CameraModel, CameraSharing, assign_cameras
from recon.photos.reading import PhotoError, decode_photo, read_mask
from recon.photos.scanning import PhotoFile, file_sha256
from recon.photos.types import LeftOut, LoadedPhoto, Photo, PhotoSet


@dataclass(frozen=True)
class PhotoFacts:
    """What reading one photo found out.

    Attributes:
        candidate: what the grouping of cameras looks at.
        sha256: of the file. pixels_sha256: of the pixels at working size.
    """

    candidate: CameraCandidate
    sha256: str
    pixels_sha256: str
    has_mask: bool


def read_photo(
    file: PhotoFile, mask_path: Path | None, max_size: int, min_side: int
) -> tuple[PhotoFacts, LoadedPhoto] | LeftOut:
    """Read a photo at working size, with its own mask and the one of a file joined; or say why it is left out.

    Args:
        max_size: longest side at working size. min_side: shorter sides below this are left out.
    """
    try:
        decoded = decode_photo(file.path)
    except PhotoError as error:
        return LeftOut(file.name, str(error))
    width, height = working_size(decoded.width, decoded.height, max_size)
    if min(width, height) < min_side:
        reason = f"{decoded.width}x{decoded.height} pixels"
        if (width, height) != (decoded.width, decoded.height):
            reason += f" become {width}x{height} at working size"
        return LeftOut(file.name, f"{reason}: too small, the shorter side must have {min_side}")
    rgb = resize_rgb(decoded.pixels.rgb, width, height)
    mask = decoded.pixels.mask
    if mask_path is not None:
        rgb_height, rgb_width = decoded.pixels.rgb.shape[:2]
        try:
            drawn = read_mask(mask_path, rgb_width, rgb_height, decoded.exif.orientation)
        except ReconError as error:
            return LeftOut(file.name, str(error))
        mask = drawn if mask is None else mask & drawn
    if mask is not None:
        mask = resize_mask(mask, width, height)
        if not mask.any():
            return LeftOut(file.name, "its mask leaves nothing of it")
    candidate = CameraCandidate(file.name, decoded.width, decoded.height, width, height, decoded.exif)
    pixels = hashlib.sha256(f"{width}x{height}".encode() + rgb.tobytes()).hexdigest()
    facts = PhotoFacts(candidate, file_sha256(file.path), pixels, mask is not None)
    return facts, LoadedPhoto(rgb, mask)


def without_duplicates(results: Iterable[PhotoFacts | LeftOut]) -> tuple[list[PhotoFacts], list[LeftOut]]:
    """The usable photos and those left out. Of photos with the same content only the first stays: a pair of twins has
    no baseline."""
    usable: list[PhotoFacts] = []
    left_out: list[LeftOut] = []
    first_of: dict[str, str] = {}
    for result in results:
        if isinstance(result, LeftOut):
            left_out.append(result)
        elif result.pixels_sha256 in first_of:
            twin = first_of[result.pixels_sha256]
            left_out.append(LeftOut(result.candidate.name, f"has the same content as {twin}"))
        else:
            first_of[result.pixels_sha256] = result.candidate.name
            usable.append(result)
    return usable, left_out


def make_photo_set(
    usable: Sequence[PhotoFacts],
    left_out: Sequence[LeftOut],
    sharing: CameraSharing,
    model: CameraModel,
    known: Mapping[str, Intrinsics],
) -> PhotoSet:
    """Photos with ids in their order, and cameras with what is known of them.

    Args:
        sharing: which photos share a camera. model: of cameras that are not known.
        known: intrinsics by photo name.
    """
    cameras, camera_of = assign_cameras([one.candidate for one in usable], sharing, model, known)
    photos = tuple(
        Photo(
            id=index,
            name=one.candidate.name,
            sha256=one.sha256,
            width=one.candidate.width,
            height=one.candidate.height,
            original_width=one.candidate.original_width,
            original_height=one.candidate.original_height,
            camera=camera_of[index],
            has_mask=one.has_mask,
            latitude_longitude_altitude=one.candidate.exif.position,
        )
        for index, one in enumerate(usable)
    )
    return PhotoSet(photos, cameras, tuple(left_out))
