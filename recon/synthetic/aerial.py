"""A hamlet seen from a drone: gentle hills, a road, houses with gables and flat roofs, heaps of gravel and a pit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Float32, Float64

from recon.core.cameras import PinholeView
from recon.core.mesh import Mesh
from recon.synthetic.materials import Albedo, SurfaceSamples
from recon.synthetic.noise import fractal_noise
from recon.synthetic.paths import look_at, pinhole_views
from recon.synthetic.presets import preset
from recon.synthetic.rendering import Lighting
from recon.synthetic.scene import SyntheticScene, render_scene
from recon.synthetic.sensor import Sensor
from recon.synthetic.shapes import height_field_mesh

HALF_M = 36.0
"""Half the side of the square of land, metres."""

HOUSES = (
    # middle x, y; half length, half width; turn in degrees; height of the eaves and of the ridge above the ground
    (-12.0, 9.0, 6.0, 4.0, 12.0, 4.2, 7.0),
    (9.0, 13.0, 5.0, 3.6, -25.0, 3.2, 5.6),
    (13.0, -7.0, 6.5, 5.0, 5.0, 5.0, 5.0),
    (-8.0, -14.0, 4.0, 3.0, 40.0, 2.8, 4.6),
    (-21.0, -6.0, 3.0, 3.0, 0.0, 3.0, 3.0),
)

HEAPS = (
    (1.0, -1.0, 4.0, 2.2),
    (3.0, -16.0, 3.5, 2.0),
    (-20.0, 3.0, 3.0, 1.8),
    (-2.0, 19.0, 3.0, -1.5),
    (20.0, 3.5, 2.5, 1.3),
)
"""Middle x, y, radius of the foot and height (of a pit: depth below 0) of cones of gravel on level ground, metres."""


def ground_height(x: np.ndarray, y: np.ndarray) -> Float64[np.ndarray, "..."]:
    """Height of the land without what stands on it; level about the heaps."""
    hills = 0.9 * np.sin(0.11 * x + 0.4) * np.cos(0.09 * y) + 0.5 * np.sin(0.05 * y + 0.03 * x)
    for heap in HEAPS:
        away = np.hypot(x - heap[0], y - heap[1])
        hills = hills * np.clip((away - heap[2] - 1.5) / 4.0, 0.0, 1.0)
    return np.asarray(hills)


def _in_house(house: tuple[float, ...], x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    turn = np.radians(house[4])
    u = np.cos(turn) * (x - house[0]) + np.sin(turn) * (y - house[1])
    v = -np.sin(turn) * (x - house[0]) + np.cos(turn) * (y - house[1])
    return u, v


def aerial_height(x: np.ndarray, y: np.ndarray) -> Float64[np.ndarray, "..."]:
    """Height of the surface that is seen from above, metres."""
    z = ground_height(x, y)
    for heap in HEAPS:
        z = z + heap[3] * np.clip(1 - np.hypot(x - heap[0], y - heap[1]) / heap[2], 0.0, 1.0)
    for house in HOUSES:
        u, v = _in_house(house, x, y)
        base = float(ground_height(np.array(house[0]), np.array(house[1])))
        roof = base + house[5] + (house[6] - house[5]) * (1 - np.abs(v) / house[3])
        z = np.where((np.abs(u) <= house[2]) & (np.abs(v) <= house[3]), roof, z)
    return np.asarray(z)


def aerial_albedo(seed: int = 0) -> Albedo:
    """Grass, a road, gravel, tiled and flat roofs, plaster; grain at all scales."""

    def albedo(samples: SurfaceSamples) -> Float32[np.ndarray, "n 3"]:
        p, foot = samples.position, samples.footprint
        x, y = p[:, 0], p[:, 1]
        grain = fractal_noise(p, foot, 3.0, 9, 0.25, seed + 51)
        patch = fractal_noise(p, foot, 9.0, 4, 0.5, seed + 52)
        color = np.empty((len(p), 3), np.float32)
        color[:] = (0.22, 0.29, 0.13)
        color[patch > 0.15] = (0.33, 0.30, 0.18)
        road = np.abs(y - 2.2 - 3.0 * np.sin(0.08 * x) + 6.0) < 1.8
        color[road] = (0.30, 0.30, 0.31)
        for heap in HEAPS:
            color[np.hypot(x - heap[0], y - heap[1]) < heap[2] + 0.6] = (0.45, 0.42, 0.38)
        for number, house in enumerate(HOUSES):
            u, v = _in_house(house, x, y)
            near = (np.abs(u) <= house[2] + 0.12) & (np.abs(v) <= house[3] + 0.12)
            wall = near & (samples.normal[:, 2] < 0.5)
            tiles = 1 + 0.18 * np.sin(2 * np.pi * np.abs(v) / 0.55) * (foot < 0.2)
            roof = np.array(
                [(0.42, 0.20, 0.14), (0.36, 0.24, 0.2), (0.34, 0.35, 0.37)][number % 3], np.float32
            )
            color[near] = roof * tiles[near, None]
            color[wall] = (0.6, 0.57, 0.5)
        color *= np.clip(1 + 0.45 * grain, 0.2, 1.9)[:, None]
        return np.clip(color, 0.02, 0.95).astype(np.float32)

    return albedo


def aerial_mesh(coarseness: float = 1.0, height: Callable[..., np.ndarray] = aerial_height) -> Mesh:
    """The land as a mesh, z up; walls are as steep as the spacing of its vertices lets them be."""
    wall = height_field_mesh(height, (-HALF_M, HALF_M), (-HALF_M, HALF_M), 0.12 * coarseness)
    flat = np.stack([wall.vertices[:, 0], wall.vertices[:, 2], -wall.vertices[:, 1]], axis=1)
    return replace(wall, vertices=np.ascontiguousarray(flat))


def aerial_views(
    size: tuple[int, int] = (512, 384), seed: int = 0, altitude: float = 42.0
) -> tuple[PinholeView, ...]:
    """Sixteen photos straight down in four strips, and four oblique ones from the sides."""
    rng = np.random.default_rng(seed)
    poses = []
    for row, y in enumerate(np.linspace(-15, 15, 4)):
        for x in np.linspace(-16, 16, 4)[:: 1 if row % 2 == 0 else -1]:
            eye = np.array([x, y, altitude]) + rng.normal(0, 0.4, 3)
            aim = np.array([eye[0], eye[1], 0.0]) + np.array([*rng.normal(0, 0.8, 2), 0.0])
            poses.append(look_at(eye, aim, up=(0.0, 1.0, 0.0)))
    for x, y in ((0.0, -44.0), (44.0, 0.0), (0.0, 44.0), (-44.0, 0.0)):
        poses.append(look_at((x, y, 0.85 * altitude), (0.1 * x, 0.1 * y, 0.0)))
    return pinhole_views(poses, *size, 60)


@preset("aerial")
def _aerial(size: tuple[int, int] | None, seed: int, coarseness: float) -> SyntheticScene:
    """Sixteen photos straight down and four oblique ones of a hamlet."""
    views = aerial_views(size or (512, 384), seed)
    light = Lighting(sun=(0.35, -0.5, 0.9), samples=8)
    sensor = Sensor(exposure_spread=0.1)
    return render_scene(
        "aerial", aerial_mesh(coarseness), aerial_albedo(seed), views, light, sensor, seed=seed
    )
