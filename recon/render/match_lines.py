"""Point matches of two photos as lines between them."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

_PAPER = (250, 250, 248)
_AGREES = (23, 140, 130)
_DISAGREES = (214, 69, 40)
_GAP = 8
_SHIFT = 3  # OpenCV draws at 1/8 pixel


def match_lines_picture(
    a: UInt8[np.ndarray, "ha wa 3"],
    b: UInt8[np.ndarray, "hb wb 3"],
    xy_a: Float32[np.ndarray, "n 2"],
    xy_b: Float32[np.ndarray, "n 2"],
    agrees: Bool[np.ndarray, " n"] | None = None,
    *,
    lines: int = 150,
) -> UInt8[np.ndarray, "h w 3"]:
    """Both photos beside each other, every match as a dot in both and some of them as lines.

    Matches that agree with the geometry of the pair are green, the others red and drawn first. The lines are spread
    evenly over the first photo, and both kinds have their share of them. Matches without a finite place, as doubtful
    lenses give, are not shown.

    Args:
        agrees: which matches agree; None for all.
        lines: at most so many lines.
    """
    height, left = max(a.shape[0], b.shape[0]), a.shape[1] + _GAP
    picture = np.full((height, left + b.shape[1], 3), _PAPER, np.uint8)
    for image, x in ((a, 0), (b, left)):
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        faded = (0.7 * grey + 0.3 * 255).astype(np.uint8)
        picture[: image.shape[0], x : x + image.shape[1]] = faded[..., None]
    known = np.isfinite(xy_a).all(axis=1) & np.isfinite(xy_b).all(axis=1)
    xy_a, xy_b = xy_a[known], xy_b[known]
    count = len(xy_a)
    if count == 0:
        return picture
    kinds = np.ones(count, bool) if agrees is None else agrees[known]
    start = np.rint(xy_a.astype(np.float64) * 2**_SHIFT).astype(int)
    end = np.rint((xy_b + np.array([left, 0], np.float32)).astype(np.float64) * 2**_SHIFT).astype(int)
    for kind, colour in ((False, _DISAGREES), (True, _AGREES)):
        rows = np.nonzero(kinds == kind)[0]
        for row in rows:
            for x, y in (start[row], end[row]):
                cv2.circle(picture, (int(x), int(y)), 12, colour, -1, cv2.LINE_AA, _SHIFT)
        wanted = round(lines * len(rows) / count)
        for row in rows[_spread(xy_a[rows], wanted)]:
            ends = [(int(x), int(y)) for x, y in (start[row], end[row])]
            cv2.line(picture, ends[0], ends[1], colour, 1, cv2.LINE_AA, _SHIFT)
    return picture


def _spread(xy: Float32[np.ndarray, "n 2"], count: int) -> list[int]:
    """Rows of points, each the farthest from those before it; the first is the one nearest to the middle."""
    if len(xy) == 0 or count < 1:
        return []
    chosen = [int(np.linalg.norm(xy - xy.mean(axis=0), axis=1).argmin())]
    distance = np.linalg.norm(xy - xy[chosen[0]], axis=1)
    while len(chosen) < min(count, len(xy)):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(xy - xy[chosen[-1]], axis=1))
    return chosen
