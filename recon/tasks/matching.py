"""A matcher over pairs of photos, for the stages ``match`` and ``fields``; each result is written when it is there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import zarr

from recon.core.memory import Latest
from recon.engine.stage import StageContext
from recon.errors import ReconError
from recon.matching.alignment import Placement, placement
from recon.matching.prepared import (
    MatcherFailedError,
    PairMatcher,
    at_working_size,
    match_image,
    matching_size,
)
from recon.matching.registry import create_matcher, matcher_settings
from recon.matching.types import DenseMatch, Matcher, MatchImage
from recon.photos.types import Photo
from recon.run.folder import RunFolder
from recon.run.kept import KeptItems, write_keys
from recon.run.matches import Pair, PairOutcome, read_outcome, save_sparse_match, write_dense_match
from recon.run.shared_fields import content_key, copy_into_place

_FIELD_VERSION = 10
"""Raised when what a shared field depends on changes."""


@dataclass(frozen=True)
class PairJob:
    """A matcher and how its images are made."""

    matcher: Matcher
    settings: Mapping[str, Any]
    max_size: int
    turn_upright: bool  # and bring to one scale
    version: int = 0  # of the stage


def match_pairs(
    work: StageContext, job: PairJob, pairs: Sequence[Pair], name: str
) -> tuple[list[PairOutcome], int]:
    """Match pairs into the directory ``name``; what is there already is kept.

    A pair on which the matcher raises, or returns what is no match, is reported with the matcher's name and left
    out. Dense fields are shared with other runs through the folder that ``RunInputs.field_cache`` names, if there
    is one: fields of the same photos, seeds, matcher and settings are computed once.

    Returns:
        What came of each pair, and how many of them an earlier run had matched.

    Raises:
        ReconError: the matcher failed on every pair.
    """
    run = RunFolder.of(work)
    photos = run.photo_set.photos
    seeds = run.sparse_matches()
    matcher = job.matcher
    dense = matcher.capabilities.kind == "dense"
    before = KeptItems(run.path(name), work.reuse)
    keys = {pair: _key(run, job, [photos[i] for i in pair], seeds.get(pair)) for pair in pairs}
    with work.resumable_directory(name) as store:
        for unfinished in store.glob(".*.partial"):
            shutil.rmtree(unfinished)
        if dense:
            zarr.open_group(str(store), mode="a")
        places = {pair: store / run.match_path(pair, dense=dense).name for pair in pairs}
        kept = sum(before.take(keys[pair], place) for pair, place in places.items())
        task = MatchPair(
            work.root, store, matcher.name, json.dumps(dict(job.settings), default=str), job.max_size, job.turn_upright,
            work.inputs.field_cache if work.inputs is not None else None, uuid4().hex,
        )  # fmt: skip
        _open.get(task, lambda: _Matching(task, matcher))
        with closing(task):
            outcomes = work.spread(task, pairs, f"{matcher.capabilities.kind} matching", task.lost)
        failed = [one for one in outcomes if one.failure]
        if failed and len(failed) == len(outcomes):
            raise ReconError(f"matcher {matcher.name!r} failed on every pair: {failed[0].failure}")
        write_keys(
            work, store, {places[one.pair].name: keys[one.pair] for one in outcomes if not one.failure}
        )
    for one in failed:
        a, b = photos[one.pair[0]].name, photos[one.pair[1]].name
        work.warn(f"matcher {matcher.name!r} failed on {a} and {b}, the pair is left out: {one.failure}")
    return outcomes, kept


@dataclass(frozen=True)
class MatchPair:
    """Writes the match of a pair, unless it is there, and tells what came of it.

    Attributes:
        root: the workspace.
        store: where matches go.
        matcher, settings: its name and its settings as JSON.
        field_cache: folder in which runs share dense fields.
        token: of this run of the stage.
    """

    root: Path
    store: Path
    matcher: str
    settings: str
    max_size: int
    turn_upright: bool
    field_cache: str | None
    token: str

    def __call__(self, pair: Pair) -> PairOutcome:
        return _open.get(self, lambda: _Matching(self)).match(pair)

    def lost(self, pair: Pair) -> PairOutcome:
        """A pair that ended its worker each time has no match."""
        return PairOutcome(pair, "it ended the process that matched it")

    def close(self) -> None:
        """Free what tasks of this process hold."""
        _open.clear()


_open = Latest()


class _Matching:
    """The matcher and the photos of a task."""

    def __init__(self, task: MatchPair, matcher: Matcher | None = None) -> None:
        self.task, self.run = task, RunFolder(task.root)
        settings = json.loads(task.settings)
        matcher = matcher or create_matcher(task.matcher, **settings)
        self.job = PairJob(matcher, settings, task.max_size, task.turn_upright)
        self.photos = self.run.photo_set.photos
        self.seeds = self.run.sparse_matches()
        self.prepared = PairMatcher(matcher, self.image_of)

    def image_of(self, number: int) -> MatchImage:
        photo = self.photos[number]
        size = matching_size(photo, self.task.max_size)
        return match_image(size, self.run.rgb(photo), self.run.mask(photo), self.run.points(number))

    def match(self, pair: Pair) -> PairOutcome:
        dense = self.job.matcher.capabilities.kind == "dense"
        done = self.task.store / self.run.match_path(pair, dense=dense).name
        if done.exists():
            return read_outcome(pair, done)
        both, seeds = [self.photos[number] for number in pair], self.seeds.get(pair)
        placed = _placement(self.run, self.job, both, seeds)
        shared = _shared_field(self.run, self.job, self.task.field_cache, both, seeds, placed)
        if shared is not None and shared.exists():
            copy_into_place(shared, done)
            return read_outcome(pair, done)
        try:
            result, seconds = self.prepared.match(pair, placed, seeds)
        except MatcherFailedError as error:
            return PairOutcome(pair, str(error))
        if isinstance(result, DenseMatch):
            write_dense_match(done, placed.back(result), seconds)
        else:
            at_work = at_working_size(result, placed, *both)
            with self.run.files.write_into(done.parent, done.name) as path:
                save_sparse_match(path, at_work, seconds)
        if shared is not None:
            copy_into_place(done, shared)
        return read_outcome(pair, done)


def _key(run: RunFolder, job: PairJob, photos: Sequence[Photo], seeds: Any) -> str:
    """Hash of all that the match of a pair depends on."""
    identity = {
        "version": job.version,
        "matcher": job.matcher.name,
        "settings": matcher_settings(job.matcher.name)(**job.settings).model_dump(mode="json"),
        "photos": [run.photo_key(photo) for photo in photos],
        "points": [run.points_key(photo.id) for photo in photos],
        "max_size": job.max_size,
        "turn_upright": job.turn_upright,
    }
    return content_key(identity, [seeds])


def _placement(run: RunFolder, job: PairJob, photos: Sequence[Photo], seeds: Any) -> Placement:
    """Placement of the second photo near the first one, at matching size."""
    size_a, size_b = (matching_size(photo, job.max_size) for photo in photos)
    if not job.turn_upright:
        return Placement(0, None, size_a, size_b)
    a, b = (
        run.points(photo.id).at_size(width / photo.width, height / photo.height)
        for photo, (width, height) in zip(photos, (size_a, size_b), strict=True)
    )
    return placement(a, b, seeds, size_a, size_b, rescale=job.matcher.capabilities.kind == "dense")


def _shared_field(
    run: RunFolder,
    job: PairJob,
    folder: str | None,
    photos: Sequence[Photo],
    seeds: Any,
    placed: Placement,
) -> Path | None:
    """Place of a pair's dense field that runs share; None without such a folder, and for point matches."""
    if not folder or job.matcher.capabilities.kind != "dense":
        return None
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
    arrays = [
        values for photo in photos for values in (run.points(photo.id).xy, run.rgb(photo), run.mask(photo))
    ]
    return Path(folder) / content_key(identity, [*arrays, seeds])
