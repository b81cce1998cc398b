"""The grid of a map: square cells, the first row in the north."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64


@dataclass(frozen=True)
class Tile:
    """Cells that are worked on together: their first column and row in the map, and how many there are."""

    column: int
    row: int
    columns: int
    rows: int

    def grown(self, margin: int, grid: MapGrid) -> Tile:
        """The tile with so many cells more on each side, where the map has them."""
        column, row = max(0, self.column - margin), max(0, self.row - margin)
        right = min(grid.columns, self.column + self.columns + margin)
        bottom = min(grid.rows, self.row + self.rows + margin)
        return Tile(column, row, right - column, bottom - row)


@dataclass(frozen=True)
class MapGrid:
    """Grid of a map's cells, in local coordinates of its frame.

    Attributes:
        west, north: the outer corner of the first cell.
        gsd: side of a cell.
        columns, rows: how many cells.
    """

    west: float
    north: float
    gsd: float
    columns: int
    rows: int

    @classmethod
    def of_bounds(cls, west: float, south: float, east: float, north: float, gsd: float) -> MapGrid:
        """The grid that covers a rectangle; its corner is a whole number of cells from the origin.

        Raises:
            ValueError: the rectangle is empty.
        """
        if not (east > west and north > south):
            raise ValueError("west has to be less than east, and south less than north")
        left, top = np.floor(west / gsd + 1e-6), np.ceil(north / gsd - 1e-6)
        columns = max(1, int(np.ceil(east / gsd - 1e-6) - left))
        rows = max(1, int(top - np.floor(south / gsd + 1e-6)))
        return cls(float(left * gsd), float(top * gsd), gsd, columns, rows)

    def tiles(self, side: int) -> Iterator[Tile]:
        """Tiles of so many cells a side, row by row, every other row backwards: neighbours share photos."""
        for number, row in enumerate(range(0, self.rows, side)):
            columns = range(0, self.columns, side)
            for column in columns if number % 2 == 0 else reversed(columns):
                yield Tile(column, row, min(side, self.columns - column), min(side, self.rows - row))

    def centres(self, tile: Tile) -> tuple[Float64[np.ndarray, "h w"], Float64[np.ndarray, "h w"]]:
        """x and y of the middles of a tile's cells."""
        x = self.west + (tile.column + np.arange(tile.columns) + 0.5) * self.gsd
        y = self.north - (tile.row + np.arange(tile.rows) + 0.5) * self.gsd
        xs, ys = np.meshgrid(x, y)
        return xs, ys

    def bounds(self, tile: Tile) -> tuple[float, float, float, float]:
        """West, south, east and north of a tile."""
        west, north = self.west + tile.column * self.gsd, self.north - tile.row * self.gsd
        return west, north - tile.rows * self.gsd, west + tile.columns * self.gsd, north
