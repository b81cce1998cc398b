"""A run beside the truth of its scene: names matched, cameras aligned, what several kinds of evidence need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np
from jaxtyping import Float32, Float64

from recon.core.cameras import PinholeView
from recon.core.mesh import Mesh
from recon.core.posed import Camera
from recon.core.similarity import Similarity3
from recon.datasets.ground_truth import GroundTruth
from recon.errors import ReconError
from recon.evaluation.depth import resize_truth_depth
from recon.evaluation.poses import align_cameras, matched_names, rotation_angle
from recon.evaluation.report import ReportBuilder, evaluation_thresholds
from recon.evaluation.surface import SeenDepth, truth_depths
from recon.evaluation.truth import load_surface, renamed_truth, surface_extent
from recon.run.folder import RunFolder

# Photos whose sides differ in proportion by more than this are not the same photos.
_ANOTHER_SHAPE = 0.02
# A median rotation error in degrees above this says that nothing fits.
_ASTRAY_DEGREES = 30.0

_T = TypeVar("_T")


@dataclass(frozen=True)
class Subject:
    """The run that is evaluated, and the truth.

    Attributes:
        run: on disk.
        truth: of the scene, with the run's names of the photos; None where nothing is known.
        known: true cameras of the photos that the run was given.
        estimated: ``cam_from_world`` of those that it registered.
        truth_from_run: the robust similarity from the run's world to the truth's; None where there is none.
        thresholds: distances that the user gave; None takes those that suit the scene.
        seed: of all sampling.
        strict: raise where a file is damaged.
    """

    run: RunFolder
    truth: GroundTruth | None = None
    known: Mapping[str, Camera] = field(default_factory=dict)
    estimated: Mapping[str, Float64[np.ndarray, "3 4"]] = field(default_factory=dict)
    truth_from_run: Similarity3 | None = None
    thresholds: Sequence[float] | None = None
    seed: int = 0
    strict: bool = False

    @property
    def unit(self) -> float:
        """Metres per unit of the truth where known, else 1: errors are in metres or in units."""
        unit = self.truth.unit_in_metres if self.truth is not None else None
        return 1.0 if unit is None else float(unit)

    @cached_property
    def views(self) -> list[PinholeView]:
        """The known cameras."""
        return [camera.view(name, i) for i, (name, camera) in enumerate(sorted(self.known.items()))]

    @cached_property
    def surface(self) -> Mesh | Float32[np.ndarray, "m 3"] | None:
        """The true surface."""
        return None if self.truth is None else load_surface(self.truth)

    @cached_property
    def seen_surface(self) -> list[SeenDepth]:
        """Part of the true surface that the known cameras see."""
        assert self.surface is not None
        return truth_depths(self.surface, self.views)

    @cached_property
    def extent(self) -> float:
        """Size of the true surface."""
        assert self.surface is not None
        return surface_extent(self.surface)

    @cached_property
    def limits(self) -> list[tuple[str, float]]:
        """Distances for surfaces, with their names in metrics."""
        assert self.truth is not None
        return evaluation_thresholds(self.extent, self.truth.unit_in_metres, self.thresholds)

    def photo_size(self, name: str) -> tuple[int, int] | None:
        """Width and height of a photo as its matches are in; None where unknown."""
        photo = self.run.photos.get(name)
        if photo is not None:
            return photo.width, photo.height
        return self.run.database_sizes.get(name)

    def depth_at(self, view: PinholeView) -> Float32[np.ndarray, "h w"] | None:
        """The known depth of a photo at the size of a view; kept, because every photo is in many pairs."""
        if self.truth is None or self.truth.depth is None:
            return None
        key = (view.name, view.width, view.height)
        if key not in self._depths:
            depth = self.truth.depth(view.name)
            self._depths[key] = None if depth is None else resize_truth_depth(depth, view.width, view.height)
        return self._depths[key]

    @cached_property
    def _depths(self) -> dict[tuple[str, int, int], Float32[np.ndarray, "h w"] | None]:
        return {}

    def read(self, what: str, read: Callable[[], _T | None], report: ReportBuilder) -> _T | None:
        """Read a part of the run; None and a note where it is damaged."""
        try:
            return read()
        except ReconError as error:
            if self.strict:
                raise
            report.note(f"{what}: {error}")
            return None


def open_subject(
    run: RunFolder,
    truth: GroundTruth | None,
    report: ReportBuilder,
    *,
    thresholds: Sequence[float] | None = None,
    seed: int = 0,
    strict: bool = False,
) -> Subject:
    """Match the photos of a run with those of the truth, and align the cameras.

    Raises:
        ReconError: the truth is that of another scene: no photo name in common, or photos of another shape.
    """
    if truth is None:
        return Subject(run, thresholds=thresholds, seed=seed, strict=strict)
    known, estimated = dict(truth.cameras), {}
    theirs = set(truth.cameras) | {name for pair in truth.pairs for name in (pair.a, pair.b)}
    ours = run.given or set(run.poses) or set(run.database_sizes)
    if ours and theirs:
        names = matched_names(ours, theirs)
        if not names:
            raise ReconError(
                f"{run.root} and the truth {truth.name} share no photo name (one has {min(ours)}, the other "
                f"{min(theirs)}); name the truth of this scene"
            )
        truth = renamed_truth(truth, names)
        # Photos that the run was not given are left out on purpose, and no misses.
        known = {n: c for n, c in truth.cameras.items() if not run.given or n in run.given}
        estimated = {n: pose for n, pose in run.poses.items() if n in known}
    subject = Subject(
        run, truth, known, estimated, _alignment(estimated, known, report), thresholds, seed, strict
    )
    if ours and theirs:
        _check_shapes(subject)
    return subject


def _check_shapes(subject: Subject) -> None:
    for name, camera in subject.known.items():
        size = subject.photo_size(name)
        if size is not None and abs(size[0] / size[1] * camera.height / camera.width - 1) > _ANOTHER_SHAPE:
            assert subject.truth is not None
            raise ReconError(
                f"{subject.run.root}: {name} has {size[0]}x{size[1]} pixels, and {camera.width}x{camera.height} in "
                f"the truth {subject.truth.name}, which is another shape; name the truth of this scene"
            )


def _alignment(
    estimated: Mapping[str, Float64[np.ndarray, "3 4"]],
    cameras: Mapping[str, Camera],
    report: ReportBuilder,
) -> Similarity3 | None:
    """The similarity from the run's world to the truth's, with a note where the cameras do not fit."""
    if len(estimated) < 2:
        return None
    known = {name: camera.cam_from_world for name, camera in cameras.items()}
    try:
        found = align_cameras(estimated, known, robust=True)
    except ValueError as error:
        report.note(f"alignment: {error}")
        return None
    angles = [
        rotation_angle(found.camera(pose)[:, :3] @ known[name][:, :3].T) for name, pose in estimated.items()
    ]
    typical = float(np.degrees(np.median(angles)))
    if len(angles) > 3 and typical > _ASTRAY_DEGREES:
        report.note(
            f"alignment: the cameras look elsewhere than the true ones (by {typical:.0f} degrees): the "
            "reconstruction failed, or the truth is that of another scene"
        )
    return found
