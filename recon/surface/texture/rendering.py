"""Pictures of textured meshes, by ray casting."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

from recon.photos.types import PinholeView
from recon.surface.texture.types import TexturedMesh
from recon.surface.texture.visibility import ray_scene


def look_up(
    texture: UInt8[np.ndarray, "h w 3"], uv: Float64[np.ndarray, "n 2"]
) -> Float32[np.ndarray, "n 3"]:
    """Colours of a texture at texture coordinates (v up), bilinear."""
    h, w = texture.shape[:2]
    xy = np.stack([uv[:, 0] * w - 0.5, (1 - uv[:, 1]) * h - 0.5], axis=1)
    return _sample_bytes(texture, xy)


def _sample_bytes(
    image: UInt8[np.ndarray, "h w 3"], xy: Float64[np.ndarray, "n 2"]
) -> Float32[np.ndarray, "n 3"]:
    h, w = image.shape[:2]
    x, y = np.clip(xy[:, 0], 0, w - 1), np.clip(xy[:, 1], 0, h - 1)
    x0, y0 = np.minimum(x.astype(np.int64), max(w - 2, 0)), np.minimum(y.astype(np.int64), max(h - 2, 0))
    x1, y1 = np.minimum(x0 + 1, w - 1), np.minimum(y0 + 1, h - 1)
    fx, fy = (x - x0).astype(np.float32)[:, None], (y - y0).astype(np.float32)[:, None]
    top = image[y0, x0] * (1 - fx) + image[y0, x1] * fx
    low = image[y1, x0] * (1 - fx) + image[y1, x1] * fx
    return (top * (1 - fy) + low * fy).astype(np.float32)


def render_textured(
    mesh: TexturedMesh,
    view: PinholeView,
    *,
    samples: int = 2,
    background: tuple[int, int, int] = (0, 0, 0),
    scene: Any | None = None,
    seen_only: bool = False,
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    """Render a textured mesh, unlit.

    Args:
        mesh: the mesh.
        view: the camera.
        samples: samples² rays per pixel, averaged.
        background: colour where nothing is met.
        scene: ``visibility.ray_scene`` of the mesh, if it is already built (of its vertices as they are).
        seen_only: count faces that no photo textures as not covered.

    Returns:
        The picture, and where at least half of a pixel's rays meet the mesh.
    """
    import open3d as o3d

    centre = np.zeros(3)
    if scene is None:
        centre = mesh.vertices.mean(axis=0)
        scene = ray_scene((mesh.vertices - centre).astype(np.float32), mesh.faces)
    big = view.resized(view.width * samples, view.height * samples)
    rotation = view.cam_from_world[:, :3]
    out = np.empty((view.height, view.width, 3), np.float32)
    covered = np.zeros((view.height, view.width), bool)
    band = max(1, (1 << 20) // (big.width * samples))
    x = (np.arange(big.width) - big.K[0, 2]) / big.K[0, 0]
    for top in range(0, view.height, band):
        rows = min(band, view.height - top)
        y = (np.arange(top * samples, (top + rows) * samples) - big.K[1, 2]) / big.K[1, 1]
        gx, gy = np.meshgrid(x, y)
        gx = gx - big.K[0, 1] / big.K[0, 0] * gy
        rays = np.empty((*gx.shape, 6), np.float32)
        rays[..., :3] = view.center - centre
        rays[..., 3:] = np.stack([gx, gy, np.ones_like(gx)], axis=-1) @ rotation
        answer = scene.cast_rays(o3d.core.Tensor(rays.reshape(-1, 6)))
        t = answer["t_hit"].numpy()
        hit = np.isfinite(t)
        face = answer["primitive_ids"].numpy().astype(np.int64)
        if seen_only:
            hit[hit] = mesh.face_view[face[hit]] >= 0
        face = face[hit]
        second = answer["primitive_uvs"].numpy()[hit].astype(np.float64)
        weights = np.column_stack([1 - second.sum(axis=1), second])
        colors = np.zeros((len(t), 3), np.float32)
        colors[hit] = look_up(mesh.texture, (mesh.uvs[face] * weights[:, :, None]).sum(axis=1))
        share = hit.reshape(rows, samples, view.width, samples).mean(axis=(1, 3))
        mean = colors.reshape(rows, samples, view.width, samples, 3).mean(axis=(1, 3))
        inside = share >= 0.5
        covered[top : top + rows] = inside
        out[top : top + rows] = np.where(
            inside[..., None], mean / np.maximum(share, 1e-6)[..., None], np.array(background, np.float32)
        )
    return np.clip(np.rint(out), 0, 255).astype(np.uint8), covered
