"""Cameras: intrinsics with distortion, and posed pinholes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from jaxtyping import Float, Float64

# Index of (fx, fy, cx, cy) in the parameters of the camera models that recon meets.
FOCAL_AND_CENTRE: Mapping[str, tuple[int, int, int, int]] = {
    "SIMPLE_PINHOLE": (0, 0, 1, 2),
    "PINHOLE": (0, 1, 2, 3),
    "SIMPLE_RADIAL": (0, 0, 1, 2),
    "RADIAL": (0, 0, 1, 2),
    "OPENCV": (0, 1, 2, 3),
    "FULL_OPENCV": (0, 1, 2, 3),
    "OPENCV_FISHEYE": (0, 1, 2, 3),
    "SIMPLE_RADIAL_FISHEYE": (0, 0, 1, 2),
    "RADIAL_FISHEYE": (0, 0, 1, 2),
    "FOV": (0, 1, 2, 3),
    "THIN_PRISM_FISHEYE": (0, 1, 2, 3),
    "RAD_TAN_THIN_PRISM_FISHEYE": (0, 1, 2, 3),
}
# How many parameters each of them has.
NUMBER_OF_PARAMS: Mapping[str, int] = {
    "SIMPLE_PINHOLE": 3,
    "PINHOLE": 4,
    "SIMPLE_RADIAL": 4,
    "RADIAL": 5,
    "OPENCV": 8,
    "FULL_OPENCV": 12,
    "OPENCV_FISHEYE": 8,
    "SIMPLE_RADIAL_FISHEYE": 4,
    "RADIAL_FISHEYE": 5,
    "FOV": 5,
    "THIN_PRISM_FISHEYE": 12,
    "RAD_TAN_THIN_PRISM_FISHEYE": 16,
}
"""Parameters of the same camera models (COLMAP, "Camera Models")."""


@dataclass(frozen=True)
class Intrinsics:
    """Intrinsics of one camera at one image size.

    Attributes:
        model: COLMAP camera model name.
        params: parameters in COLMAP's order, but with the principal point in recon's pixel convention
            (the centre of the top-left pixel is (0, 0)); ``recon.core.colmap`` adds the half pixel.
        width, height: image size in pixels that the parameters belong to.
        known: the user gave these values; mapping keeps them fixed.
        has_focal_prior: the focal length comes from the user or from EXIF rather than from a guess.
    """

    model: str
    params: tuple[float, ...]
    width: int
    height: int
    known: bool = False
    has_focal_prior: bool = False

    @property
    def K(self) -> Float64[np.ndarray, "3 3"]:  # noqa: N802
        """The 3x3 calibration matrix (float64); distortion is not part of it."""
        fx, fy, cx, cy = (self.params[i] for i in FOCAL_AND_CENTRE[self.model])
        return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])

    @property
    def is_pinhole(self) -> bool:
        """True when the model has no distortion at all."""
        return self.model in {"SIMPLE_PINHOLE", "PINHOLE"}

    def pinhole(self) -> Intrinsics:
        """The pinhole camera with the focal lengths, principal point and size of this camera."""
        if self.is_pinhole:
            return self
        K = self.K
        params = (float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2]))
        return replace(self, model="PINHOLE", params=params)

    def resized(self, width: int, height: int) -> Intrinsics:
        """The same camera at another image size: x' = (x + 0.5) * s - 0.5."""
        sx, sy = width / self.width, height / self.height
        model, params = self.model, list(self.params)
        ifx, ify, icx, icy = FOCAL_AND_CENTRE[model]
        if ifx == ify and abs(sx - sy) > 1e-12:
            # One focal length cannot hold two scales; the mean errs by less than the rounding of the size.
            params[ifx] *= 0.5 * (sx + sy)
        else:
            params[ifx] *= sx
            if ify != ifx:
                params[ify] *= sy
        params[icx] = (params[icx] + 0.5) * sx - 0.5
        params[icy] = (params[icy] + 0.5) * sy - 0.5
        return replace(self, params=tuple(params), width=width, height=height)


@dataclass(frozen=True)
class PinholeView:
    """A posed pinhole camera: what densification needs to know of a photo.

    Attributes:
        K: calibration in recon's pixel convention, 3x3 float64.
        cam_from_world: 3x4 float64, x_cam = R @ x_world + t.
        width, height: image size in pixels.
    """

    photo_id: int
    name: str
    K: Float[np.ndarray, "3 3"]
    cam_from_world: Float[np.ndarray, "3 4"]
    width: int
    height: int

    @property
    def center(self) -> Float[np.ndarray, "3"]:
        """Camera centre in the world."""
        return -self.cam_from_world[:, :3].T @ self.cam_from_world[:, 3]

    def project(
        self, points: Float[np.ndarray, "n 3"]
    ) -> tuple[Float64[np.ndarray, "n 2"], Float64[np.ndarray, " n"]]:
        """Pixels and z-depths of world points (pixels mean nothing where z <= 0)."""
        local = points @ self.cam_from_world[:, :3].T + self.cam_from_world[:, 3]
        flat = local @ self.K.T
        safe = np.where(np.abs(flat[:, 2:]) < 1e-12, 1e-12, flat[:, 2:])
        return flat[:, :2] / safe, local[:, 2]

    def resized(self, width: int, height: int) -> PinholeView:
        """The same view at another image size."""
        sx, sy = width / self.width, height / self.height
        K = self.K.copy()
        K[0, 0] *= sx
        K[0, 1] *= sx
        K[1, 1] *= sy
        K[0, 2] = (K[0, 2] + 0.5) * sx - 0.5
        K[1, 2] = (K[1, 2] + 0.5) * sy - 0.5
        return replace(self, K=K, width=width, height=height)


class Posed(Protocol):
    """A pinhole camera and its place."""

    @property
    def K(self) -> Float[np.ndarray, "3 3"]:  # noqa: N802
        """The calibration matrix."""
        ...

    @property
    def cam_from_world(self) -> Float[np.ndarray, "3 4"]:
        """The pose."""
        ...


def fundamental_matrix(a: Posed, b: Posed) -> Float64[np.ndarray, "3 3"]:
    """Compute F with x_bᵀ F x_a = 0 for pixels of two known cameras (Hartley & Zisserman 2004, equation 9.2).

    Returns:
        F of unit Frobenius norm; all zeros when both cameras are in one place (then no line can be drawn).
    """
    R = b.cam_from_world[:, :3] @ a.cam_from_world[:, :3].T
    t = b.cam_from_world[:, 3] - R @ a.cam_from_world[:, 3]
    cross = np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]])
    F = np.linalg.inv(b.K).T @ cross @ R @ np.linalg.inv(a.K)
    norm = float(np.linalg.norm(F))
    return np.asarray(F / norm if norm > 0 else F, np.float64)
