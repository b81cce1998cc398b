"""Kernels of patch alignment: inverse-compositional Gauss-Newton, and positions that fit measured displacements.

Sources: S. Baker, I. Matthews, "Lucas-Kanade 20 Years On", IJCV 2004, section 3.2; A. Bartoli, "Groupwise Geometric and
Photometric Direct Image Registration", PAMI 2008.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64

from recon.core.kernels import kernel, maximum, part_of_kernel

# Gauss-Newton stops when a step moves the patch by less than this.
CONVERGED_PX = 0.003

# Sums may be added up in any order, so that they vectorise; what is no number stays recognisable.
_IN_ANY_ORDER = {"reassoc", "contract", "arcp", "nsz"}


@part_of_kernel()
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
    inside = x0 >= 1 and y0 >= 1 and x0 + 2 < width and y0 + 2 < height
    total = 0.0
    for j in range(4):
        wy = wy0 if j == 0 else wy1 if j == 1 else wy2 if j == 2 else wy3
        if inside:
            row = image[y0 - 1 + j]
            total += (row[x0 - 1] * wx0 + row[x0] * wx1 + row[x0 + 1] * wx2 + row[x0 + 2] * wx3) * wy
            continue
        yy = min(max(y0 - 1 + j, 0), height - 1)
        for i in range(4):
            xx = min(max(x0 - 1 + i, 0), width - 1)
            wx = wx0 if i == 0 else wx1 if i == 1 else wx2 if i == 2 else wx3
            total += wy * wx * image[yy, xx]
    return total


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
        source, target: of ``blur_levels``.
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
    usable &= ((start >= reach) & (start <= np.array(source.shape[:0:-1]) - 1 - reach)).all(axis=1)
    place = np.stack(np.meshgrid(*[np.arange(-radius, radius + 1.0)] * 2)).reshape(2, -1)
    weight = np.exp(-0.5 * (np.square(place).sum(axis=0) / (0.6 * radius + 0.6) ** 2))
    found = warps.copy()
    correlation = np.full(len(start), -1.0, np.float32)
    _align(
        source, target, start, np.flatnonzero(usable), levels, np.stack([step, scale], axis=1), iterations, place,
        weight, np.empty((2 * radius + 3, 2 * radius + 3)), np.empty((parameters + 2, len(weight))),
        np.empty((2, parameters, parameters)), np.empty(parameters), found, correlation,
    )  # fmt: skip
    failed = ~(correlation >= 0)  # NaN where the patch reached over pixels that are none
    found[failed], correlation[failed] = warps[failed], -1.0
    return found, correlation


# Few functions, and arrays made outside: each function called and each kind of array made is compiled besides.
@kernel(error_model="numpy", fastmath=_IN_ANY_ORDER)
def _align(  # type: ignore[no-untyped-def]
    source, target, start, usable, levels, scales, iterations, place, weight, patch, room, normal, delta,
    warps, correlation,
):  # fmt: skip
    """Gauss-Newton for ``align_patches``, of the ``usable`` points; changes ``warps`` and ``correlation``.

    ``scales`` holds the step of samples and the pixels of the target that one of the source covers, ``place`` offsets
    (x, y) of a patch's pixels. ``patch`` is room for samples of the source with a border for
    derivatives; ``room`` for the steepest descent images without gain and offset (one row per parameter), the zero-mean
    template and the zero-mean samples of the target; ``normal`` for the images' products and their factors.
    """
    parameters = len(delta)
    template, moved = room[parameters], room[parameters + 1]
    H, factor = normal[0], normal[1]
    size = len(weight)
    side = patch.shape[0] - 2
    radius = side // 2
    height, width = target.shape[1], target.shape[2]
    total = 0.0
    for k in range(size):
        total += weight[k]
    for i in usable:
        step = scales[i, 0]
        image = source[levels[i, 0]]
        for v in range(side + 2):
            for u in range(side + 2):
                patch[v, u] = sample(
                    image, start[i, 0] + (u - radius - 1) * step, start[i, 1] + (v - radius - 1) * step
                )
        mean = 0.0
        for k in range(size):
            template[k] = patch[k // side + 1, k % side + 1]
            mean += weight[k] * template[k]
        mean /= total
        power = 0.0
        for k in range(size):
            template[k] -= mean
            power += weight[k] * template[k] * template[k]
        if power < 1e-3 * total:
            continue
        for k in range(size):
            v, u = k // side, k % side
            gx = 0.5 * (patch[v + 1, u + 2] - patch[v + 1, u]) / step
            gy = 0.5 * (patch[v + 2, u + 1] - patch[v, u + 1]) / step
            room[0, k] = gx
            room[1, k] = gy
            if parameters == 6:
                # Scaled by the radius so that all six parameters are of the size of a pixel.
                x, y = place[0, k] / radius, place[1, k] / radius
                room[2, k] = gx * x
                room[3, k] = gx * y
                room[4, k] = gy * x
                room[5, k] = gy * y
        for p in range(parameters):
            image_p = room[p]
            along, shift = 0.0, 0.0
            for k in range(size):
                shift += weight[k] * image_p[k]
                along += weight[k] * image_p[k] * template[k]
            shift /= total
            along /= power
            for k in range(size):
                image_p[k] -= shift + along * template[k]
            for q in range(p + 1):
                image_q = room[q]
                s = 0.0
                for k in range(size):
                    s += weight[k] * image_p[k] * image_q[k]
                # A trace of damping keeps edges from sliding along themselves.
                H[p, q] = s * (1.0 + 1e-4) if p == q else s
        W = warps[i]
        image = target[levels[i, 1]]
        found = -1.0
        for _ in range(iterations):
            inside = True
            mean = 0.0
            for k in range(size):
                x, y = place[0, k] * step, place[1, k] * step
                w = W[2, 0] * x + W[2, 1] * y + W[2, 2]
                tx = (W[0, 0] * x + W[0, 1] * y + W[0, 2]) / w
                ty = (W[1, 0] * x + W[1, 1] * y + W[1, 2]) / w
                inside = tx >= 0.0 and ty >= 0.0 and tx <= width - 1.0 and ty <= height - 1.0
                if not inside:
                    break
                moved[k] = sample(image, tx, ty)
                mean += weight[k] * moved[k]
            mean /= total
            cross, moved_power = 0.0, 0.0
            for k in range(size):
                moved[k] -= mean
                cross += weight[k] * moved[k] * template[k]
                moved_power += weight[k] * moved[k] * moved[k]
            if not inside or moved_power < 1e-3 * total or cross <= 0.0:
                found = -1.0
                break
            found = cross / np.sqrt(power * moved_power)
            gain = power / cross
            for p in range(parameters):
                s = 0.0
                for k in range(size):
                    s += weight[k] * room[p, k] * (gain * moved[k] - template[k])
                delta[p] = s
                for q in range(p + 1):
                    factor[p, q] = H[p, q]
            if not (_solve(factor, delta, parameters) and _compose(W, delta, radius * step)):
                found = -1.0
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
