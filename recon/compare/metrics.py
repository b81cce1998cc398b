"""The metrics of the short table, and values as a person reads them."""

from __future__ import annotations

import math
from collections.abc import Iterable

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
