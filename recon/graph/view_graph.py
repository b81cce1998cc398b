"""The view graph: which photos see the same thing, and how well the pairs agree with each other.

A view graph is a ``networkx.Graph`` with scalar attributes only, so that GraphML holds it without loss.

Nodes are photo ids (int):
    name (str), width, height, camera (int).
Edges join photos whose pair was verified. Directed quantities go from the lower photo id to the higher one:
    model (str): "F", "E" or "H"; inliers, matches (int); inlier_ratio (float);
    consistent (float): share of the pixels of both photos that pass the two-sided check (0 for sparse
    matchers); spread, residual, stretch, filled, confidence, sparse, matched, agreement, essential: the other signs of
    ``recon.graph.evidence.PairSigns``, absent where unknown;
    alone (float): the chance, by the pair's own signs, that its relative pose is right; evidence (float): the same
    after all loops were heard; weight (float): -log(1 - evidence), for spanning trees and drawings;
    angle (float): median triangulation angle in degrees, absent without relative pose;
    qw, qx, qy, qz, tx, ty, tz (float): relative pose higher_from_lower, absent where unknown; with other_ before
    them: the second pose that the pair's homography allows;
    rotation_loops, rotation_loop_error, flow_loops, flow_loop_error: set by the loop checks (number of
    three-view loops through the edge; the smallest error among them, in degrees or pixels).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np
from jaxtyping import Bool, Float, Float32
from networkx.utils import UnionFind
from scipy.spatial.transform import Rotation

from recon.graph.evidence import PairSigns
from recon.graph.loops import (
    Edge,
    Loop,
    against_stronger_chains,
    chances_after_loops,
    joined_words,
    loop_words,
    strength,
    weak_shortcuts,
)
from recon.graph.types import TwoViewGeometry, ViewGraph
from recon.matching.types import FlowField
from recon.photos.types import PhotoSet

Leg = tuple[FlowField, "Bool[np.ndarray, 'h w']"]
"""Flow from one photo to another at matching size, and its consistent pixels."""


# Signs of a pair that its edge keeps under their own names.
_SIGNS = (
    "spread", "residual", "filled", "confidence", "agreement", "essential", "sparse", "matched", "stretch",
    "points",
)  # fmt: skip


_POSE = ("qw", "qx", "qy", "qz", "tx", "ty", "tz")
_OTHER = "other_"


@dataclass(frozen=True)
class PairEvidence:
    """Evidence about a verified pair (photo ids in ascending order).

    Attributes:
        geometry: the robust geometry from the lower id to the higher one.
        matches: number of matches that went into it.
        consistent: share of pixels, over both photos, that pass the two-sided check; 0 for sparse matchers.
        signs: everything else that speaks for the pair or against it.
        chance: that its relative pose is right, by these signs; NaN where it is not known.
        by_points: the geometry is that of the sparse matches, which the dense match contradicts.
    """

    geometry: TwoViewGeometry
    matches: int
    consistent: float = 0.0
    signs: PairSigns | None = None
    chance: float = math.nan
    by_points: bool = False


def build_view_graph(photos: PhotoSet, pairs: Mapping[tuple[int, int], PairEvidence]) -> ViewGraph:
    """The view graph of a photo set; pairs whose model is "none" give no edge (see the module's text).

    Raises:
        ValueError: a pair is not in ascending order or names a photo that is not in the set.
    """
    graph: ViewGraph = nx.Graph()
    for photo in photos.photos:
        graph.add_node(
            photo.id,
            name=photo.name,
            width=int(photo.width),
            height=int(photo.height),
            camera=int(photo.camera),
        )
    for (i, j), evidence in sorted(pairs.items()):
        if not (i < j and i in graph and j in graph):
            raise ValueError(f"pair ({i}, {j}) does not name two photos of the set in ascending order")
        geometry = evidence.geometry
        if geometry.model == "none":
            continue
        inliers = geometry.inlier_count
        attributes: dict[str, str | int | float | bool] = {
            "model": str(geometry.model),
            "inliers": inliers,
            "matches": int(evidence.matches),
            "inlier_ratio": inliers / max(1, evidence.matches),
            "consistent": float(evidence.consistent),
            "weight": float(inliers),
        }
        if evidence.by_points:
            attributes["by_points"] = True
        if evidence.signs is not None:
            for name in _SIGNS:
                value = float(getattr(evidence.signs, name))
                if math.isfinite(value):
                    attributes[name] = value
        if math.isfinite(evidence.chance):
            attributes["alone"] = attributes["evidence"] = float(evidence.chance)
            attributes["weight"] = strength(evidence.chance)
        if math.isfinite(geometry.triangulation_angle):
            attributes["angle"] = math.degrees(geometry.triangulation_angle)
        for prefix, pose in (("", geometry.b_from_a), (_OTHER, geometry.other_b_from_a)):
            if pose is not None:
                qx, qy, qz, qw = Rotation.from_matrix(pose[:, :3]).as_quat(canonical=True)
                for key, value in zip(_POSE, (qw, qx, qy, qz, *pose[:, 3]), strict=True):
                    attributes[prefix + key] = float(value)
        graph.add_edge(i, j, **attributes)
    return graph


def rotation_between(graph: ViewGraph, source: int, target: int) -> Float[np.ndarray, "3 3"] | None:
    """Rotation target_from_source of an edge, None where the pair has no relative pose."""
    pose = relative_pose(graph, source, target)
    return None if pose is None else pose[:, :3]


def relative_pose(graph: ViewGraph, source: int, target: int) -> Float[np.ndarray, "3 4"] | None:
    """Pose target_from_source of an edge (unit translation), None where the pair has none."""
    return _pose(graph, source, target, "")


def other_relative_pose(graph: ViewGraph, source: int, target: int) -> Float[np.ndarray, "3 4"] | None:
    """The second pose target_from_source that the homography of an edge allows, None where there is none."""
    return _pose(graph, source, target, _OTHER)


def _pose(graph: ViewGraph, source: int, target: int, prefix: str) -> Float[np.ndarray, "3 4"] | None:
    edge = graph.edges[source, target]
    if prefix + "qw" not in edge:
        return None
    qw, qx, qy, qz, *t = (edge[prefix + key] for key in _POSE)
    R = Rotation.from_quat([qx, qy, qz, qw]).as_matrix()
    if source > target:
        R, t = R.T, -R.T @ t
    return np.column_stack([R, t])


def signs_of_edge(graph: ViewGraph, a: int, b: int) -> PairSigns | None:
    """The signs of an edge as the graph keeps them, None where they were not taken."""
    edge = graph.edges[a, b]
    if "spread" not in edge:
        return None
    consistent = float(edge["consistent"])
    return PairSigns(
        inliers=int(edge["inliers"]),
        inlier_ratio=float(edge["inlier_ratio"]),
        spread=float(edge["spread"]),
        residual=float(edge.get("residual", math.nan)),
        angle=float(edge.get("angle", math.nan)),
        essential=float(edge.get("essential", math.nan)),
        stretch=float(edge.get("stretch", math.nan)),
        consistent=consistent if "filled" in edge else math.nan,
        filled=float(edge.get("filled", math.nan)),
        confidence=float(edge.get("confidence", math.nan)),
        sparse=int(edge["sparse"]),
        matched=float(edge.get("matched", math.nan)),
        agreement=float(edge.get("agreement", math.nan)),
    )


def prune_by_inliers(graph: ViewGraph, *, min_inliers: int = 30, min_ratio: float = 0.25) -> ViewGraph:
    """A copy without the edges with fewer than ``min_inliers`` inliers or a share below ``min_ratio``."""
    kept = graph.copy()
    kept.remove_edges_from(
        [
            (i, j)
            for i, j, edge in graph.edges(data=True)
            if edge["inliers"] < min_inliers or edge["inlier_ratio"] < min_ratio
        ]
    )
    return kept


def three_view_loops(graph: ViewGraph) -> Iterator[Loop]:
    """All triplets of photos that are joined pairwise, in ascending order."""
    for i in sorted(graph):
        higher = sorted(k for k in graph[i] if k > i)
        for position, j in enumerate(higher):
            for k in higher[position + 1 :]:
                if graph.has_edge(j, k):
                    yield (i, j, k)


def rotation_loop_errors(graph: ViewGraph) -> dict[Loop, float]:
    """Angle (radians) of the rotation that is left after going round each three-view loop.

    Loops with an edge that has no relative pose are left out. Exact relative rotations give zero (Zach,
    Klopschitz, Pollefeys, "Disambiguating Visual Relations Using Loop Constraints", CVPR 2010).
    """
    errors = {}
    for i, j, k in three_view_loops(graph):
        legs = (rotation_between(graph, i, j), rotation_between(graph, j, k), rotation_between(graph, k, i))
        if any(leg is None for leg in legs):
            continue
        ij, jk, ki = legs
        # The angle from the quaternion's vector part keeps its precision near zero, where arccos loses it.
        errors[(i, j, k)] = float(Rotation.from_matrix(ki @ jk @ ij).magnitude())  # type: ignore[operator]
    return errors


def flow_loop_error(legs: Sequence[Leg], *, step: int = 8, min_points: int = 20) -> float | None:
    """Median distance (matching pixels) by which the flow chained round a loop misses its start.

    Starts are the consistent pixels of the first photo on a grid of ``step`` pixels. A chain ends where the nearest
    pixel of the next flow is not consistent.

    Args:
        legs: flow and consistent pixels from each photo of the loop to the next.

    Returns:
        None with fewer than ``min_points`` full rounds: views that share no surface say nothing about each other.
    """
    consistent = legs[0][1]
    grid = np.zeros_like(consistent)
    grid[step // 2 :: step, step // 2 :: step] = True
    ys, xs = np.nonzero(consistent & grid)
    start = np.stack([xs, ys], axis=1).astype(np.float32)
    points = start
    for field, usable in legs:
        points, inside = carry(points, field.flow, usable)
        points, start = points[inside], start[inside]
    if len(start) < min_points:
        return None
    return float(np.median(np.linalg.norm(points - start, axis=1)))


def carry(
    xy: Float32[np.ndarray, "n 2"], flow: Float32[np.ndarray, "h w 2"], consistent: Bool[np.ndarray, "h w"]
) -> tuple[Float32[np.ndarray, "n 2"], Bool[np.ndarray, " n"]]:
    """Points moved by a flow (bilinear), and whether the nearest pixel is inside and consistent."""
    height, width = consistent.shape
    nearest = np.rint(xy).astype(np.int64)
    inside = (nearest >= 0).all(axis=1) & (nearest[:, 0] < width) & (nearest[:, 1] < height)
    nearest = np.clip(nearest, 0, [width - 1, height - 1])
    inside &= consistent[nearest[:, 1], nearest[:, 0]]
    x = np.clip(xy[:, 0], 0, width - 1)
    y = np.clip(xy[:, 1], 0, height - 1)
    x0 = np.minimum(x.astype(np.int64), max(width - 2, 0))
    y0 = np.minimum(y.astype(np.int64), max(height - 2, 0))
    x1, y1 = np.minimum(x0 + 1, width - 1), np.minimum(y0 + 1, height - 1)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    top = flow[y0, x0] * (1 - fx) + flow[y0, x1] * fx
    bottom = flow[y1, x0] * (1 - fx) + flow[y1, x1] * fx
    return (xy + top * (1 - fy) + bottom * fy).astype(np.float32), inside


# Rotations left after a loop, and misses of flow (pixels), are at most so large.
_ROTATION_SPAN = 180.0
_FLOW_SPAN = 150.0
# Degrees that the rotation of one pair may contradict a chain of stronger ones, as a multiple of what a loop may miss.
_CHAIN_FACTOR = 2.0


# Photos with fewer interest points show hardly any texture. The pale figure has about 90, the real and rendered scenes
# with texture 1100 and more.
FEW_POINTS = 600
# A pair of such photos joins parts if it is at least so likely, if loops took no more than this from its chance, and if
# the dense match leads to this share of its sparse matches (where it has any).
WEAK = 0.15
_BLAMED = 0.05
_AGREES = 0.7
# Flow chained round three of them that misses by no more (pixels at matching size) says that the matches are right,
# whatever the poses are.
_CLOSED = 1.5


@dataclass(frozen=True)
class JudgedPairs:
    """Result of ``judge_pairs`` on a view graph.

    Attributes:
        kept: the pairs that stay, with ``evidence`` and ``weight`` after the loops.
        every: all pairs, with the same attributes; ``dropped`` says why one does not stay.
        after_evidence: pairs that their own signs and the loops left, before chains were asked.
    """

    kept: ViewGraph
    every: ViewGraph
    after_evidence: int


def judge_pairs(
    graph: ViewGraph,
    flow_errors: Mapping[Loop, float] | None = None,
    *,
    loops: bool = True,
    min_chance: float = 0.5,
    max_rotation_loop: float = 3.0,
    max_flow_loop: float = 4.0,
) -> JudgedPairs:
    """Keep the pairs whose relative pose is likely right, given their own signs, three-view loops and longer chains.

    Loops change the chance of each pair (``chances_after_loops``); pairs below ``min_chance`` go; then pairs whose
    rotation a chain of stronger pairs contradicts go (``against_stronger_chains``), and weak pairs between photos that
    are far apart among the strong ones (``weak_shortcuts``).

    Args:
        graph: edges have ``evidence``; edges without it count as even.
        flow_errors: of ``flow_loop_error``; None where there is no dense flow.
        loops: False judges each pair by itself.
        max_rotation_loop: degrees. max_flow_loop: pixels at matching size.
    """
    every = graph.copy()
    before = {(min(e), max(e)): float(graph.edges[e].get("evidence", 0.5)) for e in graph.edges}
    after = dict(before)
    if loops:
        rotation = {loop: math.degrees(error) for loop, error in rotation_loop_errors(graph).items()}
        words = [loop_words(rotation, tolerance=max_rotation_loop, span=_ROTATION_SPAN)]
        _note_loops(every, rotation, "rotation")
        if flow_errors is not None:
            words.append(loop_words(flow_errors, tolerance=max_flow_loop, span=_FLOW_SPAN))
            _note_loops(every, flow_errors, "flow")
        after = chances_after_loops(before, joined_words(words))
    for edge, chance in after.items():
        every.edges[edge].update(evidence=chance, weight=strength(chance))
    unlikely = [edge for edge in after if after[edge] < min_chance]
    likely = {edge: chance for edge, chance in after.items() if chance >= min_chance}
    refused = (
        against_stronger_chains(every, likely, tolerance=_CHAIN_FACTOR * max_rotation_loop) if loops else []
    )
    left = {edge: chance for edge, chance in likely.items() if edge not in set(refused)}
    bridges = weak_shortcuts(every, left) if loops else []
    gone = {*unlikely, *refused, *bridges}
    joining = weak_joints(every, gone, before, after)
    for edges, reason in ((unlikely, "evidence"), (refused, "chain"), (bridges, "shortcut")):
        for edge in edges:
            if edge not in joining:
                every.edges[edge]["dropped"] = reason
    for edge in joining:
        every.edges[edge]["joint"] = True
    kept = every.copy()
    kept.remove_edges_from(gone - joining)
    return JudgedPairs(kept, every, len(likely))


def weak_joints(
    graph: ViewGraph,
    gone: Collection[Edge],
    before: Mapping[Edge, float],
    after: Mapping[Edge, float],
) -> set[Edge]:
    """Dropped pairs of photos with hardly any texture that are needed to join what is left, the likeliest first.

    Without texture the pose of a right pair is off by several degrees, which lowers its chance and closes no loop; the
    matches may be right all the same, and the adjustment of all photos together makes the poses right. So such pairs
    count as weak ones and are taken where nothing better joins two parts, or where flow chained round three photos
    comes back to where it began: poses from such pairs say little against each other, and points that three photos see
    hold the model together. In photos with texture a weak pair stays away: there it is the mark of a look-alike.

    Args:
        graph: all pairs, with ``points`` and ``agreement`` on edges that have them.
        gone: pairs that were dropped.
        before, after: chance of each pair without and with loops.
    """
    parts = UnionFind(graph.nodes)
    for a, b in graph.edges:
        if (min(a, b), max(a, b)) not in gone:
            parts.union(a, b)
    found = set()
    for edge in sorted(gone, key=lambda one: (-after[one], one)):
        held = graph.edges[edge]
        closed = float(held.get("flow_loop_error", math.inf)) <= _CLOSED
        needed = after[edge] >= before[edge] - _BLAMED and parts[edge[0]] != parts[edge[1]]
        if (
            after[edge] >= WEAK
            and float(held.get("points", math.inf)) <= FEW_POINTS
            and float(held.get("agreement", 1.0)) >= _AGREES
            and (closed or needed)
        ):
            parts.union(*edge)
            found.add(edge)
    return found


def _note_loops(graph: ViewGraph, errors: Mapping[Loop, float], kind: str) -> None:
    """Number of loops through each edge, and the smallest error among them."""
    for (i, j, k), error in errors.items():
        for edge in ((i, j), (j, k), (i, k)):
            held = graph.edges[edge]
            held[f"{kind}_loops"] = int(held.get(f"{kind}_loops", 0)) + 1
            held[f"{kind}_loop_error"] = min(float(held.get(f"{kind}_loop_error", math.inf)), float(error))


def components(graph: ViewGraph) -> list[list[int]]:
    """Photo ids of the connected components, the largest first (ties: the one with the smallest id)."""
    return sorted(
        (sorted(part) for part in nx.connected_components(graph)), key=lambda part: (-len(part), part[0])
    )


def gap_between(first: Collection[int], other: Collection[int], graph: ViewGraph) -> Edge | None:
    """A photo of each of two groups that are next to each other; None where they share photos or one is empty.

    The likeliest pair of the graph that leads from one to the other, else the photos whose numbers, which follow their
    names, are nearest to each other.
    """
    if not first or not other or set(first) & set(other):
        return None

    def order(pair: Edge) -> tuple[float, int, Edge]:
        held = graph.get_edge_data(*pair)
        return -1.0 if held is None else -2.0 - float(held.get("evidence", 0.0)), abs(pair[0] - pair[1]), pair

    return min(((a, b) for a in first for b in other), key=order)


def spanning_tree(graph: ViewGraph) -> ViewGraph:
    """The spanning tree (forest) of the strongest pairs."""
    return nx.maximum_spanning_tree(graph, weight="weight")


def mark_spanning_tree(graph: ViewGraph) -> None:
    """Note at each edge, as ``tree``, whether it is one of the maximum spanning tree."""
    tree = {frozenset(edge) for edge in spanning_tree(graph).edges}
    for a, b in graph.edges:
        graph.edges[a, b]["tree"] = frozenset((a, b)) in tree
