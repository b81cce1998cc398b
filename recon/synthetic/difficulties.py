"""Scenes of one difficulty: everything else equal, one thing made harder by a stated amount."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from recon.datasets.types import GroundTruth
from recon.errors import UsageError
from recon.io.files import file_sha256, parse_json
from recon.synthetic.files import write_scene
from recon.synthetic.materials import plainer, tiled, vertex_albedo
from recon.synthetic.paths import look_at, pinhole_views
from recon.synthetic.rendering import Lighting
from recon.synthetic.scene import SyntheticScene, render_scene
from recon.synthetic.sensor import Sensor
from recon.synthetic.surfaces import (
    BENCHMARK_SCENES,
    PaintedSurface,
    mesh_file,
    mesh_name,
    painted_surface,
)


@dataclass(frozen=True)
class Difficulty:
    """One thing that makes matching hard, and how much of it.

    Attributes:
        meaning: what the number says, with its unit.
        low, high: range that is allowed.
        default: what a scene has that does not name it.
    """

    meaning: str
    low: float
    high: float
    default: float


_DIFFICULTIES: Mapping[str, Difficulty] = {
    "baseline": Difficulty("degrees between neighbouring cameras, seen from the scene", 1, 25, 8),
    "zoom": Difficulty("ratio of the distances of every second camera to those of the others", 1, 8, 1),
    "roll": Difficulty("degrees by which neighbouring cameras are turned about their axis", 0, 90, 0),
    "exposure": Difficulty("stops: exposures are spread from minus to plus so much", 0, 3, 0),
    "noise": Difficulty("standard deviation at middle grey, in grey levels of 255", 0, 40, 1),
    "blur": Difficulty("standard deviation of the lens blur in pixels", 0, 6, 0.6),
    "low_texture": Difficulty("share of the texture's contrast (logarithmic) that is taken away", 0, 1, 0),
    "repeated_texture": Difficulty("share of the texture that is one tile over and over", 0, 1, 0),
    "specularity": Difficulty("strength of highlights that move with the camera; 1 is a wet stone", 0, 1, 0),
}


_LAMPS = ((-0.5, -1.0, 0.15), (0.7, -1.0, 0.5), (0.1, -0.6, 1.2))
"""Broad lights on the cameras' side: their reflections move over the surface from photo to photo."""


_VERSION = 2
"""Of the rendering: raised when the same scene would come out different."""


def difficulties() -> dict[str, Difficulty]:
    """List what makes ``render_benchmark_scene`` harder, with ranges, by name."""
    return dict(_DIFFICULTIES)


def make_benchmark_scene(
    scene: str,
    *,
    seed: int = 0,
    photos: int = 6,
    size: tuple[int, int] = (640, 480),
    coarseness: float = 1.0,
    **difficulty: float,
) -> SyntheticScene:
    """Render photos of a scene at stated difficulties, everything else being equal.

    For one seed the surface, its paint, the light, the places from which the cameras deviate and the pattern
    of the noise are the same whatever the difficulties: two values of one difficulty differ in that alone.

    Args:
        scene: one of ``BENCHMARK_SCENES``, or the path of a textured mesh.
        seed: of surface, paint, cameras and noise.
        photos: how many, at least two; on an arc before the scene.
        size: (width, height) in pixels.
        coarseness: factor on the distance between vertices of what is made here; quick drafts.
        difficulty: see ``difficulties``.

    Raises:
        UsageError: no such scene or difficulty, or a value out of its range.
        ReconError: the mesh cannot be read.
    """
    hard = _checked(scene, photos, size, difficulty)
    surface = painted_surface(scene, seed, coarseness)
    mesh, albedo = surface.mesh, surface.albedo
    mean = vertex_albedo(mesh, albedo, 0.01).astype(np.float64).mean(axis=0).astype(np.float32)
    if hard["repeated_texture"] > 0:
        albedo = tiled(albedo, mean, hard["repeated_texture"], surface.tile, seed)
    if hard["low_texture"] > 0:
        albedo = plainer(albedo, mean, hard["low_texture"])
    poses = _benchmark_path(photos, surface, hard, seed)
    # Evenly spread, so that few photos have the whole spread; in an order that the seed shuffles.
    steps = np.random.default_rng((seed, 2)).permutation(np.linspace(-1, 1, photos))
    return render_scene(
        scene if scene in BENCHMARK_SCENES else mesh_name(mesh_file(scene)),
        mesh,
        albedo,
        pinhole_views(poses, *size, surface.field_of_view),
        # A glossy surface sends away less light of its own colour.
        Lighting(
            sun_strength=0.75 * (1 - 0.3 * hard["specularity"]),
            sky_strength=0.55 * (1 - 0.3 * hard["specularity"]),
            samples=10,
            specular=0.5 * hard["specularity"],
            shininess=24,
            lamps=_LAMPS,
            smoothing=4,
        ),
        # No JPEG: its losses would be a difficulty that nobody asked for.
        Sensor(hard["blur"], 0.0, *_electrons(hard["noise"]), jpeg_quality=0),
        seed=seed,
        exposures=[2.0 ** (hard["exposure"] * float(step)) for step in steps],
    )


def render_benchmark_scene(
    out: Path,
    *,
    scene: str,
    seed: int,
    photos: int = 6,
    size: tuple[int, int] = (640, 480),
    **difficulty: float,
) -> GroundTruth:
    """Write a scene of ``make_benchmark_scene`` into a folder and return its truth.

    The same arguments give the same bytes. A folder that already holds just this scene is left as it is.

    Args:
        out: folder of the scene; made if it is not there.
        scene, seed, photos, size, difficulty: as in ``make_benchmark_scene``.

    Raises:
        UsageError: no such scene or difficulty, a value out of its range, or the folder holds something else.
        ReconError: the mesh cannot be read.
    """
    from recon.datasets.ground_truth import load_ground_truth

    out = Path(out)
    hard = _checked(scene, photos, size, difficulty)
    wanted = {
        "version": _VERSION,
        "scene": scene if scene in BENCHMARK_SCENES else file_sha256(mesh_file(scene)),
        "seed": seed,
        "photos": photos,
        "size": list(size),
        "difficulty": hard,
    }
    stamp, begun = out / "scene.json", out / "scene.json.part"
    found = _stamp(stamp)
    if found == wanted:
        return load_ground_truth(out)
    if found is not None and found | {"version": _VERSION} != wanted:
        raise UsageError(f"{out}: holds another rendered scene; name another folder or remove this one")
    if found is None and (out / "cameras.json").exists() and _stamp(begun) != wanted:
        raise UsageError(f"{out}: holds another scene; name another folder or remove this one")
    made = make_benchmark_scene(scene, seed=seed, photos=photos, size=size, **difficulty)
    # Renamed when all is written: a scene with this file is whole, one without was cut off.
    stamp.unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    begun.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
    write_scene(made, out)
    os.replace(begun, stamp)
    return load_ground_truth(out)


def _stamp(path: Path) -> dict[str, Any] | None:
    """A scene file's note of how it was made; None without a file."""
    if not path.is_file():
        return None
    try:
        document = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _checked(
    scene: str, photos: int, size: tuple[int, int], difficulty: Mapping[str, float]
) -> dict[str, float]:
    """All difficulties with their values; what is not named has its default."""
    if scene not in BENCHMARK_SCENES:
        mesh_file(scene)
    if photos < 2 or min(size) < 16:
        raise UsageError("a rendered scene has at least 2 photos of at least 16 x 16 pixels")
    values = {name: one.default for name, one in _DIFFICULTIES.items()}
    for name, value in difficulty.items():
        if name not in _DIFFICULTIES:
            raise UsageError(f"no difficulty {name!r}; there are: {', '.join(_DIFFICULTIES)}")
        allowed = _DIFFICULTIES[name]
        if not allowed.low <= value <= allowed.high:
            raise UsageError(f"{name} is from {allowed.low:g} to {allowed.high:g}, not {value:g}")
        values[name] = float(value)
    span = values["baseline"] * (photos - 1)
    if span > 150 and scene in BENCHMARK_SCENES and BENCHMARK_SCENES[scene].is_wall:
        raise UsageError(
            f"{photos} cameras {values['baseline']:g} degrees apart would look at a wall from behind; "
            f"at most {int(150 / values['baseline']) + 1} photos, or a smaller baseline"
        )
    return values


def _benchmark_path(
    photos: int, surface: PaintedSurface, hard: Mapping[str, float], seed: int
) -> list[Float64[np.ndarray, "3 4"]]:
    """Cameras on an arc, near and far in turn, each a little off its place and its aim."""
    rng = np.random.default_rng((seed, 1))
    aim, distance = np.asarray(surface.target, np.float64), surface.distance
    poses = []
    for i in range(photos):
        # The far ones move back less than the near ones move in: a wall would be lost in its sky.
        scale = hard["zoom"] ** (0.4 if i % 2 == 0 else -0.6)
        angle = math.radians(hard["baseline"] * (i - (photos - 1) / 2))
        offset = np.array([distance * math.sin(angle), -distance * math.cos(angle), surface.height]) * scale
        eye = aim + offset + rng.normal(0, 0.01, 3) * distance * scale
        roll = math.radians(hard["roll"]) * (0.5 if i % 2 == 0 else -0.5)
        poses.append(look_at(eye, aim + rng.normal(0, 0.015, 3) * distance * scale, roll=roll))
    return poses


def _electrons(noise: float) -> tuple[float, float]:
    """Full well and read noise (electrons) of a sensor with so much noise, in grey levels at middle grey.

    Middle grey is 127.5 of 255, so light is 0.5 ** 2.2 of white, and a step of light is
    0.5 / (2.2 * light) steps of grey. Variance in electrons is light * full_well + read_noise².
    """
    if noise <= 0:
        return 0.0, 0.0
    light, read_noise = 0.5**2.2, 8.0
    sigma = noise / 255 * 2.2 * light / 0.5
    full_well = (light + math.sqrt(light**2 + 4 * sigma**2 * read_noise**2)) / (2 * sigma**2)
    return full_well, read_noise
