"""Stage ``fields``: after a sparse matcher, the dense fields that the densification uses."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from recon.core.colmap import photo_id
from recon.engine.stage import StageContext
from recon.matching.registry import create_matcher
from recon.stages.map import load_reconstruction
from recon.stages.pair_matching import PairJob, match_pairs
from recon.stages.pair_results import FLOWS, load_matching
from recon.stages.verify import load_view_graph

FIELDS = "fields.json"


class FieldsSettings(BaseModel):
    """Nothing: the section ``match`` names the dense matcher."""

    model_config = ConfigDict(extra="forbid")


class FieldsStage:
    """Runs ``match.dense_matcher`` over the verified pairs of registered photos; a dense matcher left its own."""

    name: ClassVar[str] = "fields"
    version: ClassVar[int] = 2
    reads: ClassVar[tuple[str, ...]] = ("photos", "features", "pairs", "match", "verify", "map")
    Settings: ClassVar[type[BaseModel]] = FieldsSettings

    def run(self, settings: FieldsSettings, work: StageContext) -> dict[str, Any]:  # noqa: ARG002
        matching = load_matching(work)
        if matching.kind == "dense":
            work.write_json(FIELDS, {"matcher": matching.matcher, "pairs": [list(p) for p in matching.pairs]})
            return {"pairs": 0}
        model = load_reconstruction(work)
        registered = {photo_id(number) for number in model.reg_image_ids()}
        graph = load_view_graph(work)
        pairs = [
            pair
            for pair in matching.pairs
            if graph.has_edge(*pair) and pair[0] in registered and pair[1] in registered
        ]
        dense = matching.dense
        job = PairJob(
            create_matcher(dense["matcher"], **dense["settings"]),
            dense["settings"],
            dense["max_size"],
            dense["turn_upright"],
        )
        outcomes = match_pairs(work, job, pairs, FLOWS)
        found = [one for one in outcomes if not one.failure]
        work.write_json(FIELDS, {"matcher": dense["matcher"], "pairs": [list(one.pair) for one in found]})
        shares = [share for one in found for share in one.shares]
        return {
            "pairs": len(found),
            "matcher": dense["matcher"],
            "consistent_share_median": float(np.median(shares)) if shares else 0.0,
            "seconds_per_pair": round(float(np.mean([one.seconds for one in found])), 4) if found else 0.0,
        }


def load_field_pairs(work: StageContext) -> list[tuple[int, int]]:
    """The pairs that have a dense field."""
    stored = json.loads(work.path(FIELDS).read_text(encoding="utf-8"))
    return [(int(i), int(j)) for i, j in stored["pairs"]]
