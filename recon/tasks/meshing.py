"""The mesh of one part of a cloud, as a task on the workspace."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recon.core.cameras import PinholeView
from recon.core.frames import offset_to_origin
from recon.core.memory import give_memory_back
from recon.core.mesh import FusedCloud, Mesh
from recon.engine.stage import StageContext
from recon.errors import ReconError
from recon.io.files import file_sha256, parse_json
from recon.io.surfaces import ply_elements, points_in_parts, read_points_ply
from recon.run.folder import CLOUD, RunFolder
from recon.run.kept import KeptItems, write_keys
from recon.run.matches import forget_recent_matches
from recon.run.shared_fields import content_key
from recon.surface.blocks import Block, Patch, join_blocks
from recon.surface.meshing import PartsPlan, block_mesh, cleaned_patch, plan_of_points, settled_patch

PARTS = "mesh_parts"
"""Meshes of the parts of a cloud, by keys: those whose points stay are taken over when photos come or go."""

PLAN = "plan.json"
"""Where the cloud of these parts was cut."""

_VERSION = 1
"""Of the mesh of a part."""

# The division of an earlier cloud is used again where cells would differ by at most this share, and no part has more
# than so many times the points that a part should have.
_SAME_CELL, _LARGER_PART = 0.05, 1.25

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


def divide_cloud(
    run: RunFolder,
    offset: npt.NDArray[np.float64],
    folder: Path,
    most: int,
    earlier: PartsPlan | None = None,
) -> PartsPlan:
    """Write the points of each part of the cloud into files of their own; the cloud is read twice.

    Args:
        offset: as of ``views_and_offset``.
        folder: where the files go.
        most: points of a part.
        earlier: division of an earlier cloud, used again where it suits this one: parts far from what changed are
            then the same.
    """

    def pieces() -> Iterator[FusedCloud]:
        return (_moved(one, offset) for one in points_in_parts(run.path(CLOUD)))

    share = min(1.0, _SAMPLE / max(1, cloud_size(run)))
    rng = np.random.default_rng(0)
    drawn = [one.xyz if share == 1.0 else one.xyz[rng.random(len(one)) < share] for one in pieces()]
    sample = np.concatenate(drawn)
    del drawn
    plan = plan_of_points(sample, most, share)
    if earlier is not None and _suits(earlier, plan, sample, most * share):
        plan = earlier
    del sample
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


def _suits(earlier: PartsPlan, plan: PartsPlan, xyz: npt.NDArray[np.float32], most: float) -> bool:
    """Whether an earlier division of about the same points can be used again: its cells and its parts are as large."""
    if abs(earlier.cell - plan.cell) > _SAME_CELL * plan.cell:
        return False
    return max(map(len, earlier.rows(xyz))) <= max(_LARGER_PART * most, *map(len, plan.rows(xyz)))


def _points_file(folder: Path, number: int) -> Path:
    return folder / f"{number}.points"


@dataclass(frozen=True)
class MeshPart:
    """Writes the mesh of one part of the cloud, unless it is there.

    Attributes:
        root: the workspace.
        folder: where the points of the parts are (``divide_cloud``), and their meshes go.
        division: names the division of the cloud; only parts of the same one belong together.
        cell: side of the cells.
        depth: setting of the stage.
        threads: of the solver.
    """

    root: Path
    folder: Path
    division: str
    cell: float
    depth: int
    threads: int = 1

    def __call__(self, number: int) -> int:
        path = self.file(number)
        if not path.exists():
            points = partial(self.points, number)
            self._write(path, block_mesh(points, self.cell, self.depth, self.threads))
            give_memory_back(cycles=False)
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

    def key(self, number: int) -> str:
        """Hash of all that the mesh of a part depends on; its points are there."""
        path = _points_file(self.folder, number)
        points = file_sha256(path) if path.exists() else ""
        return content_key({"version": _VERSION, "points": points, "cell": self.cell, "depth": self.depth})

    def file(self, number: int) -> Path:
        """Path of the mesh of a part."""
        return self.folder / f"{number}_of_{self.division}.npz"

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
) -> tuple[Mesh, int, int]:
    """The mesh of the cloud near the origin, its parts by the workers; how many there are, and how many were kept.

    Parts whose points are those of an earlier run are taken over from it.
    """
    before = work.path(PARTS)
    identity = {"version": _VERSION, "depth": depth, "most": most, "offset": offset.tolist()}
    earlier = _read_plan(before / PLAN, identity) if work.reuse else None
    kept = KeptItems(before, earlier is not None)
    with work.resumable_directory(PARTS) as folder:
        plan = divide_cloud(RunFolder.of(work), offset, folder, most, earlier)
        forget_recent_matches()
        give_memory_back()  # the cloud's, too
        count = len(plan.block.leaves())
        division = content_key(asdict(plan))[:16]
        task = MeshPart(work.root, folder, division, plan.cell, depth, work.threads if count == 1 else 1)
        keys = {task.file(number).name: task.key(number) for number in range(count)} if count > 1 else {}
        taken = sum(kept.take(key, folder / name) for name, key in keys.items())
        numbers = work.spread(task, range(count), "meshing", task.lost)
        in_order = iter(numbers)

        def patch_of(_: Block) -> Patch:
            number = next(in_order)
            patch = task.read(number)
            if len(patch.faces) == 0:  # lost, perhaps: tried again the next time
                keys.pop(task.file(number).name, None)
            return patch

        joined = cleaned_patch(join_blocks(plan.block, patch_of, plan.cell))
        give_memory_back()  # that of the parts
        if len(joined.faces) == 0:
            raise ReconError(EMPTY)
        made = settled_patch(joined, plan, task.points)
        for number in range(count):
            _points_file(folder, number).unlink(missing_ok=True)
        write_keys(work, folder, keys)
        with work.write_into(folder, PLAN) as path:
            path.write_text(json.dumps({**identity, "plan": asdict(plan)}), encoding="utf-8")
    if count == 1:
        work.remove(PARTS)
    return made, count, taken


def _read_plan(path: Path, identity: Mapping[str, Any]) -> PartsPlan | None:
    """The division of the cloud of an earlier run with the same settings; None where there is none."""
    try:
        stored = parse_json(path.read_text(encoding="utf-8"))
        plan = stored.pop("plan")
        return PartsPlan(_block(plan["block"]), float(plan["cell"])) if stored == identity else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _block(stored: Mapping[str, Any]) -> Block:
    return Block(int(stored["axis"]), float(stored["at"]), tuple(map(_block, stored["parts"])))
