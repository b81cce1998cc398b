"""The faces of the mesh that a view sees, as a task on the workspace."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from uuid import uuid4

import numpy as np
from jaxtyping import Float64, Int32

from recon.core.cameras import PinholeView
from recon.core.memory import Latest, Scratch
from recon.engine.stage import StageContext
from recon.io.glb import upright_glb
from recon.io.pictures import encode_picture
from recon.run.dense_scene import DenseScene
from recon.run.folder import RunFolder
from recon.surface.texture.files import textured_glb, textures_of_mesh, write_textured_obj
from recon.surface.texture.texturing import near_origin, texture_mesh
from recon.surface.texture.types import TexturedMesh, TextureOptions, TextureReport
from recon.surface.texture.visibility import FacesInViews, SeenFaces

SEEN = "texture_views"
"""What the photos see of the mesh, while it is textured."""

MESH = "mesh.npz"
"""The mesh beside the answers."""

WHOLE = 1 << 16
"""Pixels: photos as they are at working size."""

_open = Latest()

_Looking = tuple[DenseScene, list[PinholeView], FacesInViews]


@dataclass(frozen=True)
class FacesOfView:
    """Writes which faces of the mesh a view sees, how large, and in which colours.

    Attributes:
        root: the workspace.
        folder: where the mesh is, and the answers go.
        max_angle: of ``TextureOptions``.
        memory: bytes that photos may take in the process.
        token: of this run of the stage.
    """

    root: Path
    folder: Path
    max_angle: float
    memory: int
    token: str

    def __call__(self, index: int) -> int:
        scene, near, mesh = _open.get(self, self._opened)
        self._write(index, mesh.seen(near[index], scene.images[index], scene.masks[index]))
        return index

    def open(
        self, scene: DenseScene, vertices: Float64[np.ndarray, "n 3"], faces: Int32[np.ndarray, "m 3"]
    ) -> None:
        """Use a scene and a mesh that are at hand, in this process."""
        _open.get(self, lambda: self._looking(scene, vertices, faces))

    def _opened(self) -> _Looking:
        with np.load(self.folder / MESH) as data:
            vertices, faces = data["vertices"], data["faces"]
        return self._looking(DenseScene(RunFolder(self.root), WHOLE, self.memory), vertices, faces)

    def _looking(
        self, scene: DenseScene, vertices: Float64[np.ndarray, "n 3"], faces: Int32[np.ndarray, "m 3"]
    ) -> _Looking:
        local, near = near_origin(vertices, scene.views)
        return scene, near, FacesInViews(local, faces, self.max_angle)

    def read(self, index: int) -> SeenFaces:
        """Read what a view sees."""
        with np.load(self.folder / f"{index}.npz") as data:
            return SeenFaces(data["face"], data["area"], data["color"])

    def lost(self, index: int) -> int:
        """A view that ended its worker each time sees nothing."""
        none = np.zeros(0, np.float32)
        self._write(index, SeenFaces(none.astype(np.int32), none, np.zeros((0, 3), np.float32)))
        return index

    def _write(self, index: int, seen: SeenFaces) -> None:
        files = RunFolder(self.root).files
        with files.write_into(self.folder, f"{index}.npz") as path, path.open("wb") as out:
            np.savez(out, face=seen.face, area=seen.area, color=seen.color)

    def close(self) -> None:
        """Free what tasks of this process hold."""
        _open.clear()


def texture_by_views(
    work: StageContext,
    scene: DenseScene,
    vertices: Float64[np.ndarray, "n 3"],
    faces: Int32[np.ndarray, "m 3"],
    options: TextureOptions,
    scratch: Scratch,
) -> tuple[TexturedMesh, TextureReport]:
    """Texture a mesh; what each view sees of it is found by the workers. The texture lies in ``scratch``."""
    with work.fresh_directory(SEEN) as folder:
        with closing(FacesOfView(work.root, folder, options.max_angle, work.memory, uuid4().hex)) as task:
            if work.cluster is None:
                task.open(scene, vertices, faces)
            else:
                with work.write_into(folder, MESH) as path, path.open("wb") as out:
                    np.savez(out, vertices=vertices, faces=faces)
            views = work.spread(task, range(len(scene.views)), "what photos see of the mesh", task.lost)
        seen = (task.read(view) for view in views)
        found = texture_mesh(
            vertices, faces, scene.views, scene.images, scene.masks, options, seen=seen, scratch=scratch
        )
    work.remove(SEEN)
    return found


def write_textured(
    work: StageContext,
    mesh: TexturedMesh,
    views: Sequence[PinholeView],
    scratch: Scratch,
    formats: Sequence[str],
    kind: Literal["jpg", "png"],
    jpeg_quality: int,
) -> int:
    """Write the textures, which lie in ``scratch``, and the mesh in some formats; returns the number of textures."""
    pictures = {}
    for number, texture in enumerate(textures_of_mesh(mesh), 1):
        name = f"texture{'' if number == 1 else f'_{number}'}.{kind}"
        pictures[name] = encode_picture(texture, kind, jpeg_quality)
        work.write_bytes(f"mesh/{name}", pictures[name])
        scratch.release()
    if "obj" in formats:
        with (
            work.writing("mesh", "textured.mtl") as material,
            work.writing("mesh", "textured.obj") as path,
        ):
            write_textured_obj(
                path, mesh, list(pictures), material_path=material, material_name="textured.mtl"
            )
    if "glb" in formats:
        data = textured_glb(mesh, list(pictures.values()), kind)
        work.write_bytes("mesh/textured.glb", upright_glb(data, views))
    return len(pictures)
