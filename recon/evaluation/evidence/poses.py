"""Cameras of a run against the true ones, and the relative poses of its pairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Float64

from recon.datasets.ground_truth import GroundTruth
from recon.evaluation.evidence.subject import Subject
from recon.evaluation.poses import PoseReport, evaluate_poses, inverse_pose, relative_pose, two_view_errors
from recon.evaluation.report import Curve, ReportBuilder
from recon.run.folder import NamePair

AUC_LIMITS = (1.0, 3.0, 5.0, 10.0, 20.0)
"""Degrees: 5, 10 and 20 of SuperGlue (Sarlin et al. 2020), 1 and 3 of the Image Matching Challenges."""

_ANGLES = np.linspace(0.0, 20.0, 201)


def pose_evidence(subject: Subject, report: ReportBuilder) -> None:
    """Compare the cameras with the known ones."""
    known = {name: camera.cam_from_world for name, camera in subject.known.items()}
    run, estimated = subject.run, subject.estimated
    if not known:
        if run.given:
            report.photos("registered.share", {name: float(name in run.poses) for name in sorted(run.given)})
        return
    report.photos("registered.share", {name: float(name in estimated) for name in sorted(known)})
    missing = sorted(set(known) - set(estimated))
    if missing:
        report.note(f"not registered: {', '.join(missing)}")
    if subject.truth_from_run is None:
        report.note(f"poses: {len(estimated)} of {len(known)} cameras are there, which allow no alignment")
        report.metrics |= {f"poses.auc_{limit:g}": 0.0 for limit in AUC_LIMITS}
        return
    plain = evaluate_poses(estimated, known, AUC_LIMITS)
    robust = evaluate_poses(estimated, known, AUC_LIMITS, robust=True)
    errors = _center_errors(plain, subject.unit)
    report.photos("poses.mean_error", errors)
    report.statistic("poses.median_error", errors, "median")
    report.metrics["poses.max_error"] = float(plain.center_max * subject.unit)
    errors = _center_errors(robust, subject.unit)
    report.photos("poses.robust_mean_error", errors)
    report.statistic("poses.robust_median_error", errors, "median")
    report.photos(
        "poses.rotation_mean", dict(zip(robust.names, robust.rotation_errors.tolist(), strict=True))
    )
    _recall_of_angles("poses", plain.pair_errors, "pairs of cameras, by their absolute poses", report)


def two_view_evidence(subject: Subject, report: ReportBuilder) -> None:
    """Compare the relative pose of each pair, from its own matches, with the known one."""
    truth = relative_truth(subject.truth, subject.run.named_pairs)
    found = subject.run.named_two_view_poses()
    if truth and found is not None:
        errors = two_view_errors(found, truth)
        _recall_of_angles("two_view", errors, "pairs of photos, by their own matches", report)


def relative_truth(
    truth: GroundTruth | None, pairs: Iterable[NamePair]
) -> dict[NamePair, Float64[np.ndarray, "3 4"]]:
    """``b_from_a`` of the pairs whose truth is known, by cameras or as the benchmark lists it."""
    if truth is None:
        return {}
    listed = {(p.a, p.b): p.b_from_a for p in truth.pairs}
    out = {}
    for a, b in pairs:
        if a in truth.cameras and b in truth.cameras:
            out[a, b] = relative_pose(truth.cameras[a].cam_from_world, truth.cameras[b].cam_from_world)
        elif (a, b) in listed:
            out[a, b] = listed[a, b]
        elif (b, a) in listed:
            out[a, b] = inverse_pose(listed[b, a])
    return out


def _center_errors(found: PoseReport, unit: float) -> dict[str, float]:
    return dict(zip(found.names, (found.center_errors * unit).tolist(), strict=True))


def _recall_of_angles(name: str, errors: Mapping[NamePair, float], label: str, report: ReportBuilder) -> None:
    report.per_pair[f"{name}.error"] = dict(errors)
    for limit in AUC_LIMITS:
        report.statistic(f"{name}.auc_{limit:g}", errors, f"auc_{limit:g}")
    values = np.sort(np.array(list(errors.values())))
    share = np.searchsorted(values, _ANGLES, side="right") / max(len(values), 1)
    report.curves[f"{name}.error"] = Curve(label, "degrees", _ANGLES, share)
