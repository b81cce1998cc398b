"""Reflectances of surface points: stone, rock, gravel, textures of files, and ways to make them harder to match."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Int32

from recon.core.mesh import Mesh
from recon.core.raycasting import interpolate, vertex_normals
from recon.core.sampling import bilinear
from recon.synthetic.noise import fractal_noise


@dataclass(frozen=True)
class SurfaceSamples:
    """Points on a mesh for which colours are wanted.

    Attributes:
        position: (n, 3) float32 in the world.
        normal: (n, 3) float32 unit normals.
        face: (n,) int32.
        weights: (n, 3) float32 barycentric coordinates.
        footprint: (n,) float32 distance between neighbouring samples on the surface (the finest wavelength
            that makes sense is twice this).
    """

    position: Float32[np.ndarray, "n 3"]
    normal: Float32[np.ndarray, "n 3"]
    face: Int32[np.ndarray, " n"]
    weights: Float32[np.ndarray, "n 3"]
    footprint: Float32[np.ndarray, " n"]


Albedo = Callable[[SurfaceSamples], Float32[np.ndarray, "n 3"]]
"""Linear diffuse reflectance (0…1, RGB) of surface points."""


def facade_albedo(seed: int = 0) -> Albedo:
    """Make the reflectance that goes with ``facade_height``: courses of stone with their own tints and
    grain at all
    scales, smooth plaster in the niches (little texture), marble columns, stains that run down."""

    def albedo(samples: SurfaceSamples) -> Float32[np.ndarray, "n 3"]:
        p, foot = samples.position, samples.footprint
        x, depth, z = p[:, 0], p[:, 1], p[:, 2]
        grain = fractal_noise(p, foot, 0.8, 9, 0.12, seed)
        tint = fractal_noise(p, foot, 0.9, 5, 0.5, seed + 1)
        stretched = (p * np.array([1.0, 1.0, 0.25], np.float32)).astype(np.float32)
        stain = fractal_noise(stretched, foot, 0.35, 5, 0.4, seed + 2)
        course = np.floor(z / 0.3)
        stone = np.floor((x + 0.35 * (course % 2)) / 0.7 + 0.5)
        own = np.sin(course * 12.9898 + stone * 78.233 + seed) * 43758.5453
        own = (own - np.floor(own)).astype(np.float32)
        wall = (depth > -0.1) & (depth < 0.08)
        niche = depth >= 0.08
        marble = (depth <= -0.1) & (z > 0.5) & (z < 3.45)
        veins = np.abs(np.sin(9 * (x + 0.4 * z) + 2.2 * tint)) ** 12
        base = np.empty((len(p), 3), np.float32)
        base[:] = (0.44, 0.38, 0.30)
        base[wall] *= (0.72 + 0.5 * own[wall])[:, None]
        base[wall, 2] *= 0.85 + 0.3 * own[wall]
        base[niche] = (0.50, 0.44, 0.36)
        base[marble] = (0.52, 0.50, 0.47)
        base[z <= 0.5] = (0.33, 0.32, 0.32)
        contrast = np.where(niche, 0.06, np.where(marble, 0.17, 0.24)).astype(np.float32)
        shade = 1 + contrast * grain - np.where(niche, 0.0, 0.22).astype(np.float32) * np.clip(stain, 0, 1)
        shade -= np.where(marble, 0.28 * veins, 0).astype(np.float32)
        color = base * np.clip(shade, 0.12, 1.9)[:, None]
        color[:, 0] *= 1 + 0.10 * tint
        color[:, 2] *= 1 - 0.12 * tint
        return np.clip(color, 0.02, 0.95).astype(np.float32)

    return albedo


def rock_albedo(seed: int = 0) -> Albedo:
    """Make the reflectance that goes with ``rock_height``: strata, lichen and grain at all scales."""

    def albedo(samples: SurfaceSamples) -> Float32[np.ndarray, "n 3"]:
        p, foot = samples.position, samples.footprint
        grain = fractal_noise(p, foot, 0.6, 9, 0.15, seed + 31)
        bend = fractal_noise(p, foot, 1.5, 4, 0.6, seed + 32)
        lichen = np.clip(4 * fractal_noise(p, foot, 0.22, 5, 0.4, seed + 33) - 1.2, 0, 1)[:, None]
        strata = np.sin(17 * (p[:, 2] + 0.25 * bend) + 3 * bend)
        color = np.array([0.40, 0.34, 0.27], np.float32) * (1 + 0.18 * strata)[:, None]
        color[:, 2] *= 1 - 0.15 * bend
        color = (1 - lichen) * color + lichen * np.array([0.50, 0.52, 0.36], np.float32)
        color *= np.clip(1 + 0.30 * grain, 0.15, 1.9)[:, None]
        return np.clip(color, 0.02, 0.95).astype(np.float32)

    return albedo


def solid_albedo(seed: int = 0) -> Albedo:
    """Make a solid texture for ``object_mesh``: gravel on the ground, granite pedestal, painted and worn
    knot."""

    def albedo(samples: SurfaceSamples) -> Float32[np.ndarray, "n 3"]:
        p, foot = samples.position, samples.footprint
        grain = fractal_noise(p, foot, 0.25, 8, 0.15, seed)
        tint = fractal_noise(p, foot, 0.5, 5, 0.4, seed + 1)
        patch = fractal_noise(p, foot, 0.18, 4, 0.6, seed + 2)
        color = np.empty((len(p), 3), np.float32)
        color[:] = (0.34, 0.31, 0.27)
        high = p[:, 2] > 0.335
        pedestal = ~high & (np.maximum(np.abs(p[:, 0]), np.abs(p[:, 1])) < 0.73) & (p[:, 2] > 0.05)
        color[pedestal] = (0.46, 0.45, 0.44)
        blend = np.clip(0.5 + 3.5 * patch[high], 0, 1)[:, None]
        color[high] = blend * np.array([0.62, 0.30, 0.16]) + (1 - blend) * np.array([0.22, 0.42, 0.46])
        color *= np.clip(1 + 0.28 * grain, 0.15, 1.9)[:, None]
        color[:, 0] *= 1 + 0.15 * tint
        color[:, 1] *= 1 - 0.08 * tint
        return np.clip(color, 0.02, 0.95).astype(np.float32)

    return albedo


def texture_albedo(mesh: Mesh) -> Albedo:
    """Make the reflectance of a textured mesh: trilinear look-up in a mip pyramid of the linearised texture.

    Raises:
        ValueError: the mesh has no texture.
    """
    if mesh.uv is None or mesh.texture is None:
        raise ValueError("the mesh has no texture")
    linear = (np.arange(256, dtype=np.float32) / 255) ** np.float32(2.2)
    uvs, level0 = mesh.uv, linear[mesh.texture]
    pyramid = [level0]
    while min(pyramid[-1].shape[:2]) >= 4:
        last = pyramid[-1]
        pyramid.append(
            cv2.resize(last, (last.shape[1] // 2, last.shape[0] // 2), interpolation=cv2.INTER_AREA)
        )
    # Texels per world unit, from the areas of each face in both spaces.
    a, b, c = (mesh.vertices[mesh.faces[:, i]].astype(np.float64) for i in range(3))
    world = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    size = np.array([level0.shape[1], level0.shape[0]], np.float64)
    e1, e2 = (uvs[:, 1] - uvs[:, 0]) * size, (uvs[:, 2] - uvs[:, 0]) * size
    texels = np.abs(e1[:, 0] * e2[:, 1] - e1[:, 1] * e2[:, 0])
    density = np.sqrt(texels / np.maximum(world, 1e-20)).astype(np.float32)

    def look_up(samples: SurfaceSamples) -> Float32[np.ndarray, "n 3"]:
        uv = (uvs[samples.face] * samples.weights[:, :, None]).sum(axis=1)
        level = np.clip(
            np.log2(np.maximum(density[samples.face] * samples.footprint, 1e-6)), 0, len(pyramid) - 1
        )
        lower = np.floor(level).astype(int)
        out = np.zeros((len(uv), 3), np.float32)
        for index in range(int(lower.min(initial=0)), min(int(lower.max(initial=0)) + 2, len(pyramid))):
            share = np.clip(1 - np.abs(level - index), 0, 1).astype(np.float32)
            used = share > 0
            th, tw = pyramid[index].shape[:2]
            x = (np.mod(uv[used, 0], 1.0) * tw - 0.5).astype(np.float32)
            y = ((1 - np.mod(uv[used, 1], 1.0)) * th - 0.5).astype(np.float32)
            colors = bilinear(pyramid[index], x, y, weights=np.float64)
            out[used] += share[used, None] * colors
        return out

    return look_up


def vertex_color_albedo(mesh: Mesh) -> Albedo:
    """Make the reflectance of a mesh with colours at its vertices, interpolated linearly; grey without."""
    colors = mesh.rgb if mesh.rgb is not None else np.full((len(mesh.vertices), 3), 150, np.uint8)
    linear = ((colors / 255.0) ** 2.2).astype(np.float32)

    def albedo(samples: SurfaceSamples) -> Float32[np.ndarray, "n 3"]:
        return interpolate(mesh, linear, samples.face, samples.weights)

    return albedo


def vertex_albedo(mesh: Mesh, albedo: Albedo, footprint: float) -> Float32[np.ndarray, "n 3"]:
    """Compute the reflectance at the vertices, as if sampled so far apart (world units)."""
    face = np.zeros(len(mesh.vertices), np.int32)
    weights = np.zeros((len(mesh.vertices), 3), np.float32)
    corners = mesh.faces.reshape(-1)
    # Each vertex is looked up on one of its faces, the last in the file.
    face[corners] = np.arange(len(corners)) // 3
    weights[np.arange(len(face)), (mesh.faces[face] == np.arange(len(face))[:, None]).argmax(axis=1)] = 1
    spacing = np.full(len(face), footprint, np.float32)
    return albedo(SurfaceSamples(mesh.vertices, vertex_normals(mesh), face, weights, spacing))


def plainer(albedo: Albedo, mean: Float32[np.ndarray, "3"], amount: float) -> Albedo:
    """Take contrast away: 0 leaves a reflectance as it is, 1 makes it ``mean`` everywhere.

    The contrast between any two points, as the logarithm of their ratio, is (1 - amount) of what it was.
    """

    def plain(samples: SurfaceSamples) -> Float32[np.ndarray, "n 3"]:
        return (albedo(samples) ** np.float32(1 - amount) * mean ** np.float32(amount)).astype(np.float32)

    return plain


def tiled(
    albedo: Albedo, mean: Float32[np.ndarray, "3"], amount: float, period: float = 0.3, seed: int = 0
) -> Albedo:
    """Lay identical tiles over a reflectance: 0 leaves it as it is, at 1 nothing but the tiles is seen.

    Args:
        albedo: the reflectance.
        mean: colour of the tiles.
        amount: 0…1, share of the tiles in the logarithm of the reflectance.
        period: side of a tile in world units. Tiles lie in the two axes along which the surface extends.
        seed: of the tiles' pattern.
    """

    def tiles(samples: SurfaceSamples) -> Float32[np.ndarray, "n 3"]:
        axis = np.abs(samples.normal).argmax(axis=1)
        rows = np.arange(len(axis))
        u = samples.position[rows, np.where(axis == 0, 1, 0)]
        v = samples.position[rows, np.where(axis == 2, 1, 2)]
        uv = np.stack([u, v], axis=1) / np.float32(period)
        inside = uv - np.floor(uv)
        local = np.column_stack([inside, np.zeros(len(u))]).astype(np.float32) * np.float32(period)
        grain = fractal_noise(local, samples.footprint, 0.45 * period, 6, 0.3, seed + 41)
        tint = fractal_noise(local, samples.footprint, 0.9 * period, 2, 0.3, seed + 42)
        # A joint as wide as one 25th of a tile, softened where a pixel is wider than that.
        edge = np.minimum(inside, 1 - inside).min(axis=1) * period
        soft = np.maximum(samples.footprint, 0.004)
        joint = np.clip(0.5 + (0.02 * period - edge) / soft, 0, 1)
        color = mean * np.clip(1 + 0.45 * grain - 0.55 * joint, 0.15, 2.0)[:, None]
        color[:, 0] *= 1 + 0.25 * tint
        color[:, 2] *= 1 - 0.25 * tint
        return np.clip(color, 0.02, 0.95).astype(np.float32)

    def mixed(samples: SurfaceSamples) -> Float32[np.ndarray, "n 3"]:
        share = np.float32(amount)
        return (albedo(samples) ** (1 - share) * tiles(samples) ** share).astype(np.float32)

    return mixed
