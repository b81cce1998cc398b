"""Multigrid for 9-point equations on the pixel grid, as scale propagation has them.

The equations, one per pixel p, are ::

    (c[p] + sum_k w[k, p]) x[p] - sum_k w[k, p] x[p + offset_k] = f[p]

with ``w`` not negative (rows need not be symmetric). The coarse grids hold every second pixel of every
second row; interpolation follows the weights (Dendy 1982, Black box multigrid, J. Comput. Phys. 48:
sections 2 and 3) and the coarse equations are the Galerkin products, again 9-point. A pixel of known value
has w = 0 and c = 1.

Weights that jump (exponential ones) leave small groups of pixels that hang together and hardly hear their
surroundings. Gauss-Seidel sweeps take forever on a group, and the coarse grid does not see one that none of its own
pixels is in. ``precondition`` smooths by incomplete factors instead, which are nearly exact on such a group, and
``krylov`` removes what is left; both like rows that are balanced (``balance``).

Arrays carry a border of one pixel, so that kernels need no case for the rim.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64
from numba import njit

# Neighbours in the order of the weights: (dy, dx).
OFFSETS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))

_SAFETY = (
    0.8  # ``krylov`` stops by the correction of a V-cycle, on photos up to 1.3 times smaller than the error
)
_KEPT = 2  # directions that ``krylov`` keeps: one takes two steps more, three none less
_DIRECT_SIZE = 40  # unknowns that the coarsest grid may have


@dataclass(frozen=True)
class Factors:
    """Incomplete factors (1 + lower) diag(1 / inverse_pivot) (1 + upper) of a level's matrix."""

    lower: Float32[np.ndarray, "4 hp wp"]
    upper: Float32[np.ndarray, "4 hp wp"]
    inverse_pivot: Float64[np.ndarray, "hp wp"]


@dataclass(frozen=True)
class Level:
    """One grid. ``transfer`` interpolates from the next coarser grid: see ``_transfer``."""

    weights: Float32[np.ndarray, "8 hp wp"]
    excess: Float64[np.ndarray, "hp wp"]
    inverse_diagonal: Float64[np.ndarray, "hp wp"]
    factors: Factors | None
    transfer: Float32[np.ndarray, "3 3 hcp wcp"] | None
    inverse: Float64[np.ndarray, "n n"] | None


def build_levels(
    weights: Float32[np.ndarray, "8 hp wp"], excess: Float64[np.ndarray, "hp wp"], *, factorise: bool = False
) -> list[Level]:
    """The hierarchy of grids, finest first; with ``factorise`` for ``krylov``, without for ``cycle``."""
    levels: list[Level] = []
    while True:
        inverse_diagonal = np.zeros_like(excess)
        _inverse_diagonal(weights, excess, inverse_diagonal)
        height, width = excess.shape[0] - 2, excess.shape[1] - 2
        if height * width <= _DIRECT_SIZE:
            inverse = np.linalg.pinv(_dense(weights, excess))
            levels.append(Level(weights, excess, inverse_diagonal, None, None, inverse))
            return levels
        factors = None
        if factorise:
            factors = Factors(
                np.zeros((4, *excess.shape), np.float32),
                np.zeros((4, *excess.shape), np.float32),
                np.zeros_like(excess),
            )
            _factorise(weights, excess, factors.lower, factors.upper, factors.inverse_pivot)
        coarse_shape = ((height + 1) // 2 + 2, (width + 1) // 2 + 2)
        transfer = np.zeros((3, 3, *coarse_shape), np.float32)
        _transfer(weights, excess, transfer)
        levels.append(Level(weights, excess, inverse_diagonal, factors, transfer, None))
        coarse_weights = np.zeros((8, *coarse_shape), np.float32)
        coarse_excess = np.zeros(coarse_shape, np.float64)
        _galerkin(weights, excess, transfer, coarse_weights, coarse_excess)
        weights, excess = coarse_weights, coarse_excess


def cycle(
    levels: list[Level],
    x: Float64[np.ndarray, "hp wp"],
    f: Float64[np.ndarray, "hp wp"],
    depth: int = 0,
) -> None:
    """One V-cycle with one Gauss-Seidel sweep before and one after, in place."""
    level = levels[depth]
    if level.inverse is not None:
        inside = f[1:-1, 1:-1]
        x[1:-1, 1:-1] = (level.inverse @ inside.ravel()).reshape(inside.shape)
        return
    assert level.transfer is not None
    sweep_down(level.weights, level.inverse_diagonal, f, x)
    coarse = np.zeros(level.transfer.shape[2:])
    correction = np.zeros_like(coarse)
    residual = np.zeros_like(x)
    _residual(level.weights, level.excess, f, x, residual)
    _restrict(level.transfer, residual, coarse)
    cycle(levels, correction, coarse, depth + 1)
    _prolongate(level.transfer, correction, x)
    sweep_up(level.weights, level.inverse_diagonal, f, x)


def precondition(
    levels: list[Level],
    f: Float64[np.ndarray, "hp wp"],
    x: Float64[np.ndarray, "hp wp"],
    work: Float64[np.ndarray, "hp wp"],
    depth: int = 0,
) -> None:
    """x becomes an approximate solution: one V-cycle from zero that smooths by the incomplete factors.

    ``work`` is overwritten; its border must be zero.
    """
    level = levels[depth]
    if level.inverse is not None:
        inside = f[1:-1, 1:-1]
        x[1:-1, 1:-1] = (level.inverse @ inside.ravel()).reshape(inside.shape)
        return
    factors = level.factors
    assert factors is not None
    assert level.transfer is not None
    x[:] = f
    _solve_factors(factors.lower, factors.upper, factors.inverse_pivot, x)
    _residual(level.weights, level.excess, f, x, work)
    coarse, correction, room = (np.zeros(level.transfer.shape[2:]) for _ in range(3))
    _restrict(level.transfer, work, coarse)
    precondition(levels, coarse, correction, room, depth + 1)
    _prolongate(level.transfer, correction, x)
    _residual(level.weights, level.excess, f, x, work)
    _solve_factors(factors.lower, factors.upper, factors.inverse_pivot, work)
    _add(1.0, work, x)


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
    level = levels[0]
    residual, work, zero = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    _residual(level.weights, level.excess, f, x, residual)
    # A ring of directions and of their images under minus the matrix.
    directions = [np.zeros_like(x) for _ in range(_KEPT + 1)]
    images = [np.zeros_like(x) for _ in range(_KEPT + 1)]
    for count in range(max_steps):
        step, image = directions[count % (_KEPT + 1)], images[count % (_KEPT + 1)]
        precondition(levels, residual, step, work)
        if max(float(step.max()), -float(step.min())) < _SAFETY * target:
            x += step
            return True
        _residual(level.weights, level.excess, zero, step, image)
        for before in range(max(0, count - _KEPT), count):
            other = before % (_KEPT + 1)
            share = -float(np.vdot(images[other], image))
            _add(share, images[other], image)
            _add(share, directions[other], step)
        length = float(np.sqrt(np.vdot(image, image)))
        if length == 0.0 or not np.isfinite(length):
            return False
        image /= length
        step /= length
        share = -float(np.vdot(image, residual))
        _add(share, step, x)
        _add(share, image, residual)
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


def _dense(
    weights: Float32[np.ndarray, "8 hp wp"], excess: Float64[np.ndarray, "hp wp"]
) -> Float64[np.ndarray, "n n"]:
    height, width = excess.shape[0] - 2, excess.shape[1] - 2
    matrix = np.zeros((height * width, height * width))
    for y in range(height):
        for x in range(width):
            p = y * width + x
            matrix[p, p] = excess[y + 1, x + 1] + weights[:, y + 1, x + 1].sum(dtype=np.float64)
            for k, (dy, dx) in enumerate(OFFSETS):
                if 0 <= y + dy < height and 0 <= x + dx < width:
                    matrix[p, p + dy * width + dx] -= weights[k, y + 1, x + 1]
    return matrix


@njit(cache=True, nogil=True, fastmath=True)
def _add(share, source, target):  # type: ignore[no-untyped-def]
    for y in range(target.shape[0]):
        for i in range(target.shape[1]):
            target[y, i] += share * source[y, i]


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True, fastmath=True)
def _solve_factors(lower, upper, inverse, x):  # type: ignore[no-untyped-def]
    """x becomes the solution of the factors' equations with right side x."""
    height, width = x.shape
    known = np.empty(width, np.float64)
    for y in range(1, height - 1):
        for i in range(1, width - 1):
            known[i] = (
                x[y, i]
                - lower[0, y, i] * x[y - 1, i - 1]
                - lower[1, y, i] * x[y - 1, i]
                - lower[2, y, i] * x[y - 1, i + 1]
            )
        last = 0.0
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
        last = 0.0
        for i in range(width - 2, 0, -1):
            last = known[i] - upper[0, y, i] * last
            x[y, i] = last


@njit(cache=True, nogil=True)
def _inverse_diagonal(w, c, out):  # type: ignore[no-untyped-def]
    for y in range(1, c.shape[0] - 1):
        for x in range(1, c.shape[1] - 1):
            total = c[y, x]
            for k in range(8):
                total += np.float64(w[k, y, x])
            out[y, x] = 1.0 / total if total > 0.0 else 0.0


@njit(cache=True, nogil=True)
def _transfer(w, c, transfer):  # type: ignore[no-untyped-def]
    """transfer[1 + a, 1 + b, Y, X]: share of coarse (Y, X) in the fine pixel (2Y + a, 2X + b) (unpadded)."""
    height, width = c.shape[0] - 2, c.shape[1] - 2
    rows, cols = (height + 1) // 2, (width + 1) // 2
    for Y in range(rows):
        for X in range(cols):
            y, x = 2 * Y + 1, 2 * X + 1
            total = np.float32(0)
            for k in range(8):
                total += w[k, y, x]
            transfer[1, 1, Y + 1, X + 1] = 1.0 if total > 0 else 0.0
    # Pixels between two coarse ones of a row, then of a column: the weights collapsed onto that line.
    for Y in range(rows):
        y = 2 * Y + 1
        for X in range((width) // 2):
            x = 2 * X + 2
            west = w[0, y, x] + w[3, y, x] + w[5, y, x]
            east = w[2, y, x] + w[4, y, x] + w[7, y, x]
            total = c[y, x] + west + east
            if total > 0:
                transfer[1, 2, Y + 1, X + 1] = west / total
                transfer[1, 0, Y + 1, X + 2] = east / total
    for Y in range(height // 2):
        y = 2 * Y + 2
        for X in range(cols):
            x = 2 * X + 1
            north = w[0, y, x] + w[1, y, x] + w[2, y, x]
            south = w[5, y, x] + w[6, y, x] + w[7, y, x]
            total = c[y, x] + north + south
            if total > 0:
                transfer[2, 1, Y + 1, X + 1] = north / total
                transfer[0, 1, Y + 2, X + 1] = south / total
    # Pixels amid four coarse ones.
    for Y in range(height // 2):
        y = 2 * Y + 2
        for X in range(width // 2):
            x = 2 * X + 2
            total = c[y, x]
            for k in range(8):
                total += np.float64(w[k, y, x])
            if total <= 0:
                continue
            A, B = Y + 1, X + 1
            n, s, e, o = w[1, y, x], w[6, y, x], w[4, y, x], w[3, y, x]
            transfer[2, 2, A, B] = (w[0, y, x] + n * transfer[1, 2, A, B] + o * transfer[2, 1, A, B]) / total
            transfer[2, 0, A, B + 1] = (
                w[2, y, x] + n * transfer[1, 0, A, B + 1] + e * transfer[2, 1, A, B + 1]
            ) / total
            transfer[0, 2, A + 1, B] = (
                w[5, y, x] + s * transfer[1, 2, A + 1, B] + o * transfer[0, 1, A + 1, B]
            ) / total
            transfer[0, 0, A + 1, B + 1] = (
                w[7, y, x] + s * transfer[1, 0, A + 1, B + 1] + e * transfer[0, 1, A + 1, B + 1]
            ) / total
    # A share in a coarse pixel outside of the grid is a share of nothing.
    transfer[:, :, 0, :] = 0
    transfer[:, :, rows + 1, :] = 0
    transfer[:, :, :, 0] = 0
    transfer[:, :, :, cols + 1] = 0


@njit(cache=True, nogil=True, fastmath=True)
def _galerkin(w, c, transfer, coarse_w, coarse_c):  # type: ignore[no-untyped-def]
    rows, cols = coarse_c.shape[0] - 2, coarse_c.shape[1] - 2
    # t[i, j]: what row I of P^T A holds at the fine pixel (2Y + i - 2, 2X + j - 2)
    t = np.zeros((5, 5, cols), np.float64)
    total = np.zeros(cols, np.float64)
    for Y in range(rows):
        t[:] = 0.0
        y0 = 2 * Y + 1
        for a in range(3):
            for b in range(3):
                y = y0 + a - 1
                for X in range(cols):
                    x = 2 * X + b
                    share = np.float64(transfer[a, b, Y + 1, X + 1])
                    w0, w1, w2, w3 = w[0, y, x], w[1, y, x], w[2, y, x], w[3, y, x]
                    w4, w5, w6, w7 = w[4, y, x], w[5, y, x], w[6, y, x], w[7, y, x]
                    t[a, b, X] -= share * w0
                    t[a, b + 1, X] -= share * w1
                    t[a, b + 2, X] -= share * w2
                    t[a + 1, b, X] -= share * w3
                    t[a + 1, b + 1, X] += share * (
                        c[y, x]
                        + ((np.float64(w0) + np.float64(w1)) + (np.float64(w2) + np.float64(w3)))
                        + ((np.float64(w4) + np.float64(w5)) + (np.float64(w6) + np.float64(w7)))
                    )
                    t[a + 1, b + 2, X] -= share * w4
                    t[a + 2, b, X] -= share * w5
                    t[a + 2, b + 1, X] -= share * w6
                    t[a + 2, b + 2, X] -= share * w7
        total[:] = 0.0
        k = 0
        for dy in range(-1, 2):
            for dx in range(-1, 2):
                for X in range(cols):
                    entry = 0.0
                    for a in range(3):
                        i = 2 * dy + a + 1
                        if i < 0 or i > 4:
                            continue
                        for b in range(3):
                            j = 2 * dx + b + 1
                            if j < 0 or j > 4:
                                continue
                            entry += t[i, j, X] * transfer[a, b, Y + 1 + dy, X + 1 + dx]
                    if dy == 0 and dx == 0:
                        total[X] += entry
                    else:
                        value = np.float32(max(-entry, 0.0))
                        coarse_w[k, Y + 1, X + 1] = value
                        total[X] -= value
                if not (dy == 0 and dx == 0):
                    k += 1
        for X in range(cols):
            connected = False
            for k in range(8):
                if coarse_w[k, Y + 1, X + 1] > 0:
                    connected = True
            excess = max(total[X], 0.0)
            if not connected and excess == 0.0:
                excess = 1.0
            coarse_c[Y + 1, X + 1] = excess


@njit(cache=True, nogil=True, fastmath=True)
def sweep_down(w, inverse, f, x):  # type: ignore[no-untyped-def]
    """One Gauss-Seidel sweep, first row to last."""
    height, width = x.shape
    known = np.empty(width, np.float64)
    for y in range(1, height - 1):
        for i in range(1, width - 1):
            known[i] = (
                f[y, i]
                + w[0, y, i] * x[y - 1, i - 1]
                + w[1, y, i] * x[y - 1, i]
                + w[2, y, i] * x[y - 1, i + 1]
                + w[4, y, i] * x[y, i + 1]
                + w[5, y, i] * x[y + 1, i - 1]
                + w[6, y, i] * x[y + 1, i]
                + w[7, y, i] * x[y + 1, i + 1]
            ) * inverse[y, i]
        last = x[y, 0]
        for i in range(1, width - 1):
            last = known[i] + (w[3, y, i] * inverse[y, i]) * last
            x[y, i] = last


@njit(cache=True, nogil=True, fastmath=True)
def sweep_up(w, inverse, f, x):  # type: ignore[no-untyped-def]
    """One Gauss-Seidel sweep, last row to first and last pixel to first."""
    height, width = x.shape
    known = np.empty(width, np.float64)
    for y in range(height - 2, 0, -1):
        for i in range(1, width - 1):
            known[i] = (
                f[y, i]
                + w[0, y, i] * x[y - 1, i - 1]
                + w[1, y, i] * x[y - 1, i]
                + w[2, y, i] * x[y - 1, i + 1]
                + w[3, y, i] * x[y, i - 1]
                + w[5, y, i] * x[y + 1, i - 1]
                + w[6, y, i] * x[y + 1, i]
                + w[7, y, i] * x[y + 1, i + 1]
            ) * inverse[y, i]
        last = x[y, width - 1]
        for i in range(width - 2, 0, -1):
            last = known[i] + (w[4, y, i] * inverse[y, i]) * last
            x[y, i] = last


@njit(cache=True, nogil=True, fastmath=False)
def _residual(w, c, f, x, out):  # type: ignore[no-untyped-def]
    height, width = x.shape
    for y in range(1, height - 1):
        for i in range(1, width - 1):
            p = x[y, i]
            out[y, i] = (
                f[y, i]
                - c[y, i] * p
                + w[0, y, i] * (x[y - 1, i - 1] - p)
                + w[1, y, i] * (x[y - 1, i] - p)
                + w[2, y, i] * (x[y - 1, i + 1] - p)
                + w[3, y, i] * (x[y, i - 1] - p)
                + w[4, y, i] * (x[y, i + 1] - p)
                + w[5, y, i] * (x[y + 1, i - 1] - p)
                + w[6, y, i] * (x[y + 1, i] - p)
                + w[7, y, i] * (x[y + 1, i + 1] - p)
            )


@njit(cache=True, nogil=True, fastmath=True)
def _restrict(transfer, fine, coarse):  # type: ignore[no-untyped-def]
    rows, cols = coarse.shape[0] - 2, coarse.shape[1] - 2
    for Y in range(rows):
        for X in range(cols):
            total = 0.0
            for a in range(3):
                for b in range(3):
                    total += transfer[a, b, Y + 1, X + 1] * fine[2 * Y + a, 2 * X + b]
            coarse[Y + 1, X + 1] = total


@njit(cache=True, nogil=True, fastmath=True)
def _prolongate(transfer, coarse, fine):  # type: ignore[no-untyped-def]
    """Add the interpolated correction."""
    height, width = fine.shape[0] - 2, fine.shape[1] - 2
    rows, cols = coarse.shape[0] - 2, coarse.shape[1] - 2
    for Y in range(1, rows + 1):
        y = 2 * Y - 1
        for X in range(1, cols + 1):
            fine[y, 2 * X - 1] += transfer[1, 1, Y, X] * coarse[Y, X]
        for X in range(1, width // 2 + 1):
            fine[y, 2 * X] += (
                transfer[1, 2, Y, X] * coarse[Y, X] + transfer[1, 0, Y, X + 1] * coarse[Y, X + 1]
            )
    for Y in range(1, height // 2 + 1):
        y = 2 * Y
        for X in range(1, cols + 1):
            fine[y, 2 * X - 1] += (
                transfer[2, 1, Y, X] * coarse[Y, X] + transfer[0, 1, Y + 1, X] * coarse[Y + 1, X]
            )
        for X in range(1, width // 2 + 1):
            fine[y, 2 * X] += (
                transfer[2, 2, Y, X] * coarse[Y, X]
                + transfer[2, 0, Y, X + 1] * coarse[Y, X + 1]
                + transfer[0, 2, Y + 1, X] * coarse[Y + 1, X]
                + transfer[0, 0, Y + 1, X + 1] * coarse[Y + 1, X + 1]
            )
