"""The mesh of one part of a cloud, as a task on the workspace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from recon.core.cameras import PinholeView
from recon.core.frames import offset_to_origin
from recon.core.memory import give_memory_back
from recon.core.mesh import FusedCloud, Mesh
from recon.engine.stage import StageContext
from recon.errors import ReconError
from recon.io.surfaces import ply_elements, points_in_parts, read_points_ply
from recon.run.folder import CLOUD, RunFolder
from recon.surface.blocks import Patch, join_blocks
from recon.surface.meshing import PartsPlan, block_mesh, cleaned_patch, plan_of_points, settled_patch

PARTS = "mesh_parts"
"""Meshes of the parts of a cloud, until they are joined."""

EMPTY = "the mesh came out empty (dense/points.ply is kept); try --set mesh.method=tsdf"

_SAMPLE = 1_000_000
"""Points by which the parts are planned."""

_POINT = np.dtype([("xyz", "<f4", 3), ("normal", "<f4", 3), ("rgb", "u1", 3)])


def cloud_size(run: RunFolder) -> int:
    """Number of points of the dense cloud."""
    return ply_elements(run.path(CLOUD)).get("vertex", 0)


def views_and_offset(run: RunFolder) -> tuple[list[PinholeView], npt.NDArray[np.float64]]:
    """The views, and what is taken away from the cloud's coordinates so that single precision holds them."""
    views = run.views()
    return views, offset_to_origin(np.array([view.center for view in views]))


def cloud_near_origin(run: RunFolder, offset: npt.NDArray[np.float64]) -> FusedCloud:
    """The dense cloud near the origin."""
    return _moved(read_points_ply(run.path(CLOUD)), offset)


def _moved(cloud: FusedCloud, offset: npt.NDArray[np.float64]) -> FusedCloud:
    return replace(cloud, xyz=(cloud.xyz - offset).astype(np.float32)) if offset.any() else cloud


def divide_cloud(run: RunFolder, offset: npt.NDArray[np.float64], folder: Path, most: int) -> PartsPlan:
    """Write the points of each part of the cloud into files of their own; the cloud is read twice.

    Args:
        offset: as of ``views_and_offset``.
        folder: where the files go.
        most: points of a part.
    """

    def pieces() -> Iterator[FusedCloud]:
        return (_moved(one, offset) for one in points_in_parts(run.path(CLOUD)))

    share = min(1.0, _SAMPLE / max(1, cloud_size(run)))
    rng = np.random.default_rng(0)
    drawn = [one.xyz if share == 1.0 else one.xyz[rng.random(len(one)) < share] for one in pieces()]
    plan = plan_of_points(np.concatenate(drawn), most, share)
    for number in range(len(plan.block.leaves())):
        _points_file(folder, number).unlink(missing_ok=True)
    for one in pieces():
        for number, rows in enumerate(plan.rows(one.xyz)):
            if len(rows):
                packed = np.empty(len(rows), _POINT)
                packed["xyz"], packed["normal"] = one.xyz[rows], one.normals[rows]
                packed["rgb"] = one.rgb[rows]
                with _points_file(folder, number).open("ab") as file:
                    file.write(packed.tobytes())
    return plan


def _points_file(folder: Path, number: int) -> Path:
    return folder / f"{number}.points"


@dataclass(frozen=True)
class MeshPart:
    """Writes the mesh of one part of the cloud, unless it is there.

    Attributes:
        root: the workspace.
        folder: where the points of the parts are (``divide_cloud``), and their meshes go.
        most: points of a part; only parts of the same division belong together.
        cell: side of the cells.
        depth: setting of the stage.
        threads: of the solver.
    """

    root: Path
    folder: Path
    most: int
    cell: float
    depth: int
    threads: int = 1

    def __call__(self, number: int) -> int:
        path = self.file(number)
        if not path.exists():
            points = partial(self.points, number)
            self._write(path, block_mesh(points, self.cell, self.depth, self.threads))
            give_memory_back()
        return number

    def points(self, number: int) -> FusedCloud:
        """The points of a part; only place, normal and colour are known."""
        path = _points_file(self.folder, number)
        rows = np.fromfile(path, _POINT) if path.exists() else np.zeros(0, _POINT)
        return FusedCloud(
            np.ascontiguousarray(rows["xyz"]),
            np.ascontiguousarray(rows["normal"]),
            np.ascontiguousarray(rows["rgb"]),
            *(np.broadcast_to(kind(0), len(rows)) for kind in (np.uint16, np.int32, np.float32)),
        )

    def file(self, number: int) -> Path:
        """Path of the mesh of a part."""
        return self.folder / f"{number}_of_{self.most}.npz"

    def read(self, number: int) -> Patch:
        """The mesh of a part."""
        with np.load(self.file(number)) as data:
            return Patch(data["xyz"], data["faces"])

    def lost(self, number: int) -> int:
        """Leave a hole for a part that ended its worker each time."""
        self._write(self.file(number), Patch.empty())
        return number

    def _write(self, path: Path, patch: Patch) -> None:
        with (
            RunFolder(self.root).files.write_into(self.folder, path.name) as temporary,
            temporary.open("wb") as out,
        ):
            np.savez(out, xyz=patch.xyz, faces=patch.faces)


def mesh_by_parts(
    work: StageContext, offset: npt.NDArray[np.float64], most: int, depth: int
) -> tuple[Mesh, int]:
    """The mesh of the cloud near the origin, its parts by the workers, and how many there are."""
    with work.resumable_directory(PARTS) as folder:
        plan = divide_cloud(RunFolder.of(work), offset, folder, most)
        count = len(plan.block.leaves())
        task = MeshPart(work.root, folder, most, plan.cell, depth, work.threads if count == 1 else 1)
        numbers = work.spread(task, range(count), "meshing", task.lost)
        in_order = iter(numbers)
        joined = cleaned_patch(join_blocks(plan.block, lambda _: task.read(next(in_order)), plan.cell))
        if len(joined.faces) == 0:
            raise ReconError(EMPTY)
        made = settled_patch(joined, plan, task.points)
    work.remove(PARTS)
    return made, len(numbers)
