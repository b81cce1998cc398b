"""A small rendered scene that the end-to-end tests share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Scene:
    """Where the photos and the truth of a rendered scene are."""

    folder: Path

    @property
    def photos(self) -> Path:
        return self.folder / "images"

    @property
    def cameras(self) -> Path:
        return self.folder / "cameras.json"

    @property
    def truth_mesh(self) -> Path:
        return self.folder / "truth" / "mesh.ply"


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Eight small photos of a façade, rendered on the spot."""
    from recon.synthetic.files import write_scene
    from recon.synthetic.presets import make_scene

    folder = tmp_path_factory.mktemp("scene")
    write_scene(make_scene("demo", size=(400, 300)), folder)
    return Scene(folder)


@pytest.fixture(scope="session")
def finished(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the scene: the workspace."""
    from recon.api import reconstruct

    out = tmp_path_factory.mktemp("run") / "out"
    reconstruct(scene.photos, out, quality="preview", intrinsics=scene.cameras, threads=2)
    return out
