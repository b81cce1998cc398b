"""A small rendered scene and a finished run on it, which the end-to-end tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.scenes import Rendered, SceneFolder


@pytest.fixture(scope="session")
def scene(rendered: Rendered) -> SceneFolder:
    """Eight small photos of a façade, rendered on the spot."""
    return rendered("demo", size=(320, 240))


@pytest.fixture(scope="session")
def finished(scene: SceneFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the scene: the workspace."""
    from recon.api import reconstruct

    out = tmp_path_factory.mktemp("run") / "out"
    reconstruct(scene.photos, out, quality="preview", intrinsics=scene.cameras, threads=2)
    return out
