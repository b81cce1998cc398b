"""Min-sum belief propagation on a grid with two coupled label planes, the solver inside SIFT Flow.

The schedule is the reference's: sequential sweeps from the top-left corner and back, one plane at a time. Pixels on
one antidiagonal do not depend on each other within such a sweep, so all arrays here are stored antidiagonal by
antidiagonal (label by label within one) and every inner loop runs over the pixels of an antidiagonal: results are those
of the sequential sweep, while the processor works on 16 to 32 pixels at a time.

Costs are integers in uint16. Sums stay in range by construction: four spatial messages of at most ``d``
(``MAX_TRUNCATION``), a message of the other plane and the pair costs of at most ``COST_CAP``, displacement costs of at
most ``RANGE_CAP``.

Source: C. Liu, J. Yuen, A. Torralba, "SIFT Flow: Dense Correspondence across Scenes and its Applications", TPAMI 2011,
section 3.2; the schedule, the hierarchy and the constants follow its released code where the paper is silent.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Int32, UInt8, UInt16

from recon.core.kernels import kernel, maximum, minimum, part_of_kernel
from recon.core.parallel import map_ordered

MAX_TRUNCATION = 10200
"""Largest truncation ``d`` that the messages can hold; larger ones are scaled down with all other costs."""

COST_CAP = 20000
"""Pair costs above this (relative to the best pair of the pixel) are cut. SIFT descriptors stay below 9000."""

RANGE_CAP = 4000
"""Displacement costs above this are cut: 3000 px at the default gamma."""

COARSE_ITERATIONS = 20
"""Half sweeps on each coarsened graph (the reference's value)."""

NO_DATA = np.uint16(65535)


class Diagonals(NamedTuple):
    """Antidiagonals x + y = t of a grid in flat storage.

    Attributes:
        height, width: of the grid.
        first: number of pixels before antidiagonal t, (h + w,) int64.
        top: smallest y on antidiagonal t, (h + w - 1,) int64.
        position: in storage of pixel (y, x), (h, w) int64.
    """

    height: int
    width: int
    first: Int[np.ndarray, " t"]
    top: Int[np.ndarray, " t"]
    position: Int[np.ndarray, "h w"]

    @staticmethod
    def of(height: int, width: int) -> Diagonals:
        """Lay out a grid of this size."""
        t = np.arange(height + width - 1)
        top = np.maximum(0, t - width + 1)
        length = np.minimum(height - 1, t) - top + 1
        first = np.concatenate([[0], np.cumsum(length)])
        y, x = np.mgrid[0:height, 0:width]
        index = first[y + x] + y - top[y + x]
        return Diagonals(height, width, first, top, index)


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


class Shifts(NamedTuple):
    """Window centre of the right (lower) neighbour of each pixel minus its own, [p] in storage order, int32."""

    right: Int32[np.ndarray, "2 n"]
    down: Int32[np.ndarray, "2 n"]


@kernel()
def pair_costs(  # type: ignore[no-untyped-def]
    sift_a, sift_b, mask_a, mask_b, centre, radius, grid, begin, end, costs, histogram
):
    """Compute L1 distances of every pixel of A to the window of B around its centre, for antidiagonals begin…end.

    ``costs`` (flat uint16, stored antidiagonal, label y, label x, pixel) gets NO_DATA where the label points out of B
    or at a masked pixel of B, and 0 for every label of a masked pixel of A. ``histogram`` counts the distances.
    """
    channels = sift_a.shape[2]
    hb, wb = sift_b.shape[0], sift_b.shape[1]
    labels = 2 * radius + 1
    first, top = grid.first, grid.top
    for t in range(begin, end):
        n = first[t + 1] - first[t]
        block = costs[first[t] * labels * labels : first[t + 1] * labels * labels]
        for i in range(n):
            y = top[t] + i
            x = t - y
            if not mask_a[y, x]:
                for k in range(labels * labels):
                    block[k * n + i] = np.uint16(0)
                continue
            descriptor = sift_a[y, x]
            for ly in range(labels):
                yb = y + centre[1, y, x] + ly - radius
                for lx in range(labels):
                    xb = x + centre[0, y, x] + lx - radius
                    position = (ly * labels + lx) * n + i
                    if yb < 0 or yb >= hb or xb < 0 or xb >= wb or not mask_b[yb, xb]:
                        block[position] = np.uint16(65535)
                        continue
                    other = sift_b[yb, xb]
                    total = np.int32(0)
                    for c in range(channels):
                        # Written so that compilers see a sum of absolute differences, for which there are instructions.
                        gap = np.int32(np.int32(descriptor[c]) - np.int32(other[c]))
                        total = np.int32(total + (gap if gap > np.int32(0) else np.int32(-gap)))
                    block[position] = np.uint16(total)
                    histogram[total] += 1


@kernel()
def finish_costs(costs, first, labels, default, scale, cap, smallest):  # type: ignore[no-untyped-def]
    """Replace NO_DATA by the default cost, scale, and make the costs of every pixel relative to its smallest.

    ``smallest`` is room for the longest antidiagonal.
    """
    squares = labels * labels
    for t in range(first.shape[0] - 1):
        n = first[t + 1] - first[t]
        block = costs[first[t] * squares : first[t + 1] * squares]
        low = smallest[:n]
        for i in range(n):
            low[i] = np.uint16(65535)
        for k in range(squares):
            row = block[k * n : (k + 1) * n]
            for i in range(n):
                value = default if row[i] == np.uint16(65535) else row[i]
                row[i] = value
                low[i] = minimum(low[i], value)
        for k in range(squares):
            row = block[k * n : (k + 1) * n]
            if scale == 1.0:
                for i in range(n):
                    row[i] = minimum(np.uint16(row[i] - low[i]), cap)
            else:
                for i in range(n):
                    row[i] = np.uint16(minimum(np.float32(row[i] - low[i]) * scale + np.float32(0.5), cap))


@kernel()
def coarsen_costs(fine, fine_grid, grid, labels, cap, total, low, coarse):  # type: ignore[no-untyped-def]
    """Add the costs of 2x2 pixels label by label (relative to the smallest, cut at ``cap``).

    ``total`` (labels^2, n) and ``low`` (n) uint32 are room for the longest antidiagonal.
    """
    squares = labels * labels
    fine_first, fine_top, height, width = fine_grid.first, fine_grid.top, fine_grid.height, fine_grid.width
    first, top = grid.first, grid.top
    for t in range(first.shape[0] - 1):
        n = first[t + 1] - first[t]
        for i in range(n):
            low[i] = np.uint32(0xFFFFFFFF)
        for k in range(squares):
            row = total[k]
            for i in range(n):
                row[i] = np.uint32(0)
            for child in range(4):
                dy, dx = child // 2, child % 2
                s = 2 * t + dy + dx
                # Children exist for coarse y in lo…hi - 1 only: with x and y inside of the fine grid.
                lo = maximum(0, t - top[t] - (width - 1 - dx) // 2)
                hi = minimum(n, (height - 1 - dy) // 2 - top[t] + 1)
                if lo >= hi:
                    continue
                m = fine_first[s + 1] - fine_first[s]
                begin = fine_first[s] * squares + k * m + 2 * (top[t] + lo) + dy - fine_top[s]
                source = fine[begin : begin + 2 * (hi - lo)]
                for i in range(hi - lo):
                    row[lo + i] = np.uint32(row[lo + i] + np.uint32(source[2 * i]))
            for i in range(n):
                low[i] = minimum(low[i], row[i])
        begin = first[t] * squares
        for k in range(squares):
            row = total[k]
            out = coarse[begin + k * n : begin + (k + 1) * n]
            for i in range(n):
                out[i] = np.uint16(minimum(np.uint32(row[i] - low[i]), np.uint32(cap)))


@part_of_kernel()
def _transform(belief, n, smoothness, low):  # type: ignore[no-untyped-def]
    """Lower envelope of cones of slope alpha over the labels (two passes), relative to its minimum, truncated."""
    labels, alpha, truncation = smoothness
    for label in range(1, labels):
        before = belief[label - 1]
        row = belief[label]
        for i in range(n):
            row[i] = minimum(row[i], np.uint16(before[i] + alpha))
    for label in range(labels - 2, -1, -1):
        after = belief[label + 1]
        row = belief[label]
        for i in range(n):
            row[i] = minimum(row[i], np.uint16(after[i] + alpha))
    row = belief[0]
    for i in range(n):
        low[i] = row[i]
    for label in range(1, labels):
        row = belief[label]
        for i in range(n):
            low[i] = minimum(low[i], row[i])
    for label in range(labels):
        row = belief[label]
        for i in range(n):
            row[i] = minimum(np.uint16(row[i] - low[i]), truncation)


@part_of_kernel()
def _deliver(  # type: ignore[no-untyped-def]
    belief, begin, end, smoothness, shift, sign, target, length, where
):
    """Write the transformed beliefs of pixels begin…end - 1 into the receivers' messages.

    ``target`` holds the messages of the receivers' antidiagonal, which has ``length`` pixels, the first receiver at
    ``where``. ``sign`` times ``shift`` is the difference of the window centres, receiver minus sender, from pixel begin
    on: label k of the receiver is label k + that of the sender; beyond the sender's window the message rises linearly.
    The reference truncates at the sender's minimum plus d and then subtracts the new minimum; so do we.
    """
    labels, alpha, truncation = smoothness
    count = end - begin
    for label in range(labels):
        source = belief[label, begin:end]
        out = target[label * length + where : label * length + where + count]
        for i in range(count):
            out[i] = source[i]
    for i in range(count):
        s = sign * shift[i]
        if s == 0:
            continue
        low = np.int32(truncation)
        for label in range(labels):
            k = label + s
            if k < 0:
                value = np.int32(belief[0, begin + i]) + np.int32(-k) * np.int32(alpha)
            elif k >= labels:
                value = np.int32(belief[labels - 1, begin + i]) + np.int32(k - labels + 1) * np.int32(alpha)
            else:
                value = np.int32(belief[k, begin + i])
            value = minimum(value, np.int32(truncation))
            low = minimum(low, value)
            target[label * length + where + i] = np.uint16(value)
        if low > 0:
            for label in range(labels):
                target[label * length + where + i] -= np.uint16(low)


@part_of_kernel()
def _couple(costs, belief, n, labels, plane, low, out):  # type: ignore[no-untyped-def]
    """Message of a plane to the other plane of the same pixels: out[l] = min over own labels of cost + belief."""
    for label in range(labels):
        into = out[label * n : (label + 1) * n]
        for i in range(n):
            into[i] = np.uint16(65535)
        for k in range(labels):
            # Costs are stored (label y, label x); plane 0 is x.
            pair = label * labels + k if plane == 0 else k * labels + label
            cost = costs[pair * n : (pair + 1) * n]
            own = belief[k]
            for i in range(n):
                into[i] = minimum(into[i], np.uint16(cost[i] + own[i]))
    row = out[0:n]
    for i in range(n):
        low[i] = row[i]
    for label in range(1, labels):
        row = out[label * n : (label + 1) * n]
        for i in range(n):
            low[i] = minimum(low[i], row[i])
    for label in range(labels):
        row = out[label * n : (label + 1) * n]
        for i in range(n):
            row[i] = np.uint16(row[i] - low[i])


@part_of_kernel()
def _collect(  # type: ignore[no-untyped-def]
    beliefs, plane, forward, begin, n, labels, horizontal, vertical, everything
):
    """Sum what ``n`` pixels, whose labels are stored from ``begin``, have heard.

    A message never contains what its receiver said: ``horizontal`` is for the right or left neighbour, ``vertical``
    for the lower or upper one. ``everything``, for the coupling, hears all neighbours but not the other plane.
    """
    ahead, behind = (1, 0) if forward else (0, 1)
    for label in range(labels):
        a = begin + label * n
        b = a + n
        row_range = beliefs.ranges[plane, a:b]
        row_dual = beliefs.dual[plane, a:b]
        from_behind = beliefs.messages[plane, behind, a:b]
        from_ahead = beliefs.messages[plane, ahead, a:b]
        from_behind_v = beliefs.messages[plane, 2 + behind, a:b]
        from_ahead_v = beliefs.messages[plane, 2 + ahead, a:b]
        row_h = horizontal[label]
        row_v = vertical[label]
        row_e = everything[label]
        for i in range(n):
            shared = np.uint16(row_range[i] + np.uint16(from_behind[i] + from_behind_v[i]))
            row_e[i] = np.uint16(shared + np.uint16(from_ahead[i] + from_ahead_v[i]))
            shared = np.uint16(shared + row_dual[i])
            row_h[i] = np.uint16(shared + from_ahead_v[i])
            row_v[i] = np.uint16(shared + from_ahead[i])


@kernel()
def sweep(costs, beliefs, shifts, grid, smoothness, iterations, spoken, low):  # type: ignore[no-untyped-def]
    """Run ``iterations`` half sweeps (one plane each) in the reference's order; changes dual and messages in place.

    ``spoken`` (3, labels, n) and ``low`` (n) are room for the longest antidiagonal: what is said to the right or left
    neighbour, to the lower or upper one, and to the other plane.
    """
    first, top, labels = grid.first, grid.top, smoothness.labels
    squares = labels * labels
    diagonals = first.shape[0] - 1
    for count in range(iterations):
        plane = count % 2
        forward = count % 4 < 2
        coupled = count % 8 < 4
        ahead = 1 if forward else -1
        for step in range(diagonals):
            t = step if forward else diagonals - 1 - step
            n = first[t + 1] - first[t]
            begin = first[t] * labels
            _collect(beliefs, plane, forward, begin, n, labels, spoken[0], spoken[1], spoken[2])
            to = t + ahead
            for side in range(2):
                _transform(spoken[side], n, smoothness, low)
                if to < 0 or to >= diagonals:
                    continue
                # The right and left neighbours have the same y. Pixels of the last column or row have no right or
                # lower neighbour, pixels of the first ones no left or upper one.
                y0 = top[t]
                start, end = 0, n
                if forward and side == 0:
                    start = maximum(0, t - (grid.width - 1) - y0 + 1)
                elif forward:
                    end = minimum(n, grid.height - 1 - y0)
                elif side == 0:
                    end = minimum(n, t - y0)
                else:
                    start = maximum(0, 1 - y0)
                if start >= end:
                    continue
                where = y0 + start + ahead * side - top[to]
                # Noted with the left or upper one of two neighbours.
                at = first[t] + start if forward else first[to] + where
                steps = shifts.right if side == 0 else shifts.down
                into = beliefs.messages[plane, 2 * side + (0 if forward else 1)]
                _deliver(
                    spoken[side],
                    start,
                    end,
                    smoothness,
                    steps[plane, at : at + end - start],
                    ahead,
                    into[first[to] * labels : first[to + 1] * labels],
                    first[to + 1] - first[to],
                    where,
                )
            if coupled:
                pairs = costs[first[t] * squares : first[t + 1] * squares]
                out = beliefs.dual[1 - plane, begin : begin + n * labels]
                _couple(pairs, spoken[2], n, labels, plane, low, out)


@kernel()
def best_labels(beliefs, grid, labels, out):  # type: ignore[no-untyped-def]
    """Find the label of smallest belief of each plane: out[p] (flat over pixels) int32 in 0…labels - 1."""
    ranges, dual, messages = beliefs
    first = grid.first
    for plane in range(2):
        for t in range(first.shape[0] - 1):
            n = first[t + 1] - first[t]
            o = first[t] * labels
            for i in range(n):
                best = np.int64(1) << 40
                where = 0
                for label in range(labels):
                    at = o + label * n + i
                    value = np.int64(ranges[plane, at]) + np.int64(dual[plane, at])
                    for k in range(4):
                        value += np.int64(messages[plane, k, at])
                    if value < best:
                        best = value
                        where = label
                out[plane, first[t] + i] = where


@kernel()
def inherit_messages(coarse, coarse_grid, grid, labels, beliefs):  # type: ignore[no-untyped-def]
    """Copy the messages of a coarse graph to the four children of each of its pixels."""
    first, top = grid.first, grid.top
    for t in range(first.shape[0] - 1):
        n = first[t + 1] - first[t]
        o = first[t] * labels
        for i in range(n):
            y = top[t] + i
            x = t - y
            ct = x // 2 + y // 2
            cn = coarse_grid.first[ct + 1] - coarse_grid.first[ct]
            co = coarse_grid.first[ct] * labels + y // 2 - coarse_grid.top[ct]
            for label in range(labels):
                at, coarse_at = o + label * n + i, co + label * cn
                for plane in range(2):
                    beliefs.dual[plane, at] = coarse.dual[plane, coarse_at]
                    for k in range(4):
                        beliefs.messages[plane, k, at] = coarse.messages[plane, k, coarse_at]


def _shifts(centre: Int[np.ndarray, "2 h w"], layout: Diagonals) -> Shifts:
    right = np.zeros((2, layout.height * layout.width), np.int32)
    down = np.zeros_like(right)
    right[:, layout.position[:, :-1].ravel()] = np.diff(centre, axis=2).reshape(2, -1)
    down[:, layout.position[:-1].ravel()] = np.diff(centre, axis=1).reshape(2, -1)
    return Shifts(right, down)


@kernel()
def _fill_ranges(centre, grid, labels, gamma, cap, out):  # type: ignore[no-untyped-def]
    """Compute the displacement costs gamma |u| of every label, in storage order, cut at ``cap``."""
    first, top = grid.first, grid.top
    radius = labels // 2
    for t in range(first.shape[0] - 1):
        n = first[t + 1] - first[t]
        o = first[t] * labels
        for label in range(labels):
            for i in range(n):
                y = top[t] + i
                for plane in range(2):
                    u = centre[plane, y, t - y] + label - radius
                    out[plane, o + label * n + i] = np.uint16(
                        minimum(cap, gamma * np.float32(abs(u)) + np.float32(0.5))
                    )


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
    flat = np.empty((2, height * width), np.int32)
    best_labels(beliefs, layout, labels, flat)
    return flat[:, layout.position]


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
    size = height * width * labels
    beliefs = Beliefs(
        np.empty((2, size), np.uint16), np.zeros((2, size), np.uint16), np.zeros((2, 4, size), np.uint16)
    )
    if hierarchy > 0 and min(height, width) > 1:
        coarse = Diagonals.of((height + 1) // 2, (width + 1) // 2)
        coarse_costs = np.empty(coarse.height * coarse.width * labels * labels, np.uint16)
        longest = min(coarse.height, coarse.width)
        room = np.empty((labels * labels, longest), np.uint32), np.empty(longest, np.uint32)
        coarsen_costs(costs, layout, coarse, labels, COST_CAP, *room, coarse_costs)
        above = propagate(
            coarse_costs,
            _halve_centres(centre),
            coarse,
            smoothness,
            gamma / 2,
            min(COARSE_ITERATIONS, iterations),
            hierarchy - 1,
        )
        inherit_messages(above, coarse, layout, labels, beliefs)
    _fill_ranges(centre, layout, labels, np.float32(gamma), np.float32(RANGE_CAP), beliefs.ranges)
    longest = min(height, width)
    spoken, low = np.empty((3, labels, longest), np.uint16), np.empty(longest, np.uint16)
    sweep(costs, beliefs, _shifts(centre, layout), layout, smoothness, iterations, spoken, low)
    return beliefs


def _halve_centres(centre: Int[np.ndarray, "2 h w"]) -> Int[np.ndarray, "2 h w"]:
    """Mean of 2x2 window centres (fewer at odd borders), rounded towards zero as the reference does."""
    _, h, w = centre.shape
    padded = np.pad(centre.astype(np.int64), ((0, 0), (0, h % 2), (0, w % 2)))
    ones = np.pad(np.ones((h, w), np.int64), ((0, h % 2), (0, w % 2)))
    total = padded.reshape(2, (h + 1) // 2, 2, (w + 1) // 2, 2).sum((2, 4))
    count = ones.reshape((h + 1) // 2, 2, (w + 1) // 2, 2).sum((1, 3))
    return np.trunc(total / count).astype(np.int32)


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
    costs = np.empty(height * width * labels * labels, np.uint16)
    bounds = np.searchsorted(layout.first, np.linspace(0, height * width, max(1, threads) + 1))
    bounds[0], bounds[-1] = 0, height + width - 1
    counts = np.zeros((len(bounds) - 1, 65536), np.int64)

    def part(k: int) -> None:
        pair_costs(
            sift_a, sift_b, mask_a, mask_b, centre, radius, layout, bounds[k], bounds[k + 1], costs, counts[k],
        )  # fmt: skip

    map_ordered(part, range(len(bounds) - 1), threads)
    every = counts.sum(0)
    total = np.cumsum(every)
    default = 0  # no label anywhere has data: any constant will do
    if total[-1] > 0:
        median = int(np.searchsorted(total, total[-1] * 0.5))
        default = min(median + int(np.flatnonzero(every)[0]), int(NO_DATA) - 1)
    room = np.empty(min(height, width), np.uint16)
    finish_costs(
        costs, layout.first, labels, np.uint16(default), np.float32(scale), np.uint16(COST_CAP), room
    )
    return costs, float(default)
