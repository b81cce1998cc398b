"""Pictures: what they show must be where it should be."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon.core.cameras import PinholeView
from recon.core.mesh import Mesh
from recon.core.raycasting import cast_view, ray_scene
from recon.render.frusta import camera_lines
from recon.render.pictures import (
    cameras_picture,
    cloud_picture,
    color_wheel,
    consistency_picture,
    contact_sheet,
    depth_picture,
    flow_picture,
    mesh_picture,
    normal_picture,
    overview_view,
    point_spacing,
    scale_picture,
    view_graph_picture,
    warp_picture,
)
from recon.synthetic.paths import look_at, pinhole_views
from recon.synthetic.shapes import superellipsoid_mesh

VIEW = pinhole_views([look_at((0, 0, 4), (0, 0, 0), up=(0, 1, 0))], 60, 40, 40)[0]
PAPER = (250, 250, 248)


def hue(rgb: np.ndarray) -> float:
    return 360 * colorsys.rgb_to_hsv(*(np.asarray(rgb) / 255.0))[0]


def test_wheel_is_middleburys() -> None:
    """Corner colours of the published coding: red, yellow, green, cyan, blue, magenta after 0, 15, 21, 25, 36, 49."""
    wheel = color_wheel()
    assert wheel.shape == (55, 3)
    corners = wheel[[0, 15, 21, 25, 36, 49]]
    expected = [[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1]]
    np.testing.assert_allclose(corners, expected, atol=1e-12)


def test_flow_directions_have_middleburys_hues() -> None:
    """Right is red, down is yellow, left is cyan to blue, up is blue to magenta; no motion is white."""
    flow = np.array([[[1, 0], [0, 1], [-1, 0], [0, -1], [0, 0]]], np.float32)
    picture = flow_picture(flow, 1.0)
    np.testing.assert_array_equal(picture[0, 0], [255, 0, 0])
    assert hue(picture[0, 1]) == pytest.approx(54, abs=8)
    assert 180 <= hue(picture[0, 2]) <= 215
    assert 240 <= hue(picture[0, 3]) <= 300
    np.testing.assert_array_equal(picture[0, 4], [255, 255, 255])


@settings(max_examples=30, deadline=None)
@given(st.floats(-10, 10), st.floats(-10, 10))
def test_flow_saturation_is_length(u: float, v: float) -> None:
    """Half the length is half as far from white; unknown is black."""
    flow = np.array([[[u, v], [u / 2, v / 2], [np.nan, 0], [1e10, 0]]])
    picture = flow_picture(flow, 15.0).astype(float)
    np.testing.assert_allclose(255 - picture[0, 1], (255 - picture[0, 0]) / 2, atol=1.01)
    assert (picture[0, 2:] == 0).all()


def test_warp_brings_the_target_back() -> None:
    rng = np.random.default_rng(0)
    source = rng.integers(0, 200, (20, 30, 3)).astype(np.uint8)
    target = np.roll(source, (2, 3), axis=(0, 1))
    flow = np.full((20, 30, 2), (3, 2), np.float32)
    warped = warp_picture(target, flow)
    np.testing.assert_array_equal(warped[:18, :27], source[:18, :27])
    assert set(np.unique(warped[18:])) <= {208, 232}
    assert set(np.unique(warped[:, 27:])) <= {208, 232}
    flow[4, 4] = np.nan
    assert set(np.unique(warp_picture(target, flow)[4, 4])) <= {208, 232}


def test_consistency_keeps_the_photo_where_it_holds() -> None:
    source = np.full((4, 4, 3), 120, np.uint8)
    mask = np.zeros((4, 4), bool)
    mask[:2] = True
    picture = consistency_picture(source, mask)
    np.testing.assert_array_equal(picture[:2], source[:2])
    assert (picture[2:, :, 0] > picture[2:, :, 1]).all()


def test_depth_is_brighter_near_and_marks_holes() -> None:
    depth = np.tile(np.linspace(1, 2, 50, dtype=np.float32), (60, 1))
    depth[10:20, 10:20] = 0
    plain = depth_picture(depth, legend=False)
    assert plain.shape == (60, 50, 3)
    brightness = plain[0].astype(int).sum(axis=1)
    assert brightness[0] > brightness[25] > brightness[-1]
    assert len(np.unique(plain[10:20, 10:20].reshape(-1, 3), axis=0)) == 1
    framed = depth_picture(depth)
    np.testing.assert_array_equal(framed[:, :50], plain)
    assert framed.shape[1] > 80
    assert depth_picture(np.zeros((20, 20), np.float32)).shape[0] == 20
    assert scale_picture(np.full((30, 30), 2.0)).shape[0] == 30


def test_scales_are_logarithmic() -> None:
    scales = np.array([[1.0, 2.0, 4.0, 8.0, 16.0]]).repeat(5, axis=0)
    picture = scale_picture(np.tile(scales, (20, 20)), legend=False)
    # The geometric middle has the middle colour of the map, the same as a confidence of a half would find.
    import cv2

    middle = cv2.applyColorMap(np.array([[128]], np.uint8), cv2.COLORMAP_INFERNO)[0, 0, ::-1]
    assert np.abs(picture[0, 2].astype(int) - middle).max() < 8


def test_normals_by_hand() -> None:
    normal = np.zeros((1, 3, 3), np.float32)
    normal[0, 0], normal[0, 1] = (0, 0, -1), (0, -1, 0)
    picture = normal_picture(normal)
    np.testing.assert_array_equal(picture[0, 0], [128, 128, 255])
    np.testing.assert_array_equal(picture[0, 1], [128, 255, 128])
    assert picture[0, 2].max() < 60


def test_cloud_is_drawn_where_it_projects_and_hides_what_is_behind() -> None:
    xyz = np.array([[0, 0, 1], [0, 0, 0], [1, 0, 0]], np.float32)
    rgb = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    picture = cloud_picture(xyz, rgb, VIEW, radius=0.1, samples=1)
    np.testing.assert_array_equal(picture[20, 30], [255, 0, 0])
    assert not (picture == [0, 255, 0]).all(axis=-1).any()
    blue = np.argwhere((picture == [0, 0, 255]).all(axis=-1)).mean(axis=0)
    np.testing.assert_allclose(blue, [VIEW.K[1, 2], VIEW.K[0, 2] + VIEW.K[0, 0] / 4], atol=0.6)
    assert (cloud_picture(xyz[:0], rgb[:0], VIEW) == PAPER).all()


def test_point_spacing_of_a_grid() -> None:
    grid = np.stack(np.meshgrid(np.arange(20.0), np.arange(20.0), [0.0]), -1).reshape(-1, 3) * 0.25
    assert point_spacing(grid) == pytest.approx(0.25)


@pytest.mark.parametrize("style", ["color", "shaded", "normals"])
def test_mesh_picture_has_the_mesh_silhouette(style: str) -> None:
    mesh = superellipsoid_mesh((0, 0, 0), (0.8, 0.5, 0.5), 1.0, 30, 40)
    if style == "color":
        mesh = Mesh(mesh.vertices, mesh.faces, np.full((len(mesh.vertices), 3), (10, 200, 30), np.uint8))
    picture = mesh_picture(mesh, VIEW, style, samples=1)
    hit = cast_view(ray_scene(mesh), VIEW).mask
    assert (picture[~hit] == PAPER).all()
    assert (picture[hit] != PAPER).any(axis=-1).all()
    if style == "color":
        assert (picture[hit] == [10, 200, 30]).all()
    if style == "normals":
        np.testing.assert_allclose(picture[20, 30], [128, 128, 255], atol=12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["top", "oblique", "side", "front"]))
def test_overview_shows_cloud_and_cameras(seed: int, style: str) -> None:
    rng = np.random.default_rng(seed)
    xyz = rng.normal(size=(300, 3)) * rng.uniform(0.5, 3, 3)
    poses = [look_at((4 * np.sin(a), -9 * np.cos(a), 0.5), (0, 0, 0)) for a in np.linspace(-1, 1, 5)]
    views = pinhole_views(poses, 60, 40)
    eye = overview_view(xyz, views, style, 300, 200)
    shown = np.concatenate(
        [
            np.array([v.center for v in views]),
            xyz[(np.abs(xyz) < np.quantile(np.abs(xyz), 0.9, axis=0)).all(axis=1)],
        ]
    )
    local = shown @ eye.cam_from_world[:, :3].T + eye.cam_from_world[:, 3]
    image = local @ eye.K.T
    image = image[:, :2] / image[:, 2:]
    assert (local[:, 2] > 0).all()
    assert ((image > -0.5) & (image < [299.5, 199.5])).all()
    np.testing.assert_allclose(eye.cam_from_world[:, :3] @ eye.cam_from_world[:, :3].T, np.eye(3), atol=1e-9)
    assert np.linalg.det(eye.cam_from_world[:, :3]) == pytest.approx(1)
    # Photos' up is up in the picture (from above there is no up), and "top" looks down.
    up = eye.cam_from_world[:, :3] @ [0, 0, 1]
    assert up[1] < 0.05 if style != "top" else up[2] < -0.8


@pytest.mark.parametrize("style", ["oblique", "top", "front"])
def test_far_background_does_not_frame_the_overview(style: str) -> None:
    """A wall with a house far behind it, a third of the points: the picture is that of the wall alone."""
    rng = np.random.default_rng(2)
    wall = rng.uniform([-3, -0.3, -1], [3, 0.3, 2], (4000, 3))
    house = rng.uniform([8, 40, 0], [30, 55, 20], (2000, 3))
    poses = [look_at((5 * np.sin(a), -7 * np.cos(a), 0.5), (0, 0, 0)) for a in np.linspace(-0.8, 0.8, 6)]
    views = pinhole_views(poses, 60, 40)
    alone = overview_view(wall, views, style, 300, 200, with_cameras=False)
    both = overview_view(np.concatenate([wall, house]), views, style, 300, 200, with_cameras=False)
    np.testing.assert_allclose(both.center, alone.center, atol=0.5)
    local = wall @ both.cam_from_world[:, :3].T + both.cam_from_world[:, 3]
    image = (local @ both.K.T)[:, :2] / local[:, 2:]
    assert (np.ptp(image, axis=0) / [300, 200]).max() > 0.8


def test_camera_lines_meet_the_picture_corners() -> None:
    lines = camera_lines(VIEW, 0.5)
    np.testing.assert_allclose(lines[:4, 0], np.tile(VIEW.center, (4, 1)))
    local = lines[:4, 1] @ VIEW.cam_from_world[:, :3].T + VIEW.cam_from_world[:, 3]
    np.testing.assert_allclose(local[:, 2], 0.5)
    corners = (local @ VIEW.K.T)[:, :2] / 0.5
    np.testing.assert_allclose(corners[[0, 2]], [[-0.5, -0.5], [59.5, 39.5]], atol=1e-9)


def test_cameras_are_drawn_over_the_cloud() -> None:
    rng = np.random.default_rng(0)
    xyz = rng.uniform(-1, 1, (500, 3))
    views = pinhole_views([look_at((x, -5, 0), (0, 0, 0)) for x in (-1.0, 0.0, 1.0)], 60, 40)
    rgb = np.full((500, 3), 128, np.uint8)
    for style in ("top", "oblique"):
        eye = overview_view(xyz, views, style, 300, 200)
        picture = cameras_picture(xyz, rgb, views, style, 300, 200)
        for index, view in enumerate(views):
            at = project(view.center, eye)
            patch = picture[at[1] - 3 : at[1] + 4, at[0] - 3 : at[0] + 4].reshape(-1, 3).astype(int)
            redness = patch[:, 0] - patch[:, 2]
            assert redness.max() > 40 if index == 0 else redness.min() < -40


def project(point: np.ndarray, view: PinholeView) -> tuple[int, int]:
    local = view.K @ (view.cam_from_world[:, :3] @ point + view.cam_from_world[:, 3])
    return round(local[0] / local[2]), round(local[1] / local[2])


def test_view_graph_marks_lonely_photos() -> None:
    names = [f"sub/{i}.jpg" for i in range(5)]
    picture = view_graph_picture(names, {(0, 1): 100, (1, 2): 50}, {(0, 1)}, 400)
    assert picture.shape == (400, 400, 3)
    # Nodes 2, 3 and 4 have no kept pair; 0 and 1 do. The circle runs clockwise from the top.
    for i in range(5):
        angle = np.pi / 2 - 2 * np.pi * i / 5
        x, y = 200 + 200 / 1.45 * np.cos(angle), 200 - 200 / 1.45 * np.sin(angle)
        color = picture[round(y), round(x)].astype(int)
        assert (color[0] > color[2]) == (i >= 2)
    assert view_graph_picture([], {}).shape == (900, 900, 3)


def test_contact_sheet_places_pictures() -> None:
    pictures = [np.full((20, 40, 3), shade, np.uint8) for shade in (10, 60, 110)]
    sheet = contact_sheet(pictures, columns=2, cell_width=40)
    assert (sheet[8:28, 8:48] == 10).all()
    assert (sheet[8:28, 56:96] == 60).all()
    assert (sheet[36:56, 8:48] == 110).all()
    assert contact_sheet(pictures, ["a", "b", "c"], 2, 40).shape[0] > sheet.shape[0]
