"""SIFT Flow: dense correspondence of two descriptor images by coarse-to-fine belief propagation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int, Int32, UInt8
from pydantic import BaseModel, ConfigDict, Field

from recon.core.kernels import kernel, maximum, minimum
from recon.core.short_vectors import BYTES, distance, whole_vectors
from recon.core.vectors import (
    LANES,
    larger,
    load,
    load_whole,
    plus,
    smaller,
    splat,
    store,
    store_bytes,
    times,
)
from recon.errors import UsageError
from recon.matching.belief_propagation import MAX_TRUNCATION, data_costs, solve
from recon.matching.guide import Guide


class SiftFlowSettings(BaseModel):
    """Energy and schedule of SIFT Flow; the defaults are those of the TPAMI paper's release."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    alpha: float = Field(510.0, gt=0, description="smoothness cost per pixel of flow difference")
    d: float = Field(10200.0, gt=0, description="smoothness costs are cut here (alpha times 20 px)")
    gamma: float = Field(1.275, ge=0, description="cost per pixel of displacement at full size")
    levels: int = Field(4, ge=1, le=8, description="pyramid levels, each half the size of the one before")
    window: int = Field(
        2, ge=1, le=20, description="search radius at the finest level; one more on each coarser level"
    )
    top_window: int = Field(10, ge=1, le=60, description="search radius at the coarsest level, in its pixels")
    iterations: int = Field(30, ge=1, le=500, description="half sweeps at each level but the coarsest")
    top_iterations: int = Field(60, ge=1, le=500, description="half sweeps at the coarsest level")
    polish: int = Field(
        2,
        ge=0,
        le=20,
        description="sweeps that let each pixel take a neighbour's flow where that lowers the energy",
    )


TPAMI = SiftFlowSettings()  # type: ignore[call-arg]
"""Settings of the TPAMI paper's release."""

SCALEMAPS = SiftFlowSettings(window=5, top_window=20, iterations=60, top_iterations=100)  # type: ignore[call-arg]
"""Settings of the scale propagation paper's release."""


GUIDED_WINDOW = 4
"""Least search radius at the coarsest level round a guide's flow."""

SMALLEST_LEVEL = 4
"""A level whose shorter side is below this is not halved again."""


@dataclass(frozen=True)
class SiftFlowResult:
    """Outcome of ``sift_flow``.

    Attributes:
        flow: target minus source, whole pixels, float32.
        default_cost: what pixels without data at their target paid: the median of all costs plus the smallest one.
        measure: computes ``level_energies``.
    """

    flow: Float32[np.ndarray, "h w 2"]
    default_cost: float
    measure: Callable[[], tuple[float, ...]]

    @cached_property
    def level_energies(self) -> tuple[float, ...]:
        """Energy of each pyramid level's flow, coarsest first, in units of descriptor difference."""
        return self.measure()

    @property
    def energy(self) -> float:
        """The flow's energy at full size."""
        return self.level_energies[-1]


def sift_flow(
    sift_a: UInt8[np.ndarray, "ha wa c"],
    sift_b: UInt8[np.ndarray, "hb wb c"],
    *,
    settings: SiftFlowSettings = TPAMI,
    mask_a: Bool[np.ndarray, "ha wa"] | None = None,
    mask_b: Bool[np.ndarray, "hb wb"] | None = None,
    initial: Float32[np.ndarray, "ha wa 2"] | None = None,
    threads: int = 1,
) -> SiftFlowResult:
    """Compute dense flow from A to B in whole pixels.

    Minimises, over whole-pixel flow, the L1 distance of descriptors + gamma 2^(level - 1) (|u| + |v|) +
    over 4-neighbours and components min(alpha |difference|, d), with sequential dual-layer belief propagation on every
    level of a pyramid (Liu, Yuen, Torralba, TPAMI 2011, equations 1 to 6). As the released code, and unlike
    the paper, the data term is not truncated. Images of different sizes are related by the linear map of
    their corners (the reference maps pixel centres of corners; we map the image areas, which is exact under resizing);
    displacement and smoothness count from that map, unlike the reference: a photo and its smaller copy cost nothing.

    Args:
        sift_a, sift_b: descriptors, uint8, any number of channels up to 257.
        settings: energy and schedule.
        mask_a: where False, A has no data term. mask_b: where False, B cannot be matched by data: such a target costs
            the median of all distances plus the smallest, as a target outside of B does.
        initial: a flow that replaces the coarse start: window centres of the finest level; the pyramid is
            skipped.
        threads: threads for the data term; the belief propagation of one direction is sequential.

    Raises:
        UsageError: channels or mask sizes differ.
    """
    levels = settings.levels if initial is None else 1
    return sift_flow_pyramid(
        descriptor_pyramid(sift_a, levels, mask_a),
        descriptor_pyramid(sift_b, levels, mask_b),
        settings=settings,
        initial=initial,
        threads=threads,
    )


@dataclass(frozen=True)
class DescriptorPyramid:
    """Descriptors and masks of one image at every level, finest first."""

    sift: tuple[UInt8[np.ndarray, "h w c"], ...]
    mask: tuple[Bool[np.ndarray, "h w"], ...]


def descriptor_pyramid(
    sift: UInt8[np.ndarray, "h w c"], levels: int, mask: Bool[np.ndarray, "h w"] | None = None
) -> DescriptorPyramid:
    """Build up to ``levels`` levels (fewer for a tiny image), each half the size of the one before, rounded up.

    Raises:
        UsageError: the mask has another size than the image.
    """
    if mask is not None and mask.shape != sift.shape[:2]:
        raise UsageError(f"mask of {mask.shape} pixels for an image of {sift.shape[:2]}; they must agree")
    sifts = [np.ascontiguousarray(sift)]
    masks = [np.ones(sift.shape[:2], np.bool_) if mask is None else np.ascontiguousarray(mask)]
    while len(sifts) < levels and min(sifts[-1].shape[:2]) >= SMALLEST_LEVEL:
        sifts.append(halve_descriptors(sifts[-1]))
        masks.append(_halve_mask(masks[-1]))
    return DescriptorPyramid(tuple(sifts), tuple(masks))


def sift_flow_pyramid(
    a: DescriptorPyramid,
    b: DescriptorPyramid,
    *,
    settings: SiftFlowSettings = TPAMI,
    initial: Float32[np.ndarray, "ha wa 2"] | None = None,
    guide: Guide | None = None,
    threads: int = 1,
) -> SiftFlowResult:
    """Run ``sift_flow`` between images whose pyramids exist already: both directions of a pair share them.

    With a guide the windows of the coarsest level are centred on its flow, and no wider than its spread asks for.
    """
    pyramid_a, pyramid_b, masks_a, masks_b = a.sift, b.sift, a.mask, b.mask
    if pyramid_a[0].shape[2] != pyramid_b[0].shape[2]:
        raise UsageError(
            f"descriptors of {pyramid_a[0].shape[2]} and {pyramid_b[0].shape[2]} channels cannot be matched"
        )
    if initial is not None and initial.shape != (*pyramid_a[0].shape[:2], 2):
        raise UsageError(f"initial flow has shape {initial.shape}, expected {(*pyramid_a[0].shape[:2], 2)}")
    levels = 1 if initial is not None else min(settings.levels, len(pyramid_a), len(pyramid_b))

    # Costs must fit 16 bit: a truncation beyond the limit scales every cost.
    scale = min(1.0, MAX_TRUNCATION / settings.d)
    flow: Float32[np.ndarray, "h w 2"] | None = None
    found = []
    default = 0.0
    for level in range(levels, 0, -1):
        sift_a, sift_b = pyramid_a[level - 1], pyramid_b[level - 1]
        mask_a, mask_b = masks_a[level - 1], masks_b[level - 1]
        width = sift_a.shape[1]
        top = level == levels and initial is None
        stretch = _whole(_size_offset(sift_a.shape[:2], sift_b.shape[:2]))
        if initial is not None:
            centre = np.rint(initial).astype(np.int32)
        else:
            centre = _window_centres(pyramid_a, pyramid_b, level, flow, guide)
        radius = settings.top_window if top else settings.window + level - 1
        if top and guide is not None:
            spread = math.ceil(guide.spread * width / guide.flow.shape[1])
            radius = min(radius, max(GUIDED_WINDOW, spread + GUIDED_WINDOW // 2))
        iterations = settings.top_iterations if top else settings.iterations
        # The reference halves the graph twice at the coarsest level and (levels - level) times below it.
        hierarchy = 2 if top else (settings.levels if initial is not None else levels) - level
        gamma = settings.gamma * 2 ** (level - 1)
        planes = np.ascontiguousarray(np.moveaxis(centre, -1, 0))
        relative = np.ascontiguousarray(np.moveaxis(centre - stretch, -1, 0))
        costs, default = data_costs(sift_a, sift_b, mask_a, mask_b, planes, radius, scale, threads)
        labels = solve(
            costs,
            relative,
            2 * radius + 1,
            max(1, round(settings.alpha * scale)),
            max(1, round(settings.d * scale)),
            gamma * scale,
            iterations,
            hierarchy,
        )
        whole = np.ascontiguousarray(np.moveaxis(relative + labels - radius, 0, -1))
        if settings.polish and level == 1:
            _polish(
                whole, stretch, whole_vectors(sift_a), whole_vectors(sift_b), masks_a[0], masks_b[0],
                np.float32(settings.alpha), np.float32(settings.d), np.float32(gamma), np.float32(default),
                settings.polish,
            )  # fmt: skip
        flow = (whole + stretch).astype(np.float32)
        found.append((level, flow, default))
    assert flow is not None
    return SiftFlowResult(flow, default, partial(_energies, found, a, b, settings))


def _energies(
    found: Sequence[tuple[int, Float32[np.ndarray, "_ _ 2"], float]],
    a: DescriptorPyramid,
    b: DescriptorPyramid,
    settings: SiftFlowSettings,
) -> tuple[float, ...]:
    """The energy of each level's flow, given with the level and the cost of what has no target."""
    return tuple(
        flow_energy(
            flow,
            a.sift[level - 1],
            b.sift[level - 1],
            settings=settings,
            gamma=settings.gamma * 2 ** (level - 1),
            mask_a=a.mask[level - 1],
            mask_b=b.mask[level - 1],
            default_cost=default,
        )
        for level, flow, default in found
    )


def _window_centres(
    pyramid_a: Sequence[UInt8[np.ndarray, "_ _ c"]],
    pyramid_b: Sequence[UInt8[np.ndarray, "_ _ c"]],
    level: int,
    flow: Float32[np.ndarray, "h2 w2 2"] | None,
    guide: Guide | None,
) -> Int32[np.ndarray, "h w 2"]:
    """Where the windows of a level lie: round the flow of the coarser level; at the coarsest, of a guide or none."""
    size = pyramid_a[level - 1].shape[:2]
    drift = _size_offset(size, pyramid_b[level - 1].shape[:2])
    if flow is not None:
        coarse_drift = _size_offset(pyramid_a[level].shape[:2], pyramid_b[level].shape[:2])
        return np.rint(drift + 2 * _enlarge(flow - coarse_drift, size)).astype(np.int32)
    return _whole(drift) if guide is None else np.rint(_resized_flow(guide.flow, size)).astype(np.int32)


def flow_energy(
    flow: Float32[np.ndarray, "ha wa 2"],
    sift_a: UInt8[np.ndarray, "ha wa c"],
    sift_b: UInt8[np.ndarray, "hb wb c"],
    *,
    settings: SiftFlowSettings = TPAMI,
    gamma: float | None = None,
    mask_a: Bool[np.ndarray, "ha wa"] | None = None,
    mask_b: Bool[np.ndarray, "hb wb"] | None = None,
    default_cost: float = 0.0,
) -> float:
    """Compute the SIFT Flow energy of a whole-pixel flow: data + displacement + smoothness.

    Displacement and smoothness count from the map of A's area onto B's. ``gamma`` overrides the settings' (coarser
    levels double it); ``default_cost`` is what a target outside of B or in its mask costs.
    """
    ma = np.ones(sift_a.shape[:2], np.bool_) if mask_a is None else mask_a
    mb = np.ones(sift_b.shape[:2], np.bool_) if mask_b is None else mask_b
    whole = np.rint(flow).astype(np.int32)
    data = _data_energy(whole, whole_vectors(sift_a), whole_vectors(sift_b), ma, mb, float(default_cost))
    relative = flow - _whole(_size_offset(sift_a.shape[:2], sift_b.shape[:2]))
    displacement = float(np.abs(relative).sum(dtype=np.float64)) * (
        settings.gamma if gamma is None else gamma
    )
    smooth = sum(
        float(
            np.minimum(settings.alpha * np.abs(np.diff(relative, axis=axis)), settings.d).sum(
                dtype=np.float64
            )
        )
        for axis in (0, 1)
    )
    return float(data) + displacement + smooth


@kernel()
def _polish(  # type: ignore[no-untyped-def]
    flow, stretch, sift_a, sift_b, mask_a, mask_b, alpha, d, gamma, default, sweeps
):
    """Iterated conditional modes: a pixel takes the flow of a 4-neighbour where that lowers the energy (in place).

    ``flow`` counts from ``stretch``, the whole-pixel map of A's area onto B's.

    Not part of the reference. Never raises the energy; candidates are not bound to the search window.
    """
    h, w, channels = sift_a.shape
    hb, wb = sift_b.shape[0], sift_b.shape[1]
    dy = (0, 0, 0, -1, 1)
    dx = (0, -1, 1, 0, 0)
    for sweep in range(sweeps):
        for step in range(h * w):
            at = step if sweep % 2 == 0 else h * w - 1 - step
            y = at // w
            x = at - y * w
            u0 = flow[y, x, 0]
            v0 = flow[y, x, 1]
            alike = True
            for k in range(1, 5):
                yn = minimum(maximum(y + dy[k], 0), h - 1)
                xn = minimum(maximum(x + dx[k], 0), w - 1)
                alike = alike and flow[yn, xn, 0] == u0 and flow[yn, xn, 1] == v0
            if alike:
                continue
            own = at * channels
            best = np.float32(1e30)
            best_u = u0
            best_v = v0
            for k in range(5):
                yn = y + dy[k]
                xn = x + dx[k]
                if yn < 0 or yn >= h or xn < 0 or xn >= w:
                    continue
                u = flow[yn, xn, 0]
                v = flow[yn, xn, 1]
                if k > 0 and ((u == u0 and v == v0) or (u == best_u and v == best_v)):
                    continue
                cost = gamma * np.float32(abs(u) + abs(v))
                for j in range(1, 5):
                    yj = y + dy[j]
                    xj = x + dx[j]
                    if yj >= 0 and yj < h and xj >= 0 and xj < w:
                        cost += minimum(alpha * np.float32(abs(u - flow[yj, xj, 0])), d)
                        cost += minimum(alpha * np.float32(abs(v - flow[yj, xj, 1])), d)
                if mask_a[y, x] and cost < best:
                    yb = y + stretch[y, x, 1] + v
                    xb = x + stretch[y, x, 0] + u
                    if yb < 0 or yb >= hb or xb < 0 or xb >= wb or not mask_b[yb, xb]:
                        cost += default
                    else:
                        other = (yb * wb + xb) * channels
                        total = np.int32(0)
                        for c in range(0, channels, BYTES):
                            total = np.int32(total + distance(sift_a, own + c, sift_b, other + c))
                        cost += np.float32(total)
                if cost < best:
                    best = cost
                    best_u = u
                    best_v = v
            flow[y, x, 0] = best_u
            flow[y, x, 1] = best_v


@kernel()
def _data_energy(flow, sift_a, sift_b, mask_a, mask_b, default):  # type: ignore[no-untyped-def]
    h, w, channels = sift_a.shape
    hb, wb = sift_b.shape[0], sift_b.shape[1]
    total = 0.0
    for y in range(h):
        for x in range(w):
            if not mask_a[y, x]:
                continue
            xb = x + flow[y, x, 0]
            yb = y + flow[y, x, 1]
            if xb < 0 or xb >= wb or yb < 0 or yb >= hb or not mask_b[yb, xb]:
                total += default
                continue
            own, other = (y * w + x) * channels, (yb * wb + xb) * channels
            for c in range(0, channels, BYTES):
                total += distance(sift_a, own + c, sift_b, other + c)
    return total


def _size_offset(size_a: tuple[int, int], size_b: tuple[int, int]) -> Float32[np.ndarray, "h w 2"]:
    """Displacement that stretches image A over image B."""
    (ha, wa), (hb, wb) = size_a, size_b
    x = (np.arange(wa) + 0.5) * (wb / wa) - 0.5 - np.arange(wa)
    y = (np.arange(ha) + 0.5) * (hb / ha) - 0.5 - np.arange(ha)
    return np.stack(np.broadcast_arrays(x[None, :], y[:, None]), -1).astype(np.float32)


def _resized_flow(
    flow: Float32[np.ndarray, "h w 2"], size: tuple[int, int]
) -> Float32[np.ndarray, "h2 w2 2"]:
    """Flow at a smaller size, in that size's pixels."""
    small = cv2.resize(flow, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    return np.asarray(small * np.array([size[1] / flow.shape[1], size[0] / flow.shape[0]]), np.float32)


def _whole(drift: Float32[np.ndarray, "h w 2"]) -> Int32[np.ndarray, "h w 2"]:
    """The nearest whole pixel; halves go up everywhere, so that a stretch by two has no jitter."""
    return np.asarray(np.floor(drift + 0.5), np.int32)


def _cubic(x: Float32[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """Keys' cubic convolution kernel with a = -0.5."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0)).astype(np.float32)


def _taps(size: int, target: int) -> tuple[Int[np.ndarray, "n 4"], Float32[np.ndarray, "n 4"]]:
    at = (np.arange(target) + 0.5) * (size / target) - 0.5
    index = np.floor(at).astype(np.int64)[:, None] + np.arange(-1, 3)
    weight = _cubic((at[:, None] - index).astype(np.float32))
    return np.clip(index, 0, size - 1), weight / weight.sum(1, keepdims=True)


def _enlarge(flow: Float32[np.ndarray, "h w 2"], size: tuple[int, int]) -> Float32[np.ndarray, "h2 w2 2"]:
    """Bicubic resampling (a = -0.5) of a coarser field; values are not rescaled."""
    for axis in (0, 1):
        index, weight = _taps(flow.shape[axis], size[axis])
        shape = [1, 1, 1]
        shape[axis] = size[axis]
        flow = sum(np.take(flow, index[:, k], axis) * weight[:, k].reshape(shape) for k in range(4))
    return np.asarray(flow, np.float32)


def _halving_kernel() -> Float32[np.ndarray, "12"]:
    """5-tap Gaussian (sigma 0.67) followed by antialiased cubic halving, as one 12-tap filter of stride 2."""
    x = np.arange(-2, 3)
    gaussian = np.exp(-(x**2) / (2 * 0.67**2))
    gaussian /= gaussian.sum()
    # An output centre lies between input pixels 2i and 2i + 1; the cubic is stretched by two: 8 taps.
    cubic = _cubic(((np.arange(-3, 5) - 0.5) / 2).astype(np.float32))
    return np.convolve(gaussian, cubic / cubic.sum()).astype(np.float32)


_HALVING = _halving_kernel()


def halve_descriptors(sift: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h2 w2 c"]:
    """The next pyramid level: smoothed and halved (sizes rounded up), uint8.

    As the reference: Gaussian of 5x5, sigma 0.67, then antialiased bicubic (a = -0.5) halving, in one filter. The
    reference rounds in between and replicates the border of the smoothed image rather than of the image.
    """
    h, w, c = sift.shape
    whole = whole_vectors(sift)
    out = np.empty(((h + 1) // 2, (w + 1) // 2, whole.shape[2]), np.uint8)
    _halve(whole, _HALVING, np.empty(w * whole.shape[2], np.float32), out)
    return out if c == whole.shape[2] else np.ascontiguousarray(out[..., :c])


@kernel(fastmath=True)
def _halve(image, kernel, row, out):  # type: ignore[no-untyped-def]
    """Writes ``halve_descriptors``; ``row`` is room for a row of the image, smoothed down the columns."""
    h, w, channels = image.shape
    h2, w2 = out.shape[0], out.shape[1]
    nothing, most = splat(np.float32(0)), splat(np.float32(255))
    for y in range(h2):
        for i in range(0, w * channels, LANES):
            value = nothing
            for k in range(12):
                at = minimum(maximum(2 * y + k - 5, 0), h - 1) * w * channels + i
                value = plus(value, times(splat(kernel[k]), load_whole(image, at)))
            store(row, i, value)
        for x in range(w2):
            for i in range(0, channels, LANES):
                value = splat(np.float32(0.5))
                for k in range(12):
                    at = minimum(maximum(2 * x + k - 5, 0), w - 1) * channels + i
                    value = plus(value, times(splat(kernel[k]), load(row, at)))
                value = smaller(larger(value, nothing), most)
                store_bytes(out, (y * w2 + x) * channels + i, value)


def _halve_mask(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h2 w2"]:
    """A coarse pixel may be used where any of its 2x2 pixels may."""
    h, w = mask.shape
    padded = np.pad(mask, ((0, h % 2), (0, w % 2)))
    return np.ascontiguousarray(padded.reshape((h + 1) // 2, 2, (w + 1) // 2, 2).any((1, 3)))
