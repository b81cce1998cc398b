"""True orthophotos: which photos see the surface of a cell, and the colour that they agree on."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int16

from recon.core.kernels import kernel, maximum, minimum
from recon.core.posed import Camera

# Surface that rises above a line of sight by less than this many cells does not hide: steps between cells.
HIDES_CELLS = 1.0
# A photo fades out over this part of its shorter side, so that seams have no step.
BORDER = 0.15
# A photo that looks at the map's plane at a flatter angle than this (sine) shows it too obliquely.
MIN_SINE = 0.25
# Photos of a cell that are blended at most. With five the median stands two that show something that moves.
BLENDED = 5
# The larger, the narrower the seams: weight is quality to this power.
SHARPNESS = 12.0
# A photo whose colour is off by so many grey levels from the median of the others, over a neighbourhood, shows
# something else there; noise and errors of the surface stay below.
MOVES_LEVELS = 18.0
# Side of that neighbourhood in cells.
NEIGHBOURHOOD = 7


@kernel()
def _lines_of_sight(heights, first_row, first_column, camera, top, gsd, free, out):  # type: ignore[no-untyped-def]
    rows, columns = heights.shape
    for r in range(out.shape[0]):
        for c in range(out.shape[1]):
            if not out[r, c]:
                continue
            y, x = first_row + r, first_column + c
            height = heights[y, x]
            away_x, away_y = camera[0] - x, camera[1] - y
            distance = np.sqrt(away_x * away_x + away_y * away_y)
            if distance < 1.0:
                continue
            rise = (camera[2] - height) / distance
            away_x, away_y = away_x / distance, away_y / distance
            last = minimum(distance, (top - height) / maximum(rise, 1e-9))
            step = 1.0
            while step <= last:
                column, row = np.int64(np.round(x + away_x * step)), np.int64(np.round(y + away_y * step))
                if column < 0 or row < 0 or column >= columns or row >= rows:
                    break
                if heights[row, column] > height + rise * step + free * gsd:
                    out[r, c] = False
                    break
                step += 1.0


def sees(
    heights: Float32[np.ndarray, "h w"],
    inner: tuple[int, int, int, int],
    camera: Float64[np.ndarray, "3"],
    top: float,
    gsd: float,
) -> Bool[np.ndarray, "r c"]:
    """Tell which cells of a height field a camera sees over the rest of it.

    Args:
        heights: of the cells and of a margin about them, NaN where unknown.
        inner: first row and column, rows and columns of the cells that are asked about.
        camera: column, row and height of its centre.
        top: the highest height there is.
    """
    row, column, rows, columns = inner
    out = np.isfinite(heights[row : row + rows, column : column + columns])
    out &= heights[row : row + rows, column : column + columns] < camera[2]
    _lines_of_sight(heights, row, column, np.asarray(camera, np.float64), top, gsd, HIDES_CELLS, out)
    return out


def reach_of(camera: Camera) -> float:
    """The largest tangent between the optical axis and a ray of the photo; lens models fold back beyond it."""
    w, h = camera.intrinsics.width - 1, camera.intrinsics.height - 1
    t = np.linspace(0, 1, 9)
    edge = np.concatenate(
        [np.c_[t * w, 0 * t], np.c_[t * w, 0 * t + h], np.c_[0 * t, t * h], np.c_[0 * t + w, t * h]]
    )
    return float(np.linalg.norm(camera.rays(edge)[:, :2], axis=1).max())


def quality(
    camera: Camera, reach: float, points: Float64[np.ndarray, "n 3"]
) -> tuple[Float32[np.ndarray, " n"], Float64[np.ndarray, "n 2"]]:
    """Quality of a photo's view of points of a map, 0 where it does not show them; and their pixels.

    The product of the sine of the angle against the map's plane, cubed (what leans hides and smears), the resolution
    (focal length over distance), and a factor that fades towards the border of the photo.

    Args:
        reach: of the camera (``reach_of``).
        points: in the frame of the map, whose z points to the viewer.
    """
    inside = camera.to_camera(points)
    z = inside[:, 2]
    ahead = z > 1e-9
    tangent = np.linalg.norm(inside[:, :2], axis=1) / np.where(ahead, z, 1.0)
    possible = np.flatnonzero(ahead & (tangent <= 1.02 * reach))
    value = np.zeros(len(points), np.float32)
    pixel = np.full((len(points), 2), -1.0)
    if not len(possible):
        return value, pixel
    xy, _ = camera.project(points[possible])
    width, height = camera.intrinsics.width, camera.intrinsics.height
    edge = np.minimum.reduce([xy[:, 0], xy[:, 1], width - 1 - xy[:, 0], height - 1 - xy[:, 1]])
    fade = np.clip(np.nan_to_num(edge, nan=-1.0) / (BORDER * min(width, height)), 0.0, 1.0)
    away = camera.center - points[possible]
    distance = np.linalg.norm(away, axis=1)
    sine = away[:, 2] / np.maximum(distance, 1e-12)
    focal = float(camera.intrinsics.K[0, 0])
    found = sine**3 * focal / np.maximum(distance, 1e-12) * fade * fade * (3 - 2 * fade)
    value[possible] = np.where(sine >= MIN_SINE, found, 0.0)
    pixel[possible] = xy
    return value, pixel


def better_views(
    slots: Int16[np.ndarray, "v n"], values: Float32[np.ndarray, "v n"], count: int
) -> tuple[Int16[np.ndarray, "k n"], Float32[np.ndarray, "k n"]]:
    """The views with the highest values at each point, best first; -1 and 0 where there are fewer."""
    order = np.argsort(-values, axis=0, kind="stable")[:count]
    best = np.take_along_axis(values, order, axis=0)
    return np.where(best > 0, np.take_along_axis(slots, order, axis=0), -1).astype(np.int16), best


def blend(
    colors: Float32[np.ndarray, "k h w 3"], values: Float32[np.ndarray, "k h w"]
) -> tuple[Float32[np.ndarray, "h w 3"], Int16[np.ndarray, "h w"]]:
    """Blend what photos show of each cell; what contradicts the others over a neighbourhood is left out.

    Args:
        colors: of each slot, exposure levelled. values: their quality, 0 for an empty slot; the first is the best.

    Returns:
        The colour (0 without a photo), and the slot that weighs most (-1 without).
    """
    import cv2

    there = values > 0
    agreed = _median(colors, there)
    off = np.abs(colors - agreed).max(axis=-1)
    weights = np.zeros_like(values)
    judged = there.sum(axis=0) >= 3
    for k in range(len(values)):
        side = (NEIGHBOURHOOD, NEIGHBOURHOOD)
        total = cv2.boxFilter(np.where(there[k], off[k], 0).astype(np.float32), -1, side, normalize=False)
        number = cv2.boxFilter(there[k].astype(np.float32), -1, side, normalize=False)
        moved = np.where(judged, total / np.maximum(number, 1), 0.0)
        trust = np.exp(-0.5 * np.maximum(moved / MOVES_LEVELS, 0.0) ** 4)
        weights[k] = (values[k] / np.maximum(values[0], 1e-20)) ** SHARPNESS * (trust + 1e-6) * there[k]
    total_weight = weights.sum(axis=0)
    out = (colors * weights[..., None]).sum(axis=0) / np.maximum(total_weight, 1e-30)[..., None]
    slot = np.where(total_weight > 0, weights.argmax(axis=0), -1)
    return out.astype(np.float32), slot.astype(np.int16)


def _median(
    colors: Float32[np.ndarray, "k h w 3"], there: Bool[np.ndarray, "k h w"]
) -> Float32[np.ndarray, "h w 3"]:
    """The median over the slots that are there, 0 without any."""
    ordered = np.sort(np.where(there[..., None], colors, np.float32(np.inf)), axis=0)
    count = there.sum(axis=0)[None, ..., None]
    low = np.take_along_axis(ordered, np.maximum((count - 1) // 2, 0), axis=0)[0]
    high = np.take_along_axis(ordered, np.maximum(count // 2, 0).clip(max=len(colors) - 1), axis=0)[0]
    return np.where(count[0] > 0, 0.5 * (low + high), 0).astype(np.float32)
