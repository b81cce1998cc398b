"""Accuracy over difficulty: one scene rendered at several values of one difficulty, compared at each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recon.compare.engine import compare_scene
from recon.compare.options import Options
from recon.compare.plan import Contender, Scene
from recon.compare.report import write_comparison
from recon.compare.results import Log, SceneResult
from recon.errors import ReconError, UsageError

FOLDER = "sweep"


@dataclass(frozen=True)
class Sweep:
    """A series of rendered scenes.

    Attributes:
        parameter: a name of ``recon.synthetic.difficulties.difficulties``.
        values: of it, in order.
        scene: kind of scene, or the path of a textured mesh.
        photos: of each scene.
        size: (width, height) of the photos.
        seed: of the scene.
    """

    parameter: str
    values: tuple[float, ...]
    scene: str
    photos: int
    size: tuple[int, int]
    seed: int


def parse_sweep(text: str, scene: str, photos: int, size: str, seed: int) -> Sweep:
    """Read "name=v1,v2,…" and the size "480x360".

    Raises:
        UsageError: an unknown difficulty, no numbers, or no size.
    """
    from recon.datasets.cards import load_cards
    from recon.synthetic.difficulties import difficulties
    from recon.synthetic.surfaces import BENCHMARK_SCENES

    name, equals, listed = text.partition("=")
    known = difficulties()
    if name not in known or not equals:
        raise UsageError(
            f"--sweep {text}: write DIFFICULTY=V1,V2,..., for example zoom=1,2,3; difficulties: {', '.join(known)}"
        )
    try:
        values = tuple(float(value) for value in listed.split(",") if value.strip())
    except ValueError:
        raise UsageError(f"--sweep {text}: the values must be numbers") from None
    if not values or len(set(values)) < len(values):
        raise UsageError(f"--sweep {text}: give one or more different values")
    found = re.fullmatch(r"(\d+)x(\d+)", size.strip().lower())
    if found is None:
        raise UsageError(f"--sweep-size {size}: write WIDTHxHEIGHT, for example 480x360")
    kind = scene or next(iter(BENCHMARK_SCENES))
    if kind not in (*BENCHMARK_SCENES, *load_cards()) and not Path(kind).is_file():
        raise UsageError(
            f"{kind}: with --sweep, name a kind of scene ({', '.join(BENCHMARK_SCENES)}), a mesh (.obj, .glb), or a "
            "data set that is one"
        )
    return Sweep(name, values, kind, photos, (int(found[1]), int(found[2])), seed)


def compare_sweep(
    sweep: Sweep, contenders: Sequence[Contender], options: Options, out: Path, say: Log
) -> tuple[Path, Path, Path]:
    """Render, compare at each value and write the comparison after each of them; returns the files.

    Raises:
        UsageError: a value out of its range. ReconError: no value could be compared.
    """
    results: list[SceneResult] = []
    values: list[str] = []
    files: tuple[Path, Path, Path] | None = None
    last = ""
    for value in sweep.values:
        folder = out / FOLDER / f"{sweep.parameter}={value:g}"
        say(f"{sweep.parameter} {value:g}: rendering {sweep.photos} photos")
        scene = _scene(sweep, value, folder / "scene")
        try:
            result = compare_scene(scene, contenders, options, folder, say)
        except UsageError:
            raise
        except ReconError as error:
            say(f"{scene.name}: {error}")
            last = str(error)
            continue
        results.append(result)
        values.append(f"{value:g}")
        files = write_comparison(results, out, (sweep.parameter, values))
    if files is None:
        raise ReconError(f"--sweep {sweep.parameter}: no value could be compared; the last one: {last}")
    return files


def _scene(sweep: Sweep, value: float, folder: Path) -> Scene:
    from recon.synthetic.difficulties import render_benchmark_scene

    truth = render_benchmark_scene(
        folder,
        scene=sweep.scene,
        seed=sweep.seed,
        photos=sweep.photos,
        size=sweep.size,
        **{sweep.parameter: value},
    )
    kind = Path(sweep.scene).stem
    return Scene(f"{kind}, {sweep.parameter} {value:g}", truth.images, truth, folder)
