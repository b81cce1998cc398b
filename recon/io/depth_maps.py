"""Depth maps on disk: NumPy's files, PFM, and COLMAP's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float32

from recon.errors import ReconError, reading
from recon.io.files import read_arrays


def read_depth_map(path: Path) -> Float32[np.ndarray, "h w"]:
    """Read a depth map: recon's ``.npz`` (key ``depth``), ``.npy``, ``.pfm``, or COLMAP's ``.bin``.

    Returns:
        (h, w) float32, 0 where unknown (negative and not finite values of the file too).

    Raises:
        ReconError: the file is missing, of another kind, or cut short.
    """
    path = Path(path)
    with reading(path, "it is no depth map; write it again"):
        if path.suffix == ".npz":
            depth = np.asarray(read_arrays(path)["depth"], np.float32)
        elif path.suffix == ".npy":
            depth = np.asarray(np.load(path), np.float32)
        elif path.suffix == ".pfm":
            depth = _read_pfm(path)
        elif path.suffix == ".bin":
            depth = _read_colmap_depth(path)
        else:
            raise ReconError(f"{path}: depth maps are .npz, .npy, .pfm or COLMAP's .bin files")
    if depth.ndim != 2:
        raise ReconError(f"{path}: a depth map has two dimensions, this has {depth.ndim}")
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)


def _read_colmap_depth(path: Path) -> Float32[np.ndarray, "h w"]:
    """COLMAP's array format: "width&height&channels&" and then float32 with x the fastest."""
    data = path.read_bytes()
    parts = data[:64].split(b"&", 3)
    width, height, channels = (int(part) for part in parts[:3])
    start = sum(len(part) + 1 for part in parts[:3])
    values = np.frombuffer(data, "<f4", width * height * channels, start)
    return values.reshape(channels, height, width)[0].astype(np.float32)


def _read_pfm(path: Path) -> Float32[np.ndarray, "h w"]:
    """Portable float map: "Pf", width and height, scale (negative: little-endian), rows from the bottom up."""
    data = path.read_bytes()
    kind, size, scale, values = data.split(b"\n", 3)
    if kind.strip() != b"Pf":
        raise ValueError("only PFM files of one channel hold depth")
    width, height = (int(word) for word in size.split())
    order = "<f4" if float(scale) < 0 else ">f4"
    return np.frombuffer(values, order, width * height).reshape(height, width)[::-1].astype(np.float32)
