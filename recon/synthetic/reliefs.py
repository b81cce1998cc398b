"""Reliefs of walls as functions height(x, z): a façade and a rock face."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recon.synthetic.noise import fractal_noise


def facade_height(seed: int = 0) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Make the relief of a façade, 6 wide and 4.5 high round (0, 2.25): plinth, four columns, cornice,
    niches with
    round arches, projecting quoins, a shell over the middle, and rough stone.

    Returns:
        height(x, z) in world units (metres, if one likes), 0 to about 0.6.
    """

    def step(distance: np.ndarray, width: float = 0.015) -> np.ndarray:
        """1 inside (negative distance), 0 outside, with a bevel of this width."""
        return np.clip(0.5 - distance / width, 0, 1)

    def box(x: np.ndarray, z: np.ndarray, x0: float, x1: float, z0: float, z1: float) -> np.ndarray:
        return np.maximum(
            np.abs(x - (x0 + x1) / 2) - (x1 - x0) / 2, np.abs(z - (z0 + z1) / 2) - (z1 - z0) / 2
        )

    def height(x: np.ndarray, z: np.ndarray) -> np.ndarray:
        points = np.stack([x, np.zeros_like(x), z], axis=-1).reshape(-1, 3).astype(np.float32)
        rough = fractal_noise(points, 0.02, 0.5, 6, 1.0, seed + 7).reshape(x.shape)
        h = 0.02 * rough
        # Courses of stone on the wall: joints 1.2 cm deep.
        course = np.floor(z / 0.3)
        along = x + 0.35 * (course % 2)
        joint = np.minimum(
            np.abs(z / 0.3 - np.round(z / 0.3)) * 0.3, np.abs(along / 0.7 - np.round(along / 0.7)) * 0.7
        )
        h = h - 0.012 * np.clip(1 - joint / 0.012, 0, 1)
        # Niches with round arches between the columns.
        for center in (-2.0, 0.0, 2.0):
            arch = np.where(z < 2.2, np.abs(x - center) - 0.5, np.hypot(x - center, z - 2.2) - 0.5)
            arch = np.maximum(arch, 0.9 - z)
            frame = np.abs(arch - 0.06) - 0.06
            h = np.where(step(frame) > 0, np.maximum(h, 0.06 * step(frame)), h)
            h = np.where(arch < 0.0, np.minimum(h, -0.25 * step(arch, 0.03) + 0.01 * rough), h)
            # Something stands in each niche: a ball on a pedestal, a vase, a ball.
            ball = 0.3**2 - (x - center) ** 2 - (z - 1.75) ** 2
            h = np.maximum(h, np.where(ball > 0, -0.2 + 0.9 * np.sqrt(np.maximum(ball, 0)), -1))
            h = np.maximum(h, np.where(box(x, z, center - 0.3, center + 0.3, 0.9, 1.45) < 0, 0.05, -1))
        # Half columns with a swelling, bases and capitals.
        for center in (-3.0, -1.0, 1.0, 3.0):
            radius = 0.2 - 0.03 * (z - 0.6) / 2.7
            inside = radius**2 - (x - center) ** 2
            flute = 0.012 * np.cos(np.arcsin(np.clip((x - center) / radius, -1, 1)) * 14)
            shaft = np.where(
                (inside > 0) & (z > 0.6) & (z < 3.3), np.sqrt(np.maximum(inside, 0)) + 0.1 + flute, -1
            )
            h = np.maximum(h, shaft)
            for z0, z1, half, depth in ((0.5, 0.75, 0.27, 0.38), (3.2, 3.45, 0.28, 0.4)):
                h = np.where(box(x, z, center - half, center + half, z0, z1) < 0, np.maximum(h, depth), h)
        # Plinth and cornice with mouldings and dentils (repeated structure).
        h = np.where(z < 0.5, np.maximum(h, 0.45 + 0.012 * rough), h)
        h = np.where((z > 3.45) & (z < 3.6), np.maximum(h, 0.42), h)
        dentil = (z > 3.6) & (z < 3.75) & (np.mod(x, 0.24) < 0.13)
        h = np.where(dentil, np.maximum(h, 0.48), np.where((z > 3.6) & (z < 3.75), np.maximum(h, 0.36), h))
        h = np.where((z > 3.75) & (z < 3.95), np.maximum(h, 0.55 + 0.008 * rough), h)
        # The shell over the middle: a dome with ribs.
        r2 = x**2 + (z - 2.95) ** 2
        rib = 0.02 * np.cos(np.arctan2(z - 2.95, x) * 16)
        h = np.maximum(h, np.where(r2 < 0.2**2, 0.12 + rib + np.sqrt(np.maximum(0.24**2 - r2, 0)), -1))
        return h

    return height


def rock_height(seed: int = 0) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Make the relief of a rock face, as large as the façade: ledges, ridges and boulders at all scales.

    Returns:
        height(x, z) in world units, about 0 to 0.9.
    """

    def height(x: np.ndarray, z: np.ndarray) -> np.ndarray:
        points = np.stack([x, np.zeros_like(x), z], axis=-1).reshape(-1, 3).astype(np.float32)
        # Ridges: one minus the absolute value of noise has creases where the noise changes its sign.
        broad = fractal_noise(points, 0.05, 2.2, 4, 1.0, seed + 21).reshape(x.shape)
        crease = 1 - np.abs(fractal_noise(points, 0.03, 0.9, 4, 0.9, seed + 22)).reshape(x.shape)
        fine = fractal_noise(points, 0.015, 0.25, 5, 0.9, seed + 23).reshape(x.shape)
        ledge = z / 0.55 + 0.5 * broad
        part = ledge - np.floor(ledge)
        terrace = np.floor(ledge) + np.clip((part - 0.75) / 0.25, 0, 1)
        return np.asarray(
            0.4 + 0.3 * broad + 0.16 * (crease - 0.7) + 0.03 * fine + 0.5 * (ledge - terrace - 0.4) * 0.35
        )

    return height
