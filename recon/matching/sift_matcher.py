"""Sparse SIFT behind the Matcher contract: the points that select the pairs, matched by ratio test."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recon.features.interest_points import extract_interest_points, match_interest_points
from recon.features.types import InterestPoints
from recon.matching.registry import built_in
from recon.matching.types import MatchImage, PairContext, SparseMatch


class SiftSettings(BaseModel):
    """Settings of SIFT matching."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ratio: float = Field(
        0.8, gt=0, le=1, description="largest distance to the nearest over the second nearest descriptor"
    )
    max_points: int = Field(
        8192, ge=8, description="points per image where the caller has not extracted them"
    )


@built_in("sift")
class SiftMatcher:
    """pycolmap's SIFT, mutual nearest neighbours that pass the ratio test (Lowe, IJCV 2004, section 7.1).

    Points that come with the image are used as they are, so that no photo is searched twice.
    """

    Settings: ClassVar[type[BaseModel]] = SiftSettings

    def __init__(self, settings: SiftSettings) -> None:
        self.settings = settings

    def prepare(self, image: MatchImage) -> Any:
        """The image's SIFT points."""
        if image.points is not None:
            return image.points
        return extract_interest_points(image.rgb, mask=image.mask, max_points=self.settings.max_points)

    def match(self, a: Any, b: Any, context: PairContext) -> SparseMatch:  # noqa: ARG002
        """Matched points; the score is one minus the distance of the descriptors over its largest value."""
        points_a, points_b = a, b
        assert isinstance(points_a, InterestPoints)
        assert isinstance(points_b, InterestPoints)
        rows = match_interest_points(points_a, points_b, ratio=self.settings.ratio)
        difference = points_a.descriptors[rows[:, 0]].astype(np.float32) - points_b.descriptors[rows[:, 1]]
        # RootSIFT descriptors have length 512 and no negative entries: they are at most 512 * sqrt(2) apart.
        score = 1 - np.linalg.norm(difference, axis=1) / np.float32(512 * np.sqrt(2))
        return SparseMatch(
            points_a.xy[rows[:, 0]],
            points_b.xy[rows[:, 1]],
            np.clip(score, 0, 1).astype(np.float32),
        )
