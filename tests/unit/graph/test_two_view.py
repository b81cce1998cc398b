"""Two-view geometry on exact and contaminated synthetic pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from recon.core.cameras import Intrinsics
from recon.core.posed import Camera
from recon.core.resize import resize_points
from recon.graph.evidence import transfer_errors
from recon.graph.two_view import (
    MIN_CONFIDENCE_ALONE,
    MIN_CONFIDENCE_SUPPORTED,
    geometry_of_posed,
    match_confidence,
    refined_geometry,
    sample_matches,
    verify_pair,
)
from recon.matching.types import DenseMatch, FlowField

KNOWN = Intrinsics("PINHOLE", (700.0, 690.0, 311.0, 245.0), 640, 480, known=True, has_focal_prior=True)
UNKNOWN = Intrinsics("SIMPLE_PINHOLE", (768.0, 319.5, 239.5), 640, 480)


def project(camera: Intrinsics, pose: np.ndarray, points: np.ndarray) -> np.ndarray:
    inside = points @ pose[:, :3].T + pose[:, 3]
    return (inside @ camera.K.T)[:, :2] / inside[:, 2:]


def scene(kind: str, n: int = 300, seed: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matches of a pair and b_from_a: a cloud, a plane, or a cloud seen by a camera that only turns."""
    rng = np.random.default_rng(seed)
    points = rng.uniform([-2, -1.5, 4], [2, 1.5, 9], (n, 3))
    if kind == "plane":
        points[:, 2] = 6 + 0.3 * points[:, 0] - 0.2 * points[:, 1]
    R = Rotation.from_rotvec([0.02, -0.15, 0.04]).as_matrix()
    t = np.zeros(3) if kind == "turn" else np.array([0.8, 0.1, 0.2])
    pose = np.column_stack([R, t])
    a = project(KNOWN, np.eye(3, 4), points)
    b = project(KNOWN, pose, points)
    return a.astype(np.float32), b.astype(np.float32), pose


def test_exact_essential_geometry() -> None:
    a, b, pose = scene("cloud")
    found = verify_pair(a, b, KNOWN, KNOWN)
    assert found.model == "E"
    assert found.inlier_count == len(a)
    assert found.b_from_a is not None
    turned = Rotation.from_matrix(found.b_from_a[:, :3] @ pose[:, :3].T).magnitude()
    assert np.degrees(turned) < 0.01
    direction = pose[:, 3] / np.linalg.norm(pose[:, 3])
    np.testing.assert_allclose(found.b_from_a[:, 3], direction, atol=2e-3)
    assert np.degrees(found.triangulation_angle) == pytest.approx(
        np.degrees(median_angle(pose, a, b)), abs=0.2
    )


def median_angle(pose: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Angle between the rays of matches, computed directly from the rays."""
    inverse = np.linalg.inv(KNOWN.K)
    rays_a = np.column_stack([a, np.ones(len(a))]) @ inverse.T
    rays_b = (np.column_stack([b, np.ones(len(b))]) @ inverse.T) @ pose[:, :3]
    cosine = (rays_a * rays_b).sum(axis=1) / np.linalg.norm(rays_a, axis=1) / np.linalg.norm(rays_b, axis=1)
    return float(np.median(np.arccos(cosine)))


def test_matrix_obeys_the_epipolar_constraint() -> None:
    a, b, pose = scene("cloud")
    for cameras in ((KNOWN, KNOWN), (UNKNOWN, UNKNOWN)):
        found = verify_pair(a, b, *cameras)
        assert found.matrix is not None
        lines = np.column_stack([a, np.ones(len(a))]) @ found.matrix.T
        distance = (lines * np.column_stack([b, np.ones(len(b))])).sum(axis=1) / np.hypot(
            lines[:, 0], lines[:, 1]
        )
        assert np.abs(distance).max() < 0.2
    # An independent essential matrix from the true pose agrees up to scale.
    t = pose[:, 3]
    cross = np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]])
    truth = np.linalg.inv(KNOWN.K).T @ cross @ pose[:, :3] @ np.linalg.inv(KNOWN.K)
    truth /= np.linalg.norm(truth)
    matrix = verify_pair(a, b, KNOWN, KNOWN).matrix
    assert matrix is not None
    assert min(np.abs(matrix - truth).max(), np.abs(matrix + truth).max()) < 1e-3


def test_unknown_focal_length_gives_a_fundamental_matrix() -> None:
    a, b, _ = scene("cloud")
    found = verify_pair(a, b, UNKNOWN, UNKNOWN)
    assert found.model == "F"
    assert found.b_from_a is None
    assert np.isnan(found.triangulation_angle)


@pytest.mark.parametrize("kind", ["plane", "turn"])
@pytest.mark.parametrize("camera", [KNOWN, UNKNOWN])
def test_planes_and_turns_give_a_homography(kind: str, camera: Intrinsics) -> None:
    a, b, _ = scene(kind)
    found = verify_pair(a, b, camera, camera)
    assert found.model == "H"
    assert found.matrix is not None
    mapped = np.column_stack([a, np.ones(len(a))]) @ found.matrix.T
    assert np.abs(mapped[:, :2] / mapped[:, 2:] - b).max() < 0.05


def test_one_of_the_two_poses_of_a_plane_is_right_and_both_explain_it() -> None:
    a, b, pose = scene("plane", 900)
    direction = pose[:, 3] / np.linalg.norm(pose[:, 3])
    # Over the whole photo, points would lie on both sides of the other plane; a part of it leaves both.
    assert verify_pair(a, b, KNOWN, KNOWN).other_b_from_a is None
    part = a[:, 0] > 250
    a, b = a[part], b[part]
    found = verify_pair(a, b, KNOWN, KNOWN)
    assert found.model == "H"
    assert found.b_from_a is not None
    assert found.other_b_from_a is not None

    def away(one: np.ndarray) -> tuple[float, float]:
        turned = Rotation.from_matrix(one[:, :3] @ pose[:, :3].T).magnitude()
        return float(np.degrees(turned)), float(np.degrees(np.arccos(min(one[:, 3] @ direction, 1.0))))

    right, wrong = sorted((found.b_from_a, found.other_b_from_a), key=away)
    assert max(away(right)) < 0.3
    assert max(away(wrong)) > 5
    for one in (right, wrong):
        x, y, z = one[:, 3]
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        matrix = np.linalg.inv(KNOWN.K).T @ cross @ one[:, :3] @ np.linalg.inv(KNOWN.K)
        assert np.median(transfer_errors(matrix, a, b)) < 0.05
    # What is not flat, and a camera that only turned, have no second one.
    for kind in ("cloud", "turn"):
        assert verify_pair(*scene(kind)[:2], KNOWN, KNOWN).other_b_from_a is None


@pytest.mark.parametrize("kind", ["cloud", "plane"])
def test_known_cameras_tell_the_geometry_of_their_pair(kind: str) -> None:
    a, b, pose = scene(kind)
    world = np.column_stack([Rotation.from_rotvec([0.3, -0.2, 0.5]).as_matrix(), [1.0, 2.0, 3.0]])
    second = np.column_stack([pose[:, :3] @ world[:, :3], pose[:, :3] @ world[:, 3] + pose[:, 3]])
    wrong = np.arange(len(b)) % 5 == 0
    b[wrong] += [0.0, 30.0]
    found = geometry_of_posed(a, b, Camera(KNOWN, world), Camera(KNOWN, second))
    assert found is not None
    assert found.model == "E"
    np.testing.assert_array_equal(found.inliers, ~wrong)
    expected = np.column_stack([pose[:, :3], pose[:, 3] / np.linalg.norm(pose[:, 3])])
    np.testing.assert_allclose(found.b_from_a, expected, atol=1e-12)
    angle = median_angle(pose, a[~wrong], b[~wrong])
    assert found.triangulation_angle == pytest.approx(angle, rel=1e-3)
    assert found.matrix is not None
    homogeneous = [np.column_stack([xy, np.ones(len(xy))])[~wrong] for xy in (a, b)]
    lines = homogeneous[0] @ found.matrix.T
    away = (homogeneous[1] * lines).sum(axis=1) / np.hypot(*lines[:, :2].T)
    assert np.abs(away).max() < 1e-3


def test_known_cameras_that_only_turn_or_contradict_the_matches_tell_nothing() -> None:
    a, b, pose = scene("turn")
    moved = pose.copy()
    moved[:, 3] = [1e-3, 0, 0]
    for second in (pose, moved):
        assert geometry_of_posed(a, b, Camera(KNOWN, np.eye(3, 4)), Camera(KNOWN, second)) is None
    a, b, pose = scene("cloud")
    assert geometry_of_posed(a, b + np.float32(200), Camera(KNOWN, np.eye(3, 4)), Camera(KNOWN, pose)) is None


def test_outliers_are_told_from_inliers() -> None:
    a, b, _ = scene("cloud", 400)
    rng = np.random.default_rng(1)
    wrong = rng.random(len(a)) < 0.4
    spoiled = b.copy()
    spoiled[wrong] = rng.uniform([0, 0], [640, 480], (wrong.sum(), 2))
    found = verify_pair(a, spoiled, KNOWN, KNOWN, max_error_px=1.0)
    assert found.model == "E"
    assert found.inliers[~wrong].all()
    # A random point lies within a pixel of its epipolar line now and then, not more.
    assert found.inliers[wrong].mean() < 0.05


def test_noise_without_geometry_gives_nothing() -> None:
    rng = np.random.default_rng(0)
    a = rng.uniform(0, 640, (200, 2)).astype(np.float32)
    b = rng.uniform(0, 640, (200, 2)).astype(np.float32)
    found = verify_pair(a, b, KNOWN, KNOWN, max_error_px=1.0, min_inliers=30)
    assert found.model == "none"
    assert found.matrix is None
    assert found.inlier_count == 0
    assert len(found.inliers) == 200


def test_too_few_matches_and_unequal_input() -> None:
    a, b, _ = scene("cloud", 10)
    assert verify_pair(a, b, KNOWN, KNOWN, min_inliers=15).model == "none"
    assert verify_pair(a[:0], b[:0], KNOWN, KNOWN).model == "none"
    with pytest.raises(ValueError, match="9 in B"):
        verify_pair(a, b[:9], KNOWN, KNOWN)


def test_same_seed_same_answer() -> None:
    a, b, _ = scene("cloud", 200)
    rng = np.random.default_rng(5)
    b = b + rng.normal(0, 1.0, b.shape).astype(np.float32)
    one, two = (verify_pair(a, b, KNOWN, KNOWN, max_error_px=2.0, seed=11) for _ in range(2))
    np.testing.assert_array_equal(one.matrix, two.matrix)
    np.testing.assert_array_equal(one.inliers, two.inliers)


def dense(height: int, width: int, consistent: np.ndarray, confidence: np.ndarray) -> DenseMatch:
    flow = np.zeros((height, width, 2), np.float32)
    flow[..., 0], flow[..., 1] = 3.25, -1.5
    field = FlowField(flow, confidence.astype(np.float32))
    return DenseMatch(field, field, consistent, consistent)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 400), st.floats(0.01, 1.0))
def test_sampling_is_bounded_and_takes_consistent_pixels_only(seed: int, limit: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    consistent = rng.random((40, 60)) < share
    match = sample_matches(dense(40, 60, consistent, rng.random((40, 60))), max_matches=limit)
    assert len(match.score) <= limit
    assert (len(match.score) > 0) == consistent.any()
    x, y = match.xy_a.astype(int).T
    assert consistent[y, x].all()
    assert len(np.unique(y * 60 + x)) == len(x)
    np.testing.assert_allclose(match.xy_b - match.xy_a, np.tile([3.25, -1.5], (len(x), 1)), atol=1e-4)


def test_sampling_prefers_confidence_within_a_cell_but_covers_the_image() -> None:
    confidence = np.zeros((80, 80))
    confidence[:, :40] = 0.9  # the right half is less sure of itself, and must be sampled all the same
    confidence[::4, ::4] += 0.05
    match = sample_matches(dense(80, 80, np.ones((80, 80), bool), confidence), max_matches=400)
    right = (match.xy_a[:, 0] >= 40).mean()
    assert 0.45 < right < 0.55
    assert (match.xy_a % 4 == 0).all()


def test_confidence_of_a_match_is_the_mean_over_the_consistent_pixels_of_both_photos() -> None:
    rng = np.random.default_rng(0)
    fields = [FlowField(np.zeros((9, 7, 2), np.float32), rng.random((9, 7), np.float32)) for _ in range(2)]
    masks = [rng.random((9, 7)) < share for share in (0.2, 0.8)]
    both = np.concatenate([field.confidence[mask] for field, mask in zip(fields, masks, strict=True)])
    assert match_confidence(DenseMatch(*fields, *masks)) == pytest.approx(both.mean(), rel=1e-5)
    nowhere = np.zeros((9, 7), bool)
    assert match_confidence(DenseMatch(*fields, nowhere, nowhere)) == 0.0


def test_confidence_tells_little_overlap_from_none(shared_data: Path) -> None:
    """Photos at the two ends of a walk round the fountain, of which a twentieth of the pixels match; and photos of
    two different places."""
    import recon
    from recon.core.resize import resize_rgb
    from recon.photos.reading import load_photo

    def photo(scene: str, index: int) -> np.ndarray:
        folder = shared_data / "datasets" / "strecha" / scene / "images"
        rgb = load_photo(sorted(folder.iterdir())[index]).rgb
        return resize_rgb(rgb, 320, round(320 * rgb.shape[0] / rgb.shape[1]))

    first, last = photo("fountain-P11", 0), photo("fountain-P11", 7)
    little = recon.match(first, last)
    assert little.consistent_a.mean() < 0.1
    assert match_confidence(little) > MIN_CONFIDENCE_ALONE
    assert match_confidence(recon.match(first, photo("Herz-Jesus-P8", 3))) < MIN_CONFIDENCE_SUPPORTED


def test_points_follow_the_resizing_convention() -> None:
    # The corner of the image (-0.5) stays the corner; the centre of a 2x enlarged pixel moves to its middle.
    points = np.array([[-0.5, -0.5], [0, 0], [63.5, 47.5]], np.float32)
    np.testing.assert_allclose(
        resize_points(points, (64, 48), (128, 96)), [[-0.5, -0.5], [0.5, 0.5], [127.5, 95.5]]
    )


def test_a_forced_model_explains_its_inliers() -> None:
    """Each matrix against the law of its kind, on matches of a cloud with a plane in it, with guessed intrinsics."""
    cloud, plane = scene("cloud", 150), scene("plane", 150, seed=4)
    a, b = (np.concatenate([cloud[k], plane[k]]) for k in range(2))
    pa, pb = (np.column_stack([one, np.ones(len(one))]) for one in (a, b))
    for model in ("F", "E", "H"):
        found = verify_pair(a, b, KNOWN, KNOWN, max_error_px=2.0, model=model)
        assert found.model == model
        inside = found.inliers
        assert found.matrix is not None
        if model == "H":
            moved = pa @ found.matrix.T
            miss = np.linalg.norm(moved[:, :2] / moved[:, 2:] - b, axis=1)
            assert miss[inside].max() <= 2.5
            assert inside[150:].mean() > 0.9  # the plane, by which most of the cloud is not explained
            assert inside[:150].mean() < 0.5
            continue
        lines = pa @ found.matrix.T
        assert np.abs((lines * pb).sum(1) / np.hypot(lines[:, 0], lines[:, 1]))[inside].max() <= 2.5
        assert inside.mean() > 0.95
        values = np.linalg.svd(KNOWN.K.T @ found.matrix @ KNOWN.K)[1]
        assert values[2] < 1e-6 * values[0]
        if model == "E":  # two singular values are the same, which F does not promise
            assert values[1] == pytest.approx(values[0], rel=1e-6)
    # E trusts a guessed focal length, F leaves a known one alone.
    assert verify_pair(a, b, UNKNOWN, UNKNOWN, model="E").model == "E"
    assert verify_pair(*scene("plane")[:2], KNOWN, KNOWN, model="F").model == "F"


def pose_errors(found: np.ndarray, pose: np.ndarray) -> tuple[float, float]:
    """Degrees in rotation and in direction."""
    turned = Rotation.from_matrix(found[:, :3] @ pose[:, :3].T).magnitude()
    cosine = found[:, 3] @ pose[:, 3] / np.linalg.norm(pose[:, 3]) / np.linalg.norm(found[:, 3])
    return float(np.degrees(turned)), float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def ball(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Exact matches on the near side of a ball, seen from two places 25 degrees apart, and b_from_a."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(1500, 3))
    points = 0.7 * points / np.linalg.norm(points, axis=1, keepdims=True)
    middle = np.array([0, 0, 6.0])
    points = points[points[:, 2] < -0.2] + middle
    R = Rotation.from_rotvec([0.02, np.radians(25), 0.03]).as_matrix()
    pose = np.column_stack([R, middle - R @ middle])
    return project(KNOWN, np.eye(3, 4), points), project(KNOWN, pose, points), pose


def test_a_pose_follows_the_tight_matches_where_others_err_alike() -> None:
    """Without texture a smooth flow is a pixel or two off over whole patches; elsewhere it is right to a fraction."""
    before, after = [], []
    for seed in range(5):
        a, b, pose = ball(seed)
        rng = np.random.default_rng(seed)
        weak = rng.random(len(a)) < 0.4
        b += rng.normal(0, 0.1, b.shape)
        b[weak] += 1.5 * np.sin(a[weak, ::-1] / 25 + rng.uniform(0, 6, 2))
        loose = verify_pair(a, b, KNOWN, KNOWN, max_error_px=2.0)
        assert loose.b_from_a is not None
        tight = refined_geometry(loose, a, b, KNOWN, KNOWN, 0.25)
        assert tight.b_from_a is not None
        before.append(max(pose_errors(loose.b_from_a, pose)))
        after.append(max(pose_errors(tight.b_from_a, pose)))
        assert np.linalg.norm(tight.b_from_a[:, 3]) == pytest.approx(1.0)
        assert tight.matrix is not None
        assert np.median(transfer_errors(tight.matrix, a, b)[~weak]) < 0.15  # the matrix is that of the pose
        assert tight.inliers is loose.inliers
    assert np.mean(before) > 0.6
    assert np.mean(after) < 0.4 * np.mean(before)


def test_geometries_without_a_pose_stay_as_they_are() -> None:
    a, b, _ = scene("cloud")
    found = verify_pair(a, b, UNKNOWN, UNKNOWN)
    assert refined_geometry(found, a, b, UNKNOWN, UNKNOWN, 0.25) is found
