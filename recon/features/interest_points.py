"""Interest points of one image (SIFT through pycolmap) and their brute-force matching."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from recon.core.colmap import pycolmap
from recon.features.types import InterestPoints

MATCH_RATIO = 0.75
"""Largest distance to the nearest over distance to the second nearest descriptor (Lowe 2004, section 7.1).

Chosen with ``benchmarks/scale_propagation.py``. Against 0.8, the scale maps of a frame and of its neighbour at 0.35
of the size agree much better (90th percentile of the error of their ratio 0.14 instead of 0.24 octaves), and of
three photos' distance 92% instead of 88% of the seeds lie on the epipolar line. Stricter tests gain little more
and go on losing seeds where they are scarce.
"""

_BLOCK_ROWS = 1024  # rows of the distance matrix held at once: 1024 x 8192 float32 are 32 MiB

# pycolmap.Sift measures from the corner of the top-left pixel, recon from its centre.
_HALF_PIXEL = np.float32(0.5)


def extract_interest_points(
    rgb: UInt8[np.ndarray, "h w 3"],
    *,
    mask: Bool[np.ndarray, "h w"] | None = None,
    max_points: int = 8192,
    peak_threshold: float | None = None,
    first_octave: int = -1,
) -> InterestPoints:
    """SIFT points of an image with sigma, orientation and RootSIFT descriptors.

    The detector is VLFeat's as pycolmap ships it (three levels an octave, up to two
    orientations a point, so that one position may appear twice). This is the one place besides the pycolmap
    adapter that knows COLMAP's pixel convention: ``pycolmap`` serves as a feature library here, and its
    positions are shifted by half a pixel on the way in.

    Args:
        rgb: (h, w, 3) uint8.
        mask: True where points are wanted; None for everywhere.
        max_points: at most so many points are kept, those of largest scale first.
        peak_threshold: smallest difference of Gaussians of a point, grey in 0…1; None for COLMAP's 0.0067.
        first_octave: -1 enlarges the image to twice its size first. Without (0), points below a sigma of 1.6 pixels are
            not found, two thirds and more of all, and it takes a quarter of the time.

    Returns:
        Points sorted by scale, coarse to fine. Empty for an image too small to hold any.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ValueError(f"expected an (h, w, 3) uint8 image, got {rgb.shape} {rgb.dtype}")
    height, width = rgb.shape[:2]
    if mask is not None and mask.shape != (height, width):
        raise ValueError(f"mask is {mask.shape}, image is {(height, width)}")
    if min(height, width) < 8 or max_points < 1:
        return _empty()
    grey = np.ascontiguousarray(cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY))
    limit = max_points if mask is None else 4 * max_points
    frames, descriptors = _run_sift(grey, limit, peak_threshold, first_octave)
    if len(frames) == 0:
        return _empty()
    xy = frames[:, :2] - _HALF_PIXEL
    np.clip(xy, -0.5, [width - 0.5, height - 0.5], out=xy)
    keep = np.ones(len(xy), bool)
    if mask is not None:
        column = np.clip(np.rint(xy[:, 0]).astype(np.int64), 0, width - 1)
        row = np.clip(np.rint(xy[:, 1]).astype(np.int64), 0, height - 1)
        keep = mask[row, column]
    index = np.flatnonzero(keep)
    # A total order, so that the same image gives the same points in the same order every time.
    order = np.lexsort((frames[index, 3], xy[index, 0], xy[index, 1], -frames[index, 2]))
    index = index[order][:max_points]
    return InterestPoints(
        xy=np.ascontiguousarray(xy[index], np.float32),
        sigma=np.ascontiguousarray(frames[index, 2], np.float32),
        orientation=np.ascontiguousarray(frames[index, 3], np.float32),
        descriptors=np.ascontiguousarray(descriptors[index]),
    )


def subset(points: InterestPoints, indices: Int64[np.ndarray, " m"]) -> InterestPoints:
    """The points of these indices, in this order."""
    return InterestPoints(
        xy=points.xy[indices],
        sigma=points.sigma[indices],
        orientation=points.orientation[indices],
        descriptors=points.descriptors[indices],
    )


def match_interest_points(
    a: InterestPoints, b: InterestPoints, *, ratio: float = MATCH_RATIO, mutual: bool = True
) -> Int64[np.ndarray, "m 2"]:
    """Index pairs of points whose descriptors are nearest to each other and clearly nearer than the next.

    Args:
        ratio: a match needs ``d1 < ratio * d2``, d1 and d2 being the Euclidean distances to the nearest and
            the second nearest descriptor of ``b``. VLFeat's threshold t compares squared distances:
            t = 1.5 there is ratio 0.816 here. 1 or more switches the test off.
        mutual: the match must also be the nearest from ``b`` to ``a``.

    Returns:
        (m, 2) int64, sorted by the index in ``a``.
    """
    if len(a) == 0 or len(b) == 0:
        return np.empty((0, 2), np.int64)
    da, db = a.descriptors.astype(np.float32), b.descriptors.astype(np.float32)
    norm_a, norm_b = np.einsum("ij,ij->i", da, da), np.einsum("ij,ij->i", db, db)
    da *= np.float32(-2)
    nearest = np.empty(len(a), np.int64)
    first = np.empty(len(a), np.float32)
    second = np.full(len(a), np.inf, np.float32)
    back = np.full(len(b), np.inf, np.float32)
    for start in range(0, len(a), _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, len(a))
        # Descriptors are whole numbers below 2^8: products and norms are exact in float32.
        distance = da[start:stop] @ db.T
        distance += norm_b
        distance += norm_a[start:stop, None]
        if mutual:
            np.minimum(back, distance.min(axis=0), out=back)
        rows = np.arange(stop - start)
        best = distance.argmin(axis=1)
        nearest[start:stop] = best
        first[start:stop] = distance[rows, best]
        if len(b) > 1:
            distance[rows, best] = np.inf
            second[start:stop] = distance.min(axis=1)
    accepted = np.ones(len(a), bool) if ratio >= 1.0 else first < np.float32(ratio * ratio) * second
    if mutual:
        accepted &= first == back[nearest]
        # Of points that are as near to the same one, the first.
        index = np.flatnonzero(accepted)
        index = index[np.sort(np.unique(nearest[index], return_index=True)[1])]
        return np.stack([index, nearest[index]], axis=1)
    index = np.flatnonzero(accepted)
    return np.stack([index, nearest[index]], axis=1)


def _run_sift(
    grey: UInt8[np.ndarray, "h w"], max_points: int, peak_threshold: float | None, first_octave: int
) -> tuple[Float32[np.ndarray, "n 4"], UInt8[np.ndarray, "n 128"]]:
    """Frames (x, y, sigma, orientation; COLMAP's pixel convention) and uint8 RootSIFT descriptors."""
    options = pycolmap.FeatureExtractionOptions()
    options.use_gpu = False
    options.num_threads = 1
    options.sift.max_num_features = max_points
    options.sift.first_octave = first_octave
    if peak_threshold is not None:
        options.sift.peak_threshold = peak_threshold
    extractor = _quietly_create(options)
    keypoints, descriptors = extractor.extract(pycolmap.Bitmap.from_array(grey))
    # A SIFT frame is a similarity: its matrix is sigma times a rotation.
    rows = np.array([(k.x, k.y, k.a11, k.a21) for k in keypoints], np.float32).reshape(-1, 4)
    frames = np.column_stack(
        [rows[:, :2], np.hypot(rows[:, 2], rows[:, 3]), np.arctan2(rows[:, 3], rows[:, 2])]
    )
    return frames, np.asarray(descriptors.data, np.uint8).reshape(-1, 128)


def _quietly_create(options: Any) -> Any:
    """A feature extractor, without the line that pycolmap logs for each one."""
    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = max(level, 1)
    try:
        return pycolmap.FeatureExtractor.create(options, pycolmap.Device.cpu)
    finally:
        pycolmap.logging.minloglevel = level


def _empty() -> InterestPoints:
    return InterestPoints(
        xy=np.empty((0, 2), np.float32),
        sigma=np.empty(0, np.float32),
        orientation=np.empty(0, np.float32),
        descriptors=np.empty((0, 128), np.uint8),
    )
