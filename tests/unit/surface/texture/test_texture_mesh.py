"""Textures of surfaces whose colours are known everywhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recon.errors import ReconError
from recon.evaluation.views import compare_view
from recon.surface.texture.files import parts_of_mesh
from recon.surface.texture.texturing import seam_steps, texture_mesh
from recon.surface.texture.topology import face_adjacency
from recon.surface.texture.types import TextureOptions
from recon.surface.texture.visibility import look_up
from tests.support.texturing_scenes import arc, camera, color, drawn, photos, sheet


@pytest.fixture(scope="module")
def scene():
    views = arc()
    return *sheet(30), views, photos(views)


def centre_colors(mesh, keep=slice(None)):
    """The texture at the centres of faces, and the true colour there."""
    uv = mesh.uvs[keep].mean(axis=1)
    centre = mesh.vertices[mesh.faces[keep]].mean(axis=1)
    return look_up(mesh.texture, uv), color(centre[:, 0], centre[:, 1])


def test_unseen_view_and_every_face_have_the_true_colours(scene):
    vertices, faces, views, images = scene
    mesh, report = texture_mesh(vertices, faces, views, images)
    got, want = centre_colors(mesh)
    seen = mesh.face_view >= 0
    assert report.seen_share == seen.mean() > 0.9
    assert report.scale == 1.0
    assert np.abs(got - want)[seen].mean() < 1.5
    assert np.percentile(np.abs(got - want)[seen], 99) < 8
    between = camera(9, (0.3, 0.5, 2.3))
    truth = photos([between])[0]
    picture, covered = drawn(mesh, between)
    result = compare_view(picture, covered, truth, fit_exposure=False)
    assert result.psnr > 35
    assert result.coverage == pytest.approx((truth.sum(axis=2) > 0).mean(), abs=0.01)
    # Texture coordinates lie inside, and a chart's faces have one view.
    assert mesh.uvs.min() >= 0
    assert mesh.uvs.max() <= 1
    for chart in range(report.charts):
        assert len(np.unique(mesh.face_view[mesh.face_chart == chart])) == 1


def test_exposure_is_found_and_taken_out(scene):
    vertices, faces, views, images = scene
    truth = np.array([0.8, 1.0, 1.2, 0.9, 1.1])
    darker = [np.clip(image * f, 0, 255).astype(np.uint8) for image, f in zip(images, truth, strict=True)]
    mesh, report = texture_mesh(vertices, faces, views, darker)
    gains = np.array(report.gains)
    product = gains * truth[:, None]
    assert np.ptp(product) / product.mean() < 0.03
    assert np.prod(gains, axis=0) == pytest.approx(1, abs=1e-6)
    assert report.seam_before > 8
    assert report.seam_after < 2.5
    got, want = centre_colors(mesh)
    factor = (got * want).sum() / (want * want).sum()
    assert np.abs(got / factor - want).mean() < 5
    plain, raw = texture_mesh(
        vertices, faces, views, darker, options=TextureOptions(balance=False, blend_rings=1)
    )
    assert raw.seam_after > report.seam_after
    assert plain.texture.shape[2] == 3


def test_what_only_one_photo_shows_is_left_out(scene):
    vertices, faces, views, images = scene
    moved = [image.copy() for image in images]
    moved[2][45:75, 65:95] = (255, 0, 255)
    mesh, report = texture_mesh(vertices, faces, views, moved)
    got, want = centre_colors(mesh)
    assert np.percentile(np.abs(got - want).max(axis=1), 99.5) < 40
    assert report.rejected_share > 0.005
    trusting, _ = texture_mesh(
        vertices, faces, views[1:3], moved[1:3], options=TextureOptions(reject_levels=0, consensus=0)
    )
    got, want = centre_colors(trusting)
    assert np.abs(got - want).max() > 80  # two views cannot tell who is right


def test_what_hides_the_surface_does_not_paint_it():
    """A red plate before a green wall: no face of the wall may turn red, none of the plate green."""
    wall, wall_faces = sheet(24, 1.5)
    wall[:, 2] = 0
    plate, plate_faces = sheet(6, 0.3)
    plate[:, 2] = 0.6
    vertices = np.concatenate([wall, plate])
    faces = np.concatenate([wall_faces, plate_faces + len(wall)]).astype(np.int32)
    rgb = np.zeros((len(vertices), 3), np.uint8)
    rgb[: len(wall)], rgb[len(wall) :] = (20, 200, 20), (200, 20, 20)
    from recon.core.mesh import Mesh
    from recon.core.raycasting import render_vertex_colors

    views = [camera(k, (x, 0.2, 2.5)) for k, x in enumerate((-1.2, -0.4, 0.4, 1.2))]
    exact = Mesh(vertices.astype(np.float32), faces, rgb)
    images = [render_vertex_colors(exact, view)[0] for view in views]
    mesh, _ = texture_mesh(vertices, faces, views, images)
    got = look_up(mesh.texture, mesh.uvs.mean(axis=1))
    on_wall = np.arange(len(faces)) < len(wall_faces)
    assert (got[on_wall, 1] > 150).all()
    assert (got[~on_wall, 0] > 150).all()


def test_faces_that_no_photo_sees_take_the_colour_round_them(scene):
    vertices, faces, views, _ = scene
    flat = [np.full((120, 160, 3), (200, 100, 50), np.uint8)] * 5
    masks = [np.ones((120, 160), bool) for _ in views]
    for mask in masks:
        mask[:, 70:] = False
    mesh, report = texture_mesh(vertices, faces, views, flat, masks)
    assert 0.05 < report.seen_share < 0.95
    assert np.abs(mesh.texture.astype(int) - (200, 100, 50)).max() <= 2  # the gaps between charts too
    away = [
        replace(view, cam_from_world=view.cam_from_world * [[1], [1], [1]] + [[0, 0, 0, 99.0]] * 3)
        for view in views
    ]
    unseen, nothing = texture_mesh(vertices, faces, away, flat)
    assert nothing.seen_share == 0
    assert unseen.texture.min() > 0


def test_large_coordinates_change_nothing(scene):
    vertices, faces, views, images = scene
    offset = np.array([4.5e5, 5.2e6, 300.0])
    far = []
    for view in views:
        pose = view.cam_from_world.copy()
        pose[:, 3] -= pose[:, :3] @ offset
        far.append(replace(view, cam_from_world=pose))
    near_mesh, _ = texture_mesh(vertices, faces, views, images)
    far_mesh, _ = texture_mesh(vertices + offset, faces, far, images)
    assert np.mean(near_mesh.face_view == far_mesh.face_view) > 0.97
    got, want = centre_colors(replace(far_mesh, vertices=vertices))
    assert np.abs(got - want).mean() < 4
    near_picture, _ = drawn(near_mesh, views[0])
    far_picture, _ = drawn(far_mesh, far[0])
    assert np.abs(near_picture.astype(int) - far_picture).mean() < 1


def test_a_texture_that_is_too_small_for_the_photos_shrinks_them(scene):
    vertices, faces, views, images = scene
    mesh, report = texture_mesh(
        vertices, faces, views, images, options=TextureOptions(max_texture=96, max_textures=1)
    )
    assert max(mesh.texture.shape[:2]) <= 96
    assert report.scale < 1
    got, want = centre_colors(mesh)
    assert np.abs(got - want).mean() < 8
    with pytest.raises(ReconError, match=r"texture\.max_texture"):
        texture_mesh(vertices, faces, views, images, options=TextureOptions(max_texture=16))


@pytest.mark.parametrize(("size", "most", "whole"), [(192, 16, True), (128, 2, False)])
def test_what_is_too_much_for_one_texture_goes_into_several(scene, size, most, whole):
    vertices, faces, views, images = scene
    one, alone = texture_mesh(vertices, faces, views, images)
    options = TextureOptions(max_texture=size, max_textures=most)
    mesh, report = texture_mesh(vertices, faces, views, images, options=options)
    parts = parts_of_mesh(mesh)
    assert 1 < len(parts) <= most
    assert (report.scale == 1) == whole
    assert (mesh.faces == one.faces).all()
    assert 0 < report.fill < 1
    got, want = [], []
    for part in parts:
        assert max(part.texture.shape[:2]) <= size
        assert part.uvs.min() >= 0
        assert part.uvs.max() <= 1
        colors = centre_colors(part)
        got.append(colors[0])
        want.append(colors[1])
    assert sum(map(len, got)) == len(faces)
    assert np.abs(np.concatenate(got) - np.concatenate(want)).mean() < (1.5 if whole else 8)
    if whole:
        same = look_up(mesh.texture, mesh.uvs.mean(axis=1)) - look_up(one.texture, one.uvs.mean(axis=1))
        assert np.abs(same).max() < 1e-3
        assert report.charts == alone.charts


def test_seam_steps_are_those_of_the_texture(scene):
    """Two faces of known, different colours: the step is their difference."""
    vertices, faces, views, images = scene
    mesh, report = texture_mesh(vertices, faces, views, images)
    labelled = replace(
        mesh, texture=np.zeros_like(mesh.texture), face_view=np.arange(len(faces), dtype=np.int32)
    )
    assert len(seam_steps(labelled)) == len(face_adjacency(faces).pairs)
    assert seam_steps(labelled).max() == 0
    assert np.median(seam_steps(mesh)) == pytest.approx(report.seam_after, abs=1e-4)


def test_wrong_input_is_told(scene):
    vertices, faces, views, images = scene
    with pytest.raises(ValueError, match="without faces"):
        texture_mesh(vertices, faces[:0], views, images)
    with pytest.raises(ValueError, match="at least one"):
        texture_mesh(vertices, faces, [], [])
    with pytest.raises(ValueError, match=r"0\.jpg"):
        texture_mesh(vertices, faces, views, [image[:-1] for image in images])
    with pytest.raises(ValueError, match="not there"):
        texture_mesh(vertices, faces + 5, views, images)
    with pytest.raises(ValueError, match="finite"):
        texture_mesh(vertices * np.nan, faces, views, images)
