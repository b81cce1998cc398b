"""What EXIF and XMP say of the attitude of a camera."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float64

_ELEVATION_ANGLE = 0x9405
"""CameraElevationAngle, degrees (Exif 2.31, section 4.6.5 H)."""

_GIMBAL = {
    name: re.compile(rb"Gimbal" + name.encode() + rb"Degree\s*(?:=\s*[\"']|>)\s*([-+]?\d+(?:\.\d+)?)")
    for name in ("Pitch", "Roll")
}
"""DJI's XMP: drone-dji:GimbalPitchDegree (-90 looks straight down) and GimbalRollDegree."""


def up_in_camera(elevation: float, roll: float = 0.0) -> Float64[np.ndarray, "3"]:
    """Up in the axes of an upright photo (x right, y down, z forward).

    Args:
        elevation: of the optical axis above the horizon, radians.
        roll: clockwise turn of the camera about its axis as the photographer sees it, radians.
    """
    level = math.cos(elevation)
    return np.array([-level * math.sin(roll), -level * math.cos(roll), math.sin(elevation)])


def up_from_exif(inner: Mapping[int, Any], xmp: bytes = b"") -> Float64[np.ndarray, "3"] | None:
    """Up in camera axes as a photo's metadata tell it, None where they do not.

    Args:
        inner: the Exif sub-directory of the photo, tag number to value.
        xmp: its XMP packet.
    """
    pitch, roll = (_GIMBAL[name].search(xmp) for name in ("Pitch", "Roll"))
    if pitch:
        angle = float(pitch.group(1))
        if abs(angle) <= 90.0:
            turn = float(roll.group(1)) if roll else 0.0
            return up_in_camera(math.radians(angle), math.radians(turn))
    try:
        elevation = float(inner[_ELEVATION_ANGLE])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    if not (math.isfinite(elevation) and abs(elevation) <= 90.0):
        return None
    return up_in_camera(math.radians(elevation))
