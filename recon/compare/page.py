"""The comparison as one page that needs neither a network nor a server."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recon.compare.metrics import with_unit
from recon.evaluation.metrics import GROUPS
from recon.report.html import json_for_script, machine, render_page

_TEMPLATES = Path(__file__).resolve().parent / "templates"

LARGEST = 14_000_000
"""Bytes: pictures that would make the page larger are left out, the last ones first."""


def as_html(data: dict[str, Any], picture_folders: Sequence[Path]) -> str:
    """The text of comparison.html.

    Args:
        data: of ``recon.compare.tables.as_data``.
        picture_folders: where each scene's pictures are.
    """
    document = dict(data)
    document["groups"] = list(GROUPS)
    document["machine"] = machine()
    document["scenes"] = [
        {**scene, "headlines": headlines(scene, data["metrics"])} for scene in data["scenes"]
    ]
    room = LARGEST - len(json.dumps(document, ensure_ascii=False).encode())
    document["images"] = _images(document["scenes"], picture_folders, room)
    return render_page(
        _TEMPLATES / "comparison.html.j2",
        _TEMPLATES / "comparison.css",
        [_TEMPLATES / "comparison.js"],
        title=_title(data),
        lead=_lead(data),
        data=json_for_script(document),
    )


def _title(data: dict[str, Any]) -> str:
    scenes = data["scenes"]
    if data["sweep"]:
        kind = scenes[0]["name"].partition(",")[0]
        return f"Matchers on {kind} over {data['sweep']['parameter']}"
    return f"Matchers on {scenes[0]['name']}" if len(scenes) == 1 else f"Matchers on {len(scenes)} scenes"


def _lead(data: dict[str, Any]) -> str:
    scene = data["scenes"][0]
    count = len(scene["contenders"])
    return (
        f"{count} {'matcher' if count == 1 else 'matchers'} through the same pipeline: the same photos, pairs, "
        f"verification, mapping and densification. Cameras of the densification: {scene['poses']}. "
        f"Quality {scene['quality']}."
    )


def headlines(scene: dict[str, Any], metrics: dict[str, Any]) -> list[str]:
    """The short table in sentences."""
    said = []
    for name, metric in metrics.items():
        ranking = scene["rankings"].get(name)
        if not metric["key"] or ranking is None:
            continue
        values = {one["label"]: one["metrics"].get(name) for one in scene["contenders"]}
        best = ranking["best"]
        same = list(ranking["inside_noise"])
        unit = metric["unit"]
        group = metric["group"].lower()
        bare = group in {"run", "cost"} or metric["label"].startswith(group)
        shown = with_unit(values[best], unit, scene["truth_unit"])
        text = f"{'' if bare else group + ', '}{metric['label']}: {best} ({shown})"
        others = [label for label, value in values.items() if value is not None and label != best]
        if same and len(same) == len(others):
            text += "; the others cannot be told from it"
        elif same:
            text += f"; not to be told from it: {', '.join(same)}"
        said.append(text[:1].upper() + text[1:])
    return said


def _images(scenes: Sequence[dict[str, Any]], folders: Sequence[Path], room: int) -> dict[str, str]:
    """Pictures as data URIs, by "number of the scene/file"."""
    found: dict[str, str] = {}
    for number, (scene, folder) in enumerate(zip(scenes, folders, strict=True)):
        for group in scene["pictures"].values():
            for entry in group:
                for panel in entry["panels"]:
                    path = folder / panel["file"]
                    if not path.is_file():
                        continue
                    text = "data:image/jpeg;base64," + base64.b64encode(path.read_bytes()).decode()
                    room -= len(text) + 80
                    if room < 0:
                        return found
                    found[f"{number}/{panel['file']}"] = text
    return found
