"""Bilinear samples of images at positions between the pixels."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Float32

# cv2.remap takes no map longer than 32767 either way.
_COLUMNS = 4096
_ROWS = 8192


def bilinear(
    image: Float[np.ndarray, "h w *c"],
    x: Float[np.ndarray, "*n"],
    y: Float[np.ndarray, "*n"],
    weights: Any = np.float32,
) -> Float[np.ndarray, "*n *c"]:
    """Samples at positions, edge pixels repeated, as exact as the weights are.

    ``cv2.remap`` rounds positions to 1/32 px, too coarse for flow. ``sample_image`` is the faster way where that is
    good enough.

    Args:
        image: with or without channels.
        x, y: positions of one shape.
        weights: floating point type of the weights; the result has the wider type of image and weights.
    """
    h, w = image.shape[:2]
    x, y = np.clip(x, 0, w - 1), np.clip(y, 0, h - 1)
    x0 = np.minimum(np.floor(x).astype(np.int64), max(w - 2, 0))
    y0 = np.minimum(np.floor(y).astype(np.int64), max(h - 2, 0))
    x1, y1 = np.minimum(x0 + 1, w - 1), np.minimum(y0 + 1, h - 1)
    fx, fy = (x - x0).astype(weights), (y - y0).astype(weights)
    if image.ndim == 3:
        fx, fy = fx[..., None], fy[..., None]
    top = image[y0, x0] * (1 - fx) + image[y0, x1] * fx
    low = image[y1, x0] * (1 - fx) + image[y1, x1] * fx
    return np.asarray(top * (1 - fy) + low * fy)


def sample_image(
    image: Float32[np.ndarray, "h w c"], xy: Float[np.ndarray, "n 2"]
) -> Float32[np.ndarray, "n c"]:
    """Samples of an image at any number of positions by ``cv2.remap``, edge pixels repeated."""
    n, channels = len(xy), image.shape[2]
    rows = max(1, -(-n // _COLUMNS))
    padded = np.zeros((rows * _COLUMNS, 2), np.float32)
    padded[:n] = xy
    where = padded.reshape(rows, _COLUMNS, 2)
    parts = [
        cv2.remap(image, where[top : top + _ROWS], None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for top in range(0, rows, _ROWS)
    ]
    return np.concatenate([part.reshape(-1, channels) for part in parts])[:n]


def pixel_positions(height: int, width: int) -> Float32[np.ndarray, "h w 2"]:
    """The (x, y) of every pixel of an image."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return np.stack([x, y], axis=-1)
