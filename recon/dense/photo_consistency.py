"""Photo-consistency of a whole depth map at once: windowed normalised cross-correlation with separable windows.

The window of a pixel adapts to the photo: a weight falls with the distance and with the difference of grey, along the
centre's row first and then along each column. Such a chain of two passes is a bilateral window that costs two
one-dimensional sums (Pham & van Vliet, *Separable bilateral filtering for fast video preprocessing*, ICME 2005). Every
pixel of a window is warped by its own depth, so a source photo is sampled once per pixel and depth map, whatever the
size of the window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32

from recon.core.cameras import PinholeView
from recon.core.kernels import kernel, maximum, minimum, part_of_kernel
from recon.core.vectors import (
    LANES,
    bilinear,
    counting,
    given_spare,
    larger,
    load,
    minus,
    over,
    pixels,
    plus,
    root,
    smaller,
    splat,
    store,
    times,
    where_equal,
    where_larger,
    with_room,
    with_spare,
)
from recon.dense.planes import projection_of

_F32 = npt.NDArray[np.float32]

# Bilateral weights of the window: 5 px as in Xu & Tao (*Multi-Scale Geometric Consistency Guided Multi-View Stereo*,
# CVPR 2019); 8 grey levels of 255 rather than their 3, which on noisy photos leaves too few pixels to compare.
_SIGMA_SPACE = 5.0
_SIGMA_GREY = 8.0 / 255.0
# Variance (grey in 0…1) added to both windows' variances, one grey level of noise squared: where photos show less
# than that, correlation says nothing and falls to 0.
_NOISE = (1.0 / 255.0) ** 2
# A view with a correlation below the first has no say in the mean, above the second full say.
_SAY_FROM, _SAY_FULL = 0.2, 0.8
# Say of a view that does not see the surface, so that the mean is defined where none does.
_SAY_LEAST = 1e-3

# Depth factor in a source view below which a pixel lies behind it.
_LEAST = np.float32(1e-6)


class Sources(NamedTuple):
    """Source photos of one reference, packed for the kernels.

    Attributes:
        flat: all photos, row by row, one after the other, float32.
        layout: (views, 3) int32: where each photo begins in ``flat``, its height and width.
        P: (views, 12) float32: M (3x3, row by row) and v of ``projection_of``, from the reference to each photo.
    """

    flat: _F32
    layout: npt.NDArray[np.int32]
    P: _F32


class Window(NamedTuple):
    """The reference photo and the windows round its pixels.

    Attributes:
        grey: (h, w) float32, 0…1.
        down, across: (h, n, w + LANES) float32, weights along the column and along the row, each summing to 1; 0
            outside of the photo.
        mean, variance: (h, w) float32, of ``grey`` in the windows. As ``grey`` with room behind all (``with_spare``).
    """

    grey: _F32
    down: _F32
    across: _F32
    mean: _F32
    variance: _F32


def pack_sources(
    reference: PinholeView, photos: Sequence[tuple[PinholeView, Float32[np.ndarray, "_ _"]]]
) -> Sources:
    """Pack source photos (or maps of their size) for a reference view."""
    sizes = np.array([grey.shape for _, grey in photos], np.int64)
    areas = sizes.prod(axis=1)
    # Spare pixels at the end: bilinear reads of the last row touch them with weight 0.
    flat = np.zeros(int(areas.sum() + sizes[:, 1].max() + 2), np.float32)
    offsets = np.cumsum(areas) - areas
    P = []
    for (view, grey), offset, area in zip(photos, offsets, areas, strict=True):
        flat[offset : offset + area] = grey.ravel()
        M, v = projection_of(view, reference)
        P.append(np.concatenate([M.ravel(), v]))
    return Sources(flat, np.column_stack([offsets, sizes]).astype(np.int32), np.array(P, np.float32))


def adaptive_window(grey: Float32[np.ndarray, "h w"], radius: int) -> Window:
    """Windows of side ``2 radius + 1`` round every pixel of a photo."""
    down, across = _weights(grey, radius, 0), _weights(grey, radius, 1)
    spare, mean, square = given_spare(grey), with_spare(grey.shape), with_spare(grey.shape)
    _moments(spare, down, across, with_room((2, grey.shape[1] + 2 * radius)), mean, square)
    square -= mean * mean
    return Window(spare, down, across, mean, square)


def _weights(grey: _F32, radius: int, axis: int) -> _F32:
    """Weights (h, n, w + LANES) of the pixels round every pixel along an axis, by distance and difference of grey."""
    h, width = grey.shape
    n = 2 * radius + 1
    room = with_room((h, n, width))
    weights = room[..., :width]
    weights[:, radius] = 1
    for o in range(1, min(radius + 1, grey.shape[axis])):
        # A pixel weighs on another what that weighs on it.
        before = (slice(None),) * axis + (slice(None, -o),)
        after = (slice(None),) * axis + (slice(o, None),)
        exponent = np.abs(grey[before] - grey[after]) * np.float32(-1.0 / _SIGMA_GREY)
        weight = np.exp(exponent - np.float32(o * o / (2 * _SIGMA_SPACE**2)))
        weights[:, radius + o][before] = weight
        weights[:, radius - o][after] = weight
    weights /= weights.sum(axis=1, keepdims=True)
    return room


@kernel(fastmath=True, error_model="numpy")
def _moments(grey, down, across, columns, mean, square):  # type: ignore[no-untyped-def]
    """Writes the windows' mean and mean square. ``columns`` is for sums along the columns."""
    h, width = grey.shape
    n, stride = down.shape[1:]
    r, wide = n // 2, columns.shape[1]
    zero = splat(np.float32(0))
    for y in range(h):
        for x in range(0, width, LANES):
            v1, v2 = zero, zero
            for o in range(n):
                value = load(grey, minimum(maximum(y + o - r, 0), h - 1) * width + x)
                a = times(load(down, (y * n + o) * stride + x), value)
                v1 = plus(v1, a)
                v2 = plus(v2, times(a, value))
            store(columns, r + x, v1)
            store(columns, wide + r + x, v2)
        for x in range(0, width, LANES):
            v1, v2 = zero, zero
            for o in range(n):
                a = load(across, (y * n + o) * stride + x)
                v1 = plus(v1, times(a, load(columns, x + o)))
                v2 = plus(v2, times(a, load(columns, wide + x + o)))
            store(mean, y * width + x, v1)
            store(square, y * width + x, v2)


@part_of_kernel(fastmath=True, error_model="numpy")
def _places(w, x, y, sources, k, least, margin):  # type: ignore[no-untyped-def]
    """Where sixteen pixels of inverse depth ``w`` from (x, y) on land in a photo, clamped to it, and 1 where that
    changed nothing.

    Clamped between ``least`` and the last pixel less ``margin``.
    """
    P, photo = sources.P, sources.layout
    across, fy, nearest = counting(np.float32(x)), np.float32(y), splat(_LEAST)
    a0, a1, a2 = P[k, 1] * fy + P[k, 2], P[k, 4] * fy + P[k, 5], P[k, 7] * fy + P[k, 8]
    pz = plus(plus(times(splat(P[k, 6]), across), splat(a2)), times(splat(P[k, 11]), w))
    inverse = over(splat(np.float32(1)), larger(pz, nearest))
    u = times(plus(plus(times(splat(P[k, 0]), across), splat(a0)), times(splat(P[k, 9]), w)), inverse)
    t = times(plus(plus(times(splat(P[k, 3]), across), splat(a1)), times(splat(P[k, 10]), w)), inverse)
    inside_u = smaller(larger(u, splat(least)), splat(np.float32(photo[k, 2]) - margin))
    inside_t = smaller(larger(t, splat(least)), splat(np.float32(photo[k, 1]) - margin))
    zero = splat(np.float32(0))
    seen = where_larger(pz, nearest, splat(np.float32(1)), zero)
    seen = where_equal(t, inside_t, where_equal(u, inside_u, seen, zero), zero)
    return inside_u, inside_t, seen


@kernel(fastmath=True, error_model="numpy")
def _score(w, src, win, noise, ring, seen, columns, z, slots, score, best_two):  # type: ignore[no-untyped-def]
    """Aggregated correlation of an inverse depth map; see ``photo_consistency``.

    A ring of warped rows per source, and of the reference's, holds what the window of the row at work needs, so that
    nothing of the size of the photo is written but the result. ``columns`` and ``z`` are room for sums along the
    columns and for the views' correlations of a row.
    """
    h, width = w.shape
    views = src.P.shape[0]
    n, stride = win.down.shape[1:]
    r, wide = n // 2, columns.shape[1]
    zero, one, half = splat(np.float32(0)), splat(np.float32(1)), splat(np.float32(0.5))
    noises = splat(noise)
    for ahead in range(h + r):
        for x in range(0, width if ahead < h else 0, LANES):
            at = ahead % n * stride + x
            here = load(w, ahead * width + x)
            for k in range(views):
                # A hair inside the last pixel: four pixels are read round each place.
                u, t, visible = _places(here, x, ahead, src, k, np.float32(0), np.float32(1.001))
                store(ring, k * n * stride + at, bilinear(src.flat, src.layout[k, 0], src.layout[k, 2], u, t))
                store(seen, k * n * stride + at, visible)
            store(ring, views * n * stride + at, load(win.grey, ahead * width + x))
        y = ahead - r
        if y < 0:
            continue
        for o in range(n):
            slots[o] = minimum(maximum(y + o - r, 0), h - 1) % n * stride
        for k in range(views):
            for x in range(0, width, LANES):
                v1, v2, v3 = zero, zero, zero
                for o in range(n):
                    value = load(ring, k * n * stride + slots[o] + x)
                    a = times(load(win.down, (y * n + o) * stride + x), value)
                    v1 = plus(v1, a)
                    v2 = plus(v2, times(a, value))
                    v3 = plus(v3, times(a, load(ring, views * n * stride + slots[o] + x)))
                store(columns, r + x, v1)
                store(columns, wide + r + x, v2)
                store(columns, 2 * wide + r + x, v3)
            for x in range(0, width, LANES):
                v1, v2, v3 = zero, zero, zero
                for o in range(n):
                    a = load(win.across, (y * n + o) * stride + x)
                    v1 = plus(v1, times(a, load(columns, x + o)))
                    v2 = plus(v2, times(a, load(columns, wide + x + o)))
                    v3 = plus(v3, times(a, load(columns, 2 * wide + x + o)))
                theirs = plus(larger(minus(v2, times(v1, v1)), zero), noises)
                own = plus(load(win.variance, y * width + x), noises)
                covariance = minus(v3, times(v1, load(win.mean, y * width + x)))
                ncc = smaller(larger(over(covariance, root(times(theirs, own))), minus(zero, one)), one)
                store(z, k * stride + x, times(ncc, load(seen, (k * n + y % n) * stride + x)))
        for x in range(0, width, LANES):
            best, second, said, say, count = zero, zero, zero, zero, zero
            for k in range(views):
                c = load(z, k * stride + x)
                second = larger(second, smaller(best, c))
                best = larger(best, c)
                share = minus(c, splat(np.float32(_SAY_FROM)))
                share = times(share, splat(np.float32(1.0 / (_SAY_FULL - _SAY_FROM))))
                share = smaller(larger(share, zero), one)
                share = plus(times(share, share), splat(np.float32(_SAY_LEAST)))
                said = plus(said, times(share, c))
                say = plus(say, share)
                count = plus(count, where_equal(c, zero, zero, one))
            pair = times(half, plus(best, second))
            store(best_two, y * width + x, where_larger(count, one, pair, best))
            store(score, y * width + x, times(half, plus(pair, over(said, say))))


def photo_consistency(
    w: Float32[np.ndarray, "h w"], sources: Sources, window: Window
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """Similarity of the photos when the reference is warped into each by an inverse depth map.

    Args:
        w: inverse depth of the reference, positive.
        sources: the source photos.
        window: the reference photo and its windows.

    Returns:
        The score, -1…1: half the mean correlation of the best two views, half the mean over all views, weighted by
        how well they see the pixel. And the mean of the best two alone, 0…1. A view that a pixel falls outside of
        counts as 0 in the score; where only one view sees a pixel, it alone is the best two.
    """
    score, best_two = with_spare(w.shape), with_spare(w.shape)
    views, n, width = len(sources.P), window.down.shape[1], w.shape[1]
    # Arrays are made out here: each way of making one is compiled too.
    _score(
        given_spare(w), sources, window, np.float32(_NOISE), with_room((views + 1, n, width)),
        with_room((views, n, width)), with_room((3, width + n - 1)), with_room((views, width)), np.zeros(n, np.int64),
        score, best_two,
    )  # fmt: skip
    return score, best_two


@kernel(fastmath=True, error_model="numpy")
def _round_trips(w, src, back, limit, mean):  # type: ignore[no-untyped-def]
    """Mean round trip through the views' own depths; see ``round_trips``. ``src.flat`` holds inverse depth."""
    views = src.P.shape[0]
    height, width = w.shape
    zero, one, half, most = splat(np.float32(0)), splat(np.float32(1)), splat(np.float32(0.5)), splat(limit)
    for y in range(height):
        fy = splat(np.float32(y))
        for x in range(0, width, LANES):
            here, fx, misses = load(w, y * width + x), counting(np.float32(x)), zero
            for k in range(views):
                u, t, seen = _places(here, x, y, src, k, np.float32(-0.5), np.float32(0.501))
                there = pixels(src.flat, src.layout[k, 0], src.layout[k, 2], plus(u, half), plus(t, half))
                bx = plus(times(splat(back[k, 0]), u), plus(times(splat(back[k, 1]), t), splat(back[k, 2])))
                by = plus(times(splat(back[k, 3]), u), plus(times(splat(back[k, 4]), t), splat(back[k, 5])))
                bz = plus(times(splat(back[k, 6]), u), plus(times(splat(back[k, 7]), t), splat(back[k, 8])))
                bz = plus(bz, times(splat(back[k, 11]), there))
                home = over(one, larger(bz, splat(_LEAST)))
                ex = minus(times(plus(bx, times(splat(back[k, 9]), there)), home), fx)
                ey = minus(times(plus(by, times(splat(back[k, 10]), there)), home), fy)
                error = smaller(root(plus(times(ex, ex), times(ey, ey))), most)
                known = where_larger(there, zero, where_larger(bz, splat(_LEAST), seen, zero), zero)
                misses = plus(misses, where_larger(known, zero, error, most))
            store(mean, y * width + x, times(misses, splat(np.float32(1) / np.float32(views))))


def round_trips(
    w: Float32[np.ndarray, "h w"],
    inverse: Sources,
    back: Float32[np.ndarray, "views 12"],
    limit: float,
) -> Float32[np.ndarray, "h w"]:
    """Mean distance between a pixel and its image after going to each view and back by that view's own depth, pixels.

    Args:
        w: inverse depth of the reference.
        inverse: the views' inverse depth maps, packed as photos are; 0 where unknown.
        back: M and v from each view to the reference.
        limit: of each distance, also what a view counts that knows no depth there.
    """
    mean = with_spare(w.shape)
    _round_trips(given_spare(w), inverse, back, np.float32(limit), mean)
    return mean


@kernel(fastmath=True, error_model="numpy")
def _carry_over(there, P, out):  # type: ignore[no-untyped-def]
    """Writes each pixel's inverse depth to the nearest pixel of the other view; the nearest surface wins."""
    h, width = there.shape
    high, wide = out.shape
    for y in range(h):
        for x in range(width):
            w = there[y, x]
            pz = P[6] * x + P[7] * y + P[8] + P[11] * w
            if w <= np.float32(0) or pz <= np.float32(1e-6):
                continue
            u = np.int32(math.floor((P[0] * x + P[1] * y + P[2] + P[9] * w) / pz + np.float32(0.5)))
            t = np.int32(math.floor((P[3] * x + P[4] * y + P[5] + P[10] * w) / pz + np.float32(0.5)))
            if 0 <= u < wide and 0 <= t < high:
                out[t, u] = maximum(out[t, u], w / pz)


def carry_over(
    inverse: Float32[np.ndarray, "hs ws"], projection: Float32[np.ndarray, "12"], shape: tuple[int, int]
) -> Float32[np.ndarray, "h w"]:
    """A view's inverse depth as another view sees it, 0 where nothing lands.

    Args:
        inverse: inverse depth of the view, 0 where unknown.
        projection: M and v (``projection_of``) from the view to the other.
        shape: of the other view.
    """
    out = np.zeros(shape, np.float32)
    _carry_over(inverse, projection, out)
    return out


def projection_row(source: PinholeView, reference: PinholeView) -> Float32[np.ndarray, "12"]:
    """M (row by row) and v of ``projection_of`` in one row."""
    M, v = projection_of(source, reference)
    return np.concatenate([M.ravel(), v]).astype(np.float32)
