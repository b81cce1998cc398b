"""Stage ``verify``: two-view geometry of every matched pair, its evidence, and the view graph that survives."""

from __future__ import annotations

from typing import Any, ClassVar

import networkx as nx
from pydantic import BaseModel, ConfigDict, Field

from recon.engine.stage import StageContext, options_of
from recon.graph.pair_verification import VerificationOptions
from recon.graph.two_view import ModelChoice
from recon.graph.view_graph import (
    build_view_graph,
    components,
    judge_pairs,
    mark_spanning_tree,
    prune_by_inliers,
)
from recon.io.manifest import KEPT
from recon.run.folder import GRAPH, VERIFICATION, RunFolder
from recon.tasks.verification import flow_loops, verify_pairs

EVERY_PAIR = "pair_evidence.graphml"
"""The view graph before anything was dropped, with the chance of every pair."""


class VerifySettings(BaseModel):
    """Thresholds that a pair must pass to stay in the view graph."""

    model_config = ConfigDict(extra="forbid")
    samples: int = Field(
        VerificationOptions.samples,
        ge=100,
        description="dense: matches per pair that the geometry is estimated from",
    )
    min_confidence: float = Field(
        VerificationOptions.min_confidence,
        ge=0.0,
        le=1.0,
        description="dense: pairs with a smaller mean confidence of their consistent pixels are dropped",
    )
    min_confidence_alone: float = Field(
        VerificationOptions.min_confidence_alone,
        ge=0.0,
        le=1.0,
        description="the same for pairs of which the sparse first look found nothing",
    )
    model: ModelChoice = Field(
        VerificationOptions.model,
        description="F, E or H for every pair (E trusts the intrinsics); evidence: what fits each pair",
    )
    max_error: float = Field(
        VerificationOptions.max_error, gt=0.0, description="inlier threshold, pixels at working size"
    )
    min_inliers: int = Field(
        VerificationOptions.min_inliers, ge=8, description="dense: pairs with fewer inliers are dropped"
    )
    min_sparse_inliers: int = Field(
        VerificationOptions.min_sparse_inliers,
        ge=8,
        description="sparse: pairs with fewer inliers are dropped",
    )
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
    version: ClassVar[int] = 8
    reads: ClassVar[tuple[str, ...]] = ("photos", "features", "pairs", "match")
    Settings: ClassVar[type[BaseModel]] = VerifySettings

    def run(self, settings: VerifySettings, work: StageContext) -> dict[str, Any]:
        run = RunFolder.of(work)
        photo_set = run.photo_set
        photos = photo_set.photos
        matching = run.matching
        pairs = list(matching.pairs)
        is_dense = matching.kind == "dense"
        options = options_of(VerificationOptions, settings, seed=work.seed)
        found, evidence_kept = verify_pairs(run, pairs, options, self.version, work)
        every = build_view_graph(photo_set, found)
        least = settings.min_inliers if is_dense else settings.min_sparse_inliers
        graph = prune_by_inliers(every, min_inliers=least, min_ratio=settings.min_inlier_ratio)
        counts = {"verified": every.number_of_edges(), "after_inliers": graph.number_of_edges()}

        judged = judge_pairs(
            graph,
            flow_loops(run, graph, found, self.version, work) if is_dense and settings.loops else None,
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
        mark_spanning_tree(graph)
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
        by_points = {pair for pair in kept if found[pair].by_points}
        run.write_two_view(kept, with_inliers=by_points if is_dense else kept)
        work.write_json(
            VERIFICATION,
            {
                "pairs": len(pairs),
                **counts,
                "models": {
                    model: sum(1 for one in found.values() if one.geometry.model == model)
                    for model in ("E", "F", "H", "none")
                },
                **({"by_points": len(by_points)} if is_dense else {}),
                "components": [[photos[i].name for i in part] for part in parts],
            },
        )
        return {
            "edges": graph.number_of_edges(),
            "pairs": len(pairs),
            "components": len(parts),
            **({KEPT: evidence_kept} if evidence_kept else {}),
        }
