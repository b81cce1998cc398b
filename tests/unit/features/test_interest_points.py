"""Interest points: positions and scales of known blobs, matching against a plain twin."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon.features.interest_points import extract_interest_points, match_interest_points, subset
from recon.features.types import InterestPoints


def _blob(sigma: float, x: float, y: float, size: int = 128) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size]
    grey = 30 + 200 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    return np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=2)


def _texture(seed: int, height: int = 200, width: int = 240) -> np.ndarray:
    rng = np.random.default_rng(seed)
    grey = sum(cv2.GaussianBlur(rng.standard_normal((height, width)), (0, 0), s) * s for s in (1.5, 3.0, 6.0))
    grey = (grey - grey.min()) / np.ptp(grey) * 255
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


def _points(descriptors: np.ndarray) -> InterestPoints:
    n = len(descriptors)
    return InterestPoints(
        np.zeros((n, 2), np.float32), np.ones(n, np.float32), np.zeros(n, np.float32), descriptors
    )


@pytest.mark.parametrize("sigma", [2.0, 4.0, 6.0])
def test_blob_is_found_at_its_centre_with_its_scale(sigma: float) -> None:
    points = extract_interest_points(_blob(sigma, 60.3, 50.8))
    nearest = np.hypot(*(points.xy - [60.3, 50.8]).T).argmin()
    assert np.allclose(points.xy[nearest], [60.3, 50.8], atol=0.08)
    # The difference of Gaussians peaks a little below the blob's own sigma.
    assert 0.8 * sigma < points.sigma[nearest] < 1.0 * sigma


def test_mask_limit_and_order() -> None:
    image = _texture(0)
    everything = extract_interest_points(image)
    assert len(everything) > 100
    assert np.all(np.diff(everything.sigma) <= 0)
    mask = np.zeros(image.shape[:2], bool)
    mask[:, :120] = True
    left = extract_interest_points(image, mask=mask)
    assert len(left)
    assert left.xy[:, 0].max() <= 119.5
    assert len(left) == (everything.xy[:, 0] <= 119.5).sum()
    few = extract_interest_points(image, max_points=20)
    assert len(few) == 20
    assert few.sigma.min() >= np.sort(everything.sigma)[-20]


def test_points_are_the_same_every_time() -> None:
    a, b = (extract_interest_points(_texture(1)) for _ in range(2))
    assert np.array_equal(a.xy, b.xy)
    assert np.array_equal(a.descriptors, b.descriptors)


@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (60, 60)])
def test_images_without_points_give_none(shape: tuple[int, int]) -> None:
    points = extract_interest_points(np.full((*shape, 3), 90, np.uint8))
    assert len(points) == 0
    assert points.descriptors.shape == (0, 128)
    assert match_interest_points(points, points).shape == (0, 2)


def test_rootsift_has_length_512() -> None:
    descriptors = extract_interest_points(_texture(2)).descriptors.astype(float)
    assert np.allclose(np.linalg.norm(descriptors, axis=1), 512, rtol=0.02)


def test_known_shift_is_recovered() -> None:
    image = _texture(3)
    a, b = extract_interest_points(image[:, :-9]), extract_interest_points(image[:, 9:])
    pairs = match_interest_points(a, b)
    shift = b.xy[pairs[:, 1]] - a.xy[pairs[:, 0]]
    assert len(pairs) > 50
    assert (np.abs(shift - [-9, 0]).max(axis=1) < 0.5).mean() > 0.95


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.5, 1.0), st.booleans(), st.integers(0, 2**31 - 1))
def test_matching_agrees_with_a_plain_twin(n: int, m: int, ratio: float, mutual: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    b = rng.integers(0, 120, (m, 128))
    a = np.clip(b[rng.integers(0, m, n)] + rng.integers(-40, 40, (n, 128)), 0, 255)
    distance = ((a[:, None] - b[None]) ** 2).sum(-1)
    expected = []
    for i in range(n):
        j = int(distance[i].argmin())
        others = np.delete(distance[i], j)
        second = others.min() if len(others) else np.inf
        if ratio < 1 and not distance[i, j] < np.float32(ratio * ratio) * second:
            continue
        if mutual and distance[:, j].argmin() != i:
            continue
        expected.append((i, j))
    found = match_interest_points(
        _points(a.astype(np.uint8)), _points(b.astype(np.uint8)), ratio=ratio, mutual=mutual
    )
    assert [tuple(row) for row in found] == expected


def test_matching_across_blocks() -> None:
    rng = np.random.default_rng(5)
    descriptors = rng.integers(0, 256, (2500, 128)).astype(np.uint8)
    order = rng.permutation(2500)
    pairs = match_interest_points(_points(descriptors), _points(descriptors[order]))
    assert len(pairs) == 2500
    assert np.array_equal(order[pairs[:, 1]], pairs[:, 0])


def test_subset_keeps_points_together() -> None:
    points = extract_interest_points(_texture(4))
    part = subset(points, np.array([5, 2]))
    assert np.array_equal(part.xy, points.xy[[5, 2]])
    assert np.array_equal(part.sigma, points.sigma[[5, 2]])
    assert np.array_equal(part.descriptors, points.descriptors[[5, 2]])


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match="uint8"):
        extract_interest_points(np.zeros((20, 20), np.uint8))
    with pytest.raises(ValueError, match="mask"):
        extract_interest_points(np.zeros((20, 20, 3), np.uint8), mask=np.ones((5, 5), bool))


def test_a_peak_threshold_leaves_the_weak_points_out() -> None:
    """Contrast of a blob decides: half of it is not found where a whole one is."""
    whole = _blob(4.0, 60, 60)
    half = (30 + (whole.astype(float) - 30) / 2).astype(np.uint8)

    def found(image: np.ndarray, threshold: float | None) -> set[tuple[float, float]]:
        points = extract_interest_points(image, peak_threshold=threshold)
        return {(float(x), float(y)) for x, y in points.xy if np.hypot(x - 60, y - 60) < 2}

    # The strongest difference of Gaussians of this blob is about 0.1 of its height of 0.78.
    assert found(whole, 0.05)
    assert not found(half, 0.05)
    assert found(half, 0.02)
    texture = _texture(3)
    counts = [len(extract_interest_points(texture, peak_threshold=t)) for t in (None, 0.02 / 3, 0.02, 0.5)]
    assert counts[0] == counts[1] > counts[2] > counts[3] == 0
