"""COLMAP adapter: half pixel, cameras, databases, models."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon.core.cameras import Intrinsics
from recon.core.colmap import (
    camera_from_intrinsics,
    image_id,
    intrinsics_from_camera,
    points_from_colmap,
    points_to_colmap,
)
from recon.core.undistort import distort_points, undistort_points, undistortion_maps
from recon.graph.tracks import PhotoRows, track_matches
from recon.sfm.adapter import (
    keypoint_numbers,
    move_observations,
    points_of_tracks,
    posed_cameras,
    views_from_reconstruction,
    write_database,
)
from recon.sfm.mapping import map_incremental
from tests.support.sfm_scene import RING, exact_tracks, graph_of, make_scene, photo_set_of, verified

CAMERAS = [
    Intrinsics("SIMPLE_PINHOLE", (500.0, 319.5, 239.5), 640, 480),
    Intrinsics("PINHOLE", (500.0, 505.0, 310.25, 241.5), 640, 480, known=True, has_focal_prior=True),
    Intrinsics("SIMPLE_RADIAL", (500.0, 319.5, 239.5, -0.08), 640, 480, has_focal_prior=True),
    Intrinsics("RADIAL", (500.0, 315.0, 242.0, -0.08, 0.02), 640, 480),
    Intrinsics("OPENCV", (500.0, 490.0, 315.0, 242.0, -0.08, 0.02, 1e-3, -2e-3), 640, 480),
]


def test_the_half_pixel_is_added_and_taken_away() -> None:
    """The centre of the top-left pixel is (0, 0) here and (0.5, 0.5) there."""
    np.testing.assert_array_equal(points_to_colmap(np.zeros((1, 2))), [[0.5, 0.5]])
    np.testing.assert_array_equal(points_from_colmap(np.array([[0.5, 0.5]])), [[0.0, 0.0]])
    # A camera in the middle of a 640x480 photo: between pixels 319 and 320 here, at 320 there.
    camera = camera_from_intrinsics(CAMERAS[0])
    assert (camera.principal_point_x, camera.principal_point_y) == (320.0, 240.0)
    # The same ray leads to the same place in both conventions.
    ray = np.array([[0.1, -0.2, 1.0]])
    here = (ray @ CAMERAS[0].K.T)[:, :2]
    np.testing.assert_allclose(points_from_colmap(camera.img_from_cam(ray)), here, atol=1e-12)


@pytest.mark.parametrize("intrinsics", CAMERAS, ids=lambda camera: camera.model)
def test_intrinsics_survive_the_way_to_colmap_and_back(intrinsics: Intrinsics) -> None:
    camera = camera_from_intrinsics(intrinsics, 7)
    assert camera.camera_id == 7
    back = intrinsics_from_camera(camera, known=intrinsics.known)
    assert back.model == intrinsics.model
    np.testing.assert_allclose(back.params, intrinsics.params, atol=1e-12)
    assert (back.width, back.height, back.known) == (640, 480, intrinsics.known)
    assert back.has_focal_prior == (intrinsics.known or intrinsics.has_focal_prior)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(CAMERAS), st.integers(0, 1000))
def test_undistortion_and_distortion_are_inverse(intrinsics: Intrinsics, seed: int) -> None:
    rng = np.random.default_rng(seed)
    K = np.array([[480.0, 0, 318.0], [0, 470.0, 236.0], [0, 0, 1]])
    xy = rng.uniform([0, 0], [639, 479], (50, 2))
    flat = undistort_points(xy, intrinsics, K)
    np.testing.assert_allclose(distort_points(flat, intrinsics, K), xy, atol=1e-3)


def test_distortion_follows_the_polynomial() -> None:
    """SIMPLE_RADIAL: the ray's plane coordinates are scaled by 1 + k r^2."""
    intrinsics = CAMERAS[2]
    focal, cx, cy, k = intrinsics.params
    plane = np.array([[0.3, -0.2], [0.0, 0.0], [-0.5, 0.4]])
    pinhole = plane * focal + [cx, cy]
    expected = plane * (1 + k * (plane**2).sum(axis=1, keepdims=True)) * focal + [cx, cy]
    np.testing.assert_allclose(distort_points(pinhole, intrinsics, intrinsics.K), expected, atol=1e-9)


def test_undistortion_maps_lead_to_the_photo() -> None:
    intrinsics = CAMERAS[2]
    map_x, map_y = undistortion_maps(intrinsics, intrinsics.K, (100, 80))
    assert map_x.shape == map_y.shape == (80, 100)
    assert map_x.dtype == np.float32
    for x, y in [(0, 0), (99, 79), (31, 17)]:
        expected = distort_points(np.array([[x, y]], float), intrinsics, intrinsics.K)[0]
        np.testing.assert_allclose([map_x[y, x], map_y[y, x]], expected, atol=1e-3)
    flat_x, flat_y = undistortion_maps(CAMERAS[1], CAMERAS[1].K, (40, 30))
    np.testing.assert_array_equal(flat_x, np.tile(np.arange(40, dtype=np.float32), (30, 1)))
    np.testing.assert_array_equal(flat_y[:, 0], np.arange(30, dtype=np.float32))


def test_the_database_holds_the_tracks(tmp_path: Path) -> None:
    scene = make_scene(RING[:5])
    photos = photo_set_of(scene)
    tracks = exact_tracks(scene, share=0.7)
    pairs = [(0, 1), (1, 2), (0, 2), (2, 4)]
    geometries = verified(track_matches(tracks, pairs), photos)
    path = tmp_path / "database.db"
    path.write_text("something older")
    write_database(path, photos, tracks, geometries)
    assert [file.name for file in tmp_path.iterdir()] == ["database.db"]
    numbers = keypoint_numbers(tracks)
    with pycolmap.Database.open(path) as database:
        assert database.num_images() == 5
        assert database.num_cameras() == len(photos.cameras)
        for photo in photos.photos:
            image = database.read_image(image_id(photo.id))
            assert image.name == photo.name
            assert image.camera_id == photo.camera + 1
            rows = np.nonzero(tracks.photo_id == photo.id)[0]
            keypoints = database.read_keypoints(image_id(photo.id))
            np.testing.assert_array_equal(keypoints[numbers[rows], :2], tracks.xy[rows] + np.float32(0.5))
            camera = database.read_camera(photo.camera + 1)
            np.testing.assert_allclose(
                camera.params[-2:], np.add(photos.cameras[photo.camera].params[-2:], 0.5)
            )
        assert database.num_verified_image_pairs() == len(pairs)
        for a, b in pairs:
            rows = PhotoRows(tracks).shared(a, b)
            expected = {tuple(row) for row in numbers[rows]}
            matches = database.read_matches(image_id(a), image_id(b))
            assert {tuple(row) for row in matches.astype(int)} == expected
            geometry = database.read_two_view_geometry(image_id(a), image_id(b))
            assert len(geometry.inlier_matches) == geometries[a, b].inlier_count == len(rows)
            assert geometry.config == int(pycolmap.TwoViewGeometryConfiguration.CALIBRATED)
            # COLMAP's F takes COLMAP's keypoints.
            kp_a, kp_b = (database.read_keypoints(image_id(i))[:, :2].astype(float) for i in (a, b))
            x = np.column_stack([kp_a[matches[:, 0]], np.ones(len(matches))])
            y = np.column_stack([kp_b[matches[:, 1]], np.ones(len(matches))])
            lines = x @ geometry.F.T
            assert np.abs((lines * y).sum(axis=1) / np.hypot(lines[:, 0], lines[:, 1])).max() < 0.1
    # Nothing COLMAP needs is missing from the plain SQLite file.
    with sqlite3.connect(path) as connection:
        tables = {
            name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")
        }
    assert {"cameras", "images", "keypoints", "matches", "two_view_geometries", "rigs", "frames"} <= tables


def test_the_database_takes_matches_instead_of_tracks(tmp_path: Path) -> None:
    scene = make_scene(RING[:3])
    photos = photo_set_of(scene)
    tracks = exact_tracks(scene)
    matches = track_matches(tracks, [(0, 1), (0, 2), (1, 2)])
    geometries = verified(matches, photos)
    write_database(tmp_path / "d.db", photos, tracks, geometries, matches=matches)
    with pycolmap.Database.open(tmp_path / "d.db") as database:
        for (a, b), match in matches.items():
            rows = database.read_matches(image_id(a), image_id(b))
            kp_a, kp_b = (database.read_keypoints(image_id(i))[:, :2] for i in (a, b))
            np.testing.assert_array_equal(kp_a[rows[:, 0]], match.xy_a + np.float32(0.5))
            np.testing.assert_array_equal(kp_b[rows[:, 1]], match.xy_b + np.float32(0.5))
        # A point that is matched in two pairs is one keypoint.
        assert database.num_keypoints_for_image(1) == len(
            np.unique(np.concatenate([matches[0, 1].xy_a, matches[0, 2].xy_a]), axis=0)
        )
    with pytest.raises(ValueError, match="ascending"):
        write_database(tmp_path / "e.db", photos, tracks, {(2, 1): geometries[1, 2]})


def test_views_points_and_observations_of_a_model(tmp_path: Path) -> None:
    scene = make_scene(RING[:6])
    photos = photo_set_of(scene)
    tracks = exact_tracks(scene)
    graph, geometries = graph_of(photos, tracks)
    write_database(tmp_path / "d.db", photos, tracks, geometries)
    model = map_incremental(tmp_path / "d.db", photos, graph).best
    assert model is not None
    views = views_from_reconstruction(model, photos)
    assert [view.photo_id for view in views] == list(range(6))
    xyz, held = points_of_tracks(model, photos, tracks)
    assert held.mean() > 0.95
    cameras = posed_cameras(model, photos)
    for view in views:
        np.testing.assert_allclose(view.K, photos.cameras[0].K)
        rows = np.nonzero(held & (tracks.photo_id == view.photo_id))[0]
        inside = xyz[tracks.track_id[rows]] @ view.cam_from_world[:, :3].T + view.cam_from_world[:, 3]
        pixels = inside @ view.K.T
        # Projected with the view alone, in recon's convention, the points fall on their observations.
        np.testing.assert_allclose(pixels[:, :2] / pixels[:, 2:], tracks.xy[rows], atol=0.02)
        np.testing.assert_allclose(cameras[view.photo_id].pixels(inside), tracks.xy[rows], atol=0.02)
        np.testing.assert_allclose(
            cameras[view.photo_id].rays(tracks.xy[rows]), inside / inside[:, 2:], atol=1e-4
        )
    # Moving the observations moves the model's keypoints, and those that are not kept leave their points.
    shifted = type(tracks)(tracks.track_id, tracks.photo_id, tracks.xy + np.float32(0.25))
    keep = np.ones(len(tracks.track_id), bool)
    gone = np.nonzero(held & (tracks.photo_id == 2))[0][:5]
    keep[gone] = False
    before = model.compute_num_observations()
    move_observations(model, photos, shifted, keep)
    assert model.compute_num_observations() <= before - 5
    numbers = keypoint_numbers(tracks)
    image = model.images[image_id(2)]
    assert not any(image.points2D[int(numbers[row])].has_point3D() for row in gone)
    np.testing.assert_allclose(image.points2D[int(numbers[gone[0]])].xy, tracks.xy[gone[0]] + 0.75, atol=1e-4)
    with pytest.raises(ValueError, match="keypoints"):
        points_of_tracks(model, photos, exact_tracks(scene, share=0.5))
