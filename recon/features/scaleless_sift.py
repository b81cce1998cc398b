"""Scale-less SIFT: a pixel described by the subspace that its SIFT descriptors span over scales.

Source: T. Hassner, V. Mayzels, L. Zelnik-Manor, "On SIFTs and their Scales", CVPR 2012, with the constants of its
release (``pcareduced``). The subspace becomes a point whose distances are those of subspaces: the upper triangle of its
projection matrix, the diagonal halved (R. Basri, T. Hassner, L. Zelnik-Manor, TPAMI 2011).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32, UInt8

from recon.features.dense_sift import build_ladder, describe
from recon.features.types import DenseSift

SIGMAS = np.linspace(0.2, 12.0, 20)
"""Scales of the descriptors, sigma in pixels; a cell is ``MAGNIFICATION`` times as wide."""

MAGNIFICATION = 3.0
"""VLFeat's."""

DIMENSIONS = 32
"""To which descriptors are reduced by principal components."""

SUBSPACE = 10
"""Dimension of a pixel's subspace."""

SAMPLES = 50_000
"""Descriptors of both images that the principal components are taken from."""

_ROWS = 1 << 13
"""Pixels whose subspaces are fitted at once."""

_ROUNDING = 100.0
"""A direction whose sum of squares over scales is below this is no part of the subspace: rounding descriptors to whole
numbers gives each about 10, texture a million."""


def descriptors_over_scales(rgb: UInt8[np.ndarray, "h w 3"]) -> list[DenseSift]:
    """SIFT of every pixel at each of ``SIGMAS``."""
    cells = MAGNIFICATION * SIGMAS
    ladder = build_ladder(rgb, smallest=float(cells[0]), largest=float(cells[-1]))
    return [describe(ladder, np.full(rgb.shape[:2], cell, np.float32)) for cell in cells]


def common_components(
    a: list[DenseSift], b: list[DenseSift], dimensions: int = DIMENSIONS, seed: int = 0
) -> Float32[np.ndarray, "128 d"]:
    """Principal components of the descriptors of both images, the largest first; as many of each as it has pixels."""
    rng = np.random.default_rng(seed)
    every = [np.stack(one).reshape(-1, 128) for one in (a, b)]
    total = sum(len(one) for one in every)
    parts = [
        one[rng.permutation(len(one))[: max(1, round(SAMPLES * len(one) / total))]]
        if total > SAMPLES
        else one
        for one in every
    ]
    values, vectors = np.linalg.eigh(np.cov(np.concatenate(parts).astype(np.float64), rowvar=False))
    return np.asarray(vectors[:, np.argsort(-values, kind="stable")[:dimensions]], np.float32)


def scaleless_sift(
    descriptors: list[DenseSift], components: Float[np.ndarray, "128 d"], subspace: int = SUBSPACE
) -> UInt8[np.ndarray, "h w c"]:
    """The point of each pixel's subspace, with c = d (d + 1) / 2.

    Entries lie in -0.5…0.5 and are stored as 128 + 255 times them, so that SIFT Flow's constants for descriptors in
    0…255 keep their meaning. A pixel whose descriptors are all alike has the middle everywhere.

    Args:
        descriptors: of one image at each scale.
        components: that they are reduced to.
        subspace: its dimension at most.
    """
    height, width = descriptors[0].shape[:2]
    d = components.shape[1]
    reduced = np.stack([one.reshape(-1, 128).astype(np.float32) @ components for one in descriptors], 1)
    reduced -= reduced.mean(1, keepdims=True)
    rows, columns = np.triu_indices(d)
    factor = np.where(rows == columns, 127.5, 255.0).astype(np.float32)
    out = np.empty((height * width, len(rows)), np.uint8)
    for first in range(0, len(out), _ROWS):
        some = reduced[first : first + _ROWS]
        # Directions over scales give those over dimensions: there are fewer scales.
        values, vectors = np.linalg.eigh(some @ some.transpose(0, 2, 1))
        values, vectors = values[:, -subspace:], vectors[:, :, -subspace:]
        kept = values > _ROUNDING
        basis = some.transpose(0, 2, 1) @ vectors
        basis *= np.where(kept, 1 / np.sqrt(np.where(kept, values, 1)), 0)[:, None]
        projection = basis @ basis.transpose(0, 2, 1)
        out[first : first + _ROWS] = np.clip(np.rint(128 + factor * projection[:, rows, columns]), 0, 255)
    return out.reshape(height, width, -1)
