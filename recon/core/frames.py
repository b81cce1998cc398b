"""Axes and origins of a model: which way is up, and coordinates that single precision can hold."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Float64

Y_UP_FROM_Z_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
"""glTF 2.0, section 3.4: y is up, z is forward."""

_ROLL_SIGMA = math.radians(6.0)
"""How level people hold cameras, about the optical axis; weighs roll against the mean of the photos' up."""


def offset_to_origin(centers: Float[np.ndarray, "n 3"]) -> Float64[np.ndarray, "3"]:
    """Offset to subtract from a model's coordinates so that single precision can hold them; 0 if it can already.

    Single precision has 24 bits. Where its steps at the cameras are more than 1e-5 of the cameras' spread, as for a
    model in UTM, the offset is their middle, rounded to the power of ten below the spread.
    """
    c = np.asarray(centers, np.float64)
    middle = np.median(c, axis=0)
    spread = float(np.median(np.linalg.norm(c - middle, axis=1)))
    if spread <= 0.0 or float(np.abs(middle).max()) * 2.0**-24 <= 1e-5 * spread:
        return np.zeros(3)
    unit = 10.0 ** math.floor(math.log10(spread))
    return np.asarray(np.round(np.floor(middle / unit) * unit, 9))


def up_of_photos(rotations: Float[np.ndarray, "n 3 3"]) -> Float64[np.ndarray, "3"]:
    """The direction in the world that photos held level have as up.

    Cameras are pitched at will but seldom rolled: their x axes lie in the horizontal plane (Snavely, Seitz and
    Szeliski, "Photo tourism", SIGGRAPH 2006, section 5.1). The mean of the cameras' up decides where the x axes
    leave a choice, as they do when all photos look the same way.

    Args:
        rotations: world to camera, of upright photos.

    Returns:
        A unit vector.

    Raises:
        ValueError: no photos, or they are turned so differently that their up cancels.
    """
    R = np.asarray(rotations, np.float64).reshape(-1, 3, 3)
    if not len(R):
        raise ValueError("no photos")
    mean = -R[:, 1, :].mean(axis=0)
    length = float(np.linalg.norm(mean))
    if length < 0.1:
        raise ValueError("the photos are turned so differently that they do not tell where up is")
    x = R[:, 0, :]
    ridge = _ROLL_SIGMA**2
    up = np.linalg.solve(x.T @ x / len(R) + ridge * np.eye(3), mean / length)
    return np.asarray(up / np.linalg.norm(up))


def level_rotation(
    up: Float[np.ndarray, "3"], north: Float[np.ndarray, "3"] | None = None
) -> Float64[np.ndarray, "3 3"]:
    """The rotation that brings ``up`` to z, and the horizontal part of ``north`` to y.

    Without a direction for y, or with a vertical one, the world's own axes decide.
    """
    z = np.asarray(up, np.float64) / np.linalg.norm(up)
    candidates = [] if north is None else [np.asarray(north, np.float64)]
    for direction in (
        *candidates,
        np.array([0.0, 0.0, 1.0]),
        np.array([0.0, 1.0, 0.0]),
        np.array([1.0, 0.0, 0.0]),
    ):
        flat = direction - (direction @ z) * z
        length = np.linalg.norm(flat)
        if length > 0.2 * np.linalg.norm(direction):
            y = flat / length
            return np.stack([np.cross(y, z), y, z])
    raise AssertionError("one of three axes is not vertical")


def upright_rotation(rotations: Float[np.ndarray, "n 3 3"]) -> Float64[np.ndarray, "3 3"]:
    """From a model to glTF's axes (y up): upright as the photos were held, its front (towards the photos) to z.

    Args:
        rotations: world to camera, of the photos.

    Raises:
        ValueError: the photos do not tell where up is.
    """
    ahead = np.asarray(rotations, np.float64)[:, 2, :].mean(axis=0)
    return Y_UP_FROM_Z_UP @ level_rotation(up_of_photos(rotations), ahead)


def translation(offset: Float[np.ndarray, "3"]) -> Float64[np.ndarray, "4 4"]:
    """The 4x4 matrix that adds an offset."""
    matrix = np.eye(4)
    matrix[:3, 3] = offset
    return matrix
