"""Errors of depth maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class DepthReport:
    """Errors of one depth map.

    Attributes:
        coverage: share of the truth's pixels for which there is an estimate.
        mean, median: absolute error in world units over those.
        relative: mean of absolute error over true depth.
        within: share of the estimated pixels whose relative error is at most each threshold.
    """

    coverage: float
    mean: float
    median: float
    relative: float
    within: Mapping[float, float]


def evaluate_depth(
    depth: Float[np.ndarray, "h w"],
    truth: Float[np.ndarray, "h w"],
    thresholds: tuple[float, ...] = (0.001, 0.005, 0.01),
) -> DepthReport:
    """Compare a depth map with the truth; 0 (or not finite) means unknown in both.

    Args:
        depth, truth: (h, w) z-depth in the same units.
        thresholds: relative errors.

    Raises:
        ValueError: shapes differ, or the truth is known nowhere.
    """
    if depth.shape != truth.shape:
        raise ValueError(f"the depth map is {depth.shape}, the truth {truth.shape}")
    known = np.isfinite(truth) & (truth > 0)
    if not known.any():
        raise ValueError("the truth is known nowhere")
    both = known & np.isfinite(depth) & (depth > 0)
    if not both.any():
        nan = float("nan")
        return DepthReport(0.0, nan, nan, nan, dict.fromkeys(thresholds, 0.0))
    error = np.abs(depth[both].astype(np.float64) - truth[both])
    relative = error / truth[both]
    return DepthReport(
        float(both.sum() / known.sum()),
        float(error.mean()),
        float(np.median(error)),
        float(relative.mean()),
        {t: float((relative <= t).mean()) for t in thresholds},
    )
