"""Stage ``fuse``: one coloured point cloud from all depth maps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any, ClassVar
from uuid import uuid4

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recon.core.memory import Scratch
from recon.core.mesh import FusedCloud
from recon.dense.fusion import FusionMaps, FusionRules
from recon.engine.stage import StageContext, options_of
from recon.errors import ReconError
from recon.io.files import INCOMPLETE
from recon.run.dense_scene import DenseScene
from recon.run.folder import RunFolder
from recon.tasks.fusion import SEEING, FuseView

PARTS = "fused_views"
"""The points of each view, until they are joined."""


class FuseSettings(BaseModel):
    """Thresholds that a point must pass."""

    model_config = ConfigDict(extra="forbid")
    min_views: int = Field(FusionRules.min_views, ge=1, description="views that must agree on a point")
    max_reprojection: float = Field(
        FusionRules.max_reprojection_px, gt=0.0, description="round trip between views, pixels"
    )
    max_relative_depth: float = Field(
        FusionRules.max_relative_depth, gt=0.0, description="difference of depth, relative"
    )
    max_normal_angle: float = Field(
        FusionRules.max_normal_angle_deg, gt=0.0, le=180.0, description="between two views' normals, degrees"
    )
    max_views: int = Field(
        FusionRules.max_views, ge=1, description="views at most that are asked for the points of a view"
    )


class FuseStage:
    """Fuses depth maps; every surface patch gives one point."""

    name: ClassVar[str] = "fuse"
    version: ClassVar[int] = 2
    reads: ClassVar[tuple[str, ...]] = ("photos", "map", "depth")
    Settings: ClassVar[type[BaseModel]] = FuseSettings

    def run(self, settings: FuseSettings, work: StageContext) -> dict[str, Any]:
        run = RunFolder.of(work)
        scene = DenseScene.of_depth_maps(run, work.memory)
        rules = options_of(
            FusionRules,
            settings,
            max_reprojection_px=settings.max_reprojection,
            max_normal_angle_deg=settings.max_normal_angle,
        )
        views = scene.near_views()
        # Workers read the maps from files; one process keeps them in memory while there is room.
        room = work.memory if work.cluster is None else -1
        with Scratch(work.root / INCOMPLETE, room) as scratch, work.fresh_directory(PARTS) as folder:
            maps = FusionMaps(views, scratch.arrays(FusionMaps.pixels(views), FusionMaps.KINDS))
            depths = scene.depth_maps()

            def fill(index: int) -> list[int]:
                seen = maps.fill(index, depths[index], scene.images[index], scene.masks[index])
                scratch.release()
                return seen

            seeing = work.map(fill, range(len(views)), "reading")
            with work.write_into(folder, SEEING) as path:
                path.write_text(json.dumps(seeing), encoding="utf-8")
            with closing(FuseView(work.root, folder, rules, scratch.files(), uuid4().hex)) as task:
                task.open(maps, seeing, scratch.release)
                counts = work.spread(task, range(len(views)), "fusion", task.lost)
            points, agreed = sum(counts), 0
            if points == 0:
                raise ReconError(
                    "no point is confirmed by enough photos; try --set fuse.min_views=2 or --quality high"
                )
            del maps

            def parts() -> Iterator[FusedCloud]:
                nonlocal agreed
                for index in range(len(views)):
                    part = task.read(index)
                    agreed += int(part.view_count.sum(dtype=np.int64))
                    yield replace(part, xyz=part.xyz + scene.offset) if scene.offset.any() else part

            run.write_cloud(parts(), points)
        work.remove(PARTS)
        return {"points": points, "mean_views": round(agreed / points, 2)}
