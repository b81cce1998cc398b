"""What every matcher must do: inherit ``DenseMatcherContract`` or ``SparseMatcherContract`` in a test module and name
the matcher."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest

from recon.errors import UsageError
from recon.matching.checking import checked_match
from recon.matching.registry import available_matchers, create_matcher, matcher_settings
from recon.matching.types import DenseMatch, Matcher, MatchImage, PairContext, SparseMatch


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


def run_any(matcher: Matcher, a: MatchImage, b: MatchImage) -> DenseMatch | SparseMatch:
    """Prepare both, match, and check what came."""
    result = matcher.match(matcher.prepare(a), matcher.prepare(b), PairContext())
    sizes = [image.rgb.shape[1::-1] for image in (a, b)]
    return checked_match(result, matcher.capabilities.kind, *sizes)


def run(matcher: Matcher, a: MatchImage, b: MatchImage) -> DenseMatch:
    """Prepare both and match densely."""
    result = run_any(matcher, a, b)
    assert isinstance(result, DenseMatch)
    return result


def run_sparse(matcher: Matcher, a: MatchImage, b: MatchImage) -> SparseMatch:
    """Prepare both and match points."""
    result = run_any(matcher, a, b)
    assert isinstance(result, SparseMatch)
    return result


def arrays(match: DenseMatch | SparseMatch) -> list[np.ndarray]:
    """All that a match says."""
    if isinstance(match, SparseMatch):
        return [match.xy_a, match.xy_b, match.score]
    return [match.a_to_b.flow, match.b_to_a.flow, match.a_to_b.confidence, match.consistent_b]


def shifted(dx: int, dy: int, height: int = 96, width: int = 128) -> tuple[MatchImage, MatchImage]:
    """Two windows of one image: what A has at p, B has at p + (dx, dy)."""
    whole = textured(height + 32, width + 32)
    a = whole[16 : 16 + height, 16 : 16 + width]
    b = whole[16 - dy : 16 - dy + height, 16 - dx : 16 - dx + width]
    return MatchImage(np.ascontiguousarray(a)), MatchImage(np.ascontiguousarray(b))


_made: dict[tuple[type, str], Matcher] = {}


class MatcherContract:
    """What dense and sparse matchers have in common."""

    matcher: ClassVar[str]
    settings: ClassVar[dict[str, Any]] = {}
    repeats: ClassVar[tuple[int, int]] = (40, 48)
    """Height and width of the images that are matched over and over."""

    def make(self) -> Matcher:
        """A new matcher."""
        return create_matcher(self.matcher, **self.settings)

    @pytest.fixture
    def under_test(self) -> Matcher:
        """One matcher for all tests of a class with the same settings: it keeps no state between calls."""
        key = (type(self), repr(self.settings))
        if key not in _made:
            _made.clear()
            _made[key] = self.make()
        return _made[key]

    def test_is_declared(self, under_test: Matcher) -> None:
        assert available_matchers()[self.matcher] == under_test.capabilities
        assert under_test.name == self.matcher
        for name, info in matcher_settings(self.matcher).model_fields.items():
            assert info.description, f"setting {name} has no description"

    def test_unknown_settings_are_named(self) -> None:
        with pytest.raises(UsageError, match="no_such_setting"):
            create_matcher(self.matcher, no_such_setting=1)

    def test_a_tiny_image_does_not_break(self, under_test: Matcher) -> None:
        # The check of what came finds anything that is not finite or has a wrong shape.
        run_any(under_test, MatchImage(textured(9, 11)), MatchImage(textured(12, 10)))

    def test_images_of_one_colour_do_not_break(self, under_test: Matcher) -> None:
        flat = MatchImage(np.full((48, 56, 3), 128, np.uint8))
        run_any(under_test, flat, flat)

    def test_threads_and_order_change_nothing(self, under_test: Matcher) -> None:
        images = [MatchImage(textured(*self.repeats, seed)) for seed in (0, 0, 2)]
        jobs = [(0, 1), (1, 2), (0, 1)]

        def job(pair: tuple[int, int]) -> list[np.ndarray]:
            prepared = [under_test.prepare(images[i]) for i in pair]
            return arrays(under_test.match(*prepared, PairContext()))

        alone = [job(pair) for pair in jobs]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(job, jobs))
        for one, other in zip(alone, together, strict=True):
            for values, again in zip(one, other, strict=True):
                np.testing.assert_array_equal(values, again)
        for values, again in zip(alone[0], alone[2], strict=True):
            np.testing.assert_array_equal(values, again)

    def test_another_matcher_of_the_same_settings_agrees(self, under_test: Matcher) -> None:
        images = [MatchImage(textured(*self.repeats, seed)) for seed in (0, 0)]
        for values, again in zip(
            arrays(run_any(under_test, *images)), arrays(run_any(self.make(), *images)), strict=True
        ):
            np.testing.assert_array_equal(values, again)


class DenseMatcherContract(MatcherContract):
    """Inherit, and set ``matcher`` (and what else the matcher needs)."""

    shift: ClassVar[tuple[int, int]] = (5, -3)
    """A translation that the matcher must recover."""

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
        match = run(under_test, *shifted(*self.shift))
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


class SparseMatcherContract(MatcherContract):
    """Inherit, and set ``matcher`` (and what else the matcher needs)."""

    shift: ClassVar[tuple[int, int]] = (9, -6)
    """A translation that the matcher must recover."""

    size: ClassVar[tuple[int, int]] = (256, 320)
    precision: ClassVar[float] = 0.5
    """Largest median error of the matches of a translated image, pixels."""
    right: ClassVar[float] = 0.9
    """Smallest share of its matches that are right to three pixels."""
    enough: ClassVar[int] = 100
    """An image of this size has at least so many matches with itself."""

    def test_an_image_matches_itself(self, under_test: Matcher) -> None:
        image = MatchImage(textured(*self.size))
        match = run_sparse(under_test, image, image)
        assert len(match.score) >= self.enough
        error = np.linalg.norm(match.xy_b - match.xy_a, axis=1)
        assert np.median(error) < 1e-3
        assert (error < 1).mean() > 0.98

    def test_a_translation_is_recovered(self, under_test: Matcher) -> None:
        match = run_sparse(under_test, *shifted(*self.shift, *self.size))
        error = match.xy_b - match.xy_a - np.array(self.shift)
        length = np.linalg.norm(error, axis=1)
        assert len(length) >= self.enough / 2
        assert np.median(length) <= self.precision
        assert (length < 3).mean() > self.right
        # A systematic shift of half a pixel would betray another pixel convention.
        assert np.abs(np.median(error[length < 3], axis=0)).max() < max(0.3, 0.5 * self.precision)

    def test_images_of_different_size(self, under_test: Matcher) -> None:
        a, b = shifted(*self.shift, *self.size)
        small = MatchImage(np.ascontiguousarray(b.rgb[:-37, :-22]))
        match = run_sparse(under_test, a, small)
        error = np.linalg.norm(match.xy_b - match.xy_a - np.array(self.shift), axis=1)
        assert np.median(error) <= max(1.0, 1.5 * self.precision)

    def test_masks_are_respected(self, under_test: Matcher) -> None:
        rgb = textured(*self.size)
        mask = np.ones(self.size, bool)
        mask[60:150, 80:200] = False
        # A refined point may leave the pixel on which it was found.
        edge = cv2.erode((~mask).astype(np.uint8), np.ones((17, 17), np.uint8)).astype(bool)
        for a, b in (
            (MatchImage(rgb, mask=mask), MatchImage(rgb)),
            (MatchImage(rgb), MatchImage(rgb, mask=mask)),
        ):
            match = run_sparse(under_test, a, b)
            assert len(match.score) >= self.enough / 4
            masked = match.xy_a if a.mask is not None else match.xy_b
            at = np.rint(masked).astype(int).clip(0, np.array(self.size[::-1]) - 1)
            assert not edge[at[:, 1], at[:, 0]].any()

    def test_a_flat_image_has_no_right_matches(self, under_test: Matcher) -> None:
        flat = MatchImage(np.full((*self.size, 3), 128, np.uint8))
        match = run_sparse(under_test, flat, MatchImage(textured(*self.size)))
        assert len(match.score) < self.enough / 2
