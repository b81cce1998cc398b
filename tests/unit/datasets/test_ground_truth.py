"""The door to ground truth, and recon's own form of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from recon.datasets.ground_truth import (
    has_ground_truth,
    layouts,
    load_ground_truth,
    write_cameras_json,
)
from recon.datasets.types import GroundTruth, true_camera
from recon.errors import ReconError, UsageError
from tests.support import dataset_scene as scene


def write_uniform(folder: Path, **more: object) -> None:
    scene.write_images(folder / "images", ["a.png", "b.png", "c.png"])
    entries = [
        {
            "name": f"{'abc'[i]}.png",
            "width": scene.WIDTH,
            "height": scene.HEIGHT,
            "fx": scene.K[0, 0],
            "fy": scene.K[1, 1],
            "cx": scene.K[0, 2],
            "cy": scene.K[1, 2],
            "R": scene.ROTATIONS[i].tolist(),
            "t": (-scene.ROTATIONS[i] @ scene.CENTERS[i]).tolist(),
        }
        for i in range(3)
    ]
    (folder / "cameras.json").write_text(json.dumps({"images": entries, **more}))


def test_own_form(tmp_path: Path) -> None:
    write_uniform(tmp_path, world_unit="metre", bbox=[[-1, -1, -1], [0, 1, 1]], note="made up")
    (tmp_path / "truth" / "depth").mkdir(parents=True)
    depth = np.arange(scene.WIDTH * scene.HEIGHT, dtype=np.float32).reshape(scene.HEIGHT, scene.WIDTH)
    np.savez(tmp_path / "truth" / "depth" / "b.npz", depth=depth)
    scene.write_ply(tmp_path / "truth" / "points.ply", scene.POINTS)
    truth = load_ground_truth(tmp_path)
    assert truth.layout == "cameras.json"
    assert truth.unit_in_metres == 1.0
    assert truth.note == "made up"
    for i, name in enumerate(("a.png", "b.png", "c.png")):
        np.testing.assert_allclose(scene.seen_by(truth.cameras[name]), scene.pixels(i), atol=1e-9)
        np.testing.assert_allclose(truth.cameras[name].center, scene.CENTERS[i], atol=1e-12)
        np.testing.assert_allclose(truth.views()[name].center, scene.CENTERS[i], atol=1e-12)
    assert truth.depth is not None
    np.testing.assert_array_equal(truth.depth("b.png"), depth)
    assert truth.depth("a.png") is None
    assert truth.region is not None
    np.testing.assert_array_equal(truth.region(scene.POINTS), [False, True, False, True])
    np.testing.assert_allclose(truth.load_points(), scene.POINTS, atol=1e-6)


def test_a_second_size_of_the_same_scene(tmp_path: Path) -> None:
    write_uniform(tmp_path)
    scene.write_images(tmp_path / "images_48", ["a.png"], (48, 32))
    document = json.loads((tmp_path / "cameras.json").read_text())
    (tmp_path / "cameras_48.json").write_text(json.dumps(document))
    assert load_ground_truth(tmp_path / "cameras_48.json").images == tmp_path / "images_48"
    assert load_ground_truth(tmp_path).images == tmp_path / "images"
    assert load_ground_truth(tmp_path).unit_in_metres is None


def test_resizing_keeps_the_edges_of_the_photo() -> None:
    """The photo's corners (half a pixel outside the corner pixels) map to its corners."""
    camera = true_camera(scene.WIDTH, scene.HEIGHT, scene.K, np.eye(3), np.zeros(3))
    half = camera.resized(12, 8)
    for corner in ((-0.5, -0.5), (23.5, 15.5)):
        ray = np.linalg.inv(scene.K) @ [*corner, 1]
        there = (half.K @ ray)[:2]
        np.testing.assert_allclose(there + 0.5, (np.array(corner) + 0.5) / 2, atol=1e-12)


def test_written_cameras_are_read_back(tmp_path: Path) -> None:
    write_uniform(tmp_path, world_unit="millimetre")
    truth = load_ground_truth(tmp_path)
    (tmp_path / "again").mkdir()
    scene.write_images(tmp_path / "again" / "images", ["a.png"])
    write_cameras_json(truth, tmp_path / "again" / "cameras.json")
    again = load_ground_truth(tmp_path / "again")
    assert again.unit_in_metres == 0.001
    for name, camera in truth.cameras.items():
        np.testing.assert_allclose(again.cameras[name].cam_from_world, camera.cam_from_world, atol=1e-12)
    bent = true_camera(4, 4, np.eye(3), np.eye(3), np.zeros(3), np.array([0.1]), "SIMPLE_RADIAL")
    with pytest.raises(ReconError, match="distortion"):
        write_cameras_json(GroundTruth("x", tmp_path, {"a": bent}), tmp_path / "x.json")


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        load_ground_truth(tmp_path / "none")
    assert not has_ground_truth(tmp_path / "none")
    with pytest.raises(ReconError, match=r"cameras\.json"):
        load_ground_truth(tmp_path)
    assert not has_ground_truth(tmp_path)
    with pytest.raises(UsageError, match="strecha"):
        load_ground_truth(tmp_path, "atlantis")
    assert {"strecha", "eth3d", "dtu", "tanks-and-temples", "blendedmvs", "pairs"} <= set(layouts())
    for text, message in (
        ("{", "cameras.json"),
        ('{"images": [{"name": "a"}]}', "cameras.json"),
        ("[]", "cameras.json"),
    ):
        (tmp_path / "cameras.json").write_text(text)
        with pytest.raises(ReconError, match=message):
            load_ground_truth(tmp_path)
    write_uniform(tmp_path)
    document = json.loads((tmp_path / "cameras.json").read_text())
    document["images"][1]["R"][0][0] = 3.0
    (tmp_path / "cameras.json").write_text(json.dumps(document))
    with pytest.raises(ReconError, match="no rotation"):
        load_ground_truth(tmp_path)
    document["images"][1]["R"] = np.eye(3).tolist()
    document["images"][1]["t"] = [0, float("nan"), 0]
    (tmp_path / "cameras.json").write_text(json.dumps(document))
    with pytest.raises(ReconError, match="finite"):
        load_ground_truth(tmp_path)
    with pytest.raises(ReconError, match="no scan"):
        GroundTruth("x", tmp_path, {}).load_points()


@pytest.mark.parametrize(
    ("path", "cameras", "metres"),
    [
        ("strecha/fountain-P11", 11, 1.0),
        ("strecha/Herz-Jesus-P8", 8, 1.0),
        ("strecha/entry-P10", 10, 1.0),
        ("middlebury_mvs/templeSparseRing", 16, 1.0),
        ("pose_small/lund_door", 12, None),
        ("pose_small/tnt_barn3", 3, None),
    ],
)
def test_real_scenes(shared_data: Path, path: str, cameras: int, metres: float | None) -> None:
    from PIL import Image

    truth = load_ground_truth(shared_data / "datasets" / path)
    assert len(truth.cameras) == cameras
    assert truth.unit_in_metres == metres
    for name, camera in truth.cameras.items():
        with Image.open(truth.images / name) as image:
            assert image.size == (camera.width, camera.height)
        assert np.linalg.det(camera.cam_from_world[:, :3]) == pytest.approx(1)


def test_photos_without_truth(shared_data: Path) -> None:
    assert not has_ground_truth(shared_data / "datasets" / "unposed" / "sceaux_castle")
