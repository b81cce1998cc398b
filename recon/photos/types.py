"""Photos of a run, and the cameras that they share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8

from recon.core.cameras import Intrinsics


@dataclass(frozen=True)
class Photo:
    """One photo that a run uses.

    Attributes:
        id: position in the photo set (0-based, sorted by name).
        name: path relative to the photo folder, with forward slashes.
        sha256: hash of the file's bytes.
        width, height: working size in pixels (orientation already applied).
        original_width, original_height: size of the file's image, orientation applied.
        camera: index into ``PhotoSet.cameras``.
    """

    id: int
    name: str
    sha256: str
    width: int
    height: int
    original_width: int
    original_height: int
    camera: int
    has_mask: bool = False
    latitude_longitude_altitude: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class LeftOut:
    """A photo that could not be used, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class PhotoSet:
    """All photos of a run, the cameras that they share (at working size), and the photos left out.

    Attributes:
        lens: COLMAP's camera model that the user named for cameras that are not known; None to let the photos choose.
    """

    photos: tuple[Photo, ...]
    cameras: tuple[Intrinsics, ...]
    left_out: tuple[LeftOut, ...] = ()
    lens: str | None = None


@dataclass(frozen=True)
class LoadedPhoto:
    """Pixels of one photo: RGB uint8 and a mask that is True where the photo may be used."""

    rgb: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h w"] | None = None
