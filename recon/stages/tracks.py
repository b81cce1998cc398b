"""Stage ``tracks``: multi-view tracks from the matches, refined below the pixel."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from recon.engine.stage import StageContext, options_of
from recon.graph.anchors import AnchorKind
from recon.graph.thinning import thin_tracks
from recon.graph.tracks import TrackSettings, tracks_from_sparse
from recon.io.manifest import KEPT
from recon.run.folder import RunFolder
from recon.run.shared_fields import content_key
from recon.sfm.track_refinement import with_references
from recon.tasks.track_sources import earlier_tracks, track_sources, write_track_sources
from recon.tasks.tracks import TrackOptions, refined, tracks_carried_on, tracks_of_flow

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

    Where few photos came or went, the dense tracks of the earlier ones stay and are carried on into the new ones. The
    point matches of a sparse matcher that agree with their pair's geometry are joined, best score first.
    """

    name: ClassVar[str] = "tracks"
    version: ClassVar[int] = 9
    reads: ClassVar[tuple[str, ...]] = ("photos", "features", "match", "verify")
    Settings: ClassVar[type[BaseModel]] = TracksSettings

    def run(self, settings: TracksSettings, work: StageContext) -> dict[str, Any]:
        run = RunFolder.of(work)
        edges = run.edges()
        matching = run.matching
        sources, kept = None, 0
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
            if settings.refine:
                tracks = refined(run, tracks, work)
        else:
            options = options_of(TrackOptions, settings)
            identity = content_key({"version": self.version, "options": asdict(options)})
            sources = track_sources(run, edges, identity)
            before = earlier_tracks(run, sources) if work.reuse else None
            if before is None:
                tracks = tracks_of_flow(run, edges, options, work)
            else:
                tracks = tracks_carried_on(run, edges, options, work, before.tracks, before.changes.new)
                sources, kept = before.carried_on(sources), before.tracks.count
            run.write_track_options(asdict(options))
        run.write_tracks(tracks)
        if sources is not None:
            write_track_sources(work, sources)
        length = len(tracks.track_id) / max(tracks.count, 1)
        return {
            "tracks": tracks.count,
            "observations": len(tracks.track_id),
            "mean_length": round(length, 3),
            **({KEPT: kept} if kept else {}),
        }
