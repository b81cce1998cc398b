"""Stage ``depth``: a depth map of every registered photo, from its flow fields and then from its pixels."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any, ClassVar
from uuid import uuid4

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recon.dense.filtering import FilterOptions
from recon.dense.refinement import ITERATIONS, LEVELS, PATCH
from recon.engine.stage import StageContext, options_of
from recon.errors import ReconError
from recon.io.manifest import KEPT
from recon.run.dense_scene import DenseScene
from recon.run.folder import DEPTH, DEPTH_SIZE, RunFolder
from recon.run.shared_fields import content_key
from recon.run.standing import VIEWS, Standing, posed_photos, standings_to_json
from recon.sfm.trust import depth_figures, depth_reason
from recon.tasks.depth import (
    PLAN,
    DepthOptions,
    DepthTask,
    last_steps,
    steps_of,
    steps_of_views,
    take_over,
    warm_up,
)
from recon.tasks.prediction import photos_to_predict, prediction_figures


class DepthSettings(BaseModel):
    """Settings for finding depth, and thresholds that it must pass."""

    model_config = ConfigDict(extra="forbid")
    neighbours: int = Field(5, ge=1, le=16, description="source views per photo")
    max_size: int = Field(16384, ge=64, description="longest side of the depth maps; the photos' at most")
    max_reprojection: float = Field(1.5, gt=0.0, description="of triangulated flow, matching pixels")
    iterations: int = Field(
        ITERATIONS, ge=0, description="rounds of the refinement at full size; 0 leaves it out"
    )
    patch: int = Field(PATCH, ge=3, description="side of the compared windows, pixels")
    levels: int = Field(LEVELS, ge=1, le=6, description="image sizes of the refinement")
    geometric_iterations: int = Field(
        2, ge=0, description="last passes, which also ask the depth that the neighbours had before"
    )
    min_views: int = Field(
        FilterOptions.min_views, ge=2, description="views that must agree on a depth, itself included"
    )
    max_relative_depth: float = Field(
        FilterOptions.max_relative_depth, gt=0.0, description="difference of agreeing depths, relative"
    )
    max_round_trip: float = Field(
        FilterOptions.max_reprojection_px, gt=0.0, description="round trip through another view, pixels"
    )
    min_confidence: float = Field(
        FilterOptions.min_confidence,
        ge=0.0,
        le=1.0,
        description="photo-consistency a depth must have; a third where views agree closely",
    )
    smooth_deviation: float = Field(1.0, ge=0.0, description="grey levels; regions below are sky-like")
    smooth_min_views: int = Field(
        FilterOptions.smooth_min_views, ge=2, description="views that must agree in sky-like regions"
    )
    max_views: int = Field(
        FilterOptions.max_views, ge=1, description="views beside the sources that may object to a depth"
    )


class DepthStage:
    """Triangulates flow per pixel, refines depth and normals by photo-consistency, filters across views."""

    name: ClassVar[str] = "depth"
    version: ClassVar[int] = 14
    reads: ClassVar[tuple[str, ...]] = ("photos", "verify", "map", "fields")
    Settings: ClassVar[type[BaseModel]] = DepthSettings
    warm_up = staticmethod(warm_up)

    def run(self, settings: DepthSettings, work: StageContext) -> dict[str, Any]:
        run = RunFolder.of(work)
        scene = DenseScene(run, settings.max_size, work.memory)
        neighbours = scene.source_views(settings.neighbours)
        limits = options_of(FilterOptions, settings, max_reprojection_px=settings.max_round_trip)
        options = options_of(DepthOptions, settings, filter=limits)
        identity = content_key({"version": self.version, "settings": settings.model_dump(mode="json")})
        today = posed_photos(scene)
        with work.resumable_directory(DEPTH) as folder:
            kept = take_over(work, folder, scene, today, neighbours, identity) if work.reuse else {}
            with work.write_into(folder, PLAN) as path:
                path.write_text(
                    json.dumps({"neighbours": neighbours, "kept": sorted(kept)}), encoding="utf-8"
                )
            todo = [index for index in range(len(today)) if index not in kept]
            *before, last_step = steps_of(options)
            names = [view.name for view in scene.views]
            steps, needs = steps_of_views(before, todo, neighbours, names)
            with closing(DepthTask(work.root, folder, options, work.memory, uuid4().hex)) as task:
                began = work.spread(task, steps, "depth", task.lost, needs)[: len(todo)]
                photos = photos_to_predict(len(today))
                steps, needs = last_steps(last_step, todo, photos, neighbours, names)
                ended = work.spread(task, steps, "comparing depth", task.lost, needs)
            predictions = [one.prediction for one in ended[len(todo) :]]
            standings = dict(kept)
            for index, first, last in zip(todo, began, ended[: len(todo)], strict=True):
                sources = tuple(today[k] for k in neighbours[index])
                standings[index] = Standing(
                    identity, today[index], sources, first.covered, last.covered, last.agreement
                )
            notes = {f"{scene.views[index].photo_id}.npz": standings[index] for index in sorted(standings)}
            for leftover in (*folder.glob("*_*"), folder / PLAN):
                leftover.unlink()
            for name, value in (
                (VIEWS, standings_to_json(notes)),
                (DEPTH_SIZE, {"max_size": settings.max_size}),
            ):
                with work.write_into(folder, name) as path:
                    path.write_text(json.dumps(value), encoding="utf-8")
        all_views = [standings[index] for index in range(len(today))]
        if max(view.covered for view in all_views) == 0.0:
            raise ReconError(
                "no depth could be found in any photo, although the cameras are known: the photos may show too little "
                "texture, or the matches are too few; try --quality high"
            )
        figures = depth_figures([view.agreement for view in all_views])
        figures |= prediction_figures(predictions)
        reason = depth_reason(figures)
        if reason is not None:
            work.warn(f"{reason.verdict}: {reason.what}. {reason.advice}")
        return {
            **figures,
            "triangulated_share": round(float(np.mean([view.triangulated for view in all_views])), 3),
            "covered_share": round(float(np.mean([view.covered for view in all_views])), 3),
            **({KEPT: len(kept)} if kept else {}),
        }
