"""Charts: regions of faces that one photo textures, laid out as the photo shows them, packed into one texture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int32, Int64

from recon.errors import ReconError
from recon.surface.texture.topology import Adjacency, regions

# Faces that no photo sees are laid out two in a square cell of so many texels.
_CELL = 4


@dataclass(frozen=True)
class Layout:
    """Places of the faces in the texture.

    Attributes:
        corners: (m, 3, 2) texel positions of each face's corners (the centre of the first texel is (0, 0)).
        chart: (m,) chart of each face; faces that no photo sees share the last one.
        width, height: of the texture.
        charts: number of charts that a photo textures.
        scale: texels per photo pixel.
    """

    corners: Float64[np.ndarray, "m 3 2"]
    chart: Int32[np.ndarray, " m"]
    width: int
    height: int
    charts: int
    scale: float

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
    padding: int = 4,
) -> Layout:
    """Cut the mesh into charts and pack them.

    A chart is a connected region of faces with one view and is laid out by that view's projection: its faces do not
    overlap, as the view sees them all, and a texel is a pixel (Waechter et al. 2014, section 3). xatlas packs the
    charts by their true outlines; each only moves, by whole texels. When they do not fit, all shrink together.

    Args:
        pixels: where each face's corners lie in the photo of its view; ignored for faces without one.
        labels: (m,) view of each face, -1 for none.
        adjacency: of the faces.
        max_texture: longest side.
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
    scale = 1.0
    for _ in range(12):
        offset, block_at, width, height = pack(pixels[seen] * scale, chart[seen], count, block, padding)
        if max(width, height) <= max_texture:
            break
        scale *= min(0.98, 0.99 * max_texture / max(width, height))
    else:
        raise ReconError(
            f"{count} charts and {len(lost)} faces that no photo sees do not fit a texture of {max_texture} texels: "
            "raise texture.max_texture, or lower texture.faces"
        )
    corners = np.zeros((len(labels), 3, 2))
    corners[seen] = pixels[seen] * scale + offset[chart[seen]][:, None]
    if len(lost):
        cell = np.arange(len(lost)) // 2
        corner = np.stack([cell % columns, cell // columns], axis=1) * _CELL + block_at
        first = np.array([[0.0, 0], [2, 0], [0, 2]])
        second = np.array([[3.0, 3], [1, 3], [3, 1]])
        shape = np.where((np.arange(len(lost)) % 2 == 0)[:, None, None], first, second)
        corners[lost] = corner[:, None] + shape
    return Layout(corners, chart.astype(np.int32), width, height, count, scale)


def pack(
    pixels: Float64[np.ndarray, "k 3 2"],
    chart: Int64[np.ndarray, " k"],
    count: int,
    block: Int64[np.ndarray, "2"],
    padding: int,
) -> tuple[Float64[np.ndarray, "c 2"], Float64[np.ndarray, "2"], int, int]:
    """Pack charts and one rectangle of ``block`` texels (none if it has no area) with xatlas.

    Returns:
        What to add to the positions of each chart, where the rectangle's first texel lies, width and height.
    """
    import xatlas

    # Vertices of a chart are joined where they lie at one place: xatlas finds the charts by that.
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
    points = local[order[new]]
    triangles = number.reshape(-1, 3)
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
    atlas.generate(pack_options=options)
    mapping, _, uvs = atlas.get_mesh(0)
    placed = uvs.astype(np.float64) * [atlas.width, atlas.height]
    # Faces without area are left out by xatlas: a chart's move is that of most of its corners.
    move = placed - points[mapping]
    owner = np.zeros(len(points), np.int64)
    owner[triangles.ravel()] = np.repeat(materials, 3)
    owner = owner[mapping]
    put = (uvs > 0).any(axis=1)
    total = count + (1 if block.min() > 0 else 0)
    offset = np.zeros((total, 2))
    order = np.argsort(owner[put], kind="stable")
    starts = np.searchsorted(owner[put][order], np.arange(total + 1))
    moves = move[put][order]
    for c in range(total):
        part = moves[starts[c] : starts[c + 1]]
        if len(part):
            offset[c] = np.rint(np.median(part, axis=0))
    block_at = offset[count] if total > count else np.zeros(2)
    # Whole texels were added to the border for the bilinear look-up; texels are multiples of 16 for the GPU.
    width, height = (int(-(-(side + 2) // 16) * 16) for side in (atlas.width, atlas.height))
    return offset[:count] - low, block_at, width, height
