"""Geometry of inverse depth: projection between views, plane fits, normals.

Inverse depth ``w`` of a plane is affine in the image: ``1/z(q) = w + gx (qx - px) + gy (qy - py)``. So a plane through
a pixel is its inverse depth and two slopes per pixel.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32
from numba import njit

from recon.core.cameras import PinholeView

_F32 = npt.NDArray[np.float32]

SLOPE_DAMPING = 0.2
"""Variance added to the pixel offsets of a plane fit, pixels squared: where almost no pixel of the window is on the
surface the slope falls to 0 instead of anywhere."""
# The same where the depth itself is to be described, not improved: next to nothing.
_LEAST_DAMPING = 1e-3


def projection_of(
    source: PinholeView, reference: PinholeView
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """``M`` (3x3) and ``v`` (3): pixel (x, y) of the reference at depth z is ``M [x, y, 1] + v / z`` in the source."""
    R_r, t_r = reference.cam_from_world[:, :3], reference.cam_from_world[:, 3]
    R_s, t_s = source.cam_from_world[:, :3], source.cam_from_world[:, 3]
    R = R_s @ R_r.T
    return source.K @ R @ np.linalg.inv(reference.K), source.K @ (t_s - R @ t_r)


def inverse_depth(depth: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """1 / depth, 0 where unknown."""
    return np.where(depth > 0, 1.0 / np.maximum(depth, 1e-12), 0.0).astype(np.float32)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _fit_planes(w, trust, rate, slopes, tolerance, damping, down, across, fit, gx, gy):  # type: ignore[no-untyped-def]
    """Weighted least-squares planes over chained windows; see ``fit_planes``.

    Moments are gathered down the columns first, then along the row; loops are kept short and over rows so that they
    vectorise.
    """
    h, width = w.shape
    before_x, before_y = slopes
    n = down.shape[1]
    r = n // 2
    zero = np.float32(0)
    one = np.float32(1)
    m = np.zeros((6, width + 2 * r), np.float32)
    m0, m1, m2, m3, m4, row = m[0], m[1], m[2], m[3], m[4], m[5]
    M = np.zeros((10, width), np.float32)
    M0, M1, M2, M3, M4, M5, M6, M7, M8, a = M[0], M[1], M[2], M[3], M[4], M[5], M[6], M[7], M[8], M[9]
    for y in range(h):
        # No assignments to slices, which take long to compile.
        for x in range(width + 2 * r):
            row[x] = w[y, min(max(x - r, 0), width - 1)]
        for k in range(5):
            for x in range(width + 2 * r):
                m[k, x] = zero
        for k in range(9):
            for x in range(width):
                M[k, x] = zero
        for o in range(n):
            d = np.float32(o - r)
            yy = min(max(y + o - r, 0), h - 1)
            limit = tolerance * (one + abs(d))
            for x in range(width):
                b = down[y, o, x] * trust[yy, x]
                gap = abs(w[yy, x] - w[y, x] - d * before_y[y, x])
                a[x] = b if gap * rate[y, x] <= limit else zero
            for x in range(width):
                m0[r + x] += a[x]
                m1[r + x] += d * a[x]
                m2[r + x] += d * d * a[x]
            for x in range(width):
                b = a[x] * w[yy, x]
                m3[r + x] += b
                m4[r + x] += d * b
        for o in range(n):
            d = np.float32(o - r)
            limit = tolerance * (one + abs(d))
            for x in range(width):
                gap = abs(row[x + o] - w[y, x] - d * before_x[y, x])
                a[x] = across[y, o, x] if gap * rate[y, x] <= limit else zero
            for x in range(width):
                b = a[x] * m0[x + o]
                M0[x] += b
                M1[x] += d * b
                M2[x] += d * d * b
            for x in range(width):
                b = a[x] * m1[x + o]
                M3[x] += b
                M4[x] += d * b
                M5[x] += a[x] * m2[x + o]
            for x in range(width):
                b = a[x] * (m3[x + o] - w[y, x] * m0[x + o])
                M6[x] += b
                M7[x] += d * b
            for x in range(width):
                M8[x] += a[x] * (m4[x + o] - w[y, x] * m1[x + o])
        for x in range(width):
            inverse = one / max(M0[x], np.float32(1e-12))
            ex = M1[x] * inverse
            ey = M3[x] * inverse
            ev = M6[x] * inverse
            xx = M2[x] * inverse - ex * ex + damping
            yy_ = M5[x] * inverse - ey * ey + damping
            xy = M4[x] * inverse - ex * ey
            xv = M7[x] * inverse - ex * ev
            yv = M8[x] * inverse - ey * ev
            det = one / (xx * yy_ - xy * xy)
            sx = (yy_ * xv - xy * yv) * det
            sy = (xx * yv - xy * xv) * det
            gx[y, x] = sx
            gy[y, x] = sy
            fit[y, x] = w[y, x] + ev - sx * ex - sy * ey


def fit_planes(
    w: Float32[np.ndarray, "h w"],
    trust: Float32[np.ndarray, "h w"],
    rate: Float32[np.ndarray, "h w"],
    tolerance: float,
    down: Float32[np.ndarray, "h n w"],
    across: Float32[np.ndarray, "h n w"],
    damping: float = SLOPE_DAMPING,
    slopes: tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]] | None = None,
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """Planes fitted to the inverse depth round every pixel, without pixels beyond a step.

    Args:
        w: inverse depth.
        trust: weight of every pixel, 0 where unknown.
        rate: disparity per unit of inverse depth, pixels; makes differences of ``w`` comparable.
        tolerance: pixels; a neighbour ``d`` pixels away whose disparity is off the slopes by more than
            ``tolerance * (1 + d)`` is another surface.
        down, across: window weights along the column and then along the row, of odd length n
            (``recon.dense.photo_consistency.Window``).
        damping: see ``SLOPE_DAMPING``.
        slopes: of each pixel's surface as far as they are known, in x and y; level without.

    Returns:
        The plane's inverse depth at the pixel, and its slopes in x and y.
    """
    fit, gx, gy = np.empty_like(w), np.empty_like(w), np.empty_like(w)
    if slopes is None:
        slopes = (np.zeros_like(w), np.zeros_like(w))
    _fit_planes(w, trust, rate, slopes, np.float32(tolerance), np.float32(damping), down, across, fit, gx, gy)
    return fit, gx, gy


def planes_from_depth(
    depth: Float32[np.ndarray, "h w"], *, radius: int = 3, max_step: float = 0.02
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """Inverse depth and its slopes per pixel in x and y, fitted to the depth alone.

    Args:
        depth: 0 where unknown.
        radius: of the square window.
        max_step: relative difference of depth per pixel of distance that still is the same surface.

    Returns:
        ``w``, ``gx``, ``gy``; zero where the depth is unknown.
    """
    h, width = depth.shape
    w = inverse_depth(depth)
    known = w > 0
    even = np.full((h, 2 * radius + 1, width), 1.0 / (2 * radius + 1), np.float32)
    rate = np.where(known, depth, 0).astype(np.float32)
    down, across = _inside(even, 0), _inside(even, 1)
    _, gx, gy = fit_planes(w, known.astype(np.float32), rate, max_step, down, across, _LEAST_DAMPING)
    return w, np.where(known, gx, np.float32(0)), np.where(known, gy, np.float32(0))


def _inside(even: _F32, axis: int) -> _F32:
    """Window weights with 0 where the window leaves the image."""
    weights = even.copy()
    n = weights.shape[1]
    for i in range(n):
        o = i - n // 2
        plane = weights[:, i] if axis == 0 else weights[:, i].T
        if o < 0:
            plane[:-o] = 0
        elif o > 0:
            plane[-o:] = 0
    return weights


def normals_from_planes(
    view: PinholeView,
    w: Float32[np.ndarray, "h w"],
    gx: Float32[np.ndarray, "h w"],
    gy: Float32[np.ndarray, "h w"],
) -> Float32[np.ndarray, "h w 3"]:
    """Unit normals in camera coordinates, facing the camera, of planes given as inverse depth and slopes.

    With ``1/z = m . K^-1 [x, y, 1]`` on a plane ``m . X = 1``, ``m = K^T (gx, gy, w - gx x - gy y)``.
    """
    h, width = w.shape
    xs, ys = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(h, dtype=np.float32))
    c = w - gx * xs - gy * ys
    K = view.K.astype(np.float32)
    m = np.stack([K[0, 0] * gx, K[0, 1] * gx + K[1, 1] * gy, K[0, 2] * gx + K[1, 2] * gy + c], -1)
    length = np.linalg.norm(m, axis=-1, keepdims=True)
    known = (w > 0)[..., None] & (length > 0)
    return np.where(known, -m / np.maximum(length, 1e-20), 0.0).astype(np.float32)


def resize_planes(w: _F32, gx: _F32, gy: _F32, shape: tuple[int, int]) -> tuple[_F32, _F32, _F32]:
    """Planes at another size: the nearest pixel's plane, evaluated at the new pixel's centre."""
    h0, w0 = w.shape
    h1, w1 = shape
    sx, sy = w1 / w0, h1 / h0
    x = (np.arange(w1) + 0.5) / sx - 0.5
    y = (np.arange(h1) + 0.5) / sy - 0.5
    ix = np.clip(np.round(x), 0, w0 - 1).astype(np.int64)
    iy = np.clip(np.round(y), 0, h0 - 1).astype(np.int64)
    near = np.ix_(iy, ix)
    known = w[near] > 0
    moved = w[near] + gx[near] * (x - ix)[None, :] + gy[near] * (y - iy)[:, None]
    moved = np.where(known & (moved > 0), moved, w[near])
    return (
        np.ascontiguousarray(moved, np.float32),
        np.ascontiguousarray(gx[near] / sx, np.float32),
        np.ascontiguousarray(gy[near] / sy, np.float32),
    )
