"""Depth and normals of one view refined by multi-view photo-consistency, with operations on whole images.

The inverse depth map is changed as a whole and kept, pixel by pixel, where the photos agree better with the change
(``photo_consistency``). Changes on offer are

- the map shifted by some pixels along its own planes, in four directions: a surface that is found in one place spreads
    over its surroundings, as in PatchMatch (Bleyer et al., *PatchMatch stereo*, BMVC 2011), and holes close from their
    rims (not in the last passes);
- level planes at all heights, at the smallest size: ground that runs towards the camera below everything that flow
    knows is not reached by shifts of planes from its rim;
- a plane fitted to the surroundings;
- a Newton step on the score, from the map moved by a fraction of a pixel of disparity both ways;
- in the last passes the depth that the neighbours' maps see, when going there and back is part of the score
    (Xu & Tao, *Multi-Scale Geometric Consistency Guided Multi-View Stereo*, CVPR 2019, equation 9).

All is done from small image sizes to large ones. The cost of a change does not depend on the map, so the time is known
beforehand; nothing is random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float32, Float64, UInt8

from recon.core.cameras import PinholeView
from recon.dense.photo_consistency import (
    Sources,
    Window,
    adaptive_window,
    carry_over,
    pack_sources,
    photo_consistency,
    projection_row,
    round_trips,
)
from recon.dense.planes import (
    fit_planes,
    inverse_depth,
    normals_from_planes,
    planes_from_depth,
    resize_planes,
)
from recon.dense.types import DepthMap

# Rounds at full size, side of the compared windows in pixels, and number of image sizes.
ITERATIONS, PATCH, LEVELS = 2, 9, 4

_F32 = npt.NDArray[np.float32]
# An inverse depth map, its score, and that of its best two views.
_Judged = tuple[_F32, _F32, _F32]

# Shifts on offer at each size, pixels, largest size first; sizes beyond use the last. At the two largest sizes, where
# an offer costs most, each round takes one of them in turn.
_SHIFTS = ((3, 7), (2, 5, 11), (2, 4, 9, 17))
# What the score must gain for a shifted plane to be taken, against flicker between planes that are as good.
_GAIN = 0.01
# The flow's depth replaces what came up from the size below if it scores better by this.
_GAIN_OF_START = 0.02
# Level planes on offer at the smallest size, at most one per pixel of disparity.
_HEIGHTS = 24
# Going to the neighbours and back, in pixels, is clipped here and weighs this much per pixel.
_TRIP_CLIP, _TRIP_WEIGHT = 2.0, 0.15
# Pixels of disparity between neighbouring pixels above which they are different surfaces: where nothing is known of
# their slopes, and off known slopes. A gate that knows no slopes takes ground at a grazing angle for many surfaces.
_STEEPEST, _TOLERANCE = 0.5, 0.25
# Newton steps start from differences over this many pixels of disparity, one per round, and are at most 1.5 of them.
_DIFFERENCES = (1.0, 0.5, 0.25)
_LONGEST_STEP = 1.5
# Weight of the surroundings' plane in the smoothing after each round; the pixel's own weight is the square of its
# score times its curvature.
_SMOOTHING = 0.15
# Spacing of the grid on which the disparity per inverse depth is computed: it varies slowly.
_RATE_GRID = 8
# Radius of the windows in which planes are fitted for the normals, pixels.
_NORMAL_RADIUS = 4
# Smallest side of an image that is still halved.
_MIN_SIDE = 48


@dataclass(frozen=True)
class _Level:
    """One image size: the photos, and what the neighbours know."""

    view: PinholeView
    window: Window
    sources: Sources
    limits: tuple[float, float]
    inverse: Sources | None = None
    back: _F32 | None = None

    def judge(self, w: _F32) -> tuple[_F32, _F32]:
        """The score, less what the neighbours' disagreement takes from it; and the best two views alone."""
        score, best_two = photo_consistency(w, self.sources, self.window)
        if self.inverse is not None and self.back is not None:
            score -= np.float32(_TRIP_WEIGHT) * round_trips(w, self.inverse, self.back, _TRIP_CLIP)
        return score, best_two

    def judged(self, w: _F32) -> _Judged:
        """The map with its score and that of the best two views."""
        return w, *self.judge(w)

    def fit(
        self, w: _F32, trust: _F32, rate: _F32, slopes: tuple[_F32, _F32] | None = None
    ) -> tuple[_F32, _F32, _F32]:
        """Planes of the surroundings; with known slopes only of what lies close to them."""
        down, across = self.window.down, self.window.across
        if slopes is None:
            return fit_planes(w, trust, rate, _STEEPEST, down, across)
        return fit_planes(w, trust, rate, _TOLERANCE, down, across, slopes=slopes)

    def clip(self, w: _F32) -> _F32:
        return np.clip(w, np.float32(self.limits[0]), np.float32(self.limits[1]), dtype=np.float32)


def disparity_rate(sources: Sources, w: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Pixels of disparity per unit of inverse depth, in the view that feels it most."""
    h, width = w.shape
    xs, ys = np.meshgrid(
        np.arange(0, width, _RATE_GRID, dtype=np.float32), np.arange(0, h, _RATE_GRID, dtype=np.float32)
    )
    coarse = w[::_RATE_GRID, ::_RATE_GRID]
    rate = np.full(coarse.shape, 1e-12, np.float32)
    for P in sources.P:
        pz = np.maximum(P[6] * xs + P[7] * ys + P[8] + P[11] * coarse, np.float32(1e-6))
        u = (P[0] * xs + P[1] * ys + P[2] + P[9] * coarse) / pz
        t = (P[3] * xs + P[4] * ys + P[5] + P[10] * coarse) / pz
        rate = np.maximum(rate, np.hypot((P[9] - u * P[11]) / pz, (P[10] - t * P[11]) / pz))
    scale = np.array([[_RATE_GRID, 0, 0], [0, _RATE_GRID, 0]], np.float32)
    grown = cv2.warpAffine(rate, scale, (width, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(grown, np.float32)


def fill_holes(w: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Positive values kept, holes (0) filled from their surroundings by push-pull over halved sizes.

    Gortler et al., *The Lumigraph*, SIGGRAPH 1996, section 3.4.
    """
    known = (w > 0).astype(np.float32)
    sizes = [(w * known, known)]
    while min(sizes[-1][0].shape) > 2:
        total, weight = sizes[-1]
        half = ((total.shape[1] + 1) // 2, (total.shape[0] + 1) // 2)
        sizes.append(tuple(cv2.resize(a, half, interpolation=cv2.INTER_AREA) for a in (total, weight)))
    total, weight = sizes[-1]
    filled = np.where(weight > 0, total / np.maximum(weight, 1e-12), w[w > 0].mean())
    for total, weight in sizes[-2::-1]:
        up = cv2.resize(filled, (total.shape[1], total.shape[0]), interpolation=cv2.INTER_LINEAR)
        filled = np.where(weight > 1e-3, total / np.maximum(weight, 1e-12), up)
    return filled.astype(np.float32)


def _shifted(a: _F32, dx: int, dy: int) -> _F32:
    """The image moved by whole pixels, row by row in memory; what comes in from outside repeats the border."""
    h, width = a.shape
    if dy:
        a = np.take(a, np.clip(np.arange(h) - dy, 0, h - 1), axis=0)
    if dx:
        a = np.take(a, np.clip(np.arange(width) - dx, 0, width - 1), axis=1)
    return a


def _round(level: _Level, judged: _Judged, number: int, shifts: Sequence[int]) -> _F32:
    """One round of offers, a Newton step and smoothing."""
    w, score, best_two = judged
    rate = disparity_rate(level.sources, w)
    trust = np.clip(best_two, 0.02, 1.0) ** 2
    _, gx, gy = level.fit(w, trust, rate)
    plane, gx, gy = level.fit(w, trust, rate, (gx, gy))
    offered, _ = level.judge(plane)
    better = offered > score
    w, score = np.where(better, plane, w), np.where(better, offered, score)
    for step in shifts:
        for dx, dy in ((step, 0), (-step, 0), (0, step), (0, -step)):
            sx, sy = _shifted(gx, dx, dy), _shifted(gy, dx, dy)
            moved = level.clip(_shifted(w, dx, dy) + (sx * np.float32(dx) if dx else sy * np.float32(dy)))
            offered, _ = level.judge(moved)
            better = offered > score + np.float32(_GAIN)
            w, score = np.where(better, moved, w), np.where(better, offered, score)
            gx, gy = np.where(better, sx, gx), np.where(better, sy, gy)
    return _polish(level, (w, score), rate, (gx, gy), _DIFFERENCES[min(number, len(_DIFFERENCES) - 1)])


def _polish(
    level: _Level, scored: tuple[_F32, _F32], rate: _F32, slopes: tuple[_F32, _F32], difference: float
) -> _F32:
    """A Newton step on the score where it raises it, then smoothing where the score is low or flat."""
    w, score = scored
    step = np.float32(difference) / rate
    above, _ = level.judge(w + step)
    below, _ = level.judge(level.clip(w - step))
    curvature = above + below - 2 * score
    peaked = curvature < -1e-4
    newton = np.where(peaked, 0.5 * (below - above) / np.minimum(curvature, -1e-4), np.sign(above - below))
    moved = level.clip(w + np.clip(newton, -_LONGEST_STEP, _LONGEST_STEP).astype(np.float32) * step)
    offered, _ = level.judge(moved)
    better = offered > score
    w, score = np.where(better, moved, w), np.where(better, offered, score)
    sure = np.clip(score, 0, 1) ** 2 * np.clip(-curvature / difference**2, 0, 1) + np.float32(1e-4)
    plane, _, _ = level.fit(w, sure, rate, slopes)
    smoothed = (sure * w + np.float32(_SMOOTHING) * plane) / (sure + np.float32(_SMOOTHING))
    return level.clip(np.asarray(cv2.medianBlur(smoothed.astype(np.float32), 3)))


def _first(level: _Level, judged: _Judged, offers: Sequence[_F32], gain: float) -> _Judged:
    """The map with what other maps (0 where they know nothing) say where they score better by ``gain``."""
    w, score, best_two = judged
    for offer in offers:
        known = level.clip(np.where(offer > 0, offer, w))
        offered, pair = level.judge(known)
        better = offered > score + np.float32(gain)
        w, score, best_two = (
            np.where(better, new, old) for new, old in ((known, w), (offered, score), (pair, best_two))
        )
    return w, score, best_two


def _level_planes(level: _Level, up: npt.NDArray[np.float64]) -> list[_F32]:
    """Level planes below the camera: inverse depth over the whole image, 0 where they are out of the limits."""
    view, (low, high) = level.view, level.limits
    xs, ys = np.meshgrid(np.arange(view.width), np.arange(view.height))
    rays = np.stack([xs, ys, np.ones_like(xs)], axis=-1) @ np.linalg.inv(view.K).T
    # Inverse depth of the level plane one unit below the camera.
    unit = rays @ (view.cam_from_world[:, :3] @ -up)
    most = float(unit.max())
    if most <= 0:
        return []
    middle = np.full(unit.shape, 0.5 * (low + high), np.float32)
    pixels = (high - low) * float(np.median(disparity_rate(level.sources, middle)))
    count = int(min(_HEIGHTS, max(1.0, np.ceil(pixels))))
    planes = [unit * (nearest / most) for nearest in np.linspace(low, high, count + 1)[1:]]
    return [np.where((w >= low) & (w <= high), w, 0).astype(np.float32) for w in planes]


@dataclass(frozen=True)
class _Size:
    """The photos at one size."""

    view: PinholeView
    grey: _F32
    neighbours: tuple[tuple[PinholeView, _F32], ...]


def _sizes(
    reference: PinholeView, grey: _F32, neighbours: Sequence[tuple[PinholeView, _F32]], count: int
) -> list[_Size]:
    """The photos at ``count`` sizes at most, each half the one before."""
    sizes = [_Size(reference, grey, tuple(neighbours))]
    while len(sizes) < count and min(sizes[-1].grey.shape) >= _MIN_SIDE:
        last = sizes[-1]
        small = _halved(last.grey)
        view = last.view.resized(small.shape[1], small.shape[0])
        photos = [(v, _halved(g)) for v, g in last.neighbours]
        sizes.append(_Size(view, small, tuple((v.resized(g.shape[1], g.shape[0]), g) for v, g in photos)))
    return sizes


def _halved(image: _F32) -> _F32:
    h, w = image.shape
    return np.asarray(
        cv2.resize(image, ((w + 1) // 2, (h + 1) // 2), interpolation=cv2.INTER_AREA), np.float32
    )


def _as_float(grey: npt.NDArray[np.generic]) -> _F32:
    """Grey in 0…1, float32, contiguous."""
    if grey.dtype == np.uint8:
        return np.ascontiguousarray(grey.astype(np.float32) / np.float32(255.0))
    return np.ascontiguousarray(grey, np.float32)


def _starts(initial: DepthMap, sizes: Sequence[_Size]) -> list[_F32]:
    """The initial inverse depth at every size, 0 where unknown."""
    h, w = initial.depth.shape
    if all(size.grey.shape == (h, w) for size in sizes):
        return [inverse_depth(initial.depth)] * len(sizes)
    planes = planes_from_depth(initial.depth)
    starts = []
    for size in sizes:
        shape = (size.grey.shape[0], size.grey.shape[1])
        while min(h, w) > 1 and (planes[0].shape[0] >= 2 * shape[0] or planes[0].shape[1] >= 2 * shape[1]):
            planes = _halved_planes(*planes)
        starts.append(resize_planes(*planes, shape)[0])
    return starts


def _halved_planes(w: _F32, gx: _F32, gy: _F32) -> tuple[_F32, _F32, _F32]:
    """Planes at half the size: the mean over the known pixels of each 2x2 block."""
    known = (w > 0).astype(np.float32)
    weight = np.maximum(_halved(known), np.float32(1e-6))
    found = weight > 0.1
    halves = [np.where(found, _halved(a * known) / weight, np.float32(0)) for a in (w, gx, gy)]
    return halves[0], halves[1] * np.float32(2), halves[2] * np.float32(2)


def refine_depth(
    reference: PinholeView,
    grey: Float32[np.ndarray, "h w"] | UInt8[np.ndarray, "h w"],
    neighbours: Sequence[tuple[PinholeView, Float32[np.ndarray, "_ _"] | UInt8[np.ndarray, "_ _"]]],
    initial: DepthMap,
    *,
    mask: Bool[np.ndarray, "h w"] | None = None,
    neighbour_depths: Sequence[DepthMap] | None = None,
    iterations: int = ITERATIONS,
    patch: int = PATCH,
    levels: int = LEVELS,
    up: Float64[np.ndarray, "3"] | None = None,
    described: bool = True,
) -> DepthMap:
    """Depth and normals of a view, refined round an initial depth by photo-consistency with its neighbours.

    Args:
        reference: the view.
        grey: its photo, 0…1 float32 (or uint8), of the view's size.
        neighbours: posed photos of the same scene (undistorted), best first; sizes may differ.
        initial: depth to start at, of any size (it is brought to the view's size); 0 where unknown.
        mask: True where depth is wanted.
        neighbour_depths: depth maps of the neighbours (any size): adds the geometric consistency term and offers
            their depth. Then only the full size is worked on.
        iterations: rounds at full size; smaller sizes get one more.
        patch: side of the windows in pixels (odd).
        levels: number of sizes, each half the one above; 1 refines at full size alone.
        up: direction in the world in which level ground is looked for; None where it is not known.
        described: False leaves normals and confidence 0, of a depth that is refined again.

    Returns:
        Depth, normals, and as confidence the mean correlation of the best two views. Where the start knew nothing and
        no offer agreed the depth is a guess with low confidence.

    Raises:
        ValueError: for a photo, mask or depth of another size than its view, or without neighbours.
    """
    shape = (reference.height, reference.width)
    _check(reference, grey, neighbours, mask, neighbour_depths)
    if not (initial.depth > 0).any():
        return _undescribed(np.zeros(shape, np.float32))
    near, far = np.percentile(initial.depth[initial.depth > 0], [0.5, 99.5])
    # Planes may spread beyond what the start knew, by a factor of two in depth.
    limits = (0.5 / float(far), 2.0 / float(near))
    photos = [(view, _as_float(image)) for view, image in neighbours]
    sizes = _sizes(reference, _as_float(grey), photos, 1 if neighbour_depths is not None else levels)
    starts = _starts(initial, sizes)
    w: _F32 | None = None
    for number in range(len(sizes) - 1, -1, -1):
        size, start = sizes[number], starts[number]
        level = _Level(
            size.view,
            adaptive_window(size.grey, max(1, patch // 2)),
            pack_sources(size.view, size.neighbours),
            limits,
        )
        offers: Sequence[_F32] = ()
        gain = _GAIN
        if w is None:
            w = level.clip(fill_holes(start))
            if up is not None and neighbour_depths is None:
                offers = _level_planes(level, up)
        else:
            w = level.clip(cv2.resize(w, (start.shape[1], start.shape[0]), interpolation=cv2.INTER_LINEAR))
            offers, gain = [start], _GAIN_OF_START
        if neighbour_depths is not None:
            level, offers = _with_neighbours(level, size, neighbour_depths)
        judged = _first(level, level.judged(w), offers, gain)
        w = judged[0]
        for i in range(iterations + (number > 0)):
            judged = judged if i == 0 else level.judged(w)
            # In the last passes the neighbours' maps bring what shifts would: with both, depth on 0.1 to 0.2% more of
            # the pixels for a third more of the time.
            w = _round(level, judged, i, _shifts(number, i) if neighbour_depths is None else ())
    assert w is not None
    found = _described(level, w) if described else _undescribed((1.0 / w).astype(np.float32))
    return found if mask is None else found.only(mask)


def _shifts(number: int, turn: int) -> tuple[int, ...]:
    """Shifts that a round at a size offers; size 0 is the full one."""
    shifts = _SHIFTS[min(number, len(_SHIFTS) - 1)]
    return shifts if number > 1 else (shifts[turn % len(shifts)],)


def _with_neighbours(level: _Level, size: _Size, depths: Sequence[DepthMap]) -> tuple[_Level, list[_F32]]:
    """The level with what the neighbours' maps know, and these maps as the reference sees them."""
    views = [view for view, _ in size.neighbours]
    maps = [_at_size(inverse_depth(d.depth), v) for d, v in zip(depths, views, strict=True)]
    back = np.stack([projection_row(size.view, view) for view in views])
    inverse = pack_sources(size.view, list(zip(views, maps, strict=True)))
    shape = (size.grey.shape[0], size.grey.shape[1])
    offers = [carry_over(m, row, shape) for m, row in zip(maps, back, strict=True)]
    return replace(level, inverse=inverse, back=back), offers


def _at_size(a: _F32, view: PinholeView) -> _F32:
    """A map at a view's size: nearest pixel, no blending over edges."""
    if a.shape == (view.height, view.width):
        return a
    return np.asarray(cv2.resize(a, (view.width, view.height), interpolation=cv2.INTER_NEAREST), np.float32)


def _described(level: _Level, w: _F32) -> DepthMap:
    """Depth, normals and confidence of an inverse depth map."""
    _, best_two = photo_consistency(w, level.sources, level.window)
    depth = (1.0 / w).astype(np.float32)
    normal = normals_from_planes(level.view, *planes_from_depth(depth, radius=_NORMAL_RADIUS))
    return DepthMap(depth, normal, np.clip(best_two, 0, 1))


def _undescribed(depth: _F32) -> DepthMap:
    """A depth of which no more is known."""
    return DepthMap(depth, np.zeros((*depth.shape, 3), np.float32), np.zeros_like(depth))


def _check(
    reference: PinholeView,
    grey: npt.NDArray[np.generic],
    neighbours: Sequence[tuple[PinholeView, npt.NDArray[np.generic]]],
    mask: npt.NDArray[np.bool_] | None,
    depths: Sequence[DepthMap] | None,
) -> None:
    """Raises where something does not fit its view."""
    if not neighbours:
        raise ValueError("refine_depth needs at least one neighbour")
    shape = (reference.height, reference.width)
    if grey.shape != shape or (mask is not None and mask.shape != shape):
        raise ValueError(f"photo or mask of {reference.name} is not {reference.width}x{reference.height}")
    for view, image in neighbours:
        if image.shape != (view.height, view.width):
            raise ValueError(f"photo of {view.name} is not {view.width}x{view.height}")
    if depths is not None and len(depths) != len(neighbours):
        raise ValueError("neighbour_depths must have one depth map for each neighbour")
