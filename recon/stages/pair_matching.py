"""A matcher over pairs of photos, for the stages ``match`` and ``fields``; each result is written when it is there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from recon.core.resize import resize_mask, resize_rgb
from recon.engine.stage import StageContext
from recon.errors import ReconError
from recon.graph.two_view import resize_points
from recon.matching.alignment import Placement, placement
from recon.matching.checking import BadMatchError, checked_match
from recon.matching.registry import matcher_settings
from recon.matching.turns import turn_image
from recon.matching.types import DenseMatch, Matcher, MatchImage, PairContext, SparseMatch
from recon.photos.types import Photo
from recon.run.folder import RunFolder
from recon.run.matches import Pair, save_sparse_match, write_dense_match

_PREPARED_IN_MEMORY = 12
"""Prepared images kept at once; the pairs are ordered so that most of their uses fall together."""

_FIELD_VERSION = 1
"""Raised when what a shared field depends on changes."""


@dataclass(frozen=True)
class PairJob:
    """A matcher and how its images are made."""

    matcher: Matcher
    settings: Mapping[str, Any]
    max_size: int
    turn_upright: bool  # and bring to one scale


@dataclass(frozen=True)
class PairOutcome:
    """What came of one pair.

    Attributes:
        failure: why there is no result; empty where there is one.
        matches: number of point matches; 0 for a dense field.
        shares: of the pixels of both photos that are consistent; empty for point matches.
        seconds: of the matcher alone: the match, and what it prepared for this pair.
    """

    pair: Pair
    failure: str = ""
    matches: int = 0
    shares: tuple[float, ...] = ()
    seconds: float = 0.0


class _MatcherFailedError(Exception):
    """A matcher raised, or returned what is no match; the text says what."""


def match_pairs(work: StageContext, job: PairJob, pairs: Sequence[Pair], name: str) -> list[PairOutcome]:
    """Matches pairs into the directory ``name``; what is there already is kept.

    A pair on which the matcher raises, or returns what is no match, is reported with the matcher's name and left
    out. Dense fields are shared with other runs through the folder that ``RunInputs.field_cache`` names, if there
    is one: fields of the same photos, seeds, matcher and settings are computed once.

    Raises:
        ReconError: the matcher failed on every pair.
    """
    run = RunFolder.of(work)
    photos = run.photo_set.photos
    seeds = run.sparse_matches()
    matcher = job.matcher
    dense = matcher.capabilities.kind == "dense"

    def prepare(photo: int, turns: int) -> tuple[Any, float]:
        image = turn_image(match_image(work, photos[photo], job.max_size), turns)
        began = time.perf_counter()
        with _blamed():
            prepared = matcher.prepare(image)
        return prepared, time.perf_counter() - began

    cache = _PreparedCache(prepare)

    def prepared_b(photo: int, placed: Placement) -> tuple[Any, float]:
        if placed.similarity is None:  # the same for all pairs of the photo
            return cache.get((photo, placed.turns))
        image = placed.place(match_image(work, photos[photo], job.max_size))
        began = time.perf_counter()
        with _blamed():
            prepared = matcher.prepare(image)
        return prepared, time.perf_counter() - began

    def match_prepared(pair: Pair, placed: Placement) -> tuple[DenseMatch | SparseMatch, float]:
        a, seconds_a = cache.get((pair[0], 0))
        b, seconds_b = prepared_b(pair[1], placed)
        began = time.perf_counter()
        with _blamed():
            result = matcher.match(a, b, PairContext(seeds=seeds.get(pair)))
        seconds = time.perf_counter() - began + seconds_a + seconds_b
        with _blamed():
            return checked_match(
                result, matcher.capabilities.kind, placed.size_a, placed.target_size
            ), seconds

    def match(pair: Pair) -> PairOutcome:
        done = store / run.match_path(pair, dense=dense).name
        if not done.exists():
            placed = _placement(work, job, [photos[i] for i in pair], seeds.get(pair))
            shared = _shared_field(work, job, [photos[i] for i in pair], seeds.get(pair), placed)
            if shared is not None and shared.exists():
                _copy_into_place(shared, done)
                return _outcome(pair, done)
            try:
                result, seconds = match_prepared(pair, placed)
            except _MatcherFailedError as error:
                return PairOutcome(pair, str(error))
            if isinstance(result, DenseMatch):
                write_dense_match(done, placed.back(result), seconds)
            else:
                at_work = _at_working_size(result, placed, photos[pair[0]], photos[pair[1]])
                with work.write_into(done.parent, done.name) as path:
                    save_sparse_match(path, at_work, seconds)
            if shared is not None:
                _copy_into_place(done, shared)
        return _outcome(pair, done)

    with work.resumable_directory(name) as store:
        for unfinished in store.glob(".*.partial"):
            shutil.rmtree(unfinished)
        if dense:
            zarr.open_group(str(store), mode="a")
        outcomes = work.map(match, pairs, f"{matcher.capabilities.kind} matching")
        failed = [one for one in outcomes if one.failure]
        if failed and len(failed) == len(outcomes):
            raise ReconError(f"matcher {matcher.name!r} failed on every pair: {failed[0].failure}")
    for one in failed:
        a, b = photos[one.pair[0]].name, photos[one.pair[1]].name
        work.warn(f"matcher {matcher.name!r} failed on {a} and {b}, the pair is left out: {one.failure}")
    return outcomes


@contextmanager
def _blamed() -> Iterator[None]:
    """Whatever goes wrong within the block is the matcher's failure, and not the end of the run."""
    try:
        yield
    except BadMatchError as error:
        raise _MatcherFailedError(str(error)) from error
    except Exception as error:
        text = " ".join(str(error).split())
        raise _MatcherFailedError(
            f"{type(error).__name__}: {text}" if text else type(error).__name__
        ) from error


def _placement(work: StageContext, job: PairJob, photos: Sequence[Photo], seeds: Any) -> Placement:
    """How the second photo is brought near the first one, at matching size."""
    run = RunFolder.of(work)
    size_a, size_b = (matching_size(photo, job.max_size) for photo in photos)
    if not job.turn_upright:
        return Placement(0, None, size_a, size_b)
    a, b = (
        run.points(photo.id).at_size(width / photo.width, height / photo.height)
        for photo, (width, height) in zip(photos, (size_a, size_b), strict=True)
    )
    return placement(a, b, seeds, size_a, size_b, rescale=job.matcher.capabilities.kind == "dense")


def _at_working_size(match: SparseMatch, placed: Placement, a: Photo, b: Photo) -> SparseMatch:
    """Point matches of A and placed B at matching size, as points of the photos at working size."""
    upright = placed.points_back(match)
    return SparseMatch(
        resize_points(upright.xy_a, placed.size_a, (a.width, a.height)),
        resize_points(upright.xy_b, placed.size_b, (b.width, b.height)),
        upright.score,
    )


def _outcome(pair: Pair, done: Path) -> PairOutcome:
    if done.suffix == ".npz":
        with np.load(done) as data:
            return PairOutcome(pair, matches=len(data["score"]), seconds=float(data["seconds"]))
    attributes = zarr.open_group(str(done), mode="r").attrs
    return PairOutcome(
        pair,
        shares=(float(attributes["consistent_share_a"]), float(attributes["consistent_share_b"])),
        seconds=float(attributes["seconds"]),
    )


def _shared_field(
    work: StageContext, job: PairJob, photos: Sequence[Photo], seeds: Any, placed: Placement
) -> Path | None:
    """Where runs that share dense fields keep that of a pair; None without such a folder, and for point matches."""
    run = RunFolder.of(work)
    folder = work.inputs.field_cache
    if not folder or job.matcher.capabilities.kind != "dense":
        return None
    digest = hashlib.sha256()
    identity = {
        "version": _FIELD_VERSION,
        "matcher": job.matcher.name,
        "settings": matcher_settings(job.matcher.name)(**job.settings).model_dump(mode="json"),
        "photos": [photo.sha256 for photo in photos],
        "sizes": [matching_size(photo, job.max_size) for photo in photos],
        "turns": placed.turns,
    }
    if placed.similarity is not None:
        identity["alignment"] = placed.similarity.matrix.tolist()
    digest.update(json.dumps(identity, sort_keys=True).encode())
    for photo in photos:
        for values in (run.points(photo.id).xy, run.rgb(photo), run.mask(photo)):
            digest.update(b"none" if values is None else np.ascontiguousarray(values).tobytes())
    digest.update(b"none" if seeds is None else np.ascontiguousarray(seeds).tobytes())
    return Path(folder) / digest.hexdigest()


def _copy_into_place(source: Path, target: Path) -> None:
    """Copies a directory beside its place and renames it; one that is there already stays."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}.partial")
    shutil.copytree(source, beside)
    try:
        os.replace(beside, target)
    except OSError:
        shutil.rmtree(beside)
        if not target.exists():
            raise


def match_image(work: StageContext, photo: Photo, max_size: int) -> MatchImage:
    """One photo at matching size, with its mask and interest points at that size."""
    run = RunFolder.of(work)
    width, height = matching_size(photo, max_size)
    mask = run.mask(photo)
    return MatchImage(
        rgb=resize_rgb(run.rgb(photo), width, height),
        mask=None if mask is None else resize_mask(mask, width, height),
        points=run.points(photo.id).at_size(width / photo.width, height / photo.height),
    )


def matching_size(photo: Photo, max_size: int) -> tuple[int, int]:
    """Width and height of a photo at matching size; photos are never enlarged."""
    factor = min(1.0, max_size / max(photo.width, photo.height))
    return max(1, round(photo.width * factor)), max(1, round(photo.height * factor))


class _PreparedCache:
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
