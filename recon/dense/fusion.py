"""Depth maps of several views fused into one cloud."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, UInt8
from numba import njit

from recon.core.cameras import PinholeView
from recon.core.mesh import PointCloud
from recon.core.parallel import map_ordered
from recon.dense.types import DepthMap

# A view owns a patch when its pixels there are finer than another's by this factor; within it the first view
# owns it.
_FOOTPRINT_STEP = 1.25


@njit(cache=True, nogil=True)
def _fuse_view(  # type: ignore[no-untyped-def]
    index, depth, normal, confidence, rgb, offsets, heights, widths, K, R, t, others,
    max_px, max_relative, min_cosine, min_views, log_step, xyz, out_normal, colour, count, conf,
):  # fmt: skip
    """Points of one view that no other view owns; returns how many. Depths of all views lie in one flat array."""
    h, w = heights[index], widths[index]
    base = offsets[index]
    fx, fy, cx, cy, skew = K[index, 0, 0], K[index, 1, 1], K[index, 0, 2], K[index, 1, 2], K[index, 0, 1]
    made = 0
    for y in range(h):
        for x in range(w):
            at = base + y * w + x
            z = depth[at]
            if z <= 0:
                continue
            yy = (y - cy) / fy
            xx = (x - cx - skew * yy) / fx
            c0, c1, c2 = xx * z - t[index, 0], yy * z - t[index, 1], z - t[index, 2]
            X = R[index, 0, 0] * c0 + R[index, 1, 0] * c1 + R[index, 2, 0] * c2
            Y = R[index, 0, 1] * c0 + R[index, 1, 1] * c1 + R[index, 2, 1] * c2
            Z = R[index, 0, 2] * c0 + R[index, 1, 2] * c1 + R[index, 2, 2] * c2
            n0, n1, n2 = normal[at, 0], normal[at, 1], normal[at, 2]
            N0 = R[index, 0, 0] * n0 + R[index, 1, 0] * n1 + R[index, 2, 0] * n2
            N1 = R[index, 0, 1] * n0 + R[index, 1, 1] * n1 + R[index, 2, 1] * n2
            N2 = R[index, 0, 2] * n0 + R[index, 1, 2] * n1 + R[index, 2, 2] * n2
            facing = -(n0 * xx + n1 * yy + n2) / math.sqrt(xx * xx + yy * yy + 1.0)
            # Side of the square that a pixel covers on the surface, in coarse steps so that owners change
            # rarely.
            mine = round(math.log(z / math.sqrt(fx * fy) / math.sqrt(max(facing, 0.1))) / log_step)
            weight = confidence[at] + 1e-3
            total = weight
            s0, s1, s2 = X * weight, Y * weight, Z * weight
            m0, m1, m2 = N0 * weight, N1 * weight, N2 * weight
            r0, r1, r2 = rgb[at, 0] * weight, rgb[at, 1] * weight, rgb[at, 2] * weight
            views = 1
            owned = True
            best = confidence[at]
            for o in range(len(others)):
                j = others[o]
                q0 = R[j, 0, 0] * X + R[j, 0, 1] * Y + R[j, 0, 2] * Z + t[j, 0]
                q1 = R[j, 1, 0] * X + R[j, 1, 1] * Y + R[j, 1, 2] * Z + t[j, 1]
                q2 = R[j, 2, 0] * X + R[j, 2, 1] * Y + R[j, 2, 2] * Z + t[j, 2]
                if q2 <= 0:
                    continue
                u = (K[j, 0, 0] * q0 + K[j, 0, 1] * q1) / q2 + K[j, 0, 2]
                v = K[j, 1, 1] * q1 / q2 + K[j, 1, 2]
                iu, iv = math.floor(u + 0.5), math.floor(v + 0.5)
                if iu < 0 or iv < 0 or iu >= widths[j] or iv >= heights[j]:
                    continue
                there = offsets[j] + iv * widths[j] + iu
                zj = depth[there]
                if zj <= 0 or abs(zj - q2) > max_relative * q2:
                    continue
                # The other view's own point at that pixel's ray, moved to where ours projects.
                jy = (v - K[j, 1, 2]) / K[j, 1, 1]
                jx = (u - K[j, 0, 2] - K[j, 0, 1] * jy) / K[j, 0, 0]
                py = (iv - K[j, 1, 2]) / K[j, 1, 1]
                px = (iu - K[j, 0, 2] - K[j, 0, 1] * py) / K[j, 0, 0]
                k0, k1, k2 = normal[there, 0], normal[there, 1], normal[there, 2]
                below = k0 * jx + k1 * jy + k2
                if below < -0.1:
                    zj = zj * (k0 * px + k1 * py + k2) / below
                    if abs(zj - q2) > max_relative * q2:
                        continue
                d0, d1, d2 = jx * zj - t[j, 0], jy * zj - t[j, 1], zj - t[j, 2]
                XJ = R[j, 0, 0] * d0 + R[j, 1, 0] * d1 + R[j, 2, 0] * d2
                YJ = R[j, 0, 1] * d0 + R[j, 1, 1] * d1 + R[j, 2, 1] * d2
                ZJ = R[j, 0, 2] * d0 + R[j, 1, 2] * d1 + R[j, 2, 2] * d2
                # Back in the view that asks.
                b0 = R[index, 0, 0] * XJ + R[index, 0, 1] * YJ + R[index, 0, 2] * ZJ + t[index, 0]
                b1 = R[index, 1, 0] * XJ + R[index, 1, 1] * YJ + R[index, 1, 2] * ZJ + t[index, 1]
                b2 = R[index, 2, 0] * XJ + R[index, 2, 1] * YJ + R[index, 2, 2] * ZJ + t[index, 2]
                if b2 <= 0:
                    continue
                ex = (fx * b0 + skew * b1) / b2 + cx - x
                ey = fy * b1 / b2 + cy - y
                if ex * ex + ey * ey > max_px * max_px:
                    continue
                J0 = R[j, 0, 0] * k0 + R[j, 1, 0] * k1 + R[j, 2, 0] * k2
                J1 = R[j, 0, 1] * k0 + R[j, 1, 1] * k1 + R[j, 2, 1] * k2
                J2 = R[j, 0, 2] * k0 + R[j, 1, 2] * k1 + R[j, 2, 2] * k2
                if min_cosine > J0 * N0 + J1 * N1 + J2 * N2:
                    continue
                other_facing = -below / math.sqrt(jx * jx + jy * jy + 1.0)
                theirs = round(
                    math.log(zj / math.sqrt(K[j, 0, 0] * K[j, 1, 1]) / math.sqrt(max(other_facing, 0.1)))
                    / log_step
                )
                if theirs < mine or (theirs == mine and j < index):
                    owned = False
                    break
                weight = confidence[there] + 1e-3
                total += weight
                s0 += XJ * weight
                s1 += YJ * weight
                s2 += ZJ * weight
                m0 += J0 * weight
                m1 += J1 * weight
                m2 += J2 * weight
                r0 += rgb[there, 0] * weight
                r1 += rgb[there, 1] * weight
                r2 += rgb[there, 2] * weight
                views += 1
                best = max(best, confidence[there])
            if not owned or views < min_views:
                continue
            length = math.sqrt(m0 * m0 + m1 * m1 + m2 * m2)
            if length <= 0:
                continue
            xyz[made, 0], xyz[made, 1], xyz[made, 2] = s0 / total, s1 / total, s2 / total
            out_normal[made, 0], out_normal[made, 1], out_normal[made, 2] = (
                m0 / length,
                m1 / length,
                m2 / length,
            )
            colour[made, 0] = np.uint8(min(255.0, r0 / total + 0.5))
            colour[made, 1] = np.uint8(min(255.0, r1 / total + 0.5))
            colour[made, 2] = np.uint8(min(255.0, r2 / total + 0.5))
            count[made] = views
            conf[made] = best
            made += 1
    return made


def fuse_depth_maps(
    views: Sequence[PinholeView],
    depth_maps: Sequence[DepthMap],
    images_rgb: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    masks: Sequence[Bool[np.ndarray, "_ _"] | None] | None = None,
    *,
    min_views: int = 2,
    max_reprojection_px: float = 1.5,
    max_relative_depth: float = 0.01,
    max_normal_angle_deg: float = 45.0,
    threads: int = 1,
) -> PointCloud:
    """One cloud of all depth maps, with one point per surface patch.

    Every pixel asks the other views whether they see the same point (depth, round trip and normal). Of all
    views that do, the one with the finest pixels on the surface owns the patch and makes the point (the first
    of them where they are as fine); the point is the confidence-weighted mean of what all of them say. So the
    result depends neither on the order of processing nor on threads, and is as dense as the best photo of
    each place, no denser.

    Args:
        views, depth_maps, images_rgb, masks: one each per view, of the view's size; masks are True where the
            photo counts.
        min_views: views that must agree on a point, its owner included.
        max_reprojection_px: of the round trip, in pixels of the owner.
        max_relative_depth: difference of depth, relative.
        max_normal_angle_deg: between the normals of two views.
        threads: views worked on at once.

    Returns:
        Points ordered by view, then by row and column of the pixel that made them.
    """
    count = len(views)
    if not (count == len(depth_maps) == len(images_rgb)) or (masks is not None and len(masks) != count):
        raise ValueError("views, depth maps, images and masks must be as many")
    if count == 0:
        return _empty()
    areas = [d.depth.size for d in depth_maps]
    offsets = np.concatenate([[0], np.cumsum(areas)[:-1]]).astype(np.int64)
    depths = []
    for i, d in enumerate(depth_maps):
        if images_rgb[i].shape[:2] != d.depth.shape:
            raise ValueError(f"depth map and photo of {views[i].name} differ in size")
        mask = None if masks is None else masks[i]
        facing = d.normal.any(axis=-1)
        depths.append(
            np.where(facing if mask is None else facing & mask, d.depth, 0).astype(np.float32).ravel()
        )
    depth = np.concatenate(depths)
    normal = np.concatenate([d.normal.reshape(-1, 3) for d in depth_maps])
    confidence = np.concatenate([d.confidence.ravel() for d in depth_maps])
    rgb = np.concatenate([image.reshape(-1, 3) for image in images_rgb])
    heights = np.array([d.depth.shape[0] for d in depth_maps], np.int64)
    widths = np.array([d.depth.shape[1] for d in depth_maps], np.int64)
    K = np.stack([v.K for v in views]).astype(np.float64)
    R = np.stack([v.cam_from_world[:, :3] for v in views]).astype(np.float64)
    t = np.stack([v.cam_from_world[:, 3] for v in views]).astype(np.float64)

    def one(i: int) -> tuple[npt.NDArray[np.generic], ...]:
        size = areas[i]
        xyz = np.empty((size, 3), np.float32)
        out_normal = np.empty((size, 3), np.float32)
        colour = np.empty((size, 3), np.uint8)
        seen = np.empty(size, np.uint16)
        conf = np.empty(size, np.float32)
        others = np.array([j for j in range(count) if j != i], np.int64)
        made = _fuse_view(
            i, depth, normal, confidence, rgb, offsets, heights, widths, K, R, t, others,
            float(max_reprojection_px), float(max_relative_depth), math.cos(math.radians(max_normal_angle_deg)),
            min_views, math.log(_FOOTPRINT_STEP), xyz, out_normal, colour, seen, conf,
        )  # fmt: skip
        ids = np.full(made, views[i].photo_id, np.int32)
        return (*(a[:made].copy() for a in (xyz, out_normal, colour, seen)), ids, conf[:made].copy())

    parts = map_ordered(one, range(count), threads)
    joined = [np.concatenate([p[k] for p in parts]) for k in range(6)]
    return PointCloud(joined[0], joined[1], joined[2], joined[3], joined[4], joined[5])


def _empty() -> PointCloud:
    return PointCloud(
        np.zeros((0, 3), np.float32),
        np.zeros((0, 3), np.float32),
        np.zeros((0, 3), np.uint8),
        np.zeros(0, np.uint16),
        np.zeros(0, np.int32),
        np.zeros(0, np.float32),
    )
