"""Measures of matches: by hand, against OpenCV, and on planes whose every projection is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from recon.core.cameras import PinholeView, fundamental_matrix
from recon.evaluation.matches import (
    endpoint_errors_from_depth,
    epipolar_distances,
    evaluate_matches,
    grid_coverage,
    match_repeatability,
)
from recon.matching.types import SparseMatch

K = np.array([[100.0, 0, 49.5], [0, 100.0, 39.5], [0, 0, 1]])
LEFT = PinholeView(0, "a", K, np.eye(3, 4), 100, 80)
RIGHT = PinholeView(1, "b", K, np.column_stack([np.eye(3), [-0.5, 0, 0]]), 100, 80)
"""Half a unit to the right: a plane at depth 5 moves by 10 px to the left."""


def view(seed: int) -> PinholeView:
    rng = np.random.default_rng(seed)
    R = Rotation.from_rotvec(rng.normal(scale=0.3, size=3)).as_matrix()
    calibration = K.copy()
    calibration[0, 0], calibration[1, 1] = 90 + 20 * rng.random(2)
    return PinholeView(seed, str(seed), calibration, np.column_stack([R, rng.normal(size=3)]), 100, 80)


def project(v: PinholeView, X: np.ndarray) -> np.ndarray:
    local = (X @ v.cam_from_world[:, :3].T + v.cam_from_world[:, 3]) @ v.K.T
    return local[:, :2] / local[:, 2:]


def matches(a: np.ndarray, b: np.ndarray) -> SparseMatch:
    return SparseMatch(a.astype(np.float32), b.astype(np.float32), np.ones(len(a), np.float32))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_projections_of_one_point_lie_on_each_others_lines(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = view(seed), view(seed + 1)
    X = rng.normal(size=(20, 3)) + np.array([0, 0, 8])
    assert epipolar_distances(project(a, X), project(b, X), fundamental_matrix(a, b)).max() < 1e-4


def test_symmetric_distance_against_opencv() -> None:
    rng = np.random.default_rng(3)
    F = fundamental_matrix(view(1), view(2))
    a, b = rng.uniform(0, 90, (50, 2)), rng.uniform(0, 90, (50, 2))
    lines_b = cv2.computeCorrespondEpilines(a.reshape(-1, 1, 2), 1, F)[:, 0]
    lines_a = cv2.computeCorrespondEpilines(b.reshape(-1, 1, 2), 2, F)[:, 0]
    d_b = np.abs((lines_b[:, :2] * b).sum(axis=1) + lines_b[:, 2])  # OpenCV's lines have unit normals
    d_a = np.abs((lines_a[:, :2] * a).sum(axis=1) + lines_a[:, 2])
    np.testing.assert_allclose(epipolar_distances(a, b, F), np.sqrt((d_a**2 + d_b**2) / 2), rtol=1e-5)


def test_distances_by_hand() -> None:
    """Side by side: epipolar lines are the rows, and both ends are off by the same."""
    a = np.array([[50, 40], [50, 40], [10, 20], [np.nan, 0]])
    b = np.array([[40, 40], [40, 43], [5, 16], [0, 0]])
    np.testing.assert_allclose(
        epipolar_distances(a, b, fundamental_matrix(LEFT, RIGHT)), [0, 3, 4, np.inf], atol=1e-9
    )
    nowhere = fundamental_matrix(LEFT, LEFT)
    assert np.isinf(epipolar_distances(a, b, nowhere)).all()


def test_report_by_hand() -> None:
    a = np.array([[50, 40], [20, 20], [80, 60], [30, 70]])
    b = a - [10, 0] + [[0, 0], [0, 2], [0, 4], [0, 6]]
    report = evaluate_matches(matches(a, b), LEFT, RIGHT, count=400)
    assert report.count == 400
    assert report.precision == {1.0: 0.25, 3.0: 0.5, 5.0: 0.75}
    assert report.median_epipolar == pytest.approx(3.0)
    # 32 cells along 100 px: 3.125 px each; 80 px make 25.6, so 26 rows.
    assert report.coverage == pytest.approx(4 / (32 * 26))
    assert report.correct_coverage == pytest.approx(2 / (32 * 26))
    assert report.judged == 0
    none = evaluate_matches(matches(np.zeros((0, 2)), np.zeros((0, 2))), LEFT, RIGHT)
    assert none.precision == {1.0: 0.0, 3.0: 0.0, 5.0: 0.0}
    assert none.coverage == 0
    assert "0 matches" in none.text()


def test_endpoint_error_on_a_plane() -> None:
    depth = np.full((80, 100), 5.0, np.float32)
    a = np.array([[50.25, 40.5], [50, 40], [5, 40], [98.9, 10]])
    b = np.array([[40.25, 40.5], [43, 44], [0, 40], [88.9, 10]])
    errors, hidden = endpoint_errors_from_depth(a, b, LEFT, RIGHT, depth)
    np.testing.assert_allclose(errors[[0, 1, 3]], [0, 5, 0], atol=1e-6)
    assert np.isnan(errors[2])  # it would lie 5 px left of the image
    assert hidden.tolist() == [False, False, True, False]


def test_endpoint_error_needs_depth_and_sight() -> None:
    depth = np.full((80, 100), 5.0, np.float32)
    depth[:, 60:] = 10.0
    depth[:, :20] = 0.0
    a = np.array([[59.5, 40], [10, 40], [80, 40], [40, 40]])
    # In B something stands at depth 3 where the third point would be seen.
    other = np.full((80, 100), 5.0, np.float32)
    other[:, 70:80] = 3.0
    errors, hidden = endpoint_errors_from_depth(a, a - [5, 0], LEFT, RIGHT, depth, other)
    # An edge of depth, no depth, hidden, seen.
    assert np.isnan(errors).tolist() == [True, True, True, False]
    assert hidden.tolist() == [False, False, True, False]
    assert errors[3] == pytest.approx(5.0)
    report = evaluate_matches(matches(a, a - [5, 0]), LEFT, RIGHT, depth_a=depth, depth_b=other)
    assert (report.judged, report.impossible) == (0.25, 0.5)
    assert report.endpoint_within == {1.0: 0.0, 3.0: 0.0, 5.0: 1.0}


def test_slanted_depth_is_exact() -> None:
    """Between pixels the inverse depth of a plane is linear."""
    x, y = np.meshgrid(np.arange(100), np.arange(80))
    rays = np.stack([(x - 49.5) / 100, (y - 39.5) / 100, np.ones_like(x)], -1)
    normal = np.array([0.4, 0.1, 1.0])
    depth = (6.0 / (rays @ normal)).astype(np.float32)
    a = np.random.default_rng(0).uniform([30, 20], [80, 60], (40, 2))
    ray = np.column_stack([(a - [49.5, 39.5]) / 100, np.ones(40)])
    b = project(RIGHT, ray * (6.0 / (ray @ normal))[:, None])
    errors, _ = endpoint_errors_from_depth(a, b, LEFT, RIGHT, depth)
    assert errors.max() < 1e-4


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(0, 1000))
def test_coverage_counts_cells(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    xy = rng.uniform(-20, 180, (count, 2))
    cells = set()
    for px, py in xy:
        if -0.5 <= px < 159.5 and -0.5 <= py < 79.5:
            cells.add((int((px + 0.5) // 5), int((py + 0.5) // 5)))
    assert grid_coverage(xy, 160, 80) == pytest.approx(len(cells) / (32 * 16))


def test_full_coverage() -> None:
    x, y = np.meshgrid(np.arange(64), np.arange(48))
    assert grid_coverage(np.stack([x.ravel(), y.ravel()], 1), 64, 48) == 1.0
    assert grid_coverage(np.zeros((0, 2)), 64, 48) == 0.0


def test_repeatability_by_hand() -> None:
    first = matches(np.array([[10, 10], [20, 20], [30, 30]]), np.array([[5, 5], [6, 6], [7, 7]]))
    # The first comes again, the second only at one end, the third not; one of the other's matches is new.
    second = matches(np.array([[10.5, 10], [20, 20]]), np.array([[5, 5.5], [16, 6]]))
    assert match_repeatability([first, second]) == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert match_repeatability([first, first]) == 1.0
    assert np.isnan(match_repeatability([first]))
    nothing = matches(np.zeros((0, 2)), np.zeros((0, 2)))
    assert match_repeatability([first, nothing]) == 0.0
    assert np.isnan(match_repeatability([nothing, nothing]))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_repeatability_against_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    runs = [matches(rng.uniform(0, 12, (30, 2)), rng.uniform(0, 12, (30, 2))) for _ in range(2)]
    shares = []
    for one, other in (runs, runs[::-1]):
        close = [
            np.linalg.norm(x[:, None].astype(float) - y[None], axis=-1) <= 3.0
            for x, y in ((one.xy_a, other.xy_a), (one.xy_b, other.xy_b))
        ]
        shares.append((close[0] & close[1]).any(axis=1).mean())
    assert match_repeatability(runs, 3.0) == pytest.approx(np.mean(shares), abs=1e-12)
