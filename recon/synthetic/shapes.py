"""Meshes that are made on the spot: height fields, tubes, superellipsoids, and what is put together of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float32

from recon.core.mesh import Mesh
from recon.synthetic.noise import fractal_noise


def height_field_mesh(
    height: Callable[[Float32[np.ndarray, "..."], Float32[np.ndarray, "..."]], Float32[np.ndarray, "..."]],
    x_range: tuple[float, float],
    z_range: tuple[float, float],
    spacing: float,
) -> Mesh:
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
    return Mesh(vertices, grid_faces(nz, nx))


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


def join_meshes(meshes: Sequence[Mesh]) -> Mesh:
    """Join meshes without their textures; colours are kept only if all have them."""
    offsets = np.cumsum([0, *[len(mesh.vertices) for mesh in meshes[:-1]]])
    colors = [mesh.rgb for mesh in meshes if mesh.rgb is not None]
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]).astype(np.float32),
        np.concatenate([m.faces + offset for m, offset in zip(meshes, offsets, strict=True)]).astype(
            np.int32
        ),
        np.concatenate(colors) if len(colors) == len(meshes) else None,
    )


def knot_mesh(turns: int = 900, sides: int = 120, radius: float = 0.32, tube: float = 0.14) -> Mesh:
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
    return Mesh(vertices.reshape(-1, 3).astype(np.float32), faces)


def superellipsoid_mesh(
    center: Sequence[float],
    size: Sequence[float],
    exponent: float = 0.35,
    rows: int = 160,
    columns: int = 240,
) -> Mesh:
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
    return Mesh(vertices, grid_faces(rows, columns, close_columns=True))


def ground_mesh(half: float, spacing: float = 0.02, seed: int = 3) -> Mesh:
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
    return Mesh(np.ascontiguousarray(flat), ground.faces)


def object_mesh(coarseness: float = 1.0) -> Mesh:
    """Make the turn-table scene: a ridged knot on a pedestal on an uneven square of ground, z up, ground
    at 0. ``coarseness`` is a factor on the distance between vertices, for quick drafts."""
    ground = ground_mesh(1.9, 0.02 * coarseness)
    pedestal = superellipsoid_mesh((0, 0, 0.16), (0.72, 0.72, 0.17), 0.3)
    knot = knot_mesh(round(900 / coarseness), round(120 / coarseness))
    lift = 0.33 - float(knot.vertices[:, 2].min()) - 0.02
    knot = replace(knot, vertices=knot.vertices + np.array([0, 0, lift], np.float32))
    return join_meshes([ground, pedestal, knot])
