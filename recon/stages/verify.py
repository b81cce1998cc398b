"""Stage ``verify``: two-view geometry of every matched pair, its evidence, and the view graph that survives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, ClassVar
from uuid import uuid4

import networkx as nx
from pydantic import BaseModel, ConfigDict, Field

from recon.engine.stage import StageContext, options_of
from recon.graph.loops import Loop
from recon.graph.pair_verification import VerificationOptions
from recon.graph.two_view import MIN_CONFIDENCE_ALONE, MIN_CONFIDENCE_SUPPORTED, ModelChoice
from recon.graph.types import ViewGraph
from recon.graph.view_graph import (
    PairEvidence,
    build_view_graph,
    components,
    judge_pairs,
    prune_by_inliers,
    spanning_tree,
    three_view_loops,
)
from recon.io.manifest import KEPT
from recon.run.folder import GRAPH, VERIFICATION, RunFolder
from recon.run.matches import Pair
from recon.tasks.verification import (
    KEPT_EVIDENCE,
    KEPT_LOOPS,
    FlowLoop,
    VerifyPair,
    evidence_keys,
    evidence_text,
    loop_keys,
    read_evidence,
    read_loops,
)

EVERY_PAIR = "pair_evidence.graphml"
"""The view graph before anything was dropped, with the chance of every pair."""


class VerifySettings(BaseModel):
    """Thresholds that a pair must pass to stay in the view graph."""

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
    version: ClassVar[int] = 6
    reads: ClassVar[tuple[str, ...]] = ("photos", "features", "pairs", "match")
    Settings: ClassVar[type[BaseModel]] = VerifySettings

    def run(self, settings: VerifySettings, work: StageContext) -> dict[str, Any]:
        run = RunFolder.of(work)
        photo_set = run.photo_set
        photos = photo_set.photos
        matching = run.matching
        pairs = list(matching.pairs)
        is_dense = matching.kind == "dense"
        found, evidence_kept = _evidence(run, pairs, settings, self.version, work)
        every = build_view_graph(photo_set, found)
        least = settings.min_inliers if is_dense else settings.min_sparse_inliers
        graph = prune_by_inliers(every, min_inliers=least, min_ratio=settings.min_inlier_ratio)
        counts = {"verified": every.number_of_edges(), "after_inliers": graph.number_of_edges()}

        judged = judge_pairs(
            graph,
            _flow_loops(run, graph, found, self.version, work) if is_dense and settings.loops else None,
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


def _evidence(
    run: RunFolder, pairs: Sequence[Pair], settings: VerifySettings, version: int, work: StageContext
) -> tuple[dict[Pair, PairEvidence], int]:
    """The evidence of every pair, and for how many it was that of an earlier run."""
    options = options_of(VerificationOptions, settings, seed=work.seed)
    keys = evidence_keys(run, pairs, options, version)
    before = read_evidence(run) if work.reuse else {}
    known = {pair: before[key] for pair, key in keys.items() if key in before}
    fresh = [pair for pair in pairs if pair not in known]
    with closing(VerifyPair(work.root, options, uuid4().hex)) as task:
        made = dict(zip(fresh, work.spread(task, fresh, "two-view geometry", task.lost), strict=True))
    found = {pair: known[pair] if pair in known else made[pair] for pair in pairs}
    work.write_text(KEPT_EVIDENCE, evidence_text({keys[pair]: found[pair] for pair in pairs if pair in keys}))
    return found, len(known)


def _flow_loops(
    run: RunFolder, graph: ViewGraph, found: Mapping[Pair, PairEvidence], version: int, work: StageContext
) -> dict[Loop, float]:
    """The errors of the three-view loops whose pairs all have flow to go by; what an earlier run knew is taken over."""
    loops = [
        (a, b, c)
        for a, b, c in three_view_loops(graph)
        if not any(found[pair].by_points for pair in ((a, b), (b, c), (a, c)))
    ]
    keys = loop_keys(run, loops, version)
    before = read_loops(run) if work.reuse else {}
    fresh = [loop for loop in loops if keys.get(loop) not in before]
    with closing(FlowLoop(work.root, uuid4().hex)) as task:
        made = dict(zip(fresh, work.spread(task, fresh, "loops of flow", task.lost), strict=True))
    errors = {loop: made[loop] if loop in made else before[keys[loop]] for loop in loops}
    work.write_json(KEPT_LOOPS, {keys[loop]: error for loop, error in errors.items() if loop in keys})
    return {loop: error for loop, error in errors.items() if error is not None}
