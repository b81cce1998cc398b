"""Stage ``map``: cameras and sparse points, by pycolmap."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from recon.core.colmap import pycolmap
from recon.datasets.given_cameras import ESTIMATE, cameras_fingerprint, photos_with_given_cameras
from recon.engine.stage import StageContext, options_of
from recon.io.manifest import KEPT
from recon.run.folder import RunFolder
from recon.run.shared_fields import content_key
from recon.sfm.adapter import color_points
from recon.sfm.final_model import verdict_on
from recon.sfm.mapping import MOST_INCREMENTAL, MapperName, MappingSettings, map_incremental, mapper_named
from recon.tasks.mapping import FinalOptions, final_model, starting_pair, tell_verdict
from recon.tasks.model_extension import model_extended, model_sources


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
    version: ClassVar[int] = 11
    reads: ClassVar[tuple[str, ...]] = ("photos", "features", "match", "verify", "tracks")
    Settings: ClassVar[type[BaseModel]] = MapSettings

    def files_fingerprint(self, settings: MapSettings) -> str:
        """Hash of the cameras that the settings name."""
        return "" if settings.poses == ESTIMATE else cameras_fingerprint(settings.poses)

    def run(self, settings: MapSettings, work: StageContext) -> dict[str, Any]:
        run = RunFolder.of(work)
        photo_set, given = photos_with_given_cameras(run.photo_set, settings.poses)
        mapper = mapper_named(settings.mapper, len(photo_set.photos))
        options = options_of(
            MappingSettings,
            settings,
            seed=work.seed,
            threads=1 if settings.one_thread else work.threads,
            fixed_cameras=given is not None,
            first_pair=starting_pair(
                settings.first_pair,
                photo_set,
                run.view_graph(),
                usable=mapper is map_incremental and given is None,
            ),
        )
        pycolmap.logging.minloglevel = pycolmap.logging.Level.WARNING.value  # its log is not for the screen
        identity = content_key({"version": self.version, "settings": settings.model_dump(mode="json")})
        extended, kept = None, 0
        if given is None:
            extended = model_extended(run, options, identity, work, polish=settings.polish)
        if extended is None:
            how = options_of(FinalOptions, settings)
            final, graph = final_model(run, photo_set, given, mapper, options, how, work)
            trust = verdict_on(final, graph, run.pairs) if given is None else None
        else:
            final, trust, kept = extended
        photo_set = final.photos
        models = list(final.result.reconstructions)
        for model in models:
            color_points(model, lambda number: run.rgb(run.photo_set.photos[number]))
        for out in final.result.left_out:
            work.warn(f"{out.name} is not in the model: {out.reason}")
        sources = None if trust is None else model_sources(run, final, trust, identity)
        run.write_models(models, final.result.left_out, final.tracks, sources)
        if trust is not None:
            tell_verdict(trust, work, refuse=settings.refuse)
        return {
            "registered": final.model.num_reg_images(),
            "photos": len(photo_set.photos),
            "points": final.model.num_points3D(),
            "mean_track_length": round(final.model.compute_mean_track_length(), 3),
            "mean_reprojection_error_px": round(final.model.compute_mean_reprojection_error(), 4),
            "models": len(models),
            **({KEPT: kept} if kept else {}),
        }
