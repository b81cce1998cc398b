"""Stage ``verify``: two-view geometry of every matched pair, and the view graph that survives."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import networkx as nx
import numpy as np
from jaxtyping import Bool
from pydantic import BaseModel, ConfigDict, Field

from recon.engine.stage import StageContext
from recon.graph.two_view import (
    MIN_CONFIDENCE_ALONE,
    MIN_CONFIDENCE_SUPPORTED,
    match_confidence,
    sample_matches,
    verify_pair,
)
from recon.graph.types import TwoViewGeometry
from recon.graph.view_graph import (
    PairEvidence,
    build_view_graph,
    components,
    flow_loop_errors,
    prune_by_inliers,
    prune_by_loops,
    rotation_loop_errors,
    spanning_tree,
)
from recon.matching.types import DenseMatch, FlowField
from recon.stages.pair_results import DenseMatches, Pair, load_matching, load_sparse_match
from recon.stages.pairs import load_sparse_matches
from recon.stages.photos import load_photo_set

GRAPH = "view_graph.graphml"


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
    max_error: float = Field(2.0, gt=0.0, description="inlier threshold, pixels at working size")
    min_inliers: int = Field(60, ge=8, description="dense: pairs with fewer inliers are dropped")
    min_sparse_inliers: int = Field(20, ge=8, description="sparse: pairs with fewer inliers are dropped")
    min_inlier_ratio: float = Field(0.3, ge=0.0, le=1.0, description="pairs with a smaller share are dropped")
    max_rotation_loop: float = Field(
        3.0, gt=0.0, description="largest rotation left after going round three views, degrees"
    )
    max_flow_loop: float = Field(
        4.0,
        gt=0.0,
        description="dense: largest median miss of flow chained round three views, pixels at matching size",
    )


class VerifyStage:
    """Estimates F, E or H per pair, builds the view graph and prunes it by inliers and by three-view loops."""

    name: ClassVar[str] = "verify"
    version: ClassVar[int] = 2
    reads: ClassVar[tuple[str, ...]] = ("photos", "match")
    Settings: ClassVar[type[BaseModel]] = VerifySettings

    def run(self, settings: VerifySettings, work: StageContext) -> dict[str, Any]:
        photo_set = load_photo_set(work)
        photos = photo_set.photos
        matching = load_matching(work)
        pairs = list(matching.pairs)
        is_dense = matching.kind == "dense"
        matches = DenseMatches(work, pairs)
        min_inliers = settings.min_inliers if is_dense else settings.min_sparse_inliers
        supported = set(load_sparse_matches(work))

        def is_sure(pair: Pair, dense: DenseMatch) -> bool:
            alone = pair not in supported
            return match_confidence(dense) >= (
                settings.min_confidence_alone if alone else settings.min_confidence
            )

        def verify(pair: Pair) -> tuple[TwoViewGeometry, int, float]:
            a, b = photos[pair[0]], photos[pair[1]]
            if is_dense:
                dense = matches[pair]
                sparse = sample_matches(
                    dense,
                    max_matches=settings.samples,
                    size_a=(a.width, a.height),
                    size_b=(b.width, b.height),
                )
                share = 0.5 * float(dense.consistent_a.mean() + dense.consistent_b.mean())
                if not is_sure(pair, dense):
                    nothing = TwoViewGeometry("none", None, None, np.zeros(len(sparse.xy_a), bool))
                    return nothing, len(sparse.xy_a), share
            else:
                sparse, share = load_sparse_match(work, pair), 0.0
            geometry = verify_pair(
                sparse.xy_a,
                sparse.xy_b,
                photo_set.cameras[a.camera],
                photo_set.cameras[b.camera],
                max_error_px=settings.max_error,
                min_inliers=min_inliers,
                seed=work.seed,
            )
            return geometry, len(sparse.xy_a), share

        found = dict(zip(pairs, work.map(verify, pairs, "two-view geometry"), strict=True))
        graph = build_view_graph(
            photo_set, {pair: PairEvidence(*evidence) for pair, evidence in found.items()}
        )
        verified = graph.number_of_edges()
        graph = prune_by_inliers(graph, min_inliers=min_inliers, min_ratio=settings.min_inlier_ratio)
        by_inliers = graph.number_of_edges()
        rotation_errors = rotation_loop_errors(graph)
        graph = prune_by_loops(
            graph, rotation_errors, max_error=np.deg2rad(settings.max_rotation_loop), kind="rotation"
        )
        by_rotation = graph.number_of_edges()

        def flow_between(a: int, b: int) -> tuple[FlowField, Bool[np.ndarray, "h w"]] | None:
            pair = (min(a, b), max(a, b))
            if pair not in found:
                return None
            dense = matches[pair]
            return (dense.a_to_b, dense.consistent_a) if a < b else (dense.b_to_a, dense.consistent_b)

        if is_dense:
            flow_errors = flow_loop_errors(graph, flow_between)
            graph = prune_by_loops(graph, flow_errors, max_error=settings.max_flow_loop, kind="flow")
        parts = components(graph)
        if len(parts) > 1:
            alone = ", ".join(photos[i].name for part in parts[1:] for i in part)
            work.warn(f"the view graph falls into {len(parts)} parts; not joined with the largest: {alone}")
        tree = {tuple(sorted(edge)) for edge in spanning_tree(graph).edges}
        for a, b in graph.edges:
            graph.edges[a, b]["tree"] = (min(a, b), max(a, b)) in tree
        with work.writing(GRAPH) as path:
            nx.write_graphml(graph, path)
        arrays: dict[str, Any] = {}
        for (i, j), (geometry, _, _) in found.items():
            if geometry.model == "none" or not graph.has_edge(i, j):
                continue
            arrays[f"{i}_{j}_matrix"] = geometry.matrix
            if geometry.b_from_a is not None:
                arrays[f"{i}_{j}_pose"] = geometry.b_from_a
            arrays[f"{i}_{j}_inliers"] = np.array([geometry.inlier_count])
            if not is_dense:
                arrays[f"{i}_{j}_agrees"] = geometry.inliers
            arrays[f"{i}_{j}_model"] = np.array([geometry.model])
        work.write_npz("two_view.npz", **arrays)
        work.write_json(
            "verification.json",
            {
                "pairs": len(pairs),
                "verified": verified,
                "after_inliers": by_inliers,
                "after_rotation_loops": by_rotation,
                "after_flow_loops": graph.number_of_edges(),
                "models": {
                    model: sum(1 for g, _, _ in found.values() if g.model == model)
                    for model in ("E", "F", "H", "none")
                },
                "components": [[photos[i].name for i in part] for part in parts],
            },
        )
        return {"edges": graph.number_of_edges(), "pairs": len(pairs), "components": len(parts)}


def load_view_graph(work: StageContext) -> nx.Graph[int]:
    """The pruned view graph; nodes are photo ids."""
    return nx.read_graphml(work.path(GRAPH), node_type=int)


def load_verification(work: StageContext) -> dict[str, Any]:
    """Counts of what verification kept and dropped."""
    return dict(json.loads(work.path("verification.json").read_text()))


def load_inliers(work: StageContext, pair: Pair) -> Bool[np.ndarray, " n"]:
    """Which point matches of an edge of the view graph agree with its geometry (after a sparse matcher)."""
    with np.load(work.path("two_view.npz")) as data:
        return data[f"{pair[0]}_{pair[1]}_agrees"].astype(bool)
