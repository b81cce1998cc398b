"""Stage ``features``: interest points of every photo, the cheap first look of the run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recon.core.memory import Latest
from recon.engine.stage import StageContext
from recon.features.interest_points import extract_interest_points
from recon.features.types import InterestPoints
from recon.io.manifest import KEPT
from recon.photos.types import Photo
from recon.run.folder import POINTS, RunFolder, write_points
from recon.run.kept import KeptItems, write_keys
from recon.run.shared_fields import content_key


class FeaturesSettings(BaseModel):
    """Settings of the interest points of a photo."""

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
        before = KeptItems(run.path(POINTS), work.reuse)
        identity = {"version": self.version, "settings": settings.model_dump(mode="json")}
        keys = {photo.id: content_key(identity | {"photo": run.photo_key(photo)}) for photo in photos}
        with work.resumable_directory(POINTS) as folder:
            kept = sum(before.take(keys[photo.id], folder / f"{photo.id}.npz") for photo in photos)
            task = ExtractPoints(work.root, folder, settings)
            try:
                counts = work.spread(task, photos, "interest points", task.lost)
            finally:
                _open.clear()
            write_keys(work, folder, {f"{number}.npz": key for number, key in keys.items()})
        figures: dict[str, Any] = {"points": int(sum(counts)), "points_per_photo": float(np.mean(counts))}
        return figures | ({KEPT: kept} if kept else {})


_open = Latest()


@dataclass(frozen=True)
class ExtractPoints:
    """Writes the interest points of a photo, unless they are there; returns how many there are.

    Attributes:
        root: the workspace.
        folder: where the points go.
    """

    root: Path
    folder: Path
    settings: FeaturesSettings

    def __call__(self, photo: Photo) -> int:
        target = self.folder / f"{photo.id}.npz"
        if target.exists():
            with np.load(target) as data:
                return len(data["sigma"])
        run: RunFolder = _open.get((self.root, self.folder), lambda: RunFolder(self.root))
        points = extract_interest_points(
            run.rgb(photo),
            mask=run.mask(photo),
            max_points=self.settings.max_points,
            peak_threshold=self.settings.peak_threshold,
        )
        with run.files.write_into(self.folder, target.name) as path:
            write_points(path, points)
        return len(points)

    def lost(self, photo: Photo) -> int:
        """Write no points for a photo that ended its worker each time: no pair will be matched with it."""
        none = np.zeros(0, np.float32)
        points = InterestPoints(np.zeros((0, 2), np.float32), none, none, np.zeros((0, 128), np.uint8))
        with RunFolder(self.root).files.write_into(self.folder, f"{photo.id}.npz") as path:
            write_points(path, points)
        return 0
