"""Stage ``features``: interest points of every photo, the cheap first look of the run."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recon.engine.stage import StageContext
from recon.features.interest_points import extract_interest_points
from recon.features.types import InterestPoints
from recon.photos.types import Photo
from recon.stages.photos import load_mask, load_photo_set, load_rgb


class FeaturesSettings(BaseModel):
    """How many interest points a photo gives."""

    model_config = ConfigDict(extra="forbid")
    max_points: int = Field(4096, ge=100, le=100_000, description="at most so many interest points per photo")


class FeaturesStage:
    """Extracts SIFT interest points at the photos' working size."""

    name: ClassVar[str] = "features"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("photos",)
    Settings: ClassVar[type[BaseModel]] = FeaturesSettings

    def run(self, settings: FeaturesSettings, work: StageContext) -> dict[str, Any]:
        photos = load_photo_set(work).photos
        with work.fresh_directory("features") as folder:

            def extract(photo: Photo) -> int:
                points = extract_interest_points(
                    load_rgb(work, photo), mask=load_mask(work, photo), max_points=settings.max_points
                )
                np.savez(
                    folder / f"{photo.id}.npz",
                    xy=points.xy,
                    sigma=points.sigma,
                    orientation=points.orientation,
                    descriptors=points.descriptors,
                )
                return len(points)

            counts = work.map(extract, photos, "interest points")
        return {"points": int(sum(counts)), "points_per_photo": float(np.mean(counts))}


def load_points(work: StageContext, photo_id: int) -> InterestPoints:
    """The interest points of one photo, as the stage left them."""
    with np.load(work.path("features", f"{photo_id}.npz")) as data:
        return InterestPoints(data["xy"], data["sigma"], data["orientation"], data["descriptors"])
