"""From tracks to cameras and points with COLMAP's incremental, global or hierarchical mapper."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32

from recon.core.colmap import camera_from_intrinsics, image_id, points_to_colmap, pycolmap
from recon.graph.tracks import select_observations
from recon.graph.types import Tracks, ViewGraph
from recon.photos.types import LeftOut, PhotoSet
from recon.sfm.adapter import model_from_tracks, move_observations, points_of_tracks, posed_cameras
from recon.sfm.track_refinement import RefinementSettings, complete_tracks, refine_with_geometry

# A principal point is estimated from at least so many photos of one camera, and believed within this share of
# the photo's diagonal round the middle (lenses and sensors are centred to a percent or two; cropped photos
# are not).
MIN_PHOTOS_FOR_CENTRE = 5
MAX_CENTRE_SHIFT = 0.05
# A photo is placed by at least so many points (COLMAP's own default is 30).
MIN_POINTS_FOR_A_PHOTO = 15
# In a second try, where photos were left out; the verdict looks at photos that few points hold.
FEWEST_POINTS_FOR_A_PHOTO = 8

# The last adjustment's loss: its scale in median errors of the points, and the least one in pixels.
_LOSS_IN_ERRORS, _LEAST_LOSS_SCALE = 2.0, 0.1

# Relative changes of the cost at which adjustments end: of a model that is to stay, and of one that is to be adjusted
# again. A street of 100 photos is within 1e-6 of its extent at the second one, in a third of the steps.
_FINAL_TOLERANCE, _INTERMEDIATE_TOLERANCE = 1e-8, 1e-6
# Steps are damped by a part of this of the diagonal at least: with none, where the world can turn and stretch freely,
# every third step of a long way could not be solved for.
_LARGEST_TRUST_REGION = 1e8

# Halves of the tracks are a checkerboard of cells this wide, as a share of the photos' longest side; a photo must keep
# so many points in each (a pose has six degrees of freedom, a point gives two, and some are wrong).
HALVES_CELL = 1 / 8
MIN_POINTS_OF_A_HALF = 8
# Halves differ by a ten thousandth of the scene's extent and more; this changes that by less than a thousandth of it.
_HALF_TOLERANCE = 1e-5

MOST_INCREMENTAL = 400
"""So many photos are mapped incrementally: as far as it was measured, it costs no more than global mapping and is as
good. Beyond, its adjustments of all photos at every tenth more of them are what grows fastest."""

FEWEST_IN_A_LOOP = 100
"""With so many photos drift may keep a loop open."""

# Hierarchical mapping: photos of a part at most, and those that neighbouring parts share.
PART_PHOTOS, PART_OVERLAP = 100, 20

STARTING_ANGLES = (16.0, 4.0, 1.5)
"""Degrees between the rays of the pair that a model starts with: the first asked for (COLMAP halves it by itself), and
what is tried where no pair has that, as with a few frames of a film."""

Progress = Callable[[int, int], None]
"""Called with the number of registered photos of the current model and the number of photos."""


@dataclass(frozen=True)
class MappingSettings:
    """Settings for finding cameras.

    Attributes:
        loss_scale: pixels; bundle adjustment trusts residuals up to this size; larger ones count less and less
            (Cauchy loss). The last one of ``polish_model`` goes by the residuals themselves where these are smaller.
        max_error: pixels; observations with a larger reprojection error are dropped before the final adjustment.
        min_triangulation_angle: degrees; points seen under a smaller angle are dropped.
        refine_principal_point: in the last adjustment, for cameras with unknown intrinsics that took at least
            ``MIN_PHOTOS_FOR_CENTRE`` photos. With fewer photos the principal point and the poses explain each
            other.
        min_pair_matches: pairs with fewer matches are not used.
        seed: of COLMAP's random choices.
        threads: -1 uses all cores; 1 makes every run agree bit for bit.
        first_pair: ids of the two photos that incremental mapping starts from; None lets COLMAP choose.
        fixed_cameras: adjustments move the points and leave all poses and intrinsics as they are.
        free_centres: cameras (indices of the photo set) whose principal point is found however few photos there are
            and wherever it is, since evidence asked for it.
    """

    loss_scale: float = 1.0
    max_error: float = 4.0
    min_triangulation_angle: float = 1.5
    refine_principal_point: bool = True
    min_pair_matches: int = 15
    seed: int = 0
    threads: int = -1
    fixed_cameras: bool = False
    first_pair: tuple[int, int] | None = None
    free_centres: frozenset[int] = frozenset()


@dataclass(frozen=True)
class MappingResult:
    """Result of mapping.

    Attributes:
        reconstructions: all models, the one with the most registered photos first (ties: most points).
        chosen: index of the model to go on with, None where nothing could be reconstructed.
        left_out: photos that are not in the chosen model, and why.
        small_angles: the photos see the scene under angles so small that all intrinsics stayed as given or guessed.
    """

    reconstructions: tuple[pycolmap.Reconstruction, ...]
    chosen: int | None
    left_out: tuple[LeftOut, ...]
    small_angles: bool = False

    @property
    def best(self) -> pycolmap.Reconstruction | None:
        """The chosen model."""
        return None if self.chosen is None else self.reconstructions[self.chosen]


def map_incremental(
    database_path: str | os.PathLike[str],
    photos: PhotoSet,
    graph: ViewGraph,
    settings: MappingSettings | None = None,
    *,
    progress: Progress | None = None,
) -> MappingResult:
    """Cameras and points by incremental mapping (Schönberger & Frahm, CVPR 2016) and a last adjustment.

    Intrinsics that are ``known`` stay as they are; the others are refined (focal length and distortion), unless no
    pair of photos can start a model but under small angles: these do not tell focal lengths. Where photos are left
    out, a second try lets fewer points place a photo, and is taken if it places more photos in one model.

    Args:
        database_path: written by ``write_database``.
        graph: the verified view graph, for the reasons in ``left_out``.
    """
    settings = settings or MappingSettings()
    options = _incremental_options(photos, settings)
    for angle in STARTING_ANGLES:
        options.mapper.init_min_tri_angle = angle
        models = _incremental_models(database_path, options, len(photos.photos), progress)
        result = _finish(models, photos, graph, settings)
        if result.best is not None:
            if result.best.num_reg_images() < len(photos.photos):
                # Photos that few points join to the rest, and models that few points join to each other.
                options.mapper.abs_pose_min_num_inliers = FEWEST_POINTS_FOR_A_PHOTO
                second = _incremental_models(database_path, options, len(photos.photos), None)
                more = _finish(second, photos, graph, settings)
                if more.best is not None and more.best.num_reg_images() > result.best.num_reg_images():
                    result = more
            return replace(result, small_angles=angle < STARTING_ANGLES[0])
        if all(edge["model"] == "H" for _, _, edge in graph.edges(data=True)):
            return result  # with fixed intrinsics, turns of the camera would become flights along a plane
        photos = with_fixed_intrinsics(photos)
        _refine_intrinsics(options, photos)
    return result


def _incremental_options(photos: PhotoSet, settings: MappingSettings) -> pycolmap.IncrementalPipelineOptions:
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = settings.threads
    options.random_seed = settings.seed
    options.min_num_matches = settings.min_pair_matches
    options.extract_colors = False
    # A photo set of three is a reconstruction too; COLMAP's default of ten would discard the second-best try.
    options.min_model_size = 3
    _refine_intrinsics(options, photos)
    if settings.first_pair is not None:
        options.init_image_id1, options.init_image_id2 = (image_id(one) for one in settings.first_pair)
    # Tracks are few where photos overlap little, but checked against each other: half of COLMAP's 30 will do.
    options.mapper.abs_pose_min_num_inliers = MIN_POINTS_FOR_A_PHOTO
    options.mapper.filter_max_reproj_error = settings.max_error
    options.mapper.filter_min_tri_angle = settings.min_triangulation_angle
    # Tracks come with their observations complete; two-view points carry photos at the rim of the set.
    options.triangulation.ignore_two_view_tracks = False
    return options


def with_model_first(result: MappingResult, index: int, photos: PhotoSet, graph: ViewGraph) -> MappingResult:
    """Go on with another of the models that were found: it comes first, the others follow in their order.

    Args:
        index: of the model, 0 for the one with the most photos.

    Raises:
        ValueError: there is no such model.
    """
    if not 0 <= index < len(result.reconstructions):
        raise ValueError(f"there is no model {index}; the photos gave {len(result.reconstructions)}")
    if index == 0:
        return result
    models = list(result.reconstructions)
    models.insert(0, models.pop(index))
    left_out = _left_out(models, photos, graph, "the chosen one")
    return replace(result, reconstructions=tuple(models), chosen=0, left_out=tuple(left_out))


def with_fixed_intrinsics(photos: PhotoSet) -> PhotoSet:
    """The photos with their intrinsics, given or guessed, as known ones, which adjustments leave as they are."""
    return replace(photos, cameras=tuple(replace(camera, known=True) for camera in photos.cameras))


def _refine_intrinsics(options: pycolmap.IncrementalPipelineOptions, photos: PhotoSet) -> None:
    """Lets focal lengths and distortion of all cameras be refined that are not known."""
    unknown = not all(camera.known for camera in photos.cameras)
    options.constant_cameras = _constant_cameras(photos)
    options.ba_refine_focal_length = unknown
    options.ba_refine_extra_params = unknown
    options.ba_refine_principal_point = False
    options.mapper.abs_pose_refine_focal_length = unknown
    options.mapper.abs_pose_refine_extra_params = unknown


def _incremental_models(
    database_path: str | os.PathLike[str],
    options: pycolmap.IncrementalPipelineOptions,
    total: int,
    progress: Progress | None,
) -> list[pycolmap.Reconstruction]:
    """The models of one run of COLMAP's incremental mapper."""
    manager = pycolmap.ReconstructionManager()
    with pycolmap.Database.open(database_path) as database:
        pipeline = pycolmap.IncrementalPipeline(options, database, manager)
        if progress is not None:
            report = progress
            registered = [0]

            def first_pair() -> None:
                registered[0] = 2
                report(min(2, total), total)

            def next_photo() -> None:
                registered[0] += 1
                report(min(registered[0], total), total)

            events = pycolmap.IncrementalPipelineCallback
            pipeline.add_callback(int(events.INITIAL_IMAGE_PAIR_REG_CALLBACK), first_pair)
            pipeline.add_callback(int(events.NEXT_IMAGE_REG_CALLBACK), next_photo)
        pipeline.run()
    return [manager.get(index) for index in range(manager.size())]


def map_global(
    database_path: str | os.PathLike[str],
    photos: PhotoSet,
    graph: ViewGraph,
    settings: MappingSettings | None = None,
    *,
    progress: Progress | None = None,
) -> MappingResult:
    """Cameras and points by global mapping (Pan et al., "Global Structure-from-Motion Revisited", ECCV 2024).

    Arguments and result as ``map_incremental``; progress is reported when a model is done, COLMAP says no
    more.
    """
    settings = settings or MappingSettings()
    options = pycolmap.GlobalPipelineOptions()
    options.num_threads = settings.threads
    options.random_seed = settings.seed
    options.min_num_matches = settings.min_pair_matches
    options.mapper.num_threads = settings.threads
    options.mapper.random_seed = settings.seed
    all_known = all(camera.known for camera in photos.cameras)
    options.mapper.bundle_adjustment.refine_focal_length = not all_known
    options.mapper.bundle_adjustment.refine_extra_params = not all_known
    options.mapper.bundle_adjustment.refine_principal_point = False
    options.mapper.track_min_num_views_per_track = 2 if len(photos.photos) < 3 else 3
    manager = pycolmap.ReconstructionManager()
    with pycolmap.Database.open(database_path) as database:
        pipeline = pycolmap.GlobalPipeline(options, database, manager)
        if progress is not None:
            report, total = progress, len(photos.photos)
            pipeline.add_callback(
                int(pycolmap.GlobalPipelineCallback.MODEL_UPDATE_CALLBACK), lambda: report(0, total)
            )
        pipeline.run()
    models = [manager.get(index) for index in range(manager.size())]
    result = _finish(models, photos, graph, settings)
    if progress is not None and result.best is not None:
        progress(result.best.num_reg_images(), len(photos.photos))
    return result


def map_hierarchical(
    database_path: str | os.PathLike[str],
    photos: PhotoSet,
    graph: ViewGraph,
    settings: MappingSettings | None = None,
    *,
    progress: Progress | None = None,
) -> MappingResult:
    """Cameras and points by incremental mapping of overlapping parts, which are then joined (COLMAP's own way).

    Arguments and result as ``map_incremental``; progress is reported when a model is done.
    """
    settings = settings or MappingSettings()
    options = pycolmap.HierarchicalPipelineOptions()
    options.incremental_options = _incremental_options(photos, settings)
    options.num_threads = settings.threads
    options.num_workers = 1  # parts that are mapped at once would not come out the same each time
    options.clustering_options.leaf_max_num_images = PART_PHOTOS
    options.clustering_options.image_overlap = PART_OVERLAP
    manager = pycolmap.ReconstructionManager()
    with pycolmap.Database.open(database_path) as database:
        pycolmap.HierarchicalPipeline(options, database, manager).run()
    result = _finish([manager.get(index) for index in range(manager.size())], photos, graph, settings)
    if progress is not None and result.best is not None:
        progress(result.best.num_reg_images(), len(photos.photos))
    return result


def map_known(
    photos: PhotoSet,
    tracks: Tracks,
    poses: Mapping[int, Float[np.ndarray, "3 4"]],
    settings: MappingSettings | None = None,
) -> MappingResult:
    """Points of the tracks with cameras that are given: each track is triangulated, no camera moves.

    The points are found by LO-RANSAC over the views of a track (Schönberger & Frahm, CVPR 2016, section 4.3) and
    then adjusted alone, with the same robust loss and the same limits as when the cameras are estimated.

    Args:
        photos: their intrinsics are taken as they are.
        tracks: multi-view tracks; observations in photos without a pose are not used.
        poses: ``cam_from_world`` by photo id. The world stays the one that they are given in.

    Raises:
        ValueError: fewer than two of the photos have a pose.
    """
    settings = replace(settings or MappingSettings(), fixed_cameras=True)
    model = posed_model(photos, poses)
    if model.num_reg_images() < 2:
        raise ValueError(f"{model.num_reg_images()} of the photos have a pose, two are needed")
    model = model_from_tracks(model, photos, tracks, triangulate_tracks(model, photos, tracks, settings))
    refine_model(model, photos, settings)
    left_out = tuple(
        LeftOut(photo.name, "no camera is given for it") for photo in photos.photos if photo.id not in poses
    )
    return MappingResult((model,), 0, left_out)


def map_from(
    photos: PhotoSet,
    tracks: Tracks,
    poses: Mapping[int, Float[np.ndarray, "3 4"]],
    settings: MappingSettings,
) -> MappingResult:
    """A model from poses that are nearly right: the tracks are triangulated, and all is adjusted."""
    model = posed_model(photos, poses)
    model = model_from_tracks(model, photos, tracks, triangulate_tracks(model, photos, tracks, settings))
    refine_model(model, photos, settings)
    return MappingResult((model,), 0, ())


def posed_model(photos: PhotoSet, poses: Mapping[int, Float[np.ndarray, "3 4"]]) -> pycolmap.Reconstruction:
    """A model without points: the photos that have a pose, with their cameras as they are."""
    model = pycolmap.Reconstruction()
    for photo in photos.photos:
        if photo.id not in poses:
            continue
        number = photo.camera + 1
        if number not in model.cameras:
            model.add_camera_with_trivial_rig(camera_from_intrinsics(photos.cameras[photo.camera], number))
        image = pycolmap.Image(name=photo.name, camera_id=number, image_id=image_id(photo.id))
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(poses[photo.id]))
    return model


def triangulate_tracks(
    model: pycolmap.Reconstruction, photos: PhotoSet, tracks: Tracks, settings: MappingSettings
) -> Float[np.ndarray, "t 3"]:
    """A world point for each track, NaN where its views do not agree on one."""
    options = pycolmap.EstimateTriangulationOptions()
    options.residual_type = pycolmap.TriangulationResidualType.REPROJECTION_ERROR
    options.min_tri_angle = np.deg2rad(settings.min_triangulation_angle)
    options.ransac.max_error = settings.max_error
    options.ransac.random_seed = settings.seed
    poses = {
        photo: pycolmap.Rigid3d(posed.cam_from_world) for photo, posed in posed_cameras(model, photos).items()
    }
    lenses = {photo: model.cameras[model.images[image_id(photo)].camera_id] for photo in poses}
    xy = points_to_colmap(tracks.xy.astype(np.float64))
    has_camera = np.isin(tracks.photo_id, list(poses))
    first = np.searchsorted(tracks.track_id, np.arange(tracks.count + 1))
    xyz = np.full((tracks.count, 3), np.nan)
    for track in range(tracks.count):
        rows = [row for row in range(first[track], first[track + 1]) if has_camera[row]]
        if len(rows) < 2:
            continue
        seen_by = [int(tracks.photo_id[row]) for row in rows]
        found = pycolmap.estimate_triangulation(
            xy[rows], [poses[photo] for photo in seen_by], [lenses[photo] for photo in seen_by], options
        )
        if found is not None:
            xyz[track] = found["xyz"]
    return xyz


def _constant_cameras(photos: PhotoSet) -> set[int]:
    return {index + 1 for index, camera in enumerate(photos.cameras) if camera.known}


def _finish(
    models: list[pycolmap.Reconstruction], photos: PhotoSet, graph: ViewGraph, settings: MappingSettings
) -> MappingResult:
    usable = [model for model in models if model.num_reg_images() >= 2]
    for model in usable:
        refine_model(model, photos, settings)
    # Of a camera that only turns, a wrong focal length can make a model whose points all go when they are checked.
    usable = [model for model in usable if model.num_points3D() >= MIN_POINTS_FOR_A_PHOTO]
    usable.sort(key=lambda model: (-model.num_reg_images(), -model.num_points3D()))
    return result_of(usable, photos, graph)


def result_of(models: Sequence[pycolmap.Reconstruction], photos: PhotoSet, graph: ViewGraph) -> MappingResult:
    """The result that models are, the first one chosen."""
    chosen = 0 if models else None
    return MappingResult(tuple(models), chosen, tuple(_left_out(models, photos, graph)))


def refine_model(
    model: pycolmap.Reconstruction,
    photos: PhotoSet,
    settings: MappingSettings | None = None,
    *,
    rounds: int = 3,
    final: bool = True,
) -> None:
    """Adjust a whole model with a robust loss, in place, in turns with the removal of bad observations.

    Intrinsics that are known stay fixed.

    Args:
        rounds: of adjustment and removal, at most.
        final: end with an adjustment that has settled; without, another one is to follow.
    """
    settings = settings or MappingSettings()
    constant = _constant_cameras(photos)
    manager = pycolmap.ObservationManager(model)

    def bad_removed() -> int:
        return int(manager.filter_all_points3D(settings.max_error, settings.min_triangulation_angle))

    for _ in range(rounds):
        adjust(model, settings, constant, refine_principal_point=False, tolerance=_INTERMEDIATE_TOLERANCE)
        if bad_removed() == 0:
            break
    if final:
        centred = settings.refine_principal_point and not settings.fixed_cameras
        if not (centred and _refine_principal_points(model, settings, constant)):
            adjust(model, settings, constant, refine_principal_point=False)
        bad_removed()
    model.update_point_3d_errors()


def _refine_principal_points(
    model: pycolmap.Reconstruction, settings: MappingSettings, constant: set[int]
) -> bool:
    """An adjustment that also moves principal points; False, and nothing moved, where there are none to move or they
    run away from the middle."""
    taken: dict[int, int] = {}
    for number in model.reg_image_ids():
        camera = model.images[number].camera_id
        taken[camera] = taken.get(camera, 0) + 1
    asked = {number + 1 for number in settings.free_centres} & set(taken) - constant
    free = {
        camera for camera, count in taken.items() if camera not in constant and count >= MIN_PHOTOS_FOR_CENTRE
    } | asked
    if not free:
        return False
    trial = pycolmap.Reconstruction(model)
    adjust(trial, settings, set(trial.cameras) - free, refine_principal_point=True)
    if not all(_centre_is_likely(trial.cameras[number]) for number in free - asked):
        if not asked:
            return False
        trial = pycolmap.Reconstruction(model)
        adjust(trial, settings, set(trial.cameras) - asked, refine_principal_point=True)
    _take_values(model, trial)
    return True


def _centre_is_likely(camera: pycolmap.Camera) -> bool:
    """Whether the principal point is about where the middle of the image is."""
    away = np.hypot(
        camera.principal_point_x - 0.5 * camera.width, camera.principal_point_y - 0.5 * camera.height
    )
    return bool(away <= MAX_CENTRE_SHIFT * np.hypot(camera.width, camera.height))


def _take_values(model: pycolmap.Reconstruction, other: pycolmap.Reconstruction) -> None:
    """Give a model the lenses, poses and points of an adjusted copy of it."""
    for number, camera in other.cameras.items():
        model.cameras[number].params = camera.params
    for number, frame in other.frames.items():
        if frame.has_pose():
            model.frames[number].rig_from_world = frame.rig_from_world
    for number, point in other.points3D.items():
        model.points3D[number].xyz = point.xyz


def adjustment_options(
    settings: MappingSettings, tolerance: float = _FINAL_TOLERANCE
) -> pycolmap.BundleAdjustmentOptions:
    """Options of an adjustment with a robust loss that ends at a relative change of the cost."""
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    options.ceres.loss_function_scale = settings.loss_scale
    options.ceres.solver_options.num_threads = settings.threads
    options.ceres.solver_options.function_tolerance = tolerance
    options.ceres.solver_options.gradient_tolerance = 1e-12
    options.ceres.solver_options.parameter_tolerance = 1e-10
    options.ceres.solver_options.max_num_iterations = 100
    options.ceres.solver_options.max_trust_region_radius = _LARGEST_TRUST_REGION
    return options


def adjust(
    model: pycolmap.Reconstruction,
    settings: MappingSettings,
    constant: set[int],
    *,
    refine_principal_point: bool,
    tolerance: float | None = None,
) -> None:
    """Adjust a model with a robust loss, in place.

    Args:
        constant: numbers of the cameras whose intrinsics stay.
        tolerance: relative change of the cost at which it ends; None for what is right for a final model.
    """
    large = model.num_reg_images() >= FEWEST_IN_A_LOOP
    held = settings.fixed_cameras or set(model.cameras) <= constant
    # With known intrinsics photos settle soon: from 1e-7 on no centre moves by a millionth of the scene's extent.
    # Focal lengths creep on for longer.
    final = 1e-7 if held else _FINAL_TOLERANCE
    options = adjustment_options(settings, final if tolerance is None else tolerance)
    options.refine_principal_point = refine_principal_point
    config = pycolmap.BundleAdjustmentConfig()
    for number in model.reg_image_ids():
        config.add_image(number)
    for number in model.cameras:
        if number in constant or settings.fixed_cameras:
            config.set_constant_cam_intrinsics(number)
    if settings.fixed_cameras:
        for number in model.reg_image_ids():
            config.set_constant_rig_from_world_pose(model.images[number].frame_id)
    elif not large:
        config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    # Held by two cameras, a long way turns and stretches as a whole with every step, and takes many times as many.
    pycolmap.create_default_bundle_adjuster(options, config, model).solve()


@dataclass(frozen=True)
class PolishedModel:
    """A model after ``polish_model``, and the tracks whose observations are its keypoints."""

    model: pycolmap.Reconstruction
    tracks: Tracks


def polish_model(
    model: pycolmap.Reconstruction,
    images: Mapping[int, Float32[np.ndarray, "h w"]] | Sequence[Float32[np.ndarray, "h w"]],
    photos: PhotoSet,
    tracks: Tracks,
    settings: MappingSettings | None = None,
    refinement: RefinementSettings | None = None,
    *,
    complete: bool = True,
    threads: int = 1,
) -> PolishedModel:
    """A more accurate model: observations found again with known cameras and local planes, and adjusted.

    First every observation is aligned with its reference by its plane (``refine_with_geometry``) and the
    model adjusted; then tracks gain observations in photos that they did not reach (``complete_tracks``) and
    the model is adjusted once more.

    Args:
        model: the chosen model of a mapping; it is not changed.
        images: grey photos in 0…255 at working size, by photo id.
        tracks: as they were written to the database that the model comes from.

    Returns:
        The model, and tracks that belong to it: write them with ``write_database`` to keep both together.
        Tracks that the model does not hold stay as they are.
    """
    settings = settings or MappingSettings()
    refinement = refinement or RefinementSettings()
    better = pycolmap.Reconstruction(model)
    moved, aligned = refine_with_geometry(images, tracks, better, photos, refinement, threads=threads)
    _, held = points_of_tracks(better, photos, tracks)
    move_observations(better, photos, moved, aligned)
    refine_model(better, photos, settings, rounds=1, final=False)
    scale = fine_loss_scale(better, settings.loss_scale)
    # Observations that could not be aligned leave their tracks; what the model never held stays.
    in_model = np.zeros(tracks.count, bool)
    in_model[tracks.track_id[held]] = True
    keep = aligned | ~in_model[tracks.track_id]
    xyz, _ = points_of_tracks(better, photos, moved)
    length = np.bincount(moved.track_id[keep], minlength=moved.count)
    xyz = xyz[length >= 2]
    kept = select_observations(moved, keep)
    better = model_from_tracks(better, photos, kept, xyz)
    if complete:
        longer = complete_tracks(images, kept, better, photos, refinement, threads=threads)
        better = model_from_tracks(better, photos, longer, xyz)
        kept = longer
    refine_model(better, photos, replace(settings, loss_scale=scale))
    return PolishedModel(better, kept)


def fine_loss_scale(model: pycolmap.Reconstruction, most: float) -> float:
    """Scale of the Cauchy loss, in pixels, that suits the residuals of a model whose errors are up to date.

    2.4 standard deviations lose 5% to normal noise (Holland & Welsch, "Robust regression using iteratively reweighted
    least-squares", 1977), and the mean length of a residual is 1.25 of them: twice that, about. It is ``most`` at most.
    """
    errors = [point.error for point in model.points3D.values()]
    return float(np.clip(_LOSS_IN_ERRORS * np.median(errors), _LEAST_LOSS_SCALE, most)) if errors else most


def halves_of(
    model: pycolmap.Reconstruction, photos: PhotoSet, settings: MappingSettings | None = None
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]] | None:
    """Camera centres by photo id from two disjoint halves of a model's points, each adjusted for itself.

    The halves are a checkerboard over the photos, on the first observation of each point: neighbouring points err
    alike, and dealt out one by one they would hide it. None where a photo keeps too few points in one of them.
    """
    settings = settings or MappingSettings()
    reach = HALVES_CELL * max(max(camera.width, camera.height) for camera in model.cameras.values())
    side: dict[int, int] = {}
    for key, point in model.points3D.items():
        first = min(point.track.elements, key=lambda element: (element.image_id, element.point2D_idx))
        xy = model.images[first.image_id].points2D[first.point2D_idx].xy
        side[key] = int(xy[0] // reach + xy[1] // reach) % 2
    found = []
    for half in (0, 1):
        part = pycolmap.Reconstruction(model)
        for key, of in side.items():
            if of != half:
                part.delete_point3D(key)
        if min(part.images[number].num_points3D for number in part.reg_image_ids()) < MIN_POINTS_OF_A_HALF:
            return None
        adjust(
            part, settings, _constant_cameras(photos), refine_principal_point=False, tolerance=_HALF_TOLERANCE
        )
        found.append({photo: camera.center for photo, camera in posed_cameras(part, photos).items()})
    return found[0], found[1]


def _left_out(
    models: Sequence[pycolmap.Reconstruction],
    photos: PhotoSet,
    graph: ViewGraph,
    first: str = "the largest one",
) -> list[LeftOut]:
    registered = set(models[0].reg_image_ids()) if models else set()
    left_out = []
    for photo in photos.photos:
        if image_id(photo.id) in registered:
            continue
        other = next(
            (index for index, model in enumerate(models) if image_id(photo.id) in set(model.reg_image_ids())),
            None,
        )
        edges = dict(graph[photo.id]) if photo.id in graph else {}
        if other is not None:
            reason = f"belongs to another model (sparse/{other}): too little overlap with {first}"
        elif not edges:
            reason = "no other photo could be matched with it and verified"
        else:
            partner, edge = max(edges.items(), key=lambda item: item[1]["inliers"])
            name = graph.nodes[partner]["name"]
            angle = edge.get("angle")
            seen = f"best pair {name} with {edge['inliers']} verified matches"
            if edge["model"] == "H":
                reason = f"{seen} that a plane or a turn of the camera explains: no parallax to place it by"
            elif angle is not None and angle < 1.0:
                reason = f"{seen}, but seen under only {angle:.1f} degrees"
            elif not models:
                reason = f"no pair of photos could start a model; {seen}"
            elif len(edges) == 1:
                reason = f"joined to one photo only, too few points seen by three photos; {seen}"
            else:
                reason = f"its matches do not agree with the cameras found; {seen}"
        left_out.append(LeftOut(photo.name, reason))
    return left_out


MapperName = Literal["auto", "incremental", "global", "hierarchical"]

Mapper = Callable[..., MappingResult]

_MAPPERS: Mapping[str, Mapper] = {
    "incremental": map_incremental,
    "global": map_global,
    "hierarchical": map_hierarchical,
}


def mapper_named(name: MapperName, photos: int) -> Mapper:
    """The mapper of a name; ``auto`` chooses by the number of photos (docs/benchmarks.md has the figures)."""
    if name == "auto":
        name = "incremental" if photos <= MOST_INCREMENTAL else "global"
    return _MAPPERS[name]
