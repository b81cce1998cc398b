"""The frame of a map: the ground of the georeference, or the plane of a façade."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float64

from recon.core.similarity import Similarity3
from recon.errors import ReconError, UsageError
from recon.exports.georeference import Bend, Georeference
from recon.exports.gravity import dominant_plane
from recon.maps.options import PLANES

# Photos that look up or down by less than this, in the median, stand before a façade.
_LEVEL = math.radians(20.0)
# A wall's normal lies within this angle of the direction to the cameras.
_WALL_ANGLE = math.radians(60.0)


@dataclass(frozen=True)
class MapFrame:
    """Frame of a map: x right (east), y up (north), z to the viewer.

    Attributes:
        from_model: local coordinates of the map, of those of the model; ``bend`` is what an adjustment did before.
        offset: added to local coordinates to get those that files hold.
        epsg: code of the reference system, None for a local frame or a façade.
        name: for people. unit: "m", or "units" where the scale is not known.
        plane: "ground", "facade" or "direction".
    """

    from_model: Similarity3
    offset: tuple[float, float, float]
    epsg: int | None
    name: str
    unit: str
    plane: str
    bend: Bend | None = None

    def place(self, points: Float[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 3"]:
        """Points of the model in local coordinates of the map."""
        return self.from_model(points if self.bend is None else self.bend(points))


def map_frame(
    georeference: Georeference,
    wanted: str,
    looks: Float[np.ndarray, "n 3"],
    points: Float[np.ndarray, "p 3"],
    seed: int = 0,
) -> tuple[MapFrame, list[str]]:
    """The frame that a user wants, and what to say about it.

    Args:
        georeference: of the run; method "level" where only up is known.
        wanted: "auto", "ground", "facade" or "X,Y,Z".
        looks: viewing directions of the photos in the model. points: of the scene, in the model.

    Raises:
        UsageError: ``wanted`` makes no sense.
        ReconError: there is no wall to be found.
    """
    ground = MapFrame(
        georeference.similarity,
        georeference.offset,
        georeference.crs.epsg,
        georeference.crs.name,
        "units" if georeference.method == "level" else "m",
        "ground",
        georeference.bend,
    )
    turn = georeference.similarity.rotation
    ahead = np.asarray(looks, np.float64) @ turn.T
    if wanted == "auto":
        level = float(np.median(np.abs(np.arcsin(np.clip(ahead[:, 2], -1, 1))))) < _LEVEL
        wanted = "facade" if level else "ground"
        said = [f"plane: {wanted}, as the photos look; --plane takes another"]
    else:
        said = [f"plane: {wanted}"]
    if wanted == "ground":
        return ground, said
    if wanted == "facade":
        towards = -ahead.mean(axis=0)
        towards[2] = 0.0
        if np.linalg.norm(towards) < 0.2:
            raise ReconError("the photos look at no façade from one side; --plane ground or --plane X,Y,Z")
        towards /= np.linalg.norm(towards)
        try:
            normal, inside = dominant_plane(georeference.to_local(points), towards, _WALL_ANGLE, seed=seed)
            said.append(f"the wall's plane holds {100 * float(inside.mean()):.0f}% of the points")
        except ValueError:
            normal = towards
            said.append("no single wall: seen from where the cameras are")
        normal = np.array([normal[0], normal[1], 0.0])
    else:
        normal = _direction(wanted)
    n = normal / np.linalg.norm(normal)
    up = np.array([0.0, 0.0, 1.0])
    if abs(float(n @ up)) > 0.999:
        up = np.array([0.0, 1.0, 0.0])
    v = up - (up @ n) * n
    v /= np.linalg.norm(v)
    basis = np.stack([np.cross(v, n), v, n])
    before = georeference.similarity
    turned = Similarity3(before.scale, basis @ before.rotation, basis @ before.translation)
    east, north, height = (float(value) for value in n)
    name = f"elevation seen along ({-east:.4f}, {-north:.4f}, {-height:.4f}) of {ground.name}"
    kind = "facade" if wanted == "facade" else "direction"
    return replace(ground, from_model=turned, offset=(0.0, 0.0, 0.0), epsg=None, name=name, plane=kind), said


def _direction(text: str) -> Float64[np.ndarray, "3"]:
    try:
        values = np.array([float(part) for part in text.split(",")])
    except ValueError:
        values = np.zeros(0)
    if values.shape != (3,) or not np.isfinite(values).all() or not values.any():
        raise UsageError(f"--plane {text}: it is {', '.join(PLANES)}, or a direction as X,Y,Z")
    return values
