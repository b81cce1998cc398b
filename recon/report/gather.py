"""Gathering what a run has to show for the page; what it did not make is left empty."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from recon.core.cameras import Intrinsics, PinholeView, fundamental_matrix
from recon.core.colmap import photo_id, points_from_colmap
from recon.core.memory import BoundedCache
from recon.core.mesh import VertexMesh
from recon.core.resize import resize_points, resize_rgb, working_size
from recon.core.undistort import undistort_photo, undistort_points
from recon.evaluation.matches import epipolar_distances
from recon.graph.two_view import sample_field
from recon.io.manifest import Manifest, counts_in_words
from recon.io.pictures import encode_picture, read_bgr
from recon.io.surfaces import ply_elements, thin_points
from recon.matching.types import SparseMatch
from recon.photos.types import Photo
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
from recon.report.summary import facts, run_in_words
from recon.report.surface import page_surface
from recon.report.survey import survey_of
from recon.run.folder import CLOUD, PICTURES, RunFolder
from recon.run.matches import Pair
from recon.sfm.adapter import posed_cameras
from recon.sfm.trust import meaning

_Made = TypeVar("_Made")

_LOG = logging.getLogger("recon")

# Works on items in parallel, results in order: function, items, description.
Spread = Callable[[Callable[[Any], Any], Iterable[Any], str], list[Any]]

# All photos of the page together take about so many bytes; many photos are shown smaller.
_PHOTO_BYTES = 4_500_000

# Longest side of a photo on the page, pixels: at least and at most.
_PHOTO_SIDE = (96, 720)

# Of a photo as JPEG at the quality used here, roughly.
_BYTES_PER_PIXEL = 0.22

_QUALITY = 80

# So many of the strongest and of the weakest pairs have a picture.
_SHOWN_PAIRS = 4

# Longest side of each photo in a match picture, and of a depth map, pixels.
_PAIR_SIDE, _DEPTH_SIDE = 460, 420

# Dense matches are sampled to so many for a picture.
_PAIR_MATCHES = 1500

# A match within so many pixels (at working size) of the epipolar line of the found cameras agrees with them.
_AGREES_PX = 2.0

_MOST_DEPTH_MAPS = 24

# Bytes of photos that stay in memory.
_PHOTOS_AT_HAND = 32 << 20

# Larger clouds are thinned when they are read.
_MOST_POINTS = 500_000


def gather(
    run: RunFolder,
    manifest: Manifest,
    summary: Mapping[str, Any],
    mesh: Callable[[], VertexMesh],
    spread: Spread,
    failure: str = "",
) -> ReportContent:
    """Gather all that a run can show.

    A part that cannot be made is left out, and ``missing`` says why: a report must never end a run.

    Args:
        summary: from ``summarize``. mesh: gives the mesh of the run.
        spread: works on items in parallel: function, items, description.
        failure: why the run ended early, if it did.
    """
    return _Gatherer(run, manifest, summary, mesh, spread, failure).content


def say_doubt(content: ReportContent, trust: Mapping[str, Any] | None) -> None:
    """Put a verdict that is not *sound* first, in place of the facts, warnings and failure that say the same."""
    if not trust or not trust["reasons"]:
        return
    content.doubt = (trust["verdict"], meaning(trust))
    content.reasons = tuple((one["what"], one["advice"]) for one in trust["reasons"])
    content.facts = [
        (label, f"{trust['verdict']}; see above" if label == "Trust" else text)
        for label, text in content.facts
    ]
    said = {f"{one['verdict']}: {one['what']}. {one['advice']}" for one in trust["reasons"]}
    content.warnings = [text for text in content.warnings if text not in said]
    if content.reasons[0][0] in content.failure:
        content.failure = "Nothing was made of these cameras (--set map.refuse=false goes on with them)."


class _Gatherer:
    """Reads a run part by part."""

    def __init__(
        self,
        run: RunFolder,
        manifest: Manifest,
        summary: Mapping[str, Any],
        mesh: Callable[[], VertexMesh],
        spread: Spread,
        failure: str,
    ) -> None:
        self.run, self.manifest, self.summary, self.mesh, self.spread = run, manifest, summary, mesh, spread
        source = str(manifest.run.get("inputs", {}).get("photos", manifest.source))
        name = Path(source).name or source or "photos"
        if name in {"images", "photos"} and Path(source).resolve().parent.name:
            name = Path(source).resolve().parent.name
        lead = f"{run_in_words(manifest.run)}."
        self.content = ReportContent(title=f"Reconstruction of {name}", lead=lead, failure=failure)
        self.photos: tuple[Photo, ...] = ()
        self.views: dict[int, PinholeView] = {}
        self.intrinsics: dict[int, Intrinsics] = {}
        self.errors: dict[int, float] = {}
        self.seen: dict[int, int] = {}
        self.at_hand = BoundedCache(_PHOTOS_AT_HAND)
        self._fill()

    def _fill(self) -> None:
        content = self.content
        self._part("the facts", self._facts)
        self._part("the georeference", self._survey)
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
            content.surface = self._part("the mesh", lambda: page_surface(self.run, self.mesh()))
        content.still = self._part("the still picture", self._still)

    def _done(self, stage: str) -> bool:
        record = self.manifest.stages.get(stage)
        return record is not None and record.state == "done"

    def _part(self, what: str, make: Callable[[], _Made]) -> _Made | None:
        """Return what ``make`` gives; whatever goes wrong is said in the page instead of ending the run."""
        try:
            return make()
        except Exception as error:
            _LOG.info("report: %s could not be shown", what, exc_info=True)
            text = " ".join(str(error).split())[:300]
            self.content.missing.append(
                f"Not shown: {what} could not be read or drawn ({type(error).__name__}{': ' if text else ''}{text})."
            )
            return None

    # The run in words

    def _facts(self) -> None:
        content, manifest, run = self.content, self.manifest, self.run
        content.facts = facts(self.summary)
        content.machine, content.versions = machine(), self.summary["versions"]
        for name in manifest.run.get("stages", list(manifest.stages)):
            record = manifest.stages.get(name)
            if record is None or (name == "report" and record.state == "running"):
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
        say_doubt(content, self.summary.get("trust"))
        content.command = command(manifest, run.root)
        recipe = run.path("recipe.toml")
        if recipe.is_file():
            content.recipe = recipe.read_text(encoding="utf-8")
        places = (
            ("Cameras and sparse points", "sparse/0"),
            ("Dense points", CLOUD),
            ("Mesh", "mesh/mesh.ply"),
            ("Textured mesh", "mesh/textured.glb"),
        )
        content.files = [(what, str(run.path(name))) for what, name in places if run.path(name).exists()]
        if self._done("map"):
            content.models = [
                ModelRow(one["folder"], tuple(one["registered"]), one["points"]) for one in run.models()
            ]

    def _survey(self) -> None:
        self.content.survey = survey_of(self.run)

    # Photos and cameras

    def _photo_set(self) -> None:
        self.photos = self.run.photo_set.photos
        self.content.photo_names = tuple(photo.name for photo in self.photos)

    def _cameras(self) -> None:
        self.views = {view.photo_id: view for view in self.run.views()}
        self.intrinsics = self.run.intrinsics()
        self._sparse()

    def _sparse(self) -> None:
        model, content = self.run.reconstruction, self.content
        points = model.points3D
        rows = {key: row for row, key in enumerate(points)}
        xyz = np.array([point.xyz for point in points.values()], np.float64).reshape(-1, 3)
        rgb = np.array([point.color for point in points.values()], np.uint8).reshape(-1, 3)
        content.sparse = Points(xyz, rgb)
        cameras = posed_cameras(model, self.run.photo_set)
        errors, seen_rows, centers = [], [], []
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
        photos, photo_set = self.photos, self.run.photo_set
        side = photo_side(len(photos))
        reasons = {one.name: one.reason for one in photo_set.left_out}
        if self._done("map"):
            reasons |= {one.name: one.reason for one in self.run.left_out()}
        graph = self.run.view_graph() if self._done("verify") else None

        def entry(photo: Photo) -> PhotoEntry:
            view, picture = self.views.get(photo.id), None
            try:
                picture = jpeg(_small(self._rgb(photo), side))
            except Exception as error:
                self.content.missing.append(f"Not shown: {photo.name} ({type(error).__name__}: {error}).")
            intrinsics = self.intrinsics.get(photo.id, photo_set.cameras[photo.camera])
            error_px = self.errors.get(photo.id)
            return PhotoEntry(
                photo.name,
                view,
                "" if view is not None else reasons.get(photo.name, ""),
                picture,
                (photo.original_width, photo.original_height),
                _camera_words(intrinsics, photo) if view is not None else "",
                self.seen.get(photo.id, 0),
                error_px if error_px is not None and np.isfinite(error_px) else None,
                int(graph.degree(photo.id)) if graph is not None else 0,
            )

        self.content.photos = self.spread(entry, photos, "photos of the report")
        names = {photo.name for photo in photos}
        self.content.photos += [
            PhotoEntry(name, reason=reason) for name, reason in reasons.items() if name not in names
        ]

    def _rgb(self, photo: Photo) -> UInt8[np.ndarray, "h w 3"]:
        """A photo without distortion; the last ones stay in memory, as pairs show them too."""

        def read() -> UInt8[np.ndarray, "h w 3"]:
            rgb, intrinsics = self.run.rgb(photo), self.intrinsics.get(photo.id)
            if photo.id not in self.views or intrinsics is None or intrinsics.is_pinhole:
                return rgb
            return undistort_photo(rgb, None, intrinsics, cv2.INTER_LINEAR)[0]

        return self.at_hand.get(photo.id, read, lambda rgb: rgb.nbytes)

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

        pictures = self.spread(show, [*strongest, *weakest], "match pictures")
        self.content.matches_note = (
            "The pairs with the most and the fewest inliers. Dots are matches, lines some of them. Green: within "
            f"{_AGREES_PX:g} px (at working size) of the epipolar line of the found cameras; red: beyond."
        )
        self.content.strongest = [one for one in pictures[: len(strongest)] if one is not None]
        self.content.weakest = [one for one in pictures[len(strongest) :] if one is not None]

    def _pair(self, pair: PairEntry, dense: bool) -> Picture:
        key: Pair = (pair.a, pair.b)
        a, b = (self.photos[i] for i in key)
        if dense:
            match = sample_field(
                *self.run.directed_match(*key),
                max_matches=_PAIR_MATCHES,
                size_a=(a.width, a.height),
                size_b=(b.width, b.height),
            )
        else:
            match = self.run.sparse_match(key)
        match = SparseMatch(self._undistorted(match.xy_a, a), self._undistorted(match.xy_b, b), match.score)
        agrees, said = None, ""
        if a.id in self.views and b.id in self.views:
            F = fundamental_matrix(self.views[a.id], self.views[b.id])
            agrees = epipolar_distances(match.xy_a, match.xy_b, F) <= _AGREES_PX
            share = float(agrees.mean()) if len(agrees) else 0.0
            said = f"; {share:.0%} of those shown agree with the cameras"
        shown = [_small(self._rgb(photo), _PAIR_SIDE) for photo in (a, b)]
        ends = _scaled(match.xy_a, a, shown[0]), _scaled(match.xy_b, b, shown[1])
        picture = match_lines_picture(shown[0], shown[1], *ends, agrees, lines=80)
        return jpeg(picture, f"{a.name} – {b.name}", f"{pair_text(pair)}{said}")

    def _undistorted(self, xy: Float[np.ndarray, "n 2"], photo: Photo) -> Float32[np.ndarray, "n 2"]:
        """Points of the photo as taken, where they lie in the picture without distortion."""
        if photo.id in self.views and len(xy):
            xy = undistort_points(xy, self.intrinsics[photo.id], self.views[photo.id].K)
        return np.asarray(xy, np.float32)

    # Dense

    def _depth(self) -> None:
        ids = sorted(self.views)
        chosen = [ids[i] for i in sorted({round(i) for i in np.linspace(0, len(ids) - 1, _MOST_DEPTH_MAPS)})]

        def show(number: int) -> Picture | None:
            return self._part(f"one depth map ({number + 1})", lambda: self._depth_map(number))

        pictures = self.spread(show, chosen, "depth maps of the report")
        self.content.depth = [one for one in pictures if one is not None]
        if len(chosen) < len(ids):
            self.content.missing.append(f"Depth maps: {len(chosen)} of {len(ids)} are shown, evenly taken.")

    def _depth_map(self, number: int) -> Picture:
        depth = self.run.depth_map(number).depth
        covered = float((depth > 0).mean())
        size = working_size(depth.shape[1], depth.shape[0], _DEPTH_SIDE)
        small = cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST)
        return jpeg(depth_picture(small), self.photos[number].name, f"depth on {covered:.0%} of the pixels")

    def _dense(self) -> None:
        path = self.run.path(CLOUD)
        self.content.dense = Points(*thin_points(path, _MOST_POINTS), ply_elements(path)["vertex"])

    def _still(self) -> Picture | None:
        for name in ("cloud.png", "cameras_oblique.png"):
            path = self.run.path(PICTURES, name)
            if path.is_file() and self._done("fuse"):
                data = read_bgr(path)
                if data is not None:
                    return jpeg(np.ascontiguousarray(data[..., ::-1]))
        return None


# Words


def command(manifest: Manifest, root: Path) -> str:
    """Write the command that makes the same run in a new folder, for a shell."""
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
    steps = (
        ("verified", "found no geometry, or too little confidence"),
        ("after_inliers", "had too few inliers"),
        ("after_evidence", "are likely wrong by their evidence"),
        ("after_loops", "contradicted stronger pairs"),
    )
    before, said = int(verification["pairs"]), []
    for key, reason in steps:
        now = int(verification.get(key, before))  # runs of earlier versions have other steps
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
    """Find the longest side at which each of so many photos is shown, pixels."""
    area = _PHOTO_BYTES / _BYTES_PER_PIXEL / max(count, 1)
    low, high = _PHOTO_SIDE
    return int(np.clip(np.sqrt(area * 4 / 3), low, high))


def widest_angles(xyz: np.ndarray, rows: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Compute the largest angle between two rays that meet in each observed point, degrees.

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
    """Encode a picture for the page."""
    return Picture(encode_picture(rgb, "jpg", _QUALITY), rgb.shape[1], rgb.shape[0], title, caption)


def _small(rgb: UInt8[np.ndarray, "h w 3"], side: int) -> UInt8[np.ndarray, "h w 3"]:
    return resize_rgb(rgb, *working_size(rgb.shape[1], rgb.shape[0], side))


def _scaled(xy: np.ndarray, photo: Photo, shown: np.ndarray) -> Float32[np.ndarray, "n 2"]:
    size = (shown.shape[1], shown.shape[0])
    return resize_points(xy, (photo.width, photo.height), size).astype(np.float32)
