"""Depth maps of a run against known depth."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from recon.core.undistort import distort_points, pixel_grid
from recon.evaluation.depth import (
    DEPTH_LIMITS,
    DepthReport,
    evaluate_depth,
    resize_truth_depth,
    truth_at_pixels,
)
from recon.evaluation.evidence.subject import Subject
from recon.evaluation.report import Curve, ReportBuilder
from recon.run.folder import DEPTH
from recon.run.standing import VIEWS, read_standings


def depth_evidence(subject: Subject, report: ReportBuilder) -> None:
    """Say how much of each photo has depth, and compare its depth map with its known depth."""
    names = {f"{photo.id}.npz": name for name, photo in subject.run.photos.items()}
    standings = dict(read_standings(subject.run.path(DEPTH, VIEWS)).values())
    covered = {name: standings[file].covered for file, name in names.items() if file in standings}
    if covered:
        report.photos("run.depth_share", covered)
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
            found[name] = evaluate_depth(estimate * subject.truth_from_run.scale, truth, DEPTH_LIMITS)
    if found and any(r.coverage > 0 for r in found.values()):
        _add_depth(found, subject.unit, report)


def _add_depth(found: dict[str, DepthReport], unit: float, report: ReportBuilder) -> None:
    figures = {name: one.metrics(unit) for name, one in found.items()}
    for metric in next(iter(figures.values())):
        kind = "median" if metric == "depth.median_error" else "mean"
        report.photos(metric, {name: one[metric] for name, one in figures.items()}, kind)
    shares = [report.metrics[f"depth.correct_{100 * limit:g}pct_share"] for limit in DEPTH_LIMITS]
    label = "pixels with known depth, mean over photos, by relative error"
    report.curves["depth.correct"] = Curve(label, "share", np.array(DEPTH_LIMITS), np.array(shares))


def _on_grid(
    subject: Subject, truth: Float32[np.ndarray, "h w"], name: str, shape: tuple[int, ...]
) -> Float32[np.ndarray, "h2 w2"]:
    """The known depth at the pixels of an estimated depth map (undistorted by the run's own camera)."""
    height, width = shape
    camera = subject.run.cameras.get(name)
    if camera is None or camera.intrinsics.is_pinhole:
        return resize_truth_depth(truth, width, height)
    intrinsics = camera.intrinsics.resized(width, height)
    photo = distort_points(pixel_grid(width, height), intrinsics, intrinsics.K)
    photo = np.where(np.isfinite(photo).all(axis=1)[:, None], photo, -1e6)
    return truth_at_pixels(truth, photo, width, height).reshape(height, width)
