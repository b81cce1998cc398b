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
from recon.core.vectors import LANES, load, load_pair, plus, splat, store, times, with_room
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
        mean, variance: (h, w) float32, of ``grey`` in the windows.
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
    mean, square = np.zeros_like(grey), np.zeros_like(grey)
    _moments(grey, down, across, np.zeros((2, grey.shape[1] + 2 * radius), np.float32), mean, square)
    return Window(grey, down, across, mean, square - mean * mean)


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
def _moments(grey, down, across, room, mean, square):  # type: ignore[no-untyped-def]
    """Adds the windows' mean and mean square. ``room`` is for sums along the columns."""
    h, width = grey.shape
    n = down.shape[1]
    r = n // 2
    v1, v2 = room[0], room[1]
    for y in range(h):
        for x in range(width + 2 * r):
            v1[x] = np.float32(0)
            v2[x] = np.float32(0)
        for o in range(n):
            yy = minimum(maximum(y + o - r, 0), h - 1)
            for x in range(width):
                a = down[y, o, x] * grey[yy, x]
                v1[r + x] += a
                v2[r + x] += a * grey[yy, x]
        for o in range(n):
            for x in range(width):
                mean[y, x] += across[y, o, x] * v1[x + o]
                square[y, x] += across[y, o, x] * v2[x + o]


@part_of_kernel(fastmath=True, error_model="numpy")
def _places(w, y, P, photo, least, margin, u, t, seen):  # type: ignore[no-untyped-def]
    """Pixels of a photo where the pixels of row ``y`` land, clamped to it, and 1 where that changed nothing.

    Clamped between ``least`` and the last pixel less ``margin``. Rows go through functions of their own, a few arrays
    each: loops with more are not vectorised, because compilers give up on proving that arrays do not overlap.
    """
    right = np.float32(photo[2]) - margin
    bottom = np.float32(photo[1]) - margin
    fy = np.float32(y)
    p0, p3, p6, p9, p10, p11 = P[0], P[3], P[6], P[9], P[10], P[11]
    a0, a1, a2 = P[1] * fy + P[2], P[4] * fy + P[5], P[7] * fy + P[8]
    for x in range(w.shape[0]):
        fx = np.float32(x)
        pz = p6 * fx + a2 + p11 * w[x]
        inverse = np.float32(1) / maximum(pz, _LEAST)
        uu = (p0 * fx + a0 + p9 * w[x]) * inverse
        tt = (p3 * fx + a1 + p10 * w[x]) * inverse
        su = minimum(maximum(uu, least), right)
        st = minimum(maximum(tt, least), bottom)
        u[x] = su
        t[x] = st
        seen[x] = np.float32(1) if su == uu and st == tt and pz > _LEAST else np.float32(0)


@part_of_kernel(fastmath=True, error_model="numpy")
def _split(photo, u, t, at):  # type: ignore[no-untyped-def]
    """Places within a photo become the place of their upper left pixel in memory and their shares of the next ones."""
    base = np.int32(photo[0])
    wide = np.int32(photo[2])
    for x in range(at.shape[0]):
        iu = np.int32(u[x])
        it = np.int32(t[x])
        u[x] -= np.float32(iu)
        t[x] -= np.float32(it)
        at[x] = np.int32(np.int32(base + np.int32(it * wide)) + iu)


@part_of_kernel(fastmath=True, error_model="numpy")
def _blend(top, low, u, t, out):  # type: ignore[no-untyped-def]
    """Bilinear mixture of the two pixels of the upper row and of the lower one."""
    for x in range(out.shape[0]):
        a = top[2 * x] + u[x] * (top[2 * x + 1] - top[2 * x])
        b = low[2 * x] + u[x] * (low[2 * x + 1] - low[2 * x])
        out[x] = a + t[x] * (b - a)


@part_of_kernel(fastmath=True, error_model="numpy")
def _correlate(sums, mean, variance, noise, seen, out):  # type: ignore[no-untyped-def]
    """Correlation of a row from the windows' sums of values, squares and products; 0 where not seen."""
    one = np.float32(1)
    for x in range(out.shape[0]):
        theirs = maximum(sums[1, x] - sums[0, x] * sums[0, x], np.float32(0)) + noise
        covariance = sums[2, x] - sums[0, x] * mean[x]
        ncc = covariance / np.float32(math.sqrt(theirs * (variance[x] + noise)))
        out[x] = minimum(maximum(ncc, -one), one) * seen[x]


@part_of_kernel(fastmath=True, error_model="numpy")
def _aggregate(z, rows, score, best_two):  # type: ignore[no-untyped-def]
    """Score of a row from the views' correlations ``z``; see ``photo_consistency``. ``rows`` is for work, (5, w)."""
    views = z.shape[0]
    zero = np.float32(0)
    for k in range(5):
        for x in range(z.shape[1]):
            rows[k, x] = zero
    for k in range(views):
        for x in range(z.shape[1]):
            c = z[k, x]
            rows[1, x] = maximum(rows[1, x], minimum(rows[0, x], c))
            rows[0, x] = maximum(rows[0, x], c)
            share = (c - np.float32(_SAY_FROM)) * np.float32(1.0 / (_SAY_FULL - _SAY_FROM))
            share = minimum(maximum(share, zero), np.float32(1))
            share = share * share + np.float32(_SAY_LEAST)
            rows[2, x] += share * c
            rows[3, x] += share
        for x in range(z.shape[1]):
            rows[4, x] += np.float32(1) if z[k, x] != zero else zero
    for x in range(z.shape[1]):
        pair = np.float32(0.5) * (rows[0, x] + rows[1, x])
        best_two[x] = pair if rows[4, x] > np.float32(1) else rows[0, x]
        score[x] = np.float32(0.5) * (pair + rows[2, x] / rows[3, x])


@kernel(fastmath=True, error_model="numpy")
def _score(w, src, win, noise, ring, seen, rows, sums, at, slots, pairs, pixels, flats, score, best_two):  # type: ignore[no-untyped-def]
    """Aggregated correlation of an inverse depth map; see ``photo_consistency``.

    A ring of warped rows per source, and of the reference's, holds what the window of the row at work needs, so that
    nothing of the size of the photo is written but the result. ``flats`` are arrays as vectors read them.
    """
    h, width = w.shape
    views = src.P.shape[0]
    n, stride = win.down.shape[1:]
    r = n // 2
    flat_ring, down, across, columns, sums_of = flats
    wide = sums.shape[1] + 2 * r
    u, t, mixed, z = rows[0], rows[1], rows[2:7], rows[7:]
    zero = splat(np.float32(0))
    for ahead in range(h + r):
        for k in range(views if ahead < h else 0):
            photo = src.layout[k]
            # A hair inside the last pixel: four pixels are read round each place.
            _places(
                w[ahead], ahead, src.P[k], photo, np.float32(0), np.float32(1.001), u, t, seen[k, ahead % n]
            )
            _split(photo, u, t, at)
            for x in range(width):
                pairs[0, x] = load_pair(src.flat, at[x])
                pairs[1, x] = load_pair(src.flat, at[x] + photo[2])
            _blend(pixels[0], pixels[1], u, t, ring[k, ahead % n, :width])
        if ahead < h:
            own = ring[views, ahead % n]
            for x in range(width):
                own[x] = win.grey[ahead, x]
        y = ahead - r
        if y < 0:
            continue
        for o in range(n):
            slots[o] = minimum(maximum(y + o - r, 0), h - 1) % n * stride
        for k in range(views):
            for x in range(0, width, LANES):
                v1, v2, v3 = zero, zero, zero
                for o in range(n):
                    value = load(flat_ring, k * n * stride + slots[o] + x)
                    a = times(load(down, (y * n + o) * stride + x), value)
                    v1 = plus(v1, a)
                    v2 = plus(v2, times(a, value))
                    v3 = plus(v3, times(a, load(flat_ring, views * n * stride + slots[o] + x)))
                store(columns, r + x, v1)
                store(columns, wide + r + x, v2)
                store(columns, 2 * wide + r + x, v3)
            for x in range(0, width, LANES):
                v1, v2, v3 = zero, zero, zero
                for o in range(n):
                    a = load(across, (y * n + o) * stride + x)
                    v1 = plus(v1, times(a, load(columns, x + o)))
                    v2 = plus(v2, times(a, load(columns, wide + x + o)))
                    v3 = plus(v3, times(a, load(columns, 2 * wide + x + o)))
                store(sums_of, x, v1)
                store(sums_of, stride + x, v2)
                store(sums_of, 2 * stride + x, v3)
            _correlate(sums, win.mean[y], win.variance[y], noise, seen[k, y % n], z[k])
        _aggregate(z, mixed, score[y], best_two[y])


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
    score, best_two = np.empty_like(w), np.empty_like(w)
    views, n = len(sources.P), window.down.shape[1]
    ring, sums = with_room((views + 1, n, w.shape[1])), with_room((3, w.shape[1]))
    columns = with_room((3, w.shape[1] + n - 1))
    seen = np.zeros((views, n, w.shape[1]), np.float32)
    pairs, rows = np.zeros((2, w.shape[1]), np.int64), np.zeros((views + 7, w.shape[1]), np.float32)
    at, slots = np.zeros(w.shape[1], np.int64), np.zeros(n, np.int64)
    flats = tuple(a.reshape(-1) for a in (ring, window.down, window.across, columns, sums))
    # Arrays are made out here: each way of making one is compiled too.
    _score(
        w, sources, window, np.float32(_NOISE), ring, seen, rows, sums, at, slots, pairs, pairs.view(np.float32),
        flats, score, best_two,
    )  # fmt: skip
    return score, best_two


@part_of_kernel(fastmath=True, error_model="numpy")
def _look_up(flat, photo, u, t, out):  # type: ignore[no-untyped-def]
    """A map's values at the pixels nearest to places within it."""
    base = np.int32(photo[0])
    wide = np.int32(photo[2])
    half = np.float32(0.5)
    for x in range(out.shape[0]):
        out[x] = flat[
            np.uint32(np.int32(base + np.int32(np.int32(t[x] + half) * wide)) + np.int32(u[x] + half))
        ]


@part_of_kernel(fastmath=True, error_model="numpy")
def _add_misses(there, u, t, seen, y, back, limit, part, mean):  # type: ignore[no-untyped-def]
    """Adds ``part`` of how far from their pixels places come home with the inverse depth found ``there``."""
    b0, b1, b2, b3, b4, b5, b6, b7, b8 = (
        back[0], back[1], back[2], back[3], back[4], back[5], back[6], back[7], back[8],
    )  # fmt: skip
    b9, b10, b11 = back[9], back[10], back[11]
    fy = np.float32(y)
    for x in range(mean.shape[0]):
        bz = b6 * u[x] + b7 * t[x] + b8 + b11 * there[x]
        home = np.float32(1) / maximum(bz, _LEAST)
        ex = (b0 * u[x] + b1 * t[x] + b2 + b9 * there[x]) * home - np.float32(x)
        ey = (b3 * u[x] + b4 * t[x] + b5 + b10 * there[x]) * home - fy
        error = minimum(np.float32(math.sqrt(ex * ex + ey * ey)), limit)
        known = seen[x] > np.float32(0) and there[x] > np.float32(0) and bz > _LEAST
        mean[x] += part * (error if known else limit)


@kernel(fastmath=True, error_model="numpy")
def _round_trips(w, src, back, limit, rows, mean):  # type: ignore[no-untyped-def]
    """Mean round trip through the views' own depths; see ``round_trips``. ``src.flat`` holds inverse depth.

    ``rows`` is for work, (4, w).
    """
    views = src.P.shape[0]
    part = np.float32(1) / np.float32(views)
    u, t, seen, there = rows[0], rows[1], rows[2], rows[3]
    for y in range(w.shape[0]):
        for k in range(views):
            photo = src.layout[k]
            _places(w[y], y, src.P[k], photo, np.float32(-0.5), np.float32(0.501), u, t, seen)
            _look_up(src.flat, photo, u, t, there)
            _add_misses(there, u, t, seen, y, back[k], limit, part, mean[y])


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
    mean = np.zeros_like(w)
    _round_trips(w, inverse, back, np.float32(limit), np.zeros((4, w.shape[1]), np.float32), mean)
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
