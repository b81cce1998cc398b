"""The view graph: loops of exact rotations and flows, pruning, GraphML."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from recon.core.cameras import Intrinsics
from recon.graph.types import TwoViewGeometry, ViewGraph
from recon.graph.view_graph import (
    PairEvidence,
    build_view_graph,
    components,
    flow_loop_error,
    gap_between,
    judge_pairs,
    prune_by_inliers,
    relative_pose,
    rotation_between,
    rotation_loop_errors,
    spanning_tree,
    three_view_loops,
    weak_joints,
)
from recon.matching.types import FlowField
from recon.photos.types import Photo, PhotoSet


def photo_set(n: int) -> PhotoSet:
    camera = Intrinsics("PINHOLE", (100.0, 100.0, 31.5, 23.5), 64, 48, known=True)
    return PhotoSet(tuple(Photo(i, f"{i}.jpg", "", 64, 48, 64, 48, 0) for i in range(n)), (camera,))


def evidence(
    pose: np.ndarray | None, inliers: int = 80, matches: int = 100, chance: float = math.nan
) -> PairEvidence:
    flags = np.arange(matches) < inliers
    geometry = TwoViewGeometry("E", np.eye(3), pose, flags, 0.2)
    return PairEvidence(geometry, matches, 0.5, chance=chance)


def edges(graph: nx.Graph) -> set[tuple[int, int]]:
    return {(min(e), max(e)) for e in graph.edges}


def rotated_graph(
    n: int, seed: int, wrong: tuple[int, int] | None = None, angle: float = 0.5, chance: float = math.nan
) -> nx.Graph:
    rotations = Rotation.random(n, random_state=seed).as_matrix()
    pairs = {}
    for i, j in itertools.combinations(range(n), 2):
        R = rotations[j] @ rotations[i].T
        if (i, j) == wrong:
            R = Rotation.from_rotvec([angle, 0, 0]).as_matrix() @ R
        pairs[i, j] = evidence(np.column_stack([R, [1.0, 0, 0]]), chance=chance)
    return build_view_graph(photo_set(n), pairs)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.integers(3, 6))
def test_exact_rotations_close_every_loop(seed: int, n: int) -> None:
    graph = rotated_graph(n, seed)
    errors = rotation_loop_errors(graph)
    assert len(errors) == math.comb(n, 3)
    assert max(errors.values()) < 1e-7


@pytest.mark.parametrize("angle", [0.01, 0.5, 3.0])
def test_a_wrong_rotation_opens_its_loops_by_its_angle(angle: float) -> None:
    errors = rotation_loop_errors(rotated_graph(5, 2, wrong=(1, 3), angle=angle))
    for loop, error in errors.items():
        assert error == pytest.approx(angle if {1, 3} <= set(loop) else 0.0, abs=1e-6)


def test_rotations_go_both_ways() -> None:
    graph = rotated_graph(3, 5)
    there, back = rotation_between(graph, 0, 2), rotation_between(graph, 2, 0)
    assert there is not None
    assert back is not None
    np.testing.assert_allclose(there @ back, np.eye(3), atol=1e-12)


def test_a_wrong_pair_among_many_goes_alone() -> None:
    graph = rotated_graph(5, 2, wrong=(1, 3))
    judged = judge_pairs(graph)
    assert edges(graph) - edges(judged.kept) == {(1, 3)}
    assert graph.number_of_edges() == 10  # the input stays as it was
    assert judged.kept.edges[0, 1]["rotation_loops"] == 3
    assert judged.kept.edges[0, 1]["rotation_loop_error"] == pytest.approx(0, abs=1e-5)
    assert judged.kept.edges[0, 1]["evidence"] > 0.5


def test_edges_without_loops_are_judged_by_themselves() -> None:
    pose = np.eye(3, 4)
    graph = build_view_graph(
        photo_set(4), {(0, 1): evidence(pose), (1, 2): evidence(None), (2, 3): evidence(pose, chance=0.1)}
    )
    assert rotation_loop_errors(graph) == {}
    assert edges(judge_pairs(graph).kept) == {(0, 1), (1, 2)}
    assert edges(judge_pairs(graph, min_chance=0).kept) == {(0, 1), (1, 2), (2, 3)}


def folded_graph(seed: int) -> nx.Graph:
    """A ring of ten photos, each joined to the next two, and look-alikes: 5 to 7 joined to 0 to 2 as if the same.

    Loops of look-alikes and their neighbours close; those of a look-alike across the ring do not."""
    rng = np.random.default_rng(seed)
    turns = np.radians(np.arange(10) * 36.0 + rng.normal(0, 0.3, 10))
    rotations = Rotation.from_rotvec(np.outer(turns, [0, 1, 0])).as_matrix()
    alias = rotations.copy()
    alias[5:8] = rotations[0:3]
    pairs = {}
    for i in range(10):
        for step in (1, 2):
            a, b = sorted((i, (i + step) % 10))
            pose = np.column_stack([rotations[b] @ rotations[a].T, [1.0, 0, 0]])
            pairs[a, b] = evidence(pose, chance=float(rng.uniform(0.75, 0.97)))
    for a in range(3):
        for b in range(5, 8):
            pose = np.column_stack([alias[b] @ rotations[a].T, [1.0, 0, 0]])
            pairs[a, b] = evidence(pose, chance=float(rng.uniform(0.05, 0.5)))
    return build_view_graph(photo_set(10), pairs)


@pytest.mark.parametrize("seed", range(6))
def test_look_alikes_that_outvote_the_right_pairs_go_and_no_right_pair_does(seed: int) -> None:
    graph = folded_graph(seed)
    errors = rotation_loop_errors(graph)
    closing = sum(math.degrees(error) < 3 for loop, error in errors.items() if loop[2] in (5, 6, 7))
    assert closing >= 9  # the look-alikes agree with each other
    kept = edges(judge_pairs(graph).kept)
    ring = {edge for edge in edges(graph) if (edge[1] - edge[0]) in (1, 2, 8, 9)}
    assert kept == ring


@pytest.mark.parametrize("chance", [0.05, 0.3, 0.6])
def test_a_weak_pair_never_removes_a_strong_one(chance: float) -> None:
    """One right pair between two look-alike ones: the loop does not close, the right pair stays."""
    turn = Rotation.from_euler("y", 90, degrees=True).as_matrix()
    poses = {(0, 1): (turn, 0.95), (1, 2): (np.eye(3), chance), (0, 2): (np.eye(3), chance)}
    pairs = {
        pair: evidence(np.column_stack([R, [1.0, 0, 0]]), chance=value) for pair, (R, value) in poses.items()
    }
    assert (0, 1) in edges(judge_pairs(build_view_graph(photo_set(3), pairs)).kept)


def test_relative_poses_go_both_ways() -> None:
    graph = rotated_graph(3, 5)
    forth, back = relative_pose(graph, 0, 2), relative_pose(graph, 2, 0)
    assert forth is not None
    assert back is not None
    np.testing.assert_allclose(forth[:, :3] @ back[:, 3] + forth[:, 3], 0, atol=1e-9)
    np.testing.assert_allclose(forth[:, :3] @ back[:, :3], np.eye(3), atol=1e-9)


def flows(shifts: np.ndarray, wrong: tuple[int, int] | None = None):  # type: ignore[no-untyped-def]
    def between(source: int, target: int) -> tuple[FlowField, np.ndarray]:
        flow = np.broadcast_to(shifts[target] - shifts[source], (48, 64, 2)).astype(np.float32).copy()
        # A smooth warp that depends on the photo alone closes exactly as well, once it is carried along.
        if (source, target) == wrong or (target, source) == wrong:
            flow[..., 0] += 7.0 if source < target else -7.0
        consistent = np.zeros((48, 64), bool)
        consistent[4:-4, 4:-4] = True
        return FlowField(flow, np.ones((48, 64), np.float32)), consistent

    return between


def loop_errors(graph: nx.Graph, between) -> dict[tuple[int, int, int], float | None]:  # type: ignore[no-untyped-def]
    return {
        (a, b, c): flow_loop_error([between(a, b), between(b, c), between(c, a)], step=4)
        for a, b, c in three_view_loops(graph)
    }


def test_flow_chained_round_a_loop() -> None:
    shifts = np.random.default_rng(0).uniform(-3, 3, (4, 2))
    graph = rotated_graph(4, 1, chance=0.9)
    exact = loop_errors(graph, flows(shifts))
    assert len(exact) == 4
    assert max(exact.values()) < 1e-4
    spoiled = loop_errors(graph, flows(shifts, wrong=(0, 2)))
    for loop, error in spoiled.items():
        assert error == pytest.approx(7.0 if {0, 2} <= set(loop) else 0.0, abs=1e-3)
    kept = judge_pairs(graph, spoiled, max_flow_loop=2.0).kept
    assert not kept.has_edge(0, 2)
    assert kept.number_of_edges() == 5
    # Photos that share no surface say nothing.
    nothing = (
        FlowField(np.zeros((48, 64, 2), np.float32), np.zeros((48, 64), np.float32)),
        np.zeros((48, 64), bool),
    )
    assert set(loop_errors(graph, lambda *_: nothing).values()) == {None}


def test_pruning_by_inliers() -> None:
    pairs = {(0, 1): evidence(None, 80), (1, 2): evidence(None, 20), (0, 2): evidence(None, 100, 900)}
    kept = prune_by_inliers(build_view_graph(photo_set(3), pairs), min_inliers=30, min_ratio=0.25)
    assert {tuple(sorted(e)) for e in kept.edges} == {(0, 1)}
    assert set(kept.nodes) == {0, 1, 2}


def test_components_and_spanning_tree() -> None:
    pairs = {
        (3, 4): evidence(None, 50),
        (0, 1): evidence(None, 90),
        (1, 2): evidence(None, 70),
        (0, 2): evidence(None, 60),
    }
    graph = build_view_graph(photo_set(6), pairs)
    assert components(graph) == [[0, 1, 2], [3, 4], [5]]
    tree = spanning_tree(graph)
    assert {tuple(sorted(e)) for e in tree.edges} == {(0, 1), (1, 2), (3, 4)}


def test_rejected_pairs_give_no_edge_and_bad_pairs_an_error() -> None:
    nothing = PairEvidence(TwoViewGeometry("none", None, None, np.zeros(9, bool)), 9)
    assert build_view_graph(photo_set(2), {(0, 1): nothing}).number_of_edges() == 0
    for pair in ((1, 0), (0, 7), (1, 1)):
        with pytest.raises(ValueError, match="ascending"):
            build_view_graph(photo_set(2), {pair: evidence(None)})


def test_graphml_holds_everything(tmp_path: Path) -> None:
    graph = rotated_graph(4, 8)
    graph = judge_pairs(graph).kept
    nx.write_graphml(graph, tmp_path / "graph.graphml")
    read = nx.read_graphml(tmp_path / "graph.graphml", node_type=int)
    assert dict(read.nodes(data=True)) == dict(graph.nodes(data=True))
    for i, j, edge in graph.edges(data=True):
        assert read.edges[i, j] == edge
    assert max(rotation_loop_errors(read).values()) < 1e-7


def test_loops_are_the_triangles() -> None:
    graph = rotated_graph(6, 0)
    graph.remove_edge(0, 5)
    expected = sum(nx.triangles(graph).values()) // 3
    loops = list(three_view_loops(graph))
    assert len(loops) == len(set(loops)) == expected


def test_weak_pairs_join_photos_without_texture_and_no_others() -> None:
    """Two chains of three, joined by weak pairs only: taken where there is no texture, the likelier one."""
    pose = np.eye(3, 4)
    pose[0, 3] = 1
    chances = {(0, 1): 0.9, (1, 2): 0.9, (3, 4): 0.9, (4, 5): 0.9, (2, 3): 0.3, (0, 5): 0.2, (1, 4): 0.05}
    graph = build_view_graph(photo_set(6), {pair: evidence(pose, chance=c) for pair, c in chances.items()})
    for points, agreement, expected in ((90, 1.0, {(2, 3)}), (2000, 1.0, set()), (90, 0.2, set())):
        for edge in graph.edges:
            graph.edges[edge].update(points=points, agreement=agreement)
        kept = edges(judge_pairs(graph, loops=False).kept)
        assert kept - {pair for pair, c in chances.items() if c == 0.9} == expected


@pytest.mark.parametrize(
    ("points", "miss", "chance", "kept"),
    [(90, 0.7, 0.3, True), (2000, 0.7, 0.3, False), (90, 5.0, 0.3, False), (90, 0.7, 0.05, False)],
)
def test_weak_pairs_without_texture_stay_where_their_flow_closes_a_loop(
    points: int, miss: float, chance: float, kept: bool
) -> None:
    """Right matches with a pose that contradicts the others: photos that three see hold the model together."""
    chances = {(0, 1): 0.9, (1, 2): 0.9, (0, 2): chance}
    graph = build_view_graph(
        photo_set(3), {pair: evidence(np.eye(3, 4), chance=c) for pair, c in chances.items()}
    )
    for edge in graph.edges:
        graph.edges[edge].update(points=points, flow_loop_error=miss)
    gone = {(0, 2)}
    assert weak_joints(graph, gone, {(0, 2): 0.6}, {(0, 2): chance}) == (gone if kept else set())


def test_the_gap_between_two_groups_is_where_a_pair_leads_or_where_the_order_says() -> None:
    graph = ViewGraph()
    graph.add_edge(0, 6, evidence=0.3)
    graph.add_edge(1, 5, evidence=0.6)
    assert gap_between([0, 1, 2, 3], [4, 5, 6], ViewGraph()) == (3, 4)
    assert gap_between([0, 1, 2, 3], [4, 5, 6], graph) == (1, 5)
    assert gap_between([4, 5, 6], [0, 1], graph) == (5, 1)
    assert gap_between([0, 1], [1, 2], graph) is None  # they share a photo
