"""Dense SIFT: the published descriptors, a twin from the definition, and invariances."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.ndimage

from recon.features.dense_sift import build_ladder, dense_sift, describe


def _texture(seed: int, height: int = 96, width: int = 112) -> np.ndarray:
    rng = np.random.default_rng(seed)
    grey = sum(
        scipy.ndimage.gaussian_filter(rng.standard_normal((height, width, 3)), (s, s, 0.7)) * s
        for s in (1.5, 3.0, 6.0)
    )
    return ((grey - grey.min()) / np.ptp(grey) * 255).astype(np.uint8)


def _similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation of the descriptors at each pixel."""
    a, b = (d.astype(float) - d.mean(axis=-1, keepdims=True) for d in (a, b))
    return (a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1) + 1e-9)


def _twin(rgb: np.ndarray, x: int, y: int, scale: float, smoothing: float) -> np.ndarray:
    """One descriptor from the definition: every pixel's gradient shared between bins, in double precision."""
    grey = rgb @ np.array([0.299, 0.587, 0.114]) / 255
    pad = int(4 * scale) + 8
    grey = np.pad(grey, pad, mode="edge")
    grey = scipy.ndimage.gaussian_filter(grey, np.sqrt((smoothing * scale) ** 2 - 0.25), mode="nearest")
    gy, gx = np.gradient(grey)
    norm, sector = np.hypot(gx, gy), np.mod(np.arctan2(gy, gx) / (2 * np.pi) * 8, 8)
    rows, columns = np.indices(grey.shape)
    out = np.zeros((4, 4, 8))
    for i in range(4):
        vertical = np.maximum(0, 1 - np.abs(rows - (y + pad + (i - 1.5) * scale)) / scale)
        for j in range(4):
            horizontal = np.maximum(0, 1 - np.abs(columns - (x + pad + (j - 1.5) * scale)) / scale)
            window = np.exp(-((i - 1.5) ** 2 + (j - 1.5) ** 2) / 8)
            for k in range(8):
                apart = np.abs(sector - k)
                share = np.maximum(0, 1 - np.minimum(apart, 8 - apart))
                out[i, j, k] = window * (norm * vertical * horizontal * share).sum()
    flat = out.ravel() / np.linalg.norm(out)
    flat = np.minimum(flat, 0.2)
    return np.minimum(512 * flat / np.linalg.norm(flat), 255)


def test_fixed_scale_reproduces_the_published_descriptors(shared_data: Path) -> None:
    with np.load(shared_data / "reference" / "mars256_tpami.npz") as reference:
        for k in "12":
            found = dense_sift(np.ascontiguousarray(reference["img" + k][..., ::-1])).astype(int)
            apart = np.abs(found - reference["sift" + k])
            assert apart.max() <= 1
            assert (apart > 0).mean() < 1e-4


def test_own_scale_agrees_with_the_published_descriptors(shared_data: Path) -> None:
    """VLFeat's frames at the published scale maps, with VLFeat's blur."""
    with np.load(shared_data / "reference" / "st2_scalemaps.npz") as reference:
        for k in "12":
            rgb = np.ascontiguousarray(reference["img" + k][..., ::-1])
            scales = reference["S_malin" + k].astype(np.float32)
            found = describe(build_ladder(rgb, smoothing=1.0), scales)
            alike = _similarity(found, reference["sift" + k])
            assert np.median(alike) > 0.99
            assert np.percentile(alike, 5) > 0.95


# The first puts its bins on pixels, and only truncation to whole numbers is left; then interpolation between
# pixels and rungs comes in, and from 4 on the coarser grids. Entries have a mean of 33.
@pytest.mark.parametrize(
    ("scale", "largest_mean_error"),
    [(2.0, 0.5), (2.52, 2.5), (3.0, 3.0), (4.0, 4.5), (5.5, 4.5), (8.0, 4.5)],
)
def test_agrees_with_the_definition(scale: float, largest_mean_error: float) -> None:
    rgb = _texture(0)
    smoothing = 0.6
    found = describe(build_ladder(rgb, smoothing=smoothing), np.full(rgb.shape[:2], scale, np.float32))
    for x, y in ((50, 40), (3, 5), (111, 95), (60, 0), (33, 71)):
        expected = _twin(rgb, x, y, scale, smoothing)
        assert np.abs(found[y, x] - expected).mean() < largest_mean_error
        assert _similarity(found[y, x][None], expected[None])[0] > 0.98


def test_descriptors_change_smoothly_with_scale() -> None:
    rgb = _texture(1)
    ladder = build_ladder(rgb)
    scales = 1.2 * 1.03 ** np.arange(88)  # 1.2 to 15.7, across eleven rungs and three grids
    before = None
    changes = []
    for scale in scales:
        now = describe(ladder, np.full(rgb.shape[:2], scale, np.float32)).astype(float)
        if before is not None:
            changes.append(np.abs(now - before).mean())
        before = now
    changes = np.array(changes)
    assert changes.max() < 3.5  # of a mean of about 33
    assert changes.max() < 3 * np.median(changes)


def test_image_and_its_half_have_the_same_descriptors_at_half_the_scale() -> None:
    rgb = _texture(2, 160, 192)
    half = cv2.resize(rgb, (96, 80), interpolation=cv2.INTER_AREA)
    ladder, small = build_ladder(rgb), build_ladder(half)

    def distance(scale: float, small_scale: float) -> float:
        # The mean of four neighbours of the large image stands at the pixel of the small one.
        a = describe(ladder, np.full((160, 192), scale, np.float32)).astype(float)
        a = a.reshape(80, 2, 96, 2, 128).mean(axis=(1, 3))
        b = describe(small, np.full((80, 96), small_scale, np.float32)).astype(float)
        return float(np.abs(a - b)[8:-8, 8:-8].mean())

    for scale in (4.0, 5.0, 7.0):
        equal = distance(scale, scale / 2)
        assert equal < 3.5
        assert equal < 0.25 * distance(scale, scale)
        assert equal < 0.5 * distance(scale, 0.7 * scale / 2)


def test_descriptors_move_with_the_image() -> None:
    rgb = _texture(3)
    scale_map = np.full(rgb.shape[:2], 2.3, np.float32)
    here = describe(build_ladder(rgb), scale_map)
    shifted = np.roll(rgb, (5, -3), (0, 1))
    there = describe(build_ladder(shifted), scale_map)
    apart = np.abs(there[20:-15, 15:-20].astype(int) - here[15:-20, 18:-17])
    assert apart.max() <= 1  # rounding of the channels
    fixed = np.abs(dense_sift(shifted)[20:-15, 15:-20].astype(int) - dense_sift(rgb)[15:-20, 18:-17])
    assert fixed.max() <= 1


def test_contrast_and_brightness_do_not_matter() -> None:
    rgb = _texture(4)
    dim = (rgb.astype(float) * 0.5 + 60).astype(np.uint8)
    scale_map = np.full(rgb.shape[:2], 3.0, np.float32)
    alike = _similarity(describe(build_ladder(rgb), scale_map), describe(build_ladder(dim), scale_map))
    assert np.median(alike) > 0.99


def test_length_range_and_threads() -> None:
    rgb = _texture(5)
    y, x = np.mgrid[: rgb.shape[0], : rgb.shape[1]]
    scale_map = (2 + 18 * x / x.max() * y / y.max()).astype(np.float32)
    one = describe(build_ladder(rgb), scale_map)
    many = describe(build_ladder(rgb, threads=3), scale_map, threads=3)
    assert np.array_equal(one, many)
    lengths = np.linalg.norm(one.astype(float), axis=-1)
    assert np.all((lengths > 480) & (lengths < 515))  # truncation to whole numbers shortens a little


def test_scales_beyond_the_ladder_are_clipped() -> None:
    rgb = _texture(6, 40, 40)
    ladder = build_ladder(rgb, smallest=2.0, largest=8.0)
    for outside, rim in ((0.3, 2.0), (50.0, 8.0)):
        a, b = (describe(ladder, np.full((40, 40), s, np.float32)) for s in (outside, rim))
        assert np.array_equal(a, b)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (5, 3)])
def test_tiny_and_flat_images(shape: tuple[int, int]) -> None:
    flat = np.full((*shape, 3), 77, np.uint8)
    assert not describe(build_ladder(flat), np.full(shape, 2.0, np.float32)).any()
    assert not dense_sift(flat).any()


def test_wrong_input_is_named() -> None:
    ladder = build_ladder(_texture(7, 20, 30))
    with pytest.raises(ValueError, match="scale map is"):
        describe(ladder, np.ones((30, 20), np.float32))
    with pytest.raises(ValueError, match="positive"):
        describe(ladder, np.full((20, 30), np.nan, np.float32))
    with pytest.raises(ValueError, match="uint8"):
        build_ladder(np.zeros((20, 30, 3), np.float32))
    with pytest.raises(ValueError, match="smallest"):
        build_ladder(_texture(7, 20, 30), smallest=3.0, largest=2.0)
