"""Anchors of tracks: where they lie, how many, and how near to each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon.graph.anchors import AnchorKind, anchors_of_photo, find_anchors, spread, suppression_for


def textured(seed: int, height: int = 200, width: int = 260) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = np.full((height, width), 100, np.uint8)
    for _ in range(150):
        x, y = rng.integers(0, width - 20), rng.integers(0, height - 20)
        image[y : y + rng.integers(5, 20), x : x + rng.integers(5, 20)] = rng.integers(0, 255)
    return image


def test_anchors_are_spread_inside_the_mask() -> None:
    image = textured(1)
    mask = np.zeros(image.shape, bool)
    mask[30:170, 40:200] = True
    points = find_anchors(image, spacing=9.0, mask=mask)
    assert len(points) > 40
    assert mask[points[:, 1].astype(int), points[:, 0].astype(int)].all()
    distance = np.linalg.norm(points[:, None] - points[None], axis=2) + 1e9 * np.eye(len(points))
    assert distance.min() >= 9.0
    assert len(find_anchors(image, limit=25)) == 25
    assert len(find_anchors(np.full((100, 100), 80, np.uint8))) == 0


def test_anchors_lie_on_corners() -> None:
    image = np.zeros((120, 120), np.uint8)
    image[40:80, 40:80] = 200
    points = find_anchors(image)
    corners = np.array([[39.5, 39.5], [79.5, 39.5], [39.5, 79.5], [79.5, 79.5]])
    assert len(points) == 4
    for corner in corners:
        assert np.linalg.norm(points - corner, axis=1).min() < 2.5


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.integers(1, 200))
def test_spread_keeps_the_best_of_every_cell(seed: int, limit: int) -> None:
    xy = np.random.default_rng(seed).uniform(0, 100, (150, 2)).astype(np.float32)
    kept = spread(xy, (100, 100), limit)
    assert len(kept) == min(limit, 150)
    assert len(np.unique(kept, axis=0)) == len(kept)
    np.testing.assert_array_equal(kept[0], xy[0])  # the best point of all is the best of its cell


@pytest.mark.parametrize(("kind", "corners", "points"), [("corners", 1, 0), ("points", 0, 1), ("both", 1, 1)])
def test_anchors_of_a_photo_are_corners_or_interest_points(
    kind: AnchorKind, corners: int, points: int
) -> None:
    image, mine = textured(2), np.array([[5.0, 6.0], [7.5, 8.25]], np.float32)
    found = anchors_of_photo(image, None, mine, kind, 20)
    expected = [*[find_anchors(image, limit=40)] * corners, *[mine] * points]
    np.testing.assert_array_equal(found, np.concatenate(expected))


def test_a_smooth_photo_gives_weak_corners() -> None:
    rng = np.random.default_rng(0)
    smooth = 100 + 4 * rng.normal(size=(120, 160)).astype(np.float32)
    nothing = np.zeros((0, 2), np.float32)
    assert len(find_anchors(smooth)) == 0
    assert len(anchors_of_photo(smooth, None, nothing, "corners", 100)) > 50


def test_tracks_lie_nearer_to_each_other_only_where_most_photos_have_no_texture() -> None:
    assert suppression_for([90, 120, 2000], 6.0) == 2.0
    assert suppression_for([90, 1500, 2000], 6.0) == 6.0
    assert suppression_for([90, 120], 1.0) == 1.0
