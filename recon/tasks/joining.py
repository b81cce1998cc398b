"""Photos and models of a run that its weak pairs join, for the stage ``map``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float32

from recon.engine.stage import StageContext
from recon.graph.tracks import Flows, TrackSettings
from recon.graph.types import Tracks, ViewGraph
from recon.graph.view_graph import FEW_POINTS
from recon.photos.types import PhotoSet
from recon.run.folder import RunFolder
from recon.run.matches import Pair
from recon.sfm.joining import Joined, join_models
from recon.sfm.mapping import MappingResult, MappingSettings
from recon.tasks.tracks import TrackOptions, tracks_of_flow


def joined_by_flow(
    result: MappingResult,
    photo_set: PhotoSet,
    graph: ViewGraph,
    tracks: Tracks,
    options: MappingSettings,
    work: StageContext,
) -> Joined | None:
    """Join what was left out by dense pairs of photos with hardly any texture; None where nothing is, or in vain.

    In photos with texture a pair that was not kept is the mark of a look-alike: its points agree on a pose, too.
    """
    run = RunFolder.of(work)
    if not result.left_out or run.matching.kind != "dense":
        return None
    points = [len(run.points(photo.id).xy) for photo in photo_set.photos]
    by_points = run.edges_by_points()
    pairs = [
        (a, b)
        for a, b in run.matching.pairs
        if min(points[a], points[b]) <= FEW_POINTS and (a, b) not in by_points
    ]
    if not pairs:
        return None
    sizes = {photo.id: (photo.width, photo.height) for photo in photo_set.photos}
    flows = Flows(sizes, run.dense_matches(pairs), {}, TrackSettings.window)

    def carry(
        source: int, target: int, xy: Float32[np.ndarray, "n 2"]
    ) -> tuple[Float32[np.ndarray, "n 2"], Bool[np.ndarray, " n"]]:
        moved, _, valid, _ = flows.carry(source, target, xy)
        return moved, valid

    def retrack(edges: Sequence[Pair], geometry: Mapping[Pair, np.ndarray]) -> Tracks:
        return tracks_of_flow(run, edges, TrackOptions(**run.track_options), work, geometry)

    joined = join_models(result, photo_set, graph, tracks, pairs, carry, retrack, options)
    if joined is not None and result.best is not None and joined.result.best is not None:
        before, now = result.best.num_reg_images(), joined.result.best.num_reg_images()
        work.log.info(
            "mapped again with pairs whose flow agrees with the model: %d photos, before %d", now, before
        )
    return joined
