"""Stage ``match``: what the matcher finds in every chosen pair, a dense field both ways or point matches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, create_model

from recon.engine.stage import StageContext
from recon.errors import UsageError
from recon.io.manifest import KEPT
from recon.matching.registry import create_matcher, matcher_settings
from recon.run.folder import RunFolder
from recon.run.matches import FLOWS, MATCHES, MATCHING
from recon.tasks.matching import PairJob, match_pairs


class MatchSettings(BaseModel):
    """Matcher and its size; every other key of the section is a setting of that matcher."""

    model_config = ConfigDict(extra="forbid")
    matcher: str = Field("siftflow", description="name in the registry of matchers, dense or sparse")
    max_size: int = Field(640, ge=64, le=8192, description="longest side of the images that are matched")
    sparse_max_size: int = Field(
        2048, ge=64, le=8192, description="longest side of the images that a sparse matcher gets"
    )
    turn_upright: bool = Field(
        True,
        description="turn the second photo by quarter turns, and bring it to the first one's scale and place, where "
        "the sparse matches say that it is turned, shifted far, or taken from much nearer or farther",
    )
    dense_matcher: str = Field(
        "siftflow", description="with a sparse matcher: the dense one whose fields the densification uses"
    )
    dense_settings: dict[str, Any] = Field(
        default_factory=dict, description="settings of the dense matcher, as a table"
    )

    @classmethod
    def variant(cls, table: Mapping[str, Any]) -> type[BaseModel]:
        """These settings together with those of the matcher that the section names."""
        name = str(table.get("matcher", cls.model_fields["matcher"].default))
        return create_model("MatchSettings", __base__=(cls, matcher_settings(name)))

    def of_matcher(self) -> dict[str, Any]:
        """The settings that belong to the matcher."""
        return self.model_dump(exclude=set(MatchSettings.model_fields))


class MatchStage:
    """Runs the matcher over the pairs, threads over pairs, each result written as soon as it is there."""

    name: ClassVar[str] = "match"
    version: ClassVar[int] = 13
    reads: ClassVar[tuple[str, ...]] = ("photos", "features", "pairs")
    Settings: ClassVar[type[BaseModel]] = MatchSettings

    def run(self, settings: MatchSettings, work: StageContext) -> dict[str, Any]:
        run = RunFolder.of(work)
        pairs = run.pairs
        matcher = create_matcher(settings.matcher, **settings.of_matcher())
        kind = matcher.capabilities.kind
        if kind == "sparse":
            # A wrong name or setting is told before the work, not after it.
            dense = create_matcher(settings.dense_matcher, **settings.dense_settings)
            if dense.capabilities.kind != "dense":
                raise UsageError(
                    f"match.dense_matcher: {settings.dense_matcher!r} finds sparse matches; the densification needs a "
                    "dense matcher"
                )
        job = PairJob(
            matcher,
            settings.of_matcher(),
            settings.max_size if kind == "dense" else settings.sparse_max_size,
            settings.turn_upright,
            self.version,
        )
        outcomes, kept = match_pairs(work, job, pairs, FLOWS if kind == "dense" else MATCHES)
        work.remove(MATCHES if kind == "dense" else FLOWS)
        found = [one for one in outcomes if not one.failure]
        names = [photo.name for photo in run.photo_set.photos]
        work.write_json(
            MATCHING,
            {
                "matcher": settings.matcher,
                "kind": kind,
                "repeatable": matcher.capabilities.repeatable,
                "pairs": [list(one.pair) for one in found],
                "failed": [
                    {"i": one.pair[0], "j": one.pair[1], "a": names[one.pair[0]], "b": names[one.pair[1]]}
                    | {"matcher": settings.matcher, "reason": one.failure}
                    for one in outcomes
                    if one.failure
                ],
                "seconds": {f"{one.pair[0]}_{one.pair[1]}": round(one.seconds, 4) for one in found},
                "dense": {
                    "matcher": settings.matcher if kind == "dense" else settings.dense_matcher,
                    "settings": settings.of_matcher() if kind == "dense" else settings.dense_settings,
                    "max_size": settings.max_size,
                    "turn_upright": settings.turn_upright,
                },
            },
        )
        figures: dict[str, Any] = {"pairs": len(found), "matcher": settings.matcher, "kind": kind}
        if kind == "dense":
            shares = [share for one in found for share in one.shares]
            figures["consistent_share_median"] = float(np.median(shares)) if shares else 0.0
        else:
            figures["matches_per_pair"] = _mean([one.matches for one in found])
        figures["seconds_per_pair"] = _mean([one.seconds for one in found])
        if len(found) < len(outcomes):
            figures["pairs_failed"] = len(outcomes) - len(found)
        if kept:
            figures[KEPT] = kept
        return figures


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4) if values else 0.0
