"""Stage ``photos``: brings the user's photos to working size and finds out which of them share a camera."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from recon.engine.stage import StageContext
from recon.errors import ReconError
from recon.io.pictures import encode_picture
from recon.photos.cameras import CameraModel, CameraSharing
from recon.photos.intake import (
    PhotoFacts,
    make_photo_set,
    read_photo,
    too_few_in_words,
    without_duplicates,
)
from recon.photos.intrinsics import read_intrinsics
from recon.photos.scanning import Found, PhotoFile, photo_sha256
from recon.photos.types import LeftOut
from recon.run.folder import RunFolder
from recon.run.inputs import RunInputs
from recon.run.photos import PHOTOS, mask_file, photo_file
from recon.stages.frames import take_frames


class PhotosSettings(BaseModel):
    """Settings for reading photos."""

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
    camera_model: CameraModel = Field(
        "auto",
        description="COLMAP's camera model where none is known; auto: the simplest that the photos do not contradict",
    )


class PhotosStage:
    """Reads, turns upright, resizes and stores the photos; leaves out what cannot be used and says why."""

    name: ClassVar[str] = "photos"
    version: ClassVar[int] = 2
    reads: ClassVar[tuple[str, ...]] = ()
    Settings: ClassVar[type[BaseModel]] = PhotosSettings

    def inputs_fingerprint(self, work: StageContext) -> str:
        """Hash of names and contents of photos, masks and intrinsics."""
        inputs: RunInputs = work.inputs
        inputs.sharing()
        listed = inputs.files(inputs.find(work.root))
        hashes = work.map(photo_sha256, [path for _, _, path in listed], "looking at the photos")
        digest = hashlib.sha256()
        for (kind, name, _), sha in zip(listed, hashes, strict=True):
            digest.update(f"{kind}\0{name}\0{sha}\n".encode("utf-8", "surrogateescape"))
        for option in ("intrinsics", "camera_sharing", "frames"):
            value = getattr(inputs, option)
            if value and not Path(str(value)).exists():
                digest.update(f"{option}\0{value}\n".encode())
        return digest.hexdigest()

    def run(self, settings: PhotosSettings, work: StageContext) -> dict[str, Any]:
        inputs: RunInputs = work.inputs
        found = inputs.find(work.root)
        frames, bad_films = take_frames(found.films, work)
        files = (*found.photos, *frames)
        masks = inputs.masks_of(found)
        _tell_what_was_found(found, files, masks, work)
        with work.fresh_directory(PHOTOS) as folder:

            def read(file: PhotoFile) -> PhotoFacts | LeftOut:
                result = read_photo(file, masks.get(file.name), settings.max_size, settings.min_side)
                if isinstance(result, LeftOut):
                    return result
                facts, pixels = result
                (folder / photo_file(file.name)).write_bytes(encode_picture(pixels.rgb))
                if pixels.mask is not None:
                    (folder / mask_file(file.name)).write_bytes(encode_picture(pixels.mask))
                return facts

            usable, left_out = without_duplicates(work.map(read, files, "reading photos"))
            left_out = [*bad_films, *left_out]
            for one in left_out:
                work.warn(f"left out {one.name}: {one.reason}")
                for path in (folder / photo_file(one.name), folder / mask_file(one.name)):
                    path.unlink(missing_ok=True)
            if len(usable) < 2:
                raise ReconError(too_few_in_words(inputs.places, usable, left_out))
        candidates = [one.candidate for one in usable]
        known = read_intrinsics(inputs.intrinsics, candidates) if inputs.intrinsics else {}
        missing = [one.name for one in candidates if inputs.intrinsics and one.name not in known]
        if missing:
            work.warn(
                f"{inputs.intrinsics}: has no intrinsics for {len(missing)} photos, for example {missing[0]}"
            )
        cropped = [
            one.name for one in candidates if one.exif.was_cropped(one.original_width, one.original_height)
        ]
        if cropped and not known:
            work.warn(
                f"{len(cropped)} photos were cropped after they were taken, for example {cropped[0]}: the "
                "middle of the lens is no longer the middle of the picture, and cameras may come out wrong. "
                "Give the whole photos"
            )
        sharing = inputs.sharing() or settings.camera_sharing
        photo_set = make_photo_set(usable, left_out, sharing, settings.camera_model, known)
        if sharing == "single" and len(photo_set.cameras) > 1:
            work.warn(f"the photos have {len(photo_set.cameras)} sizes: one camera for each of them")
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


def _tell_what_was_found(
    found: Found, files: tuple[PhotoFile, ...], masks: Mapping[str, Path], work: StageContext
) -> None:
    """Tell of files that were passed over, and of photos that have no mask although others do."""
    if found.passed_over:
        work.log.info(found.passed_over_in_words, extra={"screen": True})
    without = [one.name for one in files if one.name not in masks]
    if masks and without:
        names = ", ".join(without[:10]) + (", ..." if len(without) > 10 else "")
        work.warn(f"masks for {len(masks)} of {len(files)} photos; these are used whole: {names}")
    elif masks:
        work.log.info("masks for all %d photos", len(files))
