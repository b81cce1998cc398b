"""Agreement of the photos on the points: a judgement of a reconstruction that needs no truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, UInt8

PATCH = 7
"""Samples along the side of a patch (Furukawa & Ponce, PMVS, PAMI 2010, section 2: 5 or 7)."""
AGREEMENT = 0.7
"""NCC above which patches are said to agree: PMVS2's documented default for accepting a patch."""
_MIN_COSINE = 0.2
# Patches seen flatter than about 78 degrees from their normal are not compared.
_MIN_DEVIATION = 2.0
# Grey levels: below this a patch has no texture, and its correlation is noise.
_HIDDEN = 0.02
# A point this share farther than the nearest ones at its pixel is hidden.
_OCCLUDERS = 400_000
# More points than this hide no better.
_BUFFER = 512
# Pixels along the longer side of the depth buffers that decide what is hidden.

Project = Callable[[Float[np.ndarray, "n 3"]], tuple[Float64[np.ndarray, "n 2"], Float64[np.ndarray, " n"]]]
"""World points to pixels (NaN behind the camera) and z-depth."""


@dataclass(frozen=True)
class PhotoView:
    """A photo with the camera that took it, as found by the run.

    Attributes:
        name: of the photo.
        grey: (h, w) uint8.
        project: world points to pixels of ``grey`` and z-depth.
        center: of the camera in the world.
        focal: focal length in pixels of ``grey``.
    """

    name: str
    grey: UInt8[np.ndarray, "h w"]
    project: Project
    center: Float64[np.ndarray, "3"]
    focal: float


@dataclass(frozen=True)
class ConsistencyReport:
    """Agreement of the photos on points.

    Attributes:
        mean, median: of the points' normalised cross-correlation, -1…1; NaN where no point is compared.
        agreeing: share of the compared points at or above 0.7.
        compared: how many points were compared.
        sampled: how many points were looked at.
        by_photo: sum of the correlations of the points of each reference photo, and their number.
        scores: (sampled,) correlation of each point, NaN where it cannot be compared.
    """

    mean: float
    median: float
    agreeing: float
    compared: int
    sampled: int
    by_photo: Mapping[str, tuple[float, int]]
    scores: Float64[np.ndarray, " n"]


def photo_consistency(
    xyz: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"] | None,
    views: Sequence[PhotoView],
    *,
    occluders: Float[np.ndarray, "m 3"] | None = None,
    neighbours: int = 4,
    samples: int = 20_000,
    seed: int = 0,
) -> ConsistencyReport:
    """Compute how alike the photos are round the projections of points.

    Round each point lies a small square in its tangent plane, with samples one pixel apart in the photo that sees it
    most frontally and largest (the reference). Its grey levels in the reference are compared with those in the
    ``neighbours`` next best photos by normalised cross-correlation; the point's score is their mean. Points whose patch
    has no texture, or that fewer than two photos see, are not compared. Source: the photometric discrepancy of Furukawa
    & Ponce, PAMI 2010, section 2.2, used here as a measure and not as a goal.

    A wrong depth lowers it, so does a wrong camera; it says nothing where there is no texture, and little where texture
    repeats.

    Args:
        xyz: points in the world of the views.
        normals: unit normals towards the cameras; None or zero faces the reference.
        views: photos and cameras.
        occluders: points that hide others (the whole cloud); ``xyz`` if None.
        neighbours: how many photos are compared with the reference, at most.
        samples: of more points a seeded sample is taken.
        seed: of the sample.
    """
    points = np.asarray(xyz, np.float64)
    hiding = points if occluders is None else np.asarray(occluders)
    rng = np.random.default_rng(seed)
    if len(hiding) > _OCCLUDERS:
        hiding = hiding[np.sort(rng.choice(len(hiding), _OCCLUDERS, replace=False))]
    keep = np.flatnonzero(np.isfinite(points).all(axis=1))
    if len(keep) > samples:
        keep = np.sort(rng.choice(keep, samples, replace=False))
    points = points[keep]
    facing = np.zeros_like(points) if normals is None else np.asarray(normals, np.float64)[keep]
    count = len(points)
    if count == 0 or len(views) < 2:
        return _report(np.full(count, np.nan), np.full(count, -1), views)
    # How good each view sees each point: pixels per unit of length, times how frontal. Zero: not at all.
    quality = np.zeros((len(views), count))
    for i, view in enumerate(views):
        pixels, z = view.project(points)
        seen = _inside(pixels, view.grey.shape, float(PATCH)) & (z > 0) & _unhidden(z, pixels, hiding, view)
        ray = view.center - points
        ray /= np.maximum(np.linalg.norm(ray, axis=1, keepdims=True), 1e-12)
        cosine = (facing * ray).sum(axis=1)
        cosine = np.where(np.abs(facing).sum(axis=1) > 0, cosine, 1.0)
        quality[i] = np.where(seen & (cosine > _MIN_COSINE), view.focal / np.maximum(z, 1e-12) * cosine, 0.0)
    order = np.argsort(-quality, axis=0, kind="stable")
    reference = order[0]
    visible = quality > 0
    compared = visible.sum(axis=0) >= 2
    grid = _tangent_grid(points, facing, views, reference)
    own = np.full((count, PATCH * PATCH), np.nan, np.float32)
    for i, view in enumerate(views):
        rows = np.flatnonzero(compared & (reference == i))
        if len(rows):
            own[rows] = _sample(view, grid[rows])
    total, number = np.zeros(count), np.zeros(count)
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(len(views))[:, None].repeat(count, axis=1), axis=0)
    for i, view in enumerate(views):
        rows = np.flatnonzero(compared & visible[i] & (rank[i] >= 1) & (rank[i] <= neighbours))
        if len(rows):
            score = patch_correlation(own[rows], _sample(view, grid[rows]))
            good = np.isfinite(score)
            total[rows[good]] += score[good]
            number[rows[good]] += 1
    scores = np.where(number > 0, total / np.maximum(number, 1), np.nan)
    return _report(scores, reference, views)


def _report(
    scores: Float64[np.ndarray, " n"], reference: np.ndarray, views: Sequence[PhotoView]
) -> ConsistencyReport:
    known = scores[np.isfinite(scores)]
    nan = float("nan")
    by_photo = {}
    for i, view in enumerate(views):
        mine = scores[(reference == i) & np.isfinite(scores)]
        if len(mine):
            by_photo[view.name] = float(mine.sum()), len(mine)
    return ConsistencyReport(
        float(known.mean()) if len(known) else nan,
        float(np.median(known)) if len(known) else nan,
        float((known >= AGREEMENT).mean()) if len(known) else nan,
        len(known),
        len(scores),
        by_photo,
        scores,
    )


def _inside(
    pixels: Float64[np.ndarray, "n 2"], shape: tuple[int, ...], border: float
) -> Bool[np.ndarray, " n"]:
    height, width = shape
    with np.errstate(invalid="ignore"):
        return (
            (pixels[:, 0] >= border)
            & (pixels[:, 0] <= width - 1 - border)
            & (pixels[:, 1] >= border)
            & (pixels[:, 1] <= height - 1 - border)
        )


def _unhidden(
    z: Float64[np.ndarray, " n"],
    pixels: Float64[np.ndarray, "n 2"],
    occluders: Float[np.ndarray, "m 3"],
    view: PhotoView,
) -> Bool[np.ndarray, " n"]:
    """Mask of the points that are not behind the nearest of all points at their place in a small picture."""
    height, width = view.grey.shape
    factor = min(1.0, _BUFFER / max(width, height))
    columns, rows = max(1, int(width * factor)), max(1, int(height * factor))

    def place(xy: Float64[np.ndarray, "k 2"]) -> tuple[np.ndarray, Bool[np.ndarray, " k"]]:
        with np.errstate(invalid="ignore"):
            inside = np.asarray(((xy > -0.5) & (xy < [width - 0.5, height - 0.5])).all(axis=1))
        safe = np.where(inside[:, None], xy, 0.0) + 0.5
        column = np.minimum((safe[:, 0] * columns / width).astype(int), columns - 1)
        row = np.minimum((safe[:, 1] * rows / height).astype(int), rows - 1)
        return row * columns + column, inside

    buffer = np.full(columns * rows, np.inf)
    for start in range(0, len(occluders), 1 << 18):
        there, depth = view.project(occluders[start : start + (1 << 18)])
        index, inside = place(there)
        inside &= depth > 0
        np.minimum.at(buffer, index[inside], depth[inside])
    index, inside = place(pixels)
    nearest = np.where(inside, buffer[index], np.inf)
    return z <= nearest * (1 + _HIDDEN)


def _tangent_grid(
    points: Float64[np.ndarray, "n 3"],
    normals: Float64[np.ndarray, "n 3"],
    views: Sequence[PhotoView],
    reference: np.ndarray,
) -> Float64[np.ndarray, "n k 3"]:
    """The points of each patch in the world: a square in the tangent plane, one reference pixel apart."""
    centers = np.array([view.center for view in views])[reference]
    focal = np.array([view.focal for view in views])[reference]
    ray = centers - points
    distance = np.linalg.norm(ray, axis=1, keepdims=True)
    ray = ray / np.maximum(distance, 1e-12)
    given = np.abs(normals).sum(axis=1, keepdims=True) > 0
    n = np.where(given, normals, ray)
    n = n / np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-12)
    # The axis that is least along the normal gives the first tangent.
    helper = np.eye(3)[np.argmin(np.abs(n), axis=1)]
    u = np.cross(n, helper)
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    v = np.cross(n, u)
    step = distance / focal[:, None]
    offsets = np.arange(PATCH) - PATCH // 2
    du, dv = (a.ravel() for a in np.meshgrid(offsets, offsets))
    return points[:, None] + (step * u)[:, None] * du[None, :, None] + (step * v)[:, None] * dv[None, :, None]


def _sample(view: PhotoView, grid: Float64[np.ndarray, "n k 3"]) -> Float32[np.ndarray, "n k"]:
    """Grey levels of patches, bilinear; NaN outside the photo."""
    pixels, _ = view.project(grid.reshape(-1, 3))
    outside = ~_inside(pixels, view.grey.shape, 0.0)
    xy = np.where(outside[:, None], 0.0, pixels).astype(np.float32)
    # OpenCV's remap takes maps of at most 32767 rows.
    columns = grid.shape[1]
    values = np.empty(len(xy), np.float32)
    rows = 16_384 * columns
    for start in range(0, len(xy), rows):
        part = xy[start : start + rows].reshape(-1, columns, 2)
        values[start : start + rows] = cv2.remap(
            view.grey,
            np.ascontiguousarray(part[..., 0]),
            np.ascontiguousarray(part[..., 1]),
            cv2.INTER_LINEAR,
        ).ravel()
    values[outside] = np.nan
    return values.reshape(len(grid), columns)


def patch_correlation(
    a: Float32[np.ndarray, "n k"], b: Float32[np.ndarray, "n k"]
) -> Float64[np.ndarray, " n"]:
    """Normalised cross-correlation of patches; NaN where one has no texture or leaves its photo."""
    p = a.astype(np.float64) - a.mean(axis=1, keepdims=True)
    q = b.astype(np.float64) - b.mean(axis=1, keepdims=True)
    sp, sq = np.sqrt((p * p).mean(axis=1)), np.sqrt((q * q).mean(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        value = (p * q).mean(axis=1) / (sp * sq)
        return np.where((sp >= _MIN_DEVIATION) & (sq >= _MIN_DEVIATION), value, np.nan)
