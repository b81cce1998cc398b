"""Photos taken from distances that differ much, or turned far aside: B is brought near A before dense matching.

Descriptors with a scale per pixel survive a change of scale, but the flow does not: where B shows everything 2.5 times
as large, the flow changes by 1.5 pixels from one pixel to the next, and a smooth flow is what SIFT Flow looks for. So B
is resampled into A's frame by the similarity that the sparse matches agree on; what is left for the flow is nearly
constant. Afterwards both fields are expressed in the photos' own pixels again.

A flow is also looked for within a reach only. Where a camera turned by half its field of view between two photos, what
both show lies beyond that reach, and where windows look alike the flow finds the wrong ones. So B is shifted by what
the sparse matches say. Measured at 400 pixels on a rendered courtyard of equal windows: of 28 pairs shifted by more
than 30% of the width, whose sparse matches are right, the flow of unshifted photos gave the right pose in none.

Images that merely differ in size (the same view, resized) are left as they are: matchers bridge that by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float, Float64, Int

from recon.core.sampling import pixel_positions
from recon.features.types import InterestPoints
from recon.matching.quarter_turns import turn_back, turn_image, turn_matches_back, turn_points, turns_of_seeds
from recon.matching.types import DenseMatch, FlowField, MatchDiagnostics, MatchImage, SparseMatch

MIN_SCALE = 1.5
"""Photos are resampled where their scales differ by this factor or more. SIFT Flow bridges smaller ones by itself."""

MIN_SHIFT = 0.2
"""Photos are shifted where matched points lie apart by this share of the longer side or more. SIFT Flow bridges smaller
shifts by itself; it lost pairs that were shifted by 30%."""

MAX_SCALE = 8.0
"""Beyond, a photo would be a stamp in the other; such an estimate is rather wrong."""

MIN_MATCHES = 12
"""Fewer agreeing matches than this say nothing about a scale."""

INLIER_SHARE = 0.05
"""A match agrees with the similarity within this share of the longer side: the scene is not flat."""


@dataclass(frozen=True)
class Similarity:
    """a = matrix @ (b, 1): from pixels of B to pixels of A."""

    matrix: Float64[np.ndarray, "2 3"]

    @property
    def scale(self) -> float:
        """Pixels of A for one pixel of B."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix[:, :2]))))

    @property
    def angle(self) -> float:
        """Radians, clockwise as seen."""
        return float(np.arctan2(self.matrix[1, 0], self.matrix[0, 0]))

    @property
    def inverse(self) -> Similarity:
        """From pixels of A to pixels of B."""
        back = np.linalg.inv(self.matrix[:, :2])
        return Similarity(np.hstack([back, -back @ self.matrix[:, 2:]]))

    def __call__(self, xy: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        return (xy @ self.matrix[:, :2].T + self.matrix[:, 2]).astype(np.asarray(xy).dtype)


def similarity_of_seeds(
    a: InterestPoints | None,
    b: InterestPoints | None,
    seeds: Int[np.ndarray, "m 2"] | None,
    size_a: tuple[int, int],
    size_b: tuple[int, int],
) -> Similarity | None:
    """Estimate the similarity from B to A that matched points agree on, where B is ``MIN_SCALE`` times nearer or
    farther, or shifted by ``MIN_SHIFT``; a shift alone is one by whole pixels, which resamples nothing.

    Estimated by RANSAC on the matches (OpenCV, always the same for the same matches). None where photos have about the
    same scale and place, where matches are few, or where they do not agree.

    Args:
        size_a, size_b: (width, height) of the images. Their ratio is not counted as a change of scale.
    """
    if a is None or b is None or seeds is None or len(seeds) < MIN_MATCHES:
        return None
    from_b, to_a = b.xy[seeds[:, 1]].astype(np.float64), a.xy[seeds[:, 0]].astype(np.float64)
    cv2.setRNGSeed(0)
    matrix, inliers = cv2.estimateAffinePartial2D(
        from_b,
        to_a,
        method=cv2.RANSAC,
        ransacReprojThreshold=INLIER_SHARE * max(size_a),
        maxIters=2000,
        confidence=0.999,
    )
    if matrix is None or int(inliers.sum()) < max(MIN_MATCHES, len(seeds) // 4):
        return None
    found = Similarity(np.asarray(matrix, np.float64))
    expected = float(np.sqrt(size_a[0] * size_a[1] / (size_b[0] * size_b[1])))
    zoom = max(found.scale, 1e-9) / expected
    change = max(zoom, 1.0 / zoom)
    if change >= MIN_SCALE:
        return found if change <= MAX_SCALE else None
    return _shift(from_b[inliers[:, 0] > 0], to_a[inliers[:, 0] > 0], size_a, size_b)


def _shift(
    from_b: Float[np.ndarray, "n 2"],
    to_a: Float[np.ndarray, "n 2"],
    size_a: tuple[int, int],
    size_b: tuple[int, int],
) -> Similarity | None:
    """The median shift of matched points, B resized to A's size first; None below ``MIN_SHIFT``."""
    factor = 1.0 if size_a == size_b else float(np.sqrt(size_a[0] * size_a[1] / (size_b[0] * size_b[1])))
    shift = np.rint(np.median(to_a - factor * from_b, axis=0))
    if float(np.linalg.norm(shift)) < MIN_SHIFT * max(size_a):
        return None
    return Similarity(np.column_stack([factor * np.eye(2), shift]))


@dataclass(frozen=True)
class Placement:
    """Changes of B before it is matched with A, undone afterwards: quarter turns, then a change of scale.

    Attributes:
        turns: of B, see ``recon.matching.quarter_turns``.
        similarity: from turned B to A; None where B keeps its own frame.
        size_a, size_b: (width, height) of the images as they are.
    """

    turns: int
    similarity: Similarity | None
    size_a: tuple[int, int]
    size_b: tuple[int, int]

    @property
    def turned_size(self) -> tuple[int, int]:
        """(width, height) of B after its turns."""
        return self.size_b[::-1] if self.turns % 2 else self.size_b

    @property
    def target_size(self) -> tuple[int, int]:
        """(width, height) of what A is matched with."""
        return self.turned_size if self.similarity is None else self.size_a

    def place(self, b: MatchImage) -> MatchImage:
        """Make the image that A is matched with."""
        turned = turn_image(b, self.turns)
        return turned if self.similarity is None else align_image(turned, self.similarity, self.size_a)

    def back(self, match: DenseMatch) -> DenseMatch:
        """Return the match of A and B as they are."""
        aligned = match if self.similarity is None else align_back(match, self.similarity, self.turned_size)
        return turn_back(aligned, self.turns)

    def points_back(self, match: SparseMatch) -> SparseMatch:
        """Return the point matches of A and B as they are; only turns are undone, point matchers need no more."""
        return turn_matches_back(match, self.turns, self.turned_size)


def placement(
    a: InterestPoints | None,
    b: InterestPoints | None,
    seeds: Int[np.ndarray, "m 2"] | None,
    size_a: tuple[int, int],
    size_b: tuple[int, int],
    *,
    rescale: bool,
) -> Placement:
    """Choose how B is brought near A, by what the matched interest points say.

    Args:
        size_a, size_b: (width, height) of the images.
        rescale: bring B to A's scale where theirs differ; for dense matchers.
    """
    turns = turns_of_seeds(a, b, seeds)
    upright = Placement(turns, None, size_a, size_b)
    if not rescale or a is None or b is None:
        return upright
    turned = replace(b, xy=turn_points(b.xy, *size_b, turns))
    return replace(upright, similarity=similarity_of_seeds(a, turned, seeds, size_a, upright.turned_size))


def align_image(b: MatchImage, similarity: Similarity, size_a: tuple[int, int]) -> MatchImage:
    """Resample B into A's frame: pixels that B does not show are masked."""
    width, height = size_a
    rgb, matrix = np.ascontiguousarray(b.rgb), similarity.matrix
    if similarity.scale < 1.0:
        # Shrinking needs a blur against aliasing, which warpAffine does not do.
        rgb = cv2.GaussianBlur(rgb, (0, 0), 0.5 * float(np.sqrt(similarity.scale**-2 - 1.0)))
    moved = cv2.warpAffine(
        rgb, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    usable = np.ones(b.rgb.shape[:2], np.uint8) if b.mask is None else b.mask.astype(np.uint8)
    mask = cv2.warpAffine(usable, matrix, (width, height), flags=cv2.INTER_NEAREST) > 0
    points = b.points
    if points is not None:
        points = InterestPoints(
            similarity(points.xy),
            (points.sigma * similarity.scale).astype(np.float32),
            (points.orientation + np.float32(similarity.angle)).astype(np.float32),
            points.descriptors,
        )
    return MatchImage(np.asarray(moved, np.uint8), mask, points)


def align_back(match: DenseMatch, similarity: Similarity, size_b: tuple[int, int]) -> DenseMatch:
    """Compute the match of A and B from that of A and B in A's frame.

    Args:
        size_b: (width, height) of B.
    """
    width, height = size_b
    grid_a = pixel_positions(*match.a_to_b.flow.shape[:2])
    target = similarity.inverse(grid_a + match.a_to_b.flow)
    inside = (
        (target[..., 0] >= 0)
        & (target[..., 1] >= 0)
        & (target[..., 0] <= width - 1)
        & (target[..., 1] <= height - 1)
    )
    a_to_b = FlowField(
        (target - grid_a).astype(np.float32), (match.a_to_b.confidence * inside).astype(np.float32)
    )
    grid_b = pixel_positions(height, width)
    place = similarity(grid_b)
    x, y = np.ascontiguousarray(place[..., 0]), np.ascontiguousarray(place[..., 1])

    def sampled(values: np.ndarray, mode: int) -> np.ndarray:
        return np.asarray(
            cv2.remap(values, x, y, mode, borderMode=cv2.BORDER_CONSTANT, borderValue=0), np.float32
        )

    # The flow is sampled where its neighbours are: at the rim of A's frame the last pixel counts.
    flow = cv2.remap(match.b_to_a.flow, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    b_to_a = FlowField(
        (place + flow - grid_b).astype(np.float32), sampled(match.b_to_a.confidence, cv2.INTER_NEAREST)
    )
    consistent_b = sampled(match.consistent_b.astype(np.uint8), cv2.INTER_NEAREST) > 0
    diagnostics = match.diagnostics
    if diagnostics is not None:
        scale_map_b = diagnostics.scale_map_b
        if scale_map_b is not None:
            scale_map_b = (
                cv2.remap(scale_map_b, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
                / similarity.scale
            ).astype(np.float32)
        diagnostics = MatchDiagnostics(
            diagnostics.scale_map_a, scale_map_b, {**diagnostics.notes, "scale_of_b": similarity.scale}
        )
    return replace(
        match,
        a_to_b=a_to_b,
        b_to_a=b_to_a,
        consistent_a=match.consistent_a & inside,
        consistent_b=consistent_b,
        diagnostics=diagnostics,
    )
