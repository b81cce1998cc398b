"""A camera with its distortion and its place: what took a photo."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Float64

from recon.core.cameras import Intrinsics, PinholeView
from recon.core.similarity import camera_center


@dataclass(frozen=True)
class Camera:
    """A posed camera.

    Attributes:
        intrinsics: recon's pixel convention, distortion included.
        cam_from_world: 3x4 float64, x_cam = R @ x_world + t.
    """

    intrinsics: Intrinsics
    cam_from_world: Float64[np.ndarray, "3 4"]

    @property
    def center(self) -> Float64[np.ndarray, "3"]:
        """The camera's centre in the world."""
        return camera_center(self.cam_from_world)

    @property
    def K(self) -> Float64[np.ndarray, "3 3"]:  # noqa: N802
        """The 3x3 calibration matrix; distortion is not part of it."""
        return self.intrinsics.K

    @property
    def width(self) -> int:
        """Of the image, pixels."""
        return self.intrinsics.width

    @property
    def height(self) -> int:
        """Of the image, pixels."""
        return self.intrinsics.height

    @cached_property
    def _colmap(self) -> Any:
        from recon.core.colmap import camera_from_intrinsics

        return camera_from_intrinsics(self.intrinsics)

    def to_camera(self, xyz: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """World points in camera coordinates."""
        return xyz @ self.cam_from_world[:, :3].T + self.cam_from_world[:, 3]

    def pixels(self, point: Float[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 2"]:
        """Pixels of points in camera coordinates; NaN behind the camera."""
        from recon.core.colmap import points_from_colmap

        return points_from_colmap(
            np.asarray(self._colmap.img_from_cam(np.ascontiguousarray(point)), np.float64)
        )

    def rays(self, xy: Float[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 3"]:
        """Viewing rays (x, y, 1) of pixels, in camera coordinates."""
        from recon.core.colmap import points_to_colmap

        plane = np.asarray(self._colmap.cam_from_img(points_to_colmap(np.ascontiguousarray(xy, np.float64))))
        return np.column_stack([plane[:, :2], np.ones(len(plane))])

    def project(
        self, xyz: Float[np.ndarray, "n 3"]
    ) -> tuple[Float64[np.ndarray, "n 2"], Float64[np.ndarray, " n"]]:
        """Pixels (NaN behind the camera) and z-depth of world points."""
        local = self.to_camera(np.asarray(xyz, np.float64))
        z = local[:, 2]
        if self.intrinsics.is_pinhole:
            K = self.intrinsics.K
            safe = np.where(z > 1e-12, z, np.nan)
            return local[:, :2] / safe[:, None] * [K[0, 0], K[1, 1]] + K[:2, 2], z
        return np.where((z > 1e-12)[:, None], self.pixels(local), np.nan), z

    def resized(self, width: int, height: int) -> Camera:
        """The same camera at another image size: x' = (x + 0.5) * s - 0.5."""
        return replace(self, intrinsics=self.intrinsics.resized(width, height))

    def view(self, name: str, photo_id: int = 0) -> PinholeView:
        """The pinhole view of the undistorted photo: the same calibration matrix and size, no distortion."""
        camera = self.intrinsics
        return PinholeView(photo_id, name, camera.K, self.cam_from_world, camera.width, camera.height)


def registered_cameras(model: Any, *, known: bool = False) -> dict[str, Camera]:
    """The registered cameras of a model by photo name, in the order of the names."""
    from recon.core.colmap import intrinsics_from_camera, pose_of_image

    found = {
        str(image.name): Camera(
            intrinsics_from_camera(model.cameras[image.camera_id], known=known), pose_of_image(image)
        )
        for image in model.images.values()
        if image.has_pose
    }
    return dict(sorted(found.items()))
