"""A comparison in a few lines, for the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recon.compare.metrics import with_unit, written
from recon.compare.tables import standing
from recon.io.files import parse_json

_MARKS = {"best": "*", "within noise": "~", "worse": " ", "": "?"}


def summary(path: Path) -> str:
    """The short table of every scene of a comparison.json."""
    data = parse_json(path.read_text(encoding="utf-8"))
    return "\n\n".join(_table(scene, data["metrics"]) for scene in data["scenes"])


def all_failed(path: Path) -> bool:
    """True where no contender of a comparison.json succeeded on any scene."""
    scenes = parse_json(path.read_text(encoding="utf-8"))["scenes"]
    return all(row["state"] == "failed" for one in scenes for row in one["contenders"])


def _cell(value: float | None, unit: str, truth_unit: str) -> str:
    return with_unit(value, unit, truth_unit) if unit == "truth" and truth_unit else written(value, unit)


def _table(scene: dict[str, Any], metrics: dict[str, Any]) -> str:
    names = [
        name
        for name, metric in metrics.items()
        if metric["key"] and any(name in one["metrics"] for one in scene["contenders"])
    ]
    rows = [["", *(metrics[name]["label"] for name in names)]]
    failed = []
    for one in scene["contenders"]:
        cells = []
        for name in names:
            value = one["metrics"].get(name)
            mark = " " if value is None else _MARKS[standing(scene["rankings"].get(name), one["label"])]
            cells.append(_cell(value, metrics[name]["unit"], scene["truth_unit"]) + mark)
        rows.append([one["label"], *cells])
        if one["state"] == "failed":
            failed.append(f"{one['label']} failed: {one['error']}")
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    head = (
        f"{scene['name']} (cameras: {scene['poses']}; * best, ~ not to be told from the best, ? not tested, nothing: "
        "worse)"
    )
    return "\n".join([head, *lines, *failed])
