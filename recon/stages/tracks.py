"""Stage ``tracks``: multi-view tracks from the matches, refined below the pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32
from pydantic import BaseModel, ConfigDict, Field

from recon.engine.stage import StageContext, options_of
from recon.features.types import MatchedPoints
from recon.graph.agreement import agreeing_match
from recon.graph.anchors import AnchorKind, anchors_of_photo, suppression_for
from recon.graph.thinning import thin_tracks
from recon.graph.tracks import TrackSettings, build_tracks, tracks_from_sparse
from recon.matching.types import DenseMatch
from recon.photos.types import Photo
from recon.run.folder import RunFolder
from recon.run.matches import Pair
from recon.sfm.track_refinement import RefinementSettings, refine_tracks, with_references

_SAME_POINT = 1e-3
"""Points of one photo that agree to so many pixels are the same point of a detector."""


class TracksSettings(BaseModel):
    """Source and number of the tracks."""

    model_config = ConfigDict(extra="forbid")
    anchors: AnchorKind = Field(
        "both", description="dense: what the flow carries: corners of the photo, its SIFT points, or both"
    )
    max_anchors: int = Field(
        TrackSettings.max_anchors, ge=50, description="dense: at most so many tracks start in one photo"
    )
    suppression: float = Field(
        TrackSettings.suppression,
        ge=0.0,
        description="dense and semi-dense: distance to an observation of a better track, pixels",
    )
    loop_error: float = Field(
        TrackSettings.loop_error,
        gt=0.0,
        description="dense: largest miss between two observations, matching pixels",
    )
    merge_radius: float = Field(
        2.0,
        gt=0.0,
        description="semi-dense: points of a photo are brought to a grid of this step to be one, pixels",
    )
    refine: bool = Field(
        True,
        description="multi-view sub-pixel refinement of the observations of dense and semi-dense matchers",
    )


class TracksStage:
    """Carries anchors of each photo into its neighbours, resolves conflicts, refines what is left.

    The point matches of a sparse matcher that agree with their pair's geometry are joined, best score first.
    """

    name: ClassVar[str] = "tracks"
    version: ClassVar[int] = 5
    reads: ClassVar[tuple[str, ...]] = ("photos", "features", "match", "verify")
    Settings: ClassVar[type[BaseModel]] = TracksSettings

    def run(self, settings: TracksSettings, work: StageContext) -> dict[str, Any]:
        run = RunFolder.of(work)
        photo_set = run.photo_set
        edges = run.edges()
        matching = run.matching
        if matching.kind == "sparse":
            tracks = tracks_from_sparse(
                {edge: run.sparse_match(edge) for edge in edges},
                {edge: run.inliers(edge) for edge in edges},
                merge_radius=_SAME_POINT if matching.repeatable else settings.merge_radius,
            )
            if not matching.repeatable:
                tracks = thin_tracks(tracks, settings.suppression)
            # Nothing is known of the patches round matched points: they start unrotated and unscaled.
            tracks = with_references(tracks)
        else:

            def anchors_of(photo: Photo) -> Float32[np.ndarray, "n 2"]:
                points = run.points(photo.id).xy
                grey, mask = run.grey(photo), run.mask(photo)
                return anchors_of_photo(grey, mask, points, settings.anchors, settings.max_anchors)

            anchors = work.map(anchors_of, photo_set.photos, "anchors")
            by_points = run.edges_by_points()
            points = [len(run.points(photo.id).xy) for photo in photo_set.photos]
            chosen = options_of(TrackSettings, settings)
            chosen = replace(chosen, suppression=suppression_for(points, settings.suppression))
            tracks = build_tracks(
                photo_set,
                run.dense_matches(
                    [edge for edge in edges if edge not in by_points],
                    partial(_agreeing, run, photo_set.photos),
                ),
                {photo.id: xy for photo, xy in zip(photo_set.photos, anchors, strict=True)},
                chosen,
                {edge: _seen(run, edge) for edge in sorted(by_points)},
            )
        if settings.refine:
            greys = run.greys()
            # The observations are aligned jointly once the cameras are known; before, the reference is enough.
            how = RefinementSettings(joint=False, memory=work.memory)
            tracks = refine_tracks(greys, tracks, how, threads=work.threads)
        run.write_tracks(tracks)
        length = len(tracks.track_id) / max(tracks.count, 1)
        return {"tracks": tracks.count, "observations": len(tracks.track_id), "mean_length": round(length, 3)}


def _agreeing(run: RunFolder, photos: Sequence[Photo], pair: Pair, match: DenseMatch) -> DenseMatch:
    """The dense match without what contradicts the sparse first look, or the geometry of the pair."""
    a, b = (photos[i] for i in pair)
    model, matrix = run.two_view_matrix(pair)
    seen = run.seen_match(pair)
    nothing = np.zeros((0, 2), np.float32)
    xy_a, xy_b = (nothing, nothing) if seen is None else (seen.a.xy, seen.b.xy)
    size_a, size_b = (a.width, a.height), (b.width, b.height)
    fundamental = None if model == "H" else matrix
    return agreeing_match(match, xy_a, xy_b, size_a, size_b, fundamental=fundamental)


def _seen(run: RunFolder, pair: Pair) -> MatchedPoints:
    """The interest points of the sparse first look that agree with the geometry of their pair."""
    seen = run.seen_match(pair)
    assert seen is not None
    return seen.rows(run.inliers(pair))
