"""Evidence of a pair: exact signs of made geometry, and what speaks for a pair raises its chance."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from recon.graph.evidence import (
    DENSE_MODEL,
    PairSigns,
    chance,
    dense_features,
    filled_share,
    sparse_agreement,
    transfer_errors,
)
from recon.matching.types import DenseMatch, FlowField

# Signs as measured: neighbours of Herz-Jesus-P8, its widest pairs, and windows of two different walls.
RIGHT = PairSigns(2831, 0.98, 0.86, 0.08, 7.7, 1.0, 0.15, 0.61, 0.91, 0.60, 1579, 0.43, 1.0)
FAR = PairSigns(2125, 0.85, 0.33, 0.26, 34.7, 1.0, 0.3, 0.16, 0.49, 0.27, 156, 0.04, 0.73)
WRONG = PairSigns(1306, 0.69, 0.50, 0.35, 35.1, 1.0, 0.05, 0.29, 0.56, 0.26, 404, 0.16, 0.0)


def said(signs: PairSigns) -> float:
    return chance(dense_features(signs), DENSE_MODEL)


def test_right_pairs_are_likely_and_look_alikes_are_not() -> None:
    assert said(RIGHT) > 0.95
    assert said(FAR) > 0.5
    assert said(WRONG) < 0.3


@pytest.mark.parametrize("signs", [RIGHT, FAR])
def test_unknown_intrinsics_speak_neither_for_a_pair_nor_against_it(signs: PairSigns) -> None:
    assert said(replace(signs, essential=math.nan, angle=math.nan)) > 0.5


def test_distances_of_points_from_their_epipolar_lines() -> None:
    # Sideways motion: epipolar lines are rows, and a point off by d has the Sampson distance d / sqrt(2).
    F = np.array([[0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])
    a = np.random.default_rng(0).uniform(0, 100, (20, 2))
    b = a + np.array([7.0, 0.0])
    np.testing.assert_allclose(transfer_errors(F, a, b), 0, atol=1e-9)
    np.testing.assert_allclose(transfer_errors(F, a, b + np.array([0, 3.0])), 3 / math.sqrt(2), atol=1e-9)
    H = np.array([[1, 0, 7.0], [0, 1, 0], [0, 0, 1]])
    np.testing.assert_allclose(transfer_errors(H, a, b + np.array([0, 3.0]), planar=True), 3.0, atol=1e-9)


def test_filling_counts_consistent_pixels_within_the_hull() -> None:
    consistent = np.zeros((40, 60), bool)
    consistent[:, :30] = True
    corners = np.array([[0, 0], [59, 0], [59, 39], [0, 39]], float)
    assert filled_share(corners, (60, 40), consistent) == pytest.approx(0.5)
    left = np.array([[0, 0], [29, 0], [29, 39], [0, 39]], float)
    assert filled_share(left, (60, 40), consistent) == 1.0


def test_agreement_of_dense_and_sparse() -> None:
    flow = np.zeros((40, 60, 2), np.float32)
    flow[..., 0] = 5.0
    field = FlowField(flow, np.ones((40, 60), np.float32))
    everywhere = np.ones((40, 60), bool)
    dense = DenseMatch(field, field, everywhere, everywhere)
    # Photos of twice the matching size: the flow of 5 is a shift by 10.
    a = np.random.default_rng(1).uniform(10, 70, (40, 2))
    b = a + np.array([10.0, 0.0])
    b[:10] += 30.0
    assert sparse_agreement(dense, a, b, (120, 80), (120, 80)) == pytest.approx(0.75)
    assert math.isnan(sparse_agreement(dense, a[:0], b[:0], (120, 80), (120, 80)))
