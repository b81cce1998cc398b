"""Matches and dense flow of a run against known cameras, depth and flow."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from recon.core.cameras import PinholeView, fundamental_matrix
from recon.datasets.ground_truth import TruthPair
from recon.evaluation.evidence.subject import Subject
from recon.evaluation.flow import FlowReport, evaluate_flow
from recon.evaluation.matches import (
    PIXELS,
    MatchReport,
    epipolar_distances,
    evaluate_matches,
    without_distortion,
)
from recon.evaluation.poses import inverse_pose
from recon.evaluation.report import Curve, ReportBuilder
from recon.matching.types import SparseMatch
from recon.run.folder import NamePair

_DISTANCES = np.linspace(0.0, 10.0, 101)
_NAN = float("nan")


def match_evidence(subject: Subject, report: ReportBuilder) -> None:
    """Compare the matches with the geometry of known cameras, and with known depth."""
    if subject.truth is None or not (subject.truth.cameras or subject.truth.pairs):
        return
    found: dict[NamePair, MatchReport] = {}
    curve = []
    for pair, match, count in subject.run.matches(seed=subject.seed):
        views = true_pair_views(subject, pair)
        if views is None:
            continue
        a, b = views
        straight = undistorted_match(subject, pair, match, views)
        # Known depth is that of the photo as taken.
        depths = [subject.depth_at(view) if straight is match else None for view in views]
        found[pair] = evaluate_matches(straight, a, b, count=count, depth_a=depths[0], depth_b=depths[1])
        errors = np.sort(epipolar_distances(straight.xy_a, straight.xy_b, fundamental_matrix(a, b)))
        curve.append(np.searchsorted(errors, _DISTANCES, side="right") / max(len(errors), 1))
    if not found:
        return
    for limit in PIXELS:
        report.pairs(f"matches.precision_{limit:g}px", {p: r.precision[limit] for p, r in found.items()})
    report.pairs("matches.epipolar_median_px", {p: r.median_epipolar for p, r in found.items()}, "median")
    report.pairs("matches.count", {p: float(r.count) for p, r in found.items()})
    report.pairs("matches.coverage", {p: r.coverage for p, r in found.items()})
    report.pairs("matches.correct_coverage", {p: r.correct_coverage for p, r in found.items()})
    if any(r.judged > 0 for r in found.values()):
        report.pairs("matches.endpoint_median_px", {p: r.endpoint_median for p, r in found.items()}, "median")
        for limit in PIXELS:
            within = {p: r.endpoint_within.get(limit, _NAN) for p, r in found.items()}
            report.pairs(f"matches.endpoint_within_{limit:g}px", within)
        report.pairs("matches.impossible_share", {p: r.impossible for p, r in found.items()})
    label = "matches, mean over pairs, by epipolar error"
    report.curves["matches.epipolar"] = Curve(label, "pixels", _DISTANCES, np.mean(curve, axis=0))


def true_pair_views(subject: Subject, pair: NamePair) -> tuple[PinholeView, PinholeView] | None:
    """The known cameras of a pair at the size that its matches are in; None where they are not known."""
    truth = subject.truth
    views: list[PinholeView] = []
    if truth is not None and all(name in truth.cameras for name in pair):
        views = [truth.cameras[name].view(name, i) for i, name in enumerate(pair)]
    elif truth is not None:
        listed = next((one for one in truth.pairs if {one.a, one.b} == set(pair)), None)
        views = [] if listed is None else _listed_views(subject, pair, listed)
    if len(views) != 2:
        return None
    sizes = [subject.photo_size(view.name) for view in views]
    a, b = (view if size is None else view.resized(*size) for view, size in zip(views, sizes, strict=True))
    return a, b


def _listed_views(subject: Subject, pair: NamePair, listed: TruthPair) -> list[PinholeView]:
    """Views of a pair whose truth is a relative pose; the size of the files is that of the original photos."""
    b_from_a = np.asarray(listed.b_from_a)
    if listed.a == pair[0]:
        cameras = ((listed.K_a, np.eye(3, 4)), (listed.K_b, b_from_a))
    else:
        cameras = ((listed.K_b, np.eye(3, 4)), (listed.K_a, inverse_pose(b_from_a)))
    sizes = [subject.run.original_size(name) for name in pair]
    return [
        PinholeView(i, name, K, pose, *size)
        for i, (name, (K, pose), size) in enumerate(zip(pair, cameras, sizes, strict=True))
        if size is not None
    ]


def undistorted_match(
    subject: Subject, pair: NamePair, match: SparseMatch, views: tuple[PinholeView, PinholeView]
) -> SparseMatch:
    """The match in the pixels of the pinhole views; itself where the known cameras have no distortion."""
    cameras = {} if subject.truth is None else subject.truth.cameras
    distorted = [
        camera.intrinsics.resized(view.width, view.height)
        if (camera := cameras.get(name)) is not None and not camera.intrinsics.is_pinhole
        else None
        for name, view in zip(pair, views, strict=True)
    ]
    return without_distortion(match, distorted, views)


def flow_evidence(subject: Subject, report: ReportBuilder) -> None:
    """Compare the dense fields with known flow."""
    if subject.truth is None or subject.truth.flow is None:
        return
    found: dict[NamePair, FlowReport] = {}
    trusted: dict[NamePair, FlowReport] = {}
    for pair in subject.run.named_pairs:
        for a, b in (pair, pair[::-1]):
            truth = subject.truth.flow(a, b)
            field = subject.run.named_flow((a, b)) if truth is not None else None
            if truth is None or field is None:
                continue
            height, width = truth.shape[:2]
            target = subject.run.flow_shape(b) or field[0].shape[:2]
            estimate, consistent = resized_flow(*field, target, width, height)
            found[a, b] = evaluate_flow(estimate, truth)
            try:
                trusted[a, b] = evaluate_flow(estimate, truth, consistent)
            except ValueError:
                report.note(f"flow: no consistent pixel of {a} to {b} has a known flow")
    if not found:
        return
    report.pairs("flow.endpoint_px", {p: r.endpoint for p, r in found.items()})
    report.pairs("flow.angular_deg", {p: r.angular for p, r in found.items()})
    report.pairs("flow.fl_outliers", {p: r.fl for p, r in found.items()})
    for limit in PIXELS:
        report.pairs(f"flow.outliers_{limit:g}px", {p: r.outliers[limit] for p, r in found.items()})
    report.pairs("flow.consistent_endpoint_px", {p: r.endpoint for p, r in trusted.items()})


def resized_flow(
    flow: Float32[np.ndarray, "h w 2"],
    consistent: Bool[np.ndarray, "h w"],
    target: tuple[int, ...],
    width: int,
    height: int,
) -> tuple[Float32[np.ndarray, "h2 w2 2"], Bool[np.ndarray, "h2 w2"]]:
    """A flow of the matching size at the size of the truth: positions by x' = (x + 0.5) s - 0.5.

    Args:
        flow, consistent: at the size of matching.
        target: rows and columns of the second photo at the size of matching.
        width, height: of the truth, for both photos.
    """
    if flow.shape[:2] == (height, width) == target:
        return flow, consistent
    size = (width, height)
    x, y = np.meshgrid(np.arange(flow.shape[1]), np.arange(flow.shape[0]))
    there = flow + np.stack([x, y], axis=-1)
    big = cv2.resize(there.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    factor = np.array([width / target[1], height / target[0]], np.float32)
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    moved = (big + 0.5) * factor - 0.5 - np.stack([columns, rows], axis=-1)
    mask = cv2.resize(consistent.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    return moved.astype(np.float32), mask
