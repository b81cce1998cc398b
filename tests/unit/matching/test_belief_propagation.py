from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon.matching import belief_propagation as bp


def _places(labels: int, layout: bp.Diagonals) -> np.ndarray:
    """Where the labels of a pixel are stored: (labels, h, w)."""
    t = np.add.outer(np.arange(layout.height), np.arange(layout.width))
    apart = np.diff(layout.first)[t]
    return layout.first[t] * (labels - 1) + layout.position + np.arange(labels)[:, None, None] * apart


def stored(array: np.ndarray, layout: bp.Diagonals) -> np.ndarray:
    """(labels, h, w) in the kernels' storage."""
    out = np.full(len(array) * layout.size, 77, array.dtype)
    out[_places(len(array), layout)] = array
    return out


def smoothness(labels: int, alpha: int, truncation: int) -> bp.Smoothness:
    return bp.Smoothness(labels, np.uint16(alpha), np.uint16(truncation))


def unstored(flat: np.ndarray, labels: int, layout: bp.Diagonals) -> np.ndarray:
    return np.asarray(flat[_places(labels, layout)])


class SlowPropagation:
    """The same schedule pixel by pixel, with minima over all labels: messages as (plane, direction, label, y, x)."""

    def __init__(self, costs, centre, labels, alpha, d, gamma):  # type: ignore[no-untyped-def]
        # costs: (label y, label x, h, w)
        self.costs, self.centre, self.labels, self.alpha, self.d = costs.astype(int), centre, labels, alpha, d
        _, self.h, self.w = centre.shape
        u = centre[:, None] + np.arange(labels)[None, :, None, None] - labels // 2
        self.ranges = np.floor(np.float32(gamma) * np.abs(u).astype(np.float32) + np.float32(0.5)).astype(int)
        self.messages = np.zeros((2, 4, labels, self.h, self.w), int)
        self.dual = np.zeros((2, labels, self.h, self.w), int)

    def send(self, plane, y, x, dy, dx, into, leave_out):  # type: ignore[no-untyped-def]
        if not (0 <= y + dy < self.h and 0 <= x + dx < self.w):
            return
        belief = self.ranges[plane, :, y, x] + self.dual[plane, :, y, x]
        for k in range(4):
            if k != leave_out:
                belief = belief + self.messages[plane, k, :, y, x]
        own = self.centre[plane, y, x] + np.arange(self.labels)
        other = self.centre[plane, y + dy, x + dx] + np.arange(self.labels)
        out = (belief[:, None] + self.alpha * np.abs(own[:, None] - other[None])).min(0)
        out = np.minimum(out, belief.min() + self.d)
        self.messages[plane, into, :, y + dy, x + dx] = out - out.min()

    def couple(self, plane, y, x):  # type: ignore[no-untyped-def]
        belief = self.ranges[plane, :, y, x] + self.messages[plane, :, :, y, x].sum(0)
        cost = self.costs[:, :, y, x] if plane == 1 else self.costs[:, :, y, x].T
        out = (cost + belief[:, None]).min(0)
        self.dual[1 - plane, :, y, x] = out - out.min()

    def run(self, iterations):  # type: ignore[no-untyped-def]
        pixels = [(y, x) for y in range(self.h) for x in range(self.w)]
        for count in range(iterations):
            plane = count % 2
            forward = count % 4 < 2
            for y, x in pixels if forward else pixels[::-1]:
                if forward:
                    self.send(plane, y, x, 0, 1, into=0, leave_out=1)
                    self.send(plane, y, x, 1, 0, into=2, leave_out=3)
                else:
                    self.send(plane, y, x, 0, -1, into=1, leave_out=0)
                    self.send(plane, y, x, -1, 0, into=3, leave_out=2)
                if count % 8 < 4:
                    self.couple(plane, y, x)


@settings(max_examples=12, deadline=None)
@given(
    st.integers(1, 7),
    st.integers(1, 7),
    st.integers(1, 3),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 1, 6]),
)
def test_messages_equal_a_sequential_sweep(h: int, w: int, radius: int, seed: int, jump: int) -> None:
    assert_equal_to_sequential(h, w, radius, seed, jump, 16)


def test_messages_equal_where_diagonals_are_longer_than_a_vector() -> None:
    assert_equal_to_sequential(36, 34, 1, 5, 3, 8)


def assert_equal_to_sequential(h: int, w: int, radius: int, seed: int, jump: int, iterations: int) -> None:
    rng = np.random.default_rng(seed)
    labels = 2 * radius + 1
    costs = rng.integers(0, 3000, (labels, labels, h, w)).astype(np.uint16)
    centre = rng.integers(-jump, jump + 1, (2, h, w)).astype(np.int32)
    slow = SlowPropagation(costs, centre, labels, 510, 2000, 1.275)
    slow.run(iterations)

    layout = bp.Diagonals.of(h, w)
    flat = stored(costs.reshape(-1, h, w), layout)
    ranges, dual, messages = bp.propagate(
        flat, centre, layout, smoothness(labels, 510, 2000), 1.275, iterations, 0
    )
    for plane in range(2):
        np.testing.assert_array_equal(unstored(ranges[plane], labels, layout), slow.ranges[plane])
        np.testing.assert_array_equal(unstored(dual[plane], labels, layout), slow.dual[plane])
        for k in range(4):
            np.testing.assert_array_equal(
                unstored(messages[plane, k], labels, layout), slow.messages[plane, k]
            )


@pytest.mark.parametrize("shape", [(1, 12), (12, 1)])
def test_a_chain_is_solved_exactly(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(5)
    labels, alpha, d = 5, 300, 700
    unary = rng.integers(0, 2000, (labels, 12))
    # The data depend on x alone, so that the x plane is a tree.
    costs = (
        np.broadcast_to(unary[None], (labels, labels, 12)).astype(np.uint16).reshape(labels * labels, *shape)
    )
    centre = np.zeros((2, *shape), np.int32)
    found = bp.solve(stored(costs, bp.Diagonals.of(*shape)), centre, labels, alpha, d, 0.0, 64, 0)[0].ravel()

    difference = np.abs(np.arange(labels)[:, None] - np.arange(labels)[None])
    pair = np.minimum(alpha * difference, d)
    best = unary[:, 0].astype(int)
    for i in range(1, 12):
        best = (best[:, None] + pair).min(0) + unary[:, i]
    energy = unary[found, np.arange(12)].sum() + pair[found[1:], found[:-1]].sum()
    assert energy == best.min()


def test_pair_costs_equal_numpy() -> None:
    rng = np.random.default_rng(1)
    h, w, hb, wb, radius = 6, 9, 7, 5, 2
    a = rng.integers(0, 256, (h, w, 128)).astype(np.uint8)
    b = rng.integers(0, 256, (hb, wb, 128)).astype(np.uint8)
    mask_a, mask_b = rng.random((h, w)) > 0.2, rng.random((hb, wb)) > 0.2
    centre = rng.integers(-3, 4, (2, h, w)).astype(np.int32)
    labels = 2 * radius + 1
    expected = np.full((labels, labels, h, w), -1)
    for y in range(h):
        for x in range(w):
            for ly in range(labels):
                for lx in range(labels):
                    yb, xb = y + centre[1, y, x] + ly - radius, x + centre[0, y, x] + lx - radius
                    if not mask_a[y, x]:
                        expected[ly, lx, y, x] = 0
                    elif 0 <= yb < hb and 0 <= xb < wb and mask_b[yb, xb]:
                        expected[ly, lx, y, x] = np.abs(a[y, x].astype(int) - b[yb, xb]).sum()
    inside = expected[:, :, mask_a]
    known = np.sort(inside[inside >= 0])
    outside = known[-(-len(known) // 2) - 1] + known[0]  # the median plus the smallest
    expected[expected < 0] = outside
    relative = expected - expected.min((0, 1))
    for threads in (1, 3):
        costs, default = bp.data_costs(a, b, mask_a, mask_b, centre, radius, threads=threads)
        assert default == outside
        got = unstored(costs, labels * labels, bp.Diagonals.of(h, w)).reshape(labels, labels, h, w)
        np.testing.assert_array_equal(got, np.minimum(relative, bp.COST_CAP))


@pytest.mark.parametrize(("h", "w"), [(8, 6), (7, 5), (1, 4), (5, 2), (75, 70)])
def test_coarse_costs_are_sums_of_children(h: int, w: int) -> None:
    rng = np.random.default_rng(2)
    squares = 9
    fine = rng.integers(0, 3000, (squares, h, w)).astype(np.uint16)
    ch, cw = (h + 1) // 2, (w + 1) // 2
    padded = np.pad(fine.astype(int), ((0, 0), (0, 2 * ch - h), (0, 2 * cw - w)))
    expected = padded.reshape(squares, ch, 2, cw, 2).sum((2, 4))
    expected -= expected.min(0)
    layout, coarse = bp.Diagonals.of(h, w), bp.Diagonals.of(ch, cw)
    out = np.empty(squares * coarse.size, np.uint16)
    bp.coarsen_costs(stored(fine, layout), layout, coarse, squares, bp.COST_CAP, out)
    np.testing.assert_array_equal(unstored(out, squares, coarse), np.minimum(expected, bp.COST_CAP))


@pytest.mark.parametrize(("h", "w"), [(8, 6), (7, 5), (5, 2), (75, 70)])
def test_four_pixels_inherit_the_messages_of_one(h: int, w: int) -> None:
    rng = np.random.default_rng(4)
    layout, coarse = bp.Diagonals.of(h, w), bp.Diagonals.of((h + 1) // 2, (w + 1) // 2)
    messages = rng.integers(0, 3000, (2, 3, coarse.height, coarse.width)).astype(np.uint16)
    out = np.empty((2, 3 * layout.size), np.uint16)
    bp.inherit_messages(np.stack([stored(one, coarse) for one in messages]), coarse, layout, 3, 2, out)
    for one, found in zip(messages, out, strict=True):
        expected = one.repeat(2, 1).repeat(2, 2)[:, :h, :w]
        np.testing.assert_array_equal(unstored(found, 3, layout), expected)


def test_the_worst_costs_do_not_overflow() -> None:
    """Largest costs and truncation that are allowed: the sums still agree with wide integers."""
    rng = np.random.default_rng(3)
    h, w, labels = 5, 6, 5
    costs = rng.choice([0, bp.COST_CAP], (labels, labels, h, w)).astype(np.uint16)
    centre = rng.choice([-5000, 0, 5000], (2, h, w)).astype(np.int32)
    slow = SlowPropagation(costs, centre, labels, 10200, bp.MAX_TRUNCATION, 0.5)
    slow.run(16)
    layout = bp.Diagonals.of(h, w)
    _, dual, messages = bp.propagate(
        stored(costs.reshape(-1, h, w), layout),
        centre,
        layout,
        smoothness(labels, 10200, bp.MAX_TRUNCATION),
        0.5,
        16,
        0,
    )
    np.testing.assert_array_equal(unstored(dual[0], labels, layout), slow.dual[0])
    np.testing.assert_array_equal(unstored(messages[1, 2], labels, layout), slow.messages[1, 2])
