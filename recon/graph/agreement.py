"""Dense matches without the parts that contradict the sparse matches or the geometry of their pair."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy.spatial import cKDTree

from recon.graph.evidence import SAME_PLACE_PX, transfer_errors
from recon.matching.types import DenseMatch

# So many of the nearest sparse matches vote on a part of the field, if they lie within this share of the longer side.
_VOTERS = 3
_VOTER_RADIUS = 0.15
# The vote is counted on every fourth pixel.
_STEP = 4
# With fewer sparse matches nobody votes.
_MIN_VOTERS = 10


def agreeing_match(
    dense: DenseMatch,
    xy_a: Float[np.ndarray, "n 2"],
    xy_b: Float[np.ndarray, "n 2"],
    size_a: tuple[int, int],
    size_b: tuple[int, int],
    *,
    fundamental: Float[np.ndarray, "3 3"] | None = None,
    max_error: float = 3.0,
) -> DenseMatch:
    """Take from the consistent pixels those that contradict the sparse matches near them, or the epipolar geometry.

    A dense field that has locked to a neighbouring bay is consistent both ways and often follows the epipolar lines;
    the sparse matches around it say where it should lead. A pixel goes where most of the nearest ones are not led to
    their partners.

    Args:
        dense: at any size.
        xy_a, xy_b: sparse matches in pixels of photos of ``size_a`` and ``size_b`` (width, height).
        fundamental: of the same pixels; None leaves the geometry out.
        max_error: largest Sampson distance, in the same pixels.
    """
    height_a, width_a = dense.consistent_a.shape
    height_b, width_b = dense.consistent_b.shape
    to_a = np.array([width_a / size_a[0], height_a / size_a[1]])
    to_b = np.array([width_b / size_b[0], height_b / size_b[1]])
    start, end = (xy_a + 0.5) * to_a - 0.5, (xy_b + 0.5) * to_b - 0.5
    keep_a = dense.consistent_a & _supported(dense.a_to_b.flow, start, end)
    keep_b = dense.consistent_b & _supported(dense.b_to_a.flow, end, start)
    if fundamental is not None:
        keep_a = _near_lines(dense.a_to_b.flow, keep_a, fundamental, to_a, to_b, max_error)
        keep_b = _near_lines(dense.b_to_a.flow, keep_b, fundamental.T, to_b, to_a, max_error)
    return replace(dense, consistent_a=keep_a, consistent_b=keep_b)


def _supported(
    flow: Float32[np.ndarray, "h w 2"], start: Float[np.ndarray, "n 2"], end: Float[np.ndarray, "n 2"]
) -> Bool[np.ndarray, "h w"]:
    """Pixels that most of the sparse matches near them speak for; True where there are none."""
    height, width = flow.shape[:2]
    if len(start) < _MIN_VOTERS:
        return np.ones((height, width), bool)
    pixel = np.clip(np.rint(start).astype(int), 0, [width - 1, height - 1])
    led = start + flow[pixel[:, 1], pixel[:, 0]]
    vote = np.where(np.linalg.norm(led - end, axis=1) <= SAME_PLACE_PX, 1, -1)
    y, x = np.mgrid[0:height:_STEP, 0:width:_STEP]
    reach = _VOTER_RADIUS * max(height, width)
    distance, voter = cKDTree(start).query(
        np.stack([x.ravel(), y.ravel()], axis=1), k=_VOTERS, distance_upper_bound=reach
    )
    # Row n of the votes is that of nobody.
    said = np.where(np.isfinite(distance), np.append(vote, 0)[voter], 0).sum(axis=1)
    against = (said < 0).astype(np.uint8).reshape(x.shape)
    return cv2.resize(against, (width, height), interpolation=cv2.INTER_NEAREST) == 0


def _near_lines(
    flow: Float32[np.ndarray, "h w 2"],
    among: Bool[np.ndarray, "h w"],
    fundamental: Float[np.ndarray, "3 3"],
    to_source: Float[np.ndarray, "2"],
    to_target: Float[np.ndarray, "2"],
    max_error: float,
) -> Bool[np.ndarray, "h w"]:
    """Those of some pixels whose flow leads to their epipolar line, within ``max_error`` pixels at working size."""
    y, x = np.nonzero(among)
    source = np.column_stack([x, y]).astype(np.float64)
    target = source + flow[y, x]
    errors = transfer_errors(fundamental, (source + 0.5) / to_source - 0.5, (target + 0.5) / to_target - 0.5)
    found = np.zeros_like(among)
    found[y, x] = errors <= max_error
    return found
