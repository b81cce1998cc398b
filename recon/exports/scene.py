"""Cameras, photos and points in one neutral form, between COLMAP's model and the formats of other programs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int64, UInt8

from recon.core.cameras import Intrinsics
from recon.core.colmap import (
    camera_from_intrinsics,
    intrinsics_from_camera,
    points_from_colmap,
    points_to_colmap,
    pycolmap,
)
from recon.core.undistort import undistort_points
from recon.io.cameras_json import camera_entry


@dataclass(frozen=True)
class SceneView:
    """A photo with its pose.

    Attributes:
        name: of the photo's file, relative to the photo folder, with forward slashes.
        camera: index into the scene's cameras.
        cam_from_world: 3x4, x_cam = R x + t.
        keypoints: (k, 2) in recon's pixel convention, at the size of the camera.
        mask: name of a mask file (white may be used), None without.
    """

    name: str
    camera: int
    cam_from_world: Float64[np.ndarray, "3 4"]
    keypoints: Float64[np.ndarray, "k 2"]
    mask: str | None = None

    @property
    def center(self) -> Float64[np.ndarray, "3"]:
        """Camera centre in the world."""
        return -self.cam_from_world[:, :3].T @ self.cam_from_world[:, 3]


@dataclass(frozen=True)
class Scene:
    """Posed photos and sparse points. All lengths in double precision.

    Attributes:
        cameras: intrinsics that the views share.
        views: posed photos.
        xyz: (n, 3) points in the world.
        rgb: (n, 3) their colours.
        observations: (m, 3) rows of (point, view, keypoint): indices into ``xyz``, ``views`` and the
            view's keypoints; sorted by point, then view.
    """

    cameras: tuple[Intrinsics, ...]
    views: tuple[SceneView, ...]
    xyz: Float64[np.ndarray, "n 3"]
    rgb: UInt8[np.ndarray, "n 3"]
    observations: Int64[np.ndarray, "m 3"]

    def intrinsics(self, view: SceneView) -> Intrinsics:
        """The camera that took this view."""
        return self.cameras[view.camera]

    def in_words(self) -> str:
        """Describe the size of the scene."""
        return f"{len(self.views)} photos, {len(self.cameras)} cameras, {len(self.xyz)} points"

    def to_cameras_json(self) -> dict[str, Any]:
        """Posed pinhole cameras as the project's own cameras.json (docs/conventions.md)."""
        images = []
        for view in self.views:
            camera = self.intrinsics(view)
            size = (camera.width, camera.height)
            images.append(camera_entry(view.name, camera.K, size, view.cam_from_world))
        return {"images": images}

    def tracks(self) -> list[Int64[np.ndarray, "k 2"]]:
        """The (view, keypoint) rows of each point."""
        ends = np.searchsorted(self.observations[:, 0], np.arange(len(self.xyz) + 1))
        return [self.observations[a:b, 1:] for a, b in itertools.pairwise(ends)]

    def renamed(self, name_of: Mapping[str, str]) -> Scene:
        """The same scene with other names of photos; a name that is not in the mapping stays."""
        views = tuple(replace(view, name=name_of.get(view.name, view.name)) for view in self.views)
        return replace(self, views=views)

    def moved(
        self,
        scale: float,
        rotation: Float[np.ndarray, "3 3"],
        translation: Float[np.ndarray, "3"],
    ) -> Scene:
        """The scene in another world: x' = scale * rotation @ x + translation. The photos look the same."""
        R, t = np.asarray(rotation, np.float64), np.asarray(translation, np.float64)
        views = []
        for view in self.views:
            turned = view.cam_from_world[:, :3] @ R.T
            center = scale * R @ view.center + t
            views.append(replace(view, cam_from_world=np.column_stack([turned, -turned @ center])))
        return replace(self, views=tuple(views), xyz=scale * self.xyz @ R.T + t)

    def resized(self, size_of: Callable[[SceneView], tuple[int, int]]) -> Scene:
        """The scene with photos of another size: x' = (x + 0.5) * s - 0.5.

        Args:
            size_of: (width, height) of a view; views that share a camera but not a size get cameras of
                their own.
        """
        cameras: dict[tuple[int, int, int], int] = {}
        made: list[Intrinsics] = []
        views = []
        for view in self.views:
            width, height = size_of(view)
            key = (view.camera, width, height)
            before = self.intrinsics(view)
            if key not in cameras:
                cameras[key] = len(made)
                same = (before.width, before.height) == (width, height)
                made.append(before if same else before.resized(width, height))
            factors = np.array([width / before.width, height / before.height])
            keypoints = (view.keypoints + 0.5) * factors - 0.5
            views.append(replace(view, camera=cameras[key], keypoints=keypoints))
        return replace(self, cameras=tuple(made), views=tuple(views))

    def undistorted(self, target_of: Callable[[Intrinsics], Intrinsics]) -> Scene:
        """The scene with other cameras in the same places; keypoints go where the new cameras see them.

        Args:
            target_of: the pinhole camera that replaces a camera.
        """
        targets = tuple(target_of(camera) for camera in self.cameras)
        views = []
        for view in self.views:
            before, after = self.cameras[view.camera], targets[view.camera]
            if after != before and len(view.keypoints):
                view = replace(view, keypoints=undistort_points(view.keypoints, before, after.K))
            views.append(view)
        return replace(self, cameras=targets, views=tuple(views))


def square_pinhole(camera: Intrinsics) -> Intrinsics:
    """The pinhole camera with one focal length (the mean), and the principal point and size of this camera."""
    K = camera.K
    params = (float(0.5 * (K[0, 0] + K[1, 1])), float(K[0, 2]), float(K[1, 2]))
    return replace(camera, model="SIMPLE_PINHOLE", params=params)


def centred_pinhole(camera: Intrinsics) -> Intrinsics:
    """The pinhole camera with one focal length and the principal point at the very centre of the image."""
    K = camera.K
    focal = float(0.5 * (K[0, 0] + K[1, 1]))
    params = (focal, 0.5 * (camera.width - 1), 0.5 * (camera.height - 1))
    return replace(camera, model="SIMPLE_PINHOLE", params=params)


def scene_from_reconstruction(model: pycolmap.Reconstruction) -> Scene:
    """A scene of the posed images of a COLMAP model, sorted by image id; images without a pose are left out."""
    camera_ids = sorted(model.cameras)
    camera_row = {number: row for row, number in enumerate(camera_ids)}
    cameras = tuple(intrinsics_from_camera(model.cameras[number]) for number in camera_ids)
    views: list[SceneView] = []
    view_row: dict[int, int] = {}
    for number in sorted(model.images):
        image = model.images[number]
        if not image.has_pose:
            continue
        view_row[number] = len(views)
        points = image.points2D
        xy = np.array([point.xy for point in points], np.float64).reshape(-1, 2)
        pose = np.array(image.cam_from_world().matrix(), np.float64)
        views.append(SceneView(image.name, camera_row[image.camera_id], pose, points_from_colmap(xy)))
    xyz: list[np.ndarray] = []
    rgb: list[np.ndarray] = []
    observations: list[tuple[int, int, int]] = []
    for number in sorted(model.points3D):
        point = model.points3D[number]
        row = len(xyz)
        xyz.append(point.xyz)
        rgb.append(point.color)
        observations += [
            (row, view_row[element.image_id], element.point2D_idx)
            for element in point.track.elements
            if element.image_id in view_row
        ]
    return Scene(
        cameras,
        tuple(views),
        np.array(xyz, np.float64).reshape(-1, 3),
        np.array(rgb, np.uint8).reshape(-1, 3),
        np.array(sorted(observations), np.int64).reshape(-1, 3),
    )


def reconstruction_from_scene(scene: Scene) -> pycolmap.Reconstruction:
    """The COLMAP model of a scene: view ``i`` is image ``i + 1``, camera ``c`` is camera ``c + 1``."""
    made = pycolmap.Reconstruction()
    for row, intrinsics in enumerate(scene.cameras):
        made.add_camera_with_trivial_rig(camera_from_intrinsics(intrinsics, row + 1))
    for row, view in enumerate(scene.views):
        image = pycolmap.Image(
            name=view.name,
            keypoints=np.ascontiguousarray(points_to_colmap(view.keypoints)),
            camera_id=view.camera + 1,
            image_id=row + 1,
        )
        made.add_image_with_trivial_frame(image, pycolmap.Rigid3d(_with_unit_rotation(view.cam_from_world)))
    for row, track in enumerate(scene.tracks()):
        elements = [pycolmap.TrackElement(int(view) + 1, int(keypoint)) for view, keypoint in track]
        made.add_point3D(scene.xyz[row], pycolmap.Track(elements), scene.rgb[row])
    if len(scene.xyz):
        made.update_point_3d_errors()
    return made


def pairs_of_tracks(scene: Scene) -> dict[tuple[int, int], Int64[np.ndarray, "k 2"]]:
    """The matches that the points imply: for each pair of views (ascending) the pairs of keypoints."""
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for track in scene.tracks():
        rows = track[np.argsort(track[:, 0], kind="stable")].tolist()
        for i, (a, keypoint_a) in enumerate(rows):
            for b, keypoint_b in rows[i + 1 :]:
                if a != b:
                    found.setdefault((a, b), []).append((keypoint_a, keypoint_b))
    return {pair: np.array(found[pair], np.int64) for pair in sorted(found)}


def scene_of_views(
    cameras: Sequence[Intrinsics],
    views: Sequence[SceneView],
    xyz: Float[np.ndarray, "n 3"],
    rgb: UInt8[np.ndarray, "n 3"],
    observations: Sequence[tuple[int, int, int]],
) -> Scene:
    """A scene from lists, with the observations in order."""
    rows = np.array(sorted(observations), np.int64).reshape(-1, 3)
    return Scene(tuple(cameras), tuple(views), np.asarray(xyz, np.float64).reshape(-1, 3), rgb, rows)


def _with_unit_rotation(pose: Float[np.ndarray, "3 4"]) -> Float64[np.ndarray, "3 4"]:
    """A pose whose rotation is exactly orthonormal; text formats round it."""
    U, _, Vt = np.linalg.svd(pose[:, :3])
    return np.column_stack([U @ Vt, pose[:, 3]])
