"""Errors of depth maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Float32

from recon.core.undistort import pixel_grid

DEPTH_LIMITS = (0.001, 0.005, 0.01, 0.05)
"""Relative errors within which the depth of a run's photos, or of a single map, is counted."""


@dataclass(frozen=True)
class DepthReport:
    """Errors of one depth map.

    Attributes:
        coverage: share of the truth's pixels for which there is an estimate.
        mean, median: absolute error in world units over those.
        relative: mean of absolute error over true depth.
        within: share of the estimated pixels whose relative error is at most each threshold.
        within_absolute: share of the estimated pixels whose absolute error is at most each threshold in world units.
        correct: share of all pixels of the truth that are estimated and within each relative threshold: what
            coverage and accuracy amount to together.
        rms: root of the mean squared error in world units.
    """

    coverage: float
    mean: float
    median: float
    relative: float
    within: Mapping[float, float]
    within_absolute: Mapping[float, float] = field(default_factory=dict)
    correct: Mapping[float, float] = field(default_factory=dict)
    rms: float = float("nan")

    def metrics(self, unit: float = 1.0) -> dict[str, float]:
        """The figures by their names as metrics; ``unit`` is the world's, in metres."""
        found = {
            "depth.coverage": self.coverage,
            "depth.median_error": self.median * unit,
            "depth.mean_error": self.mean * unit,
            "depth.relative_error": self.relative,
        }
        for limit, share in self.within.items():
            found[f"depth.within_{100 * limit:g}pct_share"] = share if self.coverage else float("nan")
            found[f"depth.correct_{100 * limit:g}pct_share"] = self.correct[limit]
        return found

    def text(self) -> str:
        """The figures for a person to read."""
        shares = [f"{100 * share:.1f}% within {100 * t:g}%" for t, share in self.within.items()]
        shares += [f"{100 * share:.1f}% within {t:g}" for t, share in self.within_absolute.items()]
        return (
            f"coverage {100 * self.coverage:.1f}%; error median {self.median:.4g}, mean {self.mean:.4g}, "
            f"relative {100 * self.relative:.3g}%; {', '.join(shares)}"
        )


def evaluate_depth(
    depth: Float[np.ndarray, "h w"],
    truth: Float[np.ndarray, "h w"],
    thresholds: tuple[float, ...] = (0.001, 0.005, 0.01),
    absolute: tuple[float, ...] = (),
) -> DepthReport:
    """Compare a depth map with the truth; 0 (or not finite) means unknown in both.

    Args:
        depth, truth: (h, w) z-depth in the same units.
        thresholds: relative errors.
        absolute: errors in world units.

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
        none = dict.fromkeys(thresholds, 0.0)
        return DepthReport(0.0, nan, nan, nan, none, dict.fromkeys(absolute, 0.0), none)
    error = np.abs(depth[both].astype(np.float64) - truth[both])
    relative = error / truth[both]
    total = int(known.sum())
    return DepthReport(
        float(both.sum() / total),
        float(error.mean()),
        float(np.median(error)),
        float(relative.mean()),
        {t: float((relative <= t).mean()) for t in thresholds},
        {t: float((error <= t).mean()) for t in absolute},
        {t: float((relative <= t).sum() / total) for t in thresholds},
        float(np.sqrt((error**2).mean())),
    )


def truth_at_pixels(
    truth: Float[np.ndarray, "h w"], xy: Float[np.ndarray, "n 2"], width: int, height: int
) -> Float32[np.ndarray, " n"]:
    """Look up the true depth at pixels of a photo of another size: the nearest pixel's, 0 outside.

    Args:
        truth: depth at its own size.
        xy: pixels of a photo of ``width`` x ``height``.
        width, height: size of the photo that ``xy`` is in.
    """
    rows, columns = truth.shape
    x = np.rint((np.asarray(xy, np.float64)[:, 0] + 0.5) * columns / width - 0.5)
    y = np.rint((np.asarray(xy, np.float64)[:, 1] + 0.5) * rows / height - 0.5)
    inside = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
    column, row = np.where(inside, x, 0).astype(int), np.where(inside, y, 0).astype(int)
    return np.where(inside, truth[row, column], 0).astype(np.float32)


def resize_truth_depth(
    truth: Float[np.ndarray, "h w"], width: int, height: int
) -> Float32[np.ndarray, "h2 w2"]:
    """Compute the true depth at another image size: the nearest pixel's (depths across an edge must not mix)."""
    if truth.shape == (height, width):
        return np.asarray(truth, np.float32)
    return truth_at_pixels(truth, pixel_grid(width, height), width, height).reshape(height, width)
