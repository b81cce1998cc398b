"""Kernels of patch alignment: inverse-compositional Gauss-Newton, and positions that fit measured displacements.

Sources: S. Baker, I. Matthews, "Lucas-Kanade 20 Years On", IJCV 2004, section 3.2; A. Bartoli, "Groupwise Geometric and
Photometric Direct Image Registration", PAMI 2008.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Float32, Float64

from recon.core.kernels import kernel, maximum, part_of_kernel
from recon.core.vectors import LANES, all_within, cubic, load, minus, over, plus, splat, store, times, total

# Gauss-Newton stops when a step moves the patch by less than this.
CONVERGED_PX = 0.003

BORDER = 2
"""Photos are continued by so many pixels to all sides: a sample between pixels takes four by four of them."""


@part_of_kernel()
def _solve(A: np.ndarray, b: np.ndarray, n: int) -> bool:
    """Cholesky solution of A x = b in place (x in b); False where A is not positive definite."""
    for j in range(n):
        d = A[j, j]
        for k in range(j):
            d -= A[j, k] * A[j, k]
        if d <= 1e-12:
            return False
        d = np.sqrt(d)
        A[j, j] = d
        for i in range(j + 1, n):
            s = A[i, j]
            for k in range(j):
                s -= A[i, k] * A[j, k]
            A[i, j] = s / d
    for i in range(n):
        s = b[i]
        for k in range(i):
            s -= A[i, k] * b[k]
        b[i] = s / A[i, i]
    for i in range(n - 1, -1, -1):
        s = b[i]
        for k in range(i + 1, n):
            s -= A[k, i] * b[k]
        b[i] = s / A[i, i]
    return True


@part_of_kernel(error_model="numpy")
def _compose(W: np.ndarray, delta: np.ndarray, unit: float) -> bool:
    """Make ``W`` the warp W o step^-1 in place; False, and ``W`` as it is, where the step is no sane map.

    ``delta`` holds the step's translation and, if it has six parameters, its affine part at distance ``unit`` in px.
    """
    s00, s01, s10, s11 = 1.0, 0.0, 0.0, 1.0
    if len(delta) == 6:
        s00, s01 = s00 + delta[2] / unit, delta[3] / unit
        s10, s11 = delta[4] / unit, s11 + delta[5] / unit
    det = s00 * s11 - s01 * s10
    if not (det > 0.1 and det < 10.0):
        return False
    i00, i01, i10, i11 = s11 / det, -s01 / det, -s10 / det, s00 / det
    i02 = -(i00 * delta[0] + i01 * delta[1])
    i12 = -(i10 * delta[0] + i11 * delta[1])
    for r in range(3):
        w0, w1 = W[r, 0], W[r, 1]
        W[r, 0] = w0 * i00 + w1 * i10
        W[r, 1] = w0 * i01 + w1 * i11
        W[r, 2] = w0 * i02 + w1 * i12 + W[r, 2]
    return True


def align_patches(
    source: Float32[np.ndarray, "l h w"],
    target: Float32[np.ndarray, "l h2 w2"],
    start: Float64[np.ndarray, "n 2"],
    warps: Float64[np.ndarray, "n 3 3"],
    radius: int,
    iterations: int,
    parameters: int,
) -> tuple[Float64[np.ndarray, "n 3 3"], Float32[np.ndarray, " n"]]:
    """Align patches round points of the source to the target, inverse compositional.

    Args:
        source, target: of ``blur_levels``, with their borders.
        start: points of the source.
        warps: first guess: offset from the point (source pixels, homogeneous) to target pixel.
        parameters: 6 estimates an affine map on top of the guess, 2 a translation.

    Returns:
        Warps, and the correlation of the aligned patches; -1 where the alignment failed or left the photo.
    """
    # How many target pixels a source pixel covers decides at which step patches are sampled.
    homogeneous = warps[:, 2, 2]
    with np.errstate(all="ignore"):
        at = warps[:, :2, 2] / homogeneous[:, None]
        linear = (warps[:, :2, :2] - at[:, :, None] * warps[:, 2:, :2]) / homogeneous[:, None, None]
        scale = np.sqrt(np.abs(linear[:, 0, 0] * linear[:, 1, 1] - linear[:, 0, 1] * linear[:, 1, 0]))
    usable = (scale > 0.05) & (scale < 20.0)
    scale = np.where(usable, scale, 1.0)
    levels = np.zeros((len(start), 2), np.int64)
    levels[:, 0] = np.clip(np.rint(np.log2(1.0 / scale)), 0, len(source) - 1)
    step = 2.0 ** levels[:, 0]
    levels[:, 1] = np.clip(np.rint(np.log2(scale * step)), 0, len(target) - 1)
    reach = (radius + 1) * step[:, None]
    usable &= ((start >= reach) & (start <= np.array(source.shape[:0:-1]) - 2 * BORDER - 1 - reach)).all(
        axis=1
    )
    found = warps.copy()
    correlation = np.full(len(start), -1.0, np.float32)
    place, weight, border = _patch(radius)
    _align(
        source, target, start, np.flatnonzero(usable), levels, np.stack([step, scale], axis=1), iterations, radius,
        place, weight, border, np.zeros(border.shape[1] + LANES, np.float32),
        np.empty((parameters + 2, len(weight)), np.float32), np.empty((2, parameters, parameters)),
        np.empty(parameters), found, correlation,
    )  # fmt: skip
    failed = ~(correlation >= 0)  # NaN where the patch reached over pixels that are none
    found[failed], correlation[failed] = warps[failed], -1.0
    return found, correlation


@cache
def _patch(
    radius: int,
) -> tuple[Float32[np.ndarray, "2 n"], Float32[np.ndarray, " n"], Float32[np.ndarray, "2 m"]]:
    """Offsets (x, y) and weights of a patch's pixels, each row filled up to whole vectors by pixels in the middle that
    weigh nothing; and offsets of the same patch with a border of one pixel, filled up at the end."""
    axis = np.arange(-radius, radius + 1, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    weight = np.exp(-0.5 * ((x * x + y * y) / np.float32(0.6 * radius + 0.6) ** 2))
    fill = -len(axis) % LANES
    place = np.stack([np.pad(one, ((0, 0), (0, fill))).ravel() for one in (x, y)])
    wide = np.stack(np.meshgrid(*[np.arange(-radius - 1, radius + 2, dtype=np.float32)] * 2)).reshape(2, -1)
    border = np.pad(wide, ((0, 0), (0, -wide.shape[1] % LANES)))
    return place, np.pad(weight, ((0, 0), (0, fill))).ravel(), border


# Few functions, and arrays made outside: each function called and each kind of array made is compiled besides.
@kernel(error_model="numpy")
def _align(  # type: ignore[no-untyped-def]
    source, target, start, usable, levels, scales, iterations, radius, place, weight, border, patch, room, normal,
    delta, warps, correlation,
):  # fmt: skip
    """Gauss-Newton for ``align_patches``, of the ``usable`` points; changes ``warps`` and ``correlation``.

    ``scales`` holds the step of samples and the pixels of the target that one of the source covers; ``place``,
    ``weight`` and ``border`` are those of ``_patch``. ``patch`` is room for samples of the source with a border for
    derivatives; ``room`` for the steepest descent images without gain and offset (one row per parameter), the zero-mean
    template and the zero-mean samples of the target; ``normal`` for the images' products and their factors.
    """
    parameters, size = len(delta), len(weight)
    template, moved = parameters * size, (parameters + 1) * size
    H, factor = normal[0], normal[1]
    side = 2 * radius + 1
    in_row = size // side
    height, width = target.shape[1], target.shape[2]
    every = np.float32(0)
    for k in range(0, size, LANES):
        every += total(load(weight, k))
    for i in usable:
        step = scales[i, 0]
        x0, y0 = np.int64(np.floor(start[i, 0])), np.int64(np.floor(start[i, 1]))
        pitch = source.shape[2]
        at = (levels[i, 0] * source.shape[1] + y0 + BORDER) * pitch + x0 + BORDER
        for k in range(0, border.shape[1], LANES):
            x = plus(times(load(border, k), splat(step)), splat(start[i, 0] - x0))
            y = plus(times(load(border, border.shape[1] + k), splat(step)), splat(start[i, 1] - y0))
            store(patch, k, cubic(source, at, pitch, x, y))
        mean = splat(0.0)
        for k in range(0, size, LANES):
            value = load(patch, (k // in_row + 1) * (side + 2) + k % in_row + 1)
            store(room, template + k, value)
            mean = plus(mean, times(load(weight, k), value))
        mean = splat(total(mean) / every)
        power = splat(0.0)
        for k in range(0, size, LANES):
            value = minus(load(room, template + k), mean)
            store(room, template + k, value)
            power = plus(power, times(load(weight, k), times(value, value)))
        power = total(power)
        if power < 1e-3 * every:
            continue
        for k in range(0, size, LANES):
            middle = (k // in_row + 1) * (side + 2) + k % in_row + 1
            half = splat(0.5 / step)
            gx = times(half, minus(load(patch, middle + 1), load(patch, middle - 1)))
            gy = times(half, minus(load(patch, middle + side + 2), load(patch, middle - side - 2)))
            store(room, k, gx)
            store(room, size + k, gy)
            if parameters == 6:
                # Scaled by the radius so that all six parameters are of the size of a pixel.
                x = times(load(place, k), splat(1.0 / radius))
                y = times(load(place, size + k), splat(1.0 / radius))
                store(room, 2 * size + k, times(gx, x))
                store(room, 3 * size + k, times(gx, y))
                store(room, 4 * size + k, times(gy, x))
                store(room, 5 * size + k, times(gy, y))
        for p in range(parameters):
            along, shift = splat(0.0), splat(0.0)
            for k in range(0, size, LANES):
                value = times(load(weight, k), load(room, p * size + k))
                shift = plus(shift, value)
                along = plus(along, times(value, load(room, template + k)))
            shift, along = splat(total(shift) / every), splat(total(along) / power)
            for k in range(0, size, LANES):
                value = plus(shift, times(along, load(room, template + k)))
                store(room, p * size + k, minus(load(room, p * size + k), value))
            for q in range(p + 1):
                s = splat(0.0)
                for k in range(0, size, LANES):
                    product = times(load(room, p * size + k), load(room, q * size + k))
                    s = plus(s, times(load(weight, k), product))
                # A trace of damping keeps edges from sliding along themselves.
                H[p, q] = total(s) * (1.0 + 1e-4 if p == q else 1.0)
        W = warps[i]
        found = np.float32(-1)
        for _ in range(iterations):
            # From a pixel near the middle on, so that single precision is fine.
            x0, y0 = np.int64(np.floor(W[0, 2] / W[2, 2])), np.int64(np.floor(W[1, 2] / W[2, 2]))
            at = (levels[i, 1] * height + y0 + BORDER) * width + x0 + BORDER
            inside = True
            mean = splat(0.0)
            for k in range(0, size, LANES):
                x, y = times(load(place, k), splat(step)), times(load(place, size + k), splat(step))
                w = plus(plus(times(splat(W[2, 0]), x), times(splat(W[2, 1]), y)), splat(W[2, 2]))
                tx = plus(times(splat(W[0, 0] - x0 * W[2, 0]), x), times(splat(W[0, 1] - x0 * W[2, 1]), y))
                ty = plus(times(splat(W[1, 0] - y0 * W[2, 0]), x), times(splat(W[1, 1] - y0 * W[2, 1]), y))
                tx = over(plus(tx, splat(W[0, 2] - x0 * W[2, 2])), w)
                ty = over(plus(ty, splat(W[1, 2] - y0 * W[2, 2])), w)
                inside = all_within(tx, -x0, width - 1 - 2 * BORDER - x0) and all_within(
                    ty, -y0, height - 1 - 2 * BORDER - y0
                )
                if not inside:
                    break
                value = cubic(target, at, width, tx, ty)
                store(room, moved + k, value)
                mean = plus(mean, times(load(weight, k), value))
            if not inside:
                found = np.float32(-1)
                break
            mean = splat(total(mean) / every)
            crossed, squares = splat(0.0), splat(0.0)
            for k in range(0, size, LANES):
                value = minus(load(room, moved + k), mean)
                store(room, moved + k, value)
                weighted = times(load(weight, k), value)
                crossed = plus(crossed, times(weighted, load(room, template + k)))
                squares = plus(squares, times(weighted, value))
            cross, moved_power = total(crossed), total(squares)
            if moved_power < 1e-3 * every or cross <= 0.0:
                found = np.float32(-1)
                break
            found = cross / np.sqrt(power * moved_power)
            gain = splat(power / cross)
            for p in range(parameters):
                s = splat(0.0)
                for k in range(0, size, LANES):
                    gap = minus(times(gain, load(room, moved + k)), load(room, template + k))
                    s = plus(s, times(times(load(weight, k), load(room, p * size + k)), gap))
                delta[p] = total(s)
                for q in range(p + 1):
                    factor[p, q] = H[p, q]
            if not (_solve(factor, delta, parameters) and _compose(W, delta, radius * step)):
                found = np.float32(-1)
                break
            change = abs(delta[0]) + abs(delta[1])
            for p in range(2, parameters):
                change = maximum(change, abs(delta[p]))
            if change * maximum(scales[i, 1], 1.0) < CONVERGED_PX:
                break
        correlation[i] = found


@kernel()
def solve_tracks(
    first_row: np.ndarray,
    first_measurement: np.ndarray,
    source: np.ndarray,
    target: np.ndarray,
    measured: np.ndarray,
    relative: np.ndarray,
    fixed: np.ndarray,
) -> np.ndarray:
    """Shifts of all observations that fit the measured displacements, track by track.

    A measurement k says that target and source shift as d_target - A_k d_source = m_k. Solved by Gauss-Newton
    on a Cauchy loss (scale 0.1 px, three reweightings); the reference observation stays where it is.

    Args:
        first_row, first_measurement: (tracks + 1,) ranges of each track in rows and measurements.
        source, target: (m,) rows. measured: (m, 2). relative: (m, 2, 2). fixed: (rows,) bool.

    Returns:
        (rows, 2) float64 shifts.
    """
    rows = len(fixed)
    shifts = np.zeros((rows, 2))
    for t in range(len(first_row) - 1):
        start, end = first_row[t], first_row[t + 1]
        size = 2 * (end - start)
        begin, stop = first_measurement[t], first_measurement[t + 1]
        if begin == stop:
            continue
        for _ in range(4):
            A = np.zeros((size, size))
            b = np.zeros(size)
            for k in range(begin, stop):
                s, g = 2 * (source[k] - start), 2 * (target[k] - start)
                ds, dt = shifts[source[k]], shifts[target[k]]
                r0 = dt[0] - relative[k, 0, 0] * ds[0] - relative[k, 0, 1] * ds[1] - measured[k, 0]
                r1 = dt[1] - relative[k, 1, 0] * ds[0] - relative[k, 1, 1] * ds[1] - measured[k, 1]
                w = 1.0 / (1.0 + (r0 * r0 + r1 * r1) / 0.01)
                for c in range(2):
                    m = measured[k, c]
                    A[g + c, g + c] += w
                    b[g + c] += w * m
                    for e in range(2):
                        A[g + c, s + e] -= w * relative[k, c, e]
                        A[s + e, g + c] -= w * relative[k, c, e]
                        b[s + e] -= w * relative[k, c, e] * m
                        for f in range(2):
                            A[s + e, s + f] += w * relative[k, c, e] * relative[k, c, f]
            for i in range(end - start):
                # Rows without measurements, and the reference, stay: a large weight on zero shift.
                hold = 1e9 if fixed[start + i] else 1e-9
                A[2 * i, 2 * i] += hold
                A[2 * i + 1, 2 * i + 1] += hold
            if not _solve(A, b, size):
                break
            for i in range(end - start):
                shifts[start + i, 0] = b[2 * i]
                shifts[start + i, 1] = b[2 * i + 1]
    return shifts
