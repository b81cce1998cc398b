"""Photos that were turned against each other: SIFT Flow compares upright descriptors, so B is turned upright first.

A quarter turn is ``numpy.rot90``: counter-clockwise as seen. Every function is exact; nothing is resampled.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from recon.core.sampling import pixel_positions
from recon.features.types import InterestPoints
from recon.matching.types import DenseMatch, FlowField, MatchDiagnostics, MatchImage, SparseMatch

MIN_AGREEMENT = 0.5
"""Correlation of the matched positions after the best turn below which nothing is turned."""

MIN_MATCHES = 12
"""Fewer matches than this say nothing about a turn."""


def quarter_turns(
    xy_a: Float[np.ndarray, "n 2"],
    xy_b: Float[np.ndarray, "n 2"],
) -> int:
    """Count the quarter turns that bring B upright as seen from A: 0 to 3, from matched points.

    The angle is that of the similarity that fits the matches best (least squares, closed form in complex numbers).
    Where it explains less than ``MIN_AGREEMENT``, or matches are few, the answer is 0.
    """
    if len(xy_a) < MIN_MATCHES:
        return 0
    a = (xy_a[:, 0] + 1j * xy_a[:, 1]).astype(np.complex128)
    b = (xy_b[:, 0] + 1j * xy_b[:, 1]).astype(np.complex128)
    a, b = a - a.mean(), b - b.mean()
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    product = np.vdot(a, b)
    if size == 0.0 or abs(product) < MIN_AGREEMENT * size:
        return 0
    # y points down, so a positive angle is clockwise as seen, and counter-clockwise turns undo it.
    return round(float(np.angle(product)) / (np.pi / 2)) % 4


def turn_points(
    xy: Float[np.ndarray, "*n 2"], width: int, height: int, turns: int
) -> Float[np.ndarray, "*n 2"]:
    """Move points of a ``width`` x ``height`` image by so many quarter turns."""
    x, y = xy[..., 0], xy[..., 1]
    turned = {
        0: (x, y),
        1: (y, width - 1 - x),
        2: (width - 1 - x, height - 1 - y),
        3: (height - 1 - y, x),
    }[turns % 4]
    return np.stack(turned, axis=-1).astype(xy.dtype)


def turn_image(image: MatchImage, turns: int) -> MatchImage:
    """Turn the image, its mask and its interest points by so many quarter turns."""
    if turns % 4 == 0:
        return image
    height, width = image.rgb.shape[:2]
    points = image.points
    if points is not None:
        points = InterestPoints(
            turn_points(points.xy, width, height, turns),
            points.sigma,
            (points.orientation - np.float32(turns * np.pi / 2)).astype(np.float32),
            points.descriptors,
        )
    return MatchImage(
        np.ascontiguousarray(np.rot90(image.rgb, turns)),
        None if image.mask is None else np.ascontiguousarray(np.rot90(image.mask, turns)),
        points,
    )


def turn_back(match: DenseMatch, turns: int) -> DenseMatch:
    """Compute the match of A and B from that of A and B after ``turns`` quarter turns."""
    if turns % 4 == 0:
        return match
    height, width = match.b_to_a.confidence.shape
    here = pixel_positions(*match.a_to_b.flow.shape[:2])
    target = turn_points(here + match.a_to_b.flow, width, height, -turns)
    a_to_b = FlowField((target - here).astype(np.float32), match.a_to_b.confidence)
    source = np.rot90(pixel_positions(*match.b_to_a.flow.shape[:2]) + match.b_to_a.flow, -turns)
    b_to_a = FlowField(
        np.ascontiguousarray(source - pixel_positions(*source.shape[:2]), dtype=np.float32),
        _back(match.b_to_a.confidence, turns),
    )
    diagnostics = match.diagnostics
    if diagnostics is not None and diagnostics.scale_map_b is not None:
        diagnostics = MatchDiagnostics(
            diagnostics.scale_map_a,
            _back(diagnostics.scale_map_b, turns),
            {**diagnostics.notes, "turns": turns},
        )
    return replace(
        match,
        a_to_b=a_to_b,
        b_to_a=b_to_a,
        consistent_b=_back(match.consistent_b, turns),
        diagnostics=diagnostics,
    )


def turn_matches_back(match: SparseMatch, turns: int, size: tuple[int, int]) -> SparseMatch:
    """Compute the match of A and B from that of A and B after ``turns`` quarter turns.

    ``size`` is (width, height) of B after the turns.
    """
    if turns % 4 == 0:
        return match
    return SparseMatch(match.xy_a, turn_points(match.xy_b, size[0], size[1], -turns), match.score)


def turns_of_seeds(
    a: InterestPoints | None, b: InterestPoints | None, seeds: Int[np.ndarray, "m 2"] | None
) -> int:
    """``quarter_turns`` from matched interest points; 0 where there are none."""
    if a is None or b is None or seeds is None:
        return 0
    return quarter_turns(a.xy[seeds[:, 0]], b.xy[seeds[:, 1]])


def _back(values: np.ndarray, turns: int) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(values, -turns))
