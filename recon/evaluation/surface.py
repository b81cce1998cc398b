"""Distances between a reconstructed surface and a known one, judged only where the photos could tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, Int32

from recon.core.cameras import PinholeView
from recon.core.kernels import kernel, minimum
from recon.core.mesh import Mesh
from recon.core.raycasting import cast_view, distance_to, ray_scene
from recon.core.similarity import Similarity3

# Distances at which precision and recall are kept for a plot.
_CURVE = 64
# Pixels: what decides visibility needs no more.
_DEPTH_SIZE = 1024.0
# Pixels: side of the cells in which the density of projected points is measured.
_CELL = 16
# Points per pixel on average, below which the closing of a depth buffer leaves holes where the scan is thin.
_MIN_DENSITY = 1.0

SeenDepth = tuple[PinholeView, Float32[np.ndarray, "h w"]]
"""A camera and the depth that it sees, 0 where there is nothing."""
Region = Callable[[Float[np.ndarray, "n 3"]], Bool[np.ndarray, " n"]]
"""True for points that a benchmark judges."""


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
        behind: share of the estimate that lies behind the truth for every camera, farther than the largest threshold.
        curve: distances from 0 to the largest threshold, with the precision and the recall at each: (64, 3).
        by_view: for each view and threshold, how much of the judged estimate is within it, how much is judged, how much
            of the seen truth is within it, how much is seen; what several views see counts in equal parts for each, so
            that the sums over the views are the totals. Empty without views, where shares are averaged in voxels,
            where points behind the truth count, and where the protocol does without.
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
    behind: float = 0.0
    curve: Float64[np.ndarray, "k 3"] = field(default_factory=lambda: np.zeros((0, 3)))
    by_view: Float64[np.ndarray, "v t 4"] = field(default_factory=lambda: np.zeros((0, 0, 4)))

    @property
    def f_score(self) -> tuple[float, ...]:
        """Harmonic mean of precision and recall at each threshold."""
        return tuple(
            2 * p * r / (p + r) if p + r > 0 else 0.0
            for p, r in zip(self.precision, self.recall, strict=True)
        )

    @property
    def chamfer(self) -> float:
        """Mean of the two mean distances (the "overall" of DTU: Aanæs et al., IJCV 2016)."""
        return 0.5 * (self.accuracy[0] + self.completeness[0])

    def text(self) -> str:
        """The figures for a person to read."""
        lines = [
            f"distance to the truth: mean {self.accuracy[0]:.4g}, median {self.accuracy[1]:.4g}; "
            f"from the truth: mean {self.completeness[0]:.4g}, median {self.completeness[1]:.4g}; "
            f"chamfer {self.chamfer:.4g}",
            f"judged {self.judged} of {self.estimated} points ({100 * self.behind:.1f}% lie behind the truth), "
            f"and {self.seen} of {self.sampled} samples of the truth",
        ]
        for t, p, r, f in zip(self.thresholds, self.precision, self.recall, self.f_score, strict=True):
            lines.append(f"within {t:g}: precision {p:.3f}, recall {r:.3f}, F {f:.3f}")
        return "\n".join(lines)


@dataclass(frozen=True)
class SurfaceProtocol:
    """Sampling and counting of surfaces; benchmarks differ in it.

    Attributes:
        samples: samples of meshes; clouds larger than five times this are thinned evenly at random.
        min_views: cameras that must see a sample of the truth for it to count.
        seed: of the sampling.
        behind: "wrong" counts points behind the truth for every camera that has them in the picture, if none of those
            sees beside the truth: right where the truth is complete and the points are said to come from the photos.
        voxel: thin estimate and truth to the mean of the points in each voxel of this side (Tanks and Temples: half the
            threshold).
        average_voxel: average the shares first within voxels of this side, then over them (ETH3D).
        max_distance: longer distances are left out of the mean and median distances (DTU: 20 mm).
        by_view: count for each view as well, which takes as long as all the rest.
        most_judged: so many points of a cloud at most are measured, drawn evenly at random; the truth is measured
            against all of them.
    """

    samples: int = 400_000
    min_views: int = 2
    seed: int = 0
    behind: Literal["ignored", "wrong"] = "ignored"
    voxel: float | None = None
    average_voxel: float | None = None
    max_distance: float | None = None
    by_view: bool = True
    most_judged: int | None = None


def evaluate_surface(
    estimate: Mesh | Float[np.ndarray, "n 3"],
    truth: Mesh | Float[np.ndarray, "m 3"],
    views: Sequence[PinholeView] = (),
    thresholds: Sequence[float] = (0.01, 0.02, 0.05),
    truth_from_estimate: Similarity3 | None = None,
    protocol: SurfaceProtocol | None = None,
    *,
    region: Region | None = None,
    depths: Sequence[SeenDepth] | None = None,
) -> SurfaceReport:
    """Compare a cloud or a mesh with the true surface.

    With ``views`` only what the photos and the truth together can tell is judged:

    - A sample of the truth counts towards recall if at least ``min_views`` cameras see it.
    - A point of the estimate counts towards precision if some camera sees the truth at its pixel and the point lies on
      it or in front of it (up to the largest threshold behind): a floater in front of the truth is wrong, because the
      camera saw through its place.
    - A point that lies farther behind the truth for every camera, or where no camera sees any truth (sky, ground beyond
      the scan), does not count: the truth says nothing of what is there.

    Precision and recall are those of Knapitsch et al., "Tanks and Temples", TOG 2017. That free space
    between the observer and the surface is known to be empty and all else unknown is the idea of Schöps et al., CVPR
    2017; theirs are the scanner's beams, ours the photos' pixels.

    Args:
        estimate: points, or a mesh (sampled evenly by area).
        truth: mesh (distances to it are exact) or points.
        views: cameras in the truth's world; empty judges everything.
        thresholds: distances in world units.
        truth_from_estimate: applied to the estimate first (``align_cameras``).
        protocol: how both are sampled and counted.
        region: True for points where the truth can judge (the benchmark's own mask); applied to both sides.
        depths: what the views see of the truth (``truth_depths``), where it is at hand from another evaluation.

    Raises:
        ValueError: no thresholds, or the truth is empty.
    """
    limits = tuple(sorted(float(t) for t in thresholds))
    if not limits:
        raise ValueError("at least one threshold is needed")
    how = protocol or SurfaceProtocol()
    found, points = _moved(estimate, truth_from_estimate or Similarity3(1.0, np.eye(3), np.zeros(3)), how)
    known, truth_points = _finite_truth(truth, how)
    if how.voxel is not None:
        truth_points = thin(truth_points, how.voxel)
        if not isinstance(found, Mesh):
            points = thin(points, how.voxel)
    sights: Sequence[SeenDepth] = ()
    if views:
        sights = truth_depths(known, views) if depths is None else depths
    seen, judged, hidden = _what_counts(points, truth_points, sights, limits, how)
    if region is not None:
        seen &= region(truth_points)
        judged &= region(points)
    if how.most_judged is not None and int(judged.sum()) > how.most_judged:
        drawn = np.random.default_rng(how.seed).choice(np.flatnonzero(judged), how.most_judged, replace=False)
        judged = np.zeros(len(points), bool)
        judged[drawn] = True
    to_truth = _distance(points[judged], known)
    to_estimate = _distance(truth_points[seen], found)
    by_view = np.zeros((0, 0, 4))
    if how.by_view and sights and how.average_voxel is None and how.behind == "ignored":
        estimated = _by_view(lambda: in_front(points[judged], sights, limits[-1]), to_truth, limits)
        true = _by_view(lambda: visible(truth_points[seen], sights, 0.25 * limits[0]), to_estimate, limits)
        by_view = np.concatenate([estimated, true], axis=-1)
    shares = np.r_[np.linspace(0.0, limits[-1], _CURVE), limits]
    precision = _shares(to_truth, shares, points[judged], how.average_voxel)
    recall = _shares(to_estimate, shares, truth_points[seen], how.average_voxel)
    return SurfaceReport(
        limits,
        tuple(precision[_CURVE:].tolist()),
        tuple(recall[_CURVE:].tolist()),
        _mean_median(to_truth, how.max_distance),
        _mean_median(to_estimate, how.max_distance),
        int(judged.sum()),
        len(points),
        int(seen.sum()),
        len(truth_points),
        float(hidden.mean()) if len(hidden) else 0.0,
        np.column_stack([shares[:_CURVE], precision[:_CURVE], recall[:_CURVE]]),
        by_view,
    )


def _what_counts(
    points: Float[np.ndarray, "n 3"],
    truth_points: Float[np.ndarray, "m 3"],
    sights: Sequence[SeenDepth],
    limits: Sequence[float],
    how: SurfaceProtocol,
) -> tuple[Bool[np.ndarray, " m"], Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Samples of the truth that count, points of the estimate that do, and points that are hidden behind the truth."""
    if not sights:
        return np.ones(len(truth_points), bool), np.ones(len(points), bool), np.zeros(len(points), bool)
    seen = visible_count(truth_points, sights, 0.25 * limits[0]) >= how.min_views
    judged, hidden = points_to_judge(points, sights, limits[-1])
    return seen, judged | hidden if how.behind == "wrong" else judged, hidden


def _by_view(
    masks: Callable[[], Iterable[Bool[np.ndarray, " n"]]],
    distances: Float64[np.ndarray, " n"],
    limits: Sequence[float],
) -> Float64[np.ndarray, "v t 2"]:
    """For each view and limit, how many points are within it, and how many there are, each divided among its views.

    Args:
        masks: gives, view by view, which points it sees; called twice rather than kept, for scans are large.
    """
    share = 1.0 / np.maximum(sum(mask.astype(np.int32) for mask in masks()), 1)
    within = np.array([distances <= limit for limit in limits])
    return np.array(
        [[(share[one & mask].sum(), share[mask].sum()) for one in within] for mask in masks()], np.float64
    )


def _moved(
    estimate: Mesh | Float[np.ndarray, "n 3"], truth_from_estimate: Similarity3, how: SurfaceProtocol
) -> tuple[Mesh | Float32[np.ndarray, "n 3"], Float32[np.ndarray, "k 3"]]:
    """The estimate in the truth's world, and points of it: samples of a mesh, or the cloud itself."""
    if isinstance(estimate, Mesh):
        mesh = Mesh(truth_from_estimate(estimate.vertices).astype(np.float32), estimate.faces)
        return mesh, sample_mesh(mesh, how.samples, how.seed)
    points = np.asarray(estimate)[:, :3]
    points = points[np.isfinite(points).all(axis=1)]
    if len(points) > 5 * how.samples:
        rng = np.random.default_rng(how.seed)
        points = points[rng.choice(len(points), 5 * how.samples, replace=False)]
    points = truth_from_estimate(points).astype(np.float32)
    return points, points


def _finite_truth(
    truth: Mesh | Float[np.ndarray, "m 3"], how: SurfaceProtocol
) -> tuple[Mesh | Float32[np.ndarray, "m 3"], Float32[np.ndarray, "k 3"]]:
    """The truth without what is not finite, and points of it."""
    mesh = isinstance(truth, Mesh)
    points = (
        sample_mesh(truth, how.samples, how.seed + 1)
        if isinstance(truth, Mesh)
        else np.asarray(truth, np.float32)[:, :3]
    )
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        raise ValueError("the truth is empty")
    return (truth if mesh else points), points


def thin(points: Float[np.ndarray, "n 3"], side: float) -> Float32[np.ndarray, "m 3"]:
    """Compute the mean of the points in each voxel of a grid, in the order of the voxels.

    Args:
        points: in the world.
        side: of the voxels, in world units, above 0.

    Raises:
        ValueError: the side is not above 0.
    """
    if not side > 0:
        raise ValueError(f"the side of a voxel must be above 0, not {side}")
    if not len(points):
        return np.zeros((0, 3), np.float32)
    _, group = _voxels(points, side)
    count = np.bincount(group)
    sums = [np.bincount(group, points[:, axis].astype(np.float64)) / count for axis in range(3)]
    return np.stack(sums, axis=1).astype(np.float32)


def sample_mesh(mesh: Mesh, count: int, seed: int = 0) -> Float32[np.ndarray, "n 3"]:
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
    points: Float[np.ndarray, "n 3"], depths: Sequence[SeenDepth], tolerance: float
) -> Int[np.ndarray, " n"]:
    """Count the views that see each point (``visible``): (n,) int."""
    count = np.zeros(len(points), int)
    for mask in visible(points, depths, tolerance):
        count += mask
    return count


def visible(
    points: Float[np.ndarray, "n 3"], depths: Sequence[SeenDepth], tolerance: float
) -> Iterator[Bool[np.ndarray, " n"]]:
    """Decide, view by view, which points it sees: inside the picture and not behind the surface.

    Args:
        points: in the world.
        depths: cameras and the depth of the surface in each (0 where there is none).
        tolerance: how far behind the surface counts as on it; the surface's own slope within a pixel is added.
    """
    for view, depth in depths:
        z, low, high, inside = _look_up(points, view, depth)
        # Between the nearest and the farthest of the pixels round about: a slanted or jagged surface is not
        # hidden by itself.
        yield (
            inside & (high > 0) & (z <= high + tolerance) & ((z <= low + tolerance) | (high - low < 0.05 * z))
        )


def in_front(
    points: Float[np.ndarray, "n 3"], depths: Sequence[SeenDepth], tolerance: float
) -> Iterator[Bool[np.ndarray, " n"]]:
    """Decide, view by view, which points lie on or in front of the surface; arguments as of ``points_to_judge``."""
    for view, depth in depths:
        z, column, row, inside = _pixels(points, view)
        center = depth[row, column]
        yield inside & (center > 0) & (z <= center + tolerance)


def points_to_judge(
    points: Float[np.ndarray, "n 3"], depths: Sequence[SeenDepth], tolerance: float
) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Decide which points the known surface allows to judge (see ``evaluate_surface``).

    Args:
        points: in the world.
        depths: cameras and the depth of the true surface in each (0 where there is none).
        tolerance: a point this far behind the surface still lies on it.

    Returns:
        Which points lie on or in front of the surface for some camera; and which lie behind it for all that have them
        in the picture, and beside it for none.
    """
    front = np.zeros(len(points), bool)
    behind = np.zeros(len(points), bool)
    beside = np.zeros(len(points), bool)
    for view, depth in depths:
        z, column, row, inside = _pixels(points, view)
        center = depth[row, column]
        covered = inside & (center > 0)
        front |= covered & (z <= center + tolerance)
        behind |= covered & (z > center + tolerance)
        beside |= inside & (center <= 0)
    return front, behind & ~front & ~beside


def truth_depths(truth: Mesh | Float[np.ndarray, "m 3"], views: Sequence[PinholeView]) -> list[SeenDepth]:
    """Compute what each view sees of the truth: ray cast for a mesh, a depth buffer with its holes closed for points.

    Returns:
        For each view the depth (0 where no truth is seen) and the view at that depth's size: at most 1024 px, and for
        points so small that a pixel holds one on average: then the closing, which bridges four pixels, also bridges
        parts that are scanned four times more thinly.
    """
    out = []
    scene = ray_scene(truth) if isinstance(truth, Mesh) else None
    for view in views:
        small = _fit(view, _DEPTH_SIZE)
        if isinstance(truth, Mesh):
            out.append((small, cast_view(scene, small).depth))
        else:
            out.append(_splat(truth, small))
    return out


def _fit(view: PinholeView, size: float) -> PinholeView:
    factor = min(1.0, size / max(view.width, view.height))
    if factor == 1.0:
        return view
    return view.resized(max(1, round(view.width * factor)), max(1, round(view.height * factor)))


def _splat(points: Float[np.ndarray, "m 3"], view: PinholeView) -> SeenDepth:
    """The nearest point of each pixel, with gaps of up to four pixels closed."""
    import cv2

    z, column, row, inside = _pixels(points, view)
    cells = np.unique((row[inside] // _CELL) * (view.width // _CELL + 1) + column[inside] // _CELL)
    density = float(inside.sum()) / max(len(cells) * _CELL**2, 1)
    if 0 < density < _MIN_DENSITY:
        small = _fit(view, max(view.width, view.height) * float(np.sqrt(density / _MIN_DENSITY)))
        if small is not view:
            view = small
            z, column, row, inside = _pixels(points, view)
    flat = np.full(view.width * view.height, np.inf, np.float32)
    np.minimum.at(flat, (row * view.width + column)[inside], z[inside].astype(np.float32))
    grid = flat.reshape(view.height, view.width)
    # Closing (nearest of the neighbours, then back) fills gaps between scan points up to four pixels wide.
    closed = cv2.dilate(cv2.erode(grid, np.ones((5, 5), np.uint8)), np.ones((5, 5), np.uint8))
    return view, np.where(np.isfinite(closed), closed, 0).astype(np.float32)


def _pixels(
    points: Float[np.ndarray, "n 3"], view: PinholeView
) -> tuple[
    Float64[np.ndarray, " n"], Int32[np.ndarray, " n"], Int32[np.ndarray, " n"], Bool[np.ndarray, " n"]
]:
    """Depth, integer pixel (0 where outside) and whether it is in the picture."""
    z, column, row, inside = _project(
        np.ascontiguousarray(points),
        np.ascontiguousarray(view.cam_from_world, np.float64),
        np.ascontiguousarray(view.K, np.float64),
        view.width,
        view.height,
    )
    return z, column, row, inside


@kernel()
def _project(points: Any, pose: Any, K: Any, width: int, height: int) -> Any:
    n = len(points)
    z = np.empty(n, np.float64)
    column = np.zeros(n, np.int32)
    row = np.zeros(n, np.int32)
    inside = np.zeros(n, np.bool_)
    for i in range(n):
        a, b, c = float(points[i, 0]), float(points[i, 1]), float(points[i, 2])
        depth = pose[2, 0] * a + pose[2, 1] * b + pose[2, 2] * c + pose[2, 3]
        z[i] = depth
        if not depth > 1e-9:
            continue
        u = (pose[0, 0] * a + pose[0, 1] * b + pose[0, 2] * c + pose[0, 3]) / depth
        v = (pose[1, 0] * a + pose[1, 1] * b + pose[1, 2] * c + pose[1, 3]) / depth
        x = K[0, 0] * u + K[0, 1] * v + K[0, 2]
        y = K[1, 1] * v + K[1, 2]
        if -0.5 < x < width - 0.5 and -0.5 < y < height - 0.5:
            inside[i] = True
            column[i] = minimum(np.int64(x + 0.5), width - 1)
            row[i] = minimum(np.int64(y + 0.5), height - 1)
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


def _distance(
    points: Float32[np.ndarray, "n 3"], surface: Mesh | Float[np.ndarray, "m 3"]
) -> Float64[np.ndarray, " n"]:
    """Distance from points to a mesh (exact) or to the nearest of other points; infinite if there is none."""
    if not len(points):
        return np.zeros(0)
    if isinstance(surface, Mesh):
        if not len(surface.faces):
            return np.full(len(points), np.inf)
        return distance_to(surface)(points)
    if not len(surface):
        return np.full(len(points), np.inf)
    from scipy.spatial import cKDTree

    # A tree without balancing builds several times faster on scans and answers as well.
    tree = cKDTree(np.asarray(surface, np.float32), balanced_tree=False, compact_nodes=False)
    return np.asarray(tree.query(points, workers=-1)[0], np.float64)


def _voxels(points: Float[np.ndarray, "n 3"], side: float) -> tuple[int, Int[np.ndarray, " n"]]:
    """Number of occupied voxels, and the voxel of each point."""
    cell = np.floor((points - points.min(axis=0)).astype(np.float64) / side).astype(np.int64)
    span = cell.max(axis=0) + 1
    if float(np.prod(span.astype(np.float64))) < 2.0**62:
        keys = (cell[:, 0] * span[1] + cell[:, 1]) * span[2] + cell[:, 2]
        found, group = np.unique(keys, return_inverse=True)
    else:
        found, group = np.unique(cell, axis=0, return_inverse=True)
    return len(found), group.reshape(-1)


def _shares(
    distances: Float64[np.ndarray, " n"],
    limits: Float64[np.ndarray, " k"],
    points: Float[np.ndarray, "n 3"],
    voxel: float | None,
) -> Float64[np.ndarray, " k"]:
    """Share of the distances up to each limit, of all points or first within voxels."""
    if not len(distances):
        return np.zeros(len(limits))
    if voxel is None:
        return np.searchsorted(np.sort(distances), limits, side="right") / len(distances)
    count, group = _voxels(points, voxel)
    # A mean of means is a weighted mean.
    weight = 1.0 / (np.bincount(group, minlength=count)[group] * count)
    order = np.argsort(distances)
    total = np.r_[0.0, np.cumsum(weight[order])]
    return np.minimum(total[np.searchsorted(distances[order], limits, side="right")], 1.0)


def _mean_median(distances: Float64[np.ndarray, " n"], longest: float | None) -> tuple[float, float]:
    if longest is not None:
        distances = distances[distances <= longest]
    if not len(distances):
        return float("nan"), float("nan")
    return float(distances.mean()), float(np.median(distances))
