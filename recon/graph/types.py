"""Types of the graph room: verified pairs and multi-view tracks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import networkx as nx
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32

if TYPE_CHECKING:
    ViewGraph = nx.Graph[int]
else:
    # networkx classes take no type arguments at run time.
    ViewGraph = nx.Graph


@dataclass(frozen=True)
class TwoViewGeometry:
    """Robust geometry of one pair.

    Attributes:
        model: which model the evidence chose: "F", "E", "H" or "none".
        matrix: the 3x3 model from A to B (x_b^T F x_a = 0 for "F" and "E" given as a fundamental matrix in
            pixels; x_b ~ H x_a for "H").
        b_from_a: relative pose 3x4 (unit translation) where it could be recovered, else None.
        inliers: True for each input match that agrees with the model.
        triangulation_angle: median angle between the rays of inliers in radians, NaN without pose.
        other_b_from_a: the second relative pose that a homography allows, where the inliers do not rule it out.
    """

    model: Literal["F", "E", "H", "none"]
    matrix: Float64[np.ndarray, "3 3"] | None
    b_from_a: Float64[np.ndarray, "3 4"] | None
    inliers: Bool[np.ndarray, " n"]
    triangulation_angle: float = float("nan")
    other_b_from_a: Float64[np.ndarray, "3 4"] | None = None

    @property
    def inlier_count(self) -> int:
        return int(self.inliers.sum())


@dataclass(frozen=True)
class Tracks:
    """Multi-view tracks as flat arrays: observation i says that track ``track_id[i]`` is seen in photo
    ``photo_id[i]`` at ``xy[i]`` (photo working size, recon's pixel convention). Sorted by track, then photo;
    at most one observation per track and photo.

    Two arrays say more where it is known, and are None where it is not (tracks of a sparse matcher):

    Attributes:
        is_reference: True for the one observation per track at which the track was anchored.
        affinity: local affine map from the patch round the reference observation to the patch round this one,
            at working size: an offset d from the reference lies at ``affinity @ d`` from this observation.
    """

    track_id: Int32[np.ndarray, " n"]
    photo_id: Int32[np.ndarray, " n"]
    xy: Float32[np.ndarray, "n 2"]
    is_reference: Bool[np.ndarray, " n"] | None = None
    affinity: Float32[np.ndarray, "n 2 2"] | None = None

    @property
    def count(self) -> int:
        return int(self.track_id.max()) + 1 if len(self.track_id) else 0
