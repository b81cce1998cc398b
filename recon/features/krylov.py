"""Solver for the equations of ``multigrid``.

Weights that jump leave small groups of pixels that hang together and hardly hear their surroundings. Gauss-Seidel
sweeps take forever on a group, and the coarse grid does not see one that none of its own pixels is in. ``precondition``
smooths by incomplete factors instead, which are nearly exact on such a group, and ``krylov`` removes what is left;
both like rows that are balanced (``balance``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from recon.core.kernels import kernel
from recon.features.multigrid import OFFSETS, Level, prolongate, residual, restrict

_SAFETY = (
    0.8  # of the target: on photos the error is up to 1.3 times the correction that a V-cycle still makes
)
_KEPT = 2  # directions that ``krylov`` keeps: one takes two steps more, three none less


@dataclass(frozen=True)
class Factors:
    """Incomplete factors (1 + lower) diag(1 / inverse_pivot) (1 + upper) of a level's matrix."""

    lower: Float32[np.ndarray, "4 hp wp"]
    upper: Float32[np.ndarray, "4 hp wp"]
    inverse_pivot: Float32[np.ndarray, "hp wp"]


def factorise(levels: list[Level]) -> list[Factors]:
    """Factors of all grids but the coarsest, whose equations are solved directly."""
    found = []
    for level in levels[:-1]:
        factors = Factors(
            np.zeros((4, *level.excess.shape), np.float32),
            np.zeros((4, *level.excess.shape), np.float32),
            np.zeros(level.excess.shape, np.float32),
        )
        _factorise(level.weights, level.excess, factors.lower, factors.upper, factors.inverse_pivot)
        found.append(factors)
    return found


def precondition(
    levels: list[Level],
    factors: list[Factors],
    f: Float64[np.ndarray, "hp wp"],
    x: Float64[np.ndarray, "hp wp"],
    work: Float64[np.ndarray, "hp wp"],
    depth: int = 0,
) -> None:
    """x becomes an approximate solution: one V-cycle from zero that smooths by the incomplete factors.

    ``work`` is overwritten; its border must be zero.
    """
    level = levels[depth]
    if level.solve(f, x):
        return
    assert level.transfer is not None
    own = factors[depth]
    x[:] = f
    row = np.empty(x.shape[1])
    solve_factors(own.lower, own.upper, own.inverse_pivot, x, row)
    residual(level.weights, level.excess, f, x, work)
    coarse, correction, room = (np.zeros(level.transfer.shape[2:]) for _ in range(3))
    restrict(level.transfer, work, coarse)
    precondition(levels, factors, coarse, correction, room, depth + 1)
    prolongate(level.transfer, correction, x)
    residual(level.weights, level.excess, f, x, work)
    solve_factors(own.lower, own.upper, own.inverse_pivot, work, row)
    x += work


def krylov(
    levels: list[Level],
    x: Float64[np.ndarray, "hp wp"],
    f: Float64[np.ndarray, "hp wp"],
    target: float,
    max_steps: int = 60,
) -> bool:
    """Improve x in place until no value errs by much more than the target; True if that was reached.

    Generalised conjugate residuals (Eisenstat, Elman, Schultz 1983, Orthomin), preconditioned by ``precondition``.
    The error is judged by the correction that the preconditioner would still make.
    """
    level, factors = levels[0], factorise(levels)
    left, zero = np.zeros_like(x), np.zeros_like(x)
    work = np.zeros_like(x)
    residual(level.weights, level.excess, f, x, left)
    # A ring of directions and of their images under minus the matrix.
    directions = [np.zeros_like(x) for _ in range(_KEPT + 1)]
    images = [np.zeros_like(x) for _ in range(_KEPT + 1)]
    for count in range(max_steps):
        step, image = directions[count % (_KEPT + 1)], images[count % (_KEPT + 1)]
        precondition(levels, factors, left, step, work)
        if max(float(step.max()), -float(step.min())) < _SAFETY * target:
            x += step
            return True
        residual(level.weights, level.excess, zero, step, image)
        for before in range(max(0, count - _KEPT), count):
            other = before % (_KEPT + 1)
            share = -float(np.vdot(images[other], image))
            image += share * images[other]
            step += share * directions[other]
        length = float(np.sqrt(np.vdot(image, image)))
        if length == 0.0 or not np.isfinite(length):
            return False
        image /= length
        step /= length
        share = -float(np.vdot(image, left))
        x += share * step
        left += share * image
    return False


def balance(
    weights: Float32[np.ndarray, "8 hp wp"],
    excess: Float64[np.ndarray, "hp wp"],
    right: Float64[np.ndarray, "hp wp"],
) -> None:
    """Scale the rows, in place, so that what a pixel gives its neighbours is nearer to what it takes from them.

    Two sweeps towards the stationary distribution of the random walk with these weights: a matrix scaled by it
    has equal sums of rows and columns. The solution does not change.
    """
    _balance(weights, excess, right)


@kernel()
def _balance(w, c, f):  # type: ignore[no-untyped-def]
    height, width = c.shape
    factor = np.ones(c.shape)
    for sweep in range(2):
        for y in range(1, height - 1) if sweep == 0 else range(height - 2, 0, -1):
            for x in range(1, width - 1) if sweep == 0 else range(width - 2, 0, -1):
                given = 0.0
                taken = 0.0
                for k in range(8):
                    dy, dx = OFFSETS[k]
                    back = np.float64(w[7 - k, y + dy, x + dx])
                    # Known pixels have no weights to give.
                    if w[k, y, x] > 0 and back > 0:
                        taken += np.float64(w[k, y, x])
                        given += factor[y + dy, x + dx] * back
                if taken > 0:
                    factor[y, x] = given / taken
    for k in range(8):
        for y in range(1, height - 1):
            for x in range(1, width - 1):
                w[k, y, x] *= factor[y, x]
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            c[y, x] *= factor[y, x]
            f[y, x] *= factor[y, x]


@kernel()
def _factorise(w, c, lower, upper, inverse):  # type: ignore[no-untyped-def]
    """Incomplete LU without fill-in; ``upper`` is divided by the pivot of its row, ``lower`` by that of its column."""
    for y in range(1, c.shape[0] - 1):
        for x in range(1, c.shape[1] - 1):
            pivot = c[y, x]
            for k in range(8):
                pivot += np.float64(w[k, y, x])
            north, north_east, west = -w[1, y, x], -w[2, y, x], -w[3, y, x]
            east, south_west, south, south_east = -w[4, y, x], -w[5, y, x], -w[6, y, x], -w[7, y, x]
            # Rows of the pixels before this one are subtracted; what falls outside of the 3x3 pixels is dropped.
            a = -w[0, y, x]
            lower[0, y, x] = a * inverse[y - 1, x - 1]
            north -= a * upper[0, y - 1, x - 1]
            west -= a * upper[2, y - 1, x - 1]
            pivot -= a * upper[3, y - 1, x - 1]
            lower[1, y, x] = north * inverse[y - 1, x]
            north_east -= north * upper[0, y - 1, x]
            west -= north * upper[1, y - 1, x]
            pivot -= north * upper[2, y - 1, x]
            east -= north * upper[3, y - 1, x]
            lower[2, y, x] = north_east * inverse[y - 1, x + 1]
            pivot -= north_east * upper[1, y - 1, x + 1]
            east -= north_east * upper[2, y - 1, x + 1]
            lower[3, y, x] = west * inverse[y, x - 1]
            pivot -= west * upper[0, y, x - 1]
            south_west -= west * upper[2, y, x - 1]
            south -= west * upper[3, y, x - 1]
            inverse[y, x] = 1.0 / pivot if pivot > 0.0 else 0.0
            upper[0, y, x] = east * inverse[y, x]
            upper[1, y, x] = south_west * inverse[y, x]
            upper[2, y, x] = south * inverse[y, x]
            upper[3, y, x] = south_east * inverse[y, x]


@kernel(fastmath=True)
def solve_factors(lower, upper, inverse, x, known):  # type: ignore[no-untyped-def]
    """x becomes the solution of the factors' equations with right side x. ``known`` is room for a row."""
    height, width = x.shape
    for y in range(1, height - 1):
        for i in range(1, width - 1):
            known[i] = (
                x[y, i]
                - lower[0, y, i] * x[y - 1, i - 1]
                - lower[1, y, i] * x[y - 1, i]
                - lower[2, y, i] * x[y - 1, i + 1]
            )
        last = x[y, 0]
        for i in range(1, width - 1):
            last = known[i] - lower[3, y, i] * last
            x[y, i] = last
    for y in range(height - 2, 0, -1):
        for i in range(1, width - 1):
            known[i] = (
                x[y, i] * inverse[y, i]
                - upper[1, y, i] * x[y + 1, i - 1]
                - upper[2, y, i] * x[y + 1, i]
                - upper[3, y, i] * x[y + 1, i + 1]
            )
        last = x[y, 0]
        for i in range(width - 2, 0, -1):
            last = known[i] - upper[0, y, i] * last
            x[y, i] = last
