"""Depth maps of several views fused into one cloud."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, UInt8

from recon.core.cameras import PinholeView
from recon.core.kernels import kernel, maximum
from recon.core.memory import Scratch
from recon.core.mesh import FusedCloud
from recon.core.parallel import map_ordered
from recon.dense.neighbours import views_that_hold_most, views_that_may_see
from recon.dense.planes import projections_of
from recon.dense.types import DepthMap

# A view owns a patch when its pixels there are finer than another's by this factor; within it the first view
# owns it.
_FOOTPRINT_STEP = 1.25


class _Maps(NamedTuple):
    """The maps of all views, pixel after pixel and view after view, and the cameras, for the kernel.

    Attributes:
        depth, confidence, rgb: of each pixel.
        plane: (3,) of each pixel, its normal in pixel coordinates: its product with (x, y, 1) is that of the normal
            with the ray through (x, y).
        size: of each pixel the side of the square that it covers on the surface, in coarse steps so that owners
            change rarely.
        offsets, heights, widths: of each view.
        normals: (views, 3, 3) from ``plane`` to the normal in the world.
    """

    depth: npt.NDArray[np.float32]
    plane: npt.NDArray[np.float32]
    confidence: npt.NDArray[np.float32]
    rgb: npt.NDArray[np.uint8]
    size: npt.NDArray[np.int16]
    offsets: npt.NDArray[np.int64]
    heights: npt.NDArray[np.int64]
    widths: npt.NDArray[np.int64]
    normals: npt.NDArray[np.float64]


class _Rules(NamedTuple):
    """When views agree."""

    max_px: float
    max_relative: float
    min_cosine: float
    min_views: int


@kernel(error_model="numpy")
def _fuse_view(index, others, pairs, maps, rules, work, out):  # type: ignore[no-untyped-def]
    """Points of one view that no other view owns, of those that may see the same; returns how many.

    Every access to an array adds to the time that compiling takes, so there are loops over the three axes.

    Args:
        pairs: (others, 2, 3, 4) float64, from (x z, y z, z, 1) of this view to the other's (x z, y z, z), and back.
        work: (5, 9) float64.
        out: (n, 11) float32: (x z, y z, z) in this view, normal (shorter than 1), colour, views, and the best
            confidence of a point.
    """
    there, own, facing, normal, sums = work[0], work[1], work[2], work[3], work[4]
    wide = maps.widths[index]
    made = 0
    for pixel in range(maps.heights[index] * wide):
        y, x = pixel // wide, pixel % wide
        at = maps.offsets[index] + pixel
        z = maps.depth[at]
        if z <= 0:
            continue
        best = maps.confidence[at]
        weight = best + 1e-3
        total = weight
        for c in range(3):
            turn = maps.normals[index, c]
            normal[c] = (
                turn[0] * maps.plane[at, 0] + turn[1] * maps.plane[at, 1] + turn[2] * maps.plane[at, 2]
            )
            sums[c] = weight * z * (x if c == 0 else y if c == 1 else 1)
            sums[3 + c] = weight * normal[c]
            sums[6 + c] = weight * maps.rgb[at, c]
        views = 1
        for k in range(len(others)):
            j = others[k]
            for c in range(3):
                row = pairs[k, 0, c]
                there[c] = (row[0] * x + row[1] * y + row[2]) * z + row[3]
            if there[2] <= 0:
                continue
            u, v = there[0] / there[2], there[1] / there[2]
            iu, iv = math.floor(u + 0.5), math.floor(v + 0.5)
            if iu < 0 or iv < 0 or iu >= maps.widths[j] or iv >= maps.heights[j]:
                continue
            to = maps.offsets[j] + iv * maps.widths[j] + iu
            zj = np.float64(maps.depth[to])
            if zj <= 0 or abs(zj - there[2]) > rules.max_relative * there[2]:
                continue
            # The other view's own point at that pixel's ray, moved to where ours projects.
            p0, p1, p2 = maps.plane[to, 0], maps.plane[to, 1], maps.plane[to, 2]
            below = p0 * u + p1 * v + p2
            if below < -0.1:
                zj = zj * (p0 * iu + p1 * iv + p2) / below
                if abs(zj - there[2]) > rules.max_relative * there[2]:
                    continue
            cosine = 0.0
            for c in range(3):
                turn = maps.normals[j, c]
                facing[c] = turn[0] * p0 + turn[1] * p1 + turn[2] * p2
                cosine += facing[c] * normal[c]
                # Back in the view that asks.
                row = pairs[k, 1, c]
                own[c] = (row[0] * u + row[1] * v + row[2]) * zj + row[3]
            ex, ey = own[0] - x * own[2], own[1] - y * own[2]
            reach = rules.max_px * own[2]
            if own[2] <= 0 or ex * ex + ey * ey > reach * reach or cosine < rules.min_cosine:
                continue
            if maps.size[to] < maps.size[at] or (maps.size[to] == maps.size[at] and j < index):
                views = 0
                break
            weight = maps.confidence[to] + 1e-3
            for c in range(3):
                sums[c] += weight * own[c]
                sums[3 + c] += weight * facing[c]
                sums[6 + c] += weight * maps.rgb[to, c]
            total += weight
            best = maximum(best, maps.confidence[to])
            views += 1
        if views < rules.min_views:
            continue
        for c in range(9):
            out[made, c] = sums[c] / total
        out[made, 9] = views
        out[made, 10] = best
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
        max_views: views at most that are asked for the points of a view, those that have most pixels for what it sees.
    """

    min_views: int = 2
    max_reprojection_px: float = 1.5
    max_relative_depth: float = 0.01
    max_normal_angle_deg: float = 45.0
    max_views: int = 64


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
        depth, plane, confidence, rgb, size = arrays
        self._maps = _Maps(
            depth=depth,
            plane=plane,
            confidence=confidence,
            rgb=rgb,
            size=size,
            offsets=np.concatenate([[0], np.cumsum(self._areas)[:-1]]).astype(np.int64),
            heights=np.array([view.height for view in views], np.int64),
            widths=np.array([view.width for view in views], np.int64),
            normals=np.ascontiguousarray(
                [view.cam_from_world[:, :3].T @ view.K.T for view in views], np.float64
            ),
        )

    KINDS: ClassVar[tuple[tuple[tuple[int, ...], type], ...]] = (
        ((), np.float32),
        ((3,), np.float32),
        ((), np.float32),
        ((3,), np.uint8),
        ((), np.int16),
    )
    """Shape and type of a pixel's depth, normal in pixel coordinates, confidence, colour and size."""

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
        plane = depth_map.normal.reshape(-1, 3) @ np.linalg.inv(view.K).astype(np.float32)
        first = int(self._maps.offsets[index])
        rows = slice(first, first + self._areas[index])
        self._maps.depth[rows], self._maps.confidence[rows] = usable.ravel(), depth_map.confidence.ravel()
        self._maps.plane[rows], self._maps.rgb[rows] = plane, image.reshape(-1, 3)
        self._maps.size[rows] = _footprint(view, usable, plane).ravel()
        return views_that_may_see(self.views, index, usable)

    def points(self, index: int, others: Sequence[int], rules: FusionRules) -> FusedCloud:
        """The points of a view that no other view owns, by row and column of its pixels.

        Args:
            others: of ``fill``.
        """
        view = self.views[index]
        first = int(self._maps.offsets[index])
        depth = self._maps.depth[first : first + self._areas[index]].reshape(view.height, view.width)
        others = views_that_hold_most(self.views, index, depth, others, rules.max_views)
        out = np.empty((self._areas[index], 11), np.float32)
        agree = _Rules(
            float(rules.max_reprojection_px),
            float(rules.max_relative_depth),
            math.cos(math.radians(rules.max_normal_angle_deg)),
            int(rules.min_views),
        )
        pairs = projections_of([self.views[j] for j in others], view)
        made = _fuse_view(index, np.array(others, np.int64), pairs, self._maps, agree, np.empty((5, 9)), out)
        found = out[:made]
        local = found[:, :3] @ np.linalg.inv(view.K).T
        R, t = view.cam_from_world[:, :3], view.cam_from_world[:, 3]
        return FusedCloud(
            ((local - t) @ R).astype(np.float32),
            found[:, 3:6] / np.maximum(np.linalg.norm(found[:, 3:6], axis=1, keepdims=True), 1e-12),
            np.minimum(found[:, 6:9] + np.float32(0.5), np.float32(255)).astype(np.uint8),
            found[:, 9].astype(np.uint16),
            np.full(made, view.photo_id, np.int32),
            found[:, 10].copy(),
        )


def _footprint(
    view: PinholeView, depth: npt.NDArray[np.float32], plane: npt.NDArray[np.float32]
) -> npt.NDArray[np.int16]:
    """Side of the square that each pixel covers on the surface, in steps of ``_FOOTPRINT_STEP``; 0 without depth."""
    h, w = depth.shape
    x, y = np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32)[:, None]
    a, b, c = np.moveaxis(plane.reshape(h, w, 3), -1, 0)
    inverse = np.linalg.inv(view.K).astype(np.float32)
    down = inverse[1, 1] * y + inverse[1, 2]
    along = inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]
    slant = -(a * x + b * y + c) / np.sqrt(along * along + down * down + 1)
    area = np.where(depth > 0, depth, 1) ** 2 / np.maximum(slant, np.float32(0.1))
    steps = np.log(area / np.float32(view.K[0, 0] * view.K[1, 1])) / (2 * math.log(_FOOTPRINT_STEP))
    return np.asarray(np.rint(steps), np.int16)


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
