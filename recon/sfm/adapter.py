"""Between recon and COLMAP: databases of tracks and matches, and what a model says of photos and tracks."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from recon.core.cameras import Intrinsics, PinholeView
from recon.core.colmap import (
    HALF_PIXEL,
    image_id,
    intrinsics_from_camera,
    photo_id,
    points_from_colmap,
    points_to_colmap,
    pose_of_image,
    pycolmap,
    write_camera,
    write_image,
)
from recon.core.posed import Camera
from recon.graph.tracks import PhotoRows
from recon.graph.two_view import essential_matrix
from recon.graph.types import Tracks, TwoViewGeometry
from recon.matching.types import SparseMatch
from recon.photos.types import PhotoSet


def write_database(
    path: str | os.PathLike[str],
    photos: PhotoSet,
    tracks: Tracks,
    geometries: Mapping[tuple[int, int], TwoViewGeometry],
    *,
    matches: Mapping[tuple[int, int], SparseMatch] | None = None,
) -> None:
    """Write a COLMAP database whose correspondence graph reproduces the tracks exactly.

    Every observation is a keypoint of its own, and a pair of photos that is in ``geometries`` gets one match
    for every track that both photos see. The file is written beside its place and renamed into it.

    Args:
        path: of the database; an existing one is replaced.
        tracks: at working size.
        geometries: of the verified pairs (ascending photo ids). ``inliers`` is aligned with
            ``PhotoRows.shared`` of the tracks, or, with ``matches``, with those; a geometry of another
            length keeps all matches of its pair.
        matches: point matches to write instead of tracks (each match a keypoint pair, equal points shared).

    Raises:
        ValueError: a pair is not in ascending order or names no photo of the set.
    """
    keypoints, pairs = _keypoints_and_pairs(photos, tracks, list(geometries), matches)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    # SQLite's journal files would outlive a killed writer and be taken for those of the new file.
    for leftover in (
        partial,
        *(partial.with_name(partial.name + end) for end in ("-wal", "-shm", "-journal")),
    ):
        leftover.unlink(missing_ok=True)
    with pycolmap.Database.open(partial) as database:
        for index, intrinsics in enumerate(photos.cameras):
            write_camera(database, intrinsics, index + 1)
        for photo in photos.photos:
            write_image(database, photo.name, image_id(photo.id), photo.camera + 1, keypoints[photo.id])
        for (a, b), rows in pairs.items():
            geometry = geometries[(a, b)]
            inliers = geometry.inliers if len(geometry.inliers) == len(rows) else np.ones(len(rows), bool)
            database.write_matches(image_id(a), image_id(b), rows.astype(np.uint32))
            if geometry.model != "none" and inliers.any():
                database.write_two_view_geometry(
                    image_id(a),
                    image_id(b),
                    _colmap_geometry(geometry, rows[inliers], photos, a, b),
                )
    os.replace(partial, target)


def _keypoints_and_pairs(
    photos: PhotoSet,
    tracks: Tracks,
    edges: list[tuple[int, int]],
    matches: Mapping[tuple[int, int], SparseMatch] | None,
) -> tuple[dict[int, np.ndarray], dict[tuple[int, int], np.ndarray]]:
    ids = {photo.id for photo in photos.photos}
    for a, b in edges:
        if not (a < b and a in ids and b in ids):
            raise ValueError(f"pair ({a}, {b}) does not name two photos of the set in ascending order")
    keypoints: dict[int, np.ndarray] = {}
    pairs: dict[tuple[int, int], np.ndarray] = {}
    if matches is None:
        index, rows_of = keypoint_numbers(tracks), PhotoRows(tracks)
        for photo in ids:
            keypoints[photo] = tracks.xy[rows_of.of(photo)]
        for a, b in sorted(edges):
            rows = rows_of.shared(a, b)
            if len(rows):
                pairs[(a, b)] = index[rows]
        return keypoints, pairs
    points: dict[int, list[np.ndarray]] = {photo: [] for photo in ids}
    for (a, b), match in sorted(matches.items()):
        points[a].append(match.xy_a)
        points[b].append(match.xy_b)
    empty = np.zeros((0, 2), np.float32)
    numbers: dict[int, np.ndarray] = {}
    for photo, parts in points.items():
        joined = np.concatenate([empty, *parts])
        keypoints[photo], inverse = np.unique(joined, axis=0, return_inverse=True)
        numbers[photo] = inverse.reshape(-1)
    used = dict.fromkeys(ids, 0)
    for (a, b), match in sorted(matches.items()):
        n = len(match.score)
        rows = np.stack([numbers[a][used[a] : used[a] + n], numbers[b][used[b] : used[b] + n]], axis=1)
        used[a] += n
        used[b] += n
        if n and (a, b) in edges:
            pairs[(a, b)] = rows
    return keypoints, pairs


def _colmap_geometry(
    geometry: TwoViewGeometry, rows: np.ndarray, photos: PhotoSet, a: int, b: int
) -> pycolmap.TwoViewGeometry:
    shift = np.array([[1.0, 0.0, -HALF_PIXEL], [0.0, 1.0, -HALF_PIXEL], [0.0, 0.0, 1.0]])
    found = pycolmap.TwoViewGeometry()
    configuration = pycolmap.TwoViewGeometryConfiguration
    assert geometry.matrix is not None
    if geometry.model == "H":
        found.H = np.linalg.inv(shift) @ geometry.matrix @ shift
        found.config = int(configuration.PLANAR_OR_PANORAMIC)
    else:
        # The matrix takes points in recon's convention: x_recon = shift @ x_colmap.
        found.F = shift.T @ geometry.matrix @ shift
        found.config = int(configuration.UNCALIBRATED)
        if geometry.model == "E":
            if geometry.b_from_a is not None:
                found.E = essential_matrix(geometry.b_from_a)
            else:
                camera_a, camera_b = (photos.cameras[photos.photos[number].camera] for number in (a, b))
                found.E = camera_b.K.T @ geometry.matrix @ camera_a.K
            found.config = int(configuration.CALIBRATED)
    if geometry.b_from_a is not None:
        found.cam2_from_cam1 = pycolmap.Rigid3d(geometry.b_from_a)
    if np.isfinite(geometry.triangulation_angle):
        found.tri_angle = float(geometry.triangulation_angle)
    found.inlier_matches = np.ascontiguousarray(rows, dtype=np.uint32)
    return found


def intrinsics_from_reconstruction(
    reconstruction: pycolmap.Reconstruction, photos: PhotoSet
) -> dict[int, Intrinsics]:
    """Intrinsics (recon's convention, distortion included) of every registered photo, by photo id."""
    names = {photo.name: photo for photo in photos.photos}
    found = {}
    for number in sorted(reconstruction.reg_image_ids()):
        image = reconstruction.images[number]
        photo = names.get(image.name)
        if photo is not None:
            known = photos.cameras[photo.camera].known
            found[photo.id] = intrinsics_from_camera(reconstruction.cameras[image.camera_id], known=known)
    return found


def views_from_reconstruction(reconstruction: pycolmap.Reconstruction, photos: PhotoSet) -> list[PinholeView]:
    """Pinhole views of the registered photos, by ascending photo id.

    K is that of the undistorted photo (``undistortion_maps``); for cameras without distortion it is the
    camera's own.
    """
    names = {image.name: image for image in reconstruction.images.values() if image.has_pose}
    views = []
    for photo in photos.photos:
        image = names.get(photo.name)
        if image is None:
            continue
        camera = reconstruction.cameras[image.camera_id]
        intrinsics = intrinsics_from_camera(camera)
        pose = pose_of_image(image)
        views.append(
            PinholeView(
                photo.id,
                photo.name,
                intrinsics.K,
                pose,
                int(camera.width),
                int(camera.height),
            )
        )
    return views


def posed_cameras(model: pycolmap.Reconstruction, photos: PhotoSet) -> dict[int, Camera]:
    """The registered cameras of a model by photo id."""
    names = {photo.name: photo.id for photo in photos.photos}
    return {
        names[image.name]: Camera(
            intrinsics_from_camera(model.cameras[image.camera_id]), pose_of_image(image)
        )
        for image in model.images.values()
        if image.has_pose and image.name in names
    }


def keypoint_numbers(tracks: Tracks) -> Int[np.ndarray, " n"]:
    """The number that ``write_database`` gives each observation among the keypoints of its photo."""
    order = np.argsort(tracks.photo_id, kind="stable")
    ordered = tracks.photo_id[order]
    starts = np.searchsorted(ordered, ordered)
    numbers = np.empty(len(order), np.int64)
    numbers[order] = np.arange(len(order)) - starts
    return numbers


def points_of_tracks(
    model: pycolmap.Reconstruction, photos: PhotoSet, tracks: Tracks
) -> tuple[Float[np.ndarray, "t 3"], Bool[np.ndarray, " n"]]:
    """World points of the tracks (NaN where the model has none), and which observations the model holds.

    A track that the model split into several points gets the one with the most observations, and holds only
    those.
    """
    names = {photo.name: photo.id for photo in photos.photos}
    numbers = keypoint_numbers(tracks)
    point_of = np.full(len(tracks.track_id), -1, np.int64)
    for image in model.images.values():
        photo = names.get(image.name)
        if photo is None or not image.has_pose:
            continue
        rows = np.nonzero(tracks.photo_id == photo)[0]
        if len(image.points2D) != len(rows):
            raise ValueError(
                f"{image.name}: the model has {len(image.points2D)} keypoints, the tracks {len(rows)}"
            )
        ids = np.array(
            [point.point3D_id if point.has_point3D() else -1 for point in image.points2D], np.int64
        )
        point_of[rows] = ids[numbers[rows]]
    xyz = np.full((tracks.count, 3), np.nan)
    held = np.zeros(len(tracks.track_id), bool)
    seen = point_of >= 0
    if not seen.any():
        return xyz, held
    ids, where, counts = np.unique(point_of[seen], return_inverse=True, return_counts=True)
    rows = np.nonzero(seen)[0]
    # Best point of each track: most observations, then the lowest id.
    order = np.lexsort((point_of[rows], -counts[where.reshape(-1)], tracks.track_id[rows]))
    first = np.r_[True, np.diff(tracks.track_id[rows][order]) > 0]
    best = np.full(tracks.count, -1, np.int64)
    best[tracks.track_id[rows[order[first]]]] = point_of[rows[order[first]]]
    for track in np.nonzero(best >= 0)[0]:
        xyz[track] = model.points3D[int(best[track])].xyz
    held = seen & (point_of == best[tracks.track_id])
    return xyz, held


def move_observations(
    model: pycolmap.Reconstruction,
    photos: PhotoSet,
    tracks: Tracks,
    keep: Bool[np.ndarray, " n"] | None = None,
) -> None:
    """Put the positions of tracks into a model, in place; observations not in ``keep`` leave their points."""
    names = {photo.name: photo.id for photo in photos.photos}
    numbers = keypoint_numbers(tracks)
    for image_number in list(model.reg_image_ids()):
        image = model.images[image_number]
        photo = names.get(image.name)
        if photo is None:
            continue
        points = image.points2D
        moved = points_to_colmap(tracks.xy.astype(np.float64))
        for row in np.nonzero(tracks.photo_id == photo)[0]:
            number = int(numbers[row])
            points[number].xy = moved[row]
            if keep is not None and not keep[row] and points[number].has_point3D():
                model.delete_observation(image_number, number)


def model_from_tracks(
    model: pycolmap.Reconstruction,
    photos: PhotoSet,
    tracks: Tracks,
    xyz: Float[np.ndarray, "t 3"],
) -> pycolmap.Reconstruction:
    """A model with the cameras of another one and with these tracks as its points.

    Args:
        model: gives cameras and poses; its points are not used.
        tracks: keypoints of all photos are numbered as in ``write_database`` for these tracks.
        xyz: a world point for each track; NaN makes no point of it.
    """
    made = pycolmap.Reconstruction()
    for number in sorted(model.cameras):
        made.add_camera_with_trivial_rig(model.cameras[number])
    cameras = posed_cameras(model, photos)
    for photo in photos.photos:
        if photo.id not in cameras:
            continue
        image = pycolmap.Image(
            name=photo.name,
            keypoints=points_to_colmap(tracks.xy[tracks.photo_id == photo.id].astype(np.float64)),
            camera_id=model.images[image_id(photo.id)].camera_id,
            image_id=image_id(photo.id),
        )
        made.add_image_with_trivial_frame(image, pycolmap.Rigid3d(cameras[photo.id].cam_from_world))
    numbers = keypoint_numbers(tracks)
    registered = np.isin(tracks.photo_id, list(cameras))
    first = np.searchsorted(tracks.track_id, np.arange(tracks.count + 1))
    for track in range(tracks.count):
        rows = [row for row in range(first[track], first[track + 1]) if registered[row]]
        if len(rows) < 2 or not np.isfinite(xyz[track]).all():
            continue
        elements = [
            pycolmap.TrackElement(image_id(int(tracks.photo_id[row])), int(numbers[row])) for row in rows
        ]
        made.add_point3D(xyz[track], pycolmap.Track(elements))
    return made


def color_points(model: pycolmap.Reconstruction, rgb_of: Callable[[int], UInt8[np.ndarray, "h w 3"]]) -> None:
    """Give every sparse point the mean colour of its observations.

    Args:
        model: changed in place.
        rgb_of: pixels of a photo by its id, at the size of the model's keypoints.
    """
    sums: dict[int, np.ndarray] = {}
    counts: dict[int, int] = {}
    for number in model.reg_image_ids():
        seen = [point for point in model.images[number].points2D if point.has_point3D()]
        if not seen:
            continue
        rgb = rgb_of(photo_id(number))
        height, width = rgb.shape[:2]
        xy = np.rint(points_from_colmap(np.array([point.xy for point in seen]))).astype(int)
        colors = rgb[xy[:, 1].clip(0, height - 1), xy[:, 0].clip(0, width - 1)].astype(float)
        for point, color in zip(seen, colors, strict=True):
            sums[point.point3D_id] = sums.get(point.point3D_id, np.zeros(3)) + color
            counts[point.point3D_id] = counts.get(point.point3D_id, 0) + 1
    for key, total in sums.items():
        model.points3D[key].color = np.rint(total / counts[key]).astype(np.uint8)
