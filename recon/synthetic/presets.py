"""Named scenes: each preset is a function of the photos' size, a seed and the coarseness of its mesh.

A module that defines further presets marks them with ``@preset`` and is named in ``_MODULES``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np

from recon.core.cameras import PinholeView
from recon.core.mesh import Mesh
from recon.errors import UsageError
from recon.synthetic.files import write_cameras_and_surface, write_scene
from recon.synthetic.materials import Albedo, facade_albedo, solid_albedo
from recon.synthetic.paths import arc_path, grid_path, pinhole_views, zoom_path
from recon.synthetic.reliefs import facade_height
from recon.synthetic.rendering import Lighting
from recon.synthetic.scene import SyntheticScene, render_scene, with_reflectance
from recon.synthetic.shapes import height_field_mesh, object_mesh

# (width, height) of the photos or None for the preset's own, seed, factor on the distance between vertices.
Preset: TypeAlias = Callable[[tuple[int, int] | None, int, float], SyntheticScene]

_PRESETS: dict[str, Preset] = {}

DEMO_PHOTOS = Path(__file__).with_name("demo")
"""The demo's photos, as files of the package."""

_DEMO_SIZE = (640, 480)

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
    """Put the demo scene into a folder and return the folder with its photos.

    The photos of the usual size and seed come with the package (``scripts/demo_photos.py`` makes them); others are
    rendered, and have the truth of each view beside them (see ``write_scene``). A scene that is already there is left
    as it is.
    """
    folder = Path(folder)
    if not (folder / "truth" / "mesh.ply").is_file():
        if seed == 0 and size in (None, _DEMO_SIZE):
            _copy_demo(folder)
        else:
            write_scene(make_scene("demo", size, seed), folder)
    return folder / "images"


def _copy_demo(folder: Path) -> None:
    """Copy the photos that come with the package; cameras and surface follow from the seed."""
    mesh, albedo, views = _demo_parts(_DEMO_SIZE, 0, 1.0)
    views = [replace(view, name=Path(view.name).with_suffix(".jpg").name) for view in views]
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for view in views:
        shutil.copyfile(DEMO_PHOTOS / view.name, folder / "images" / view.name)
    write_cameras_and_surface(folder, "demo", views, with_reflectance(mesh, albedo))


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
    mesh, albedo, views = _demo_parts(size, seed, coarseness)
    return render_scene("demo", mesh, albedo, views, Lighting(samples=8), seed=seed + 5)


def _demo_parts(
    size: tuple[int, int] | None, seed: int, coarseness: float
) -> tuple[Mesh, Albedo, Sequence[PinholeView]]:
    """Surface, reflectance and cameras of the demo."""
    seed += 5
    views = pinhole_views(arc_path(8, (0, 0, 2.0), 4.4, 56, 0.2, seed, 0.06), *(size or _DEMO_SIZE), 64)
    return _wall(seed, 0.0125 * coarseness), facade_albedo(seed), views
