"""A box that cuts a scene open."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64


@dataclass(frozen=True, eq=False)
class ClipBox:
    """A box; points inside it are shown.

    Attributes:
        axes: rows are the box's directions, unit vectors. low, high: its ends along them.
    """

    axes: Float64[np.ndarray, "3 3"]
    low: Float64[np.ndarray, "3"]
    high: Float64[np.ndarray, "3"]

    def inside(self, points: Float[np.ndarray, "n 3"]) -> Bool[np.ndarray, " n"]:
        """Tell which points lie in the box."""
        along = np.asarray(points) @ self.axes.T.astype(np.asarray(points).dtype)
        return ((along >= self.low) & (along <= self.high)).all(axis=1)

    def boxes(
        self, low: Float[np.ndarray, "b 3"], high: Float[np.ndarray, "b 3"]
    ) -> tuple[Bool[np.ndarray, " b"], Bool[np.ndarray, " b"]]:
        """Tell which of the boxes along the world's axes lie wholly in this one, and which reach into it at all."""
        middle = ((low + high) / 2).astype(np.float64) @ self.axes.T
        reach = ((high - low) / 2).astype(np.float64) @ np.abs(self.axes.T)
        whole = ((middle - reach >= self.low) & (middle + reach <= self.high)).all(axis=1)
        touched = ((middle + reach >= self.low) & (middle - reach <= self.high)).all(axis=1)
        return whole, touched

    def edges(self) -> Float64[np.ndarray, "12 2 3"]:
        """Its edges."""
        corners = np.array([[(i >> axis) & 1 for axis in range(3)] for i in range(8)])
        places = np.where(corners == 0, self.low, self.high) @ self.axes
        pairs = [(i, i | 1 << axis) for i in range(8) for axis in range(3) if not i >> axis & 1]
        return places[np.array(pairs)]


def box_around(points: Float[np.ndarray, "n 3"], axes: Float64[np.ndarray, "3 3"]) -> ClipBox:
    """A box that holds all points, with a little room."""
    along = np.asarray(points, np.float64) @ axes.T
    low, high = (along.min(axis=0), along.max(axis=0)) if len(along) else (np.zeros(3), np.ones(3))
    room = 0.01 * np.maximum(high - low, 1e-6 * max(float(np.max(high - low)), 1e-9))
    return ClipBox(axes, low - room, high + room)
