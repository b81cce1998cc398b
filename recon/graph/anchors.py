"""Anchors: the points of a photo that the flow carries into the others, to begin tracks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from recon.core.kernels import kernel
from recon.graph.view_graph import FEW_POINTS

# A photo with fewer corners than this share of the tracks that may start in it shows a smooth surface: weak corners,
# which the flow carries with what lies around them, are better than none there.
_FEW_CORNERS = 0.5
_WEAK_CORNER, _WEAK_SPACING = 0.05, 4.0
# Where most photos have hardly any interest points, every track counts: they may lie this near to each other, pixels.
_WEAK_SUPPRESSION = 2.0

AnchorKind = Literal["corners", "points", "both"]


def anchors_of_photo(
    grey: UInt8[np.ndarray, "h w"] | Float32[np.ndarray, "h w"],
    mask: Bool[np.ndarray, "h w"] | None,
    points: Float32[np.ndarray, "n 2"],
    kind: AnchorKind,
    max_anchors: int,
) -> Float32[np.ndarray, "m 2"]:
    """Anchors of a photo: corners, interest points or both; where it has few corners, weak ones too.

    Args:
        mask: True where the photo may be used.
        points: its interest points.
        max_anchors: so many tracks may start in it; corners are twice as many at most.
    """
    if kind == "points":
        return points
    limit = 2 * max_anchors
    corners = find_anchors(grey, limit=limit, mask=mask)
    if len(corners) < _FEW_CORNERS * max_anchors:
        corners = find_anchors(
            grey, limit=limit, mask=mask, spacing=_WEAK_SPACING, min_eigenvalue=_WEAK_CORNER
        )
    return corners if kind == "corners" else np.concatenate([corners, points])


def suppression_for(points: Sequence[int], suppression: float) -> float:
    """Distance between tracks where photos have so many interest points: smaller where most show hardly any texture."""
    return min(suppression, _WEAK_SUPPRESSION) if np.median(points) <= FEW_POINTS else suppression


def find_anchors(
    grey: UInt8[np.ndarray, "h w"] | Float32[np.ndarray, "h w"],
    *,
    limit: int = 3000,
    spacing: float = 8.0,
    mask: Bool[np.ndarray, "h w"] | None = None,
    border: int = 12,
    min_eigenvalue: float = 4.0,
) -> Float32[np.ndarray, "n 2"]:
    """Corners of a photo, strongest first, at least ``spacing`` pixels apart.

    Shi & Tomasi, "Good Features to Track", CVPR 1994: maxima of the smaller eigenvalue of the structure
    tensor, here of Gaussian derivatives (sigma 1) summed over a Gaussian window (sigma 2). Spread by adaptive
    non-maximal suppression on a grid rather than by one threshold for the whole photo, so that a dim wall
    gets its share.

    Args:
        grey: luminance in 0…255.
        limit: upper bound of the number of corners; taken evenly from all parts of the photo.
        min_eigenvalue: weaker corners (squared grey levels per pixel) drown in sensor noise.
    """
    image = cv2.GaussianBlur(np.asarray(grey, np.float32), (0, 0), 1.0)
    gx = cv2.Scharr(image, cv2.CV_32F, 1, 0, scale=1 / 32)
    gy = cv2.Scharr(image, cv2.CV_32F, 0, 1, scale=1 / 32)
    a = cv2.GaussianBlur(gx * gx, (0, 0), 2.0)
    b = cv2.GaussianBlur(gx * gy, (0, 0), 2.0)
    c = cv2.GaussianBlur(gy * gy, (0, 0), 2.0)
    response = 0.5 * (a + c) - np.sqrt(0.25 * (a - c) ** 2 + b * b)
    height, width = response.shape
    if mask is not None:
        response = np.where(cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0, response, 0)
    response[:border] = response[height - border :] = 0
    response[:, :border] = response[:, width - border :] = 0
    peaks = (response >= cv2.dilate(response, np.ones((3, 3), np.uint8))) & (response > min_eigenvalue)
    ys, xs = np.nonzero(peaks)
    order = np.lexsort((xs, ys, -response[ys, xs]))
    chosen = _suppress(
        xs[order].astype(np.float32), ys[order].astype(np.float32), float(spacing), width, height
    )
    xs, ys = xs[order][chosen], ys[order][chosen]
    return spread(np.stack([xs, ys], axis=1).astype(np.float32), (width, height), limit)


def spread(xy: Float32[np.ndarray, "n 2"], size: tuple[int, int], limit: int) -> Float32[np.ndarray, "m 2"]:
    """At most ``limit`` of the points (best first), taken in turns from the cells of a grid."""
    if len(xy) <= limit:
        return xy
    width, height = size
    cell = max(1.0, float(np.sqrt(width * height / limit)) * 2.0)
    cell_of = (xy[:, 1] // cell).astype(np.int64) * (int(width // cell) + 1) + (xy[:, 0] // cell).astype(
        np.int64
    )
    order = np.argsort(cell_of, kind="stable")
    sorted_cells = cell_of[order]
    starts = np.r_[0, np.nonzero(np.diff(sorted_cells))[0] + 1]
    rank = np.empty(len(xy), np.int64)
    rank[order] = np.arange(len(xy)) - np.repeat(starts, np.diff(np.r_[starts, len(xy)]))
    # Best of every cell, then second best of every cell, and so on.
    kept = np.lexsort((np.arange(len(xy)), rank))[:limit]
    return xy[np.sort(kept)]


def _suppress(
    xs: Float32[np.ndarray, " n"], ys: Float32[np.ndarray, " n"], radius: float, width: int, height: int
) -> Bool[np.ndarray, " n"]:
    """Greedy suppression: True for points with no earlier kept point nearer than ``radius``."""
    cell = max(radius, 1.0)
    columns, rows = int(width / cell) + 1, int(height / cell) + 1
    # The points of each cell are a linked list; a border of empty cells.
    head = np.full((rows + 2, columns + 2), -1, np.int64)
    following = np.full(len(xs), -1, np.int64)
    place = np.stack(
        [
            np.clip((ys.astype(np.float64) / cell).astype(np.int64), 0, rows - 1),
            np.clip((xs.astype(np.float64) / cell).astype(np.int64), 0, columns - 1),
        ],
        1,
    )
    _suppress_in_cells(xs, ys, radius, place, head, following)
    return np.asarray(following > -2)


@kernel()
def _suppress_in_cells(xs, ys, radius, place, head, following):  # type: ignore[no-untyped-def]
    """Links the points that are kept; ``following`` of the others becomes -2."""
    for i in range(len(xs)):
        cy, cx = place[i, 0], place[i, 1]
        free = True
        for v in range(cy, cy + 3):
            for u in range(cx, cx + 3):
                k = head[v, u]
                while k >= 0 and free:
                    dx, dy = xs[k] - xs[i], ys[k] - ys[i]
                    free = dx * dx + dy * dy >= radius * radius
                    k = following[k]
        following[i] = head[cy + 1, cx + 1] if free else -2
        if free:
            head[cy + 1, cx + 1] = i
