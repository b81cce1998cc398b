"""Views cut out of panoramas show what a pinhole camera at that place and in that direction shows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recon.cli.app import main
from recon.errors import ReconError, UsageError
from recon.photos.intrinsics import read_intrinsics
from recon.photos.panoramas import VIEWS, split_panoramas, view_matrix, view_of_panorama


def seen(direction: np.ndarray) -> np.ndarray:
    """The colour of a direction (x right, y down, z forward): smooth, and different everywhere."""
    x, y, z = (direction / np.linalg.norm(direction, axis=-1, keepdims=True)).transpose(2, 0, 1)
    return np.stack([127 + 120 * x, 127 + 120 * y, 127 + 120 * z], axis=-1)


def panorama(width: int = 640) -> np.ndarray:
    lon, lat = np.meshgrid(
        ((np.arange(width) + 0.5) / width - 0.5) * 2 * np.pi,
        ((np.arange(width // 2) + 0.5) * 2 / width - 0.5) * np.pi,
    )
    direction = np.stack([np.sin(lon) * np.cos(lat), np.sin(lat), np.cos(lon) * np.cos(lat)], axis=-1)
    return np.rint(seen(direction)).astype(np.uint8)


@pytest.mark.parametrize("degrees", [0.0, 60.0, 180.0, 300.0])
def test_a_view_shows_what_a_pinhole_camera_shows(degrees: float) -> None:
    side = 101
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    ray = np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(view_matrix(side)).T
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    right = ray @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T
    error = view_of_panorama(panorama(), degrees, side).astype(float) - seen(right)
    assert np.abs(error).max() < 1.5


def test_panoramas_become_views_with_intrinsics_and_other_photos_are_passed_over(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, picture in (("a/one.png", panorama()), ("b.png", rng.integers(0, 255, (90, 160, 3)))):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.astype(np.uint8)).save(tmp_path / "in" / name)
    out = tmp_path / "views"
    assert main(["panoramas", str(tmp_path / "in"), "--out", str(out)]) == 0
    assert len(list(out.rglob("*.jpg"))) == VIEWS
    entries = json.loads((out / "cameras.json").read_text())["images"]
    assert {entry["name"] for entry in entries} == {f"a/one_{60 * k:03d}.jpg" for k in range(6)}
    assert Image.open(out / "a/one_120.jpg").size == (204, 204)

    class Sized:
        name, original_width, original_height = "a/one_120.jpg", 204, 204

    camera = read_intrinsics(out / "cameras.json", [Sized()])["a/one_120.jpg"]
    np.testing.assert_allclose(camera.K, view_matrix(204))
    with pytest.raises(UsageError, match="holds files"):
        split_panoramas([tmp_path / "in"], out)
    with pytest.raises(ReconError, match="no 360° panorama"):
        split_panoramas([tmp_path / "in" / "b.png"], tmp_path / "none")
