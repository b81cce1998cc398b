"""Stage ``texture``: the mesh with fewer faces and the photos on it."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recon.core.memory import Scratch, give_memory_back
from recon.engine.stage import StageContext, options_of
from recon.errors import ReconError
from recon.io.files import INCOMPLETE
from recon.io.surfaces import read_mesh_shape
from recon.run.dense_scene import DenseScene
from recon.run.folder import RunFolder
from recon.surface.texture.simplify import close_holes, simplify_faces
from recon.surface.texture.types import TextureOptions
from recon.tasks.texturing import WHOLE, texture_by_views, write_textured

# Bytes that collapsing edges takes for a face; it may have as much as photos at hand (``work.memory``).
_COLLAPSE_BYTES = 300

# Textures that take more than this part of ``work.memory`` lie in a file.
_TEXTURE_PART = 4

_FILES = ("textured.*", "texture.*", "texture_*")


class TextureSettings(BaseModel):
    """Settings for simplifying and texturing the mesh."""

    model_config = ConfigDict(extra="forbid")
    enabled: bool = Field(True, description="false leaves the textured mesh out")
    faces: int = Field(
        400_000, ge=0, description="faces of the textured mesh at most; 0 keeps those of the mesh"
    )
    close_holes: float = Field(
        0.0, ge=0.0, le=1.0, description="holes up to this share of the extent are closed"
    )
    max_texture: int = Field(
        TextureOptions.max_texture, ge=256, le=16384, description="longest side of a texture, texels"
    )
    max_textures: int = Field(
        TextureOptions.max_textures,
        ge=1,
        le=64,
        description="where one texture is too small for the photos' pixels: up to so many",
    )
    formats: list[Literal["obj", "glb"]] = Field(["obj", "glb"], description="files to write")
    picture: Literal["jpg", "png"] = Field("jpg", description="file format of the texture")
    jpeg_quality: int = Field(95, ge=50, le=100, description="of the texture")
    candidates: int = Field(TextureOptions.candidates, ge=1, le=32, description="views considered per face")
    max_angle: float = Field(
        TextureOptions.max_angle,
        gt=0.0,
        lt=90.0,
        description="between a face and a view that may texture it, degrees",
    )
    seam_cost: float = Field(
        TextureOptions.seam_cost,
        ge=0.0,
        description="what a pixel of seam costs, in pixels of lost resolution",
    )
    reject_levels: float = Field(
        TextureOptions.reject_levels,
        ge=0.0,
        description="a photo that differs by more from the others is not used there; 0 trusts all",
    )
    blend_rings: int = Field(
        TextureOptions.blend_rings, ge=1, le=10, description="faces beside a seam over which photos blend"
    )
    consensus: float = Field(
        TextureOptions.consensus, ge=0.0, description="pull of colours towards what all photos agree on"
    )
    balance: bool = Field(TextureOptions.balance, description="even out exposure and colour between photos")


class TextureStage:
    """Simplifies the mesh and textures it from the undistorted photos."""

    name: ClassVar[str] = "texture"
    version: ClassVar[int] = 2
    reads: ClassVar[tuple[str, ...]] = ("photos", "map", "mesh")
    Settings: ClassVar[type[BaseModel]] = TextureSettings

    def run(self, settings: TextureSettings, work: StageContext) -> dict[str, Any]:
        run = RunFolder.of(work)
        for pattern in _FILES:
            for path in sorted(work.path("mesh").glob(pattern)):
                work.remove("mesh", path.name)
        if not settings.enabled:
            return {"faces": 0}
        most = max(2 * settings.faces, work.memory // _COLLAPSE_BYTES)
        vertices, faces = simplify_faces(
            *read_mesh_shape(work.path("mesh", "mesh.ply")), settings.faces, most
        )
        if settings.close_holes > 0:
            extent = float(np.linalg.norm(np.ptp(vertices, axis=0)))
            vertices, faces = close_holes(vertices, faces, settings.close_holes * extent)
        scene = DenseScene(run, WHOLE, work.memory)
        if len(faces) == 0:
            raise ReconError("mesh/mesh.ply has no faces with an area; --restart-from mesh makes it again")
        give_memory_back()  # what simplifying a large mesh took
        with Scratch(work.root / INCOMPLETE, work.memory // _TEXTURE_PART) as scratch:
            mesh, report = texture_by_views(
                work, scene, vertices, faces, options_of(TextureOptions, settings), scratch
            )
            give_memory_back()
            if report.seen_share == 0.0:
                work.warn("no photo sees the mesh: its texture holds no photo. Were the cameras moved since?")
            files = settings.formats, settings.picture, settings.jpeg_quality
            textures = write_textured(work, mesh, scene.views, scratch, *files)
        figures = {
            "faces": len(mesh.faces),
            "charts": report.charts,
            "texture": "x".join(
                str(side // count) for side, count in zip(mesh.texture.shape[1::-1], mesh.tiles, strict=True)
            ),
            **({"textures": textures} if textures > 1 else {}),
            "seen_share": round(report.seen_share, 4),
            "seam_step": round(report.seam_after, 2),
        }
        work.write_json(
            "mesh/texture.json",
            {
                **figures,
                "seam_step_before": round(report.seam_before, 2),
                "rejected_share": round(report.rejected_share, 4),
                "fill": round(report.fill, 4),
                "texels_per_pixel": round(report.scale, 4),
                "gains": {
                    view.name: [round(value, 4) for value in gain]
                    for view, gain in zip(scene.views, report.gains, strict=True)
                },
                "seconds": report.seconds,
            },
        )
        return figures
