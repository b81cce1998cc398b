"""Rendered scenes that no rule or weight was set on: courtyards of other sizes, and an object on a table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from recon.core.mesh import Mesh
from recon.synthetic.materials import Albedo
from recon.synthetic.noise import fractal_noise
from recon.synthetic.paths import look_at
from recon.synthetic.repeated import Maker, Part, floor, joined, thing, wall
from recon.synthetic.shapes import superellipsoid_mesh

Made = tuple[Mesh, Albedo, list[Float64[np.ndarray, "3 4"]], float]


@dataclass(frozen=True)
class Courtyard:
    """A courtyard seen from inside, all lengths in metres.

    Attributes:
        photos: number of them.
        period, storey: width and height of a bay with its window; the walls are two storeys high.
        half: half the side.
        inward: distance of the cameras from the middle, as a share of ``half``.
    """

    photos: int
    period: float
    half: float
    storey: float
    inward: float

    def __call__(self, own: float, seed: int, coarseness: float) -> Made:
        """Surface, paint, poses and field of view."""
        half, tall, step = self.half, 2 * self.storey, 0.04 * coarseness
        at = [(-half, -half), (-half, half), (half, half), (half, -half)]
        parts = [
            wall(at[i], at[(i + 1) % 4], tall, self.period, self.storey, seed, own, step) for i in range(4)
        ]
        parts.append(floor((-half, -half), (half, half), 0.0, 0.5, seed, own))
        rng = np.random.default_rng((seed, 5))
        for index in range(4):
            angle = 2 * np.pi * (index + rng.uniform(-0.3, 0.3)) / 4
            size = rng.uniform([0.25, 0.25, 0.2], [0.6, 0.6, 0.6])
            middle = (half - 1) * np.array([np.cos(angle), np.sin(angle)])
            parts.append(thing((*middle, size[2]), size, seed + 20 + index))
        mesh, albedo = joined(parts, seed)
        poses = []
        for i in range(self.photos):
            angle = 2 * np.pi * i / self.photos + rng.normal(0, 0.04)
            outward = np.array([np.cos(angle), np.sin(angle), 0.0])
            eye = -self.inward * half * outward + [0, 0, 1.6] + rng.normal(0, 0.15, 3)
            poses.append(look_at(eye, half * outward + [0, 0, 0.42 * tall] + rng.normal(0, 0.3, 3)))
        return mesh, albedo, poses, 66.0


BLOCKS = (
    ((0, 0, 0.28), (0.32, 0.26, 0.28), 0.6),
    ((0.05, 0.03, 0.68), (0.2, 0.2, 0.16), 0.9),
    ((-0.34, 0.1, 0.2), (0.1, 0.12, 0.2), 0.4),
    ((0.3, -0.22, 0.12), (0.14, 0.1, 0.12), 0.5),
)
"""Middle, half axes and roundness of what stands on the table."""


def table_top(own: float, seed: int, coarseness: float) -> Made:  # noqa: ARG001
    """Weakly textured things on a wooden table, 12 photos 30 degrees apart."""
    rng = np.random.default_rng((seed, 3))
    parts = []
    for index, (middle, size, power) in enumerate(BLOCKS):
        tone = rng.uniform(0.25, 0.7, 3).astype(np.float32)

        def paint(
            local: Float32[np.ndarray, "n 3"],
            foot: Float32[np.ndarray, " n"],
            tone: np.ndarray = tone,
            grain: int = seed + index,
        ) -> Float32[np.ndarray, "n 3"]:
            shade = np.clip(1 + 0.22 * fractal_noise(local, foot, 0.2, 6, 0.35, grain), 0.2, 1.8)
            return (tone * shade[:, None]).astype(np.float32)

        mesh = superellipsoid_mesh(middle, size, power, round(120 / coarseness), round(180 / coarseness))
        parts.append(Part(mesh, lambda xyz: xyz, paint, 0.15))

    def wood(
        local: Float32[np.ndarray, "n 3"], foot: Float32[np.ndarray, " n"]
    ) -> Float32[np.ndarray, "n 3"]:
        grain = fractal_noise((local * [1, 0.12, 1]).astype(np.float32), foot, 0.08, 6, 0.4, seed + 9)
        return (np.array([0.5, 0.36, 0.22]) * np.clip(1 + 0.15 * grain, 0.3, 1.7)[:, None]).astype(np.float32)

    plank = floor((-1.1, -1.1), (1.1, 1.1), 0.0, 5.0, seed, 0.15).mesh
    parts.append(Part(plank, lambda xyz: xyz, wood, 0.1))
    mesh, albedo = joined(parts, seed)
    poses = []
    for i in range(12):
        turn = 2 * np.pi * i / 12 + rng.normal(0, 0.03)
        eye = [2.3 * np.cos(turn), 2.3 * np.sin(turn), 1.25 + rng.normal(0, 0.05)]
        poses.append(look_at(eye, np.array([0, 0, 0.3]) + rng.normal(0, 0.02, 3)))
    return mesh, albedo, poses, 40.0


HELD_OUT: dict[str, tuple[Maker, int, float]] = {
    "courtyard-19": (Courtyard(19, 1.5, 6.0, 3.0, 0.43), 11, 0.4),
    "courtyard-16": (Courtyard(16, 3.0, 7.5, 3.6, 0.5), 12, 0.25),
    "courtyard-24": (Courtyard(24, 1.2, 6.0, 2.8, 0.3), 13, 0.15),
    "courtyard-wide": (Courtyard(20, 2.0, 11.0, 3.2, 0.7), 14, 0.3),
    "table-top": (table_top, 21, 0.4),
}
"""By name: what makes it, its seed, and the weight of detail that does not repeat."""
