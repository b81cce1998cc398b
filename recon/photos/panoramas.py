"""Views cut out of 360° panoramas: usual photos with known intrinsics, which mapping can follow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from jaxtyping import Float64, UInt8

from recon.errors import ReconError, UsageError
from recon.io.cameras_json import CONVENTION, camera_entry
from recon.io.pictures import encode_picture
from recon.photos.intake import is_equirectangular
from recon.photos.reading import PhotoError, decode_photo
from recon.photos.scanning import find_photos

FIELD_OF_VIEW = 90.0
"""Degrees that a view shows, across and down: of all of a panorama but 45 degrees round its poles."""
VIEWS = 6
"""Views around the horizon; neighbours share a third, which ties the directions of one panorama together."""


def view_of_panorama(
    panorama: UInt8[np.ndarray, "h w 3"], longitude: float, side: int
) -> UInt8[np.ndarray, "s s 3"]:
    """Cut a perspective view out of an equirectangular panorama.

    Args:
        panorama: twice as wide as high.
        longitude: of the middle of the view, degrees to the right of the panorama's middle.
        side: of the view, pixels.
    """
    height, width = panorama.shape[:2]
    at = (np.arange(side) - 0.5 * (side - 1)) / view_matrix(side)[0, 0]
    x, y = np.meshgrid(at, at)
    lon = np.arctan(x) + np.radians(longitude)
    lat = np.arctan2(y, np.hypot(x, 1.0))
    column = ((lon / (2 * np.pi) + 0.5) % 1.0) * width - 0.5
    row = (lat / np.pi + 0.5) * height - 0.5
    wrapped = cv2.copyMakeBorder(panorama, 0, 0, 2, 2, cv2.BORDER_WRAP)
    return np.asarray(
        cv2.remap(wrapped, (column + 2).astype(np.float32), row.astype(np.float32), cv2.INTER_CUBIC)
    )


def view_matrix(side: int) -> Float64[np.ndarray, "3 3"]:
    """The calibration matrix of the views of this side."""
    focal = 0.5 * side / np.tan(np.radians(FIELD_OF_VIEW) / 2)
    middle = 0.5 * (side - 1)
    return np.array([[focal, 0, middle], [0, focal, middle], [0, 0, 1.0]])


def split_panoramas(sources: Sequence[Path | str], out: Path) -> int:
    """Write ``VIEWS`` views of every panorama as JPEG into ``out``, and their intrinsics as ``out``/cameras.json.

    A view has as many pixels to the degree as the panorama at its horizon. Other photos are passed over.

    Args:
        sources: folders and files, as ``find_photos`` takes them.

    Returns:
        The number of panoramas.

    Raises:
        UsageError: ``out`` holds files. ReconError: there is no panorama.
    """
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out}: holds files; name a new folder")
    entries, count = [], 0
    for file in find_photos(sources, [out]).photos:
        try:
            panorama = decode_photo(file.path).pixels.rgb
        except PhotoError:
            continue
        if not is_equirectangular(panorama):
            continue
        count += 1
        side = max(round(panorama.shape[1] / np.pi), 16)
        for k in range(VIEWS):
            degrees = round(360 * k / VIEWS)
            name = str(PurePosixPath(file.name).with_suffix("")) + f"_{degrees:03d}.jpg"
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(encode_picture(view_of_panorama(panorama, degrees, side), "jpg"))
            entries.append(camera_entry(name, view_matrix(side), (side, side)))
    if count == 0:
        raise ReconError(
            f"{', '.join(map(str, sources))}: holds no 360° panorama (twice as wide as high, a full turn)"
        )
    text = json.dumps({"convention": CONVENTION, "images": entries}, indent=1)
    (out / "cameras.json").write_text(text, encoding="utf-8")
    return count
