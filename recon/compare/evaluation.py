"""Evaluations of runs, kept on disk so that nothing is evaluated twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from recon import evaluation
from recon.compare.plan import Scene
from recon.errors import ReconError
from recon.evaluation.bootstrap import Interval, PairedTest, paired_difference, statistic
from recon.evaluation.repeats import repeatability_of_runs
from recon.evaluation.report import Curve, RunReport, Samples
from recon.evaluation.run import evaluate_run
from recon.io.files import atomic_path, parse_json
from recon.io.manifest import read_manifest

FORMAT = 2
"""Raised when the layout of the files changes."""

REPEATABILITY = "matches.repeatability"


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a ``RunReport``: items of samples are texts, intervals are computed.

    Attributes:
        metrics: name to value.
        intervals: confidence intervals of those that are statistics over photos or pairs.
        samples: their values.
        curves: by name.
        notes: what could not be evaluated.
    """

    metrics: dict[str, float]
    intervals: dict[str, Interval] = field(default_factory=dict)
    samples: dict[str, Samples] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def evaluated(run: Path, scene: Scene, file: Path, *, seed: int = 0) -> Evaluation:
    """The evaluation of a run; read from ``file`` if neither the run nor the truth has changed since.

    Raises:
        ReconError: as ``evaluate_run``.
    """

    def evaluate() -> dict[str, Any]:
        found = from_report(evaluate_run(run, scene.truth, seed=seed), seed=seed)
        curves = {n: {**vars(c), "x": c.x.tolist(), "y": c.y.tolist()} for n, c in found.curves.items()}
        return {**asdict(found), "curves": curves}

    data = stored(file, _key(run, scene, seed), evaluate)
    return Evaluation(
        data["metrics"],
        {name: Interval(**value) for name, value in data["intervals"].items()},
        {name: Samples(**value) for name, value in data["samples"].items()},
        {
            name: Curve(c["label"], c["unit"], np.array(c["x"]), np.array(c["y"]))
            for name, c in data["curves"].items()
        },
        tuple(data["notes"]),
    )


def evaluated_repeatability(
    runs: Sequence[Path], scene: Scene, file: Path, *, seed: int = 0
) -> dict[str, float]:
    """Share of each pair's matches that runs with other seeds find again; read from ``file`` if nothing changed.

    Raises:
        ReconError: one of the runs is not there.
    """

    def evaluate() -> dict[str, float]:
        return {_item(pair): value for pair, value in repeatability_of_runs(runs, seed=seed).items()}

    text = "repeatability ".join(_key(run, scene, seed) for run in runs)
    found: dict[str, float] = stored(file, hashlib.sha256(text.encode()).hexdigest(), evaluate)
    return found


def from_report(report: RunReport, *, seed: int = 0) -> Evaluation:
    """Take the metrics of a comparison from a report."""
    return Evaluation(
        report.rows(),
        dict(report.intervals(seed=seed)),
        {
            name: Samples({_item(key): np.asarray(v).tolist() for key, v in s.values.items()}, s.statistic)
            for name, s in report.samples.items()
        },
        dict(report.curves),
        tuple(report.notes),
    )


def difference(name: str, a: Evaluation, b: Evaluation, *, seed: int = 0) -> PairedTest | None:
    """The paired difference of a metric, A minus B; None where it is no statistic over photos or pairs."""
    if name not in a.samples or name not in b.samples:
        return None
    left, right = a.samples[name], b.samples[name]
    return paired_difference(left.values, right.values, statistic(left.statistic), seed=seed)


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


def _key(run: Path, scene: Scene, seed: int) -> str:
    manifest = read_manifest(run)
    if manifest is None:
        raise ReconError(f"{run}: there is no run")
    stages = {name: (one.fingerprint, one.state, one.seconds) for name, one in manifest.stages.items()}
    text = json.dumps([FORMAT, seed, stages, truth_fingerprint(scene), _code_fingerprint()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _code_fingerprint() -> str:
    """Hash of the code that evaluates: numbers of another version of it must not stand beside new ones."""
    digest = hashlib.sha256()
    for path in sorted(Path(evaluation.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _item(key: Hashable) -> str:
    return " — ".join(map(str, key)) if isinstance(key, tuple) else str(key)


def stored(file: Path, key: str, make: Callable[[], Any]) -> Any:
    """A JSON value from a file, made and written anew where the file was made for another key or is damaged."""
    try:
        data = parse_json(file.read_text(encoding="utf-8"))
        if data["key"] == key:
            return data["value"]
    except (OSError, ValueError, TypeError, KeyError):
        pass
    text = json.dumps({"key": key, "value": make()})
    write_text(file, text)
    return parse_json(text)["value"]


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is there complete, or not at all."""
    with atomic_path(path, durable=False) as temporary:
        temporary.write_text(text, encoding="utf-8")
