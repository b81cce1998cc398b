"""Synthetic scenes with exact truth: meshes made on the spot, rendered by ray casting through a camera
model."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, UInt8

from recon.datasets.noise import fractal_noise
from recon.datasets.rendering import (
    Albedo,
    Lighting,
    MeshData,
    SurfaceSamples,
    bake_lighting,
    depth_and_normals,
    ray_scene,
    render_radiance,
    render_vertex_colors,
    vertex_normals,
)
from recon.errors import UsageError
from recon.photos.types import PinholeView

CONVENTION = (
    "Pinhole, no distortion. World-to-camera: x_cam = R @ X_world + t (R 3x3 row-major, det +1). Camera "
    "axes: +x right, +y down, +z forward. Pixel: u = fx*x/z + cx, v = fy*y/z + cy, with OpenCV pixel "
    "coordinates (integer = pixel CENTRE, top-left pixel centre is (0,0)). For COLMAP (top-left corner "
    "origin) add 0.5 to cx, cy. Camera centre C = -R^T t. Depth maps are z-depth along the optical axis in "
    "world units."
)


@dataclass(frozen=True)
class Sensor:
    """What a camera does to the light, in this order: lens blur, exposure, noise, gamma, 8 bits, JPEG.

    Attributes:
        blur: standard deviation of the lens blur in pixels.
        exposure_spread: each photo's exposure is drawn from 2 ** ±exposure_spread (in stops).
        full_well: electrons at white; shot noise is Poisson of the signal in electrons.
        read_noise: standard deviation in electrons.
        jpeg_quality: 0 leaves JPEG out.
    """

    blur: float = 0.6
    exposure_spread: float = 0.2
    full_well: float = 8000.0
    read_noise: float = 8.0
    jpeg_quality: int = 93


@dataclass(frozen=True)
class SyntheticScene:
    """Photos of a known surface from known cameras.

    Attributes:
        name: name of the scene.
        images: (h, w, 3) uint8 RGB per view.
        views: cameras; names are the photos' file names.
        depths: exact z-depth per view, (h, w) float32, 0 where the surface is not met.
        normals: exact unit normals in camera coordinates per view, (h, w, 3) float32.
        masks: (h, w) bool per view, True where the surface is met.
        mesh: the surface, with colours at its vertices (reflectance, gamma-coded).
    """

    name: str
    images: tuple[UInt8[np.ndarray, "h w 3"], ...]
    views: tuple[PinholeView, ...]
    depths: tuple[Float32[np.ndarray, "h w"], ...]
    normals: tuple[Float32[np.ndarray, "h w 3"], ...]
    masks: tuple[Bool[np.ndarray, "h w"], ...]
    mesh: MeshData


# ---- cameras -------------------------------------------------------------------------------------


def look_at(
    center: Sequence[float] | np.ndarray,
    target: Sequence[float] | np.ndarray,
    up: Sequence[float] = (0.0, 0.0, 1.0),
    roll: float = 0.0,
) -> Float64[np.ndarray, "3 4"]:
    """Compute ``cam_from_world`` of a camera at ``center`` that looks at ``target``.

    Args:
        center, target: world positions, not the same.
        up: the world direction that points up in the photo; not along the view.
        roll: further turn about the optical axis, radians.
    """
    c = np.asarray(center, np.float64)
    z = np.asarray(target, np.float64) - c
    z /= np.linalg.norm(z)
    x = np.cross(z, np.asarray(up, np.float64))
    x /= np.linalg.norm(x)
    R = np.stack([x, np.cross(z, x), z])
    turn = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    R = turn @ R
    return np.column_stack([R, -R @ c])


def pinhole_views(
    poses: Sequence[Float[np.ndarray, "3 4"]], width: int, height: int, field_of_view: float = 60.0
) -> tuple[PinholeView, ...]:
    """Make views of one camera with the principal point at the image's centre.

    Args:
        poses: ``cam_from_world`` of each view.
        width, height: image size in pixels.
        field_of_view: horizontal, in degrees.
    """
    f = 0.5 * width / np.tan(np.radians(field_of_view) / 2)
    K = np.array([[f, 0, (width - 1) / 2], [0, f, (height - 1) / 2], [0, 0, 1]], np.float64)
    return tuple(
        PinholeView(i, f"{i:04d}.png", K, np.asarray(pose, np.float64), width, height)
        for i, pose in enumerate(poses)
    )


def arc_path(
    count: int,
    target: Sequence[float],
    radius: float,
    degrees: float,
    height: float,
    seed: int = 0,
    jitter: float = 0.0,
) -> list[Float64[np.ndarray, "3 4"]]:
    """Make poses on an arc round a vertical axis through ``target``, in the half space of negative y.

    Args:
        count: number of poses.
        target: what all of them look at.
        radius: horizontal distance.
        degrees: angle from the first pose to the last, centred on -y; 360 makes a closed ring.
        height: height of the camera above the target.
        seed, jitter: each centre and viewing target is moved by a seeded normal offset of this deviation.
    """
    rng = np.random.default_rng(seed)
    closed = abs(degrees) >= 360
    angles = np.radians(np.linspace(-degrees / 2, degrees / 2, count, endpoint=not closed))
    t = np.asarray(target, np.float64)
    poses = []
    for angle in angles:
        center = t + np.array([radius * np.sin(angle), -radius * np.cos(angle), height])
        poses.append(look_at(center + rng.normal(0, 1, 3) * jitter, t + rng.normal(0, 1, 3) * jitter))
    return poses


def grid_path(
    columns: int,
    rows: int,
    center: Sequence[float],
    spacing: tuple[float, float],
    distance: float,
    toe_in: float = 0.5,
    seed: int = 0,
    jitter: float = 0.0,
) -> list[Float64[np.ndarray, "3 4"]]:
    """Make poses on a grid before a wall (in the plane y = centre y), ``distance`` away on the side of
    negative y.

    Args:
        columns, rows: number of poses each way.
        center: the point of the wall before the middle of the grid.
        spacing: distance between columns and between rows.
        distance: distance from the wall.
        toe_in: 0 looks straight at the wall, 1 looks at ``center`` from everywhere.
        seed, jitter: as in ``arc_path``.
    """
    rng = np.random.default_rng(seed)
    c = np.asarray(center, np.float64)
    poses = []
    for row in range(rows):
        for column in range(columns):
            side = (column - (columns - 1) / 2) * spacing[0]
            rise = (row - (rows - 1) / 2) * spacing[1]
            eye = c + [side, -distance, rise] + rng.normal(0, 1, 3) * jitter
            aim = c + np.array([side, 0, rise]) * (1 - toe_in) + rng.normal(0, 1, 3) * jitter
            poses.append(look_at(eye, aim))
    return poses


def zoom_path(
    groups: Sequence[tuple[int, float, float]], center: Sequence[float], seed: int = 0, jitter: float = 0.0
) -> list[Float64[np.ndarray, "3 4"]]:
    """Make poses in groups at different distances before a wall: neighbours of two groups differ in scale.

    Args:
        groups: (count, distance, width): that many poses at that distance, spread over that width, each
            looking
            halfway between straight ahead and ``center``.
        center: point of the wall before the middle.
        seed, jitter: as in ``arc_path``.
    """
    poses = []
    for index, (count, distance, width) in enumerate(groups):
        step = width / max(count - 1, 1)
        poses += grid_path(count, 1, center, (step, 0.0), distance, 0.5, seed + index, jitter)
    return poses


# ---- surfaces ------------------------------------------------------------------------------------


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


def object_mesh() -> MeshData:
    """Make the turn-table scene: a ridged knot on a pedestal on an uneven square of ground, z up, ground
    at 0."""
    ground = height_field_mesh(
        lambda x, z: (
            0.02
            * fractal_noise(
                np.stack([x, z, 0 * x], -1).reshape(-1, 3).astype(np.float32), 0.02, 0.6, 5, 0.9, 3
            ).reshape(x.shape)
        ),
        (-1.9, 1.9),
        (-1.9, 1.9),
        0.02,
    )
    # Laid down: the wall's x-z plane becomes the ground's x-y plane, its relief points up.
    flat = np.stack([ground.vertices[:, 0], ground.vertices[:, 2], -ground.vertices[:, 1]], axis=1)
    ground = MeshData(np.ascontiguousarray(flat), ground.faces)
    pedestal = superellipsoid_mesh((0, 0, 0.16), (0.72, 0.72, 0.17), 0.3)
    knot = knot_mesh()
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


# ---- photographs ---------------------------------------------------------------------------------


def photograph(
    radiance: Float32[np.ndarray, "h w 3"], sensor: Sensor, exposure: float, seed: int
) -> UInt8[np.ndarray, "h w 3"]:
    """Turn linear radiance into a photo: blur, exposure, shot and read noise, gamma 2.2, 8 bits, JPEG.

    Args:
        radiance: (h, w, 3) linear, 1 is white at exposure 1.
        sensor: the camera.
        exposure: factor on the light.
        seed: of the noise.
    """
    rng = np.random.default_rng(seed)
    light: Any = radiance * np.float32(exposure)
    if sensor.blur > 0:
        light = cv2.GaussianBlur(light, (0, 0), sensor.blur, borderType=cv2.BORDER_REPLICATE)
    if sensor.full_well > 0:
        electrons = np.maximum(light, 0) * sensor.full_well
        # Thousands of electrons: the normal distribution stands in for Poisson's, with the same variance.
        deviation = np.sqrt(electrons + sensor.read_noise**2)
        noise = rng.standard_normal(light.shape, dtype=np.float32)
        light = (electrons + deviation * noise) / np.float32(sensor.full_well)
    coded = np.clip(light, 0, 1) ** np.float32(1 / 2.2)
    rgb = np.rint(coded * 255).astype(np.uint8)
    if sensor.jpeg_quality > 0:
        done, data = cv2.imencode(
            ".jpg", np.ascontiguousarray(rgb[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, sensor.jpeg_quality]
        )
        assert done
        rgb = np.ascontiguousarray(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[..., ::-1])
    return rgb


def render_scene(
    name: str,
    mesh: MeshData,
    albedo: Albedo,
    views: Sequence[PinholeView],
    lighting: Lighting | None = None,
    sensor: Sensor | None = None,
    samples: int = 2,
    seed: int = 0,
) -> SyntheticScene:
    """Photograph a mesh from all views.

    Args:
        name: name of the scene.
        mesh: the surface.
        albedo: its reflectance.
        views: the cameras.
        lighting, sensor: light and camera; the defaults are diffuse light and a good camera.
        samples: rays per pixel and axis.
        seed: of exposure and noise.
    """
    lighting = lighting or Lighting()
    sensor = sensor or Sensor()
    rng = np.random.default_rng(seed)
    scene = ray_scene(mesh)
    baked = bake_lighting(mesh, lighting, seed)
    images, depths, normals = [], [], []
    for index, view in enumerate(views):
        radiance = render_radiance(mesh, view, albedo, lighting, baked, samples, scene=scene)
        exposure = 1.15 * 2.0 ** float(rng.uniform(-sensor.exposure_spread, sensor.exposure_spread))
        images.append(photograph(radiance, sensor, exposure, seed * 1000 + index))
        depth, normal = depth_and_normals(mesh, view, scene)
        depths.append(depth)
        normals.append(normal)
    footprint = np.full(len(mesh.vertices), 0.01, np.float32)
    nowhere = np.zeros((len(mesh.vertices), 3), np.float32)
    at_vertices = (
        albedo(
            SurfaceSamples(
                mesh.vertices,
                vertex_normals(mesh),
                np.zeros(len(mesh.vertices), np.int32),
                nowhere,
                footprint,
            )
        )
        if mesh.uvs is None
        else np.full((len(mesh.vertices), 3), 0.3, np.float32)
    )
    colors = np.rint(np.clip(at_vertices, 0, 1) ** (1 / 2.2) * 255).astype(np.uint8)
    return SyntheticScene(
        name,
        tuple(images),
        tuple(views),
        tuple(depths),
        tuple(normals),
        tuple(depth > 0 for depth in depths),
        replace(mesh, colors=colors if mesh.colors is None else mesh.colors),
    )


PRESETS = ("relief", "zoom", "object", "demo")


def make_scene(
    preset: str, size: tuple[int, int] | None = None, seed: int = 0, coarseness: float = 1.0
) -> SyntheticScene:
    """Render one of the named scenes.

    Args:
        preset: "relief": twelve photos of a façade, two rows. "zoom": ten photos of a façade in two groups
            whose
            distances differ by 2.6. "object": twenty photos round a knot on a pedestal. "demo": eight small
            photos of the façade.
        size: (width, height) of the photos; None for the preset's own.
        seed: of textures, paths and noise.
        coarseness: factor on the distance between the façade's vertices; quick drafts.

    Raises:
        UsageError: no such preset.
    """
    if preset == "relief":
        width, height = size or (800, 600)
        poses = grid_path(6, 2, (0, 0, 2.0), (0.85, 0.9), 4.6, 0.45, seed, 0.05)
        mesh = height_field_mesh(facade_height(seed), (-3.4, 3.4), (0.0, 4.3), 0.01 * coarseness)
        return render_scene(
            preset, mesh, facade_albedo(seed), pinhole_views(poses, width, height, 62), seed=seed
        )
    if preset == "zoom":
        width, height = size or (800, 600)
        seed += 11
        poses = zoom_path(((4, 6.0, 2.8), (6, 2.3, 2.6)), (0, 0, 2.0), seed, 0.04)
        mesh = height_field_mesh(facade_height(seed), (-3.4, 3.4), (0.0, 4.3), 0.01 * coarseness)
        return render_scene(
            preset, mesh, facade_albedo(seed), pinhole_views(poses, width, height, 62), seed=seed
        )
    if preset == "object":
        width, height = size or (800, 600)
        poses = arc_path(20, (0, 0, 0.6), 2.9, 360, 1.5, seed, 0.03)
        views = pinhole_views(poses, width, height, 46)
        return render_scene(preset, object_mesh(), solid_albedo(seed), views, Lighting(samples=16), seed=seed)
    if preset == "demo":
        width, height = size or (640, 480)
        seed += 5
        poses = arc_path(8, (0, 0, 2.0), 4.4, 56, 0.2, seed, 0.06)
        mesh = height_field_mesh(facade_height(seed), (-3.4, 3.4), (0.0, 4.3), 0.0125 * coarseness)
        views = pinhole_views(poses, width, height, 64)
        return render_scene(preset, mesh, facade_albedo(seed), views, Lighting(samples=8), seed=seed)
    raise UsageError(f"no synthetic scene {preset!r}; there are: {', '.join(PRESETS)}")


# ---- files ---------------------------------------------------------------------------------------


def write_scene(scene: SyntheticScene, folder: Path) -> None:
    """Write a scene: ``images/*.png`` (with the focal length in EXIF), ``cameras.json``,
    ``truth/mesh.ply``, and
    ``truth/depth/*.npz`` with depth and normals of each view.

    PNG keeps the pixels as they are in the scene, JPEG losses of its camera included.
    """
    from PIL import Image

    folder = Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "truth" / "depth").mkdir(parents=True, exist_ok=True)
    entries = []
    for image, view, depth, normal in zip(
        scene.images, scene.views, scene.depths, scene.normals, strict=True
    ):
        picture = Image.fromarray(image)
        exif = picture.getexif()
        exif[0x010F], exif[0x0110] = "recon", "synthetic pinhole"  # make and model
        # 35 mm equivalent by the width of the frame, as cameras with a 3:2 sensor count it.
        exif.get_ifd(0x8769)[0xA405] = round(36.0 * float(view.K[0, 0]) / view.width)
        picture.save(folder / "images" / view.name, exif=exif)
        np.savez_compressed(
            folder / "truth" / "depth" / f"{Path(view.name).stem}.npz", depth=depth, normal=normal
        )
        entries.append(
            {
                "name": view.name,
                "width": view.width,
                "height": view.height,
                "fx": float(view.K[0, 0]),
                "fy": float(view.K[1, 1]),
                "cx": float(view.K[0, 2]),
                "cy": float(view.K[1, 2]),
                "R": view.cam_from_world[:, :3].tolist(),
                "t": view.cam_from_world[:, 3].tolist(),
            }
        )
    document = {"convention": CONVENTION, "world_unit": "metre", "images": entries}
    (folder / "cameras.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    write_ply(folder / "truth" / "mesh.ply", scene.mesh)


def write_ply(path: Path, mesh: MeshData) -> None:
    """Write a mesh as binary PLY."""
    import open3d as o3d

    out = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(mesh.vertices.astype(np.float64)), o3d.utility.Vector3iVector(mesh.faces)
    )
    if mesh.colors is not None:
        out.vertex_colors = o3d.utility.Vector3dVector(mesh.colors / 255.0)
    if not o3d.io.write_triangle_mesh(path, out):
        raise OSError(f"{path}: cannot be written")


def render_truth(scene: SyntheticScene, view: PinholeView) -> UInt8[np.ndarray, "h w 3"]:
    """Render the truth's reflectance from a view."""
    return render_vertex_colors(scene.mesh, view)[0]
