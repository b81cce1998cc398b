"""Photos that were registered by the wrong ones of their matches, registered again.

Incremental mapping never takes a pose back: a photo that came in by matches with a look-alike place stays there, and
its matches with its true neighbours are dropped one by one as outliers. Once the other photos stand, the majority of
the photo's own observations says where it belongs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from recon.core.colmap import image_id, points_to_colmap, pycolmap
from recon.graph.tracks import make_tracks
from recon.graph.types import Tracks
from recon.photos.types import PhotoSet
from recon.sfm.adapter import model_from_tracks, points_of_tracks, posed_cameras
from recon.sfm.mapping import MappingSettings, refine_model, triangulate_tracks

# A photo is looked at again when fewer of its observations of points that two other photos hold fit its pose.
MIN_FITTING = 0.9
# The new pose must explain so many times as many observations as the old one, and at least so many.
MIN_GAIN = 1.2
MIN_INLIERS = 30
_ROUNDS = 2


@dataclass(frozen=True)
class Reregistered:
    """A model after ``reregister_photos``.

    Attributes:
        model: the same object where nothing was changed.
        moved: ids of the photos with a new pose.
    """

    model: pycolmap.Reconstruction
    moved: tuple[int, ...]


def reregister_photos(
    model: pycolmap.Reconstruction, photos: PhotoSet, tracks: Tracks, settings: MappingSettings | None = None
) -> Reregistered:
    """Give photos whose observations do not fit their pose the pose that most of them agree on.

    The points are triangulated from the other photos only; the pose is estimated by LO-RANSAC from them (COLMAP's
    absolute pose), and taken if it explains many more observations. Then all tracks are triangulated anew and the
    model is adjusted.

    Args:
        model: it is not changed.
        tracks: whose observations are the model's keypoints.
    """
    settings = settings or MappingSettings()
    moved: set[int] = set()
    for _ in range(_ROUNDS):
        found = {}
        for photo in _misfits(model, photos, tracks, settings.max_error):
            pose = _majority_pose(model, photos, tracks, photo, settings)
            if pose is not None:
                found[photo] = pose
        if not found:
            break
        moved |= found.keys()
        changed = pycolmap.Reconstruction(model)
        for photo, pose in found.items():
            changed.frames[changed.images[image_id(photo)].frame_id].set_cam_from_world(
                changed.images[image_id(photo)].camera_id, pose
            )
        xyz = triangulate_tracks(changed, photos, tracks, settings)
        model = model_from_tracks(changed, photos, tracks, xyz)
        manager = pycolmap.ObservationManager(model)
        manager.filter_all_points3D(settings.max_error, settings.min_triangulation_angle)
        refine_model(model, photos, settings)
    return Reregistered(model, tuple(sorted(moved)))


def _misfits(
    model: pycolmap.Reconstruction, photos: PhotoSet, tracks: Tracks, max_error: float
) -> Sequence[int]:
    """Photos of which too few observations fit, the worst first."""
    xyz, held = points_of_tracks(model, photos, tracks)
    shares = {}
    for photo, camera in posed_cameras(model, photos).items():
        rows = np.nonzero(tracks.photo_id == photo)[0]
        others = np.bincount(tracks.track_id[held & (tracks.photo_id != photo)], minlength=tracks.count)
        rows = rows[others[tracks.track_id[rows]] >= 2]
        if len(rows) < MIN_INLIERS:
            continue
        pixels = camera.pixels(camera.to_camera(xyz[tracks.track_id[rows]]))
        shares[photo] = float(_within(pixels, tracks.xy[rows], max_error).mean())
    return sorted(
        (photo for photo, share in shares.items() if share < MIN_FITTING), key=lambda p: (shares[p], p)
    )


def _majority_pose(
    model: pycolmap.Reconstruction, photos: PhotoSet, tracks: Tracks, photo: int, settings: MappingSettings
) -> pycolmap.Rigid3d | None:
    """The pose that most observations of a photo agree on, if it is another one than the model's."""
    rows = np.nonzero(tracks.photo_id == photo)[0]
    wanted = np.isin(tracks.track_id, tracks.track_id[rows]) & (tracks.photo_id != photo)
    numbers = np.unique(tracks.track_id[wanted])
    if len(numbers) < MIN_INLIERS:
        return None
    others = make_tracks(tracks.track_id[wanted], tracks.photo_id[wanted], tracks.xy[wanted])
    points = triangulate_tracks(model, photos, others, settings)
    xyz = np.full((tracks.count, 3), np.nan)
    xyz[numbers] = points
    rows = rows[np.isfinite(xyz[tracks.track_id[rows]]).all(axis=1)]
    if len(rows) < MIN_INLIERS:
        return None
    xy, seen = tracks.xy[rows], xyz[tracks.track_id[rows]]
    camera = posed_cameras(model, photos)[photo]
    now = int(_within(camera.pixels(camera.to_camera(seen)), xy, settings.max_error).sum())
    options = pycolmap.AbsolutePoseEstimationOptions()
    options.ransac.max_error = settings.max_error
    options.ransac.random_seed = settings.seed
    lens = model.cameras[model.images[image_id(photo)].camera_id]
    found = pycolmap.estimate_and_refine_absolute_pose(
        points_to_colmap(xy.astype(np.float64)), seen, lens, options
    )
    if found is None or found["num_inliers"] < max(MIN_INLIERS, MIN_GAIN * now):
        return None
    return found["cam_from_world"]


def _within(
    pixels: Float[np.ndarray, "n 2"], xy: Float[np.ndarray, "n 2"], max_error: float
) -> Bool[np.ndarray, " n"]:
    with np.errstate(invalid="ignore"):
        return np.linalg.norm(pixels - xy, axis=1) <= max_error
