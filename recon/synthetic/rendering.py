"""Light on a mesh: baked sun and sky, and the linear radiance that a camera receives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from recon.core.cameras import PinholeView
from recon.core.mesh import Mesh
from recon.core.raycasting import (
    RAYS_AT_ONCE,
    box_average,
    cast,
    interpolate,
    pixel_rays,
    ray_scene,
    tensor,
    vertex_normals,
)
from recon.synthetic.materials import Albedo, SurfaceSamples


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


def bake_lighting(mesh: Mesh, lighting: Lighting, seed: int = 0) -> Float32[np.ndarray, "n 2"]:
    """Compute sun and sky irradiance at every vertex, with soft shadows and occlusion of the sky.

    Returns:
        (n, 2) float32: sun (cosine times visible share of the sun) and sky (cosine-weighted visible share of
        the hemisphere round the normal), each in 0…1.
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
        visible = averaged_over_neighbours(mesh, visible, lighting.smoothing)
    visible[:, 0] *= np.clip(normals @ sun.astype(np.float32), 0, 1)
    return visible


def averaged_over_neighbours(
    mesh: Mesh, values: Float32[np.ndarray, "n c"], times: int
) -> Float32[np.ndarray, "n c"]:
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
    mesh: Mesh,
    view: PinholeView,
    albedo: Albedo,
    lighting: Lighting,
    baked: Float32[np.ndarray, "n 2"],
    samples: int = 2,
    background: tuple[float, float, float] = (0.35, 0.45, 0.6),
    scene: Any | None = None,
    rays: Float32[np.ndarray, "hs ws 6"] | None = None,
    normals: Float32[np.ndarray, "n 3"] | None = None,
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
        rays: origin and direction of each sample, where the camera is no pinhole; None for the view's own.
        normals: ``vertex_normals(mesh)``, if they are already known.
    """
    scene = scene if scene is not None else ray_scene(mesh)
    rays = pixel_rays(view, samples) if rays is None else rays
    normals = vertex_normals(mesh) if normals is None else normals
    out = np.empty((view.height, view.width, 3), np.float32)
    per_band = max(1, RAYS_AT_ONCE // (rays.shape[1] * samples)) * samples
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
        out[top // samples : (top + len(band)) // samples] = box_average(image, samples)
    return out
