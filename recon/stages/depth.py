"""Stage ``depth``: a depth map of every registered photo, from its flow fields and then from its pixels."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import cv2
import numpy as np
from jaxtyping import Float32
from pydantic import BaseModel, ConfigDict, Field

from recon.core.cameras import Intrinsics, PinholeView
from recon.core.colmap import photo_id
from recon.core.undistort import pixel_grid, undistort_points, undistortion_maps
from recon.dense.filtering import background_fringe, filter_depths, smooth_regions
from recon.dense.neighbours import select_neighbours
from recon.dense.refinement import refine_depth
from recon.dense.triangulation import FlowToView, triangulate_flow, undistort_flow
from recon.dense.types import DepthMap
from recon.engine.stage import StageContext
from recon.errors import ReconError
from recon.run.dense_scene import DenseScene
from recon.run.folder import DEPTH, DEPTH_SIZE, RunFolder, read_depth, write_depth


class DepthSettings(BaseModel):
    """How depth is found and what it must show."""

    model_config = ConfigDict(extra="forbid")
    neighbours: int = Field(5, ge=1, le=16, description="source views per photo")
    max_size: int = Field(16384, ge=64, description="longest side of the depth maps; the photos' at most")
    max_reprojection: float = Field(1.5, gt=0.0, description="of triangulated flow, matching pixels")
    iterations: int = Field(
        1, ge=0, description="rounds of the photo-consistency refinement at full size; 0 leaves it out"
    )
    patch: int = Field(9, ge=3, description="side of the compared windows, pixels")
    levels: int = Field(3, ge=1, le=6, description="image sizes of the refinement")
    geometric_iterations: int = Field(
        2, ge=0, description="last passes, which also ask the depth that the neighbours had before"
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
    version: ClassVar[int] = 8
    reads: ClassVar[tuple[str, ...]] = ("photos", "verify", "map", "fields")
    Settings: ClassVar[type[BaseModel]] = DepthSettings

    def run(self, settings: DepthSettings, work: StageContext) -> dict[str, Any]:
        run = RunFolder.of(work)
        scene = DenseScene(run, settings.max_size)
        views = scene.views
        neighbours = _neighbours(scene, settings.neighbours)
        indices = list(range(len(views)))
        greys = [cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) for rgb in scene.images]

        def triangulate(index: int) -> DepthMap:
            return _triangulate(scene, index, settings.max_reprojection)

        with work.resumable_directory(DEPTH) as folder:

            def kept(kind: str, index: int, make: Any) -> DepthMap:
                name = f"{kind}_{views[index].photo_id}.npz"
                if not (folder / name).exists():
                    with work.write_into(folder, name) as path:
                        write_depth(path, make(index))
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
                    iterations=1 if final else settings.iterations,
                    levels=1 if final else settings.levels,
                    patch=settings.patch,
                )

            if settings.iterations:
                first = depths
                depths = work.map(
                    lambda i: kept("photometric", i, lambda k: refine(k, first, False)),
                    indices,
                    "refining depth",
                )
            for number in range(settings.geometric_iterations if settings.iterations else 0):

                def agree(
                    index: int, before: list[DepthMap] = depths, kind: str = f"geometric{number}"
                ) -> DepthMap:
                    return kept(kind, index, lambda k: refine(k, before, True))

                depths = work.map(agree, indices, "agreeing on depth")
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
                    write_depth(path, depth)
            for leftover in folder.glob("*_*.npz"):
                leftover.unlink()
            with work.write_into(folder, DEPTH_SIZE) as path:
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


def _neighbours(scene: DenseScene, count: int) -> list[tuple[int, ...]]:
    """Source views of every view, best first (indices into the views)."""
    points = scene.run.reconstruction.points3D
    ids = {key: row for row, key in enumerate(points)}
    xyz = np.array([point.xyz for point in points.values()]).reshape(-1, 3)
    point_rows, photo_rows = [], []
    for key, point in points.items():
        for element in point.track.elements:
            point_rows.append(ids[key])
            photo_rows.append(photo_id(element.image_id))
    return select_neighbours(
        scene.views, xyz, np.array(point_rows, np.int64), np.array(photo_rows, np.int64), count=count
    )


def _triangulate(scene: DenseScene, index: int, max_reprojection: float) -> DepthMap:
    """Depth of one view at matching size, from all its flow fields."""
    me = scene.full_views[index]
    others = {view.photo_id: view for view in scene.full_views}
    run = scene.run
    graph = run.view_graph()
    flows, reference = [], None
    for pair in run.field_pairs():
        if me.photo_id not in pair or not graph.has_edge(*pair):
            continue
        other = others.get(pair[0] if pair[1] == me.photo_id else pair[1])
        if other is None:
            continue
        match = run.dense_match(pair)
        forward = pair[0] == me.photo_id
        field = match.a_to_b if forward else match.b_to_a
        back = match.b_to_a if forward else match.a_to_b
        consistent = match.consistent_a if forward else match.consistent_b
        height, width = field.confidence.shape
        reference = me.resized(width, height)
        target = other.resized(back.confidence.shape[1], back.confidence.shape[0])
        flow, confidence = field.flow, field.confidence
        mine, theirs = scene.intrinsics[me.photo_id], scene.intrinsics[other.photo_id]
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
        height, width = scene.masks[index].shape
        zeros = np.zeros((height, width), np.float32)
        return DepthMap(zeros, np.zeros((height, width, 3), np.float32), zeros)
    return triangulate_flow(reference, flows, max_reprojection_px=max_reprojection)


def _distorted(intrinsics: Intrinsics, view: PinholeView) -> Float32[np.ndarray, "h w 2"]:
    """Where each pixel of the undistorted view lies in the photo as taken."""
    return np.stack(undistortion_maps(intrinsics, view.K, (view.width, view.height)), axis=-1)


def _undistorted(intrinsics: Intrinsics, view: PinholeView) -> Float32[np.ndarray, "h w 2"]:
    """Where each pixel of the photo as taken lies in the undistorted view."""
    moved = undistort_points(pixel_grid(view.width, view.height), intrinsics, view.K)
    return moved.reshape(view.height, view.width, 2).astype(np.float32)
