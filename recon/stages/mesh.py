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
from recon.io.obj import to_obj
from recon.io.surfaces import write_mesh, write_mesh_ply
from recon.run.dense_scene import DenseScene
from recon.run.folder import RunFolder
from recon.surface.meshing import (
    clean_mesh,
    poisson_mesh,
    settle_on_points,
    tsdf_mesh,
)
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
        3_000_000,
        ge=10_000,
        description="poisson: larger clouds are meshed in overlapping parts of so many points; fewer where half of "
        "the memory is less than 250 bytes a point",
    )
    formats: list[Literal["ply", "obj", "glb"]] = Field(["ply"], description="files to write; ply always is")


class MeshStage:
    """Meshes the cloud or the depth maps, then takes away what nothing supports."""

    name: ClassVar[str] = "mesh"
    version: ClassVar[int] = 8
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
        if settings.method == "poisson" and points > most:
            made, parts = mesh_by_parts(work, offset, most, settings.depth)
            _write_parts(work, settings, made, views, offset)
            return {"vertices": len(made.vertices), "faces": len(made.faces), "parts": parts}
        cloud = cloud_near_origin(run, offset)
        if settings.method == "tsdf":
            scene = DenseScene.of_depth_maps(run, work.memory)
            mesh = tsdf_mesh(scene.near_views(), scene.depth_maps(), scene.images)
        else:
            mesh = poisson_mesh(cloud, depth=settings.depth, threads=work.threads)
        mesh = clean_mesh(mesh, support=cloud.xyz)
        if len(mesh.triangles) == 0:
            raise ReconError(EMPTY)
        if settings.method == "poisson":
            settle_on_points(mesh, cloud)
        _write_more(work, settings, mesh, views, offset)
        with work.writing("mesh", "mesh.ply") as path:
            write_mesh(path, mesh)
        return {"vertices": len(mesh.vertices), "faces": len(mesh.triangles)}


# Bytes that Poisson takes for a point, and the part of a run's memory that it may have, in quarters (``work.memory`` is
# one). Margins would be most of parts that are smaller than the least.
_POISSON_BYTES, _POISSON_SHARE, _LEAST_PART = 250, 2, 200_000


def _write_more(
    work: StageContext,
    settings: MeshSettings,
    mesh: Any,
    views: Sequence[PinholeView],
    offset: npt.NDArray[np.float64],
) -> None:
    """Write a mesh in the other formats, and move it to its place in the world."""
    if "glb" in settings.formats:
        with work.writing("mesh", "mesh.glb") as path:
            write_mesh(path, mesh)
            path.write_bytes(upright_glb(move_glb(path.read_bytes(), translation(offset)), views))
    if offset.any():
        mesh.translate(offset)
    if "obj" in settings.formats:
        with work.writing("mesh", "mesh.obj") as path, path.open("w", encoding="ascii") as stream:
            stream.writelines(
                to_obj(
                    np.asarray(mesh.vertices),
                    np.asarray(mesh.triangles),
                    np.asarray(mesh.vertex_normals),
                    np.asarray(mesh.vertex_colors) if mesh.has_vertex_colors() else None,
                )
            )


def _write_parts(
    work: StageContext,
    settings: MeshSettings,
    made: Mesh,
    views: Sequence[PinholeView],
    offset: npt.NDArray[np.float64],
) -> None:
    """Write the mesh of a large cloud; formats beside PLY take a copy of it."""
    with work.writing("mesh", "mesh.ply") as path:
        write_mesh_ply(path, made, offset)
    if set(settings.formats) - {"ply"}:
        _write_more(work, settings, mesh_to_open3d(made), views, offset)
