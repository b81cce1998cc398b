"""Correlation, Hough matching and cell matches against slow, direct twins."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recon.hyperpixels.cells import match_cells, mutual_filter, transfer_keypoints
from recon.hyperpixels.correlation import PairCorrelation, hyperpixels
from recon.hyperpixels.flow import pixel_offsets, refine_offsets, resample, unit_displacement
from recon.hyperpixels.grid import Grid
from recon.hyperpixels.hough import gaussian, hough_matching
from recon.hyperpixels.hpf import beam_search


def layers(grid: Grid, seed: int, strides: tuple[int, ...] = (2, 4, 8, 16)) -> list[tuple[int, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (s, torch.randn(1, 5, -(-grid.height // s), -(-grid.width // s), generator=generator))
        for s in strides
    ]


def direct_hypercolumns(grid: Grid, maps: list[tuple[int, torch.Tensor]]) -> np.ndarray:
    """The full hyperimage, (cells, channels), each value interpolated on its own."""
    columns = np.zeros((grid.rows, grid.columns, sum(m.shape[1] for _, m in maps)))
    for i in range(grid.rows):
        for j in range(grid.columns):
            parts = []
            for stride, tensor in maps:
                values = tensor[0].double().numpy()
                h, w = values.shape[1:]
                if grid.stretch:
                    y = i * (h - 1) / max(grid.rows - 1, 1)
                    x = j * (w - 1) / max(grid.columns - 1, 1)
                else:
                    y, x = min(i * grid.step / stride, h - 1), min(j * grid.step / stride, w - 1)
                y0, x0 = int(y), int(x)
                y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
                fy, fx = y - y0, x - x0
                parts.append(
                    (1 - fy) * ((1 - fx) * values[:, y0, x0] + fx * values[:, y0, x1])
                    + fy * ((1 - fx) * values[:, y1, x0] + fx * values[:, y1, x1])
                )
            columns[i, j] = np.concatenate(parts)
    return columns.reshape(-1, columns.shape[2])


@pytest.mark.parametrize("stretch", [False, True])
def test_correlation_is_that_of_the_full_hyperimage(stretch: bool) -> None:
    a, b = Grid(36, 50, 4, stretch), Grid(44, 32, 4, stretch)
    maps_a, maps_b = layers(a, 0), layers(b, 1)
    found = PairCorrelation(hyperpixels(a, maps_a), hyperpixels(b, maps_b)).full()[0].numpy()
    ha, hb = direct_hypercolumns(a, maps_a), direct_hypercolumns(b, maps_b)
    norms = np.linalg.norm(ha, axis=1)[:, None] * np.linalg.norm(hb, axis=1)[None]
    expected = np.maximum(ha @ hb.T / (norms + 1e-3), 0) ** 2
    np.testing.assert_allclose(found, expected, atol=2e-5)


def slow_hough(correlation: np.ndarray, a: Grid, b: Grid) -> np.ndarray:
    """Match by match, as the paper writes it."""
    width, height = a.width + b.width, a.height + b.height
    side = math.sqrt(width * height / 8192)
    bins = np.zeros((int(height / side) + 1, int(width / side) + 1))

    def bin_of(p: int, q: int) -> tuple[int, int]:
        xs, ys = p % a.columns * a.step, p // a.columns * a.step
        xt, yt = q % b.columns * b.step, q // b.columns * b.step
        return int((a.height - ys + yt) / side), int((a.width - xs + xt) / side)

    for p in range(a.cells):
        for q in range(b.cells):
            bins[bin_of(p, q)] += correlation[p, q]
    smooth = np.zeros_like(bins)
    sigma = 7 / 2 / 2.354
    kernel = np.array(
        [[math.exp(-(x * x + y * y) / 2 / sigma**2) for x in range(-3, 4)] for y in range(-3, 4)]
    )
    kernel /= kernel.sum()
    for y in range(bins.shape[0]):
        for x in range(bins.shape[1]):
            for dy in range(-3, 4):
                for dx in range(-3, 4):
                    if 0 <= y + dy < bins.shape[0] and 0 <= x + dx < bins.shape[1]:
                        smooth[y, x] += kernel[dy + 3, dx + 3] * bins[y + dy, x + dx]
    return np.array([[smooth[bin_of(p, q)] for q in range(b.cells)] for p in range(a.cells)])


def test_hough_matching_is_that_of_the_slow_twin() -> None:
    a, b = Grid(24, 20), Grid(16, 28)
    votes = np.random.default_rng(0).random((a.cells, b.cells))
    found = hough_matching(torch.from_numpy(votes), a, b).numpy()
    np.testing.assert_allclose(found, slow_hough(votes, a, b), rtol=1e-5)
    assert float(gaussian().sum()) == pytest.approx(1)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5), st.integers(1, 5), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_no_vote_is_lost(ra: int, ca: int, rb: int, cb: int, seed: int) -> None:
    """The table of offsets holds every vote once, whether rows come together or one by one."""
    from recon.hyperpixels.hough import add_votes

    votes = torch.rand(ra, ca, rb, cb, generator=torch.Generator().manual_seed(seed))
    whole = torch.zeros(ra + rb - 1, ca + cb - 1)
    add_votes(votes, 0, ra, whole)
    expected = np.zeros(whole.shape)
    for index in np.ndindex(*votes.shape):
        expected[index[2] - index[0] + ra - 1, index[3] - index[1] + ca - 1] += float(votes[index])
    np.testing.assert_allclose(whole.numpy(), expected, rtol=1e-5)
    by_rows = torch.zeros_like(whole)
    for row in range(ra):
        add_votes(votes[row : row + 1], row, ra, by_rows)
    torch.testing.assert_close(whole, by_rows)


def smooth_pair(shift: tuple[int, int]) -> tuple[PairCorrelation, Grid]:
    """Two crops of one smooth random field, ``shift`` cells apart."""
    grid = Grid(64, 80)
    generator = torch.Generator().manual_seed(0)
    field = torch.randn(1, 24, 40, 40, generator=generator)
    field = torch.nn.functional.avg_pool2d(field, 3, 1, 1)
    dx, dy = shift
    a = field[..., 10 : 10 + grid.rows, 10 : 10 + grid.columns]
    b = field[..., 10 - dy : 10 - dy + grid.rows, 10 - dx : 10 - dx + grid.columns]
    return PairCorrelation(hyperpixels(grid, [(4, a)]), hyperpixels(grid, [(4, b)])), grid


def test_blocks_change_nothing_and_a_shift_is_found() -> None:
    pair, grid = smooth_pair((3, -2))
    there, back = match_cells(pair)
    in_blocks = match_cells(pair, budget=2 * grid.columns * grid.cells)
    for one, other in zip((there, back), in_blocks, strict=True):
        np.testing.assert_array_equal(one.best, other.best)
        np.testing.assert_allclose(one.offset, other.offset, atol=1e-3)
    inner = there.offset[4:-4, 4:-4]
    assert np.median(np.abs(inner - np.array([12, -8]))) < 0.5
    assert np.median(np.abs(back.offset[4:-4, 4:-4] + np.array([12, -8]))) < 0.5


def test_best_matches_are_those_of_the_whole_matrix() -> None:
    pair, grid = smooth_pair((1, 1))
    c = pair.full()[0].double().numpy()
    w = c * slow_like_hough(c, grid)
    score = w * (w / w.max(1, keepdims=True)) * (w / w.max(0, keepdims=True))
    there, back = match_cells(pair)
    assert (there.best == score.argmax(1)).mean() > 0.995  # ties of single precision
    assert (back.best == score.argmax(0)).mean() > 0.995
    filtered = mutual_filter(torch.from_numpy(w)[None])[0].numpy()
    np.testing.assert_allclose(filtered, score, rtol=1e-9)


def slow_like_hough(c: np.ndarray, grid: Grid) -> np.ndarray:
    return hough_matching(torch.from_numpy(c), grid, grid).numpy()


def test_keypoints_follow_the_cells_round_them() -> None:
    pair, grid = smooth_pair((3, -2))
    there, _ = match_cells(pair)
    points = np.array([[30.0, 30.0], [41.5, 33.2], [50, 40]])
    moved = transfer_keypoints(there, points)
    assert np.abs(moved - points - (12, -8)).max() < 1.5
    # The release's rule, cell by cell.
    expected = []
    for x, y in points:
        moves = []
        for cell in range(grid.cells):
            cx, cy = cell % grid.columns * 4, cell // grid.columns * 4
            if abs(x - cx) <= 5 and abs(y - cy) <= 5:
                best = there.best[cell]
                moves.append((best % grid.columns * 4 - cx, best // grid.columns * 4 - cy))
        expected.append(np.mean(moves, axis=0) + np.array([x, y]))
    np.testing.assert_allclose(transfer_keypoints(there, points, whole_cells=True), expected)
    outside = transfer_keypoints(there, np.array([[-50.0, 400.0]]))
    assert np.isfinite(outside).all()


def test_offsets_keep_their_meaning_between_sizes() -> None:
    """A homothety is the same displacement at every size of the images."""
    small_a, small_b = Grid(48, 64), Grid(40, 60)
    big_a, big_b = Grid(96, 128), Grid(80, 120)

    def truth(a: Grid, b: Grid) -> np.ndarray:
        y, x = np.mgrid[0 : a.rows, 0 : a.columns] * float(a.step)
        u, v = (x + 0.5) / a.width, (y + 0.5) / a.height
        return np.stack(
            [(0.7 * u + 0.1 * v + 0.05) * b.width - 0.5 - x, (0.8 * v + 0.1) * b.height - 0.5 - y], -1
        ).astype(np.float32)

    field = unit_displacement(truth(small_a, small_b), small_a, small_b)
    np.testing.assert_allclose(pixel_offsets(field, small_a, small_b), truth(small_a, small_b), atol=1e-4)
    found = pixel_offsets(resample(field, small_a, big_a), big_a, big_b)
    inner = (slice(1, -2), slice(1, -2))
    np.testing.assert_allclose(found[inner], truth(big_a, big_b)[inner], atol=1e-2)


def test_refinement_finds_what_is_left() -> None:
    pair, grid = smooth_pair((3, -2))
    y, x = np.mgrid[0 : grid.rows, 0 : grid.columns].astype(np.float32)
    # A start that is up to 1.5 cells off and varies over the image.
    start = np.stack([12 + 6 * np.sin(x / 5), -8 + 5 * np.cos(y / 6)], -1).astype(np.float32)
    found = refine_offsets(pair.source, pair.target, start)
    inner = (slice(5, -5), slice(5, -5))
    before = np.linalg.norm(start - (12, -8), axis=-1)[inner]
    after = np.linalg.norm(found - (12, -8), axis=-1)[inner]
    assert np.median(after) < 0.3 * np.median(before)
    assert np.median(after) < 4 / 3  # a third of a cell


def test_beam_search_finds_the_best_set_of_a_separable_score() -> None:
    value = {0: 0.1, 1: 0.5, 2: -0.2, 3: 0.4, 4: 0.3}
    asked = []

    def score(chosen: tuple[int, ...]) -> float:
        asked.append(chosen)
        return sum(value[k] for k in chosen)

    result = beam_search(score, range(5), beam=4, depth=4)
    assert result.layers == (0, 1, 3, 4)
    assert result.score == pytest.approx(1.3)
    assert len(asked) == len(set(asked))  # nothing is scored twice
    # With a beam of 2, the sets with layer 0 fall out early: only deeper layers are added.
    assert beam_search(score, range(5), beam=2, depth=4).layers == (1, 3, 4)
