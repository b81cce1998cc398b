"""Surface evaluation on planes, where every distance and every visibility is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from recon.core.mesh import Mesh
from recon.core.similarity import Similarity3
from recon.evaluation.surface import (
    SurfaceProtocol,
    evaluate_surface,
    points_to_judge,
    sample_mesh,
    thin,
    truth_depths,
    visible_count,
)
from recon.synthetic.paths import look_at, pinhole_views

ABOVE = pinhole_views(
    [look_at((x, 0, 4), (x, 0, 0), up=(0, 1, 0)) for x in (-0.5, 0.5)], 200, 200, field_of_view=40
)
"""Two cameras that look straight down; at height 0 each sees a square with sides of 2.91."""


def square(half: float, height: float = 0.0) -> Mesh:
    corners = np.array([[-half, -half], [half, -half], [half, half], [-half, half]])
    vertices = np.column_stack([corners, np.full(4, height)]).astype(np.float32)
    return Mesh(vertices, np.array([[0, 1, 2], [0, 2, 3]], np.int32))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31))
def test_a_cloud_equals_itself_in_any_world(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(200, 3))
    moved = Similarity3(3.0, Rotation.random(random_state=rng).as_matrix(), rng.normal(size=3))
    report = evaluate_surface(moved(points), points, (), (1e-3,), moved.inverse())
    assert report.f_score == (1.0,)
    assert report.chamfer < 1e-5


def test_a_lifted_plane() -> None:
    truth, estimate = square(1.0), square(1.0, 0.03)
    report = evaluate_surface(estimate, truth, (), (0.02, 0.04), protocol=SurfaceProtocol(samples=2000))
    assert report.precision == (0.0, 1.0)
    assert report.recall == (0.0, 1.0)
    assert report.accuracy == pytest.approx((0.03, 0.03), rel=1e-4)
    assert report.chamfer == pytest.approx(0.03, rel=1e-4)


def test_half_a_plane_is_half_the_recall() -> None:
    half = square(1.0)
    half.vertices[1:3, 0] = 0.0
    report = evaluate_surface(half, square(1.0), (), (1e-4,), protocol=SurfaceProtocol(samples=20000))
    assert report.precision == (1.0,)
    assert report.recall[0] == pytest.approx(0.5, abs=0.01)
    assert report.f_score[0] == pytest.approx(2 / 3, abs=0.01)


def test_truth_that_no_camera_sees_is_not_missed() -> None:
    """A second plane lies hidden under the first, and the plane is larger than the pictures."""
    seen, hidden = square(3.0), square(3.0, -1.0)
    truth = Mesh(
        np.concatenate([seen.vertices, hidden.vertices]), np.concatenate([seen.faces, seen.faces + 4])
    )
    estimate = square(1.6)
    strict = evaluate_surface(estimate, truth, (), (0.01,), protocol=SurfaceProtocol(samples=20000))
    fair = evaluate_surface(estimate, truth, ABOVE, (0.01,), protocol=SurfaceProtocol(samples=20000))
    assert strict.recall[0] < 0.2
    assert fair.recall[0] == 1.0
    # Both cameras see a strip 1.91 wide and 2.91 long, of 2 · 36 area units.
    assert fair.seen / fair.sampled == pytest.approx(1.91 * 2.91 / 72, abs=0.01)
    one = evaluate_surface(
        estimate, truth, ABOVE, (0.01,), protocol=SurfaceProtocol(samples=20000, min_views=1)
    )
    assert one.seen / one.sampled == pytest.approx(3.91 * 2.91 / 72, abs=0.015)


def test_floaters_count_and_surroundings_do_not() -> None:
    truth = square(0.5)
    points = np.array(
        [
            [0, 0, 0],  # on the truth
            [0, 0, 1.0],  # a floater in front of it
            [0.2, 0, -1.0],  # behind it for both cameras
            [1.2, 0, 0],  # beside it: no truth there
            [9, 9, 0],  # outside all pictures
            [-0.6, 0, -3.9],  # the right camera sees it behind the truth, the left one beside it
        ],
        np.float32,
    )
    report = evaluate_surface(points, truth, ABOVE, (0.01,), protocol=SurfaceProtocol(samples=1000))
    assert (report.judged, report.estimated) == (2, 6)
    assert report.precision[0] == pytest.approx(1 / 2)
    assert report.behind == pytest.approx(1 / 6)
    strict = evaluate_surface(
        points, truth, ABOVE, (0.01,), protocol=SurfaceProtocol(samples=1000, behind="wrong")
    )
    assert (strict.judged, strict.estimated) == (3, 6)
    assert strict.precision[0] == pytest.approx(1 / 3)


def test_what_each_view_sees_makes_up_the_whole() -> None:
    """What only the right camera sees of the estimate is lifted, and hardly counts for the left one."""
    estimate = square(1.9)
    right = square(1.9, 0.05)
    for half, x in ((estimate, (-1.9, 0.9)), (right, (0.9, 1.9))):
        half.vertices[[0, 3], 0], half.vertices[[1, 2], 0] = x
    both = Mesh(
        np.concatenate([estimate.vertices, right.vertices]), np.concatenate([estimate.faces, right.faces + 4])
    )
    how = SurfaceProtocol(samples=20000, min_views=1)
    found = evaluate_surface(both, square(3.0), ABOVE, (0.01, 0.1), protocol=how)
    assert found.by_view.shape == (2, 2, 4)
    whole = found.by_view.sum(axis=0)
    np.testing.assert_allclose(whole[:, 0] / whole[:, 1], found.precision)
    np.testing.assert_allclose(whole[:, 2] / whole[:, 3], found.recall)
    assert whole[0, [1, 3]].tolist() == pytest.approx([found.judged, found.seen])
    precision = found.by_view[:, 0, 0] / found.by_view[:, 0, 1]
    # The left camera sees up to x = 0.955, the right one all that is lifted, 1 wide, and alone nearly all of it.
    assert precision[0] > 0.95
    assert precision[1] == pytest.approx(1 - (0.945 + 0.055 / 2) / (0.945 + 1.91 / 2), abs=0.03)
    assert not evaluate_surface(both, square(3.0), (), (0.01,), protocol=how).by_view.size
    without = evaluate_surface(both, square(3.0), ABOVE, (0.01, 0.1), protocol=replace(how, by_view=False))
    assert (without.precision, without.recall, without.by_view.size) == (found.precision, found.recall, 0)


def test_judgement_by_hand() -> None:
    depth = np.full((200, 200), 4.0, np.float32)
    depth[:, :100] = 0
    points = np.array([[0.7, 0, 0], [0.7, 0, -0.5], [0.3, 0, 0], [0.7, 0, 9]], np.float32)
    seen = [(ABOVE[1], depth)]
    front, behind = points_to_judge(points, seen, 0.1)
    assert front.tolist() == [True, False, False, False]
    assert behind.tolist() == [False, True, False, False]
    assert points_to_judge(points, seen, 0.6)[0].tolist() == [True, True, False, False]
    assert visible_count(points, seen, 0.1).tolist() == [1, 0, 0, 0]


def test_truth_from_a_scan() -> None:
    """Points instead of a mesh: the holes between them do not make points unjudged."""
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 150), np.linspace(-1, 1, 150)), -1).reshape(-1, 2)
    scan = np.column_stack([grid, np.zeros(len(grid))]).astype(np.float32)
    estimate = sample_mesh(square(0.8), 5000) + np.array([0, 0, 0.02], np.float32)
    report = evaluate_surface(estimate, scan, ABOVE, (0.01, 0.05))
    assert report.judged == 5000
    assert report.precision == (0.0, 1.0)


def test_samples_are_even_by_area() -> None:
    mesh = Mesh(
        np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 5], [3, 0, 5], [0, 1, 5]], np.float32),
        np.array([[0, 1, 2], [3, 4, 5]], np.int32),
    )
    points = sample_mesh(mesh, 8000, seed=2)
    assert (points[:, 2] > 1).sum() == 6000
    np.testing.assert_allclose(points[points[:, 2] < 1].mean(axis=0), [1 / 3, 1 / 3, 0], atol=0.02)
    assert len(sample_mesh(Mesh(mesh.vertices[:0], mesh.faces[:0]), 10)) == 0


def test_nothing_estimated() -> None:
    report = evaluate_surface(
        np.zeros((0, 3)), square(1.0), ABOVE, (0.1,), protocol=SurfaceProtocol(samples=500)
    )
    assert report.precision == (0.0,)
    assert report.recall == (0.0,)
    assert report.f_score == (0.0,)
    with pytest.raises(ValueError, match="threshold"):
        evaluate_surface(np.zeros((1, 3)), square(1.0), thresholds=())


def noisy_pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    truth = rng.uniform(-1, 1, (4000, 3)).astype(np.float32)
    estimate = (truth[:3000] + rng.normal(0, 0.02, (3000, 3))).astype(np.float32)
    return estimate, truth


def test_distances_against_open3d() -> None:
    """Open3D's own nearest-neighbour distances, with the definitions of Tanks and Temples and of DTU written out."""
    import open3d as o3d

    estimate, truth = noisy_pair()
    clouds = [
        o3d.geometry.PointCloud(o3d.utility.Vector3dVector(p.astype(np.float64))) for p in (estimate, truth)
    ]
    accuracy = np.asarray(clouds[0].compute_point_cloud_distance(clouds[1]))
    completeness = np.asarray(clouds[1].compute_point_cloud_distance(clouds[0]))
    report = evaluate_surface(estimate, truth, (), (0.02, 0.05), protocol=SurfaceProtocol(max_distance=0.06))
    for k, t in enumerate((0.02, 0.05)):
        p, r = (accuracy <= t).mean(), (completeness <= t).mean()
        assert report.precision[k] == pytest.approx(p, abs=1e-3)
        assert report.recall[k] == pytest.approx(r, abs=1e-3)
        assert report.f_score[k] == pytest.approx(2 * p * r / (p + r), abs=1e-3)
    # DTU: distances above the longest are left out of the means.
    overall = (accuracy[accuracy <= 0.06].mean() + completeness[completeness <= 0.06].mean()) / 2
    assert report.chamfer == pytest.approx(overall, rel=1e-3)
    x, precision, recall = report.curve.T
    assert (x[0], x[-1]) == (0.0, pytest.approx(0.05))
    np.testing.assert_allclose(precision, [(accuracy <= t).mean() for t in x], atol=2e-3)
    np.testing.assert_allclose(recall, [(completeness <= t).mean() for t in x], atol=2e-3)


def test_thinning_against_open3d() -> None:
    import open3d as o3d

    points, _ = noisy_pair()
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points.astype(np.float64)))
    # Open3D's grid starts half a voxel below the smallest coordinates.
    shifted = np.concatenate([points, points.min(axis=0, keepdims=True) - np.float32(0.05)])
    ours = thin(shifted, 0.1)
    theirs = np.asarray(cloud.voxel_down_sample(0.1).points)
    alone = np.linalg.norm(ours - shifted[-1], axis=1) < 1e-5
    ours = ours[~alone]
    assert len(ours) == len(theirs)
    order = [np.lexsort(np.round(p, 4).T) for p in (ours, theirs)]
    np.testing.assert_allclose(ours[order[0]], theirs[order[1]], atol=1e-5)
    assert thin(np.zeros((0, 3)), 0.1).shape == (0, 3)
    with pytest.raises(ValueError, match="voxel"):
        thin(points, 0.0)


def test_average_over_voxels_by_hand() -> None:
    """ETH3D: 99 right points in one voxel and one wrong one in another are a half."""
    truth = np.array([[0.5, 0.5, 0.5], [5.5, 0.5, 0.5], [0, 0, 0]], np.float32)
    estimate = np.concatenate([np.tile([[0.5, 0.5, 0.5]], (99, 1)), [[5.5, 0.9, 0.5]]]).astype(np.float32)
    plain = evaluate_surface(estimate, truth, (), (0.1,))
    voxels = evaluate_surface(estimate, truth, (), (0.1,), protocol=SurfaceProtocol(average_voxel=1.0))
    assert plain.precision[0] == pytest.approx(0.99)
    assert voxels.precision[0] == pytest.approx(0.5)
    # Of the truth, one of two points in the first voxel is found, and none in the second.
    assert voxels.recall[0] == pytest.approx(0.25)


def test_region_of_a_benchmark() -> None:
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 21), np.linspace(-1, 1, 21)), -1).reshape(-1, 2)
    truth = np.column_stack([grid, np.zeros(441)]).astype(np.float32)
    estimate = truth + np.where(truth[:, :1] > 0, np.float32(1.0), np.float32(0.0)) * [0, 0, 1]
    report = evaluate_surface(estimate, truth, (), (0.01,), region=lambda points: points[:, 0] <= 0)
    assert report.precision == (1.0,)
    assert report.recall == (1.0,)
    assert report.judged == report.seen == 231


def test_a_sparse_scan_has_no_holes_to_fall_through() -> None:
    """Forty points across 200 px: the depth buffer shrinks until a floater before the scan is before something."""
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 40), np.linspace(-1, 1, 40)), -1).reshape(-1, 2)
    scan = np.column_stack([grid, np.zeros(len(grid))]).astype(np.float32)
    views = tuple(view.resized(800, 800) for view in ABOVE)
    floaters = np.random.default_rng(0).uniform([-0.5, -0.5, 0.5], [0.5, 0.5, 1.0], (500, 3))
    report = evaluate_surface(floaters, scan, views, (0.05,))
    assert report.judged == 500
    assert report.precision == (0.0,)
    assert all(view.width < 800 for view, _ in truth_depths(scan, views))
    behind = evaluate_surface(floaters * [1, 1, -1], scan, views, (0.05,))
    assert behind.judged == 0
    assert behind.behind == 1.0


def test_few_points_are_judged_against_a_truth_that_knows_all() -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (50_000, 3)) * [1, 1, 0]
    every = evaluate_surface(points, square(1.0), ABOVE, (0.01,), protocol=SurfaceProtocol(20_000))
    how = SurfaceProtocol(20_000, most_judged=1000)
    some = evaluate_surface(points, square(1.0), ABOVE, (0.01,), protocol=how)
    assert (some.judged, some.estimated) == (1000, 50_000)
    assert some.recall == every.recall
    assert some.precision == every.precision == (1.0,)


def test_empty_estimate_and_truth() -> None:
    report = evaluate_surface(
        np.full((4, 3), np.nan), square(1.0), ABOVE, (0.1,), protocol=SurfaceProtocol(samples=100)
    )
    assert report.precision == report.recall == (0.0,)
    assert (report.judged, report.estimated) == (0, 0)
    with pytest.raises(ValueError, match="empty"):
        evaluate_surface(np.zeros((1, 3)), np.zeros((0, 3)), (), (0.1,))
    with pytest.raises(ValueError, match="threshold"):
        evaluate_surface(np.zeros((1, 3)), np.zeros((1, 3)), (), ())
