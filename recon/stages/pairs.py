"""Stage ``pairs``: which pairs of photos are worth a dense match, and the sparse matches that say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from recon.core.memory import Lazy
from recon.engine.stage import StageContext, options_of
from recon.io.manifest import KEPT
from recon.photos.pairs import (
    PairsMode,
    candidate_pairs,
    pairs_at_rest,
    pairs_from_file,
    select_pairs,
    visual_words,
    without_weak,
)
from recon.run.folder import RunFolder
from recon.run.matches import Pair
from recon.run.photo_changes import photo_changes
from recon.tasks.looks import LookAtPair, LookOptions, look_key


class PairsSettings(BaseModel):
    """Settings for choosing pairs."""

    model_config = ConfigDict(extra="forbid")
    mode: PairsMode = Field("auto", description="auto: exhaustive for small sets, retrieval for larger ones")
    file: str = Field("", description="with mode 'file': one pair of photo names a line")
    exhaustive_limit: int = Field(40, ge=2, description="auto looks at every pair up to so many photos")
    overlap: int = Field(5, ge=1, description="with mode 'sequential': neighbours on each side")
    loop: bool = Field(False, description="with mode 'sequential': the last photo meets the first")
    retrieved: int = Field(20, ge=1, description="with retrieval: candidates per photo")
    neighbours: int = Field(
        8, ge=1, description="dense matches per photo: the best so many by sparse evidence"
    )
    min_inliers: int = Field(15, ge=4, description="sparse inliers below which a pair has no evidence")
    min_inlier_ratio: float = Field(
        0.25, ge=0.0, le=1.0, description="share of the sparse matches below which a pair has no evidence"
    )
    weak_share: float = Field(
        0.08,
        ge=0.0,
        lt=1.0,
        description="pairs with less than this share of their photos' best evidence are skipped",
    )
    ratio: float = Field(0.8, gt=0.0, le=1.0, description="ratio test of the sparse matches")
    max_error: float = Field(4.0, gt=0.0, description="inlier threshold of the sparse look, pixels")


class PairsStage:
    """Matches interest points of candidate pairs, verifies them, and picks the pairs to match."""

    name: ClassVar[str] = "pairs"
    version: ClassVar[int] = 3
    reads: ClassVar[tuple[str, ...]] = ("photos", "features")
    Settings: ClassVar[type[BaseModel]] = PairsSettings

    def run(self, settings: PairsSettings, work: StageContext) -> dict[str, Any]:
        run = RunFolder.of(work)
        photo_set = run.photo_set
        photos = photo_set.photos
        if settings.mode == "file":
            candidates = list(pairs_from_file(Path(settings.file), [photo.name for photo in photos]))
        else:
            candidates = candidate_pairs(
                photo_set,
                settings.mode,
                Lazy(len(photos), lambda i: run.points(i).descriptors),
                exhaustive_limit=settings.exhaustive_limit,
                overlap=settings.overlap,
                loop=settings.loop,
                retrieved=settings.retrieved,
                seed=work.seed,
                vocabulary=lambda: _vocabulary(work),
            )
        options = options_of(LookOptions, settings, seed=work.seed)
        keys = {pair: look_key(run, options, pair) for pair in candidates}
        known = run.kept_looks() if work.reuse else {}
        fresh = [pair for pair in candidates if keys[pair] not in known]
        nothing = np.zeros((0, 2), np.int64)
        with closing(LookAtPair(work.root, options, work.memory, uuid4().hex)) as look:
            looks = work.spread(look, fresh, "sparse first look", lambda _: nothing)
        seen = dict(zip(fresh, looks, strict=True))
        verified = {pair: seen[pair] if pair in seen else known[keys[pair]] for pair in candidates}
        run.write_looks({keys[pair]: matches for pair, matches in verified.items()})
        scores = {pair: len(m) for pair, m in verified.items() if len(m) >= settings.min_inliers}
        worthwhile = without_weak(scores, settings.weak_share)
        if settings.mode == "file":
            chosen = tuple(candidates)
        else:
            chosen = select_pairs(
                len(photos), worthwhile, neighbours=settings.neighbours, plausible=candidates
            )
        blind = sum(pair not in scores for pair in chosen)
        if blind:
            work.warn(f"{blind} of {len(chosen)} pairs are matched without evidence from interest points")
        _tell_of_rest(work, [pair for pair in chosen if pair in scores], verified)
        run.write_pairs(
            {pair: scores.get(pair, 0) for pair in chosen}, {pair: verified[pair] for pair in scores}
        )
        kept = len(candidates) - len(fresh)
        return {
            "candidates": len(candidates),
            "pairs": len(chosen),
            "pairs_without_sparse_evidence": blind,
            **({KEPT: kept} if kept else {}),
        }


def _vocabulary(work: StageContext) -> Float32[np.ndarray, "w 128"]:
    """The words of retrieval: those of an earlier run while few photos came or went since they were trained, so that
    what is alike stays so."""
    run = RunFolder.of(work)
    photos = run.photo_set.photos
    keys = [run.points_key(photo.id) for photo in photos]
    before = run.kept_vocabulary() if work.reuse else None
    changes = photo_changes(before[0], keys) if before is not None else None
    if before is not None and changes is not None and (changes.count == 0 or changes.few()):
        keys, words = before
    else:
        words = visual_words(Lazy(len(photos), lambda i: run.points(i).descriptors), work.seed)
    run.write_vocabulary(keys, words)
    return words


_ENOUGH = 200
"""So many pairs tell whether most of them show something at rest."""


def _tell_of_rest(
    work: StageContext, pairs: Sequence[Pair], matches: Mapping[Pair, NDArray[np.int64]]
) -> None:
    """Warn where the cameras may follow a background that stands still."""
    run = RunFolder.of(work)
    places = lru_cache(maxsize=64)(lambda number: run.points(number).xy)
    pairs = pairs[:: 1 + len(pairs) // _ENOUGH]

    def move(pair: Pair) -> NDArray[np.float32]:
        rows = matches[pair]
        moves: NDArray[np.float32] = places(pair[1])[rows[:, 1]] - places(pair[0])[rows[:, 0]]
        return moves

    resting = pairs_at_rest(move(pair) for pair in pairs)
    if len(pairs) >= 3 and 2 * resting > len(pairs):
        work.warn(
            f"in {resting} of {len(pairs)} pairs a good part of what both photos show is at the very same place. "
            "Either something turned before a background that stood still (a turntable), and the cameras may follow "
            "the background instead of it, or shreds of the background get into depth and mesh: give masks of the "
            "object (--masks, or NAME_mask.png beside the photos). "
            "Or the camera did not move: walk round what you photograph"
        )
