"""Photos of a known surface from known cameras, with exact truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from recon.core.cameras import PinholeView
from recon.core.mesh import Mesh
from recon.core.parallel import map_ordered, usable_cores
from recon.core.raycasting import depth_and_normals, ray_scene, vertex_normals
from recon.synthetic.materials import Albedo, vertex_albedo
from recon.synthetic.rendering import Lighting, bake_lighting, render_radiance
from recon.synthetic.sensor import Sensor, photograph

# Photos are rendered so many at once at most: each needs some hundred megabytes.
_AT_ONCE = 4


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
    mesh: Mesh


def render_scene(
    name: str,
    mesh: Mesh,
    albedo: Albedo,
    views: Sequence[PinholeView],
    lighting: Lighting | None = None,
    sensor: Sensor | None = None,
    samples: int = 2,
    seed: int = 0,
    exposures: Sequence[float] | None = None,
    background: tuple[float, float, float] = (0.35, 0.45, 0.6),
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
        exposures: factor on the light of each photo; None draws them as the sensor says.
        background: radiance where no surface is met.
    """
    lighting = lighting or Lighting()
    sensor = sensor or Sensor()
    rng = np.random.default_rng(seed)
    scene = ray_scene(mesh)
    baked, at_vertices = bake_lighting(mesh, lighting, seed), vertex_normals(mesh)
    drawn = [2.0 ** float(rng.uniform(-sensor.exposure_spread, sensor.exposure_spread)) for _ in views]
    light = [1.15 * factor for factor in (drawn if exposures is None else exposures)]

    def photo(index: int) -> tuple[Any, Any, Any]:
        view = views[index]
        radiance = render_radiance(
            mesh, view, albedo, lighting, baked, samples, background, scene=scene, normals=at_vertices
        )
        image = photograph(radiance, sensor, light[index], seed * 1000 + index)
        return image, *depth_and_normals(mesh, view, scene)

    photos = map_ordered(photo, range(len(views)), min(_AT_ONCE, usable_cores()))
    images, depths, normals = zip(*photos, strict=True)
    return SyntheticScene(
        name,
        images,
        tuple(views),
        depths,
        normals,
        tuple(depth > 0 for depth in depths),
        with_reflectance(mesh, albedo),
    )


def with_reflectance(mesh: Mesh, albedo: Albedo) -> Mesh:
    """The mesh with its reflectance, gamma-coded, as colours at its vertices; its own where it has some."""
    if mesh.rgb is not None:
        return mesh
    at_vertices = np.clip(vertex_albedo(mesh, albedo, 0.01), 0, 1)
    return replace(mesh, rgb=np.rint(at_vertices ** (1 / 2.2) * 255).astype(np.uint8))
