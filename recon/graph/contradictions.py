"""Pairs held against a model of cameras: strong pairs that it contradicts, and pairs that it says must match."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from recon.core.cameras import Intrinsics
from recon.graph.loops import STRONG
from recon.graph.types import ViewGraph
from recon.graph.view_graph import other_relative_pose, relative_pose

# A pair contradicts a model by so much rotation, or so much between directions of translation (degrees). Pairs of a
# right model are within 1 and 5 of it; look-alikes are wrong by tens of degrees.
MAX_TURN = 4.0
MAX_DIRECTION = 20.0
# Directions of translation mean something where a pair sees its points under this angle, degrees.
MIN_PARALLAX = 2.0
# Points seen from directions this far apart (degrees) need not match.
_SAME_SIDE = 25.0
# Points of a photo must be so large or so small in the other at most, as a ratio of distances.
_SAME_SCALE = 1.6
# Photos of which each shows so much of the other one must match.
MUST_MATCH = 0.6


@dataclass(frozen=True)
class Contradiction:
    """A pair whose relative pose is not the model's.

    Attributes:
        pair: photo ids, ascending.
        evidence: the chance that the pair's own pose is right.
        turn: degrees between the two rotations.
        direction: degrees between the two directions of translation; NaN where the pair has too little parallax.
    """

    pair: tuple[int, int]
    evidence: float
    turn: float
    direction: float


@dataclass(frozen=True)
class ModelContradictions:
    """Contradictions between the pairs and a model.

    Attributes:
        pairs: those that contradict it, the likeliest first.
        strong: how many of these are strong (evidence at least 0.8).
        wrong: for each strong pair between photos of the model the chance that its own pose is wrong.
    """

    pairs: tuple[Contradiction, ...]
    strong: int
    wrong: tuple[float, ...]


def model_contradictions(
    graph: ViewGraph, poses: Mapping[int, Float[np.ndarray, "3 4"]], *, min_evidence: float = 0.5
) -> ModelContradictions:
    """The pairs of a view graph whose relative pose is not that of the model's cameras.

    A model in which look-alike things became one contradicts the pairs that saw them apart, though its reprojection
    errors are small: what does not fit was thrown away. A model that contradicts strong pairs is not sound. A pair
    that a homography explains contradicts it if neither of the two poses that this allows is the model's.

    Args:
        graph: with ``evidence`` on its edges; best the one of all pairs, before any were dropped.
        poses: ``cam_from_world`` by photo id.
        min_evidence: pairs that are less likely are not asked.
    """
    found = []
    wrong = []
    for a, b in sorted((min(edge), max(edge)) for edge in graph.edges):
        evidence = float(graph.edges[a, b].get("evidence", 0.0))
        pose = relative_pose(graph, a, b)
        if evidence < min_evidence or pose is None or a not in poses or b not in poses:
            continue
        if evidence >= STRONG:
            wrong.append(1.0 - evidence)
        told = float(graph.edges[a, b].get("angle", 0.0)) >= MIN_PARALLAX
        turn, direction = _nearest([pose, other_relative_pose(graph, a, b)], poses[a], poses[b], told)
        if turn > MAX_TURN or direction > MAX_DIRECTION:
            found.append(Contradiction((a, b), evidence, turn, direction))
    found.sort(key=lambda one: (-one.evidence, one.pair))
    among = sum(one.evidence >= STRONG for one in found)
    return ModelContradictions(tuple(found), among, tuple(wrong))


def _nearest(
    either: Sequence[Float[np.ndarray, "3 4"] | None],
    pose_a: Float[np.ndarray, "3 4"],
    pose_b: Float[np.ndarray, "3 4"],
    told: bool,
) -> tuple[float, float]:
    """The disagreement of that one of the relative poses that is nearest to the model's.

    Args:
        told: whether the direction of translation means something; NaN if not.
    """
    found = [disagreement(one, pose_a, pose_b) for one in either if one is not None]
    found = [(turn, direction if told else math.nan) for turn, direction in found]
    return min(found, key=lambda one: max(one[0] / MAX_TURN, one[1] / MAX_DIRECTION if told else 0.0))


def chance_of_so_many(chances: Sequence[float], count: int) -> float:
    """The chance that ``count`` or more of independent events happen (Poisson binomial distribution).

    Args:
        chances: of each event, 0 to 1.
    """
    fewer = np.zeros(count)  # chance of exactly 0, 1, … count - 1 events
    fewer[:1] = 1.0
    for chance in chances:
        fewer[1:] = fewer[1:] * (1 - chance) + fewer[:-1] * chance
        fewer[:1] *= 1 - chance
    return float(np.clip(1.0 - fewer.sum(), 0.0, 1.0))


def disagreement(
    b_from_a: Float[np.ndarray, "3 4"], pose_a: Float[np.ndarray, "3 4"], pose_b: Float[np.ndarray, "3 4"]
) -> tuple[float, float]:
    """Degrees between rotations, and between directions of translation (0 where the cameras are in one place)."""
    rotation = pose_b[:, :3] @ pose_a[:, :3].T
    shift = pose_b[:, 3] - rotation @ pose_a[:, 3]
    turn = b_from_a[:, :3] @ rotation.T
    degrees = math.degrees(math.acos(float(np.clip((np.trace(turn) - 1) / 2, -1, 1))))
    lengths = float(np.linalg.norm(shift) * np.linalg.norm(b_from_a[:, 3]))
    if lengths < 1e-12:
        return degrees, 0.0
    along = float(np.clip(shift @ b_from_a[:, 3] / lengths, -1, 1))
    return degrees, math.degrees(math.acos(along))


def overlap_shares(
    pairs: Iterable[tuple[int, int]],
    poses: Mapping[int, Float[np.ndarray, "3 4"]],
    cameras: Mapping[int, Intrinsics],
    seen: Mapping[int, Float[np.ndarray, "n 3"]],
) -> dict[tuple[int, int], float]:
    """Share of each of two photos that the other one shows, by a model, the smaller of both: 0 to 1.

    A point that one photo observes counts as shown by another where it lies before that camera, inside its image, and
    is seen from about the same side and distance. What hides it is not known: a share is an upper bound.

    Args:
        pairs: photo ids; those with a photo that has no pose are passed over.
        poses, cameras: by photo id. Distortion is not counted.
        seen: world points that each photo observes.
    """
    shares = {}
    for a, b in pairs:
        if a not in poses or b not in poses:
            continue
        there = _shown(poses[a], poses[b], cameras[b], seen.get(a, np.zeros((0, 3))))
        back = _shown(poses[b], poses[a], cameras[a], seen.get(b, np.zeros((0, 3))))
        shares[a, b] = min(there, back)
    return shares


def _shown(
    own: Float[np.ndarray, "3 4"],
    other: Float[np.ndarray, "3 4"],
    camera: Intrinsics,
    points: Float[np.ndarray, "n 3"],
) -> float:
    """Share of the points of one photo that another shows."""
    if len(points) == 0:
        return 0.0
    at = points @ other[:, :3].T + other[:, 3]
    pixel = at @ camera.K.T
    before = at[:, 2] > 1e-9
    xy = pixel[:, :2] / np.where(before, pixel[:, 2], 1.0)[:, None]
    inside = before & (xy >= 0).all(axis=1) & (xy[:, 0] <= camera.width - 1) & (xy[:, 1] <= camera.height - 1)
    rays = [points + pose[:, :3].T @ pose[:, 3] for pose in (own, other)]
    far: list[Float64[np.ndarray, " n"]] = [np.linalg.norm(ray, axis=1) for ray in rays]
    cosine = (rays[0] * rays[1]).sum(axis=1) / np.maximum(far[0] * far[1], 1e-12)
    near = np.maximum(far[0], far[1]) <= _SAME_SCALE * np.minimum(far[0], far[1])
    return float((inside & near & (cosine >= math.cos(math.radians(_SAME_SIDE)))).mean())


def missing_pairs(
    shares: Mapping[tuple[int, int], float], graph: ViewGraph, *, min_share: float = MUST_MATCH
) -> tuple[list[tuple[int, int]], int]:
    """Pairs that a model says must match, but that were not kept, most overlap first; and how many must match.

    Jiang, Tan & Cheong, "Seeing Double Without Confusion", CVPR 2012: a folded model predicts matches that are missing.

    Args:
        shares: of ``overlap_shares``, of the pairs that were tried.
        graph: the verified view graph.
    """
    must = [pair for pair, share in shares.items() if share >= min_share]
    absent = [pair for pair in must if not graph.has_edge(*pair)]
    return sorted(absent, key=lambda pair: (-shares[pair], pair)), len(must)
