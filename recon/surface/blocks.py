"""Meshing of large clouds by overlapping blocks, whose meshes are cut and joined at planes.

A cloud with too many points is cut in two at the median of its longest side; each half keeps a margin of the other one
and is meshed for itself, in two again if it must be. Both meshes are then cut at the plane and joined along it: what a
surface reconstruction finds there hardly depends on points beyond the margin, so the two cuts are nearly one curve.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Int64
from scipy.spatial import cKDTree

# In cells of the surface reconstruction: shorter edges of a cut are taken out, vertices of the two cuts that are
# so near count as one, and a vertex goes into an edge of the other cut from so far away. The two cuts are about 0.01
# cells apart; edges as short as that would not come in the same order in both.
_SHORT, _SAME, _REACH = 0.1, 0.15, 0.5
# A cut is worth it where its larger part has at most this share of the points.
_GAIN = 0.9
# A vertex is taken out with one neighbour at a time, so often.
_PASSES = 4
# Edges of the other cut that are tried for a vertex.
_TRIED = 8


@dataclass(frozen=True)
class Patch:
    """A triangle mesh.

    Attributes:
        xyz: (n, 3) vertices.
        faces: (m, 3) vertex indices.
    """

    xyz: Float[np.ndarray, "n 3"]
    faces: Int[np.ndarray, "m 3"]

    @classmethod
    def empty(cls) -> Patch:
        """No mesh."""
        return cls(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))


@dataclass(frozen=True)
class Block:
    """A part of space that is meshed at once, or two parts and the plane between them.

    Attributes:
        axis, at: the plane: coordinate ``axis`` is ``at``.
        parts: below the plane and above it; empty for a part that is meshed at once.
    """

    axis: int = 0
    at: float = 0.0
    parts: tuple[Block, ...] = ()

    def leaves(self) -> list[Block]:
        """The parts that are meshed, in order."""
        return [leaf for part in self.parts for leaf in part.leaves()] if self.parts else [self]

    def rows(
        self, xyz: Float[np.ndarray, "n 3"], margin: float | None = None
    ) -> list[Int64[np.ndarray, " k"]]:
        """The points of each part, in the order of ``leaves``.

        Args:
            margin: how far each part reaches beyond the planes that bound it; None for parts that do not overlap.
        """
        return self._rows(xyz, np.arange(len(xyz)), margin)

    def _rows(
        self, xyz: Float[np.ndarray, "n 3"], rows: Int64[np.ndarray, " k"], margin: float | None
    ) -> list[Int64[np.ndarray, " k"]]:
        if not self.parts:
            return [rows]
        sides = _sides(xyz[rows, self.axis], self.at, margin)
        return [
            leaf
            for part, side in zip(self.parts, sides, strict=True)
            for leaf in part._rows(xyz, rows[side], margin)
        ]


def _sides(
    along: Float[np.ndarray, " k"], at: float, margin: float | None
) -> tuple[Bool[np.ndarray, " k"], Bool[np.ndarray, " k"]]:
    """What lies below a plane and above it."""
    if margin is None:
        return along <= at, along > at
    return along <= at + margin, along >= at - margin


def plan_blocks(xyz: Float[np.ndarray, "n 3"], most: int, margin: float) -> Block:
    """Cut a cloud into overlapping parts.

    Args:
        xyz: its points.
        most: points of a part, its margin included; more where margins alone hold so many.
        margin: how far a part reaches beyond the planes that bound it, in the unit of the points.
    """
    if len(xyz) <= most:
        return Block()
    axis, at = _plane(xyz, margin)
    below, above = _sides(xyz[:, axis], at, margin)
    if max(below.sum(), above.sum()) > _GAIN * len(xyz):  # nothing is gained where margins are all there is
        return Block()
    return Block(axis, at, (plan_blocks(xyz[below], most, margin), plan_blocks(xyz[above], most, margin)))


def _plane(xyz: Float[np.ndarray, "n 3"], margin: float) -> tuple[int, float]:
    """Axis and place of the cut: the median of the longest side; where that lies in a wall, the best of some others."""
    extent = np.ptp(xyz, axis=0)
    longest = int(np.argmax(extent))

    def larger(axis: int, at: float) -> int:
        return int(max(side.sum() for side in _sides(xyz[:, axis], at, margin)))

    first = (longest, float(np.median(xyz[:, longest])))
    if larger(*first) <= _GAIN * len(xyz):
        return first
    shares = [(axis, share) for axis in range(3) for share in (0.25, 0.5, 0.75)]
    tried = [(axis, float(xyz[:, axis].min() + share * extent[axis])) for axis, share in shares]
    return min(tried, key=lambda one: larger(*one))


def join_blocks(block: Block, mesh_of: Callable[[Block], Patch], cell: float) -> Patch:
    """The mesh of a planned cloud from the meshes of its parts, which are asked for in order.

    Args:
        cell: side of the cells of the surface reconstruction.
    """
    if not block.parts:
        return mesh_of(block)
    below, above = block.parts
    # Not by names: a mesh can go as soon as it is cut.
    return join_at_plane(
        join_blocks(below, mesh_of, cell), join_blocks(above, mesh_of, cell), block.axis, block.at, cell
    )


def join_at_plane(below: Patch, above: Patch, axis: int, at: float, cell: float) -> Patch:
    """Cut two meshes that overlap about a plane there, and join them along the cut.

    Vertices of the two cuts that lie close together become one, half way; each other vertex goes into the edge of the
    other cut that it is next to, whose triangle is divided. Where only one mesh crosses the plane its cut stays open.

    Args:
        below, above: meshes of the parts below and above the plane, each reaching beyond it.
        axis, at: the plane.
        cell: side of the cells of the surface reconstruction.
    """
    at = _off_vertices(np.concatenate([below.xyz[:, axis], above.xyz[:, axis]]), at)
    low, low_edges = _clipped(below, axis, at, 1.0)
    high, high_edges = _clipped(above, axis, at, -1.0)
    del below, above  # meshes are large: one copy at a time
    xyz = np.concatenate([low.xyz, high.xyz])
    faces = np.concatenate([low.faces, high.faces + len(low.xyz)]).astype(low.faces.dtype, copy=False)
    both = (low_edges, _Cut(high_edges.ends + len(low.xyz), high_edges.face + len(low.faces)))
    del low, high
    if min(len(cut.ends) for cut in both) == 0:
        return Patch(xyz, faces)
    flat = np.delete(xyz, axis, axis=1)
    names = np.arange(len(xyz), dtype=faces.dtype)
    cuts = [_without_short(flat, cut, names, _SHORT * cell) for cut in both]
    of_low, of_high = (np.unique(cut.ends) for cut in cuts)
    pairs = _mutual(flat[of_low], flat[of_high], _SAME * cell)
    one, other = of_low[pairs[:, 0]], of_high[pairs[:, 1]]
    xyz[one] = 0.5 * (xyz[one] + xyz[other])
    faces = names[faces]
    names[other] = one
    inserted: dict[int, list[tuple[float, int]]] = {}
    moved: dict[int, Float[np.ndarray, "3"]] = {}
    for mine, theirs, same in ((of_low, cuts[1], one), (of_high, cuts[0], other)):
        left = np.setdiff1d(mine, same)
        edge, share, foot = _beside(flat, left, theirs, _REACH * cell)
        for vertex, row, where, place in zip(left.tolist(), edge.tolist(), share.tolist(), foot, strict=True):
            if row >= 0:
                inserted.setdefault(int(theirs.face[row]), []).append((where, vertex))
                moved[vertex] = 0.5 * (xyz[vertex] + np.insert(place, axis, at))
    for vertex, place in moved.items():
        xyz[vertex] = place
    ends = {int(face): pair for cut in cuts for face, pair in zip(cut.face, cut.ends.tolist(), strict=True)}
    fans, divided = [], np.zeros(len(faces), bool)
    for face, vertices in inserted.items():
        a, b = ends[face]
        (tip,) = set(faces[face].tolist()) - {a, b}
        chain = [a, *(vertex for _, vertex in sorted(vertices)), b]
        fans += [(chain[k], chain[k + 1], tip) for k in range(len(chain) - 1)]
        divided[face] = True
    faces = np.concatenate([faces[~divided], np.array(fans, faces.dtype).reshape(-1, 3)])
    faces = names[faces]
    whole = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 0] != faces[:, 2])
    return compacted(Patch(xyz, faces[whole]))


@dataclass(frozen=True)
class _Cut:
    """Edges of a mesh on the plane, each directed as in its triangle, and the triangles."""

    ends: Int[np.ndarray, "e 2"]
    face: Int64[np.ndarray, " e"]


def _off_vertices(along: Float[np.ndarray, " n"], at: float) -> float:
    """A place near ``at`` on which no vertex lies: a cut through a vertex would have edges without length."""
    nearest = np.argsort(np.abs(along - at), kind="stable")[:64]
    near = np.sort(along[nearest].astype(np.float64))
    if len(near) < 2:
        return at
    widest = int(np.argmax(np.diff(near)))
    return float(0.5 * (near[widest] + near[widest + 1]))


def _clipped(patch: Patch, axis: int, at: float, sign: float) -> tuple[Patch, _Cut]:
    """Part on one side of a plane (``sign`` times the distance beyond it is negative), and its cut."""
    away = sign * (patch.xyz[:, axis].astype(np.float64) - at)
    outside, kind = away > 0, patch.faces.dtype
    count = outside[patch.faces].sum(axis=1, dtype=np.uint8)
    kept = patch.faces[count == 0]
    crossing = patch.faces[(count == 1) | (count == 2)]
    if len(crossing) == 0:
        return compacted(Patch(patch.xyz, kept)), _Cut(np.zeros((0, 2), kind), np.zeros(0, np.int64))
    # The corner that is alone on its side comes first; the order round the triangle stays.
    out = outside[crossing]
    lonely = np.where(out.sum(axis=1) == 1, out.argmax(axis=1), (~out).argmax(axis=1))
    turned = crossing[np.arange(len(crossing))[:, None], (lonely[:, None] + np.arange(3)) % 3]
    a, b, c = turned.T
    edges = np.sort(np.concatenate([np.stack([a, b], 1), np.stack([a, c], 1)]), axis=1)
    unique, number = np.unique(edges, axis=0, return_inverse=True)
    number = (number.reshape(-1) + len(patch.xyz)).astype(kind)
    p, q = unique.T
    share = (away[p] / (away[p] - away[q]))[:, None]
    new = patch.xyz[p] + share * (patch.xyz[q] - patch.xyz[p])
    new[:, axis] = at
    on_ab, on_ac = number[: len(a)], number[len(a) :]
    inner = ~outside[a]  # the lonely corner is the one that stays
    tips = np.stack([a, on_ab, on_ac], 1)[inner]
    ends_of_tips = np.stack([on_ab, on_ac], 1)[inner]
    rest = ~inner
    first = np.stack([on_ab, b, c], 1)[rest]
    second = np.stack([on_ab, c, on_ac], 1)[rest]
    ends_of_rest = np.stack([on_ac, on_ab], 1)[rest]
    faces = np.concatenate([kept, tips, first, second])
    start = len(kept)
    face = np.concatenate(
        [start + np.arange(len(tips)), start + len(tips) + len(first) + np.arange(len(second))]
    )
    whole = Patch(np.concatenate([patch.xyz, new.astype(patch.xyz.dtype)]), faces)
    used, names = _used(whole)
    ends = names[np.concatenate([ends_of_tips, ends_of_rest])]
    return Patch(whole.xyz[used], names[faces]), _Cut(ends, face)


def _used(patch: Patch) -> tuple[Bool[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Which vertices a face uses, and their new numbers."""
    used = np.zeros(len(patch.xyz), bool)
    used[patch.faces.ravel()] = True
    return used, (np.cumsum(used, dtype=patch.faces.dtype) - 1).astype(patch.faces.dtype, copy=False)


def compacted(patch: Patch) -> Patch:
    """A mesh without vertices that no face uses."""
    used, names = _used(patch)
    return Patch(patch.xyz[used], names[patch.faces])


def _without_short(
    flat: Float[np.ndarray, "n 2"], cut: _Cut, names: Int[np.ndarray, " n"], least: float
) -> _Cut:
    """The cut without edges shorter than ``least``: one end takes the other one's name, in ``names`` too."""
    ends, face = cut.ends, cut.face
    for _ in range(_PASSES):
        length = np.linalg.norm(flat[ends[:, 0]] - flat[ends[:, 1]], axis=1)
        taken: set[int] = set()
        own = np.arange(len(names), dtype=names.dtype)
        for row in np.argsort(length, kind="stable"):
            a, b = ends[row].tolist()
            if length[row] >= least:
                break
            if a not in taken and b not in taken:
                taken |= {a, b}
                own[b] = a
        if not taken:
            break
        names[:] = own[names]
        ends = own[ends]
        whole = ends[:, 0] != ends[:, 1]
        ends, face = ends[whole], face[whole]
    return _Cut(ends, face)


def _mutual(a: Float[np.ndarray, "n 2"], b: Float[np.ndarray, "m 2"], reach: float) -> Int[np.ndarray, "k 2"]:
    """Rows of the points that are each other's nearest and within ``reach``."""
    far, to_b = cKDTree(b).query(a)
    _, to_a = cKDTree(a).query(b)
    rows = np.flatnonzero((to_a[to_b] == np.arange(len(a))) & (far <= reach))
    return np.stack([rows, to_b[rows]], axis=1)


def _beside(
    flat: Float[np.ndarray, "n 2"], vertices: Int[np.ndarray, " v"], cut: _Cut, reach: float
) -> tuple[Int64[np.ndarray, " v"], Float[np.ndarray, " v"], Float[np.ndarray, "v 2"]]:
    """For each vertex the nearest edge of a cut (-1 where none is within ``reach``), how far along, and the point."""
    start, way = flat[cut.ends[:, 0]], flat[cut.ends[:, 1]] - flat[cut.ends[:, 0]]
    tried = min(_TRIED, len(start))
    if len(vertices) == 0:
        return np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 2))
    _, rows = cKDTree(start + 0.5 * way).query(flat[vertices], k=tried)
    rows = rows.reshape(-1, tried)
    offset = flat[vertices][:, None] - start[rows]
    squared = np.maximum((way**2).sum(axis=1), 1e-30)
    share = np.clip((offset * way[rows]).sum(axis=2) / squared[rows], 0.01, 0.99)
    foot = start[rows] + share[..., None] * way[rows]
    far = np.linalg.norm(flat[vertices][:, None] - foot, axis=2)
    best = far.argmin(axis=1)
    at = np.arange(len(vertices))
    near: Bool[np.ndarray, " v"] = far[at, best] <= reach
    return np.where(near, rows[at, best], -1), share[at, best], foot[at, best]
