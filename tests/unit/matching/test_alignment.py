"""Photos from distances that differ much: exact geometry there and back, and a flow that is found."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from recon.features.interest_points import extract_interest_points
from recon.features.types import InterestPoints
from recon.matching.alignment import Similarity, align_back, align_image, similarity_of_seeds
from recon.matching.types import DenseMatch, FlowField, MatchImage


def points_at(xy: np.ndarray) -> InterestPoints:
    n = len(xy)
    return InterestPoints(
        xy.astype(np.float32),
        np.full(n, 2.0, np.float32),
        np.zeros(n, np.float32),
        np.zeros((n, 128), np.uint8),
    )


def zoom_about(
    scale: float, centre: tuple[float, float], shift: tuple[float, float] = (0.0, 0.0)
) -> np.ndarray:
    """(2, 3): B to A."""
    cx, cy = centre
    return np.array(
        [[scale, 0, cx - scale * cx + shift[0]], [0, scale, cy - scale * cy + shift[1]]], np.float64
    )


@pytest.mark.parametrize("scale", [0.4, 2.5])
def test_a_change_of_scale_is_found_among_wrong_matches(scale: float) -> None:
    rng = np.random.default_rng(3)
    b = rng.uniform(0, 300, (80, 2))
    true = Similarity(zoom_about(scale, (150, 100), (12, -7)))
    a = true(b) + rng.normal(0, 1.0, b.shape)
    a[:20] = rng.uniform(0, 300, (20, 2))
    seeds = np.stack([np.arange(80)] * 2, axis=1)
    found = similarity_of_seeds(points_at(a), points_at(b), seeds, (320, 240), (320, 240))
    assert found is not None
    assert found.scale == pytest.approx(scale, rel=0.05)
    corners = np.array([[0.0, 0.0], [300.0, 300.0]])
    # The error of a fit within a twentieth of the longer side, and what zooming does to it.
    np.testing.assert_allclose(found(corners), true(corners), atol=16 * max(scale, 1))
    np.testing.assert_allclose(found.inverse(found(corners)), corners, atol=1e-6)


def test_like_scales_resized_images_and_chance_are_left_alone() -> None:
    rng = np.random.default_rng(4)
    b = rng.uniform(0, 300, (80, 2))
    seeds = np.stack([np.arange(80)] * 2, axis=1)
    near = Similarity(zoom_about(1.3, (150, 100)))(b)
    assert similarity_of_seeds(points_at(near), points_at(b), seeds, (320, 240), (320, 240)) is None
    # The same view at half the size: nothing was zoomed.
    assert similarity_of_seeds(points_at(b * 0.5), points_at(b), seeds, (160, 120), (320, 240)) is None
    chance = rng.uniform(0, 300, (80, 2))
    assert similarity_of_seeds(points_at(chance), points_at(b), seeds, (320, 240), (320, 240)) is None
    zoomed = Similarity(zoom_about(2.5, (150, 100)))(b)
    assert similarity_of_seeds(points_at(zoomed), points_at(b), seeds[:8], (320, 240), (320, 240)) is None
    assert similarity_of_seeds(points_at(zoomed), points_at(b), None, (320, 240), (320, 240)) is None


@pytest.mark.parametrize("size_b", [(320, 240), (640, 480)])
def test_a_far_shift_is_found_in_whole_pixels_and_a_near_one_left_alone(size_b: tuple[int, int]) -> None:
    rng = np.random.default_rng(5)
    seeds = np.stack([np.arange(80)] * 2, axis=1)
    factor = 320 / size_b[0]
    b = rng.uniform(0, 300, (80, 2)) / factor
    for by, wanted in ((150.4, True), (40.0, False)):
        a = factor * b + [by, -3.0] + rng.normal(0, 2.0, b.shape)
        a[:20] = rng.uniform(0, 300, (20, 2))
        found = similarity_of_seeds(points_at(a), points_at(b), seeds, (320, 240), size_b)
        if not wanted:
            assert found is None
            continue
        assert found is not None
        assert found.scale == pytest.approx(factor)
        np.testing.assert_allclose(found.matrix[:, 2], [by, -3.0], atol=1.5)
        np.testing.assert_array_equal(found.matrix[:, 2], np.rint(found.matrix[:, 2]))


@pytest.mark.parametrize("scale", [0.45, 2.2])
def test_fields_come_back_to_the_photos_own_pixels(scale: float) -> None:
    """A flow of zero in A's frame is the similarity itself, in both directions; where B does not reach, nothing."""
    width, height = 60, 40
    similarity = Similarity(zoom_about(scale, (30, 20), (3.0, -2.0)))
    zero = FlowField(np.zeros((height, width, 2), np.float32), np.ones((height, width), np.float32))
    everywhere = np.ones((height, width), bool)
    found = align_back(DenseMatch(zero, zero, everywhere, everywhere), similarity, (50, 45))
    y, x = np.mgrid[:height, :width]
    target = np.stack([x, y], -1) + found.a_to_b.flow
    np.testing.assert_allclose(similarity(target), np.stack([x, y], -1), atol=1e-3)
    inside = (target >= 0).all(-1) & (target <= (49, 44)).all(-1)
    np.testing.assert_array_equal(found.a_to_b.confidence > 0, inside)
    np.testing.assert_array_equal(found.consistent_a, inside)
    y, x = np.mgrid[:45, :50]
    source = np.stack([x, y], -1) + found.b_to_a.flow
    np.testing.assert_allclose(source, similarity(np.stack([x, y], -1).astype(np.float64)), atol=1e-3)
    # Half a pixel at the rim is up to rounding.
    sure = (source > 0.5).all(-1) & (source < (width - 1.5, height - 1.5)).all(-1)
    gone = (source < -0.5).any(-1) | (source > (width - 0.5, height - 0.5)).any(-1)
    assert found.consistent_b[sure].all()
    assert not found.consistent_b[gone].any()
    assert (found.b_to_a.confidence[gone] == 0).all()


def test_pixels_points_and_mask_move_together() -> None:
    rng = np.random.default_rng(5)
    rgb = cv2.GaussianBlur(rng.integers(0, 255, (80, 100, 3), dtype=np.uint8), (0, 0), 3)
    xy = np.array([[30.0, 40.0], [60.0, 33.0]], np.float32)
    similarity = Similarity(zoom_about(2.0, (50, 40)))
    moved = align_image(MatchImage(rgb, None, points_at(xy)), similarity, (100, 80))
    assert moved.points is not None
    assert moved.mask is not None
    np.testing.assert_allclose(moved.points.sigma, 4.0)
    for (x, y), (u, v) in zip(xy.astype(int), moved.points.xy.astype(int), strict=True):
        np.testing.assert_array_equal(moved.rgb[v, u], rgb[y, x])
    smaller = align_image(MatchImage(rgb, None, None), Similarity(zoom_about(0.5, (50, 40))), (100, 80))
    assert smaller.mask is not None
    assert smaller.mask.mean() == pytest.approx(0.25, abs=0.02)


def test_sift_flow_follows_a_zoom_that_it_cannot_bridge_alone() -> None:
    """A photo and its middle 2.6 times as large: most pixels must be found to half a pixel of A."""
    from recon import match

    rng = np.random.default_rng(6)
    noise = sum(
        cv2.GaussianBlur(rng.normal(size=(480, 640)).astype(np.float32), (0, 0), s) * s
        for s in (1.5, 3, 6, 12)
    )
    big = np.clip(127 + 40 * noise / noise.std(), 0, 255).astype(np.uint8)
    scale = 2.6
    to_a = np.array([[0.5, 0, 0], [0, 0.5, 0]], np.float64)
    a = cv2.warpAffine(cv2.GaussianBlur(big, (0, 0), 0.9), to_a, (320, 240), flags=cv2.INTER_LINEAR)
    to_b = np.array([[0.5 * scale, 0, 160 - scale * 160], [0, 0.5 * scale, 120 - scale * 120]], np.float64)
    b = cv2.warpAffine(big, to_b, (320, 240), flags=cv2.INTER_CUBIC)
    assert len(extract_interest_points(np.repeat(a[..., None], 3, 2)).xy) > 50
    found = match(a, b)
    assert isinstance(found, DenseMatch)
    y, x = np.mgrid[:240, :320].astype(np.float32)
    truth = np.stack([160 + scale * (x - 160), 120 + scale * (y - 120)], -1)
    seen = (truth > 12).all(-1) & (truth < (307, 227)).all(-1)
    error = np.linalg.norm(np.stack([x, y], -1) + found.a_to_b.flow - truth, axis=-1) / scale
    assert np.mean(error[seen] < 0.5) > 0.9
    assert found.consistent_a[seen].mean() > 0.6
    assert found.consistent_b.mean() > 0.4
