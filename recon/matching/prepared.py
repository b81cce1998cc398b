"""Photos made ready for a matcher: brought to matching size, prepared once, failures blamed on the matcher."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from recon.core.resize import resize_mask, resize_points, resize_rgb
from recon.features.types import InterestPoints
from recon.matching.alignment import Placement
from recon.matching.checking import BadMatchError, checked_match
from recon.matching.quarter_turns import turn_image
from recon.matching.types import DenseMatch, Matcher, MatchImage, PairContext, SparseMatch
from recon.photos.types import Photo

_PREPARED_IN_MEMORY = 12
"""Prepared images kept at once; the pairs are ordered so that most of their uses fall together."""


class MatcherFailedError(Exception):
    """A matcher raised, or returned what is no match; the text says what."""


@contextmanager
def blame_matcher() -> Iterator[None]:
    """Whatever goes wrong within the block is the matcher's failure, and not the end of the run."""
    try:
        yield
    except BadMatchError as error:
        raise MatcherFailedError(str(error)) from error
    except Exception as error:
        text = " ".join(str(error).split())
        raise MatcherFailedError(
            f"{type(error).__name__}: {text}" if text else type(error).__name__
        ) from error


def matching_size(photo: Photo, max_size: int) -> tuple[int, int]:
    """Width and height of a photo at matching size; photos are never enlarged."""
    factor = min(1.0, max_size / max(photo.width, photo.height))
    return max(1, round(photo.width * factor)), max(1, round(photo.height * factor))


def match_image(
    size: tuple[int, int],
    rgb: UInt8[np.ndarray, "h w 3"],
    mask: Bool[np.ndarray, "h w"] | None,
    points: InterestPoints,
) -> MatchImage:
    """A photo at matching size, with its mask and interest points at that size.

    Args:
        size: (width, height) of matching; ``rgb``, ``mask`` and ``points`` are at working size.
    """
    width, height = size
    return MatchImage(
        rgb=resize_rgb(rgb, width, height),
        mask=None if mask is None else resize_mask(mask, width, height),
        points=points.at_size(width / rgb.shape[1], height / rgb.shape[0]),
    )


def at_working_size(match: SparseMatch, placed: Placement, a: Photo, b: Photo) -> SparseMatch:
    """Point matches of A and placed B at matching size, as points of the photos at working size."""
    upright = placed.points_back(match)
    return SparseMatch(
        resize_points(upright.xy_a, placed.size_a, (a.width, a.height)).astype(np.float32),
        resize_points(upright.xy_b, placed.size_b, (b.width, b.height)).astype(np.float32),
        upright.score,
    )


class PreparedCache:
    """The matcher's per-image work, done once per image while it is in reach; safe for threads."""

    def __init__(self, prepare: Callable[[int, int], tuple[Any, float]]) -> None:
        self._prepare = prepare
        self._lock = threading.Lock()
        self._locks: dict[tuple[int, int], threading.Lock] = {}
        self._items: OrderedDict[tuple[int, int], Any] = OrderedDict()

    def get(self, index: tuple[int, int]) -> tuple[Any, float]:
        """The prepared image of a photo (first number) after so many quarter turns (second).

        With it the seconds that it took now: none where it was there.
        """
        with self._lock:
            own = self._locks.setdefault(index, threading.Lock())
        with own:
            with self._lock:
                if index in self._items:
                    self._items.move_to_end(index)
                    return self._items[index], 0.0
            prepared, seconds = self._prepare(*index)
            with self._lock:
                self._items[index] = prepared
                while len(self._items) > _PREPARED_IN_MEMORY:
                    self._items.popitem(last=False)
            return prepared, seconds


class PairMatcher:
    """A matcher over pairs of photos, each photo prepared once while it is in reach; safe for threads."""

    def __init__(self, matcher: Matcher, image_of: Callable[[int], MatchImage]) -> None:
        """Wrap a matcher.

        Args:
            image_of: a photo at matching size, by id.
        """
        self._matcher, self._image_of = matcher, image_of
        self._cache = PreparedCache(
            lambda photo, turns: self._prepared(turn_image(self._image_of(photo), turns))
        )

    def _prepared(self, image: MatchImage) -> tuple[Any, float]:
        began = time.perf_counter()
        with blame_matcher():
            prepared = self._matcher.prepare(image)
        return prepared, time.perf_counter() - began

    def match(
        self, pair: tuple[int, int], placed: Placement, seeds: Int64[np.ndarray, "n 2"] | None
    ) -> tuple[DenseMatch | SparseMatch, float]:
        """Match the first photo with the second one as it is placed.

        Returns:
            The match, checked, and the seconds that the matcher needed, preparation for this pair included.

        Raises:
            MatcherFailedError: the matcher raised, or returned what is no match.
        """
        a, seconds_a = self._cache.get((pair[0], 0))
        if placed.similarity is None:  # the same for all pairs of the photo
            b, seconds_b = self._cache.get((pair[1], placed.turns))
        else:
            b, seconds_b = self._prepared(placed.place(self._image_of(pair[1])))
        began = time.perf_counter()
        with blame_matcher():
            result = self._matcher.match(a, b, PairContext(seeds=seeds))
        seconds = time.perf_counter() - began + seconds_a + seconds_b
        kind = self._matcher.capabilities.kind
        with blame_matcher():
            return checked_match(result, kind, placed.size_a, placed.target_size), seconds
