"""A comparison as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from recon.compare.metrics import key_metrics
from recon.compare.results import Entry, SceneResult, interval
from recon.evaluation.metrics import describe
from recon.evaluation.report import Curve
from recon.io.files import finite

FORMAT = 1

# A curve keeps so many points: more cannot be seen on a screen.
_CURVE_POINTS = 160


def as_data(results: Sequence[SceneResult], sweep: tuple[str, Sequence[str]] | None = None) -> dict[str, Any]:
    """Everything of a comparison as JSON values (numbers that are not finite are None)."""
    from recon.engine.workspace import library_versions

    names = list(dict.fromkeys(name for r in results for e in r.entries for name in e.metrics))
    metrics = {name: describe(name) for name in names}
    keys = key_metrics(names)
    return {
        "format": FORMAT,
        "versions": library_versions(),
        "sweep": None if sweep is None else {"parameter": sweep[0], "values": list(sweep[1])},
        "metrics": {
            name: {
                "label": m.label,
                "group": m.group,
                "unit": m.unit,
                "better": m.better,
                "key": name in keys,
            }
            for name, m in metrics.items()
        },
        "scenes": [finite(_scene(result)) for result in results],
    }


def _scene(result: SceneResult) -> dict[str, Any]:
    truth = result.scene.truth
    known = []
    if truth is not None:
        known = [
            what
            for what, there in (
                ("cameras", bool(truth.cameras)),
                ("depth", truth.depth is not None),
                ("mesh", truth.mesh is not None),
                ("scan", bool(truth.points)),
                ("flow", truth.flow is not None),
            )
            if there
        ]
    options = result.options
    return {
        "name": result.scene.name,
        "photos": list(result.photo_names),
        "pairs": result.pair_count,
        "truth": known,
        "truth_unit": "m" if truth is not None and truth.unit_in_metres == 1.0 else "",
        "truth_note": truth.note if truth is not None else "",
        "poses": result.poses_text,
        "quality": options.quality,
        "intrinsics": options.intrinsics,
        "seed": options.seed,
        "seeds": options.seeds,
        "threads": options.threads,
        "notes": list(result.notes),
        "contenders": [_entry(entry) for entry in result.entries],
        "rankings": {
            name: {"best": r.best, "inside_noise": list(r.inside_noise), "tested": list(r.tested)}
            for name, r in result.rankings().items()
        },
        "pictures": result.pictures,
    }


def _entry(entry: Entry) -> dict[str, Any]:
    intervals = {name: interval(entry, name) for name in entry.metrics}
    return {
        "label": entry.contender.label,
        "matcher": entry.contender.matcher,
        "recipe": entry.contender.recipe,
        "overrides": list(entry.contender.overrides),
        "state": "failed" if entry.error else "done",
        "error": entry.error,
        "failed_stage": entry.failed_stage,
        "warnings": list(entry.warnings),
        "notes": list(entry.evaluation.notes),
        "stage_seconds": entry.stage_seconds,
        "metrics": dict(entry.metrics),
        "intervals": {name: [i.low, i.high] for name, i in intervals.items() if i is not None},
        "spread": {name: list(ends) for name, ends in entry.spread.items()},
        "curves": {
            name: {"label": c.label, "unit": c.unit, **_thinned(c)}
            for name, c in entry.evaluation.curves.items()
        },
    }


def _thinned(curve: Curve) -> dict[str, list[float]]:
    x, y = curve.x, curve.y
    if len(x) > _CURVE_POINTS:
        rows = np.unique(np.rint(np.linspace(0, len(x) - 1, _CURVE_POINTS)).astype(int))
        x, y = x[rows], y[rows]
    keep = np.isfinite(x) & np.isfinite(y)
    return {"x": x[keep].tolist(), "y": y[keep].tolist()}


def as_json(data: dict[str, Any]) -> str:
    """The text of comparison.json."""
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_csv(data: dict[str, Any]) -> str:
    """The text of comparison.csv: a row per scene and contender, with the ends of intervals beside their metric."""
    columns: list[str] = []
    for name in data["metrics"]:
        columns.append(name)
        for key in ("intervals", "spread"):
            if any(name in c[key] for s in data["scenes"] for c in s["contenders"]):
                ends = ("low", "high") if key == "intervals" else ("seed_min", "seed_max")
                columns += [f"{name}.{end}" for end in ends]
        columns.append(f"{name}.rank")
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["scene", "contender", "state", "error", *columns])
    for scene in data["scenes"]:
        for one in scene["contenders"]:
            cells = {}
            for name, value in one["metrics"].items():
                cells[name] = value
                for key, ends in (("intervals", ("low", "high")), ("spread", ("seed_min", "seed_max"))):
                    if name in one[key]:
                        cells.update(
                            {f"{name}.{end}": v for end, v in zip(ends, one[key][name], strict=True)}
                        )
                cells[f"{name}.rank"] = standing(scene["rankings"].get(name), one["label"])
            row = ["" if cells.get(column) is None else cells[column] for column in columns]
            writer.writerow([scene["name"], one["label"], one["state"], one["error"], *row])
    return stream.getvalue()


def standing(ranking: dict[str, Any] | None, label: str) -> str:
    """ "best", "within noise" (of the best), "worse" (by more than the noise) or nothing, where that is not known."""
    if ranking is None:
        return ""
    if ranking["best"] == label:
        return "best"
    if label in ranking["inside_noise"]:
        return "within noise"
    return "worse" if label in ranking["tested"] else ""
