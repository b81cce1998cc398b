"""Evidence of a pair: the chance that its relative pose is right, from what matching and geometry left behind.

The number of inliers says little: samples are capped, and look-alike windows agree on a pose as well as the same
windows do. What tells them apart is how much of both photos matches at all, how evenly, how tightly, and whether two
independent matchers say the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float64

from recon.core.cameras import Intrinsics
from recon.graph.types import TwoViewGeometry
from recon.matching.types import DenseMatch, SparseMatch

# Side of the grid on which the spread of inliers is counted.
_CELLS = 8
# A dense match agrees with a sparse one when it leads so near to its end, in pixels at matching size.
SAME_PLACE_PX = 4.0
# What stands for signs that a pair cannot have: without intrinsics there is neither E nor an angle.
_USUAL_ESSENTIAL = 0.8
_USUAL_ANGLE = 10.0
# Chances are kept off 0 and 1: nothing that one pair shows is beyond doubt.
_MIN_CHANCE = 0.005
_MAX_CHANCE = 0.995


@dataclass(frozen=True)
class PairSigns:
    """Signs for and against a verified pair; NaN where a sign cannot be had.

    Attributes:
        inliers: matches that agree with the pair's geometry.
        inlier_ratio: their share.
        spread: share of the cells of an 8 x 8 grid that hold inliers, in the photo where it is smaller.
        residual: median distance of the inliers from their epipolar lines or places, pixels.
        angle: median triangulation angle, degrees; NaN without pose.
        essential: 1 where the essential matrix explains the pair, 0 for F and H; NaN where an intrinsic is not known.
        stretch: how much the photos are deformed against each other: spread of the displacements of the inliers as a
            part of the spread of the inliers. Near 0 both were taken from one place, and all should match.
        consistent: dense: share of the pixels of both photos that pass the two-sided check.
        filled: dense: share of the pixels within the hull of the inliers that pass it, in the photo where it is
            smaller. Photos of different things that look alike match in patches, the same thing matches throughout.
        confidence: dense: mean confidence of the consistent pixels.
        sparse: dense: verified sparse matches of the first look.
        matched: dense: their share of the interest points, in the photo that has fewer points.
        agreement: dense: share of them to which the dense match leads; NaN without any.
        points: dense: interest points of the photo that has fewer.
    """

    inliers: int
    inlier_ratio: float
    spread: float
    residual: float
    angle: float
    essential: float
    stretch: float = math.nan
    consistent: float = math.nan
    filled: float = math.nan
    confidence: float = math.nan
    sparse: int = 0
    matched: float = math.nan
    agreement: float = math.nan
    points: float = math.nan


def geometry_signs(
    geometry: TwoViewGeometry, match: SparseMatch, camera_a: Intrinsics, camera_b: Intrinsics
) -> PairSigns:
    """The signs that point matches and their geometry give.

    Args:
        match: what the geometry was estimated from.
        camera_a, camera_b: of the photos, at the size in whose pixels the matches are.
    """
    kept = geometry.inliers
    count = int(kept.sum())
    if geometry.matrix is None or count == 0:
        return PairSigns(count, 0.0, 0.0, math.nan, math.nan, 0.0)
    xy_a, xy_b = match.xy_a[kept], match.xy_b[kept]
    residual = epipolar_errors(geometry, xy_a, xy_b, camera_a, camera_b)
    return PairSigns(
        inliers=count,
        inlier_ratio=count / len(kept),
        spread=min(
            _occupied(xy_a, (camera_a.width, camera_a.height)),
            _occupied(xy_b, (camera_b.width, camera_b.height)),
        ),
        residual=float(np.median(residual)),
        angle=math.degrees(geometry.triangulation_angle),
        # With a guessed focal length F is chosen for right pairs too.
        essential=float(geometry.model == "E") if camera_a.known and camera_b.known else math.nan,
        stretch=_stretch(xy_a, xy_b),
    )


def epipolar_errors(
    geometry: TwoViewGeometry,
    xy_a: Float[np.ndarray, "n 2"],
    xy_b: Float[np.ndarray, "n 2"],
    camera_a: Intrinsics,
    camera_b: Intrinsics,
) -> Float64[np.ndarray, " n"]:
    """Compute distances from the epipolar lines of the relative pose; without a pose, from what the model says.

    Args:
        geometry: with a model.
        xy_a, xy_b: points in the pixels of the cameras.
    """
    assert geometry.matrix is not None
    if geometry.b_from_a is None:
        return transfer_errors(geometry.matrix, xy_a, xy_b, planar=geometry.model == "H")
    x, y, z = geometry.b_from_a[:, 3]
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    matrix = np.linalg.inv(camera_b.K).T @ cross @ geometry.b_from_a[:, :3] @ np.linalg.inv(camera_a.K)
    return transfer_errors(matrix, xy_a, xy_b)


def _stretch(xy_a: Float[np.ndarray, "n 2"], xy_b: Float[np.ndarray, "n 2"]) -> float:
    """Spread of the displacements over the spread of the points; medians, so that few points do not rule it."""
    moved = (xy_b - xy_a).astype(np.float64)
    place = xy_a.astype(np.float64)
    wide = np.median(np.linalg.norm(place - np.median(place, axis=0), axis=1))
    return float(np.median(np.linalg.norm(moved - np.median(moved, axis=0), axis=1)) / max(wide, 1e-9))


def transfer_errors(
    matrix: Float[np.ndarray, "3 3"],
    xy_a: Float[np.ndarray, "n 2"],
    xy_b: Float[np.ndarray, "n 2"],
    *,
    planar: bool = False,
) -> Float64[np.ndarray, " n"]:
    """Sampson distances (Hartley & Zisserman, 2nd ed., eq. 11.9) to a fundamental matrix, or transfer errors in B of a
    homography, in pixels."""
    a = np.column_stack([xy_a, np.ones(len(xy_a))]).astype(np.float64)
    b = np.column_stack([xy_b, np.ones(len(xy_b))]).astype(np.float64)
    mapped = a @ matrix.T
    if planar:
        depth = np.where(np.abs(mapped[:, 2]) > 1e-12, mapped[:, 2], 1e-12)
        return np.asarray(np.linalg.norm(mapped[:, :2] / depth[:, None] - b[:, :2], axis=1))
    back = b @ matrix
    slope = mapped[:, 0] ** 2 + mapped[:, 1] ** 2 + back[:, 0] ** 2 + back[:, 1] ** 2
    return np.asarray(np.abs((b * mapped).sum(axis=1)) / np.sqrt(np.maximum(slope, 1e-300)))


def _occupied(xy: Float[np.ndarray, "n 2"], size: tuple[int, int]) -> float:
    """Share of the cells of the photo's grid that hold a point."""
    cell = np.clip((xy + 0.5) / np.asarray(size) * _CELLS, 0, _CELLS - 1).astype(int)
    return len(np.unique(cell[:, 1] * _CELLS + cell[:, 0])) / _CELLS**2


def filled_share(
    xy: Float[np.ndarray, "n 2"], size: tuple[int, int], consistent: Bool[np.ndarray, "h w"]
) -> float:
    """Share of the pixels within the convex hull of points that are consistent; 0 where the hull has no area.

    Args:
        xy: points in pixels of an image of ``size`` (width, height).
        consistent: at any other size.
    """
    height, width = consistent.shape
    at = (xy + 0.5) * [width / size[0], height / size[1]] - 0.5
    if len(at) < 3:
        return 0.0
    inside = np.zeros(consistent.shape, np.uint8)
    cv2.fillConvexPoly(inside, cv2.convexHull(np.rint(at).astype(np.int32)), (1,))
    area = int(inside.sum())
    return float(consistent[inside > 0].sum()) / area if area else 0.0


def sparse_agreement(
    dense: DenseMatch,
    xy_a: Float[np.ndarray, "n 2"],
    xy_b: Float[np.ndarray, "n 2"],
    size_a: tuple[int, int],
    size_b: tuple[int, int],
) -> float:
    """Share of sparse matches whose end the dense match reaches; NaN without sparse matches.

    Args:
        xy_a, xy_b: matched points in pixels of photos of ``size_a`` and ``size_b`` (width, height).
    """
    if len(xy_a) == 0:
        return math.nan
    height, width = dense.consistent_a.shape
    there = np.array(dense.consistent_b.shape[::-1]) / np.asarray(size_b)
    start = (xy_a + 0.5) * [width / size_a[0], height / size_a[1]] - 0.5
    end = (xy_b + 0.5) * there - 0.5
    pixel = np.clip(np.rint(start).astype(int), 0, [width - 1, height - 1])
    led = start + dense.a_to_b.flow[pixel[:, 1], pixel[:, 0]]
    return float((np.linalg.norm(led - end, axis=1) <= SAME_PLACE_PX).mean())


@dataclass(frozen=True)
class EvidenceModel:
    """Logistic model: log-odds = intercept + sum of weight times feature (see ``features``)."""

    intercept: float
    weights: tuple[float, ...]


# Fitted by benchmarks/pair_evidence.py; see docs/trust.md for the scenes and the calibration.
DENSE_MODEL = EvidenceModel(-2.341, (0.515, 0.411, -0.022, 1.561, 0.0, 4.912, 0.0, 3.398, 1.55, 0.58, 0.648))
# Not fitted: mild enough to drop what has little of everything, and leaves the rest to loops.
SPARSE_MODEL = EvidenceModel(-1.0, (1.0, 1.0, 2.0, 1.0, 1.0, 0.2))


def dense_features(signs: PairSigns) -> Float64[np.ndarray, " k"]:
    """Features of the logistic model for dense matches, each about -3…3; order as ``DENSE_FEATURES``."""
    agreement = 0.5 if math.isnan(signs.agreement) else signs.agreement
    return np.array(
        [
            math.log(max(signs.consistent, 1e-3)),
            _log_odds(signs.inlier_ratio),
            math.log10(max(signs.spread, 0.02)),
            signs.filled,
            signs.confidence,
            -min(_number(signs.residual, 1.0), 1.0),
            math.log10(max(_number(signs.matched, 0.0), 3e-3)),
            agreement,
            _number(signs.essential, _USUAL_ESSENTIAL),
            _log_angle(signs),
            math.log(min(max(_number(signs.stretch, 0.1), 0.01), 2.0)),
        ]
    )


DENSE_FEATURES = (
    "log consistent", "inlier log-odds", "log spread", "filled", "confidence", "-residual", "log matched", "agreement",
    "essential", "log angle", "log stretch",
)  # fmt: skip


def sparse_features(signs: PairSigns) -> Float64[np.ndarray, " k"]:
    """Features of the logistic model for point matches; order as ``SPARSE_FEATURES``."""
    return np.array(
        [
            math.log10(1 + signs.inliers),
            _log_odds(signs.inlier_ratio),
            signs.spread,
            -min(_number(signs.residual, 1.0), 1.0),
            _number(signs.essential, _USUAL_ESSENTIAL),
            _log_angle(signs),
        ]
    )


SPARSE_FEATURES = ("log inliers", "inlier log-odds", "spread", "-residual", "essential", "log angle")


def chance(features: Float[np.ndarray, " k"], model: EvidenceModel) -> float:
    """The chance (0.005…0.995) that a pair with these features has the right relative pose."""
    odds = model.intercept + float(features @ np.asarray(model.weights))
    return float(np.clip(1 / (1 + math.exp(-np.clip(odds, -30, 30))), _MIN_CHANCE, _MAX_CHANCE))


def _log_angle(signs: PairSigns) -> float:
    return min(math.log(max(_number(signs.angle, _USUAL_ANGLE), 0.3)), 2.5)


def _log_odds(share: float) -> float:
    bounded = min(max(share, 0.02), 0.99)
    return math.log(bounded / (1 - bounded))


def _number(value: float, otherwise: float) -> float:
    return value if math.isfinite(value) else otherwise


SIGNS = tuple(field.name for field in fields(PairSigns))
"""Names of the signs, as the view graph keeps them."""
