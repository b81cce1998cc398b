"""Depth maps of a run against known depth."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from recon.evaluation.depth import DepthReport, evaluate_depth, resize_truth_depth, truth_at_pixels
from recon.evaluation.evidence.subject import Subject
from recon.evaluation.report import Curve, ReportBuilder

RELATIVE = (0.001, 0.005, 0.01, 0.05)
"""Relative errors up to which a depth is counted."""


def depth_evidence(subject: Subject, report: ReportBuilder) -> None:
    """Compare the depth map of each photo of the run with its known depth."""
    if subject.truth is None or subject.truth.depth is None or subject.truth_from_run is None:
        return
    found = {}
    for name in sorted(subject.known):
        truth = subject.truth.depth(name)
        if truth is None or not (np.isfinite(truth) & (truth > 0)).any():
            continue
        estimate = subject.run.named_depth(name)
        if estimate is None:
            estimate = np.zeros_like(truth)
        else:
            truth = _on_grid(subject, truth, name, estimate.shape)
        if (truth > 0).any():
            found[name] = evaluate_depth(estimate * subject.truth_from_run.scale, truth, RELATIVE)
    if found and any(r.coverage > 0 for r in found.values()):
        _add_depth(found, subject.unit, report)


def _add_depth(found: dict[str, DepthReport], unit: float, report: ReportBuilder) -> None:
    report.photos("depth.coverage", {n: r.coverage for n, r in found.items()})
    report.photos("depth.median_error", {n: r.median * unit for n, r in found.items()}, "median")
    report.photos("depth.mean_error", {n: r.mean * unit for n, r in found.items()})
    report.photos("depth.relative_error", {n: r.relative for n, r in found.items()})
    for limit in RELATIVE:
        key = f"{100 * limit:g}pct"
        within = {n: r.within[limit] if r.coverage else float("nan") for n, r in found.items()}
        report.photos(f"depth.within_{key}_share", within)
        report.photos(f"depth.correct_{key}_share", {n: r.correct[limit] for n, r in found.items()})
    shares = np.array([report.metrics[f"depth.correct_{100 * limit:g}pct_share"] for limit in RELATIVE])
    label = "pixels with known depth, mean over photos, by relative error"
    report.curves["depth.correct"] = Curve(label, "share", np.array(RELATIVE), shares)


def _on_grid(
    subject: Subject, truth: Float32[np.ndarray, "h w"], name: str, shape: tuple[int, ...]
) -> Float32[np.ndarray, "h2 w2"]:
    """The known depth at the pixels of an estimated depth map (undistorted by the run's own camera)."""
    height, width = shape
    camera = subject.run.cameras.get(name)
    if camera is None or camera.intrinsics.is_pinhole:
        return resize_truth_depth(truth, width, height)
    from recon.core.undistort import distort_points

    intrinsics = camera.intrinsics.resized(width, height)
    x, y = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    photo = distort_points(np.stack([x.ravel(), y.ravel()], axis=1), intrinsics, intrinsics.K)
    photo = np.where(np.isfinite(photo).all(axis=1)[:, None], photo, -1e6)
    return truth_at_pixels(truth, photo, width, height).reshape(height, width)
