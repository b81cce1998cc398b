"""The upward direction: by the cameras, by the way people hold them, by the ground."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64

_ELEVATION_ANGLE = 0x9405
"""CameraElevationAngle, degrees (Exif 2.31, section 4.6.5 H)."""

_GIMBAL = {
    name: re.compile(rb"Gimbal" + name.encode() + rb"Degree\s*(?:=\s*[\"']|>)\s*([-+]?\d+(?:\.\d+)?)")
    for name in ("Pitch", "Roll")
}
"""DJI's XMP: drone-dji:GimbalPitchDegree (-90 looks straight down) and GimbalRollDegree."""


def up_of_directions(
    rotations: Float[np.ndarray, "n 3 3"], ups: Float[np.ndarray, "n 3"]
) -> Float64[np.ndarray, "3"]:
    """The up in the world of cameras that each know it in their own axes: the mean, without the outliers.

    Args:
        rotations: world to camera.
        ups: unit vectors in camera axes.

    Raises:
        ValueError: no photos, or they contradict each other.
    """
    world = np.einsum("nji,nj->ni", np.asarray(rotations, np.float64), np.asarray(ups, np.float64))
    if not len(world):
        raise ValueError("no photos")
    best = world[int(np.argmax(np.median(world @ world.T, axis=1)))]
    kept = world[world @ best > math.cos(math.radians(15.0))]
    if 2 * len(kept) < len(world):
        raise ValueError("the photos contradict each other about where up is")
    up = kept.mean(axis=0)
    return np.asarray(up / np.linalg.norm(up))


def dominant_plane(
    xyz: Float[np.ndarray, "n 3"],
    up: Float[np.ndarray, "3"],
    max_angle: float = math.radians(25.0),
    tolerance: float | None = None,
    samples: int = 500,
    seed: int = 0,
) -> tuple[Float64[np.ndarray, "3"], Bool[np.ndarray, " n"]]:
    """The plane with the most points among those that are nearly level.

    Args:
        xyz: points.
        up: roughly up; planes that are tilted against it by more than ``max_angle`` (radians) do not count,
            so that a façade is not taken for the ground.
        tolerance: distance from the plane that counts as on it; 0.5% of the extent by default.
        samples: planes tried.

    Returns:
        The unit normal on the side of ``up``, refined on its points, and which points those are.

    Raises:
        ValueError: fewer than 20% of the points lie on any such plane.
    """
    points = np.asarray(xyz, np.float64)
    points = points[np.isfinite(points).all(axis=1)]
    finite = np.isfinite(np.asarray(xyz)).all(axis=1)
    if len(points) < 10:
        raise ValueError("too few points for a plane")
    if tolerance is None:
        low, high = np.percentile(points, [2, 98], axis=0)
        tolerance = 0.005 * float(np.linalg.norm(high - low))
    rng = np.random.default_rng(seed)
    pick = points if len(points) <= 20_000 else points[rng.choice(len(points), 20_000, replace=False)]
    best, best_count = None, 0
    limit = math.cos(max_angle)
    for _ in range(samples):
        a, b, c = pick[rng.choice(len(pick), 3, replace=False)]
        normal = np.cross(b - a, c - a)
        length = np.linalg.norm(normal)
        if length < 1e-12:
            continue
        normal /= length
        if abs(normal @ up) < limit:
            continue
        count = int((np.abs((pick - a) @ normal) < tolerance).sum())
        if count > best_count:
            best, best_count = (normal, float(normal @ a)), count
    if best is None or best_count < 0.2 * len(pick):
        raise ValueError("no level plane holds a fifth of the points")
    normal, distance = best
    for _ in range(3):
        on = np.abs(points @ normal - distance) < tolerance
        centre = points[on].mean(axis=0)
        normal = np.linalg.eigh(np.cov((points[on] - centre).T))[1][:, 0]
        distance = float(normal @ centre)
    normal = normal if normal @ up > 0 else -normal
    inside = np.zeros(len(finite), bool)
    inside[finite] = on
    return np.asarray(normal), inside


def up_in_camera(elevation: float, roll: float = 0.0) -> Float64[np.ndarray, "3"]:
    """Up in the axes of an upright photo (x right, y down, z forward).

    Args:
        elevation: of the optical axis above the horizon, radians.
        roll: clockwise turn of the camera about its axis as the photographer sees it, radians.
    """
    level = math.cos(elevation)
    return np.array([-level * math.sin(roll), -level * math.cos(roll), math.sin(elevation)])


def up_from_exif(inner: Mapping[int, Any], xmp: bytes = b"") -> Float64[np.ndarray, "3"] | None:
    """Up in camera axes as a photo's metadata tell it, None where they do not.

    Args:
        inner: the Exif sub-directory of the photo, tag number to value.
        xmp: its XMP packet.
    """
    pitch, roll = (_GIMBAL[name].search(xmp) for name in ("Pitch", "Roll"))
    if pitch:
        angle = float(pitch.group(1))
        if abs(angle) <= 90.0:
            turn = float(roll.group(1)) if roll else 0.0
            return up_in_camera(math.radians(angle), math.radians(turn))
    try:
        elevation = float(inner[_ELEVATION_ANGLE])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    if not (math.isfinite(elevation) and abs(elevation) <= 90.0):
        return None
    return up_in_camera(math.radians(elevation))
