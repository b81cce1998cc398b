"""The one import of pycolmap, and the half pixel between its convention and recon's.

COLMAP puts the origin of an image at the corner of the top-left pixel, recon at its centre. Photo ``i`` is COLMAP's
image ``i + 1``, camera ``c`` is COLMAP's camera ``c + 1``.

OpenCV is imported before pycolmap: the other way round, writing a PNG with OpenCV corrupts memory (pycolmap 4.2.1 with
OpenCV 5.0; both seem to bring a libpng of their own).
"""

from __future__ import annotations

import os

import cv2  # noqa: F401  before pycolmap: see above
import numpy as np
import pycolmap
from jaxtyping import Float, Float64

from recon.core.cameras import Intrinsics
from recon.errors import ReconError

__all__ = [
    "HALF_PIXEL",
    "camera_from_intrinsics",
    "image_id",
    "intrinsics_from_camera",
    "photo_id",
    "points_from_colmap",
    "points_to_colmap",
    "pose_of_image",
    "pycolmap",
    "read_reconstruction",
]

HALF_PIXEL = 0.5


def image_id(photo_id: int) -> int:
    """COLMAP's image id of a photo (COLMAP counts from 1)."""
    return photo_id + 1


def photo_id(colmap_image_id: int) -> int:
    """The photo of a COLMAP image id."""
    return colmap_image_id - 1


def points_to_colmap(xy: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """Points in COLMAP's pixel convention (the top-left corner is the origin)."""
    return xy + xy.dtype.type(HALF_PIXEL)


def points_from_colmap(xy: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """Points in recon's pixel convention (the centre of the top-left pixel is the origin)."""
    return xy - xy.dtype.type(HALF_PIXEL)


def camera_from_intrinsics(intrinsics: Intrinsics, camera_id: int = 1) -> pycolmap.Camera:
    """COLMAP's camera of these intrinsics."""
    camera = pycolmap.Camera(
        camera_id=camera_id,
        model=intrinsics.model,
        width=intrinsics.width,
        height=intrinsics.height,
        params=list(intrinsics.params),
    )
    camera.principal_point_x += HALF_PIXEL
    camera.principal_point_y += HALF_PIXEL
    camera.has_prior_focal_length = intrinsics.known or intrinsics.has_focal_prior
    return camera


def intrinsics_from_camera(
    camera: pycolmap.Camera, *, known: bool = False, has_focal_prior: bool | None = None
) -> Intrinsics:
    """Intrinsics of a COLMAP camera; ``known`` is for the caller to say, COLMAP does not keep it."""
    shifted = pycolmap.Camera(
        model=camera.model, width=camera.width, height=camera.height, params=list(camera.params)
    )
    shifted.principal_point_x -= HALF_PIXEL
    shifted.principal_point_y -= HALF_PIXEL
    prior = bool(camera.has_prior_focal_length) if has_focal_prior is None else has_focal_prior
    return Intrinsics(
        camera.model.name,
        tuple(float(value) for value in shifted.params),
        int(camera.width),
        int(camera.height),
        known,
        prior,
    )


def pose_of_image(image: pycolmap.Image) -> Float64[np.ndarray, "3 4"]:
    """``cam_from_world`` of a registered image."""
    return np.array(image.cam_from_world().matrix(), np.float64)


def read_reconstruction(folder: str | os.PathLike[str]) -> pycolmap.Reconstruction:
    """Read a COLMAP model, binary or text.

    Raises:
        ReconError: it cannot be read.
    """
    try:
        return pycolmap.Reconstruction(os.fspath(folder))
    except (ValueError, RuntimeError, OSError) as error:
        raise ReconError(f"{folder}: the COLMAP model cannot be read: {error}") from error
