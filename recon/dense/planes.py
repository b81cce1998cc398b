"""Geometry of inverse depth: projection between views, plane fits, normals.

Inverse depth ``w`` of a plane is affine in the image: ``1/z(q) = w + gx (qx - px) + gy (qy - py)``. So a plane through
a pixel is its inverse depth and two slopes per pixel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32

from recon.core.cameras import PinholeView
from recon.core.kernels import kernel, maximum, minimum
from recon.core.vectors import (
    LANES,
    given_room,
    larger,
    load,
    minus,
    over,
    plus,
    splat,
    store,
    times,
    with_room,
    within,
)

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


def projections_of(sources: Sequence[PinholeView], reference: PinholeView) -> npt.NDArray[np.float64]:
    """``(M | v)`` of ``projection_of`` for each source, and back: (n, 2, 3, 4)."""
    R_r, t_r, K_r = reference.cam_from_world[:, :3], reference.cam_from_world[:, 3], reference.K
    poses = np.array([view.cam_from_world for view in sources]).reshape(-1, 3, 4)
    R_s, t_s = poses[:, :, :3], poses[:, :, 3:]
    K_s = np.array([view.K for view in sources]).reshape(-1, 3, 3)
    there, back = R_s @ R_r.T, R_r @ R_s.transpose(0, 2, 1)
    out = np.empty((len(sources), 2, 3, 4))
    out[:, 0, :, :3], out[:, 0, :, 3:] = K_s @ there @ np.linalg.inv(K_r), K_s @ (t_s - there @ t_r[:, None])
    out[:, 1, :, :3], out[:, 1, :, 3:] = K_r @ back @ np.linalg.inv(K_s), K_r @ (t_r[:, None] - back @ t_s)
    return out


def inverse_depth(depth: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """1 / depth, 0 where unknown."""
    return np.where(depth > 0, 1.0 / np.maximum(depth, 1e-12), 0.0).astype(np.float32)


@kernel(fastmath=True, error_model="numpy")
def _fit_planes(w, trust, rate, slopes, limits, damping, down, across, columns, row, fit, gx, gy):  # type: ignore[no-untyped-def]
    """Weighted least-squares planes over chained windows; see ``fit_planes``. All arrays are flat.

    Moments are gathered down the columns first, then along the row.
    """
    before_x, before_y = slopes
    n = limits.shape[0]
    r = n // 2
    wide = row.shape[0]
    width = wide - 2 * r - LANES
    stride = width + LANES
    h = w.shape[0] // stride
    zero, one, least = splat(np.float32(0)), splat(np.float32(1)), splat(np.float32(1e-12))
    damped = splat(damping)
    for y in range(h):
        for x in range(width + 2 * r):
            row[x] = w[y * stride + minimum(maximum(x - r, 0), width - 1)]
        for x in range(0, width, LANES):
            at = y * stride + x
            here, rates, slope = load(w, at), load(rate, at), load(before_y, at)
            m0, m1, m2, m3, m4 = zero, zero, zero, zero, zero
            for o in range(n):
                there = minimum(maximum(y + o - r, 0), h - 1) * stride + x
                d = splat(np.float32(o - r))
                value = load(w, there)
                gap = times(minus(minus(value, here), times(d, slope)), rates)
                a = within(
                    times(load(down, (y * n + o) * stride + x), load(trust, there)), gap, splat(limits[o])
                )
                b, c = times(d, a), times(a, value)
                m0, m1, m2 = plus(m0, a), plus(m1, b), plus(m2, times(d, b))
                m3, m4 = plus(m3, c), plus(m4, times(d, c))
            store(columns, r + x, m0)
            store(columns, wide + r + x, m1)
            store(columns, 2 * wide + r + x, m2)
            store(columns, 3 * wide + r + x, m3)
            store(columns, 4 * wide + r + x, m4)
        for x in range(0, width, LANES):
            at = y * stride + x
            here, rates, slope = load(w, at), load(rate, at), load(before_x, at)
            s0, s1, s2, s3, s4, s5, s6, s7, s8 = zero, zero, zero, zero, zero, zero, zero, zero, zero
            for o in range(n):
                d = splat(np.float32(o - r))
                gap = times(minus(minus(load(row, x + o), here), times(d, slope)), rates)
                a = within(load(across, (y * n + o) * stride + x), gap, splat(limits[o]))
                m0, m1 = load(columns, x + o), load(columns, wide + x + o)
                b = times(a, m0)
                c = times(d, b)
                s0, s1, s2 = plus(s0, b), plus(s1, c), plus(s2, times(d, c))
                c = times(a, m1)
                s3, s4 = plus(s3, c), plus(s4, times(d, c))
                s5 = plus(s5, times(a, load(columns, 2 * wide + x + o)))
                # Values count from the pixel's own.
                c = minus(times(a, load(columns, 3 * wide + x + o)), times(here, b))
                s6, s7 = plus(s6, c), plus(s7, times(d, c))
                s8 = plus(s8, times(a, minus(load(columns, 4 * wide + x + o), times(here, m1))))
            inverse = over(one, larger(s0, least))
            ex, ey, ev = times(s1, inverse), times(s3, inverse), times(s6, inverse)
            xx = plus(minus(times(s2, inverse), times(ex, ex)), damped)
            yy = plus(minus(times(s5, inverse), times(ey, ey)), damped)
            xy = minus(times(s4, inverse), times(ex, ey))
            xv = minus(times(s7, inverse), times(ex, ev))
            yv = minus(times(s8, inverse), times(ey, ev))
            det = over(one, minus(times(xx, yy), times(xy, xy)))
            sx = times(minus(times(yy, xv), times(xy, yv)), det)
            sy = times(minus(times(xx, yv), times(xy, xv)), det)
            store(gx, at, sx)
            store(gy, at, sy)
            store(fit, at, minus(plus(here, ev), plus(times(sx, ex), times(sy, ey))))


def fit_planes(
    w: Float32[np.ndarray, "h w"],
    trust: Float32[np.ndarray, "h w"],
    rate: Float32[np.ndarray, "h w"],
    tolerance: float,
    down: Float32[np.ndarray, "h n _"],
    across: Float32[np.ndarray, "h n _"],
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
        down, across: window weights along the column and then along the row, of odd length n, with room behind each
            row (``recon.dense.photo_consistency.Window``).
        damping: see ``SLOPE_DAMPING``.
        slopes: of each pixel's surface as far as they are known, in x and y; level without.

    Returns:
        The plane's inverse depth at the pixel, and its slopes in x and y.
    """
    if slopes is None:
        slopes = (np.zeros_like(w), np.zeros_like(w))
    width, n = w.shape[1], down.shape[1]
    flat = [given_room(a).reshape(-1) for a in (w, trust, rate, *slopes)]
    found = [with_room(w.shape) for _ in range(3)]
    limits = np.float32(tolerance) * (1 + np.abs(np.arange(n, dtype=np.float32) - n // 2))
    row, columns = with_room((width + n - 1,)), with_room((5, width + n - 1)).reshape(-1)
    _fit_planes(
        *flat[:3], (flat[3], flat[4]), limits, np.float32(damping), down.reshape(-1), across.reshape(-1), columns, row,
        *(a.reshape(-1) for a in found),
    )  # fmt: skip
    fit, gx, gy = (np.ascontiguousarray(a[:, :width]) for a in found)
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
    even = with_room((h, 2 * radius + 1, width))
    even[..., :width] = 1.0 / (2 * radius + 1)
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
        plane = weights[:, i, :-LANES] if axis == 0 else weights[:, i, :-LANES].T
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
