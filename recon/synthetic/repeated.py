"""Scenes that fold: repeated façades, corridors, round objects with equal sides, twins, and pale smooth figures.

Each shows mostly elements that look alike and a share of detail that is its own, as real buildings do. Poses from
look-alike elements agree with each other, so a reconstruction can be small in reprojection error and wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32, Float64

from recon.core.mesh import Mesh
from recon.errors import UsageError
from recon.synthetic.materials import Albedo, SurfaceSamples
from recon.synthetic.noise import fractal_noise
from recon.synthetic.paths import look_at, pinhole_views
from recon.synthetic.presets import preset
from recon.synthetic.rendering import Lighting
from recon.synthetic.scene import SyntheticScene, render_scene
from recon.synthetic.sensor import Sensor
from recon.synthetic.shapes import height_field_mesh, join_meshes, superellipsoid_mesh

_WALL_SPACING = 0.04
"""Distance between the vertices of a wall in metres: window frames are 8 cm wide."""


@dataclass(frozen=True)
class Part:
    """A surface with its own coordinates, in which its repeated paint is laid out.

    Attributes:
        mesh: in the world.
        local: world points (n, 3) to paint coordinates (n, 3): those of equal elements are equal.
        paint: reflectance of what repeats, of (local points, footprint); the same for all parts that look alike.
        own: weight of the detail that this part alone has.
    """

    mesh: Mesh
    local: Callable[[Float32[np.ndarray, "n 3"]], Float32[np.ndarray, "n 3"]]
    paint: Callable[[Float32[np.ndarray, "n 3"], Float32[np.ndarray, " n"]], Float32[np.ndarray, "n 3"]]
    own: float


def joined(parts: Sequence[Part], seed: int) -> tuple[Mesh, Albedo]:
    """Join the parts, and paint each by its repeated elements and by detail that depends on the place in the world."""
    mesh = join_meshes([part.mesh for part in parts])
    last_face = np.cumsum([len(part.mesh.faces) for part in parts])

    def albedo(samples: SurfaceSamples) -> Float32[np.ndarray, "n 3"]:
        color = np.empty((len(samples.face), 3), np.float32)
        owner = np.searchsorted(last_face, samples.face, side="right")
        for index, part in enumerate(parts):
            inside = owner == index
            if not inside.any():
                continue
            xyz, foot = samples.position[inside], samples.footprint[inside]
            shade = part.paint(part.local(xyz), foot)
            stain = fractal_noise(xyz, foot, 0.7, 7, 0.35, seed + 91)
            blot = np.clip(5 * fractal_noise(xyz, foot, 0.5, 4, 0.4, seed + 92) - 1.6, 0, 1)
            color[inside] = shade * np.clip(1 + part.own * (0.6 * stain - 0.5 * blot), 0.15, 1.8)[:, None]
        return np.clip(color, 0.02, 0.95).astype(np.float32)

    return mesh, albedo


# ---- elements --------------------------------------------------------------------------------------


def window_relief(period: float, storey: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Make the relief of a wall with a window in the middle of every bay (``period`` wide, ``storey`` high)."""

    def height(x: np.ndarray, z: np.ndarray) -> np.ndarray:
        u, v = _in_bay(x, period), _in_bay(z, storey)
        box = np.maximum(np.abs(u) - 0.24 * period, np.abs(v - 0.03 * storey) - 0.28 * storey)
        frame = np.abs(box) < 0.05
        sill = (np.abs(u) < 0.3 * period) & (np.abs(v + 0.29 * storey) < 0.06)
        cornice = np.abs(v - 0.46 * storey) < 0.07
        out = np.where(box < -0.05, -0.16, 0.0)
        out = np.where(frame, 0.05, out)
        return np.where(sill | cornice, 0.12, out)

    return height


def _in_bay(x: np.ndarray, period: float) -> np.ndarray:
    """Coordinate within a bay, 0 in its middle."""
    return np.asarray((x / period - np.floor(x / period) - 0.5) * period)


def window_paint(
    period: float, storey: float, seed: int
) -> Callable[[Float32[np.ndarray, "n 3"], Float32[np.ndarray, " n"]], Float32[np.ndarray, "n 3"]]:
    """Make the paint that goes with ``window_relief``: the same plaster, frames, panes and curtains in every bay."""

    def paint(
        local: Float32[np.ndarray, "n 3"], foot: Float32[np.ndarray, " n"]
    ) -> Float32[np.ndarray, "n 3"]:
        u, v = _in_bay(local[:, 0], period), _in_bay(local[:, 1], storey)
        bay = np.column_stack([u, v, np.zeros(len(u))]).astype(np.float32)
        grain = fractal_noise(bay, foot, 0.4, 8, 0.2, seed)
        curtain = fractal_noise((bay * [1, 0.2, 1]).astype(np.float32), foot, 0.25, 5, 0.4, seed + 1)
        box = np.maximum(np.abs(u) - 0.24 * period, np.abs(v - 0.03 * storey) - 0.28 * storey)
        bars = (np.abs(u) < 0.03) | (np.abs(np.abs(v - 0.03 * storey) - 0.1 * storey) < 0.025)
        color = np.empty((len(u), 3), np.float32)
        color[:] = (0.52, 0.44, 0.32)
        color[np.abs(v + 0.45 * storey) < 0.05 * storey] = (0.38, 0.34, 0.30)
        glass = box < -0.05
        color[glass] = (0.13, 0.15, 0.18)
        hung = glass & (curtain > 0.1)
        color[hung] = (0.45, 0.42, 0.40)
        color[(glass & bars) | (np.abs(box) < 0.06)] = (0.62, 0.60, 0.56)
        return (color * np.clip(1 + 0.3 * grain, 0.2, 1.8)[:, None]).astype(np.float32)

    return paint


def cobble_paint(
    tile: float, seed: int
) -> Callable[[Float32[np.ndarray, "n 3"], Float32[np.ndarray, " n"]], Float32[np.ndarray, "n 3"]]:
    """Make the paint of a pavement: the same slabs over and over."""

    def paint(
        local: Float32[np.ndarray, "n 3"], foot: Float32[np.ndarray, " n"]
    ) -> Float32[np.ndarray, "n 3"]:
        u, v = _in_bay(local[:, 0], tile), _in_bay(local[:, 1], tile)
        inside = np.column_stack([u, v, np.zeros(len(u))]).astype(np.float32)
        grain = fractal_noise(inside, foot, 0.2, 7, 0.2, seed + 3)
        edge = 0.5 * tile - np.maximum(np.abs(u), np.abs(v))
        joint = np.clip(0.5 + (0.015 - edge) / np.maximum(foot, 0.004), 0, 1)
        shade = np.clip((1 + 0.35 * grain) * (1 - 0.5 * joint), 0.1, 1.8)
        return np.asarray(np.array([0.42, 0.40, 0.37]) * shade[:, None], np.float32)

    return paint


def wall(
    start: Sequence[float],
    end: Sequence[float],
    height: float,
    period: float,
    storey: float,
    seed: int,
    own: float,
    spacing: float = _WALL_SPACING,
) -> Part:
    """Make a façade from ``start`` to ``end`` (x, y), seen from its right side when walking from start to end.

    Args:
        start, end: corners on the ground in metres.
        height: of the wall.
        period, storey: width and height of a bay; the length should hold a whole number of bays.
        seed: of the paint that all walls of one look share.
        own: weight of this wall's own detail.
        spacing: distance between vertices in metres.
    """
    a, b = np.asarray(start, np.float64), np.asarray(end, np.float64)
    length = float(np.linalg.norm(b - a))
    along = (b - a) / length
    # The relief stands out towards negative local y; this turns that side to the right of the walk.
    across = np.array([-along[1], along[0]])
    flat = height_field_mesh(window_relief(period, storey), (0.0, length), (0.0, height), spacing)
    x, y, z = flat.vertices.T
    xy = a + x[:, None] * along + y[:, None] * across
    mesh = Mesh(np.column_stack([xy, z]).astype(np.float32), flat.faces)

    def local(xyz: Float32[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n 3"]:
        offset = xyz[:, :2] - a
        return np.column_stack([offset @ along, xyz[:, 2], offset @ across]).astype(np.float32)

    return Part(mesh, local, window_paint(period, storey, seed), own)


def floor(low: Sequence[float], high: Sequence[float], z: float, tile: float, seed: int, own: float) -> Part:
    """Make a level pavement (or ceiling) of equal slabs over a rectangle."""
    flat = height_field_mesh(lambda x, _: 0 * x, (low[0], high[0]), (low[1], high[1]), 0.4)
    x, _, y = flat.vertices.T
    mesh = Mesh(np.column_stack([x, y, np.full(len(x), z)]).astype(np.float32), flat.faces)
    return Part(mesh, lambda xyz: xyz, cobble_paint(tile, seed), own)


def thing(center: Sequence[float], size: Sequence[float] | Float64[np.ndarray, "3"], seed: int) -> Part:
    """Make a rounded block, painted as no other: a bench, a planter, a crate."""
    rng = np.random.default_rng(seed)
    tone = rng.uniform(0.2, 0.6, 3).astype(np.float32)

    def paint(
        local: Float32[np.ndarray, "n 3"], foot: Float32[np.ndarray, " n"]
    ) -> Float32[np.ndarray, "n 3"]:
        grain = fractal_noise(local, foot, 0.3, 7, 0.3, seed)
        return (tone * np.clip(1 + 0.5 * grain, 0.2, 1.8)[:, None]).astype(np.float32)

    mesh = superellipsoid_mesh(center, [float(x) for x in size], 0.3, 40, 60)
    return Part(mesh, lambda xyz: xyz, paint, 0.2)


# ---- scenes ----------------------------------------------------------------------------------------


def _courtyard(
    own: float, seed: int, coarseness: float
) -> tuple[Mesh, Albedo, list[Float64[np.ndarray, "3 4"]], float]:
    step = _WALL_SPACING * coarseness
    half, tall = 6.0, 6.4
    corners = [(-half, -half), (-half, half), (half, half), (half, -half)]
    parts = [wall(corners[i], corners[(i + 1) % 4], tall, 2.0, 3.2, seed, own, step) for i in range(4)]
    parts.append(floor((-half, -half), (half, half), 0.0, 0.6, seed, own))
    rng = np.random.default_rng((seed, 5))
    for index in range(5):
        angle = 2 * np.pi * (index + rng.uniform(-0.3, 0.3)) / 5
        size = rng.uniform([0.25, 0.25, 0.2], [0.6, 0.6, 0.6])
        at = 5.0 * np.array([np.cos(angle), np.sin(angle)])
        parts.append(thing((*at, size[2]), size, seed + 20 + index))
    mesh, albedo = joined(parts, seed)
    poses, count = [], 20
    for i in range(count):
        angle = 2 * np.pi * i / count + rng.normal(0, 0.03)
        outward = np.array([np.cos(angle), np.sin(angle), 0.0])
        eye = -2.6 * outward + [0, 0, 1.6] + rng.normal(0, 0.12, 3)
        poses.append(look_at(eye, 6.0 * outward + [0, 0, 2.6] + rng.normal(0, 0.25, 3)))
    return mesh, albedo, poses, 66.0


def _corridor(
    own: float, seed: int, coarseness: float
) -> tuple[Mesh, Albedo, list[Float64[np.ndarray, "3 4"]], float]:
    step = _WALL_SPACING * coarseness
    length, half, tall = 20.0, 1.3, 3.0
    parts = [
        wall((-half, 0), (-half, length), tall, 2.0, tall, seed, own, step),
        wall((half, length), (half, 0), tall, 2.0, tall, seed, own, step),
        wall((-half, length), (half, length), tall, 1.3, tall, seed + 5, own, step),
        floor((-half, 0), (half, length), 0.0, 0.5, seed, own),
    ]
    mesh, albedo = joined(parts, seed)
    rng = np.random.default_rng((seed, 6))
    poses = []
    for i in range(18):
        eye = np.array([0.35 * (-1) ** i, 0.6 + 0.75 * i, 1.5]) + rng.normal(0, 0.05, 3)
        side = 0.5 * (-1) ** (i // 2)
        poses.append(look_at(eye, eye + np.array([side, 1.6, -0.1]) + rng.normal(0, 0.05, 3)))
    return mesh, albedo, poses, 66.0


def _threefold(
    own: float, seed: int, coarseness: float
) -> tuple[Mesh, Albedo, list[Float64[np.ndarray, "3 4"]], float]:
    body = superellipsoid_mesh(
        (0, 0, 0.9), (1.0, 1.0, 0.9), 0.7, round(160 / coarseness), round(360 / coarseness)
    )
    x, y, z = body.vertices.T
    angle = np.arctan2(y, x)
    lobe = 1 + 0.16 * np.cos(3 * angle) + 0.03 * np.cos(9 * angle + 6 * z)
    body = Mesh(np.column_stack([x * lobe, y * lobe, z]).astype(np.float32), body.faces)

    def local(xyz: Float32[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n 3"]:
        turn, radius = np.arctan2(xyz[:, 1], xyz[:, 0]), np.hypot(xyz[:, 0], xyz[:, 1])
        third = turn - 2 * np.pi / 3 * np.floor(turn / (2 * np.pi / 3))
        return np.column_stack([radius * np.cos(third), radius * np.sin(third), xyz[:, 2]]).astype(np.float32)

    def paint(at: Float32[np.ndarray, "n 3"], foot: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, "n 3"]:
        grain = fractal_noise(at, foot, 0.3, 8, 0.25, seed + 3)
        patch = np.clip(0.5 + 3 * fractal_noise(at, foot, 0.35, 4, 0.5, seed + 4), 0, 1)[:, None]
        color = patch * np.array([0.60, 0.32, 0.18]) + (1 - patch) * np.array([0.24, 0.40, 0.45])
        return (color * np.clip(1 + 0.45 * grain, 0.15, 1.8)[:, None]).astype(np.float32)

    ground = floor((-2.4, -2.4), (2.4, 2.4), 0.0, 0.3, seed, own)
    mesh, albedo = joined([Part(body, local, paint, own), ground], seed)
    rng = np.random.default_rng((seed, 7))
    poses, count = [], 20
    for i in range(count):
        turn = 2 * np.pi * i / count + rng.normal(0, 0.02)
        eye = np.array([3.6 * np.cos(turn), 3.6 * np.sin(turn), 1.7]) + rng.normal(0, 0.05, 3)
        poses.append(look_at(eye, np.array([0, 0, 0.75]) + rng.normal(0, 0.03, 3)))
    return mesh, albedo, poses, 46.0


def _twins(
    own: float, seed: int, coarseness: float
) -> tuple[Mesh, Albedo, list[Float64[np.ndarray, "3 4"]], float]:
    step = _WALL_SPACING * coarseness
    parts = [floor((-14, -9), (14, 6), 0.0, 0.6, seed, own)]
    for left in (-9.0, 3.0):
        right = left + 6.0
        parts += [
            wall((left, 0), (right, 0), 6.4, 2.0, 3.2, seed, own, step),
            wall((left, 4), (left, 0), 6.4, 2.0, 3.2, seed, own, step),
            wall((right, 0), (right, 4), 6.4, 2.0, 3.2, seed, own, step),
        ]
    rng = np.random.default_rng((seed, 8))
    for index in range(6):
        size = rng.uniform([0.3, 0.3, 0.2], [0.8, 0.8, 0.9])
        at = np.array([-10.0 + 4 * index + rng.uniform(-1, 1), rng.uniform(-3.0, -1.2)])
        parts.append(thing((*at, size[2]), size, seed + 40 + index))
    mesh, albedo = joined(parts, seed)
    poses, count = [], 20
    for i in range(count):
        x = -9.5 + 19.0 * i / (count - 1)
        eye = np.array([x, -7.0, 1.7]) + rng.normal(0, 0.1, 3)
        poses.append(look_at(eye, np.array([0.85 * x, 0, 2.6]) + rng.normal(0, 0.2, 3)))
    return mesh, albedo, poses, 62.0


def _figure(
    own: float, seed: int, coarseness: float
) -> tuple[Mesh, Albedo, list[Float64[np.ndarray, "3 4"]], float]:
    """A pale figure of 20 cm: body, head, shoulders, folds; no texture to speak of."""
    parts = []
    for index, (center, size, power) in enumerate(
        [
            ((0, 0, 0.35), (0.42, 0.34, 0.36), 0.75),
            ((0, 0, 0.85), (0.34, 0.27, 0.42), 0.9),
            ((0.03, -0.02, 1.42), (0.19, 0.21, 0.25), 1.0),
            ((-0.33, -0.08, 0.95), (0.12, 0.16, 0.36), 1.0),
            ((0.34, -0.14, 0.85), (0.11, 0.22, 0.24), 1.0),
            ((0.05, -0.21, 1.38), (0.05, 0.07, 0.08), 1.0),
        ]
    ):
        mesh = superellipsoid_mesh(center, size, power, round(140 / coarseness), round(220 / coarseness))
        fold = fractal_noise(
            mesh.vertices, np.full(len(mesh.vertices), 0.02, np.float32), 0.35, 3, 0.9, seed + index
        )
        middle = np.asarray(center, np.float32)
        swollen = middle + (mesh.vertices - middle) * (1 + 0.07 * fold)[:, None]
        parts.append(Mesh(swollen.astype(np.float32), mesh.faces))
    mesh = join_meshes(parts)

    def albedo(samples: SurfaceSamples) -> Float32[np.ndarray, "n 3"]:
        grain = fractal_noise(samples.position, samples.footprint, 0.15, 6, 0.2, seed + 31)
        return np.asarray(np.array([0.72, 0.71, 0.68]) * (1 + own * 0.2 * grain)[:, None], np.float32)

    rng = np.random.default_rng((seed, 9))
    poses, count = [], 16
    for i in range(count):
        turn = np.radians(22.5 * i) + rng.normal(0, 0.02)
        eye = np.array([3.4 * np.cos(turn), 3.4 * np.sin(turn), 1.3]) + rng.normal(0, 0.05, 3)
        poses.append(look_at(eye, np.array([0, 0, 0.8]) + rng.normal(0, 0.02, 3)))
    return mesh, albedo, poses, 36.0


# Weight of own detail, seed and coarseness to surface, paint, poses and horizontal field of view in degrees.
Maker: TypeAlias = Callable[[float, int, float], tuple[Mesh, Albedo, list[Float64[np.ndarray, "3 4"]], float]]

_MAKERS: Mapping[str, Maker] = {
    "courtyard": _courtyard,
    "corridor": _corridor,
    "threefold": _threefold,
    "twins": _twins,
    "figure": _figure,
}

REPEATED_SCENES: Mapping[str, str] = {
    "courtyard": "four façades with the same windows, seen from inside; 20 photos",
    "corridor": "a passage between two walls whose bays are alike; 18 photos",
    "threefold": "a round object whose three sides are alike, on a pavement; 20 photos",
    "twins": "two identical buildings side by side; 20 photos",
    "figure": "a pale smooth figure before black, 22.5 degrees apart; 16 photos",
}
"""What the scenes are, by name."""


def make_repeated_scene(
    name: str,
    *,
    size: tuple[int, int] = (512, 384),
    own: float = 0.4,
    seed: int = 0,
    coarseness: float = 1.0,
    maker: Maker | None = None,
) -> SyntheticScene:
    """Render one of ``REPEATED_SCENES`` with its exact cameras.

    Args:
        size: (width, height) of the photos in pixels.
        own: weight of the detail that no other element has; 0 has none at all, 1 is all stains.
        seed: of paint, cameras and noise.
        coarseness: factor on the distance between the surface's vertices; quick drafts.
        maker: what makes a scene of another name.

    Raises:
        UsageError: no such scene.
    """
    maker = maker or _MAKERS.get(name)
    if maker is None:
        raise UsageError(f"no repeated scene {name!r}; there are: {', '.join(_MAKERS)}")
    mesh, albedo, poses, field_of_view = maker(own, seed, coarseness)
    dark = name == "figure"
    return render_scene(
        name,
        mesh,
        albedo,
        pinhole_views(poses, *size, field_of_view),
        Lighting(samples=10, smoothing=4),
        Sensor(blur=0.6, exposure_spread=0.1, jpeg_quality=95),
        background=(0.0, 0.0, 0.0) if dark else (0.35, 0.45, 0.6),
        seed=seed,
    )


def _register(name: str) -> None:
    @preset(name)
    def make(size: tuple[int, int] | None, seed: int, coarseness: float) -> SyntheticScene:
        return make_repeated_scene(name, size=size or (640, 480), seed=seed, coarseness=coarseness)


for _name in _MAKERS:
    _register(_name)
