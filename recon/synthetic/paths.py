"""Positions of the cameras of a synthetic scene, and the points they look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64

from recon.core.cameras import PinholeView


def look_at(
    center: Sequence[float] | np.ndarray,
    target: Sequence[float] | np.ndarray,
    up: Sequence[float] = (0.0, 0.0, 1.0),
    roll: float = 0.0,
) -> Float64[np.ndarray, "3 4"]:
    """Compute ``cam_from_world`` of a camera at ``center`` that looks at ``target``.

    Args:
        center, target: world positions, not the same.
        up: the world direction that points up in the photo; not along the view.
        roll: further turn about the optical axis, radians.
    """
    c = np.asarray(center, np.float64)
    z = np.asarray(target, np.float64) - c
    z /= np.linalg.norm(z)
    x = np.cross(z, np.asarray(up, np.float64))
    x /= np.linalg.norm(x)
    R = np.stack([x, np.cross(z, x), z])
    turn = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    R = turn @ R
    return np.column_stack([R, -R @ c])


def pinhole_views(
    poses: Sequence[Float[np.ndarray, "3 4"]], width: int, height: int, field_of_view: float = 60.0
) -> tuple[PinholeView, ...]:
    """Make views of one camera with the principal point at the image's centre.

    Args:
        poses: ``cam_from_world`` of each view.
        width, height: image size in pixels.
        field_of_view: horizontal, in degrees.
    """
    f = 0.5 * width / np.tan(np.radians(field_of_view) / 2)
    K = np.array([[f, 0, (width - 1) / 2], [0, f, (height - 1) / 2], [0, 0, 1]], np.float64)
    return tuple(
        PinholeView(i, f"{i:04d}.png", K, np.asarray(pose, np.float64), width, height)
        for i, pose in enumerate(poses)
    )


def arc_path(
    count: int,
    target: Sequence[float],
    radius: float,
    degrees: float,
    height: float,
    seed: int = 0,
    jitter: float = 0.0,
) -> list[Float64[np.ndarray, "3 4"]]:
    """Make poses on an arc round a vertical axis through ``target``, in the half space of negative y.

    Args:
        count: number of poses.
        target: what all of them look at.
        radius: horizontal distance.
        degrees: angle from the first pose to the last, centred on -y; 360 makes a closed ring.
        height: height of the camera above the target.
        seed, jitter: each centre and viewing target is moved by a seeded normal offset of this deviation.
    """
    rng = np.random.default_rng(seed)
    closed = abs(degrees) >= 360
    angles = np.radians(np.linspace(-degrees / 2, degrees / 2, count, endpoint=not closed))
    t = np.asarray(target, np.float64)
    poses = []
    for angle in angles:
        center = t + np.array([radius * np.sin(angle), -radius * np.cos(angle), height])
        poses.append(look_at(center + rng.normal(0, 1, 3) * jitter, t + rng.normal(0, 1, 3) * jitter))
    return poses


def grid_path(
    columns: int,
    rows: int,
    center: Sequence[float],
    spacing: tuple[float, float],
    distance: float,
    toe_in: float = 0.5,
    seed: int = 0,
    jitter: float = 0.0,
) -> list[Float64[np.ndarray, "3 4"]]:
    """Make poses on a grid before a wall (in the plane y = centre y), ``distance`` away on the side of
    negative y.

    Args:
        columns, rows: number of poses each way.
        center: the point of the wall before the middle of the grid.
        spacing: distance between columns and between rows.
        distance: distance from the wall.
        toe_in: 0 looks straight at the wall, 1 looks at ``center`` from everywhere.
        seed, jitter: as in ``arc_path``.
    """
    rng = np.random.default_rng(seed)
    c = np.asarray(center, np.float64)
    poses = []
    for row in range(rows):
        for column in range(columns):
            side = (column - (columns - 1) / 2) * spacing[0]
            rise = (row - (rows - 1) / 2) * spacing[1]
            eye = c + [side, -distance, rise] + rng.normal(0, 1, 3) * jitter
            aim = c + np.array([side, 0, rise]) * (1 - toe_in) + rng.normal(0, 1, 3) * jitter
            poses.append(look_at(eye, aim))
    return poses


def zoom_path(
    groups: Sequence[tuple[int, float, float]], center: Sequence[float], seed: int = 0, jitter: float = 0.0
) -> list[Float64[np.ndarray, "3 4"]]:
    """Make poses in groups at different distances before a wall: neighbours of two groups differ in scale.

    Args:
        groups: (count, distance, width): that many poses at that distance, spread over that width, each
            looking halfway between straight ahead and ``center``.
        center: point of the wall before the middle.
        seed, jitter: as in ``arc_path``.
    """
    poses = []
    for index, (count, distance, width) in enumerate(groups):
        step = width / max(count - 1, 1)
        poses += grid_path(count, 1, center, (step, 0.0), distance, 0.5, seed + index, jitter)
    return poses
