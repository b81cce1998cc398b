"""The best view of each face, with as little seam as the loss of resolution is worth."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int8, Int16, Int32

from recon.core.kernels import kernel, maximum, minimum
from recon.surface.texture.color import Agreement, largest_channel
from recon.surface.texture.topology import Adjacency, regions
from recon.surface.texture.visibility import Candidates

_FAR = np.float32(1e9)
# Grey levels of disagreement at which a face is worth nothing in a view.
_DISAGREEMENT = 60.0


def face_costs(candidates: Candidates, agreement: Agreement) -> Float32[np.ndarray, "m k"]:
    """Pixels that are lost when a slot's view textures a face in place of its best one; 1e9 for unusable slots.

    What a view shows of a face, in pixels, falls with the residual against the consensus.
    """
    residual = largest_channel(agreement.residual)
    worth = candidates.area * np.clip(1 - residual / _DISAGREEMENT, 0.05, 1)
    worth = np.where(agreement.accepted, worth, 0)
    best = worth.max(axis=1, keepdims=True)
    return np.where(agreement.accepted, best - worth, _FAR).astype(np.float32)


def seam_lengths(
    vertices: Float64[np.ndarray, "n 3"],
    faces: Int32[np.ndarray, "m 3"],
    candidates: Candidates,
) -> Float32[np.ndarray, "m 3"]:
    """Length in pixels of each face's edges in the view that shows the face largest (0 for faces not seen)."""
    corners = vertices[faces]
    edge = np.linalg.norm(np.roll(corners, -1, axis=1) - corners, axis=2)
    area = 0.5 * np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    scale = np.sqrt(candidates.area.max(axis=1) / np.maximum(area, 1e-30))
    return (edge * scale[:, None]).astype(np.float32)


def choose_views(
    cost: Float32[np.ndarray, "m k"],
    views: Int16[np.ndarray, "m k"],
    adjacency: Adjacency,
    seam: Float32[np.ndarray, "m 3"],
    *,
    iterations: int = 15,
) -> Int32[np.ndarray, " m"]:
    """Choose a view for each face: least sum of costs plus seam costs between neighbours with different views.

    Sequential tree-reweighted message passing (Kolmogorov 2006, TRW-S) on the graph of faces, in the order of the
    faces, with Potts costs; the best labelling met on the way, then iterated conditional modes.

    Args:
        cost: of each slot, 1e9 where it may not be used.
        views: what view a slot holds; -1 for none.
        seam: (m, 3) cost of a seam over each edge of a face; the mean of both faces' figures counts.
        iterations: forward and backward passes.

    Returns:
        (m,) view of each face, -1 where no slot may be used.
    """
    usable = (cost < _FAR) & (views >= 0)
    seen: Bool[np.ndarray, " m"] = np.asarray(usable.any(axis=1))
    neighbour = np.where(seen[:, None], adjacency.face, -1)
    neighbour = np.where((neighbour >= 0) & seen[np.maximum(neighbour, 0)], neighbour, -1).astype(np.int32)
    back = adjacency.back
    other = seam[np.maximum(neighbour, 0), back]
    weight = np.where(neighbour >= 0, 0.5 * (seam + other), 0).astype(np.float32)
    unary = np.where(usable, cost, _FAR).astype(np.float32)
    ids = np.where(usable, views, -1).astype(np.int16)
    slot = _trws(unary, ids, neighbour, back, weight, seen, iterations)
    message = np.zeros((len(ids), 3, 1), np.float32)  # not asked for: all neighbours are decided
    for _ in range(10):
        if _choose(unary, ids, neighbour, weight, message, seen, slot, False) == 0:
            break
    return np.where(seen, ids[np.arange(len(ids)), slot], -1).astype(np.int32)


def _trws(
    unary: Float32[np.ndarray, "m k"],
    ids: Int16[np.ndarray, "m k"],
    neighbour: Int32[np.ndarray, "m 3"],
    back: Int32[np.ndarray, "m 3"],
    weight: Float32[np.ndarray, "m 3"],
    seen: Bool[np.ndarray, " m"],
    iterations: int,
) -> Int8[np.ndarray, " m"]:
    """Slot of each face by sequential tree-reweighted message passing; the best of all passes."""
    m, count = unary.shape
    message = np.zeros((m, 3, count), np.float32)
    work = np.empty((2, count), np.float32)
    best = np.zeros(m, np.int8)
    best_energy = np.inf
    rows = np.arange(m)
    face, side = np.nonzero(neighbour > rows[:, None])
    other, edge = neighbour[face, side], weight[face, side]
    for _ in range(iterations):
        # The labelling that goes with this pass: conditioned on what is decided, messages from the rest.
        current = np.zeros(m, np.int8)
        _choose(unary, ids, neighbour, weight, message, seen, current, True)
        view = ids[rows, current]
        energy = float(unary[rows, current].sum(dtype=np.float64, where=seen))
        energy += float(edge.sum(dtype=np.float64, where=view[face] != view[other]))
        if energy < best_energy:
            best, best_energy = current, energy
        for forward in (True, False):
            _send(unary, ids, neighbour, back, weight, seen, message, work, forward)
    return best


@kernel()
def _choose(
    unary: Float32[np.ndarray, "m k"],
    ids: Int16[np.ndarray, "m k"],
    neighbour: Int32[np.ndarray, "m 3"],
    weight: Float32[np.ndarray, "m 3"],
    message: Float32[np.ndarray, "m 3 k"],
    seen: Bool[np.ndarray, " m"],
    slot: Int8[np.ndarray, " m"],
    in_turn: bool,
) -> int:
    """Give every face, in turn, its slot of least cost; returns how many changed.

    The slots of all neighbours are given; ``in_turn`` only those of faces before, and the others' messages count.
    """
    m = len(seen)
    changed = 0
    for f in range(m):
        if not seen[f]:
            continue
        decided = f if in_turn else m
        lowest, pick = np.float32(np.inf), 0
        for k in range(unary.shape[1]):
            if ids[f, k] < 0:
                continue
            value = unary[f, k]
            for j in range(3):
                g = neighbour[f, j]
                if g < 0:
                    continue
                if g >= decided:
                    value += message[f, j, k]
                elif ids[g, slot[g]] != ids[f, k]:
                    value += weight[f, j]
            if value < lowest:
                lowest, pick = value, k
        if slot[f] != pick:
            slot[f] = pick
            changed += 1
    return changed


@kernel(error_model="numpy")
def _send(
    unary: Float32[np.ndarray, "m k"],
    ids: Int16[np.ndarray, "m k"],
    neighbour: Int32[np.ndarray, "m 3"],
    back: Int32[np.ndarray, "m 3"],
    weight: Float32[np.ndarray, "m 3"],
    seen: Bool[np.ndarray, " m"],
    message: Float32[np.ndarray, "m 3 k"],
    work: Float32[np.ndarray, "2 k"],
    forward: bool,
) -> None:
    """Messages of all faces to those after them, first to last; or to those before them, last to first."""
    m, count = unary.shape
    belief, outgoing = work[0], work[1]
    for position in range(m):
        f = position if forward else m - 1 - position
        if not seen[f]:
            continue
        before = after = 0
        for k in range(count):
            belief[k] = unary[f, k]
        for j in range(3):
            g = neighbour[f, j]
            if g < 0:
                continue
            if (g < f) == forward:
                before += 1
            else:
                after += 1
            for k in range(count):
                belief[k] += message[f, j, k]
        if after == 0:
            continue
        gamma = np.float32(1.0 / maximum(before, after))
        for j in range(3):
            g = neighbour[f, j]
            if g < 0 or (g < f) == forward:
                continue
            low = np.float32(np.inf)
            for k in range(count):
                if ids[f, k] >= 0:
                    outgoing[k] = gamma * belief[k] - message[f, j, k]
                    low = minimum(low, outgoing[k])
            limit = low + weight[f, j]
            into = message[g, back[f, j]]
            least = np.float32(np.inf)
            for kk in range(count):
                into[kk] = 0
                if ids[g, kk] < 0:
                    continue
                value = limit
                for k in range(count):
                    if ids[f, k] == ids[g, kk]:
                        value = minimum(value, outgoing[k])
                        break
                into[kk] = value
                least = minimum(least, value)
            for kk in range(count):
                if ids[g, kk] >= 0:
                    into[kk] -= least


def drop_small_regions(
    labels: Int32[np.ndarray, " m"],
    cost: Float32[np.ndarray, "m k"],
    candidates: Candidates,
    adjacency: Adjacency,
    seam: Float32[np.ndarray, "m 3"],
    *,
    min_area: float = 64.0,
    rounds: int = 4,
) -> Int32[np.ndarray, " m"]:
    """Give regions of fewer than ``min_area`` pixels to the neighbours round them, where those views see them too.

    A whole region moves at a time: to the one view, among those that all its faces have, with which it shares the
    longest seam. Faces one at a time (iterated conditional modes) cannot cross that barrier.
    """
    labels = labels.copy()
    area = candidates.area.max(axis=1).astype(np.float64)
    views = int(candidates.view.max(initial=-1)) + 1
    if views <= 0:
        return labels
    i, j = adjacency.pairs[:, 0], adjacency.pairs[:, 1]
    length = np.zeros(len(i))
    # Length of each shared edge from its first face.
    for c in range(3):
        hit = adjacency.face[i, c] == j
        length[hit] = seam[i[hit], c]
    at, slot = np.nonzero((cost < _FAR) & (candidates.view >= 0))
    slot_view = candidates.view[at, slot].astype(np.int64)
    for _ in range(rounds):
        region = regions(adjacency, labels)
        number = int(region.max()) + 1
        size = np.bincount(region, area, number)
        faces_of = np.bincount(region, minlength=number)
        small = (size < min_area) & (np.bincount(region, labels >= 0, number) > 0)
        if not small.any():
            break
        # How many faces of a region have a view.
        mine = small[region[at]]
        key, support = np.unique(
            region[at[mine]].astype(np.int64) * views + slot_view[mine], return_counts=True
        )
        # What a region borders on.
        border = (region[i] != region[j]) & (labels[i] >= 0) & (labels[j] >= 0)
        a, b = np.concatenate([i[border], j[border]]), np.concatenate([j[border], i[border]])
        stretch = np.concatenate([length[border]] * 2)
        # A small region only goes to one that is larger, so that two do not swap for ever.
        good = small[region[a]] & (
            (size[region[b]] > size[region[a]])
            | ((size[region[b]] == size[region[a]]) & (region[b] > region[a]))
        )
        a, b, stretch = a[good], b[good], stretch[good]
        wish, inverse = np.unique(region[a].astype(np.int64) * views + labels[b], return_inverse=True)
        if len(wish) == 0:
            break
        total = np.bincount(inverse.reshape(-1), stretch, len(wish))
        place = np.minimum(np.searchsorted(key, wish), len(key) - 1)
        possible = (key[place] == wish) & (support[place] == faces_of[wish // views])
        wish, total = wish[possible], total[possible]
        if len(wish) == 0:
            break
        order = np.lexsort((total, wish // views))
        wish = wish[order]
        last = np.ones(len(wish), bool)
        last[:-1] = wish[1:] // views != wish[:-1] // views
        new_label = np.full(number, -1, np.int64)
        new_label[wish[last] // views] = wish[last] % views
        moved = new_label[region] >= 0
        if not moved.any():
            break
        labels[moved] = new_label[region[moved]].astype(np.int32)
    return labels
