"""Stage ``fields``: after a sparse matcher, the dense fields that the densification uses."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from recon.core.colmap import photo_id
from recon.engine.stage import StageContext
from recon.io.manifest import KEPT
from recon.matching.registry import create_matcher
from recon.run.folder import RunFolder
from recon.run.matches import FLOWS
from recon.tasks.matching import PairJob, match_pairs


class FieldsSettings(BaseModel):
    """Nothing: the section ``match`` names the dense matcher."""

    model_config = ConfigDict(extra="forbid")


class FieldsStage:
    """Runs ``match.dense_matcher`` over the verified pairs of registered photos; a dense matcher left its own."""

    name: ClassVar[str] = "fields"
    version: ClassVar[int] = 8
    reads: ClassVar[tuple[str, ...]] = ("photos", "features", "pairs", "match", "verify", "map")
    Settings: ClassVar[type[BaseModel]] = FieldsSettings

    def run(self, settings: FieldsSettings, work: StageContext) -> dict[str, Any]:  # noqa: ARG002
        run = RunFolder.of(work)
        matching = run.matching
        if matching.kind == "dense":
            run.write_fields(matching.matcher, matching.pairs)
            return {"pairs": 0}
        model = run.reconstruction
        registered = {photo_id(number) for number in model.reg_image_ids()}
        graph = run.view_graph()
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
            self.version,
        )
        outcomes, kept = match_pairs(work, job, pairs, FLOWS)
        found = [one for one in outcomes if not one.failure]
        run.write_fields(dense["matcher"], [one.pair for one in found])
        shares = [share for one in found for share in one.shares]
        return {
            "pairs": len(found),
            "matcher": dense["matcher"],
            "consistent_share_median": float(np.median(shares)) if shares else 0.0,
            "seconds_per_pair": round(float(np.mean([one.seconds for one in found])), 4) if found else 0.0,
            **({KEPT: kept} if kept else {}),
        }
