"""What is drawn must be where it should be, in the colour it should have, and hide what is behind it."""

from __future__ import annotations

import numpy as np
import pytest
from jaxtyping import UInt8
from scipy.ndimage import map_coordinates

from recon.core.cameras import PinholeView
from recon.core.mesh import Mesh
from recon.core.raycasting import cast_view, ray_scene, render_vertex_colors
from recon.render.canvas import (
    Canvas,
    Surface,
    draw_lines,
    draw_points,
)
from recon.render.frusta import camera_lines, frustum_size, photo_frames
from recon.render.trajectories import look_at
from recon.synthetic.shapes import superellipsoid_mesh

WHITE = (255, 255, 255)
K = np.array([[120.0, 0, 79.5], [0, 120.0, 59.5], [0, 0, 1]])


def front(distance: float = 4.0, x: float = 0.0) -> PinholeView:
    return look_at(np.array([x, -distance, 0]), np.array([x, 0.0, 0]), np.array([0.0, 0, 1]), K, 160, 120)


def wall(y: float, side: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    s = side
    vertices = np.array([[-s, y, -s], [s, y, -s], [s, y, s], [-s, y, s]], np.float32)
    return vertices, np.array([[0, 1, 2], [0, 2, 3]], np.int32)


def drawn(surface: Surface, view: PinholeView, style: str, samples: int = 1) -> UInt8[np.ndarray, "h w 3"]:
    canvas = Canvas.blank(view, WHITE, samples)
    surface.draw(canvas, style)  # type: ignore[arg-type]
    return canvas.picture()


def ball() -> Mesh:
    mesh = superellipsoid_mesh((0, 0, 0), (1, 1, 1), exponent=1.0)
    colors = np.random.default_rng(0).integers(0, 256, (len(mesh.vertices), 3)).astype(np.uint8)
    return Mesh(mesh.vertices, mesh.faces, colors)


def test_vertex_colours_agree_with_the_renderer_of_the_data_sets() -> None:
    mesh = ball()
    view = front(3.0)
    ours = drawn(Surface(mesh.vertices, mesh.faces, mesh.rgb), view, "color")
    theirs, covered = render_vertex_colors(mesh, view, 1, WHITE)
    assert covered.mean() > 0.2
    assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_texture_agrees_with_the_plain_renderer_where_texels_are_large() -> None:
    vertices, faces = wall(0.0)
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    texture = np.random.default_rng(1).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    surface = Surface(vertices, faces, uv=uv, texture=texture)
    scene = ray_scene(Mesh(vertices, faces))
    for view in (front(), front(2.5, 0.3)):
        hits = cast_view(scene, view)
        at = (uv[faces][hits.face[hits.mask]] * hits.weights[hits.mask][:, :, None]).sum(axis=1)
        row, column = (1 - at[:, 1]) * 16 - 0.5, at[:, 0] * 16 - 0.5
        theirs = np.full((120, 160, 3), 255.0)
        for c in range(3):
            channel = texture[..., c].astype(float)
            theirs[hits.mask, c] = map_coordinates(channel, [row, column], order=1, mode="nearest")
        ours = drawn(surface, view, "texture", samples=1)
        assert hits.mask.mean() > 0.1
        assert np.abs(ours - theirs).max() <= 1
    # v is up: the first row of the texture is at the top.
    sharp = Surface(
        vertices, faces, uv=uv, texture=np.repeat([[[255, 0, 0]], [[0, 0, 255]]], 2, 1).astype(np.uint8)
    )
    picture = drawn(sharp, front(), "texture")
    assert picture[35, 80].tolist() == [255, 0, 0]
    assert picture[85, 80].tolist() == [0, 0, 255]


def test_a_fine_texture_far_away_is_averaged_not_picked() -> None:
    """Stripes of a texel each, four to a pixel: without the pyramid they would flicker from frame to frame."""
    vertices, faces = wall(0.0)
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    texture = np.zeros((256, 256, 3), np.uint8)
    texture[:, ::2] = 255
    surface = Surface(vertices, faces, uv=uv, texture=texture)
    inside = drawn(surface, front(4.0), "texture")[40:80, 60:100].astype(float)
    assert inside.mean() == pytest.approx(127.5, abs=4)
    assert inside.std() < 12
    near = drawn(surface, front(0.1), "texture")[40:80, 60:100].astype(float)
    assert near.std() > 60  # from near the stripes are there


def test_clay_is_lit_from_the_upper_left_and_sees_both_sides() -> None:
    mesh = ball()
    picture = drawn(Surface(mesh.vertices, mesh.faces, mesh.rgb), front(3.0), "shaded").astype(int)
    assert picture[40, 60].sum() > picture[80, 100].sum() + 60
    vertices, faces = wall(0.0)
    one, other = (drawn(Surface(vertices, f), front(), "shaded") for f in (faces, faces[:, ::-1]))
    assert (one == other).all()
    codes = drawn(Surface(vertices, faces), front(), "normals")
    np.testing.assert_allclose(codes[60, 80], [128, 128, 255], atol=1)  # faces the camera


def test_what_is_nearer_hides_what_is_behind_whatever_is_drawn_first() -> None:
    red, blue = np.array([[200, 0, 0]], np.uint8), np.array([[0, 0, 200]], np.uint8)
    vertices, faces = wall(0.0)
    surface = Surface(vertices, faces, np.full((4, 3), 90, np.uint8))
    before, behind = np.array([[0.2, -1.0, 0.2]]), np.array([[-0.2, 1.0, 0.2]])
    line = np.array([[[-0.8, -0.5, -0.5], [0.8, 0.5, -0.5]]])  # pierces the wall in the middle
    steps = [
        lambda c: surface.draw(c, "color"),
        lambda c: draw_points(c, before, red, 0.05),
        lambda c: draw_points(c, behind, red, 0.05),
        lambda c: draw_lines(c, line, blue),
    ]
    pictures = []
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        canvas = Canvas.blank(front(), WHITE, 1)
        for index in order:
            steps[index](canvas)
        pictures.append(canvas.picture())
    assert (pictures[0] == pictures[1]).all()
    is_red = (pictures[0] == [200, 0, 0]).all(axis=2)
    is_blue = (pictures[0] == [0, 0, 200]).all(axis=2)
    y, x = np.nonzero(is_red)
    assert is_red.sum() > 8
    np.testing.assert_allclose([x.mean(), y.mean()], [79.5 + 120 * 0.2 / 3, 59.5 - 120 * 0.2 / 3], atol=0.6)
    assert is_blue[:, :79].sum() > 10  # before the wall
    assert is_blue[:, 82:].sum() == 0  # behind it


def test_lines_keep_their_width_and_end_at_the_border() -> None:
    """A line from near to far is as wide at both ends; parts outside the picture or behind the camera do no harm."""
    for start, end in (
        ([-1.0, 0, 0.0], [1.0, 6, 0.0]),
        ([-50.0, 2, 0.5], [50.0, 2, 0.5]),
        ([0.1, -9, 0.1], [0.1, 5, 0.3]),
    ):
        canvas = Canvas.blank(front(), WHITE, 2)
        draw_lines(canvas, np.array([[start, end]]), np.zeros((1, 3), np.uint8), width=2)
        ink = (255.0 - canvas.picture()[..., 0]) / 255.0
        assert ink.sum() > 20
        columns = ink.sum(axis=0)
        used = columns[columns > 0.5]
        if start[0] != end[0]:
            np.testing.assert_allclose(used, np.median(used), rtol=0.35)
    canvas = Canvas.blank(front(), WHITE, 1)
    draw_lines(canvas, np.array([[[0.0, -9, 0], [1.0, -8, 0]]]), np.zeros((1, 3), np.uint8))
    assert (canvas.picture() == 255).all()


def test_photos_stand_in_their_frames() -> None:
    """From the camera's own place its photo fills its frame, the right way round."""
    photo = np.zeros((120, 160, 3), np.uint8)
    photo[:60, :80], photo[:60, 80:], photo[60:, :80], photo[60:, 80:] = (
        (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0),
    )  # fmt: skip
    view, other = front(4.0), front(4.0, 9.0)
    frames = photo_frames([view, other], [photo, 255 - photo], 0.5, cell=64)
    picture = drawn(frames, view, "texture")
    for row, column in ((20, 30), (20, 130), (100, 30), (100, 130)):
        assert picture[row, column].tolist() == photo[row, column].tolist()
    lines = camera_lines(view, 0.5)
    assert lines.shape == (8, 2, 3)
    np.testing.assert_allclose(lines[:4, 0], np.tile(view.center, (4, 1)))
    local = lines[4:, 0] @ view.cam_from_world[:, :3].T + view.cam_from_world[:, 3]
    np.testing.assert_allclose(local[:, 2], 0.5)
    xy = local @ view.K.T / local[:, 2:]
    np.testing.assert_allclose(xy[0, :2], [-0.5, -0.5], atol=1e-9)
    np.testing.assert_allclose(xy[2, :2], [159.5, 119.5], atol=1e-9)


def test_frusta_are_neither_specks_nor_walls() -> None:
    assert frustum_size([front(4)], 4.0) == pytest.approx(0.4)
    near = [front(4, x) for x in (0, 0.5, 1.0)]
    assert frustum_size(near, 4.0) == pytest.approx(0.25)
    assert frustum_size([front(4), front(4)], 4.0) == pytest.approx(0.08)


def test_points_far_from_the_origin_stay_where_they_are() -> None:
    """Double precision goes to the camera before it is cut to single."""
    offset = np.array([500_000.0, 5_400_000.0, 300.0])
    rng = np.random.default_rng(2)
    xyz, rgb = rng.uniform(-1, 1, (300, 3)), rng.integers(0, 200, (300, 3)).astype(np.uint8)
    view = front()
    R = view.cam_from_world[:, :3]
    far = PinholeView(-1, "", K, np.column_stack([R, -R @ (view.center + offset)]), 160, 120)
    pictures = []
    for points, eye in ((xyz, view), (xyz + offset, far)):
        canvas = Canvas.blank(eye, WHITE, 1)
        draw_points(canvas, points, rgb, 0.03)
        pictures.append(canvas.picture().astype(int))
    assert (np.abs(pictures[0] - pictures[1]).max(axis=2) > 0).mean() < 0.001
