"""Every metric of an evaluation with its unit and which way is better; see docs/metrics.md for what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower", ""]


@dataclass(frozen=True)
class Metric:
    """Name, unit and direction of a metric.

    Attributes:
        name: key in the results; a "*" in a declaration stands for a threshold ("20mm", "1pct", "0.5u", "5").
        label: heading of its column; "{}" in a declaration stands for the threshold.
        group: heading of its table.
        unit: "share" (0…1), "truth" (the truth's unit of length), "s", "MB", "px", "°" or a text; may be empty.
        better: which way; empty where neither is.
    """

    name: str
    label: str
    group: str
    unit: str = ""
    better: Better = ""


_Declared = tuple[str, str, str, Better]


def _surface(name: str) -> tuple[_Declared, ...]:
    """Points and mesh have the same metrics, and stand beside each other in the short table."""
    return (
        (f"{name}.precision_*", f"{name} precision {{}}", "share", "higher"),
        (f"{name}.recall_*", f"{name} recall {{}}", "share", "higher"),
        (f"{name}.f_*", f"{name} F {{}}", "share", "higher"),
        (f"{name}.accuracy_mean_error", f"{name} accuracy mean error", "truth", "lower"),
        (f"{name}.accuracy_median_error", f"{name} accuracy median error", "truth", "lower"),
        (f"{name}.completeness_mean_error", f"{name} completeness mean error", "truth", "lower"),
        (f"{name}.completeness_median_error", f"{name} completeness median error", "truth", "lower"),
        (f"{name}.chamfer", f"{name} chamfer", "truth", "lower"),
        (f"{name}.judged_share", f"{name} judged share", "share", ""),
        (f"{name}.behind_ratio", f"{name} behind ratio", "share", ""),
    )


def _consistency(name: str) -> tuple[_Declared, ...]:
    return (
        (name, "photo-consistency", "", "higher"),
        (f"{name}.agreeing_share", "agreeing pixels", "share", "higher"),
        (f"{name}.compared_share", "compared share", "share", ""),
    )


_GROUPED: Mapping[str, tuple[_Declared, ...]] = {
    "Cameras": (
        ("registered.share", "registered", "share", "higher"),
        ("poses.mean_error", "centre error, mean", "truth", "lower"),
        ("poses.median_error", "centre error, median", "truth", "lower"),
        ("poses.max_error", "centre error, largest", "truth", "lower"),
        ("poses.robust_mean_error", "centre error, robust alignment, mean", "truth", "lower"),
        ("poses.robust_median_error", "centre error, robust alignment, median", "truth", "lower"),
        ("poses.rotation_mean", "rotation error, mean", "°", "lower"),
        ("poses.auc_*", "AUC {}°", "share", "higher"),
    ),
    "Two views": (("two_view.auc_*", "AUC {}°", "share", "higher"),),
    "Matches": (
        ("matches.precision_*", "precision {}", "share", "higher"),
        ("matches.epipolar_median_px", "epipolar error, median", "px", "lower"),
        ("matches.count", "matches a pair", "", "higher"),
        ("matches.coverage", "coverage", "share", "higher"),
        ("matches.correct_coverage", "correct coverage", "share", "higher"),
        ("matches.endpoint_median_px", "endpoint error, median", "px", "lower"),
        ("matches.endpoint_within_*", "endpoint within {}", "share", "higher"),
        ("matches.impossible_share", "impossible share", "share", "lower"),
        ("matches.repeatability", "repeatability", "share", "higher"),
    ),
    "Flow": (
        ("flow.endpoint_px", "endpoint error, mean", "px", "lower"),
        ("flow.endpoint_median_px", "endpoint error, median", "px", "lower"),
        ("flow.consistent_endpoint_px", "endpoint error where consistent", "px", "lower"),
        ("flow.angular_deg", "angular error", "°", "lower"),
        ("flow.fl_outliers", "Fl outliers", "share", "lower"),
        ("flow.outliers_*", "outliers {}", "share", "lower"),
        ("flow.missing_ratio", "missing ratio", "share", ""),
    ),
    "Tracks": (
        ("tracks.points", "points", "", ""),
        ("tracks.observations", "observations", "", ""),
        ("tracks.mean_length", "track length", "", "higher"),
        ("tracks.reprojection_px", "reprojection", "px", "lower"),
        ("tracks.accuracy_share_*", "accuracy {}", "share", "higher"),
        ("tracks.completeness_*", "completeness {}", "share", "higher"),
        *_consistency("tracks.photo_consistency"),
    ),
    "Depth": (
        ("depth.coverage", "coverage", "share", "higher"),
        ("depth.median_error", "median error", "truth", "lower"),
        ("depth.mean_error", "mean error", "truth", "lower"),
        ("depth.relative_error", "relative error", "", "lower"),
        ("depth.correct_1pct_share", "depth right to 1%", "share", "higher"),
        ("depth.within_*_share", "within {}", "share", "higher"),
        ("depth.correct_*_share", "correct {}", "share", "higher"),
    ),
    "Points": _surface("points"),
    "Mesh": _surface("mesh"),
    "Left-out photos": (
        ("left_out.mesh_psnr", "mesh PSNR", "dB", "higher"),
        ("left_out.mesh_psnr_whole", "mesh PSNR, holes counted", "dB", "higher"),
        ("left_out.mesh_ssim", "mesh SSIM", "", "higher"),
        ("left_out.mesh_coverage", "mesh coverage", "share", "higher"),
        ("left_out.cloud_psnr", "points PSNR", "dB", "higher"),
        ("left_out.cloud_psnr_whole", "points PSNR, holes counted", "dB", "higher"),
        ("left_out.cloud_ssim", "points SSIM", "", "higher"),
        ("left_out.cloud_coverage", "points coverage", "share", "higher"),
    ),
    "Photo-consistency": _consistency("photo_consistency"),
    "Cost": (
        ("cost.seconds", "seconds in all", "s", "lower"),
        ("cost.cpu_seconds", "processor seconds", "s", "lower"),
        ("cost.seconds_per_pair", "matching a pair", "s", "lower"),
        ("cost.peak_memory_mb", "peak memory", "MB", "lower"),
        ("cost.bytes_on_disk", "on disk", "bytes", "lower"),
    ),
    "Run": (
        ("run.registered", "photos registered", "", "higher"),
        ("run.edges", "pairs verified", "", "higher"),
        ("run.tracks", "tracks", "", "higher"),
        ("run.track_length", "track length", "", "higher"),
        ("run.reprojection_px", "reprojection error", "px", "lower"),
        ("run.sparse_points", "sparse points", "", "higher"),
        ("run.depth_share", "depth on pixels", "share", "higher"),
        ("run.points", "dense points", "", "higher"),
        ("run.consistent_share", "consistent pixels", "share", "higher"),
    ),
}

GROUPS = tuple(_GROUPED)
"""Headings of tables, in order."""

METRICS = tuple(
    Metric(name, label, group, unit, better)
    for group, declared in _GROUPED.items()
    for name, label, unit, better in declared
)
"""All declarations."""


def describe(name: str) -> Metric:
    """Look up a metric by its name, threshold included.

    Raises:
        ValueError: no metric is declared under this name.
    """
    for metric in METRICS:
        before, star, after = metric.name.partition("*")
        if name == metric.name:
            return metric
        if star and name.startswith(before) and name.endswith(after):
            threshold = name[len(before) : len(name) - len(after)]
            if threshold[:1].isdigit():
                return Metric(
                    name, metric.label.format(_written(threshold)), metric.group, metric.unit, metric.better
                )
    raise ValueError(f"the metric {name} is not declared in {__name__}")


def _written(threshold: str) -> str:
    """ "20mm" is "20 mm", "1pct" is "1 %", "0.5u" (units of the truth) is "0.5 u", "5" is "5"."""
    number = threshold.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = threshold[len(number) :]
    return f"{number} {'%' if unit == 'pct' else unit}".rstrip()
