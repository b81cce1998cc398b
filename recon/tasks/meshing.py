"""The mesh of one part of a large cloud, as a task on the workspace."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from recon.core.cameras import PinholeView
from recon.core.frames import offset_to_origin
from recon.core.memory import Latest
from recon.core.mesh import FusedCloud
from recon.io.surfaces import read_points_ply
from recon.run.folder import RunFolder
from recon.surface.blocks import Block, Patch
from recon.surface.meshing import block_mesh, plan_of_cloud

_open = Latest()


def cloud_near_origin(run: RunFolder) -> tuple[FusedCloud, list[PinholeView], np.ndarray]:
    """The dense cloud near the origin, the views, and what was taken away from the cloud's coordinates."""
    cloud = read_points_ply(run.path("dense", "points.ply"))
    views = run.views()
    offset = offset_to_origin(np.array([view.center for view in views]))
    if offset.any():
        cloud = replace(cloud, xyz=(cloud.xyz - offset).astype(np.float32))
    return cloud, views, offset


@dataclass(frozen=True)
class MeshPart:
    """Writes the mesh of one part of the cloud, unless it is there.

    Attributes:
        root: the workspace.
        folder: where the parts go.
        most, depth: settings of the stage.
        token: of this run of the stage.
    """

    root: Path
    folder: Path
    most: int
    depth: int
    token: str

    def __call__(self, number: int) -> int:
        path = self.file(number)
        if not path.exists():
            cloud, plan, cell = self.opened()
            rows = plan.leaves()[number].points
            self._write(path, block_mesh(cloud.rows(rows), cell, self.depth))
        return number

    def opened(self) -> tuple[FusedCloud, Block, float]:
        """The cloud, its parts, and the side of the cells."""
        return _open.get(self, self._plan)

    def _plan(self) -> tuple[FusedCloud, Block, float]:
        cloud = cloud_near_origin(RunFolder(self.root))[0]
        return cloud, *plan_of_cloud(cloud, self.most)

    def file(self, number: int) -> Path:
        """Path of the mesh of a part."""
        return self.folder / f"{number}.npz"

    def read(self, number: int) -> Patch:
        """The mesh of a part."""
        with np.load(self.file(number)) as data:
            return Patch(data["xyz"], data["faces"], data["rgb"])

    def lost(self, number: int) -> int:
        """Leave a hole for a part that ended its worker each time."""
        self._write(self.file(number), Patch(np.zeros((0, 3)), np.zeros((0, 3), np.int64), np.zeros((0, 3))))
        return number

    def _write(self, path: Path, patch: Patch) -> None:
        with (
            RunFolder(self.root).files.write_into(self.folder, path.name) as temporary,
            temporary.open("wb") as out,
        ):
            np.savez(out, xyz=patch.xyz, faces=patch.faces, rgb=patch.rgb)

    def close(self) -> None:
        """Free what tasks of this process hold."""
        _open.clear()
