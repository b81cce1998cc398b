"""Depth maps checked against each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float32, UInt8

from recon.core.cameras import PinholeView
from recon.core.kernels import kernel
from recon.core.parallel import map_ordered
from recon.dense.neighbours import views_that_hold_most, views_that_may_see
from recon.dense.planes import projection_of
from recon.dense.types import DepthMap

# A depth of less photo-consistency than asked for, but this part of it, stays where a view whose depth has enough
# agrees with it within these parts of the tolerances: between places that are sure, smooth plaster and stone are found
# right without a texture to show it.
_WEAK = 1.0 / 3.0
_WEAK_PX, _WEAK_RELATIVE = 0.5, 0.3

# A view sees past a point when its own depth there is larger by this many times the tolerance: edges that
# are a pixel off must not count.
_THROUGH = 5.0


@kernel()
def _count_consistent(depth, other, M, v, Mb, vb, max_px, max_relative, agree, through):  # type: ignore[no-untyped-def]
    """Adds 1 to agree where the other depth map confirms the depth, 1 to through where it sees past the point."""
    h, w = depth.shape
    ho, wo = other.shape
    for y in range(h):
        for x in range(w):
            z = depth[y, x]
            if z <= 0:
                continue
            inverse = 1.0 / z
            pz = M[2, 0] * x + M[2, 1] * y + M[2, 2] + v[2] * inverse
            if pz <= 0:
                continue
            u = (M[0, 0] * x + M[0, 1] * y + M[0, 2] + v[0] * inverse) / pz
            t = (M[1, 0] * x + M[1, 1] * y + M[1, 2] + v[1] * inverse) / pz
            iu = math.floor(u + 0.5)
            iv = math.floor(t + 0.5)
            if iu < 0 or iv < 0 or iu >= wo or iv >= ho:
                continue
            there = other[iv, iu]
            if there <= 0:
                continue
            # Depth in the other camera is pz * z because M x + v / z is scaled by 1 / z.
            if abs(pz * z - there) > max_relative * there:
                if pz * z < (1.0 - _THROUGH * max_relative) * there:
                    through[y, x] += 1
                continue
            bi = 1.0 / there
            bz = Mb[2, 0] * u + Mb[2, 1] * t + Mb[2, 2] + vb[2] * bi
            if bz <= 0:
                continue
            ex = (Mb[0, 0] * u + Mb[0, 1] * t + Mb[0, 2] + vb[0] * bi) / bz - x
            ey = (Mb[1, 0] * u + Mb[1, 1] * t + Mb[1, 2] + vb[1] * bi) / bz - y
            if ex * ex + ey * ey <= max_px * max_px:
                agree[y, x] += 1


def consistent_views(
    views: Sequence[PinholeView],
    depth: Float32[np.ndarray, "h w"],
    depth_maps: Sequence[DepthMap],
    index: int,
    others: Sequence[int],
    limits: tuple[float, float],
) -> tuple[UInt8[np.ndarray, "h w"], UInt8[np.ndarray, "h w"]]:
    """Count the ``others`` that confirm each depth of view ``index``, and those that look straight through it.

    Args:
        depth: of the view; it need not be the one in ``depth_maps``.
        limits: of the round trip, in pixels of the view; of the difference of depths, relative.
    """
    depth = np.ascontiguousarray(depth)
    agree = np.zeros(depth.shape, np.uint8)
    through = np.zeros(depth.shape, np.uint8)
    for other in others:
        forth = projection_of(views[other], views[index])
        back = projection_of(views[index], views[other])
        _count_consistent(
            depth,
            np.ascontiguousarray(depth_maps[other].depth),
            *forth,
            *back,
            *limits,
            agree,
            through,
        )
    return agree, through


@kernel()
def _speckle_labels(depth, max_relative, labels, sizes, stack):  # type: ignore[no-untyped-def]
    """4-connected regions of similar depth: labels from 1 and their sizes. ``stack`` is room for all pixels."""
    h, w = depth.shape
    current = 0
    for start in range(h * w):
        sy, sx = start // w, start % w
        if depth[sy, sx] <= 0 or labels[sy, sx] != 0:
            continue
        current += 1
        labels[sy, sx] = current
        stack[0] = start
        top = 1
        size = 0
        while top > 0:
            top -= 1
            at = stack[top]
            y, x = at // w, at % w
            size += 1
            for side in range(4):
                xx = x + (1 if side == 0 else -1 if side == 1 else 0)
                yy = y + (1 if side == 2 else -1 if side == 3 else 0)
                if xx < 0 or yy < 0 or xx >= w or yy >= h or labels[yy, xx] != 0:
                    continue
                if depth[yy, xx] <= 0 or abs(depth[yy, xx] - depth[y, x]) > max_relative * depth[y, x]:
                    continue
                labels[yy, xx] = current
                stack[top] = yy * w + xx
                top += 1
        sizes[current] = size
    return current


def remove_speckles(
    depth: npt.NDArray[np.float32], *, min_pixels: int = 60, max_relative_step: float = 0.02
) -> npt.NDArray[np.bool_]:
    """True where the depth lies in a connected region (steps below ``max_relative_step``) of ``min_pixels``."""
    labels = np.zeros(depth.shape, np.int32)
    sizes = np.zeros(depth.size + 1, np.int32)
    stack = np.empty(depth.size, np.int32)
    _speckle_labels(np.ascontiguousarray(depth), max_relative_step, labels, sizes, stack)
    sizes[0] = 0
    return sizes[labels] >= min_pixels


def smooth_regions(
    grey: UInt8[np.ndarray, "h w"], *, window: int = 11, max_deviation: float = 1.0
) -> Bool[np.ndarray, "h w"]:
    """True where the grey values of a ``window`` x ``window`` box deviate by less than ``max_deviation`` (of 255).

    A grey level is what sensor noise and JPEG leave of a clear sky; plaster and asphalt have more.
    """
    values = grey.astype(np.float32)
    mean = cv2.boxFilter(values, cv2.CV_32F, (window, window))
    mean_square = cv2.boxFilter(values * values, cv2.CV_32F, (window, window))
    return np.asarray(mean_square - mean * mean < max_deviation**2)


def _box_sum(values: npt.NDArray[np.float32], window: int) -> npt.NDArray[np.float32]:
    """Sums over squares round every pixel; what lies outside of the image is 0."""
    return np.asarray(
        cv2.boxFilter(values, cv2.CV_32F, (window, window), normalize=False, borderType=cv2.BORDER_CONSTANT)
    )


def background_fringe(
    rgb: UInt8[np.ndarray, "h w 3"],
    depth: Float32[np.ndarray, "h w"],
    *,
    reach: int = 8,
    window: int = 33,
    max_deviation: float = 6.0,
    smallest: int = 4096,
) -> Bool[np.ndarray, "h w"]:
    """True where a pixel has depth but the colour of the even background beside it.

    A patch that reaches over a silhouette takes the depth of the object with it, so that objects before a clear
    sky or a studio's backdrop grow a rim of background (foreground fattening). The background gives itself away:
    it has no depth further out, and one colour.

    Args:
        depth: 0 where unknown.
        reach: the rim's greatest width, pixels; about the patch's.
        window: side of the square in which colours are compared, pixels.
        max_deviation: an uneven background (standard deviation of its colours in the window, of 255) trims nothing:
            there depth that is missing says nothing about what is beside it.
        smallest: a region without depth of fewer pixels is a hole in a surface, as smooth stone has them, and no
            background.
    """
    known = depth > 0
    specks = np.ones((5, 5), np.uint8)
    beyond = cv2.morphologyEx((~known).astype(np.uint8), cv2.MORPH_OPEN, specks)
    _, regions, sizes, _ = cv2.connectedComponentsWithStats(beyond, connectivity=4)
    beyond &= (sizes[:, cv2.CC_STAT_AREA] >= smallest)[regions]
    if not known.any() or not beyond.any():
        return np.zeros(depth.shape, np.bool_)
    distance = cv2.distanceTransform(1 - beyond, cv2.DIST_L2, 3)
    values = rgb.astype(np.float32)

    def mean(where: npt.NDArray[np.float32], of: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        number = np.maximum(_box_sum(where, window), np.float32(1))
        return np.asarray(_box_sum(of * where[..., None], window) / number[..., None])

    outer = beyond.astype(np.float32)
    inner = (known & (distance > reach)).astype(np.float32)
    background, foreground = mean(outer, values), mean(inner, values)
    variance = (mean(outer, values * values) - background**2).mean(axis=-1)
    deviation = np.sqrt(np.maximum(variance, 0.0))
    to_background = np.abs(values - background).max(axis=-1)
    to_foreground = np.abs(values - foreground).max(axis=-1)
    enough = (_box_sum(outer, window) > 0.05 * window**2) & (_box_sum(inner, window) > 0.02 * window**2)
    return np.asarray(
        known
        & (distance <= reach)
        & enough
        & (deviation < max_deviation)
        & (to_background < to_foreground)
        & (to_background < np.maximum(3.0 * deviation, 6.0))
    )


@dataclass(frozen=True)
class FilterOptions:
    """Thresholds that a depth must pass in other views.

    Attributes:
        max_reprojection_px: of the round trip, in pixels of the view.
        max_relative_depth: of the depth in the other view.
        min_views: views that must agree, the view itself included.
        min_confidence: pixels below confirm nothing, and stay only where the others agree much closer than asked for
            (down to a third of this).
        min_speckle_pixels: smaller islands of depth are dropped at the end.
        smooth_min_views: views that must agree in smooth regions (or all that are asked, where they are fewer):
            compressed sky often looks alike in two photos, seldom in four.
        max_views: views at most that may object beside those that may confirm, those that have most pixels for what
            the view sees.
    """

    max_reprojection_px: float = 1.0
    max_relative_depth: float = 0.01
    min_views: int = 2
    min_confidence: float = 0.3
    min_speckle_pixels: int = 60
    smooth_min_views: int = 4
    max_views: int = 32


@dataclass(frozen=True)
class Agreement:
    """Agreement of the sure depth of a view with that of other views.

    Attributes:
        confirmed: pixels whose depth other views confirm, by at least as many as look through it.
        crossed: pixels whose depth more views look through than confirm.
    """

    confirmed: int
    crossed: int

    @property
    def share(self) -> float:
        """Confirmed pixels as a share of both; NaN without any."""
        return self.confirmed / (self.confirmed + self.crossed) if self.confirmed + self.crossed else math.nan


def trusted_depth(found: DepthMap, min_confidence: float) -> DepthMap:
    """The depth map without the depths of too little confidence."""
    depth = np.where(found.confidence >= min_confidence, found.depth, 0).astype(np.float32)
    return DepthMap(depth, found.normal, found.confidence)


def filter_view(
    views: Sequence[PinholeView],
    found: DepthMap,
    trusted: Sequence[DepthMap],
    index: int,
    asked: Sequence[int],
    options: FilterOptions,
    smooth: Bool[np.ndarray, "h w"] | None = None,
) -> tuple[DepthMap, Agreement]:
    """The depth map of one view with only the pixels that other views confirm; see ``filter_depths``.

    Beside it, how far the view's depth of enough confidence agrees with the others'.

    Args:
        found: the depth map of the view.
        trusted: the depth maps of all views, after ``trusted_depth``. Only those are read that can see what the view
            sees.
        asked: the views that may confirm.
    """
    mine = trusted_depth(found, _WEAK * options.min_confidence)
    seeing = set(views_that_may_see(views, index, mine.depth))
    limits = float(options.max_reprojection_px), float(options.max_relative_depth)
    confirming = [j for j in asked if j in seeing]
    agree, through = consistent_views(views, mine.depth, trusted, index, confirming, limits)
    needed = np.full(agree.shape, options.min_views - 1)
    if smooth is not None:
        needed[smooth] = max(options.min_views - 1, min(options.smooth_min_views - 1, len(asked)))
    keep = (mine.depth > 0) & (agree >= needed)
    weak = keep & (found.confidence < options.min_confidence)
    if weak.any():
        closer = _WEAK_PX * limits[0], _WEAK_RELATIVE * limits[1]
        depth = np.where(weak, mine.depth, np.float32(0))
        closely, _ = consistent_views(views, depth, trusted, index, confirming, closer)
        keep &= ~weak | (closely >= needed)
    # Other views may object: floaters agree with the neighbours that share their cause, not with the others.
    elsewhere = views_that_hold_most(
        views, index, mine.depth, sorted(seeing.difference(asked)), options.max_views
    )
    if elsewhere:
        _, more = consistent_views(views, mine.depth, trusted, index, elsewhere, limits)
        through = through + more
    sure = (found.confidence >= options.min_confidence) & (mine.depth > 0)
    agreement = Agreement(
        confirmed=int((sure & (agree > 0) & (through <= agree)).sum()),
        crossed=int((sure & (through > agree)).sum()),
    )
    keep &= through <= agree
    if options.min_speckle_pixels > 1:
        keep &= remove_speckles(
            np.where(keep, mine.depth, 0).astype(np.float32), min_pixels=options.min_speckle_pixels
        )
    confidence = 1 - (1 - mine.confidence) * 0.75 ** agree.astype(np.float32)
    return replace(mine, confidence=confidence).only(keep), agreement


def filter_depths(
    views: Sequence[PinholeView],
    depth_maps: Sequence[DepthMap],
    neighbours: Sequence[Sequence[int]] | None = None,
    *,
    smooth: Sequence[Bool[np.ndarray, "h w"]] | None = None,
    threads: int = 1,
    **options: Any,
) -> list[DepthMap]:
    """Depth maps with only the pixels that other views confirm.

    A depth is confirmed by a view whose own depth, where the point projects to, differs by less than
    ``max_relative_depth`` and comes back within ``max_reprojection_px`` of the pixel. Where photo-consistency is below
    ``min_confidence``, they must confirm it more closely.

    Args:
        views, depth_maps: all views and their depth maps, of the same sizes.
        neighbours: for each view the indices of the views to ask; None for all.
        smooth: for each view, True where its photo has next to no texture (``smooth_regions``).
        threads: views worked on at once.
        options: fields of ``FilterOptions``.

    Returns:
        New depth maps; dropped pixels are 0 throughout. Confidence is raised by the number of confirming
        views: ``1 - (1 - c) 0.75^confirming``.
    """
    chosen = FilterOptions(**options)
    trusted = [trusted_depth(d, chosen.min_confidence) for d in depth_maps]

    def one(i: int) -> DepthMap:
        asked = [j for j in (range(len(views)) if neighbours is None else neighbours[i]) if j != i]
        return filter_view(
            views, depth_maps[i], trusted, i, asked, chosen, None if smooth is None else smooth[i]
        )[0]

    return map_ordered(one, range(len(views)), threads)
