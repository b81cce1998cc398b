"""Consistency, texture, sub-pixel refinement, resizing and confidence."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from recon.matching.confidence import ConsistencySettings, descriptor_margin, finish_pair, flow_confidence
from recon.matching.consistency import inside_border, round_trip_error
from recon.matching.subpixel import refine_flow
from recon.matching.texture import textured_mask
from recon.matching.types import MatchImage
from tests.support.matcher_contract import textured


def affine_flow(matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    y, x = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float64)
    p = np.stack([x, y, np.ones_like(x)], -1)
    return (p @ matrix.T - p[..., :2]).astype(np.float32)


def test_round_trip_equals_interpolation_by_scipy() -> None:
    rng = np.random.default_rng(0)
    there = (3 * rng.standard_normal((20, 30, 2))).astype(np.float32)
    back = (3 * rng.standard_normal((25, 22, 2))).astype(np.float32)
    y, x = np.mgrid[0:20, 0:30]
    tx, ty = x + there[..., 0], y + there[..., 1]
    way = np.stack([map_coordinates(back[..., k], [ty, tx], order=1, mode="nearest") for k in range(2)], -1)
    expected = np.linalg.norm(there + way, axis=-1)
    outside = (tx < 0) | (tx > 21) | (ty < 0) | (ty > 24)
    got = round_trip_error(there, back)
    np.testing.assert_array_equal(np.isinf(got), outside)
    np.testing.assert_allclose(got[~outside], expected[~outside], rtol=1e-4, atol=1e-4)


def test_an_invertible_map_is_consistent_up_to_the_border() -> None:
    matrix = np.array([[0.9, 0.1, 4.0], [-0.1, 0.95, 7.0]])
    full = np.vstack([matrix, [0, 0, 1]])
    there = affine_flow(matrix, (120, 160))
    back = affine_flow(np.linalg.inv(full)[:2], (110, 150))
    mask_a = (round_trip_error(there, back) <= 0.01) & inside_border(there, back.shape[:2], 10)
    mask_b = (round_trip_error(back, there) <= 0.01) & inside_border(back, there.shape[:2], 10)
    y, x = np.mgrid[0:120, 0:160]
    t = np.stack([x, y], -1) + there
    expected = (x >= 10) & (x <= 149) & (y >= 10) & (y <= 109)
    expected &= (t[..., 0] >= 10) & (t[..., 0] <= 139) & (t[..., 1] >= 10) & (t[..., 1] <= 99)
    np.testing.assert_array_equal(mask_a, expected)
    assert mask_b.any()
    broken = there.copy()
    broken[50:60, 50:60] += 3
    assert (round_trip_error(broken, back)[50:60, 50:60] > 1.5).all()


def test_textured_mask_equals_numpy() -> None:
    rng = np.random.default_rng(1)
    gray = np.full((60, 70), 0.5, np.float32)
    gray[:, 35:] += 0.05 * rng.standard_normal((60, 35)).astype(np.float32)
    padded = np.pad(gray, 1, mode="edge")
    gx = 0.5 * (padded[1:-1, 2:] - padded[1:-1, :-2])
    gy = 0.5 * (padded[2:, 1:-1] - padded[:-2, 1:-1])
    squares = gx**2 + gy**2
    got = textured_mask(gray, window=21, threshold=(4 / 255) ** 2)
    for y, x in ((30, 12), (30, 30), (20, 40), (39, 55), (30, 24)):
        expected = squares[y - 10 : y + 11, x - 10 : x + 11].mean() >= (4 / 255) ** 2
        assert got[y, x] == expected
    assert not got[:, :20].any()
    assert got[:, 50:].all()


@pytest.mark.parametrize("exposure", [1.0, 0.8])
def test_refinement_finds_the_fraction(exposure: float) -> None:
    matrix = np.array([[1.01, 0.004, 1.3], [-0.004, 0.99, -0.6]])
    a = cv2.cvtColor(textured(140, 180), cv2.COLOR_RGB2GRAY)
    b = cv2.warpAffine(a, matrix, (180, 140), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    b = np.clip(exposure * b, 0, 255).astype(np.uint8)
    truth = affine_flow(matrix, (140, 180))
    start = np.rint(truth)
    before = np.linalg.norm(start - truth, axis=-1)[16:-16, 16:-16]
    after = np.linalg.norm(refine_flow(a, b, start) - truth, axis=-1)[16:-16, 16:-16]
    assert after.mean() < 0.35 * before.mean()
    assert after.mean() < 0.12


def test_refinement_stays_within_reach() -> None:
    a, b = (cv2.cvtColor(textured(64, 80, s), cv2.COLOR_RGB2GRAY) for s in (0, 1))
    start = np.zeros((64, 80, 2), np.float32)
    refined = refine_flow(a, b, start)
    assert np.linalg.norm(refined - start, axis=-1).max() <= 1.5 + 1e-5
    assert refine_flow(a, b[:50, :70], start).shape == (64, 80, 2)


def test_confidence_is_higher_for_the_right_match() -> None:
    rng = np.random.default_rng(0)
    sift = rng.integers(0, 120, (30, 40, 128)).astype(np.uint8)
    right = descriptor_margin(sift, sift, np.zeros((30, 40, 2), np.float32))
    wrong = descriptor_margin(sift, sift, np.full((30, 40, 2), 3, np.float32))
    assert (right == 1).all()
    assert wrong.max() < 0.5
    assert (wrong[:, -3:] == 0).all()


def test_flow_confidence_falls_with_round_trip_error_and_roughness() -> None:
    matrix = np.array([[0.9, 0.1, 4.0], [-0.1, 1.05, -2.0]])
    flow = affine_flow(matrix, (40, 60))
    error = np.zeros((40, 60), np.float32)
    error[:, 30:] = 0.5
    error[20:] += np.inf
    flow[10, 10] += 3
    confidence = flow_confidence(flow, error)
    # A linear flow does not deviate from its surroundings: the round trip alone decides.
    np.testing.assert_allclose(confidence[5:15, 40:50], 0.5, atol=1e-4)
    np.testing.assert_allclose(confidence[5:15, 20:26], 1, atol=1e-4)
    assert (confidence[20:] == 0).all()
    assert confidence[10, 10] < 0.05


def test_finish_pair_applies_every_rule() -> None:
    rgb = textured(100, 120)
    rgb[:, 70:] = 77
    mask = np.ones((100, 120), bool)
    mask[40:50] = False
    image = MatchImage(rgb, mask=mask)
    zero = np.zeros((100, 120, 2), np.float32)
    match = finish_pair(image, image, zero, zero, ConsistencySettings(border=15))
    assert match.consistent_a[20:40, 20:55].all()
    assert not match.consistent_a[40:50].any()
    assert not match.consistent_a[:, 85:].any()
    assert not match.consistent_a[:15].any()
    assert (match.a_to_b.confidence[~mask] == 0).all()
    assert (match.a_to_b.confidence[mask] == 1).all()


def test_both_ends_of_a_match_must_lie_in_texture() -> None:
    plain, rich = textured(100, 120), textured(100, 120)
    plain[:, 60:] = 77
    zero = np.zeros((100, 120, 2), np.float32)
    shift = zero + np.float32([15, 0])
    match = finish_pair(MatchImage(rich), MatchImage(plain), shift, -shift, ConsistencySettings(border=10))
    # By hand: the windows of 21 px of source and target.
    texture = [
        textured_mask(cv2.cvtColor(one, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255) for one in (rich, plain)
    ]
    y, x = np.mgrid[0:100, 0:120]
    expected = (x >= 10) & (x + 15 < 110) & (y >= 10) & (y < 90) & texture[0]
    expected[:, :105] &= texture[1][:, 15:]
    np.testing.assert_array_equal(match.consistent_a, expected)
    assert not match.consistent_a[:, 60:].any()
    off = finish_pair(
        MatchImage(rich),
        MatchImage(plain),
        shift,
        -shift,
        ConsistencySettings(border=10, texture_threshold=0),
    )
    assert off.consistent_a[15:85, 15:90].all()
