"""Images, masks and positions at another size: pixel x of the original lands at (x + 0.5) * s - 0.5."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float64, UInt8


def working_size(width: int, height: int, max_size: int) -> tuple[int, int]:
    """Width and height of an image whose longest side is limited to ``max_size``; never larger than it is."""
    longest = max(width, height)
    if longest <= max_size:
        return width, height
    return max(1, round(width * max_size / longest)), max(1, round(height * max_size / longest))


def resize_rgb(rgb: UInt8[np.ndarray, "h w 3"], width: int, height: int) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The image at another size: area averages when it shrinks, bilinear when a side grows."""
    if rgb.shape[1] == width and rgb.shape[0] == height:
        return np.ascontiguousarray(rgb)
    shrinks = width <= rgb.shape[1] and height <= rgb.shape[0]
    resized: np.ndarray = cv2.resize(
        np.ascontiguousarray(rgb),
        (width, height),
        interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
    )
    return resized


def resize_mask(mask: Bool[np.ndarray, "h w"], width: int, height: int) -> Bool[np.ndarray, "h2 w2"]:
    """The mask at another size: a pixel may be used when at least half of its area may be."""
    if mask.shape[1] == width and mask.shape[0] == height:
        return np.ascontiguousarray(mask)
    shrinks = width <= mask.shape[1] and height <= mask.shape[0]
    share = cv2.resize(
        mask.astype(np.float32),
        (width, height),
        interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
    )
    usable: np.ndarray = share >= 0.5
    return usable


def resize_points(
    xy: Float[np.ndarray, "*n 2"], old: tuple[int, int], new: tuple[int, int]
) -> Float64[np.ndarray, "*n 2"]:
    """Positions in an image at another size: x' = (x + 0.5) * s - 0.5.

    Args:
        xy: (..., 2) in pixels of the old size.
        old, new: (width, height).
    """
    if tuple(old) == tuple(new):
        return np.asarray(xy, np.float64)
    factors = np.array([new[0] / old[0], new[1] / old[1]])
    return np.asarray((xy + 0.5) * factors - 0.5, np.float64)
