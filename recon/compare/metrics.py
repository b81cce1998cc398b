"""What each metric is called, which way is better, and where it stands in the tables."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower", ""]


@dataclass(frozen=True)
class Metric:
    """How a person reads a metric.

    Attributes:
        name: key in the results.
        label: heading of its column.
        group: heading of its table.
        unit: "share" (shown in per cent), "s", "MB", "px", "°" or a text; may be empty.
        better: which way; empty where neither is.
        key: whether it belongs to the short table.
    """

    name: str
    label: str
    group: str
    unit: str = ""
    better: Better = ""
    key: bool = False


GROUPS = ("Cameras", "Matches", "Flow", "Tracks", "Depth", "Points", "Mesh", "Left-out photos", "Cost", "Run")
"""Tables of the report, in order."""

_PREFIX = {
    "registered": "Cameras",
    "poses": "Cameras",
    "two_view": "Cameras",
    "matches": "Matches",
    "flow": "Flow",
    "tracks": "Tracks",
    "sparse": "Tracks",
    "depth": "Depth",
    "cloud": "Points",
    "points": "Points",
    "mesh": "Mesh",
    "surface": "Mesh",
    "left_out": "Left-out photos",
    "views": "Left-out photos",
    "photometric": "Left-out photos",
    "photo": "Left-out photos",
    "cost": "Cost",
}

_HIGHER = re.compile(
    r"auc|share|precision|recall|completeness|f_score|fscore|\bf_|\.f\b|\.f\d|count|coverage|covered|psnr|ssim|length|"
    r"inlier|repeatab|registered|consisten"
)
_LOWER = re.compile(
    r"error|epe|aae|outlier|angular|endpoint|chamfer|accuracy_m|distance|median_m|mean_m|seconds|memory|bytes|floating|"
    r"rmse|absrel|reprojection|_deg|_px"
)

# Written out where the rules would say it badly. {0} is what follows in the metric's name.
_KNOWN: dict[str, tuple[str, str, Better]] = {
    "registered.share": ("registered", "share", "higher"),
    "poses.mean_error": ("centre error, mean", "truth", "lower"),
    "poses.median_error": ("centre error, median", "truth", "lower"),
    "poses.rotation_mean": ("rotation error, mean", "°", "lower"),
    "cost.seconds": ("seconds in all", "s", "lower"),
    "cost.cpu_seconds": ("processor seconds", "s", "lower"),
    "cost.seconds_per_pair": ("matching a pair", "s", "lower"),
    "cost.peak_memory_mb": ("peak memory", "MB", "lower"),
    "cost.bytes_on_disk": ("on disk", "bytes", "lower"),
    "left_out.mesh_psnr": ("mesh PSNR", "dB", "higher"),
    "left_out.mesh_ssim": ("mesh SSIM", "", "higher"),
    "left_out.mesh_coverage": ("mesh coverage", "share", "higher"),
    "left_out.cloud_psnr": ("points PSNR", "dB", "higher"),
    "left_out.cloud_ssim": ("points SSIM", "", "higher"),
    "left_out.cloud_coverage": ("points coverage", "share", "higher"),
    "run.registered": ("photos registered", "", "higher"),
    "run.edges": ("pairs verified", "", "higher"),
    "run.tracks": ("tracks", "", "higher"),
    "run.track_length": ("track length", "", "higher"),
    "run.reprojection_px": ("reprojection error", "px", "lower"),
    "run.sparse_points": ("sparse points", "", "higher"),
    "run.depth_share": ("depth on pixels", "share", "higher"),
    "run.points": ("dense points", "", "higher"),
    "run.consistent_share": ("consistent pixels", "share", "higher"),
}

_KEYS = (
    "registered.share",
    "poses.auc_5",
    "poses.mean_error",
    "matches.precision_1px",
    "matches.coverage",
    "tracks.mean_length",
    "left_out.mesh_psnr",
    "left_out.mesh_coverage",
    "run.depth_share",
    "cost.seconds_per_pair",
    "cost.seconds",
    "cost.peak_memory_mb",
)


def describe(name: str) -> Metric:
    """How to show a metric."""
    prefix, _, rest = name.partition(".")
    group = _PREFIX.get(prefix, "Run")
    if name in _KNOWN:
        label, unit, better = _KNOWN[name]
        return Metric(name, label, group, unit, better, name in _KEYS)
    label = (rest or prefix).replace("_", " ")
    better: Better = ""
    if _LOWER.search(rest or prefix):
        better = "lower"
    elif _HIGHER.search(rest or prefix):
        better = "higher"
    unit = ""
    if re.search(r"share|coverage|covered|precision|recall|completeness|auc|rate|f_score|(^|_)f(_|\b)", rest):
        unit = "share"
    match = re.match(r"auc_([\d.]+)", rest)
    if match:
        label, unit = f"AUC {match[1]}°", "share"
    elif rest.endswith("_px"):
        unit = "px"
        label = label.removesuffix(" px")
    elif rest.endswith("_deg"):
        unit = "°"
        label = label.removesuffix(" deg")
    elif "seconds" in rest:
        unit = "s"
    return Metric(name, label, group, unit, better, name in _KEYS)


def written(value: float | None, unit: str = "") -> str:
    """A value as a person reads it: three or four digits, shares in per cent."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞"
    if unit == "share":
        return f"{100 * value:.1f}%"
    if unit == "bytes":
        return f"{value / 1e6:.0f} MB" if value >= 1e6 else f"{value / 1e3:.0f} kB"
    if value == int(value) and abs(value) < 1e7 and unit != "s":
        return f"{int(value)}"
    size = abs(value)
    if size >= 1000:
        return f"{value:.0f}"
    if size >= 100:
        return f"{value:.1f}"
    if size >= 1:
        return f"{value:.2f}"
    return f"{value:.3g}"
