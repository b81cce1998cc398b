"""Check of a matcher's result, before anything is built on it."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from recon.errors import ReconError
from recon.matching.types import DenseMatch, FlowField, SparseMatch

OUTSIDE = 1.0
"""Pixels by which a matched point may lie beyond the centre of the last pixel of its image: half a pixel is the
image's own edge, the rest rounding."""


class BadMatchError(ReconError):
    """A matcher returned what cannot be a match; the message says what is wrong with it."""


def checked_match(
    result: Any, kind: str, size_a: tuple[int, int], size_b: tuple[int, int]
) -> DenseMatch | SparseMatch:
    """Return a matcher's result if it keeps the contract; floating numbers of other widths become float32.

    Args:
        result: what ``match`` returned.
        kind: "dense" or "sparse", as the matcher declares itself.
        size_a, size_b: (width, height) of the images as they were matched.

    Raises:
        BadMatchError: another type, wrong shapes, values that are not finite or not in 0…1 where they must be,
            points outside of the image, consistent pixels whose flow leads out of it.
    """
    if kind == "dense":
        if not isinstance(result, DenseMatch):
            raise BadMatchError(f"it returned {_what(result)}, a DenseMatch was expected")
        a_to_b, consistent_a = _side(result.a_to_b, result.consistent_a, size_a, size_b, "a")
        b_to_a, consistent_b = _side(result.b_to_a, result.consistent_b, size_b, size_a, "b")
        return DenseMatch(a_to_b, b_to_a, consistent_a, consistent_b, result.diagnostics)
    if not isinstance(result, SparseMatch):
        raise BadMatchError(f"it returned {_what(result)}, a SparseMatch was expected")
    count = len(result.xy_a) if isinstance(result.xy_a, np.ndarray) and result.xy_a.ndim else 0
    xy_a, xy_b = _floats("xy_a", result.xy_a, (count, 2)), _floats("xy_b", result.xy_b, (count, 2))
    score = _floats("score", result.score, (count,), unit=True)
    for name, xy, (width, height) in (("xy_a", xy_a, size_a), ("xy_b", xy_b, size_b)):
        outside = ((xy < -OUTSIDE) | (xy > np.array([width, height]) - 1 + OUTSIDE)).any(axis=1)
        if outside.any():
            x, y = xy[outside][0]
            raise BadMatchError(
                f"{name} has {int(outside.sum())} of {count} points outside of the image of {width} x {height} pixels, "
                f"for example ({x:.1f}, {y:.1f})"
            )
    return SparseMatch(xy_a, xy_b, score)


def _side(
    field: Any, consistent: Any, size: tuple[int, int], target: tuple[int, int], side: str
) -> tuple[FlowField, Bool[np.ndarray, "h w"]]:
    name = "a_to_b" if side == "a" else "b_to_a"
    shape = (size[1], size[0])
    flow = _floats(f"{name}.flow", getattr(field, "flow", None), (*shape, 2))
    confidence = _floats(f"{name}.confidence", getattr(field, "confidence", None), shape, unit=True)
    if not isinstance(consistent, np.ndarray) or consistent.shape != shape or consistent.dtype != np.bool_:
        raise BadMatchError(f"consistent_{side} is {_what(consistent)}, bool of shape {shape} was expected")
    rows, columns = np.nonzero(consistent)
    end = np.stack([columns, rows], axis=1) + flow[rows, columns]
    outside = ((end < -OUTSIDE) | (end > np.array(target) - 1 + OUTSIDE)).any(axis=1)
    if outside.any():
        raise BadMatchError(
            f"consistent_{side} marks {int(outside.sum())} pixels whose flow leads out of the other image"
        )
    return FlowField(flow, confidence), consistent


def _floats(
    name: str, values: Any, shape: tuple[int, ...], *, unit: bool = False
) -> Float32[np.ndarray, "..."]:
    if not isinstance(values, np.ndarray) or values.shape != shape:
        raise BadMatchError(f"{name} is {_what(values)}, shape {shape} was expected")
    if not np.issubdtype(values.dtype, np.floating):
        raise BadMatchError(f"{name} is of type {values.dtype}, float32 was expected")
    wrong = int((~np.isfinite(values)).sum())
    if wrong:
        raise BadMatchError(f"{name} has {wrong} values that are not finite")
    if unit and values.size and (values.min() < 0 or values.max() > 1):
        raise BadMatchError(f"{name} goes from {values.min():.3g} to {values.max():.3g}, 0 to 1 was expected")
    return np.asarray(values, np.float32)


def _what(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} and shape {value.shape}"
    return f"a {type(value).__name__}"
