"""Scale propagation: a SIFT scale for every pixel from the scales of sparse interest points."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from jaxtyping import Bool, Float32, Int64, UInt8

from recon.features.interest_points import subset
from recon.features.types import InterestPoints, ScaleMap

Guide = Literal["geometric", "image"]
Weighting = Literal["linear", "exponential"]

DEFAULT_SCALE = 2.5


def propagate_scales(
    rgb: UInt8[np.ndarray, "h w 3"],
    points: InterestPoints,
    *,
    guide: Guide = "image",
    weighting: Weighting = "linear",
    tolerance: float = 1e-4,
    mask: Bool[np.ndarray, "h w"] | None = None,
    default_scale: float = DEFAULT_SCALE,
) -> ScaleMap:
    """Scale map that interpolates the scales of the points."""
    height, width = rgb.shape[:2]
    grey = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY).astype(np.float64) / 255.0
    col = np.floor(points.xy[:, 0]).astype(np.int64)
    row = np.floor(points.xy[:, 1]).astype(np.int64)
    inside = (col >= 0) & (col < width) & (row >= 0) & (row < height)
    seeds = np.zeros((height, width))
    seeds[row[inside], col[inside]] = points.sigma[inside]
    if not inside.any():
        return np.full((height, width), default_scale, np.float32)
    image = (grey + 1.0) / 32.0
    index = np.arange(height * width).reshape(height, width)
    pad = np.pad(image, 1, constant_values=np.nan)
    shifts = [(dy, dx) for dy in range(3) for dx in range(3)]
    stack = np.stack([pad[dy : dy + height, dx : dx + width] for dy, dx in shifts])
    mean = np.nanmean(stack, 0)
    var = np.maximum(np.nanvar(stack, 0, ddof=1), 1e-7)
    rows, cols, vals = [], [], []
    free = seeds == 0
    total = np.zeros_like(image)
    entries = []
    for k, (dy, dx) in enumerate(shifts):
        if (dy, dx) == (1, 1):
            continue
        q = stack[k]
        if guide == "geometric":
            w = np.ones_like(image)
        elif weighting == "linear":
            w = 1 + (q - 0.6 * mean) * (image - 0.6 * mean) / var
        else:
            w = np.exp(-((q - image) ** 2) / (0.6 * var))
        ok = ~np.isnan(q)
        w = np.where(ok, w, 0)
        total += w
        entries.append((dy - 1, dx - 1, w, ok))
    for dy, dx, w, ok in entries:
        sel = ok & free
        rows.append(index[sel])
        cols.append(index[sel] + dy * width + dx)
        vals.append(-(w / total)[sel])
    rows.append(index.ravel())
    cols.append(index.ravel())
    vals.append(np.ones(index.size))
    matrix = scipy.sparse.csc_matrix((np.concatenate(vals), (np.concatenate(rows), np.concatenate(cols))))
    return scipy.sparse.linalg.spsolve(matrix, seeds.ravel()).reshape(height, width).astype(np.float32)


def propagate_pair_scales(
    rgb_a: UInt8[np.ndarray, "ha wa 3"],
    rgb_b: UInt8[np.ndarray, "hb wb 3"],
    points_a: InterestPoints,
    points_b: InterestPoints,
    seeds: Int64[np.ndarray, "m 2"],
    *,
    weighting: Weighting = "linear",
    tolerance: float = 1e-4,
) -> tuple[Float32[np.ndarray, "ha wa"], Float32[np.ndarray, "hb wb"]]:
    """Match-aware scale maps of a pair: only points that match each other are seeds."""
    return (
        propagate_scales(rgb_a, subset(points_a, seeds[:, 0]), weighting=weighting, tolerance=tolerance),
        propagate_scales(rgb_b, subset(points_b, seeds[:, 1]), weighting=weighting, tolerance=tolerance),
    )
