"""Errors of optical flow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from recon.io.flo import FLO_UNKNOWN

FL_PIXELS, FL_SHARE = 3.0, 0.05
"""KITTI 2015's outlier: an endpoint error above 3 px and above 5% of the true motion."""


@dataclass(frozen=True)
class FlowReport:
    """Errors of a flow field where the truth is known.

    Attributes:
        endpoint: average endpoint error in pixels (AEE).
        angular: average angular error in degrees (AAE).
        outliers: share of pixels whose endpoint error is above each threshold, in 0…1.
        count: number of pixels that were compared.
        fl: share of pixels whose endpoint error is above 3 px and above 5% of the true motion (KITTI's Fl).
        median: median endpoint error in pixels.
        missing: share of the pixels with known truth for which there is no estimate.
    """

    endpoint: float
    angular: float
    outliers: Mapping[float, float]
    count: int
    fl: float = float("nan")
    median: float = float("nan")
    missing: float = 0.0

    def text(self) -> str:
        """The figures for a person to read."""
        rates = ", ".join(f"{100 * share:.2f}% above {limit:g} px" for limit, share in self.outliers.items())
        line = (
            f"endpoint error mean {self.endpoint:.4g} px, median {self.median:.4g} px; "
            f"angular error {self.angular:.4g}°; "
            f"{rates}; Fl {100 * self.fl:.2f}%; {self.count} pixels"
        )
        return line + (f"; {100 * self.missing:.1f}% without an estimate" if self.missing else "")


def known_flow(flow: Float[np.ndarray, "*shape 2"]) -> Bool[np.ndarray, "*shape"]:
    """Compute where a true flow is known: finite and below Middlebury's mark."""
    return np.isfinite(flow).all(axis=-1) & (np.abs(flow) < FLO_UNKNOWN).all(axis=-1)


def endpoint_errors(
    flow: Float[np.ndarray, "*shape 2"], truth: Float[np.ndarray, "*shape 2"]
) -> Float[np.ndarray, "*shape"]:
    """Compute the length of the difference of two flows per pixel, in pixels."""
    return np.linalg.norm(np.asarray(flow, np.float64) - truth, axis=-1)


def angular_errors(
    flow: Float[np.ndarray, "*shape 2"], truth: Float[np.ndarray, "*shape 2"]
) -> Float[np.ndarray, "*shape"]:
    """Compute the angle between (u, v, 1) and (u', v', 1) per pixel, in degrees.

    Source: Barron, Fleet & Beauchemin 1994; Baker et al., "A database and evaluation methodology for optical
    flow", IJCV 2011, equation 19. By atan2 of cross and dot product; acos would lose small angles.
    """
    a = np.concatenate([np.asarray(flow, np.float64), np.ones((*flow.shape[:-1], 1))], axis=-1)
    b = np.concatenate([np.asarray(truth, np.float64), np.ones((*truth.shape[:-1], 1))], axis=-1)
    sine = np.linalg.norm(np.cross(a, b), axis=-1)
    return np.degrees(np.arctan2(sine, (a * b).sum(axis=-1)))


def evaluate_flow(
    flow: Float[np.ndarray, "h w 2"],
    truth: Float[np.ndarray, "h w 2"],
    mask: Bool[np.ndarray, "h w"] | None = None,
    thresholds: tuple[float, ...] = (1.0, 3.0, 5.0),
    missing: Literal["zero", "skip"] = "zero",
) -> FlowReport:
    """Compare a flow with the truth.

    Average endpoint and angular error and outlier rates as in Baker et al., IJCV 2011, section 4.1; Fl as in Menze &
    Geiger, "Object scene flow for autonomous vehicles", CVPR 2015.

    Args:
        flow, truth: (h, w, 2) target minus source in pixels; unknown truth is above 1e9 or not finite.
        mask: True where to compare; None for everywhere.
        thresholds: pixels, for the outlier rates (R1.0 and so on in Baker et al.).
        missing: what becomes of pixels where the truth is known and the estimate is not: "zero" takes them as
            no motion, and as outliers whatever the motion; "skip" leaves them out.

    Raises:
        ValueError: shapes differ, or nothing is left to compare.
    """
    if flow.shape != truth.shape:
        raise ValueError(f"the flow is {flow.shape}, the truth {truth.shape}")
    where = known_flow(truth) if mask is None else known_flow(truth) & mask
    if not where.any():
        raise ValueError("the truth is known nowhere")
    unknown = where & ~known_flow(flow)
    if missing == "skip":
        where = where & ~unknown
        if not where.any():
            raise ValueError("the flow is known nowhere where the truth is")
    estimate = np.where(known_flow(flow)[..., None], flow, 0)[where]
    gone = unknown[where]
    endpoint = endpoint_errors(estimate, truth[where])
    angular = angular_errors(estimate, truth[where])
    length = np.linalg.norm(np.asarray(truth[where], np.float64), axis=-1)
    outliers = {t: float(((endpoint > t) | gone).mean()) for t in thresholds}
    wrong = (endpoint > FL_PIXELS) & (endpoint > FL_SHARE * length)
    total = int((known_flow(truth) if mask is None else known_flow(truth) & mask).sum())
    return FlowReport(
        float(endpoint.mean()),
        float(angular.mean()),
        outliers,
        int(where.sum()),
        float((wrong | gone).mean()),
        float(np.median(endpoint)),
        float(unknown.sum() / total),
    )
