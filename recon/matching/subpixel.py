"""Sub-pixel refinement and resizing of flow."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32, UInt8


def refine_flow(
    gray_a: UInt8[np.ndarray, "ha wa"],
    gray_b: UInt8[np.ndarray, "hb wb"],
    flow: Float32[np.ndarray, "ha wa 2"],
    *,
    reach: float = 1.5,
) -> Float32[np.ndarray, "ha wa 2"]:
    """Flow refined below the pixel by a variational model that starts at ``flow``; moves no pixel further than ``reach``.

    The model (brightness and gradient constancy, robust, smooth) is OpenCV's ``VariationalRefinement``. Where it
    wants to go further than ``reach`` the starting flow stays.
    """
    h, w = gray_a.shape
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    warped = cv2.remap(
        gray_b, x + flow[..., 0], y + flow[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    model = cv2.VariationalRefinement.create()
    small = np.zeros((h, w, 2), np.float32)
    small = model.calc(gray_a, warped, small)
    length = np.linalg.norm(small, axis=-1, keepdims=True)
    return np.where(length <= reach, flow + small, flow).astype(np.float32)


def upsample_flow(flow: Float32[np.ndarray, "h w 2"], size: tuple[int, int]) -> Float32[np.ndarray, "h2 w2 2"]:
    """The same correspondence between images resized to other sizes: ``size`` (height, width) for the source.

    The target is taken to be resized by the same factors as the source. Bilinear; x' = (x + 0.5) s - 0.5.
    """
    h, w = flow.shape[:2]
    height, width = size
    resized = cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized * np.array([width / w, height / h], np.float32), np.float32)
