"""Tracks between photos that are turned against each other: positions and affinities are exact."""

from __future__ import annotations

import numpy as np
import pytest

from recon.core.cameras import Intrinsics
from recon.graph.tracks import build_tracks, flow_turn
from recon.matching.types import DenseMatch, FlowField
from recon.photos.types import Photo, PhotoSet

SIZE = 120


def photo(number: int) -> Photo:
    return Photo(number, f"{number}.png", str(number), SIZE, SIZE, SIZE, SIZE, 0)


def field(matrix: np.ndarray, shift: np.ndarray) -> FlowField:
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float64)
    p = np.stack([x, y], axis=-1)
    flow = p @ matrix.T + shift - p
    return FlowField(flow.astype(np.float32), np.ones((SIZE, SIZE), np.float32))


@pytest.mark.parametrize("turns", range(4))
def test_anchor_is_carried_exactly_between_turned_photos(turns: int) -> None:
    middle = (SIZE - 1) / 2
    rotation = np.linalg.matrix_power(np.array([[0.0, -1.0], [1.0, 0.0]]), turns)
    matrix = rotation @ np.array([[1.05, 0.02], [-0.01, 0.97]])
    shift = np.array([middle, middle]) - matrix @ [middle, middle]
    back = np.linalg.inv(matrix)
    a_to_b, b_to_a = field(matrix, shift), field(back, -back @ shift)
    np.testing.assert_array_equal(
        flow_turn(a_to_b.flow, np.ones((SIZE, SIZE), bool)), (rotation - np.eye(2)).astype(np.float32)
    )
    inside = np.zeros((SIZE, SIZE), bool)
    inside[10:-10, 10:-10] = True
    match = DenseMatch(a_to_b, b_to_a, inside, inside)
    camera = Intrinsics("PINHOLE", (100.0, 100.0, middle, middle), SIZE, SIZE)
    anchors = np.random.default_rng(turns).uniform(25, SIZE - 25, (12, 2)).astype(np.float32)
    tracks = build_tracks(
        PhotoSet((photo(0), photo(1)), (camera,)), {(0, 1): match}, {0: anchors, 1: anchors[:0]}
    )
    assert tracks.count >= 6
    assert tracks.affinity is not None
    first, second = tracks.photo_id == 0, tracks.photo_id == 1
    expected = tracks.xy[first] @ matrix.T + shift
    np.testing.assert_allclose(tracks.xy[second], expected, atol=0.02)
    np.testing.assert_allclose(
        tracks.affinity[second], np.broadcast_to(matrix, (second.sum(), 2, 2)), atol=0.01
    )
