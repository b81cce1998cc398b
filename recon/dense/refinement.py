"""Depth and normals of one view refined by multi-view photo-consistency.

Every pixel carries a plane. It is kept as inverse depth ``w`` and its slopes ``gx``, ``gy`` per pixel,
because the
inverse depth of a plane is affine in the image: ``1/z(q) = w + gx (qx - px) + gy (qy - py)``. Candidates come
    from the pixel itself (perturbations in shrinking ranges round the depth of the flow) and from pixels of
    the other colour of a checkerboard (Galliani et al., *Massively parallel multiview stereopsis by surface
    normal diffusion*, ICCV 2015; the eight adaptive sampling arms follow Xu & Tao, *Multi-Scale Geometric
    Consistency Guided Multi-View Stereo*, CVPR 2019, section 4.1). Holes close because planes of their rim
    are offered inwards and kept where the photos agree.

Where we differ from both: no random initialisation and no search over the whole depth range; the patch is
    warped by the affine approximation of the plane's homography at its centre (below 0.05 px for patches of a
    few pixels), which saves a division per sample; soft view weights come from the costs of the surrounding
    pixels instead of a vote.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float32, UInt8
from numba import njit

from recon.core.cameras import PinholeView
from recon.dense.types import DepthMap

_F32 = npt.NDArray[np.float32]

# Bilateral weights of the patch: 5 px as in Xu & Tao; 12 grey levels of 255 rather than their 3, which on noisy photos
# leaves too few samples of a patch to compare.
_SIGMA_SPACE = 5.0
_SIGMA_GREY = 12.0 / 255.0
# Variance (grey in 0…1) below which a patch says nothing: a third of a grey level of contrast.
_MIN_VARIANCE = (0.33 / 255.0) ** 2
# A view whose cost round the pixel is this high has little say (Gaussian of the mean cost).
_SIGMA_VIEW = 0.3
# Views below this share of the best view's weight are not evaluated.
_VIEW_CUT = 0.05
# Cost of a plane that nothing is known of: above every measured cost.
_UNKNOWN = np.float32(4.0)
# Geometric round trips are clipped here, in pixels, and weigh this much per pixel.
_GEOMETRIC_CLIP = 2.0
_GEOMETRIC_WEIGHT = 0.15
# Disagreement with the four neighbours, in pixels of disparity, is clipped at 1 and weighs this much.
_SMOOTH_WEIGHT = 0.05
# Steepest plane: cosine between normal and viewing ray.
_MIN_COSINE = 0.12


def _arms() -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Offsets (8, 11, 2) of the sampling arms, all of the other checkerboard colour, and how many each has."""
    near = [(0, -1), (-1, -2), (1, -2), (-2, -3), (2, -3), (-3, -4), (3, -4)]
    far = [(0, -3 - 2 * i) for i in range(11)]
    offsets = np.zeros((8, 11, 2), np.int32)
    counts = np.zeros(8, np.int32)
    for arm, base in enumerate((near, far)):
        for turn in range(4):
            index = arm * 4 + turn
            for i, (x, y) in enumerate(base):
                for _ in range(turn):
                    x, y = -y, x
                offsets[index, i] = x, y
            counts[index] = len(base)
    return offsets, counts


_ARM_OFFSETS, _ARM_COUNTS = _arms()


@njit(cache=True, nogil=True, inline="always")
def _hash01(seed, x, y, step):  # type: ignore[no-untyped-def]
    """A number in [0, 1) that depends on its arguments alone (murmur-style finaliser)."""
    h = np.uint32(np.uint32(seed) * np.uint32(0x9E3779B1))
    h = np.uint32(h ^ np.uint32(np.uint32(x) * np.uint32(0x85EBCA6B)))
    h = np.uint32((h << np.uint32(13)) | (h >> np.uint32(19)))
    h = np.uint32(h ^ np.uint32(np.uint32(y) * np.uint32(0xC2B2AE35)))
    h = np.uint32((h << np.uint32(17)) | (h >> np.uint32(15)))
    h = np.uint32(h ^ np.uint32(np.uint32(step) * np.uint32(0x27D4EB2F)))
    h = np.uint32((h ^ (h >> np.uint32(16))) * np.uint32(0x7FEB352D))
    h = np.uint32((h ^ (h >> np.uint32(15))) * np.uint32(0x846CA68B))
    h = np.uint32(h ^ (h >> np.uint32(16)))
    return np.float32(h >> np.uint32(8)) * np.float32(1.0 / 16777216.0)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _view_cost(flat, layout, P, k, x, y, w, gx, gy, samples, count, mean_ref, var_ref):  # type: ignore[no-untyped-def]
    """1 - NCC of the reference patch at (x, y) and its image in neighbour k through the plane; 1 at worst.

    ``P[k]`` holds M (3x3, row by row) and v of ``projection_of``; ``layout[k]`` where the photo begins in
    ``flat``, its height and width; ``samples`` has rows dx, dy, weight and reference value.
    """
    one = np.float32(1.0)
    zero = np.float32(0.0)
    x = np.float32(x)
    y = np.float32(y)
    v0, v1, v2 = P[k, 9], P[k, 10], P[k, 11]
    pz = P[k, 6] * x + P[k, 7] * y + P[k, 8] + v2 * w
    if pz < np.float32(1e-6):
        return one
    inv = one / pz
    u0 = (P[k, 0] * x + P[k, 1] * y + P[k, 2] + v0 * w) * inv
    t0 = (P[k, 3] * x + P[k, 4] * y + P[k, 5] + v1 * w) * inv
    width = layout[k, 2]
    right = np.float32(width) - np.float32(1.001)
    bottom = np.float32(layout[k, 1]) - np.float32(1.001)
    if not (u0 >= zero and t0 >= zero and u0 <= right and t0 <= bottom):
        return one
    zx = P[k, 6] + v2 * gx
    zy = P[k, 7] + v2 * gy
    ax = (P[k, 0] + v0 * gx - u0 * zx) * inv
    bx = (P[k, 1] + v0 * gy - u0 * zy) * inv
    ay = (P[k, 3] + v1 * gx - t0 * zx) * inv
    by = (P[k, 4] + v1 * gy - t0 * zy) * inv
    wide = np.int32(width)
    base = np.int32(layout[k, 0])
    stride = np.uint64(width)
    one_up = np.uint64(1)
    s = zero
    ss = zero
    sr = zero
    for i in range(count):
        su = min(max(u0 + ax * samples[0, i] + bx * samples[1, i], zero), right)
        sv = min(max(t0 + ay * samples[0, i] + by * samples[1, i], zero), bottom)
        iu = np.int32(su)
        iv = np.int32(sv)
        fu = su - np.float32(iu)
        fv = sv - np.float32(iv)
        # Unsigned, so that no index counts from the end.
        at = np.uint64(base + iv * wide + iu)
        under = at + stride
        top = flat[at] + fu * (flat[at + one_up] - flat[at])
        low = flat[under] + fu * (flat[under + one_up] - flat[under])
        value = top + fv * (low - top)
        wv = samples[2, i] * value
        s += wv
        ss += wv * value
        sr += wv * samples[3, i]
    var = ss - s * s
    if var < np.float32(_MIN_VARIANCE):
        return one
    ncc = (sr - s * mean_ref) / math.sqrt(var * var_ref)
    return np.float32(min(max(one - ncc, zero), one))


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _patch(grey, x, y, radius, step, samples):  # type: ignore[no-untyped-def]
    """Samples, offsets and normalised bilateral weights of the reference patch: (count, mean, variance)."""
    h, w = grey.shape
    centre = grey[y, x]
    count = 0
    total = np.float32(0.0)
    for oy in range(-radius, radius + 1, step):
        yy = y + oy
        if yy < 0 or yy >= h:
            continue
        for ox in range(-radius, radius + 1, step):
            xx = x + ox
            if xx < 0 or xx >= w:
                continue
            value = grey[yy, xx]
            wt = math.exp(
                -abs(value - centre) * np.float32(1.0 / _SIGMA_GREY)
                - np.float32(ox * ox + oy * oy) * np.float32(0.5 / _SIGMA_SPACE**2)
            )
            samples[0, count] = ox
            samples[1, count] = oy
            samples[2, count] = wt
            samples[3, count] = value
            total += wt
            count += 1
    mean = np.float32(0.0)
    square = np.float32(0.0)
    for i in range(count):
        samples[2, i] /= total
        mean += samples[2, i] * samples[3, i]
        square += samples[2, i] * samples[3, i] * samples[3, i]
    return count, mean, square - mean * mean


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy", inline="always")
def _round_trip(P, B, k, flat_depth, layout, x, y, w):  # type: ignore[no-untyped-def]
    """Pixels between (x, y) and its image after going to neighbour k and back by the neighbour's depth."""
    clip = np.float32(_GEOMETRIC_CLIP)
    x = np.float32(x)
    y = np.float32(y)
    pz = P[k, 6] * x + P[k, 7] * y + P[k, 8] + P[k, 11] * w
    if pz < np.float32(1e-6):
        return clip
    u = (P[k, 0] * x + P[k, 1] * y + P[k, 2] + P[k, 9] * w) / pz
    t = (P[k, 3] * x + P[k, 4] * y + P[k, 5] + P[k, 10] * w) / pz
    if not (u > np.float32(-0.5) and t > np.float32(-0.5)):
        return clip
    if u >= np.float32(layout[k, 2]) - np.float32(0.5) or t >= np.float32(layout[k, 1]) - np.float32(0.5):
        return clip
    iu = np.int32(u + np.float32(0.5))
    iv = np.int32(t + np.float32(0.5))
    inverse = flat_depth[np.uint64(layout[k, 0] + iv * layout[k, 2] + iu)]
    if inverse <= np.float32(0.0):
        return clip
    bz = B[k, 6] * u + B[k, 7] * t + B[k, 8] + B[k, 11] * inverse
    if bz < np.float32(1e-6):
        return clip
    ex = (B[k, 0] * u + B[k, 1] * t + B[k, 2] + B[k, 9] * inverse) / bz - x
    ey = (B[k, 3] * u + B[k, 4] * t + B[k, 5] + B[k, 10] * inverse) / bz - y
    return min(np.float32(math.sqrt(ex * ex + ey * ey)), clip)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _sweep(  # type: ignore[no-untyped-def]
    grey, mask, flat, layout, P, K, w, gx, gy, cost, view_cost, flat_depth, B, geometric, arms, arm_counts,
    radius, step, range_w, range_g, min_w, max_w, same_px, colour, seed, iteration, propagate, row0, row1,
):  # fmt: skip
    """One half sweep over the pixels of one colour in rows row0…row1: in place on w, gx, gy, cost, view_cost."""
    h, width = grey.shape
    views = P.shape[0]
    capacity = ((2 * radius) // step + 1) ** 2
    samples = np.empty((4, capacity), np.float32)
    share = np.empty(views, np.float32)
    now = np.empty(views, np.float32)
    best = np.empty(views, np.float32)
    cand = np.empty((16, 3), np.float32)
    cx_y = np.empty((8, 2), np.int32)
    zero = np.float32(0.0)
    one = np.float32(1.0)
    unknown = np.float32(_UNKNOWN)
    for y in range(row0, row1):
        for x in range((y + colour) & 1, width, 2):
            if not mask[y, x]:
                continue
            # The best pixel of each arm.
            found = 0
            if propagate:
                for arm in range(8):
                    low = unknown
                    bx = -1
                    by = -1
                    for i in range(arm_counts[arm]):
                        xx = x + arms[arm, i, 0]
                        yy = y + arms[arm, i, 1]
                        if xx < 0 or yy < 0 or xx >= width or yy >= h:
                            continue
                        if cost[yy, xx] < low:
                            low = cost[yy, xx]
                            bx = xx
                            by = yy
                    if bx >= 0:
                        cx_y[found, 0] = bx
                        cx_y[found, 1] = by
                        found += 1
            known = w[y, x] > zero
            if found == 0 and not known:
                continue
            count, mean_ref, var_ref = _patch(grey, x, y, radius, step, samples)
            flat_patch = var_ref < np.float32(_MIN_VARIANCE)
            # View weights from the costs of the surroundings.
            top = zero
            for k in range(views):
                total = zero
                n = 0
                if known and cost[y, x] < unknown:
                    total += view_cost[y, x, k]
                    n += 1
                for j in range(found):
                    total += view_cost[cx_y[j, 1], cx_y[j, 0], k]
                    n += 1
                mean_cost = total / n if n > 0 else one
                share[k] = math.exp(-mean_cost * mean_cost * np.float32(0.5 / _SIGMA_VIEW**2)) + np.float32(
                    1e-4
                )
                top = max(top, share[k])
            share_sum = zero
            for k in range(views):
                if share[k] < top * np.float32(_VIEW_CUT):
                    share[k] = zero
                share_sum += share[k]
            # Disparity (px) per unit of inverse depth, in the view that feels it most.
            w_here = w[y, x] if known else w[cx_y[0, 1], cx_y[0, 0]]
            rate = np.float32(1e-12)
            for k in range(views):
                pz = P[k, 6] * x + P[k, 7] * y + P[k, 8] + P[k, 11] * w_here
                if pz > np.float32(1e-6):
                    pu = (P[k, 0] * x + P[k, 1] * y + P[k, 2] + P[k, 9] * w_here) / pz
                    pv = (P[k, 3] * x + P[k, 4] * y + P[k, 5] + P[k, 10] * w_here) / pz
                    ru = (P[k, 9] - pu * P[k, 11]) / pz
                    rv = (P[k, 10] - pv * P[k, 11]) / pz
                    rate = max(rate, np.float32(math.sqrt(ru * ru + rv * rv)))
            # Candidates: own plane, the planes of the arms, then perturbations of the best so far.
            total_candidates = 0
            if known:
                cand[0, 0] = w[y, x]
                cand[0, 1] = gx[y, x]
                cand[0, 2] = gy[y, x]
                total_candidates = 1
            for j in range(found):
                ox = cx_y[j, 0]
                oy = cx_y[j, 1]
                cand[total_candidates, 1] = gx[oy, ox]
                cand[total_candidates, 2] = gy[oy, ox]
                cand[total_candidates, 0] = w[oy, ox] + gx[oy, ox] * (x - ox) + gy[oy, ox] * (y - oy)
                total_candidates += 1
            first_perturbed = total_candidates
            total_candidates += 4
            best_cost = np.float32(1e9)
            best_w = zero
            best_gx = zero
            best_gy = zero
            for j in range(total_candidates):
                if j < first_perturbed:
                    cw = cand[j, 0]
                    cgx = cand[j, 1]
                    cgy = cand[j, 2]
                else:
                    if best_cost > np.float32(1e8):
                        break
                    trial = j - first_perturbed
                    base = iteration * 16 + trial * 3
                    cw = best_w
                    cgx = best_gx
                    cgy = best_gy
                    if trial == 0 or trial == 2:
                        cw += (_hash01(seed, x, y, base) * 2 - one) * range_w / rate
                    if trial == 1 or trial == 2:
                        cgx += (_hash01(seed, x, y, base + 1) * 2 - one) * range_g / rate
                        cgy += (_hash01(seed, x, y, base + 2) * 2 - one) * range_g / rate
                    if trial == 3:
                        # The slopes that the surroundings have.
                        if x < 3 or y < 3 or x + 3 >= width or y + 3 >= h:
                            continue
                        if (
                            w[y, x - 3] <= zero
                            or w[y, x + 3] <= zero
                            or w[y - 3, x] <= zero
                            or w[y + 3, x] <= zero
                        ):
                            continue
                        cgx = (w[y, x + 3] - w[y, x - 3]) / np.float32(6.0)
                        cgy = (w[y + 3, x] - w[y - 3, x]) / np.float32(6.0)
                if not (cw > min_w and cw < max_w):
                    continue
                if 0 < j < first_perturbed and best_cost < np.float32(1e8):
                    # As good as the same plane: not worth its samples.
                    apart = abs(cw - best_w) + (abs(cgx - best_gx) + abs(cgy - best_gy)) * radius
                    if apart * rate < same_px:
                        continue
                # Plane vector m with m . X = 1; its angle to the ray must not be grazing.
                c0 = cw - cgx * x - cgy * y
                m0 = K[0, 0] * cgx + K[1, 0] * cgy + K[2, 0] * c0
                m1 = K[0, 1] * cgx + K[1, 1] * cgy + K[2, 1] * c0
                m2 = K[0, 2] * cgx + K[1, 2] * cgy + K[2, 2] * c0
                if cw < np.float32(_MIN_COSINE) * math.sqrt(m0 * m0 + m1 * m1 + m2 * m2):
                    continue
                aggregate = zero
                if flat_patch:
                    aggregate = one
                    for k in range(views):
                        now[k] = one
                else:
                    for k in range(views):
                        if share[k] > zero:
                            now[k] = _view_cost(
                                flat, layout, P, k, x, y, cw, cgx, cgy, samples, count, mean_ref, var_ref
                            )
                            aggregate += share[k] * now[k]
                            if aggregate > best_cost * share_sum:
                                break
                        else:
                            now[k] = -one
                    aggregate /= share_sum
                    if aggregate >= best_cost:
                        continue
                if geometric:
                    trip = zero
                    for k in range(views):
                        if share[k] > zero:
                            trip += share[k] * _round_trip(P, B, k, flat_depth, layout, x, y, cw)
                    aggregate += np.float32(_GEOMETRIC_WEIGHT) * trip / share_sum
                rough = zero
                n = 0
                for side in range(4):
                    xx = x + (1 if side == 0 else -1 if side == 1 else 0)
                    yy = y + (1 if side == 2 else -1 if side == 3 else 0)
                    if xx < 0 or yy < 0 or xx >= width or yy >= h or w[yy, xx] <= zero:
                        continue
                    rough += min(abs(cw + cgx * (xx - x) + cgy * (yy - y) - w[yy, xx]) * rate, one)
                    n += 1
                if n > 0:
                    aggregate += np.float32(_SMOOTH_WEIGHT) * rough / n
                if aggregate < best_cost:
                    best_cost = aggregate
                    best_w = cw
                    best_gx = cgx
                    best_gy = cgy
                    for k in range(views):
                        best[k] = now[k]
            if best_cost > np.float32(1e8):
                continue
            for k in range(views):
                if best[k] < zero:
                    best[k] = _view_cost(
                        flat, layout, P, k, x, y, best_w, best_gx, best_gy, samples, count, mean_ref, var_ref
                    )
                view_cost[y, x, k] = best[k]
            w[y, x] = best_w
            gx[y, x] = best_gx
            gy[y, x] = best_gy
            cost[y, x] = best_cost


@dataclass(frozen=True)
class _Sources:
    """Neighbours of one level, packed for the kernels."""

    flat: _F32
    layout: npt.NDArray[np.int32]
    P: _F32
    B: _F32
    flat_depth: _F32


def projection_of(
    source: PinholeView, reference: PinholeView
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """``M`` (3x3) and ``v`` (3): pixel (x, y) of the reference at depth z is ``M [x, y, 1] + v / z`` in the source."""
    R_r, t_r = reference.cam_from_world[:, :3], reference.cam_from_world[:, 3]
    R_s, t_s = source.cam_from_world[:, :3], source.cam_from_world[:, 3]
    R = R_s @ R_r.T
    return source.K @ R @ np.linalg.inv(reference.K), source.K @ (t_s - R @ t_r)


def _as_float(grey: npt.NDArray[np.generic]) -> _F32:
    """Grey in 0…1, float32, contiguous."""
    if grey.dtype == np.uint8:
        return np.ascontiguousarray(grey.astype(np.float32) / np.float32(255.0))
    return np.ascontiguousarray(grey, np.float32)


def _pack(
    reference: PinholeView,
    neighbours: Sequence[tuple[PinholeView, _F32]],
    depths: Sequence[_F32] | None,
) -> _Sources:
    sizes = [grey.shape for _, grey in neighbours]
    areas = [h * w for h, w in sizes]
    # One spare row at the end: bilinear reads of the last pixel touch it with weight zero.
    flat = np.zeros(sum(areas) + max(w for _, w in sizes) + 2, np.float32)
    flat_depth = np.zeros(len(flat) if depths is not None else 1, np.float32)
    offsets = np.concatenate([[0], np.cumsum(areas)[:-1]]).astype(np.int64)
    P, B = [], []
    for i, (view, grey) in enumerate(neighbours):
        flat[offsets[i] : offsets[i] + areas[i]] = grey.ravel()
        if depths is not None:
            depth = depths[i]
            inverse = np.where(depth > 0, 1.0 / np.maximum(depth, 1e-12), 0.0)
            flat_depth[offsets[i] : offsets[i] + areas[i]] = inverse.ravel()
        forth, back = projection_of(view, reference), projection_of(reference, view)
        P.append(np.concatenate([forth[0].ravel(), forth[1]]))
        B.append(np.concatenate([back[0].ravel(), back[1]]))
    layout = np.column_stack([offsets, np.array(sizes, np.int64).reshape(-1, 2)]).astype(np.int32)
    return _Sources(flat, layout, np.array(P, np.float32), np.array(B, np.float32), flat_depth)


def planes_from_depth(
    view: PinholeView, depth: Float32[np.ndarray, "h w"], normal: Float32[np.ndarray, "h w 3"] | None = None
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """Inverse depth and its slopes per pixel in x and y, from normals where they are given, else by differences.

    Returns:
        ``w``, ``gx``, ``gy``; zero where the depth is unknown.
    """
    h, w = depth.shape
    known = depth > 0
    inverse = np.where(known, 1.0 / np.maximum(depth, 1e-12), 0.0).astype(np.float32)
    if normal is not None:
        # m = n / (n . X) with n . X < 0; slopes are the first two entries of K^-T m.
        xs, ys = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
        K_inv = np.linalg.inv(view.K)
        rays = np.stack(
            [xs * K_inv[0, 0] + ys * K_inv[0, 1] + K_inv[0, 2], ys * K_inv[1, 1] + K_inv[1, 2]], -1
        )
        along = normal[..., 0] * rays[..., 0] + normal[..., 1] * rays[..., 1] + normal[..., 2]
        good = known & (along < -1e-4)
        scale = np.where(good, inverse / np.where(good, along, -1.0), 0.0)
        gx = normal[..., 0] * K_inv[0, 0] * scale
        gy = (normal[..., 0] * K_inv[0, 1] + normal[..., 1] * K_inv[1, 1]) * scale
        return inverse, gx.astype(np.float32), gy.astype(np.float32)
    gx, gy = _fit_slopes(inverse, 3)
    return inverse, gx, gy


@njit(cache=True, nogil=True)
def _fit_slopes(inverse, radius):  # type: ignore[no-untyped-def]
    """Least-squares slopes of the inverse depth over the window, without pixels beyond a depth step."""
    h, w = inverse.shape
    gx = np.zeros((h, w), np.float32)
    gy = np.zeros((h, w), np.float32)
    for y in range(h):
        for x in range(w):
            centre = inverse[y, x]
            if centre <= 0:
                continue
            n = 0.0
            sx = sy = sw = sxx = syy = sxy = sxw = syw = 0.0
            for oy in range(-radius, radius + 1):
                yy = y + oy
                if yy < 0 or yy >= h:
                    continue
                for ox in range(-radius, radius + 1):
                    xx = x + ox
                    if xx < 0 or xx >= w:
                        continue
                    value = inverse[yy, xx]
                    # 2% per pixel of the window: steeper is another surface.
                    if value <= 0 or abs(value - centre) > 0.02 * centre * (1 + max(abs(ox), abs(oy))):
                        continue
                    dw = value - centre
                    n += 1
                    sx += ox
                    sy += oy
                    sw += dw
                    sxx += ox * ox
                    syy += oy * oy
                    sxy += ox * oy
                    sxw += ox * dw
                    syw += oy * dw
            if n < 6:
                continue
            axx = sxx - sx * sx / n
            ayy = syy - sy * sy / n
            axy = sxy - sx * sy / n
            bx = sxw - sx * sw / n
            by = syw - sy * sw / n
            det = axx * ayy - axy * axy
            if det > 1e-6 * (axx + ayy) ** 2 + 1e-9:
                gx[y, x] = (ayy * bx - axy * by) / det
                gy[y, x] = (axx * by - axy * bx) / det
    return gx, gy


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


def _shrink(image: _F32) -> _F32:
    h, w = image.shape
    return np.ascontiguousarray(cv2.resize(image, ((w + 1) // 2, (h + 1) // 2), interpolation=cv2.INTER_AREA))


def _resize_planes(w: _F32, gx: _F32, gy: _F32, shape: tuple[int, int]) -> tuple[_F32, _F32, _F32]:
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


def _shrink_known(
    w: _F32, gx: _F32, gy: _F32, confidence: _F32, shape: tuple[int, int]
) -> tuple[_F32, _F32, _F32]:
    """Planes at half the size: of each 2x2 block the plane with the highest confidence."""
    h1, w1 = shape
    h0, w0 = w.shape
    pad = ((0, 2 * h1 - h0), (0, 2 * w1 - w0))

    def blocks(a: _F32) -> _F32:
        return np.pad(a, pad).reshape(h1, 2, w1, 2).transpose(0, 2, 1, 3).reshape(h1, w1, 4)

    known = blocks(np.where(w > 0, confidence + 1e-6, -1.0).astype(np.float32))
    pick = known.argmax(-1)[..., None]
    step = np.array([[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]], np.float32)[pick[..., 0]]
    w2, gx2, gy2 = (np.take_along_axis(blocks(a), pick, -1)[..., 0] for a in (w, gx, gy))
    good = np.take_along_axis(known, pick, -1)[..., 0] > 0
    centre = w2 - gx2 * step[..., 0] - gy2 * step[..., 1]
    w2 = np.where(good, np.where(centre > 0, centre, w2), 0)
    return (
        np.ascontiguousarray(w2, np.float32),
        np.ascontiguousarray(np.where(good, gx2 * 2, 0), np.float32),
        np.ascontiguousarray(np.where(good, gy2 * 2, 0), np.float32),
    )


@dataclass(frozen=True)
class _Level:
    view: PinholeView
    grey: _F32
    mask: npt.NDArray[np.bool_]
    neighbours: tuple[tuple[PinholeView, _F32], ...]
    depths: tuple[_F32, ...] | None


def _run_level(
    level: _Level,
    planes: tuple[_F32, _F32, _F32],
    extra: tuple[_F32, _F32, _F32] | None,
    *,
    iterations: int,
    range_px: float,
    radius: int,
    step: int,
    far: bool,
    limits: tuple[float, float],
    threads: int,
    seed: int,
) -> tuple[_F32, _F32, _F32, _F32, _F32]:
    """All sweeps at one size: refined planes, cost (photometric mean included) and per-view costs."""
    sources = _pack(level.view, level.neighbours, level.depths)
    h, width = level.grey.shape
    views = len(level.neighbours)
    K = level.view.K.astype(np.float32)
    # Planes travel far on the small sizes; at full size those next door are enough.
    arm_counts = _ARM_COUNTS if far else np.where(np.arange(8) < 4, _ARM_COUNTS, 0).astype(np.int32)
    bands = max(1, threads)
    rows = np.linspace(0, h, bands + 1).astype(int)

    def half(
        state: tuple[_F32, ...], colour: int, number: int, range_w: float, range_g: float, spread: bool
    ) -> None:
        w, gx, gy, cost, view_cost = state

        def band(i: int) -> None:
            _sweep(
                level.grey, level.mask, sources.flat, sources.layout, sources.P, K, w, gx, gy, cost, view_cost,
                sources.flat_depth, sources.B, level.depths is not None, _ARM_OFFSETS, arm_counts, radius, step,
                np.float32(range_w), np.float32(range_g), np.float32(limits[0]), np.float32(limits[1]),
                np.float32(0.2 * range_w), colour, seed, number, spread, int(rows[i]), int(rows[i + 1]),
            )  # fmt: skip

        if pool is None:
            band(0)
        else:
            list(pool.map(band, range(bands)))

    def fresh(start: tuple[_F32, _F32, _F32]) -> tuple[_F32, ...]:
        return (
            *(np.array(a, np.float32, order="C") for a in start),
            np.full((h, width), _UNKNOWN, np.float32),
            np.ones((h, width, views), np.float32),
        )

    pool = ThreadPoolExecutor(bands) if bands > 1 else None
    try:
        state = fresh(planes)
        for colour in (0, 1):
            half(state, colour, 0, 0.0, 0.0, False)
        if extra is not None:
            other = fresh(extra)
            for colour in (0, 1):
                half(other, colour, 0, 0.0, 0.0, False)
            better = other[3] < state[3] - 0.02
            for mine, theirs in zip(state, other, strict=True):
                mine[better] = theirs[better]
        for i in range(iterations):
            reach = range_px * 0.5**i
            for colour in (0, 1):
                half(state, colour, i + 1, reach, reach / max(radius, 1), True)
    finally:
        if pool is not None:
            pool.shutdown()
    return state  # type: ignore[return-value]


def refine_depth(
    reference: PinholeView,
    grey: Float32[np.ndarray, "h w"] | UInt8[np.ndarray, "h w"],
    neighbours: Sequence[tuple[PinholeView, Float32[np.ndarray, "_ _"] | UInt8[np.ndarray, "_ _"]]],
    initial: DepthMap,
    *,
    mask: Bool[np.ndarray, "h w"] | None = None,
    neighbour_depths: Sequence[DepthMap] | None = None,
    iterations: int = 3,
    patch: int = 11,
    levels: int = 3,
    threads: int = 1,
    seed: int = 0,
) -> DepthMap:
    """Depth and normals of a view, refined round an initial depth by photo-consistency with its neighbours.

    Args:
        reference: the view.
        grey: its photo, 0…1 float32 (or uint8), of the view's size.
        neighbours: posed photos of the same scene (undistorted), best first; sizes may differ.
        initial: depth to start at, of any size (it is brought to the view's size); 0 where unknown.
        mask: True where depth is wanted.
        neighbour_depths: depth maps of the neighbours (any size): adds the geometric consistency term, the
            round trip of a pixel through a neighbour's depth, as in Xu & Tao 2019, equation 9.
        iterations: sweeps at full size; smaller sizes get one more each.
        patch: side of the patch in pixels (odd); every second pixel is sampled.
        levels: number of sizes, each half the one above; 1 refines at full size alone.
        threads: bands of rows worked on at once. The result does not depend on it.
        seed: of the perturbations.

    Returns:
        Depth, normals, and as confidence 1 minus the mean cost of the views that see the pixel. Pixels that
        no plane reached stay 0.

    Raises:
        ValueError: for a photo or mask of another size than its view, or without neighbours.
    """
    if not neighbours:
        raise ValueError("refine_depth needs at least one neighbour")
    shape = (reference.height, reference.width)
    if grey.shape != shape or (mask is not None and mask.shape != shape):
        raise ValueError(f"photo or mask of {reference.name} is not {reference.width}x{reference.height}")
    for view, image in neighbours:
        if image.shape != (view.height, view.width):
            raise ValueError(f"photo of {view.name} is not {view.width}x{view.height}")
    if neighbour_depths is not None and len(neighbour_depths) != len(neighbours):
        raise ValueError("neighbour_depths must have one depth map for each neighbour")
    known = initial.depth > 0
    if not known.any():
        empty = np.zeros(shape, np.float32)
        return DepthMap(empty, np.zeros((*shape, 3), np.float32), empty.copy())

    pyramid = [
        _Level(
            reference,
            _as_float(grey),
            np.ones(shape, np.bool_) if mask is None else np.ascontiguousarray(mask),
            tuple((view, _as_float(image)) for view, image in neighbours),
            None if neighbour_depths is None else tuple(
                _depth_at(d.depth, (view.height, view.width))
                for d, (view, _) in zip(neighbour_depths, neighbours, strict=True)
            ),
        )
    ]  # fmt: skip
    while len(pyramid) < levels and min(pyramid[-1].grey.shape) >= 48:
        above = pyramid[-1]
        small = _shrink(above.grey)
        h1, w1 = small.shape
        pyramid.append(
            _Level(
                above.view.resized(w1, h1),
                small,
                cv2.resize(above.mask.astype(np.uint8), (w1, h1), interpolation=cv2.INTER_NEAREST).astype(bool),
                tuple((v.resized((v.width + 1) // 2, (v.height + 1) // 2), _shrink(g)) for v, g in above.neighbours),
                None if above.depths is None else tuple(
                    _depth_at(d, ((d.shape[0] + 1) // 2, (d.shape[1] + 1) // 2)) for d in above.depths
                ),
            )
        )  # fmt: skip

    start_view = reference.resized(initial.depth.shape[1], initial.depth.shape[0])
    has_normals = bool(np.any(initial.normal))
    planes = planes_from_depth(start_view, initial.depth, initial.normal if has_normals else None)
    depths = initial.depth[known]
    near, far = np.percentile(depths, [0.5, 99.5])
    # Planes may spread beyond what the flow saw, by a factor of two in depth.
    limits = (0.5 / float(far), 2.0 / float(near))

    starts = [_resize_planes(*planes, shape)]
    trust = cv2.resize(initial.confidence, (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST)
    for level in pyramid[1:]:
        small_shape = level.grey.shape
        starts.append(_shrink_known(*starts[-1], trust, (small_shape[0], small_shape[1])))
        trust = cv2.resize(trust, (small_shape[1], small_shape[0]), interpolation=cv2.INTER_AREA)

    radius, step = max(1, patch // 2), 2 if patch >= 7 else 1
    state: tuple[_F32, ...] | None = None
    for number in range(len(pyramid) - 1, -1, -1):
        level = pyramid[number]
        size = (level.grey.shape[0], level.grey.shape[1])
        begin = starts[number] if state is None else _resize_planes(state[0], state[1], state[2], size)
        state = _run_level(
            level,
            begin,
            None if state is None else starts[number],
            iterations=iterations + number,
            range_px=1.0 if number == 0 and len(pyramid) > 1 else 2.0,
            radius=radius,
            step=step,
            far=number > 0 or len(pyramid) == 1,
            limits=limits,
            threads=threads,
            seed=seed * 7919 + number,
        )
    assert state is not None
    w, gx, gy, cost, view_cost = state
    good = (w > 0) & pyramid[0].mask & (cost < _UNKNOWN)
    depth = np.where(good, 1.0 / np.maximum(w, 1e-20), 0.0).astype(np.float32)
    normal = normals_from_planes(reference, np.where(good, w, 0).astype(np.float32), gx, gy)
    return DepthMap(depth, normal, np.where(good, _confidence(view_cost), 0.0).astype(np.float32))


def _confidence(view_cost: _F32) -> _F32:
    """1 minus the mean cost of the two best views (of the only one, if there is one)."""
    k = min(2, view_cost.shape[2])
    best = np.partition(view_cost, k - 1, axis=2)[:, :, :k].mean(axis=2)
    return np.clip(1.0 - best, 0.0, 1.0).astype(np.float32)


def _depth_at(depth: _F32, shape: tuple[int, int]) -> _F32:
    """A depth map at another size: nearest pixel, no blending over edges."""
    if depth.shape == shape:
        return np.ascontiguousarray(depth, np.float32)
    return np.ascontiguousarray(
        cv2.resize(depth.astype(np.float32), (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST)
    )
