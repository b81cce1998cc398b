"""Interest points of a photo, as a task on the workspace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recon.core.memory import Latest
from recon.features.interest_points import extract_interest_points
from recon.features.types import InterestPoints
from recon.photos.types import Photo
from recon.run.folder import RunFolder, write_points

_open = Latest()


@dataclass(frozen=True)
class ExtractPoints:
    """Writes the interest points of a photo, unless they are there; returns how many there are.

    Attributes:
        root: the workspace.
        folder: where the points go.
        max_points, peak_threshold, first_octave: of ``extract_interest_points``.
    """

    root: Path
    folder: Path
    max_points: int
    peak_threshold: float | None
    first_octave: int = -1

    def __call__(self, photo: Photo) -> int:
        target = self.folder / f"{photo.id}.npz"
        if target.exists():
            with np.load(target) as data:
                return len(data["sigma"])
        run: RunFolder = _open.get((self.root, self.folder), lambda: RunFolder(self.root))
        points = extract_interest_points(
            run.rgb(photo),
            mask=run.mask(photo),
            max_points=self.max_points,
            peak_threshold=self.peak_threshold,
            first_octave=self.first_octave,
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

    def close(self) -> None:
        """Free what tasks of this process hold."""
        _open.clear()
