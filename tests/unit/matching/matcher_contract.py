"""What every dense matcher must do: inherit ``DenseMatcherContract`` in a test module and name the matcher."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest

from recon.errors import UsageError
from recon.matching.registry import available_matchers, create_matcher, matcher_settings
from recon.matching.types import DenseMatch, Matcher, MatchImage, PairContext


def textured(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A colour image with structure at several scales, uint8."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.float32)
    for sigma, weight in ((1.2, 1.0), (3, 1.5), (8, 2.0)):
        noise = rng.standard_normal((height, width, 3)).astype(np.float32)
        blurred = cv2.GaussianBlur(noise, (0, 0), sigma)
        image += weight * blurred / blurred.std()
    image = (image - image.min()) / (image.max() - image.min())
    return (255 * image).astype(np.uint8)


def run(matcher: Matcher, a: MatchImage, b: MatchImage) -> DenseMatch:
    """Prepare both and match."""
    result = matcher.match(matcher.prepare(a), matcher.prepare(b), PairContext())
    assert isinstance(result, DenseMatch)
    return result


class DenseMatcherContract:
    """Inherit, and set ``matcher`` (and what else the matcher needs)."""

    matcher: ClassVar[str]
    settings: ClassVar[dict[str, Any]] = {}
    shift: ClassVar[tuple[int, int]] = (5, -3)
    """A translation that the matcher must recover."""

    @pytest.fixture
    def under_test(self) -> Matcher:
        return create_matcher(self.matcher, **self.settings)

    def test_is_declared(self, under_test: Matcher) -> None:
        assert available_matchers()[self.matcher] == under_test.capabilities
        assert under_test.name == self.matcher
        for name, info in matcher_settings(self.matcher).model_fields.items():
            assert info.description, f"setting {name} has no description"

    def test_unknown_settings_are_named(self) -> None:
        with pytest.raises(UsageError, match="no_such_setting"):
            create_matcher(self.matcher, no_such_setting=1)

    def test_shapes_and_types(self, under_test: Matcher) -> None:
        a, b = MatchImage(textured(72, 96)), MatchImage(textured(80, 64, seed=1))
        match = run(under_test, a, b)
        for field, mask, image in (
            (match.a_to_b, match.consistent_a, a),
            (match.b_to_a, match.consistent_b, b),
        ):
            size = image.rgb.shape[:2]
            assert field.flow.shape == (*size, 2)
            assert field.flow.dtype == np.float32
            assert field.confidence.shape == size
            assert field.confidence.dtype == np.float32
            assert mask.shape == size
            assert mask.dtype == np.bool_
            assert np.isfinite(field.flow).all()
            assert field.confidence.min() >= 0
            assert field.confidence.max() <= 1

    def test_an_image_matches_itself(self, under_test: Matcher) -> None:
        image = MatchImage(textured(96, 128))
        match = run(under_test, image, image)
        length = np.linalg.norm(match.a_to_b.flow, axis=-1)
        assert np.median(length) < 0.05
        assert np.quantile(length, 0.95) < 0.3

    def test_a_translation_is_recovered(self, under_test: Matcher) -> None:
        dx, dy = self.shift
        whole = textured(128, 160)
        a = whole[16:112, 16:144]
        b = whole[16 - dy : 112 - dy, 16 - dx : 144 - dx]
        match = run(under_test, MatchImage(np.ascontiguousarray(a)), MatchImage(np.ascontiguousarray(b)))
        for field, mask, sign in (
            (match.a_to_b, match.consistent_a, 1),
            (match.b_to_a, match.consistent_b, -1),
        ):
            error = np.linalg.norm(field.flow - sign * np.array(self.shift), axis=-1)
            inner = error[24:-24, 24:-24]
            assert np.median(inner) < 0.2
            assert (inner < 1).mean() > 0.95
            assert mask[24:-24, 24:-24].mean() > 0.9
            assert error[mask].max() < 2
            assert field.confidence[24:-24, 24:-24].mean() > 0.3

    def test_masks_are_respected(self, under_test: Matcher) -> None:
        rgb = textured(96, 128)
        mask = np.ones((96, 128), bool)
        mask[30:60, 40:90] = False
        plain, masked = MatchImage(rgb), MatchImage(rgb, mask=mask)
        match = run(under_test, masked, plain)
        assert not match.consistent_a[~mask].any()
        assert not match.a_to_b.confidence[~mask].any()
        # The target of these pixels is masked.
        assert not match.consistent_b[32:58, 42:88].any()
        assert match.consistent_a[mask].any()

    def test_flat_images_give_no_nonsense(self, under_test: Matcher) -> None:
        flat = MatchImage(np.full((64, 80, 3), 128, np.uint8))
        match = run(under_test, flat, MatchImage(textured(64, 80)))
        assert np.isfinite(match.a_to_b.flow).all()
        assert np.isfinite(match.b_to_a.confidence).all()
        # A flat region is not textured: nothing there is consistent.
        assert not match.consistent_a.any()

    def test_a_tiny_image_does_not_break(self, under_test: Matcher) -> None:
        match = run(under_test, MatchImage(textured(9, 11)), MatchImage(textured(12, 10)))
        assert np.isfinite(match.a_to_b.flow).all()

    def test_threads_and_order_change_nothing(self, under_test: Matcher) -> None:
        images = [MatchImage(textured(40, 48, seed)) for seed in (0, 0, 2)]
        prepared = [under_test.prepare(image) for image in images]
        jobs = [(0, 1), (1, 2), (0, 1)]

        def job(pair: tuple[int, int]) -> DenseMatch:
            result = under_test.match(prepared[pair[0]], prepared[pair[1]], PairContext())
            assert isinstance(result, DenseMatch)
            return result

        alone = [job(pair) for pair in jobs]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(job, jobs))
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one.a_to_b.flow, other.a_to_b.flow)
            np.testing.assert_array_equal(one.consistent_b, other.consistent_b)
        np.testing.assert_array_equal(alone[0].a_to_b.flow, alone[2].a_to_b.flow)
