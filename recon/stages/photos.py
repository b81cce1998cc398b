"""Stage ``photos``: brings the user's photos to working size and finds out which of them share a camera."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, Field

from recon.core.resize import resize_mask, resize_rgb, working_size
from recon.engine.stage import StageContext
from recon.errors import ReconError, UsageError
from recon.io.pictures import encode_picture
from recon.photos.cameras import CameraCandidate, CameraModel, CameraSharing, assign_cameras
from recon.photos.intrinsics import read_intrinsics
from recon.photos.reading import IMAGE_NAMES, PhotoError, decode_photo, read_mask
from recon.photos.scanning import Found, PhotoFile, file_sha256, find_masks, find_photos
from recon.photos.types import LeftOut, Photo, PhotoSet
from recon.run.folder import RunFolder
from recon.run.inputs import RunInputs
from recon.run.photos import PHOTOS, mask_file, photo_file
from recon.stages.frames import take_frames


class PhotosSettings(BaseModel):
    """How photos are read."""

    model_config = ConfigDict(extra="forbid")
    max_size: int = Field(
        1024, ge=64, le=16384, description="longest side of the photos that all stages work on"
    )
    min_side: int = Field(
        64, ge=16, description="photos whose shorter side is below this at working size are left out"
    )
    camera_sharing: CameraSharing = Field(
        "auto", description="which photos share a camera: auto (by EXIF, size and folder), single, per-photo"
    )
    camera_model: CameraModel = Field("SIMPLE_RADIAL", description="COLMAP camera model where none is known")


@dataclass(frozen=True)
class _Read:
    """What reading one photo found out."""

    candidate: CameraCandidate
    sha256: str
    pixels_sha256: str
    has_mask: bool


class PhotosStage:
    """Reads, turns upright, resizes and stores the photos; leaves out what cannot be used and says why."""

    name: ClassVar[str] = "photos"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ()
    Settings: ClassVar[type[BaseModel]] = PhotosSettings

    def inputs_fingerprint(self, work: StageContext) -> str:
        """Hash of names and contents of photos, masks and intrinsics."""
        _sharing_option(work)
        found = _found(work)
        masks = _masks(work, found)
        listed = [("photo", one.name, one.path) for one in found.photos]
        listed += [("film", one.name, one.path) for one in found.films]
        listed += [("mask", name, path) for name, path in sorted(masks.items())]
        listed += [("intrinsics", path.name, path) for path in _intrinsics_files(work)]
        digest = hashlib.sha256()
        for (kind, name, _), sha in zip(
            listed, work.map(_sha_of, listed, "looking at the photos"), strict=True
        ):
            digest.update(f"{kind}\0{name}\0{sha}\n".encode("utf-8", "surrogateescape"))
        for option in ("intrinsics", "camera_sharing", "frames"):
            value = getattr(work.inputs, option)
            if value and not Path(str(value)).exists():
                digest.update(f"{option}\0{value}\n".encode())
        return digest.hexdigest()

    def run(self, settings: PhotosSettings, work: StageContext) -> dict[str, Any]:
        found = _found(work)
        frames, bad_films = take_frames(found.films, work)
        files = (*found.photos, *frames)
        masks = _masks(work, found)
        _say_what_was_found(found, files, masks, work)
        with work.fresh_directory(PHOTOS) as folder:

            def read(file: PhotoFile) -> _Read | LeftOut:
                return _read(file, masks.get(file.name), settings, folder)

            usable, left_out = _without_duplicates(work.map(read, files, "reading photos"))
            left_out = [*bad_films, *left_out]
            for one in left_out:
                work.warn(f"left out {one.name}: {one.reason}")
                for path in (folder / photo_file(one.name), folder / mask_file(one.name)):
                    path.unlink(missing_ok=True)
            if len(usable) < 2:
                raise ReconError(_too_few(work, usable, left_out))
        photo_set = _photo_set(usable, left_out, settings, work)
        RunFolder.of(work).write_photo_set(photo_set)
        with_prior = sum(camera.has_focal_prior for camera in photo_set.cameras)
        longest = max(max(photo.width, photo.height) for photo in photo_set.photos)
        return {
            "photos": len(photo_set.photos),
            "cameras": len(photo_set.cameras),
            "cameras_with_focal_length": with_prior,
            "left_out": len(left_out),
            "px_longest_side": longest,
            **({"films": len(found.films), "frames": len(frames)} if found.films else {}),
            **({"files_passed_over": len(found.passed_over)} if found.passed_over else {}),
        }


# The parts of the stage


def _found(work: StageContext) -> Found:
    """What lies in the places that the user named; the workspace and the masks may lie inside the photo folder."""
    inputs: RunInputs = work.inputs
    exclude = [work.root, *([inputs.mask_folder] if inputs.mask_folder else [])]
    found = find_photos(list(inputs.photos), exclude)
    if not found.photos and not found.films:
        text = f"{inputs.places}: holds no photos and no film; read are {IMAGE_NAMES}"
        for one in found.passed_over[:5]:
            text += f"\n  {one.name}: {one.reason}"
        raise ReconError(text)
    return found


def _say_what_was_found(
    found: Found, files: tuple[PhotoFile, ...], masks: Mapping[str, Path], work: StageContext
) -> None:
    """Tell of files that were passed over, and of photos that have no mask although others do."""
    if found.passed_over:
        first = "; ".join(f"{one.name} {one.reason}" for one in found.passed_over[:5])
        more = f"; and {len(found.passed_over) - 5} more" if len(found.passed_over) > 5 else ""
        work.log.info("passed over %d files: %s%s", len(found.passed_over), first, more)
    without = [one.name for one in files if one.name not in masks]
    if masks and without:
        names = ", ".join(without[:10]) + (", ..." if len(without) > 10 else "")
        work.warn(f"masks for {len(masks)} of {len(files)} photos; these are used whole: {names}")
    elif masks:
        work.log.info("masks for all %d photos", len(files))


def _sharing_option(work: StageContext) -> CameraSharing | None:
    """What the user said on the command line, which goes before the recipe."""
    given = work.inputs.camera_sharing
    for choice in get_args(CameraSharing):
        if given == choice:
            return choice
    if given is not None:
        raise UsageError(f"--camera-sharing {given}: it is one of {', '.join(get_args(CameraSharing))}")
    return None


def _masks(work: StageContext, found: Found) -> dict[str, Path]:
    """The masks of the folder that the user gave, else those that lie beside the photos."""
    folder = work.inputs.mask_folder
    return find_masks(folder, found.photos) if folder else dict(found.masks)


def _intrinsics_files(work: StageContext) -> list[Path]:
    spec = work.inputs.intrinsics
    if not spec:
        return []
    path = Path(spec).expanduser()
    return [one for one in (path, path.with_name("images.txt")) if one.is_file()]


def _sha_of(listed: tuple[str, str, Path]) -> str:
    return file_sha256(listed[2])


def _read(file: PhotoFile, mask_path: Path | None, settings: PhotosSettings, folder: Path) -> _Read | LeftOut:
    """Decode one photo, bring it to working size and store it."""
    try:
        decoded = decode_photo(file.path)
    except PhotoError as error:
        return LeftOut(file.name, str(error))
    width, height = working_size(decoded.width, decoded.height, settings.max_size)
    if min(width, height) < settings.min_side:
        reason = f"{decoded.width}x{decoded.height} pixels"
        if (width, height) != (decoded.width, decoded.height):
            reason += f" become {width}x{height} at working size"
        return LeftOut(file.name, f"{reason}: too small, the shorter side must have {settings.min_side}")
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
        (folder / mask_file(file.name)).write_bytes(encode_picture(mask))
    (folder / photo_file(file.name)).write_bytes(encode_picture(rgb))
    candidate = CameraCandidate(file.name, decoded.width, decoded.height, width, height, decoded.exif)
    pixels = hashlib.sha256(f"{width}x{height}".encode() + rgb.tobytes()).hexdigest()
    return _Read(candidate, file_sha256(file.path), pixels, mask is not None)


def _without_duplicates(results: list[_Read | LeftOut]) -> tuple[list[_Read], list[LeftOut]]:
    """Of photos with the same content only the first stays: a pair of twins has no baseline."""
    usable: list[_Read] = []
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


def _too_few(work: StageContext, usable: list[_Read], left_out: list[LeftOut]) -> str:
    found = "only one photo" if usable else "no photo"
    text = f"{work.inputs.places}: {found} can be used; a reconstruction needs two or more that overlap"
    for one in left_out[:5]:
        text += f"\n  {one.name}: {one.reason}"
    if len(left_out) > 5:
        text += f"\n  ... and {len(left_out) - 5} more"
    return text


def _photo_set(
    usable: list[_Read], left_out: list[LeftOut], settings: PhotosSettings, work: StageContext
) -> PhotoSet:
    """Ids, cameras and priors."""
    candidates = [one.candidate for one in usable]
    spec = work.inputs.intrinsics
    known = read_intrinsics(spec, candidates) if spec else {}
    missing = [one.name for one in candidates if spec and one.name not in known]
    if missing:
        work.warn(f"{spec}: has no intrinsics for {len(missing)} photos, for example {missing[0]}")
    sharing = _sharing_option(work) or settings.camera_sharing
    cameras, camera_of = assign_cameras(candidates, sharing, settings.camera_model, known)
    if sharing == "single" and len(cameras) > 1:
        work.warn(f"the photos have {len(cameras)} sizes: one camera for each of them")
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
