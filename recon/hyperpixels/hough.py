"""Regularized Hough matching: matches whose offset many others share gain weight.

Source: J. Min et al., "Hyperpixel Flow", ICCV 2019, section 4.3, after M. Cho et al., "Unsupervised Object Discovery
and Localization in the Wild", CVPR 2015; bins as in the release. Cells of both grids are equally far apart, so an
offset is a pair of small whole numbers: votes are added per whole-number offset first and only those sums are put into
bins. That is exact and needs no table of one bin number per match.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from recon.hyperpixels.grid import Grid

CELLS = 8192
"""Number of bins of the Hough space, about (the release's)."""

_SIDE = 7
"""Side of the Gaussian that smooths the Hough space, in bins."""

_FWHM_PER_SIGMA = 2.354
"""The Gaussian's full width at half maximum is its side."""


@dataclass(frozen=True)
class HoughSpace:
    """Bins of the offsets between two grids.

    Attributes:
        bin_x, bin_y: bin of each whole-number offset from -(source cells - 1) to target cells - 1.
        bins_x, bins_y: number of bins.
    """

    bin_x: Int[Tensor, " ox"]
    bin_y: Int[Tensor, " oy"]
    bins_x: int
    bins_y: int


def hough_space(source: Grid, target: Grid, cells: int = CELLS) -> HoughSpace:
    """The Hough space of two grids of one step: offsets from minus the source's size to the target's."""
    width, height = source.width + target.width, source.height + target.height
    side = math.sqrt(width * height / cells)
    ox = torch.arange(-(source.columns - 1), target.columns, dtype=torch.float64) * source.step + source.width
    oy = torch.arange(-(source.rows - 1), target.rows, dtype=torch.float64) * source.step + source.height
    # The release divides in single precision; bins are the same except for offsets on an edge of a bin.
    return HoughSpace((ox / side).long(), (oy / side).long(), int(width / side) + 1, int(height / side) + 1)


def gaussian(side: int = _SIDE) -> Float[Tensor, "side side"]:
    """The release's Gaussian, its sum is 1."""
    sigma = side / 2 / _FWHM_PER_SIGMA
    x = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    line = torch.exp(-x.square() / (2 * sigma**2))
    plane = line[:, None] * line[None]
    return (plane / plane.sum()).float()


def add_votes(
    votes: Float[Tensor, "k ws ht wt"], first_row: int, rows: int, table: Float[Tensor, "oy ox"]
) -> None:
    """Add the votes of some rows of source cells to the table of whole-number offsets.

    Args:
        votes: of the k source rows from ``first_row`` on, for every cell of the target.
        rows: number of rows of the source grid.
        table: (rows + ht - 1, ws + wt - 1), changed in place.
    """
    k, ws, ht, wt = votes.shape
    # Shifting the row of source cell x by (ws - 1 - x) lines equal offsets up: pad each row by ws and read the memory
    # with rows that are one shorter.
    turned = votes.flip(1).permute(0, 2, 1, 3)
    padded = F.pad(turned, (0, ws)).reshape(k, ht, ws * (wt + ws))
    sheared = padded[..., : ws * (wt + ws - 1)].reshape(k, ht, ws, wt + ws - 1)
    sums = sheared.sum(2)
    for i in range(k):
        top = rows - 1 - (first_row + i)
        table[top : top + ht] += sums[i]


def geometric_weights(table: Float[Tensor, "oy ox"], space: HoughSpace) -> Float[Tensor, "oy ox"]:
    """Score of every whole-number offset: its votes in bins, smoothed."""
    bin_x, bin_y = space.bin_x.to(table.device), space.bin_y.to(table.device)
    columns = torch.zeros(table.shape[0], space.bins_x, dtype=table.dtype, device=table.device)
    columns.index_add_(1, bin_x, table)
    bins = torch.zeros(space.bins_y, space.bins_x, dtype=table.dtype, device=table.device)
    bins.index_add_(0, bin_y, columns)
    kernel = gaussian().to(table)
    smooth = F.conv2d(bins[None, None], kernel[None, None], padding=_SIDE // 2)[0, 0]
    return smooth[bin_y][:, bin_x]


def weights_of_rows(
    weights: Float[Tensor, "oy ox"], first_row: int, k: int, rows: int, shape: tuple[int, int, int]
) -> Float[Tensor, "k ws ht wt"]:
    """Scores of the matches of ``k`` source rows, the counterpart of ``add_votes``.

    Args:
        rows: number of rows of the source grid.
        shape: source columns, target rows, target columns.
    """
    _, ht, wt = shape
    windows = weights.unfold(0, ht, 1).unfold(1, wt, 1)
    top = rows - 1 - torch.arange(first_row, first_row + k, device=weights.device)
    return windows[top].flip(1)


def hough_matching(
    correlation: Float[Tensor, "ns nt"], source: Grid, target: Grid, cells: int = CELLS
) -> Float[Tensor, "ns nt"]:
    """Geometric score of every match; matching confidence is the correlation times this.

    Args:
        correlation: non-negative votes of every pair of a source cell and a target cell.
        source, target: of one step.
    """
    shape = (source.columns, target.rows, target.columns)
    votes = correlation.reshape(source.rows, *shape)
    table = torch.zeros(
        source.rows + target.rows - 1,
        source.columns + target.columns - 1,
        dtype=correlation.dtype,
        device=correlation.device,
    )
    step = max(1, (1 << 22) // max(1, math.prod(shape)))
    for row in range(0, source.rows, step):
        add_votes(votes[row : row + step], row, source.rows, table)
    weights = geometric_weights(table, hough_space(source, target, cells))
    return weights_of_rows(weights, 0, source.rows, source.rows, shape).reshape(correlation.shape)
