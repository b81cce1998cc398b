"""Dense and sparse matches of one mind or not: which parts of a field stay, whose geometry a pair takes."""

from __future__ import annotations

import numpy as np

from recon.features.types import InterestPoints
from recon.graph.agreement import agreeing_match
from recon.graph.pair_verification import CONTRADICTED_CHANCE, VerificationOptions, verify_dense_pair
from recon.graph.tracks import carry_by_points
from recon.matching.types import DenseMatch, FlowField, SparseMatch
from tests.support.sfm_scene import KNOWN, look_at

WIDTH, HEIGHT = 160, 120


def constant(flow: tuple[float, float]) -> FlowField:
    return FlowField(
        np.tile(np.array(flow, np.float32), (HEIGHT, WIDTH, 1)), np.ones((HEIGHT, WIDTH), np.float32)
    )


def test_the_part_that_locked_to_the_next_bay_goes() -> None:
    """The field is right on the left half; on the right it is off by a bay of 20 pixels, along the epipolar lines."""
    right, back = constant((6, 0)), constant((-6, 0))
    right.flow[:, WIDTH // 2 :, 0] += 20
    back.flow[:, WIDTH // 2 + 26 :, 0] -= 20
    everywhere = np.ones((HEIGHT, WIDTH), bool)
    dense = DenseMatch(right, back, everywhere, everywhere)
    rng = np.random.default_rng(0)
    # At twice the size; the sparse matches are right everywhere but for a few.
    xy_a = rng.uniform([4, 4], [2 * WIDTH - 60, 2 * HEIGHT - 4], (150, 2))
    xy_b = xy_a + np.array([12.0, 0.0])
    xy_b[:8] += 50
    size = (2 * WIDTH, 2 * HEIGHT)
    kept = agreeing_match(dense, xy_a, xy_b, size, size)
    assert kept.consistent_a[:, : WIDTH // 2 - 12].mean() > 0.98
    assert kept.consistent_a[:, WIDTH // 2 + 12 : WIDTH - 40].mean() < 0.02
    assert kept.consistent_b[:, WIDTH // 2 + 38 : WIDTH - 30].mean() < 0.05
    # Nobody votes with a handful of matches.
    few = agreeing_match(dense, xy_a[20:25], xy_b[20:25], size, size)
    assert few.consistent_a.all()


def test_the_epipolar_geometry_takes_what_leaves_its_lines() -> None:
    # Sideways motion: epipolar lines are rows.
    F = np.array([[0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])
    field = constant((6, 0))
    field.flow[:30, :, 1] = 4
    everywhere = np.ones((HEIGHT, WIDTH), bool)
    dense = DenseMatch(field, constant((-6, 0)), everywhere, everywhere)
    nothing = np.zeros((0, 2))
    size = (2 * WIDTH, 2 * HEIGHT)
    # Four pixels at matching size are eight at working size: a Sampson distance of 8 / sqrt(2).
    kept = agreeing_match(dense, nothing, nothing, size, size, fundamental=F, max_error=5.0)
    assert not kept.consistent_a[:30].any()
    assert kept.consistent_a[30:].all()
    assert kept.consistent_b.all()
    loose = agreeing_match(dense, nothing, nothing, size, size, fundamental=F, max_error=6.0)
    assert loose.consistent_a.all()


def two_views() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels of a relief in two photos, and the relative pose."""
    rng = np.random.default_rng(1)
    points = rng.uniform([-2, -1.5, -1], [2, 1.5, 1], (300, 3))
    poses = [look_at(np.array([x, -0.5, -6.0]), np.zeros(3)) for x in (-0.8, 0.8)]
    pixels = []
    for pose in poses:
        local = points @ pose[:, :3].T + pose[:, 3]
        pixels.append(local[:, :2] / local[:, 2:] * [KNOWN.K[0, 0], KNOWN.K[1, 1]] + KNOWN.K[:2, 2])
    R = poses[1][:, :3] @ poses[0][:, :3].T
    return pixels[0], pixels[1], np.column_stack([R, poses[1][:, 3] - R @ poses[0][:, 3]])


def test_sparse_matches_hold_where_the_dense_geometry_contradicts_them() -> None:
    xy_a, xy_b, b_from_a = two_views()
    seen = SparseMatch(xy_a, xy_b, np.ones(len(xy_a), np.float32))
    # A field that is consistent and of one mind, yet of another relief: rows moved apart by their own parallax.
    height, width = 120, 160
    shift = np.linspace(-12, 14, height, dtype=np.float32)[:, None].repeat(width, axis=1)
    shift += np.random.default_rng(2).normal(0, 2, (height, 1)).astype(np.float32)
    there = np.stack([shift, np.full_like(shift, 9)], axis=-1)
    everywhere = np.ones((height, width), bool)
    sure = np.ones((height, width), np.float32)
    dense = DenseMatch(FlowField(there, sure), FlowField(-there, sure), everywhere, everywhere)
    found = verify_dense_pair(dense, seen, 1000, (KNOWN, KNOWN), VerificationOptions())
    assert found.by_points
    assert found.chance <= CONTRADICTED_CHANCE
    assert found.geometry.b_from_a is not None
    np.testing.assert_allclose(found.geometry.b_from_a[:, :3], b_from_a[:, :3], atol=2e-3)
    # In photos with hardly any points, so few agree on some pose by chance.
    few = SparseMatch(xy_a[:40], xy_b[:40], np.ones(40, np.float32))
    assert verify_dense_pair(dense, few, 1000, (KNOWN, KNOWN), VerificationOptions()).by_points
    assert not verify_dense_pair(dense, few, 90, (KNOWN, KNOWN), VerificationOptions()).by_points
    # Without sparse matches there is nobody to contradict.
    alone = verify_dense_pair(dense, None, 1000, (KNOWN, KNOWN), VerificationOptions())
    assert not alone.by_points


def test_matched_points_carry_what_lies_next_to_them() -> None:
    angle, scale = 0.3, 1.5
    A = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    rng = np.random.default_rng(3)
    xy = rng.uniform(10, 100, (20, 2)).astype(np.float32)
    nothing = np.zeros((20, 128), np.uint8)
    source = InterestPoints(xy, np.full(20, 2, np.float32), np.zeros(20, np.float32), nothing)
    target = InterestPoints(
        (xy @ A.T + 7).astype(np.float32),
        np.full(20, 2 * scale, np.float32),
        np.full(20, angle, np.float32),
        nothing,
    )
    near = xy + np.float32(0.5)
    moved, affinity, valid = carry_by_points(
        np.concatenate([near, [[500, 500]]]).astype(np.float32), source, target
    )
    np.testing.assert_allclose(moved[:20], near @ A.T + 7, atol=1e-3)
    np.testing.assert_allclose(affinity[0], A, atol=1e-6)
    assert valid[:20].all()
    assert not valid[20]
