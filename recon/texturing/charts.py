"""Charts: regions of faces that one photo textures, laid out as the photo shows them, packed into one texture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from recon.texturing.topology import Adjacency, regions

_CELL = 4
"""Faces that no photo sees are laid out two in a square cell of so many texels."""


@dataclass(frozen=True)
class Layout:
    """Where faces lie in the texture.

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


def lay_out(
    pixels: Float64[np.ndarray, "m 3 2"],
    labels: Int32[np.ndarray, " m"],
    adjacency: Adjacency,
    *,
    max_texture: int = 4096,
    padding: int = 3,
) -> Layout:
    """Cut the mesh into charts and pack them.

    A chart is a connected region of faces with one view and is laid out by that view's projection: its faces do not
    overlap, as the view sees them all, and a texel is a pixel (Waechter et al. 2014, section 3). Its rectangle is
    packed by a skyline (rectpack). When the charts do not fit, all shrink together.

    Args:
        pixels: where each face's corners lie in the photo of its view; ignored for faces without one.
        labels: (m,) view of each face, -1 for none.
        adjacency: of the faces.
        max_texture: longest side.
        padding: texels between charts.
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
    block = np.array([[columns * _CELL, -(-cells // columns) * _CELL]]) if cells else np.zeros((0, 2), int)
    low, high = _bounds(pixels[seen], chart[seen], count)
    scale = 1.0
    for _ in range(12):
        origin = np.floor(low * scale)
        size = (np.ceil(high * scale) - origin + 1).astype(np.int64)
        rectangles = np.concatenate([size, block]) + padding
        side = int(np.ceil(np.sqrt(rectangles.prod(axis=1).sum() * 1.12)))
        side = min(max_texture, max(side, int(rectangles[:, 0].max(initial=1)), 64))
        if rectangles.max(initial=1) <= max_texture:
            places, height = pack(rectangles, side)
            if height > max_texture and side < max_texture:
                places, height = pack(rectangles, max_texture)
                side = max_texture
            if height <= max_texture:
                break
            shrink = np.sqrt(max_texture / height)
        else:
            shrink = max_texture / float(rectangles.max())
        scale *= min(0.98, float(shrink) * 0.99)
    else:
        raise ValueError(
            f"{count} charts and {len(lost)} faces that no photo sees do not fit {max_texture} texels"
        )
    places = places + padding // 2
    corners = np.zeros((len(labels), 3, 2))
    mine = chart[seen]
    corners[seen] = pixels[seen] * scale + (places[mine] - origin[mine])[:, None]
    if len(lost):
        cell = np.arange(len(lost)) // 2
        corner = np.stack([cell % columns, cell // columns], axis=1) * _CELL + places[count]
        first = np.array([[0.0, 0], [2, 0], [0, 2]])
        second = np.array([[3.0, 3], [1, 3], [3, 1]])
        shape = np.where((np.arange(len(lost)) % 2 == 0)[:, None, None], first, second)
        corners[lost] = corner[:, None] + shape
    width, height = (int(-(-value // 16) * 16) for value in (side, height))
    return Layout(corners, chart.astype(np.int32), width, height, count, scale)


def _bounds(
    pixels: Float64[np.ndarray, "k 3 2"], chart: Int64[np.ndarray, " k"], count: int
) -> tuple[Float64[np.ndarray, "c 2"], Float64[np.ndarray, "c 2"]]:
    low, high = np.full((count, 2), np.inf), np.full((count, 2), -np.inf)
    np.minimum.at(low, chart, pixels.min(axis=1))
    np.maximum.at(high, chart, pixels.max(axis=1))
    return low, high


def pack(rectangles: Int64[np.ndarray, "n 2"], width: int) -> tuple[Int64[np.ndarray, "n 2"], int]:
    """Pack rectangles without turning them into a strip; returns their corners and the strip's height.

    rectpack's skyline with the rectangles in order of their shorter side: of its algorithms the densest and, on
    thousands of rectangles, among the fastest (docs/texturing.md).
    """
    import rectpack

    if len(rectangles) == 0:
        return np.zeros((0, 2), np.int64), 1
    packer = rectpack.newPacker(
        mode=rectpack.PackingMode.Offline,
        pack_algo=rectpack.SkylineBl,
        sort_algo=rectpack.SORT_SSIDE,
        rotation=False,
    )
    tall = int(rectangles[:, 1].sum())
    packer.add_bin(width, tall)
    for number, (w, h) in enumerate(rectangles.tolist()):
        packer.add_rect(w, h, number)
    packer.pack()
    places = np.full((len(rectangles), 2), -1, np.int64)
    for _, x, y, _, _, number in packer.rect_list():
        places[number] = x, y
    if (places < 0).any():
        raise ValueError("a chart is wider than the texture")
    return places, int((places[:, 1] + rectangles[:, 1]).max())


def covered(texture_owner: Int32[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Texels that a face owns."""
    return texture_owner >= 0
