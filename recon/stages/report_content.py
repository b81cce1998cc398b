"""What a workspace has to tell, gathered for the report page; what a run did not make is left empty."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from jaxtyping import UInt8

from recon.core.cameras import Intrinsics, PinholeView
from recon.core.colmap import photo_id, points_from_colmap
from recon.core.undistort import undistort_photo, undistort_points
from recon.engine.runner import counts_in_words
from recon.engine.stage import StageContext
from recon.engine.workspace import library_versions
from recon.evaluation.matches import epipolar_distances, fundamental_matrix
from recon.graph.two_view import sample_matches
from recon.io.manifest import Manifest
from recon.io.pictures import encode_picture
from recon.io.surfaces import read_points_ply
from recon.matching.types import SparseMatch
from recon.photos.types import Photo, PhotoSet
from recon.render.match_lines import match_lines_picture
from recon.render.pictures import depth_picture
from recon.report.charts import pair_text
from recon.report.content import (
    Histogram,
    ModelRow,
    PairEntry,
    PhotoEntry,
    Picture,
    Points,
    ReportContent,
    StageRow,
)
from recon.report.html import machine
from recon.run.folder import RunFolder
from recon.run.matches import Pair
from recon.sfm.adapter import posed_cameras
from recon.stages.report_surface import RunMesh, page_surface

_Made = TypeVar("_Made")

_PHOTO_BYTES = 4_500_000
"""All photos of the page together take about so many bytes; many photos are shown smaller."""

_PHOTO_SIDE = (96, 720)
"""Longest side of a photo on the page, pixels: at least and at most."""

_BYTES_PER_PIXEL = 0.22
"""Of a photo as JPEG at the quality used here, roughly."""

_QUALITY = 80

_SHOWN_PAIRS = 4
"""So many of the strongest and of the weakest pairs have a picture."""

_PAIR_SIDE, _DEPTH_SIDE = 460, 420
"""Longest side of each photo in a match picture, and of a depth map, pixels."""

_PAIR_MATCHES = 1500
"""Dense matches are sampled to so many for a picture."""

_AGREES_PX = 2.0
"""A match within so many pixels (at working size) of the epipolar line of the found cameras agrees with them."""

_MOST_DEPTH_MAPS = 24


def gather(
    work: StageContext,
    manifest: Manifest,
    summary: dict[str, Any],
    load_mesh: Callable[[], RunMesh],
    failure: str = "",
) -> ReportContent:
    """All that the workspace can show.

    A part that cannot be made is left out, and ``missing`` says why: a report must never end a run.

    Args:
        summary: of the stage ``report``.
        load_mesh: gives the mesh of the run.
        failure: why the run ended early, if it did.
    """
    return _Gatherer(work, manifest, summary, load_mesh, failure).content


class _Gatherer:
    """Reads a workspace part by part."""

    def __init__(
        self,
        work: StageContext,
        manifest: Manifest,
        summary: dict[str, Any],
        load_mesh: Callable[[], RunMesh],
        failure: str,
    ) -> None:
        self.work, self.manifest, self.summary, self.load_mesh = work, manifest, summary, load_mesh
        self.run = RunFolder.of(work)
        source = str(manifest.run.get("inputs", {}).get("photos", manifest.source))
        name = Path(source).name or source or "photos"
        if name in {"images", "photos"} and Path(source).resolve().parent.name:
            name = Path(source).resolve().parent.name
        self.content = ReportContent(
            title=f"Reconstruction of {name}",
            lead=f"{run_in_words(manifest.run)}.",
            failure=failure,
        )
        self.photo_set = PhotoSet((), ())
        self.views: dict[int, PinholeView] = {}
        self.intrinsics: dict[int, Intrinsics] = {}
        self.model: Any = None
        self.images: dict[int, UInt8[np.ndarray, "h w 3"]] = {}
        self._fill()

    def _fill(self) -> None:
        content = self.content
        self._part("the facts", self._facts)
        if self._done("photos"):
            self._part("the list of photos", self._photo_set)
        if self._done("map"):
            self._part("the cameras", self._cameras)
        if self._done("photos"):
            self._part("the photos", self._photos)
        if self._done("verify"):
            self._part("the view graph", self._pairs)
            self._part("the match pictures", self._match_pictures)
        if self._done("depth") and self.views:
            self._part("the depth maps", self._depth)
        if self._done("fuse"):
            self._part("the dense cloud", self._dense)
        if self._done("mesh"):
            content.surface = self._part("the mesh", lambda: page_surface(self.work, self.load_mesh()))
        content.still = self._part("the still picture", self._still)

    def _done(self, stage: str) -> bool:
        record = self.manifest.stages.get(stage)
        return record is not None and record.state == "done"

    def _part(self, what: str, make: Callable[[], _Made]) -> _Made | None:
        """What ``make`` gives; whatever goes wrong is said in the page instead of ending the run."""
        try:
            return make()
        except Exception as error:
            self.work.log.info("report: %s could not be shown", what, exc_info=True)
            text = " ".join(str(error).split())[:300]
            self.content.missing.append(
                f"Not shown: {what} could not be read or drawn ({type(error).__name__}{': ' if text else ''}{text})."
            )
            return None

    # The run in words

    def _facts(self) -> None:
        content, manifest, work = self.content, self.manifest, self.work
        content.facts = facts(self.summary)
        content.machine, content.versions = machine(), library_versions()
        for name in manifest.run.get("stages", list(manifest.stages)):
            record = manifest.stages.get(name)
            if record is None or (name == work.stage and record.state == "running"):
                continue
            content.stages.append(
                StageRow(
                    name,
                    record.state,
                    record.seconds,
                    record.cpu_seconds,
                    record.peak_memory_mb,
                    counts_in_words(record.counts, first=""),
                )
            )
        content.warnings = list(self.summary["warnings"])
        content.command = command(manifest, work.root)
        recipe = work.path("recipe.toml")
        if recipe.is_file():
            content.recipe = recipe.read_text(encoding="utf-8")
        places = (
            ("Cameras and sparse points", ("sparse", "0")),
            ("Dense points", ("dense", "points.ply")),
            ("Mesh", ("mesh", "mesh.ply")),
            ("Textured mesh", ("mesh", "textured.glb")),
        )
        content.files = [(what, str(work.path(*path))) for what, path in places if work.path(*path).exists()]
        if self._done("map"):
            content.models = [
                ModelRow(one["folder"], tuple(one["registered"]), one["points"]) for one in self.run.models()
            ]

    # Photos and cameras

    def _photo_set(self) -> None:
        self.photo_set = self.run.photo_set
        self.content.photo_names = tuple(photo.name for photo in self.photo_set.photos)

    def _cameras(self) -> None:
        self.model = self.run.reconstruction
        self.views = {view.photo_id: view for view in self.run.views()}
        self.intrinsics = self.run.intrinsics()
        self._sparse()

    def _sparse(self) -> None:
        model, content = self.model, self.content
        points = model.points3D
        rows = {key: row for row, key in enumerate(points)}
        xyz = np.array([point.xyz for point in points.values()], np.float64).reshape(-1, 3)
        rgb = np.array([point.color for point in points.values()], np.uint8).reshape(-1, 3)
        content.sparse = Points(xyz, rgb)
        cameras = posed_cameras(model, self.photo_set)
        errors, seen_rows, centers = [], [], []
        self.errors: dict[int, float] = {}
        self.seen: dict[int, int] = {}
        for number in sorted(model.reg_image_ids()):
            image, one = model.images[number], photo_id(number)
            seen = [point for point in image.points2D if point.has_point3D() and point.point3D_id in rows]
            if one not in cameras or not seen:
                continue
            camera = cameras[one]
            mine = np.array([rows[point.point3D_id] for point in seen])
            xy = points_from_colmap(np.array([point.xy for point in seen], np.float64))
            error = np.linalg.norm(camera.pixels(camera.to_camera(xyz[mine])) - xy, axis=1)
            self.errors[one] = float(np.nanmean(error)) if np.isfinite(error).any() else float("nan")
            self.seen[one] = len(set(mine.tolist()))
            errors.append(error)
            seen_rows.append(mine)
            centers.append(np.broadcast_to(camera.center, (len(mine), 3)))
        if not errors:
            return
        at = np.concatenate(seen_rows)
        lengths = np.bincount(at, minlength=len(xyz)).astype(np.float64)
        content.histograms = [
            Histogram("track-length", "Track length", "photos", lengths[lengths > 0], whole=True),
            Histogram("reprojection", "Reprojection error", "px", np.concatenate(errors)),
            Histogram("angle", "Triangulation angle", "°", widest_angles(xyz, at, np.concatenate(centers))),
        ]

    def _photos(self) -> None:
        """The photos, without distortion where they have a camera, and what is known of each."""
        photos = self.photo_set.photos
        side = photo_side(len(photos))
        reasons = {one.name: one.reason for one in self.photo_set.left_out}
        if self._done("map"):
            reasons |= {one.name: one.reason for one in self.run.left_out()}
        graph = self.run.view_graph() if self._done("verify") else None

        def entry(photo: Photo) -> PhotoEntry:
            view, picture = self.views.get(photo.id), None
            try:
                rgb = self._rgb(photo)
                self.images[photo.id] = _small(rgb, max(_PAIR_SIDE, _DEPTH_SIDE))
                picture = jpeg(_small(rgb, side))
            except Exception as error:
                self.content.missing.append(f"Not shown: {photo.name} ({type(error).__name__}: {error}).")
            intrinsics = self.intrinsics.get(photo.id, self.photo_set.cameras[photo.camera])
            error_px = getattr(self, "errors", {}).get(photo.id)
            return PhotoEntry(
                photo.name,
                view,
                "" if view is not None else reasons.get(photo.name, ""),
                picture,
                (photo.original_width, photo.original_height),
                _camera_words(intrinsics, photo) if view is not None else "",
                getattr(self, "seen", {}).get(photo.id, 0),
                error_px if error_px is not None and np.isfinite(error_px) else None,
                int(graph.degree(photo.id)) if graph is not None else 0,
            )

        self.content.photos = self.work.map(entry, photos, "photos of the report")
        names = {photo.name for photo in photos}
        self.content.photos += [
            PhotoEntry(name, reason=reason) for name, reason in reasons.items() if name not in names
        ]

    def _rgb(self, photo: Photo) -> UInt8[np.ndarray, "h w 3"]:
        rgb, view = self.run.rgb(photo), self.views.get(photo.id)
        intrinsics = self.intrinsics.get(photo.id)
        if view is None or intrinsics is None or intrinsics.is_pinhole:
            return rgb
        return undistort_photo(rgb, None, intrinsics, cv2.INTER_LINEAR)[0]

    # Pairs

    def _pairs(self) -> None:
        graph = self.run.view_graph()
        sparse = {(one["i"], one["j"]): one["sparse_inliers"] for one in self.run.pair_entries}
        found = {}
        for a, b, edge in graph.edges(data=True):
            pair = (min(a, b), max(a, b))
            found[pair] = PairEntry(
                *pair,
                int(edge["inliers"]),
                float(edge["inlier_ratio"]),
                str(edge["model"]),
                edge.get("angle"),
                sparse=sparse.get(pair, 0),
            )
        for pair, inliers in sparse.items():
            found.setdefault(pair, PairEntry(*pair, kept=False, sparse=inliers))
        self.content.pairs = [found[pair] for pair in sorted(found)]
        self.content.dropped = _narrowing(self.run.verification())

    def _match_pictures(self) -> None:
        kept = sorted((p for p in self.content.pairs if p.kept), key=lambda p: (-p.inliers, p.a, p.b))
        few = max(1, min(_SHOWN_PAIRS, len(kept) // 2)) if kept else 0
        strongest = kept[:few]
        weakest = [pair for pair in reversed(kept) if pair not in strongest][:few]
        dense = self.run.matching.kind == "dense"

        def show(pair: PairEntry) -> Picture | None:
            return self._part(
                f"the matches of one pair ({pair.a + 1}, {pair.b + 1})", lambda: self._pair(pair, dense)
            )

        pictures = self.work.map(show, [*strongest, *weakest], "match pictures")
        self.content.matches_note = (
            "The pairs with the most and the fewest inliers. Dots are matches, lines some of them. Green: within "
            f"{_AGREES_PX:g} px (at working size) of the epipolar line of the found cameras; red: beyond."
        )
        self.content.strongest = [one for one in pictures[: len(strongest)] if one is not None]
        self.content.weakest = [one for one in pictures[len(strongest) :] if one is not None]

    def _pair(self, pair: PairEntry, dense: bool) -> Picture:
        key: Pair = (pair.a, pair.b)
        a, b = (self.photo_set.photos[i] for i in key)
        if dense:
            match = sample_matches(
                self.run.dense_match(key),
                max_matches=_PAIR_MATCHES,
                size_a=(a.width, a.height),
                size_b=(b.width, b.height),
            )
        else:
            match = self.run.sparse_match(key)
        match = self._undistorted(match, a, b)
        agrees, said = None, ""
        if a.id in self.views and b.id in self.views:
            F = fundamental_matrix(self.views[a.id], self.views[b.id])
            agrees = epipolar_distances(match.xy_a, match.xy_b, F) <= _AGREES_PX
            share = float(agrees.mean()) if len(agrees) else 0.0
            said = f"; {share:.0%} of those shown agree with the cameras"
        images = [self.images[i] for i in key]
        shown = [_small(image, _PAIR_SIDE) for image in images]
        picture = match_lines_picture(
            shown[0],
            shown[1],
            _scaled(match.xy_a, a, shown[0]),
            _scaled(match.xy_b, b, shown[1]),
            agrees,
            lines=80,
        )
        return jpeg(
            picture,
            f"{a.name} – {b.name}",
            f"{pair_text(pair)}{said}",
        )

    def _undistorted(self, match: SparseMatch, a: Photo, b: Photo) -> SparseMatch:
        """Points of the photos as taken, where they lie in the pictures without distortion."""
        moved = []
        for photo, xy in ((a, match.xy_a), (b, match.xy_b)):
            if photo.id in self.views and len(xy):
                xy = undistort_points(xy, self.intrinsics[photo.id], self.views[photo.id].K)
            moved.append(np.asarray(xy, np.float32))
        return SparseMatch(moved[0], moved[1], match.score)

    # Dense

    def _depth(self) -> None:
        ids = sorted(self.views)
        chosen = [ids[i] for i in sorted({round(i) for i in np.linspace(0, len(ids) - 1, _MOST_DEPTH_MAPS)})]

        def show(number: int) -> Picture | None:
            return self._part(f"one depth map ({number + 1})", lambda: self._depth_map(number))

        pictures = self.work.map(show, chosen, "depth maps of the report")
        self.content.depth = [one for one in pictures if one is not None]
        if len(chosen) < len(ids):
            self.content.missing.append(f"Depth maps: {len(chosen)} of {len(ids)} are shown, evenly taken.")

    def _depth_map(self, number: int) -> Picture:
        depth = self.run.depth_map(number).depth
        covered = float((depth > 0).mean())
        height, width = depth.shape
        factor = min(1.0, _DEPTH_SIDE / max(width, height))
        small = cv2.resize(
            depth,
            (max(1, round(width * factor)), max(1, round(height * factor))),
            interpolation=cv2.INTER_NEAREST,
        )
        return jpeg(
            depth_picture(small), self.photo_set.photos[number].name, f"depth on {covered:.0%} of the pixels"
        )

    def _dense(self) -> None:
        cloud = read_points_ply(self.work.path("dense", "points.ply"))
        self.content.dense = Points(cloud.xyz, cloud.rgb)

    def _still(self) -> Picture | None:
        for name in ("cloud.png", "cameras_oblique.png"):
            path = self.work.path("pictures", name)
            if path.is_file() and self._done("fuse"):
                data = cv2.imread(str(path), cv2.IMREAD_COLOR)
                if data is not None:
                    return jpeg(np.ascontiguousarray(data[..., ::-1]))
        return None


# Words


def run_in_words(run: dict[str, Any]) -> str:
    """Which recipe ran, and how."""
    threads = run.get("threads", 1)
    return (
        f"Recipe {run.get('recipe')}, quality {run.get('quality')}, seed {run.get('seed')}, "
        f"{threads} {'thread' if threads == 1 else 'threads'}"
    )


def facts(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """The run in short, a label and a sentence for each part that is there."""
    found: list[tuple[str, str]] = []
    photos = summary.get("photos")
    if photos:
        text = f"{photos['given']} given, {photos['used']} used"
        if photos.get("registered") is not None:
            text = f"{photos['registered']} registered of {photos['given']} given"
        found.append(("Photos", text))
    if summary.get("pairs"):
        pairs = summary["pairs"]
        found.append(("Pairs", f"{pairs['verified']} verified of {pairs['matched']} matched"))
    if summary.get("tracks"):
        tracks = summary["tracks"]
        found.append(("Tracks", f"{tracks['count']}, mean length {tracks['mean_length']:.2f}"))
    if summary.get("sparse"):
        sparse = summary["sparse"]
        count = len(sparse["models"])
        found.append(
            (
                "Sparse",
                f"{sparse['points']} points, track length {sparse['mean_track_length']:.2f}, reprojection error "
                f"{sparse['mean_reprojection_error_px']:.3f} px, {count} {'model' if count == 1 else 'models'}",
            )
        )
    if summary.get("dense"):
        dense = summary["dense"]
        text = f"depth on {100 * dense['covered_share']:.0f}% of the pixels"
        if dense.get("points") is not None:
            text = f"{dense['points']} points, {text}"
        found.append(("Dense", text))
    if summary.get("mesh"):
        found.append(("Mesh", f"{summary['mesh']['vertices']} vertices, {summary['mesh']['faces']} faces"))
    if summary.get("texture"):
        texture = summary["texture"]
        found.append(
            (
                "Texture",
                f"{texture['size']} texels on {texture['faces']} faces in {texture['charts']} charts, photos on "
                f"{100 * texture['seen_share']:.0f}% of the faces, {texture['seam_step']:.1f} grey levels over a seam "
                f"({texture['seam_step_before']:.1f} before levelling)",
            )
        )
    if summary.get("stages"):
        found.append(("Cost", f"{summary['seconds']:.0f} s, {summary['peak_memory_mb']:.0f} MB at most"))
    return found


def command(manifest: Manifest, root: Path) -> str:
    """The command that makes the same run in a new folder, for a shell."""
    run = manifest.run
    inputs = run.get("inputs", {})
    words = ["recon", "reconstruct", manifest.source or str(inputs.get("photos", "PHOTOS")), "--out", "AGAIN"]
    words += ["--recipe", str(root / "recipe.toml"), "--quality", str(run.get("quality", "normal"))]
    words += ["--seed", str(run.get("seed", 0)), "--threads", str(run.get("threads", 1))]
    for name in ("intrinsics", "masks", "camera_sharing"):
        if inputs.get(name):
            value = str(inputs[name])
            here = Path(value)
            words += [f"--{name.replace('_', '-')}", str(here.resolve()) if here.exists() else value]
    return " ".join(shlex.quote(word) for word in words)


def _narrowing(verification: dict[str, Any]) -> list[str]:
    steps = [
        ("verified", "found no geometry, or too little confidence"),
        ("after_inliers", "had too few inliers"),
        ("after_evidence", "are likely wrong by their evidence"),
        ("after_loops", "contradicted stronger pairs"),
    ]
    before, said = int(verification["pairs"]), []
    for key, reason in steps:
        now = int(verification[key])
        if now < before:
            said.append(f"{before - now} {'pair' if before - now == 1 else 'pairs'} {reason}.")
        before = now
    parts = verification.get("components", [])
    if len(parts) > 1:
        said.append(f"The graph falls into {len(parts)} parts.")
    return said


def _camera_words(intrinsics: Intrinsics, photo: Photo) -> str:
    focal = float(intrinsics.K[0, 0]) * photo.original_width / intrinsics.width
    known = "known" if intrinsics.known else "estimated"
    return f"{intrinsics.model}, focal length {focal:.0f} px ({known})"


# Numbers and pictures


def photo_side(count: int) -> int:
    """Longest side at which each of so many photos is shown, pixels."""
    area = _PHOTO_BYTES / _BYTES_PER_PIXEL / max(count, 1)
    low, high = _PHOTO_SIDE
    return int(np.clip(np.sqrt(area * 4 / 3), low, high))


def widest_angles(xyz: np.ndarray, rows: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """The largest angle between two rays that meet in each observed point, degrees.

    Args:
        xyz: (n, 3) points. rows, centers: (m,) and (m, 3), the point and the camera centre of each observation.
    """
    order = np.argsort(rows, kind="stable")
    rows, centers = rows[order], centers[order]
    rays = xyz[rows] - centers
    with np.errstate(invalid="ignore", divide="ignore"):
        rays = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    starts = np.nonzero(np.diff(rows, prepend=-1))[0]
    lengths = np.diff(np.append(starts, len(rows)))
    least = np.ones(len(starts))  # the smallest cosine
    for length in np.unique(lengths[lengths > 1]):
        which = np.nonzero(lengths == length)[0]
        group = rays[starts[which][:, None] + np.arange(length)]
        least[which] = np.einsum("nid,njd->nij", group, group).min(axis=(1, 2))
    angles = np.degrees(np.arccos(np.clip(least, -1.0, 1.0)))
    return np.asarray(angles[lengths > 1])


def jpeg(rgb: UInt8[np.ndarray, "h w 3"], title: str = "", caption: str = "") -> Picture:
    """A picture as JPEG."""
    return Picture(encode_picture(rgb, "jpg", _QUALITY), rgb.shape[1], rgb.shape[0], title, caption)


def _small(rgb: UInt8[np.ndarray, "h w 3"], side: int) -> UInt8[np.ndarray, "h w 3"]:
    height, width = rgb.shape[:2]
    factor = min(1.0, side / max(width, height))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return rgb if size == (width, height) else np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA))


def _scaled(xy: np.ndarray, photo: Photo, shown: np.ndarray) -> np.ndarray:
    factors = np.array([shown.shape[1] / photo.width, shown.shape[0] / photo.height])
    return np.asarray((xy + 0.5) * factors - 0.5, np.float32)
