"""Accuracy of the matches of a pair, against known cameras and known depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64

from recon.core.cameras import Intrinsics, PinholeView, fundamental_matrix
from recon.matching.types import SparseMatch

PIXELS = (1.0, 3.0, 5.0)
"""Pixels: thresholds of the matching precision."""
GRID = 32
"""Cells along the longer side of an image, for the coverage."""
_SMOOTH = 0.02
# Between pixels whose depths differ by more than this share there is an edge: no depth is made up there.
_HIDDEN = 0.01
# A point this share farther than what the other camera sees is hidden from it.


@dataclass(frozen=True)
class MatchReport:
    """Quality of the matches of one pair.

    Attributes:
        count: number of matches.
        precision: share of the matches whose symmetric epipolar distance is at most each threshold (pixels);
            0 without matches.
        median_epipolar: median symmetric epipolar distance in pixels, NaN without matches.
        coverage: share of the cells of a grid over each image that hold a match, mean of both images.
        correct_coverage: the same of the matches within the second threshold.
        endpoint_median, endpoint_mean: pixels, over the matches whose depth is known and which both cameras see; NaN
            where none is.
        endpoint_within: share of those within each threshold.
        judged: share of the matches that have an endpoint error.
        impossible: share of the matches with known depth that lie on what the other camera cannot see.
    """

    count: int
    precision: Mapping[float, float]
    median_epipolar: float
    coverage: float
    correct_coverage: float
    endpoint_median: float = float("nan")
    endpoint_mean: float = float("nan")
    endpoint_within: Mapping[float, float] = field(default_factory=dict)
    judged: float = 0.0
    impossible: float = float("nan")

    def text(self) -> str:
        """The figures for a person to read."""
        shares = ", ".join(
            f"{100 * share:.1f}% within {limit:g} px" for limit, share in self.precision.items()
        )
        line = (
            f"{self.count} matches; epipolar error {shares}, median {self.median_epipolar:.3g} px; "
            f"coverage {100 * self.coverage:.1f}%, of the correct ones {100 * self.correct_coverage:.1f}%"
        )
        if self.judged > 0:
            line += (
                f"; endpoint error median {self.endpoint_median:.3g} px ({100 * self.judged:.0f}% judged, "
                f"{100 * self.impossible:.1f}% on what the other camera cannot see)"
            )
        return line


def without_distortion(
    match: SparseMatch, cameras: Sequence[Intrinsics | None], views: tuple[PinholeView, PinholeView]
) -> SparseMatch:
    """Move matches from distorted photos to pinhole views.

    Args:
        match: in the pixels of the photos.
        cameras: of both photos, at the size of the views; None where there is no distortion.
        views: pinhole cameras of both.

    Returns:
        The match in the pixels of the views; the very same object where neither photo has distortion.
    """
    if all(camera is None or camera.is_pinhole for camera in cameras):
        return match
    from recon.core.undistort import undistort_points

    a, b = (
        xy if camera is None else undistort_points(xy, camera, view.K).astype(np.float32)
        for xy, camera, view in zip((match.xy_a, match.xy_b), cameras, views, strict=True)
    )
    return SparseMatch(a, b, match.score)


def epipolar_distances(
    xy_a: Float[np.ndarray, "n 2"], xy_b: Float[np.ndarray, "n 2"], F: Float[np.ndarray, "3 3"]
) -> Float64[np.ndarray, " n"]:
    """Compute the symmetric epipolar distance of matches in pixels: sqrt((d_a² + d_b²) / 2), where d_a is the
    distance of x_a from the epipolar line of x_b and d_b that of x_b from the line of x_a.

    The squared distances are those of Hartley & Zisserman 2004, equation 11.10, which sums them; the root of their
    mean is a length in pixels that equals the offset when both points are off by as much. A point on its epipole has
    no line: the distance is infinite there, as it is for a match that is not finite.
    """
    a = np.column_stack([np.asarray(xy_a, np.float64), np.ones(len(xy_a))])
    b = np.column_stack([np.asarray(xy_b, np.float64), np.ones(len(xy_b))])
    line_b, line_a = a @ F.T, b @ F
    residual = (b * line_b).sum(axis=1) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        squared = (
            residual * 0.5 * (1 / (line_b[:, :2] ** 2).sum(axis=1) + 1 / (line_a[:, :2] ** 2).sum(axis=1))
        )
    return np.where(np.isfinite(squared), np.sqrt(np.abs(squared)), np.inf)


def endpoint_errors_from_depth(
    xy_a: Float[np.ndarray, "n 2"],
    xy_b: Float[np.ndarray, "n 2"],
    a: PinholeView,
    b: PinholeView,
    depth_a: Float32[np.ndarray, "h w"],
    depth_b: Float32[np.ndarray, "h w"] | None = None,
) -> tuple[Float64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Compute how far each match's point in B is from where the known depth of A puts it.

    Depth is interpolated between the four pixels round the point, if all four are known and within 2% of one another
    (edges have no depth of their own). A point is hidden if it falls outside B, or lies more than 1% behind what B's
    depth says.

    Args:
        xy_a, xy_b: matches in the pixels of ``a`` and ``b``.
        a, b: known cameras.
        depth_a, depth_b: z-depth at the size of the views, 0 where unknown; without ``depth_b`` only what falls outside
            B is hidden.

    Returns:
        Errors in pixels of B, NaN where they cannot be judged (unknown depth, or hidden); and where the point is
        hidden from B although its depth is known.
    """
    xy = np.asarray(xy_a, np.float64)
    z, known = _interpolate_depth(depth_a, xy)
    rays = np.column_stack([xy, np.ones(len(xy))]) @ np.linalg.inv(a.K).T
    world = (rays * z[:, None] - a.cam_from_world[:, 3]) @ a.cam_from_world[:, :3]
    local = world @ b.cam_from_world[:, :3].T + b.cam_from_world[:, 3]
    front = local[:, 2] > 1e-9
    image = local @ b.K.T
    there = image[:, :2] / np.where(front, image[:, 2], 1.0)[:, None]
    inside = (
        front
        & (there[:, 0] > -0.5)
        & (there[:, 0] < b.width - 0.5)
        & (there[:, 1] > -0.5)
        & (there[:, 1] < b.height - 0.5)
    )
    hidden = known & ~inside
    if depth_b is not None:
        column = np.clip(np.rint(np.where(inside, there[:, 0], 0)), 0, b.width - 1).astype(int)
        row = np.clip(np.rint(np.where(inside, there[:, 1], 0)), 0, b.height - 1).astype(int)
        seen = depth_b[row, column]
        hidden |= known & inside & (seen > 0) & (local[:, 2] > seen * (1 + _HIDDEN))
    error = np.linalg.norm(there - np.asarray(xy_b, np.float64), axis=1)
    return np.where(known & ~hidden, error, np.nan), hidden


def grid_coverage(xy: Float[np.ndarray, "n 2"], width: int, height: int, cells: int = GRID) -> float:
    """Compute the share of the cells of a grid over an image that hold at least one point.

    Args:
        xy: points in pixels; those outside the image do not count.
        width, height: of the image.
        cells: square cells along the longer side; the other side has as many as fit, at least one.
    """
    side = max(width, height) / cells
    columns, rows = max(1, round(width / side)), max(1, round(height / side))
    points = np.asarray(xy, np.float64)
    column = np.floor((points[:, 0] + 0.5) / width * columns)
    row = np.floor((points[:, 1] + 0.5) / height * rows)
    inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    return len(np.unique(row[inside] * columns + column[inside])) / (columns * rows)


def evaluate_matches(
    match: SparseMatch,
    a: PinholeView,
    b: PinholeView,
    *,
    count: int | None = None,
    thresholds: Sequence[float] = PIXELS,
    depth_a: Float32[np.ndarray, "h w"] | None = None,
    depth_b: Float32[np.ndarray, "h w"] | None = None,
) -> MatchReport:
    """Compare the matches of a pair with its known cameras.

    Precision at an epipolar error is the measure of Sarlin et al., SuperGlue, CVPR 2020, section 5.2, but in pixels
    instead of normalised coordinates; the endpoint error follows from known depth as in Sun et al., LoFTR, CVPR 2021,
    section 3.5.

    Args:
        match: in the pixels of the views.
        a, b: known cameras at the size that the matches are in.
        count: how many matches there were, where ``match`` is a sample.
        thresholds: pixels, ascending; ``correct_coverage`` takes the second (or the only) one.
        depth_a, depth_b: known z-depth at the views' size.
    """
    limits = tuple(thresholds)
    number = len(match.xy_a) if count is None else count
    distance = epipolar_distances(match.xy_a, match.xy_b, fundamental_matrix(a, b))
    correct = distance <= limits[min(1, len(limits) - 1)]

    def coverage(keep: Bool[np.ndarray, " n"]) -> float:
        return 0.5 * (
            grid_coverage(match.xy_a[keep], a.width, a.height)
            + grid_coverage(match.xy_b[keep], b.width, b.height)
        )

    report = MatchReport(
        number,
        {t: float((distance <= t).mean()) if len(distance) else 0.0 for t in limits},
        float(np.median(distance)) if len(distance) else float("nan"),
        coverage(np.ones(len(distance), bool)),
        coverage(correct),
    )
    if depth_a is None or not len(distance):
        return report
    errors, hidden = endpoint_errors_from_depth(match.xy_a, match.xy_b, a, b, depth_a, depth_b)
    judged = np.isfinite(errors)
    known = judged | hidden
    found = errors[judged]
    return MatchReport(
        report.count,
        report.precision,
        report.median_epipolar,
        report.coverage,
        report.correct_coverage,
        float(np.median(found)) if len(found) else float("nan"),
        float(found.mean()) if len(found) else float("nan"),
        {t: float((found <= t).mean()) if len(found) else float("nan") for t in limits},
        float(judged.mean()),
        float(hidden.sum() / known.sum()) if known.any() else float("nan"),
    )


def match_repeatability(
    matches: Sequence[SparseMatch], radius: float = 1.0, *, samples: int = 5_000, seed: int = 0
) -> float:
    """Compute how much of a pair's matches comes again when only the seed differs.

    A match of one run comes again in another run that has a match whose two ends are both within ``radius`` pixels of
    its own. The share is averaged over all ordered pairs of runs, so that neither many nor few matches help.

    Args:
        matches: the same pair, one for each seed.
        radius: pixels.
        samples: of more matches a seeded sample is looked for among all of the other run.
        seed: of the sample.

    Returns:
        0…1; NaN for fewer than two runs, or where no run has a match.
    """
    from scipy.spatial import cKDTree

    both = [np.column_stack([m.xy_a, m.xy_b]).astype(np.float64) for m in matches]
    trees = [cKDTree(points) if len(points) else None for points in both]
    shares = []
    rng = np.random.default_rng(seed)
    for i, points in enumerate(both):
        if len(points) > samples:
            points = points[rng.choice(len(points), samples, replace=False)]
        for j, tree in enumerate(trees):
            if i == j or not len(points):
                continue
            shares.append(0.0 if tree is None else _share_found(points, both[j], tree, radius))
    return float(np.mean(shares)) if shares else float("nan")


def _share_found(
    points: Float64[np.ndarray, "n 4"], others: Float64[np.ndarray, "m 4"], tree: object, radius: float
) -> float:
    """Share of the points with a neighbour that is within the radius at both ends."""
    # Both ends within r are within r·sqrt(2) in four dimensions; the nearest of those few is looked at by its ends.
    query = getattr(tree, "query")  # noqa: B009 - scipy carries no types
    near = query(points, k=min(8, len(others)), distance_upper_bound=radius * np.sqrt(2) + 1e-9)[1]
    near = near.reshape(len(points), -1)
    real = near < len(others)
    difference = points[:, None] - others[np.where(real, near, 0)]
    ends = np.linalg.norm(difference.reshape(*near.shape, 2, 2), axis=-1).max(axis=-1)
    return float((real & (ends <= radius)).any(axis=1).mean())


def _interpolate_depth(
    depth: Float32[np.ndarray, "h w"], xy: Float64[np.ndarray, "n 2"]
) -> tuple[Float64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Depth between the four pixels round each point, and where it can be had."""
    height, width = depth.shape
    finite = np.isfinite(xy).all(axis=1)
    inside = finite & (xy >= 0).all(axis=1) & (xy[:, 0] <= width - 1) & (xy[:, 1] <= height - 1)
    safe = np.where(inside[:, None], xy, 0.0)
    x0 = np.clip(np.floor(safe[:, 0]).astype(int), 0, max(width - 2, 0))
    y0 = np.clip(np.floor(safe[:, 1]).astype(int), 0, max(height - 2, 0))
    x1, y1 = np.minimum(x0 + 1, width - 1), np.minimum(y0 + 1, height - 1)
    wx, wy = safe[:, 0] - x0, safe[:, 1] - y0
    four = np.stack([depth[y0, x0], depth[y0, x1], depth[y1, x0], depth[y1, x1]], axis=1).astype(np.float64)
    four = np.where(np.isfinite(four), four, 0.0)
    smooth = (four > 0).all(axis=1) & (np.ptp(four, axis=1) <= _SMOOTH * four.min(axis=1))
    # On a plane n·X = d the pixel's ray r gives 1/z = n·r/d, which is linear over the image; z itself is not.
    inverse = 1 / np.where(four > 0, four, 1.0)
    weights = np.stack([(1 - wx) * (1 - wy), wx * (1 - wy), (1 - wx) * wy, wx * wy], axis=1)
    return 1 / (weights * inverse).sum(axis=1), inside & smooth
