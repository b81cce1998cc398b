"""From correlation to matches of cells: mutual filtering, the best target below the cell, transfer of keypoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from recon.hyperpixels.correlation import CHUNK, PairCorrelation
from recon.hyperpixels.grid import Grid
from recon.hyperpixels.hough import add_votes, geometric_weights, hough_space, weights_of_rows

BUDGET = 1 << 25
"""Values of a correlation that may be held at once (128 MiB); larger ones are made block by block, several times."""

RADIUS = 2
"""Cells round the peak that the soft argmax sees."""

SHARPNESS = 12.0
"""A cell whose confidence is a share s of the peak's weighs exp(SHARPNESS * (s - 1)) in the soft argmax."""

RECEPTIVE = 5
"""Half the side in pixels of the box round a cell whose keypoints the cell moves (the release's, for steps of 4 px)."""


@dataclass(frozen=True)
class CellMatches:
    """The best match of every source cell.

    Attributes:
        source, target: the grids.
        best: number of the target cell.
        offset: target minus source centre in pixels, below the cell, (rows, columns, 2).
        confidence: of the best match, (rows, columns), 0 or more; comparable within a pair.
    """

    source: Grid
    target: Grid
    best: Int[np.ndarray, " ns"]
    offset: Float32[np.ndarray, "rows columns 2"]
    confidence: Float32[np.ndarray, "rows columns"]


_Blocks = Callable[[], Iterator[tuple[int, Tensor]]]


@torch.no_grad()
def match_cells(
    pair: PairCorrelation, *, hough: bool = True, mutual: bool = True, budget: int = BUDGET
) -> tuple[CellMatches, CellMatches]:
    """The best matches of both directions.

    A correlation of more than ``budget`` values is computed anew in each of three passes (votes, maxima, matches), so
    that memory stays bounded; the result is the same.

    Args:
        pair: of one image each.
        hough: multiply by regularized Hough matching's geometric score.
        mutual: multiply by the ratios to the row's and the column's maximum (Rocco et al., NeurIPS 2018).
    """
    forward, backward = _directions(pair, hough, budget)
    rows_best = _maxima(forward, pair.source.grid.cells)
    columns_best = _maxima(backward, pair.target.grid.cells)
    there = _best(forward, pair.source.grid, pair.target.grid, rows_best, columns_best, mutual)
    back = _best(backward, pair.target.grid, pair.source.grid, columns_best, rows_best, mutual)
    return there, back


def _directions(pair: PairCorrelation, hough: bool, budget: int) -> tuple[_Blocks, _Blocks]:
    """Weighted correlations of both directions, block by block of source cells."""
    source, target = pair.source.grid, pair.target.grid
    whole = source.cells * target.cells <= budget
    table: Tensor | None = None
    full = pair.full()[0] if whole else None
    if hough:
        table = torch.zeros(
            source.rows + target.rows - 1,
            source.columns + target.columns - 1,
            device=pair.source.layers[next(iter(pair.source.layers))].device,
        )
        shape = (source.columns, target.rows, target.columns)
        blocks = _slices(full, source) if full is not None else pair.blocks(min(budget, CHUNK))
        for first, block in blocks:
            votes = block if full is not None else block[0]
            add_votes(votes.reshape(-1, *shape), first, source.rows, table)
        table = geometric_weights(table, hough_space(source, target))
        if full is not None:
            # In place, a few rows at a time: the matrix is held once.
            for first, block in _slices(full, source):
                k = len(block) // source.columns
                block *= weights_of_rows(table, first, k, source.rows, shape).reshape(block.shape)
    if full is not None:
        turned = full.transpose(0, 1).contiguous()
        return (
            lambda: _slices(full, source),
            lambda: _slices(turned, target),
        )
    reverse = PairCorrelation(pair.target, pair.source, pair.power)

    def blocks_of(which: PairCorrelation, scores: Tensor | None) -> _Blocks:
        own, other = which.source.grid, which.target.grid

        def run() -> Iterator[tuple[int, Tensor]]:
            for first, batch in which.blocks(min(budget, CHUNK)):
                block = batch[0]
                if scores is not None:
                    k = len(block) // own.columns
                    shape = (own.columns, other.rows, other.columns)
                    block = block * weights_of_rows(scores, first, k, own.rows, shape).reshape(block.shape)
                yield first, block

        return run

    # An offset of the way back is the negative of the way there.
    return blocks_of(pair, table), blocks_of(reverse, None if table is None else table.flip(0, 1))


def _slices(full: Tensor, grid: Grid) -> Iterator[tuple[int, Tensor]]:
    step = max(1, CHUNK // max(1, grid.columns * full.shape[1]))
    for first in range(0, grid.rows, step):
        yield first, full[first * grid.columns : (first + step) * grid.columns]


def _maxima(blocks: _Blocks, cells: int) -> Tensor:
    found = [block.amax(1) for _, block in blocks()]
    return torch.cat(found)[:cells].clamp(min=1e-30)


def _best(
    blocks: _Blocks, source: Grid, target: Grid, row_max: Tensor, column_max: Tensor, mutual: bool
) -> CellMatches:
    best, offsets, confidences = [], [], []
    for first, block in blocks():
        start = first * source.columns
        own = row_max[start : start + len(block)]
        score = block
        if mutual:
            score = (block / column_max).mul_(block).mul_(block).div_(own[:, None])
        peak, index = score.max(1)
        at = _soft_argmax(score, index, target)
        cells = torch.arange(start, start + len(block), device=block.device)
        centre = torch.stack([cells % source.columns, cells // source.columns], 1).float() * source.step
        best.append(index)
        offsets.append(at * target.step - centre)
        confidences.append(peak)
    shape = (source.rows, source.columns)
    return CellMatches(
        source,
        target,
        torch.cat(best).cpu().numpy(),
        torch.cat(offsets).cpu().numpy().astype(np.float32).reshape(*shape, 2),
        torch.cat(confidences).cpu().numpy().astype(np.float32).reshape(shape),
    )


def _soft_argmax(
    score: Float[Tensor, "k nt"], index: Int[Tensor, " k"], target: Grid, radius: int = RADIUS
) -> Float[Tensor, "k 2"]:
    """(x, y) in cells of the centre of mass round each row's peak. The window shrinks at the border so that it stays
    centred on the peak, which keeps a peak at the border where it is."""
    rows, columns = target.rows, target.columns
    x0, y0 = index % columns, index // columns
    peak = score.gather(1, index[:, None])[:, 0].clamp(min=1e-30)
    room_x = torch.minimum(x0, columns - 1 - x0).clamp(max=radius)
    room_y = torch.minimum(y0, rows - 1 - y0).clamp(max=radius)
    total = torch.zeros_like(peak)
    sum_x, sum_y = torch.zeros_like(peak), torch.zeros_like(peak)
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            inside = (abs(dx) <= room_x) & (abs(dy) <= room_y)
            at = (y0 + dy).clamp(0, rows - 1) * columns + (x0 + dx).clamp(0, columns - 1)
            share = score.gather(1, at[:, None])[:, 0] / peak
            weight = torch.exp(SHARPNESS * (share - 1)) * inside
            total += weight
            sum_x += weight * dx
            sum_y += weight * dy
    return torch.stack([x0 + sum_x / total, y0 + sum_y / total], 1)


def transfer_keypoints(
    matches: CellMatches, keypoints: Float[np.ndarray, "n 2"], *, whole_cells: bool = False
) -> Float[np.ndarray, "n 2"]:
    """Transfer keypoints of the source to the target: moved by the mean offset of the cells round them.

    Args:
        keypoints: (x, y) in pixels of the source's grid.
        whole_cells: use offsets between centres of cells, as the release does, rather than those below the cell.

    A keypoint is moved by the cells whose box of ``RECEPTIVE`` pixels (for steps of 4, more for larger ones) holds it;
    one that no box holds, outside of the image, by the nearest cell.
    """
    source, target = matches.source, matches.target
    points = np.asarray(keypoints, np.float64).reshape(-1, 2)
    offset = matches.offset.reshape(-1, 2).astype(np.float64)
    if whole_cells:
        cells = np.arange(source.cells)
        own = np.stack([cells % source.columns, cells // source.columns], 1) * source.step
        other = np.stack([matches.best % target.columns, matches.best // target.columns], 1) * target.step
        offset = (other - own).astype(np.float64)
    reach = RECEPTIVE * source.step / 4
    out = np.empty_like(points)
    for i, point in enumerate(points):
        low = np.ceil((point - reach) / source.step).astype(int)
        high = np.floor((point + reach) / source.step).astype(int)
        x = np.arange(max(low[0], 0), min(high[0], source.columns - 1) + 1)
        y = np.arange(max(low[1], 0), min(high[1], source.rows - 1) + 1)
        if len(x) == 0 or len(y) == 0:
            x = np.clip([round(point[0] / source.step)], 0, source.columns - 1)
            y = np.clip([round(point[1] / source.step)], 0, source.rows - 1)
        cells = (y[:, None] * source.columns + x[None]).ravel()
        out[i] = point + offset[cells].mean(0)
    return out


def mutual_filter(correlation: Float[Tensor, "b ns nt"]) -> Float[Tensor, "b ns nt"]:
    """A correlation times its ratios to the row's and the column's maximum (Rocco et al., NeurIPS 2018)."""
    rows = correlation.amax(2, keepdim=True).clamp(min=1e-30)
    columns = correlation.amax(1, keepdim=True).clamp(min=1e-30)
    return correlation * (correlation / rows) * (correlation / columns)
