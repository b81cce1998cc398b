"""Stage ``map``: cameras and sparse points, by pycolmap."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from recon.core.colmap import pycolmap
from recon.datasets.given_cameras import (
    ESTIMATE,
    cameras_fingerprint,
    given_poses,
    read_cameras,
    with_given_intrinsics,
)
from recon.engine.stage import StageContext
from recon.errors import ReconError, UsageError
from recon.graph.tracks import track_matches
from recon.graph.two_view import verify_pair
from recon.graph.types import Tracks, TwoViewGeometry, ViewGraph
from recon.photos.types import PhotoSet
from recon.run.folder import DATABASE, TRUST, RunFolder
from recon.sfm.adapter import color_points, write_database
from recon.sfm.camera_tests import CameraTest
from recon.sfm.mapping import (
    MOST_INCREMENTAL,
    MapperName,
    MappingResult,
    MappingSettings,
    halves_of,
    map_incremental,
    map_known,
    mapper_named,
    polish_model,
    with_fixed_intrinsics,
    with_model_first,
)
from recon.sfm.reregistration import reregister_photos
from recon.sfm.tested_mapping import map_with_tested_cameras
from recon.sfm.trust import Thresholds, Trust, figures_of, judge, only_turns, turns_of


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
    loss_scale: float = Field(1.0, gt=0.0, description="residuals beyond this count less and less, pixels")
    max_error: float = Field(
        4.0, gt=0.0, description="observations with a larger reprojection error go, pixels"
    )
    min_triangulation_angle: float = Field(1.5, ge=0.0, description="points seen under less go, degrees")
    polish: bool = Field(
        True, description="align the photos once more with known cameras and local planes, and adjust again"
    )
    refine_principal_point: bool = Field(
        True, description="for unknown intrinsics, at the very end, where five photos or more share a camera"
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
    version: ClassVar[int] = 6
    reads: ClassVar[tuple[str, ...]] = ("photos", "verify", "tracks")
    Settings: ClassVar[type[BaseModel]] = MapSettings

    def files_fingerprint(self, settings: MapSettings) -> str:
        """Hash of the cameras that the settings name."""
        return "" if settings.poses == ESTIMATE else cameras_fingerprint(settings.poses)

    def run(self, settings: MapSettings, work: StageContext) -> dict[str, Any]:
        run = RunFolder.of(work)
        photo_set = run.photo_set
        given = None
        if settings.poses != ESTIMATE:
            cameras = read_cameras(settings.poses)
            photo_set = with_given_intrinsics(photo_set, cameras, settings.poses)
            given = given_poses(photo_set, cameras)
        graph = run.view_graph()
        tracks = run.tracks()
        database = _Database(settings, work, graph)
        database.write(photo_set, tracks)
        options = MappingSettings(
            loss_scale_px=settings.loss_scale,
            max_error_px=settings.max_error,
            min_triangulation_angle=settings.min_triangulation_angle,
            refine_principal_point=settings.refine_principal_point,
            seed=work.seed,
            threads=1 if settings.one_thread else work.threads,
            fixed_cameras=given is not None,
            first_pair=_first_pair(settings, photo_set, graph),
        )
        pycolmap.logging.minloglevel = pycolmap.logging.Level.WARNING.value  # its log is not for the screen
        if given is not None:
            result = map_known(photo_set, tracks, given, options)
        else:
            result = _estimate(settings, options, photo_set, graph, work)
        work.remove(TRUST)
        if result.best is None:
            _refuse_turns(photo_set, tracks, work)
            reasons = "; ".join(f"{out.name}: {out.reason}" for out in result.left_out[:5])
            raise ReconError(
                "no cameras could be found: the photos do not overlap enough, or show too little texture or only "
                f"a turn of the camera. {reasons}. Take more photos with two thirds overlap, or try "
                "--quality high or another --recipe"
            )
        try:
            result = with_model_first(result, settings.model, photo_set, graph)
        except ValueError as error:
            raise ReconError(f"map.model = {settings.model}: {error}, counted from 0") from None
        tests: tuple[CameraTest, ...] = ()
        still_open = False
        if given is None and settings.test_cameras and not result.small_angles:
            mapper = mapper_named(settings.mapper, len(photo_set.photos))
            tested = map_with_tested_cameras(
                result, photo_set, graph, tracks, options, mapper=mapper, write=database.write
            )
            if tested.changed:
                work.log.info("cameras: points that were held out speak for %s", tested.in_words)
            result, photo_set, options = tested.result, tested.photos, tested.options
            tests, still_open = tested.tests, tested.still_open
        fixed = False
        if result.small_angles:
            if not all(camera.known for camera in photo_set.cameras):
                fixed = True
            photo_set = with_fixed_intrinsics(photo_set)
        models = list(result.reconstructions)
        if given is None:
            found = reregister_photos(models[0], photo_set, tracks, options)
            models[0] = found.model
            for photo in found.moved:
                name = photo_set.photos[photo].name
                work.log.info("%s was registered again: most of its points were elsewhere", name)
        if settings.polish:
            greys = run.greys()
            polished = polish_model(models[0], greys, photo_set, tracks, options, threads=work.threads)
            models[0], tracks = polished.model, polished.tracks
            database.write(photo_set, tracks)
        trust = None
        if given is None:
            trust = _judged(
                models, photo_set, graph, tracks, options, work, fixed, tests, still_open, run.pairs
            )
        for model in models:
            color_points(model, lambda number: run.rgb(run.photo_set.photos[number]))
        for out in result.left_out:
            work.warn(f"{out.name} is not in the model: {out.reason}")
        run.write_models(models, result.left_out)
        if trust is not None:
            _say(trust, settings, work)
        best = models[0]
        return {
            "registered": best.num_reg_images(),
            "photos": len(photo_set.photos),
            "points": best.num_points3D(),
            "mean_track_length": round(best.compute_mean_track_length(), 3),
            "mean_reprojection_error_px": round(best.compute_mean_reprojection_error(), 4),
            "models": len(models),
        }


def _judged(
    models: list[pycolmap.Reconstruction],
    photo_set: PhotoSet,
    graph: ViewGraph,
    tracks: Tracks,
    options: MappingSettings,
    work: StageContext,
    fixed: bool,
    tests: tuple[CameraTest, ...],
    still_open: bool,
    tried: list[tuple[int, int]],
) -> Trust:
    """The verdict on the first model; ``fixed`` says that guessed intrinsics stayed."""
    return judge(
        figures_of(
            models[0],
            photo_set,
            graph,
            tracks,
            models=tuple(model.num_reg_images() for model in models),
            tried=tried,
            halves=halves_of(models[0], photo_set, options),
            intrinsics_fixed=fixed,
            free_centre=bool(options.free_centres),
            tests=tests,
            cameras_open=still_open,
            seed=work.seed,
        )
    )


def _say(trust: Trust, settings: MapSettings, work: StageContext) -> None:
    """Writes the verdict, warns of what is doubtful, and ends the run where there is no reconstruction."""
    work.write_json(TRUST, trust.as_json())
    for reason in trust.reasons:
        work.warn(f"{reason.verdict}: {reason.what}. {reason.advice}")
    if trust.verdict == "not a reconstruction" and settings.refuse:
        first = trust.reasons[0]
        raise ReconError(
            f"this is not a reconstruction. {first.what}. {first.advice}. "
            "(--set map.refuse=false goes on with what there is)"
        )


def _refuse_turns(photo_set: PhotoSet, tracks: Tracks, work: StageContext) -> None:
    """Says so where there is no model since the camera only turned."""
    turns = turns_of(tracks, photo_set, None, 0.0, work.seed)
    if turns.share >= Thresholds().turns_only:
        reason = only_turns(turns)
        data = {
            "verdict": reason.verdict,
            "reasons": [asdict(reason)],
            "figures": {"turns_explain": turns.share},
        }
        work.write_json(TRUST, data)
        raise ReconError(f"this is not a reconstruction. {reason.what}. {reason.advice}")


def _first_pair(settings: MapSettings, photo_set: PhotoSet, graph: ViewGraph) -> tuple[int, int] | None:
    """Ids of the photos that the settings name to start from."""
    if not settings.first_pair:
        return None
    names = [name.strip() for name in settings.first_pair.split(",")]
    ids = {photo.name: photo.id for photo in photo_set.photos}
    unknown = [name for name in names if name not in ids]
    if len(names) != 2 or names[0] == names[1] or unknown:
        what = f"there is no photo {unknown[0]!r}" if unknown else "two photos were expected"
        raise UsageError(f"map.first_pair = {settings.first_pair!r}: {what}; say A.jpg,B.jpg")
    pair = (ids[names[0]], ids[names[1]])
    if (
        mapper_named(settings.mapper, len(photo_set.photos)) is not map_incremental
        or settings.poses != ESTIMATE
    ):
        raise UsageError(
            "map.first_pair is for incremental mapping of unknown cameras: --set map.mapper=incremental"
        )
    if not graph.has_edge(*pair):
        raise UsageError(
            f"map.first_pair = {settings.first_pair!r}: the view graph does not join these photos (verification.json "
            "says why); choose two that it joins"
        )
    return pair


def _estimate(
    settings: MapSettings, options: MappingSettings, photo_set: PhotoSet, graph: ViewGraph, work: StageContext
) -> MappingResult:
    """Cameras and points by COLMAP's mapper, with a progress bar."""
    run = mapper_named(settings.mapper, len(photo_set.photos))
    with work.progress(len(photo_set.photos), "mapping", unit="photo") as bar:
        done = [0]

        def report(registered: int, _total: int) -> None:
            bar.update(max(0, registered - done[0]))
            done[0] = max(done[0], registered)

        return run(work.path(DATABASE), photo_set, graph, options, progress=report)


class _Database:
    """COLMAP's database of the run: tracks as keypoints and matches, geometries of the view graph's edges."""

    def __init__(self, settings: MapSettings, work: StageContext, graph: ViewGraph) -> None:
        self.settings, self.work = settings, work
        self.edges = sorted((min(edge), max(edge)) for edge in graph.edges)

    def write(self, photo_set: PhotoSet, tracks: Tracks) -> Path:
        """Write it for these cameras and tracks; returns its path."""
        matches = track_matches(tracks, self.edges)

        def verify(pair: tuple[int, int]) -> TwoViewGeometry:
            cameras = (photo_set.cameras[photo_set.photos[number].camera] for number in pair)
            match = matches[pair]
            return verify_pair(
                match.xy_a, match.xy_b, *cameras, max_error_px=self.settings.max_error, seed=self.work.seed
            )

        pairs = sorted(matches)
        found = zip(pairs, self.work.map(verify, pairs, "geometry of tracks"), strict=True)
        geometries = {pair: geometry for pair, geometry in found if geometry.model != "none"}
        with self.work.writing(DATABASE) as path:
            write_database(path, photo_set, tracks, geometries)
        return self.work.path(DATABASE)
