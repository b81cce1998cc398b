"""The report of an evaluation: metrics, the values behind them, curves and notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float64

from recon.evaluation.bootstrap import (
    Interval,
    Value,
    confidence_interval,
    known,
    statistic,
)
from recon.run.folder import NamePair

# Metres: the thresholds of benchmarks; those between 0.04% and 2.5% of the scene's extent are taken.
_STEPS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
# Of the extent, where the unit is unknown.
_SHARES = (0.001, 0.002, 0.005, 0.01, 0.02)


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
    """Single values behind a metric.

    Attributes:
        values: per photo or per pair.
        statistic: how they make one number, by its name (``bootstrap.statistic``).
    """

    values: Mapping[Any, Value]
    statistic: str


@dataclass(frozen=True)
class RunReport:
    """All that could be evaluated of a run.

    Attributes:
        metrics: flat name to value; see docs/metrics.md. What could not be evaluated is absent.
        per_photo: quantity to photo name to value.
        per_pair: quantity to pair of photo names (in order) to value; infinite for a miss.
        curves: error-over-threshold curves by name.
        samples: for metrics that are a statistic over photos or pairs, the values and the statistic.
        notes: what could not be evaluated, and why.
    """

    metrics: Mapping[str, float]
    per_photo: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    per_pair: Mapping[str, Mapping[NamePair, float]] = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)
    samples: Mapping[str, Samples] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def rows(self) -> dict[str, float]:
        """Flat metric names and their values."""
        return dict(self.metrics)

    def intervals(self, *, level: float = 0.95, seed: int = 0) -> dict[str, Interval]:
        """Bootstrap confidence intervals of the metrics that are statistics over photos or pairs."""
        return {
            name: confidence_interval(s.values.values(), statistic(s.statistic), level=level, seed=seed)
            for name, s in self.samples.items()
        }


class ReportBuilder:
    """Collects what the parts of an evaluation find."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self.per_photo: dict[str, dict[str, float]] = {}
        self.per_pair: dict[str, dict[NamePair, float]] = {}
        self.curves: dict[str, Curve] = {}
        self.samples: dict[str, Samples] = {}
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """Add a note, once."""
        if text not in self.notes:
            self.notes.append(text)

    def statistic(self, name: str, values: Mapping[Any, Value], kind: str) -> None:
        """Add a metric that is a statistic of values; those that are NaN are left out of it."""
        array = known(values.values())
        self.metrics[name] = statistic(kind)(array) if len(array) else float("nan")
        self.samples[name] = Samples(dict(values), kind)

    def photos(self, name: str, values: Mapping[str, float], kind: str = "mean") -> None:
        """Add a metric that is a statistic over photos, with its values."""
        self.per_photo[name] = dict(values)
        self.statistic(name, values, kind)

    def pairs(self, name: str, values: Mapping[NamePair, float], kind: str = "mean") -> None:
        """Add a metric that is a statistic over pairs, with its values."""
        self.per_pair[name] = dict(values)
        self.statistic(name, values, kind)

    def report(self) -> RunReport:
        """The report of all that was added."""
        return RunReport(
            self.metrics, self.per_photo, self.per_pair, self.curves, self.samples, tuple(self.notes)
        )


def evaluation_thresholds(
    extent: float, unit_in_metres: float | None, thresholds: Sequence[float] | None = None
) -> list[tuple[str, float]]:
    """Choose the distances at which surfaces are judged, with the names that they have in metrics.

    Args:
        extent: size of the scene in the truth's units.
        unit_in_metres: of the truth; None where unknown.
        thresholds: given ones: in metres, or in the truth's units where no metre is known.

    Returns:
        (name, distance in the truth's units), ascending: "20mm", or "1pct" of the extent, or "0.5u" units.
    """
    if thresholds is not None:
        chosen = sorted(float(t) for t in thresholds)
        if unit_in_metres is None:
            return [(f"{t:g}u", t) for t in chosen]
        return [(f"{1000 * t:g}mm", t / unit_in_metres) for t in chosen]
    if unit_in_metres is None:
        return [(f"{100 * share:g}pct", share * extent) for share in _SHARES]
    size = extent * unit_in_metres
    suited = [t for t in _STEPS if 0.0004 * size <= t <= 0.025 * size] or [0.01 * size]
    return [(f"{1000 * t:g}mm", t / unit_in_metres) for t in suited]
