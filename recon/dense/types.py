"""Types of the dense room."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32, UInt8, UInt16


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


@dataclass(frozen=True)
class PointCloud:
    """Fused points.

    Attributes:
        xyz: (n, 3) world coordinates; float32, or float64 far from the origin, where that would be too coarse.
        normals: (n, 3) float32 unit vectors in the world, towards the cameras.
        rgb: (n, 3) uint8.
        view_count: number of views that agree on each point, (n,) uint16.
        reference_view: photo id of the view that made the point, (n,) int32.
        confidence: (n,) float32.
    """

    xyz: Float[np.ndarray, "n 3"]
    normals: Float32[np.ndarray, "n 3"]
    rgb: UInt8[np.ndarray, "n 3"]
    view_count: UInt16[np.ndarray, " n"]
    reference_view: Int32[np.ndarray, " n"]
    confidence: Float32[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.xyz)
