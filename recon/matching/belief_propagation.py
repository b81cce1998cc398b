"""Min-sum belief propagation on a grid with two coupled label planes, the solver inside SIFT Flow.

The schedule is the reference's: sequential sweeps from the top-left corner and back, one plane at a time. Pixels on
one antidiagonal do not depend on each other within such a sweep, so all arrays here are stored antidiagonal by
antidiagonal (label by label within one), and what is done is done to a vector of pixels of an antidiagonal: results are
those of the sequential sweep, while the processor works on 32 pixels at a time.

Costs are integers in uint16. Sums stay in range by construction: four spatial messages of at most ``d``
(``MAX_TRUNCATION``), a message of the other plane and the pair costs of at most ``COST_CAP``, displacement costs of at
most ``RANGE_CAP``.

Source: C. Liu, J. Yuen, A. Torralba, "SIFT Flow: Dense Correspondence across Scenes and its Applications", TPAMI 2011,
section 3.2; the schedule, the hierarchy and the constants follow its released code where the paper is silent.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8, UInt16

from recon.core.kernels import kernel, maximum, minimum, part_of_kernel
from recon.core.parallel import map_ordered
from recon.core.short_vectors import (
    BYTES,
    SHORTS,
    by_turns,
    distance,
    every_second,
    highest,
    holds,
    load,
    lowest,
    minus,
    plus,
    plus_at_most,
    priced,
    smaller,
    splat,
    store,
    store_part,
    where_equal,
    where_smaller,
    whole_vectors,
    within,
)

MAX_TRUNCATION = 10200
"""Largest truncation ``d`` that the messages can hold; larger ones are scaled down with all other costs."""

COST_CAP = 20000
"""Pair costs above this (relative to the best pair of the pixel) are cut. SIFT descriptors stay below 9000."""

RANGE_CAP = 4000
"""Displacement costs above this are cut: 3000 px at the default gamma."""

FARTHEST = 16000
"""Window centres beyond this many pixels count as so far away: differences of two must fit 16 bits."""

COARSE_ITERATIONS = 20
"""Half sweeps on each coarsened graph (the reference's value)."""

NO_DATA = np.uint16(65535)


class Diagonals(NamedTuple):
    """Antidiagonals x + y = t of a grid in flat storage, each with room for whole vectors of pixels.

    Attributes:
        height, width: of the grid.
        first: place of antidiagonal t in storage, in pixels, (h + w,) int64; there is room before and behind all.
        length: pixels of antidiagonal t, (h + w - 1,) int64.
        top: smallest y on antidiagonal t, (h + w - 1,) int64.
        position: in storage of pixel (y, x), (h, w) int64.
    """

    height: int
    width: int
    first: Int[np.ndarray, " t"]
    length: Int[np.ndarray, " t"]
    top: Int[np.ndarray, " t"]
    position: Int[np.ndarray, "h w"]

    @property
    def size(self) -> int:
        """Pixels in storage."""
        return int(self.first[-1]) + 3 * SHORTS

    @staticmethod
    def of(height: int, width: int) -> Diagonals:
        """Lay out a grid of this size."""
        t = np.arange(height + width - 1)
        top = np.maximum(0, t - width + 1)
        length = np.minimum(height - 1, t) - top + 1
        first = SHORTS * (1 + np.concatenate([[0], np.cumsum(-(-length // SHORTS))]))
        y = np.arange(height)[:, None]
        t = y + np.arange(width)
        return Diagonals(height, width, first, length, top, (first[:-1] - top)[t] + y)


class Smoothness(NamedTuple):
    """Number of labels of a plane, and the smoothness min(alpha |du|, truncation) as uint16."""

    labels: int
    alpha: np.uint16
    truncation: np.uint16


class Beliefs(NamedTuple):
    """Costs of the labels of every pixel but for the pair costs: flat uint16, stored antidiagonal, label, pixel.

    Attributes:
        ranges: [p] displacement costs of plane p.
        dual: [p] messages to plane p from the other plane.
        messages: [p, k] messages to plane p from the left (0), right (1), upper (2) and lower (3) neighbour.
    """

    ranges: UInt16[np.ndarray, "2 n"]
    dual: UInt16[np.ndarray, "2 n"]
    messages: UInt16[np.ndarray, "2 4 n"]


@kernel()
def pair_costs(  # type: ignore[no-untyped-def]
    sift_a, sift_b, mask_a, mask_b, centre, radius, grid, begin, end, costs, histogram, row
):
    """Compute L1 distances of every pixel of A to the window of B around its centre, for rows begin…end - 1.

    ``costs`` (flat uint16, stored antidiagonal, label y, label x, pixel) gets NO_DATA where the label points out of B
    or at a masked pixel of B, and 0 for every label of a masked pixel of A. ``histogram`` counts the distances,
    and NO_DATA; ``row`` is room for those of a row.
    """
    width, channels = sift_a.shape[1], sift_a.shape[2]
    hb, wb = sift_b.shape[0], sift_b.shape[1]
    labels = 2 * radius + 1
    first, top = grid.first, grid.top
    for y in range(begin, end):
        found = 0
        for x in range(width):
            t = x + y
            n = first[t + 1] - first[t]
            position = first[t] * labels * labels + y - top[t]
            own = (y * width + x) * channels
            usable = mask_a[y, x]
            yb = y + centre[1, y, x] - radius - 1
            for _ in range(labels):
                yb += 1
                xb = x + centre[0, y, x] - radius - 1
                for _ in range(labels):
                    xb += 1
                    cost = np.int32(0)
                    if usable and (yb < 0 or yb >= hb or xb < 0 or xb >= wb or not mask_b[yb, xb]):
                        cost = np.int32(65535)
                    elif usable:
                        other = (yb * wb + xb) * channels
                        for c in range(0, channels, BYTES):
                            cost = np.int32(cost + distance(sift_a, own + c, sift_b, other + c))
                    costs[position] = np.uint16(cost)
                    row[found] = np.uint16(cost)
                    position += n
                    found += usable
        for k in range(found):
            histogram[row[k]] += 1


@kernel()
def finish_costs(costs, grid, squares, default, cap):  # type: ignore[no-untyped-def]
    """Replace NO_DATA by the default cost; make the costs of every pixel relative to its smallest, cut at ``cap``."""
    first = grid.first
    nothing, instead, most = splat(65535), splat(default), splat(cap)
    for t in range(grid.top.shape[0]):
        n = first[t + 1] - first[t]
        for i in range(first[t] * squares, first[t] * squares + n, SHORTS):
            low = nothing
            for k in range(squares):
                value = load(costs, i + k * n)
                value = where_equal(value, nothing, instead, value)
                store(costs, i + k * n, value)
                low = smaller(low, value)
            for k in range(squares):
                store(costs, i + k * n, smaller(minus(load(costs, i + k * n), low), most))


@kernel()
def coarsen_costs(fine, fine_grid, grid, squares, cap, coarse):  # type: ignore[no-untyped-def]
    """Add the costs of 2x2 pixels label by label (relative to the smallest, cut at ``cap``). Sums end at 65535."""
    width, height, fine_first = fine_grid.width, fine_grid.height, fine_grid.first
    first, top = grid.first, grid.top
    most = splat(cap)
    for t in range(top.shape[0]):
        n = first[t + 1] - first[t]
        for i in range(0, n, SHORTS):
            low = splat(65535)
            begin = first[t] * squares + i
            for k in range(squares):
                store(coarse, begin + k * n, splat(0))
            for child in range(4):
                dy, dx = child // 2, child % 2
                s = 2 * t + dy + dx
                # Children exist for coarse y in lo…hi - 1 only: with x and y inside of the fine grid.
                lo = maximum(0, t - top[t] - (width - 1 - dx) // 2)
                hi = minimum(grid.length[t], (height - 1 - dy) // 2 - top[t] + 1)
                if lo >= hi:
                    continue
                m = fine_first[s + 1] - fine_first[s]
                at = fine_first[s] * squares + 2 * (top[t] + i) + dy - fine_grid.top[s]
                for k in range(squares):
                    cost = every_second(load(fine, at + k * m), load(fine, at + k * m + SHORTS))
                    total = plus_at_most(load(coarse, begin + k * n), cost)
                    store_part(coarse, begin + k * n, total, lo - i, hi - i)
            for k in range(squares):
                low = smaller(low, load(coarse, begin + k * n))
            for k in range(squares):
                store(coarse, begin + k * n, smaller(minus(load(coarse, begin + k * n), low), most))


@part_of_kernel()
def _transform(said, at, labels, alpha, truncation):  # type: ignore[no-untyped-def]
    """Lower envelope of cones of slope alpha over the labels (two passes), relative to its minimum, truncated."""
    steep, most = splat(alpha), splat(truncation)
    value = load(said, at)
    for label in range(1, labels):
        value = smaller(load(said, at + label * SHORTS), plus(value, steep))
        store(said, at + label * SHORTS, value)
    low = value
    for label in range(labels - 2, -1, -1):
        value = smaller(load(said, at + label * SHORTS), plus(value, steep))
        store(said, at + label * SHORTS, value)
        low = smaller(low, value)
    for label in range(labels):
        value = load(said, at + label * SHORTS)
        store(said, at + label * SHORTS, smaller(minus(value, low), most))


@part_of_kernel()
def _move(said, at, smoothness, shift, out, room):  # type: ignore[no-untyped-def]
    """Write to place ``out`` of ``said`` what place ``at`` holds, as the receivers' windows have it.

    ``shift`` is the difference of the window centres, receiver minus sender: label k of the receiver is label k + that
    of the sender; beyond the sender's window the message rises linearly. The reference truncates at the sender's
    minimum plus d and then subtracts the new minimum; so do we.
    """
    labels, alpha, truncation = smoothness
    for label in range(labels):
        store(said, out + label * SHORTS, load(said, at + label * SHORTS))
    for s in range(lowest(shift), highest(shift) + 1):
        if s == 0 or not holds(shift, s):
            continue
        low = splat(truncation)
        for label in range(labels):
            k = minimum(maximum(label + s, 0), labels - 1)
            beyond = splat(minimum(abs(label + s - k) * np.int64(alpha), 65535))
            value = plus_at_most(load(said, at + k * SHORTS), beyond)
            value = smaller(value, splat(truncation))
            store(said, room + label * SHORTS, value)
            low = smaller(low, value)
        for label in range(labels):
            there = out + label * SHORTS
            value = minus(load(said, room + label * SHORTS), low)
            store(said, there, where_equal(shift, splat(s), value, load(said, there)))


@part_of_kernel()
def _couple(costs, at, across, along, said, everything, labels, room, dual, to, n):  # type: ignore[no-untyped-def]
    """Message of a plane to the other plane of the same pixels: out[l] = min over own labels of cost + belief.

    ``costs`` from place ``at`` on are ``across`` apart for labels of the other plane, ``along`` for the own ones.
    """
    low = splat(65535)
    for label in range(labels):
        best = splat(65535)
        for k in range(labels):
            cost = load(costs, at + label * across + k * along)
            best = smaller(best, plus(cost, load(said, everything + k * SHORTS)))
        store(said, room + label * SHORTS, best)
        low = smaller(low, best)
    for label in range(labels):
        store(dual, to + label * n, minus(load(said, room + label * SHORTS), low))


@part_of_kernel()
def _collect(beliefs, plane, forward, at, n, labels, said, room):  # type: ignore[no-untyped-def]
    """Sum what a vector of pixels, whose labels are stored from ``at`` on, ``n`` apart, have heard.

    A message never contains what its receiver said: ``said`` gets what is for the right or left neighbour, from place
    ``room`` on what is for the lower or upper one, and from twice that on what all neighbours, but not the other plane,
    have said: for the coupling.
    """
    size = beliefs.ranges.shape[1]
    ahead, behind = (size, 0) if forward else (0, size)
    messages = beliefs.messages
    for label in range(labels):
        own = plane * size + at + label * n
        heard = own + 3 * plane * size
        shared = plus(load(messages, heard + behind), load(messages, heard + behind + 2 * size))
        shared = plus(shared, load(beliefs.ranges, own))
        from_ahead = load(messages, heard + ahead)
        from_ahead_v = load(messages, heard + ahead + 2 * size)
        into = label * SHORTS
        store(said, 2 * room + into, plus(shared, plus(from_ahead, from_ahead_v)))
        shared = plus(shared, load(beliefs.dual, own))
        store(said, into, plus(shared, from_ahead_v))
        store(said, room + into, plus(shared, from_ahead))


@kernel()
def sweep(costs, beliefs, centre, grid, smoothness, iterations, said):  # type: ignore[no-untyped-def]
    """Run ``iterations`` half sweeps (one plane each) in the reference's order; changes dual and messages in place.

    ``centre`` holds the window centres in storage order, ``said`` is room for five vectors of each label.
    """
    first, top, length, labels = grid.first, grid.top, grid.length, smoothness.labels
    size, room = beliefs.ranges.shape[1], labels * SHORTS
    # Where centres are farther apart than this, all of a message is cut.
    reach = labels + (np.int64(smoothness.truncation) + smoothness.alpha - 1) // smoothness.alpha
    for count in range(iterations):
        plane = count % 2
        forward = count % 4 < 2
        across, along = (
            (labels, 1) if plane == 0 else (1, labels)
        )  # costs are stored (label y, label x); plane 0 is x
        ahead = 1 if forward else -1
        for step in range(top.shape[0]):
            t = step if forward else top.shape[0] - 1 - step
            n, to, y0 = first[t + 1] - first[t], t + ahead, top[t]
            for i in range(0, n, SHORTS):
                _collect(beliefs, plane, forward, first[t] * labels + i, n, labels, said, room)
                for side in range(2):
                    if to < 0 or to >= top.shape[0]:
                        continue
                    # The right and left neighbours have the same y. Pixels of the last column or row have no right or
                    # lower neighbour, pixels of the first ones no left or upper one.
                    start, end = 0, length[t]
                    if forward and side == 0:
                        start = maximum(0, t - (grid.width - 1) - y0 + 1)
                    elif forward:
                        end = minimum(end, grid.height - 1 - y0)
                    elif side == 0:
                        end = minimum(end, t - y0)
                    else:
                        start = maximum(0, 1 - y0)
                    start, end = maximum(start - i, 0), minimum(end - i, SHORTS)
                    if start >= end:
                        continue
                    spoken = side * room
                    _transform(said, spoken, labels, smoothness.alpha, smoothness.truncation)
                    where = y0 + i + ahead * side - top[to]
                    here = plane * centre.shape[1] + first[t] + i
                    there = plane * centre.shape[1] + first[to] + where
                    shift = within(minus(load(centre, there), load(centre, here)), minimum(reach, 32767))
                    if lowest(shift) != 0 or highest(shift) != 0:
                        _move(said, spoken, smoothness, shift, 3 * room, 4 * room)
                        spoken = 3 * room
                    m = first[to + 1] - first[to]
                    into = (4 * plane + 2 * side + (0 if forward else 1)) * size + first[to] * labels + where
                    for label in range(labels):
                        value = load(said, spoken + label * SHORTS)
                        store_part(beliefs.messages, into + label * m, value, start, end)
                if count % 8 < 4:
                    own, other = first[t] * labels * labels + i, (1 - plane) * size + first[t] * labels + i
                    _couple(
                        costs, own, across * n, along * n, said, 2 * room, labels, 3 * room, beliefs.dual, other, n
                    )  # fmt: skip


@kernel()
def best_labels(beliefs, grid, labels, out):  # type: ignore[no-untyped-def]
    """Find the label of smallest belief of each plane: out[p] (flat over pixels) uint16 in 0…labels - 1."""
    ranges, dual, messages = beliefs
    first, size = grid.first, ranges.shape[1]
    for plane in range(2):
        for t in range(grid.top.shape[0]):
            n = first[t + 1] - first[t]
            for i in range(0, n, SHORTS):
                best, where = splat(65535), splat(0)
                for label in range(labels):
                    at = plane * size + first[t] * labels + label * n + i
                    value = plus(load(ranges, at), load(dual, at))
                    for k in range(4):
                        value = plus(value, load(messages, at + (3 * plane + k) * size))
                    where = where_smaller(value, best, splat(label), where)
                    best = smaller(best, value)
                store(out, plane * out.shape[1] + first[t] + i, where)


@kernel()
def inherit_messages(coarse, coarse_grid, grid, labels, count, fine):  # type: ignore[no-untyped-def]
    """Copy messages of a coarse graph, ``count`` of each label and pixel, to the four children of each pixel."""
    first, top, last = grid.first, grid.top, coarse_grid.top.shape[0] - 1
    size, coarse_size = fine.size // count, coarse.size // count
    for t in range(top.shape[0]):
        n = first[t + 1] - first[t]
        odd = top[t] % 2
        # Pixels of even and odd y come by turns. Their parents lie on one antidiagonal where t is odd, else on two.
        even_from, odd_from = minimum(t // 2, last), maximum((t + 1) // 2 - 1, 0)
        even_n = coarse_grid.first[even_from + 1] - coarse_grid.first[even_from]
        odd_n = coarse_grid.first[odd_from + 1] - coarse_grid.first[odd_from]
        for i in range(0, grid.length[t] + odd, SHORTS):
            above = (top[t] - odd + i) // 2
            even_at = coarse_grid.first[even_from] * labels + above - coarse_grid.top[even_from]
            odd_at = coarse_grid.first[odd_from] * labels + above - coarse_grid.top[odd_from]
            for k in range(count):
                for label in range(labels):
                    value = by_turns(
                        load(coarse, k * coarse_size + even_at + label * even_n),
                        load(coarse, k * coarse_size + odd_at + label * odd_n),
                    )
                    at = k * size + first[t] * labels + label * n + i - odd
                    store_part(fine, at, value, odd if i == 0 else 0, grid.length[t] + odd - i)


@kernel()
def _fill_ranges(centre, grid, labels, gamma, cap, out):  # type: ignore[no-untyped-def]
    """Compute the displacement costs gamma |u| of every label, in storage order, cut at ``cap``."""
    first = grid.first
    for plane in range(2):
        for t in range(grid.top.shape[0]):
            n = first[t + 1] - first[t]
            for i in range(0, n, SHORTS):
                here = load(centre, plane * centre.shape[1] + first[t] + i)
                for label in range(labels):
                    u = plus(here, splat(label - labels // 2))
                    at = plane * out.shape[1] + first[t] * labels + label * n + i
                    store(out, at, priced(u, gamma, cap))


def solve(
    costs: Any,
    centre: Int[np.ndarray, "2 h w"],
    labels: int,
    alpha: int,
    truncation: int,
    gamma: float,
    iterations: int,
    hierarchy: int,
) -> Int[np.ndarray, "2 h w"]:
    """Find labels (0…labels - 1 of the x and y plane) after belief propagation with the in-level hierarchy.

    Args:
        costs: pair costs in the storage of ``Diagonals.of(h, w)``, relative to each pixel's smallest.
        centre: window centres (x, y) as displacements, int32.
        labels: labels per plane, 2 radius + 1.
        alpha, truncation, gamma: smoothness min(alpha |du|, truncation) and displacement cost gamma |u|.
        iterations: half sweeps; 30 are 15 sweeps of each plane.
        hierarchy: how many times the graph is halved before.
    """
    height, width = centre.shape[1:]
    layout = Diagonals.of(height, width)
    smoothness = Smoothness(labels, np.uint16(alpha), np.uint16(truncation))
    beliefs = propagate(costs, centre, layout, smoothness, gamma, iterations, hierarchy)
    flat = np.empty((2, layout.size), np.uint16)
    best_labels(beliefs, layout, labels, flat)
    return flat[:, layout.position].astype(np.int32)


def propagate(
    costs: Any,
    centre: Int[np.ndarray, "2 h w"],
    layout: Diagonals,
    smoothness: Smoothness,
    gamma: float,
    iterations: int,
    hierarchy: int,
) -> Beliefs:
    """Run belief propagation on a graph, after that on the graph halved ``hierarchy`` times (see ``solve``)."""
    height, width, labels = layout.height, layout.width, smoothness.labels
    size = layout.size * labels
    halved = hierarchy > 0 and min(height, width) > 1
    room = np.empty if halved else np.zeros  # what is halved inherits a value for every pixel
    beliefs = Beliefs(
        np.empty((2, size), np.uint16), room((2, size), np.uint16), room((2, 4, size), np.uint16)
    )
    if halved:
        coarse = Diagonals.of((height + 1) // 2, (width + 1) // 2)
        coarse_costs = np.empty(coarse.size * labels * labels, np.uint16)
        coarsen_costs(costs, layout, coarse, labels * labels, COST_CAP, coarse_costs)
        above = propagate(
            coarse_costs,
            _halve_centres(centre),
            coarse,
            smoothness,
            gamma / 2,
            min(COARSE_ITERATIONS, iterations),
            hierarchy - 1,
        )
        inherit_messages(above.dual, coarse, layout, labels, 2, beliefs.dual)
        inherit_messages(
            above.messages.reshape(8, -1), coarse, layout, labels, 8, beliefs.messages.reshape(8, -1)
        )
    stored = np.zeros((2, layout.size), np.int16)
    stored[:, layout.position] = np.clip(centre, -FARTHEST, FARTHEST)
    _fill_ranges(stored, layout, labels, np.float32(gamma), np.float32(RANGE_CAP), beliefs.ranges)
    said = np.empty(5 * labels * SHORTS, np.uint16)
    sweep(costs, beliefs, stored, layout, smoothness, iterations, said)
    return beliefs


def _halve_centres(centre: Int[np.ndarray, "2 h w"]) -> Int[np.ndarray, "2 h w"]:
    """Mean of 2x2 window centres (fewer at odd borders), rounded towards zero as the reference does."""
    _, h, w = centre.shape
    padded = np.pad(centre, ((0, 0), (0, h % 2), (0, w % 2)), mode="edge")
    rows = padded[:, ::2] + padded[:, 1::2]
    total = rows[:, :, ::2] + rows[:, :, 1::2]
    return np.asarray((total + 3 * (total < 0)) >> 2, np.int32)


def data_costs(
    sift_a: UInt8[np.ndarray, "ha wa c"],
    sift_b: UInt8[np.ndarray, "hb wb c"],
    mask_a: Any,
    mask_b: Any,
    centre: Int[np.ndarray, "2 ha wa"],
    radius: int,
    scale: float = 1.0,
    threads: int = 1,
) -> tuple[Any, float]:
    """Compute pair costs in the storage of ``solve``, and what labels without data got (unscaled).

    As in the release of SIFT Flow that is the median of all costs plus the smallest one.
    """
    height, width = sift_a.shape[:2]
    labels = 2 * radius + 1
    layout = Diagonals.of(height, width)
    costs = np.empty(layout.size * labels * labels, np.uint16)
    sift_a, sift_b = whole_vectors(sift_a), whole_vectors(sift_b)
    bounds = np.linspace(0, height, max(1, threads) + 1).astype(np.int64)
    counts = np.zeros((len(bounds) - 1, 65536), np.int64)

    def part(k: int) -> None:
        pair_costs(
            sift_a, sift_b, mask_a, mask_b, centre, radius, layout, bounds[k], bounds[k + 1], costs, counts[k],
            np.empty(width * labels * labels + 1, np.uint16),
        )  # fmt: skip

    map_ordered(part, range(len(bounds) - 1), threads)
    every = counts.sum(0)
    every[NO_DATA] = 0
    total = np.cumsum(every)
    default = 0  # no label anywhere has data: any constant will do
    if total[-1] > 0:
        median = int(np.searchsorted(total, total[-1] * 0.5))
        default = min(median + int(np.flatnonzero(every)[0]), int(NO_DATA) - 1)
    finish_costs(costs, layout, labels * labels, default, COST_CAP if scale == 1.0 else 65535)
    if scale != 1.0:
        costs = np.minimum(costs * np.float32(scale) + np.float32(0.5), COST_CAP).astype(np.uint16)
    return costs, float(default)
