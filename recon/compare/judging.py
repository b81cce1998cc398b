"""A run's report, kept on disk so that nothing is judged twice."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from recon import evaluation
from recon.compare.plan import Scene
from recon.engine.files import atomic_path
from recon.engine.workspace import read_manifest
from recon.errors import ReconError
from recon.evaluation.bootstrap import Interval, PairedTest, Statistic, paired_difference
from recon.evaluation.repeats import judge_repeatability
from recon.evaluation.report import RunReport
from recon.evaluation.run import judge_run

FORMAT = 1
"""Raised when the file's layout changes."""

REPEATABILITY = "matches.repeatability"

_CURVE_POINTS = 160
"""A curve keeps so many points: more cannot be seen on a screen."""


@dataclass(frozen=True)
class Judgement:
    """A ``RunReport`` as it is kept on disk.

    Attributes:
        metrics: name to value.
        intervals: confidence intervals of those that are statistics over photos or pairs.
        samples: their values (item to value), and the statistic as it can be named on disk ("" where it cannot).
        curves: name to label, unit, x and y.
        notes: what could not be judged.
    """

    metrics: dict[str, float]
    intervals: dict[str, Interval] = field(default_factory=dict)
    samples: dict[str, tuple[str, dict[str, float]]] = field(default_factory=dict)
    curves: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def judged(run: Path, scene: Scene, kept: Path, *, seed: int = 0) -> Judgement:
    """The report of a run; read from ``kept`` if neither the run nor the truth has changed since.

    Raises:
        ReconError: as ``judge_run``.
    """
    key = _key(run, scene, seed)
    found = _read(kept, key)
    if found is None:
        report = judge_run(run, scene.truth, seed=seed)
        found = from_report(report, seed=seed)
        _write(kept, key, found)
    return found


def judged_repeatability(
    runs: Sequence[Path], scene: Scene, kept: Path, *, seed: int = 0
) -> dict[str, float]:
    """How much of each pair's matches comes again in runs with other seeds; read from ``kept`` if nothing changed.

    Raises:
        ReconError: one of the runs is not there.
    """
    text = "repeatability ".join(_key(run, scene, seed) for run in runs)
    key = hashlib.sha256(text.encode()).hexdigest()
    found = _read(kept, key)
    if found is None:
        values = {_item(pair): value for pair, value in judge_repeatability(runs, seed=seed).items()}
        found = Judgement({}, samples={REPEATABILITY: ("", values)})
        _write(kept, key, found)
    return found.samples[REPEATABILITY][1]


def from_report(report: RunReport, *, seed: int = 0) -> Judgement:
    """What is kept of a report."""
    return Judgement(
        metrics=report.rows(),
        intervals=dict(report.intervals(seed=seed)),
        samples={
            name: (statistic_name(s.statistic), {_item(key): float(v) for key, v in s.values.items()})
            for name, s in report.samples.items()
        },
        curves={
            name: {"label": c.label, "unit": c.unit, **_thinned(np.asarray(c.x), np.asarray(c.y))}
            for name, c in report.curves.items()
        },
        notes=tuple(report.notes),
    )


def difference(name: str, a: Judgement, b: Judgement, *, seed: int = 0) -> PairedTest | None:
    """The paired difference of a metric, A minus B; None where it is no statistic over photos or pairs."""
    if name not in a.samples or name not in b.samples:
        return None
    statistic = statistic_of(a.samples[name][0])
    if statistic is None:
        return None
    left: dict[Hashable, float] = dict(a.samples[name][1].items())
    right: dict[Hashable, float] = dict(b.samples[name][1].items())
    return paired_difference(left, right, statistic, seed=seed)


def truth_fingerprint(scene: Scene) -> str:
    """Hash of what is known of a scene: its cameras, and the files of its surface by size and date."""
    digest = hashlib.sha256()
    truth = scene.truth
    if truth is None:
        return ""
    for name, camera in sorted(truth.cameras.items()):
        digest.update(name.encode())
        digest.update(np.concatenate([camera.K.ravel(), camera.cam_from_world.ravel()]).tobytes())
    files = [path for path in (truth.mesh, *truth.points) if path is not None]
    for path in files:
        status = path.stat()
        digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    digest.update(f"{truth.layout}\0{truth.unit_in_metres}\0{truth.depth is not None}".encode())
    return digest.hexdigest()


def statistic_name(statistic: Statistic) -> str:
    """How a statistic is written on disk, so that ``statistic_of`` finds it again; "" where that cannot be."""
    inner: Any = statistic.func if isinstance(statistic, partial) else statistic
    arguments: dict[str, Any] = {}
    if isinstance(statistic, partial):
        if statistic.args:
            return ""
        arguments = dict(statistic.keywords)
    elif is_dataclass(statistic) and not isinstance(statistic, type):
        inner, arguments = type(statistic), asdict(statistic)
    name = getattr(inner, "__qualname__", "<")
    if "<" in name:
        return ""
    kind = "object" if isinstance(inner, type) else "function"
    text = json.dumps([kind, inner.__module__, name, arguments])
    return text if statistic_of(text) is not None else ""


def statistic_of(text: str) -> Statistic | None:
    """The statistic of a name by ``statistic_name``; only those of recon's evaluation are taken."""
    if not text:
        return None
    kind, module, name, arguments = json.loads(text)
    if not str(module).startswith(f"{evaluation.__name__}."):
        return None
    found = getattr(import_module(module), name, None)
    if found is None:
        return None
    return found(**arguments) if kind == "object" else partial(found, **arguments) if arguments else found


def _key(run: Path, scene: Scene, seed: int) -> str:
    manifest = read_manifest(run)
    if manifest is None:
        raise ReconError(f"{run}: there is no run")
    stages = {name: (one.fingerprint, one.state, one.seconds) for name, one in manifest.stages.items()}
    text = json.dumps([FORMAT, seed, stages, truth_fingerprint(scene), _code_fingerprint()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _code_fingerprint() -> str:
    """Hash of the code that judges: numbers of another version of it must not stand beside new ones."""
    digest = hashlib.sha256()
    for path in sorted(Path(evaluation.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _item(key: Hashable) -> str:
    return " — ".join(map(str, key)) if isinstance(key, tuple) else str(key)


def _thinned(x: np.ndarray, y: np.ndarray) -> dict[str, list[float]]:
    if len(x) > _CURVE_POINTS:
        rows = np.unique(np.rint(np.linspace(0, len(x) - 1, _CURVE_POINTS)).astype(int))
        x, y = x[rows], y[rows]
    keep = np.isfinite(x) & np.isfinite(y)
    return {"x": [float(v) for v in x[keep]], "y": [float(v) for v in y[keep]]}


def _read(path: Path, key: str) -> Judgement | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if data.get("key") != key:
        return None
    return Judgement(
        data["metrics"],
        {name: Interval(**value) for name, value in data["intervals"].items()},
        {name: (s, values) for name, (s, values) in data["samples"].items()},
        data["curves"],
        tuple(data["notes"]),
    )


def _write(path: Path, key: str, found: Judgement) -> None:
    data: dict[str, Any] = {"key": key, **asdict(found)}
    write_text(path, json.dumps(data))


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is there complete, or not at all."""
    with atomic_path(path, durable=False) as temporary:
        temporary.write_text(text, encoding="utf-8")


def finite(value: Any) -> Any:
    """The same value with None where a number is not finite, for JSON that every reader takes."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(one) for one in value]
    return value
