"""The classes that SIFT Flow's contribution to OpenCV has beside its ``DenseOpticalFlow``.

It (not released) makes SIFT images with ``SiftImageExtractor``, whose scales come from a ``ScaleMap``; ``calc`` of
``DenseOpticalFlow`` takes them. Calls and meaning are the same here. Its files: ``recon.io.sift_image``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from recon.errors import UsageError
from recon.features.dense_sift import build_ladder, describe
from recon.features.interest_points import extract_interest_points, match_interest_points
from recon.features.scale_propagation import DEFAULT_SCALE, Weighting, propagate_scales
from recon.features.types import InterestPoints
from recon.matching.opencv_like import DESCRIPTOR, as_rgb, into

_CELL_PER_SIZE = 1.5
"""Width of a cell of OpenCV's SIFT over ``KeyPoint.size``, which is a diameter."""


class ScaleMap:
    """A scale for every pixel from those of key points, with the contribution's interface.

    Args:
        exponential: weights exp(-(I(q) - I(p))² / (0.6 v)) instead of linear ones (``propagate_scales``).
    """

    def __init__(self, exponential: bool = False) -> None:
        self._weighting: Weighting = "exponential" if exponential else "linear"

    @classmethod
    def create(cls, exponential: bool = False) -> ScaleMap:
        """As the constructor: OpenCV's way to make one."""
        return cls(exponential)

    def compute(
        self,
        image: np.ndarray,
        keypoints: Sequence[cv2.KeyPoint],
        scalemap: Float32[np.ndarray, "h w"] | None = None,
    ) -> Float32[np.ndarray, "h w"]:
        """Scale of every pixel, in the unit of ``KeyPoint.size``; without a key point 3 everywhere.

        Args:
            image: grey, float in 0…1 (h, w); or uint8, grey or BGR.
            scalemap: filled and returned if its shape and type fit.

        Raises:
            UsageError: the image is of another kind.
        """
        image = np.asarray(image)
        grey = image.dtype.kind == "f" and image.ndim == 2
        seeds = InterestPoints(
            np.array([point.pt for point in keypoints], np.float32).reshape(-1, 2),
            np.array([point.size for point in keypoints], np.float32),
            np.zeros(len(keypoints), np.float32),
            np.zeros((len(keypoints), DESCRIPTOR), np.uint8),
        )
        found = propagate_scales(image if grey else as_rgb(image, "image"), seeds, weighting=self._weighting)
        return into(scalemap, found)


class SiftImageExtractor:
    """A SIFT descriptor for every pixel, with the contribution's interface.

    Cells are 1.5 times ``KeyPoint.size`` wide, as OpenCV's SIFT has them; directions turn with y downwards.

    Args:
        scale_format: SCALE_UNIFORM: key points of size 3 everywhere; SCALE_LINEAR and SCALE_EXP: sizes are propagated
            from points of both images that match.
    """

    SCALE_UNIFORM, SCALE_LINEAR, SCALE_EXP = 100, 101, 102

    def __init__(self, scale_format: int = SCALE_UNIFORM) -> None:
        if scale_format not in (self.SCALE_UNIFORM, self.SCALE_LINEAR, self.SCALE_EXP):
            raise UsageError(
                f"scale_format is {scale_format}; there are SCALE_UNIFORM, SCALE_LINEAR and SCALE_EXP"
            )
        uniform = scale_format == self.SCALE_UNIFORM
        self._scale_map = None if uniform else ScaleMap(scale_format == self.SCALE_EXP)

    @classmethod
    def create(cls, scale_format: int = SCALE_UNIFORM) -> SiftImageExtractor:
        """As the constructor: OpenCV's way to make one."""
        return cls(scale_format)

    def compute(self, img0: np.ndarray, img1: np.ndarray | None = None) -> Any:
        """SIFT image of one photo, at one scale; or both of two, at propagated scales where these were asked for.

        Args:
            img0, img1: as ``DenseOpticalFlow.calc`` takes photos.

        Returns:
            (h, w, 128) float32 of whole numbers from 0 to 255; two of them for two photos.
        """
        first = as_rgb(img0, "img0")
        if img1 is None:
            return self._describe(first, None)
        photos = (first, as_rgb(img1, "img1"))
        if self._scale_map is None:
            return tuple(self._describe(rgb, None) for rgb in photos)
        seeds = _matching_points(*photos)
        maps = (
            self._scale_map.compute(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), points)
            for rgb, points in zip(photos, seeds, strict=True)
        )
        return tuple(self._describe(rgb, sizes) for rgb, sizes in zip(photos, maps, strict=True))

    def _describe(
        self, rgb: UInt8[np.ndarray, "h w 3"], sizes: Float32[np.ndarray, "h w"] | None
    ) -> Float32[np.ndarray, "h w 128"]:
        if sizes is None:
            sizes = np.full(rgb.shape[:2], DEFAULT_SCALE, np.float32)
        return describe(build_ladder(rgb), sizes, magnification=_CELL_PER_SIZE).astype(np.float32)


def _matching_points(
    a: UInt8[np.ndarray, "ha wa 3"], b: UInt8[np.ndarray, "hb wb 3"]
) -> tuple[list[cv2.KeyPoint], list[cv2.KeyPoint]]:
    """Interest points of both photos that are nearest to each other and fit one fundamental matrix to 3 px."""
    points = [extract_interest_points(rgb) for rgb in (a, b)]
    pairs = match_interest_points(points[0], points[1], ratio=1.0)
    if len(pairs) >= 8:
        own, other = (one.xy[pairs[:, k]].astype(np.float64) for k, one in enumerate(points))
        _, inside = cv2.findFundamentalMat(own, other, cv2.FM_RANSAC, 3.0, 0.99)
        if inside is not None:
            pairs = pairs[inside.ravel() > 0]
    found = (
        [
            cv2.KeyPoint(float(x), float(y), 2 * float(sigma))
            for (x, y), sigma in zip(one.xy[pairs[:, k]], one.sigma[pairs[:, k]], strict=True)
        ]
        for k, one in enumerate(points)
    )
    return next(found), next(found)
