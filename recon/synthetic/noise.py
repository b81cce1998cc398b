"""Band-limited procedural noise: the same texture from any distance, never finer than the samples can hold."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from recon.core.kernels import kernel, maximum, minimum, part_of_kernel

# Ratio between octaves; not exactly 2, so that their lattices never line up.
_LACUNARITY = 1.93


@part_of_kernel()
def _lattice(ix, iy, iz, seed):  # type: ignore[no-untyped-def]
    """A reproducible number in -1…1 for a lattice point (integer hash with the mixing steps of xxHash), all uint32."""
    h = np.uint32(
        ix * np.uint32(374761393)
        + iy * np.uint32(668265263)
        + iz * np.uint32(2246822519)
        + seed * np.uint32(3266489917)
    )
    h = np.uint32((h ^ (h >> np.uint32(15))) * np.uint32(2246822519))
    h = np.uint32((h ^ (h >> np.uint32(13))) * np.uint32(3266489917))
    h = np.uint32(h ^ (h >> np.uint32(16)))
    return h * (2.0 / 4294967295.0) - 1.0


@kernel(error_model="numpy", fastmath={"nnan", "ninf", "nsz"})
def _add_octave(points, footprint, wavelength, shift, seed, amplitude, total):  # type: ignore[no-untyped-def]
    """Adds one octave of noise, faded out between four and two samples per wavelength (Nyquist)."""
    f = 1.0 / wavelength
    one = np.uint32(1)
    for i in range(len(total)):
        fade = minimum(maximum(wavelength / footprint[i] * 0.5 - 1.0, 0.0), 1.0)
        # Turned about a skew axis, or the lattice would show on axis-parallel walls.
        px, py, pz = points[i, 0], points[i, 1], points[i, 2]
        x = (0.8165 * px - 0.4082 * py + 0.4082 * pz) * f + shift[0]
        y = (0.7071 * py + 0.7071 * pz) * f + shift[1]
        z = (-0.5774 * px - 0.5774 * py + 0.5774 * pz) * f + shift[2]
        fx, fy, fz = np.floor(x), np.floor(y), np.floor(z)
        ix, iy, iz = np.uint32(np.int32(fx)), np.uint32(np.int32(fy)), np.uint32(np.int32(fz))
        tx, ty, tz = x - fx, y - fy, z - fz
        tx = tx * tx * tx * (tx * (tx * 6.0 - 15.0) + 10.0)
        ty = ty * ty * ty * (ty * (ty * 6.0 - 15.0) + 10.0)
        tz = tz * tz * tz * (tz * (tz * 6.0 - 15.0) + 10.0)
        jx, jy, jz = np.uint32(ix + one), np.uint32(iy + one), np.uint32(iz + one)
        c00 = _lattice(ix, iy, iz, seed) * (1 - tx) + _lattice(jx, iy, iz, seed) * tx
        c10 = _lattice(ix, jy, iz, seed) * (1 - tx) + _lattice(jx, jy, iz, seed) * tx
        c01 = _lattice(ix, iy, jz, seed) * (1 - tx) + _lattice(jx, iy, jz, seed) * tx
        c11 = _lattice(ix, jy, jz, seed) * (1 - tx) + _lattice(jx, jy, jz, seed) * tx
        value = (c00 * (1 - ty) + c10 * ty) * (1 - tz) + (c01 * (1 - ty) + c11 * ty) * tz
        total[i] += fade * value * amplitude


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
    places, wavelength = np.ascontiguousarray(points, np.float32), float(longest)
    spacing = np.ascontiguousarray(spacing)
    total = np.zeros(len(places))
    for k in range(octaves):
        shift = (17.3 * k, 5.9 * k, 29.1 * k)
        amplitude = (wavelength / longest) ** roughness
        _add_octave(places, spacing, wavelength, shift, np.uint32(seed * 101 + k), amplitude, total)
        wavelength /= _LACUNARITY
    return total.astype(np.float32)
