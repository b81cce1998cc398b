"""Measurements of the viewer: coordinates and lengths in the frame, each with its standard deviation."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from recon.exports.precision import PointPrecision, with_sigma
from recon.live.picking import Surfaces
from recon.render.scene import ViewScene

# Photos that are asked where a point is, those that look at it most squarely first.
_PHOTOS = 12


@dataclass(frozen=True)
class Measured:
    """A point that was clicked: where it is in the scene and in the frame, and the photos that show it."""

    point: Float64[np.ndarray, "3"]
    local: Float64[np.ndarray, "3"]
    photos: tuple[str, ...]


class Measuring:
    """Measures points of a scene; the precision is asked for when it is needed first."""

    def __init__(self, scene: ViewScene) -> None:
        self._scene = scene
        self._lock = threading.Lock()
        self._asked = False
        self._precision: PointPrecision | None = None

    @property
    def precision(self) -> PointPrecision | None:
        """Precision of the cameras; None where nothing is known of it."""
        with self._lock:
            if not self._asked:
                self._asked = True
                self._precision = self._scene.precision()
        return self._precision

    def take(
        self,
        surfaces: Surfaces,
        point: Float64[np.ndarray, "3"],
        normal: Float64[np.ndarray, "3"] | None = None,
    ) -> Measured:
        """Take a point of the surface."""
        world = (point + self._scene.offset)[None]
        georeference = self._scene.georeference
        local = (world if georeference is None else georeference.to_local(world))[0]
        seen = surfaces.sightings(point, normal, _PHOTOS)
        return Measured(point, local, tuple(self._scene.photos[one.photo].name for one in seen))

    def coordinates(self, at: Measured, unit: str) -> str:
        """Deviations of a point's coordinates in words; empty where they are not known."""
        sigma = None if self.precision is None else self.precision.sigma(at.local, at.photos)
        if sigma is None:
            return ""
        if unit == "m":
            return "± " + ", ".join(f"{1000 * value:.2g}" for value in sigma) + " mm"
        return "± " + ", ".join(f"{value:.2g}" for value in sigma)

    def length(self, a: Measured, b: Measured, unit: str) -> str:
        """The distance of two points, with its deviation where that is known."""
        length = float(np.linalg.norm(b.local - a.local))
        sigma = (
            None
            if self.precision is None
            else self.precision.length_sigma(a.local, b.local, a.photos, b.photos)
        )
        return with_sigma(length, sigma, unit)
