"""Stage ``map``: cameras and sparse points, by pycolmap."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from recon.core.colmap import pycolmap
from recon.datasets.given_cameras import ESTIMATE, cameras_fingerprint, photos_with_given_cameras
from recon.engine.stage import StageContext, options_of
from recon.errors import ReconError
from recon.run.folder import TRUST, RunFolder
from recon.sfm.adapter import color_points
from recon.sfm.final_model import FinalModel, checked, polished, verdict_on
from recon.sfm.mapping import (
    MOST_INCREMENTAL,
    MapperName,
    MappingSettings,
    map_incremental,
    map_known,
    mapper_named,
    with_model_first,
)
from recon.tasks.joining import joined_by_flow
from recon.tasks.mapping import TrackDatabase, map_with_progress, starting_pair, tell_no_model, tell_verdict
from recon.tasks.tracks import greys_of_surfaces


class MapSettings(BaseModel):
    """Settings for finding cameras."""

    model_config = ConfigDict(extra="forbid")
    poses: str = Field(
        ESTIMATE,
        description="estimate, or whose cameras to use as they are: a COLMAP model, a run, a scene with true cameras",
    )
    mapper: MapperName = Field(
        "auto", description=f"COLMAP's mapper; auto: incremental up to {MOST_INCREMENTAL} photos, then global"
    )
    first_pair: str = Field(
        "",
        description="incremental: names of the two photos to start from, as A.jpg,B.jpg; empty: COLMAP's choice",
    )
    loss_scale: float = Field(
        MappingSettings.loss_scale, gt=0.0, description="residuals beyond this count less and less, pixels"
    )
    max_error: float = Field(
        MappingSettings.max_error,
        gt=0.0,
        description="observations with a larger reprojection error go, pixels",
    )
    min_triangulation_angle: float = Field(
        MappingSettings.min_triangulation_angle, ge=0.0, description="points seen under less go, degrees"
    )
    polish: bool = Field(
        True, description="align the photos once more with known cameras and local planes, and adjust again"
    )
    refine_principal_point: bool = Field(
        MappingSettings.refine_principal_point,
        description="for unknown intrinsics, at the very end, where five photos or more share a camera",
    )
    model: int = Field(
        0, ge=0, description="which model to go on with where the photos fall into several; 0 has most photos"
    )
    refuse: bool = Field(
        True,
        description="end the run where the photos give no reconstruction; false goes on with what there is",
    )
    test_cameras: bool = Field(
        True,
        description="for unknown intrinsics: let tracks that are held out say which photos share a camera, where its "
        "principal point is and which lens model follows it; for given ones, whether the photos contradict them",
    )
    one_thread: bool = Field(False, description="slower, but the same model bit for bit every time")


class MapStage:
    """Feeds the tracks to COLMAP, keeps the largest model as sparse/0 and the others beside it."""

    name: ClassVar[str] = "map"
    version: ClassVar[int] = 10
    reads: ClassVar[tuple[str, ...]] = ("photos", "features", "match", "verify", "tracks")
    Settings: ClassVar[type[BaseModel]] = MapSettings

    def files_fingerprint(self, settings: MapSettings) -> str:
        """Hash of the cameras that the settings name."""
        return "" if settings.poses == ESTIMATE else cameras_fingerprint(settings.poses)

    def run(self, settings: MapSettings, work: StageContext) -> dict[str, Any]:
        run = RunFolder.of(work)
        photo_set, given = photos_with_given_cameras(run.photo_set, settings.poses)
        graph, tracks = run.view_graph(), run.tracks()
        database = TrackDatabase(work, graph.edges, settings.max_error)
        path = database.write(photo_set, tracks)
        mapper = mapper_named(settings.mapper, len(photo_set.photos))
        from_pair = mapper is map_incremental and given is None
        options = options_of(
            MappingSettings,
            settings,
            seed=work.seed,
            threads=1 if settings.one_thread else work.threads,
            fixed_cameras=given is not None,
            first_pair=starting_pair(settings.first_pair, photo_set, graph, usable=from_pair),
        )
        pycolmap.logging.minloglevel = pycolmap.logging.Level.WARNING.value  # its log is not for the screen
        if given is not None:
            result = map_known(photo_set, tracks, given, options)
        else:
            result = map_with_progress(mapper, path, photo_set, graph, options, work)
        work.remove(TRUST)
        if result.best is None:
            raise tell_no_model(result, photo_set, tracks, work)
        joined = joined_by_flow(result, photo_set, graph, tracks, options, work) if given is None else None
        if joined is not None:
            result, photo_set, graph, tracks = joined.result, joined.photos, joined.graph, joined.tracks
            database = TrackDatabase(work, graph.edges, settings.max_error)
            database.write(photo_set, tracks)
        try:
            result = with_model_first(result, settings.model, photo_set, graph)
        except ValueError as error:
            raise ReconError(f"map.model = {settings.model}: {error}, counted from 0") from None
        final = FinalModel(result, photo_set, tracks, options)
        if given is None:
            final = checked(
                final, graph, mapper=mapper, write=database.write, test_cameras=settings.test_cameras
            )
            for note in final.notes:
                work.log.info(note)
        if settings.polish:
            final = polished(final, greys_of_surfaces(run), threads=work.threads, memory=work.memory)
            database.write(final.photos, final.tracks)
        trust = verdict_on(final, graph, run.pairs) if given is None else None
        models = list(final.result.reconstructions)
        for model in models:
            color_points(model, lambda number: run.rgb(run.photo_set.photos[number]))
        for out in final.result.left_out:
            work.warn(f"{out.name} is not in the model: {out.reason}")
        run.write_models(models, final.result.left_out)
        if trust is not None:
            tell_verdict(trust, work, refuse=settings.refuse)
        return {
            "registered": final.model.num_reg_images(),
            "photos": len(photo_set.photos),
            "points": final.model.num_points3D(),
            "mean_track_length": round(final.model.compute_mean_track_length(), 3),
            "mean_reprojection_error_px": round(final.model.compute_mean_reprojection_error(), 4),
            "models": len(models),
        }
