"""Cameras of the ground floor: two ways to the same pixel agree, and undistorting an image moves what it shows."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from recon.core.cameras import Intrinsics
from recon.core.posed import Camera
from recon.core.resize import resize_points
from recon.core.sampling import bilinear, sample_image
from recon.core.similarity import Similarity3
from recon.core.undistort import undistort_photo

POSE = np.column_stack([Rotation.from_euler("xyz", [0.1, -0.2, 0.3]).as_matrix(), [0.2, -0.1, 5.0]])
POINTS = np.random.default_rng(3).uniform(-1, 1, (50, 3))


def test_the_pinhole_arithmetic_is_colmaps() -> None:
    """The pinhole formula and pycolmap's projection of an almost vanishing distortion agree."""
    pinhole = Camera(Intrinsics("SIMPLE_PINHOLE", (500.0, 319.5, 239.5), 640, 480), POSE)
    radial = Camera(Intrinsics("SIMPLE_RADIAL", (500.0, 319.5, 239.5, 1e-300), 640, 480), POSE)
    xy, z = pinhole.project(POINTS)
    np.testing.assert_allclose(radial.project(POINTS)[0], xy, atol=1e-9)
    np.testing.assert_allclose(pinhole.view("a").project(POINTS)[0], xy, atol=1e-9)
    np.testing.assert_allclose(z, np.linalg.norm(POINTS - pinhole.center, axis=1), rtol=0.2)


def test_a_ray_through_a_pixel_meets_the_point_that_it_shows() -> None:
    """Projecting, and casting the ray back, returns to the point, distortion included."""
    camera = Camera(
        Intrinsics("OPENCV", (500.0, 490.0, 315.0, 242.0, -0.08, 0.02, 1e-3, -2e-3), 640, 480), POSE
    )
    xy, z = camera.project(POINTS)
    np.testing.assert_allclose(camera.rays(xy) * z[:, None], camera.to_camera(POINTS), atol=1e-6)
    behind = camera.center - (POINTS[:1] - camera.center)
    assert np.isnan(camera.project(behind)[0]).all()


def test_a_camera_at_another_size_sees_the_same_at_the_resized_pixel() -> None:
    camera = Camera(Intrinsics("SIMPLE_RADIAL", (500.0, 319.5, 239.5, -0.08), 640, 480), POSE)
    small = camera.resized(320, 240)
    expected = resize_points(camera.project(POINTS)[0], (640, 480), (320, 240))
    np.testing.assert_allclose(small.project(POINTS)[0], expected, atol=1e-9)


def test_undistorting_straightens_a_line() -> None:
    """A straight edge of the world, drawn through the distorting camera, is straight in the undistorted photo."""
    intrinsics = Intrinsics("SIMPLE_RADIAL", (300.0, 159.5, 119.5, -0.35), 320, 240)
    camera = Camera(intrinsics, np.column_stack([np.eye(3), np.zeros(3)]))
    line = np.column_stack([np.linspace(-0.5, 0.5, 400), np.full(400, 0.3), np.ones(400)])
    rgb = np.zeros((240, 320, 3), np.uint8)
    cv2.polylines(
        rgb, [np.rint(camera.project(line)[0] * 16).astype(np.int32)], False, (255, 255, 255), 3, 0, 4
    )
    straight, mask = undistort_photo(rgb, None, intrinsics)
    columns = np.arange(40, 280)

    def rows(image: np.ndarray) -> np.ndarray:
        grey = image[:, columns, 0].astype(float)
        return (grey * np.arange(240)[:, None]).sum(axis=0) / grey.sum(axis=0)

    assert np.ptp(rows(rgb)) > 3
    np.testing.assert_allclose(rows(straight), 0.3 * 300 + 119.5, atol=1)  # lines are drawn on whole pixels
    assert mask[100:140, 100:200].all()


def test_samples_of_a_plane_are_the_plane() -> None:
    """A bilinear sample of a linear image is exact, and repeats the edge outside."""
    y, x = np.mgrid[:20, :30].astype(np.float32)
    image = np.stack([x + 2 * y, 3 * x - y], axis=-1)
    at = np.random.default_rng(1).uniform(0, [29, 19], (100, 2))
    expected = np.stack([at[:, 0] + 2 * at[:, 1], 3 * at[:, 0] - at[:, 1]], axis=-1)
    np.testing.assert_allclose(bilinear(image, at[:, 0], at[:, 1]), expected, atol=1e-4)
    np.testing.assert_allclose(sample_image(image, at), expected, atol=3 * 2 / 32)
    assert bilinear(image, np.array([-5.0]), np.array([40.0]))[0, 0] == 38


def test_a_similarity_moves_cameras_with_their_points() -> None:
    move = Similarity3(
        2.5, Rotation.from_euler("xyz", [1.0, 0.3, -0.4]).as_matrix(), np.array([3.0, -1.0, 2.0])
    )
    camera = Camera(Intrinsics("SIMPLE_PINHOLE", (500.0, 319.5, 239.5), 640, 480), POSE)
    moved = Camera(camera.intrinsics, move.camera(POSE))
    np.testing.assert_allclose(moved.project(move(POINTS))[0], camera.project(POINTS)[0], atol=1e-8)
    np.testing.assert_allclose(move.inverse()(move(POINTS)), POINTS, atol=1e-12)
