"""The smaller and the larger of two numbers in kernels, beside those of Python."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from recon.core.kernels import kernel, maximum, minimum


@kernel()
def _both(a, b):  # type: ignore[no-untyped-def]
    return minimum(a, b), maximum(a, b)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (np.float32, (-1.5, 0.0, 2.5, np.inf)),
        (np.float64, (-1.5, 0.0, 2.5, -np.inf)),
        (np.int32, (-7, 0, 7)),
        (np.uint16, (0, 1, 65535)),
        (np.uint32, (0, 1, 4294967295)),
    ],
)
def test_as_python_has_them(kind: Any, values: tuple[float, ...]) -> None:
    for a, b in product(values, values):
        assert _both(kind(a), kind(b)) == (min(a, b), max(a, b))


def test_numbers_of_two_kinds_become_one_that_holds_both() -> None:
    assert _both(np.int32(-3), np.float64(-2.5)) == (-3.0, -2.5)
    assert _both(np.float32(0.5), 2) == (0.5, 2.0)
    assert _both(np.int32(-1), np.uint16(65535)) == (-1, 65535)


def test_the_first_of_two_where_one_is_no_number() -> None:
    assert _both(1.0, float("nan")) == (1.0, 1.0)
    assert np.isnan(_both(float("nan"), 1.0)).all()
