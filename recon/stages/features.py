"""Stage ``features``: interest points of every photo, the cheap first look of the run."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recon.engine.stage import StageContext
from recon.features.interest_points import extract_interest_points
from recon.photos.types import Photo
from recon.run.folder import RunFolder


class FeaturesSettings(BaseModel):
    """How many interest points a photo gives."""

    model_config = ConfigDict(extra="forbid")
    max_points: int = Field(4096, ge=100, le=100_000, description="at most so many interest points per photo")
    peak_threshold: float | None = Field(
        None, gt=0.0, lt=1.0, description="smallest contrast of a point, grey in 0…1; none: COLMAP's 0.0067"
    )


class FeaturesStage:
    """Extracts SIFT interest points at the photos' working size."""

    name: ClassVar[str] = "features"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("photos",)
    Settings: ClassVar[type[BaseModel]] = FeaturesSettings

    def run(self, settings: FeaturesSettings, work: StageContext) -> dict[str, Any]:
        run = RunFolder.of(work)
        photos = run.photo_set.photos
        with run.writing_points() as folder:

            def extract(photo: Photo) -> int:
                points = extract_interest_points(
                    run.rgb(photo),
                    mask=run.mask(photo),
                    max_points=settings.max_points,
                    peak_threshold=settings.peak_threshold,
                )
                folder.write(photo.id, points)
                return len(points)

            counts = work.map(extract, photos, "interest points")
        return {"points": int(sum(counts)), "points_per_photo": float(np.mean(counts))}
