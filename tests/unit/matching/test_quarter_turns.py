"""Quarter turns: exact geometry, and a matcher that finds a photo turned upside down."""

from __future__ import annotations

import numpy as np
import pytest

from recon.features.types import InterestPoints
from recon.matching.quarter_turns import quarter_turns, turn_back, turn_image, turn_points, turns_of_seeds
from recon.matching.types import DenseMatch, FlowField, MatchImage


def points_at(xy: np.ndarray) -> InterestPoints:
    n = len(xy)
    return InterestPoints(
        xy.astype(np.float32), np.ones(n, np.float32), np.zeros(n, np.float32), np.zeros((n, 128), np.uint8)
    )


@pytest.mark.parametrize("turns", range(4))
def test_points_follow_the_pixels(turns: int) -> None:
    rng = np.random.default_rng(turns)
    image = rng.integers(0, 255, (7, 11, 3), dtype=np.uint8)
    xy = np.stack([rng.integers(0, 11, 20), rng.integers(0, 7, 20)], axis=1).astype(np.float32)
    turned = turn_image(MatchImage(image, image[..., 0] > 99, points_at(xy)), turns)
    assert turned.points is not None
    assert turned.mask is not None
    new = turned.points.xy.astype(int)
    np.testing.assert_array_equal(
        turned.rgb[new[:, 1], new[:, 0]], image[xy[:, 1].astype(int), xy[:, 0].astype(int)]
    )
    np.testing.assert_array_equal(turned.mask, turned.rgb[..., 0] > 99)
    height, width = turned.rgb.shape[:2]
    np.testing.assert_array_equal(turn_points(turned.points.xy, width, height, -turns), xy)


@pytest.mark.parametrize("turns", range(4))
def test_turn_is_found_from_noisy_matches_and_undone(turns: int) -> None:
    rng = np.random.default_rng(5 + turns)
    a = rng.uniform(0, 100, (60, 2))
    # B was turned the other way, so that ``turns`` quarter turns bring it upright; matches are noisy, some wrong.
    b = turn_points(a, 101, 101, -turns) * 0.7 + rng.normal(0, 6, a.shape)
    b[:6] = rng.uniform(0, 70, (6, 2))
    assert quarter_turns(a, b) == turns
    seeds = np.stack([np.arange(60), np.arange(60)], axis=1)
    assert turns_of_seeds(points_at(a), points_at(b), seeds) == turns
    assert turns_of_seeds(points_at(a), points_at(b), None) == 0


def test_nothing_is_turned_without_evidence() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 100, (500, 2)), rng.uniform(0, 100, (500, 2))
    assert quarter_turns(a, b) == 0
    assert quarter_turns(a[:5], turn_points(a[:5], 101, 101, 2)) == 0
    assert quarter_turns(np.ones((20, 2)), np.ones((20, 2))) == 0


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_flow_back_to_the_unturned_photo_is_exact(turns: int) -> None:
    """Matching A with A turned: the flow that is zero after turning must lead to the turned pixels themselves."""
    rng = np.random.default_rng(1)
    a = rng.integers(0, 255, (9, 14), dtype=np.uint8)
    b = np.rot90(a, -turns)  # turning b upright gives a
    zero = FlowField(np.zeros((9, 14, 2), np.float32), rng.random((9, 14)).astype(np.float32))
    inside = rng.random((9, 14)) > 0.5
    found = turn_back(DenseMatch(zero, zero, inside, inside), turns)
    y, x = np.mgrid[:9, :14]
    tx, ty = (np.stack([x, y], -1) + found.a_to_b.flow).astype(int).transpose(2, 0, 1)
    np.testing.assert_array_equal(b[ty, tx], a)
    assert found.b_to_a.flow.shape == (*b.shape, 2)
    y, x = np.mgrid[: b.shape[0], : b.shape[1]]
    tx, ty = (np.stack([x, y], -1) + found.b_to_a.flow).astype(int).transpose(2, 0, 1)
    np.testing.assert_array_equal(a[ty, tx], b)
    np.testing.assert_array_equal(np.rot90(found.consistent_b, turns), inside)
    np.testing.assert_array_equal(np.rot90(found.b_to_a.confidence, turns), zero.confidence)


def test_a_photo_upside_down_is_matched() -> None:
    """From pixels to flow: SIFT points say that B is upside down, and its flow is found all the same."""
    import cv2

    import recon

    rng = np.random.default_rng(3)
    grey = sum(
        cv2.resize(
            rng.normal(0, 1, (160 // s, 220 // s)).astype(np.float32),
            (220, 160),
            interpolation=cv2.INTER_CUBIC,
        )
        for s in (2, 4, 10, 20)
    )
    grey = np.clip(128 + 40 * np.asarray(grey), 0, 255).astype(np.uint8)
    result = recon.match(grey, np.ascontiguousarray(grey[::-1, ::-1]))
    assert result.consistent_a.mean() > 0.5
    y, x = np.mgrid[:160, :220].astype(np.float32)
    expected = np.stack([219 - 2 * x, 159 - 2 * y], axis=-1)
    error = np.linalg.norm(result.a_to_b.flow - expected, axis=-1)[result.consistent_a]
    assert np.median(error) < 0.1
    assert np.mean(error < 1) > 0.98
