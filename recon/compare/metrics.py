"""What each metric is called, which way is better, and where it stands in the tables."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
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
    """

    name: str
    label: str
    group: str
    unit: str = ""
    better: Better = ""


GROUPS = (
    "Cameras",
    "Two views",
    "Matches",
    "Flow",
    "Tracks",
    "Depth",
    "Points",
    "Mesh",
    "Left-out photos",
    "Photo-consistency",
    "Cost",
    "Run",
)
"""Tables of the report, in order."""

_PREFIX = {
    "registered": "Cameras",
    "poses": "Cameras",
    "two_view": "Two views",
    "matches": "Matches",
    "flow": "Flow",
    "tracks": "Tracks",
    "sparse": "Tracks",
    "depth": "Depth",
    "cloud": "Points",
    "points": "Points",
    "mesh": "Mesh",
    "left_out": "Left-out photos",
    "photo_consistency": "Photo-consistency",
    "cost": "Cost",
}

# Which way is better, by words of the name: the first that fits decides.
_BETTER: tuple[tuple[str, Better], ...] = (
    (r"judged|behind|compared|observations|^points$|photo_mean", ""),
    (r"endpoint_px", "lower"),
    (
        r"impossible|outlier|floating|error|chamfer|reprojection|endpoint_median|epipolar|angular|rmse|spread",
        "lower",
    ),
    (r"seconds|memory|bytes", "lower"),
    (
        r"auc|share|precision|recall|completeness|accuracy|within|correct|^f_|coverage|psnr|ssim|length|count|"
        r"repeatab|consisten",
        "higher",
    ),
)

_SHARE = re.compile(
    r"(?!.*error)(auc|.*share|.*coverage|precision|recall|completeness|f_|endpoint_within|behind_ratio|repeatab)"
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
    "poses.max_error": ("centre error, largest", "truth", "lower"),
    "poses.robust_mean_error": ("centre error, robust alignment, mean", "truth", "lower"),
    "poses.robust_median_error": ("centre error, robust alignment, median", "truth", "lower"),
    "matches.epipolar_median_px": ("epipolar error, median", "px", "lower"),
    "matches.endpoint_median_px": ("endpoint error, median", "px", "lower"),
    "matches.count": ("matches a pair", "", "higher"),
    "tracks.mean_length": ("track length", "", "higher"),
    "photo_consistency": ("photo-consistency", "", "higher"),
    "photo_consistency.agreeing_share": ("agreeing pixels", "share", "higher"),
    "depth.correct_1pct_share": ("depth right to 1%", "share", "higher"),
    "depth.relative_error": ("relative error", "", "lower"),
    "left_out.mesh_psnr_whole": ("mesh PSNR, holes counted", "dB", "higher"),
    "left_out.cloud_psnr_whole": ("points PSNR, holes counted", "dB", "higher"),
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
    "matches.correct_coverage",
    "depth.correct_1pct_share",
    "left_out.mesh_psnr_whole",
    "left_out.mesh_ssim",
    "photo_consistency",
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
        return Metric(name, label, group, unit, better)
    word = rest or prefix
    found: Better = ""
    for pattern, way in _BETTER:
        if re.search(pattern, word):
            found = way
            break
    label = _label(word)
    if prefix in {"points", "mesh"}:
        label = (
            f"{prefix} {label}"  # both have the same measures, and stand beside each other in the short table
        )
    return Metric(name, label, group, _unit(prefix, word), found)


def _label(word: str) -> str:
    """ "f_20mm" is "F at 20 mm", "auc_5" is "AUC 5°", "precision_1px" is "precision 1 px"."""
    match = re.fullmatch(r"(.*?)_?([\d.]+)(px|mm|pct|cm|m)?(_share)?", word)
    if match is None or not match[1]:
        return word.removesuffix("_px").replace("_", " ")
    what, number, unit = match[1].replace("_", " "), match[2], {"pct": "%", None: ""}.get(match[3], match[3])
    if what == "auc":
        return f"AUC {number}°"
    what = {"f": "F", "accuracy share": "accuracy"}.get(what, what)
    return f"{what} {number} {unit}".rstrip()


def _unit(prefix: str, word: str) -> str:
    if _SHARE.match(word):
        return "share"
    if word.endswith("_px"):
        return "px"
    if (
        word.endswith(("_error", "chamfer"))
        and prefix in {"poses", "points", "mesh", "depth"}
        and "relative" not in word
    ):
        return "truth"
    return "s" if "seconds" in word else ""


def key_metrics(names: Iterable[str]) -> set[str]:
    """Names of the short table: those of a fixed list, and of the F scores that with the middle threshold."""
    listed = list(names)
    found = {name for name in listed if name in _KEYS}
    for prefix in ("points", "mesh"):
        scores = [name for name in listed if name.startswith(f"{prefix}.f_")]
        if scores:
            found.add(scores[len(scores) // 2])
    return found


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


def with_unit(value: float | None, unit: str, truth_unit: str = "") -> str:
    """A value with its unit; lengths of a truth in metres are shown in millimetres."""
    if unit == "truth" and truth_unit == "m" and value is not None:
        return f"{written(1000 * value)} mm"
    suffix = {"truth": " units of the truth", "share": "", "bytes": "", "": ""}.get(unit, f" {unit}")
    return written(value, unit) + suffix
