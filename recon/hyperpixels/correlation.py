"""Correlation of hyperpixels that are never put together.

A hypercolumn is the concatenation of several layers, each brought to a common grid. Its inner products are sums of the
layers' inner products, and bringing a layer to the grid is linear: so layers of one resolution are correlated at that
resolution, their correlations added, and only the sum is brought to the grid, a block of source cells at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from recon.hyperpixels.grid import Grid

EPSILON = 1e-3
"""Added to the product of two norms (the release's of DHPF; that of HPF adds none)."""

CHUNK = 1 << 19
"""Values of a correlation that are worked on at once: few enough for a processor's cache (2 MiB)."""


@dataclass(frozen=True)
class Hyperpixels:
    """Selected layers of one image on a common grid.

    Attributes:
        grid: the cells.
        layers: by stride of the layer: concatenated maps of that stride (b, c, h, w).
    """

    grid: Grid
    layers: dict[int, Float[Tensor, "b c h w"]]

    def squared_norms(self) -> Float[Tensor, "b n"]:
        """Squared length of each cell's hypercolumn."""
        total: Tensor | None = None
        for stride, maps in self.layers.items():
            part = self.grid.sample(maps, stride).square().sum(1).flatten(1)
            total = part if total is None else total + part
        assert total is not None
        return total


def hyperpixels(
    grid: Grid, maps: Sequence[tuple[int, Float[Tensor, "b c h w"]]], weights: Sequence[Tensor] | None = None
) -> Hyperpixels:
    """Gather layers by their stride.

    Args:
        maps: stride and output of each layer, at least one.
        weights: (b,) factor of each layer; None for 1.
    """
    groups: dict[int, list[Tensor]] = {}
    for index, (stride, layer) in enumerate(maps):
        weighted = layer if weights is None else layer * weights[index].view(-1, 1, 1, 1)
        groups.setdefault(stride, []).append(weighted)
    return Hyperpixels(grid, {stride: torch.cat(group, 1) for stride, group in groups.items()})


class PairCorrelation:
    """Correlation of two images' hyperpixels, made block by block.

    ``rows(first, count)`` gives (relu(cosine))² of some rows of source cells against all target cells (Min et al., ECCV
    2020, equation 3, with the exponent of the release).
    """

    def __init__(
        self, source: Hyperpixels, target: Hyperpixels, power: int = 2, *, epsilon: float = EPSILON
    ) -> None:
        self.source, self.target, self.power, self.epsilon = source, target, power, epsilon
        self._norm_source = source.squared_norms().clamp(min=1e-8).sqrt()
        self._norm_target = target.squared_norms().clamp(min=1e-8).sqrt()
        self._coarse: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        self._fine: list[tuple[Tensor, Tensor]] = []
        for stride in source.layers:
            a, b = source.layers[stride], target.layers[stride]
            cheap = a.shape[2] * a.shape[3] * 4 <= source.grid.cells
            if not cheap:
                # At least as fine as the grid, nearly: correlating its samples costs less than interpolating products.
                self._fine.append((source.grid.sample(a, stride), target.grid.sample(b, stride).flatten(2)))
                continue
            product = torch.matmul(a.flatten(2).transpose(1, 2), b.flatten(2))
            product = product.reshape(*product.shape[:1], a.shape[2], a.shape[3], b.shape[2], b.shape[3])
            # The target side is brought to the grid at once: it has the few rows of the coarse source.
            ty = target.grid.matrix(0, b.shape[2], stride).to(a)
            tx = target.grid.matrix(1, b.shape[3], stride).to(a)
            product = torch.matmul(torch.matmul(ty, product), tx.transpose(0, 1)).flatten(3)
            sy = source.grid.matrix(0, a.shape[2], stride).to(a)
            sx = source.grid.matrix(1, a.shape[3], stride).to(a)
            self._coarse.append((product, sy, sx, torch.empty(0)))

    def rows(self, first: int, count: int) -> Float[Tensor, "b k nt"]:
        """Correlation of the source cells of ``count`` rows from ``first`` on; k = count * columns."""
        last = min(first + count, self.source.grid.rows)
        columns = self.source.grid.columns
        total: Tensor | None = None
        for a, b in self._fine:
            part = torch.matmul(a[:, :, first:last].flatten(2).transpose(1, 2), b)
            total = part if total is None else total + part
        for product, sy, sx, _ in self._coarse:
            batch, h, w, n = product.shape
            some = torch.matmul(sy[first:last], product.reshape(batch, h, w * n)).reshape(batch, -1, w, n)
            part = torch.matmul(sx, some).flatten(1, 2)
            total = part if total is None else total + part
        assert total is not None
        norm = self._norm_source[:, first * columns : last * columns, None] * self._norm_target[:, None]
        if torch.is_grad_enabled():
            return torch.relu(total / (norm + self.epsilon)).pow(self.power)
        cosine = total.div_(norm.add_(self.epsilon)).relu_()
        return cosine.square_() if self.power == 2 else cosine.pow_(self.power)

    def at_cells(self, item: int, cells: Int[Tensor, " k"]) -> Float[Tensor, "k nt"]:
        """Correlation of some source cells of one item of the batch: what losses at points need, with gradients."""
        columns = self.source.grid.columns
        y, x = cells // columns, cells % columns
        total: Tensor | None = None
        for a, b in self._fine:
            part = torch.matmul(a[item][:, y, x].transpose(0, 1), b[item])
            total = part if total is None else total + part
        for product, sy, sx, _ in self._coarse:
            # The few coarse cells that each cell is interpolated from, as one matrix.
            weights = (sy[y][:, :, None] * sx[x][:, None, :]).flatten(1)
            part = torch.matmul(weights, product[item].flatten(0, 1))
            total = part if total is None else total + part
        assert total is not None
        norm = self._norm_source[item, cells, None] * self._norm_target[item]
        return torch.relu(total / (norm + self.epsilon)).pow(self.power)

    def full(self) -> Float[Tensor, "b ns nt"]:
        """Correlation of all cells."""
        if torch.is_grad_enabled():
            return self.rows(0, self.source.grid.rows)
        # What is between one block's steps stays in the processor's cache.
        return torch.cat([block for _, block in self.blocks(CHUNK)], 1)

    def blocks(self, budget: int) -> Iterator[tuple[int, Float[Tensor, "b k nt"]]]:
        """First row and correlation of blocks of source rows with at most ``budget`` values (at least one row)."""
        grid = self.source.grid
        step = max(1, budget // max(1, grid.columns * self.target.grid.cells))
        for first in range(0, grid.rows, step):
            yield first, self.rows(first, step)
