"""SIFT images of SIFT Flow's contribution to OpenCV: a 128-d descriptor for every pixel.

Width and height as 32 bit whole numbers, then the descriptors row by row in single precision, all little endian.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float32

from recon.errors import ReconError

_CHANNELS = 128


def read_sift_image(path: Path) -> Float32[np.ndarray, "h w 128"]:
    """Read a SIFT image.

    Raises:
        ReconError: the file cannot be read, or its length is not that of the size that it states.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ReconError(f"{path}: cannot be read ({error.strerror})") from error
    width, height = (int(value) for value in np.frombuffer(content[:8].ljust(8, b"\0"), "<i4"))
    expected = 8 + 4 * _CHANNELS * width * height
    if width <= 0 or height <= 0 or len(content) != expected:
        raise ReconError(
            f"{path}: not a SIFT image: it says {width} x {height} pixels, which take {expected} bytes, and has "
            f"{len(content)}"
        )
    return np.frombuffer(content, "<f4", offset=8).reshape(height, width, _CHANNELS).astype(np.float32)


def write_sift_image(path: Path, sift: Float32[np.ndarray, "h w 128"]) -> None:
    """Write a SIFT image.

    Raises:
        ReconError: the array has another shape, or the file cannot be written.
    """
    if sift.ndim != 3 or sift.shape[2] != _CHANNELS:
        raise ReconError(f"{path}: a SIFT image is (h, w, {_CHANNELS}), not {sift.shape}")
    header = np.array([sift.shape[1], sift.shape[0]], "<i4").tobytes()
    try:
        path.write_bytes(header + np.ascontiguousarray(sift, "<f4").tobytes())
    except OSError as error:
        raise ReconError(f"{path}: cannot be written ({error.strerror})") from error
