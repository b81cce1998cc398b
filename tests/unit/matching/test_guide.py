"""The flow that matched points speak for, and the search round it."""

from __future__ import annotations

import numpy as np

from recon.matching.guide import MINIMUM_MATCHES, Guide, guide_from_matches
from recon.matching.siftflow import SiftFlowSettings, descriptor_pyramid, sift_flow_pyramid


def _points(rng: np.random.Generator, n: int, shape: tuple[int, int]) -> np.ndarray:
    return rng.uniform(0, 1, (n, 2)) * [shape[1] - 1, shape[0] - 1]


def test_a_smooth_displacement_comes_back_despite_wrong_matches() -> None:
    rng = np.random.default_rng(0)
    shape = (90, 133)
    source = _points(rng, 400, shape)
    true = np.stack([0.1 * source[:, 0] - 7, 12 - 0.05 * source[:, 1]], axis=1)
    given = true.copy()
    given[::20] += rng.uniform(20, 60, (20, 2))
    guide = guide_from_matches(source, source + given, shape)
    assert guide is not None
    assert guide.flow.shape == (*shape, 2)
    y, x = np.mgrid[: shape[0], : shape[1]]
    expected = np.stack([0.1 * x - 7, 12 - 0.05 * y], axis=-1)
    assert np.median(np.abs(guide.flow - expected)) < 0.3
    assert np.percentile(np.abs(guide.flow - expected), 99) < 3.0


def test_the_spread_tells_one_surface_from_two() -> None:
    rng = np.random.default_rng(1)
    source = _points(rng, 300, (100, 100))
    one = guide_from_matches(source, source + 5.0, (100, 100))
    behind = np.where(rng.uniform(size=(300, 1)) < 0.3, 25.0, 5.0)
    two = guide_from_matches(source, source + behind, (100, 100))
    assert one is not None
    assert two is not None
    assert one.spread == 0.0
    assert two.spread == 20.0


def test_few_matches_guide_nothing() -> None:
    source = _points(np.random.default_rng(2), MINIMUM_MATCHES - 1, (50, 50))
    assert guide_from_matches(source, source, (50, 50)) is None


def test_a_guide_leads_the_search_where_windows_are_too_narrow() -> None:
    rng = np.random.default_rng(3)
    a = rng.integers(0, 120, (48, 64, 32), dtype=np.uint8)
    b = np.roll(a, (6, -14), axis=(0, 1))
    settings = SiftFlowSettings(levels=1, top_window=2, top_iterations=20)
    alone = sift_flow_pyramid(descriptor_pyramid(a, 1), descriptor_pyramid(b, 1), settings=settings)
    guide = Guide(np.full((48, 64, 2), (-13.0, 5.0), np.float32), 1.0)
    led = sift_flow_pyramid(
        descriptor_pyramid(a, 1), descriptor_pyramid(b, 1), settings=settings, guide=guide
    )
    inner = np.s_[8:40, 20:60]
    assert (led.flow[inner] == (-14, 6)).all()
    assert not (alone.flow[inner] == (-14, 6)).all(axis=-1).any()
    assert led.energy < alone.energy


def test_a_wide_spread_widens_the_windows() -> None:
    rng = np.random.default_rng(4)
    a = rng.integers(0, 120, (48, 64, 32), dtype=np.uint8)
    b = np.roll(a, (0, -12), axis=(0, 1))
    settings = SiftFlowSettings(levels=1, top_window=20, top_iterations=20)
    pyramids = [descriptor_pyramid(image, 1) for image in (a, b)]
    nothing = np.zeros((48, 64, 2), np.float32)
    narrow = sift_flow_pyramid(*pyramids, settings=settings, guide=Guide(nothing, 0.0))
    wide = sift_flow_pyramid(*pyramids, settings=settings, guide=Guide(nothing, 12.0))
    assert (wide.flow[8:40, 20:60] == (-12, 0)).all()
    assert not (narrow.flow[8:40, 20:60] == (-12, 0)).all(axis=-1).any()
