"""The one import of pycolmap, and the half pixel between its convention and recon's.

COLMAP puts the origin of an image at the corner of the top-left pixel, recon at its centre. Photo ``i`` is COLMAP's
image ``i + 1``, camera ``c`` is COLMAP's camera ``c + 1``.

OpenCV is imported before pycolmap: the other way round, writing a PNG with OpenCV corrupts memory (pycolmap 4.2.1 with
OpenCV 5.0; both seem to bring a libpng of their own).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import cv2  # noqa: F401  before pycolmap: see above
import numpy as np
import pycolmap
from jaxtyping import Float, Float64

from recon.core.cameras import Intrinsics
from recon.errors import ReconError, reading

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
    "write_camera",
    "write_image",
]

# Else its log is written to files in the system's temporary folder too, one for each run and level.
pycolmap.logging.logtostderr = True

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


def write_camera(database: pycolmap.Database, intrinsics: Intrinsics, number: int) -> None:
    """Write a camera of a database, and the rig that it is alone in; both get this number."""
    camera = camera_from_intrinsics(intrinsics, number)
    database.write_camera(camera, use_camera_id=True)
    rig = pycolmap.Rig(rig_id=number)
    rig.add_ref_sensor(camera.sensor_id)
    database.write_rig(rig, use_rig_id=True)


def write_image(
    database: pycolmap.Database, name: str, number: int, camera: int, keypoints: Float[np.ndarray, "n 2"]
) -> None:
    """Write an image of a database with its key points, and the frame that it is alone in.

    Args:
        number: of image and frame. camera: number of its camera and rig.
        keypoints: in recon's pixel convention.
    """
    image = pycolmap.Image(name=name, image_id=number, camera_id=camera)
    database.write_image(image, use_image_id=True)
    frame = pycolmap.Frame(frame_id=number, rig_id=camera)
    frame.add_data_id(image.data_id)
    database.write_frame(frame, use_frame_id=True)
    database.write_keypoints(number, points_to_colmap(keypoints.astype(np.float32)))


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
        ReconError: it cannot be read, contradicts itself, or has a camera or pose that is not finite.
    """
    with reading(os.fspath(folder), "it is no whole COLMAP model"):
        _check_counts(Path(folder))
        model = pycolmap.Reconstruction(os.fspath(folder))
        for camera in model.cameras.values():
            if not (
                np.isfinite(camera.params).all() and 0 < camera.width < _SIDE and 0 < camera.height < _SIDE
            ):
                raise ReconError(f"{folder}: camera {camera.camera_id} has no size or parameters that can be")
        for image in model.images.values():
            if image.has_pose and not np.isfinite(pose_of_image(image)).all():
                raise ReconError(
                    f"{folder}: image {image.image_id} ({image.name}) has a pose that is not finite"
                )
    return model


_SIDE = 1 << 20
"""No photo has a side of so many pixels."""

_ENTRIES = {"cameras.bin": 24, "rigs.bin": 8, "frames.bin": 68, "images.bin": 73, "points3D.bin": 51}
"""Bytes of the shortest entry of a file of a model, before which stands their number (COLMAP, "Output Format")."""


def _check_counts(folder: Path) -> None:
    """Refuse files of a binary model that say that they hold more than they do: COLMAP allocates what they say."""
    for name, shortest in _ENTRIES.items():
        path = folder / name
        data = path.read_bytes() if path.is_file() else None
        if data is None:
            continue
        with reading(path):
            (count,) = struct.unpack_from("<Q", data)
            at = 8
            if at + count * shortest > len(data):
                raise ReconError(f"{path}: is cut short: {count} entries do not fit into {len(data)} bytes")
            for _ in range(count):
                if name == "points3D.bin":
                    at += 51 + 8 * struct.unpack_from("<Q", data, at + 43)[0]
                elif name == "images.bin":
                    at = data.index(0, at + 64) + 1
                    at += 8 + 24 * struct.unpack_from("<Q", data, at)[0]
                elif name == "frames.bin":
                    at += 68 + 16 * struct.unpack_from("<I", data, at + 64)[0]
                elif name == "rigs.bin":
                    at = _end_of_rig(data, at)
                if at > len(data):
                    raise ReconError(f"{path}: is cut short, or damaged")


def _end_of_rig(data: bytes, at: int) -> int:
    """End of the rig that begins at ``at``: id, number of sensors, the first sensor, the others with poses."""
    (sensors,) = struct.unpack_from("<I", data, at + 4)
    at += 8 + (8 if sensors else 0)
    for _ in range(1, sensors):
        at += 9 + (56 if data[at + 8] else 0)
    return at
