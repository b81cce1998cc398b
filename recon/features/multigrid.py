"""Multigrid for 9-point equations on the pixel grid, as scale propagation has them.

The equations, one per pixel p, are ::

    (c[p] + sum_k w[k, p]) x[p] - sum_k w[k, p] x[p + offset_k] = f[p]

with ``w`` not negative (rows need not be symmetric). The coarse grids hold every second pixel of every
second row; interpolation follows the weights (Dendy 1982, Black box multigrid, J. Comput. Phys. 48:
sections 2 and 3) and the coarse equations are the Galerkin products, again 9-point. A pixel of known value
has w = 0 and c = 1.

Arrays carry a border of one pixel, so that kernels need no case for the rim. What is done once per
system is NumPy's: that is not faster, but needs no compiling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Float64

from recon.core.kernels import kernel

_F64 = npt.NDArray[np.float64]

# Neighbours in the order of the weights: (dy, dx).
OFFSETS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))

_DIRECT_SIZE = 40  # unknowns that the coarsest grid may have


@dataclass(frozen=True)
class Level:
    """One grid. ``transfer`` interpolates from the next coarser grid: see ``_transfer``."""

    weights: Float32[np.ndarray, "8 hp wp"]
    excess: Float64[np.ndarray, "hp wp"]
    transfer: Float32[np.ndarray, "3 3 hcp wcp"] | None
    inverse: Float64[np.ndarray, "n n"] | None

    def solve(self, f: Float64[np.ndarray, "hp wp"], x: Float64[np.ndarray, "hp wp"]) -> bool:
        """Put the exact solution into ``x`` on the coarsest grid; False, and nothing done, on the others."""
        if self.inverse is None:
            return False
        inside = f[1:-1, 1:-1]
        x[1:-1, 1:-1] = (self.inverse @ inside.ravel()).reshape(inside.shape)
        return True


def build_levels(
    weights: Float32[np.ndarray, "8 hp wp"], excess: Float64[np.ndarray, "hp wp"]
) -> list[Level]:
    """The hierarchy of grids, finest first."""
    levels: list[Level] = []
    while True:
        height, width = excess.shape[0] - 2, excess.shape[1] - 2
        if height * width <= _DIRECT_SIZE:
            inverse = np.linalg.pinv(dense_matrix(weights, excess))
            levels.append(Level(weights, excess, None, inverse))
            return levels
        transfer = _transfer(weights, excess)
        levels.append(Level(weights, excess, transfer, None))
        weights, excess = _galerkin(weights, excess, transfer)


def dense_matrix(
    weights: Float32[np.ndarray, "8 hp wp"], excess: Float64[np.ndarray, "hp wp"]
) -> Float64[np.ndarray, "n n"]:
    """The equations as a plain matrix, pixels in rows from the top."""
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


def _transfer(w: Float32[np.ndarray, "8 hp wp"], c: _F64) -> Float32[np.ndarray, "3 3 hcp wcp"]:
    """transfer[1 + a, 1 + b, Y, X]: share of coarse (Y, X) in the fine pixel (2Y + a, 2X + b) (unpadded)."""
    height, width = c.shape[0] - 2, c.shape[1] - 2
    rows, cols = (height + 1) // 2, (width + 1) // 2
    transfer = np.zeros((3, 3, rows + 2, cols + 2), np.float32)

    def shares(part: npt.NDArray[np.floating], total: npt.NDArray[np.floating]) -> _F64:
        found = np.zeros(total.shape)
        np.divide(part, total, out=found, where=total > 0)
        return found

    # Fine pixels that are coarse ones, and those between two of a row, of a column, and amid four.
    even, odd = slice(1, -1, 2), slice(2, height + 1, 2)
    left, amid = slice(1, -1, 2), slice(2, width + 1, 2)
    y, x = slice(1, rows + 1), slice(1, cols + 1)
    north, south = slice(1, height // 2 + 1), slice(2, height // 2 + 2)
    west, east = slice(1, width // 2 + 1), slice(2, width // 2 + 2)
    transfer[1, 1, y, x] = w[:, even, left].sum(axis=0) > 0
    # The weights collapsed onto the line of the two.
    v = w[:, even, amid]
    one, other = v[0] + v[3] + v[5], v[2] + v[4] + v[7]
    total = c[even, amid] + one + other
    transfer[1, 2, y, west], transfer[1, 0, y, east] = shares(one, total), shares(other, total)
    v = w[:, odd, left]
    one, other = v[0] + v[1] + v[2], v[5] + v[6] + v[7]
    total = c[odd, left] + one + other
    transfer[2, 1, north, x], transfer[0, 1, south, x] = shares(one, total), shares(other, total)
    v = w[:, odd, amid]
    total = c[odd, amid] + v.sum(axis=0, dtype=np.float64)
    # Each of the four: its own weight, and what comes through its neighbours in the row and in the column.
    for corner, row, column, a, b, Y, X in (
        (0, 1, 3, 2, 2, north, west),
        (2, 1, 4, 2, 0, north, east),
        (5, 6, 3, 0, 2, south, west),
        (7, 6, 4, 0, 0, south, east),
    ):
        along_row, along_column = transfer[1, b, Y, X], transfer[a, 1, Y, X]
        transfer[a, b, Y, X] = shares(v[corner] + v[row] * along_row + v[column] * along_column, total)
    # A share in a coarse pixel outside of the grid is a share of nothing.
    transfer[:, :, [0, -1], :] = 0
    transfer[:, :, :, [0, -1]] = 0
    return transfer


def _galerkin(
    w: Float32[np.ndarray, "8 hp wp"], c: _F64, transfer: Float32[np.ndarray, "3 3 hcp wcp"]
) -> tuple[Float32[np.ndarray, "8 hcp wcp"], Float64[np.ndarray, "hcp wcp"]]:
    """Weights and excess of the coarse equations."""
    rows, cols = transfer.shape[2] - 2, transfer.shape[3] - 2
    diagonal = c + w.sum(axis=0, dtype=np.float64)
    # t[i, j]: what row I of P^T A holds at the fine pixel (2Y + i - 2, 2X + j - 2)
    t = np.zeros((5, 5, rows, cols))
    for a, b in np.ndindex(3, 3):
        fine = (slice(a, a + 2 * rows, 2), slice(b, b + 2 * cols, 2))
        share = transfer[a, b, 1:-1, 1:-1].astype(np.float64)
        t[a + 1, b + 1] += share * diagonal[fine]
        for k, (dy, dx) in enumerate(OFFSETS):
            t[a + 1 + dy, b + 1 + dx] -= share * w[k][fine]
    weights = np.zeros((8, rows + 2, cols + 2), np.float32)
    excess = np.zeros((rows + 2, cols + 2))
    total = excess[1:-1, 1:-1]
    for k, (dy, dx) in enumerate((*OFFSETS, (0, 0))):
        entry = np.zeros((rows, cols))
        for a in range(max(0, -2 * dy - 1), min(3, 4 - 2 * dy)):
            for b in range(max(0, -2 * dx - 1), min(3, 4 - 2 * dx)):
                there = transfer[a, b, 1 + dy : 1 + dy + rows, 1 + dx : 1 + dx + cols]
                entry += t[2 * dy + a + 1, 2 * dx + b + 1] * there
        if k == 8:
            total += entry
        else:
            weights[k, 1:-1, 1:-1] = np.maximum(-entry, 0.0)
            total -= weights[k, 1:-1, 1:-1]
    np.maximum(total, 0.0, out=total)
    total[(total == 0.0) & ~(weights[:, 1:-1, 1:-1] > 0).any(axis=0)] = 1.0
    return weights, excess


@kernel(fastmath=False)
def residual(w, c, f, x, out):  # type: ignore[no-untyped-def]
    """Write what is left of the right side into ``out``."""
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


@kernel(fastmath=True)
def restrict(transfer, fine, coarse):  # type: ignore[no-untyped-def]
    """Write the transposed interpolation of the fine grid's values into the coarse grid."""
    rows, cols = coarse.shape[0] - 2, coarse.shape[1] - 2
    for Y in range(rows):
        for X in range(cols):
            total = 0.0
            for a in range(3):
                for b in range(3):
                    total += transfer[a, b, Y + 1, X + 1] * fine[2 * Y + a, 2 * X + b]
            coarse[Y + 1, X + 1] = total


@kernel(fastmath=True)
def prolongate(transfer, coarse, fine):  # type: ignore[no-untyped-def]
    """Add the interpolated correction."""
    rows, cols = coarse.shape[0] - 2, coarse.shape[1] - 2
    for Y in range(rows):
        for X in range(cols):
            value = coarse[Y + 1, X + 1]
            for a in range(3):
                for b in range(3):
                    fine[2 * Y + a, 2 * X + b] += transfer[a, b, Y + 1, X + 1] * value
