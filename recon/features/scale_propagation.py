"""Scale propagation: a SIFT scale for every pixel from the scales of sparse interest points.

After Tau and Hassner, Dense Correspondences Across Scenes and Scales (PAMI 2016), section 4: the scales of
the interest points are kept, and every other pixel takes a weighted mean of its eight neighbours, the
weights saying how alike the image is. Which points are kept is the caller's choice: all of an image
("geometric" with uniform weights, "image-aware" with the image's), or those that match another image
("match-aware": ``propagate_pair_scales``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from jaxtyping import Bool, Float, Float32, Float64, Int64, UInt8

from recon.core.kernels import kernel, maximum
from recon.core.parallel import map_ordered
from recon.features import krylov, multigrid
from recon.features.interest_points import subset
from recon.features.types import InterestPoints, ScaleMap

Guide = Literal["geometric", "image"]
Weighting = Literal["linear", "exponential"]

DEFAULT_SCALE = 3.0
"""Scale of every pixel of an image without a single seed: the bin size of the fixed-scale descriptor of
SIFT Flow."""

# Constants of the published implementation.
_IMAGE_OFFSET, _IMAGE_RANGE = 1.0, 32.0  # the image in 0...1 is used as (image + 1) / 32
_SHARE = 0.6  # of the mean (linear) and of the variance (exponential)
_VARIANCE_FLOOR = 1e-7

_TYPICAL_DEVIATION = 1e-3  # of the image as it is used; keeps the rows of exponential weights near 1

# Weights are kept positive, so that every scale stays between the smallest and the largest seed. The
# published linear weight may fall to about -0.04 at a black pixel amid white ones.
_WEIGHT_FLOOR = 1e-3


@dataclass(frozen=True)
class Equations:
    """The linear system of one image in the form that ``multigrid`` describes, with a border of one
    pixel."""

    weights: Float32[np.ndarray, "8 hp wp"]
    excess: Float64[np.ndarray, "hp wp"]
    right: Float64[np.ndarray, "hp wp"]
    start: Float64[np.ndarray, "hp wp"]
    smallest: float


def propagate_scales(
    rgb: UInt8[np.ndarray, "h w 3"] | Float[np.ndarray, "h w"],
    points: InterestPoints,
    *,
    guide: Guide = "image",
    weighting: Weighting = "linear",
    tolerance: float = 2e-4,
    mask: Bool[np.ndarray, "h w"] | None = None,
    default_scale: float = DEFAULT_SCALE,
) -> ScaleMap:
    """Scale for every pixel that agrees with the interest points and varies as little as the image allows.

    Solves s(p) = sum_q w(p, q) s(q) over the 3x3 neighbours of p, rows of w normalised, with s fixed to sigma
    at the pixels (floor(x), floor(y)) of the points. With I' = (I + 1) / 32 of the grey image in 0…1, and mean
    m and sample variance v >= 1e-7 of I' over the 3x3 window of p (clipped at the rim): "linear" weights are
    1 + (I'(q) - 0.6 m)(I'(p) - 0.6 m) / v, "exponential" ones exp(-(I'(q) - I'(p))^2 / (0.6 v)); "geometric"
    ignores the image. The constants are those of the published MATLAB code; unlike it, weights are kept
    above 1e-3 (they may be slightly negative there), so that the map stays within the range of the seeds.

    Args:
        rgb: (h, w, 3) uint8, or grey values in 0…1, (h, w).
        points: the seeds. Those outside of the image are ignored; of several in one pixel the last one
            counts.
        guide: "image" (weights follow the image) or "geometric" (uniform).
        weighting: how image weights are computed; unused with "geometric".
        tolerance: largest error relative to the smallest seed; an estimate from the solver's last correction.
        mask: seeds where the mask is False are ignored; the map itself covers the whole image.
        default_scale: value of the map when no seed remains.

    Returns:
        (h, w) float32.
    """
    equations = _equations(rgb, points, guide, weighting, mask)
    if equations is None:
        return np.full(rgb.shape[:2], default_scale, np.float32)
    return np.ascontiguousarray(_solve(equations, tolerance)[1:-1, 1:-1], np.float32)


def propagate_pair_scales(
    rgb_a: UInt8[np.ndarray, "ha wa 3"],
    rgb_b: UInt8[np.ndarray, "hb wb 3"],
    points_a: InterestPoints,
    points_b: InterestPoints,
    seeds: Int64[np.ndarray, "m 2"],
    *,
    guide: Guide = "image",
    weighting: Weighting = "linear",
    tolerance: float = 2e-4,
    default_scale: float = DEFAULT_SCALE,
    threads: int = 1,
) -> tuple[Float32[np.ndarray, "ha wa"], Float32[np.ndarray, "hb wb"]]:
    """Match-aware scale maps of a pair: only points that match each other are seeds.

    Args:
        seeds: (m, 2) indices of matching points of A and B, as ``match_interest_points`` returns them.
        threads: 2 solves both images at once.

    Other arguments as for ``propagate_scales``.
    """

    def one(side: int) -> ScaleMap:
        return propagate_scales(
            (rgb_a, rgb_b)[side],
            subset((points_a, points_b)[side], seeds[:, side]),
            guide=guide,
            weighting=weighting,
            tolerance=tolerance,
            default_scale=default_scale,
        )

    map_a, map_b = map_ordered(one, (0, 1), min(threads, 2))
    return map_a, map_b


def _equations(
    rgb: UInt8[np.ndarray, "h w 3"] | Float[np.ndarray, "h w"],
    points: InterestPoints,
    guide: Guide,
    weighting: Weighting,
    mask: Bool[np.ndarray, "h w"] | None,
) -> Equations | None:
    """The system to solve; None without a seed."""
    height, width = rgb.shape[:2]
    if mask is not None and mask.shape != (height, width):
        raise ValueError(f"mask is {mask.shape}, image is {(height, width)}")
    if guide not in ("geometric", "image"):
        raise ValueError(f"guide is {guide!r}: choose 'geometric' or 'image'")
    if weighting not in ("linear", "exponential"):
        raise ValueError(f"weighting is {weighting!r}: choose 'linear' or 'exponential'")
    column = np.floor(points.xy[:, 0]).astype(np.int64)
    row = np.floor(points.xy[:, 1]).astype(np.int64)
    usable = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (points.sigma > 0)
    if mask is not None:
        usable[usable] = mask[row[usable], column[usable]]
    if not usable.any():
        return None
    seeds = np.zeros((height + 2, width + 2))
    # One by one: with several points in one pixel the last must win, which fancy assignment does not promise.
    for r, c, sigma in zip(row[usable], column[usable], points.sigma[usable], strict=True):
        seeds[r + 1, c + 1] = sigma
    kind = 0 if guide == "geometric" else 1 if weighting == "linear" else 2
    image = (_grey(rgb) + _IMAGE_OFFSET) / _IMAGE_RANGE
    weights = np.zeros((8, height + 2, width + 2), np.float32)
    excess, right = np.zeros_like(seeds), np.zeros_like(seeds)
    _fill(image, seeds, kind, weights, excess, right)
    if kind == 2:  # neighbouring weights differ by orders of magnitude
        krylov.balance(weights, excess, right)
    known = seeds[seeds > 0]
    start = np.zeros_like(seeds)
    start[1:-1, 1:-1] = known.mean()
    start = np.where(seeds > 0, seeds, start)
    return Equations(weights, excess, right, start, float(known.min()))


def _grey(rgb: UInt8[np.ndarray, "h w 3"] | Float[np.ndarray, "h w"]) -> Float64[np.ndarray, "h w"]:
    """Luma (ITU-R BT.601) in 0…1, not rounded."""
    if rgb.ndim == 2:
        return np.ascontiguousarray(rgb, np.float64)
    return cv2.transform(
        np.ascontiguousarray(rgb).astype(np.float64), np.array([[0.299, 0.587, 0.114]]) / 255.0
    ).reshape(rgb.shape[:2])


def _solve(equations: Equations, tolerance: float) -> Float64[np.ndarray, "hp wp"]:
    """Solution with its border."""
    target = tolerance * equations.smallest
    x = equations.start.copy()
    levels = multigrid.build_levels(equations.weights, equations.excess)
    if krylov.krylov(levels, x, equations.right, target):
        return x
    return solve_directly(equations)


def solve_directly(equations: Equations) -> Float64[np.ndarray, "hp wp"]:
    """Solution by sparse LU: slow, and right whatever the weights."""
    height, width = (n - 2 for n in equations.excess.shape)
    index = np.arange(height * width).reshape(height, width)
    inside = equations.weights[:, 1:-1, 1:-1].astype(np.float64)
    rows, columns = [index.ravel()], [index.ravel()]
    values = [(equations.excess[1:-1, 1:-1] + inside.sum(axis=0)).ravel()]
    for k, (dy, dx) in enumerate(multigrid.OFFSETS):
        used = inside[k] != 0
        rows.append(index[used])
        columns.append(index[used] + dy * width + dx)
        values.append(-inside[k][used])
    matrix = scipy.sparse.csc_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))),
        shape=(index.size, index.size),
    )
    solution = np.zeros_like(equations.start)
    # The matrix is diagonally dominant: pivots from the diagonal are safe and keep the fill-in low.
    factors = scipy.sparse.linalg.splu(
        matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
    )
    solution[1:-1, 1:-1] = factors.solve(equations.right[1:-1, 1:-1].ravel()).reshape(height, width)
    return solution


@kernel()
def _fill(image, seeds, kind, weights, excess, right):  # type: ignore[no-untyped-def]
    """Rows of the system. Known neighbours go to the right side; rows of known pixels say x = seed.

    Rows are not normalised: linear ones are multiplied by the variance instead, exponential ones divided by its
    root, which makes the matrix more symmetric, as the multigrid's restriction (the transposed interpolation) likes it.
    """
    height, width = image.shape
    for y in range(height):
        for x in range(width):
            if seeds[y + 1, x + 1] > 0:
                excess[y + 1, x + 1] = 1.0
                right[y + 1, x + 1] = seeds[y + 1, x + 1]
                continue
            centre = image[y, x]
            count = 0
            total = 0.0
            squares = 0.0
            for dy in range(-1, 2):
                if y + dy < 0 or y + dy >= height:
                    continue
                for dx in range(-1, 2):
                    if x + dx < 0 or x + dx >= width:
                        continue
                    d = image[y + dy, x + dx] - centre
                    count += 1
                    total += d
                    squares += d * d
            # Differences from the centre keep the variance exact where the image is nearly flat.
            mean = centre + total / count
            variance = _VARIANCE_FLOOR
            if count > 1:
                variance = maximum((squares - total * total / count) / (count - 1), _VARIANCE_FLOOR)
            scale = _TYPICAL_DEVIATION / np.sqrt(variance)
            k = -1
            for dy in range(-1, 2):
                for dx in range(-1, 2):
                    if dy == 0 and dx == 0:
                        continue
                    k += 1
                    if y + dy < 0 or y + dy >= height or x + dx < 0 or x + dx >= width:
                        continue
                    value = image[y + dy, x + dx]
                    w = 1.0
                    if kind == 1:
                        w = variance + (value - _SHARE * mean) * (centre - _SHARE * mean)
                        w = maximum(w, _WEIGHT_FLOOR * variance)
                    elif kind == 2:
                        w = np.exp(-((value - centre) ** 2) / (_SHARE * variance)) * scale
                    known = seeds[y + 1 + dy, x + 1 + dx]
                    if known > 0:
                        excess[y + 1, x + 1] += w
                        right[y + 1, x + 1] += w * known
                    else:
                        weights[k, y + 1, x + 1] = w
