"""Dense SIFT: a descriptor for every pixel, at one fixed scale or at a scale of its own.

Two descriptors live here. ``dense_sift`` is the fixed-scale one that SIFT Flow was published with. The other takes a
scale per pixel: ``build_ladder`` does the work that depends on the image alone (orientation channels, smoothed
at a ladder of scales), ``describe`` gathers from it, so that any number of scale maps of one image cost little.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, UInt8, UInt16
from numba import njit

from recon.features.types import DenseSift, ScaleMap

ORIENTATIONS = 8
CELLS = 4

_CLAMP = 0.2  # Lowe 2004, section 6.1


@dataclass(frozen=True)
class SiftRung:
    """Orientation channels of an image at one scale.

    Attributes:
        scale: bin size in pixels of the image.
        step: pixels of the image per cell of the grid (a power of two).
        pad: cells added on every side.
        channels: (h', w', 8) uint16; the value times ``unit`` is gradient energy.
    """

    scale: float
    step: int
    pad: int
    unit: float
    channels: UInt16[np.ndarray, "gh gw 8"]


@dataclass(frozen=True)
class SiftLadder:
    """Everything of an image that per-pixel scale descriptors need, whatever the scales."""

    height: int
    width: int
    rungs: tuple[SiftRung, ...]

    @property
    def nbytes(self) -> int:
        return sum(rung.channels.nbytes for rung in self.rungs)


def build_ladder(
    rgb: UInt8[np.ndarray, "h w 3"],
    *,
    smallest: float = 1.0,
    largest: float = 32.0,
    rungs_per_octave: int = 3,
    smoothing: float = 0.6,
    threads: int = 1,
) -> SiftLadder:
    """Orientation channels of an image, smoothed at a ladder of scales."""
    grey = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY).astype(np.float32) / np.float32(255)
    height, width = grey.shape
    count = math.ceil(rungs_per_octave * math.log2(largest / smallest)) + 1
    octaves: dict[int, Float32[np.ndarray, "h w"]] = {}
    jobs = []
    pad = 12
    level = cv2.copyMakeBorder(grey, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
    del level
    for k in range(count):
        scale = smallest * 2.0 ** (k / rungs_per_octave)
        step = max(1, 2 ** math.floor(math.log2(scale / 2.0))) if scale >= 2 else 1
        if step not in octaves:
            octaves[step] = _subsampled(grey, step)
        jobs.append((scale, step))

    def one(job: tuple[float, int]) -> SiftRung:
        scale, step = job
        # Sampling positions are the block centres of step x step pixels.
        base = octaves[step]
        already = 0.5 * step if step > 1 else 0.5
        wanted = max(smoothing * scale, already)
        sigma = math.sqrt(max(wanted**2 - already**2, 0.0)) / step
        image = cv2.copyMakeBorder(base, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
        if sigma > 0.05:
            image = cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        bands = np.empty((*image.shape, ORIENTATIONS), np.float32)
        _orientation_bands(image, bands)
        kernel = _triangle(scale / step)
        bands = cv2.sepFilter2D(bands, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE)
        top = max(float(bands.max()), 1e-12)
        return SiftRung(scale, step, pad, top / 65535.0, (bands * (65535.0 / top) + 0.5).astype(np.uint16))

    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            rungs = tuple(pool.map(one, jobs))
    else:
        rungs = tuple(one(job) for job in jobs)
    return SiftLadder(height, width, rungs)


def describe(
    ladder: SiftLadder, scale_map: ScaleMap, *, magnification: float = 1.0, threads: int = 1
) -> DenseSift:
    """A descriptor at each pixel, at the pixel's own scale."""
    if scale_map.shape != (ladder.height, ladder.width):
        raise ValueError(f"scale map is {scale_map.shape}, image is {(ladder.height, ladder.width)}")
    scales = np.array([rung.scale for rung in ladder.rungs])
    bins = np.ascontiguousarray(scale_map, np.float32) * np.float32(magnification)
    position = np.interp(np.log(np.maximum(bins, 1e-6)), np.log(scales), np.arange(len(scales)))
    flat = np.concatenate([rung.channels.ravel() for rung in ladder.rungs])
    sizes = [rung.channels.size for rung in ladder.rungs]
    start = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    info = np.array([(r.channels.shape[0], r.channels.shape[1], r.step, r.pad) for r in ladder.rungs], np.int64)
    unit = np.array([rung.unit for rung in ladder.rungs], np.float32)
    window = _cell_window()
    bins = np.clip(bins, scales[0], scales[-1]).astype(np.float32)
    out = np.empty((ladder.height, ladder.width, CELLS * CELLS * ORIENTATIONS), np.uint8)
    edges = np.linspace(0, ladder.height, threads + 1).astype(int)

    def rows(part: int) -> None:
        _gather(
            flat, start, info, unit, position.astype(np.float32), bins, window, edges[part], edges[part + 1], out
        )

    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(rows, range(threads)))
    else:
        rows(0)
    return out


def dense_sift(rgb: UInt8[np.ndarray, "h w 3"], *, cell: int = 3) -> DenseSift:
    """Fixed-scale descriptor of SIFT Flow at every pixel."""
    image = np.ascontiguousarray(rgb).astype(np.float32) / np.float32(255)
    kernel = np.array([1, -8, 0, 8, -1], np.float32) / np.float32(12)
    one = np.ones(1, np.float32)
    dx = cv2.sepFilter2D(image, -1, kernel, one, borderType=cv2.BORDER_REPLICATE)
    dy = cv2.sepFilter2D(image, -1, one, kernel, borderType=cv2.BORDER_REPLICATE)
    energy = dx * dx + dy * dy
    channel = energy.argmax(axis=2)[..., None]
    gx = np.take_along_axis(dx, channel, 2)[..., 0]
    gy = np.take_along_axis(dy, channel, 2)[..., 0]
    norm = np.sqrt(gx * gx + gy * gy)
    safe = np.maximum(norm, 1e-12)
    angle = 2 * np.pi / ORIENTATIONS * np.arange(ORIENTATIONS)
    cosine = (gx / safe)[..., None] * np.cos(angle) + (gy / safe)[..., None] * np.sin(angle)
    bands = (np.maximum(cosine, 0) ** 9 * norm[..., None]).astype(np.float32)
    taps = np.full(cell + 2, 0.5, np.float32)
    taps[0] = taps[-1] = 0.25
    bands = cv2.sepFilter2D(bands, -1, taps, taps, borderType=cv2.BORDER_REPLICATE)
    height, width = norm.shape
    out = np.empty((height, width, CELLS, CELLS, ORIENTATIONS), np.float32)
    for i in range(CELLS):
        rows = np.clip(np.arange(height) + (i - 1) * cell, 0, height - 1)
        for j in range(CELLS):
            cols = np.clip(np.arange(width) + (j - 1) * cell, 0, width - 1)
            out[:, :, i, j] = bands[rows][:, cols]
    flat = out.reshape(height, width, -1)
    flat /= np.sqrt((flat * flat).sum(-1, keepdims=True)) + np.float32(0.01)
    return np.minimum(flat * np.float32(255), 255).astype(np.uint8)


def _subsampled(grey: Float32[np.ndarray, "h w"], step: int) -> Float32[np.ndarray, "gh gw"]:
    """Means of step x step blocks; the last blocks are completed by repeating the border."""
    if step == 1:
        return grey
    height, width = grey.shape
    rows, cols = -(-height // step), -(-width // step)
    padded = cv2.copyMakeBorder(grey, 0, rows * step - height, 0, cols * step - width, cv2.BORDER_REPLICATE)
    return cv2.resize(padded, (cols, rows), interpolation=cv2.INTER_AREA)


def _triangle(half_width: float) -> Float32[np.ndarray, " n"]:
    radius = math.ceil(half_width) - 1 if half_width > 1 else 0
    x = np.arange(-radius, radius + 1)
    taps = np.maximum(0.0, 1.0 - np.abs(x) / half_width)
    return (taps / taps.sum()).astype(np.float32)


def _cell_window() -> Float32[np.ndarray, "16"]:
    """Gaussian weight of each cell, sigma = two cells, at the cell's centre."""
    d = np.arange(CELLS) - (CELLS - 1) / 2
    g = np.exp(-(d**2) / (2 * (CELLS / 2) ** 2))
    return np.outer(g, g).ravel().astype(np.float32)


@njit(cache=True, nogil=True, fastmath=True)
def _orientation_bands(image, bands):  # type: ignore[no-untyped-def]
    """Gradient magnitude shared linearly between the two nearest of eight directions."""
    height, width = image.shape
    scale = np.float32(4.0 / np.pi)
    for y in range(height):
        up, down = max(y - 1, 0), min(y + 1, height - 1)
        for x in range(width):
            left, right = max(x - 1, 0), min(x + 1, width - 1)
            gx = np.float32(0.5) * (image[y, right] - image[y, left])
            gy = np.float32(0.5) * (image[down, x] - image[up, x])
            norm = math.sqrt(gx * gx + gy * gy)
            for k in range(8):
                bands[y, x, k] = 0.0
            angle = np.float32(math.atan2(gy, gx)) * scale
            if angle < 0:
                angle += np.float32(8)
            low = int(angle)
            part = angle - low
            bands[y, x, low & 7] += norm * (1 - part)
            bands[y, x, (low + 1) & 7] += norm * part


@njit(cache=True, nogil=True, fastmath=True)
def _gather(flat, start, info, unit, position, bins, window, first, last, out):  # type: ignore[no-untyped-def]
    width = position.shape[1]
    rungs = len(start)
    d = np.empty((16, 8), np.float32)
    for y in range(first, last):
        for x in range(width):
            t = position[y, x]
            low = min(int(t), rungs - 2)
            d[:] = 0.0
            for side in range(2):
                k = low + side
                share = t - low if side == 1 else 1.0 - (t - low)
                if share <= 1e-4:
                    continue
                share *= unit[k]
                gh, gw, step, pad = info[k, 0], info[k, 1], info[k, 2], info[k, 3]
                base = start[k]
                size = bins[y, x]
                for i in range(4):
                    v = (y + (i - 1.5) * size + 0.5) / step - 0.5 + pad
                    v = min(max(v, 0.0), gh - 1.001)
                    v0 = int(v)
                    fv = np.float32(v - v0)
                    for j in range(4):
                        u = (x + (j - 1.5) * size + 0.5) / step - 0.5 + pad
                        u = min(max(u, 0.0), gw - 1.001)
                        u0 = int(u)
                        fu = np.float32(u - u0)
                        w = np.float32(share) * window[4 * i + j]
                        w00 = w * (1 - fv) * (1 - fu)
                        w01 = w * (1 - fv) * fu
                        w10 = w * fv * (1 - fu)
                        w11 = w * fv * fu
                        p = base + (v0 * gw + u0) * 8
                        q = p + gw * 8
                        for c in range(8):
                            d[4 * i + j, c] += (
                                w00 * flat[p + c]
                                + w01 * flat[p + 8 + c]
                                + w10 * flat[q + c]
                                + w11 * flat[q + 8 + c]
                            )
            total = np.float32(0)
            for i in range(16):
                for c in range(8):
                    total += d[i, c] * d[i, c]
            inv = np.float32(1) / (math.sqrt(total) + np.float32(1e-8))
            total = np.float32(0)
            for i in range(16):
                for c in range(8):
                    value = min(d[i, c] * inv, np.float32(0.2))
                    d[i, c] = value
                    total += value * value
            inv = np.float32(512) / (math.sqrt(total) + np.float32(1e-8))
            for i in range(16):
                for c in range(8):
                    out[y, x, 8 * i + c] = np.uint8(min(d[i, c] * inv, np.float32(255)))
