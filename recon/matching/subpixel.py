"""Sub-pixel refinement and resizing of flow."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, UInt8


@dataclass(frozen=True)
class RefinementSettings:
    """Constants of ``refine_flow``.

    Chosen on the four Middlebury sets (endpoint error) and on pairs of fountain-P11 and Herz-Jesus-P8 (epipolar error
    against the true cameras), see ``benchmarks/middlebury_flow.py``.

    Attributes:
        smoothing: sigma (px) of the Gaussian that takes the stairs out of a whole-pixel flow before the start.
        alpha, delta, gamma: weights of smoothness, brightness constancy and gradient constancy. Brightness counts for
            little: exposure differs between photos.
        rounds: how often the target is warped anew. fixed_points, sor_iterations, omega: work in each round; the
            high over-relaxation is what lets so few iterations carry the smoothness across the image.
        reach: a pixel that wants to move further than this (px) keeps its starting flow.
        blur: where one image shows the scene larger than the other, it is blurred by this sigma times
            sqrt(magnification² - 1), as if it had been taken at the other's sampling.
    """

    smoothing: float = 2.0
    alpha: float = 40.0
    delta: float = 1.0
    gamma: float = 10.0
    rounds: int = 3
    fixed_points: int = 5
    sor_iterations: int = 10
    omega: float = 1.9
    reach: float = 1.5
    blur: float = 0.6


DEFAULT_REFINEMENT = RefinementSettings()

_SMALLEST = 16
"""Images with a side below this are not refined: the solver's stencils do not fit."""


def refine_flow(
    gray_a: UInt8[np.ndarray, "ha wa"],
    gray_b: UInt8[np.ndarray, "hb wb"],
    flow: Float32[np.ndarray, "ha wa 2"],
    *,
    settings: RefinementSettings = DEFAULT_REFINEMENT,
) -> Float32[np.ndarray, "ha wa 2"]:
    """Refine flow below the pixel: a variational flow of the grey images that starts at ``flow``.

    Data terms are brightness and gradient constancy, smoothness is that of the whole flow (not of the change), all
    with robust penalties (T. Brox et al., "High Accuracy Optical Flow Estimation Based on a Theory for Warping", ECCV
    2004, as OpenCV's ``VariationalRefinement`` implements it). The matching itself stays that of the descriptors: no
    pixel moves further than ``settings.reach``.
    """
    height, width = gray_a.shape
    if min(*gray_a.shape, *gray_b.shape) < _SMALLEST:
        return np.asarray(flow, np.float32).copy()
    magnification = _magnification(flow)
    if magnification < 0.95:
        gray_a = cv2.GaussianBlur(gray_a, (0, 0), settings.blur * float(np.sqrt(1 / magnification**2 - 1)))
    elif magnification > 1.05:
        gray_b = cv2.GaussianBlur(gray_b, (0, 0), settings.blur * float(np.sqrt(magnification**2 - 1)))
    # The solver wants images of one size; padding at the lower right moves no pixel.
    size = (max(height, gray_b.shape[0]), max(width, gray_b.shape[1]))
    a, b = _padded(gray_a, size), _padded(gray_b, size)
    current = cv2.GaussianBlur(_padded(np.asarray(flow, np.float32), size), (0, 0), settings.smoothing)
    # A new object each time: it keeps buffers and must not be shared between threads.
    model = cv2.VariationalRefinement.create()
    model.setAlpha(settings.alpha)
    model.setDelta(settings.delta)
    model.setGamma(settings.gamma)
    model.setFixedPointIterations(settings.fixed_points)
    model.setSorIterations(settings.sor_iterations)
    model.setOmega(settings.omega)
    for _ in range(settings.rounds):
        current = model.calc(a, b, np.ascontiguousarray(current))
    refined = current[:height, :width]
    moved = np.linalg.norm(refined - flow, axis=-1, keepdims=True)
    return np.where(moved <= settings.reach, refined, flow).astype(np.float32)


def _magnification(flow: Float32[np.ndarray, "h w 2"]) -> float:
    """Median over the image of how much larger the target shows the scene, clipped to 1/8…8."""
    smooth = cv2.GaussianBlur(np.asarray(flow, np.float32), (0, 0), 8)
    dx = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=1, scale=0.5)
    dy = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=1, scale=0.5)
    area = (1 + dx[..., 0]) * (1 + dy[..., 1]) - dx[..., 1] * dy[..., 0]
    return float(np.clip(np.sqrt(max(float(np.median(area)), 0.0)), 1 / 8, 8))


def _padded(image: UInt8[np.ndarray, "..."], size: tuple[int, int]) -> UInt8[np.ndarray, "..."]:
    bottom, right = size[0] - image.shape[0], size[1] - image.shape[1]
    if bottom == 0 and right == 0:
        return np.ascontiguousarray(image)
    return np.asarray(cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE))
