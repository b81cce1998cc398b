"""Stage ``mesh``: a triangle mesh with vertex colours."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from recon.engine.stage import StageContext
from recon.errors import ReconError
from recon.stages.depth import DenseScene, load_depths
from recon.surface.io import read_points_ply, write_mesh
from recon.surface.meshing import clean_mesh, poisson_mesh, tsdf_mesh


class MeshSettings(BaseModel):
    """How the surface is made and cleaned."""

    model_config = ConfigDict(extra="forbid")
    method: Literal["poisson", "tsdf"] = Field(
        "poisson", description="screened Poisson or fusion of depth maps"
    )
    depth: int = Field(10, ge=5, le=14, description="octree depth of Poisson")
    formats: list[Literal["ply", "obj", "glb"]] = Field(["ply"], description="files to write; ply always is")


class MeshStage:
    """Meshes the cloud or the depth maps, then takes away what nothing supports."""

    name: ClassVar[str] = "mesh"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("photos", "map", "depth", "fuse")
    Settings: ClassVar[type[BaseModel]] = MeshSettings

    def run(self, settings: MeshSettings, work: StageContext) -> dict[str, Any]:
        cloud = read_points_ply(work.path("dense", "points.ply"))
        if len(cloud) < 100:
            raise ReconError(
                f"only {len(cloud)} dense points: too few for a mesh (dense/points.ply is kept). More photos with "
                "more overlap help, or --quality high"
            )
        if settings.method == "tsdf":
            scene = DenseScene.of_depth_maps(work)
            mesh = tsdf_mesh(scene.views, load_depths(work, scene.views), scene.images)
        else:
            mesh = poisson_mesh(cloud, depth=settings.depth, threads=work.threads)
        mesh = clean_mesh(mesh, support=cloud.xyz)
        if len(mesh.triangles) == 0:
            raise ReconError("the mesh came out empty (dense/points.ply is kept); try --set mesh.method=tsdf")
        for suffix in sorted({"ply", *settings.formats}):
            with work.writing("mesh", f"mesh.{suffix}") as path:
                write_mesh(path, mesh)
        return {"vertices": len(mesh.vertices), "faces": len(mesh.triangles)}
