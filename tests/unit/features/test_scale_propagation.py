"""Scale propagation: the published maps, a direct solver as twin, and the maximum principle."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from recon.features import krylov, multigrid, scale_propagation
from recon.features.scale_propagation import DEFAULT_SCALE, propagate_pair_scales, propagate_scales
from recon.features.types import InterestPoints

VARIANTS = [("geometric", "linear"), ("image", "linear"), ("image", "exponential")]


def _points(x: np.ndarray, y: np.ndarray, sigma: np.ndarray) -> InterestPoints:
    n = len(sigma)
    return InterestPoints(
        np.stack([x, y], axis=1).astype(np.float32),
        np.asarray(sigma, np.float32),
        np.zeros(n, np.float32),
        np.zeros((n, 128), np.uint8),
    )


def _photo_like(seed: int, height: int, width: int) -> np.ndarray:
    """Patches of texture with sharp edges between them, and sensor noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(20, 235, (max(height // 12, 1), max(width // 12, 1), 3)).astype(np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST).astype(float)
    image += cv2.GaussianBlur(rng.standard_normal((height, width, 1)), (0, 0), 2.0)[..., None] * 40
    return np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)


def _exact(rgb: np.ndarray, points: InterestPoints, guide: str, weighting: str) -> np.ndarray:
    """The definition, written with whole arrays, rows normalised, and solved by sparse LU."""
    height, width = rgb.shape[:2]
    image = (rgb @ np.array([0.299, 0.587, 0.114]) / 255 + 1) / 32
    seeds = np.zeros((height, width))
    for (x, y), sigma in zip(points.xy, points.sigma, strict=True):
        seeds[int(np.floor(y)), int(np.floor(x))] = sigma
    pad = np.pad(image, 1, constant_values=np.nan)
    window = np.stack([pad[dy : dy + height, dx : dx + width] for dy in range(3) for dx in range(3)])
    mean = np.nanmean(window, axis=0)
    variance = np.maximum(np.nanvar(window, axis=0, ddof=1), 1e-7)
    offsets = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    weights = []
    for q in window:
        if guide == "geometric":
            w = np.ones_like(image)
        elif weighting == "linear":
            w = 1 + (q - 0.6 * mean) * (image - 0.6 * mean) / variance
        else:
            w = np.exp(-((q - image) ** 2) / (0.6 * variance))
        weights.append(np.where(np.isnan(q), 0, w))
    weights[4][:] = 0
    total = np.sum(weights, axis=0)
    index = np.arange(height * width).reshape(height, width)
    matrix = scipy.sparse.eye_array(height * width, format="lil")
    for (dy, dx), w in zip(offsets, weights, strict=True):
        for y, x in zip(*np.nonzero((w != 0) & (seeds == 0)), strict=True):
            matrix[index[y, x], index[y + dy, x + dx]] = -w[y, x] / total[y, x]
    return scipy.sparse.linalg.spsolve(matrix.tocsc(), seeds.ravel()).reshape(height, width)


@pytest.mark.parametrize(
    ("name", "frames", "image", "guide", "weighting"),
    [
        ("S_geo1", "frames1", "img1", "geometric", "linear"),
        ("S_imlin1", "frames1", "img1", "image", "linear"),
        ("S_imexp1", "frames1", "img1", "image", "exponential"),
        ("S_malin1", "frames1_matched", "img1", "image", "linear"),
        ("S_maexp1", "frames1_matched", "img1", "image", "exponential"),
        ("S_malin2", "frames2_matched", "img2", "image", "linear"),
    ],
)
def test_published_maps_are_reproduced(
    shared_data: Path, name: str, frames: str, image: str, guide: str, weighting: str
) -> None:
    with np.load(shared_data / "reference" / "st2_scalemaps.npz") as reference:
        f = reference[frames]
        rgb = np.ascontiguousarray(reference[image][..., ::-1])  # stored blue first
        expected = reference[name]
    found = propagate_scales(rgb, _points(f[:, 0], f[:, 1], f[:, 2]), guide=guide, weighting=weighting)  # type: ignore[arg-type]
    assert (np.abs(found - expected) / expected).max() < 1e-3


@pytest.mark.parametrize(("guide", "weighting"), VARIANTS)
@pytest.mark.parametrize(("height", "width", "seeds"), [(47, 62, 12), (64, 33, 2), (3, 40, 3), (1, 25, 2)])
def test_agrees_with_a_direct_solver(guide: str, weighting: str, height: int, width: int, seeds: int) -> None:
    rgb = _photo_like(height, height, width)
    rng = np.random.default_rng(width)
    where = rng.choice(height * width, seeds, replace=False)
    points = _points(where % width + 0.3, where // width + 0.6, rng.uniform(1, 12, seeds))
    found = propagate_scales(rgb, points, guide=guide, weighting=weighting)  # type: ignore[arg-type]
    expected = _exact(rgb, points, guide, weighting)
    assert (np.abs(found - expected) / expected).max() < 1e-3


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 30),
    st.sampled_from(VARIANTS),
    st.integers(0, 2**31 - 1),
)
def test_scales_stay_within_those_of_the_seeds(
    height: int, width: int, n: int, variant: tuple[str, str], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)  # noise: the hardest weights there are
    x, y, sigma = rng.integers(0, width, n), rng.integers(0, height, n), rng.uniform(0.8, 20, n)
    found = propagate_scales(rgb, _points(x, y, sigma), guide=variant[0], weighting=variant[1])  # type: ignore[arg-type]
    assert found.shape == (height, width)
    assert found.min() >= sigma.min() * (1 - 1e-3)
    assert found.max() <= sigma.max() * (1 + 1e-3)
    assert found[y[-1], x[-1]] == pytest.approx(sigma[-1], rel=1e-5)


def test_two_seeds_on_a_line_give_a_ramp() -> None:
    rgb = np.full((1, 11, 3), 128, np.uint8)
    points = _points(np.array([0.0, 10.0]), np.zeros(2), np.array([1.0, 6.0]))
    expected = 1 + 0.5 * np.arange(11)
    for guide, weighting in VARIANTS:
        found = propagate_scales(rgb, points, guide=guide, weighting=weighting)  # type: ignore[arg-type]
        assert np.allclose(found[0], expected, rtol=1e-4)


def test_scale_follows_the_image_across_an_edge() -> None:
    rgb = np.full((40, 60, 3), 40, np.uint8)
    rgb[:, 30:] = 220
    points = _points(np.array([5.0, 55.0]), np.array([20.0, 20.0]), np.array([2.0, 8.0]))
    uniform = propagate_scales(rgb, points, guide="geometric")
    aware = propagate_scales(rgb, points, guide="image", weighting="exponential")
    step = slice(28, 32)
    assert np.ptp(aware[20, step]) > 3 * np.ptp(uniform[20, step])


@pytest.mark.parametrize(("guide", "weighting"), VARIANTS)
def test_one_seed_gives_its_scale_everywhere(guide: str, weighting: str) -> None:
    rgb = _photo_like(1, 90, 120)
    points = _points(np.array([70.2]), np.array([33.9]), np.array([4.25]))
    found = propagate_scales(rgb, points, guide=guide, weighting=weighting)  # type: ignore[arg-type]
    assert np.allclose(found, 4.25, rtol=1e-4)


def test_without_seeds_the_default_holds() -> None:
    rgb = _photo_like(2, 20, 30)
    outside = _points(np.array([-1.0, 40.0]), np.array([5.0, 5.0]), np.array([2.0, 2.0]))
    assert np.all(propagate_scales(rgb, outside) == np.float32(DEFAULT_SCALE))
    inside = _points(np.array([5.0]), np.array([5.0]), np.array([2.0]))
    nowhere = np.zeros((20, 30), bool)
    assert np.all(propagate_scales(rgb, inside, mask=nowhere, default_scale=7.0) == 7.0)


def test_of_several_points_in_a_pixel_the_last_counts() -> None:
    rgb = _photo_like(3, 24, 24)
    points = _points(np.array([4.1, 4.9, 4.5]), np.array([6.0, 6.3, 6.9]), np.array([2.0, 9.0, 5.0]))
    assert np.allclose(propagate_scales(rgb, points), 5.0, rtol=1e-4)


def test_pair_uses_only_matched_points() -> None:
    a, b = _photo_like(4, 50, 60), _photo_like(5, 40, 70)
    x = np.array([10.0, 30.0, 50.0])
    points_a = _points(x, np.array([10.0, 30.0, 20.0]), np.array([2.0, 30.0, 4.0]))
    points_b = _points(x, np.array([12.0, 5.0, 33.0]), np.array([1.0, 2.0, 40.0]))
    seeds = np.array([[0, 1], [2, 0]])
    for threads in (1, 2):
        map_a, map_b = propagate_pair_scales(a, b, points_a, points_b, seeds, threads=threads)
        assert map_a.shape == (50, 60)
        assert map_b.shape == (40, 70)
        assert map_a.max() <= 4.001
        assert map_b.max() <= 2.001
        assert map_b[5, 30] == pytest.approx(2.0)


def test_wrong_options_are_named() -> None:
    rgb = np.zeros((5, 5, 3), np.uint8)
    points = _points(np.array([1.0]), np.array([1.0]), np.array([1.0]))
    with pytest.raises(ValueError, match="guide"):
        propagate_scales(rgb, points, guide="wrong")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="weighting"):
        propagate_scales(rgb, points, weighting="wrong")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mask"):
        propagate_scales(rgb, points, mask=np.ones((4, 4), bool))


@pytest.mark.parametrize("weighting", ["linear", "exponential"])
def test_no_direct_solver_is_needed(monkeypatch: pytest.MonkeyPatch, weighting: str) -> None:
    """Thin lines, single pixels and a flat part: what leaves groups of pixels that hang together."""
    rgb = _photo_like(6, 120, 150)
    rgb[31, 20:130] = 250
    rgb[60:110, 71] = 5
    rgb[5:60:3, 140:143] = 255
    rgb[80:, :50] = 128
    rng = np.random.default_rng(6)
    where = rng.choice(120 * 150, 40, replace=False)
    points = _points(where % 150 + 0.5, where // 150 + 0.5, rng.uniform(1, 12, 40))

    def refuse(_: object) -> np.ndarray:
        raise AssertionError("the multigrid did not converge")

    monkeypatch.setattr(scale_propagation, "solve_directly", refuse)
    found = propagate_scales(rgb, points, weighting=weighting)  # type: ignore[arg-type]
    expected = _exact(rgb, points, "image", weighting)
    assert (np.abs(found - expected) / expected).max() < 1e-3


def _random_equations(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights that differ by orders of magnitude, and two pixels that are held a little."""
    rng = np.random.default_rng(1)
    weights = np.zeros((8, height + 2, width + 2), np.float32)
    weights[:, 1:-1, 1:-1] = np.exp(rng.uniform(-8, 0, (8, height, width)))
    for k, (dy, dx) in enumerate(multigrid.OFFSETS):
        y, x = np.mgrid[:height, :width]
        outside = (y + dy < 0) | (y + dy >= height) | (x + dx < 0) | (x + dx >= width)
        weights[k, 1:-1, 1:-1][outside] = 0
    excess = np.zeros((height + 2, width + 2))
    excess[3, 3], excess[height - 1, 2] = 2.0, 0.5
    return weights, excess


def test_incomplete_factors_are_exact_where_the_matrix_has_entries() -> None:
    height, width = 8, 9
    weights, excess = _random_equations(height, width)
    factors = krylov.factorise(multigrid.build_levels(weights, excess))[0]
    n = height * width
    lower, upper = np.eye(n), np.eye(n)
    for k, (dy, dx) in enumerate(multigrid.OFFSETS):
        for y in range(height):
            for x in range(width):
                if 0 <= y + dy < height and 0 <= x + dx < width:
                    at = y * width + x, (y + dy) * width + x + dx
                    if k < 4:
                        lower[at] = factors.lower[k, y + 1, x + 1]
                    else:
                        upper[at] = factors.upper[k - 4, y + 1, x + 1]
    product = lower @ np.diag(1 / factors.inverse_pivot[1:-1, 1:-1].ravel()) @ upper
    matrix = multigrid.dense_matrix(weights, excess)
    used = matrix != 0
    assert np.allclose(product[used], matrix[used], atol=1e-5)
    assert not np.allclose(product, matrix, atol=1e-3)  # incomplete, after all
    right = np.zeros_like(excess)
    right[1:-1, 1:-1] = np.random.default_rng(2).standard_normal((height, width))
    x = right.copy()
    krylov.solve_factors(factors.lower, factors.upper, factors.inverse_pivot, x, np.empty(x.shape[1]))
    assert np.allclose(product @ x[1:-1, 1:-1].ravel(), right[1:-1, 1:-1].ravel(), atol=1e-4)


def test_balancing_keeps_the_solution() -> None:
    weights, excess = _random_equations(12, 13)
    right = excess * 3.0
    right[3, 3] = 1.0

    def solution() -> np.ndarray:
        return np.linalg.solve(multigrid.dense_matrix(weights, excess), right[1:-1, 1:-1].ravel())

    def imbalance() -> float:
        matrix = multigrid.dense_matrix(weights, np.zeros_like(excess))
        np.fill_diagonal(matrix, 0)
        return float(np.abs(np.log(matrix.sum(0) / matrix.sum(1))).mean())

    expected, before = solution(), imbalance()
    krylov.balance(weights, excess, right)
    assert np.allclose(solution(), expected, rtol=1e-4)
    assert imbalance() < 0.5 * before


def test_galerkin_product_is_the_triple_product() -> None:
    """The coarse grid's equations against P^T A P with plain matrices."""
    rng = np.random.default_rng(0)
    height, width = 9, 10
    weights = np.zeros((8, height + 2, width + 2), np.float32)
    weights[:, 1:-1, 1:-1] = rng.uniform(0.5, 1.5, (8, height, width))
    for k, (dy, dx) in enumerate(multigrid.OFFSETS):
        for y in range(height):
            for x in range(width):
                if not (0 <= y + dy < height and 0 <= x + dx < width):
                    weights[k, y + 1, x + 1] = 0
    excess = np.zeros((height + 2, width + 2))
    excess[4, 4] = 2.0
    levels = multigrid.build_levels(weights, excess)
    assert levels[0].transfer is not None
    rows, columns = (n - 2 for n in levels[1].excess.shape)
    interpolate = np.zeros((height * width, rows * columns))
    for Y in range(rows):
        for X in range(columns):
            for a in (-1, 0, 1):
                for b in (-1, 0, 1):
                    y, x = 2 * Y + a, 2 * X + b
                    if 0 <= y < height and 0 <= x < width:
                        interpolate[y * width + x, Y * columns + X] = levels[0].transfer[
                            1 + a, 1 + b, Y + 1, X + 1
                        ]
    fine = multigrid.dense_matrix(weights, excess)
    coarse = multigrid.dense_matrix(levels[1].weights, levels[1].excess)
    assert np.allclose(coarse, interpolate.T @ fine @ interpolate, atol=1e-4)
    # Away from the pixel that is held, a constant is interpolated as that constant.
    assert np.allclose(interpolate.sum(axis=1)[-3 * width :], 1.0, atol=1e-5)
