"""A comparison without runs behind it: two contenders that differ, one that is as good as the best, one that failed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recon.compare.evaluation import Evaluation, from_report
from recon.compare.options import Options
from recon.compare.plan import Contender, Scene
from recon.compare.results import Entry, SceneResult
from recon.evaluation.report import Curve, RunReport, Samples

PHOTOS = tuple(f"photo{i:02d}.jpg" for i in range(12))


def evaluation(center: float, noise: float, seed: int, **metrics: float) -> Evaluation:
    """Errors per photo round a value, with what the photos have in common and noise of the contender's own."""
    common = np.random.default_rng(0).normal(0, 0.5, len(PHOTOS))
    values = center + common + noise * np.random.default_rng(seed).normal(0, 1, len(PHOTOS))
    samples = {"poses.mean_error": Samples(dict(zip(PHOTOS, values.tolist(), strict=True)), "mean")}
    x = np.linspace(0, 5, 1000)
    curve = Curve("pairs of photos", "pixels", x, 1 - np.exp(-x / center))
    found = {"poses.mean_error": float(values.mean()), **metrics}
    return from_report(RunReport(found, samples=samples, curves={"matches.epipolar": curve}))


def entry(label: str, found: Evaluation, error: str = "") -> Entry:
    return Entry(
        Contender(label, "siftflow"),
        Path("/nowhere") / label,
        error,
        evaluation=found,
        metrics=dict(found.metrics),
        stage_seconds={"match": 3.0, "depth": 2.0},
    )


def entries() -> list[Entry]:
    return [
        entry("good", evaluation(2.0, 0.2, 1, **{"cost.seconds": 30.0, "mesh.f_20mm": 0.8})),
        entry("same", evaluation(2.0, 0.2, 2, **{"cost.seconds": 20.0, "mesh.f_20mm": 0.7})),
        entry("worse", evaluation(3.0, 0.2, 3, **{"cost.seconds": 10.0, "mesh.f_20mm": float("nan")})),
        entry(
            "broken</script><b>",
            Evaluation({"cost.seconds": 1.0, "run.points": 5.0}),
            "it said </script><script>alert(1)</script> & stopped",
        ),
    ]


def result(folder: Path, name: str = "made-up") -> SceneResult:
    made = SceneResult(Scene(name, folder), Options(), folder, entries(), "each contender's own", PHOTOS, 20)
    made.notes.append("A note with <angle brackets>.")
    return made
