"""Scenes with exact truth for the tests of the dense room: a plane and a sphere with a solid texture."""

from __future__ import annotations

import cv2
import numpy as np

from recon.core.cameras import PinholeView
from recon.dense.types import DepthMap

PLANE_NORMAL = np.array([0.3, 0.2, -1.0]) / np.linalg.norm([0.3, 0.2, -1.0])
PLANE_OFFSET = float(PLANE_NORMAL @ [0.0, 0.0, 5.0])
SPHERE_CENTRE, SPHERE_RADIUS = np.array([0.0, 0.0, 5.0]), 1.6
WIDTH, HEIGHT = 160, 120


def make_views(count: int = 4) -> list[PinholeView]:
    """Cameras round the origin that look along z, with skew-free but unequal focal lengths."""
    K = np.array([[170.0, 0, 79.0], [0, 168.0, 60.5], [0, 0, 1.0]])
    centres = [[0, 0, 0], [0.6, 0, 0], [-0.6, 0.1, 0.1], [0, 0.6, -0.1], [0.1, -0.6, 0], [0.5, 0.5, 0]]
    views = []
    for i, c in enumerate(centres[:count]):
        R, _ = cv2.Rodrigues(np.array([0.1 * c[1], -0.1 * c[0], 0.02 * i]))
        pose = np.c_[R, -R @ np.array(c, float)]
        views.append(PinholeView(i, f"{i}.png", K, pose, WIDTH, HEIGHT))
    return views


def _rays(view: PinholeView) -> np.ndarray:
    xs, ys = np.meshgrid(np.arange(view.width), np.arange(view.height))
    pixels = np.stack([xs, ys, np.ones_like(xs)], -1)
    return pixels @ np.linalg.inv(view.K).T @ view.cam_from_world[:, :3]


def plane_depth(view: PinholeView) -> np.ndarray:
    """Exact z-depth of the plane."""
    rays = _rays(view)
    # Rays have unit depth in the camera, so the factor is the depth.
    return (PLANE_OFFSET - view.center @ PLANE_NORMAL) / (rays @ PLANE_NORMAL)


def sphere_depth(view: PinholeView) -> np.ndarray:
    """Exact z-depth of the sphere, 0 beside it."""
    rays, off = _rays(view), view.center - SPHERE_CENTRE
    a, b, c = (rays**2).sum(-1), rays @ off, off @ off - SPHERE_RADIUS**2
    inside = b * b - a * c
    return np.where(inside > 0, (-b - np.sqrt(np.maximum(inside, 0))) / a, 0.0)


def world_points(view: PinholeView, depth: np.ndarray) -> np.ndarray:
    """World coordinates of all pixels."""
    return view.center + _rays(view) * depth[..., None]


def texture(points: np.ndarray) -> np.ndarray:
    """Grey in 0…1 that depends on the place alone: waves of many directions and lengths (about 3 to 15 pixels)."""
    rng = np.random.default_rng(3)
    grey = np.zeros(points.shape[:-1])
    for _ in range(60):
        direction = rng.normal(size=3)
        direction *= rng.uniform(12, 50) / np.linalg.norm(direction)
        grey += np.sin(points @ direction + rng.uniform(0, 2 * np.pi))
    return np.clip(0.5 + grey / 25, 0, 1).astype(np.float32)


def exact_map(view: PinholeView, depth: np.ndarray, normal_world: np.ndarray) -> DepthMap:
    """The truth as a depth map; normals broadcast from world vectors."""
    normal = np.broadcast_to(normal_world, (*depth.shape, 3)) @ view.cam_from_world[:, :3].T
    known = depth > 0
    return DepthMap(
        depth.astype(np.float32),
        np.where(known[..., None], normal, 0).astype(np.float32),
        known.astype(np.float32),
    )


def exact_flow(reference: PinholeView, target: PinholeView, depth: np.ndarray) -> np.ndarray:
    """Where the pixels of the reference go."""
    camera = world_points(reference, depth) @ target.cam_from_world[:, :3].T + target.cam_from_world[:, 3]
    pixel = camera @ target.K.T
    xs, ys = np.meshgrid(np.arange(reference.width), np.arange(reference.height))
    return (pixel[..., :2] / pixel[..., 2:] - np.stack([xs, ys], -1)).astype(np.float32)
