"""Exposure between photos, what the views of a face agree on, and the correction that levels seams."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int16, Int32, Int64
from scipy import sparse
from scipy.sparse.linalg import cg, spsolve

from recon.core.kernels import kernel, part_of_kernel
from recon.surface.texture.topology import Adjacency
from recon.surface.texture.visibility import Candidates

# Below this grey level the ratio of two photos is noise, above the other one of them may be clipped.
_DARK, _BRIGHT = 12.0, 243.0
# A pair of views says something about exposure from so many common faces on.
_PAIR_FACES = 60


def fit_gains(
    candidates: Candidates, views: int, *, prior: float = 0.02, limit: float = 4.0
) -> Float64[np.ndarray, "v 3"]:
    """Fit a factor per view and channel that makes photos of the same faces equal.

    The median log ratio over the common faces of each pair of views, and least squares over all pairs with a weak pull
    towards 1 (the idea of gain compensation: Brown & Lowe 2007, section 6, with medians in place of means). An exposure
    change is one factor on gamma-coded values too.

    Args:
        candidates: colours of faces in views.
        views: number of views.
        prior: weight of the pull, relative to a well-connected pair.
        limit: gains stay in 1/limit…limit.

    Returns:
        (v, 3) factors with a geometric mean of 1 over the views.
    """
    color, view = candidates.color, candidates.view
    pairs = _count_pairs(view, color)
    key, ratio = np.empty(pairs, np.int64), np.empty((3, pairs), np.float32)
    _compare(view, color, np.log(np.maximum(color, np.float32(1e-6))), views, key, ratio)
    # Numbers of two bytes are sorted ten times as fast.
    order = np.argsort(key.astype(np.uint16) if views <= 256 else key, kind="stable")
    ratio = ratio[:, order]
    found, start, number = np.unique(key[order], return_index=True, return_counts=True)
    enough = number >= _PAIR_FACES
    found, start, number = found[enough], start[enough], number[enough]
    if len(found) == 0:
        return np.ones((views, 3))
    step = [np.median(ratio[:, first : first + n], axis=1) for first, n in zip(start, number, strict=True)]
    weight, pair = np.minimum(1.0, number / 2000.0), np.arange(len(found))
    sign = sparse.csr_matrix(
        (np.tile([-1.0, 1.0], len(found)), (np.repeat(pair, 2), np.stack(divmod(found, views), 1).ravel())),
        shape=(len(found), views),
    )
    weighted = sign.T @ sparse.diags(weight)
    normal = (weighted @ sign + prior * sparse.identity(views)).tocsc()
    log_gain = spsolve(normal, weighted @ np.array(step))
    log_gain -= log_gain.mean(axis=0)
    return np.clip(np.exp(log_gain), 1 / limit, limit)


@part_of_kernel()
def _tells(color: Float32[np.ndarray, "3"]) -> bool:
    """Whether a colour tells something about exposure."""
    told = True
    for c in range(3):
        told &= color[c] > _DARK and color[c] < _BRIGHT
    return told


@kernel()
def _count_pairs(view: Int16[np.ndarray, "m k"], color: Float32[np.ndarray, "m k 3"]) -> int:
    """How many pairs of views show a face in colours that tell something, over all faces."""
    pairs = 0
    for f in range(len(view)):
        usable = 0
        for k in range(view.shape[1]):
            if view[f, k] >= 0 and _tells(color[f, k]):
                pairs += usable
                usable += 1
    return pairs


@kernel()
def _compare(
    view: Int16[np.ndarray, "m k"],
    color: Float32[np.ndarray, "m k 3"],
    logs: Float32[np.ndarray, "m k 3"],
    views: int,
    key: Int64[np.ndarray, " n"],
    ratio: Float32[np.ndarray, "3 n"],
) -> None:
    """Number of each such pair, and the logarithm of the lower view's colour over the other's."""
    at = 0
    for f in range(len(view)):
        for b in range(view.shape[1]):
            if view[f, b] < 0 or not _tells(color[f, b]):
                continue
            for a in range(b):
                if view[f, a] < 0 or not _tells(color[f, a]):
                    continue
                low, high = (a, b) if view[f, a] < view[f, b] else (b, a)
                key[at] = np.int64(view[f, low]) * views + view[f, high]
                for c in range(3):
                    ratio[c, at] = logs[f, low, c] - logs[f, high, c]
                at += 1


@dataclass(frozen=True)
class Agreement:
    """The consensus of the views of each face.

    Attributes:
        color: (m, 3) median over the views of the face's colour, after exposure; 0 where no view sees it.
        residual: (m, k, 3) each view's colour minus that, smooth over neighbouring faces.
        accepted: (m, k) the slot holds a view that agrees.
    """

    color: Float32[np.ndarray, "m 3"]
    residual: Float32[np.ndarray, "m k 3"]
    accepted: Bool[np.ndarray, "m k"]


def find_agreement(
    candidates: Candidates,
    gains: Float64[np.ndarray, "v 3"],
    adjacency: Adjacency,
    *,
    reject_levels: float = 30.0,
    rings: int = 3,
) -> Agreement:
    """Find the consensus of the views of each face, and the views that contradict it over a neighbourhood.

    A face's colour differs between views by the error of the surface where the texture is strong; that
    changes sign from face to face. What moved, or stands in front and is not in the mesh, differs over a
    neighbourhood: residuals are averaged over ``rings`` rings of faces that the same view sees before they are judged.
    With fewer than three views nothing can be judged. (Waechter et al. 2014, section 3.2, fit a Gaussian per
    face by mean shift; a median per face with residuals averaged over faces is steadier for small faces.)
    """
    m, count = candidates.view.shape
    valid = candidates.view >= 0
    corrected = candidates.color * gains[np.maximum(candidates.view, 0)].astype(np.float32)
    color = _masked_median(corrected, valid)
    residual = np.where(valid[..., None], corrected - color[:, None], 0).astype(np.float32)
    i, j = adjacency.pairs[:, 0], adjacency.pairs[:, 1]
    neighbours = sparse.coo_matrix(
        (
            np.ones(2 * len(i) + m, np.float32),
            (np.concatenate([i, j, np.arange(m)]), np.concatenate([j, i, np.arange(m)])),
        ),
        shape=(m, m),
    ).tocsr()
    smooth = np.zeros_like(residual)
    for view in range(int(candidates.view.max(initial=-1)) + 1):
        at, slot = np.nonzero(candidates.view == view)
        if len(at) == 0:
            continue
        # Only the part of the graph that this view sees.
        local = neighbours[at][:, at]
        total = np.asarray(local.sum(axis=1), np.float32)
        values = residual[at, slot]
        for _ in range(rings):
            values = (local @ values) / total
        smooth[at, slot] = values
    accepted = valid.copy()
    if reject_levels > 0 and count >= 3:
        judged = valid.sum(axis=1) >= 3
        off = largest_channel(smooth)
        bad = off > reject_levels
        accepted &= ~(bad & judged[:, None])
        # A face keeps the view that agrees best, whatever happens.
        none = judged & ~accepted.any(axis=1)
        closest = np.where(valid, off, np.float32(np.inf)).argmin(axis=1)
        accepted[none, closest[none]] = True
    return Agreement(color, smooth, accepted)


def largest_channel(residual: Float32[np.ndarray, "m k 3"]) -> Float32[np.ndarray, "m k"]:
    """The largest of the three channels, regardless of sign; ``max`` over so short an axis takes five times as long."""
    size = np.abs(residual)
    return np.asarray(np.maximum(np.maximum(size[..., 0], size[..., 1]), size[..., 2]), np.float32)


def _masked_median(
    values: Float32[np.ndarray, "m k 3"], valid: Bool[np.ndarray, "m k"]
) -> Float32[np.ndarray, "m 3"]:
    """Median over the valid slots of each row; 0 where there is none."""
    ordered = np.sort(np.where(valid[..., None], values, np.float32(np.inf)), axis=1)
    number = valid.sum(axis=1)
    row = np.arange(len(values))
    low = ordered[row, np.maximum(number - 1, 0) // 2]
    high = ordered[row, np.minimum(number // 2, values.shape[1] - 1)]
    with np.errstate(invalid="ignore"):
        middle = 0.5 * (low + high)
    return np.where((number > 0)[:, None], middle, np.float32(0)).astype(np.float32)


@dataclass(frozen=True)
class VertexViews:
    """Photos at vertices: how much each adds to the blend there, and how its colour is corrected.

    Attributes:
        first: (v + 1,) row of the first view of each vertex.
        view: (n,) ascending for each vertex.
        weight: (n,) share of the view in the colour of the vertex; sums to 1 over the views of a vertex.
        correction: (n, 3) grey levels added to the photo's (exposed) colour.
    """

    first: Int32[np.ndarray, " v1"]
    view: Int32[np.ndarray, " n"]
    weight: Float32[np.ndarray, " n"]
    correction: Float32[np.ndarray, "n 3"]

    def find(self, vertex: Int64[np.ndarray, " q"], view: Int64[np.ndarray, " q"]) -> Int64[np.ndarray, " q"]:
        """Rows of (vertex, view) pairs, -1 where there is none."""
        rows = np.full(len(vertex), -1, np.int64)
        _rows_of(self.first, self.view, vertex, view, rows)
        return rows


@kernel()
def _rows_of(first, views, vertex, view, out):  # type: ignore[no-untyped-def]
    """Rows of ``VertexViews`` put into ``out``; few views meet at a vertex."""
    for q in range(len(vertex)):
        for row in range(first[vertex[q]], first[vertex[q] + 1]):
            if views[row] == view[q]:
                out[q] = row
                break


def blend_weights(
    faces: Int32[np.ndarray, "m 3"],
    labels: Int32[np.ndarray, " m"],
    vertices: int,
    views: int,
    rings: int,
) -> sparse.csr_matrix:
    """Share of each view at each vertex: of the faces round it, spread over ``rings`` rings of vertices."""
    seen = labels >= 0
    corner = faces[seen].ravel().astype(np.int64)
    label = np.repeat(labels[seen], 3).astype(np.int64)
    share = sparse.coo_matrix(
        (np.ones(len(corner), np.float32), (corner, label)), shape=(vertices, views)
    ).tocsr()
    share = _rows_to_one(share)
    if rings > 1:
        start, end = faces.ravel().astype(np.int64), np.roll(faces, -1, axis=1).ravel().astype(np.int64)
        every = np.arange(vertices)
        graph = sparse.coo_matrix(
            (
                np.ones(2 * len(start) + vertices, np.float32),
                (np.concatenate([start, end, every]), np.concatenate([end, start, every])),
            ),
            shape=(vertices, vertices),
        ).tocsr()
        graph.data[:] = 1.0
        for _ in range(rings - 1):
            share = _rows_to_one(graph @ share)
    share.sort_indices()
    return share


def _rows_to_one(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    total = np.asarray(matrix.sum(axis=1)).ravel()
    return sparse.diags(1.0 / np.where(total > 0, total, 1.0)).astype(np.float32) @ matrix


def solve_corrections(
    faces: Int32[np.ndarray, "m 3"],
    share: sparse.csr_matrix,
    candidates: Candidates,
    agreement: Agreement,
    gains: Float64[np.ndarray, "v 3"],
    *,
    consensus: float = 0.02,
    seam: float = 1.0,
    limit: float = 60.0,
) -> VertexViews:
    """Solve for the smooth corrections that make the photos equal where they meet.

    Unknown is a correction g for every vertex and every view that has a share in it. Minimised is, per channel,

        sum over edges with both ends in one view   (g_i - g_j)^2
      + seam * sum over vertices with several views (g_i + f_i - g_k - f_k)^2
      + consensus * sum                             (g_i + f_i - c)^2

    with f the photo's colour and c what the views agree on, both from the colours of the faces round the vertex that
    the view sees. The first two terms are those of Lempitsky & Ivanov 2007 (section 3.3) and Waechter et al. 2014
    (section 4.2); the third is ours: it draws the texture, on a large scale, to the median of all photos, and fixes
    the constant that the other two leave open.

    Args:
        share: from ``blend_weights``.
        consensus, seam: weights.
        limit: largest correction, grey levels.
    """
    share = share.tocsr()
    n = share.nnz
    result = VertexViews(
        share.indptr, share.indices, share.data.astype(np.float32), np.zeros((n, 3), np.float32)
    )
    if n == 0:
        return result
    target, known = _wanted_corrections(faces, candidates, agreement, gains, result)
    e1, e2 = _edges_within_views(faces, share, result)
    # Seams: views of one vertex, each with the next.
    node_vertex = np.repeat(np.arange(share.shape[0]), np.diff(share.indptr))
    s1 = np.flatnonzero((node_vertex[1:] == node_vertex[:-1]) & known[1:] & known[:-1])
    s2 = s1 + 1
    weight = np.concatenate([np.ones(len(e1)), np.full(len(s1), seam)])
    i, j = np.concatenate([e1, s1]), np.concatenate([e2, s2])
    laplacian = sparse.coo_matrix(
        (
            np.concatenate([weight, weight, -weight, -weight]),
            (np.concatenate([i, j, i, j]), np.concatenate([i, j, j, i])),
        ),
        shape=(n, n),
    ).tocsr()
    pull = np.where(known, max(consensus, 1e-4), 1e-4)
    right = pull[:, None] * target * known[:, None]
    step = target[s1] - target[s2]
    for c in range(3):
        right[:, c] = right[:, c] + seam * (np.bincount(s1, step[:, c], n) - np.bincount(s2, step[:, c], n))
    matrix = (laplacian + sparse.diags(pull)).tocsr()
    solution = _conjugate_gradients(matrix, right, target * known[:, None], rtol=1e-3, maxiter=300)
    return replace(result, correction=np.clip(solution, -limit, limit).astype(np.float32))


def _wanted_corrections(
    faces: Int32[np.ndarray, "m 3"],
    candidates: Candidates,
    agreement: Agreement,
    gains: Float64[np.ndarray, "v 3"],
    nodes: VertexViews,
) -> tuple[Float64[np.ndarray, "n 3"], Bool[np.ndarray, " n"]]:
    """Consensus minus photo, averaged over the faces round a vertex that the view sees; and where there are any."""
    number, total = np.zeros(len(nodes.view), np.int64), np.zeros((len(nodes.view), 3))
    _add_wanted(
        faces,
        candidates.view,
        candidates.color,
        agreement.accepted,
        agreement.color,
        np.ascontiguousarray(gains, np.float32),
        nodes.first,
        nodes.view,
        number,
        total,
    )
    return total / np.maximum(number, 1)[:, None], number > 0


@kernel()
def _add_wanted(
    faces: Int32[np.ndarray, "m 3"],
    view: Int16[np.ndarray, "m k"],
    color: Float32[np.ndarray, "m k 3"],
    accepted: Bool[np.ndarray, "m k"],
    agreed: Float32[np.ndarray, "m 3"],
    gains: Float32[np.ndarray, "v 3"],
    first: Int32[np.ndarray, " v1"],
    view_there: Int32[np.ndarray, " n"],
    number: Int64[np.ndarray, " n"],
    total: Float64[np.ndarray, "n 3"],
) -> None:
    """Count the faces round each node, and sum up what they want."""
    for corner in range(3):
        for f in range(len(faces)):
            vertex = faces[f, corner]
            for k in range(view.shape[1]):
                if not accepted[f, k]:
                    continue
                for row in range(first[vertex], first[vertex + 1]):
                    if view_there[row] == view[f, k]:
                        number[row] += 1
                        for c in range(3):
                            total[row, c] += agreed[f, c] - color[f, k, c] * gains[view[f, k], c]
                        break


def _edges_within_views(
    faces: Int32[np.ndarray, "m 3"], share: sparse.csr_matrix, nodes: VertexViews
) -> tuple[Int64[np.ndarray, " e"], Int64[np.ndarray, " e"]]:
    """Pairs of nodes: edges of faces, in each view that has a share in both ends."""
    ones, twos = [], []
    for c in range(3):
        u, v = faces[:, c].astype(np.int64), faces[:, (c + 1) % 3].astype(np.int64)
        keep = u < v
        u, v = u[keep], v[keep]
        # All views of one end; those that the other end has too make an edge.
        first, length = share.indptr[u], np.diff(share.indptr)[u]
        total = int(length.sum())
        index = np.arange(total) - np.repeat(np.cumsum(length) - length, length) + np.repeat(first, length)
        other = nodes.find(np.repeat(v, length), share.indices[index].astype(np.int64))
        both = other >= 0
        ones.append(index[both])
        twos.append(other[both])
    return np.concatenate(ones), np.concatenate(twos)


def _conjugate_gradients(
    matrix: sparse.csr_matrix,
    right: Float64[np.ndarray, "n 3"],
    start: Float64[np.ndarray, "n 3"],
    rtol: float,
    maxiter: int,
) -> Float64[np.ndarray, "n 3"]:
    """Solve for each channel, preconditioned by the diagonal."""
    inverse = sparse.diags(1.0 / matrix.diagonal())
    solved = [
        cg(matrix, right[:, c], x0=start[:, c], rtol=rtol, maxiter=maxiter, M=inverse)[0]
        for c in range(right.shape[1])
    ]
    return np.stack(solved, axis=1)


def diffuse_colors(
    faces: Int32[np.ndarray, "m 3"],
    color: Float64[np.ndarray, "n 3"],
    known: Bool[np.ndarray, " n"],
) -> Float64[np.ndarray, "n 3"]:
    """Fill the colours of vertices that are not known: each the mean of its neighbours (Laplace's equation).

    Parts of the mesh in which nothing is known take the mean of all that is (mid-grey if nothing is).
    """
    out = np.array(color, np.float64)
    n = len(out)
    out[~known] = out[known].mean(axis=0) if known.any() else 128.0
    unknown = np.flatnonzero(~known)
    if len(unknown) == 0 or not known.any():
        return out
    start, end = faces.ravel().astype(np.int64), np.roll(faces, -1, axis=1).ravel().astype(np.int64)
    graph = sparse.coo_matrix(
        (np.ones(2 * len(start)), (np.concatenate([start, end]), np.concatenate([end, start]))), shape=(n, n)
    ).tocsr()
    rows = graph[unknown]
    degree = np.asarray(rows.sum(axis=1)).ravel()
    # The smallest pull to the mean keeps parts without any known vertex solvable.
    matrix = (sparse.diags(degree * (1 + 1e-6) + 1e-9) - rows[:, unknown]).tocsr()
    given = np.flatnonzero(known)
    right = rows[:, given] @ out[given] + (degree * 1e-6 + 1e-9)[:, None] * out[unknown]
    out[unknown] = _conjugate_gradients(matrix, right, out[unknown], rtol=1e-4, maxiter=2000)
    return out
