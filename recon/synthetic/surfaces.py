"""Surfaces by name with their paint and viewpoints: those made here, and textured meshes of files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from recon.core.mesh import Mesh
from recon.errors import ReconError, UsageError
from recon.synthetic.materials import (
    Albedo,
    SurfaceSamples,
    facade_albedo,
    rock_albedo,
    solid_albedo,
    texture_albedo,
    vertex_color_albedo,
)
from recon.synthetic.reliefs import facade_height, rock_height
from recon.synthetic.shapes import ground_mesh, height_field_mesh, join_meshes, object_mesh


@dataclass(frozen=True)
class PaintedSurface:
    """A surface, its reflectance, and how cameras look at it.

    Attributes:
        mesh: the surface, z up.
        albedo: its reflectance.
        target: point that the cameras look at.
        distance, height: of the cameras from the target, horizontally and above it.
        field_of_view: of the cameras, horizontal, in degrees.
        tile: side of a tile of repeated texture, world units; objects, seen from nearer, have small ones.
    """

    mesh: Mesh
    albedo: Albedo
    target: tuple[float, float, float]
    distance: float
    height: float
    field_of_view: float
    tile: float = 0.2


def _facade(seed: int, coarseness: float) -> PaintedSurface:
    mesh = height_field_mesh(facade_height(seed), (-3.4, 3.4), (0.0, 4.3), 0.0125 * coarseness)
    return PaintedSurface(mesh, facade_albedo(seed), (0.0, -0.2, 2.1), 4.2, 0.15, 60.0, 0.45)


def _rocks(seed: int, coarseness: float) -> PaintedSurface:
    mesh = height_field_mesh(rock_height(seed), (-3.4, 3.4), (0.0, 4.3), 0.0125 * coarseness)
    return PaintedSurface(mesh, rock_albedo(seed), (0.0, -0.2, 2.1), 4.2, 0.15, 60.0, 0.45)


def _object(seed: int, coarseness: float) -> PaintedSurface:
    return PaintedSurface(object_mesh(coarseness), solid_albedo(seed), (0.0, 0.0, 0.55), 2.6, 1.3, 46.0)


@dataclass(frozen=True)
class BenchmarkScene:
    """A surface that is made here.

    Attributes:
        meaning: what it shows, in words.
        make: seed and factor on the distance between vertices to the surface.
        is_wall: it can be seen from one side only.
    """

    meaning: str
    make: Callable[[int, float], PaintedSurface]
    is_wall: bool = False


# Any textured mesh (.obj, .glb), by its path or by its card's name, is a scene too.
BENCHMARK_SCENES: Mapping[str, BenchmarkScene] = {
    "facade": BenchmarkScene("a wall with columns, niches and mouldings", _facade, is_wall=True),
    "rocks": BenchmarkScene("a rock face with ledges and boulders", _rocks, is_wall=True),
    "object": BenchmarkScene("a ridged knot on a pedestal on gravel", _object),
}


def painted_surface(scene: str, seed: int, coarseness: float) -> PaintedSurface:
    """Make one of ``BENCHMARK_SCENES``, or set a textured mesh on gravel.

    Args:
        scene: name, path of a mesh, or a card's name.
        seed: of shape and paint.
        coarseness: factor on the distance between vertices of what is made here.

    Raises:
        UsageError: no such scene.
        ReconError: the mesh cannot be read.
    """
    if scene in BENCHMARK_SCENES:
        return BENCHMARK_SCENES[scene].make(seed, coarseness)
    from recon.io.textured_mesh import read_textured_mesh

    mesh, paint = mesh_on_ground(read_textured_mesh(mesh_file(scene)), seed)
    top = float(mesh.vertices[:, 2].max())
    return PaintedSurface(mesh, paint, (0.0, 0.0, 0.4 * top), 1.7, 0.9, 46.0)


def mesh_on_ground(mesh: Mesh, seed: int = 0) -> tuple[Mesh, Albedo]:
    """Set a mesh on an uneven square of gravel.

    Args:
        mesh: in the axes of its file, which may have y or z up: of the two, the direction in which the mesh
            is shorter becomes z, so that it rests on its broad side.
        seed: of the gravel.

    Returns:
        The joined mesh, z up, the object's longest side 1 and its lowest point at the ground; and the
        reflectance of both.
    """
    xyz = mesh.vertices.astype(np.float64)
    extent = np.ptp(xyz, axis=0)
    if extent[1] <= extent[2]:
        xyz = np.stack([xyz[:, 0], -xyz[:, 2], xyz[:, 1]], axis=1)
    low, high = xyz.min(axis=0), xyz.max(axis=0)
    xyz = (xyz - [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]]) / max((high - low).max(), 1e-12)
    own = replace(mesh, vertices=xyz.astype(np.float32))
    ground = ground_mesh(1.5, seed=seed + 3)
    joined = join_meshes([Mesh(own.vertices, own.faces), ground])
    paint = texture_albedo(own) if own.texture is not None else vertex_color_albedo(own)
    gravel = solid_albedo(seed)
    objects = len(own.faces)

    def albedo(samples: SurfaceSamples) -> Float32[np.ndarray, "n 3"]:
        color = np.empty((len(samples.face), 3), np.float32)
        for inside, own_albedo in ((samples.face < objects, paint), (samples.face >= objects, gravel)):
            part = SurfaceSamples(
                samples.position[inside],
                samples.normal[inside],
                samples.face[inside],
                samples.weights[inside],
                samples.footprint[inside],
            )
            if len(part.face):
                color[inside] = own_albedo(part)
        # Paint darker or brighter than any real one would leave nothing for the light to do.
        return np.clip(color, 0.02, 0.9)

    return joined, albedo


def mesh_file(scene: str) -> Path:
    """The mesh of a scene that is given by a path, or by a card whose layout names a mesh."""
    from recon.datasets.cards import load_cards

    if Path(scene).is_file():
        return Path(scene)
    cards = {name: card for name, card in load_cards().items() if "mesh" in card.layout}
    if scene in cards:
        path = cards[scene].folder() / cards[scene].layout["mesh"]
        if path.is_file():
            return path
        raise ReconError(f"{path}: is not there; {cards[scene].name} should have it")
    names = ", ".join([*BENCHMARK_SCENES, *cards])
    raise UsageError(f"no rendered scene {scene!r}; there are: {names}, or the path of a .obj or .glb file")


def mesh_name(path: Path) -> str:
    """Name the scene of a mesh: many files are just called mesh, in a folder that says of what."""
    generic = path.stem.lower() in {"mesh", "model", "scene", "textured", "textured_simple"}
    return path.resolve().parent.name if generic else path.stem
