"""Scenes of any number of photos: a walk round a block of houses, a flight over a hamlet, an object from three heights.

The number of photos sets the size of the scene or the step between photos, so that neighbours overlap at every size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float64

from recon.core.cameras import PinholeView
from recon.core.mesh import Mesh
from recon.errors import UsageError
from recon.synthetic.aerial import HALF_M, aerial_albedo, aerial_mesh
from recon.synthetic.materials import Albedo, solid_albedo
from recon.synthetic.paths import arc_path, look_at, pinhole_views
from recon.synthetic.presets import preset
from recon.synthetic.rendering import Lighting
from recon.synthetic.repeated import floor, joined, wall
from recon.synthetic.scene import SyntheticScene, render_scene
from recon.synthetic.sensor import Sensor
from recon.synthetic.shapes import object_mesh

_STEP_M, _DISTANCE_M = 0.9, 3.0
"""Between photos of the street and from the houses: a photo shows 3.9 m, three quarters of it its neighbour's."""
_PERIOD_M, _STOREY_M = 2.0, 3.2
_FEWEST = {"street": 32, "block": 9, "heights": 9}

Made = tuple[Mesh, Albedo, list[Float64[np.ndarray, "3 4"]], float]


def street_path(photos: int) -> tuple[list[Float64[np.ndarray, "3 4"]], float]:
    """Poses of a walk round a square block that ends a step before its start, and the side of the block in metres."""
    around = 2 * np.pi * _DISTANCE_M
    side = max(1, round((photos * _STEP_M - around) / 4 / _PERIOD_M)) * _PERIOD_M
    half = side / 2
    poses = []
    for s in np.arange(photos) / photos * (4 * side + around):
        edge, rest = divmod(s, side + around / 4)
        turn = edge * np.pi / 2
        if rest <= side:
            eye = np.array([rest - half, -half - _DISTANCE_M])
            aim = np.array([eye[0] + 0.4, -half])
        else:
            angle = (rest - side) / _DISTANCE_M
            eye = np.array([half + _DISTANCE_M * np.sin(angle), -half - _DISTANCE_M * np.cos(angle)])
            aim = np.array([half, -half])
        R = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        poses.append(look_at([*(R @ eye), 1.6], [*(R @ aim), 2.2]))
    return poses, side


def _street(photos: int, seed: int, coarseness: float) -> Made:
    poses, side = street_path(photos)
    half, step = side / 2, 0.05 * coarseness
    corners = [(-half, -half), (half, -half), (half, half), (-half, half)]
    parts = [
        wall(corners[i], corners[(i + 1) % 4], 6.4, _PERIOD_M, _STOREY_M, seed, 0.4, step) for i in range(4)
    ]
    reach = half + 2 * _DISTANCE_M
    parts.append(floor((-reach, -reach), (reach, reach), 0.0, 0.6, seed, 0.4))
    return (*joined(parts, seed), poses, 66.0)


def _block(photos: int, seed: int, coarseness: float) -> Made:
    rng = np.random.default_rng(seed)
    oblique = photos // 5
    rows = max(2, round(np.sqrt(photos - oblique)))
    lines = np.array_split(np.arange(photos - oblique), rows)
    reach = 0.8 * HALF_M
    altitude = float(np.clip(4 * 2 * reach / rows, 24.0, 60.0))
    poses = []
    for row, line in enumerate(lines):
        y = -reach + 2 * reach * (row + 0.5) / rows
        for x in np.linspace(-reach, reach, len(line))[:: 1 if row % 2 == 0 else -1]:
            eye = np.array([x, y, altitude]) + rng.normal(0, 0.3, 3)
            poses.append(
                look_at(eye, [eye[0] + rng.normal(0, 0.6), eye[1] + rng.normal(0, 0.6), 0], (0, 1, 0))
            )
    for k in range(oblique):
        angle = 2 * np.pi * k / oblique
        x, y = 1.1 * altitude * np.cos(angle), 1.1 * altitude * np.sin(angle)
        poses.append(look_at([x, y, 0.85 * altitude], [0.1 * x, 0.1 * y, 0.0]))
    return aerial_mesh(coarseness), aerial_albedo(seed), poses, 60.0


def _heights(photos: int, seed: int, coarseness: float) -> Made:  # noqa: ARG001
    poses = []
    for part, height in zip(np.array_split(np.arange(photos), 3), (0.7, 1.6, 2.6), strict=True):
        poses += arc_path(len(part), (0, 0, 0.6), 2.9, 360, height, seed, 0.03)
    return object_mesh(), solid_albedo(seed), poses, 46.0


_MAKERS: Mapping[str, Callable[[int, int, float], Made]] = {
    "street": _street,
    "block": _block,
    "heights": _heights,
}
LARGE_SCENES = tuple(_MAKERS)


def large_scene_parts(
    name: str, photos: int, size: tuple[int, int], seed: int = 0, coarseness: float = 1.0
) -> tuple[Mesh, Albedo, tuple[PinholeView, ...]]:
    """The surface, its reflectance and the cameras of ``make_large_scene``, without a picture."""
    if name not in _MAKERS:
        raise UsageError(f"no large scene {name!r}; there are: {', '.join(_MAKERS)}")
    if photos < _FEWEST[name]:
        raise UsageError(f"the scene {name!r} needs {_FEWEST[name]} photos or more, not {photos}")
    mesh, albedo, poses, field_of_view = _MAKERS[name](photos, seed, coarseness)
    return mesh, albedo, pinhole_views(poses, *size, field_of_view)


def make_large_scene(
    name: str,
    photos: int,
    size: tuple[int, int] = (640, 480),
    seed: int = 0,
    coarseness: float = 1.0,
    samples: int = 2,
    rays: int = 2,
) -> SyntheticScene:
    """Render a scene of so many photos, with its exact cameras, depth and surface.

    Args:
        name: one of ``LARGE_SCENES``.
        size: (width, height) of the photos.
        coarseness: factor on the distance between the surface's vertices.
        samples: of the sky's light a vertex; few are fast.
        rays: per pixel and axis; one is fast, and leaves jagged edges.

    Raises:
        UsageError: no such scene, or too few photos for it.
    """
    mesh, albedo, views = large_scene_parts(name, photos, size, seed, coarseness)
    light, sensor = Lighting(samples=samples), Sensor(exposure_spread=0.05)
    sky = (0.35, 0.45, 0.6)
    return render_scene(name, mesh, albedo, views, light, sensor, rays, seed=seed, background=sky)


def _register(name: str, photos: int) -> None:
    @preset(name)
    def make(size: tuple[int, int] | None, seed: int, coarseness: float) -> SyntheticScene:
        return make_large_scene(name, photos, size or (640, 480), seed, coarseness)


_register("street", 60)
_register("block", 60)
_register("heights", 45)
