"""Stage ``mesh``: a triangle mesh with vertex colours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recon.core.frames import offset_to_origin, translation
from recon.engine.stage import StageContext
from recon.errors import ReconError
from recon.io.glb import move_glb, upright_glb
from recon.io.obj import to_obj
from recon.io.surfaces import read_points_ply, write_mesh
from recon.run.dense_scene import DenseScene
from recon.run.folder import RunFolder
from recon.surface.meshing import clean_mesh, poisson_mesh, tsdf_mesh


class MeshSettings(BaseModel):
    """How the surface is made and cleaned."""

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
    formats: list[Literal["ply", "obj", "glb"]] = Field(["ply"], description="files to write; ply always is")


class MeshStage:
    """Meshes the cloud or the depth maps, then takes away what nothing supports."""

    name: ClassVar[str] = "mesh"
    version: ClassVar[int] = 4
    reads: ClassVar[tuple[str, ...]] = ("photos", "map", "depth", "fuse")
    Settings: ClassVar[type[BaseModel]] = MeshSettings

    def run(self, settings: MeshSettings, work: StageContext) -> dict[str, Any]:
        run = RunFolder.of(work)
        cloud = read_points_ply(work.path("dense", "points.ply"))
        if len(cloud) < 100:
            raise ReconError(
                f"only {len(cloud)} dense points: too few for a mesh (dense/points.ply is kept). More photos with "
                "more overlap help, or --quality high"
            )
        views = run.views()
        offset = offset_to_origin(np.array([view.center for view in views]))
        if offset.any():
            cloud = replace(cloud, xyz=(cloud.xyz - offset).astype(np.float32))
        if settings.method == "tsdf":
            scene = DenseScene.of_depth_maps(run, work.memory)
            mesh = tsdf_mesh(scene.near_views(), scene.depth_maps(), scene.images)
        else:
            mesh = poisson_mesh(cloud, depth=settings.depth, threads=work.threads)
        mesh = clean_mesh(mesh, support=cloud.xyz)
        if len(mesh.triangles) == 0:
            raise ReconError("the mesh came out empty (dense/points.ply is kept); try --set mesh.method=tsdf")
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
        return {"vertices": len(mesh.vertices), "faces": len(mesh.triangles)}
