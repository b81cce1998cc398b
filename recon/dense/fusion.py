"""Depth maps of several views fused into one cloud."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, UInt8
from numba import njit

from recon.core.cameras import PinholeView
from recon.core.memory import Scratch
from recon.core.mesh import FusedCloud
from recon.core.parallel import map_ordered
from recon.dense.neighbours import views_that_may_see
from recon.dense.types import DepthMap

# A view owns a patch when its pixels there are finer than another's by this factor; within it the first view
# owns it.
_FOOTPRINT_STEP = 1.25


class _Maps(NamedTuple):
    """The maps of all views, pixel after pixel and view after view, and the cameras, for the kernels."""

    depth: npt.NDArray[np.float32]
    normal: npt.NDArray[np.float32]
    confidence: npt.NDArray[np.float32]
    rgb: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]
    heights: npt.NDArray[np.int64]
    widths: npt.NDArray[np.int64]
    K: npt.NDArray[np.float64]
    R: npt.NDArray[np.float64]
    t: npt.NDArray[np.float64]


class _Rules(NamedTuple):
    """When views agree; ``log_step`` is the logarithm of the step in which sizes of pixels are compared."""

    max_px: float
    max_relative: float
    min_cosine: float
    min_views: int
    log_step: float


class _Points(NamedTuple):
    """Arrays that receive the points of a view."""

    xyz: npt.NDArray[np.float32]
    normal: npt.NDArray[np.float32]
    colour: npt.NDArray[np.uint8]
    seen: npt.NDArray[np.uint16]
    confidence: npt.NDArray[np.float32]


# Inlined: a call that takes arrays counts their references, which would double the time.
@njit(cache=True, nogil=True, inline="always")
def _ray(K, j, x, y):  # type: ignore[no-untyped-def]
    """Direction of a pixel of view ``j`` with depth 1, in its camera."""
    down = (y - K[j, 1, 2]) / K[j, 1, 1]
    return (x - K[j, 0, 2] - K[j, 0, 1] * down) / K[j, 0, 0], down


@njit(cache=True, nogil=True, inline="always")
def _turned_back(R, j, a, b, c):  # type: ignore[no-untyped-def]
    """A direction of the camera in the world."""
    return (
        R[j, 0, 0] * a + R[j, 1, 0] * b + R[j, 2, 0] * c,
        R[j, 0, 1] * a + R[j, 1, 1] * b + R[j, 2, 1] * c,
        R[j, 0, 2] * a + R[j, 1, 2] * b + R[j, 2, 2] * c,
    )


@njit(cache=True, nogil=True, inline="always")
def _in_camera(R, t, j, a, b, c):  # type: ignore[no-untyped-def]
    """A point of the world in the camera."""
    return (
        R[j, 0, 0] * a + R[j, 0, 1] * b + R[j, 0, 2] * c + t[j, 0],
        R[j, 1, 0] * a + R[j, 1, 1] * b + R[j, 1, 2] * c + t[j, 1],
        R[j, 2, 0] * a + R[j, 2, 1] * b + R[j, 2, 2] * c + t[j, 2],
    )


@njit(cache=True, nogil=True)
def _footprint(z, focal, facing, log_step):  # type: ignore[no-untyped-def]
    """Side of the square that a pixel covers on the surface, in coarse steps so that owners change rarely."""
    return round(math.log(z / math.sqrt(focal) / math.sqrt(max(facing, 0.1))) / log_step)


@njit(cache=True, nogil=True, inline="always")
def _seen_by(maps, rules, index, x, y, point, normal, j):  # type: ignore[no-untyped-def]
    """True if view ``j`` sees the point that pixel (x, y) of view ``index`` shows.

    Returns its pixel in the flat arrays (-1 where it does not), its own point there, its normal, and the side of its
    pixel on the surface.
    """
    nothing = (0.0, 0.0, 0.0)
    K, R, t = maps.K, maps.R, maps.t
    q0, q1, q2 = _in_camera(R, t, j, point[0], point[1], point[2])
    if q2 <= 0:
        return -1, nothing, nothing, 0
    u = (K[j, 0, 0] * q0 + K[j, 0, 1] * q1) / q2 + K[j, 0, 2]
    v = K[j, 1, 1] * q1 / q2 + K[j, 1, 2]
    iu, iv = math.floor(u + 0.5), math.floor(v + 0.5)
    if iu < 0 or iv < 0 or iu >= maps.widths[j] or iv >= maps.heights[j]:
        return -1, nothing, nothing, 0
    there = maps.offsets[j] + iv * maps.widths[j] + iu
    zj = np.float64(maps.depth[there])
    if zj <= 0 or abs(zj - q2) > rules.max_relative * q2:
        return -1, nothing, nothing, 0
    # The other view's own point at that pixel's ray, moved to where ours projects.
    jx, jy = _ray(K, j, u, v)
    px, py = _ray(K, j, iu, iv)
    k0, k1, k2 = maps.normal[there, 0], maps.normal[there, 1], maps.normal[there, 2]
    below = k0 * jx + k1 * jy + k2
    if below < -0.1:
        zj = zj * (k0 * px + k1 * py + k2) / below
        if abs(zj - q2) > rules.max_relative * q2:
            return -1, nothing, nothing, 0
    own = _turned_back(R, j, jx * zj - t[j, 0], jy * zj - t[j, 1], zj - t[j, 2])
    # Back in the view that asks.
    b0, b1, b2 = _in_camera(R, t, index, own[0], own[1], own[2])
    if b2 <= 0:
        return -1, nothing, nothing, 0
    ex = (K[index, 0, 0] * b0 + K[index, 0, 1] * b1) / b2 + K[index, 0, 2] - x
    ey = K[index, 1, 1] * b1 / b2 + K[index, 1, 2] - y
    if ex * ex + ey * ey > rules.max_px * rules.max_px:
        return -1, nothing, nothing, 0
    facing = _turned_back(R, j, k0, k1, k2)
    if rules.min_cosine > facing[0] * normal[0] + facing[1] * normal[1] + facing[2] * normal[2]:
        return -1, nothing, nothing, 0
    slant = -below / math.sqrt(jx * jx + jy * jy + 1.0)
    return there, own, facing, _footprint(zj, K[j, 0, 0] * K[j, 1, 1], slant, rules.log_step)


@njit(cache=True, nogil=True)
def _fuse_view(index, others, maps, rules, out):  # type: ignore[no-untyped-def]
    """Points of one view that no other view owns, of those that may see the same; returns how many."""
    base = maps.offsets[index]
    K, R, t = maps.K, maps.R, maps.t
    made = 0
    for y in range(maps.heights[index]):
        for x in range(maps.widths[index]):
            at = base + y * maps.widths[index] + x
            z = maps.depth[at]
            if z <= 0:
                continue
            xx, yy = _ray(K, index, x, y)
            point = _turned_back(R, index, xx * z - t[index, 0], yy * z - t[index, 1], z - t[index, 2])
            n0, n1, n2 = maps.normal[at, 0], maps.normal[at, 1], maps.normal[at, 2]
            normal = _turned_back(R, index, n0, n1, n2)
            slant = -(n0 * xx + n1 * yy + n2) / math.sqrt(xx * xx + yy * yy + 1.0)
            mine = _footprint(z, K[index, 0, 0] * K[index, 1, 1], slant, rules.log_step)
            weight = maps.confidence[at] + 1e-3
            total = weight
            s0, s1, s2 = point[0] * weight, point[1] * weight, point[2] * weight
            m0, m1, m2 = normal[0] * weight, normal[1] * weight, normal[2] * weight
            r0, r1, r2 = maps.rgb[at, 0] * weight, maps.rgb[at, 1] * weight, maps.rgb[at, 2] * weight
            views = 1
            owned = True
            best = maps.confidence[at]
            for j in others:
                there, own, facing, theirs = _seen_by(maps, rules, index, x, y, point, normal, j)
                if there < 0:
                    continue
                if theirs < mine or (theirs == mine and j < index):
                    owned = False
                    break
                weight = maps.confidence[there] + 1e-3
                total += weight
                s0, s1, s2 = s0 + own[0] * weight, s1 + own[1] * weight, s2 + own[2] * weight
                m0, m1, m2 = m0 + facing[0] * weight, m1 + facing[1] * weight, m2 + facing[2] * weight
                r0 += maps.rgb[there, 0] * weight
                r1 += maps.rgb[there, 1] * weight
                r2 += maps.rgb[there, 2] * weight
                views += 1
                best = max(best, maps.confidence[there])
            length = math.sqrt(m0 * m0 + m1 * m1 + m2 * m2)
            if not owned or views < rules.min_views or length <= 0:
                continue
            out.xyz[made, 0], out.xyz[made, 1], out.xyz[made, 2] = s0 / total, s1 / total, s2 / total
            out.normal[made, 0], out.normal[made, 1], out.normal[made, 2] = (
                m0 / length,
                m1 / length,
                m2 / length,
            )
            out.colour[made, 0] = np.uint8(min(255.0, r0 / total + 0.5))
            out.colour[made, 1] = np.uint8(min(255.0, r1 / total + 0.5))
            out.colour[made, 2] = np.uint8(min(255.0, r2 / total + 0.5))
            out.seen[made] = views
            out.confidence[made] = best
            made += 1
    return made


@dataclass(frozen=True)
class FusionRules:
    """When views agree on a point.

    Attributes:
        min_views: views that must agree, the owner of the point included.
        max_reprojection_px: of the round trip, in pixels of the owner.
        max_relative_depth: difference of depth, relative.
        max_normal_angle_deg: between the normals of two views.
    """

    min_views: int = 2
    max_reprojection_px: float = 1.5
    max_relative_depth: float = 0.01
    max_normal_angle_deg: float = 45.0


class FusionMaps:
    """The maps of all views side by side, from which the points of each view are made."""

    def __init__(self, views: Sequence[PinholeView], arrays: Sequence[np.ndarray]) -> None:
        """Lay out the views.

        Args:
            views: the cameras.
            arrays: of ``pixels(views)`` pixels and the ``KINDS``: empty, or as another process filled them.
        """
        self.views = views
        self._areas = [view.height * view.width for view in views]
        depth, normal, confidence, rgb = arrays
        self._maps = _Maps(
            depth=depth,
            normal=normal,
            confidence=confidence,
            rgb=rgb,
            offsets=np.concatenate([[0], np.cumsum(self._areas)[:-1]]).astype(np.int64),
            heights=np.array([view.height for view in views], np.int64),
            widths=np.array([view.width for view in views], np.int64),
            K=np.stack([v.K for v in views]).astype(np.float64),
            R=np.stack([v.cam_from_world[:, :3] for v in views]).astype(np.float64),
            t=np.stack([v.cam_from_world[:, 3] for v in views]).astype(np.float64),
        )

    KINDS: ClassVar[tuple[tuple[tuple[int, ...], type], ...]] = (
        ((), np.float32),
        ((3,), np.float32),
        ((), np.float32),
        ((3,), np.uint8),
    )
    """Shape and type of a pixel's depth, normal, confidence and colour."""

    @staticmethod
    def pixels(views: Sequence[PinholeView]) -> int:
        """Length of the arrays."""
        return sum(view.height * view.width for view in views)

    def fill(
        self,
        index: int,
        depth_map: DepthMap,
        image: UInt8[np.ndarray, "h w 3"],
        mask: Bool[np.ndarray, "h w"] | None = None,
    ) -> list[int]:
        """Put the maps of a view in place; returns the views that may see the same."""
        view = self.views[index]
        if image.shape[:2] != depth_map.depth.shape or depth_map.depth.shape != (view.height, view.width):
            raise ValueError(f"depth map and photo of {view.name} differ in size")
        facing = depth_map.normal.any(axis=-1)
        usable = np.where(facing if mask is None else facing & mask, depth_map.depth, 0).astype(np.float32)
        first = int(self._maps.offsets[index])
        rows = slice(first, first + self._areas[index])
        self._maps.depth[rows], self._maps.confidence[rows] = usable.ravel(), depth_map.confidence.ravel()
        self._maps.normal[rows], self._maps.rgb[rows] = depth_map.normal.reshape(-1, 3), image.reshape(-1, 3)
        return views_that_may_see(self.views, index, usable)

    def points(self, index: int, others: Sequence[int], rules: FusionRules) -> FusedCloud:
        """The points of a view that no other view owns, by row and column of its pixels.

        Args:
            others: of ``fill``.
        """
        size = self._areas[index]
        out = _Points(
            np.empty((size, 3), np.float32),
            np.empty((size, 3), np.float32),
            np.empty((size, 3), np.uint8),
            np.empty(size, np.uint16),
            np.empty(size, np.float32),
        )
        agree = _Rules(
            float(rules.max_reprojection_px),
            float(rules.max_relative_depth),
            math.cos(math.radians(rules.max_normal_angle_deg)),
            int(rules.min_views),
            math.log(_FOOTPRINT_STEP),
        )
        made = _fuse_view(index, np.array(others, np.int64), self._maps, agree, out)
        return FusedCloud(
            out.xyz[:made].copy(),
            out.normal[:made].copy(),
            out.colour[:made].copy(),
            out.seen[:made].copy(),
            np.full(made, self.views[index].photo_id, np.int32),
            out.confidence[:made].copy(),
        )


def fuse_depth_maps(
    views: Sequence[PinholeView],
    depth_maps: Sequence[DepthMap],
    images_rgb: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    masks: Sequence[Bool[np.ndarray, "_ _"] | None] | None = None,
    rules: FusionRules | None = None,
    threads: int = 1,
) -> FusedCloud:
    """One cloud of all depth maps, with one point per surface patch.

    Every pixel asks the other views whether they see the same point (depth, round trip and normal). Of all
    views that do, the one with the finest pixels on the surface owns the patch and makes the point (the first
    of them where they are as fine); the point is the confidence-weighted mean of what all of them say. So the
    result depends neither on the order of processing nor on threads, and is as dense as the best photo of
    each place, no denser.

    Args:
        views, depth_maps, images_rgb, masks: one each per view, of the view's size; masks are True where the
            photo counts.
        rules: when views agree.
        threads: views worked on at once.

    Returns:
        Points ordered by view, then by row and column of the pixel that made them.
    """
    count = len(views)
    if not (count == len(depth_maps) == len(images_rgb)) or (masks is not None and len(masks) != count):
        raise ValueError("views, depth maps, images and masks must be as many")
    if count == 0:
        return join_clouds([])
    maps = FusionMaps(views, Scratch().arrays(FusionMaps.pixels(views), FusionMaps.KINDS))
    used = [None] * count if masks is None else masks
    seeing = [maps.fill(i, depth_maps[i], images_rgb[i], used[i]) for i in range(count)]
    agree = rules or FusionRules()
    return join_clouds(map_ordered(lambda i: maps.points(i, seeing[i], agree), range(count), threads))


def join_clouds(parts: Sequence[FusedCloud]) -> FusedCloud:
    """The points of all parts, in order."""
    if parts:
        return FusedCloud(
            *(np.concatenate([getattr(one, f.name) for one in parts]) for f in fields(FusedCloud))
        )
    return FusedCloud(
        np.zeros((0, 3), np.float32),
        np.zeros((0, 3), np.float32),
        np.zeros((0, 3), np.uint8),
        np.zeros(0, np.uint16),
        np.zeros(0, np.int32),
        np.zeros(0, np.float32),
    )
