"""Pairs judged by loops: the chance of each, given what went round three views and how it came back.

Zach, Klopschitz & Pollefeys, "Disambiguating Visual Relations Using Loop Constraints", CVPR 2010: every pair is right
or wrong, unknown; a loop of three right pairs closes but for noise, one with a wrong pair closes by accident only. Here
the chances before the loops come from the pairs' own evidence, so that a loop that does not close is blamed on its
weakest pair; and accidents are common, because look-alike things agree with each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import networkx as nx
import numpy as np
from networkx.utils import UnionFind
from scipy.spatial.transform import Rotation

from recon.graph.types import ViewGraph

Edge = tuple[int, int]
Loop = tuple[int, int, int]

# Share of loops with a wrong pair that close all the same: windows that look alike are wrong together.
ACCIDENTAL = 0.5
# Share of loops of right pairs that do not close: a pose badly determined, a surface hardly shared.
MISSED = 0.03
# Belief propagation: rounds, and share of the old message that is kept (damping).
_ROUNDS = 40
_DAMPING = 0.5
# A loop's word for a pair, or against it, in nats at most.
_MAX_PRAISE = 1.5
_MAX_BLAME = 3.0
# Loops through a pair share its neighbours' faults and are no independent witnesses: of n loops the praise counts
# n ** -0.5 (look-alikes praise each other), the blame n ** -0.25 (a loop cannot stay open without a reason).
_PRAISE_POWER = -0.5
_BLAME_POWER = -0.25
# Pairs at least so likely are strong; weaker ones may join photos at most so many strong pairs apart.
STRONG = 0.8
_SHORTCUT_STEPS = 3
# Rotations along a chain of pairs add up their noise: the tolerance grows with the root of the chain's length.
_MAX_CHAIN = 12


@dataclass(frozen=True)
class LoopWord:
    """Evidence of a loop about its pairs together.

    Attributes:
        edges: the pairs, ascending photo ids.
        ratio: how much likelier the loop's error is when all of them are right than when one is wrong.
    """

    edges: tuple[Edge, ...]
    ratio: float


def loop_words(errors: Mapping[Loop, float], *, tolerance: float, span: float) -> list[LoopWord]:
    """Evidence of three-view loops, by their errors.

    Right loops have errors of a half-normal distribution (two thirds within ``tolerance`` / 1.5) but for a share
    ``MISSED`` that is anywhere up to ``span``; loops with a wrong pair are anywhere but for a share ``ACCIDENTAL``.

    Args:
        errors: of ``rotation_loop_errors`` or ``flow_loop_error``.
        tolerance: error up to which a loop counts as closed, same unit.
        span: largest error that there can be.
    """
    words = []
    sigma = tolerance / 1.5
    for (i, j, k), error in sorted(errors.items()):
        near = math.sqrt(2 / math.pi) / sigma * math.exp(-0.5 * (error / sigma) ** 2)
        anywhere = 1 / span
        right = (1 - MISSED) * near + MISSED * anywhere
        wrong = ACCIDENTAL * near + (1 - ACCIDENTAL) * anywhere
        words.append(LoopWord(((i, j), (j, k), (i, k)), right / wrong))
    return words


def joined_words(kinds: Sequence[Sequence[LoopWord]]) -> list[LoopWord]:
    """One word per loop, from several kinds of error: a loop is open when any kind says so, and closed only once."""
    ratios: dict[tuple[Edge, ...], float] = {}
    for words in kinds:
        for word in words:
            known = ratios.get(word.edges)
            ratios[word.edges] = word.ratio if known is None else _both(known, word.ratio)
    return [LoopWord(edges, ratio) for edges, ratio in sorted(ratios.items())]


def _both(one: float, other: float) -> float:
    return max(one, other) if min(one, other) >= 1 else min(one, 1.0) * min(other, 1.0)


def chances_after_loops(before: Mapping[Edge, float], words: Sequence[LoopWord]) -> dict[Edge, float]:
    """The chance of every pair after all loops have been heard: sum-product belief propagation, damped.

    For a loop of pairs with cavity chances q the message to one of them is, in log-odds,
    log(1 + prod(q of the others) (ratio - 1)): a loop that does not close says little against a pair whose partners
    are doubtful themselves. Messages are bounded, and count less where a pair has many loops.

    Args:
        before: chance of each pair by its own evidence.
        words: loops whose pairs are all in ``before``.
    """
    prior = {edge: _odds(value) for edge, value in before.items()}
    through = dict.fromkeys(before, 0)
    for word in words:
        for edge in word.edges:
            through[edge] += 1
    praise = {edge: max(count, 1) ** _PRAISE_POWER for edge, count in through.items()}
    blame = {edge: max(count, 1) ** _BLAME_POWER for edge, count in through.items()}

    def counted(edge: Edge, said: float) -> float:
        return said * (praise[edge] if said > 0 else blame[edge])

    messages = [dict.fromkeys(word.edges, 0.0) for word in words]
    total = dict(prior)
    for _ in range(_ROUNDS):
        change = 0.0
        for word, message in zip(words, messages, strict=True):
            cavity = {edge: _chance(total[edge] - counted(edge, message[edge])) for edge in word.edges}
            for edge in word.edges:
                others = math.prod(cavity[other] for other in word.edges if other != edge)
                said = math.log(max(1 + others * (word.ratio - 1), 1e-12))
                said = min(max(said, -_MAX_BLAME), _MAX_PRAISE)
                kept = _DAMPING * message[edge] + (1 - _DAMPING) * said
                change = max(change, abs(kept - message[edge]))
                message[edge] = kept
        total = dict(prior)
        for message in messages:
            for edge, said in message.items():
                total[edge] += counted(edge, said)
        if change < 1e-4:
            break
    return {edge: _chance(value) for edge, value in total.items()}


def against_stronger_chains(
    graph: ViewGraph, chance: Mapping[Edge, float], *, tolerance: float, min_chance: float = 0.5
) -> list[Edge]:
    """Pairs whose rotation a chain of stronger pairs contradicts, weakest first.

    A pair outside the maximum spanning tree is the weakest of the loop that it closes with the tree (the cycle property
    of spanning trees), so that a weak pair never removes a strong one. The chain's own noise is allowed for.

    Args:
        chance: of each pair; edges of the graph.
        tolerance: degrees that one pair's rotation may be off.
        min_chance: chains with a pair less likely than this prove nothing.
    """
    tree: ViewGraph = nx.Graph()
    tree.add_nodes_from(graph)
    parts = UnionFind(graph.nodes)
    turned = {edge: pose_rotation(graph, *edge) for edge in chance}
    posed = [edge for edge in chance if turned[edge] is not None]
    refused = []
    for a, b in sorted(posed, key=lambda edge: (-chance[edge], edge)):
        if parts[a] != parts[b]:
            parts.union(a, b)
            tree.add_edge(a, b)
            continue
        path = path_in_tree(tree, a, b, _MAX_CHAIN)
        steps = [(min(p, q), max(p, q)) for p, q in pairwise(path)]
        if not steps or min(chance[step] for step in steps) < min_chance:
            continue
        chained = Rotation.identity()
        for p, q in pairwise(path):
            step = turned[(min(p, q), max(p, q))]
            assert step is not None
            chained = (step if p < q else step.inv()) * chained
        own = turned[(a, b)]
        assert own is not None
        off = math.degrees((chained.inv() * own).magnitude())
        if off > tolerance * math.sqrt(len(steps) + 1):
            refused.append((a, b))
    return refused[::-1]


def path_in_tree(tree: ViewGraph, a: int, b: int, most: int) -> list[int]:
    """The way from a to b in a tree, found from both ends; empty where it has more than ``most`` edges."""
    came: tuple[dict[int, int | None], dict[int, int | None]] = ({a: None}, {b: None})
    fronts = [[a], [b]]
    for _ in range(most):
        side = 0 if len(fronts[0]) <= len(fronts[1]) else 1
        further = []
        for node in fronts[side]:
            for near in tree[node]:
                if near not in came[side]:
                    came[side][near] = node
                    further.append(near)
        fronts[side] = further
        for middle in further:
            if middle in came[1 - side]:
                ends = []
                for one in came:
                    way, at = [], one[middle]
                    while at is not None:
                        way.append(at)
                        at = one[at]
                    ends.append(way)
                return [*ends[0][::-1], middle, *ends[1]]
    return []


def weak_shortcuts(graph: ViewGraph, chance: Mapping[Edge, float]) -> list[Edge]:
    """Pairs of little evidence that join photos far apart among the strong pairs, weakest first.

    Bays of a corridor that look alike join photos that many strong steps lie between, and agree with each other in
    every three-view loop (they share the error; compare Wilson & Snavely, "Network Principles for SfM", ICCV 2013: bad
    pairs bridge parts that are little joined else). Right weak pairs are mostly those of photos a few steps apart. So a
    pair that closes a round trip must be strong, or have one that is strong beside it. Strong are pairs of a chance of
    ``STRONG``, or of the median where most have less, and the strongest spanning tree, so that nothing falls apart.

    Args:
        chance: of each pair that may stay.
    """
    if not chance:
        return []
    weighted: ViewGraph = nx.Graph()
    weighted.add_nodes_from(graph)
    weighted.add_weighted_edges_from((a, b, value) for (a, b), value in sorted(chance.items()))
    skeleton = nx.maximum_spanning_tree(weighted)
    least = min(STRONG, float(np.median(list(chance.values()))))
    skeleton.add_edges_from(edge for edge, value in chance.items() if value >= least)
    waiting = [edge for edge in chance if not skeleton.has_edge(*edge)]
    while True:
        near = dict(nx.all_pairs_shortest_path_length(skeleton, cutoff=_SHORTCUT_STEPS))
        joined = [(a, b) for a, b in waiting if b in near[a]]
        if not joined:
            return sorted(waiting, key=lambda edge: (chance[edge], edge))
        skeleton.add_edges_from(joined)
        waiting = [edge for edge in waiting if edge not in set(joined)]


def pose_rotation(graph: ViewGraph, a: int, b: int) -> Rotation | None:
    """Rotation b_from_a of an edge with a < b, None where the pair has no relative pose."""
    edge = graph.edges[a, b]
    if "qw" not in edge:
        return None
    return Rotation.from_quat([edge["qx"], edge["qy"], edge["qz"], edge["qw"]])


def strength(chance: float) -> float:
    """A pair's weight in spanning trees: -log of the chance that it is wrong, at least 0."""
    return -math.log(max(1 - chance, 1e-9))


def _odds(chance: float) -> float:
    bounded = float(np.clip(chance, 1e-6, 1 - 1e-6))
    return math.log(bounded / (1 - bounded))


def _chance(odds: float) -> float:
    return 1 / (1 + math.exp(-min(max(odds, -20.0), 20.0)))
