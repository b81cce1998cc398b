#!/usr/bin/env python3
"""How far the stated trust of a run is the true one: rendered runs and real scenes with known cameras.

    python benchmarks/trust_calibration.py [--keep FOLDER] [--only SET ...] [--redo] [--plot docs/trust.png]
    python benchmarks/trust_calibration.py --dense [--keep FOLDER]

Eight photos of 400 pixels are rendered for each of the sets (scenes x motions x lenses), and matched once with the
recipe ``sift``. Each set then gives many runs of the stages ``verify``, ``tracks`` and ``map``: intrinsics given,
guessed, told by EXIF or wrong; photos that were zoomed or cropped and taken for those of one camera; few, noisy or
swapped matches; a given pinhole for a lens that bends. The faults are brought into the matches and into what is known
of the cameras. Real scenes of ``RECON_DATA`` with true cameras get the same where they are there.

``--dense`` takes real scenes through the default recipe to the cameras, and prints what is stated beside the truth.

Printed: the stated uncertainty beside the true error, how often verdicts are right at the thresholds of the program,
and which thresholds one half of the sets would choose, judged on the other half. Runs that are done are kept in
``--keep`` and not done again.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from _common import data_root, machine, table
from _lenses import bay, photograph_lenses
from PIL import Image
from trust_cases import pinhole

from recon.api import reconstruct, stages
from recon.core.cameras import FOCAL_AND_CENTRE, Intrinsics
from recon.core.colmap import pycolmap
from recon.datasets.given_cameras import read_cameras
from recon.engine.recipe import load_recipe
from recon.engine.stage import StageContext
from recon.errors import ReconError
from recon.matching.types import SparseMatch
from recon.photos.types import PhotoSet
from recon.run.folder import RunFolder
from recon.run.matches import save_sparse_match
from recon.sfm.camera_tests import CameraTest
from recon.sfm.evidence import centre_differences, extent_of, model_arrays, uncertainty
from recon.sfm.trust import Figures, Thresholds, judge
from recon.synthetic.paths import look_at

SIZE = (400, 300)
COUNT = 8
Matches = dict[tuple[int, int], SparseMatch]

# Matches of a pair are thinned to so many in the mean: the verdict is to hold with few, and runs stay cheap.
MATCHES = 250
# What goals say: a sound run errs by less than the first, a run that errs by more than the second is not sound.
GOOD, BAD = 0.01, 0.05


@dataclass(frozen=True)
class Given:
    """A set: true cameras and matches as they were found, before any fault."""

    photos: PhotoSet
    truth: tuple[Intrinsics, ...]
    matches: Matches


# ---- sets ----------------------------------------------------------------------------------------


def motion(kind: str, seed: int) -> list[np.ndarray]:
    """Poses of eight photos of a bay."""
    rng = np.random.default_rng(seed)
    poses = []
    for i in range(COUNT):
        s = i / (COUNT - 1) - 0.5
        lift = rng.uniform(-0.3, 0.3)
        if kind.startswith("arc"):
            angle, r = np.radians(float(kind[3:])) * s, 4.6 * (1 + rng.uniform(-0.06, 0.06))
            eye, aim = (
                [r * np.sin(angle), -1.0 - r * np.cos(angle), 2 + lift],
                [rng.uniform(-0.3, 0.3), -1.0, 2.0],
            )
        elif kind == "line":
            eye = [3.0 * s, -4.8 + rng.uniform(-0.1, 0.1), 2 + 0.3 * lift]
            aim = [eye[0] + rng.uniform(-0.1, 0.1), 0.0, 2.0]
        elif kind == "forward":
            eye = [0.3 * np.sin(9 * s), -5.5 + 2.2 * (s + 0.5), 2 + lift * 0.5]
            aim = [rng.uniform(-0.2, 0.2), 0.0, 2.0]
        elif kind == "cloud":
            eye = [rng.uniform(-1.5, 1.5), -4.6 + rng.uniform(-0.8, 0.8), 2 + rng.uniform(-1, 1)]
            aim = [rng.uniform(-0.4, 0.4), 0.0, 2 + rng.uniform(-0.3, 0.3)]
        else:  # a tripod: turns, and moves as its head lets it
            eye = np.array([0.0, -4.8, 2.0]) + rng.normal(size=3) * float(kind[6:] or 0)
            aim = eye + np.array([np.sin(0.7 * s), np.cos(0.7 * s), lift * 0.2])
        poses.append(look_at(eye, aim))
    return poses


WIDE = pinhole(95, SIZE, "OPENCV", (-0.25, 0.06, 0.0, 0.0))
MILD = pinhole(62, SIZE, "SIMPLE_RADIAL", (-0.06,))
LENSES = {"plain": pinhole(60, SIZE), "long": pinhole(38, SIZE), "mild": MILD, "wide": WIDE}
# Name: seed of the scene, its bend (0 is a wall with some relief), motion, lens.
SETS: dict[str, tuple[int, float, str, str]] = {
    "arc50": (0, 0.1, "arc50", "plain"),
    "arc25": (1, 0.1, "arc25", "mild"),
    "line": (0, 0.1, "line", "plain"),
    "line-wall": (1, 0.0, "line", "mild"),
    "cloud": (0, 0.1, "cloud", "mild"),
    "cloud-wall": (1, 0.0, "cloud", "plain"),
    "forward": (0, 0.1, "forward", "plain"),
    "forward-wall": (1, 0.0, "forward", "mild"),
    "arc8": (0, 0.1, "arc8", "plain"),
    "arc12-long": (1, 0.1, "arc12", "long"),
    "arc40-wide": (0, 0.1, "arc40", "wide"),
    "cloud-wide": (1, 0.1, "cloud", "wide"),
    "tripod": (0, 0.1, "tripod", "plain"),
    "tripod-head": (1, 0.1, "tripod0.02", "mild"),
    "tripod-long": (1, 0.1, "tripod0.01", "long"),
}
REAL = (
    "strecha/fountain-P11",
    "strecha/Herz-Jesus-P8",
    "strecha/entry-P10",
    "middlebury_mvs/templeSparseRing",
)


def base_run(name: str, root: Path) -> tuple[Path, dict[str, np.ndarray], tuple[Intrinsics, ...]]:
    """Photos of a set matched once: the workspace, true centres by photo, true intrinsics of each photo."""
    folder = root / "sets" / name.replace("/", "-")
    if name in SETS:
        seed, bend, kind, lens = SETS[name]
        poses = motion(kind, zlib.crc32(name.encode()))
        centres = {f"{i:04d}.png": -p[:, :3].T @ p[:, 3] for i, p in enumerate(poses)}
        source = folder / "images"
        if not source.is_dir():
            made = photograph_lenses(bay(seed, 0.06, bend), [LENSES[lens]] * COUNT, poses, seed)
            source.mkdir(parents=True)
            for photo, one in zip(centres, made, strict=True):
                Image.fromarray(one.rgb).save(source / photo)
        cameras = dict.fromkeys(centres, LENSES[lens])
    else:
        source = data_root() / "datasets" / name
        true = read_cameras(source)
        centres = {photo: camera.center for photo, camera in true.items()}
        cameras = {photo: camera.intrinsics for photo, camera in true.items()}
        source = next((source / sub for sub in ("images", "photos") if (source / sub).is_dir()), source)
    out = folder / "run"
    reconstruct(
        source, out, recipe="sift", quality="preview", threads=1, stop_after="match",
        overrides=["photos.max_size=640", "pairs.exhaustive_limit=20"],
    )  # fmt: skip
    used = RunFolder(out).photo_set.photos
    truth = tuple(cameras[photo.name].resized(photo.width, photo.height) for photo in used)
    return out, centres, truth


# ---- faults --------------------------------------------------------------------------------------


def with_cameras(given: Given, cameras: Sequence[Intrinsics]) -> Given:
    """One camera for each photo, those that are equal shared."""
    found = list(dict.fromkeys(cameras))
    photos = tuple(
        replace(photo, camera=found.index(one))
        for photo, one in zip(given.photos.photos, cameras, strict=True)
    )
    return replace(given, photos=replace(given.photos, photos=photos, cameras=tuple(found)))


def scaled(camera: Intrinsics, factor: float, **more: Any) -> Intrinsics:
    """The camera with its focal length times a factor."""
    ix, iy, _, _ = FOCAL_AND_CENTRE[camera.model]
    params = tuple(v * factor if i in (ix, iy) else v for i, v in enumerate(camera.params))
    return replace(camera, params=params, **more)


def known(factor: float = 1.0) -> Callable[[Given, np.random.Generator], Given]:
    """Given intrinsics whose focal length errs by a factor."""
    return lambda g, _: with_cameras(
        g, [scaled(c, factor, known=True, has_focal_prior=True) for c in g.truth]
    )


def known_pinhole(g: Given, _: np.random.Generator) -> Given:
    """Given intrinsics that say nothing of the lens's distortion."""
    return with_cameras(g, [replace(c.pinhole(), known=True, has_focal_prior=True) for c in g.truth])


def known_aside(g: Given, _: np.random.Generator) -> Given:
    """Given intrinsics whose principal point errs by 6% of the width."""
    cameras = []
    for c in g.truth:
        x = FOCAL_AND_CENTRE[c.model][2]
        params = tuple(v + 0.06 * c.width if i == x else v for i, v in enumerate(c.params))
        cameras.append(replace(c, params=params, known=True, has_focal_prior=True))
    return with_cameras(g, cameras)


def guessed(factor: float | None = None) -> Callable[[Given, np.random.Generator], Given]:
    """Nothing is known, or a focal length told by EXIF that errs by a factor."""

    def fault(g: Given, _: np.random.Generator) -> Given:
        cameras = []
        for c in g.truth:
            K = c.K
            f = 1.2 * max(c.width, c.height) if factor is None else float(K[0, 0]) * factor
            params = (f, (c.width - 1) / 2, (c.height - 1) / 2, 0.0)
            cameras.append(
                Intrinsics("SIMPLE_RADIAL", params, c.width, c.height, has_focal_prior=factor is not None)
            )
        return with_cameras(g, cameras)

    return fault


def cut(g: Given, parts: dict[int, tuple[float, float, float]]) -> Given:
    """Photos of which a part was cut out and enlarged to the old size: (share of the side, left, top)."""
    size = [(p.width, p.height) for p in g.photos.photos]

    def moved(xy: np.ndarray, photo: int) -> np.ndarray:
        if photo not in parts:
            return xy
        share, left, top = parts[photo]
        return ((xy + 0.5 - np.array([left, top]) * size[photo]) / share - 0.5).astype(np.float32)

    def inside(xy: np.ndarray, photo: int) -> np.ndarray:
        return (xy >= 0).all(axis=1) & (xy <= np.array(size[photo]) - 1).all(axis=1)

    matches = {}
    for (i, j), match in g.matches.items():
        a, b = moved(match.xy_a, i), moved(match.xy_b, j)
        fine = inside(a, i) & inside(b, j)
        matches[i, j] = SparseMatch(a[fine], b[fine], match.score[fine])
    return replace(g, matches=matches)


def zoomed(
    which: tuple[int, ...] = (1, 3, 6), factor: float = 2.0, prior: float | None = None
) -> Callable[..., Given]:
    """Photos zoomed digitally and taken for those of one camera."""
    share = 1 / factor
    middle = (share, (1 - share) / 2, (1 - share) / 2)
    return lambda g, r: cut(guessed(prior)(g, r), dict.fromkeys(which, middle))


def cropped(g: Given, r: np.random.Generator) -> Given:
    """Photos cropped off centre and enlarged, taken for those of one camera."""
    return cut(guessed(1.0)(g, r), {1: (0.75, 0.0, 0.05), 3: (0.75, 0.25, 0.2), 6: (0.75, 0.05, 0.25)})


def sampled(share: float) -> Callable[[Matches, np.random.Generator], Matches]:
    """A share of the points: of all photos the same ones, since a point of a photo keeps its matches or loses all."""

    def fault(matches: Matches, rng: np.random.Generator) -> Matches:
        seed = rng.integers(1 << 31)

        def lucky(xy: np.ndarray) -> np.ndarray:
            key = np.floor(xy * 16).astype(np.int64) @ [73856093, 19349663] + seed
            return (key * 2654435761 % 4294967296) / 4294967296 < np.sqrt(share)

        kept = {}
        for pair, m in matches.items():
            fine = lucky(m.xy_a) & lucky(m.xy_b)
            kept[pair] = SparseMatch(m.xy_a[fine], m.xy_b[fine], m.score[fine])
        return kept

    return fault


def noisy(pixels: float) -> Callable[[Matches, np.random.Generator], Matches]:
    """Every point of a photo is moved, the same way in all its pairs."""

    def fault(matches: Matches, rng: np.random.Generator) -> Matches:
        shift: dict[tuple[int, bytes], np.ndarray] = {}

        def moved(photo: int, xy: np.ndarray) -> np.ndarray:
            rows = [shift.setdefault((photo, one.tobytes()), rng.normal(0, pixels, 2)) for one in xy]
            return (xy + np.array(rows).reshape(-1, 2)).astype(np.float32)

        return {
            (i, j): SparseMatch(moved(i, m.xy_a), moved(j, m.xy_b), m.score) for (i, j), m in matches.items()
        }

    return fault


def lookalikes(matches: Matches, rng: np.random.Generator) -> Matches:
    """Repeated things: a third of the pairs that lie far apart match as a pair of neighbours does."""
    far = [pair for pair in matches if pair[1] - pair[0] >= 3]
    changed = dict(matches)
    for i, j in far:
        if rng.random() < 0.35 and (i, i + 1) in matches:
            changed[i, j] = matches[i, i + 1]
    return changed


def in_matches(
    fault: Callable[[Matches, np.random.Generator], Matches], cameras: Callable[..., Given]
) -> Callable[[Given, np.random.Generator], Given]:
    """A fault of the matches, with what is known of the cameras."""
    return lambda g, r: replace(cameras(g, r), matches=fault(g.matches, r))


VARIANTS: dict[str, Callable[[Given, np.random.Generator], Given]] = {
    "known": known(),
    "guessed": guessed(),
    "exif": guessed(1.03),
    "exif-wrong": guessed(1.3),
    "known-5%": known(0.95),
    "known+12%": known(1.12),
    "known+30%": known(1.3),
    "known-pinhole": known_pinhole,
    "known-aside": known_aside,
    "zoomed": zoomed(),
    "zoomed-exif": zoomed(prior=1.0),
    "zoomed-1.3": zoomed((0, 2, 5, 7), 1.3, 1.0),
    "cropped": cropped,
    "few-known": in_matches(sampled(0.25), known()),
    "few-guessed": in_matches(sampled(0.25), guessed()),
    "noisy-known": in_matches(noisy(0.7), known()),
    "noisy-guessed": in_matches(noisy(0.7), guessed()),
    "lookalikes": in_matches(lookalikes, known()),
}


# ---- runs ----------------------------------------------------------------------------------------


def run_variant(base: Path, given: Given, out: Path) -> dict[str, Any] | None:
    """Stages ``verify``, ``tracks`` and ``map`` on changed matches and cameras; the verdict as JSON, or why none."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for name in ("photos", "features"):
        (out / name).symlink_to(base / name)
    for name in ("pairs.json", "sparse_matches.npz", "matching.json"):
        shutil.copy(base / name, out / name)
    (out / "matches").mkdir()
    for (i, j), match in given.matches.items():
        save_sparse_match(out / "matches" / f"{i}_{j}.npz", match)
    every = stages()
    settings = load_recipe("sift", every, "preview", ["map.refuse=false"]).settings
    log = logging.getLogger("calibration")
    log.setLevel(logging.CRITICAL)
    RunFolder.of(StageContext(root=out, stage="photos")).write_photo_set(given.photos)
    try:
        for stage in every:
            if stage.name in ("verify", "tracks", "map"):
                stage.run(settings[stage.name], StageContext(root=out, stage=stage.name, threads=1, log=log))
    except ReconError as error:
        return {"verdict": "not a reconstruction", "said": str(error)[:300], "figures": None}
    return RunFolder(out).trust()


def true_error(out: Path, centres: dict[str, np.ndarray]) -> dict[str, Any]:
    """Mean, root mean square and largest error of the centres as shares of the extent of the true ones."""
    folder = out / "sparse" / "0"
    if not folder.is_dir():
        return {"registered": 0}
    model = pycolmap.Reconstruction(folder)
    names = sorted(centres)
    found = {
        names.index(image.name): np.array(image.projection_center())
        for image in model.images.values()
        if image.has_pose and image.name in centres
    }
    truth = {i: centres[names[i]] for i in found}
    extent = extent_of(np.array(list(truth.values())))
    if len(found) < 3 or extent == 0:
        return {"registered": len(found)}
    errors = centre_differences(found, truth) / extent
    rms = float(np.sqrt((errors**2).mean()))
    return {
        "registered": len(found), "mean": float(errors.mean()), "rms": rms, "largest": float(errors.max()),
    }  # fmt: skip


def all_runs(
    root: Path, only: Sequence[str], variants: Sequence[str], redo: bool
) -> Iterator[dict[str, Any]]:
    """The results of all runs, those that are kept or done now."""
    real = [name for name in REAL if (data_root() / "datasets" / name).is_dir()]
    for name in only or [*SETS, *real]:
        kept = root / "results" / f"{name.replace('/', '-')}.json"
        results: dict[str, Any] = json.loads(kept.read_text()) if kept.is_file() else {}
        missing = [one for one in variants if redo or one not in results]
        if missing:
            started = time.process_time()
            base, centres, truth = base_run(name, root)
            run = RunFolder(base)
            matches = {pair: run.sparse_match(pair) for pair in run.matching.pairs}
            mean = np.mean([len(one.score) for one in matches.values()])
            thinner = sampled(min(1.0, MATCHES / mean))
            matches = thinner(matches, np.random.default_rng(0))
            given = Given(run.photo_set, truth, matches)
            for variant in missing:
                out = root / f"now-{os.getpid()}"
                rng = np.random.default_rng(zlib.crc32(f"{name} {variant}".encode()))
                trust = run_variant(base.resolve(), VARIANTS[variant](given, rng), out)
                results[variant] = {"trust": trust, "photos": len(truth), **true_error(out, centres)}
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_text(json.dumps(results, indent=1))
                shutil.rmtree(out, ignore_errors=True)
            print(f"{name}: {time.process_time() - started:.0f} s", file=sys.stderr, flush=True)
        for variant in variants:
            yield {"set": name, "variant": variant, **results[variant]}


def kept_runs(root: Path) -> list[dict[str, Any]]:
    """The results that are kept."""
    return [
        {"set": path.stem, "variant": variant, **one}
        for path in sorted((root / "results").glob("*.json"))
        for variant, one in json.loads(path.read_text()).items()
    ]


def dense_rows(root: Path, only: Sequence[str]) -> Iterator[list[str]]:
    """Of each real scene, root mean squares over the cameras in shares of the extent: by the tracks if each errs for
    itself, and if those of one place of a photo err alike; stated; true."""
    for name in only or [*REAL, "pose_small/lund_door", "pose_small/tnt_barn3"]:
        folder, out = data_root() / "datasets" / name, root / "dense" / name.replace("/", "-")
        given = folder / "cameras.json" if name != "pose_small/lund_door" else None
        reconstruct(
            folder / "images", out, quality="preview", intrinsics=given, threads=1, stop_after="map",
            restart_from="map" if (out / "tracks.npz").exists() else None,
        )  # fmt: skip
        trust, photos = RunFolder(out).trust(), RunFolder(out).photo_set
        assert trust is not None
        arrays = model_arrays(pycolmap.Reconstruction(out / "sparse" / "0"), photos)
        true = {photo: camera.center for photo, camera in read_cameras(folder).items()}
        _, first = np.unique(arrays.point, return_index=True)
        cell = (arrays.xy[first] // (photos.photos[0].width / 16)).astype(int)
        _, block = np.unique(np.column_stack([arrays.photo[first], cell]), axis=0, return_inverse=True)
        alone, alike = (
            np.sqrt((uncertainty(arrays, block=of).centre ** 2).mean()) / arrays.extent
            for of in (None, block.reshape(-1))
        )
        stated, rms = trust["figures"]["centre_deviation"], true_error(out, true)["rms"]
        values = [f"{value:.3%}" for value in (alone, alike, stated, rms)]
        yield [
            name,
            "unknown" if given is None else "known",
            trust["verdict"],
            *values,
            f"{stated / rms:.2f}",
        ]


# ---- what they say -------------------------------------------------------------------------------


def figures_from(stored: dict[str, Any]) -> Figures:
    """The figures of a verdict as JSON."""
    names = {one.name for one in fields(Figures)}
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in stored.items() if key in names}
    values = {k: np.inf if v is None and "halves" not in k else v for k, v in values.items()}
    values["camera_tests"] = tuple(CameraTest(**one) for one in stored.get("camera_tests", ()))
    return Figures(**values)


def verdicts(runs: Sequence[dict[str, Any]], thresholds: Thresholds) -> list[str]:
    """The verdict of each run at these thresholds."""
    return [
        judge(figures_from(run["trust"]["figures"]), thresholds).verdict
        if run["trust"]["figures"] and "noise_px" in run["trust"]["figures"]
        else run["trust"]["verdict"]
        for run in runs
    ]


def error_of(run: dict[str, Any]) -> float:
    """Mean error as a share of the extent; infinite where a run gave no three cameras."""
    return float(run.get("mean", np.inf))


@dataclass(frozen=True)
class Score:
    """How verdicts and errors go together."""

    runs: int
    sound: int
    sound_bad: int
    bad: int
    bad_told: int
    good: int
    good_doubted: int

    def row(self, name: str) -> list[str]:
        """A row of the table."""
        return [
            name, str(self.runs), str(self.sound), f"{self.sound_bad} ({self.sound_bad / max(self.sound, 1):.1%})",
            str(self.bad), f"{self.bad_told} ({self.bad_told / max(self.bad, 1):.0%})",
            f"{self.good_doubted} of {self.good}",
        ]  # fmt: skip


def score(runs: Sequence[dict[str, Any]], thresholds: Thresholds) -> Score:
    """Count right and wrong verdicts."""
    said = np.array(verdicts(runs, thresholds))
    error = np.array([error_of(run) for run in runs])
    sound, bad, good = said == "sound", error > BAD, error <= GOOD
    return Score(
        len(runs), int(sound.sum()), int((sound & (error > GOOD)).sum()), int(bad.sum()), int((bad & ~sound).sum()),
        int(good.sum()), int((good & ~sound).sum()),
    )  # fmt: skip


FACTORS = (0.33, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0)


def chosen_thresholds(runs: Sequence[dict[str, Any]]) -> Thresholds:
    """Thresholds by coordinate descent: wrong runs called sound cost ten, good runs doubted one."""

    def cost(thresholds: Thresholds) -> float:
        found = score(runs, thresholds)
        return 10.0 * (found.sound_bad + found.bad - found.bad_told) + found.good_doubted

    best = Thresholds()
    lowest = cost(best)
    for _ in range(2):
        for one in fields(Thresholds):
            start = getattr(best, one.name)
            if one.name in (
                "far_turn",
                "far_direction",
            ):  # what it asks is decided before the figures are written
                continue
            for factor in FACTORS:
                trial = replace(best, **{one.name: start * factor})
                if cost(trial) < lowest - 1e-9:
                    best, lowest = trial, cost(trial)
    return best


def stated_and_true(runs: Sequence[dict[str, Any]], thresholds: Thresholds) -> np.ndarray:
    """Stated standard deviation and true root mean square error of the runs called sound, as shares of the extent."""
    said = verdicts(runs, thresholds)
    pairs = [
        (figures_from(run["trust"]["figures"]).stated_deviation, run["rms"])
        for run, verdict in zip(runs, said, strict=True)
        if verdict == "sound" and "rms" in run
    ]
    return np.array(pairs).reshape(-1, 2)


def plot(runs: Sequence[dict[str, Any]], path: Path) -> None:
    """Stated against true, coloured by the verdict."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 5))
    axes = figure.subplots()
    said = verdicts(runs, Thresholds())
    for verdict, colour in (
        ("sound", "#2a7f3f"),
        ("doubtful", "#d98a00"),
        ("not a reconstruction", "#b02020"),
    ):
        points = np.array(
            [
                (figures_from(run["trust"]["figures"]).stated_deviation, run["rms"])
                for run, one in zip(runs, said, strict=True)
                if one == verdict and "rms" in run and (run["trust"]["figures"] or {}).get("centre_deviation")
            ]
        ).reshape(-1, 2)
        axes.plot(
            *np.clip(points, 1e-5, 1).T,
            "o",
            ms=4,
            color=colour,
            alpha=0.7,
            label=f"{verdict} ({len(points)})",
        )
    axes.plot([1e-4, 1], [1e-4, 1], color="grey", lw=1)
    axes.axhline(GOOD, color="grey", lw=0.7, ls=":")
    axes.set(xscale="log", yscale="log", xlim=(1e-4, 1), ylim=(1e-4, 1))
    axes.set_xlabel("stated deviation of the camera centres / extent")
    axes.set_ylabel("true error (root mean square) / extent")
    axes.legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def report(runs: Sequence[dict[str, Any]]) -> None:
    """Print the tables."""
    headers = ["runs", "n", "sound", f"sound, error > {GOOD:.0%}", f"error > {BAD:.0%}", "of these told",
               f"error < {GOOD:.0%} doubted"]  # fmt: skip
    names = list(dict.fromkeys(run["set"] for run in runs))
    half = {name: i % 2 for i, name in enumerate(names)}
    a, b = ([run for run in runs if half[run["set"]] == side] for side in (0, 1))
    rows = [score(runs, Thresholds()).row("all, thresholds of the program")]
    for label, fit, ask in (("A, chosen on B", b, a), ("B, chosen on A", a, b)):
        thresholds = chosen_thresholds(fit)
        rows += [score(ask, Thresholds()).row(label[0]), score(ask, thresholds).row(label)]
        changed = {
            one.name: round(getattr(thresholds, one.name), 4)
            for one in fields(Thresholds)
            if getattr(thresholds, one.name) != getattr(Thresholds(), one.name)
        }
        print(f"{label}: {changed}", file=sys.stderr)
    print(table(rows, headers), "\n")
    rows = []
    for variant in VARIANTS:
        mine = [run for run in runs if run["variant"] == variant]
        if not mine:
            continue
        found = np.array([error_of(run) for run in mine])
        one = score(mine, Thresholds())
        rows.append([variant, f"{np.median(found):.2%}", *one.row("")[1:]])
    print(table(rows, ["variant", "median error", *headers[1:]]), "\n")
    pairs = stated_and_true(runs, Thresholds())
    if len(pairs):
        ratio = pairs[:, 0] / np.maximum(pairs[:, 1], 1e-9)
        quantiles = np.quantile(ratio, [0.1, 0.5, 0.9])
        print(
            f"stated over true of the {len(pairs)} sound runs: median {quantiles[1]:.2f}, "
            f"10% below {quantiles[0]:.2f}, 10% above {quantiles[2]:.2f}; within a factor of 2: "
            f"{np.mean((ratio > 0.5) & (ratio < 2)):.0%}\n"
        )
    said = verdicts(runs, Thresholds())
    rows = [
        [run["set"], run["variant"], f"{run['registered']}/{run['photos']}", f"{error_of(run):.2%}"]
        for run, verdict in zip(runs, said, strict=True)
        if verdict == "sound" and error_of(run) > GOOD
    ]
    print("Called sound and wrong:\n")
    print(table(rows, ["set", "variant", "photos", "mean error"]))


def main() -> None:
    """Run what is not done, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="folder for photos and results; a temporary one otherwise")
    parser.add_argument("--only", nargs="*", default=[], help="these sets only")
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--kept", action="store_true", help="report what is kept, and run nothing")
    parser.add_argument("--dense", action="store_true", help="real scenes through the default recipe")
    parser.add_argument("--redo", action="store_true", help="do runs again; photos and matches stay")
    parser.add_argument("--plot", type=Path, help="write the plot here")
    arguments = parser.parse_args()
    root = arguments.keep or Path(tempfile.mkdtemp(prefix="calibration-"))
    if arguments.dense:
        headers = [
            "scene",
            "intrinsics",
            "verdict",
            "tracks alone",
            "in blocks",
            "stated",
            "true",
            "stated / true",
        ]
        print(f"{machine()}\n\n{table(list(dense_rows(root, arguments.only)), headers)}")
        return
    if arguments.kept:
        runs = kept_runs(root)
    else:
        runs = list(all_runs(root, arguments.only, arguments.variants, arguments.redo))
    print(f"{machine()}, {len(runs)} runs\n")
    report(runs)
    if arguments.plot:
        plot(runs, arguments.plot)
    if not arguments.keep:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
