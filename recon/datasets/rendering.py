"""Ray casting of triangle meshes: exact depth, normals and anti-aliased colours, without a display or a
GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int32, UInt8

from recon.photos.types import PinholeView

# Rays cast at once; bounds the memory of one call to about 200 MB.
_CHUNK = 1 << 20


@dataclass(frozen=True)
class MeshData:
    """A triangle mesh as arrays.

    Attributes:
        vertices: (n, 3) float32 in the world.
        faces: (m, 3) int32 vertex indices.
        colors: (n, 3) uint8, None where the mesh has no colours.
        uvs: (m, 3, 2) float32 texture coordinates of each face's corners, v up; None without texture.
        texture: (th, tw, 3) uint8 RGB, first row at v = 1; None without texture.
    """

    vertices: Float32[np.ndarray, "n 3"]
    faces: Int32[np.ndarray, "m 3"]
    colors: UInt8[np.ndarray, "n 3"] | None = None
    uvs: Float32[np.ndarray, "m 3 2"] | None = None
    texture: UInt8[np.ndarray, "th tw 3"] | None = None


@dataclass(frozen=True)
class Hits:
    """What the rays through the pixels of a view meet.

    Attributes:
        face: (h, w) int32 index of the face, -1 where the ray meets nothing.
        weights: (h, w, 3) float32 barycentric coordinates on that face.
        depth: (h, w) float32 z-depth along the optical axis, 0 where the ray meets nothing.
    """

    face: Int32[np.ndarray, "h w"]
    weights: Float32[np.ndarray, "h w 3"]
    depth: Float32[np.ndarray, "h w"]

    @property
    def mask(self) -> Bool[np.ndarray, "h w"]:
        """True where the ray meets the mesh."""
        return self.face >= 0


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


@dataclass(frozen=True)
class Lighting:
    """Light that does not depend on the viewer, apart from an optional highlight.

    Attributes:
        sun: direction towards the sun in the world.
        sun_strength, sky_strength: irradiance of a surface facing each.
        sun_radius: tangent of the sun's apparent radius; soft shadows.
        samples: rays per vertex for the soft shadow and, the same number, for the sky's occlusion.
        specular: strength of a Blinn-Phong highlight; 0 is fully diffuse.
        shininess: exponent of the highlight.
        lamps: directions towards broad lights that are seen in the surface's gloss only, reflected as a
            mirror would (Phong), as strong as the highlight.
        smoothing: how often the visible shares of sun and sky are averaged over each vertex's neighbours;
            without, the noise of few samples is a texture of its own.
    """

    sun: tuple[float, float, float] = (0.45, -0.7, 0.75)
    sun_strength: float = 0.75
    sky_strength: float = 0.55
    sun_radius: float = 0.06
    samples: int = 12
    specular: float = 0.0
    shininess: float = 30.0
    lamps: tuple[tuple[float, float, float], ...] = ()
    smoothing: int = 0


def tensor(values: np.ndarray) -> Any:
    """Hand an array to Open3D."""
    import open3d as o3d

    core: Any = o3d.core
    return core.Tensor(np.ascontiguousarray(values))


def ray_scene(mesh: MeshData) -> Any:
    """Build an Open3D ``RaycastingScene`` (Embree) with one mesh."""
    import open3d as o3d

    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(
        tensor(mesh.vertices.astype(np.float32)),
        tensor(np.ascontiguousarray(mesh.faces).astype(np.uint32)),
    )
    return scene


def pixel_rays(view: PinholeView, samples: int = 1) -> Float32[np.ndarray, "hs ws 6"]:
    """Compute the rays (origin, direction) through a view's pixels.

    Args:
        view: the camera.
        samples: each pixel gets samples² rays on a regular grid inside it; 1 is the pixel centre.

    Returns:
        (h·samples, w·samples, 6) float32. Directions have unit z in the camera, so that the ray parameter
        of a
        hit is its z-depth.
    """
    big = view.resized(view.width * samples, view.height * samples)
    x, y = np.meshgrid(np.arange(big.width, dtype=np.float64), np.arange(big.height, dtype=np.float64))
    K = big.K
    dy = (y - K[1, 2]) / K[1, 1]
    dx = (x - K[0, 2] - K[0, 1] * dy) / K[0, 0]
    directions = np.stack([dx, dy, np.ones_like(dx)], axis=-1) @ view.cam_from_world[:, :3]
    rays = np.empty((big.height, big.width, 6), np.float32)
    rays[..., :3] = view.center
    rays[..., 3:] = directions
    return rays


def cast(scene: Any, rays: Float32[np.ndarray, "h w 6"]) -> Hits:
    """Find the first face that each ray meets (both sides of a face count)."""
    h, w = rays.shape[:2]
    face = np.full(h * w, -1, np.int32)
    depth = np.zeros(h * w, np.float32)
    weights = np.zeros((h * w, 3), np.float32)
    flat = rays.reshape(-1, 6)
    for start in range(0, len(flat), _CHUNK):
        part = slice(start, min(start + _CHUNK, len(flat)))
        answer = scene.cast_rays(tensor(flat[part]))
        t = answer["t_hit"].numpy()
        hit = np.isfinite(t)
        face[part] = np.where(hit, answer["primitive_ids"].numpy().astype(np.int64), -1).astype(np.int32)
        depth[part] = np.where(hit, t, 0)
        uv = answer["primitive_uvs"].numpy()
        weights[part] = np.column_stack([1 - uv[:, 0] - uv[:, 1], uv]) * hit[:, None]
    return Hits(face.reshape(h, w), weights.reshape(h, w, 3), depth.reshape(h, w))


def cast_view(scene: Any, view: PinholeView, samples: int = 1) -> Hits:
    """Find what each pixel of a view sees (``samples``² rays per pixel)."""
    return cast(scene, pixel_rays(view, samples))


def face_normals(mesh: MeshData) -> Float32[np.ndarray, "m 3"]:
    """Compute unit normals of the faces (right-hand rule; 0 for degenerate faces)."""
    a, b, c = (mesh.vertices[mesh.faces[:, i]].astype(np.float64) for i in range(3))
    normal = np.cross(b - a, c - a)
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    return (normal / np.where(length > 0, length, 1)).astype(np.float32)


def vertex_normals(mesh: MeshData) -> Float32[np.ndarray, "n 3"]:
    """Compute unit normals of the vertices: the area-weighted mean over their faces."""
    a, b, c = (mesh.vertices[mesh.faces[:, i]].astype(np.float64) for i in range(3))
    weighted = np.cross(b - a, c - a)
    total = np.zeros((len(mesh.vertices), 3))
    for axis in range(3):
        for corner in range(3):
            total[:, axis] += np.bincount(mesh.faces[:, corner], weighted[:, axis], len(mesh.vertices))
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return (total / np.where(length > 0, length, 1)).astype(np.float32)


def interpolate(
    mesh: MeshData,
    values: Float[np.ndarray, "n c"],
    face: Int32[np.ndarray, " k"],
    weights: Float32[np.ndarray, "k 3"],
) -> Float32[np.ndarray, "k c"]:
    """Interpolate values at the vertices linearly on faces; ``face`` must not be negative."""
    corners = mesh.faces[face]
    values = values.astype(np.float32, copy=False)
    out = values[corners[:, 0]] * weights[:, :1]
    out += values[corners[:, 1]] * weights[:, 1:2]
    out += values[corners[:, 2]] * weights[:, 2:]
    return out


def depth_and_normals(
    mesh: MeshData, view: PinholeView, scene: Any | None = None
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w 3"]]:
    """Compute the exact z-depth and the face normals that a view sees.

    Returns:
        depth: (h, w) float32, 0 where nothing is seen.
        normal: (h, w, 3) float32 unit vectors in camera coordinates, turned towards the camera; 0 where
            nothing
            is seen.
    """
    hits = cast_view(scene if scene is not None else ray_scene(mesh), view)
    normal = np.zeros((view.height, view.width, 3), np.float32)
    in_camera = face_normals(mesh)[hits.face[hits.mask]] @ view.cam_from_world[:, :3].T.astype(np.float32)
    rays = pixel_rays(view)[..., 3:] @ view.cam_from_world[:, :3].T.astype(np.float32)
    away = (in_camera * rays[hits.mask]).sum(axis=1) > 0
    in_camera[away] *= -1
    normal[hits.mask] = in_camera
    return hits.depth, normal


def render_vertex_colors(
    mesh: MeshData,
    view: PinholeView,
    samples: int = 2,
    background: tuple[int, int, int] = (0, 0, 0),
    scene: Any | None = None,
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    """Render a mesh's vertex colours (unlit) by ray casting.

    Args:
        mesh: a mesh with ``colors``; mid-grey is used without.
        view: the camera.
        samples: samples² rays per pixel, averaged.
        background: colour where nothing is met.
        scene: the mesh's ray scene, if it is already built.

    Returns:
        rgb: (h, w, 3) uint8.
        covered: (h, w) bool, True where at least half of a pixel's rays meet the mesh; such pixels hold
            the mean
            over the rays that do.
    """
    colors = mesh.colors if mesh.colors is not None else np.full((len(mesh.vertices), 3), 128, np.uint8)
    hits = cast_view(scene if scene is not None else ray_scene(mesh), view, samples)
    hit = hits.mask
    big = np.zeros((*hit.shape, 3), np.float32)
    big[hit] = interpolate(mesh, colors, hits.face[hit], hits.weights[hit])
    share = _box(hit.astype(np.float32), samples)
    covered = share >= 0.5
    mean = _box(big, samples) / np.maximum(share, 1e-6)[..., None]
    rgb = np.where(covered[..., None], mean, np.array(background, np.float32))
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8), covered


def bake_lighting(mesh: MeshData, lighting: Lighting, seed: int = 0) -> Float32[np.ndarray, "n 2"]:
    """Compute sun and sky irradiance at every vertex, with soft shadows and occlusion of the sky.

    Returns:
        (n, 2) float32: sun (cosine times visible share of the sun) and sky (cosine-weighted visible share
        of the
        hemisphere round the normal), each in 0…1.
    """
    scene = ray_scene(mesh)
    rng = np.random.default_rng(seed)
    normals = vertex_normals(mesh)
    extent = float(np.ptp(mesh.vertices, axis=0).max())
    origin = mesh.vertices + normals * np.float32(2e-4 * extent)
    sun = np.asarray(lighting.sun, np.float64)
    sun /= np.linalg.norm(sun)
    tangent = np.linalg.svd(sun[None])[2][1:]
    visible = np.zeros((len(origin), 2), np.float32)
    for _ in range(lighting.samples):
        offset = rng.uniform(-1, 1, (len(origin), 2)) * lighting.sun_radius
        to_sun = sun + offset @ tangent
        # Cosine-weighted direction on the hemisphere: a random point of the unit sphere set on the normal.
        sphere = rng.normal(size=(len(origin), 3))
        sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
        to_sky = normals + 0.999 * sphere
        for column, direction in enumerate((to_sun, to_sky)):
            rays = np.concatenate([origin, direction.astype(np.float32)], axis=1).astype(np.float32)
            hidden = scene.test_occlusions(tensor(rays)).numpy()
            visible[:, column] += ~hidden
    visible /= max(lighting.samples, 1)
    if lighting.smoothing:
        visible = _averaged(mesh, visible, lighting.smoothing)
    visible[:, 0] *= np.clip(normals @ sun.astype(np.float32), 0, 1)
    return visible


def _averaged(mesh: MeshData, values: Float32[np.ndarray, "n c"], times: int) -> Float32[np.ndarray, "n c"]:
    """Replace the values at the vertices by the mean over themselves and their neighbours, so many times."""
    from scipy.sparse import coo_array

    count = len(mesh.vertices)
    a = np.concatenate([mesh.faces[:, i] for i in (0, 1, 2, 1, 2, 0)] + [np.arange(count)])
    b = np.concatenate([mesh.faces[:, i] for i in (1, 2, 0, 0, 1, 2)] + [np.arange(count)])
    near = coo_array((np.ones(len(a), np.float32), (a, b)), (count, count)).tocsr()
    # An edge that two faces share counts once, like one at the rim.
    near.data[:] = 1
    degree = np.asarray(near.sum(axis=1), np.float32)[:, None]
    for _ in range(times):
        values = (near @ values) / degree
    return np.asarray(values, np.float32)


def render_radiance(
    mesh: MeshData,
    view: PinholeView,
    albedo: Albedo,
    lighting: Lighting,
    baked: Float32[np.ndarray, "n 2"],
    samples: int = 2,
    background: tuple[float, float, float] = (0.35, 0.45, 0.6),
    scene: Any | None = None,
) -> Float32[np.ndarray, "h w 3"]:
    """Render linear radiance of a lit mesh, box-filtered over samples² rays per pixel.

    Args:
        mesh: the mesh; shading uses interpolated vertex normals, geometry the flat faces.
        view: the camera.
        albedo: reflectance of surface points.
        lighting: the light.
        baked: ``bake_lighting(mesh, lighting)``.
        samples: rays per pixel and axis.
        background: radiance where nothing is met.
        scene: the mesh's ray scene, if it is already built.
    """
    scene = scene if scene is not None else ray_scene(mesh)
    rays = pixel_rays(view, samples)
    normals = vertex_normals(mesh)
    out = np.empty((view.height, view.width, 3), np.float32)
    per_band = max(1, _CHUNK // (rays.shape[1] * samples)) * samples
    spacing = 1.0 / (float(np.sqrt(view.K[0, 0] * view.K[1, 1])) * samples)
    sun = np.asarray(lighting.sun, np.float32)
    sun = sun / np.linalg.norm(sun)
    for top in range(0, rays.shape[0], per_band):
        band = rays[top : top + per_band]
        hits = cast(scene, band)
        hit = hits.mask
        face, weights = hits.face[hit], hits.weights[hit]
        direction = band[hit][:, 3:]
        position = band[hit][:, :3] + direction * hits.depth[hit][:, None]
        normal = interpolate(mesh, normals, face, weights)
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
        unit = direction / np.linalg.norm(direction, axis=1, keepdims=True)
        facing = np.abs((normal * unit).sum(axis=1))
        # A slanted surface is sampled sparsely along one direction; the geometric mean of both spacings keeps
        # detail while the supersampling takes care of the rest.
        footprint = (hits.depth[hit] * spacing / np.sqrt(np.maximum(facing, 0.05))).astype(np.float32)
        light = interpolate(mesh, baked, face, weights)
        irradiance = lighting.sun_strength * light[:, :1] + lighting.sky_strength * light[:, 1:]
        color = albedo(SurfaceSamples(position, normal, face, weights, footprint)) * irradiance
        if lighting.specular > 0:
            half = sun - unit
            half /= np.maximum(np.linalg.norm(half, axis=1, keepdims=True), 1e-6)
            gloss = np.clip((normal * half).sum(axis=1), 0, 1) ** lighting.shininess
            color += (lighting.specular * gloss * (light[:, 0] > 0))[:, None]
            mirror = unit - 2 * (normal * unit).sum(axis=1, keepdims=True) * normal
            for lamp in lighting.lamps:
                towards = np.asarray(lamp, np.float32) / np.float32(np.linalg.norm(lamp))
                # What hides the sky hides a lamp: its gloss fades with the sky's visible share.
                gloss = np.clip(mirror @ towards, 0, 1) ** lighting.shininess * light[:, 1]
                color += (lighting.specular * gloss)[:, None]
        image = np.empty((*hit.shape, 3), np.float32)
        image[:] = background
        image[hit] = color
        out[top // samples : (top + len(band)) // samples] = _box(image, samples)
    return out


def texture_albedo(mesh: MeshData) -> Albedo:
    """Make the reflectance of a textured mesh: trilinear look-up in a mip pyramid of the linearised texture.

    Raises:
        ValueError: the mesh has no texture.
    """
    if mesh.uvs is None or mesh.texture is None:
        raise ValueError("the mesh has no texture")
    linear = (np.arange(256, dtype=np.float32) / 255) ** np.float32(2.2)
    uvs, level0 = mesh.uvs, linear[mesh.texture]
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
            colors = _bilinear(pyramid[index], x, y)
            out[used] += share[used, None] * colors
        return out

    return look_up


def _bilinear(
    image: Float32[np.ndarray, "h w 3"], x: Float32[np.ndarray, " n"], y: Float32[np.ndarray, " n"]
) -> Float32[np.ndarray, "n 3"]:
    """Sample an image at positions, edge pixels repeated."""
    h, w = image.shape[:2]
    x, y = np.clip(x, 0, w - 1), np.clip(y, 0, h - 1)
    x0, y0 = np.minimum(x.astype(int), max(w - 2, 0)), np.minimum(y.astype(int), max(h - 2, 0))
    x1, y1 = np.minimum(x0 + 1, w - 1), np.minimum(y0 + 1, h - 1)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    top = image[y0, x0] * (1 - fx) + image[y0, x1] * fx
    bottom = image[y1, x0] * (1 - fx) + image[y1, x1] * fx
    return top * (1 - fy) + bottom * fy


def _box(image: Float32[np.ndarray, "..."], samples: int) -> Float32[np.ndarray, "..."]:
    """Average samples x samples blocks."""
    if samples == 1:
        return image
    h, w = image.shape[0] // samples, image.shape[1] // samples
    return image.reshape(h, samples, w, samples, *image.shape[2:]).mean(axis=(1, 3), dtype=np.float32)


def mesh_from_open3d(mesh: Any) -> MeshData:
    """Convert an Open3D ``TriangleMesh``; a texture is taken along if it has exactly one."""
    colors = uvs = texture = None
    if mesh.has_vertex_colors():
        colors = np.rint(np.asarray(mesh.vertex_colors) * 255).astype(np.uint8)
    if mesh.has_triangle_uvs() and len(mesh.textures) == 1:
        uvs = np.asarray(mesh.triangle_uvs, np.float32).reshape(-1, 3, 2)
        texture = np.ascontiguousarray(np.asarray(mesh.textures[0])[..., :3])
    return MeshData(
        np.asarray(mesh.vertices, np.float32), np.asarray(mesh.triangles, np.int32), colors, uvs, texture
    )
