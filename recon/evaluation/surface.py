"""How far a reconstructed surface is from a known one, judged only where the photos could tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64

from recon.datasets.rendering import MeshData, cast_view, ray_scene, tensor
from recon.evaluation.poses import Similarity
from recon.photos.types import PinholeView


@dataclass(frozen=True)
class SurfaceReport:
    """Errors of a surface against the truth.

    Attributes:
        thresholds: distances in world units, ascending.
        precision: share of the judged estimate that is within each threshold of the truth.
        recall: share of the truth that cameras see that is within each threshold of the estimate.
        accuracy: mean and median distance from the judged estimate to the truth.
        completeness: mean and median distance from the seen truth to the estimate.
        judged, estimated: how many points of the estimate were judged, and how many there were.
        seen, sampled: how many samples of the truth cameras see, and how many there were.
    """

    thresholds: tuple[float, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    accuracy: tuple[float, float]
    completeness: tuple[float, float]
    judged: int
    estimated: int
    seen: int
    sampled: int

    @property
    def f_score(self) -> tuple[float, ...]:
        """Harmonic mean of precision and recall at each threshold."""
        return tuple(
            2 * p * r / (p + r) if p + r > 0 else 0.0
            for p, r in zip(self.precision, self.recall, strict=True)
        )

    @property
    def chamfer(self) -> float:
        """Mean of the two mean distances."""
        return 0.5 * (self.accuracy[0] + self.completeness[0])

    def text(self) -> str:
        """The figures for a person to read."""
        lines = [
            f"distance to the truth: mean {self.accuracy[0]:.4g}, median {self.accuracy[1]:.4g}; "
            f"from the truth: mean {self.completeness[0]:.4g}, median {self.completeness[1]:.4g}"
        ]
        for t, p, r, f in zip(self.thresholds, self.precision, self.recall, self.f_score, strict=True):
            lines.append(f"within {t:g}: precision {p:.3f}, recall {r:.3f}, F {f:.3f}")
        return "\n".join(lines)


def evaluate_surface(
    estimate: MeshData | Float[np.ndarray, "n 3"],
    truth: MeshData | Float[np.ndarray, "m 3"],
    views: Sequence[PinholeView] = (),
    thresholds: Sequence[float] = (0.01, 0.02, 0.05),
    truth_from_estimate: Similarity | None = None,
    samples: int = 400_000,
    min_views: int = 2,
    seed: int = 0,
) -> SurfaceReport:
    """Compare a cloud or a mesh with the true surface.

    With ``views`` only what the photos could show is judged:

    - A sample of the truth counts towards recall if at least ``min_views`` cameras see it.
    - A point of the estimate counts towards precision if some camera sees the truth at its pixel and the
    point
      lies on it or in front of it (by the largest threshold), or if it lies behind the truth for all
      cameras that
      have it in the picture. Points where no camera sees any truth (sky, ground beyond the scan) do not
      count, so
      a true surface that the truth lacks is no error, and a floater in front of the truth is one.

    Precision and recall are those of Knapitsch et al., "Tanks and Temples", 2017, section 3.3; which
    points are judged is our own rule, because rendered truth tells what every pixel sees.

    Args:
        estimate: points, or a mesh (sampled evenly by area).
        truth: mesh (distances to it are exact) or points.
        views: cameras in the truth's world; empty judges everything.
        thresholds: distances in world units.
        truth_from_estimate: applied to the estimate first (``align_cameras``).
        samples: samples of meshes; clouds larger than five times this are thinned evenly at random.
        min_views: cameras that must see a sample of the truth.
        seed: of the sampling.

    Raises:
        ValueError: no thresholds, or the truth is empty.
    """
    limits = tuple(sorted(float(t) for t in thresholds))
    if not limits:
        raise ValueError("at least one threshold is needed")
    rng = np.random.default_rng(seed)
    transform = truth_from_estimate or Similarity(1.0, np.eye(3), np.zeros(3))
    if isinstance(estimate, MeshData):
        moved = transform(estimate.vertices).astype(np.float32)
        estimate = MeshData(moved, estimate.faces)
        points = sample_mesh(estimate, samples, seed)
    else:
        points = transform(np.asarray(estimate)[:, :3]).astype(np.float32)
        points = points[np.isfinite(points).all(axis=1)]
        if len(points) > 5 * samples:
            points = points[rng.choice(len(points), 5 * samples, replace=False)]
    truth_points = (
        sample_mesh(truth, samples, seed + 1)
        if isinstance(truth, MeshData)
        else np.asarray(truth, np.float32)
    )
    if not len(truth_points):
        raise ValueError("the truth is empty")
    seen = np.ones(len(truth_points), bool)
    judged = np.ones(len(points), bool)
    if views:
        scene = ray_scene(truth) if isinstance(truth, MeshData) else None
        depths = [_truth_depth(truth, view, scene) for view in views]
        seen = visible_count(truth_points, views, depths, 0.25 * limits[0]) >= min_views
        judged = judged_points(points, views, depths, limits[-1])
    to_truth = _distance(points[judged], truth)
    to_estimate = _distance(truth_points[seen], estimate if isinstance(estimate, MeshData) else points)
    return SurfaceReport(
        limits,
        tuple(_share(to_truth, t) for t in limits),
        tuple(_share(to_estimate, t) for t in limits),
        _mean_median(to_truth),
        _mean_median(to_estimate),
        int(judged.sum()),
        len(points),
        int(seen.sum()),
        len(truth_points),
    )


def sample_mesh(mesh: MeshData, count: int, seed: int = 0) -> Float32[np.ndarray, "n 3"]:
    """Sample points on a mesh, evenly by area: stratified over the faces' cumulative area, random within a
    face.

    Returns:
        (count, 3) float32; (0, 3) if the mesh has no area.
    """
    a, b, c = (mesh.vertices[mesh.faces[:, i]].astype(np.float64) for i in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    total = float(area.sum())
    if total <= 0 or count < 1:
        return np.zeros((0, 3), np.float32)
    rng = np.random.default_rng(seed)
    at = (np.arange(count) + rng.random(count)) / count * total
    face = np.minimum(np.searchsorted(np.cumsum(area), at), len(area) - 1)
    # Uniform on a triangle: Osada et al., "Shape distributions", 2002, equation 1.
    r1, r2 = np.sqrt(rng.random((count, 1))), rng.random((count, 1))
    return ((1 - r1) * a[face] + r1 * (1 - r2) * b[face] + r1 * r2 * c[face]).astype(np.float32)


def visible_count(
    points: Float[np.ndarray, "n 3"],
    views: Sequence[PinholeView],
    depths: Sequence[Float32[np.ndarray, "h w"]],
    tolerance: float,
) -> np.ndarray:
    """Count the views that see each point: inside the picture and not behind the surface.

    Args:
        points: in the world.
        views, depths: cameras and the depth of the surface in each (0 where there is none).
        tolerance: how far behind the surface counts as on it; the surface's own slope within a pixel is
            added.

    Returns:
        (n,) int.
    """
    count = np.zeros(len(points), int)
    for view, depth in zip(views, depths, strict=True):
        z, low, high, inside = _look_up(points, view, depth)
        # Between the nearest and the farthest of the pixels round about: a slanted or jagged surface is not
        # hidden by itself.
        count += (
            inside & (high > 0) & (z <= high + tolerance) & ((z <= low + tolerance) | (high - low < 0.05 * z))
        )
    return count


def judged_points(
    points: Float[np.ndarray, "n 3"],
    views: Sequence[PinholeView],
    depths: Sequence[Float32[np.ndarray, "h w"]],
    tolerance: float,
) -> Bool[np.ndarray, " n"]:
    """Decide which points the known surface allows to judge (see ``evaluate_surface``).

    Args:
        points: in the world.
        views, depths: cameras and the depth of the true surface in each (0 where there is none).
        tolerance: a point this far behind the surface still lies on it.
    """
    front = np.zeros(len(points), bool)
    behind = np.zeros(len(points), bool)
    beside = np.zeros(len(points), bool)
    for view, depth in zip(views, depths, strict=True):
        z, column, row, inside = _pixels(points, view)
        center = depth[row, column]
        covered = inside & (center > 0)
        front |= covered & (z <= center + tolerance)
        behind |= covered & (z > center + tolerance)
        beside |= inside & (center <= 0)
    return front | (behind & ~beside)


def _pixels(
    points: Float[np.ndarray, "n 3"], view: PinholeView
) -> tuple[Float64[np.ndarray, " n"], np.ndarray, np.ndarray, Bool[np.ndarray, " n"]]:
    """Depth, integer pixel (clipped) and whether it is in the picture."""
    local = np.asarray(points, np.float64) @ view.cam_from_world[:, :3].T + view.cam_from_world[:, 3]
    z = local[:, 2]
    safe = np.where(z > 1e-9, z, 1.0)
    x = (view.K[0, 0] * local[:, 0] + view.K[0, 1] * local[:, 1]) / safe + view.K[0, 2]
    y = view.K[1, 1] * local[:, 1] / safe + view.K[1, 2]
    inside = (z > 1e-9) & (x > -0.5) & (x < view.width - 0.5) & (y > -0.5) & (y < view.height - 0.5)
    column = np.clip(np.rint(np.where(inside, x, 0)).astype(int), 0, view.width - 1)
    row = np.clip(np.rint(np.where(inside, y, 0)).astype(int), 0, view.height - 1)
    return z, column, row, inside


def _look_up(
    points: Float[np.ndarray, "n 3"], view: PinholeView, depth: Float32[np.ndarray, "h w"]
) -> tuple[Float64[np.ndarray, " n"], np.ndarray, np.ndarray, Bool[np.ndarray, " n"]]:
    """Depth of each point, smallest and largest surface depth in the 3x3 pixels round it, whether it is
    inside."""
    import cv2

    z, column, row, inside = _pixels(points, view)
    box = np.ones((3, 3), np.uint8)
    far = np.where(depth > 0, depth, np.inf).astype(np.float32)
    low, high = cv2.erode(far, box), cv2.dilate(depth, box)
    return z, low[row, column], high[row, column], inside


def _truth_depth(
    truth: MeshData | Float[np.ndarray, "m 3"], view: PinholeView, scene: Any | None
) -> Float32[np.ndarray, "h w"]:
    """What a view sees of the truth: ray cast for a mesh; for points a depth buffer with the holes closed."""
    if isinstance(truth, MeshData):
        return cast_view(scene, view).depth
    import cv2

    z, column, row, inside = _pixels(truth, view)
    flat = np.full(view.width * view.height, np.inf, np.float32)
    np.minimum.at(flat, (row * view.width + column)[inside], z[inside].astype(np.float32))
    grid = flat.reshape(view.height, view.width)
    # Closing (nearest of the neighbours, then back) fills gaps between scan points up to four pixels wide.
    closed = cv2.dilate(cv2.erode(grid, np.ones((5, 5), np.uint8)), np.ones((5, 5), np.uint8))
    return np.where(np.isfinite(closed), closed, 0).astype(np.float32)


def _distance(
    points: Float32[np.ndarray, "n 3"], surface: MeshData | Float[np.ndarray, "m 3"]
) -> Float64[np.ndarray, " n"]:
    """Distance from points to a mesh (exact) or to the nearest of other points; infinite if there is none."""
    if not len(points):
        return np.zeros(0)
    if isinstance(surface, MeshData):
        if not len(surface.faces):
            return np.full(len(points), np.inf)
        answer = ray_scene(surface).compute_distance(tensor(np.asarray(points, np.float32)))
        return np.asarray(answer.numpy(), np.float64)
    if not len(surface):
        return np.full(len(points), np.inf)
    from scipy.spatial import cKDTree

    # A tree without balancing builds several times faster on scans and answers as well.
    tree = cKDTree(np.asarray(surface, np.float32), balanced_tree=False, compact_nodes=False)
    return np.asarray(tree.query(points, workers=-1)[0], np.float64)


def _share(distances: Float64[np.ndarray, " n"], limit: float) -> float:
    return float((distances <= limit).mean()) if len(distances) else 0.0


def _mean_median(distances: Float64[np.ndarray, " n"]) -> tuple[float, float]:
    if not len(distances):
        return float("nan"), float("nan")
    return float(distances.mean()), float(np.median(distances))
