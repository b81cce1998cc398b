"""EXIF of a photo: orientation, camera, focal length, position.

Tag numbers are those of Exif 2.32 (CIPA DC-008), sections 4.6.4 to 4.6.6.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

Array = TypeVar("Array", bound=np.ndarray)

DEFAULT_FOCAL_FACTOR = 1.2
"""Focal length over the longest side when nothing is known; COLMAP's default."""

_DIAGONAL_35MM = math.hypot(36.0, 24.0)
"""Diagonal of the 35 mm frame in mm; the 35 mm equivalent is defined by diagonals (CIPA DCG-001)."""

_MAKE, _MODEL, _ORIENTATION = 0x010F, 0x0110, 0x0112
_EXIF_IFD, _GPS_IFD = 0x8769, 0x8825
_FOCAL_LENGTH, _FOCAL_35MM = 0x920A, 0xA405
_PIXEL_WIDTH, _PIXEL_HEIGHT = 0xA002, 0xA003
_PLANE_X_RESOLUTION, _PLANE_UNIT = 0xA20E, 0xA210
_LENS_MODEL, _DIGITAL_ZOOM, _BODY_SERIAL = 0xA434, 0xA404, 0xA431
_UNIT_IN_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
_PLAUSIBLE_FOCAL = (0.2, 20.0)  # focal length over the longest side; from fisheyes to long telephoto lenses


# 35 mm equivalent over focal length: the largest of the smallest sensors, and the largest of a lens of so many mm.
# Beyond, the two contradict each other: one of them was typed in, or belongs to another lens.
_PLAUSIBLE_CROP = (0.3, 12.0)
_LONG_LENS_MM, _LONG_LENS_CROP = 15.0, 7.0
# Shapes that differ by less are the same one, rounded when the picture was resized.
_SAME_SHAPE = 0.02
# Two ways to the focal length in pixels may differ by this factor.
_SAME_FOCAL = 1.5


@dataclass(frozen=True)
class ExifFacts:
    """The facts of EXIF that matter for geometry; None where it says nothing (or nonsense).

    Attributes:
        orientation: 1…8, how the stored image has to be turned to stand upright.
        focal_mm: focal length in mm.
        focal_35mm: focal length of the lens that gives the same picture on a 35 mm frame.
        pixels_per_mm: resolution of the sensor.
        stored_longest: longest side in pixels when the camera wrote the file.
        position: latitude and longitude in degrees, altitude in metres.
        digital_zoom: factor by which the camera enlarged the middle of its picture; 1 without.
        serial: number of the camera's body.
        stored_shortest: shortest side in pixels when the camera wrote the file.
    """

    orientation: int = 1
    make: str = ""
    model: str = ""
    lens: str = ""
    focal_mm: float | None = None
    focal_35mm: float | None = None
    pixels_per_mm: float | None = None
    stored_longest: int | None = None
    position: tuple[float, float, float] | None = None
    digital_zoom: float = 1.0
    serial: str = ""
    stored_shortest: int | None = None

    @property
    def contradicts_itself(self) -> bool:
        """The focal length and its 35 mm equivalent belong to no sensor there is."""
        if not (self.focal_mm and self.focal_35mm):
            return False
        crop = self.focal_35mm / self.focal_mm
        low, high = _PLAUSIBLE_CROP
        return not low <= crop <= high or (self.focal_mm >= _LONG_LENS_MM and crop > _LONG_LENS_CROP)

    def was_cropped(self, width: int, height: int) -> bool:
        """The picture has another shape than the one that the camera wrote."""
        if not (self.stored_longest and self.stored_shortest):
            return False
        stored = self.stored_longest / self.stored_shortest
        return abs(max(width, height) / min(width, height) / stored - 1) > _SAME_SHAPE

    @property
    def names_camera(self) -> bool:
        """EXIF says which camera took the photo."""
        return bool(self.make or self.model)

    def focal_pixels(self, width: int, height: int) -> float | None:
        """Focal length in pixels of the image at this size, None when EXIF does not tell.

        First choice is the focal length with the sensor's resolution (corrected if the file was resized
        since), then the 35 mm equivalent, which cameras round to whole millimetres. COLMAP divides the
        equivalent by 35 and takes the longest side; we follow the standard, which compares diagonals.
        Values that contradict each other tell nothing, nor do those of the whole frame about a crop of it.
        Nor does a photo with digital zoom: some cameras count it into
        the equivalent, some do not.
        """
        if self.contradicts_itself or self.digital_zoom != 1.0 or self.was_cropped(width, height):
            return None
        longest = max(width, height)
        candidates: list[float] = []
        if self.focal_mm and self.pixels_per_mm:
            candidates.append(self.focal_mm * self.pixels_per_mm * longest / (self.stored_longest or longest))
        if self.focal_35mm:
            candidates.append(self.focal_35mm / _DIAGONAL_35MM * math.hypot(width, height))
        low, high = _PLAUSIBLE_FOCAL
        candidates = [focal for focal in candidates if low <= focal / longest <= high]
        if not candidates or max(candidates) > _SAME_FOCAL * min(candidates):
            return None
        return candidates[0]

    def zoomed_focal_pixels(self, width: int, height: int) -> float | None:
        """Start value of the focal length of a photo with digital zoom; None without digital zoom."""
        if self.digital_zoom == 1.0:
            return None
        plain = replace(self, digital_zoom=1.0).focal_pixels(width, height)
        return None if plain is None else plain * self.digital_zoom


def exif_facts(exif: Any) -> ExifFacts:
    """Facts of a ``PIL.Image.Exif``; damaged entries count as absent."""
    inner: Mapping[int, Any] = _sub_directory(exif, _EXIF_IFD)
    unit = _UNIT_IN_MM.get(int(_number(inner.get(_PLANE_UNIT)) or 2))
    resolution = _number(inner.get(_PLANE_X_RESOLUTION))
    sides = [_number(inner.get(_PIXEL_WIDTH)) or 0.0, _number(inner.get(_PIXEL_HEIGHT)) or 0.0]
    orientation = int(_number(exif.get(_ORIENTATION)) or 1)
    return ExifFacts(
        orientation=orientation if 1 <= orientation <= 8 else 1,
        make=_text(exif.get(_MAKE)),
        model=_text(exif.get(_MODEL)),
        lens=_text(inner.get(_LENS_MODEL)),
        focal_mm=_number(inner.get(_FOCAL_LENGTH)),
        focal_35mm=_number(inner.get(_FOCAL_35MM)),
        pixels_per_mm=resolution / unit if resolution and unit else None,
        stored_longest=int(max(sides)) or None,
        stored_shortest=int(min(sides)) or None,
        position=_position(_sub_directory(exif, _GPS_IFD)),
        digital_zoom=max(1.0, _number(inner.get(_DIGITAL_ZOOM)) or 1.0),
        serial=_text(inner.get(_BODY_SERIAL)),
    )


_GPS_ERROR = 31
"""GPSHPositioningError, metres (Exif 2.31, section 4.6.6)."""

_RTK = {
    name: re.compile(rb"RtkStd" + name.encode() + rb"\s*(?:=\s*[\"']|>)\s*([-+]?\d+(?:\.\d+)?)")
    for name in ("Lon", "Lat", "Hgt")
}
"""DJI's XMP: drone-dji:RtkStdLon, RtkStdLat and RtkStdHgt, standard deviations in metres."""


def position_accuracy(exif: Any, xmp: bytes = b"") -> tuple[float, float, float] | None:
    """Standard deviations east, north and up of a photo's position, metres; None where it does not say.

    Those of a drone's real-time kinematic receiver, else EXIF's horizontal error, of which the height has twice.

    Args:
        exif: ``PIL.Image.Exif``. xmp: the photo's XMP packet.
    """
    found = [_RTK[name].search(xmp) for name in ("Lon", "Lat", "Hgt")]
    values = [float(one.group(1)) for one in found if one is not None]
    if len(values) == 3 and min(values) > 0:
        return values[0], values[1], values[2]
    error = _number(_sub_directory(exif, _GPS_IFD).get(_GPS_ERROR))
    return None if error is None else (error, error, 2.0 * error)


def upright(image: Array, orientation: int) -> Array:
    """The stored image turned as EXIF's orientation (1…8) says; contiguous."""
    turned: np.ndarray = image
    if orientation == 2:
        turned = image[:, ::-1]
    elif orientation == 3:
        turned = image[::-1, ::-1]
    elif orientation == 4:
        turned = image[::-1]
    elif orientation == 5:
        turned = image.swapaxes(0, 1)
    elif orientation == 6:
        turned = np.rot90(image, -1)
    elif orientation == 7:
        turned = image.swapaxes(0, 1)[::-1, ::-1]
    elif orientation == 8:
        turned = np.rot90(image)
    return np.ascontiguousarray(turned)  # type: ignore[return-value]


def _sub_directory(exif: Any, tag: int) -> Mapping[int, Any]:
    try:
        return dict(exif.get_ifd(tag))
    except (KeyError, ValueError, TypeError, SyntaxError, OSError, IndexError):
        return {}


def _number(value: Any) -> float | None:
    """A positive finite number, None for anything else."""
    try:
        number = float(value[0] if isinstance(value, (tuple, list)) else value)
    except (TypeError, ValueError, ZeroDivisionError, IndexError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return " ".join(str(value).replace("\x00", " ").split()) if value is not None else ""


def _position(gps: Mapping[int, Any]) -> tuple[float, float, float] | None:
    """Latitude, longitude and altitude (0 if not given)."""
    try:
        degrees = []
        for reference, value, negative in ((gps.get(1), gps[2], "S"), (gps.get(3), gps[4], "W")):
            d, m, s = (float(part) for part in value)
            sign = -1.0 if _text(reference).upper().startswith(negative) else 1.0
            degrees.append(sign * (d + m / 60.0 + s / 3600.0))
        altitude = float(gps.get(6, 0.0))
        below = gps.get(5, 0)
        if (below[0] if isinstance(below, (bytes, tuple)) and below else below) == 1:
            altitude = -altitude
    except (KeyError, TypeError, ValueError, ZeroDivisionError, IndexError):
        return None
    found = (degrees[0], degrees[1], altitude)
    plausible = abs(found[0]) <= 90 and abs(found[1]) <= 180 and all(math.isfinite(v) for v in found)
    return found if plausible and found[:2] != (0.0, 0.0) else None
