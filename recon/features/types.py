"""Types of the feature room."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8


@dataclass(frozen=True)
class InterestPoints:
    """Sparse SIFT points of one image.

    Attributes:
        xy: positions, (n, 2) float32, recon's pixel convention.
        sigma: scale of each point in pixels (standard deviation, not a diameter), (n,) float32.
        orientation: radians, (n,) float32.
        descriptors: (n, 128) uint8, RootSIFT as pycolmap extracts it.
    """

    xy: Float32[np.ndarray, "n 2"]
    sigma: Float32[np.ndarray, " n"]
    orientation: Float32[np.ndarray, " n"]
    descriptors: UInt8[np.ndarray, "n 128"]

    def __len__(self) -> int:
        return len(self.xy)

    def rows(self, which: Int[np.ndarray, " _"] | Bool[np.ndarray, " _"]) -> InterestPoints:
        """Some of the points."""
        return InterestPoints(
            self.xy[which], self.sigma[which], self.orientation[which], self.descriptors[which]
        )

    def at_size(self, factor_x: float, factor_y: float) -> InterestPoints:
        """Move the points to the image resized by these factors."""
        factors = np.array([factor_x, factor_y], np.float32)
        xy = (self.xy + 0.5) * factors - 0.5
        sigma = self.sigma * np.float32(np.sqrt(factor_x * factor_y))
        return InterestPoints(
            xy.astype(np.float32), sigma.astype(np.float32), self.orientation, self.descriptors
        )


ScaleMap = Float[np.ndarray, "h w"]
"""A SIFT scale (sigma in pixels) for every pixel."""

DenseSift = UInt8[np.ndarray, "h w 128"]
"""A 128-dimensional SIFT descriptor for every pixel."""


@dataclass(frozen=True)
class MatchedPoints:
    """Interest points of two photos that match, row by row, in pixels of their photos at one size each."""

    a: InterestPoints
    b: InterestPoints

    def rows(self, which: Int[np.ndarray, " _"] | Bool[np.ndarray, " _"]) -> MatchedPoints:
        """Some of the matches."""
        return MatchedPoints(self.a.rows(which), self.b.rows(which))
