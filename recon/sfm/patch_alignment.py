"""Kernels of patch alignment: inverse-compositional Gauss-Newton, and positions that fit measured displacements.

Sources: S. Baker, I. Matthews, "Lucas-Kanade 20 Years On", IJCV 2004, section 3.2; A. Bartoli, "Groupwise Geometric and
Photometric Direct Image Registration", PAMI 2008.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

# Functions that one place alone calls are inlined before they are compiled: each compiled by itself and again with its
# caller took a seventh longer to compile.
# Gauss-Newton stops when a step moves the patch by less than this.
CONVERGED_PX = 0.003


@njit(cache=True, nogil=True)
def sample(image: np.ndarray, x: float, y: float) -> float:
    """Cubic convolution (Keys 1981, a = -0.5) of an image at a point; the border is repeated."""
    height, width = image.shape
    x0, y0 = int(np.floor(x)), int(np.floor(y))
    u, v = x - x0, y - y0
    wx0 = ((-0.5 * u + 1.0) * u - 0.5) * u
    wx1 = (1.5 * u - 2.5) * u * u + 1.0
    wx2 = ((-1.5 * u + 2.0) * u + 0.5) * u
    wx3 = (0.5 * u - 0.5) * u * u
    wy0 = ((-0.5 * v + 1.0) * v - 0.5) * v
    wy1 = (1.5 * v - 2.5) * v * v + 1.0
    wy2 = ((-1.5 * v + 2.0) * v + 0.5) * v
    wy3 = (0.5 * v - 0.5) * v * v
    if x0 >= 1 and y0 >= 1 and x0 + 2 < width and y0 + 2 < height:
        a = (
            image[y0 - 1, x0 - 1] * wx0
            + image[y0 - 1, x0] * wx1
            + image[y0 - 1, x0 + 1] * wx2
            + image[y0 - 1, x0 + 2] * wx3
        )
        b = image[y0, x0 - 1] * wx0 + image[y0, x0] * wx1 + image[y0, x0 + 1] * wx2 + image[y0, x0 + 2] * wx3
        c = (
            image[y0 + 1, x0 - 1] * wx0
            + image[y0 + 1, x0] * wx1
            + image[y0 + 1, x0 + 1] * wx2
            + image[y0 + 1, x0 + 2] * wx3
        )
        d = (
            image[y0 + 2, x0 - 1] * wx0
            + image[y0 + 2, x0] * wx1
            + image[y0 + 2, x0 + 1] * wx2
            + image[y0 + 2, x0 + 2] * wx3
        )
        return a * wy0 + b * wy1 + c * wy2 + d * wy3
    total = 0.0
    for j in range(4):
        yy = min(max(y0 - 1 + j, 0), height - 1)
        wy = wy0 if j == 0 else wy1 if j == 1 else wy2 if j == 2 else wy3
        for i in range(4):
            xx = min(max(x0 - 1 + i, 0), width - 1)
            wx = wx0 if i == 0 else wx1 if i == 1 else wx2 if i == 2 else wx3
            total += wy * wx * image[yy, xx]
    return total


@njit(cache=True, nogil=True)
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


class _Buffers(NamedTuple):
    """Working memory of the alignment of a patch; made once for all patches of a call.

    Attributes:
        weight: (n,) Gaussian window over the n samples of a patch.
        patch: (side + 2, side + 2) of the source, with a border for derivatives.
        template, moved: (n,) zero-mean samples of source and target.
        J: (p, n) steepest descent images of the p parameters, without gain and offset.
        H, factor: (p, p) their products, and room to factorise them.
        delta: (p,) right side, then step.
    """

    weight: np.ndarray
    patch: np.ndarray
    template: np.ndarray
    moved: np.ndarray
    J: np.ndarray
    H: np.ndarray
    factor: np.ndarray
    delta: np.ndarray


@njit(cache=True, nogil=True, inline="always")
def _window(radius: int, weight: np.ndarray) -> float:
    """Fill a Gaussian window and return its sum."""
    side = 2 * radius + 1
    total = 0.0
    for v in range(side):
        for u in range(side):
            r2 = ((u - radius) ** 2 + (v - radius) ** 2) / (0.6 * radius + 0.6) ** 2
            weight[v * side + u] = np.exp(-0.5 * r2)
            total += weight[v * side + u]
    return total


@njit(cache=True, nogil=True, inline="always")
def _magnification(W: np.ndarray) -> float:
    """Compute how many target pixels a source pixel covers along a side."""
    w0 = W[2, 2]
    px, py = W[0, 2] / w0, W[1, 2] / w0
    a = (W[0, 0] - px * W[2, 0]) / w0
    b = (W[0, 1] - px * W[2, 1]) / w0
    c = (W[1, 0] - py * W[2, 0]) / w0
    d = (W[1, 1] - py * W[2, 1]) / w0
    return np.sqrt(abs(a * d - b * c))


@njit(cache=True, nogil=True, inline="always")
def _read_template(image: np.ndarray, x: float, y: float, step: float, room: _Buffers, total: float) -> float:
    """Sample the source's patch and its zero-mean template; return the template's weighted power."""
    inner = room.patch.shape[0] - 2
    radius = inner // 2
    for v in range(inner + 2):
        for u in range(inner + 2):
            room.patch[v, u] = sample(image, x + (u - radius - 1) * step, y + (v - radius - 1) * step)
    mean = 0.0
    for v in range(inner):
        for u in range(inner):
            k = v * inner + u
            room.template[k] = room.patch[v + 1, u + 1]
            mean += room.weight[k] * room.template[k]
    mean /= total
    power = 0.0
    for k in range(inner * inner):
        room.template[k] -= mean
        power += room.weight[k] * room.template[k] * room.template[k]
    return power


@njit(cache=True, nogil=True, inline="always")
def _prepare_steps(step: float, room: _Buffers, total: float, power: float) -> None:
    """Compute the steepest descent images with gain and offset projected out, and their products."""
    patch, weight, template, J, H = room.patch, room.weight, room.template, room.J, room.H
    parameters, size = J.shape
    side = patch.shape[0] - 2
    radius = side // 2
    for v in range(side):
        for u in range(side):
            k = v * side + u
            gx = 0.5 * (patch[v + 1, u + 2] - patch[v + 1, u]) / step
            gy = 0.5 * (patch[v + 2, u + 1] - patch[v, u + 1]) / step
            J[0, k] = gx
            J[1, k] = gy
            if parameters == 6:
                # Scaled by the radius so that all six parameters are of the size of a pixel.
                x, y = (u - radius) / radius, (v - radius) / radius
                J[2, k] = gx * x
                J[3, k] = gx * y
                J[4, k] = gy * x
                J[5, k] = gy * y
    for p in range(parameters):
        along, shift = 0.0, 0.0
        for k in range(size):
            shift += weight[k] * J[p, k]
            along += weight[k] * J[p, k] * template[k]
        shift /= total
        along /= power
        for k in range(size):
            J[p, k] -= shift + along * template[k]
    for p in range(parameters):
        for q in range(p + 1):
            s = 0.0
            for k in range(size):
                s += weight[k] * J[p, k] * J[q, k]
            H[p, q] = s
            H[q, p] = s
    for p in range(parameters):
        # A trace of damping keeps edges from sliding along themselves.
        H[p, p] *= 1.0 + 1e-4


@njit(cache=True, nogil=True, inline="always")
def _read_moved(image: np.ndarray, W: np.ndarray, step: float, room: _Buffers) -> tuple[bool, float]:
    """Sample the target through a warp: whether all of the patch lies in the photo, and the weighted sum."""
    side = room.patch.shape[0] - 2
    radius = side // 2
    height, width = image.shape
    total = 0.0
    for v in range(side):
        y = (v - radius) * step
        for u in range(side):
            x = (u - radius) * step
            w = W[2, 0] * x + W[2, 1] * y + W[2, 2]
            tx = (W[0, 0] * x + W[0, 1] * y + W[0, 2]) / w
            ty = (W[1, 0] * x + W[1, 1] * y + W[1, 2]) / w
            if not (tx >= 0.0 and ty >= 0.0 and tx <= width - 1.0 and ty <= height - 1.0):
                return False, 0.0
            k = v * side + u
            room.moved[k] = sample(image, tx, ty)
            total += room.weight[k] * room.moved[k]
    return True, total


@njit(cache=True, nogil=True, inline="always")
def _compose(W: np.ndarray, delta: np.ndarray, unit: float) -> bool:
    """Set W to W o step^-1 for a step of two or six parameters; False where the step is no sane map."""
    s00, s01, s10, s11 = 1.0, 0.0, 0.0, 1.0
    if len(delta) == 6:
        s00 += delta[2] / unit
        s01 += delta[3] / unit
        s10 += delta[4] / unit
        s11 += delta[5] / unit
    det = s00 * s11 - s01 * s10
    if not (det > 0.1 and det < 10.0):
        return False
    i00, i01 = s11 / det, -s01 / det
    i10, i11 = -s10 / det, s00 / det
    i02 = -(i00 * delta[0] + i01 * delta[1])
    i12 = -(i10 * delta[0] + i11 * delta[1])
    for r in range(3):
        w0, w1, w2 = W[r, 0], W[r, 1], W[r, 2]
        W[r, 0] = w0 * i00 + w1 * i10
        W[r, 1] = w0 * i01 + w1 * i11
        W[r, 2] = w0 * i02 + w1 * i12 + w2
    return True


@njit(cache=True, nogil=True, inline="always")
def _iterate(
    image: np.ndarray, W: np.ndarray, step: float, scale: float, power: float, total: float,
    iterations: int, room: _Buffers,
) -> float:  # fmt: skip
    """Align a prepared template by Gauss-Newton, W in place; the correlation, or -1 where it failed."""
    parameters, size = room.J.shape
    weight, template, moved, delta = room.weight, room.template, room.moved, room.delta
    unit = (room.patch.shape[0] - 3) // 2 * step
    correlation = -1.0
    for _ in range(iterations):
        inside, moved_mean = _read_moved(image, W, step, room)
        if not inside:
            return -1.0
        moved_mean /= total
        cross, moved_power = 0.0, 0.0
        for k in range(size):
            moved[k] -= moved_mean
            cross += weight[k] * moved[k] * template[k]
            moved_power += weight[k] * moved[k] * moved[k]
        if moved_power < 1e-3 * total or cross <= 0.0:
            return -1.0
        correlation = cross / np.sqrt(power * moved_power)
        gain = power / cross
        for p in range(parameters):
            s = 0.0
            for k in range(size):
                s += weight[k] * room.J[p, k] * (gain * moved[k] - template[k])
            delta[p] = s
        # Element by element: numba compiles the assignment of an array to a slice for seconds.
        for p in range(parameters):
            for q in range(parameters):
                room.factor[p, q] = room.H[p, q]
        if not _solve(room.factor, delta, parameters) or not _compose(W, delta, unit):
            return -1.0
        change = abs(delta[0]) + abs(delta[1])
        for p in range(2, parameters):
            change = max(change, abs(delta[p]))
        if change * max(scale, 1.0) < CONVERGED_PX:
            break
    return correlation


@njit(cache=True, nogil=True)
def align_patches(
    source: np.ndarray,
    target: np.ndarray,
    start: np.ndarray,
    warps: np.ndarray,
    radius: int,
    iterations: int,
    parameters: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Align patches round points of the source to the target, inverse compositional.

    Args:
        source, target: (levels, h, w) float32, of ``blur_levels``.
        start: (n, 2) float64 points of the source.
        warps: (n, 3, 3) float64 first guess: offset from the point (source pixels, homogeneous) to target
            pixel.
        parameters: 6 estimates an affine map on top of the guess, 2 a translation.

    Returns:
        Warps (n, 3, 3) float64, and the correlation of the aligned patches (n,) float32; -1 where the
        alignment failed or left the photo.
    """
    n = len(start)
    side = 2 * radius + 1
    size = side * side
    out = warps.copy()
    correlation = np.full(n, -1.0, np.float32)
    height, width = source.shape[1], source.shape[2]
    room = _Buffers(
        np.empty(size),
        np.empty((side + 2, side + 2)),
        np.empty(size),
        np.empty(size),
        np.empty((parameters, size)),
        np.empty((parameters, parameters)),
        np.empty((parameters, parameters)),
        np.empty(parameters),
    )
    total = _window(radius, room.weight)
    for i in range(n):
        W = out[i].copy()
        # How many target pixels a source pixel covers decides at which step patches are sampled.
        scale = _magnification(W)
        if not (scale > 0.05 and scale < 20.0):
            continue
        level_s, level_t = 0, 0
        if scale < 1.0:
            level_s = min(int(np.rint(np.log2(1.0 / scale))), source.shape[0] - 1)
        step = 2.0**level_s
        if scale * step > 1.0:
            level_t = min(int(np.rint(np.log2(scale * step))), target.shape[0] - 1)
        reach = (radius + 1) * step
        x, y = start[i, 0], start[i, 1]
        if x < reach or y < reach or x > width - 1 - reach or y > height - 1 - reach:
            continue
        power = _read_template(source[level_s], x, y, step, room, total)
        if power < 1e-3 * total:
            continue
        _prepare_steps(step, room, total, power)
        correlation[i] = _iterate(target[level_t], W, step, scale, power, total, iterations, room)
        if correlation[i] >= 0.0:
            for r in range(3):
                for c in range(3):
                    out[i, r, c] = W[r, c]
    return out, correlation


@njit(cache=True, nogil=True)
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
