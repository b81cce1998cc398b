"""Types of the dense room."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32


@dataclass(frozen=True)
class DepthMap:
    """Depth of one view.

    Attributes:
        depth: z-depth along the optical axis in world units, (h, w) float32; 0 where unknown.
        normal: unit normals in camera coordinates, facing the camera (z < 0), (h, w, 3) float32; 0 where unknown.
        confidence: (h, w) float32 in 0…1.
    """

    depth: Float32[np.ndarray, "h w"]
    normal: Float32[np.ndarray, "h w 3"]
    confidence: Float32[np.ndarray, "h w"]

    def only(self, keep: Bool[np.ndarray, "h w"]) -> DepthMap:
        """The same with 0 throughout where ``keep`` is False."""
        return DepthMap(
            np.where(keep, self.depth, np.float32(0)),
            np.where(keep[..., None], self.normal, np.float32(0)),
            np.where(keep, self.confidence, np.float32(0)),
        )
