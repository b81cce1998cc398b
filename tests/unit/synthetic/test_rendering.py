"""Ray casting against geometry that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from recon.core.mesh import Mesh
from recon.core.raycasting import cast_view, depth_and_normals, ray_scene, render_vertex_colors
from recon.synthetic.materials import texture_albedo
from recon.synthetic.noise import fractal_noise
from recon.synthetic.paths import look_at, pinhole_views
from recon.synthetic.rendering import Lighting, bake_lighting, render_radiance


def quad(corners: list[list[float]], **more: np.ndarray) -> Mesh:
    return Mesh(np.array(corners, np.float32), np.array([[0, 1, 2], [0, 2, 3]], np.int32), **more)


FLOOR = quad([[-5, -5, 0], [5, -5, 0], [5, 5, 0], [-5, 5, 0]])


def test_depth_of_a_slanted_plane_is_analytic() -> None:
    """Every pixel's ray meets the plane z = 0 where algebra says."""
    view = pinhole_views([look_at((0.4, -2.5, 2.0), (0.1, 0.3, 0.0), roll=0.2)], 61, 47, 50)[0]
    depth, normal = depth_and_normals(FLOOR, view)
    y, x = np.mgrid[:47, :61]
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(view.K).T
    down = rays @ view.cam_from_world[:, :3][:, 2]
    expected = -view.center[2] / down
    hit = view.center + expected[..., None] * (rays @ view.cam_from_world[:, :3])
    inside = (down < 0) & (np.abs(hit[..., :2]) < 4.99).all(axis=-1)
    assert inside.mean() > 0.5
    np.testing.assert_allclose(depth[inside], expected[inside], rtol=2e-5)
    np.testing.assert_allclose(
        normal[inside], np.broadcast_to(view.cam_from_world[:, 2], (inside.sum(), 3)), atol=1e-5
    )
    outside = (down >= 0) | (np.abs(hit[..., :2]) > 5.01).any(axis=-1)
    assert (depth[outside] == 0).all()


def test_back_faces_are_turned_to_the_camera() -> None:
    flipped = Mesh(FLOOR.vertices, np.ascontiguousarray(FLOOR.faces[:, ::-1]))
    view = pinhole_views([look_at((0, 0, 3), (0, 0, 0), up=(0, 1, 0))], 9, 7)[0]
    for mesh in (FLOOR, flipped):
        np.testing.assert_allclose(depth_and_normals(mesh, view)[1][3, 4], [0, 0, -1], atol=1e-6)


def test_supersamples_lie_inside_their_pixel() -> None:
    """The mean over a pixel's rays of a linear depth is the depth at its centre."""
    view = pinhole_views([look_at((0, 0, 3), (0, 0, 0), up=(0, 1, 0))], 16, 12, 40)[0]
    colors = np.array([[0, 0, 0], [255, 0, 0], [255, 255, 0], [0, 255, 0]], np.uint8)
    mesh = quad([[-5, -5, 0], [5, -5, 0], [5, 5, 0], [-5, 5, 0]], rgb=colors)
    scene = ray_scene(mesh)
    fine = cast_view(scene, view, 3)
    coarse = cast_view(scene, view)
    np.testing.assert_array_equal(fine.face[1::3, 1::3] >= 0, coarse.face >= 0)
    np.testing.assert_allclose(fine.depth[1::3, 1::3], coarse.depth, rtol=1e-5)
    one, _ = render_vertex_colors(mesh, view, 1)
    four, _ = render_vertex_colors(mesh, view, 4)
    assert np.abs(one.astype(int) - four).max() <= 1


def test_edges_are_covered_by_area() -> None:
    """A half plane whose edge runs through a column of pixels: radiance is the covered share."""
    view = pinhole_views([look_at((0, 0, 4), (0, 0, 0), up=(0, 1, 0))], 21, 15, 40)[0]
    per_pixel = 4 / view.K[0, 0]
    edge = 2.25 * per_pixel  # the pixel whose centre is at 2 is covered up to 2.25 of 1.5 … 2.5: 3/4
    mesh = quad([[-5, -5, 0], [edge, -5, 0], [edge, 5, 0], [-5, 5, 0]])
    dark = np.zeros((4, 2), np.float32)
    picture = render_radiance(
        mesh, view, lambda s: np.ones((len(s.face), 3), np.float32), Lighting(), dark, 8, (1.0, 1.0, 1.0)
    )
    row = picture[7, :, 0]
    np.testing.assert_allclose(row[:12], 0, atol=1e-6)
    assert row[12] == pytest.approx(0.25, abs=1e-5)
    np.testing.assert_allclose(row[13:], 1, atol=1e-6)


def test_light_of_open_ground_and_of_a_shadow() -> None:
    light = Lighting(sun=(0.0, 0.0, 1.0), sun_radius=0.0, samples=200)
    open_ground = bake_lighting(FLOOR, light)
    np.testing.assert_allclose(open_ground, 1.0, atol=1e-6)
    # A roof over the middle hides the sun from a small patch of ground below it.
    roof = quad([[-2, -2, 1], [2, -2, 1], [2, 2, 1], [-2, 2, 1]])
    patch = quad([[-0.1, -0.1, 0], [0.1, -0.1, 0], [0.1, 0.1, 0], [-0.1, 0.1, 0]])
    both = Mesh(
        np.concatenate([patch.vertices, roof.vertices]), np.concatenate([patch.faces, roof.faces + 4])
    )
    baked = bake_lighting(both, light)
    assert (baked[:4, 0] == 0).all()
    # Cosine-weighted share of the sky beyond a square of half side 2 at height 1: Nusselt's analogue gives
    # 1 - F with F = 4 · (2 / pi) · (a / sqrt(1 + a²)) · atan(a / sqrt(1 + a²)), a = 2.
    a = 2 / np.sqrt(5)
    assert baked[:4, 1].mean() == pytest.approx(1 - 4 / np.pi * a * np.arctan(a), abs=0.05)


def test_texture_is_read_where_it_belongs() -> None:
    """Four coloured quarters, v up: the first row of the texture is the far end of the quad."""
    texture = np.zeros((8, 8, 3), np.uint8)
    texture[:4, :4], texture[:4, 4:] = (255, 0, 0), (0, 255, 0)
    texture[4:, :4], texture[4:, 4:] = (0, 0, 255), (255, 255, 255)
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    mesh = quad([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    mesh = Mesh(mesh.vertices, mesh.faces, None, uv[mesh.faces], texture)
    view = pinhole_views([look_at((0, 0, 4), (0, 0, 0), up=(0, 1, 0))], 41, 41, 30)[0]
    picture = render_radiance(
        mesh,
        view,
        texture_albedo(mesh),
        Lighting(sun_strength=0, sky_strength=1),
        np.ones((4, 2), np.float32),
        2,
    )
    np.testing.assert_allclose(picture[12, 12], [1, 0, 0], atol=1e-4)
    np.testing.assert_allclose(picture[12, 28], [0, 1, 0], atol=1e-4)
    np.testing.assert_allclose(picture[28, 12], [0, 0, 1], atol=1e-4)
    np.testing.assert_allclose(picture[28, 28], [1, 1, 1], atol=1e-4)
    with pytest.raises(ValueError, match="no texture"):
        texture_albedo(FLOOR)


def test_noise_is_band_limited_and_reproducible() -> None:
    line = np.zeros((4000, 3), np.float32)
    line[:, 0] = np.linspace(0, 40, 4000)
    fine = fractal_noise(line, 0.001, 1.0, 6, 0.0, 1)
    np.testing.assert_array_equal(fine, fractal_noise(line, 0.001, 1.0, 6, 0.0, 1))
    assert np.corrcoef(fine, fractal_noise(line, 0.001, 1.0, 6, 0.0, 2))[0, 1] < 0.3
    assert abs(fine.mean()) < 0.15
    # Samples 0.25 apart hold no wavelength below 0.5: the first octave is whole, the second (0.52) all but gone.
    coarse = fractal_noise(line, 0.25, 1.0, 6, 0.0, 1)
    alone = fractal_noise(line, 0.001, 1.0, 1, 0.0, 1)
    assert np.abs(coarse - alone).max() < 0.05
    # Too coarse for any octave: nothing at all.
    assert (fractal_noise(line, 0.6, 1.0, 6) == 0).all()
    assert np.abs(np.diff(fine)).max() > 3 * np.abs(np.diff(coarse)).max()
