"""Refinement, completion and polishing with cameras, on photos of a tilted textured plane rendered exactly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from recon.core.cameras import Intrinsics
from recon.graph.tracks import make_tracks, select_observations
from recon.graph.types import Tracks
from recon.photos.types import PhotoSet
from recon.sfm.adapter import model_from_tracks, points_of_tracks, write_database
from recon.sfm.mapping import MappingSettings, fine_loss_scale, map_incremental, polish_model
from recon.sfm.track_refinement import RefinementSettings, complete_tracks, refine_with_geometry
from tests.support.sfm_scene import Scene as PointScene
from tests.support.sfm_scene import camera_centers, centre_errors, graph_of, look_at, photo_set_of

CAMERA = Intrinsics("SIMPLE_RADIAL", (300.0, 119.5, 89.5, -0.05), 240, 180, known=True, has_focal_prior=True)
POSES = [
    look_at(np.array([4.5 * np.sin(a), -0.5 - 0.3 * (k % 2), -4.5 * np.cos(a)]), np.zeros(3))
    for k, a in enumerate(np.radians([-30.0, -15.0, 0.0, 14.0, 28.0]))
]
# Two planes that meet in a ridge: z = 0.5 |x| - 0.15 y. One plane alone would leave the cameras ambiguous.
NORMALS = [np.array([-0.5, 0.15, 1.0]), np.array([0.5, 0.15, 1.0])]


def texture(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(5)
    value = np.full(x.shape, 128.0)
    for _ in range(40):
        angle, wavelength = rng.uniform(0, np.pi), rng.uniform(0.12, 0.7)
        value += 7 * np.sin(
            (np.cos(angle) * x + np.sin(angle) * y) * 2 * np.pi / wavelength + rng.uniform(0, 6.28)
        )
    return value


def undistorted_rays(xy: np.ndarray) -> np.ndarray:
    """Rays (x, y, 1) of pixels: the distortion inverted by plain fixed-point iteration."""
    focal, cx, cy, k = CAMERA.params
    bent = (xy - [cx, cy]) / focal
    plane = bent.copy()
    for _ in range(30):
        plane = bent / (1 + k * (plane**2).sum(axis=-1, keepdims=True))
    return np.concatenate([plane, np.ones((*plane.shape[:-1], 1))], axis=-1)


def surface(pose: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """World points that pixels see: the nearer plane of each side of the ridge."""
    centre = -pose[:, :3].T @ pose[:, 3]
    direction = undistorted_rays(xy) @ pose[:, :3]
    depths = [-(normal @ centre) / (direction @ normal) for normal in NORMALS]
    points = [centre + depth[..., None] * direction for depth in depths]
    left = points[1][..., 0] < 0
    return np.where(left[..., None], points[1], points[0])


def render(pose: np.ndarray) -> np.ndarray:
    xs, ys = np.meshgrid(np.arange(240.0), np.arange(180.0))
    points = surface(pose, np.stack([xs, ys], axis=-1))
    return texture(points[..., 0], points[..., 1]).astype(np.float32)


def project(pose: np.ndarray, points: np.ndarray) -> np.ndarray:
    focal, cx, cy, k = CAMERA.params
    inside = points @ pose[:, :3].T + pose[:, 3]
    plane = inside[:, :2] / inside[:, 2:]
    return np.asarray(focal * plane * (1 + k * (plane**2).sum(axis=1, keepdims=True)) + [cx, cy])


def derivative(pose: np.ndarray, reference: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Affinity from the reference photo to another, by differences of exact projections."""
    columns = []
    for axis in range(2):
        step = np.zeros(2)
        step[axis] = 0.5
        ahead, behind = (project(pose, surface(reference, xy + sign * step)) for sign in (1, -1))
        columns.append(ahead - behind)
    return np.stack(columns, axis=-1)


def exact(seed: int = 0, n: int = 160) -> tuple[PhotoSet, Tracks, np.ndarray, list[np.ndarray]]:
    """Photo set, exact tracks anchored in photo 2, their world points, and the photos."""
    rng = np.random.default_rng(seed)
    anchors = rng.uniform([25, 25], [215, 155], (n, 2)).astype(np.float32).astype(float)
    points = surface(POSES[2], anchors)
    # Patches that straddle the ridge are not planar.
    keep = np.abs(points[:, 0]) > 0.3
    anchors, points = anchors[keep], points[keep]
    track, photo, xy, affinity = [], [], [], []
    for i, pose in enumerate(POSES):
        seen = anchors if i == 2 else project(pose, points)
        inside = ((seen > 20) & (seen < [220, 160])).all(axis=1)
        track.append(np.nonzero(inside)[0])
        photo.append(np.full(inside.sum(), i))
        xy.append(seen[inside])
        affinity.append(derivative(pose, POSES[2], anchors)[inside])
    tracks = make_tracks(
        *(np.concatenate(part) for part in (track, photo, xy)), affinity=np.concatenate(affinity)
    )
    tracks = replace(tracks, is_reference=tracks.photo_id == 2)
    photos = photo_set_of(PointScene(points, POSES, CAMERA))
    return photos, tracks, points, [render(pose) for pose in POSES]


def true_model(photos: PhotoSet, tracks: Tracks, points: np.ndarray) -> pycolmap.Reconstruction:
    """A model with the true cameras, built by hand."""
    empty = pycolmap.Reconstruction()
    camera = pycolmap.Camera(
        camera_id=1, model="SIMPLE_RADIAL", width=240, height=180, params=[300.0, 120.0, 90.0, -0.05]
    )
    empty.add_camera_with_trivial_rig(camera)
    for i, pose in enumerate(POSES):
        image = pycolmap.Image(name=f"photo{i:02d}.jpg", camera_id=1, image_id=i + 1)
        empty.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pose))
    return model_from_tracks(empty, photos, tracks, points)


def noisy(tracks: Tracks, size: float, seed: int = 1) -> Tracks:
    rng = np.random.default_rng(seed)
    assert tracks.is_reference is not None
    moved = (
        tracks.xy + size * rng.normal(size=tracks.xy.shape).astype(np.float32) * ~tracks.is_reference[:, None]
    )
    return replace(tracks, xy=moved.astype(np.float32))


def test_a_model_of_exact_tracks_reprojects_exactly() -> None:
    photos, tracks, points, _ = exact()
    model = true_model(photos, tracks, points)
    model.update_point_3d_errors()
    assert model.num_points3D() == tracks.count
    assert model.compute_num_observations() == len(tracks.track_id)
    assert model.compute_mean_reprojection_error() < 1e-3
    xyz, held = points_of_tracks(model, photos, tracks)
    assert held.all()
    np.testing.assert_allclose(xyz, points)


def test_positions_are_recovered_by_planes() -> None:
    photos, tracks, points, images = exact()
    model = true_model(photos, tracks, points)
    start = noisy(tracks, 0.4)
    refined, aligned = refine_with_geometry(images, start, model, photos)
    assert aligned.mean() > 0.95
    error = np.linalg.norm(refined.xy - tracks.xy, axis=1)[aligned]
    assert np.median(error) < 0.01
    assert np.percentile(error, 99) < 0.05
    assert refined.affinity is not None
    assert tracks.affinity is not None
    # The warp is the plane's: its derivative is the exact affinity.
    np.testing.assert_allclose(refined.affinity[aligned], tracks.affinity[aligned], atol=0.03)
    threaded, _ = refine_with_geometry(images, start, model, photos, threads=2)
    np.testing.assert_array_equal(threaded.xy, refined.xy)


def test_lost_observations_are_found_again() -> None:
    photos, tracks, points, images = exact()
    rng = np.random.default_rng(3)
    assert tracks.is_reference is not None
    gone = (rng.random(len(tracks.track_id)) < 0.4) & ~tracks.is_reference
    left = np.bincount(tracks.track_id[~gone], minlength=tracks.count)
    numbers = np.nonzero(left >= 2)[0]  # tracks that a model can hold, in the order of their new numbers
    fewer = select_observations(tracks, ~gone)
    assert fewer.count == len(numbers)
    model = true_model(photos, fewer, points[numbers])
    longer = complete_tracks(images, fewer, model, photos)
    lost = (gone & np.isin(tracks.track_id, numbers)).sum()
    assert len(longer.track_id) > len(fewer.track_id) + 0.9 * lost
    truth = {
        (int(t), int(p)): xy for t, p, xy in zip(tracks.track_id, tracks.photo_id, tracks.xy, strict=True)
    }
    errors = [
        np.linalg.norm(xy - truth[int(numbers[t]), int(p)])
        for t, p, xy in zip(longer.track_id, longer.photo_id, longer.xy, strict=True)
        if (int(numbers[t]), int(p)) in truth
    ]
    assert len(errors) > 0.95 * len(longer.track_id)
    assert np.percentile(errors, 99) < 0.05
    # A photo of something else gains nothing.
    images[4] = np.random.default_rng(0).uniform(0, 255, images[4].shape).astype(np.float32)
    without = select_observations(tracks, tracks.photo_id != 4, min_length=2)
    assert not (
        complete_tracks(images, without, true_model(photos, without, points), photos).photo_id == 4
    ).any()


def test_polishing_makes_cameras_better(tmp_path: Path) -> None:
    photos, tracks, points, images = exact()
    start = noisy(tracks, 0.4)
    rng = np.random.default_rng(8)
    assert start.is_reference is not None
    start = select_observations(start, (rng.random(len(start.track_id)) > 0.2) | start.is_reference)
    graph, geometries = graph_of(photos, start)
    write_database(tmp_path / "d.db", photos, start, geometries)
    settings = MappingSettings(threads=1)
    first = map_incremental(tmp_path / "d.db", photos, graph, settings).best
    assert first is not None
    assert first.num_reg_images() == 5
    names = [photo.name for photo in photos.photos]
    scene = PointScene(points, POSES, CAMERA)
    before = centre_errors(camera_centers(first), scene, names)
    observations = first.compute_num_observations()
    polished = polish_model(first, images, photos, start, settings)
    after = centre_errors(camera_centers(polished.model), scene, names)
    assert after.mean() < 0.25 * before.mean()
    assert polished.model.compute_mean_reprojection_error() < 0.05
    assert polished.model.compute_num_observations() > observations
    # The model given stays as it was, and the new one belongs to the new tracks.
    assert first.compute_num_observations() == observations
    _, held = points_of_tracks(polished.model, photos, polished.tracks)
    assert held.mean() > 0.95


def test_tracks_without_affinities_are_refused() -> None:
    photos, tracks, points, images = exact()
    bare = Tracks(tracks.track_id, tracks.photo_id, tracks.xy)
    model = true_model(photos, tracks, points)
    for refine in (refine_with_geometry, complete_tracks):
        with pytest.raises(ValueError, match="refine_tracks first"):
            refine(images, bare, model, photos, RefinementSettings())


def test_loss_scale_follows_the_residuals() -> None:
    """Twice the median error of the points, between a tenth of a pixel and what is asked for."""

    def scale(*errors: float) -> float:
        model = pycolmap.Reconstruction()
        for error in errors:
            number = model.add_point3D(np.zeros(3), pycolmap.Track(), np.zeros(3, np.uint8))
            model.point3D(number).error = error
        return fine_loss_scale(model, 1.0)

    assert scale(0.05, 0.1, 3.0) == pytest.approx(0.2)
    assert scale(0.01, 0.02, 0.03) == pytest.approx(0.1)
    assert scale(0.7, 0.8, 0.9) == pytest.approx(1.0)
    assert scale() == pytest.approx(1.0)
