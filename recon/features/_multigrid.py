"""Multigrid for 9-point equations on the pixel grid, as scale propagation has them.

The equations, one per pixel p, are ::

    (c[p] + sum_k w[k, p]) x[p] - sum_k w[k, p] x[p + offset_k] = f[p]

with ``w`` not negative (rows need not be symmetric). The coarse grids hold every second pixel of every
second row; interpolation follows the weights (Dendy 1982, Black box multigrid, J. Comput. Phys. 48:
sections 2 and 3) and the coarse equations are the Galerkin products, again 9-point. A pixel of known value
has w = 0 and c = 1.

Arrays carry a border of one pixel, so that kernels need no case for the rim.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64
from numba import njit

# Neighbours in the order of the weights: (dy, dx).
OFFSETS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))

_DIRECT_SIZE = 40  # unknowns that the coarsest grid may have


@dataclass(frozen=True)
class Level:
    """One grid. ``transfer`` interpolates from the next coarser grid: see ``_transfer``."""

    weights: Float32[np.ndarray, "8 hp wp"]
    excess: Float64[np.ndarray, "hp wp"]
    inverse_diagonal: Float64[np.ndarray, "hp wp"]
    transfer: Float32[np.ndarray, "3 3 hcp wcp"] | None
    inverse: Float64[np.ndarray, "n n"] | None


def build_levels(
    weights: Float32[np.ndarray, "8 hp wp"], excess: Float64[np.ndarray, "hp wp"]
) -> list[Level]:
    """The hierarchy of grids, finest first."""
    levels: list[Level] = []
    while True:
        inverse_diagonal = np.zeros_like(excess)
        _inverse_diagonal(weights, excess, inverse_diagonal)
        height, width = excess.shape[0] - 2, excess.shape[1] - 2
        if height * width <= _DIRECT_SIZE:
            inverse = np.linalg.pinv(_dense(weights, excess))
            levels.append(Level(weights, excess, inverse_diagonal, None, inverse))
            return levels
        coarse_shape = ((height + 1) // 2 + 2, (width + 1) // 2 + 2)
        transfer = np.zeros((3, 3, *coarse_shape), np.float32)
        _transfer(weights, excess, transfer)
        levels.append(Level(weights, excess, inverse_diagonal, transfer, None))
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
    left = np.zeros_like(x)
    residual(level.weights, level.excess, f, x, left)
    restrict(level.transfer, left, coarse)
    cycle(levels, correction, coarse, depth + 1)
    prolongate(level.transfer, correction, x)
    sweep_up(level.weights, level.inverse_diagonal, f, x)


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
def residual(w, c, f, x, out):  # type: ignore[no-untyped-def]
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
def restrict(transfer, fine, coarse):  # type: ignore[no-untyped-def]
    rows, cols = coarse.shape[0] - 2, coarse.shape[1] - 2
    for Y in range(rows):
        for X in range(cols):
            total = 0.0
            for a in range(3):
                for b in range(3):
                    total += transfer[a, b, Y + 1, X + 1] * fine[2 * Y + a, 2 * X + b]
            coarse[Y + 1, X + 1] = total


@njit(cache=True, nogil=True, fastmath=True)
def prolongate(transfer, coarse, fine):  # type: ignore[no-untyped-def]
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
