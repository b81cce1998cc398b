"""Confidence intervals: coverage of the true value, SciPy's bootstrap, and paired differences."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from recon.evaluation.bootstrap import (
    area_under_curve,
    confidence_interval,
    mean,
    median,
    paired_difference,
    statistic,
)


def test_against_scipy() -> None:
    values = np.random.default_rng(1).gamma(2.0, 3.0, 40)
    found = confidence_interval(values, seed=4)
    other = stats.bootstrap(
        (values,), np.mean, n_resamples=5000, method="percentile", rng=np.random.default_rng(0)
    )
    spread = values.std() / np.sqrt(40)
    assert found.low == pytest.approx(other.confidence_interval.low, abs=0.15 * spread)
    assert found.high == pytest.approx(other.confidence_interval.high, abs=0.15 * spread)
    assert found.value == pytest.approx(values.mean())


def test_the_interval_holds_the_true_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(200):
        found = confidence_interval(rng.normal(5.0, 2.0, 40), resamples=400, seed=seed)
        held += found.low <= 5.0 <= found.high
    # 95% of 200, less what the percentile interval loses at n = 40, plus or minus three standard deviations.
    assert 0.87 <= held / 200 <= 0.99


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12), st.integers(0, 99))
def test_seeded_and_ordered(values: list[float], seed: int) -> None:
    found = confidence_interval(values, resamples=200, seed=seed)
    assert found == confidence_interval(values, resamples=200, seed=seed)
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9


def test_shares_of_sums() -> None:
    """Photos are drawn whole, with all that they hold: a large one weighs more than a small one."""
    counts = {"a": (1, 2, 3, 4), "b": (8, 10, 1, 2), "c": (float("nan"), 1, 1, 1)}
    rows = np.array([counts["a"], counts["b"]], float)
    assert statistic("ratio")(rows[:, :2]) == 9 / 12
    p, r = 9 / 12, 4 / 6
    assert statistic("f")(rows) == pytest.approx(2 * p * r / (p + r))
    assert statistic("f")(np.zeros((2, 4))) == 0.0
    assert math.isnan(statistic("ratio")(np.zeros((0, 2))))
    found = confidence_interval(counts.values(), statistic("f"))
    assert (found.count, found.value) == (2, pytest.approx(2 * p * r / (p + r)))
    draws = [statistic("f")(rows[drawn]) for drawn in ([0, 0], [0, 1], [1, 1])]
    assert (found.low, found.high) == (min(draws), max(draws))
    # Worse by as much in every photo: sure, however far the photos lie apart.
    less = {name: (a - 0.1 * b, b, c, d) for name, (a, b, c, d) in counts.items()}
    test = paired_difference(counts, less, statistic("f"))
    assert test.count == 2
    assert 0 < test.low <= test.difference
    assert not test.inside_noise


def test_few_and_missing_values() -> None:
    assert confidence_interval([float("nan"), 3.0]).value == 3.0
    assert math.isnan(confidence_interval([3.0]).low)
    nothing = confidence_interval([])
    assert math.isnan(nothing.value)
    assert nothing.count == 0


def test_misses_stay_misses() -> None:
    """Infinite errors count in an area under a curve; in a mean they make it infinite, not NaN."""
    errors = [0.5, 1.0, math.inf, math.inf]
    found = confidence_interval(errors, partial(area_under_curve, limit=5.0), seed=1)
    assert 0 <= found.low < found.value < found.high <= 1
    assert confidence_interval(errors, median).high == math.inf


def test_paired_difference_sees_what_unpaired_intervals_hide() -> None:
    rng = np.random.default_rng(5)
    hard = rng.uniform(0, 100, 30)
    a = {f"{i}": float(v) for i, v in enumerate(hard)}
    b = {f"{i}": float(v + 1 + rng.normal(0, 0.2)) for i, v in enumerate(hard)}
    one, two = confidence_interval(list(a.values())), confidence_interval(list(b.values()))
    assert one.high > two.low
    test = paired_difference(a, b)
    assert test.difference == pytest.approx(-1.0, abs=0.15)
    assert test.high < 0
    assert not test.inside_noise


def test_no_difference_is_inside_the_noise() -> None:
    rng = np.random.default_rng(6)
    inside = 0
    for seed in range(60):
        a, b = (dict(enumerate(rng.normal(size=25).tolist())) for _ in range(2))
        inside += paired_difference(a, b, resamples=300, seed=seed).inside_noise
    assert inside >= 50


def test_only_shared_items_are_compared() -> None:
    test = paired_difference({"a": 1.0, "b": 2.0, "c": float("nan")}, {"b": 5.0, "c": 1.0, "d": 9.0})
    assert test.count == 1
    assert test.difference == -3.0
    assert test.inside_noise
    empty = paired_difference({}, {"a": 1.0}, mean)
    assert math.isnan(empty.difference)
    assert empty.inside_noise


def test_statistics_by_name() -> None:
    errors = np.array([0.5, 2.0, 4.0])
    for name, expected in (("mean", 6.5 / 3), ("median", 2.0), ("auc_5", area_under_curve(errors, 5.0))):
        assert statistic(name)(errors) == pytest.approx(expected)
    for name in ("mode", "auc", "auc_"):
        with pytest.raises(ValueError, match="no statistic"):
            statistic(name)
