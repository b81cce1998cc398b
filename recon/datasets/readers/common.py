"""Shared parts of the readers: the description of a reader, and careful reading of numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from recon.datasets.types import GroundTruth
from recon.errors import ReconError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".tif", ".tiff", ".bmp")

_ROTATION_TOLERANCE = 1e-3
"""Published matrices carry 5 to 12 digits; anything farther from a rotation is not one."""


@dataclass(frozen=True)
class Reader:
    """One layout.

    Attributes:
        name: of the layout.
        looks_for: what it is known by, in words.
        knows: folder to whether it is laid out so.
        read: folder to its truth.
    """

    name: str
    looks_for: str
    knows: Callable[[Path], bool]
    read: Callable[[Path], GroundTruth]


def read_text(path: Path) -> str:
    """Read a text file.

    Raises:
        ReconError: it cannot be read, or is not text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReconError(f"{path}: cannot be read: {error}") from error


def numbers(text: str, path: Path, count: int | None = None) -> Float64[np.ndarray, " n"]:
    """Convert white-space separated numbers.

    Raises:
        ReconError: something else is among them, one is not finite, or there are not ``count``.
    """
    try:
        values = np.array([float(word) for word in text.split()], np.float64)
    except ValueError as error:
        raise ReconError(f"{path}: is not made of numbers: {error}") from error
    if count is not None and len(values) != count:
        raise ReconError(f"{path}: holds {len(values)} numbers where {count} are expected")
    if not np.isfinite(values).all():
        raise ReconError(f"{path}: holds a number that is not finite")
    return values


def rotation(matrix: Float64[np.ndarray, "3 3"], path: Path) -> Float64[np.ndarray, "3 3"]:
    """Round a published matrix to the nearest rotation.

    Raises:
        ReconError: it is not a rotation but for rounding.
    """
    u, _, vt = np.linalg.svd(matrix)
    nearest = u @ vt
    if np.linalg.det(nearest) < 0 or np.abs(nearest - matrix).max() > _ROTATION_TOLERANCE:
        raise ReconError(f"{path}: holds a matrix that is no rotation")
    return np.asarray(nearest, np.float64)


def image_files(folder: Path) -> list[Path]:
    """The images right in a folder, by name."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def image_size(path: Path) -> tuple[int, int]:
    """Read width and height from an image file's header.

    Raises:
        ReconError: it cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError) as error:
        raise ReconError(f"{path}: cannot be read: {error}") from error
