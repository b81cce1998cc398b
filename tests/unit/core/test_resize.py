"""Resizing: exact block means, the pixel convention, masks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon.core.cameras import Intrinsics
from recon.core.resize import resize_mask, resize_rgb, working_size


@given(st.integers(1, 30000), st.integers(1, 30000), st.integers(64, 4000))
def test_working_size(width: int, height: int, limit: int) -> None:
    w, h = working_size(width, height, limit)
    assert 1 <= w <= width
    assert 1 <= h <= height
    assert max(w, h) == min(limit, max(width, height))
    scale = max(w, h) / max(width, height)
    assert abs(h - height * scale) <= 0.5 + 1e-9 or h == 1
    assert abs(w - width * scale) <= 0.5 + 1e-9 or w == 1


@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_shrinking_by_a_whole_factor_is_the_mean_of_blocks(
    factor: int, height: int, width: int, seed: int
) -> None:
    rgb = np.random.default_rng(seed).integers(0, 256, (height * factor, width * factor, 3), dtype=np.uint8)
    means = rgb.reshape(height, factor, width, factor, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(resize_rgb(rgb, width, height), means, atol=0.5 + 1e-6)


def test_a_ramp_lands_where_the_convention_says() -> None:
    """The brightness at x is found at (x + 0.5) * s - 0.5, also for a factor that is no whole number."""
    x = np.arange(300)
    rgb = np.repeat(np.tile(x * 0.8, (60, 1))[:, :, None], 3, axis=2).astype(np.uint8)
    small = resize_rgb(rgb, 170, 34).astype(float)
    at = (np.arange(170) + 0.5) * 300 / 170 - 0.5
    np.testing.assert_allclose(small[17, 2:-2, 0], np.interp(at, x, rgb[0, :, 0])[2:-2], atol=1.0)


def test_same_size_is_the_same_picture() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resize_rgb(rgb, 7, 5), rgb)


def test_growing_keeps_the_centre_of_mass() -> None:
    rgb = np.zeros((21, 21, 3), np.uint8)
    rgb[10, 10] = 200
    large = resize_rgb(rgb, 84, 84)[:, :, 0].astype(float)
    centre = (large.sum(axis=0) * np.arange(84)).sum() / large.sum()
    assert centre == pytest.approx((10 + 0.5) * 4 - 0.5, abs=0.05)


def test_mask_pixel_needs_half_of_its_area() -> None:
    mask = np.zeros((4, 8), bool)
    mask[:2, :1] = True  # a quarter... of the first 2x4 block
    mask[:2, 4:6] = True  # half of the second
    small = resize_mask(mask, 2, 2)
    assert small.tolist() == [[False, True], [False, False]]
    assert resize_mask(mask, 8, 4).tolist() == mask.tolist()


@given(
    st.floats(100, 5000),
    st.floats(100, 5000),
    st.integers(200, 6000),
    st.integers(200, 6000),
    st.integers(100, 3000),
    st.integers(100, 3000),
)
def test_intrinsics_resize_and_come_back(
    fx: float, fy: float, width: int, height: int, new_width: int, new_height: int
) -> None:
    camera = Intrinsics("PINHOLE", (fx, fy, width * 0.51, height * 0.48), width, height, known=True)
    back = camera.resized(new_width, new_height).resized(width, height)
    np.testing.assert_allclose(back.params, camera.params, rtol=1e-9, atol=1e-6)
    # A ray through a pixel stays the same ray.
    small = camera.resized(new_width, new_height)
    x = 17.0
    x_small = (x + 0.5) * new_width / width - 0.5
    ray, ray_small = (x - camera.K[0, 2]) / camera.K[0, 0], (x_small - small.K[0, 2]) / small.K[0, 0]
    assert ray_small == pytest.approx(ray, rel=1e-6, abs=1e-9)
