"""Stage ``tracks``: multi-view tracks from the matches, refined below the pixel."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import cv2
import numpy as np
from jaxtyping import Float32
from pydantic import BaseModel, ConfigDict, Field

from recon.engine.stage import StageContext
from recon.graph.thinning import thin_tracks
from recon.graph.tracks import TrackSettings, build_tracks, find_anchors, tracks_from_sparse
from recon.graph.types import Tracks
from recon.photos.types import Photo
from recon.sfm.track_refinement import RefinementSettings, refine_tracks, with_references
from recon.stages.features import load_points
from recon.stages.pair_results import DenseMatches, load_matching, load_sparse_match
from recon.stages.photos import load_mask, load_photo_set, load_rgb
from recon.stages.verify import load_inliers, load_view_graph

_SAME_POINT = 1e-3
"""Points of one photo that agree to so many pixels are the same point of a detector."""


class TracksSettings(BaseModel):
    """Where tracks come from and how many there are."""

    model_config = ConfigDict(extra="forbid")
    anchors: Literal["corners", "points", "both"] = Field(
        "both", description="dense: what the flow carries: corners of the photo, its SIFT points, or both"
    )
    max_anchors: int = Field(1500, ge=50, description="dense: at most so many tracks start in one photo")
    suppression: float = Field(
        6.0,
        ge=0.0,
        description="dense and semi-dense: distance to an observation of a better track, pixels",
    )
    loop_error: float = Field(
        2.0, gt=0.0, description="dense: largest miss between two observations, matching pixels"
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
    version: ClassVar[int] = 3
    reads: ClassVar[tuple[str, ...]] = ("photos", "features", "match", "verify")
    Settings: ClassVar[type[BaseModel]] = TracksSettings

    def run(self, settings: TracksSettings, work: StageContext) -> dict[str, Any]:
        photo_set = load_photo_set(work)
        edges = sorted((min(e), max(e)) for e in load_view_graph(work).edges)
        matching = load_matching(work)
        if matching.kind == "sparse":
            tracks = tracks_from_sparse(
                {edge: load_sparse_match(work, edge) for edge in edges},
                {edge: load_inliers(work, edge) for edge in edges},
                merge_radius=_SAME_POINT if matching.repeatable else settings.merge_radius,
            )
            if not matching.repeatable:
                tracks = thin_tracks(tracks, settings.suppression)
            # Nothing is known of the patches round matched points: they start unrotated and unscaled.
            tracks = with_references(tracks)
        else:

            def anchors_of(photo: Photo) -> Float32[np.ndarray, "n 2"]:
                points = load_points(work, photo.id).xy
                if settings.anchors == "points":
                    return points
                corners = find_anchors(
                    load_grey(work, photo), limit=2 * settings.max_anchors, mask=load_mask(work, photo)
                )
                return corners if settings.anchors == "corners" else np.concatenate([corners, points])

            anchors = work.map(anchors_of, photo_set.photos, "anchors")
            tracks = build_tracks(
                photo_set,
                DenseMatches(work, edges),
                {photo.id: xy for photo, xy in zip(photo_set.photos, anchors, strict=True)},
                TrackSettings(
                    max_anchors=settings.max_anchors,
                    suppression=settings.suppression,
                    loop_error=settings.loop_error,
                ),
            )
        if settings.refine:
            greys = [load_grey(work, photo).astype(np.float32) for photo in photo_set.photos]
            # The observations are aligned jointly once the cameras are known; before, the reference is enough.
            tracks = refine_tracks(greys, tracks, RefinementSettings(joint=False), threads=work.threads)
        save_tracks(work, "tracks.npz", tracks)
        length = len(tracks.track_id) / max(tracks.count, 1)
        return {"tracks": tracks.count, "observations": len(tracks.track_id), "mean_length": round(length, 3)}


def load_grey(work: StageContext, photo: Photo) -> Any:
    """Luminance of a photo at working size, uint8."""
    return cv2.cvtColor(load_rgb(work, photo), cv2.COLOR_RGB2GRAY)


def save_tracks(work: StageContext, name: str, tracks: Tracks) -> None:
    """Writes tracks as arrays; what is not known is left out."""
    arrays: dict[str, Any] = {"track_id": tracks.track_id, "photo_id": tracks.photo_id, "xy": tracks.xy}
    if tracks.is_reference is not None:
        arrays["is_reference"] = tracks.is_reference
    if tracks.affinity is not None:
        arrays["affinity"] = tracks.affinity
    work.write_npz(name, **arrays)


def load_tracks(work: StageContext, name: str = "tracks.npz") -> Tracks:
    """The tracks as the stage left them."""
    with np.load(work.path(name)) as data:
        return Tracks(
            data["track_id"],
            data["photo_id"],
            data["xy"],
            data.get("is_reference"),
            data.get("affinity"),
        )
