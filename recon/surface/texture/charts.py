"""Charts: regions of faces that one photo textures, laid out as the photo shows them, packed into textures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int32, Int64

from recon.errors import ReconError
from recon.surface.texture.topology import Adjacency, regions

# Faces that no photo sees are laid out two in a square cell of so many texels.
_CELL = 4
_BORDER = 16
"""Texels of a texture's side that are left free for look-ups between texels, and to round sizes."""


@dataclass(frozen=True)
class Layout:
    """Places of the faces in the texture.

    Attributes:
        corners: (m, 3, 2) texel positions of each face's corners (the centre of the first texel is (0, 0)).
        chart: (m,) chart of each face; faces that no photo sees share the last one.
        width, height: of the texture, all its tiles together.
        charts: number of charts that a photo textures.
        scale: texels per photo pixel.
        tiles: columns and rows of the texture's tiles.
    """

    corners: Float64[np.ndarray, "m 3 2"]
    chart: Int32[np.ndarray, " m"]
    width: int
    height: int
    charts: int
    scale: float
    tiles: tuple[int, int] = (1, 1)

    @property
    def tile_of_faces(self) -> Int64[np.ndarray, " m"]:
        """The tile that each face lies in; they are numbered by row, then by column."""
        columns, rows = self.tiles
        middle = (self.corners.mean(axis=1) + 0.5) / [self.width / columns, self.height / rows]
        column, row = middle.astype(np.int64).T
        return row * columns + column

    def corner_of_tile(self, number: int) -> tuple[int, int]:
        """Column and row of a tile's first texel."""
        columns, rows = self.tiles
        return number % columns * (self.width // columns), number // columns * (self.height // rows)

    def tile(self, number: int) -> Layout:
        """The places of the faces as seen from a tile."""
        columns, rows = self.tiles
        return replace(
            self,
            corners=self.corners - np.array(self.corner_of_tile(number), np.float64),
            width=self.width // columns,
            height=self.height // rows,
            tiles=(1, 1),
        )

    @property
    def uvs(self) -> Float64[np.ndarray, "m 3 2"]:
        """Texture coordinates of each face's corners, v up."""
        uvs = (self.corners + 0.5) / np.array([self.width, self.height], np.float64)
        uvs[..., 1] = 1 - uvs[..., 1]
        return uvs


def lay_out(
    pixels: Float64[np.ndarray, "m 3 2"],
    labels: Int32[np.ndarray, " m"],
    adjacency: Adjacency,
    *,
    max_texture: int = 4096,
    max_textures: int = 1,
    padding: int = 4,
) -> Layout:
    """Cut the mesh into charts and pack them into one texture, or into several where it is too small.

    A chart is a connected region of faces with one view and is laid out by that view's projection: its faces do not
    overlap, as the view sees them all, and a texel is a pixel (Waechter et al. 2014, section 3). xatlas packs the
    charts by their true outlines; each only moves, by whole texels. When they do not fit, all shrink together. Several
    textures are tiles of one, as near to a square as they can be; a chart lies in one of them.

    Args:
        pixels: where each face's corners lie in the photo of its view; ignored for faces without one.
        labels: (m,) view of each face, -1 for none.
        adjacency: of the faces.
        max_texture: longest side of a texture.
        max_textures: so many of them at most.
        padding: texels between charts.

    Raises:
        ReconError: the charts do not fit, however small (a few hundred texels for a hundred thousand faces).
    """
    seen = labels >= 0
    region = regions(adjacency, labels)
    chart = np.full(len(labels), -1, np.int64)
    names, numbers = np.unique(region[seen], return_inverse=True)
    chart[seen] = numbers.reshape(-1)
    count = len(names)
    lost = np.flatnonzero(~seen)
    chart[lost] = count
    cells = -(-len(lost) // 2)
    columns = max(1, int(np.ceil(np.sqrt(cells))))
    block = np.array([columns, -(-cells // columns)]) * _CELL
    scale, side = 1.0, 0
    for _ in range(12):
        packed = pack(pixels[seen] * scale, chart[seen], count, block, padding, side)
        if side == 0 and packed.side <= max_texture:
            break
        if side and packed.textures <= max_textures and packed.width // packed.tiles[0] <= max_texture:
            break
        if max_textures == 1 or max_texture < 4 * _BORDER:
            scale *= min(0.98, 0.99 * max_texture / packed.side)
            continue
        # From here on in several textures, none of whose charts is larger than it.
        room = max(1.0, max_texture - _BORDER - 2 * padding) / max(packed.largest, 1.0)
        if side:
            scale *= min(0.98, 0.99 * np.sqrt(max_textures / packed.textures))
        elif room < 1.0:
            scale *= 0.99 * room
        side = max_texture
    else:
        raise ReconError(
            f"{count} charts and {len(lost)} faces that no photo sees do not fit {max_textures} textures of "
            f"{max_texture} texels: raise texture.max_texture, or lower texture.faces"
        )
    corners = np.zeros((len(labels), 3, 2))
    corners[seen] = pixels[seen] * scale + packed.offset[chart[seen]][:, None]
    if len(lost):
        cell = np.arange(len(lost)) // 2
        corner = np.stack([cell % columns, cell // columns], axis=1) * _CELL + packed.block_at
        first = np.array([[0.0, 0], [2, 0], [0, 2]])
        second = np.array([[3.0, 3], [1, 3], [3, 1]])
        shape = np.where((np.arange(len(lost)) % 2 == 0)[:, None, None], first, second)
        corners[lost] = corner[:, None] + shape
    return Layout(corners, chart.astype(np.int32), packed.width, packed.height, count, scale, packed.tiles)


class Packed(NamedTuple):
    """Charts in their places.

    Attributes:
        offset: what to add to the positions of each chart.
        block_at: where the rectangle's first texel lies.
        width, height: of all tiles together. tiles: their columns and rows.
        textures: tiles that hold something.
        largest: longest side of a chart.
    """

    offset: Float64[np.ndarray, "c 2"]
    block_at: Float64[np.ndarray, "2"]
    width: int
    height: int
    tiles: tuple[int, int]
    textures: int
    largest: float

    @property
    def side(self) -> int:
        """The longest side."""
        return max(self.width, self.height)


def pack(
    pixels: Float64[np.ndarray, "k 3 2"],
    chart: Int64[np.ndarray, " k"],
    count: int,
    block: Int64[np.ndarray, "2"],
    padding: int,
    side: int = 0,
) -> Packed:
    """Pack charts and one rectangle of ``block`` texels (none if it has no area) with xatlas.

    Args:
        side: of the textures, as many as it takes; 0 for one texture of any size.
    """
    import xatlas

    points, triangles, low, largest = _joined_corners(pixels, chart, count)
    materials = chart
    if block.min() > 0:
        w, h = block
        first = len(points)
        points = np.concatenate([points, [[0, 0], [w, 0], [w, h], [0, h]]])
        triangles = np.concatenate(
            [triangles, [[first, first + 1, first + 2], [first, first + 2, first + 3]]]
        )
        materials = np.concatenate([chart, [count, count]])
    atlas = xatlas.Atlas()
    atlas.add_uv_mesh(
        np.ascontiguousarray(points, np.float32),
        np.ascontiguousarray(triangles, np.uint32),
        np.ascontiguousarray(materials, np.uint32)[:, None],
    )
    options = xatlas.PackOptions()
    options.padding = padding
    options.texels_per_unit = 1.0
    options.rotate_charts = False
    options.rotate_charts_to_axis = False
    options.bilinear = True
    if side:
        options.resolution = max(1, side - _BORDER)
    atlas.generate(pack_options=options)
    mapping, _, uvs = atlas.get_mesh(0)
    owner = np.zeros(len(points), np.int64)
    owner[triangles.ravel()] = np.repeat(materials, 3)
    owner = owner[mapping]
    total = count + (1 if block.min() > 0 else 0)
    # Faces without area are left out by xatlas: a chart's move is that of most of its corners.
    put = (uvs > 0).any(axis=1)
    moves = uvs.astype(np.float64) * [atlas.width, atlas.height] - points[mapping]
    offset = _usual_moves(moves[put], owner[put], total)
    block_at = offset[count] if total > count else np.zeros(2)
    # Whole texels were added to the border for the bilinear look-up; texels are multiples of 16 for the GPU.
    width, height = (int(-(-(size + 2) // 16) * 16) for size in (atlas.width, atlas.height))
    tiles = (1, 1)
    if atlas.atlas_count > 1:
        columns = int(np.ceil(np.sqrt(atlas.atlas_count)))
        tiles = columns, -(-atlas.atlas_count // columns)
        number = np.zeros(total, np.int64)
        texture = atlas.get_mesh_vertex_assignment(0)[0].astype(np.int64)
        placed = texture < atlas.atlas_count  # what is left out has 2^32 - 1
        number[owner[placed]] = texture[placed]
        corner = np.stack([number % columns * width, number // columns * height], axis=1)
        offset += corner
        block_at = offset[count] if total > count else block_at
    return Packed(
        offset[:count] - low, block_at, tiles[0] * width, tiles[1] * height, tiles, atlas.atlas_count, largest
    )


def _joined_corners(
    pixels: Float64[np.ndarray, "k 3 2"], chart: Int64[np.ndarray, " k"], count: int
) -> tuple[Float64[np.ndarray, "p 2"], Int64[np.ndarray, "k 3"], Float64[np.ndarray, "c 2"], float]:
    """Join the corners of a chart that lie at one place: xatlas finds the charts by that.

    Returns:
        Points, each chart's from zero on; the faces' indices of them; where each chart begins; the longest side of one.
    """
    flat = pixels.reshape(-1, 2)
    low = np.full((count, 2), np.inf)
    np.minimum.at(low, chart, pixels.min(axis=1))
    low = np.floor(low)
    local = flat - low[np.repeat(chart, 3)]
    key = np.column_stack([np.repeat(chart, 3), np.rint(local * 256).astype(np.int64)])
    order = np.lexsort(key.T[::-1])
    new = np.ones(len(order), bool)
    new[1:] = (key[order][1:] != key[order][:-1]).any(axis=1)
    number = np.empty(len(order), np.int64)
    number[order] = np.cumsum(new) - 1
    return local[order[new]], number.reshape(-1, 3), low, float(local.max(initial=0.0))


def _usual_moves(
    moves: Float64[np.ndarray, "v 2"], owner: Int64[np.ndarray, " v"], count: int
) -> Float64[np.ndarray, "c 2"]:
    """The median move of each chart's points, in whole texels."""
    offset = np.zeros((count, 2))
    order = np.argsort(owner, kind="stable")
    starts = np.searchsorted(owner[order], np.arange(count + 1))
    moves = moves[order]
    for c in range(count):
        part = moves[starts[c] : starts[c + 1]]
        if len(part):
            offset[c] = np.rint(np.median(part, axis=0))
    return offset
