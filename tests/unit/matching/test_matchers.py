from __future__ import annotations

import cv2
import numpy as np
import pytest

from recon.features.dense_sift import build_ladder, describe
from recon.features.interest_points import extract_interest_points, subset
from recon.features.scale_propagation import propagate_scales
from recon.matching import siftflow_matcher
from recon.matching.registry import create_matcher
from recon.matching.siftflow_matcher import SiftFlowMatcher, SiftFlowMatcherSettings
from recon.matching.types import MatchImage, PairContext
from tests.support.matcher_contract import DenseMatcherContract, run, textured


class TestSiftFlow(DenseMatcherContract):
    matcher = "siftflow"


class TestSiftFlowImageAware(DenseMatcherContract):
    matcher = "siftflow"
    settings = {"propagation": "image-aware", "weighting": "exponential", "threads": 2}  # noqa: RUF012


class TestFixedScale(DenseMatcherContract):
    matcher = "dsift-flow"


class TestScalelessSift(DenseMatcherContract):
    matcher = "sls"
    settings = {"iterations": 20, "top_iterations": 30, "top_window": 8, "dimensions": 16}  # noqa: RUF012
    repeats = (24, 32)


class TestDis(DenseMatcherContract):
    matcher = "dis"
    shift = (2, -1)


class TestFarneback(DenseMatcherContract):
    matcher = "farneback"
    shift = (2, -1)


def zoomed(factor: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image, the same scene zoomed out about the centre on a canvas of the same size, and the true flow."""
    a = textured(200, 240, seed=3)
    rest = textured(200, 240, seed=4)
    h, w = round(200 * factor), round(240 * factor)
    y0, x0 = (200 - h) // 2, (240 - w) // 2
    b = rest.copy()
    b[y0 : y0 + h, x0 : x0 + w] = cv2.resize(a, (w, h), interpolation=cv2.INTER_AREA)
    y, x = np.mgrid[0:200, 0:240]
    truth = np.stack([(x + 0.5) * w / 240 - 0.5 + x0 - x, (y + 0.5) * h / 200 - 0.5 + y0 - y], -1)
    return a, b, truth


def test_propagation_bridges_a_change_of_scale_that_one_scale_does_not() -> None:
    a, b, truth = zoomed(0.5)
    ea, eb = extract_interest_points(a), extract_interest_points(b)
    images = MatchImage(a, points=ea), MatchImage(b, points=eb)
    error = {}
    for name, settings in (("siftflow", {}), ("dsift-flow", {})):
        flow = run(create_matcher(name, **settings), *images).a_to_b.flow
        error[name] = np.median(np.linalg.norm(flow - truth, axis=-1)[20:-20, 20:-20])
    assert error["siftflow"] < 1
    assert error["dsift-flow"] > 3 * error["siftflow"]


def test_a_photo_and_its_smaller_copy() -> None:
    a = textured(200, 240, seed=3)
    b = cv2.resize(a, (84, 70), interpolation=cv2.INTER_AREA)
    match = run(create_matcher("siftflow", border=0), *(MatchImage(i) for i in (a, b)))
    for flow, scale in ((match.a_to_b.flow, 0.35), (match.b_to_a.flow, 1 / 0.35)):
        y, x = np.mgrid[: flow.shape[0], : flow.shape[1]]
        truth = np.stack([(n + 0.5) * scale - 0.5 - n for n in (x, y)], -1)
        error = np.linalg.norm(flow - truth, axis=-1)
        assert np.median(error) < 0.5 * max(1, scale)
        assert np.percentile(error, 99) < 2 * max(1, scale)  # no part goes astray, the corners neither


def test_the_larger_image_decides_how_far_the_pyramid_goes() -> None:
    """A short pyramid of the smaller one would make the search of the larger one long."""
    matcher = create_matcher("dsift-flow")
    large, small = (
        matcher.prepare(MatchImage(i)).pyramid for i in (textured(90, 320), textured(60, 100, seed=1))
    )
    for pair in ((large, small), (small, large)):
        settings = siftflow_matcher.settings_for_pair(matcher.settings, *pair)
        assert settings.levels == 3
        assert settings.top_window == np.ceil(max(pair[1].sift[2].shape[:2]) / 3)


def test_which_propagation_ran_is_told() -> None:
    a = MatchImage(textured(96, 128))
    matcher = create_matcher("siftflow")
    prepared = matcher.prepare(a)
    found = matcher.match(prepared, prepared, PairContext()).diagnostics
    assert found.notes["propagation"] == "match-aware"
    assert found.scale_map_a.shape == (96, 128)
    few = PairContext(seeds=np.zeros((2, 2), np.int64))
    assert matcher.match(prepared, prepared, few).diagnostics.notes["propagation"] == "image-aware"
    flat = matcher.prepare(MatchImage(np.full((96, 128, 3), 90, np.uint8)))
    assert matcher.match(flat, prepared, PairContext()).diagnostics.notes["propagation"] == "none"


def test_subpixel_reaches_what_whole_pixels_cannot() -> None:
    whole = textured(128, 160)
    matrix = np.float32([[1, 0, 0.5], [0, 1, 0.5]])
    moved = cv2.warpAffine(whole, matrix, (160, 128), flags=cv2.INTER_CUBIC)
    images = MatchImage(whole[8:-8, 8:-8].copy()), MatchImage(moved[8:-8, 8:-8].copy())
    error = [
        np.linalg.norm(run(create_matcher("dsift-flow", subpixel=s), *images).a_to_b.flow - 0.5, axis=-1)[
            24:-24, 24:-24
        ]
        for s in (False, True)
    ]
    assert np.median(error[0]) > 0.5
    assert np.median(error[1]) < 0.1


def test_the_preset_of_the_release_and_what_overrides_it() -> None:
    settings = SiftFlowMatcherSettings(preset="release", window=3)
    published = {"levels": 4, "top_window": 20, "iterations": 60, "alpha": 2 * 255, "d": 40 * 255}
    assert {key: getattr(settings, key) for key in published} == published
    assert settings.gamma == pytest.approx(0.005 * 255)
    assert (settings.window, settings.seed_ratio, settings.smoothing, settings.subpixel) == (
        3,
        1.0,
        1.0,
        False,
    )
    # What a recipe keeps of it makes the same matcher again.
    assert SiftFlowMatcherSettings(**settings.model_dump()) == settings
    assert SiftFlowMatcherSettings().seed_ratio is None


def test_the_ratio_of_the_seeds_and_the_smoothing_reach_the_descriptors() -> None:
    """Scale maps of a pair, against propagation from the very points that pass the ratio, one way."""
    a, b = textured(90, 120), np.ascontiguousarray(textured(90, 120)[:, ::-1])
    for ratio in (0.7, 1.0):
        matcher = SiftFlowMatcher(
            SiftFlowMatcherSettings(seed_ratio=ratio, propagation_step=1, smoothing=1.0)
        )
        sides = [matcher.prepare(MatchImage(one)) for one in (a, b)]
        pyramid, scales, _, _, used = matcher.pair_descriptors(
            *sides, PairContext(seeds=np.zeros((0, 2), int))
        )
        points = [side.points for side in sides]
        distance = np.linalg.norm(
            points[0].descriptors[:, None].astype(float) - points[1].descriptors[None].astype(float), axis=2
        )
        nearest = np.sort(distance, 1)
        kept = (
            np.arange(len(distance)) if ratio == 1 else np.flatnonzero(nearest[:, 0] < ratio * nearest[:, 1])
        )
        assert used == ("match-aware" if len(kept) >= 8 else "image-aware")
        seeds = subset(points[0], kept) if len(kept) >= 8 else points[0]
        expected = propagate_scales(a, seeds)
        np.testing.assert_allclose(scales, expected, rtol=1e-4)
        np.testing.assert_array_equal(pyramid.sift[0], describe(build_ladder(a, smoothing=1.0), expected))


@pytest.mark.parametrize("larger_first", [True, False])
def test_the_smaller_image_is_enlarged_to_the_larger_ones_scale(larger_first: bool) -> None:
    """A copy at 0.4 of the size, moved by a fraction of its pixels: found to a tenth of them, both ways."""
    large = cv2.GaussianBlur(textured(200, 240, seed=2), (0, 0), 1.5)
    size, move = (96, 80), np.array([3.3, -2.6])
    # Pixel p of the copy shows (p + 0.5 - move) / 0.4 - 0.5 of the photo.
    matrix = np.column_stack([0.4 * np.eye(2), 0.5 * 0.4 - 0.5 + move])
    blurred = cv2.GaussianBlur(large, (0, 0), 0.5 * np.sqrt(0.4**-2 - 1))
    small = cv2.warpAffine(blurred, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    images = [MatchImage(one) for one in ((large, small) if larger_first else (small, large))]
    match = run(create_matcher("siftflow"), *images)
    fields = (match.a_to_b, match.b_to_a) if larger_first else (match.b_to_a, match.a_to_b)
    y, x = np.mgrid[:200, :240]
    down = 0.4 * (np.stack([x, y], -1) + 0.5) - 0.5 + move - np.stack([x, y], -1)
    y, x = np.mgrid[:80, :96]
    up = (np.stack([x, y], -1) + 0.5 - move) / 0.4 - 0.5 - np.stack([x, y], -1)
    for field, truth, border, limit in zip(fields, (down, up), (40, 16), (0.08, 0.15), strict=True):
        error = np.linalg.norm(field.flow - truth, axis=-1)[border:-border, border:-border]
        assert np.median(error) < limit
        assert np.quantile(error, 0.9) < 2 * limit
