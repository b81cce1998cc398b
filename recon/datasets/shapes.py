"""Surfaces and reflectances that are made on the spot: reliefs, solids, and what they are painted with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float32

from recon.datasets.noise import fractal_noise
from recon.datasets.rendering import Albedo, MeshData, SurfaceSamples, interpolate, texture_albedo


def height_field_mesh(
    height: Callable[[Float32[np.ndarray, "..."], Float32[np.ndarray, "..."]], Float32[np.ndarray, "..."]],
    x_range: tuple[float, float],
    z_range: tuple[float, float],
    spacing: float,
) -> MeshData:
    """Make a wall in the x-z plane that stands out towards negative y by ``height(x, z)``.

    Args:
        height: relief in world units over arrays of x and z.
        x_range, z_range: extent.
        spacing: distance between vertices.
    """
    nx = round((x_range[1] - x_range[0]) / spacing) + 1
    nz = round((z_range[1] - z_range[0]) / spacing) + 1
    x, z = np.meshgrid(np.linspace(*x_range, nx), np.linspace(*z_range, nz))
    x, z = x.astype(np.float32), z.astype(np.float32)
    vertices = np.stack([x, -height(x, z).astype(np.float32), z], axis=-1).reshape(-1, 3)
    return MeshData(vertices, grid_faces(nz, nx))


def grid_faces(rows: int, columns: int, close_rows: bool = False, close_columns: bool = False) -> np.ndarray:
    """Make the triangles of a grid of vertices in row order; a closed direction joins its last line to the
    first.

    Returns:
        (m, 3) int32; with columns along x and rows along z the faces look along negative y.
    """
    r, c = np.meshgrid(
        np.arange(rows if close_rows else rows - 1),
        np.arange(columns if close_columns else columns - 1),
        indexing="ij",
    )
    r1, c1 = (r + 1) % rows, (c + 1) % columns
    a, b, d, e = (
        (i * columns + j).reshape(-1).astype(np.int32) for i, j in ((r, c), (r, c1), (r1, c), (r1, c1))
    )
    # The diagonal alternates, so that edges of the relief in both diagonal directions look the same.
    flip = ((r + c) % 2 == 1).reshape(-1)
    first = np.where(flip[:, None], np.stack([a, b, e], 1), np.stack([a, b, d], 1))
    second = np.where(flip[:, None], np.stack([a, e, d], 1), np.stack([b, e, d], 1))
    return np.concatenate([first, second]).astype(np.int32)


def join_meshes(meshes: Sequence[MeshData]) -> MeshData:
    """Join meshes without their textures; colours are kept only if all have them."""
    offsets = np.cumsum([0, *[len(mesh.vertices) for mesh in meshes[:-1]]])
    colors = [mesh.colors for mesh in meshes if mesh.colors is not None]
    return MeshData(
        np.concatenate([mesh.vertices for mesh in meshes]).astype(np.float32),
        np.concatenate([m.faces + offset for m, offset in zip(meshes, offsets, strict=True)]).astype(
            np.int32
        ),
        np.concatenate(colors) if len(colors) == len(meshes) else None,
    )


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


def knot_mesh(turns: int = 900, sides: int = 120, radius: float = 0.32, tube: float = 0.14) -> MeshData:
    """Make a closed trefoil tube whose section is a superellipse and whose surface is ridged.

    Args:
        turns, sides: vertices along the tube and round it.
        radius: size of the knot; it spans about ±1.5 radius horizontally.
        tube: mean radius of the tube.
    """
    t = np.linspace(0, 2 * np.pi, turns, endpoint=False)
    line = radius * np.stack(
        [np.sin(t) + 1.5 * np.sin(2 * t), np.cos(t) - 1.5 * np.cos(2 * t), -0.9 * np.sin(3 * t)], axis=1
    )
    tangent = np.roll(line, -1, axis=0) - np.roll(line, 1, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    up = np.array([0.0, 0.0, 1.0])
    side = np.cross(tangent, up)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    normal = np.cross(side, tangent)
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    c, s = np.cos(angle), np.sin(angle)
    section = (np.abs(c) ** 3 + np.abs(s) ** 3) ** (-1 / 3)
    ridges = 1 + 0.06 * np.cos(40 * t)[:, None] * np.cos(3 * angle)[None]
    around = tube * section[None] * ridges
    vertices = line[:, None] + around[..., None] * (
        c[None, :, None] * side[:, None] + s[None, :, None] * normal[:, None]
    )
    # The tube's grid runs the other way round: turned, so that its faces look outwards.
    faces = np.ascontiguousarray(grid_faces(turns, sides, True, True)[:, ::-1])
    return MeshData(vertices.reshape(-1, 3).astype(np.float32), faces)


def superellipsoid_mesh(
    center: Sequence[float],
    size: Sequence[float],
    exponent: float = 0.35,
    rows: int = 160,
    columns: int = 240,
) -> MeshData:
    """Make a closed superellipsoid (a box with round edges for small exponents).

    Args:
        center, size: its middle and its half extents.
        exponent: 1 is an ellipsoid, towards 0 a box.
        rows, columns: vertices from pole to pole and round.
    """
    latitude = np.linspace(-np.pi / 2 + 1e-3, np.pi / 2 - 1e-3, rows)[:, None]
    longitude = np.linspace(-np.pi, np.pi, columns, endpoint=False)[None]

    def power(v: np.ndarray) -> np.ndarray:
        return np.sign(v) * np.abs(v) ** exponent

    unit = np.stack(
        [
            power(np.cos(latitude)) * power(np.cos(longitude)),
            power(np.cos(latitude)) * power(np.sin(longitude)),
            np.broadcast_to(power(np.sin(latitude)), (rows, columns)),
        ],
        axis=-1,
    )
    vertices = (np.asarray(center) + unit * np.asarray(size)).reshape(-1, 3).astype(np.float32)
    return MeshData(vertices, grid_faces(rows, columns, close_columns=True))


def ground_mesh(half: float, spacing: float = 0.02, seed: int = 3) -> MeshData:
    """Make an uneven square of ground of this half side, z up, its mean height at 0."""
    ground = height_field_mesh(
        lambda x, z: (
            0.02
            * fractal_noise(
                np.stack([x, z, 0 * x], -1).reshape(-1, 3).astype(np.float32), spacing, 0.6, 5, 0.9, seed
            ).reshape(x.shape)
        ),
        (-half, half),
        (-half, half),
        spacing,
    )
    # Laid down: the wall's x-z plane becomes the ground's x-y plane, its relief points up.
    flat = np.stack([ground.vertices[:, 0], ground.vertices[:, 2], -ground.vertices[:, 1]], axis=1)
    return MeshData(np.ascontiguousarray(flat), ground.faces)


def object_mesh(coarseness: float = 1.0) -> MeshData:
    """Make the turn-table scene: a ridged knot on a pedestal on an uneven square of ground, z up, ground
    at 0. ``coarseness`` is a factor on the distance between vertices, for quick drafts."""
    ground = ground_mesh(1.9, 0.02 * coarseness)
    pedestal = superellipsoid_mesh((0, 0, 0.16), (0.72, 0.72, 0.17), 0.3)
    knot = knot_mesh(round(900 / coarseness), round(120 / coarseness))
    lift = 0.33 - float(knot.vertices[:, 2].min()) - 0.02
    knot = replace(knot, vertices=knot.vertices + np.array([0, 0, lift], np.float32))
    return join_meshes([ground, pedestal, knot])


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


def mesh_on_ground(mesh: MeshData, seed: int = 0) -> tuple[MeshData, Albedo]:
    """Set a mesh on an uneven square of gravel.

    Args:
        mesh: in the axes of its file, which may have y or z up: of the two, the direction in which the mesh
            is shorter becomes z, so that it rests on its broad side.
        seed: of the gravel.

    Returns:
        The joined mesh, z up, the object's longest side 1 and its lowest point at the ground; and the
        reflectance of both.
    """
    xyz = mesh.vertices.astype(np.float64)
    extent = np.ptp(xyz, axis=0)
    if extent[1] <= extent[2]:
        xyz = np.stack([xyz[:, 0], -xyz[:, 2], xyz[:, 1]], axis=1)
    low, high = xyz.min(axis=0), xyz.max(axis=0)
    xyz = (xyz - [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]]) / max((high - low).max(), 1e-12)
    own = replace(mesh, vertices=xyz.astype(np.float32))
    ground = ground_mesh(1.5, seed=seed + 3)
    joined = join_meshes([MeshData(own.vertices, own.faces), ground])
    paint = texture_albedo(own) if own.texture is not None else _vertex_albedo(own)
    gravel = solid_albedo(seed)
    objects = len(own.faces)

    def albedo(samples: SurfaceSamples) -> Float32[np.ndarray, "n 3"]:
        color = np.empty((len(samples.face), 3), np.float32)
        for inside, own_albedo in ((samples.face < objects, paint), (samples.face >= objects, gravel)):
            part = SurfaceSamples(
                samples.position[inside],
                samples.normal[inside],
                samples.face[inside],
                samples.weights[inside],
                samples.footprint[inside],
            )
            if len(part.face):
                color[inside] = own_albedo(part)
        # Paint darker or brighter than any real one would leave nothing for the light to do.
        return np.clip(color, 0.02, 0.9)

    return joined, albedo


def _vertex_albedo(mesh: MeshData) -> Albedo:
    colors = mesh.colors if mesh.colors is not None else np.full((len(mesh.vertices), 3), 150, np.uint8)
    linear = ((colors / 255.0) ** 2.2).astype(np.float32)

    def albedo(samples: SurfaceSamples) -> Float32[np.ndarray, "n 3"]:
        return interpolate(mesh, linear, samples.face, samples.weights)

    return albedo


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
