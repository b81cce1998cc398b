"""Geometry and evidence of one pair, from its dense match and from the sparse one, which are not always of one mind.

A dense field is smooth: where a scene repeats itself it locks to the neighbouring bay as a whole, and thousands of its
matches agree on a wrong pose. Interest points are matched one by one, by a ratio test against the second best. Where
the pose from the dense field does not explain the sparse matches, and these agree on a pose of their own, theirs is the
better one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from recon.core.cameras import Intrinsics
from recon.graph.evidence import (
    DENSE_MODEL,
    SPARSE_MODEL,
    chance,
    dense_features,
    epipolar_errors,
    filled_share,
    geometry_signs,
    sparse_agreement,
    sparse_features,
)
from recon.graph.two_view import (
    MIN_CONFIDENCE_ALONE,
    MIN_CONFIDENCE_SUPPORTED,
    MIN_ESSENTIAL_SHARE,
    ModelChoice,
    match_confidence,
    refined_geometry,
    sample_matches,
    verify_pair,
)
from recon.graph.types import TwoViewGeometry
from recon.graph.view_graph import FEW_POINTS, PairEvidence
from recon.matching.types import DenseMatch, SparseMatch

# The dense geometry contradicts the sparse matches where it explains less than this share of those that agree on a
# pose of their own. On 525 pairs of nine sets with truth (four rendered with repeated structure, fountain-P11,
# Herz-Jesus-P8, entry-P10, templeSparseRing, the pale figure) the dense pose was off by more than 5 degrees, or its
# direction by more than 25, in 129; taking the sparse one where this rule says so mended 55 and spoiled 2.
MIN_EXPLAINED = 0.8
# E is preferred where it explains this share of what F does. F bends after what a smooth flow errs alike, which point
# matches do not: of a pale figure whose focal length EXIF tells to 3%, F explained 5% to 8% more of four pairs of
# neighbours, whose matches are right, and 9% or more of most wrong pairs.
DENSE_ESSENTIAL_SHARE = 0.92
# Dense matches that lie this share of the inlier threshold from their epipolar lines count in full when a pose is made
# tighter.
TIGHT = 0.125
# Of pairs whose two geometries contradict each other the sparse one was right in four of five: the most that such a
# pair is trusted before loops are heard.
CONTRADICTED_CHANCE = 0.8


@dataclass(frozen=True)
class VerificationOptions:
    """Thresholds that a pair must pass.

    Attributes:
        samples: dense: matches that the geometry is estimated from.
        min_confidence: dense: smallest mean confidence of the consistent pixels.
        min_confidence_alone: the same for pairs of which the sparse first look found nothing.
        max_error: inlier threshold, pixels at working size.
        min_inliers: of the dense sample. min_sparse_inliers: of sparse matches.
        model: of the geometry, by evidence or forced.
        seed: of the robust estimation.
    """

    samples: int = 3000
    min_confidence: float = MIN_CONFIDENCE_SUPPORTED
    min_confidence_alone: float = MIN_CONFIDENCE_ALONE
    max_error: float = 2.0
    min_inliers: int = 60
    min_sparse_inliers: int = 20
    model: ModelChoice = "evidence"
    seed: int = 0


def verify_sparse_pair(
    match: SparseMatch, cameras: tuple[Intrinsics, Intrinsics], options: VerificationOptions
) -> PairEvidence:
    """Compute geometry, signs and chance of a pair from point matches.

    Args:
        match: in the pixels of the cameras.
        cameras: of both photos.
    """
    geometry = _geometry(match, cameras, options.min_sparse_inliers, options)
    if geometry.model == "none":
        return PairEvidence(geometry, len(match.xy_a))
    signs = geometry_signs(geometry, match, *cameras)
    return PairEvidence(geometry, len(match.xy_a), 0.0, signs, chance(sparse_features(signs), SPARSE_MODEL))


def verify_dense_pair(
    dense: DenseMatch,
    seen: SparseMatch | None,
    fewest_points: int,
    cameras: tuple[Intrinsics, Intrinsics],
    options: VerificationOptions,
) -> PairEvidence:
    """Compute geometry, signs and chance of a pair from its dense match, or from the sparse one that contradicts it.

    Args:
        dense: at any size.
        seen: the verified sparse matches of the pair, in the pixels of the cameras; None without a sparse look.
        fewest_points: interest points of the photo that has fewer.
        cameras: of both photos.
    """
    size_a, size_b = ((camera.width, camera.height) for camera in cameras)
    sample = sample_matches(dense, max_matches=options.samples, size_a=size_a, size_b=size_b)
    share = 0.5 * float(dense.consistent_a.mean() + dense.consistent_b.mean())
    confidence = match_confidence(dense)
    if confidence < (options.min_confidence_alone if seen is None else options.min_confidence):
        nothing = TwoViewGeometry("none", None, None, np.zeros(len(sample.xy_a), bool))
        return PairEvidence(nothing, len(sample.xy_a), share)
    geometry = _geometry(sample, cameras, options.min_inliers, options, DENSE_ESSENTIAL_SHARE)
    if geometry.model == "none":
        return PairEvidence(geometry, len(sample.xy_a), share)
    seen = seen or SparseMatch(
        np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32), np.zeros(0, np.float32)
    )
    # Where photos show few points, few of them agree on some pose by chance.
    least = options.min_inliers if fewest_points < FEW_POINTS else options.min_sparse_inliers
    by_points = _contradicting(geometry, seen, cameras, options, least)
    if by_points is not None:
        signs = geometry_signs(by_points, seen, *cameras)
        likely = min(chance(sparse_features(signs), SPARSE_MODEL), CONTRADICTED_CHANCE)
        return PairEvidence(by_points, len(seen.xy_a), share, signs, likely, by_points=True)
    inside = geometry.inliers
    signs = replace(
        geometry_signs(geometry, sample, *cameras),
        consistent=share,
        filled=min(
            filled_share(sample.xy_a[inside], size_a, dense.consistent_a),
            filled_share(sample.xy_b[inside], size_b, dense.consistent_b),
        ),
        confidence=confidence,
        sparse=len(seen.xy_a),
        matched=len(seen.xy_a) / max(1, fewest_points),
        agreement=sparse_agreement(dense, seen.xy_a, seen.xy_b, size_a, size_b),
        points=fewest_points,
    )
    likely = chance(dense_features(signs), DENSE_MODEL)
    # The signs are those of the pose that most matches fit, as the model of chances was fitted to them.
    tight = refined_geometry(geometry, sample.xy_a, sample.xy_b, *cameras, TIGHT * options.max_error)
    return PairEvidence(tight, len(sample.xy_a), share, signs, likely)


def _geometry(
    match: SparseMatch,
    cameras: tuple[Intrinsics, Intrinsics],
    min_inliers: int,
    options: VerificationOptions,
    essential_share: float = MIN_ESSENTIAL_SHARE,
) -> TwoViewGeometry:
    return verify_pair(
        match.xy_a,
        match.xy_b,
        *cameras,
        max_error_px=options.max_error,
        min_inliers=min_inliers,
        seed=options.seed,
        model=options.model,
        essential_share=essential_share,
    )


def _contradicting(
    geometry: TwoViewGeometry,
    seen: SparseMatch,
    cameras: tuple[Intrinsics, Intrinsics],
    options: VerificationOptions,
    least: int,
) -> TwoViewGeometry | None:
    """The geometry of ``least`` sparse matches and more where the dense one contradicts them, else None."""
    if len(seen.xy_a) < least:
        return None
    errors = epipolar_errors(geometry, seen.xy_a, seen.xy_b, *cameras)
    explained = int((errors <= options.max_error).sum())
    if explained >= MIN_EXPLAINED * len(seen.xy_a):
        return None
    own = _geometry(seen, cameras, least, options)
    return own if own.model != "none" and explained < MIN_EXPLAINED * own.inlier_count else None
