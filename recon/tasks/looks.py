"""The sparse first look at a pair of photos, as a task on the workspace."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon.core.memory import BoundedCache, Latest
from recon.features.interest_points import match_interest_points
from recon.features.types import InterestPoints
from recon.graph.two_view import verify_pair
from recon.run.folder import RunFolder
from recon.run.matches import Pair
from recon.run.shared_fields import content_key

_VERSION = 2
"""Raised when looks at pairs come out otherwise."""


@dataclass(frozen=True)
class LookOptions:
    """All that a look at a pair depends on beside its photos; see ``PairsSettings``.

    Attributes:
        seed: of the geometry's samples.
    """

    ratio: float
    min_inliers: int
    min_inlier_ratio: float
    max_error: float
    seed: int


def look_key(run: RunFolder, options: LookOptions, pair: Pair) -> str:
    """Hash of all that the look at a pair depends on."""
    photos, cameras = run.photo_set.photos, run.photo_set.cameras
    settings = asdict(options)
    identity = {
        "version": _VERSION,
        "seed": settings.pop("seed"),
        "settings": settings,
        "points": [run.points_key(number) for number in pair],
        "cameras": [asdict(cameras[photos[number].camera]) for number in pair],
        "same_camera": photos[pair[0]].camera == photos[pair[1]].camera,
    }
    return content_key(identity)


_open = Latest()


@dataclass(frozen=True)
class LookAtPair:
    """Sparse matches of a pair that agree with a geometry of the two photos; none where too few do.

    Attributes:
        root: the workspace.
        memory: bytes that interest points may take in the process.
        token: of this run of the stage.
    """

    root: Path
    options: LookOptions
    memory: int
    token: str

    def __call__(self, pair: Pair) -> NDArray[np.int64]:
        return _open.get(self, lambda: _Looker(self)).look(pair)

    def close(self) -> None:
        """Free what tasks of this process hold."""
        _open.clear()


class _Looker:
    """An opened run, and interest points at hand."""

    def __init__(self, task: LookAtPair) -> None:
        self.run, self.options = RunFolder(task.root), task.options
        self.cache = BoundedCache(task.memory)

    def points(self, number: int) -> InterestPoints:
        return self.cache.get(number, lambda: self.run.points(number), lambda one: one.descriptors.nbytes)

    def look(self, pair: Pair) -> NDArray[np.int64]:
        options, photo_set = self.options, self.run.photo_set
        a, b = (self.points(number) for number in pair)
        matches = match_interest_points(a, b, ratio=options.ratio)
        if len(matches) < options.min_inliers:
            return matches[:0]
        geometry = verify_pair(
            a.xy[matches[:, 0]],
            b.xy[matches[:, 1]],
            *(photo_set.cameras[photo_set.photos[number].camera] for number in pair),
            max_error_px=options.max_error,
            min_inliers=options.min_inliers,
            seed=options.seed,
        )
        # Wrong matches always find some geometry that a few of them share; their share tells it apart.
        enough = geometry.inlier_count >= options.min_inlier_ratio * len(matches)
        return matches[geometry.inliers] if geometry.model != "none" and enough else matches[:0]
