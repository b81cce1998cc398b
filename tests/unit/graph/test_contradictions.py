"""Pairs against a model: right models contradict no pair, folded ones contradict those that saw the parts apart."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from recon.core.cameras import Intrinsics
from recon.graph.contradictions import chance_of_so_many, missing_pairs, model_contradictions, overlap_shares
from recon.graph.types import TwoViewGeometry
from recon.graph.view_graph import PairEvidence, build_view_graph
from recon.photos.types import Photo, PhotoSet

CAMERA = Intrinsics("PINHOLE", (100.0, 100.0, 31.5, 23.5), 64, 48, known=True)


def ring(count: int = 8) -> dict[int, np.ndarray]:
    """Cameras on a circle that look outwards, 45 degrees apart."""
    poses = {}
    for i in range(count):
        R = Rotation.from_euler("y", -45.0 * i, degrees=True).as_matrix()
        centre = R.T @ [0.0, 0.0, 1.0]
        poses[i] = np.column_stack([R, -R @ centre])
    return poses


def view_graph(poses: dict[int, np.ndarray], steps: tuple[int, ...] = (1, 2), chance: float = 0.95):  # type: ignore[no-untyped-def]
    pairs = {}
    for a in poses:
        for step in steps:
            b = a + step
            if b not in poses:
                continue
            R = poses[b][:, :3] @ poses[a][:, :3].T
            t = poses[b][:, 3] - R @ poses[a][:, 3]
            pose = np.column_stack([R, t / np.linalg.norm(t)])
            geometry = TwoViewGeometry("E", np.eye(3), pose, np.ones(100, bool), 0.2)
            pairs[a, b] = PairEvidence(geometry, 100, chance=chance)
    photos = PhotoSet(tuple(Photo(i, f"{i}.jpg", "", 64, 48, 64, 48, 0) for i in poses), (CAMERA,))
    return build_view_graph(photos, pairs)


def test_a_right_model_contradicts_no_pair_whatever_its_world() -> None:
    poses = ring()
    found = model_contradictions(view_graph(poses), poses)
    assert found.pairs == ()
    turn = Rotation.from_rotvec([0.3, -0.8, 0.4]).as_matrix()
    moved = {
        i: np.column_stack([p[:, :3] @ turn.T, 2.5 * p[:, 3] - p[:, :3] @ turn.T @ [3, 1, -2]])
        for i, p in poses.items()
    }
    assert model_contradictions(view_graph(poses), moved).pairs == ()


def test_a_folded_model_contradicts_the_pairs_across_the_fold_and_no_others() -> None:
    poses = ring()
    graph = view_graph(poses, (1,))
    # Photos 4 to 7 took the places of 0 to 3: opposite sides look alike.
    folded = {i: poses[i % 4] for i in poses}
    found = model_contradictions(graph, folded)
    assert [one.pair for one in found.pairs] == [(3, 4)]
    assert found.strong == 1
    assert found.wrong == pytest.approx([0.05] * 7)
    assert found.pairs[0].turn > 90
    weak = view_graph(poses, (1,), chance=0.3)
    assert model_contradictions(weak, folded).pairs == ()


def test_a_flat_pair_contradicts_a_model_that_neither_of_its_two_poses_fits() -> None:
    poses = ring()
    photos = PhotoSet(tuple(Photo(i, f"{i}.jpg", "", 64, 48, 64, 48, 0) for i in poses), (CAMERA,))
    R = poses[1][:, :3] @ poses[0][:, :3].T
    t = poses[1][:, 3] - R @ poses[0][:, 3]
    right = np.column_stack([R, t / np.linalg.norm(t)])
    turned = Rotation.from_rotvec([0.5, 0, 0]).as_matrix() @ right

    def far(one: np.ndarray, other: np.ndarray | None) -> int:
        geometry = TwoViewGeometry("H", np.eye(3), one, np.ones(100, bool), 0.2, other)
        graph = build_view_graph(photos, {(0, 1): PairEvidence(geometry, 100, chance=0.95)})
        return model_contradictions(graph, poses).strong

    assert far(turned, None) == 1
    assert far(turned, right) == 0
    assert far(right, turned) == 0
    assert far(turned, turned[:, [1, 0, 2, 3]] * [1, 1, -1, 1]) == 1


def test_a_wrong_direction_counts_where_there_is_parallax() -> None:
    poses = ring()
    graph = view_graph(poses, (1,))
    moved = dict(poses)
    # Photo 2 slides to the other side of photo 1 without turning.
    R = poses[2][:, :3]
    centre = -poses[1][:, :3].T @ poses[1][:, 3] - 0.5 * (R.T @ -poses[2][:, 3])
    moved[2] = np.column_stack([R, -R @ centre])
    named = {one.pair for one in model_contradictions(graph, moved).pairs}
    assert (1, 2) in named
    graph.edges[1, 2]["angle"] = 0.5
    assert (1, 2) not in {one.pair for one in model_contradictions(graph, moved).pairs}


def test_a_folded_model_predicts_pairs_that_are_missing() -> None:
    poses = ring()
    rng = np.random.default_rng(0)
    seen = {}
    for i, pose in poses.items():
        local = np.column_stack([rng.uniform(-0.8, 0.8, 200), rng.uniform(-0.6, 0.6, 200), np.full(200, 4.0)])
        seen[i] = (local - pose[:, 3]) @ pose[:, :3]
    graph = view_graph(poses, (1,))
    cameras = dict.fromkeys(poses, CAMERA)
    every = list(combinations(poses, 2))
    assert missing_pairs(overlap_shares(every, poses, cameras, seen), graph)[0] == []
    folded = {i: poses[i % 4] for i in poses}
    again = {i: seen[i % 4] for i in poses}
    missing, must = missing_pairs(overlap_shares(every, folded, cameras, again), graph)
    assert set(missing) == {(i, i + 4) for i in range(4)}
    assert must >= 4
    without = {i: pose for i, pose in folded.items() if i != 4}
    assert (0, 4) not in overlap_shares(every, without, cameras, again)


def test_the_chance_of_so_many_is_that_of_counting_every_outcome() -> None:
    chances = [0.3, 0.02, 0.5, 0.11]
    for count in range(6):
        told = 0.0
        for happened in product((0, 1), repeat=len(chances)):
            if sum(happened) >= count:
                told += float(np.prod([p if h else 1 - p for p, h in zip(chances, happened, strict=True)]))
        assert chance_of_so_many(chances, count) == pytest.approx(told, abs=1e-12)
    assert chance_of_so_many([], 0) == 1.0
    assert chance_of_so_many([], 1) == 0.0
