"""Pose evaluation: alignment recovers what was applied, errors are those that were put in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from recon.core.similarity import Similarity3, camera_center
from recon.errors import ReconError
from recon.evaluation.bootstrap import area_under_curve
from recon.evaluation.poses import (
    align_cameras,
    align_similarity,
    align_similarity_robust,
    evaluate_poses,
    matched_names,
    multi_view_errors,
    poses_from_colmap,
    relative_pose,
    relative_pose_error,
    rotation_angle,
    two_view_errors,
)
from recon.io.cameras_json import poses_from_cameras_json, read_cameras_json


def random_similarity(rng: np.random.Generator) -> Similarity3:
    rotation = Rotation.random(random_state=rng).as_matrix()
    return Similarity3(float(np.exp(rng.uniform(-3, 3))), rotation, rng.normal(size=3) * 10)


def random_cameras(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    out = {}
    for i in range(count):
        R = Rotation.random(random_state=rng).as_matrix()
        out[f"{i}.jpg"] = np.column_stack([R, -R @ rng.normal(size=3)])
    return out


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(3, 30))
def test_alignment_recovers_a_similarity(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(count, 3))
    true = random_similarity(rng)
    found = align_similarity(points, true(points))
    assert np.isclose(found.scale, true.scale, rtol=1e-6)
    np.testing.assert_allclose(found(points), true(points), atol=1e-6 * true.scale + 1e-7)
    assert np.linalg.det(found.rotation) > 0
    np.testing.assert_allclose(found.inverse()(found(points)), points, atol=1e-7)
    np.testing.assert_allclose(
        (np.column_stack([points, np.ones(count)]) @ found.matrix.T)[:, :3],
        found(points),
        atol=1e-8 * true.scale,
    )


def test_alignment_is_a_minimum() -> None:
    """No nearby similarity fits noisy points better."""
    rng = np.random.default_rng(4)
    a = rng.normal(size=(12, 3))
    b = random_similarity(rng)(a) + 0.3 * rng.normal(size=(12, 3))
    best = align_similarity(a, b)
    least = ((best(a) - b) ** 2).sum()
    for _ in range(200):
        turn = Rotation.from_rotvec(rng.normal(size=3) * 0.01).as_matrix()
        other = Similarity3(
            best.scale * float(np.exp(rng.normal() * 0.01)),
            turn @ best.rotation,
            best.translation + rng.normal(size=3) * 0.01,
        )
        assert ((other(a) - b) ** 2).sum() >= least


def test_mirrored_points_are_not_mirrored_back() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(10, 3))
    assert np.linalg.det(align_similarity(a, a * [1, 1, -1]).rotation) > 0.999


def test_robust_alignment_ignores_a_third_of_wrong_points() -> None:
    rng = np.random.default_rng(7)
    a = rng.normal(size=(30, 3))
    true = random_similarity(rng)
    b = true(a)
    b[:10] += 50 * true.scale
    found = align_similarity_robust(a, b)
    np.testing.assert_allclose(found(a[10:]), b[10:], atol=1e-6 * true.scale)
    assert np.linalg.norm(align_similarity(a, b)(a[10:]) - b[10:], axis=1).mean() > true.scale


@pytest.mark.parametrize("points", [np.zeros((1, 3)), np.ones((5, 3))])
def test_alignment_refuses_what_it_cannot_do(points: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"two or more|one place"):
        align_similarity(points, points)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(3, 8))
def test_poses_in_another_world_have_no_error(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    truth = random_cameras(rng, count)
    estimate_from_truth = random_similarity(rng)
    estimate = {name: estimate_from_truth.camera(pose) for name, pose in truth.items()}
    report = evaluate_poses(estimate, truth)
    assert report.center_max < 1e-6
    assert report.rotation_errors.max() < 1e-5
    assert all(area > 0.9999 for area in report.auc.values())


def test_the_camera_of_a_moved_world_makes_the_same_picture() -> None:
    rng = np.random.default_rng(1)
    pose = random_cameras(rng, 1)["0.jpg"]
    moved = random_similarity(rng)
    X = rng.normal(size=(20, 3))
    before = X @ pose[:, :3].T + pose[:, 3]
    other = moved.camera(pose)
    after = moved(X) @ other[:, :3].T + other[:, 3]
    np.testing.assert_allclose(after, moved.scale * before, rtol=1e-9, atol=1e-9)


def test_collinear_centers_take_their_rotation_from_the_cameras() -> None:
    rng = np.random.default_rng(2)
    truth = {}
    for i in range(5):
        R = Rotation.random(random_state=rng).as_matrix()
        truth[f"{i}"] = np.column_stack([R, -R @ np.array([float(i), 0, 0])])
    moved = random_similarity(rng)
    estimate = {name: moved.camera(pose) for name, pose in truth.items()}
    for names in (list(truth), list(truth)[:2]):
        back = align_cameras({n: estimate[n] for n in names}, truth)
        np.testing.assert_allclose(back(moved(np.eye(3))), np.eye(3), atol=1e-7)


def test_centres_nearly_in_a_line_do_not_turn_what_the_cameras_rotations_hold() -> None:
    rng = np.random.default_rng(3)
    truth = {}
    for i in range(7):
        R = Rotation.random(random_state=rng).as_matrix()
        truth[f"{i}"] = np.column_stack([R, -R @ np.array([float(i), 0.02 * (i % 2), 0])])
    moved = random_similarity(rng)
    estimate = {}
    for name, pose in truth.items():
        away = moved.camera(pose)
        noise = moved.scale * rng.normal(scale=0.005, size=3)
        estimate[name] = np.column_stack([away[:, :3], away[:, 3] - away[:, :3] @ noise])
    errors = [
        Rotation.from_matrix(
            align_cameras(estimate, truth, by_rotations=how).rotation @ moved.rotation
        ).magnitude()
        for how in (False, True)
    ]
    assert errors[0] > 0.05
    assert errors[1] < 1e-6


def test_known_errors_come_out() -> None:
    """Four cameras at the corners of a square; symmetric errors cannot be aligned away."""
    truth, estimate = {}, {}
    for i, (x, y) in enumerate([(1, 1), (-1, 1), (-1, -1), (1, -1)]):
        truth[f"{i}"] = np.column_stack([np.eye(3), -np.array([x, y, 0.0])])
        # Alternately up and down by 0.1: scale, rotation and shift cannot take this away.
        center = np.array([x, y, 0.1 * (-1) ** i])
        R = Rotation.from_euler("z", 2.0 if i == 0 else 0.0, degrees=True).as_matrix()
        estimate[f"{i}"] = np.column_stack([R, -R @ center])
    truth["4"] = np.column_stack([np.eye(3), [0, 0, 5.0]])
    report = evaluate_poses(estimate, truth)
    scale = 2 / (2 + 0.01)  # least squares: sum(a·b) / sum(a²) with a² = 2 + 0.01
    expected = np.hypot((1 - scale) * np.sqrt(2), 0.1 * scale)
    np.testing.assert_allclose(report.center_errors, expected, rtol=1e-9)
    np.testing.assert_allclose(report.rotation_errors, [2, 0, 0, 0], atol=1e-6)
    assert (report.registered, report.total) == (4, 5)
    # Four of the ten pairs lack a camera.
    assert report.auc[20.0] < 0.6


def test_area_under_curve_by_hand() -> None:
    # Recall rises linearly to 1/2 at 1 degree, then to 1 at 3 degrees.
    errors = np.array([1.0, 3.0])
    assert area_under_curve(errors, 3.0) == pytest.approx((0.25 + 0.5 * 2) / 3)
    assert area_under_curve(errors, 5.0) == pytest.approx((0.25 + 1.5 + 2.0) / 5)
    assert area_under_curve(np.array([np.inf, np.inf]), 5.0) == 0.0
    assert area_under_curve(np.zeros(4), 5.0) == pytest.approx(1.0)


@given(st.floats(0, np.pi))
def test_rotation_angle(angle: float) -> None:
    axis = np.array([0.36, 0.48, 0.8])
    assert rotation_angle(Rotation.from_rotvec(axis * angle).as_matrix()) == pytest.approx(angle, abs=1e-7)


def test_cameras_json(tmp_path: Path) -> None:
    path = tmp_path / "cameras.json"
    entry = {
        "name": "a.jpg", "width": 8, "height": 6, "fx": 9, "fy": 10, "cx": 3.5, "cy": 2.5,
        "R": np.eye(3).tolist(), "t": [1, 2, 3],
    }  # fmt: skip
    path.write_text(json.dumps({"images": [entry]}))
    view = read_cameras_json(path)["a.jpg"]
    np.testing.assert_allclose(view.center, [-1, -2, -3])
    np.testing.assert_allclose(view.K, [[9, 0, 3.5], [0, 10, 2.5], [0, 0, 1]])
    np.testing.assert_allclose(poses_from_cameras_json(path)["a.jpg"][:, 3], [1, 2, 3])
    del entry["R"]
    path.write_text(json.dumps({"images": [entry]}))
    with pytest.raises(ReconError, match=r"cameras\.json.*'R'"):
        read_cameras_json(path)
    with pytest.raises(ReconError, match="no such file"):
        read_cameras_json(tmp_path / "other.json")


def test_colmap_model(tmp_path: Path) -> None:
    """A text model written by hand, by COLMAP's documentation of the format."""
    R = Rotation.from_euler("xyz", [10, -20, 30], degrees=True)
    x, y, z, w = R.as_quat()
    (tmp_path / "cameras.txt").write_text("1 PINHOLE 8 6 9 10 4 3\n")
    (tmp_path / "images.txt").write_text(f"1 {w} {x} {y} {z} 1 2 3 1 a.jpg\n\n")
    (tmp_path / "points3D.txt").write_text("")
    poses = poses_from_colmap(tmp_path)
    np.testing.assert_allclose(poses["a.jpg"][:, :3], R.as_matrix(), atol=1e-12)
    np.testing.assert_allclose(poses["a.jpg"][:, 3], [1, 2, 3])
    np.testing.assert_allclose(camera_center(poses["a.jpg"]), -R.as_matrix().T @ [1, 2, 3])
    with pytest.raises(ReconError, match="no whole COLMAP model"):
        poses_from_colmap(tmp_path / "nothing")


def test_relative_errors_by_hand() -> None:
    """B turned by 3 degrees about its own centre: its rotation is off by 3, and no baseline changes."""
    truth = {
        "a": np.eye(3, 4),
        "b": np.column_stack([np.eye(3), [-1.0, 0, 0]]),
        "c": np.column_stack([np.eye(3), [0, -1.0, 0]]),
    }
    turn = Rotation.from_euler("y", 3, degrees=True).as_matrix()
    estimate = {"a": truth["a"], "b": turn @ truth["b"]}
    errors = multi_view_errors(estimate, truth)
    # Seen from A, the direction to B is that of B's translation, which the turn moves along.
    assert errors["a", "b"] == pytest.approx(3.0)
    assert errors["a", "c"] == errors["b", "c"] == np.inf
    np.testing.assert_allclose(list(multi_view_errors(estimate, truth).values()), [3.0, np.inf, np.inf])


def test_the_sign_of_a_two_view_translation_is_folded() -> None:
    known = np.column_stack([np.eye(3), [1.0, 0, 0]])
    backwards = np.column_stack([np.eye(3), [-2.0, 0, 0]])
    tilted = np.column_stack([np.eye(3), [-1.0, np.tan(np.radians(4)), 0]])
    assert relative_pose_error(backwards, known) == pytest.approx(180.0)
    assert relative_pose_error(backwards, known, fold=True) == pytest.approx(0.0, abs=1e-9)
    found = {("a", "b"): tilted, ("d", "c"): np.column_stack([np.eye(3), [-1.0, 0, 0]])}
    errors = two_view_errors(found, {("a", "b"): known, ("c", "d"): known, ("e", "f"): known})
    assert errors["a", "b"] == pytest.approx(4.0)
    assert errors["c", "d"] == pytest.approx(0.0, abs=1e-9)  # kept the other way round
    assert errors["e", "f"] == np.inf


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_relative_error_against_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    (a, b), (c, d) = list(random_cameras(rng, 2).values()), list(random_cameras(rng, 2).values())
    one, other = relative_pose(a, b), relative_pose(c, d)
    lift = [np.vstack([pose, [0, 0, 0, 1]]) for pose in (a, b)]
    np.testing.assert_allclose(one, (lift[1] @ np.linalg.inv(lift[0]))[:3], atol=1e-12)
    turn = np.degrees(
        (Rotation.from_matrix(one[:, :3]) * Rotation.from_matrix(other[:, :3]).inv()).magnitude()
    )
    cosine = one[:, 3] @ other[:, 3] / np.linalg.norm(one[:, 3]) / np.linalg.norm(other[:, 3])
    direction = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    assert relative_pose_error(one, other) == pytest.approx(max(turn, direction), abs=1e-4)


def test_area_against_the_integral_of_the_recall() -> None:
    """With many errors the trapezoids are the integral of the recall, min over the limit: mean of 1 - e/limit."""
    errors = np.random.default_rng(0).gamma(2.0, 3.0, 5000)
    for limit in (1.0, 5.0, 20.0):
        assert area_under_curve(errors, limit) == pytest.approx(
            np.clip(1 - errors / limit, 0, None).mean(), abs=1e-3
        )


def test_robust_errors_show_the_one_bad_camera() -> None:
    rng = np.random.default_rng(3)
    truth = random_cameras(rng, 12)
    moved = random_similarity(rng)
    estimate = {name: moved.camera(pose) for name, pose in truth.items()}
    bad = estimate["3.jpg"].copy()
    bad[:, 3] += 30 * moved.scale
    estimate["3.jpg"] = bad
    plain, robust = evaluate_poses(estimate, truth), evaluate_poses(estimate, truth, robust=True)
    others = [i for i, name in enumerate(robust.names) if name != "3.jpg"]
    assert robust.center_errors[others].max() < 1e-6
    assert plain.center_errors[others].mean() > 0.1
    assert robust.center_errors.max() > 10
    del estimate["5.jpg"]
    report = evaluate_poses(estimate, truth, robust=True)
    assert report.missing == ("5.jpg",)
    assert "not registered: 5.jpg" in report.text()
    assert sum(np.isinf(list(report.pair_errors.values()))) == 11


def test_names_of_photos_in_other_forms() -> None:
    truth = ["a/1.jpg", "a/2.jpg", "b/3.jpg"]
    assert matched_names(["a/1.jpg", "x"], truth) == {"a/1.jpg": "a/1.jpg"}
    assert matched_names(["1.jpg", "u\\2.jpg"], truth) == {"1.jpg": "a/1.jpg", "u\\2.jpg": "a/2.jpg"}
    assert matched_names(["1.png", "3.png"], truth) == {"1.png": "a/1.jpg", "3.png": "b/3.jpg"}
    # Two photos of one name in different folders cannot be told apart.
    assert matched_names(["1.jpg"], ["a/1.jpg", "b/1.jpg"]) == {}
    assert matched_names([], truth) == {}
