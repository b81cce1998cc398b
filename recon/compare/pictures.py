"""Pictures of a comparison: matches of some pairs and depth maps of some photos, every contender's in one frame."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from recon.compare import left_out
from recon.compare.evaluation import truth_fingerprint, write_text
from recon.compare.results import Entry, SceneResult
from recon.core.cameras import Intrinsics, PinholeView, fundamental_matrix
from recon.errors import ReconError
from recon.evaluation.matches import epipolar_distances, without_distortion
from recon.io.files import parse_json
from recon.io.manifest import read_manifest
from recon.io.pictures import write_bgr
from recon.matching.types import SparseMatch
from recon.photos.types import Photo
from recon.render.pictures import depth_picture, mesh_picture
from recon.run.folder import RunFolder

Picture = UInt8[np.ndarray, "h w 3"]

WIDTH = 420
"""Pixels across; a phone shows one picture a row, a wide screen four."""

MATCH_WIDTH = 600
"""Pixels across the two photos of a pair."""

QUALITY = 78
"""Of the JPEGs: lines and colour steps stay clean."""

_LINES = 60
"""Matches that a picture shows: more hide each other."""

_GOOD, _FAIR = 1.0, 3.0
"""Pixels (at the photos' working size) from the epipolar line up to which a match is drawn as good, and as fair."""

# Okabe & Ito's colour-blind safe blue, yellow and vermilion.
_BLUE, _YELLOW, _RED = (0, 114, 178), (240, 228, 66), (213, 94, 0)

_FORMAT = 4
"""Raised when pictures are drawn in another way."""


@dataclass(frozen=True)
class _Matches:
    """Points of A and of B at working size, and where A is matched at all."""

    xy_a: Float[np.ndarray, "n 2"]
    xy_b: Float[np.ndarray, "n 2"]
    covered_a: Bool[np.ndarray, "h w"]


def draw(result: SceneResult) -> None:
    """Draw the pictures of a scene into its folder ``pictures`` and list them in ``result.pictures``."""
    folder = result.folder / "pictures"
    key = _key(result)
    index = folder / "index.json"
    try:
        stored = parse_json(index.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        stored = {}
    if stored.get("key") != key:
        stored = {"key": key, **draw_all(result, folder)}
        write_text(index, json.dumps(stored, indent=1))
    result.pictures = {name: value for name, value in stored.items() if name != "key"}


def draw_all(result: SceneResult, folder: Path) -> dict[str, Any]:
    """Draw every picture of a scene anew; what the page says of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.jpg"):
        old.unlink()
    return {
        "pairs": _pairs(result, folder),
        "depth": _depths(result, folder),
        "meshes": _meshes(result, folder),
        "left_out": left_out.pictures(result, folder, WIDTH),
    }


def _key(result: SceneResult) -> str:
    runs = []
    for entry in result.entries:
        manifest = read_manifest(entry.root)
        stages = {} if manifest is None else {n: (r.fingerprint, r.state) for n, r in manifest.stages.items()}
        runs.append([entry.contender.label, str(entry.root.relative_to(result.folder)), stages])
    text = json.dumps(
        [_FORMAT, WIDTH, result.options.pictures, _left_out_of(result), truth_fingerprint(result.scene), runs]
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _left_out_of(result: SceneResult) -> list[Any]:
    samples = [(e.contender.label, e.evaluation.samples.get("left_out.mesh_psnr")) for e in result.entries]
    return [[label, None if found is None else dict(found.values)] for label, found in samples]


# Matches


def _pairs(result: SceneResult, folder: Path) -> list[dict[str, Any]]:
    shared = RunFolder(result.folder / "shared")
    photos, listing = shared.photo_set.photos, shared.pair_entries
    found = []
    for number, chosen in enumerate(from_easy_to_hard(listing, result.options.pictures)):
        a, b = photos[chosen["i"]], photos[chosen["j"]]
        images = shared.rgb(a), shared.rgb(b)
        panels = []
        for entry in result.entries:
            name = f"pair{number}-{entry.contender.label}.jpg"
            matches = _guarded(partial(_load_matches, entry.root, a, b))
            if matches is None:
                continue
            errors = _epipolar_errors(result, entry, a, b, matches)
            picture, good = _match_picture(images, matches, errors)
            _save(folder / name, picture)
            covered = float(matches.covered_a.mean())
            panels.append(
                {
                    "label": entry.contender.label,
                    "file": name,
                    "covered": covered,
                    "good": good,
                    "count": len(matches.xy_a),
                }
            )
        if panels:
            found.append({"a": a.name, "b": b.name, "sparse": chosen["sparse_inliers"], "panels": panels})
    return found


def from_easy_to_hard(listing: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """Pairs from the most to the least sparse evidence, evenly spread."""
    ordered = sorted(listing, key=lambda pair: (-pair["sparse_inliers"], pair["i"], pair["j"]))
    rows = sorted({round(i) for i in np.linspace(0, len(ordered) - 1, min(count, len(ordered)))})
    return [ordered[row] for row in rows]


def _load_matches(root: Path, a: Photo, b: Photo) -> _Matches | None:
    """Matches of a pair as a run left them, at the photos' working size."""
    run = RunFolder(root)
    pair = (a.id, b.id)
    if run.match_path(pair, dense=False).is_file():
        sparse = run.sparse_match(pair)
        covered = np.zeros((a.height, a.width), bool)
        at = np.rint(sparse.xy_a).astype(int)
        covered[at[:, 1].clip(0, a.height - 1), at[:, 0].clip(0, a.width - 1)] = True
        radius = max(2, round(0.01 * max(a.width, a.height)))
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        covered = cv2.dilate(covered.astype(np.uint8), disc) > 0
        return _Matches(sparse.xy_a, sparse.xy_b, covered)
    if not run.match_path(pair, dense=True).is_dir():
        return None
    dense = run.dense_match(pair)
    height, width = dense.consistent_a.shape
    rows, columns = np.nonzero(dense.consistent_a)
    xy = np.stack([columns, rows], axis=1).astype(np.float64)
    target = xy + dense.a_to_b.flow[rows, columns]
    back = dense.consistent_b.shape
    scale_a = np.array([a.width / width, a.height / height])
    scale_b = np.array([b.width / back[1], b.height / back[0]])
    covered = cv2.resize(dense.consistent_a.astype(np.uint8), (a.width, a.height)) > 0
    return _Matches((xy + 0.5) * scale_a - 0.5, (target + 0.5) * scale_b - 0.5, covered)


def _epipolar_errors(
    result: SceneResult, entry: Entry, a: Photo, b: Photo, matches: _Matches
) -> Float[np.ndarray, " n"] | None:
    """Symmetric epipolar distances by the true cameras, else by the run's own; None where a photo has no camera."""
    truth = result.scene.truth
    views: list[PinholeView] = []
    lenses: list[Intrinsics | None] = []
    if truth is not None and a.name in truth.cameras and b.name in truth.cameras:
        for photo in (a, b):
            camera = truth.cameras[photo.name]
            views.append(camera.view(photo.name).resized(photo.width, photo.height))
            lens = camera.intrinsics.resized(photo.width, photo.height)
            lenses.append(None if lens.is_pinhole else lens)
    else:
        run = RunFolder(entry.root)
        own = _guarded(partial(_own_views, entry.root)) or {}
        if a.name not in own or b.name not in own:
            return None
        views = [own[a.name], own[b.name]]
        lenses = [run.intrinsics()[a.id], run.intrinsics()[b.id]]
    pair = (views[0], views[1])
    match = SparseMatch(matches.xy_a, matches.xy_b, np.ones(len(matches.xy_a), np.float32))
    straight = without_distortion(match, lenses, pair)
    return epipolar_distances(straight.xy_a, straight.xy_b, fundamental_matrix(*pair))


def _own_views(root: Path) -> dict[str, PinholeView]:
    run = RunFolder(root)
    return {} if run.model_folder is None else {view.name: view for view in run.views()}


def _match_picture(
    images: tuple[Picture, Picture], matches: _Matches, errors: Float[np.ndarray, " n"] | None
) -> tuple[Picture, float | None]:
    """Both photos beside each other with some matches as lines, A dimmed where nothing is matched.

    Returns:
        The picture, and the share of all matches within a pixel of their epipolar line (None without cameras).
    """
    a = images[0]
    half = MATCH_WIDTH // 2
    scales = [half / image.shape[1] for image in images]
    panels = []
    for image, scale in zip(images, scales, strict=True):
        size = (half, max(1, round(image.shape[0] * scale)))
        panels.append(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    covered = cv2.resize(matches.covered_a.astype(np.uint8), panels[0].shape[1::-1]) > 0
    grey = cv2.cvtColor(panels[0], cv2.COLOR_RGB2GRAY)[..., None].repeat(3, axis=2)
    panels[0] = np.where(covered[..., None], panels[0], (0.4 * grey).astype(np.uint8))
    height = max(panel.shape[0] for panel in panels)
    picture = np.full((height, 2 * half, 3), 128, np.uint8)
    picture[: panels[0].shape[0], :half] = panels[0]
    picture[: panels[1].shape[0], half : 2 * half] = panels[1]
    for row in spread_rows(matches.xy_a, a.shape[1], a.shape[0]):
        start = (matches.xy_a[row] + 0.5) * scales[0] - 0.5
        end = (matches.xy_b[row] + 0.5) * scales[1] - 0.5 + [half, 0]
        color = _BLUE if errors is None else _color(float(errors[row]))
        ends = [tuple(round(16 * float(v)) for v in point) for point in (start, end)]
        cv2.line(picture, ends[0], ends[1], color, 1, cv2.LINE_AA, shift=4)
        for point in ends:
            cv2.circle(picture, point, 24, color, -1, cv2.LINE_AA, shift=4)
    good = None if errors is None or not len(errors) else float((errors <= _GOOD).mean())
    return picture, good


def _color(error: float) -> tuple[int, int, int]:
    return _BLUE if error <= _GOOD else _YELLOW if error <= _FAIR else _RED


def spread_rows(xy: Float[np.ndarray, "n 2"], width: int, height: int) -> list[int]:
    """At most ``_LINES`` matches, the same number of cells across the photo each giving one of its own."""
    if len(xy) == 0:
        return []
    columns = max(1, round(np.sqrt(_LINES * width / height)))
    rows = max(1, _LINES // columns)
    cell = (xy[:, 0] * columns / width).astype(int).clip(0, columns - 1) + columns * (
        xy[:, 1] * rows / height
    ).astype(int).clip(0, rows - 1)
    order = np.random.default_rng(0).permutation(len(xy))
    _, first = np.unique(cell[order], return_index=True)
    return [int(order[i]) for i in first]


# Depth maps


def _depths(result: SceneResult, folder: Path) -> list[dict[str, Any]]:
    names = list(result.photo_names)
    rows = sorted(
        {round(i) for i in np.linspace(0, len(names) - 1, min(result.options.pictures + 2, len(names)))}
    )
    inner = rows[1:-1] if len(rows) > 2 else rows  # photos at the rim of a set see the least
    truth = result.scene.truth

    def true_depth(photo: str) -> Float[np.ndarray, "h w"] | None:
        return None if truth is None or truth.depth is None else truth.depth(photo)

    found = []
    for number, row in enumerate(inner[: result.options.pictures]):
        name = names[row]
        maps = {}
        for entry in result.entries:
            depth = _guarded(partial(_depth_of, entry.root, name))
            if depth is not None:
                maps[entry.contender.label] = depth
        if not maps:
            continue
        true = _guarded(partial(true_depth, name))
        files = _depth_pictures(folder, number, maps, true, _photo(result, name))
        found.append({"photo": name, "panels": files})
    return found


def _depth_pictures(
    folder: Path,
    number: int,
    maps: Mapping[str, Float[np.ndarray, "h w"]],
    true: Float[np.ndarray, "h w"] | None,
    photo: Picture,
) -> list[dict[str, Any]]:
    """The photo, the true depth if there is one, and every contender's, in one scale of colours."""
    size = (WIDTH, max(1, round(photo.shape[0] * WIDTH / photo.shape[1])))
    photo_file = f"depth{number}-photo.jpg"
    _save(folder / photo_file, cv2.resize(photo, size, interpolation=cv2.INTER_AREA))
    panels: list[dict[str, Any]] = [{"label": "photo", "file": photo_file}]
    resized = {
        label: cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST) for label, depth in maps.items()
    }
    if true is not None:
        reference = cv2.resize(true, size, interpolation=cv2.INTER_NEAREST)
    else:
        reference = max(resized.values(), key=lambda depth: float((depth > 0).mean()))
    known = reference[reference > 0]
    if known.size == 0:
        return panels
    low, high = (float(v) for v in np.percentile(known, (1, 99)))
    limits = (low - 0.02 * (high - low), high + 0.02 * (high - low))
    if true is not None:
        file = f"depth{number}-truth.jpg"
        _save(folder / file, depth_picture(reference, legend=False, limits=limits))
        panels.append({"label": "truth", "file": file, "covered": float((reference > 0).mean())})
    for label, depth in resized.items():
        both = (depth > 0) & (reference > 0)
        # Each reconstruction has a scale of its own: the colours are made to agree in the median.
        factor = float(np.median(reference[both] / depth[both])) if both.any() else 1.0
        file = f"depth{number}-{label}.jpg"
        _save(folder / file, depth_picture(depth * factor, legend=False, limits=limits))
        panels.append({"label": label, "file": file, "covered": float((depth > 0).mean())})
    return panels


def _depth_of(root: Path, name: str) -> Float[np.ndarray, "h w"] | None:
    run = RunFolder(root)
    return run.named_depth(name) if name in run.photos and _done(root, "depth") else None


def _photo(result: SceneResult, name: str) -> Picture:
    shared = RunFolder(result.folder / "shared")
    return shared.rgb(shared.photos[name])


# Meshes


def _meshes(result: SceneResult, folder: Path) -> list[dict[str, Any]]:
    """Every mesh, shaded, from the camera of the photo in the middle of the set."""
    panels = []
    name = result.photo_names[len(result.photo_names) // 2]
    for entry in result.entries:
        picture = _guarded(partial(_mesh_of, entry.root, name))
        if picture is None:
            continue
        file = f"mesh-{entry.contender.label}.jpg"
        _save(folder / file, picture)
        panels.append({"label": entry.contender.label, "file": file})
    return [{"photo": name, "panels": panels}] if panels else []


def _mesh_of(root: Path, name: str) -> Picture | None:
    from recon.core.mesh import mesh_from_open3d
    from recon.io.surfaces import read_mesh

    path = root / "mesh" / "mesh.ply"
    views = _own_views(root)
    if not _done(root, "mesh") or not path.is_file() or name not in views:
        return None
    view = views[name]
    view = view.resized(WIDTH, max(1, round(view.height * WIDTH / view.width)))
    return mesh_picture(mesh_from_open3d(read_mesh(path)), view, "shaded")


# Files


def _done(root: Path, stage: str) -> bool:
    manifest = read_manifest(root)
    record = None if manifest is None else manifest.stages.get(stage)
    return record is not None and record.state == "done"


def _guarded(make: Callable[[], Any]) -> Any:
    """Result of ``make``; None where the run left too little for it: a picture less is no reason to fail."""
    try:
        return make()
    except (ReconError, OSError, ValueError, KeyError, RuntimeError):
        return None


def _save(path: Path, picture: Picture) -> None:
    write_bgr(path, picture[..., ::-1], QUALITY)
