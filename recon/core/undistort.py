"""Points and images between a photo as taken and the pinhole camera of its undistorted image."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from recon.core.cameras import Intrinsics
from recon.core.memory import BoundedCache

_maps = BoundedCache(64 << 20)
"""Maps of the last cameras, as photos share one as a rule: a map takes longer than all else that is done to a photo."""


def undistort_points(
    xy: Float[np.ndarray, "n 2"], intrinsics: Intrinsics, K: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "n 2"]:
    """Positions in the undistorted image of the pinhole camera K of points of the photo."""
    if intrinsics.is_pinhole and np.array_equal(intrinsics.K, K):
        return np.asarray(xy, np.float64).copy()
    from recon.core.colmap import camera_from_intrinsics, points_to_colmap

    camera = camera_from_intrinsics(intrinsics)
    rays = np.asarray(camera.cam_from_img(points_to_colmap(np.ascontiguousarray(xy, dtype=np.float64))))
    return np.asarray(rays[:, :2] @ K[:2, :2].T + K[:2, 2])


def distort_points(
    xy: Float[np.ndarray, "n 2"], intrinsics: Intrinsics, K: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "n 2"]:
    """Positions in the photo of points of the undistorted image of the pinhole camera K; NaN where nowhere."""
    if intrinsics.is_pinhole and np.array_equal(intrinsics.K, K):
        return np.asarray(xy, np.float64).copy()
    from recon.core.colmap import camera_from_intrinsics, points_from_colmap

    camera = camera_from_intrinsics(intrinsics)
    rays = (np.asarray(xy, np.float64) - K[:2, 2]) @ np.linalg.inv(K[:2, :2]).T
    rays = np.column_stack([rays, np.ones(len(rays))])
    return points_from_colmap(np.asarray(camera.img_from_cam(np.ascontiguousarray(rays)), np.float64))


def pixel_grid(width: int, height: int) -> Float[np.ndarray, "n 2"]:
    """The (x, y) of every pixel of an image, row by row, float64."""
    xs, ys = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    return np.stack([xs.ravel(), ys.ravel()], axis=1)


def undistortion_maps(
    intrinsics: Intrinsics, K: Float[np.ndarray, "3 3"], size: tuple[int, int]
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """Positions in the photo of every pixel of the undistorted image: (x, y) maps for ``cv2.remap``.

    Photos of one camera share them: they must not be changed.

    Args:
        intrinsics: of the photo, distortion included.
        K: of the pinhole camera, recon's convention.
        size: (width, height) of the undistorted image. ``undistorted_pixels`` goes the other way.
    """
    width, height = size

    def make() -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
        moved = distort_points(pixel_grid(width, height), intrinsics, K)
        maps = moved.reshape(height, width, 2).astype(np.float32)
        return np.ascontiguousarray(maps[..., 0]), np.ascontiguousarray(maps[..., 1])

    return _maps.get(("photo", intrinsics, K.tobytes(), size), make, lambda maps: 2 * maps[0].nbytes)


def undistorted_pixels(
    intrinsics: Intrinsics, K: Float[np.ndarray, "3 3"], size: tuple[int, int]
) -> Float32[np.ndarray, "h w 2"]:
    """Positions in the undistorted image of every pixel of the photo; arguments and care as ``undistortion_maps``."""
    width, height = size

    def make() -> Float32[np.ndarray, "h w 2"]:
        moved = undistort_points(pixel_grid(width, height), intrinsics, K)
        return moved.reshape(height, width, 2).astype(np.float32)

    return _maps.get(("pinhole", intrinsics, K.tobytes(), size), make, lambda moved: moved.nbytes)


def undistort_photo(
    rgb: UInt8[np.ndarray, "h w 3"],
    mask: Bool[np.ndarray, "h w"] | None,
    intrinsics: Intrinsics,
    interpolation: int = cv2.INTER_CUBIC,
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    """A photo without distortion, and which of its pixels may be used.

    Args:
        rgb: at the size of ``intrinsics``.
        mask: True where the photo may be used; None for everywhere.
        interpolation: of the colours, one of OpenCV's.

    Returns:
        Image and mask as the pinhole camera ``intrinsics.K`` of the same size sees them. Without distortion the image
        is handed back as it is.
    """
    valid = np.ones(rgb.shape[:2], np.uint8) if mask is None else mask.astype(np.uint8)
    if not intrinsics.is_pinhole:
        maps = undistortion_maps(intrinsics, intrinsics.K, (intrinsics.width, intrinsics.height))
        rgb = cv2.remap(rgb, *maps, interpolation)
        valid = cv2.remap(valid, *maps, cv2.INTER_NEAREST, borderValue=0)
    return rgb, valid.astype(bool)
