"""Stage ``mesh``: a triangle mesh with vertex colours."""

from __future__ import annotations

from contextlib import closing
from typing import Any, ClassVar, Literal
from uuid import uuid4

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recon.core.frames import translation
from recon.engine.stage import StageContext
from recon.errors import ReconError
from recon.io.glb import move_glb, upright_glb
from recon.io.obj import to_obj
from recon.io.surfaces import write_mesh
from recon.run.dense_scene import DenseScene
from recon.run.folder import RunFolder
from recon.surface.meshing import clean_mesh, mesh_of_blocks, poisson_mesh, settle_on_points, tsdf_mesh
from recon.tasks.meshing import MeshPart, cloud_near_origin

PARTS = "mesh_parts"
"""Meshes of the parts of a large cloud, until they are joined."""


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
        description="poisson: larger clouds are meshed in overlapping parts of so many points, up to 1 kB each",
    )
    formats: list[Literal["ply", "obj", "glb"]] = Field(["ply"], description="files to write; ply always is")


class MeshStage:
    """Meshes the cloud or the depth maps, then takes away what nothing supports."""

    name: ClassVar[str] = "mesh"
    version: ClassVar[int] = 7
    reads: ClassVar[tuple[str, ...]] = ("photos", "map", "depth", "fuse")
    Settings: ClassVar[type[BaseModel]] = MeshSettings

    def run(self, settings: MeshSettings, work: StageContext) -> dict[str, Any]:
        run = RunFolder.of(work)
        cloud, views, offset = cloud_near_origin(run)
        if len(cloud) < 100:
            raise ReconError(
                f"only {len(cloud)} dense points: too few for a mesh (dense/points.ply is kept). More photos with "
                "more overlap help, or --quality high"
            )
        parts = 1
        if settings.method == "tsdf":
            scene = DenseScene.of_depth_maps(run, work.memory)
            mesh = tsdf_mesh(scene.near_views(), scene.depth_maps(), scene.images)
        elif len(cloud) <= settings.block_points:
            mesh = poisson_mesh(cloud, depth=settings.depth, threads=work.threads)
        else:
            mesh, parts = _by_parts(work, settings)
        mesh = clean_mesh(mesh, support=cloud.xyz)
        if len(mesh.triangles) == 0:
            raise ReconError("the mesh came out empty (dense/points.ply is kept); try --set mesh.method=tsdf")
        if settings.method == "poisson":
            settle_on_points(mesh, cloud)
        if "glb" in settings.formats:
            with work.writing("mesh", "mesh.glb") as path:
                write_mesh(path, mesh)
                path.write_bytes(upright_glb(move_glb(path.read_bytes(), translation(offset)), views))
        if offset.any():
            mesh.translate(offset)
        with work.writing("mesh", "mesh.ply") as path:
            write_mesh(path, mesh)
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
        return {
            "vertices": len(mesh.vertices),
            "faces": len(mesh.triangles),
            **({"parts": parts} if parts > 1 else {}),
        }


def _by_parts(work: StageContext, settings: MeshSettings) -> tuple[Any, int]:
    """The mesh of a large cloud, its parts by the workers, and how many there are."""
    with work.resumable_directory(PARTS) as folder:
        with closing(MeshPart(work.root, folder, settings.block_points, settings.depth, uuid4().hex)) as task:
            _, plan, cell = task.opened()
            parts = work.spread(task, range(len(plan.leaves())), "meshing", task.lost)
        in_order = iter(parts)
        mesh = mesh_of_blocks(plan, lambda _: task.read(next(in_order)), cell)
    work.remove(PARTS)
    return mesh, len(parts)
