"""Tracks, dense points and mesh of a run against the true surface."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from recon.core.mesh import Mesh
from recon.evaluation.evidence.subject import Subject
from recon.evaluation.report import Curve, ReportBuilder, Samples
from recon.evaluation.sources import check_same_world
from recon.evaluation.surface import SurfaceProtocol, SurfaceReport, evaluate_surface
from recon.evaluation.tracks import evaluate_tracks
from recon.evaluation.truth import surface_points

DTU_LONGEST = 0.02
"""Metres: DTU's program leaves longer distances out of its means (Aanæs et al. 2016)."""

# Of the extent: a surface that is typically farther off was hardly made in the world of the truth.
_ASTRAY_SHARE = 0.05

# What the counts of ``SurfaceReport.by_view`` make: the metric, the statistic, and its columns.
_OF_COUNTS = (
    ("precision", "ratio", slice(0, 2)),
    ("recall", "ratio", slice(2, 4)),
    ("f", "f", slice(0, 4)),
)


def track_evidence(subject: Subject, report: ReportBuilder) -> None:
    """Count the triangulated tracks, and compare their points with the true surface."""
    model = subject.run.sparse()
    if model is None:
        return
    known = subject.surface is not None and subject.truth_from_run is not None
    try:
        found = evaluate_tracks(
            model,
            subject.surface if known else None,
            subject.views,
            thresholds=[t for _, t in subject.limits] if known else (1.0,),
            voxel=subject.limits[0][1] if known else None,
            truth_from_estimate=subject.truth_from_run,
            seed=subject.seed,
            depths=subject.seen_surface if known else None,
            region=subject.truth.region if subject.truth is not None else None,
        )
    except ValueError as error:
        report.note(f"tracks: {error}")
        return
    report.metrics["tracks.points"] = float(found.points)
    report.metrics["tracks.observations"] = float(found.observations)
    report.metrics["tracks.mean_length"] = found.mean_length
    report.metrics["tracks.reprojection_px"] = found.mean_reprojection
    if found.surface is not None:
        shares = zip(subject.limits, found.surface.precision, found.surface.recall, strict=True)
        for (name, _), precision, recall in shares:
            report.metrics[f"tracks.accuracy_share_{name}"] = precision
            report.metrics[f"tracks.completeness_{name}"] = recall


def surface_evidence(subject: Subject, report: ReportBuilder) -> None:
    """Compare dense points and mesh with the true surface."""
    truth, run = subject.truth, subject.run
    if truth is None or subject.surface is None:
        return
    cloud = subject.read("points", run.cloud, report)
    mesh = subject.read("mesh", run.mesh, report)
    if subject.truth_from_run is None:
        if run.model_folder is not None and subject.known:
            report.note("surface: the cameras do not allow an alignment, so nothing is judged")
            return
        for path, points in (
            (run.cloud_path, None if cloud is None else cloud.xyz),
            (run.mesh_path, None if mesh is None else mesh.vertices),
        ):
            if points is not None:
                check_same_world(points, surface_points(subject.surface), str(path), truth.name)
        report.note("surface: there are no cameras to align by; taken to be in the world of the truth")
    for name, estimate in (("points", None if cloud is None else cloud.xyz), ("mesh", mesh)):
        if estimate is None:
            continue
        try:
            _add_surface(name, _against_truth(subject, estimate), subject, report)
        except ValueError as error:
            report.note(f"{name}: {error}")


def _against_truth(subject: Subject, estimate: Mesh | Float32[np.ndarray, "n 3"]) -> SurfaceReport:
    assert subject.truth is not None
    assert subject.surface is not None
    limits = [t for _, t in subject.limits]
    protocol = SurfaceProtocol(
        seed=subject.seed,
        voxel=0.5 * limits[0],
        max_distance=DTU_LONGEST / subject.unit if subject.truth.layout == "dtu" else None,
    )
    return evaluate_surface(
        estimate,
        subject.surface,
        subject.views,
        limits,
        subject.truth_from_run,
        protocol,
        region=subject.truth.region,
        depths=subject.seen_surface,
    )


def _add_surface(name: str, found: SurfaceReport, subject: Subject, report: ReportBuilder) -> None:
    unit, metrics = subject.unit, report.metrics
    if subject.truth_from_run is None and found.accuracy[1] > _ASTRAY_SHARE * subject.extent:
        report.note(
            f"{name}: half of it is farther from the truth than {100 * _ASTRAY_SHARE:g}% of the scene: are both in "
            "one world?"
        )
    for (key, _), p, r, f in zip(subject.limits, found.precision, found.recall, found.f_score, strict=True):
        metrics[f"{name}.precision_{key}"] = p
        metrics[f"{name}.recall_{key}"] = r
        metrics[f"{name}.f_{key}"] = f
    for (key, _), counts in zip(subject.limits, found.by_view.swapaxes(0, 1), strict=False):
        for what, kind, columns in _OF_COUNTS:
            each = {view.name: row[columns].tolist() for view, row in zip(subject.views, counts, strict=True)}
            report.samples[f"{name}.{what}_{key}"] = Samples(each, kind)
    metrics[f"{name}.accuracy_mean_error"] = found.accuracy[0] * unit
    metrics[f"{name}.accuracy_median_error"] = found.accuracy[1] * unit
    metrics[f"{name}.completeness_mean_error"] = found.completeness[0] * unit
    metrics[f"{name}.completeness_median_error"] = found.completeness[1] * unit
    metrics[f"{name}.chamfer"] = found.chamfer * unit
    metrics[f"{name}.judged_share"] = found.judged / max(found.estimated, 1)
    metrics[f"{name}.behind_ratio"] = found.behind
    x, precision, recall = found.curve.T
    metric = subject.truth is not None and subject.truth.unit_in_metres is not None
    length = "metres" if metric else "units of the truth"
    report.curves[f"{name}.precision"] = Curve("judged part of the estimate", length, x * unit, precision)
    report.curves[f"{name}.recall"] = Curve("seen part of the truth", length, x * unit, recall)
