"""Stage ``match``: what the matcher finds in every chosen pair, a dense field both ways or point matches."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import zarr
from pydantic import BaseModel, ConfigDict, Field, create_model

from recon.engine.stage import StageContext
from recon.errors import ReconError, UsageError
from recon.graph.two_view import resize_points
from recon.matching.checking import BadMatchError, checked_match
from recon.matching.registry import create_matcher, matcher_settings
from recon.matching.turns import turn_back, turn_image, turn_matches_back, turns_of_seeds
from recon.matching.types import DenseMatch, FlowField, Matcher, MatchImage, PairContext, SparseMatch
from recon.photos.resize import resize_mask, resize_rgb
from recon.photos.types import Photo
from recon.stages.features import load_points
from recon.stages.pairs import load_pairs, load_sparse_matches
from recon.stages.photos import load_mask, load_photo_set, load_rgb

Pair = tuple[int, int]

FLOWS = "flows.zarr"
MATCHES = "matches"
MATCHING = "matching.json"

FLOW_STEP = 1 / 32
"""Flow on disk is a whole number of these (pixels): the error is at most 1/64 px, the range 1024 px."""

FIELD_CACHE = "field_cache"
"""Name of the input that holds a folder where runs share dense fields; see ``match_pairs``."""

_PREPARED_IN_MEMORY = 12
"""Prepared images kept at once; the pairs are ordered so that most of their uses fall together."""

_FIELD_VERSION = 1
"""Raised when what a shared field depends on changes."""


class MatchSettings(BaseModel):
    """Which matcher runs, at which size; every other key of the section is a setting of that matcher."""

    model_config = ConfigDict(extra="forbid")
    matcher: str = Field("siftflow", description="name in the registry of matchers, dense or sparse")
    max_size: int = Field(
        640, ge=64, le=8192, description="longest side of the images that are matched densely"
    )
    sparse_max_size: int = Field(
        2048, ge=64, le=8192, description="longest side of the images that a sparse matcher gets"
    )
    turn_upright: bool = Field(
        True,
        description="turn the second photo by quarter turns where the sparse matches say that it is turned",
    )
    dense_matcher: str = Field(
        "siftflow", description="with a sparse matcher: the dense one whose fields the densification uses"
    )
    dense_settings: dict[str, Any] = Field(
        default_factory=dict, description="settings of the dense matcher, as a table"
    )

    @classmethod
    def variant(cls, table: Mapping[str, Any]) -> type[BaseModel]:
        """These settings together with those of the matcher that the section names."""
        name = str(table.get("matcher", cls.model_fields["matcher"].default))
        return create_model("MatchSettings", __base__=(cls, matcher_settings(name)))

    def of_matcher(self) -> dict[str, Any]:
        """The settings that belong to the matcher."""
        return self.model_dump(exclude=set(MatchSettings.model_fields))


class MatchStage:
    """Runs the matcher over the pairs, threads over pairs, each result written as soon as it is there."""

    name: ClassVar[str] = "match"
    version: ClassVar[int] = 3
    reads: ClassVar[tuple[str, ...]] = ("photos", "features", "pairs")
    Settings: ClassVar[type[BaseModel]] = MatchSettings

    def run(self, settings: MatchSettings, work: StageContext) -> dict[str, Any]:
        pairs = load_pairs(work)
        matcher = create_matcher(settings.matcher, **settings.of_matcher())
        kind = matcher.capabilities.kind
        if kind == "sparse":
            # A wrong name or setting is told before the work, not after it.
            dense = create_matcher(settings.dense_matcher, **settings.dense_settings)
            if dense.capabilities.kind != "dense":
                raise UsageError(
                    f"match.dense_matcher: {settings.dense_matcher!r} finds sparse matches; the densification needs a "
                    "dense matcher"
                )
        job = PairJob(
            matcher,
            settings.of_matcher(),
            settings.max_size if kind == "dense" else settings.sparse_max_size,
            settings.turn_upright,
        )
        outcomes = match_pairs(work, job, pairs, FLOWS if kind == "dense" else MATCHES)
        work.remove(MATCHES if kind == "dense" else FLOWS)
        found = [one for one in outcomes if not one.failure]
        names = [photo.name for photo in load_photo_set(work).photos]
        work.write_json(
            MATCHING,
            {
                "matcher": settings.matcher,
                "kind": kind,
                "repeatable": matcher.capabilities.repeatable,
                "pairs": [list(one.pair) for one in found],
                "failed": [
                    {"i": one.pair[0], "j": one.pair[1], "a": names[one.pair[0]], "b": names[one.pair[1]]}
                    | {"matcher": settings.matcher, "reason": one.failure}
                    for one in outcomes
                    if one.failure
                ],
                "seconds": {f"{one.pair[0]}_{one.pair[1]}": round(one.seconds, 4) for one in found},
                "dense": {
                    "matcher": settings.dense_matcher,
                    "settings": settings.dense_settings,
                    "max_size": settings.max_size,
                    "turn_upright": settings.turn_upright,
                },
            },
        )
        figures: dict[str, Any] = {"pairs": len(found), "matcher": settings.matcher, "kind": kind}
        if kind == "dense":
            shares = [share for one in found for share in one.shares]
            figures["consistent_share_median"] = float(np.median(shares)) if shares else 0.0
        else:
            figures["matches_per_pair"] = _mean([one.matches for one in found])
        figures["seconds_per_pair"] = _mean([one.seconds for one in found])
        if len(found) < len(outcomes):
            figures["pairs_failed"] = len(outcomes) - len(found)
        return figures


@dataclass(frozen=True)
class PairJob:
    """A matcher and how its images are made."""

    matcher: Matcher
    settings: Mapping[str, Any]
    max_size: int
    turn_upright: bool


@dataclass(frozen=True)
class PairOutcome:
    """What came of one pair.

    Attributes:
        failure: why there is no result; empty where there is one.
        matches: number of point matches, or of consistent pixels of the first photo.
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
    out. Dense fields are shared with other runs through the folder that the input ``field_cache`` names, if there
    is one: fields of the same photos, seeds, matcher and settings are computed once.

    Raises:
        ReconError: the matcher failed on every pair.
    """
    photos = load_photo_set(work).photos
    seeds = load_sparse_matches(work)
    matcher = job.matcher
    dense = matcher.capabilities.kind == "dense"

    def prepare(photo: int, turns: int) -> tuple[Any, float]:
        image = turn_image(match_image(work, photos[photo], job.max_size), turns)
        began = time.perf_counter()
        with _blamed():
            prepared = matcher.prepare(image)
        return prepared, time.perf_counter() - began

    cache = _PreparedCache(prepare)

    def run(pair: Pair, turns: int) -> tuple[DenseMatch | SparseMatch, float]:
        a, seconds_a = cache.get((pair[0], 0))
        b, seconds_b = cache.get((pair[1], turns))
        began = time.perf_counter()
        with _blamed():
            result = matcher.match(a, b, PairContext(seeds=seeds.get(pair)))
        seconds = time.perf_counter() - began + seconds_a + seconds_b
        size_a, size_b = (matching_size(photos[photo], job.max_size) for photo in pair)
        with _blamed():
            turned_b = size_b[::-1] if turns % 2 else size_b
            return checked_match(result, matcher.capabilities.kind, size_a, turned_b), seconds

    def match(pair: Pair) -> PairOutcome:
        done = store / (f"{pair[0]}_{pair[1]}" if dense else f"{pair[0]}_{pair[1]}.npz")
        if not done.exists():
            turns = 0
            if job.turn_upright:
                points = load_points(work, pair[0]), load_points(work, pair[1])
                turns = turns_of_seeds(*points, seeds.get(pair))
            shared = _shared_field(work, job, [photos[i] for i in pair], seeds.get(pair), turns)
            if shared is not None and shared.exists():
                _copy_into_place(shared, done)
                return _outcome(pair, done)
            try:
                result, seconds = run(pair, turns)
            except _MatcherFailedError as error:
                return PairOutcome(pair, str(error))
            if isinstance(result, DenseMatch):
                write_dense_match(done, turn_back(result, turns), seconds)
            else:
                size_a, size_b = (matching_size(photos[photo], job.max_size) for photo in pair)
                result = turn_matches_back(result, turns, size_b[::-1] if turns % 2 else size_b)
                sizes = [(photos[photo].width, photos[photo].height) for photo in pair]
                with work.write_into(done.parent, done.name) as path:
                    save_sparse_match(
                        path,
                        SparseMatch(
                            resize_points(result.xy_a, size_a, sizes[0]),
                            resize_points(result.xy_b, size_b, sizes[1]),
                            result.score,
                        ),
                        seconds,
                    )
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
    work: StageContext, job: PairJob, photos: Sequence[Photo], seeds: Any, turns: int
) -> Path | None:
    """Where runs that share dense fields keep that of a pair; None without such a folder, and for point matches."""
    folder = work.inputs.get(FIELD_CACHE)
    if not folder or job.matcher.capabilities.kind != "dense":
        return None
    digest = hashlib.sha256()
    identity = {
        "version": _FIELD_VERSION,
        "matcher": job.matcher.name,
        "settings": matcher_settings(job.matcher.name)(**job.settings).model_dump(mode="json"),
        "photos": [photo.sha256 for photo in photos],
        "sizes": [matching_size(photo, job.max_size) for photo in photos],
        "turns": turns,
    }
    digest.update(json.dumps(identity, sort_keys=True).encode())
    for photo in photos:
        for values in (load_points(work, photo.id).xy, load_rgb(work, photo), load_mask(work, photo)):
            digest.update(b"none" if values is None else np.ascontiguousarray(values).tobytes())
    digest.update(b"none" if seeds is None else np.ascontiguousarray(seeds).tobytes())
    return Path(str(folder)) / digest.hexdigest()


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


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4) if values else 0.0


def match_image(work: StageContext, photo: Photo, max_size: int) -> MatchImage:
    """One photo at matching size, with its mask and interest points at that size."""
    width, height = matching_size(photo, max_size)
    mask = load_mask(work, photo)
    return MatchImage(
        rgb=resize_rgb(load_rgb(work, photo), width, height),
        mask=None if mask is None else resize_mask(mask, width, height),
        points=load_points(work, photo.id).at_size(width / photo.width, height / photo.height),
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


def write_dense_match(path: Path, match: DenseMatch, seconds: float = 0.0) -> None:
    """Writes both directions of a pair as one Zarr group, beside its place and then renamed into it.

    ``seconds`` is what the matcher needed; it is kept with the field.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    if beside.exists():
        shutil.rmtree(beside)
    group = zarr.open_group(str(beside), mode="w")
    for side, field, consistent in (
        ("a", match.a_to_b, match.consistent_a),
        ("b", match.b_to_a, match.consistent_b),
    ):
        steps = np.clip(np.rint(field.flow / FLOW_STEP), -32768, 32767).astype(np.int16)
        confidence = np.rint(np.clip(field.confidence, 0, 1) * 255).astype(np.uint8)
        for name, values in (("flow", steps), ("confidence", confidence), ("consistent", consistent)):
            array = zarr.open_array(
                str(beside / f"{name}_{side}"),
                mode="w",
                shape=values.shape,
                chunks=values.shape,
                dtype=values.dtype,
            )
            array[...] = values
        group.attrs[f"consistent_share_{side}"] = float(consistent.mean())
    group.attrs["seconds"] = float(seconds)
    os.replace(beside, path)


def save_sparse_match(path: Path, match: SparseMatch, seconds: float = 0.0) -> None:
    """Writes the point matches of a pair, and the seconds that the matcher needed."""
    with path.open("wb") as stream:
        np.savez(stream, xy_a=match.xy_a, xy_b=match.xy_b, score=match.score, seconds=np.float64(seconds))


def load_sparse_match(work: StageContext, pair: Pair) -> SparseMatch:
    """The point matches of a pair as a sparse matcher left them, at the photos' working size."""
    with np.load(work.path(MATCHES, f"{pair[0]}_{pair[1]}.npz")) as data:
        return SparseMatch(data["xy_a"], data["xy_b"], data["score"])


@dataclass(frozen=True)
class Matching:
    """What the stage left.

    Attributes:
        kind: "dense" or "sparse".
        repeatable: see ``recon.matching.types.Capabilities``.
        pairs: those that were matched; pairs on which the matcher failed are not among them.
        dense: with a sparse matcher: name, settings, size and turning of the dense one for the densification.
    """

    matcher: str
    kind: str
    repeatable: bool
    pairs: tuple[Pair, ...]
    dense: Mapping[str, Any]


def load_matching(work: StageContext) -> Matching:
    """Which matcher ran, and on which pairs it gave a result."""
    stored = json.loads(work.path(MATCHING).read_text(encoding="utf-8"))
    pairs = tuple((int(i), int(j)) for i, j in stored["pairs"])
    return Matching(stored["matcher"], stored["kind"], stored["repeatable"], pairs, stored["dense"])


def load_dense_match(work: StageContext, pair: Pair) -> DenseMatch:
    """Both directions of a pair, as the stage left them (flow to within 1/64 px)."""
    path = work.path(FLOWS, f"{pair[0]}_{pair[1]}")

    def read(name: str) -> Any:
        return zarr.open_array(str(path / name), mode="r")[...]

    def field(side: str) -> FlowField:
        flow = read(f"flow_{side}").astype(np.float32) * np.float32(FLOW_STEP)
        return FlowField(flow, read(f"confidence_{side}").astype(np.float32) / np.float32(255))

    return DenseMatch(
        field("a"), field("b"), read("consistent_a").astype(bool), read("consistent_b").astype(bool)
    )


class DenseMatches(Mapping[Pair, DenseMatch]):
    """The dense matches of some pairs, read from the workspace when asked for; the last ones stay in memory."""

    def __init__(self, work: StageContext, pairs: Iterable[Pair], in_memory: int = 64) -> None:
        self._pairs = tuple(pairs)
        self._read = lru_cache(maxsize=in_memory)(lambda pair: load_dense_match(work, pair))

    def __getitem__(self, pair: Pair) -> DenseMatch:
        if pair not in self._pairs:
            raise KeyError(pair)
        return self._read(pair)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)
