"""The parts of the live viewer: what is drawn of a cloud, what is picked, where cameras stand."""

from __future__ import annotations

import io
import socket
import urllib.error
import urllib.request
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import trimesh
import viser
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from viser._gui_handles import _parse_markdown

from recon.core.cameras import PinholeView
from recon.core.mesh import PointCloud
from recon.core.similarity import Similarity3
from recon.core.undistort import distort_points
from recon.errors import ReconError, UsageError
from recon.exports.georeference import Crs, Georeference
from recon.exports.scene import reconstruction_from_scene
from recon.io.surfaces import write_points_ply
from recon.live.camera import (
    frustum_depth,
    level_axes,
    moved,
    photo_viewpoint,
    quaternion,
    start_viewpoint,
)
from recon.live.clipping import ClipBox, box_around
from recon.live.colors import (
    CONFIDENCE,
    ERROR,
    HEIGHT,
    NORMAL,
    PHOTO,
    VIEWS,
    cloud_colors,
    color_map,
    legend,
    modes_of,
    ranges_of,
)
from recon.live.glb import drawn_glb
from recon.live.levels import Eye, build_blocks, choose, precision_of
from recon.live.linked import similarity_between
from recon.live.measuring import Measuring
from recon.live.picking import PhotoShelf, Surfaces, crop_with_cross, nearest_on_ray, pick_in_blocks
from recon.live.pointing import Picked, coordinates, inspect, unit_of
from recon.live.serving import PairPage, free_port, is_own_request
from recon.live.text import plain
from recon.live.truth import load_truth
from recon.live.viewer import LiveViewer
from recon.render.frusta import photo_corners
from recon.render.scene import ViewScene
from recon.render.scene_files import open_view_scene
from tests.support import live_scene

HEADER = (
    "ply\nformat ascii 1.0\nelement vertex {}\n"
    + "".join(f"property float {a}\n" for a in "xyz")
    + "end_header\n"
)


def cloud_of(n: int, seed: int = 0) -> PointCloud:
    rng = np.random.default_rng(seed)
    xyz = np.stack([rng.uniform(-3, 3, n), rng.uniform(-2, 2, n), 0.1 * rng.normal(size=n)], -1)
    return PointCloud(xyz.astype(np.float32), rgb=rng.integers(0, 256, (n, 3)).astype(np.uint8))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return live_scene.write_run(tmp_path_factory.mktemp("läufe") / "lauf 1 塔")


@pytest.fixture(scope="module")
def scene(run: Path) -> ViewScene:
    return open_view_scene(run)


# Level of detail


@given(n=st.integers(0, 3000), block=st.integers(50, 900), seed=st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_blocks_hold_every_point_once_and_inside_their_box(n: int, block: int, seed: int) -> None:
    cloud = cloud_of(n, seed)
    blocks = build_blocks(cloud, block)
    assert sorted(blocks.order.tolist()) == list(range(n))
    assert blocks.counts.sum() == n
    assert (blocks.counts > 0).all()
    for b in range(len(blocks)):
        part = blocks.part(b, 0, int(blocks.counts[b]))
        np.testing.assert_array_equal(part.xyz.min(axis=0), blocks.low[b])
        np.testing.assert_array_equal(part.xyz.max(axis=0), blocks.high[b])


def test_blocks_are_alike_in_size_and_beginnings_are_fair_samples() -> None:
    blocks = build_blocks(cloud_of(100_000), 4000)
    assert len(blocks) == 32
    assert blocks.counts.max() < 1.2 * blocks.counts.min()
    for b in range(len(blocks)):
        some, every = blocks.part(b, 0, 500).xyz, blocks.part(b, 0, int(blocks.counts[b])).xyz
        np.testing.assert_allclose(
            some.mean(axis=0), every.mean(axis=0), atol=0.12 * np.ptp(every, axis=0).max()
        )


@given(
    x=st.floats(-4, 4), height=st.floats(0.3, 30), budget=st.integers(2000, 60_000), tilt=st.floats(-0.6, 0.6)
)
@settings(max_examples=40, deadline=None)
def test_choice_keeps_to_the_budget(x: float, height: float, budget: int, tilt: float) -> None:
    blocks = _blocks()
    axis = np.array([np.sin(tilt), 0.0, -np.cos(tilt)])
    chosen = choose(blocks, Eye(np.array([x, 0.0, height]), axis, 0.8, 1200, 800), budget, 0.01)
    assert (chosen <= blocks.counts).all()
    assert (chosen >= blocks.shares(0.01)).all()
    assert chosen.sum() <= max(budget, blocks.shares(0.01).sum())


def test_choice_is_finer_near_the_camera_and_leaves_out_what_is_not_seen() -> None:
    blocks = _blocks()
    eye = Eye(np.array([-2.9, 0.0, 0.4]), np.array([0.8, 0.0, -0.6]), 0.8, 1200, 800)
    chosen = choose(blocks, eye, 20_000) / blocks.counts
    distance = np.linalg.norm(blocks.centers - eye.center, axis=1)
    ahead = (blocks.centers - eye.center) @ eye.axis > 0
    near, far = chosen[ahead & (distance < 1.2)], chosen[ahead & (distance > 4)]
    assert near.max() > 4 * far.max()
    back = Eye(np.array([-9.0, 0.0, 0.0]), np.array([-1.0, 0.0, 0.0]), 0.8, 1200, 800)
    assert choose(blocks, back, 20_000).sum() == 0
    everything = choose(blocks, back, 100_000)
    assert everything.sum() == 100_000  # all of it fits: nothing is ever left out


def _blocks(cache: list = []):  # noqa: B006
    if not cache:
        cache.append(build_blocks(cloud_of(100_000), 2000))
    return cache[0]


def test_half_precision_only_where_it_does_not_show() -> None:
    for extent, spacing in ((0.5, 0.01), (0.5, 0.0005), (50.0, 0.1), (3.0, 0.01)):
        values = np.random.default_rng(0).uniform(-extent, extent, 20_000)
        error = np.abs(values.astype(np.float16).astype(np.float64) - values).max()
        if precision_of(extent, spacing) == "float16":
            assert error <= 0.1 * spacing
        else:
            assert error > 0.1 * spacing or spacing < 1e-3


# Colours


def test_colors_tell_what_they_say() -> None:
    n = 50
    cloud = PointCloud(
        np.stack([np.zeros(n), np.zeros(n), np.linspace(0, 1, n)], -1).astype(np.float32),
        np.tile(np.array([[0.0, 0.0, 1.0]], np.float32), (n, 1)),
        np.full((n, 3), 7, np.uint8),
        np.arange(2, n + 2).astype(np.uint16),
        confidence=np.linspace(0, 1, n).astype(np.float32),
    )
    ranges = ranges_of(cloud.xyz.astype(np.float64), np.array([0.0, 0.0, 1.0]), cloud)
    assert modes_of(cloud, True, False) == [PHOTO, HEIGHT, NORMAL, CONFIDENCE, VIEWS, ERROR]
    assert (cloud_colors(cloud, PHOTO, ranges) == 7).all()
    assert (cloud_colors(cloud, NORMAL, ranges) == [128, 128, 255]).all()
    heights = cloud_colors(cloud, HEIGHT, ranges)
    upside_down = ranges_of(cloud.xyz.astype(np.float64), np.array([0.0, 0.0, -1.0]), cloud)
    np.testing.assert_array_equal(heights, cloud_colors(cloud, HEIGHT, upside_down)[::-1])
    errors = cloud_colors(cloud, ERROR, ranges, lambda xyz: np.where(xyz[:, 2] > 0.5, 1.0, np.nan))
    assert (errors[:20] == (176, 182, 190)).all()
    assert errors[-1].tolist() == color_map(np.ones(1), (0, 1), ERROR)[0].tolist()
    assert len(np.unique(cloud_colors(cloud, VIEWS, ranges), axis=0)) > 30
    plain = PointCloud(cloud.xyz)
    np.testing.assert_array_equal(cloud_colors(plain, PHOTO, ranges), heights)
    assert modes_of(plain, False, False) == [PHOTO, HEIGHT]
    assert "0.25" in legend(ERROR, (0.0, 0.25), "m")
    assert legend(PHOTO, (0, 1), "") == ""


# Clipping


@given(st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_boxes_in_a_turned_box(seed: int) -> None:
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    box = ClipBox(axes, -rng.uniform(0.2, 1, 3), rng.uniform(0.2, 1, 3))
    low = rng.uniform(-1.5, 1, (20, 3))
    high = low + rng.uniform(0.05, 0.5, (20, 3))
    whole, touched = box.boxes(low, high)
    for i in range(20):
        inside = box.inside(rng.uniform(low[i], high[i], (200, 3)))
        assert not whole[i] or inside.all()
        assert touched[i] or not inside.any()


def test_box_around_points_and_its_edges() -> None:
    points = np.random.default_rng(0).normal(size=(100, 3))
    box = box_around(points, np.eye(3))
    assert box.inside(points).all()
    edges = box.edges()
    lengths = np.sort(np.linalg.norm(edges[:, 1] - edges[:, 0], axis=1))
    np.testing.assert_allclose(lengths, np.sort(np.repeat(box.high - box.low, 4)))
    assert box.inside(edges.reshape(-1, 3) * 0.999).all()


# Picking


def test_the_front_point_of_a_ray_is_picked() -> None:
    xyz = np.array([[0, 0, 5], [0.01, 0, 3], [0.001, 0, 3.02], [1, 0, 1], [0, 0, -2]], np.float32)
    found = nearest_on_ray(xyz, np.zeros(3), np.array([0.0, 0, 1]), 0.01)
    assert found is not None
    assert found[0] == 2
    assert found[1] == pytest.approx(3.02)
    assert nearest_on_ray(xyz, np.zeros(3), np.array([0.0, 1, 0]), 0.01) is None


def test_picking_in_blocks_is_picking_among_the_shown() -> None:
    blocks = _blocks()
    shown = blocks.shares(0.3)
    rows = np.concatenate(
        [blocks.order[blocks.starts[b] : blocks.starts[b] + shown[b]] for b in range(len(blocks))]
    )
    rng = np.random.default_rng(4)
    box = ClipBox(np.eye(3), np.array([-3.0, -3, -3]), np.array([0.0, 3, 3]))
    hits = 0
    for _ in range(30):
        origin, target = rng.uniform(-4, 4, 3) + np.array([0, 0, 6]), rng.uniform(-2.5, 2.5, 3) * [1, 0.7, 0]
        direction = (target - origin) / np.linalg.norm(target - origin)
        for clip in (None, box):
            kept = rows if clip is None else rows[clip.inside(blocks.cloud.xyz[rows])]
            expected = nearest_on_ray(blocks.cloud.xyz[kept], origin, direction, 0.004)
            found = pick_in_blocks(blocks, shown, origin, direction, 0.004, clip)
            assert (found is None) == (expected is None)
            if found is not None and expected is not None:
                hits += 1
                assert found[0] == kept[expected[0]]
                assert found[1] == expected[1]
    assert hits > 10


def test_photos_that_see_a_point(scene: ViewScene) -> None:
    """By projection, and by the board: of the wall behind it those cameras see nothing whose rays it meets."""
    x, z = 0.9, 0.0
    point = np.array([x, float(live_scene.wall_y(np.array(x), np.array(z))), z])
    expected = set()
    (x0, x1), y, (z0, z1) = live_scene.BOARD
    for row, view in enumerate(live_scene.views()):
        t = (y - view.center[1]) / (point[1] - view.center[1])
        crossing = view.center + t * (point - view.center)
        if not (x0 <= crossing[0] <= x1 and z0 <= crossing[2] <= z1):
            expected.add(row)
    assert 0 < len(expected) < 5
    by_mesh = Surfaces(scene).sightings(point, np.array([0.0, -1.0, 0.0]))
    assert {one.photo for one in by_mesh} == expected
    for one in by_mesh:
        view = scene.photos[one.photo].view
        local = view.cam_from_world[:, :3] @ point + view.cam_from_world[:, 3]
        np.testing.assert_allclose(one.xy, view.K[:2, :2] @ local[:2] / local[2] + view.K[:2, 2], atol=1e-9)
    assert Surfaces(scene).sightings(point, np.array([0.0, 1.0, 0.0])) == []  # from behind


def test_without_a_mesh_the_points_hide_what_is_behind_them(scene: ViewScene) -> None:
    (x0, x1), y, (z0, z1) = live_scene.BOARD
    rng = np.random.default_rng(0)
    board = np.stack([rng.uniform(x0, x1, 20_000), np.full(20_000, y), rng.uniform(z0, z1, 20_000)], -1)
    assert scene.dense is not None
    cloud = PointCloud(np.concatenate([scene.dense.xyz, board.astype(np.float32)]))
    bare = ViewScene("bare", scene.photos, None, cloud)
    point = np.array([0.9, float(live_scene.wall_y(np.array(0.9), np.array(0.0))), 0.0])
    seen = {one.photo for one in Surfaces(bare).sightings(point, None)}
    assert seen == {one.photo for one in Surfaces(scene).sightings(point, None)}


def test_tracks_of_sparse_points_say_their_keypoints(scene: ViewScene) -> None:
    assert scene.sparse is not None
    surfaces = Surfaces(scene)
    for point in (0, 17, 59):
        rows = scene.sparse.observations[scene.sparse.observations[:, 0] == point]
        found = surfaces.sightings_of_track(point)
        assert [one.photo for one in found] == rows[:, 1].tolist()
        for one, row in zip(found, rows, strict=True):
            np.testing.assert_allclose(one.xy, scene.sparse.views[row[1]].keypoints[row[2]])
            assert one.error is not None
            assert one.error < 1e-5


def test_the_cross_is_at_the_point() -> None:
    rgb = np.zeros((60, 80, 3), np.uint8)
    rgb[20, 30] = 255
    crop = crop_with_cross(rgb, 30.0, 20.0, 21, 5)
    assert crop.shape == (105, 105, 3)
    assert crop[52, 52].min() > 200
    yellow = (crop[..., 0] > 140) & (crop[..., 1] > 120) & (crop[..., 2] < 100)
    ys, xs = np.nonzero(yellow)
    assert len(xs) > 20
    assert xs.mean() == pytest.approx(52, abs=0.5)
    assert ys.mean() == pytest.approx(52, abs=0.5)
    shifted = crop_with_cross(rgb, 30.4, 20.0, 21, 5)
    bright = np.nonzero(shifted[52, 40:62, 0] > 60)[0] + 40
    assert bright.mean() == pytest.approx(50, abs=0.6)
    assert crop_with_cross(rgb, 0.0, 0.0, 21, 5).shape == crop.shape


# Cameras


def test_first_look_shows_all_from_the_cameras_side(scene: ViewScene) -> None:
    view = start_viewpoint(scene)
    axis = (view.look_at - view.position) / np.linalg.norm(view.look_at - view.position)
    mean = np.mean([one.cam_from_world[2, :3] for one in scene.views], axis=0)
    assert axis @ mean / np.linalg.norm(mean) > 0.7
    np.testing.assert_allclose(view.up, [0, 0, 1], atol=0.1)
    axes = level_axes(view)
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-9)
    right = np.cross(axis, view.up)
    right /= np.linalg.norm(right)
    local = scene.points() - view.position
    depth = local @ axis
    assert (depth > 0).all()
    assert (np.abs(local @ np.cross(right, axis)) / depth < np.tan(view.fov / 2) * 1.01).all()
    assert (np.abs(local @ right) / depth < 1.15 * np.tan(view.fov / 2) * 1.01).all()


def test_a_cloud_alone_is_seen_from_where_its_normals_look(scene: ViewScene) -> None:
    view = start_viewpoint(ViewScene("cloud", dense=scene.dense))
    toward = view.position - view.look_at
    assert toward @ [0, -1, 0] / np.linalg.norm(toward) > 0.8


def test_through_a_photo_the_whole_photo_is_in_the_picture(scene: ViewScene) -> None:
    view = scene.photos[1].view
    corners = photo_corners(view, 2.0)
    pixels = corners / corners[:, 2:] @ view.K.T
    np.testing.assert_allclose(pixels[:, :2], [[-0.5, -0.5], [319.5, -0.5], [319.5, 239.5], [-0.5, 239.5]])
    for aspect in (0.6, 1.0, 2.5):
        place = photo_viewpoint(view, 4.0, aspect)
        up_down = np.abs(corners[:, 1] / 2.0).max() / np.tan(place.fov / 2)
        left_right = np.abs(corners[:, 0] / 2.0).max() / (aspect * np.tan(place.fov / 2))
        assert 0.9 < max(up_down, left_right) <= 1.0
        np.testing.assert_allclose(place.position, view.center)


def test_quaternions_and_moves() -> None:
    rng = np.random.default_rng(1)
    for _ in range(5):
        R = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        R *= np.sign(np.linalg.det(R))
        w, x, y, z = quaternion(R)
        point = rng.normal(size=3)
        v = np.array([x, y, z])
        turned = point + 2 * np.cross(v, np.cross(v, point) + w * point)
        np.testing.assert_allclose(turned, R @ point, atol=1e-9)


def test_frusta_are_small_beside_the_scene(scene: ViewScene) -> None:
    assert 0.01 < frustum_depth(scene) / 5.0 < 0.15


# Two runs


def test_scenes_in_different_worlds_are_brought_together(scene: ViewScene) -> None:
    R = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    R *= np.sign(np.linalg.det(R))
    assert scene.sparse is not None
    other_sparse = scene.sparse.moved(2.5, R, np.array([1.0, 2, 3]))
    views = [
        PinholeView(i, one.name, one_photo.view.K, one.cam_from_world, 320, 240)
        for i, (one, one_photo) in enumerate(zip(other_sparse.views, scene.photos, strict=True))
    ]
    photos = tuple(
        type(photo)(view, photo.intrinsics) for photo, view in zip(scene.photos, views, strict=True)
    )
    found = similarity_between(scene, ViewScene("other", photos, other_sparse))
    assert found is not None
    assert found.scale == pytest.approx(2.5)
    start = start_viewpoint(scene)
    there = moved(start, found.scale, found.rotation, found.translation)
    np.testing.assert_allclose(there.position, 2.5 * R @ start.position + [1, 2, 3], atol=1e-6)
    assert similarity_between(scene, ViewScene("bare", photos[:1])) is None


# What is opened


def test_a_run_with_all_its_parts(scene: ViewScene) -> None:
    assert scene.name == "lauf 1 塔"
    assert [photo.name for photo in scene.photos] == list(live_scene.NAMES)
    assert scene.dense is not None
    assert len(scene.dense) == 20_000
    assert scene.dense.confidence is not None
    assert scene.mesh is not None
    assert scene.mesh.textured
    np.testing.assert_allclose(scene.up, [0, 0, 1], atol=0.1)
    assert not scene.offset.any()
    assert scene.notes == ()
    rgb, small = scene.photos[0].undistorted(160)
    assert rgb.shape == (120, 160, 3)
    assert small.K[0, 0] == pytest.approx(150)


def test_mesh_without_photos(tmp_path: Path) -> None:
    path = tmp_path / "mäsh 1.glb"
    path.write_bytes(live_scene.textured_wall())
    alone = open_view_scene(path)
    assert alone.photos == ()
    assert alone.mesh is not None
    assert alone.mesh.textured
    (tmp_path / "run" / "mesh").mkdir(parents=True)
    path.rename(tmp_path / "run" / "mesh" / "textured.glb")
    bare = open_view_scene(tmp_path / "run")
    assert bare.mesh is not None
    assert "no cameras" in bare.notes[0]


def test_photos_that_moved(run: Path, tmp_path: Path) -> None:
    model = tmp_path / "modell ü"
    (model / "sparse" / "0").mkdir(parents=True)
    reconstruction_from_scene(live_scene.made_scene()).write_binary(model / "sparse" / "0")
    lost = open_view_scene(model)
    assert all(photo.path is None for photo in lost.photos)
    assert "5 photos are not there" in lost.notes[0]
    assert "--photos DIR" in lost.notes[0]
    with pytest.raises(ReconError, match="--photos DIR"):
        lost.photos[0].undistorted()
    away = tmp_path / "weg"
    for name in live_scene.NAMES:
        (away / name).parent.mkdir(parents=True, exist_ok=True)
        source = run / "photos" / (name.replace("/", "%2F") + ".png")
        (away / name).write_bytes(source.read_bytes())
    found = open_view_scene(model, away)
    assert all(photo.path is not None for photo in found.photos)
    assert found.notes == ()
    with pytest.raises(UsageError, match="no such folder"):
        open_view_scene(model, tmp_path / "nowhere")


def test_photos_are_named_with_the_place_where_they_are_expected(tmp_path: Path) -> None:
    run = live_scene.write_run(tmp_path / "run")
    for file in (run / "photos").iterdir():
        file.unlink()
    note = open_view_scene(run).notes[0]
    assert f"expected in {tmp_path / 'photos that moved'}" in note
    assert live_scene.NAMES[0] in note


def test_points_without_numbers_or_colours(tmp_path: Path) -> None:
    path = tmp_path / "wolke ü.ply"
    rows = ["nan 0 0", "1 2 3", "1 inf 3", "4 5 6"]
    header = HEADER.format(4)
    path.write_text(header + "\n".join(rows) + "\n")
    scene = open_view_scene(path)
    assert scene.dense is not None
    assert scene.dense.rgb is None
    np.testing.assert_array_equal(scene.dense.xyz, [[1, 2, 3], [4, 5, 6]])
    assert any("2 of 4 points have no coordinates" in note for note in scene.notes)
    assert any("no colours" in note for note in scene.notes)
    path.write_text(HEADER.format(1) + "nan nan nan\n")
    with pytest.raises(ReconError, match="none of its points"):
        open_view_scene(path)


def test_coordinates_as_large_as_utm_keep_their_millimetres(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    true = rng.uniform(0, 20, (500, 3)) + np.array([430_000.0, 5_410_000.0, 300.0])
    rows = np.empty(500, [("x", "<f8"), ("y", "<f8"), ("z", "<f8")])
    for i, axis in enumerate("xyz"):
        rows[axis] = true[:, i]
    path = tmp_path / "utm.ply"
    head = "ply\nformat binary_little_endian 1.0\nelement vertex 500\n"
    head += "".join(f"property double {axis}\n" for axis in "xyz") + "end_header\n"
    path.write_bytes(head.encode() + rows.tobytes())
    scene = open_view_scene(path)
    assert scene.dense is not None
    assert np.abs(scene.dense.xyz).max() < 100
    np.testing.assert_allclose(scene.dense.xyz + scene.offset, true, atol=1e-5)
    assert f"{true[7, 1]:.3f}"[:9] in coordinates(scene, scene.dense.xyz[7].astype(np.float64))
    model = tmp_path / "model"
    (model / "sparse" / "0").mkdir(parents=True)
    far = live_scene.made_scene().moved(1.0, np.eye(3), np.array([430_000.0, 5_410_000.0, 300.0]))
    reconstruction_from_scene(far).write_binary(model / "sparse" / "0")
    run = open_view_scene(model)
    assert run.sparse is not None
    np.testing.assert_allclose(run.sparse.xyz + run.offset, far.xyz, atol=1e-6)
    np.testing.assert_allclose(
        run.photos[2].view.center + run.offset, [430_000.0, 5_410_000.0 - 4.0, 300.3], atol=1e-6
    )


@pytest.mark.parametrize("what", ["empty folder", "text", "missing", "no points", "photo"])
def test_what_cannot_be_shown(what: str, tmp_path: Path) -> None:
    path = tmp_path / "leer ü"
    if what == "empty folder":
        path.mkdir()
    elif what == "text":
        path.mkdir()
        (path / "notes.txt").write_text("not a run")
    elif what == "no points":
        path = tmp_path / "none.ply"
        path.write_text(HEADER.format(0))
    elif what == "photo":
        path = tmp_path / "photo.jpg"
        path.write_bytes(b"\xff\xd8")
    with pytest.raises(ReconError) as caught:
        open_view_scene(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert isinstance(caught.value, UsageError) == (what == "missing")


def test_lengths_are_in_metres_only_with_a_georeference(scene: ViewScene) -> None:
    assert unit_of(scene) == "units"
    turned = Similarity3(2.0, np.eye(3), np.zeros(3))
    place = Georeference(turned, (0.0, 0.0, 0.0), Crs("local", "local"), "length", "none")
    known = replace(scene, georeference=place)
    assert unit_of(known) == "m"
    measuring, surfaces = Measuring(known), Surfaces(known)
    a, b = (
        measuring.take(surfaces, np.array([x, live_scene.wall_y(np.array(x), np.array(0.1)), 0.1]))
        for x in (-0.4, 0.1)
    )
    apart = float(np.linalg.norm(b.point - a.point))
    assert measuring.length(a, b, "m").startswith(f"{2 * apart:.2f}")


# Truth


def test_error_against_a_truth(scene: ViewScene, tmp_path: Path) -> None:
    from recon.synthetic.files import write_ply

    mesh = tmp_path / "truth.ply"
    write_ply(mesh, live_scene.wall(200, shift=-0.05))
    assert scene.dense is not None
    inner = scene.dense.xyz[np.abs(scene.dense.xyz[:, 0]) < 1.5]
    errors = load_truth(mesh, scene).errors(inner)
    # Nearest distance to a shifted wavy wall: the shift times the cosine of the slope, about.
    assert 0.04 < np.median(errors) < 0.051
    cloud = tmp_path / "points.ply"
    write_points_ply(cloud, live_scene.dense(50_000))
    assert np.median(load_truth(cloud, scene).errors(inner)) < 0.01
    with pytest.raises(ReconError, match="no such file"):
        load_truth(tmp_path / "none.ply", scene)
    with pytest.raises(ReconError, match=r"cameras\.json"):
        load_truth(tmp_path, scene)


# Files and pages


def test_a_drawn_mesh_is_read_back_as_it_was() -> None:
    mesh = live_scene.wall(12)
    back = trimesh.load(io.BytesIO(drawn_glb(mesh.vertices, mesh.faces, rgb=mesh.rgb)), "glb", process=False)
    loaded = back.to_mesh()
    np.testing.assert_allclose(loaded.vertices, mesh.vertices, atol=1e-6)
    np.testing.assert_array_equal(loaded.faces, mesh.faces)


def test_port_in_use_gives_the_next() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        other = free_port("127.0.0.1", port)
        assert other > port
    assert free_port("127.0.0.1", port) == port
    with pytest.raises(UsageError, match="65535"):
        free_port("127.0.0.1", 70_000)
    with pytest.raises(UsageError, match="--host"):
        free_port("203.0.113.7", 8080)


def test_the_page_of_two_serves_nothing_else() -> None:
    port = free_port("127.0.0.1", 18_500)
    page = PairPage("127.0.0.1", port, ("a <b>", "ü"), (1, 2))
    try:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read().decode()
        assert "a &lt;b&gt;" in text
        assert 'data-port="1"' in text
        for path in ("etc/passwd", "../recon/cli.py", "%2e%2e/x"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5)
        for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
            request = urllib.request.Request(f"http://127.0.0.1:{port}/", headers=headers)
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(request, timeout=5)
    finally:
        page.stop()


HARM = "![x](/etc/passwd)<img src=x onerror=harm()>{alert(1)}|*a*`b`&lt;.jpg"


class Rendered(HTMLParser):
    """The elements and the text of rendered Markdown."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(MarkdownIt("commonmark").enable("table").render(markdown))

    def handle_starttag(self, tag: str, _: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_names_stay_text_in_the_panel(scene: ViewScene) -> None:
    """What a CommonMark reader that lets HTML through, as the browser's does, makes of hostile names."""
    photos = tuple(
        replace(one, view=replace(one.view, name=f"{i}{HARM}")) for i, one in enumerate(scene.photos)
    )
    bad = replace(scene, photos=photos)
    assert bad.dense is not None
    cloud = replace(bad.dense, reference_view=np.full(len(bad.dense), photos[1].view.photo_id, np.int32))
    point = np.array([-1.0, float(live_scene.wall_y(np.array(-1.0), np.array(0.5))), 0.5])
    hit = Picked("dense point", point, 1.0, 0, cloud=cloud)
    _, text, table = inspect(bad, Surfaces(bad), PhotoShelf(photos), hit)
    said, listed = Rendered(text), Rendered(table)
    assert said.tags == {"p", "strong"}
    assert f"made from 1{HARM}" in said.text
    assert listed.tags == {"table", "thead", "tbody", "tr", "th", "td"}
    assert listed.text.count(HARM) >= 2
    note = Rendered(plain(f"two\n\n<b>lines</b>\n# {HARM}"))
    assert note.tags == {"p"}
    assert HARM in note.text
    assert _parse_markdown(text + table, None) == text + table  # viser puts no file of this machine in


@pytest.mark.parametrize(
    ("host", "asked", "origin", "own"),
    [
        ("127.0.0.1", "127.0.0.1:8080", None, True),
        ("127.0.0.1", "localhost:8080", "http://localhost:8080", True),
        ("127.0.0.1", "localhost:9000", "http://localhost:9000", True),  # forwarded by ssh
        ("::1", "[::1]:8080", "http://[::1]:8080", True),
        ("127.0.0.1", "127.0.0.1:8080", "http://evil.example", False),
        ("127.0.0.1", "127.0.0.1:8080", "http://127.0.0.1:3000", False),  # another program's page
        ("127.0.0.1", "127.0.0.1:8080", "null", False),
        ("127.0.0.1", "evil.example:8080", "http://evil.example:8080", False),  # a name that points here
        ("127.0.0.1", "", None, False),
        ("0.0.0.0", "workstation:8080", "http://workstation:8080", True),
        ("0.0.0.0", "workstation:8080", "http://evil.example", False),
    ],
)
def test_whose_requests_are_answered(host: str, asked: str, origin: str | None, own: bool) -> None:
    headers = {"Host": asked} if asked else {}
    if origin is not None:
        headers["Origin"] = origin
    assert is_own_request(headers, host) == own


def test_other_pages_cannot_connect_to_the_viewer(scene: ViewScene) -> None:
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    viewer = LiveViewer(scene, "127.0.0.1", free_port("127.0.0.1", 18_700))
    try:
        at = f"127.0.0.1:{viewer.port}"
        options = {"subprotocols": [f"viser-v{viser.__version__}"], "open_timeout": 30, "max_size": None}
        for origin in (None, f"http://{at}"):
            with connect(f"ws://{at}", origin=origin, **options) as socket:
                assert len(socket.recv(timeout=30)) > 100  # the scene
        for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
            with pytest.raises(InvalidStatus) as refused:
                connect(f"ws://{at}", origin=origin, **options)
            assert refused.value.response.status_code == 403
        named = urllib.request.Request(f"http://{at}/", headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(named, timeout=30)
        assert b"<html" in urllib.request.urlopen(f"http://{at}/", timeout=30).read(500)
        for path in ("etc/passwd", "%2e%2e/index.html", "../../_viser.py"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"http://{at}/{path}", timeout=30)
    finally:
        viewer.stop()


def test_distorted_photos_are_pointed_at_where_they_show_the_point(scene: ViewScene) -> None:
    """The pixel in the photo as taken is that of COLMAP's camera model, not of the pinhole."""
    from recon.core.cameras import Intrinsics

    bent = Intrinsics("SIMPLE_RADIAL", (300.0, 161.0, 118.0, -0.08), 320, 240)
    photos = tuple(replace(photo, intrinsics=bent) for photo in scene.photos)
    point = np.array([-1.0, float(live_scene.wall_y(np.array(-1.0), np.array(0.5))), 0.5])
    straight = {one.photo: one.xy for one in Surfaces(scene).sightings(point, None)}
    found = Surfaces(ViewScene("bent", photos, mesh=scene.mesh)).sightings(point, None)
    assert found
    for one in found:
        expected = distort_points(np.array([straight[one.photo]]), bent, scene.photos[one.photo].view.K)[0]
        np.testing.assert_allclose(one.xy, expected)
        assert np.hypot(*(np.array(one.xy) - straight[one.photo])) > 0.05
