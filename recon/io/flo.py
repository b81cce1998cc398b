"""Flow as benchmarks store it: Middlebury's .flo and KITTI's 16-bit PNG."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Float32

from recon.errors import ReconError
from recon.io.pictures import read_bgr

FLO_TAG = 202021.25
FLO_UNKNOWN = 1e9
"""Middlebury's flowIO: a component above this is unknown."""


def read_true_flow(path: Path) -> Float32[np.ndarray, "h w 2"]:
    """Read a true flow, target minus source in pixels; NaN where it is unknown.

    Args:
        path: ``.flo`` (little-endian: tag 202021.25, width, height, then u, v per pixel), or ``.png`` as KITTI
            has it (16 bits: red and green hold 64 * (u, v) + 32768, blue is 0 where unknown).

    Raises:
        ReconError: the file is missing, of another kind, or cut short.
    """
    path = Path(path)
    if path.suffix.lower() == ".png":
        return _read_kitti(path)
    flow = read_flo(path)
    flow[~(np.abs(flow) < FLO_UNKNOWN).all(axis=-1)] = np.nan
    return flow


def read_flo(path: Path) -> Float32[np.ndarray, "h w 2"]:
    """Read a Middlebury .flo file (little-endian: tag 202021.25, width, height, then u, v per pixel) as it stands.

    Raises:
        ReconError: the file is missing, is not a .flo file, or is cut short.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ReconError(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) < 12 or np.frombuffer(data, "<f4", 1)[0] != np.float32(FLO_TAG):
        raise ReconError(f"{path}: not a .flo file")
    width, height = (int(value) for value in np.frombuffer(data, "<i4", 2, 4))
    if width < 1 or height < 1 or len(data) != 12 + 8 * width * height:
        raise ReconError(f"{path}: says {width}x{height} but holds {len(data)} bytes; fetch it again")
    return np.frombuffer(data, "<f4", offset=12).reshape(height, width, 2).astype(np.float32)


def write_flo(path: Path, flow: Float[np.ndarray, "h w 2"]) -> None:
    """Write a Middlebury .flo file; values that are not finite are written as unknown."""
    h, w = flow.shape[:2]
    values = np.where(np.isfinite(flow), flow, 2 * FLO_UNKNOWN).astype("<f4")
    header = np.array([FLO_TAG], "<f4").tobytes() + np.array([w, h], "<i4").tobytes()
    Path(path).write_bytes(header + values.tobytes())


def _read_kitti(path: Path) -> Float32[np.ndarray, "h w 2"]:
    # OpenCV 5 keeps the file's order of channels under IMREAD_UNCHANGED: blue, green, red.
    image = read_bgr(path, cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint16 or image.ndim != 3 or image.shape[2] != 3:
        raise ReconError(f"{path}: is no flow of KITTI's kind (a PNG with three channels of 16 bits)")
    values = np.asarray(image).astype(np.float32)
    flow = (values[..., [2, 1]] - 32768.0) / 64.0
    flow[values[..., 0] == 0] = np.nan
    return flow.astype(np.float32)
