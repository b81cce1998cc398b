"""Pair selection."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon.core.cameras import Intrinsics
from recon.errors import UsageError
from recon.photos import pairs as photo_pairs
from recon.photos.pairs import (
    PairsMode,
    candidate_pairs,
    exhaustive_pairs,
    pairs_at_rest,
    pairs_from_file,
    retrieval_pairs,
    select_pairs,
    sequential_pairs,
    visual_words,
)
from recon.photos.types import Photo, PhotoSet


def test_exhaustive_is_every_pair_once() -> None:
    assert exhaustive_pairs(4) == ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
    assert exhaustive_pairs(1) == ()


def test_sequential_with_and_without_loop() -> None:
    assert sequential_pairs(5, 2) == ((0, 1), (0, 2), (1, 2), (1, 3), (2, 3), (2, 4), (3, 4))
    assert sequential_pairs(5, 1, loop=True) == ((0, 1), (0, 4), (1, 2), (2, 3), (3, 4))
    # A loop as long as the set must not pair a photo with itself.
    assert sequential_pairs(3, 3, loop=True) == exhaustive_pairs(3)
    with pytest.raises(UsageError, match="overlap"):
        sequential_pairs(5, 0)


def photo_set(n: int) -> PhotoSet:
    camera = Intrinsics("PINHOLE", (100.0, 100.0, 49.5, 39.5), 100, 80)
    return PhotoSet(tuple(Photo(i, f"{i}.jpg", "", 100, 80, 100, 80, 0) for i in range(n)), (camera,))


@pytest.mark.parametrize("mode", ["auto", "exhaustive", "sequential"])
def test_candidates_without_a_look_at_the_photos(mode: PairsMode) -> None:
    def candidates(limit: int) -> list[tuple[int, int]]:
        return candidate_pairs(
            photo_set(6), mode, (), exhaustive_limit=limit, overlap=2, loop=True, retrieved=3, seed=0
        )

    expected = sequential_pairs(6, 2, loop=True) if mode == "sequential" else exhaustive_pairs(6)
    assert candidates(6) == list(expected)


def test_candidates_of_many_photos_are_alike_or_neighbours() -> None:
    descriptors = places(3, 4)
    found = candidate_pairs(
        photo_set(12), "auto", descriptors, exhaustive_limit=11, overlap=2, loop=False, retrieved=2, seed=0
    )
    alike, neighbours = retrieval_pairs(descriptors, 2), sequential_pairs(12, 1)
    assert found == sorted({*alike, *neighbours})


def places(count: int, photos_each: int, seed: int = 3) -> list[np.ndarray]:
    """Descriptors of photos of several places: photos of one place share most of their descriptors."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        own = rng.integers(0, 60, (150, 128))
        for _ in range(photos_each):
            seen = own[rng.permutation(150)[:110]] + rng.integers(0, 6, (110, 128))
            out.append(np.concatenate([seen, rng.integers(0, 60, (40, 128))]).astype(np.uint8))
    return out


def test_retrieval_finds_the_photos_of_the_same_place() -> None:
    found = retrieval_pairs(places(6, 4), k=3, seed=1)
    assert set(found) == {(i, j) for i, j in exhaustive_pairs(24) if i // 4 == j // 4}


def test_retrieval_is_reproducible_and_skips_photos_without_features() -> None:
    descriptors = places(3, 3)
    descriptors[4] = np.zeros((0, 128), np.uint8)
    found = retrieval_pairs(descriptors, k=2, seed=5)
    assert found == retrieval_pairs(descriptors, k=2, seed=5)
    assert all(4 not in pair for pair in found)
    assert {i for pair in found for i in pair} == set(range(9)) - {4}
    assert retrieval_pairs([descriptors[4], descriptors[0]], k=2) == ()


def test_a_photo_more_changes_hardly_any_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Descriptors of photos and of the vocabulary are drawn: the same ones, whatever photos there are beside."""
    monkeypatch.setattr(photo_pairs, "_DESCRIPTORS_PER_PHOTO", 80)
    monkeypatch.setattr(photo_pairs, "_TRAINING_DESCRIPTORS", 2000)
    rng = np.random.default_rng(0)
    # Each photo sees some of the next places, too: there is no clear end to what is alike.
    points = rng.integers(0, 60, (900, 128))
    descriptors = [
        (points[rng.permutation(300)[:150] + 15 * i] + rng.integers(0, 6, (150, 128))).astype(np.uint8)
        for i in range(40)
    ]
    words = visual_words(descriptors)
    assert words.shape == (64, 128)
    every = set(retrieval_pairs(descriptors, 6, vocabulary=lambda: words))
    assert every == set(retrieval_pairs(descriptors, 6))
    others = [i for i in range(40) if i != 20]
    found = retrieval_pairs([descriptors[i] for i in others], 6, vocabulary=lambda: words)
    without = {(others[i], others[j]) for i, j in found}
    stayed = {pair for pair in every if 20 not in pair}
    # Those that asked for the photo ask for another one instead.
    assert stayed <= without
    assert len(without - stayed) <= len(every - stayed)
    trained_anew = {(others[i], others[j]) for i, j in retrieval_pairs([descriptors[i] for i in others], 6)}
    assert len(stayed & trained_anew) >= 0.8 * len(stayed)


def test_pairs_from_file(tmp_path: Path) -> None:
    names = ["a.jpg", "sub/b.jpg", "with space.jpg"]
    listing = tmp_path / "pairs.txt"
    listing.write_text("# chosen by hand\n\nsub/b.jpg a.jpg\na.jpg\twith space.jpg\na.jpg, sub/b.jpg\n")
    assert pairs_from_file(listing, names) == ((0, 1), (0, 2))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg b.jpg\na.jpg c.jpg\n", r"line 2.*'c\.jpg'"),
        ("a.jpg\n", "line 1.*two photo names"),
        ("\na.jpg a.jpg\n", "line 2.*itself"),
        ("# nothing\n", "no pairs"),
    ],
)
def test_pairs_from_file_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    listing = tmp_path / "pairs.txt"
    listing.write_text(text)
    with pytest.raises(UsageError, match=message):
        pairs_from_file(listing, ["a.jpg", "b.jpg"])


def test_pairs_from_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        pairs_from_file(tmp_path / "none.txt", ["a.jpg"])


@st.composite
def evidence(draw: st.DrawFn) -> tuple[int, dict[tuple[int, int], int]]:
    n = draw(st.integers(2, 12))
    pairs = draw(st.lists(st.sampled_from(exhaustive_pairs(n)), unique=True))
    return n, {pair: draw(st.integers(0, 500)) for pair in pairs}


@settings(max_examples=80, deadline=None)
@given(evidence(), st.integers(1, 5), st.randoms(use_true_random=False))
def test_selection_keeps_what_evidence_connects(case, neighbours, random) -> None:
    n, scores = case
    chosen = select_pairs(n, scores, neighbours)
    positive = {pair for pair, score in scores.items() if score > 0}
    assert set(chosen) <= positive
    full, kept = nx.Graph(), nx.Graph()
    for graph, edges in ((full, positive), (kept, chosen)):
        graph.add_nodes_from(range(n))
        graph.add_edges_from(edges)
    assert sorted(map(sorted, nx.connected_components(full))) == sorted(
        map(sorted, nx.connected_components(kept))
    )
    # Networkx's own maximum spanning forest has the weight of the best forest within the choice.
    for graph in (full, kept):
        for i, j in graph.edges:
            graph[i][j]["weight"] = scores[min(i, j), max(i, j)]
    weight = [nx.maximum_spanning_tree(g).size(weight="weight") for g in (full, kept)]
    assert weight[0] == weight[1]
    # Each photo keeps its best pairs.
    for i in range(n):
        own = sorted((scores[p] for p in positive if i in p), reverse=True)[:neighbours]
        mine = sorted((scores[p] for p in chosen if i in p), reverse=True)[:neighbours]
        assert own == mine
    shuffled = list(scores.items())
    random.shuffle(shuffled)
    assert select_pairs(n, dict(shuffled), neighbours) == chosen


def test_blind_photos_get_plausible_pairs() -> None:
    scores = {(0, 1): 90, (1, 2): 80}
    plausible = exhaustive_pairs(5)
    chosen = select_pairs(5, scores, neighbours=2, plausible=plausible)
    graph = nx.Graph(chosen)
    assert set(graph) == set(range(5))
    assert nx.is_connected(graph)
    # Within the part that evidence connects, nothing is added.
    assert (0, 2) not in chosen


def test_without_any_evidence_all_plausible_pairs_up_to_the_limit() -> None:
    assert select_pairs(4, {}, neighbours=8, plausible=exhaustive_pairs(4)) == exhaustive_pairs(4)
    assert select_pairs(4, {}, neighbours=2, plausible=sequential_pairs(4, 1)) == ((0, 1), (1, 2), (2, 3))
    with pytest.raises(UsageError, match="at least one"):
        select_pairs(3, {}, neighbours=0)


def test_pairs_at_rest_are_those_of_which_a_good_part_does_not_move() -> None:
    random = np.random.default_rng(0)
    moving = random.uniform(3, 40, (200, 2)).astype(np.float32)
    still = random.normal(0, 0.2, (200, 2)).astype(np.float32)
    turntable = np.concatenate([moving[:120], still[:80]])  # four tenths of the matches lie on the wall
    chance = np.concatenate([moving, still[:20]])
    assert pairs_at_rest([turntable, still, moving, chance, moving[:0]]) == 2
