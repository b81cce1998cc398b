"""Registration of new photos into an existing model, whose cameras stay as they are.

A new photo is placed by absolute pose from the points of the model that it sees (LO-RANSAC; Schönberger & Frahm, CVPR
2016, section 4.2). Tracks that start in new photos are triangulated, observations in them aligned by local planes, and
only new poses and the points that new photos see are adjusted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from scipy.spatial import cKDTree

from recon.core.colmap import image_id, points_to_colmap, pycolmap
from recon.graph.tracks import PhotoRows, make_tracks, select_observations
from recon.graph.types import Tracks
from recon.photos.types import PhotoSet
from recon.sfm.adapter import keypoint_numbers, move_observations, points_of_tracks
from recon.sfm.mapping import MappingSettings, adjustment_options, fine_loss_scale, triangulate_tracks
from recon.sfm.track_refinement import (
    RefinementSettings,
    complete_tracks,
    refine_with_geometry,
    with_references,
)

# Polishing moves observations by less than this, in pixels: so near lies the same track.
SAME_TRACK_PX = 2.0
# A photo is placed by so many of the points that it should see, and by so large a share of them.
MIN_INLIERS = 30
MIN_SHARE = 0.5


class NotPlacedError(Exception):
    """A new photo does not fit into the model; says why."""


@dataclass(frozen=True)
class PosedTracks:
    """Cameras, and tracks with their points.

    Attributes:
        poses: ``cam_from_world`` by photo id.
        cameras: COLMAP's cameras by their number.
        tracks: with references and affinities.
        xyz: of each track, NaN where it has no point.
        held: observations that the model holds.
    """

    poses: Mapping[int, pycolmap.Rigid3d]
    cameras: Mapping[int, pycolmap.Camera]
    tracks: Tracks
    xyz: Float[np.ndarray, "t 3"]
    held: Bool[np.ndarray, " n"]

    def model(self, photos: PhotoSet) -> pycolmap.Reconstruction:
        """The model of these; keypoints are numbered as in ``write_database`` for the tracks."""
        made = pycolmap.Reconstruction()
        for number in sorted(self.cameras):
            made.add_camera_with_trivial_rig(self.cameras[number])
        rows_of = PhotoRows(self.tracks)
        for photo in photos.photos:
            if photo.id in self.poses:
                xy = self.tracks.xy[rows_of.of(photo.id)].astype(np.float64)
                image = pycolmap.Image(
                    name=photo.name,
                    keypoints=points_to_colmap(xy),
                    camera_id=photo.camera + 1,
                    image_id=image_id(photo.id),
                )
                made.add_image_with_trivial_frame(image, self.poses[photo.id])
        rows = np.nonzero(self.held & np.isfinite(self.xyz[self.tracks.track_id]).all(axis=1))[0]
        numbers = keypoint_numbers(self.tracks)[rows].tolist()
        images = [image_id(photo) for photo in self.tracks.photo_id[rows].tolist()]
        ends = np.r_[np.nonzero(np.diff(self.tracks.track_id[rows]))[0] + 1, len(rows)].tolist()
        start = 0
        for end in ends:
            if end - start >= 2:
                seen = zip(images[start:end], numbers[start:end], strict=True)
                elements = [pycolmap.TrackElement(*one) for one in seen]
                made.add_point3D(self.xyz[self.tracks.track_id[rows[start]]], pycolmap.Track(elements))
            start = end
        return made


def posed_tracks(
    model: pycolmap.Reconstruction, photos: PhotoSet, tracks: Tracks, now: Mapping[int, int]
) -> PosedTracks:
    """What a model says, with other photo ids and without the photos that have none.

    Args:
        photos: of the model. tracks: whose observations are its keypoints.
        now: new ids by the old ones.
    """
    tracks = with_references(tracks)
    assert tracks.is_reference is not None
    assert tracks.affinity is not None
    xyz, held = points_of_tracks(model, photos, tracks)
    table = np.full(len(photos.photos), -1)
    table[list(now)] = list(now.values())
    photo_id = table[tracks.photo_id]
    stays = photo_id >= 0
    length = np.bincount(tracks.track_id[stays], minlength=tracks.count)
    stays &= length[tracks.track_id] >= 2
    numbers, track_id = np.unique(tracks.track_id[stays], return_inverse=True)
    order = np.lexsort((photo_id[stays], track_id))
    rows = np.nonzero(stays)[0][order]
    renumbered = make_tracks(
        tracks.track_id[rows],
        photo_id[rows],
        tracks.xy[rows],
        tracks.is_reference[rows],
        tracks.affinity[rows],
    )
    seen = np.bincount(renumbered.track_id[held[rows]], minlength=len(numbers))
    xyz = xyz[numbers]
    xyz[seen < 2] = np.nan
    poses = {
        now[photo.id]: model.images[image_id(photo.id)].cam_from_world()
        for photo in photos.photos
        if photo.id in now
    }
    used = {model.images[image_id(before)].camera_id for before in now}
    return PosedTracks(
        poses,
        {number: model.cameras[number] for number in sorted(used)},
        with_references(renumbered),
        xyz,
        held[rows] & (seen >= 2)[renumbered.track_id],
    )


@dataclass(frozen=True)
class ExtendedModel:
    """A model with new photos, and the tracks whose observations are its keypoints."""

    model: pycolmap.Reconstruction
    tracks: Tracks


def register_photos(
    before: PosedTracks,
    photos: PhotoSet,
    new: Sequence[int],
    found: Tracks,
    images: Mapping[int, Float32[np.ndarray, "h w"]] | Sequence[Float32[np.ndarray, "h w"]],
    settings: MappingSettings | None = None,
    refinement: RefinementSettings | None = None,
    *,
    polish: bool = True,
    threads: int = 1,
) -> ExtendedModel:
    """Register new photos into a model; earlier cameras stay as they are.

    Args:
        before: of the earlier photos.
        photos: all photos, with the intrinsics that mapping started from; those of new ones are in the model.
        new: ids of the new photos.
        found: tracks of all photos; those of earlier ones may be other ones than the model's.
        images: grey photos in 0…255 at working size, by photo id.
        polish: align observations in new photos by local planes, and look for more.

    Raises:
        NotPlacedError: too few points of the model agree on the pose of a photo.
    """
    settings, refinement = settings or MappingSettings(), refinement or RefinementSettings()
    found = with_references(found)
    of_model = _tracks_of_model(before, found, new)
    poses = dict(before.poses)
    for photo in new:
        poses[photo] = _placed(before, photos, photo, found, of_model, settings)
    posed, is_new = _with_new_observations(before, poses, photos, new, found, of_model, settings)
    model = posed.model(photos)
    first = before.tracks.count
    adjust_new(model, new, settings)
    if not polish:
        return ExtendedModel(model, posed.tracks)
    moved, aligned = refine_with_geometry(
        images, posed.tracks, model, photos, refinement, threads=threads, only=is_new
    )
    _, held = points_of_tracks(model, photos, posed.tracks)
    # New observations that could not be aligned leave their tracks; what the model never held stays.
    in_model = np.zeros(moved.count, bool)
    in_model[moved.track_id[held]] = True
    keep = ~is_new | aligned | ~in_model[moved.track_id]
    move_observations(model, photos, moved, None)
    adjust_new(model, new, settings, rounds=1)
    scale = fine_loss_scale(model, settings.loss_scale)
    posed = _selected(model, photos, replace(posed, tracks=moved), keep)
    model = posed.model(photos)
    started = np.arange(posed.tracks.count) >= _kept_before(moved, keep, first)
    longer = complete_tracks(
        images, posed.tracks, model, photos, refinement, threads=threads, only_in=new, everywhere=started
    )
    posed = _with_rows_of(posed, longer)
    model = posed.model(photos)
    adjust_new(model, new, replace(settings, loss_scale=scale))
    model.update_point_3d_errors()
    return ExtendedModel(model, posed.tracks)


def _kept_before(tracks: Tracks, keep: Bool[np.ndarray, " n"], first: int) -> int:
    """How many of the ``first`` tracks keep two observations or more."""
    length = np.bincount(tracks.track_id[keep], minlength=tracks.count)
    return int((length[:first] >= 2).sum())


def _selected(
    model: pycolmap.Reconstruction, photos: PhotoSet, posed: PosedTracks, keep: Bool[np.ndarray, " n"]
) -> PosedTracks:
    """What a model says, without some of the observations."""
    xyz, held = points_of_tracks(model, photos, posed.tracks)
    length = np.bincount(posed.tracks.track_id[keep], minlength=posed.tracks.count)
    rows = keep & (length[posed.tracks.track_id] >= 2)
    kept = with_references(select_observations(posed.tracks, keep))
    poses = {photo: model.images[image_id(photo)].cam_from_world() for photo in posed.poses}
    return PosedTracks(poses, posed.cameras, kept, xyz[length >= 2], held[rows])


def _with_rows_of(posed: PosedTracks, longer: Tracks) -> PosedTracks:
    """The same with the observations that tracks gained."""
    before = _keys(posed.tracks)
    after = _keys(longer)
    held = np.ones(len(after), bool)
    at = np.searchsorted(after, before)
    held[at] = posed.held
    return replace(posed, tracks=longer, held=held)


def _keys(tracks: Tracks) -> Int[np.ndarray, " n"]:
    """A number for track and photo of each observation, ascending."""
    return tracks.track_id.astype(np.int64) * (1 << 31) + tracks.photo_id


def _tracks_of_model(before: PosedTracks, found: Tracks, new: Collection[int]) -> Int[np.ndarray, " t"]:
    """Of each of the tracks that a new photo sees, the track of the model that most of its observations lie next to;
    -1 where there is none, and for the other tracks."""
    asked = np.zeros(found.count, bool)
    asked[found.track_id[np.isin(found.photo_id, list(new))]] = True
    rows = np.nonzero(asked[found.track_id] & ~np.isin(found.photo_id, list(new)))[0]
    near = np.full(len(found.track_id), -1, np.int64)
    rows_of = PhotoRows(before.tracks)
    for photo in np.unique(found.photo_id[rows]).tolist():
        mine, there = rows[found.photo_id[rows] == photo], rows_of.of(photo)
        if len(there):
            distance, at = cKDTree(before.tracks.xy[there]).query(
                found.xy[mine], distance_upper_bound=SAME_TRACK_PX
            )
            hit = np.isfinite(distance)
            near[mine[hit]] = before.tracks.track_id[there[at[hit]]]
    voted = np.nonzero(near >= 0)[0]
    votes = found.track_id[voted].astype(np.int64) * (before.tracks.count + 1) + near[voted]
    both, count = np.unique(votes, return_counts=True)
    track, of = np.divmod(both, before.tracks.count + 1)
    # Other tracks come near in single photos: more than half of the observations that could be common must be.
    length = np.bincount(found.track_id[rows], minlength=found.count)[track]
    most_common = 2 * count > np.minimum(length, np.bincount(before.tracks.track_id)[of])
    track, of, count = track[most_common], of[most_common], count[most_common]
    best = np.full(found.count, -1, np.int64)
    # The most votes last, so that they stay; of two tracks of one of the model, the one with more votes stays.
    order = np.lexsort((-of, count))
    best[track[order]] = of[order]
    most = np.zeros(found.count, np.int64)
    most[track[order]] = count[order]
    owner = np.full(before.tracks.count, -1, np.int64)
    ranked = np.lexsort((-np.arange(found.count), most))
    ranked = ranked[best[ranked] >= 0]
    owner[best[ranked]] = ranked
    own = np.nonzero(best >= 0)[0]
    best[own[owner[best[own]] != own]] = -2
    return best


def _placed(
    before: PosedTracks,
    photos: PhotoSet,
    photo: int,
    found: Tracks,
    of_model: Int[np.ndarray, " t"],
    settings: MappingSettings,
) -> pycolmap.Rigid3d:
    """The pose that most of the model's points agree on."""
    name = photos.photos[photo].name
    rows = np.nonzero((found.photo_id == photo) & (of_model[found.track_id] >= 0))[0]
    xyz = before.xyz[of_model[found.track_id[rows]]]
    known = np.isfinite(xyz).all(axis=1)
    rows, xyz = rows[known], xyz[known]
    if len(rows) < MIN_INLIERS:
        raise NotPlacedError(f"{name} sees {len(rows)} points of the earlier model")
    options = pycolmap.AbsolutePoseEstimationOptions()
    options.ransac.max_error = settings.max_error
    options.ransac.random_seed = settings.seed
    lens = before.cameras[photos.photos[photo].camera + 1]
    estimate = pycolmap.estimate_and_refine_absolute_pose(
        points_to_colmap(found.xy[rows].astype(np.float64)), xyz, lens, options
    )
    inliers = 0 if estimate is None else int(estimate["num_inliers"])
    if estimate is None or inliers < max(MIN_INLIERS, MIN_SHARE * len(rows)):
        raise NotPlacedError(
            f"{inliers} of {len(rows)} points of the earlier model agree on where {name} stood"
        )
    return estimate["cam_from_world"]


def _with_new_observations(
    before: PosedTracks,
    poses: Mapping[int, pycolmap.Rigid3d],
    photos: PhotoSet,
    new: Collection[int],
    found: Tracks,
    of_model: Int[np.ndarray, " t"],
    settings: MappingSettings,
) -> tuple[PosedTracks, Bool[np.ndarray, " n"]]:
    """The model's tracks with observations in new photos, and with the tracks that start there; which are new."""
    assert found.is_reference is not None
    assert found.affinity is not None
    tracks = before.tracks
    assert tracks.is_reference is not None
    assert tracks.affinity is not None
    rows = np.nonzero(np.isin(found.photo_id, list(new)) & (of_model[found.track_id] >= 0))[0]
    target = of_model[found.track_id[rows]]
    told = _rebased(tracks, found, rows, target)
    # Tracks that start in a new photo, and are none of the model's.
    starts = found.is_reference & np.isin(found.photo_id, list(new)) & (of_model[found.track_id] == -1)
    started = np.zeros(found.count, bool)
    started[found.track_id[starts]] = True
    more = np.nonzero(started[found.track_id])[0]
    fresh = make_tracks(
        found.track_id[more],
        found.photo_id[more],
        found.xy[more],
        found.is_reference[more],
        found.affinity[more],
    )
    assert fresh.is_reference is not None
    assert fresh.affinity is not None
    bare = replace(before, poses=poses, tracks=fresh, held=np.zeros(len(fresh.track_id), bool))
    xyz = triangulate_tracks(bare.model(photos), photos, fresh, settings)
    track = np.concatenate([tracks.track_id, target, fresh.track_id + tracks.count])
    photo = np.concatenate([tracks.photo_id, found.photo_id[rows], fresh.photo_id])
    parts = (
        np.concatenate([tracks.xy, found.xy[rows], fresh.xy]),
        np.concatenate([tracks.is_reference, np.zeros(len(rows), bool), fresh.is_reference]),
        np.concatenate([tracks.affinity, told, fresh.affinity]),
    )
    is_new = np.arange(len(track)) >= len(tracks.track_id)
    held = np.concatenate([before.held, np.ones(len(track) - len(before.held), bool)])
    order = np.lexsort((photo, track))
    made = make_tracks(track, photo, *parts)
    return PosedTracks(poses, before.cameras, made, np.concatenate([before.xyz, xyz]), held[order]), is_new[
        order
    ]


def _rebased(
    tracks: Tracks, found: Tracks, rows: Int[np.ndarray, " m"], target: Int[np.ndarray, " m"]
) -> Float32[np.ndarray, "m 2 2"]:
    """Affinities of observations of ``found`` from the references of the model's tracks."""
    assert tracks.is_reference is not None
    assert found.affinity is not None
    starts = np.nonzero(tracks.is_reference)[0]
    photo = np.zeros(tracks.count, np.int64)
    photo[tracks.track_id[starts]] = tracks.photo_id[starts]
    keys = _keys(found)
    wanted = found.track_id[rows].astype(np.int64) * (1 << 31) + photo[target]
    at = np.searchsorted(keys, wanted).clip(0, len(keys) - 1)
    base = np.where((keys[at] == wanted)[:, None, None], found.affinity[at], np.eye(2, dtype=np.float32))
    return (found.affinity[rows] @ np.linalg.inv(base.astype(np.float64))).astype(np.float32)


def adjust_new(
    model: pycolmap.Reconstruction, new: Collection[int], settings: MappingSettings, *, rounds: int = 3
) -> None:
    """Adjust the poses of new photos and the points that they see, in place, in turns with the removal of bad
    observations of these points; all other poses and all intrinsics are held."""
    numbers = [image_id(photo) for photo in new]
    for _ in range(rounds):
        points = {
            point.point3D_id
            for number in numbers
            for point in model.images[number].points2D
            if point.has_point3D()
        }
        if not points:
            return
        config = pycolmap.BundleAdjustmentConfig()
        for number in numbers:
            config.add_image(number)
        for camera in model.cameras:
            config.set_constant_cam_intrinsics(camera)
        for point in sorted(points):
            config.add_variable_point(point)
        pycolmap.create_default_bundle_adjuster(adjustment_options(settings), config, model).solve()
        manager = pycolmap.ObservationManager(model)
        gone = manager.filter_points3D(settings.max_error, settings.min_triangulation_angle, points)
        if gone == 0:
            break
    model.update_point_3d_errors()
