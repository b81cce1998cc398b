"""The faces of the mesh that a view sees, as a task on the workspace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recon.core.cameras import PinholeView
from recon.core.memory import Latest
from recon.run.dense_scene import DenseScene
from recon.run.folder import RunFolder
from recon.surface.texture.texturing import near_origin
from recon.surface.texture.visibility import FacesInViews, SeenFaces

MESH = "mesh.npz"
"""The mesh beside the answers."""

WHOLE = 1 << 16
"""Pixels: photos as they are at working size."""

_open = Latest()


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

    def _opened(self) -> tuple[DenseScene, list[PinholeView], FacesInViews]:
        with np.load(self.folder / MESH) as data:
            vertices, faces = data["vertices"], data["faces"]
        scene = DenseScene(RunFolder(self.root), WHOLE, self.memory)
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
