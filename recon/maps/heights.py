"""Heights of a surface model: each depth map drawn from above, and what the depth maps agree on."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64

from recon.core.kernels import kernel, maximum, minimum

# Depth that changes by more than this, per pixel and in units of the pixel's size, is an edge and not a slope
# (a surface seen at 81 degrees from its normal).
MAX_SLOPE = 6.0
# Heights within so many cells of each other say the same: about four times the noise of one depth map.
AGREES_CELLS = 2.0


def heights_of_depth(
    points: Float64[np.ndarray, "h w 3"],
    depth: Float32[np.ndarray, "h w"],
    focal: float,
    shape: tuple[int, int],
) -> Float32[np.ndarray, "r c"]:
    """Draw a depth map from above: the uppermost height of its surface in the middle of every cell.

    Args:
        points: of each pixel its column and row in the tile (0 in the middle of the first cell) and its height.
        depth: 0 where unknown.
        focal: length in pixels of the depth map.
        shape: rows and columns of the tile.

    Returns:
        NaN where the depth map shows nothing.
    """
    out = np.full(shape, np.nan, np.float32)
    _draw(np.ascontiguousarray(points), np.ascontiguousarray(depth, np.float32), focal, MAX_SLOPE, out)
    return out


@kernel()
def _draw(points, depth, focal, max_slope, out):  # type: ignore[no-untyped-def]
    rows, columns = out.shape
    corner = np.empty((3, 2), np.int64)
    for r in range(depth.shape[0] - 1):
        for c in range(depth.shape[1] - 1):
            for half in range(2):
                corner[0, 0], corner[0, 1] = r, c + 1
                corner[1, 0], corner[1, 1] = r + 1, c
                corner[2, 0], corner[2, 1] = r + half, c + half
                low, high = np.inf, 0.0
                for k in range(3):
                    d = depth[corner[k, 0], corner[k, 1]]
                    low, high = minimum(low, d), maximum(high, d)
                if low <= 0.0 or high - low > max_slope * high / focal:
                    continue
                a = points[corner[0, 0], corner[0, 1]]
                b = points[corner[1, 0], corner[1, 1]]
                e = points[corner[2, 0], corner[2, 1]]
                area = (b[0] - a[0]) * (e[1] - a[1]) - (e[0] - a[0]) * (b[1] - a[1])
                if area == 0.0:
                    continue
                first_x = maximum(0, np.int64(np.ceil(min(a[0], b[0], e[0]) - 1e-9)))
                last_x = minimum(columns - 1, np.int64(np.floor(max(a[0], b[0], e[0]) + 1e-9)))
                first_y = maximum(0, np.int64(np.ceil(min(a[1], b[1], e[1]) - 1e-9)))
                last_y = minimum(rows - 1, np.int64(np.floor(max(a[1], b[1], e[1]) + 1e-9)))
                for y in range(first_y, last_y + 1):
                    for x in range(first_x, last_x + 1):
                        u = ((x - a[0]) * (e[1] - a[1]) - (e[0] - a[0]) * (y - a[1])) / area
                        v = ((b[0] - a[0]) * (y - a[1]) - (x - a[0]) * (b[1] - a[1])) / area
                        if u < -1e-9 or v < -1e-9 or u + v > 1.0 + 1e-9:
                            continue
                        height = a[2] + u * (b[2] - a[2]) + v * (e[2] - a[2])
                        if not out[y, x] >= height:
                            out[y, x] = height


def agreed_heights(
    stack: Float32[np.ndarray, "v r c"], tolerance: float
) -> tuple[Float32[np.ndarray, "r c"], Float32[np.ndarray, "r c"]]:
    """The height that the depth maps agree on, and how far they differ about it.

    The uppermost height that two depth maps share within the tolerance wins, for what is above hides what is below;
    a height that nobody shares counts only where there is no other. Then the mean of those within the tolerance of
    its median.

    Args:
        stack: heights of each depth map, NaN where it shows nothing.
        tolerance: in the units of the heights.

    Returns:
        Height, and standard deviation of one depth map's height (NaN where fewer than two agree).
    """
    height = np.full(stack.shape[1:], np.nan, np.float32)
    spread = np.full(stack.shape[1:], np.nan, np.float32)
    _agree(np.ascontiguousarray(stack), tolerance, height, spread)
    return height, spread


@kernel()
def _agree(stack, tolerance, height, spread):  # type: ignore[no-untyped-def]
    values = np.empty(stack.shape[0], np.float32)
    for r in range(stack.shape[1]):
        for c in range(stack.shape[2]):
            n = 0
            for k in range(stack.shape[0]):
                if np.isfinite(stack[k, r, c]):
                    values[n] = stack[k, r, c]
                    n += 1
            if n == 0:
                continue
            one = np.sort(values[:n])
            top = n - 1
            while top > 0 and one[top] - one[top - 1] > tolerance:
                top -= 1
            if top == 0:
                top = n - 1 if n == 1 else n // 2
            first = top
            while first > 0 and one[top] - one[first - 1] <= 2.0 * tolerance:
                first -= 1
            middle = one[(first + top) // 2]
            total, squares, count = 0.0, 0.0, 0
            for k in range(n):
                if abs(one[k] - middle) <= tolerance:
                    total += one[k] - middle
                    squares += (one[k] - middle) ** 2
                    count += 1
            height[r, c] = middle + total / count
            if count > 1:
                spread[r, c] = np.sqrt(maximum(0.0, squares - total * total / count) / (count - 1))
