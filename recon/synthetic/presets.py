"""Named scenes: each preset is a function of the photos' size, a seed and the coarseness of its mesh.

A module that defines further presets marks them with ``@preset`` and is named in ``_MODULES``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np

from recon.core.mesh import Mesh
from recon.errors import UsageError
from recon.synthetic.files import write_scene
from recon.synthetic.materials import facade_albedo, solid_albedo
from recon.synthetic.paths import arc_path, grid_path, pinhole_views, zoom_path
from recon.synthetic.reliefs import facade_height
from recon.synthetic.rendering import Lighting
from recon.synthetic.scene import SyntheticScene, render_scene
from recon.synthetic.shapes import height_field_mesh, object_mesh

# (width, height) of the photos or None for the preset's own, seed, factor on the distance between vertices.
Preset: TypeAlias = Callable[[tuple[int, int] | None, int, float], SyntheticScene]

_PRESETS: dict[str, Preset] = {}

# Modules that define presets of their own; imported when a preset is asked for.
_MODULES: tuple[str, ...] = ("recon.synthetic.repeated", "recon.synthetic.aerial", "recon.synthetic.large")


def preset(name: str) -> Callable[[Preset], Preset]:
    """Register a function under a name that ``make_scene`` takes."""

    def register(make: Preset) -> Preset:
        if name in _PRESETS:
            raise ValueError(f"there is a synthetic scene {name!r} already")
        _PRESETS[name] = make
        return make

    return register


def presets() -> list[str]:
    """List the names that ``make_scene`` takes."""
    for module in _MODULES:
        import_module(module)
    return list(_PRESETS)


def make_scene(
    preset: str, size: tuple[int, int] | None = None, seed: int = 0, coarseness: float = 1.0
) -> SyntheticScene:
    """Render one of the named scenes.

    Args:
        preset: one of ``presets()``.
        size: (width, height) of the photos; None for the preset's own.
        seed: of textures, paths and noise.
        coarseness: factor on the distance between the surface's vertices; quick drafts.

    Raises:
        UsageError: no such preset.
    """
    names = presets()
    if preset not in names:
        raise UsageError(f"no synthetic scene {preset!r}; there are: {', '.join(names)}")
    return _PRESETS[preset](size, seed, coarseness)


def make_demo(folder: Path, seed: int = 0, size: tuple[int, int] | None = None) -> Path:
    """Render the demo scene into a folder (see ``write_scene``) and return the folder with its photos.

    A scene that is already there is left as it is.
    """
    folder = Path(folder)
    if not (folder / "truth" / "mesh.ply").is_file():
        write_scene(make_scene("demo", size, seed), folder)
    return folder / "images"


def _wall(seed: int, spacing: float) -> Mesh:
    return height_field_mesh(facade_height(seed), (-3.4, 3.4), (0.0, 4.3), spacing)


@preset("relief")
def _relief(size: tuple[int, int] | None, seed: int, coarseness: float) -> SyntheticScene:
    """Twelve photos of a façade, in two rows."""
    views = pinhole_views(
        grid_path(6, 2, (0, 0, 2.0), (0.85, 0.9), 4.6, 0.45, seed, 0.05), *(size or (800, 600)), 62
    )
    return render_scene("relief", _wall(seed, 0.01 * coarseness), facade_albedo(seed), views, seed=seed)


@preset("zoom")
def _zoom(size: tuple[int, int] | None, seed: int, coarseness: float) -> SyntheticScene:
    """Ten photos of a façade in two groups whose distances differ by 2.6."""
    seed += 11
    poses = zoom_path(((4, 6.0, 2.8), (6, 2.3, 2.6)), (0, 0, 2.0), seed, 0.04)
    views = pinhole_views(poses, *(size or (800, 600)), 62)
    return render_scene("zoom", _wall(seed, 0.01 * coarseness), facade_albedo(seed), views, seed=seed)


@preset("object")
def _object(size: tuple[int, int] | None, seed: int, _: float) -> SyntheticScene:
    """Twenty photos round a knot on a pedestal; its mesh is always the fine one."""
    views = pinhole_views(arc_path(20, (0, 0, 0.6), 2.9, 360, 1.5, seed, 0.03), *(size or (800, 600)), 46)
    return render_scene("object", object_mesh(), solid_albedo(seed), views, Lighting(samples=16), seed=seed)


@preset("turntable")
def _turntable(size: tuple[int, int] | None, seed: int, _: float) -> SyntheticScene:
    """Ten photos of the knot on a turntable: it turns by 100 degrees, the camera and a textured wall behind it stand
    still. Cameras and depth are those of the object."""
    width, height = size or (640, 480)
    views = pinhole_views(arc_path(10, (0, 0, 0.6), 2.9, 100, 1.2), width, height, 40)
    scene = render_scene(
        "turntable", object_mesh(), solid_albedo(seed), views, Lighting(samples=4), samples=1, seed=seed
    )
    noise = np.random.default_rng(seed).uniform(0, 255, (height, width, 3)).astype(np.float32)
    wall = sum(cv2.GaussianBlur(noise, (0, 0), sigma) * sigma - 127 * (sigma - 1) for sigma in (1.5, 6.0)) / 2
    wall = np.clip(wall, 0, 255).astype(np.uint8)
    images = tuple(
        np.where(mask[..., None], image, wall) for image, mask in zip(scene.images, scene.masks, strict=True)
    )
    return replace(scene, images=images)


@preset("demo")
def _demo(size: tuple[int, int] | None, seed: int, coarseness: float) -> SyntheticScene:
    """Eight small photos of a façade, on an arc."""
    seed += 5
    views = pinhole_views(arc_path(8, (0, 0, 2.0), 4.4, 56, 0.2, seed, 0.06), *(size or (640, 480)), 64)
    mesh = _wall(seed, 0.0125 * coarseness)
    return render_scene("demo", mesh, facade_albedo(seed), views, Lighting(samples=8), seed=seed)
