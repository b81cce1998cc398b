"""Viewpoints: the first look at a scene, and the look through a photo."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float64

from recon.core.cameras import PinholeView
from recon.render.frusta import photo_corners
from recon.render.pictures import overview_view
from recon.render.scene import ViewScene

# Vertical field of view unless a person looks through a photo.
FOV = np.radians(45.0)


@dataclass(frozen=True)
class Viewpoint:
    """A camera that looks at something.

    Attributes:
        position, look_at: in the scene. up: unit vector. fov: vertical, radians.
    """

    position: Float64[np.ndarray, "3"]
    look_at: Float64[np.ndarray, "3"]
    up: Float64[np.ndarray, "3"]
    fov: float = float(FOV)


def start_viewpoint(scene: ViewScene, aspect: float = 1.0) -> Viewpoint:
    """A first look at a scene: from behind and above the cameras, or at the side that normals point to."""
    points = scene.points().astype(np.float64)
    height = 800
    if scene.photos:
        view = overview_view(points, scene.views, "tilted", round(height * aspect), height)
        fov = 2 * float(np.arctan(view.height / 2 / view.K[1, 1]))
        focus = _middle(points) if len(points) else np.mean([one.center for one in scene.views], axis=0)
        return Viewpoint(view.center, _ahead(view, focus), scene.up, fov)
    middle = _middle(points)
    radius = max(scene_size(scene) / 2, 1e-9)
    direction = _facing(scene)
    position = middle + direction * 1.15 * radius / float(np.tan(FOV / 2))
    return Viewpoint(position, middle, scene.up)


def photo_viewpoint(view: PinholeView, depth: float, aspect: float) -> Viewpoint:
    """A camera in the place of a photo's, wide enough that the whole photo is in the picture.

    Args:
        depth: of what is looked at. aspect: width over height of the browser's picture.
    """
    R = view.cam_from_world[:, :3]
    corners = photo_corners(view, 1.0)
    up_down = float(np.abs(corners[:, 1]).max())
    left_right = float(np.abs(corners[:, 0]).max())
    fov = 2 * float(np.arctan(1.04 * max(up_down, left_right / max(aspect, 1e-3))))
    return Viewpoint(view.center, view.center + depth * R[2], -R[1], fov)


def quaternion(rotation: Float[np.ndarray, "3 3"]) -> tuple[float, float, float, float]:
    """A rotation as (w, x, y, z)."""
    from scipy.spatial.transform import Rotation

    x, y, z, w = Rotation.from_matrix(np.asarray(rotation, np.float64)).as_quat()
    return float(w), float(x), float(y), float(z)


def scene_size(scene: ViewScene) -> float:
    """Diagonal of a scene without its outermost 1% of points, and with its cameras."""
    points = scene.points(20_000).astype(np.float64)
    shown = [np.percentile(points, [1, 99], axis=0)] if len(points) else []
    if scene.photos:
        shown.append(np.array([view.center for view in scene.views]))
    if not shown:
        return 1.0
    return float(np.linalg.norm(np.ptp(np.concatenate(shown), axis=0))) or 1.0


def frustum_depth(scene: ViewScene) -> float:
    """Choose how deep to draw cameras: about as far as they are apart, a small part of the scene."""
    centers = np.array([view.center for view in scene.views])
    size = scene_size(scene)
    if len(centers) < 2:
        return 0.05 * size
    gaps = np.linalg.norm(centers[:, None] - centers[None], axis=-1) if len(centers) <= 500 else None
    if gaps is None:
        return 0.02 * size
    np.fill_diagonal(gaps, np.inf)
    return float(np.clip(0.6 * np.median(gaps.min(axis=1)), 0.012 * size, 0.06 * size))


def level_axes(view: Viewpoint) -> Float64[np.ndarray, "3 3"]:
    """Rows: to the right, ahead and up of a person who looks at the scene first."""
    up = view.up / np.linalg.norm(view.up)
    ahead = view.look_at - view.position
    ahead = ahead - (ahead @ up) * up
    if np.linalg.norm(ahead) < 1e-9:
        ahead = np.cross(up, [0.577, -0.577, 0.577])
    ahead /= np.linalg.norm(ahead)
    return np.stack([np.cross(ahead, up), ahead, up])


def moved(view: Viewpoint, scale: float, rotation: np.ndarray, translation: np.ndarray) -> Viewpoint:
    """The same look in another world: x' = scale * rotation @ x + translation."""
    return replace(
        view,
        position=scale * rotation @ view.position + translation,
        look_at=scale * rotation @ view.look_at + translation,
        up=rotation @ view.up,
    )


def _middle(points: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "3"]:
    return np.median(points, axis=0) if len(points) else np.zeros(3)


def _ahead(view: PinholeView, focus: Float64[np.ndarray, "3"]) -> Float64[np.ndarray, "3"]:
    """The point on a camera's axis that is nearest to another."""
    axis = view.cam_from_world[2, :3]
    return view.center + max(float((focus - view.center) @ axis), 1e-6) * axis


def _facing(scene: ViewScene) -> Float64[np.ndarray, "3"]:
    """Unit vector from the scene to where its surfaces look, if they agree; else from the front, a little above."""
    up = scene.up
    normals = scene.dense.normals if scene.dense is not None else None
    if normals is None and scene.mesh is not None:
        a, b, c = (scene.mesh.vertices[scene.mesh.faces[:, i]].astype(np.float64) for i in range(3))
        weighted = np.cross(b - a, c - a)
        total = np.linalg.norm(weighted, axis=1).sum()
        mean = weighted.sum(axis=0) / max(total, 1e-30)
    else:
        mean = np.zeros(3) if normals is None else normals.mean(axis=0, dtype=np.float64)
    if np.linalg.norm(mean) < 0.25:
        axes = level_axes(Viewpoint(np.zeros(3), np.array([0.4, 1.0, 0.1]), up))
        mean = 0.35 * axes[0] - axes[1] + 0.45 * axes[2]
    else:
        mean = mean / np.linalg.norm(mean) + 0.12 * up
        if abs(mean @ up) > 0.95 * np.linalg.norm(
            mean
        ):  # what lies flat is seen aslant, its long side across
            points = scene.points(20_000).astype(np.float64)
            flat = points - np.outer(points @ up, up)
            longest = np.linalg.eigh(np.cov(flat.T))[1][:, -1]
            mean = mean / np.linalg.norm(mean) + 0.7 * np.cross(longest, up)
    return mean / np.linalg.norm(mean)
