"""Stage ``verify``: two-view geometry of every matched pair, its evidence, and the view graph that survives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import networkx as nx
import numpy as np
from jaxtyping import Bool
from pydantic import BaseModel, ConfigDict, Field

from recon.engine.stage import StageContext
from recon.graph.evidence import (
    DENSE_MODEL,
    SPARSE_MODEL,
    chance,
    dense_features,
    filled_share,
    geometry_signs,
    sparse_agreement,
    sparse_features,
)
from recon.graph.two_view import (
    MIN_CONFIDENCE_ALONE,
    MIN_CONFIDENCE_SUPPORTED,
    ModelChoice,
    match_confidence,
    sample_matches,
    verify_pair,
)
from recon.graph.types import TwoViewGeometry
from recon.graph.view_graph import (
    PairEvidence,
    build_view_graph,
    components,
    judge_pairs,
    prune_by_inliers,
    spanning_tree,
)
from recon.matching.types import FlowField
from recon.photos.types import PhotoSet
from recon.run.folder import GRAPH, VERIFICATION, RunFolder
from recon.run.matches import DenseMatches, Pair

EVERY_PAIR = "pair_evidence.graphml"
"""The view graph before anything was dropped, with the chance of every pair."""


class VerifySettings(BaseModel):
    """What a pair must show to stay in the view graph."""

    model_config = ConfigDict(extra="forbid")
    samples: int = Field(
        3000, ge=100, description="dense: matches per pair that the geometry is estimated from"
    )
    min_confidence: float = Field(
        MIN_CONFIDENCE_SUPPORTED,
        ge=0.0,
        le=1.0,
        description="dense: pairs with a smaller mean confidence of their consistent pixels are dropped",
    )
    min_confidence_alone: float = Field(
        MIN_CONFIDENCE_ALONE,
        ge=0.0,
        le=1.0,
        description="the same for pairs of which the sparse first look found nothing",
    )
    model: ModelChoice = Field(
        "evidence",
        description="F, E or H for every pair (E trusts the intrinsics); evidence: what fits each pair",
    )
    max_error: float = Field(2.0, gt=0.0, description="inlier threshold, pixels at working size")
    min_inliers: int = Field(60, ge=8, description="dense: pairs with fewer inliers are dropped")
    min_sparse_inliers: int = Field(20, ge=8, description="sparse: pairs with fewer inliers are dropped")
    min_inlier_ratio: float = Field(0.3, ge=0.0, le=1.0, description="pairs with a smaller share are dropped")
    min_evidence: float = Field(
        0.5,
        ge=0.0,
        le=1.0,
        description="pairs whose relative pose is right with a smaller chance are dropped",
    )
    loops: bool = Field(True, description="let loops of pairs, and chains of stronger pairs, judge each pair")
    max_rotation_loop: float = Field(
        3.0, gt=0.0, description="largest rotation left after going round three views, degrees"
    )
    max_flow_loop: float = Field(
        4.0,
        gt=0.0,
        description="dense: largest median miss of flow chained round three views, pixels at matching size",
    )


class VerifyStage:
    """Estimates F, E or H per pair, and keeps the pairs whose pose is likely right by their signs and by loops."""

    name: ClassVar[str] = "verify"
    version: ClassVar[int] = 3
    reads: ClassVar[tuple[str, ...]] = ("photos", "features", "pairs", "match")
    Settings: ClassVar[type[BaseModel]] = VerifySettings

    def run(self, settings: VerifySettings, work: StageContext) -> dict[str, Any]:
        run = RunFolder.of(work)
        photo_set = run.photo_set
        photos = photo_set.photos
        matching = run.matching
        pairs = list(matching.pairs)
        is_dense = matching.kind == "dense"
        matches = run.dense_matches(pairs)
        if is_dense:
            verify = _dense_verifier(settings, work, photo_set, matches)
        else:
            verify = _sparse_verifier(settings, work, photo_set)
        found = dict(zip(pairs, work.map(verify, pairs, "two-view geometry"), strict=True))
        every = build_view_graph(photo_set, found)
        least = settings.min_inliers if is_dense else settings.min_sparse_inliers
        graph = prune_by_inliers(every, min_inliers=least, min_ratio=settings.min_inlier_ratio)
        counts = {"verified": every.number_of_edges(), "after_inliers": graph.number_of_edges()}

        def flow_between(a: int, b: int) -> tuple[FlowField, Bool[np.ndarray, "h w"]] | None:
            pair = (min(a, b), max(a, b))
            if pair not in found:
                return None
            dense = matches[pair]
            return (dense.a_to_b, dense.consistent_a) if a < b else (dense.b_to_a, dense.consistent_b)

        judged = judge_pairs(
            graph,
            flow_between if is_dense and settings.loops else None,
            loops=settings.loops,
            min_chance=settings.min_evidence,
            max_rotation_loop=settings.max_rotation_loop,
            max_flow_loop=settings.max_flow_loop,
        )
        graph = judged.kept
        counts |= {"after_evidence": judged.after_evidence, "after_loops": graph.number_of_edges()}
        parts = components(graph)
        if len(parts) > 1:
            alone = ", ".join(photos[i].name for part in parts[1:] for i in part)
            work.warn(f"the view graph falls into {len(parts)} parts; not joined with the largest: {alone}")
        tree = {tuple(sorted(edge)) for edge in spanning_tree(graph).edges}
        for a, b in graph.edges:
            graph.edges[a, b]["tree"] = (min(a, b), max(a, b)) in tree
        for a, b in judged.every.edges:
            every.edges[a, b].update(judged.every.edges[a, b])
        for name, one in ((GRAPH, graph), (EVERY_PAIR, every)):
            with work.writing(name) as path:
                nx.write_graphml(one, path)
        kept = {
            pair: one.geometry
            for pair, one in found.items()
            if one.geometry.model != "none" and graph.has_edge(*pair)
        }
        run.write_two_view(kept, with_inliers=not is_dense)
        work.write_json(
            VERIFICATION,
            {
                "pairs": len(pairs),
                **counts,
                "models": {
                    model: sum(1 for one in found.values() if one.geometry.model == model)
                    for model in ("E", "F", "H", "none")
                },
                "components": [[photos[i].name for i in part] for part in parts],
            },
        )
        return {"edges": graph.number_of_edges(), "pairs": len(pairs), "components": len(parts)}


def _dense_verifier(
    settings: VerifySettings, work: StageContext, photo_set: PhotoSet, matches: DenseMatches
) -> Callable[[Pair], PairEvidence]:
    """Geometry and signs of a pair from its dense match and the sparse first look."""
    run = RunFolder.of(work)
    photos = photo_set.photos
    looks = run.sparse_matches()
    points = {photo.id: run.points(photo.id).xy for photo in photos}

    def verify(pair: Pair) -> PairEvidence:
        a, b = photos[pair[0]], photos[pair[1]]
        camera_a, camera_b = photo_set.cameras[a.camera], photo_set.cameras[b.camera]
        size_a, size_b = (a.width, a.height), (b.width, b.height)
        dense = matches[pair]
        sample = sample_matches(dense, max_matches=settings.samples, size_a=size_a, size_b=size_b)
        share = 0.5 * float(dense.consistent_a.mean() + dense.consistent_b.mean())
        confidence = match_confidence(dense)
        if confidence < (settings.min_confidence if pair in looks else settings.min_confidence_alone):
            nothing = TwoViewGeometry("none", None, None, np.zeros(len(sample.xy_a), bool))
            return PairEvidence(nothing, len(sample.xy_a), share)
        geometry = verify_pair(
            sample.xy_a,
            sample.xy_b,
            camera_a,
            camera_b,
            max_error_px=settings.max_error,
            min_inliers=settings.min_inliers,
            seed=work.seed,
            model=settings.model,
        )
        if geometry.model == "none":
            return PairEvidence(geometry, len(sample.xy_a), share)
        look = looks.get(pair, np.zeros((0, 2), np.int64))
        seen_a, seen_b = points[pair[0]][look[:, 0]], points[pair[1]][look[:, 1]]
        inside = geometry.inliers
        signs = replace(
            geometry_signs(geometry, sample, camera_a, camera_b),
            consistent=share,
            filled=min(
                filled_share(sample.xy_a[inside], size_a, dense.consistent_a),
                filled_share(sample.xy_b[inside], size_b, dense.consistent_b),
            ),
            confidence=confidence,
            sparse=len(look),
            matched=len(look) / max(1, min(len(points[i]) for i in pair)),
            agreement=sparse_agreement(dense, seen_a, seen_b, size_a, size_b),
        )
        return PairEvidence(
            geometry, len(sample.xy_a), share, signs, chance(dense_features(signs), DENSE_MODEL)
        )

    return verify


def _sparse_verifier(
    settings: VerifySettings, work: StageContext, photo_set: PhotoSet
) -> Callable[[Pair], PairEvidence]:
    """Geometry and signs of a pair from point matches."""
    run = RunFolder.of(work)
    photos = photo_set.photos

    def verify(pair: Pair) -> PairEvidence:
        a, b = photos[pair[0]], photos[pair[1]]
        camera_a, camera_b = photo_set.cameras[a.camera], photo_set.cameras[b.camera]
        sparse = run.sparse_match(pair)
        geometry = verify_pair(
            sparse.xy_a,
            sparse.xy_b,
            camera_a,
            camera_b,
            max_error_px=settings.max_error,
            min_inliers=settings.min_sparse_inliers,
            seed=work.seed,
            model=settings.model,
        )
        if geometry.model == "none":
            return PairEvidence(geometry, len(sparse.xy_a))
        signs = geometry_signs(geometry, sparse, camera_a, camera_b)
        return PairEvidence(
            geometry, len(sparse.xy_a), 0.0, signs, chance(sparse_features(signs), SPARSE_MODEL)
        )

    return verify
