"""Tracks from the dense matches of a run, for the stages ``tracks`` and ``map``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Float32

from recon.core.memory import Lazy
from recon.engine.stage import StageContext
from recon.features.types import MatchedPoints
from recon.graph.agreement import agreeing_match
from recon.graph.anchors import AnchorKind, anchors_of_photo, suppression_for
from recon.graph.track_extension import (
    carried_into,
    points_by_photo,
    refined_additions,
    with_more_tracks,
)
from recon.graph.tracks import Flows, TrackSettings, build_tracks
from recon.graph.types import Tracks
from recon.matching.types import DenseMatch
from recon.photos.background import even_background
from recon.photos.types import Photo
from recon.run.folder import RunFolder
from recon.run.matches import DenseMatches, Pair
from recon.sfm.track_refinement import RefinementSettings, refine_tracks


@dataclass(frozen=True)
class TrackOptions:
    """Source and number of dense tracks.

    Attributes:
        anchors: what the flow carries: corners of the photo, its interest points, or both.
        max_anchors, suppression, loop_error: see ``TrackSettings``.
        refine: observations below the pixel.
    """

    anchors: AnchorKind = "both"
    max_anchors: int = TrackSettings.max_anchors
    suppression: float = TrackSettings.suppression
    loop_error: float = TrackSettings.loop_error
    refine: bool = True


def tracks_of_flow(
    run: RunFolder,
    edges: Sequence[Pair],
    options: TrackOptions,
    work: StageContext,
    fundamental: Mapping[Pair, Float[np.ndarray, "3 3"]] | None = None,
    elsewhere: Mapping[Pair, Path] | None = None,
) -> Tracks:
    """Carry anchors of each photo through the flow of its edges, without what contradicts the geometry of the pair.

    Args:
        edges: pairs with a dense match, ascending.
        fundamental: geometry that is better known than that of the pair alone, in pixels at working size.
        elsewhere: folders of matches that are not those of the stage ``match``.
    """
    photos = run.photo_set.photos
    anchors = work.map(_anchors_of(run, options), photos, "anchors")
    by_points = run.edges_by_points()
    tracks = build_tracks(
        run.photo_set,
        agreeing_matches(run, [edge for edge in edges if edge not in by_points], fundamental, elsewhere),
        {photo.id: xy for photo, xy in zip(photos, anchors, strict=True)},
        track_settings(run, options),
        {edge: _seen(run, edge) for edge in edges if edge in by_points},
    )
    return refined(run, tracks, work) if options.refine else tracks


def tracks_carried_on(
    run: RunFolder,
    edges: Sequence[Pair],
    options: TrackOptions,
    work: StageContext,
    before: Tracks,
    new: Sequence[int],
) -> Tracks:
    """Tracks of an earlier run carried into photos that are new, and those that start in these.

    Observations of earlier photos stay where they were, and only new ones are refined.

    Args:
        edges: as ``tracks_of_flow`` takes them.
        before: tracks without observations in the new photos.
        new: ids of the new photos.
    """
    photos = [run.photo_set.photos[number] for number in new]
    near = {*new, *(number for edge in edges if set(edge) & set(new) for number in edge)}
    edges = [edge for edge in edges if set(edge) <= near]
    by_points = run.edges_by_points()
    matches = agreeing_matches(run, [edge for edge in edges if edge not in by_points])
    points = {edge: _seen(run, edge) for edge in edges if edge in by_points}
    settings = track_settings(run, options)
    sizes = {photo.id: (photo.width, photo.height) for photo in run.photo_set.photos}
    flows = Flows(sizes, matches, points, settings.window)
    longer, is_new = carried_into(before, flows, new, settings)
    anchors = work.map(_anchors_of(run, options), photos, "anchors")
    started = build_tracks(
        run.photo_set,
        matches,
        {photo.id: xy for photo, xy in zip(photos, anchors, strict=True)},
        settings,
        points,
        points_by_photo(longer, new),
    )
    both, is_started = with_more_tracks(longer, started)
    is_new = np.concatenate([is_new, is_started[len(is_new) :]])
    if not options.refine:
        return both
    return refined_additions(both, is_new, lambda some: refined(run, some, work))[0]


def track_settings(run: RunFolder, options: TrackOptions) -> TrackSettings:
    """Settings of dense tracks for the photos of a run."""
    points = [len(run.points(photo.id).xy) for photo in run.photo_set.photos]
    return TrackSettings(
        max_anchors=options.max_anchors,
        suppression=suppression_for(points, options.suppression),
        loop_error=options.loop_error,
    )


def agreeing_matches(
    run: RunFolder,
    edges: Sequence[Pair],
    fundamental: Mapping[Pair, Float[np.ndarray, "3 3"]] | None = None,
    elsewhere: Mapping[Pair, Path] | None = None,
) -> DenseMatches:
    """The dense matches of edges, each without what contradicts its sparse matches or its geometry; see
    ``tracks_of_flow``."""
    photos = run.photo_set.photos
    better = fundamental or {}

    def agreeing(pair: Pair, match: DenseMatch) -> DenseMatch:
        a, b = (photos[i] for i in pair)
        model, matrix = ("F", better[pair]) if pair in better else run.two_view_matrix(pair)
        seen = run.seen_match(pair)
        nothing = np.zeros((0, 2), np.float32)
        xy_a, xy_b = (nothing, nothing) if seen is None else (seen.a.xy, seen.b.xy)
        size_a, size_b = (a.width, a.height), (b.width, b.height)
        return agreeing_match(match, xy_a, xy_b, size_a, size_b, fundamental=None if model == "H" else matrix)

    return run.dense_matches(edges, agreeing, elsewhere)


def _anchors_of(run: RunFolder, options: TrackOptions) -> Callable[[Photo], Float32[np.ndarray, "n 2"]]:
    def anchors_of(photo: Photo) -> Float32[np.ndarray, "n 2"]:
        points, grey, mask = run.points(photo.id).xy, run.grey(photo), run.mask(photo)
        return anchors_of_photo(grey, mask, points, options.anchors, options.max_anchors)

    return anchors_of


def refined(run: RunFolder, tracks: Tracks, work: StageContext) -> Tracks:
    """Tracks with observations below the pixel, as far as they can be without cameras.

    They are aligned jointly once the cameras are known; before, the reference is enough.
    """
    return refine_tracks(
        run.greys(),
        tracks,
        RefinementSettings(joint=False, memory=work.memory),
        threads=work.threads,
    )


def greys_of_surfaces(run: RunFolder) -> Sequence[Float32[np.ndarray, "h w"]]:
    """Luminance of all photos to align patches by once the cameras are known: NaN on an even background, so that none
    reaches over an outline. Before, outlines are not exact but help to place photos."""
    photos = run.photo_set.photos

    def grey(index: int) -> Float32[np.ndarray, "h w"]:
        rgb = run.rgb(photos[index])
        found = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
        found[even_background(rgb, RefinementSettings.radius)] = np.nan
        return found

    return Lazy(len(photos), grey)


def _seen(run: RunFolder, pair: Pair) -> MatchedPoints:
    """The interest points of the sparse first look that agree with the geometry of their pair."""
    seen = run.seen_match(pair)
    assert seen is not None
    return seen.rows(run.inliers(pair))
