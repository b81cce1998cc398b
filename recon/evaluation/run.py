"""All metrics of a run that is on disk, as one flat table and as values per photo and per pair."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from recon.datasets.ground_truth import GroundTruth
from recon.errors import ReconError
from recon.evaluation.bootstrap import (
    Interval,
    PairedTest,
    Statistic,
    confidence_interval,
    mean,
    median,
    paired_difference,
)
from recon.evaluation.cost import evaluate_cost
from recon.evaluation.poses import evaluate_poses, poses_from_colmap

AUC_LIMITS = (1.0, 3.0, 5.0, 10.0, 20.0)
"""Degrees: 5, 10 and 20 of SuperGlue (Sarlin et al. 2020), 1 and 3 of the Image Matching Challenges."""

Pair = tuple[str, str]


@dataclass(frozen=True)
class Curve:
    """A share (0…1) over an error: how much of the whole is at least so good.

    Attributes:
        label: what the share is of.
        unit: of the error.
        x: errors, ascending.
        y: share at each error.
    """

    label: str
    unit: str
    x: Float64[np.ndarray, " n"]
    y: Float64[np.ndarray, " n"]


@dataclass(frozen=True)
class Samples:
    """Where a metric comes from: the values per photo or per pair and how they make one number."""

    values: Mapping[Hashable, float]
    statistic: Statistic


@dataclass(frozen=True)
class RunReport:
    """All that could be judged of a run.

    Attributes:
        metrics: flat name to value; see docs/metrics.md. What could not be judged is absent.
        per_photo: quantity to photo name to value.
        per_pair: quantity to pair of photo names (in order) to value; infinite for a miss.
        curves: error-over-threshold curves by name.
        samples: for metrics that are a statistic over photos or pairs, the values and the statistic.
        notes: what could not be judged, and why.
    """

    metrics: Mapping[str, float]
    per_photo: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    per_pair: Mapping[str, Mapping[Pair, float]] = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)
    samples: Mapping[str, Samples] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def rows(self) -> dict[str, float]:
        """Flat metric names and their values."""
        return dict(self.metrics)

    def intervals(self, *, level: float = 0.95, seed: int = 0) -> dict[str, Interval]:
        """Bootstrap confidence intervals of the metrics that are statistics over photos or pairs."""
        return {
            name: confidence_interval(list(s.values.values()), s.statistic, level=level, seed=seed)
            for name, s in self.samples.items()
        }


def compare_reports(
    a: RunReport, b: RunReport, *, level: float = 0.95, seed: int = 0
) -> dict[str, PairedTest]:
    """Compute, for each metric that both runs have values per photo or pair of, the difference of A and B over
    the same photos or pairs, and whether it is inside the noise."""
    return {
        name: paired_difference(s.values, b.samples[name].values, s.statistic, level=level, seed=seed)
        for name, s in a.samples.items()
        if name in b.samples
    }


def judge_run(
    run: Path, truth: GroundTruth | None, *, thresholds: Sequence[float] | None = None, seed: int = 0
) -> RunReport:
    """Compute all metrics that a run on disk and what is known of its scene allow.

    Args:
        run: a workspace of recon, finished or not, or a folder with a COLMAP model in ``sparse/0``.
        truth: what is known of the scene; None judges what needs no truth.
        thresholds: distances for surfaces and points, in metres where the truth's unit is known in metres, else
            in the truth's units; None for 2, 5, 10, 20, 50, 100 and 200 mm (or 0.1% to 2% of the extent).
        seed: of all sampling.

    Returns:
        The report. What is missing on disk is noted, not raised.

    Raises:
        ReconError: the folder does not exist, or the truth is that of another scene (no camera name in common).
    """
    run = Path(run)
    if not run.is_dir():
        raise ReconError(f"{run}: no such folder; name the folder of a run")
    judge = _Judge(run, truth, thresholds, seed)
    judge.poses()
    judge.cost()
    return judge.report()


class _Judge:
    """Collects what the parts of an evaluation find."""

    def __init__(
        self, run: Path, truth: GroundTruth | None, thresholds: Sequence[float] | None, seed: int
    ) -> None:
        self.run, self.truth, self.thresholds, self.seed = run, truth, thresholds, seed
        self.metrics: dict[str, float] = {}
        self.per_photo: dict[str, dict[str, float]] = {}
        self.per_pair: dict[str, dict[Pair, float]] = {}
        self.curves: dict[str, Curve] = {}
        self.samples: dict[str, Samples] = {}
        self.notes: list[str] = []

    def report(self) -> RunReport:
        return RunReport(
            self.metrics, self.per_photo, self.per_pair, self.curves, self.samples, tuple(self.notes)
        )

    def _statistic(
        self, name: str, values: Mapping[Hashable, float], statistic: Callable[..., float]
    ) -> None:
        array = np.array(list(values.values()), np.float64)
        self.metrics[name] = statistic(array)
        self.samples[name] = Samples(values, statistic)

    def poses(self) -> None:
        """Cameras against the known ones."""
        if self.truth is None or not self.truth.cameras:
            return
        known = self.truth.poses()
        model = self.run / "sparse" / "0"
        estimated = poses_from_colmap(model) if model.is_dir() else {}
        if estimated and not set(estimated) & set(known):
            raise ReconError(
                f"{model} and the truth {self.truth.name} share no photo name ({min(estimated)}, {min(known)}); "
                "name the truth of this scene"
            )
        if len(set(estimated) & set(known)) < 2:
            self.notes.append(f"poses: {len(set(estimated) & set(known))} camera registered of {len(known)}")
        self.metrics["registered.share"] = len(set(estimated) & set(known)) / len(known)
        if len(set(estimated) & set(known)) < 2:
            return
        report = evaluate_poses(estimated, known, AUC_LIMITS)
        self._statistic(
            "poses.mean_error", dict(zip(report.names, report.center_errors.tolist(), strict=True)), mean
        )
        self._statistic("poses.median_error", self.samples["poses.mean_error"].values, median)
        for limit in AUC_LIMITS:
            self.metrics[f"poses.auc_{limit:g}"] = report.auc[limit]

    def cost(self) -> None:
        """Time, memory, disk."""
        if not (self.run / "manifest.json").is_file():
            self.notes.append("cost: no manifest.json, so time and memory are unknown")
            return
        cost = evaluate_cost(self.run)
        self.metrics["cost.seconds"] = cost.seconds
        self.metrics["cost.cpu_seconds"] = cost.cpu_seconds
        self.metrics["cost.seconds_per_pair"] = cost.seconds_per_pair
        self.metrics["cost.peak_memory_mb"] = cost.peak_memory_mb
        self.metrics["cost.bytes_on_disk"] = float(cost.bytes_on_disk)
