"""Photos through lenses that a pinhole does not describe: any of COLMAP's camera models, and whole panoramas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Float32, UInt8

from recon.core.cameras import Intrinsics, PinholeView
from recon.core.colmap import camera_from_intrinsics
from recon.core.mesh import Mesh
from recon.core.raycasting import ray_scene
from recon.synthetic.materials import Albedo, rock_albedo
from recon.synthetic.reliefs import rock_height
from recon.synthetic.rendering import Lighting, bake_lighting, render_radiance
from recon.synthetic.sensor import Sensor, photograph
from recon.synthetic.shapes import height_field_mesh


@dataclass(frozen=True)
class LensPhoto:
    """A rendered photo with its true camera."""

    rgb: UInt8[np.ndarray, "h w 3"]
    intrinsics: Intrinsics | None
    cam_from_world: Float[np.ndarray, "3 4"]

    @property
    def center(self) -> Float[np.ndarray, "3"]:
        """Camera centre in the world."""
        return -self.cam_from_world[:, :3].T @ self.cam_from_world[:, 3]


def lens_rays(
    intrinsics: Intrinsics, cam_from_world: Float[np.ndarray, "3 4"], samples: int = 1
) -> Float32[np.ndarray, "hs ws 6"]:
    """Compute the rays (origin, unit direction) through the pixels of a camera of any model.

    Args:
        samples: each pixel gets samples² rays on a regular grid inside it.
    """
    camera = camera_from_intrinsics(intrinsics)
    width, height = intrinsics.width * samples, intrinsics.height * samples
    x, y = np.meshgrid((np.arange(width) + 0.5) / samples, (np.arange(height) + 0.5) / samples)
    xy = np.ascontiguousarray(np.column_stack([x.ravel(), y.ravel()]))
    inside = np.asarray(camera.cam_ray_from_img(xy), np.float64).reshape(height, width, 3)
    return _rays(inside, cam_from_world)


def panorama_rays(
    width: int, cam_from_world: Float[np.ndarray, "3 4"], samples: int = 1
) -> Float32[np.ndarray, "hs ws 6"]:
    """Compute the rays of an equirectangular panorama of ``width`` by half of it; its middle looks along z."""
    w, h = width * samples, width * samples // 2
    longitude = ((np.arange(w) + 0.5) / w - 0.5) * 2 * np.pi
    latitude = ((np.arange(h) + 0.5) / h - 0.5) * np.pi
    lon, lat = np.meshgrid(longitude, latitude)
    inside = np.stack([np.sin(lon) * np.cos(lat), np.sin(lat), np.cos(lon) * np.cos(lat)], axis=-1)
    return _rays(inside, cam_from_world)


def _rays(
    inside: Float[np.ndarray, "h w 3"], cam_from_world: Float[np.ndarray, "3 4"]
) -> Float32[np.ndarray, "h w 6"]:
    rays = np.empty((*inside.shape[:2], 6), np.float32)
    R = cam_from_world[:, :3]
    rays[..., :3] = -R.T @ cam_from_world[:, 3]
    rays[..., 3:] = inside @ R
    return rays


@dataclass(frozen=True)
class Bay:
    """A rock face that bends round the cameras, with its light: something to see in every direction but behind."""

    mesh: Mesh
    albedo: Albedo
    baked: Float32[np.ndarray, "n 2"]
    lighting: Lighting


@lru_cache(maxsize=4)
def bay(seed: int = 0, spacing: float = 0.04, bend: float = 0.1) -> Bay:
    """Make a bay: ``rock_height`` over 14 by 9 units, ``bend`` x² nearer at its sides; flat with no bend."""
    rock = rock_height(seed)

    def height(x: Float32[np.ndarray, "..."], z: Float32[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
        return np.asarray(1.6 * rock(x, z) + np.float32(bend) * (x**2 + 0.3 * (z - 2) ** 2), np.float32)

    mesh = height_field_mesh(height, (-7.0, 7.0), (-2.5, 6.5), spacing)
    lighting = Lighting(samples=6)
    return Bay(mesh, rock_albedo(seed), bake_lighting(mesh, lighting, seed), lighting)


def photograph_lenses(
    place: Bay,
    cameras: Sequence[Intrinsics | int],
    poses: Sequence[Float[np.ndarray, "3 4"]],
    seed: int = 0,
    sensor: Sensor | None = None,
) -> list[LensPhoto]:
    """Photograph a bay.

    Args:
        cameras: of each photo its intrinsics, or the width of an equirectangular panorama.
        poses: ``cam_from_world`` of each photo.
    """
    scene = ray_scene(place.mesh)
    sensor = sensor or Sensor(exposure_spread=0.0, jpeg_quality=0)
    photos = []
    for index, (camera, pose) in enumerate(zip(cameras, poses, strict=True)):
        if isinstance(camera, int):
            rays, width, height, focal = panorama_rays(camera, pose, 2), camera, camera // 2, camera / 6.3
        else:
            rays, width, height = lens_rays(camera, pose, 2), camera.width, camera.height
            focal = float(camera.K[0, 0])
        K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
        view = PinholeView(index, f"{index:04d}.png", K, np.asarray(pose, np.float64), width, height)
        light = render_radiance(
            place.mesh, view, place.albedo, place.lighting, place.baked, 2, scene=scene, rays=rays
        )
        rgb = photograph(light, sensor, 1.15, seed * 1000 + index)
        photos.append(LensPhoto(rgb, None if isinstance(camera, int) else camera, pose))
    return photos
