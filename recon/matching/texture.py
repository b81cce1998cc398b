"""Masks of texture that is enough for a match to mean something."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float32

TEXTURE_THRESHOLD = (4 / 255) ** 2
"""Mean squared gradient below which the ancestor pipeline calls a region textureless."""


def textured_mask(
    gray: Float32[np.ndarray, "h w"], window: int = 21, threshold: float = TEXTURE_THRESHOLD
) -> Bool[np.ndarray, "h w"]:
    """True where the mean squared gradient over a ``window`` x ``window`` box reaches ``threshold``.

    ``gray`` is in 0…1; gradients are central differences. The rule of the ancestor pipeline (which indexed its mask
    on the wrong grid; here mask and image share theirs).
    """
    image = np.ascontiguousarray(gray, dtype=np.float32)
    gx = cv2.Sobel(image, cv2.CV_32F, 1, 0, ksize=1, scale=0.5, borderType=cv2.BORDER_REPLICATE)
    gy = cv2.Sobel(image, cv2.CV_32F, 0, 1, ksize=1, scale=0.5, borderType=cv2.BORDER_REPLICATE)
    mean = cv2.boxFilter(gx * gx + gy * gy, cv2.CV_32F, (window, window), borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(mean >= threshold)
