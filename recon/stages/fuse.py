"""Stage ``fuse``: one coloured point cloud from all depth maps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from recon.core.memory import Scratch
from recon.dense.fusion import fuse_depth_maps
from recon.engine.stage import StageContext
from recon.errors import ReconError
from recon.io.files import INCOMPLETE
from recon.run.dense_scene import DenseScene
from recon.run.folder import RunFolder


class FuseSettings(BaseModel):
    """What a point must show to be kept."""

    model_config = ConfigDict(extra="forbid")
    min_views: int = Field(2, ge=1, description="views that must agree on a point")
    max_reprojection: float = Field(1.5, gt=0.0, description="round trip between views, pixels")
    max_relative_depth: float = Field(0.01, gt=0.0, description="difference of depth, relative")
    max_normal_angle: float = Field(45.0, gt=0.0, le=180.0, description="between two views' normals, degrees")


class FuseStage:
    """Fuses depth maps; every surface patch gives one point."""

    name: ClassVar[str] = "fuse"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("photos", "map", "depth")
    Settings: ClassVar[type[BaseModel]] = FuseSettings

    def run(self, settings: FuseSettings, work: StageContext) -> dict[str, Any]:
        run = RunFolder.of(work)
        scene = DenseScene.of_depth_maps(run, work.memory)
        with Scratch(work.root / INCOMPLETE, work.memory) as scratch:
            cloud = fuse_depth_maps(
                scene.near_views(),
                scene.depth_maps(),
                scene.images,
                scene.masks,
                min_views=settings.min_views,
                max_reprojection_px=settings.max_reprojection,
                max_relative_depth=settings.max_relative_depth,
                max_normal_angle_deg=settings.max_normal_angle,
                threads=work.threads,
                scratch=scratch,
            )
        if len(cloud) == 0:
            raise ReconError(
                "no point is confirmed by enough photos; try --set fuse.min_views=2 or --quality high"
            )
        if scene.offset.any():
            cloud = replace(cloud, xyz=cloud.xyz + scene.offset)
        run.write_cloud(cloud)
        return {"points": len(cloud), "mean_views": round(float(cloud.view_count.mean()), 2)}
