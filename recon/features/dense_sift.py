"""Dense SIFT: a descriptor for every pixel, at one fixed scale or at a scale of its own.

Two descriptors live here. ``dense_sift`` is the fixed-scale one that SIFT Flow was published with (Liu, Yuen,
Torralba, PAMI 2011). The other takes a scale per pixel: ``build_ladder`` does the work that depends on the
image alone (orientation channels smoothed at a ladder of scales), ``describe`` gathers from it, so that any
number of scale maps of one image cost little.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Int64, UInt8, UInt16

from recon.core.kernels import kernel, maximum, minimum
from recon.core.parallel import map_ordered
from recon.core.vectors import (
    LANES,
    folded,
    halves,
    load,
    load_whole,
    plus,
    smaller,
    splat,
    store,
    store_bytes,
    times,
    total,
)
from recon.features.types import DenseSift, ScaleMap

ORIENTATIONS = 8
CELLS = 4

SMOOTHING = 0.5
"""Blur of the image before its gradients, in bin sizes. VLFeat with magnification 1 has 1.0, Lowe's SIFT
1/3. At 0.5 the nearest descriptor is the true one more often than at 0.7 and 1.0 (Middlebury,
``benchmarks/dense_sift.py``)."""

_CLAMP = 0.2  # largest entry before the second normalisation (Lowe 2004, section 6.1)
_GAIN = 512.0  # uint8 = min(512 x, 255), as VLFeat and COLMAP store SIFT
_NORM_FLOOR = 1e-4  # added to the norm: where gradients are below a fortieth of a grey level, nothing is left
_NATIVE_BLUR = 0.5  # blur of a photo as it comes, in pixels (Lowe 2004, section 3.3)
_PAD = 10  # cells of replicated rim: bin centres reach out 1.5 bins of at most 4 cells, a bin one bin more
_REFERENCE_FLOOR = 0.01  # added to the norm by the released SIFT Flow
_REFERENCE_STRAY = 0.25  # see ``_reference_taps``


@dataclass(frozen=True)
class SiftLadder:
    """Everything of an image that per-pixel scale descriptors need, whatever the scales.

    Attributes:
        height, width: size of the image.
        scale: bin size of each rung in pixels, ascending, (r,) float32.
        layout: per rung its first row in ``channels``, the rows and columns of its grid, and pixels per grid
            cell, (r, 4) int64.
        unit: per rung what one count of ``channels`` is worth, (r,) float32.
        channels: the orientation channels of all rungs, one grid cell a row, (n, 8) uint16. A step of the
            quantisation is 1/65535 of the strongest gradient of the rung.
    """

    height: int
    width: int
    scale: Float32[np.ndarray, " r"]
    layout: Int64[np.ndarray, "r 4"]
    unit: Float32[np.ndarray, " r"]
    channels: UInt16[np.ndarray, "n 8"]

    @property
    def nbytes(self) -> int:
        """Memory of the channels."""
        return self.channels.nbytes


def build_ladder(
    rgb: UInt8[np.ndarray, "h w 3"],
    *,
    smallest: float = 1.0,
    largest: float = 32.0,
    rungs_per_octave: int = 3,
    smoothing: float = SMOOTHING,
    threads: int = 1,
) -> SiftLadder:
    """Orientation channels of an image, smoothed at a ladder of scales.

    For each rung of bin size s the image is blurred to ``smoothing`` * s, its gradient magnitude shared
    linearly between the two nearest of eight directions, and each direction's channel smoothed by the
    triangle of half-width s with which SIFT interpolates between bins. Rungs of s >= 4 live on coarser
    grids (steps of powers of two, 2 to 4 cells a bin). Memory is about 125 bytes per pixel at the defaults.

    Args:
        rgb: (h, w, 3) uint8; its luma is described.
        smallest, largest: bin sizes of the first and the last rung; scales beyond them are clipped.
        rungs_per_octave: ``describe`` interpolates between rungs.
        smoothing: blur in bin sizes; see ``SMOOTHING``.
        threads: rungs are built in parallel.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ValueError(f"expected an (h, w, 3) uint8 image, got {rgb.shape} {rgb.dtype}")
    if not 0.0 < smallest < largest:
        raise ValueError(f"smallest ({smallest}) must be positive and below largest ({largest})")
    grey = cv2.cvtColor(np.ascontiguousarray(rgb).astype(np.float32) / np.float32(255), cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    count = math.ceil(rungs_per_octave * math.log2(largest / smallest) - 1e-9) + 1
    scales = smallest * 2.0 ** (np.arange(count) / rungs_per_octave)
    steps = [max(1, 2 ** math.floor(math.log2(scale / 2.0 + 1e-9))) for scale in scales]
    grids = {step: _padded_grid(grey, step) for step in sorted(set(steps))}
    layout = np.empty((count, 4), np.int64)
    start = 0
    for k, step in enumerate(steps):
        rows, columns = grids[step].shape
        layout[k] = start, rows, columns, step
        start += rows * columns
    channels = np.empty((start, ORIENTATIONS), np.uint16)
    unit = np.empty(count, np.float32)

    def rung(k: int) -> None:
        image, step, scale = grids[steps[k]], steps[k], scales[k]
        # What coarser grids add to the variance: the mean over step x step pixels (step^2 - 1) / 12,
        # differences over twice the step (step^2 - 1) / 3, the gather's interpolation (step^2 - 1) / 6.
        finer = step * step - 1
        present = math.sqrt(finer / 12.0 + finer / 3.0 + _NATIVE_BLUR**2)
        blur = math.sqrt(max((smoothing * scale) ** 2 - present**2, 0.0)) / step
        if blur > 0.1:
            image = cv2.GaussianBlur(image, (0, 0), blur, borderType=cv2.BORDER_REPLICATE)
        bands = np.empty((*image.shape, ORIENTATIONS), np.float32)
        _orientation_bands(image, bands)
        taps = _triangle(math.sqrt(scale * scale - finer) / step)  # a triangle's variance is a sixth
        bands = cv2.sepFilter2D(bands, -1, taps, taps, borderType=cv2.BORDER_REPLICATE)
        top = max(float(bands.max()), 1e-12)
        # Times the scale: gradients of neighbouring rungs then have the same size and mix evenly.
        unit[k] = top / 65535.0 * scale / step
        first = layout[k, 0]
        np.multiply(bands, np.float32(65535.0 / top), out=bands)
        channels[first : first + bands.size // ORIENTATIONS] = bands.reshape(-1, ORIENTATIONS)

    map_ordered(rung, range(count), threads)
    return SiftLadder(height, width, scales.astype(np.float32), layout, unit, channels)


def describe(
    ladder: SiftLadder, scale_map: ScaleMap, *, magnification: float = 1.0, threads: int = 1
) -> DenseSift:
    """A SIFT descriptor at each pixel, upright, at the pixel's own scale.

    4x4 cells of size ``magnification`` * scale around the pixel, eight directions, weighted by a Gaussian of two cells,
    normalised, clamped at 0.2, normalised, and stored as min(512 x, 255). These are VLFeat's conventions for frames of
    orientation 0 and magnification 1 with three differences: the Gaussian window is taken at the centre of each cell,
    the image is blurred less (``SMOOTHING``), and a descriptor between two rungs of the ladder is interpolated, so that
    it changes smoothly with scale. Order of the 128 values: row, column, direction.

    Args:
        ladder: of the image.
        scale_map: (h, w) sigma in pixels; clipped to the range of the ladder.
        magnification: bin size in sigma.
        threads: rows are shared out.

    Raises:
        ValueError: the map has another size than the image, or values that are not positive numbers.
    """
    if scale_map.shape != (ladder.height, ladder.width):
        raise ValueError(f"scale map is {scale_map.shape}, image is {(ladder.height, ladder.width)}")
    sizes = np.ascontiguousarray(scale_map, np.float32) * np.float32(magnification)
    if not (np.isfinite(sizes).all() and (sizes > 0).all()):
        raise ValueError("a scale map must hold positive numbers")
    out = np.empty((ladder.height, ladder.width, CELLS * CELLS * ORIENTATIONS), np.uint8)
    edges = np.linspace(0, ladder.height, 4 * threads + 1).astype(np.int64)
    per_octave = np.float32((len(ladder.scale) - 1) / math.log2(ladder.scale[-1] / ladder.scale[0]))
    window = _cell_window()

    def rows(part: int) -> None:
        _gather(
            ladder.channels,
            ladder.layout,
            ladder.unit,
            ladder.scale[0],
            ladder.scale[-1],
            per_octave,
            sizes,
            window,
            edges[part],
            edges[part + 1],
            np.empty(CELLS * CELLS * ORIENTATIONS, np.float32),
            np.empty(CELLS, np.int64),
            np.empty(CELLS * LANES, np.float32),
            out,
        )

    map_ordered(rows, range(4 * threads), threads)
    return out


def dense_sift(rgb: UInt8[np.ndarray, "h w 3"], *, cell: int = 3) -> DenseSift:
    """Fixed-scale SIFT descriptor of SIFT Flow at every pixel.

    Gradients by [1 -8 0 8 -1]/12 on the image in 0…1, of the colour channel where they are strongest; eight
    directions by the ninth power of the cosine; 4x4 cells of ``cell`` pixels; divided by (norm + 0.01);
    times 255. Follows the released C++ (Liu et al. 2011), down to its asymmetries: cells start at one cell
    to the upper left of the pixel, and its box filter has a stray tap (see ``_reference_taps``). Order:
    row, column, direction.

    Args:
        rgb: (h, w, 3) uint8.
        cell: size of a cell in pixels; the box is 2 * (cell // 2) + 1 pixels wide.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ValueError(f"expected an (h, w, 3) uint8 image, got {rgb.shape} {rgb.dtype}")
    image = np.ascontiguousarray(rgb).astype(np.float32) / np.float32(255)
    slope = np.array([1, -8, 0, 8, -1], np.float32) / np.float32(12)
    one = np.ones(1, np.float32)
    dx = cv2.sepFilter2D(image, -1, slope, one, borderType=cv2.BORDER_REPLICATE)
    dy = cv2.sepFilter2D(image, -1, one, slope, borderType=cv2.BORDER_REPLICATE)
    bands = np.empty((*image.shape[:2], ORIENTATIONS), np.float32)
    angle = np.arange(ORIENTATIONS) * (2 * np.pi / ORIENTATIONS)
    _power_bands(dx, dy, np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32), bands)
    taps = _reference_taps(cell)
    bands = cv2.sepFilter2D(bands, -1, taps, taps, borderType=cv2.BORDER_REPLICATE)
    out = np.empty((*image.shape[:2], CELLS * CELLS * ORIENTATIONS), np.uint8)
    _fixed_gather(bands, cell, np.float32(_REFERENCE_FLOOR), out)
    return out


def _padded_grid(grey: Float32[np.ndarray, "h w"], step: int) -> Float32[np.ndarray, "gh gw"]:
    """Means of step x step blocks of the image, whose border is replicated ``_PAD`` blocks outwards."""
    height, width = grey.shape
    rows, columns = -(-height // step) + 2 * _PAD, -(-width // step) + 2 * _PAD
    rim = _PAD * step
    bottom, right = rows * step - height - rim, columns * step - width - rim
    padded = cv2.copyMakeBorder(grey, rim, bottom, rim, right, cv2.BORDER_REPLICATE)
    return padded if step == 1 else cv2.resize(padded, (columns, rows), interpolation=cv2.INTER_AREA)


def _triangle(half_width: float) -> Float32[np.ndarray, " n"]:
    """Weights 1 - |x| / half_width at whole x, normalised."""
    radius = max(math.ceil(half_width) - 1, 0)
    x = np.arange(-radius, radius + 1)
    taps = 1.0 - np.abs(x) / half_width if radius else np.ones(1)
    return (taps / taps.sum()).astype(np.float32)


def _cell_window() -> Float32[np.ndarray, "4"]:
    """Gaussian weight of a cell along one axis at its centre; sigma is half of the descriptor (Lowe 2004, section
    6.1)."""
    d = np.arange(CELLS) - (CELLS - 1) / 2
    return np.exp(-(d**2) / (2 * (CELLS / 2) ** 2)).astype(np.float32)


def _reference_taps(cell: int) -> Float32[np.ndarray, " n"]:
    """The box filter of the released SIFT Flow: ones over the cell, and a stray 0.25 one cell before its
    centre.

    For cells of 3 pixels these are [0.25, 0, 1, 1, 1, 0, 0], recovered from its descriptors.
    """
    taps = np.zeros(2 * cell + 1, np.float32)
    taps[cell - cell // 2 : cell + cell // 2 + 1] = 1.0
    taps[0] = max(taps[0], _REFERENCE_STRAY)
    return taps


@kernel(fastmath=True)
def _orientation_bands(image, bands):  # type: ignore[no-untyped-def]
    """Gradient magnitude shared linearly between the two nearest of eight directions."""
    height, width = image.shape
    to_sector = np.float32(4.0 / np.pi)
    half = np.float32(0.5)
    for y in range(height):
        up, down = maximum(y - 1, 0), minimum(y + 1, height - 1)
        for x in range(width):
            left, right = maximum(x - 1, 0), minimum(x + 1, width - 1)
            gx = half * (image[y, right] - image[y, left])
            gy = half * (image[down, x] - image[up, x])
            for k in range(8):
                bands[y, x, k] = np.float32(0)
            norm = np.sqrt(gx * gx + gy * gy)
            sector = np.arctan2(gy, gx) * to_sector
            if sector < 0:
                sector += np.float32(8)
            low = np.int64(sector)
            part = sector - np.float32(low)
            bands[y, x, low & 7] += norm * (np.float32(1) - part)
            bands[y, x, (low + 1) & 7] += norm * part


@kernel(fastmath=True, error_model="numpy")
def _gather(  # type: ignore[no-untyped-def]
    channels,
    layout,
    unit,
    smallest,
    largest,
    per_octave,
    sizes,
    window,
    first,
    last,
    flat,
    column,
    across,
    out,
):
    """Descriptors of the rows first…last - 1. ``flat`` is room for a descriptor; ``column`` and ``across`` are for the
    places of its cells in a row, and their weights in vectors: eight of the left, eight of the right grid cell."""
    width = sizes.shape[1]
    rungs = layout.shape[0]
    one = np.float32(1)
    for y in range(first, last):
        for x in range(width):
            size = minimum(maximum(sizes[y, x], smallest), largest)
            position = np.log2(size / smallest) * per_octave
            low = minimum(np.int64(position), rungs - 2)
            upper_share = position - np.float32(low)
            for i in range(0, 128, LANES):
                store(flat, i, splat(np.float32(0)))
            for side in range(2):
                k = low + side
                share = upper_share if side == 1 else one - upper_share
                if share < np.float32(1e-3):
                    continue
                share *= unit[k]
                base, rows, columns = layout[k, 0], layout[k, 1], layout[k, 2]
                inverse = one / np.float32(layout[k, 3])
                v_centre = (np.float32(y) + np.float32(0.5)) * inverse - np.float32(0.5) + np.float32(_PAD)
                u_centre = (np.float32(x) + np.float32(0.5)) * inverse - np.float32(0.5) + np.float32(_PAD)
                spread = size * inverse
                for j in range(4):
                    u = u_centre + (np.float32(j) - np.float32(1.5)) * spread
                    u = minimum(maximum(u, np.float32(0)), np.float32(columns) - np.float32(1.01))
                    column[j] = np.int64(u)
                    right = (u - np.float32(column[j])) * share * window[j]
                    store(across, j * LANES, halves(share * window[j] - right, right))
                for i in range(4):
                    v = v_centre + (np.float32(i) - np.float32(1.5)) * spread
                    v = minimum(maximum(v, np.float32(0)), np.float32(rows) - np.float32(1.01))
                    v0 = np.int64(v)
                    lower = (v - np.float32(v0)) * window[i]
                    up, down = splat(window[i] - lower), splat(lower)
                    row = base + v0 * columns
                    for j in range(0, 4, 2):
                        p, q = 8 * (row + column[j]), 8 * (row + column[j + 1])
                        one_cell = plus(
                            times(up, load_whole(channels, p)),
                            times(down, load_whole(channels, p + 8 * columns)),
                        )
                        next_cell = plus(
                            times(up, load_whole(channels, q)),
                            times(down, load_whole(channels, q + 8 * columns)),
                        )
                        both = folded(
                            times(one_cell, load(across, j * LANES)),
                            times(next_cell, load(across, (j + 1) * LANES)),
                        )
                        at = 32 * i + 8 * j
                        store(flat, at, plus(load(flat, at), both))
            squares = splat(np.float32(0))
            for i in range(0, 128, LANES):
                squares = plus(squares, times(load(flat, i), load(flat, i)))
            scale = splat(one / (np.sqrt(total(squares)) + np.float32(_NORM_FLOOR)))
            squares = splat(np.float32(0))
            for i in range(0, 128, LANES):
                value = smaller(times(load(flat, i), scale), splat(np.float32(_CLAMP)))
                store(flat, i, value)
                squares = plus(squares, times(value, value))
            # The floor above already took care of flat pixels: keep their length below one.
            scale = splat(np.float32(_GAIN) / maximum(np.sqrt(total(squares)), np.float32(0.1)))
            at = (y * width + x) * 128
            for i in range(0, 128, LANES):
                store_bytes(out, at + i, smaller(times(load(flat, i), scale), splat(np.float32(255))))


@kernel(fastmath=True)
def _power_bands(dx, dy, cosines, sines, bands):  # type: ignore[no-untyped-def]
    """Per direction: magnitude times the ninth power of the positive part of the cosine."""
    height, width, colours = dx.shape
    for y in range(height):
        for x in range(width):
            best = np.float32(-1)
            gx = np.float32(0)
            gy = np.float32(0)
            for c in range(colours):
                energy = dx[y, x, c] * dx[y, x, c] + dy[y, x, c] * dy[y, x, c]
                if energy > best:
                    best, gx, gy = energy, dx[y, x, c], dy[y, x, c]
            norm = np.sqrt(best)
            inverse = np.float32(1) / maximum(norm, np.float32(1e-12))
            for k in range(8):
                cosine = maximum((gx * cosines[k] + gy * sines[k]) * inverse, np.float32(0))
                second = cosine * cosine
                fourth = second * second
                bands[y, x, k] = fourth * fourth * cosine * norm


@kernel(fastmath=True)
def _fixed_gather(bands, cell, floor, out):  # type: ignore[no-untyped-def]
    height, width = bands.shape[:2]
    d = np.empty((16, 8), np.float32)
    for y in range(height):
        for x in range(width):
            total = np.float32(0)
            for i in range(4):
                v = minimum(maximum(y + (i - 1) * cell, 0), height - 1)
                for j in range(4):
                    u = minimum(maximum(x + (j - 1) * cell, 0), width - 1)
                    for c in range(8):
                        value = bands[v, u, c]
                        d[4 * i + j, c] = value
                        total += value * value
            scale = np.float32(255) / (np.sqrt(total) + floor)
            for i in range(16):
                for c in range(8):
                    out[y, x, 8 * i + c] = np.uint8(minimum(d[i, c] * scale, np.float32(255)))
