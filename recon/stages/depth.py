"""Stage ``depth``: a depth map of every registered photo, from its flow fields and then from its pixels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8
from pydantic import BaseModel, ConfigDict, Field

from recon.core.cameras import Intrinsics, PinholeView
from recon.core.colmap import photo_id
from recon.core.frames import offset_to_origin
from recon.core.undistort import undistort_points, undistortion_maps
from recon.dense.filtering import background_fringe, filter_depths, smooth_regions
from recon.dense.neighbours import select_neighbours
from recon.dense.refinement import refine_depth
from recon.dense.triangulation import FlowToView, triangulate_flow, undistort_flow
from recon.dense.types import DepthMap
from recon.engine.stage import StageContext
from recon.errors import ReconError
from recon.photos.types import PhotoSet
from recon.sfm.adapter import intrinsics_from_reconstruction, views_from_reconstruction
from recon.stages.fields import load_field_pairs
from recon.stages.map import load_reconstruction
from recon.stages.pair_results import load_dense_match
from recon.stages.photos import load_mask, load_photo_set, load_rgb
from recon.stages.verify import load_view_graph


class DepthSettings(BaseModel):
    """How depth is found and what it must show."""

    model_config = ConfigDict(extra="forbid")
    neighbours: int = Field(5, ge=1, le=16, description="source views per photo")
    max_size: int = Field(16384, ge=64, description="longest side of the depth maps; the photos' at most")
    max_reprojection: float = Field(1.5, gt=0.0, description="of triangulated flow, matching pixels")
    iterations: int = Field(
        3, ge=0, description="sweeps of the photo-consistency refinement; 0 leaves it out"
    )
    patch: int = Field(11, ge=3, description="side of the compared patches, pixels")
    levels: int = Field(3, ge=1, le=6, description="image sizes of the refinement")
    geometric_iterations: int = Field(
        1, ge=0, description="sweeps of the last pass, which also asks the neighbours' depth"
    )
    min_views: int = Field(2, ge=2, description="views that must agree on a depth, itself included")
    max_relative_depth: float = Field(0.01, gt=0.0, description="difference of agreeing depths, relative")
    max_round_trip: float = Field(1.0, gt=0.0, description="round trip through another view, pixels")
    min_confidence: float = Field(0.3, ge=0.0, le=1.0, description="photo-consistency a depth must have")
    smooth_deviation: float = Field(1.0, ge=0.0, description="grey levels; regions below are sky-like")
    smooth_min_views: int = Field(4, ge=2, description="views that must agree in sky-like regions")


class DepthStage:
    """Triangulates flow per pixel, refines depth and normals by photo-consistency, filters across views."""

    name: ClassVar[str] = "depth"
    version: ClassVar[int] = 4
    reads: ClassVar[tuple[str, ...]] = ("photos", "verify", "map", "fields")
    Settings: ClassVar[type[BaseModel]] = DepthSettings

    def run(self, settings: DepthSettings, work: StageContext) -> dict[str, Any]:
        scene = DenseScene(work, settings.max_size)
        views = scene.views
        neighbours = scene.neighbours(settings.neighbours)
        indices = list(range(len(views)))
        greys = [cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) for rgb in scene.images]

        def triangulate(index: int) -> DepthMap:
            return scene.triangulate(index, settings.max_reprojection)

        with work.resumable_directory("dense/depth") as folder:

            def kept(kind: str, index: int, make: Any) -> DepthMap:
                name = f"{kind}_{views[index].photo_id}.npz"
                if not (folder / name).exists():
                    with work.write_into(folder, name) as path:
                        save_depth(path, make(index))
                return read_depth(folder / name)

            depths = work.map(lambda i: kept("flow", i, triangulate), indices, "triangulating flow")
            triangulated = float(np.mean([(d.depth > 0).mean() for d in depths]))

            def refine(index: int, initial: list[DepthMap], final: bool) -> DepthMap:
                sources = neighbours[index]
                if not sources:
                    return initial[index]
                return refine_depth(
                    views[index],
                    greys[index],
                    [(views[k], greys[k]) for k in sources],
                    initial[index],
                    mask=scene.masks[index],
                    neighbour_depths=[initial[k] for k in sources] if final else None,
                    iterations=settings.geometric_iterations if final else settings.iterations,
                    levels=1 if final else settings.levels,
                    patch=settings.patch,
                    seed=work.seed + views[index].photo_id,
                )

            if settings.iterations:
                first = depths
                depths = work.map(
                    lambda i: kept("photometric", i, lambda k: refine(k, first, False)),
                    indices,
                    "refining depth",
                )
            if settings.geometric_iterations and settings.iterations:
                second = depths
                depths = work.map(
                    lambda i: kept("geometric", i, lambda k: refine(k, second, True)),
                    indices,
                    "agreeing on depth",
                )
            filtered = filter_depths(
                views,
                depths,
                neighbours,
                max_reprojection_px=settings.max_round_trip,
                max_relative_depth=settings.max_relative_depth,
                min_views=settings.min_views,
                min_confidence=settings.min_confidence,
                smooth=[smooth_regions(grey, max_deviation=settings.smooth_deviation) for grey in greys],
                smooth_min_views=settings.smooth_min_views,
                threads=work.threads,
            )
            filtered = [
                depth.only(~background_fringe(rgb, depth.depth))
                for rgb, depth in zip(scene.images, filtered, strict=True)
            ]
            for view, depth in zip(views, filtered, strict=True):
                with work.write_into(folder, f"{view.photo_id}.npz") as path:
                    save_depth(path, depth)
            for leftover in folder.glob("*_*.npz"):
                leftover.unlink()
            with work.write_into(folder, _SIZE) as path:
                path.write_text(json.dumps({"max_size": settings.max_size}), encoding="utf-8")
        covered = [float((depth.depth > 0).mean()) for depth in filtered]
        if max(covered) == 0.0:
            raise ReconError(
                "no depth could be found in any photo, although the cameras are known: the photos may show too little "
                "texture, or the matches are too few; try --quality high"
            )
        return {
            "depth_maps": len(views),
            "triangulated_share": round(triangulated, 3),
            "covered_share": round(float(np.mean(covered)), 3),
        }


_SIZE = "size.json"


def moved_views(views: Sequence[PinholeView], shift: Float64[np.ndarray, "3"]) -> list[PinholeView]:
    """Views in a world in which everything is moved by ``shift``."""
    if not shift.any():
        return list(views)
    moved = []
    for view in views:
        pose = view.cam_from_world.copy()
        pose[:, 3] -= pose[:, :3] @ shift
        moved.append(replace(view, cam_from_world=pose))
    return moved


class DenseScene:
    """The undistorted photos and cameras that densification works on."""

    @classmethod
    def of_depth_maps(cls, work: StageContext) -> DenseScene:
        """The scene at the size of the depth maps that the stage left."""
        stored = json.loads(work.path("dense", "depth", _SIZE).read_text(encoding="utf-8"))
        return cls(work, stored["max_size"])

    def __init__(self, work: StageContext, max_size: int) -> None:
        self._work = work
        self._photo_set: PhotoSet = load_photo_set(work)
        self._reconstruction = load_reconstruction(work)
        self._intrinsics = intrinsics_from_reconstruction(self._reconstruction, self._photo_set)
        self._full_views = views_from_reconstruction(self._reconstruction, self._photo_set)
        self.views: list[PinholeView] = []
        self.images: list[UInt8[np.ndarray, "h w 3"]] = []
        self.masks: list[Bool[np.ndarray, "h w"]] = []
        for view in self._full_views:
            photo = self._photo_set.photos[view.photo_id]
            factor = min(1.0, max_size / max(view.width, view.height))
            small = view.resized(max(1, round(view.width * factor)), max(1, round(view.height * factor)))
            rgb, mask = load_rgb(work, photo), load_mask(work, photo)
            intrinsics = self._intrinsics[view.photo_id]
            valid = np.ones(rgb.shape[:2], np.uint8) if mask is None else mask.astype(np.uint8)
            if not intrinsics.is_pinhole:
                map_x, map_y = undistortion_maps(intrinsics, view.K, (view.width, view.height))
                rgb = cv2.remap(rgb, map_x, map_y, cv2.INTER_CUBIC)
                valid = cv2.remap(valid, map_x, map_y, cv2.INTER_NEAREST, borderValue=0)
            if factor < 1.0:
                rgb = cv2.resize(rgb, (small.width, small.height), interpolation=cv2.INTER_AREA)
                valid = cv2.resize(valid, (small.width, small.height), interpolation=cv2.INTER_NEAREST)
            self.views.append(small)
            self.images.append(rgb)
            self.masks.append(valid.astype(bool))

    @property
    def offset(self) -> Float64[np.ndarray, "3"]:
        """What to take away from the world's coordinates so that single precision holds them; 0 as a rule."""
        return offset_to_origin(np.array([view.center for view in self.views]))

    def near_views(self) -> list[PinholeView]:
        """The views in a world from which the offset is taken away."""
        return moved_views(self.views, -self.offset)

    def neighbours(self, count: int) -> list[tuple[int, ...]]:
        """Source views of every view, best first (indices into ``views``)."""
        ids = {key: row for row, key in enumerate(self._reconstruction.points3D)}
        xyz = np.array([point.xyz for point in self._reconstruction.points3D.values()]).reshape(-1, 3)
        point_rows, photo_rows = [], []
        for key, point in self._reconstruction.points3D.items():
            for element in point.track.elements:
                point_rows.append(ids[key])
                photo_rows.append(photo_id(element.image_id))
        return select_neighbours(
            self.views, xyz, np.array(point_rows, np.int64), np.array(photo_rows, np.int64), count=count
        )

    def triangulate(self, index: int, max_reprojection: float) -> DepthMap:
        """Depth of one view at matching size, from all its flow fields."""
        me = self._full_views[index]
        others = {view.photo_id: view for view in self._full_views}
        graph = load_view_graph(self._work)
        flows, reference = [], None
        for pair in load_field_pairs(self._work):
            if me.photo_id not in pair or not graph.has_edge(*pair):
                continue
            other = others.get(pair[0] if pair[1] == me.photo_id else pair[1])
            if other is None:
                continue
            match = load_dense_match(self._work, pair)
            forward = pair[0] == me.photo_id
            field = match.a_to_b if forward else match.b_to_a
            back = match.b_to_a if forward else match.a_to_b
            consistent = match.consistent_a if forward else match.consistent_b
            height, width = field.confidence.shape
            reference = me.resized(width, height)
            target = other.resized(back.confidence.shape[1], back.confidence.shape[0])
            flow, confidence = field.flow, field.confidence
            mine, theirs = self._intrinsics[me.photo_id], self._intrinsics[other.photo_id]
            if not (mine.is_pinhole and theirs.is_pinhole):
                flow, confidence, consistent = undistort_flow(
                    flow,
                    confidence,
                    consistent,
                    _distorted(mine.resized(width, height), reference),
                    _undistorted(theirs.resized(target.width, target.height), target),
                )
            flows.append(FlowToView(target, flow, confidence, consistent))
        if reference is None:
            height, width = self.masks[index].shape
            zeros = np.zeros((height, width), np.float32)
            return DepthMap(zeros, np.zeros((height, width, 3), np.float32), zeros)
        return triangulate_flow(reference, flows, max_reprojection_px=max_reprojection)


def _distorted(intrinsics: Intrinsics, view: PinholeView) -> Float32[np.ndarray, "h w 2"]:
    """Where each pixel of the undistorted view lies in the photo as taken."""
    return np.stack(undistortion_maps(intrinsics, view.K, (view.width, view.height)), axis=-1)


def _undistorted(intrinsics: Intrinsics, view: PinholeView) -> Float32[np.ndarray, "h w 2"]:
    """Where each pixel of the photo as taken lies in the undistorted view."""
    xs, ys = np.meshgrid(np.arange(view.width, dtype=np.float64), np.arange(view.height, dtype=np.float64))
    moved = undistort_points(np.stack([xs.ravel(), ys.ravel()], axis=1), intrinsics, view.K)
    return moved.reshape(view.height, view.width, 2).astype(np.float32)


def save_depth(path: Any, depth: DepthMap) -> None:
    """Depth in float32; normals and confidence in half precision (errors below 0.001)."""
    with open(path, "wb") as stream:
        np.savez(
            stream,
            depth=depth.depth,
            normal=depth.normal.astype(np.float16),
            confidence=depth.confidence.astype(np.float16),
        )


def read_depth(path: Any) -> DepthMap:
    """A depth map from its file."""
    with np.load(path) as data:
        return DepthMap(
            data["depth"], data["normal"].astype(np.float32), data["confidence"].astype(np.float32)
        )


def load_depths(work: StageContext, views: list[PinholeView]) -> list[DepthMap]:
    """The filtered depth maps of these views."""
    return [read_depth(work.path("dense", "depth", f"{view.photo_id}.npz")) for view in views]
