"""Photos and models of a run that its weak pairs join, for the stage ``map``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32

from recon.engine.stage import StageContext
from recon.errors import ReconError
from recon.graph.tracks import Flows, TrackSettings
from recon.graph.types import Tracks, ViewGraph
from recon.graph.view_graph import FEW_POINTS
from recon.matching.registry import create_matcher
from recon.photos.types import PhotoSet
from recon.run.folder import RunFolder
from recon.run.matches import Pair
from recon.sfm.joining import Joined, join_models
from recon.sfm.mapping import MappingResult, MappingSettings
from recon.tasks.matching import PairJob, match_pairs
from recon.tasks.tracks import TrackOptions, tracks_of_flow

COARSE_FLOWS = "coarse_flows.zarr"
"""Matches at half the size of pairs that might join what is left out."""


def joined_by_flow(
    result: MappingResult,
    photo_set: PhotoSet,
    graph: ViewGraph,
    tracks: Tracks,
    options: MappingSettings,
    work: StageContext,
) -> Joined | None:
    """Join what was left out by dense pairs of photos with hardly any texture; None where nothing is, or in vain.

    Pairs that join nothing are matched again at half the size. In photos with texture a pair that was not kept is the
    mark of a look-alike: its points agree on a pose, too.
    """
    run = RunFolder.of(work)
    if not result.left_out or run.matching.kind != "dense":
        return None
    points = [len(run.points(photo.id).xy) for photo in photo_set.photos]
    by_points = run.edges_by_points()

    def weak(pairs: Iterable[Pair]) -> list[Pair]:
        return [
            (a, b) for a, b in pairs if min(points[a], points[b]) <= FEW_POINTS and (a, b) not in by_points
        ]

    pairs = weak(run.matching.pairs)
    if not pairs:
        return None
    before, joined = result, None
    elsewhere: dict[Pair, Path] = {}
    for again in (False, True):
        if again:
            alone = _not_in_model(result, photo_set)
            asked = {*pairs, *pairwise(range(len(photo_set.photos)))}
            asked = {pair for pair in weak(asked) if alone & set(pair) and not graph.has_edge(*pair)}
            if not asked:
                break
            elsewhere = _matched_coarsely(sorted(asked), work)
            pairs = sorted({*pairs, *elsewhere})
        more = _joined(result, photo_set, graph, tracks, pairs, elsewhere, options, work)
        if more is not None:
            joined, result, photo_set, graph, tracks = more, more.result, more.photos, more.graph, more.tracks
    if joined is not None:
        counts = [one.best.num_reg_images() for one in (result, before) if one.best is not None]
        work.log.info(
            "mapped again with pairs whose flow agrees with the model: %d photos, before %d", *counts
        )
    return joined


def _not_in_model(result: MappingResult, photo_set: PhotoSet) -> set[int]:
    out = {one.name for one in result.left_out}
    return {photo.id for photo in photo_set.photos if photo.name in out}


def _matched_coarsely(pairs: Sequence[Pair], work: StageContext) -> dict[Pair, Path]:
    """Pairs matched at half the size, where a weak texture is stronger and what is far apart nearer: their folders."""
    dense = RunFolder.of(work).matching.dense
    matcher = create_matcher(dense["matcher"], **dense["settings"])
    job = PairJob(matcher, dense["settings"], max(64, dense["max_size"] // 2), dense["turn_upright"])
    try:
        outcomes, _ = match_pairs(work, job, pairs, COARSE_FLOWS)
    except ReconError as error:  # a second try that fails leaves the first
        work.warn(str(error))
        return {}
    return {one.pair: work.path(COARSE_FLOWS) for one in outcomes if not one.failure}


def _joined(
    result: MappingResult,
    photo_set: PhotoSet,
    graph: ViewGraph,
    tracks: Tracks,
    pairs: Sequence[Pair],
    elsewhere: Mapping[Pair, Path],
    options: MappingSettings,
    work: StageContext,
) -> Joined | None:
    run = RunFolder.of(work)
    sizes = {photo.id: (photo.width, photo.height) for photo in photo_set.photos}
    flows = Flows(sizes, run.dense_matches(pairs, elsewhere=elsewhere), {}, TrackSettings.window)

    def carry(
        source: int, target: int, xy: Float32[np.ndarray, "n 2"]
    ) -> tuple[Float32[np.ndarray, "n 2"], Bool[np.ndarray, " n"]]:
        moved, _, valid, _ = flows.carry(source, target, xy)
        return moved, valid

    def retrack(edges: Sequence[Pair], geometry: Mapping[Pair, np.ndarray]) -> Tracks:
        return tracks_of_flow(run, edges, TrackOptions(**run.track_options), work, geometry, elsewhere)

    return join_models(result, photo_set, graph, tracks, pairs, carry, retrack, options)
