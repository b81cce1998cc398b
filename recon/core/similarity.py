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
