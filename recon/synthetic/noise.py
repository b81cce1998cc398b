"""Band-limited procedural noise: the same texture from any distance, never finer than the samples can hold."""

from __future__ import annotations

import math

import numba
import numpy as np
from jaxtyping import Float32

# Ratio between octaves; not exactly 2, so that their lattices never line up.
_LACUNARITY = 1.93


@numba.njit(cache=True, nogil=True, inline="always")
def _lattice(ix: int, iy: int, iz: int, seed: int) -> float:
    """A reproducible number in -1…1 for a lattice point (integer hash with the mixing steps of xxHash)."""
    h = (ix * 374761393 + iy * 668265263 + iz * 2246822519 + seed * 3266489917) & 0xFFFFFFFF
    h = ((h ^ (h >> 15)) * 2246822519) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 3266489917) & 0xFFFFFFFF
    h = h ^ (h >> 16)
    return h * (2.0 / 4294967295.0) - 1.0


@numba.njit(cache=True, nogil=True)
def _fractal(
    points: np.ndarray, footprint: np.ndarray, longest: float, octaves: int, roughness: float, seed: int
) -> np.ndarray:
    out = np.empty(len(points), np.float32)
    for i in range(len(points)):
        total = 0.0
        wavelength = longest
        for k in range(octaves):
            # An octave fades out between four and two samples per wavelength (Nyquist).
            fade = min(max(wavelength / footprint[i] * 0.5 - 1.0, 0.0), 1.0)
            if fade <= 0.0:
                break
            # Turned about a skew axis, or the lattice would show on axis-parallel walls.
            px, py, pz = points[i, 0], points[i, 1], points[i, 2]
            f = 1.0 / wavelength
            x = (0.8165 * px - 0.4082 * py + 0.4082 * pz) * f + 17.3 * k
            y = (0.7071 * py + 0.7071 * pz) * f + 5.9 * k
            z = (-0.5774 * px - 0.5774 * py + 0.5774 * pz) * f + 29.1 * k
            fx, fy, fz = math.floor(x), math.floor(y), math.floor(z)
            ix, iy, iz = int(fx), int(fy), int(fz)
            tx, ty, tz = x - fx, y - fy, z - fz
            tx = tx * tx * tx * (tx * (tx * 6.0 - 15.0) + 10.0)
            ty = ty * ty * ty * (ty * (ty * 6.0 - 15.0) + 10.0)
            tz = tz * tz * tz * (tz * (tz * 6.0 - 15.0) + 10.0)
            s = seed * 101 + k
            c00 = _lattice(ix, iy, iz, s) * (1 - tx) + _lattice(ix + 1, iy, iz, s) * tx
            c10 = _lattice(ix, iy + 1, iz, s) * (1 - tx) + _lattice(ix + 1, iy + 1, iz, s) * tx
            c01 = _lattice(ix, iy, iz + 1, s) * (1 - tx) + _lattice(ix + 1, iy, iz + 1, s) * tx
            c11 = _lattice(ix, iy + 1, iz + 1, s) * (1 - tx) + _lattice(ix + 1, iy + 1, iz + 1, s) * tx
            value = (c00 * (1 - ty) + c10 * ty) * (1 - tz) + (c01 * (1 - ty) + c11 * ty) * tz
            total += fade * value * (wavelength / longest) ** roughness
            wavelength /= _LACUNARITY
        out[i] = total
    return out


def fractal_noise(
    points: Float32[np.ndarray, "n 3"],
    footprint: Float32[np.ndarray, " n"] | float,
    longest: float = 1.0,
    octaves: int = 8,
    roughness: float = 0.3,
    seed: int = 0,
) -> Float32[np.ndarray, " n"]:
    """Compute multi-octave value noise at points of space.

    Args:
        points: (n, 3) float32.
        footprint: distance between neighbouring samples, per point or for all; wavelengths below twice this
            are left out, so that sampling does not alias.
        longest: wavelength of the first octave in world units.
        octaves: number of octaves, each 1.93 times finer than the one before.
        roughness: an octave's amplitude is (wavelength / longest) ** roughness; 0 gives all the same weight.
        seed: which noise.

    Returns:
        (n,) float32, mean about 0; each octave is within its amplitude.
    """
    spacing = np.broadcast_to(np.asarray(footprint, np.float32), (len(points),))
    return _fractal(
        np.ascontiguousarray(points, np.float32),
        np.ascontiguousarray(spacing),
        longest,
        octaves,
        roughness,
        seed,
    )
