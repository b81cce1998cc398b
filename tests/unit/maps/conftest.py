"""A hamlet seen by six small photos, as a run with true cameras and slightly noisy depth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from recon.core.similarity import Similarity3
from recon.exports.georeference import Crs, Georeference
from recon.synthetic.aerial import aerial_albedo, aerial_mesh
from recon.synthetic.paths import look_at, pinhole_views
from recon.synthetic.rendering import Lighting
from recon.synthetic.runs import write_true_run
from recon.synthetic.scene import SyntheticScene, render_scene
from recon.synthetic.sensor import Sensor

OFFSET = (691500.0, 5334700.0, 500.0)

TURN = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
"""The model's frame is turned against the land's, and half as large."""
LAND_FROM_MODEL = Similarity3(2.0, TURN, np.array([3.0, -1.0, 0.5]))


@pytest.fixture(scope="session")
def hamlet() -> SyntheticScene:
    poses = [
        look_at((x, y, 40.0), (x, y, 0.0), up=(0.0, 1.0, 0.0)) for y in (-7.0, 7.0) for x in (-9.0, 0.0, 9.0)
    ]
    views = pinhole_views(poses, 220, 160, 60)
    return render_scene(
        "hamlet",
        aerial_mesh(3.0),
        aerial_albedo(),
        views,
        Lighting(samples=2),
        Sensor(exposure_spread=0.2),
        1,
    )


def write_hamlet(hamlet: SyntheticScene, root: Path, images: list[np.ndarray] | None = None) -> Path:
    from dataclasses import replace

    model = LAND_FROM_MODEL.inverse()
    views = [replace(view, cam_from_world=model.camera(view.cam_from_world)) for view in hamlet.views]
    depths = [depth * np.float32(model.scale) for depth in hamlet.depths]
    write_true_run(root, views, images or hamlet.images, depths, tracks=600, depth_noise=0.001)
    place = Georeference(LAND_FROM_MODEL, OFFSET, Crs("epsg", "EPSG:25832", 25832), "control", "control")
    (root / "georeference.json").write_text(json.dumps(place.to_json()), encoding="utf-8")
    return root


@pytest.fixture(scope="session")
def hamlet_run(hamlet: SyntheticScene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hamlet(hamlet, tmp_path_factory.mktemp("hamlet") / "run")
