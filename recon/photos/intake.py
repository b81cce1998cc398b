"""The way of a photo into a run: decoded, brought to working size, compared with the others, given a camera."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from recon.core.cameras import Intrinsics
from recon.core.resize import resize_mask, resize_rgb, working_size
from recon.errors import ReconError
from recon.photos.cameras import CameraCandidate, CameraModel, CameraSharing, assign_cameras
from recon.photos.reading import PhotoError, decode_photo, in_turn, read_mask
from recon.photos.scanning import PhotoFile, photo_sha256
from recon.photos.types import LeftOut, LoadedPhoto, Photo, PhotoSet

# Side of the grey pictures in which copies of other sizes are found, how far their grey levels may differ, and how far
# the aspects. Averages over so many pixels keep of JPEG and resampling a few levels; another view of the scene differs
# by far more somewhere.
_SMALL = 32
_COPY_LEVELS = 8
_COPY_ASPECT = 0.02
# Of a full panorama: aspect, deviation of the rows at the poles against the middle, step over the seam against the
# steps elsewhere.
_PANORAMA_ASPECT = 0.01
_POLE_DEVIATION = 0.25
_SEAM_STEP = 3.0


@dataclass(frozen=True)
class PhotoFacts:
    """Facts found by reading one photo.

    Attributes:
        candidate: what the grouping of cameras looks at.
        sha256: of the file. pixels_sha256: of the pixels at working size.
        small: grey picture of ``_SMALL`` x ``_SMALL`` pixels, to find copies of another size.
    """

    candidate: CameraCandidate
    sha256: str
    pixels_sha256: str
    has_mask: bool
    small: UInt8[np.ndarray, "s s"] = field(compare=False, repr=False)


def read_photo(
    file: PhotoFile, mask_path: Path | None, max_size: int, min_side: int
) -> tuple[PhotoFacts, LoadedPhoto] | LeftOut:
    """Read a photo at working size, with its own mask and the one of a file joined; or say why it is left out.

    Args:
        max_size: longest side at working size. min_side: shorter sides below this are left out.
    """
    with in_turn(file.path):
        return _read_photo(file, mask_path, max_size, min_side)


def _read_photo(
    file: PhotoFile, mask_path: Path | None, max_size: int, min_side: int
) -> tuple[PhotoFacts, LoadedPhoto] | LeftOut:
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
    if is_equirectangular(rgb):
        return LeftOut(
            file.name, "is a 360° panorama; 'recon panoramas' cuts such photos into views, give these"
        )
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
    facts = PhotoFacts(candidate, photo_sha256(file.path), pixels, mask is not None, _small_grey(rgb))
    return facts, LoadedPhoto(rgb, mask)


def _small_grey(rgb: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "s s"]:
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, (_SMALL, _SMALL), interpolation=cv2.INTER_AREA))


def is_equirectangular(rgb: UInt8[np.ndarray, "h w 3"]) -> bool:
    """Recognise a full panorama: twice as wide as high, its sides fit together, its poles are one point each."""
    height, width = rgb.shape[:2]
    if height < 16 or abs(width / (2 * height) - 1) > _PANORAMA_ASPECT:
        return False
    values = rgb.astype(np.float32)
    step = np.abs(np.diff(values, axis=1)).mean()
    seam = np.abs(values[:, 0] - values[:, -1]).mean()
    rows = values.std(axis=1).mean(axis=1)
    flat = max(rows[0], rows[-1]) < _POLE_DEVIATION * rows[height // 3 : 2 * height // 3].mean()
    return bool(flat and seam < _SEAM_STEP * step + 2.0)


def without_duplicates(results: Iterable[PhotoFacts | LeftOut]) -> tuple[list[PhotoFacts], list[LeftOut]]:
    """Separate the usable photos from those left out.

    Of photos with the same content only one stays, since a pair of twins has no baseline: of equal files the first, of
    copies in several sizes the largest.
    """
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
    copies = _smaller_copies(usable)
    left_out += [LeftOut(name, f"is a smaller copy of {original}") for name, original in copies.items()]
    return [one for one in usable if one.candidate.name not in copies], left_out


def _smaller_copies(photos: Sequence[PhotoFacts]) -> dict[str, str]:
    """Names of photos that are copies of larger ones, with the names of these."""
    if len({(one.candidate.original_width, one.candidate.original_height) for one in photos}) < 2:
        return {}
    by_size = sorted(photos, key=lambda one: -one.candidate.original_width * one.candidate.original_height)
    small = np.stack([one.small.astype(np.int16) for one in by_size])
    found: dict[str, str] = {}
    for row, one in enumerate(by_size):
        for larger in np.nonzero(
            np.abs(small[:row] - small[row]).max(axis=(1, 2), initial=0) <= _COPY_LEVELS
        )[0]:
            original = by_size[int(larger)].candidate
            mine = one.candidate
            shape = (
                mine.original_width
                * original.original_height
                / (mine.original_height * original.original_width)
            )
            if original.original_width > mine.original_width and abs(shape - 1) < _COPY_ASPECT:
                found[mine.name] = found.get(original.name, original.name)
                break
    return found


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
    return PhotoSet(photos, cameras, tuple(left_out), None if model == "auto" else model)


def too_few_in_words(places: str, usable: Sequence[PhotoFacts], left_out: Sequence[LeftOut]) -> str:
    """Reason that there are not two photos to reconstruct from, with the reasons of the first that were left out."""
    found = f"only one photo can be used, {usable[0].candidate.name}" if usable else "no photo can be used"
    text = f"{places}: {found}; a reconstruction needs two or more that overlap"
    for one in left_out[:5]:
        text += f"\n  {one.name}: {one.reason}"
    if len(left_out) > 5:
        text += f"\n  ... and {len(left_out) - 5} more"
    return text
