"""Stage ``features``: interest points of every photo, the cheap first look of the run."""

from __future__ import annotations

from contextlib import closing
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recon.engine.stage import StageContext
from recon.io.manifest import KEPT
from recon.run.folder import POINTS, RunFolder
from recon.run.kept import KeptItems, write_keys
from recon.run.shared_fields import content_key
from recon.tasks.features import ExtractPoints


class FeaturesSettings(BaseModel):
    """Settings of the interest points of a photo."""

    model_config = ConfigDict(extra="forbid")
    max_points: int = Field(4096, ge=100, le=100_000, description="at most so many interest points per photo")
    peak_threshold: float | None = Field(
        None, gt=0.0, lt=1.0, description="smallest contrast of a point, grey in 0…1; none: COLMAP's 0.0067"
    )
    first_octave: int = Field(
        -1,
        ge=-1,
        le=0,
        description="-1: look at the photo at twice its size, too, which finds the finest points",
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
        before = KeptItems(run.path(POINTS), work.reuse)
        identity = {"version": self.version, "settings": settings.model_dump(mode="json")}
        keys = {photo.id: content_key(identity | {"photo": run.photo_key(photo)}) for photo in photos}
        with work.resumable_directory(POINTS) as folder:
            kept = sum(before.take(keys[photo.id], folder / f"{photo.id}.npz") for photo in photos)
            with closing(ExtractPoints(work.root, folder, **settings.model_dump())) as task:
                counts = work.spread(task, photos, "interest points", task.lost)
            write_keys(work, folder, {f"{number}.npz": key for number, key in keys.items()})
        figures: dict[str, Any] = {"points": int(sum(counts)), "points_per_photo": float(np.mean(counts))}
        return figures | ({KEPT: kept} if kept else {})
