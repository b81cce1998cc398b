"""Similarity transforms of three-dimensional space, and poses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64


def camera_center(cam_from_world: Float[np.ndarray, "3 4"]) -> Float64[np.ndarray, "3"]:
    """The camera's centre in the world."""
    pose = np.asarray(cam_from_world, np.float64)
    return -pose[:, :3].T @ pose[:, 3]


@dataclass(frozen=True)
class Similarity3:
    """x_b = scale · rotation @ x_a + translation."""

    scale: float
    rotation: Float64[np.ndarray, "3 3"]
    translation: Float64[np.ndarray, "3"]

    def __call__(self, points: Float[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 3"]:
        """Transform points."""
        return self.scale * np.asarray(points, np.float64) @ self.rotation.T + self.translation

    @property
    def matrix(self) -> Float64[np.ndarray, "4 4"]:
        """The homogeneous 4x4 matrix."""
        out = np.eye(4)
        out[:3, :3] = self.scale * self.rotation
        out[:3, 3] = self.translation
        return out

    def inverse(self) -> Similarity3:
        """The transform back."""
        rotation = self.rotation.T
        return Similarity3(1 / self.scale, rotation, -rotation @ self.translation / self.scale)

    def camera(self, cam_from_world: Float[np.ndarray, "3 4"]) -> Float64[np.ndarray, "3 4"]:
        """The pose in the target world of a camera posed in the source world (its image stays the same)."""
        R = np.asarray(cam_from_world, np.float64)[:, :3] @ self.rotation.T
        center = self(camera_center(cam_from_world)[None])[0]
        return np.column_stack([R, -R @ center])


def align_similarity(
    source: Float[np.ndarray, "n 3"],
    target: Float[np.ndarray, "n 3"],
    weights: Float[np.ndarray, " n"] | None = None,
) -> Similarity3:
    """Compute the similarity that maps source points onto target points with the least squared error.

    Source: Umeyama, "Least-squares estimation of transformation parameters between two point patterns",
    PAMI 1991, equations 40 to 42, with optional weights.

    Raises:
        ValueError: fewer than two points, different numbers of points, or all source points in one place.
    """
    a, b = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if a.shape != b.shape or a.ndim != 2 or len(a) < 2:
        raise ValueError(f"need two or more points and as many targets, got {a.shape} and {b.shape}")
    w = np.ones(len(a)) if weights is None else np.asarray(weights, np.float64)
    w = w / w.sum()
    mean_a, mean_b = w @ a, w @ b
    ca, cb = a - mean_a, b - mean_b
    variance = float(w @ (ca**2).sum(axis=1))
    if variance <= 1e-24 * max(float(w @ (a**2).sum(axis=1)), 1e-300):
        raise ValueError("all source points are in one place")
    U, D, Vt = np.linalg.svd((cb * w[:, None]).T @ ca)
    sign = np.ones(3)
    if np.linalg.det(U) * np.linalg.det(Vt) < 0:
        sign[2] = -1
    rotation = (U * sign) @ Vt
    scale = float((D * sign).sum() / variance)
    return Similarity3(scale, rotation, mean_b - scale * rotation @ mean_a)
