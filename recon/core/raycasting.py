"""Ray casting of triangle meshes: exact depth, normals and anti-aliased colours, without a display or a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int32, UInt8

from recon.core.cameras import PinholeView
from recon.core.mesh import Mesh

# Rays cast at once; bounds the memory of one call to about 200 MB.
RAYS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Hits:
    """First hits of the rays through the pixels of a view.

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


def tensor(values: np.ndarray) -> Any:
    """Hand an array to Open3D."""
    from recon.core.open3d import o3d

    core: Any = o3d.core
    return core.Tensor(np.ascontiguousarray(values))


def ray_scene(mesh: Mesh) -> Any:
    """Build an Open3D ``RaycastingScene`` (Embree) with one mesh."""
    from recon.core.open3d import o3d

    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(
        tensor(mesh.vertices.astype(np.float32)),
        tensor(np.ascontiguousarray(mesh.faces).astype(np.uint32)),
    )
    return scene


_FAR = 1e6
"""So many radii of a mesh away, the distance to its middle is the distance to it, but for a part in a million."""


def distance_to(mesh: Mesh) -> Callable[[Float[np.ndarray, "n 3"]], Float64[np.ndarray, " n"]]:
    """Build a function that gives the distance of points from a mesh with faces.

    It is exact within a million radii of the mesh. Beyond it is the distance to the mesh's middle: the search in
    single precision would look at every face for such a point, as damaged files hold them.
    """
    scene = ray_scene(mesh)
    in_a_face = np.zeros(len(mesh.vertices), bool)
    in_a_face[mesh.faces] = True
    used = mesh.vertices[in_a_face].astype(np.float64)
    middle = 0.5 * (used.min(axis=0) + used.max(axis=0))
    radius = float(np.linalg.norm(used.max(axis=0) - middle))

    def distance(points: Float[np.ndarray, "n 3"]) -> Float64[np.ndarray, " n"]:
        found: Float64[np.ndarray, " n"] = np.linalg.norm(points.astype(np.float64) - middle, axis=1)
        near = ~(found > _FAR * radius)
        found[near] = scene.compute_distance(tensor(points[near].astype(np.float32))).numpy()
        return found

    return distance


def pixel_rays(view: PinholeView, samples: int = 1) -> Float32[np.ndarray, "hs ws 6"]:
    """Compute the rays (origin, direction) through a view's pixels.

    Args:
        view: the camera.
        samples: each pixel gets samples² rays on a regular grid inside it; 1 is the pixel centre.

    Returns:
        (h·samples, w·samples, 6) float32. Directions have unit z in the camera, so that the ray parameter of
        a hit is its z-depth.
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
    for start in range(0, len(flat), RAYS_AT_ONCE):
        part = slice(start, min(start + RAYS_AT_ONCE, len(flat)))
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


def face_normals(mesh: Mesh) -> Float32[np.ndarray, "m 3"]:
    """Compute unit normals of the faces (right-hand rule; 0 for degenerate faces)."""
    a, b, c = (mesh.vertices[mesh.faces[:, i]].astype(np.float64) for i in range(3))
    normal = np.cross(b - a, c - a)
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    return (normal / np.where(length > 0, length, 1)).astype(np.float32)


def vertex_normals(mesh: Mesh) -> Float32[np.ndarray, "n 3"]:
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
    mesh: Mesh,
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
    mesh: Mesh, view: PinholeView, scene: Any | None = None
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w 3"]]:
    """Compute the exact z-depth and the face normals that a view sees.

    Returns:
        depth: (h, w) float32, 0 where nothing is seen.
        normal: (h, w, 3) float32 unit vectors in camera coordinates, turned towards the camera; 0 where
            nothing is seen.
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
    mesh: Mesh,
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
        covered: (h, w) bool, True where at least half of a pixel's rays meet the mesh; such pixels hold the
            mean over the rays that do.
    """
    colors = mesh.rgb if mesh.rgb is not None else np.full((len(mesh.vertices), 3), 128, np.uint8)
    hits = cast_view(scene if scene is not None else ray_scene(mesh), view, samples)
    hit = hits.mask
    big = np.zeros((*hit.shape, 3), np.float32)
    big[hit] = interpolate(mesh, colors, hits.face[hit], hits.weights[hit])
    share = box_average(hit.astype(np.float32), samples)
    covered = share >= 0.5
    mean = box_average(big, samples) / np.maximum(share, 1e-6)[..., None]
    rgb = np.where(covered[..., None], mean, np.array(background, np.float32))
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8), covered


def box_average(image: Float32[np.ndarray, "..."], samples: int) -> Float32[np.ndarray, "..."]:
    """Average samples x samples blocks."""
    if samples == 1:
        return image
    h, w = image.shape[0] // samples, image.shape[1] // samples
    return image.reshape(h, samples, w, samples, *image.shape[2:]).mean(axis=(1, 3), dtype=np.float32)
