"""What the live viewer opens: clouds that are read in two steps, broken points, large coordinates, truths."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support import live_scene

pytest.importorskip("viser", reason="viser is not installed")

from recon.core.similarity import Similarity3
from recon.errors import ReconError
from recon.exports.scene import reconstruction_from_scene
from recon.io.cameras_json import CONVENTION
from recon.io.surfaces import read_ply_vertices, write_points_ply
from recon.live.serving import free_port
from recon.live.truth import load_truth
from recon.live.viewer import LiveViewer
from recon.render.scene import ViewScene
from recon.render.scene_files import open_view_scene
from recon.synthetic.files import write_ply

FAR = np.array([430_000.0, 5_410_000.0, 300.0])


@pytest.fixture
def shown() -> Iterator[list[LiveViewer]]:
    """Viewers that are stopped after the test."""
    viewers: list[LiveViewer] = []
    yield viewers
    for viewer in viewers:
        viewer.stop()


def viewer_of(scene: ViewScene, shown: list[LiveViewer]) -> LiveViewer:
    shown.append(LiveViewer(scene, "127.0.0.1", free_port("127.0.0.1", 18_800)))
    return shown[-1]


def write_doubles(path: Path, xyz: np.ndarray) -> Path:
    """A binary PLY with coordinates in double precision and nothing else."""
    rows = np.empty(len(xyz), [(axis, "<f8") for axis in "xyz"])
    for i, axis in enumerate("xyz"):
        rows[axis] = xyz[:, i]
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(xyz)}\n"
    head += "".join(f"property double {axis}\n" for axis in "xyz") + "end_header\n"
    path.write_bytes(head.encode() + rows.tobytes())
    return path


def read_on(viewer: LiveViewer) -> None:
    end = time.monotonic() + 60
    while viewer.scene.unread is not None and time.monotonic() < end:
        time.sleep(0.02)
    assert viewer.scene.unread is None


def test_every_so_manieth_vertex(tmp_path: Path) -> None:
    path = write_doubles(tmp_path / "wolke ü.ply", np.arange(30.0).reshape(10, 3))
    for every in (1, 3, 10, 50):
        np.testing.assert_array_equal(read_ply_vertices(path, every), read_ply_vertices(path)[::every])
    text = tmp_path / "text.ply"
    head = "ply\nformat ascii 1.0\nelement vertex 4\n" + "".join(f"property float {a}\n" for a in "xyz")
    text.write_text(head + "end_header\n" + "\n".join(f"{i} 0 0" for i in range(4)) + "\n")
    assert read_ply_vertices(text, 3)["x"].tolist() == [0, 3]
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ReconError, match="cut short: 8 of 10"):
        read_ply_vertices(path, 3)


def test_a_large_cloud_is_shown_as_a_sample_until_it_is_read(tmp_path: Path, shown: list[LiveViewer]) -> None:
    path = tmp_path / "punkte ü.ply"
    write_points_ply(path, live_scene.dense(20_000))
    whole = open_view_scene(path)
    assert whole.unread is None
    sample = open_view_scene(path, first=1000)
    assert sample.unread is not None
    assert sample.dense is not None
    assert sample.dense_count == 20_000
    assert len(sample.dense) == 1000
    assert np.ptp(sample.dense.xyz[:, 0]) > 3.9  # all over the cloud
    viewer = viewer_of(sample, shown)
    read_on(viewer)
    assert viewer.scene.dense is not None
    assert viewer.blocks is not None
    np.testing.assert_array_equal(viewer.scene.dense.xyz, whole.dense.xyz if whole.dense is not None else 0)
    assert len(viewer.blocks.order) == 20_000
    assert open_view_scene(path, first=10_000).unread is None  # not far larger: read at once


def test_broken_points_of_a_large_cloud(tmp_path: Path, shown: list[LiveViewer]) -> None:
    """Without coordinates in the sample, in the rest, and in all points; none has a colour."""
    rng = np.random.default_rng(0)
    xyz = rng.uniform(-1, 1, (4000, 3))
    broken = rng.permutation(4000)[:700]
    xyz[broken[:350], 1], xyz[broken[350:], 2] = np.nan, -np.inf
    scene = open_view_scene(write_doubles(tmp_path / "löcher.ply", xyz), first=400)
    assert scene.dense is not None
    assert np.isfinite(scene.dense.xyz).all()
    assert 250 < len(scene.dense) < 400
    viewer = viewer_of(scene, shown)
    read_on(viewer)
    assert viewer.scene.dense is not None
    assert len(viewer.scene.dense) == 3300
    notes = " ".join(viewer.scene.notes)
    assert "700 of 4000 points have no coordinates" in notes
    assert notes.count("no colours") == 1
    end = time.monotonic() + 10
    while "700 of 4000" not in viewer.panel.noted.content and time.monotonic() < end:
        time.sleep(0.02)
    assert "700 of 4000" in viewer.panel.noted.content
    every_tenth = np.full((4000, 3), np.nan)
    every_tenth[5] = 1.0  # the sample misses the only good one
    few = open_view_scene(write_doubles(tmp_path / "eins.ply", every_tenth), first=400)
    assert few.unread is None
    assert few.dense_count == 1
    with pytest.raises(ReconError, match="none of its points"):
        open_view_scene(write_doubles(tmp_path / "keins.ply", every_tenth * np.nan), first=400)


def test_a_file_that_breaks_off_meanwhile_is_said(tmp_path: Path, shown: list[LiveViewer]) -> None:
    path = write_doubles(tmp_path / "a.ply", np.random.default_rng(0).uniform(-1, 1, (4000, 3)))
    scene = open_view_scene(path, first=400)
    path.write_bytes(path.read_bytes()[:-2000])
    viewer = viewer_of(scene, shown)
    end = time.monotonic() + 30
    while "cut short" not in viewer.panel.noted.content and time.monotonic() < end:
        time.sleep(0.02)
    assert "cut short" in viewer.panel.noted.content
    assert viewer.scene.dense is not None  # the sample stays


def test_large_coordinates_are_drawn_near_the_origin(tmp_path: Path, shown: list[LiveViewer]) -> None:
    """UTM coordinates in a file that is sampled, and in a model: single precision never holds the large numbers."""
    true = np.random.default_rng(0).uniform(0, 20, (8000, 3)) + FAR
    scene = open_view_scene(write_doubles(tmp_path / "utm.ply", true), first=500)
    viewer = viewer_of(scene, shown)
    read_on(viewer)
    assert viewer.scene.dense is not None
    np.testing.assert_array_equal(viewer.scene.offset, scene.offset)
    np.testing.assert_allclose(viewer.scene.dense.xyz + scene.offset, true, atol=2e-6)
    assert np.abs(viewer.start.position).max() < 200
    assert np.abs(viewer.whole.low).max() < 200
    assert f"{scene.offset[1]:.10g}" in viewer.panel.noted.content
    model = tmp_path / "model" / "sparse" / "0"
    model.mkdir(parents=True)
    far = live_scene.made_scene().moved(1.0, np.eye(3), FAR)
    reconstruction_from_scene(far).write_binary(model)
    run = open_view_scene(tmp_path / "model")
    viewer = viewer_of(run, shown)
    assert viewer.sparse is not None
    assert np.abs(viewer.sparse.cloud.xyz).max() < 200
    np.testing.assert_allclose(viewer.sparse.cloud.xyz + run.offset, far.xyz, atol=2e-6)
    assert np.abs(viewer.start.position).max() < 200


@pytest.mark.parametrize("offset", [np.zeros(3), FAR])
def test_a_scene_with_true_cameras_is_the_truth(offset: np.ndarray, tmp_path: Path) -> None:
    """The run is turned, scaled and moved; the cameras of both bring it back, and errors are in the truth's units."""
    R = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    R *= np.sign(np.linalg.det(R))
    run_from_truth = Similarity3(0.2, R, np.array([4.0, -1.0, 2.0]) + offset)
    run = tmp_path / "lauf"
    (run / "sparse" / "0").mkdir(parents=True)
    moved = live_scene.made_scene().moved(0.2, R, run_from_truth.translation)
    reconstruction_from_scene(moved).write_binary(run / "sparse" / "0")
    truth = tmp_path / "wahrheit ü"
    (truth / "truth").mkdir(parents=True)
    write_ply(truth / "truth" / "mesh.ply", live_scene.wall(150))
    images = [
        {
            "name": view.name,
            "width": view.width,
            "height": view.height,
            "fx": view.K[0, 0],
            "fy": view.K[1, 1],
            "cx": view.K[0, 2],
            "cy": view.K[1, 2],
            "R": view.cam_from_world[:, :3].tolist(),
            "t": view.cam_from_world[:, 3].tolist(),
        }
        for view in live_scene.views()
    ]
    (truth / "cameras.json").write_text(json.dumps({"convention": CONVENTION, "images": images}))
    scene = open_view_scene(run)
    assert scene.sparse is not None
    found = load_truth(truth, scene)
    assert found.aligned
    rng = np.random.default_rng(0)
    x, z = rng.uniform(-1.5, 1.5, 400), rng.uniform(-1.2, 1.2, 400)
    off = rng.uniform(0.0, 0.02, 400)
    wall = np.stack([x, live_scene.wall_y(x, z), z], -1)
    slope = np.stack(
        [0.36 * np.cos(3 * x) * np.cos(2 * z), np.full(400, -1.0), -0.24 * np.sin(3 * x) * np.sin(2 * z)], -1
    )
    away = wall + off[:, None] * slope / np.linalg.norm(slope, axis=1, keepdims=True)
    inside = (run_from_truth(away) - scene.offset).astype(np.float32)
    np.testing.assert_allclose(found.errors(inside), off, atol=1e-3)
    images[0]["name"], images[1]["name"], images[2]["name"], images[3]["name"] = "a", "b", "c", "d"
    (truth / "cameras.json").write_text(json.dumps({"convention": CONVENTION, "images": images}))
    with pytest.raises(ReconError, match="--truth") as caught:
        load_truth(truth, scene)
    assert "\n" not in str(caught.value)
