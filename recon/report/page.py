"""A report as one HTML file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recon.report.charts import histogram_svg, in_words, pair_text, view_graph_svg
from recon.report.content import Picture, ReportContent
from recon.report.html import json_for_script, raw, render_page
from recon.report.packing import Blob, add_points, add_surface, box_of, cameras_of, start_of

_HERE = Path(__file__).resolve().parent
_TEMPLATES = _HERE / "templates"
_THREE = _HERE / "vendor" / "three.min.js"

# Bytes of the page at most. Clouds are thinned further, and pictures left out, until it fits.
LARGEST = 24_000_000

_DENSE_POINTS = 400_000
_SPARSE_POINTS = 60_000
_LEAST_POINTS = 20_000

# Pictures leave the 3D view so much room, or a quarter of the page.
_SCENE_BYTES = 4_000_000

# Set aside for all that is neither picture nor 3D view; each pair and each photo needs something too.
_TEXT_BYTES = 200_000


def report_html(content: ReportContent, largest: int = LARGEST) -> str:
    """The text of the report.

    Args:
        content: what is to be shown.
        largest: bytes; the dense cloud is thinned first, then match pictures and depth maps are left out, and said
            so.
    """
    pictures = _PictureRoom(content)
    text = _TEXT_BYTES + 600 * len(content.pairs) + 1500 * len(content.photos)
    room = largest - len(_THREE.read_bytes()) - text - pictures.bytes
    least = min(_SCENE_BYTES, largest // 4)
    if room < least:
        pictures.shrink(least - room)
        room = least
    scene = _scene(content, _DENSE_POINTS, with_surface=True)
    limit = _DENSE_POINTS
    with_surface = True
    while len(scene["data"]) > room and (limit > _LEAST_POINTS or with_surface):
        if limit > _LEAST_POINTS:
            limit = max(_LEAST_POINTS, limit // 2)
        else:
            with_surface = False
            pictures.notes.append("The mesh is left out: the page would become too large.")
        scene = _scene(content, limit, with_surface=with_surface)
    cameras = scene["header"]["cameras"]
    return render_page(
        _TEMPLATES / "report.html.j2",
        _TEMPLATES / "report.css",
        [_TEMPLATES / "scene.js", _TEMPLATES / "report.js"],
        _THREE.read_text(encoding="utf-8"),
        content=content,
        survey=raw(content.survey),
        photos=[_photo(entry) for entry in content.photos],
        has_scene=bool(cameras or scene["header"]["sparse"] or scene["header"]["dense"]),
        still=_uri(content.still) if content.still else "",
        strongest=pictures.shown(content.strongest),
        weakest=pictures.shown(content.weakest),
        depth=pictures.shown(content.depth),
        graph=raw(view_graph_svg(content.photo_names, content.pairs)) if content.pairs else "",
        kept_pairs=sum(pair.kept for pair in content.pairs),
        most_inliers=max((pair.inliers for pair in content.pairs), default=0),
        pairs=[
            {
                "a": content.photo_names[p.a],
                "b": content.photo_names[p.b],
                "text": pair_text(p),
                "kept": p.kept,
            }
            for p in sorted(content.pairs, key=lambda p: (-p.inliers, p.a, p.b))
        ],
        histograms=[(raw(histogram_svg(one)), in_words(one)) for one in _countable(content)],
        slowest=max((row.seconds for row in content.stages), default=0.0) or 1.0,
        seconds=sum(row.seconds for row in content.stages),
        memory=max((row.peak_memory_mb for row in content.stages), default=0.0),
        missing=[*content.missing, *pictures.notes],
        scene_header=json_for_script(scene["header"]),
        scene_data=raw(scene["data"]),
    )


def _scene(content: ReportContent, dense_points: int, with_surface: bool) -> dict[str, Any]:
    """The 3D view: a header (JSON) and the packed arrays."""
    views = [entry.view for entry in content.photos if entry.view is not None]
    centers = np.array([view.center for view in views]).reshape(-1, 3)
    surface = content.surface if with_surface else None
    clouds = [part.xyz for part in (content.dense or content.sparse, surface) if part is not None]
    box = box_of(clouds, centers)
    blob = Blob()
    return {
        "header": {
            "origin": box.origin.tolist(),
            "side": box.side,
            "sparse": _cloud(blob, content, "sparse", box, _SPARSE_POINTS),
            "dense": _cloud(blob, content, "dense", box, dense_points),
            "mesh": add_surface(blob, surface, box) if surface is not None and len(surface.faces) else None,
            "cameras": cameras_of(views, box),
            "names": list(content.photo_names),
            "start": start_of(views, clouds[0] if clouds else np.zeros((0, 3)), box),
        },
        "data": blob.text(),
    }


def _cloud(blob: Blob, content: ReportContent, name: str, box: Any, limit: int) -> dict[str, Any] | None:
    points = getattr(content, name)
    return add_points(blob, points, box, limit) if points is not None and len(points.xyz) else None


def _countable(content: ReportContent) -> list[Any]:
    return [one for one in content.histograms if np.isfinite(one.values).any()]


def _photo(entry: Any) -> dict[str, Any]:
    return {
        "entry": entry,
        "id": entry.view.photo_id if entry.view is not None else None,
        "uri": _uri(entry.picture) if entry.picture is not None else "",
    }


def _uri(picture: Picture) -> Any:
    return raw("data:image/jpeg;base64," + base64.b64encode(picture.data).decode())


class _PictureRoom:
    """Room that the pictures of a page take, and the order in which they give way."""

    def __init__(self, content: ReportContent) -> None:
        self._content = content
        self._left_out: set[int] = set()
        self.notes: list[str] = []

    @property
    def bytes(self) -> int:
        content = self._content
        lists: tuple[Sequence[Picture], ...] = (
            [entry.picture for entry in content.photos if entry.picture is not None],
            [content.still] if content.still else [],
            content.strongest,
            content.weakest,
            content.depth,
        )
        return sum(
            len(one.data) * 4 // 3 + 300 for part in lists for one in part if id(one) not in self._left_out
        )

    def shrink(self, need: int) -> None:
        """Leave out depth maps, then match pictures, the last ones first, until ``need`` bytes are free."""
        content = self._content
        wanted = self.bytes - need
        for part in (content.depth, content.weakest, content.strongest):
            for one in reversed(part):
                if self.bytes <= wanted:
                    break
                self._left_out.add(id(one))
        if self._left_out:
            self.notes.append(
                f"{len(self._left_out)} pictures are left out: the page would become too large."
            )

    def shown(self, pictures: Sequence[Picture]) -> list[dict[str, Any]]:
        return [{"picture": one, "uri": _uri(one)} for one in pictures if id(one) not in self._left_out]
