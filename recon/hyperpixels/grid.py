"""The common grid of hyperpixels: where its cells lie and how a layer is brought to it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


@dataclass(frozen=True)
class Grid:
    """Cells of one image. Cell (row i, column j) is centred at pixel (step * j, step * i) of the network's input.

    Attributes:
        height, width: of the image in pixels.
        step: distance of cells in pixels.
        stretch: bring layers to the grid as the published DHPF does: corner cells of a layer on corner cells of the
            grid, although their centres differ by up to a stride. Checkpoints of its authors were trained so. False
            puts every cell where its receptive field is centred, which flow needs: stretched layers shorten it.
    """

    height: int
    width: int
    step: int = 4
    stretch: bool = False

    @property
    def rows(self) -> int:
        """Number of rows of cells."""
        return -(-self.height // self.step)

    @property
    def columns(self) -> int:
        """Number of columns of cells."""
        return -(-self.width // self.step)

    @property
    def cells(self) -> int:
        """Number of cells."""
        return self.rows * self.columns

    def centres(self) -> Float[Tensor, "n 2"]:
        """(x, y) of each cell in pixels, row by row."""
        y, x = torch.meshgrid(torch.arange(self.rows), torch.arange(self.columns), indexing="ij")
        return torch.stack([x, y], -1).reshape(-1, 2).float() * self.step

    def matrix(self, axis: int, size: int, stride: int) -> Float[Tensor, "cells size"]:
        """Weights of linear interpolation from a layer of ``size`` cells, ``stride`` pixels apart, to the grid.

        Args:
            axis: 0 for rows, 1 for columns.
        """
        count = self.rows if axis == 0 else self.columns
        if self.stretch:
            at = torch.arange(count, dtype=torch.float64) * ((size - 1) / max(count - 1, 1))
        else:
            at = torch.arange(count, dtype=torch.float64) * (self.step / stride)
        at = at.clamp(0, size - 1)
        low = at.floor().long().clamp(max=max(size - 2, 0))
        share = at - low
        weights = torch.zeros(count, size, dtype=torch.float64)
        rows = torch.arange(count)
        weights[rows, low] += 1 - share
        weights[rows, (low + 1).clamp(max=size - 1)] += share
        return weights.float()

    def sample(self, layer: Float[Tensor, "b c h w"], stride: int) -> Float[Tensor, "b c rows columns"]:
        """A layer at the cells of the grid."""
        h, w = layer.shape[-2:]
        if not self.stretch and self.step % stride == 0:
            # Cells of the layer lie on cells of the grid: nothing is interpolated.
            skip = self.step // stride
            return layer[..., ::skip, ::skip][..., : self.rows, : self.columns]
        if self.stretch:
            return F.interpolate(layer, (self.rows, self.columns), mode="bilinear", align_corners=True)
        along_y = self.matrix(0, h, stride).to(layer)
        along_x = self.matrix(1, w, stride).to(layer)
        return torch.matmul(torch.matmul(along_y, layer), along_x.transpose(0, 1))
