"""Bootstrap intervals of a mean over photos or pairs, and tests of differences between methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float, Float64

Value = float | Sequence[float]
"""Of one photo or pair: a number, or counts of which the statistic makes a share."""

Statistic = Callable[[Float64[np.ndarray, "n ..."]], float]
"""A number made of the values of all photos or pairs: a mean, a median, an area under a curve, a share of sums."""

RESAMPLES = 2000
"""Efron & Tibshirani 1993, section 14.5: at least 1000 for the ends of a 95% interval."""


@dataclass(frozen=True)
class Interval:
    """A statistic with its confidence interval.

    Attributes:
        value: of all the values.
        low, high: ends of the interval; NaN for fewer than two values.
        count: how many values there were.
    """

    value: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class PairedTest:
    """The difference of two methods on the same photos or pairs.

    Attributes:
        difference: statistic of A minus statistic of B.
        low, high: confidence interval of the difference; NaN for fewer than two items in common.
        inside_noise: True when the interval holds zero (or cannot be had): no claim can be made.
        count: how many items both methods have.
    """

    difference: float
    low: float
    high: float
    inside_noise: bool
    count: int


def statistic(name: str) -> Statistic:
    """Look up a statistic: "mean", "median", "ratio" and "f" of counts, or "auc_5" for the area under the recall curve
    of errors up to 5.

    Raises:
        ValueError: there is no such statistic.
    """
    if name in _NAMED:
        return _NAMED[name]
    kind, _, limit = name.partition("_")
    if kind != "auc" or not limit:
        raise ValueError(f"no statistic is called {name!r}")
    return partial(area_under_curve, limit=float(limit))


def mean(values: Float64[np.ndarray, " n"]) -> float:
    """Compute the mean, NaN of nothing."""
    return float(np.mean(values)) if len(values) else float("nan")


def median(values: Float64[np.ndarray, " n"]) -> float:
    """Compute the median, NaN of nothing."""
    return float(np.median(values)) if len(values) else float("nan")


def ratio(counts: Float64[np.ndarray, "n 2"]) -> float:
    """Compute the sum of the first column over that of the second, NaN where the latter is 0."""
    part, whole = counts.sum(axis=0) if len(counts) else (0.0, 0.0)
    return float(part / whole) if whole > 0 else float("nan")


def f_score(counts: Float64[np.ndarray, "n 4"]) -> float:
    """Compute the harmonic mean of two ratios, of the first two columns and of the last two; 0 where one is 0 or
    NaN."""
    precision, recall = ratio(counts[:, :2]), ratio(counts[:, 2:])
    return 2 * precision * recall / (precision + recall) if precision > 0 and recall > 0 else 0.0


def known(values: Iterable[Value]) -> Float64[np.ndarray, "n ..."]:
    """The values without those that are NaN."""
    data = np.array(list(values), np.float64)
    return data[~np.isnan(data).any(axis=tuple(range(1, data.ndim)))]


def area_under_curve(errors: Float[np.ndarray, " n"], limit: float) -> float:
    """Compute the area under the recall curve of errors up to a limit, in 0…1 (trapezoids between the sorted
    errors, as in Sarlin et al., SuperGlue, CVPR 2020, section 5.2)."""
    if len(errors) == 0:
        return 0.0
    ordered = np.sort(np.asarray(errors, np.float64))
    recall = np.arange(1, len(ordered) + 1) / len(ordered)
    ordered, recall = np.r_[0.0, ordered], np.r_[0.0, recall]
    last = int(np.searchsorted(ordered, limit))
    x, y = np.r_[ordered[:last], limit], np.r_[recall[:last], recall[last - 1]]
    return float(((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2).sum() / limit)


_NAMED: Mapping[str, Statistic] = {"mean": mean, "median": median, "ratio": ratio, "f": f_score}


def confidence_interval(
    values: Iterable[Value],
    statistic: Statistic = mean,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Compute a percentile bootstrap interval of a statistic.

    Photos or pairs are drawn with replacement, as many as there are, and the statistic of each draw is taken; the
    interval holds the middle ``level`` of those (Efron & Tibshirani, "An introduction to the bootstrap", 1993,
    section 13.3). Values that are NaN are left out first; infinite ones stay (a miss is a miss).

    Args:
        values: one per photo or pair.
        statistic: of an array of values.
        level: in 0…1.
        resamples: how many draws.
        seed: of the draws.
    """
    data = known(values)
    value = float(statistic(data)) if len(data) else float("nan")
    if len(data) < 2:
        return Interval(value, float("nan"), float("nan"), len(data))
    draws = np.random.default_rng(seed).integers(0, len(data), (resamples, len(data)))
    found = np.array([statistic(data[rows]) for rows in draws])
    low, high = _ends(found, level)
    return Interval(value, low, high, len(data))


def paired_difference(
    a: Mapping[Any, Value],
    b: Mapping[Any, Value],
    statistic: Statistic = mean,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PairedTest:
    """Compute the difference of two methods over the items that both have, and whether it is inside the noise.

    The items are drawn with replacement, the same draw for both methods, so that an item that is hard for both
    does not widen the interval (paired bootstrap; Koehn, "Statistical significance tests for machine translation
    evaluation", EMNLP 2004, section 4).

    Args:
        a, b: item (photo name, pair of names) to value; NaN means that the method has no value for the item.
        statistic, level, resamples, seed: as in ``confidence_interval``.
    """
    items = [key for key in a if key in b and not np.isnan(a[key]).any() and not np.isnan(b[key]).any()]
    nan = float("nan")
    if not items:
        return PairedTest(nan, nan, nan, True, 0)
    left = np.array([a[key] for key in items], np.float64)
    right = np.array([b[key] for key in items], np.float64)
    difference = float(statistic(left) - statistic(right))
    if len(items) < 2:
        return PairedTest(difference, nan, nan, True, len(items))
    draws = np.random.default_rng(seed).integers(0, len(items), (resamples, len(items)))
    found = np.array([statistic(left[rows]) - statistic(right[rows]) for rows in draws])
    low, high = _ends(found, level)
    inside = bool(np.isnan(low) or np.isnan(high) or low <= 0.0 <= high)
    return PairedTest(difference, low, high, inside, len(items))


def _ends(found: Float64[np.ndarray, " n"], level: float) -> tuple[float, float]:
    """The ends of the middle ``level`` of the found statistics; infinite ones are kept as they are."""
    if np.isnan(found).any():
        return float("nan"), float("nan")
    ordered = np.sort(found)
    last = len(ordered) - 1
    # Whole ranks rather than interpolation: halfway between a number and infinity is no number.
    low = ordered[int(np.floor((1 - level) / 2 * last))]
    high = ordered[int(np.ceil((1 + level) / 2 * last))]
    return float(low), float(high)
