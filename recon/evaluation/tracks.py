"""Length, accuracy and completeness of the triangulated tracks of a reconstruction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from recon.core.cameras import PinholeView
from recon.core.mesh import Mesh
from recon.core.similarity import Similarity3
from recon.evaluation.surface import Region, SeenDepth, SurfaceProtocol, SurfaceReport, evaluate_surface
from recon.run.folder import SparseModel

TOLERANCES = (0.01, 0.02, 0.05)
"""Metres: what triangulation on ETH3D is reported at (Lindenberger et al., Pixel-Perfect SfM, ICCV 2021)."""
VOXEL = 0.01
"""Metres: side of the voxels over which ETH3D's own program averages."""


@dataclass(frozen=True)
class TrackReport:
    """Quality of triangulated tracks.

    Attributes:
        points, observations: how many there are.
        mean_length, median_length: observations per point.
        long_share: share of the points with three observations or more.
        mean_reprojection, median_reprojection: pixels, over the points' own means.
        surface: accuracy (its precision) and completeness (its recall) against the truth; None without one.
    """

    points: int
    observations: int
    mean_length: float
    median_length: float
    long_share: float
    mean_reprojection: float
    median_reprojection: float
    surface: SurfaceReport | None = None

    def text(self) -> str:
        """The figures for a person to read."""
        line = (
            f"{self.points} points, {self.observations} observations; length mean {self.mean_length:.2f}, "
            f"three or more {100 * self.long_share:.0f}%; reprojection error mean {self.mean_reprojection:.3f} px"
        )
        if self.surface is not None:
            for t, p, r in zip(
                self.surface.thresholds, self.surface.precision, self.surface.recall, strict=True
            ):
                line += f"\nwithin {t:g}: accuracy {100 * p:.1f}%, completeness {100 * r:.2f}%"
        return line


def evaluate_tracks(
    model: SparseModel,
    truth: Mesh | Float[np.ndarray, "m 3"] | None = None,
    views: Sequence[PinholeView] = (),
    *,
    thresholds: Sequence[float] = TOLERANCES,
    voxel: float | None = VOXEL,
    truth_from_estimate: Similarity3 | None = None,
    seed: int = 0,
    depths: Sequence[SeenDepth] | None = None,
    region: Region | None = None,
) -> TrackReport:
    """Compute lengths, reprojection errors, and ETH3D's accuracy and completeness of the points.

    Accuracy is the share of the points within a tolerance of the truth, completeness the share of the truth within
    a tolerance of a point; both are averaged over voxels, so that neither a dense scan nor a dense cluster of points
    counts more than its volume (Schöps et al., "A multi-view stereo benchmark", CVPR 2017). What the truth
    cannot judge is left out (``evaluate_surface``): by the cameras and not, as there, by the scanner's beams.

    Args:
        model: the triangulated tracks.
        truth: the true surface, None where unknown.
        views: cameras in the truth's world.
        thresholds, voxel: in the truth's units.
        truth_from_estimate: applied to the points first.
        seed: of the sampling of a mesh.
        depths, region: as in ``evaluate_surface``.

    Raises:
        ValueError: as ``evaluate_surface``.
    """
    surface = None
    if truth is not None:
        surface = evaluate_surface(
            model.xyz,
            truth,
            views,
            thresholds,
            truth_from_estimate,
            SurfaceProtocol(seed=seed, average_voxel=voxel),
            depths=depths,
            region=region,
        )
    length: Float64[np.ndarray, " n"] = model.length
    error = model.error[np.isfinite(model.error) & (model.error >= 0)]
    nan = float("nan")
    return TrackReport(
        len(model.xyz),
        model.observations,
        float(length.mean()) if len(length) else nan,
        float(np.median(length)) if len(length) else nan,
        float((length >= 3).mean()) if len(length) else nan,
        float(error.mean()) if len(error) else nan,
        float(np.median(error)) if len(error) else nan,
        surface,
    )
