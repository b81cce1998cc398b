"""Coded targets: drawn, slanted and photographed, against where they were drawn."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from recon.cli import main
from recon.exports.control import read_control_points
from recon.maps.targets import DICTIONARIES, find_targets
from recon.synthetic.scene import SyntheticScene
from tests.unit.maps.conftest import write_hamlet


def drawn(
    family: str, number: int, corners: np.ndarray, size: tuple[int, int] = (320, 240), seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """A slanted target with blur and noise; and where its centre is, through the same homography."""
    side = 400
    dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, DICTIONARIES[family]))
    flat = np.full((600, 600), 255, np.uint8)
    flat[100:500, 100:500] = cv2.aruco.generateImageMarker(dictionary, number, side)
    source = np.array([[0, 0], [599, 0], [599, 599], [0, 599]], np.float32)
    H = cv2.getPerspectiveTransform(source, corners.astype(np.float32))
    big = cv2.warpPerspective(flat, np.diag([4.0, 4.0, 1.0]) @ H, (4 * size[0], 4 * size[1]), borderValue=200)
    small = cv2.resize(big, size, interpolation=cv2.INTER_AREA).astype(float)
    noisy = cv2.GaussianBlur(small, (0, 0), 0.7) + np.random.default_rng(seed).normal(0, 4, small.shape)
    x, y, w = H @ np.array([299.5, 299.5, 1.0])
    # The big picture's pixel 4 x is the small one's (4 x + 0.5) / 4 - 0.5.
    centre = (4 * np.array([x, y]) / w + 0.5) / 4 - 0.5
    return np.clip(noisy, 0, 255).astype(np.uint8), centre


@pytest.mark.parametrize("family", list(DICTIONARIES))
def test_centres_of_slanted_targets(family: str) -> None:
    corners = np.array([[90, 60], [210, 75], [195, 165], [100, 180]], float)
    grey, centre = drawn(family, 3, corners)
    found = find_targets(grey, family)
    assert set(found) == {3}
    assert np.abs(found[3] - centre).max() < 0.25


def test_a_number_that_is_there_twice_is_left_out() -> None:
    corners = np.array([[20, 20], [120, 20], [120, 120], [20, 120]], float)
    a, _ = drawn("4x4_50", 7, corners)
    b, _ = drawn("4x4_50", 7, corners + np.array([150, 80]))
    assert find_targets(np.minimum(a, b), "4x4_50") == {}
    assert find_targets(np.full((100, 100), 128, np.uint8), "4x4_50") == {}


def test_marks_of_a_run_and_bad_input(
    hamlet: SyntheticScene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [image.copy() for image in hamlet.images]
    expected = {}
    for row in (0, 1, 2):
        corners = np.array([[20, 20], [80, 22], [78, 80], [22, 78]], float) + np.array([10, 4]) * row
        grey, centre = drawn("apriltag_36h11", 11, corners, (220, 160), row)
        images[row][:110] = grey[:110, :, None]
        expected[hamlet.views[row].name] = centre
    root = write_hamlet(hamlet, tmp_path / "run", images)
    photos = json.loads((root / "photos.json").read_text())
    for photo in photos["photos"]:
        photo["original_width"], photo["original_height"] = 440, 320
    (root / "photos.json").write_text(json.dumps(photos))
    (root / "marks.csv").write_text("name,photo,x,y\nby hand,0000.png,1,2\n")
    assert main(["targets", str(root)]) == 0
    assert "apriltag_36h11" in capsys.readouterr().out
    found = read_control_points(root / "marks.csv").sightings
    assert found["by hand"] == [("0000.png", 1.0, 2.0)]
    assert {name for name, _, _ in found["T11"]} == set(expected)
    for name, x, y in found["T11"]:
        assert np.abs((np.array([x, y]) + 0.5) / 2 - 0.5 - expected[name]).max() < 0.6
    assert main(["targets", str(root), "--family", "5x5_100"]) == 1
    assert main(["targets", str(root), "--family", "qr"]) == 2
