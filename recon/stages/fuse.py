"""Stage ``fuse``: one coloured point cloud from all depth maps."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recon.core.memory import Latest, Scratch, release
from recon.core.mesh import PointCloud
from recon.dense.fusion import FusionMaps, FusionRules, join_clouds
from recon.engine.stage import StageContext, options_of
from recon.errors import ReconError
from recon.io.files import INCOMPLETE
from recon.run.dense_scene import DenseScene
from recon.run.folder import RunFolder

PARTS = "fused_views"
"""The points of each view, until they are joined."""
SEEING = "seeing.json"


class FuseSettings(BaseModel):
    """Thresholds that a point must pass."""

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
            depths, seeing = scene.depth_maps(), []
            for index in range(len(views)):
                seeing.append(maps.fill(index, depths[index], scene.images[index], scene.masks[index]))
                scratch.release()
            task = FuseView(work.root, folder, rules, scratch.files(), uuid4().hex)
            _open.get(task, lambda: _Fusion(maps, seeing, scratch.release))
            with work.write_into(folder, SEEING) as path:
                path.write_text(json.dumps(seeing), encoding="utf-8")
            try:
                parts = work.spread(task, range(len(views)), "fusion", task.lost)
            finally:
                _open.clear()
            cloud = join_clouds([task.read(index) for index in parts])
        work.remove(PARTS)
        if len(cloud) == 0:
            raise ReconError(
                "no point is confirmed by enough photos; try --set fuse.min_views=2 or --quality high"
            )
        if scene.offset.any():
            cloud = replace(cloud, xyz=cloud.xyz + scene.offset)
        run.write_cloud(cloud)
        return {"points": len(cloud), "mean_views": round(float(cloud.view_count.mean()), 2)}


@dataclass(frozen=True)
class FuseView:
    """Writes the points that a view owns.

    Attributes:
        root: the workspace.
        folder: where the points go, and the views that may see the same as each view are noted.
        rules: when views agree.
        files: with the maps of all views; none where they are in the memory of this process.
        token: of this run of the stage.
    """

    root: Path
    folder: Path
    rules: FusionRules
    files: tuple[str, ...]
    token: str

    def __call__(self, index: int) -> int:
        fusion = _open.get(self, self._opened)
        self._write(index, fusion.maps.points(index, fusion.seeing[index], self.rules))
        fusion.release()
        return index

    def _opened(self) -> _Fusion:
        views = DenseScene.of_depth_maps(RunFolder(self.root)).near_views()
        length = FusionMaps.pixels(views)
        kinds = zip(self.files, FusionMaps.KINDS, strict=True)
        arrays = [np.memmap(path, kind, "r", shape=(length, *shape)) for path, (shape, kind) in kinds]
        seeing = json.loads((self.folder / SEEING).read_text(encoding="utf-8"))
        return _Fusion(
            FusionMaps(views, [array.view(np.ndarray) for array in arrays]), seeing, lambda: release(arrays)
        )

    def read(self, index: int) -> PointCloud:
        """The points that a view owns."""
        with np.load(self.folder / f"{index}.npz") as data:
            return PointCloud(**{one.name: data[one.name] for one in fields(PointCloud)})

    def lost(self, index: int) -> int:
        """A view that ended its worker each time makes no points."""
        self._write(index, join_clouds([]))
        return index

    def _write(self, index: int, cloud: PointCloud) -> None:
        arrays = {one.name: getattr(cloud, one.name) for one in fields(PointCloud)}
        files = RunFolder(self.root).files
        with files.write_into(self.folder, f"{index}.npz") as path, path.open("wb") as out:
            np.savez(out, **arrays)


@dataclass(frozen=True)
class _Fusion:
    """Opened maps, the views that may see the same, and what gives the memory of the maps back."""

    maps: FusionMaps
    seeing: Sequence[Sequence[int]]
    release: Callable[[], None]


_open = Latest()
