"""Stage ``mesh``: a triangle mesh with vertex colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from recon.core.cameras import PinholeView
from recon.core.frames import translation
from recon.core.mesh import Mesh, mesh_to_open3d
from recon.engine.stage import StageContext
from recon.errors import ReconError
from recon.io.glb import move_glb, upright_glb
from recon.io.manifest import KEPT
from recon.io.obj import to_obj
from recon.io.surfaces import write_mesh, write_mesh_ply
from recon.run.dense_scene import DenseScene
from recon.run.folder import RunFolder
from recon.surface.meshing import clean_mesh, mesh_arrays, tsdf_mesh
from recon.tasks.meshing import EMPTY, cloud_near_origin, cloud_size, mesh_by_parts, views_and_offset


class MeshSettings(BaseModel):
    """Settings for making and cleaning the surface."""

    model_config = ConfigDict(extra="forbid")
    method: Literal["poisson", "tsdf"] = Field(
        "poisson", description="screened Poisson or fusion of depth maps"
    )
    depth: int = Field(
        5,
        ge=5,
        le=14,
        description="octree depth of Poisson at least; as deep as the points' spacing asks for",
    )
    block_points: int = Field(
        800_000,
        ge=10_000,
        description="poisson: larger clouds are meshed in overlapping parts of so many points, where far-scattered "
        "ones count up to eightfold; fewer where half of the memory is less than 250 bytes a point",
    )
    formats: list[Literal["ply", "obj", "glb"]] = Field(["ply"], description="files to write; ply always is")


class MeshStage:
    """Meshes the cloud or the depth maps, then takes away what nothing supports."""

    name: ClassVar[str] = "mesh"
    version: ClassVar[int] = 11
    reads: ClassVar[tuple[str, ...]] = ("photos", "map", "depth", "fuse")
    Settings: ClassVar[type[BaseModel]] = MeshSettings

    def run(self, settings: MeshSettings, work: StageContext) -> dict[str, Any]:
        run = RunFolder.of(work)
        points = cloud_size(run)
        if points < 100:
            raise ReconError(
                f"only {points} dense points: too few for a mesh (dense/points.ply is kept). More photos with "
                "more overlap help, or --quality high"
            )
        views, offset = views_and_offset(run)
        most = min(settings.block_points, max(_LEAST_PART, _POISSON_SHARE * work.memory // _POISSON_BYTES))
        if settings.method == "poisson":
            made, parts, kept = mesh_by_parts(work, offset, most, settings.depth)
        else:
            made, parts, kept = _tsdf(run, work.memory, cloud_near_origin(run, offset).xyz), 1, 0
        _write(work, settings, made, views, offset)
        counts = {"vertices": len(made.vertices), "faces": len(made.faces)}
        if parts > 1:
            counts["parts"] = parts
        return counts | ({KEPT: kept} if kept else {})


def _tsdf(run: RunFolder, memory: int, support: npt.NDArray[np.float32]) -> Mesh:
    """The mesh of the depth maps near the origin, where there are points.

    Raises:
        ReconError: there is none.
    """
    scene = DenseScene.of_depth_maps(run, memory)
    mesh = clean_mesh(tsdf_mesh(scene.near_views(), scene.depth_maps(), scene.images), support=support)
    if len(mesh.triangles) == 0:
        raise ReconError(EMPTY)
    return Mesh(*mesh_arrays(mesh), normals=np.asarray(mesh.vertex_normals, np.float32))


# Bytes that Poisson takes for a point, and the part of a run's memory that it may have, in quarters (``work.memory`` is
# one). Margins would be most of parts that are smaller than the least.
_POISSON_BYTES, _POISSON_SHARE, _LEAST_PART = 250, 2, 200_000


def _write(
    work: StageContext,
    settings: MeshSettings,
    made: Mesh,
    views: Sequence[PinholeView],
    offset: npt.NDArray[np.float64],
) -> None:
    """Write a mesh near the origin in its place in the world; formats beside PLY take a copy of it."""
    with work.writing("mesh", "mesh.ply") as path:
        write_mesh_ply(path, made, offset)
    if "glb" in settings.formats:
        with work.writing("mesh", "mesh.glb") as path:
            write_mesh(path, mesh_to_open3d(made))
            path.write_bytes(upright_glb(move_glb(path.read_bytes(), translation(offset)), views))
    if "obj" in settings.formats:
        colours = None if made.rgb is None else made.rgb / 255.0
        with work.writing("mesh", "mesh.obj") as path, path.open("w", encoding="ascii") as stream:
            stream.writelines(to_obj(made.vertices + offset, made.faces, made.normals, colours))
