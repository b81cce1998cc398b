"""Colours of texels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int16, Int32, Int64, UInt8

from recon.core.cameras import PinholeView
from recon.core.kernels import kernel, maximum, minimum, part_of_kernel
from recon.surface.texture.charts import Layout
from recon.surface.texture.color import VertexViews
from recon.surface.texture.visibility import Candidates

# So many photos at most blend on one face.
_PHOTOS = 4
# Texels so near to a face take its colour at the nearest point: bilinear look-ups at its border stay right.
_MARGIN = 1.5
# Gaps are filled so many texels at once.
_BAND = 1 << 18
# So many photos stay in memory for the blends to come.
_AT_HAND = 48


@dataclass(frozen=True)
class FaceBlend:
    """The photos that each face is painted with.

    Attributes:
        view: (m, 4) views, -1 for none.
        weight: (m, 3, 4) their shares at the corners.
        correction: (m, 3, 4, 3) grey levels added.
    """

    view: Int16[np.ndarray, "m 4"]
    weight: Float32[np.ndarray, "m 3 4"]
    correction: Float32[np.ndarray, "m 3 4 3"]


def blend_of_faces(
    faces: Int32[np.ndarray, "m 3"],
    labels: Int32[np.ndarray, " m"],
    candidates: Candidates,
    accepted: Bool[np.ndarray, "m k"],
    at_vertices: VertexViews,
) -> FaceBlend:
    """Choose the views of each face's blend: those of its corners that see the face, the strongest first."""
    m, count = candidates.view.shape
    allowed = np.where(accepted, candidates.view, np.int16(-1))
    nodes = at_vertices.first, at_vertices.view, at_vertices.weight
    total = np.zeros((m, count), np.float32)
    _weigh(faces, allowed, *nodes, total)
    own = allowed == labels[:, None]
    total[own & (labels >= 0)[:, None]] += 10.0  # its own view comes first
    order = np.argsort(-total, axis=1, kind="stable")[:, :_PHOTOS]
    chosen = np.take_along_axis(allowed, order, axis=1)
    chosen = np.where(np.take_along_axis(total, order, axis=1) > 0, chosen, -1)
    view = np.full((m, _PHOTOS), -1, np.int16)
    view[:, : chosen.shape[1]] = chosen
    weight = np.zeros((m, 3, _PHOTOS), np.float32)
    correction = np.zeros((m, 3, _PHOTOS, 3), np.float32)
    _gather(faces, view, *nodes, at_vertices.correction, weight, correction)
    # The face's own view is there even if its corners gave all their weight away.
    nothing = weight.sum(axis=2) <= 1e-6
    weight[:, :, 0] = np.where(nothing, 1.0, weight[:, :, 0])
    return FaceBlend(view, weight, correction)


@part_of_kernel()
def _row_of(first: Int32[np.ndarray, " v1"], views: Int32[np.ndarray, " n"], vertex: int, view: int) -> int:
    """Row of a view at a vertex, -1 where there is none; few views meet at a vertex."""
    for row in range(first[vertex], first[vertex + 1]):
        if views[row] == view:
            return row
    return -1


@kernel()
def _weigh(
    faces: Int32[np.ndarray, "m 3"],
    views: Int16[np.ndarray, "m k"],
    first: Int32[np.ndarray, " v1"],
    view_there: Int32[np.ndarray, " n"],
    weight_there: Float32[np.ndarray, " n"],
    total: Float32[np.ndarray, "m k"],
) -> None:
    """Sum the weights of each view over the corners of a face."""
    for f in range(len(faces)):
        for k in range(views.shape[1]):
            if views[f, k] < 0:
                continue
            for c in range(3):
                row = _row_of(first, view_there, faces[f, c], views[f, k])
                if row >= 0:
                    total[f, k] += weight_there[row]


@kernel()
def _gather(
    faces: Int32[np.ndarray, "m 3"],
    views: Int16[np.ndarray, "m 4"],
    first: Int32[np.ndarray, " v1"],
    view_there: Int32[np.ndarray, " n"],
    weight_there: Float32[np.ndarray, " n"],
    correction_there: Float32[np.ndarray, "n 3"],
    weight: Float32[np.ndarray, "m 3 4"],
    correction: Float32[np.ndarray, "m 3 4 3"],
) -> None:
    """Weights and corrections at the corners. Where a corner knows nothing of a view, its correction is the mean of the
    others'."""
    for f in range(len(faces)):
        for k in range(views.shape[1]):
            if views[f, k] < 0:
                continue
            known = 0
            for c in range(3):
                row = _row_of(first, view_there, faces[f, c], views[f, k])
                if row >= 0:
                    known += 1
                    weight[f, c, k] = weight_there[row]
                    for channel in range(3):
                        correction[f, c, k, channel] = correction_there[row, channel]
            if known == 0 or known == 3:
                continue
            for channel in range(3):
                mean = correction[f, 0, k, channel] + correction[f, 1, k, channel]
                mean = np.float32((mean + correction[f, 2, k, channel]) / known)
                for c in range(3):
                    if _row_of(first, view_there, faces[f, c], views[f, k]) < 0:
                        correction[f, c, k, channel] = mean


def bake(
    vertices: Float64[np.ndarray, "n 3"],
    faces: Int32[np.ndarray, "m 3"],
    layout: Layout,
    blend: FaceBlend,
    views: Sequence[PinholeView],
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    gains: Float64[np.ndarray, "v 3"],
    chosen: Int64[np.ndarray, " k"] | None = None,
) -> tuple[UInt8[np.ndarray, "h w 3"], Int32[np.ndarray, "h w"]]:
    """Paint the faces that photos see.

    A texel is a point of a face (affine in the texture, so as a renderer will look it up); that point is projected
    into each photo of the face's blend, which is sampled bicubically (Keys 1981, a = -0.5).

    Args:
        chosen: the faces to paint, in ascending order; None for all.

    Returns:
        The texture, and the face that owns each texel (-1 for none).
    """
    texture = np.zeros((layout.height, layout.width, 3), np.uint8)
    owner = np.full((layout.height, layout.width), -1, np.int32)
    factor = layout.scale if layout.scale < 0.999 else 1.0
    sizes = [(max(1, round(v.width * factor)), max(1, round(v.height * factor))) for v in views]
    matrices = np.zeros((len(views), 3, 4))
    for index, (view, size) in enumerate(zip(views, sizes, strict=True)):
        matrices[index] = (view if factor == 1.0 else view.resized(*size)).K @ view.cam_from_world

    @lru_cache(maxsize=_AT_HAND)
    def picture(index: int) -> UInt8[np.ndarray, "_ _ 3"]:
        image = images[index]
        return np.ascontiguousarray(
            image if factor == 1.0 else cv2.resize(image, sizes[index], interpolation=cv2.INTER_AREA)
        )

    # Faces of one photo are charts of their own, which lie apart: only the photos of their blends are in memory.
    order = np.argsort(blend.view[:, 0], kind="stable")
    if chosen is not None:
        order = chosen[np.argsort(blend.view[chosen, 0], kind="stable")]
    names, first = np.unique(blend.view[order, 0], return_index=True)
    # In the order of the kernel's other arrays, or it would be compiled once more.
    exposure = np.ascontiguousarray(gains, np.float32)
    # Of each photo in the pixels of all at work: where it begins, its height and width.
    places = np.zeros((len(views), 3), np.int64)
    for name, mine in zip(names, np.split(order, first[1:]), strict=True):
        if name < 0:
            continue
        used = [index for index in np.unique(blend.view[mine]).tolist() if index >= 0]
        shapes = np.array([picture(index).shape[:2] for index in used], np.int64)
        begin = np.cumsum(shapes.prod(axis=1) * 3) - shapes.prod(axis=1) * 3
        places[used] = np.column_stack([begin, shapes])
        pixels = np.concatenate([picture(index).ravel() for index in used])
        for margin in (0.0, _MARGIN):
            _paint(
                texture,
                owner,
                mine,
                layout.corners[mine],
                _boxes(layout.corners[mine], margin, owner.shape),
                vertices[faces[mine]],
                blend.view[mine],
                blend.weight[mine],
                blend.correction[mine],
                pixels,
                places,
                matrices,
                exposure,
                margin,
                np.empty((6, 4)),
            )
    owner[owner < -1] = -2 - owner[owner < -1]
    return texture, owner


@part_of_kernel()
def _cubic(x: float) -> float:
    x = abs(x)
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    if x < 2:
        return ((-0.5 * x + 2.5) * x - 4) * x + 2
    return 0.0


def _boxes(
    corners: Float64[np.ndarray, "k 3 2"], margin: float, size: tuple[int, int]
) -> Int64[np.ndarray, "k 4"]:
    """Texels that may lie on a face or within ``margin`` of it: left, top, right and bottom, inclusive."""
    first = np.maximum(np.ceil(corners.min(axis=1) - margin), 0)
    last = np.minimum(np.floor(corners.max(axis=1) + margin), np.array(size[::-1]) - 1)
    return np.concatenate([first, last], axis=1).astype(np.int64)


@part_of_kernel(error_model="numpy")
def _on_face(
    corners: Float64[np.ndarray, "3 2"], x: int, y: int, margin: float, b: Float64[np.ndarray, "3"]
) -> bool:
    """Barycentric coordinates ``b`` of a texel, or of the point of the face near it; False if that is too far."""
    x0, y0 = corners[0, 0], corners[0, 1]
    ax, ay = corners[1, 0] - x0, corners[1, 1] - y0
    bx, by = corners[2, 0] - x0, corners[2, 1] - y0
    det = ax * by - ay * bx
    if abs(det) < 1e-12:
        return False
    dx, dy = x - x0, y - y0
    b[1] = (dx * by - dy * bx) / det
    b[2] = (ax * dy - ay * dx) / det
    b[0] = 1 - b[1] - b[2]
    if margin == 0.0:
        return minimum(minimum(b[0], b[1]), b[2]) >= -1e-9
    for c in range(3):
        b[c] = maximum(b[c], 0.0)
    total = b[0] + b[1] + b[2]
    for c in range(3):
        b[c] /= total
    px = x0 + b[1] * ax + b[2] * bx
    py = y0 + b[1] * ay + b[2] * by
    dx, dy = px - x, py - y
    return dx * dx + dy * dy <= margin * margin


@kernel(error_model="numpy")
def _paint(
    texture: UInt8[np.ndarray, "h w 3"],
    owner: Int32[np.ndarray, "h w"],
    names: Int64[np.ndarray, " k"],
    corners: Float64[np.ndarray, "k 3 2"],
    boxes: Int64[np.ndarray, "k 4"],
    points: Float64[np.ndarray, "k 3 3"],
    view: Int16[np.ndarray, "k 4"],
    weight: Float32[np.ndarray, "k 3 4"],
    correction: Float32[np.ndarray, "k 3 4 3"],
    pixels: UInt8[np.ndarray, " p"],
    places: Int64[np.ndarray, "v 3"],
    matrices: Float64[np.ndarray, "v 3 4"],
    gains: Float32[np.ndarray, "v 3"],
    margin: float,
    work: Float64[np.ndarray, "6 4"],
) -> None:
    b, color, at, projected, wx, wy = work[0], work[1], work[2], work[3], work[4], work[5]
    for f in range(len(names)):
        for y in range(boxes[f, 1], boxes[f, 3] + 1):
            for x in range(boxes[f, 0], boxes[f, 2] + 1):
                if owner[y, x] != -1 or not _on_face(corners[f], x, y, margin, b):
                    continue
                for channel in range(3):
                    color[channel] = 0.0
                total = 0.0
                for k in range(view.shape[1]):
                    v = view[f, k]
                    if v < 0:
                        break
                    w = b[0] * weight[f, 0, k] + b[1] * weight[f, 1, k] + b[2] * weight[f, 2, k]
                    if w <= 1e-4:
                        continue
                    for c in range(3):
                        at[c] = 0.0
                        for corner in range(3):
                            at[c] += b[corner] * points[f, corner, c]
                    for c in range(3):
                        P = matrices[v, c]
                        projected[c] = P[0] * at[0] + P[1] * at[1] + P[2] * at[2] + P[3]
                    if projected[2] <= 0:
                        continue
                    u, q = projected[0] / projected[2], projected[1] / projected[2]
                    begin, ph, pw = places[v, 0], places[v, 1], places[v, 2]
                    iu, iq = math.floor(u), math.floor(q)
                    for tap in range(4):
                        wx[tap] = _cubic(u - (iu - 1 + tap))
                        wy[tap] = _cubic(q - (iq - 1 + tap))
                    for channel in range(3):
                        value = 0.0
                        for r in range(4):
                            yy = minimum(maximum(iq - 1 + r, 0), ph - 1)
                            line = 0.0
                            for s in range(4):
                                xx = minimum(maximum(iu - 1 + s, 0), pw - 1)
                                line += wx[s] * pixels[begin + 3 * (yy * pw + xx) + channel]
                            value += wy[r] * line
                        value *= gains[v, channel]
                        for c in range(3):
                            value += b[c] * correction[f, c, k, channel]
                        color[channel] += w * value
                    total += w
                if total <= 0:
                    continue
                for channel in range(3):
                    texture[y, x, channel] = np.uint8(
                        minimum(maximum(color[channel] / total + 0.5, 0.0), 255.0)
                    )
                # Owners of the margin are told apart from those inside: -2 - face.
                owner[y, x] = names[f] if margin == 0.0 else -2 - names[f]


def paint_faces(
    texture: UInt8[np.ndarray, "h w 3"],
    owner: Int32[np.ndarray, "h w"],
    layout: Layout,
    chosen: Int32[np.ndarray, " k"],
    corner_colors: Float32[np.ndarray, "k 3 3"],
) -> None:
    """Paint faces with colours interpolated from their corners, in place."""
    count = len(chosen)
    # As corrections of a black photo of one pixel, so that one kernel paints all.
    view = np.full((count, _PHOTOS), -1, np.int16)
    view[:, 0] = 0
    correction = np.zeros((count, 3, _PHOTOS, 3), np.float32)
    correction[:, :, 0] = corner_colors
    corners = layout.corners[chosen]
    for margin in (0.0, _MARGIN):
        _paint(
            texture,
            owner,
            chosen.astype(np.int64),
            corners,
            _boxes(corners, margin, owner.shape),
            np.zeros((count, 3, 3)),
            view,
            np.ones((count, 3, _PHOTOS), np.float32),
            correction,
            np.zeros(3, np.uint8),
            np.array([[0, 1, 1]], np.int64),
            np.array([[[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1.0]]]),
            np.zeros((1, 3), np.float32),
            margin,
            np.empty((6, 4)),
        )
    owner[owner < -1] = -2 - owner[owner < -1]


def fill_gaps(texture: UInt8[np.ndarray, "h w 3"], owner: Int32[np.ndarray, "h w"]) -> None:
    """Give texels of no face the colour of the nearest painted one, in place: mip maps must not mix in black."""
    empty = owner < 0
    if not empty.any() or empty.all():
        return
    _, label = cv2.distanceTransformWithLabels(
        empty.astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )
    source = np.zeros(int(label.max()) + 1, np.int32)
    flat, labels, empty = texture.reshape(-1, 3), label.ravel(), empty.ravel()
    bands = [slice(start, start + _BAND) for start in range(0, len(labels), _BAND)]
    for band in bands:
        painted = np.flatnonzero(~empty[band])
        source[labels[band][painted]] = band.start + painted
    for band in bands:
        hole = np.flatnonzero(empty[band])
        flat[band][hole] = flat[source[labels[band][hole]]]
