"""Choice of the source views for the depth of a view."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, Int

from recon.core.cameras import PinholeView
from recon.dense.planes import projection_of

# Triangulation angle (degrees) that is best for matching, and how fast the benefit falls below and above it
# (Yao et al., MVSNet, ECCV 2018, section 4.1).
_BEST_ANGLE, _FALL_BELOW, _FALL_ABOVE = 8.0, 3.0, 12.0


def select_neighbours(
    views: Sequence[PinholeView],
    points: Float[np.ndarray, "n 3"],
    observed_point: Int[np.ndarray, " m"],
    observed_photo: Int[np.ndarray, " m"],
    *,
    count: int = 6,
    min_shared: int = 10,
) -> list[tuple[int, ...]]:
    """The best source views of every view, best first.

    A shared point counts by its triangulation angle (too narrow says nothing of depth, too wide looks
    different) and by how alike the scales are at which the two views see it; points spread over the image
    count more than a clump, because the sum is taken over cells of an 8x8 grid, each with a square root.

    Args:
        views: posed views; their photo ids name them in ``observed_photo``.
        points: sparse points of the scene.
        observed_point, observed_photo: observation i says that point ``observed_point[i]`` is seen in photo
            ``observed_photo[i]``; photos without a view are ignored.
        count: neighbours at most.
        min_shared: shared points at least; where no view reaches this, the best that share any are taken.

    Returns:
        For every view a tuple of indices into ``views``; empty where it shares no point with any.
    """
    index_of = {view.photo_id: i for i, view in enumerate(views)}
    assert len(index_of) == len(views)
    everything = np.asarray(points, np.float64)
    seen, seers = _observations(index_of, len(points), observed_point, observed_photo)
    result: list[tuple[int, ...]] = []
    for i, view in enumerate(views):
        mine = seen[i]
        xyz = everything[mine]
        ray_i = xyz - view.center
        far_i = np.linalg.norm(ray_i, axis=1)
        camera = xyz @ view.cam_from_world[:, :3].T + view.cam_from_world[:, 3]
        pixel = camera @ view.K.T
        z = np.maximum(pixel[:, 2], 1e-12)
        cell_x = np.clip(pixel[:, 0] / z / max(view.width, 1) * 8, 0, 7).astype(int)
        cell_y = np.clip(pixel[:, 1] / z / max(view.height, 1) * 8, 0, 7).astype(int)
        scores: list[tuple[float, int, int]] = []
        candidates = {j for row in mine.tolist() for j in seers[row]}
        for j in sorted(candidates - {i}):
            other = views[j]
            both = np.isin(mine, seen[j], assume_unique=True)
            shared = int(both.sum())
            ray_j = xyz[both] - other.center
            far_j = np.linalg.norm(ray_j, axis=1)
            cosine = (ray_i[both] * ray_j).sum(1) / np.maximum(far_i[both] * far_j, 1e-20)
            angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
            fall = np.where(angle < _BEST_ANGLE, _FALL_BELOW, _FALL_ABOVE)
            good = np.exp(-((angle - _BEST_ANGLE) ** 2) / (2 * fall**2))
            size_i = view.K[0, 0] / np.maximum(far_i[both], 1e-12)
            size_j = other.K[0, 0] / np.maximum(far_j, 1e-12)
            good *= np.minimum(size_i, size_j) / np.maximum(size_i, size_j)
            cells = np.bincount(cell_y[both] * 8 + cell_x[both], weights=good, minlength=64)
            scores.append((float(np.sqrt(cells).sum()), shared, j))
        scores.sort(key=lambda s: (-s[0], s[2]))
        enough = [j for _, shared, j in scores if shared >= min_shared]
        result.append(tuple((enough or [j for _, _, j in scores])[:count]))
    return result


def _observations(
    index_of: dict[int, int],
    count: int,
    observed_point: Int[np.ndarray, " m"],
    observed_photo: Int[np.ndarray, " m"],
) -> tuple[list[Int[np.ndarray, " k"]], list[set[int]]]:
    """The points that each view sees, ascending and each once, and the views that see each point."""
    rows: list[list[int]] = [[] for _ in index_of]
    seers: list[set[int]] = [set() for _ in range(count)]
    for point, photo in zip(
        np.asarray(observed_point).tolist(), np.asarray(observed_photo).tolist(), strict=True
    ):
        if photo in index_of:
            rows[index_of[photo]].append(point)
            seers[point].add(index_of[photo])
    return [np.unique(np.array(row, np.int64)) for row in rows], seers


_MARGIN_PX = 1.0
"""What a view may see begins this far outside of its photo, for the sake of rounding."""


def views_that_may_see(
    views: Sequence[PinholeView], index: int, depth: Float32[np.ndarray, "h w"]
) -> list[int]:
    """The other views into whose photos a point of this view's depth map can fall, ascending; no such view is missed.

    The points lie in the frustum between the least and the largest depth. A view cannot see them if the eight corners
    of the frustum are all behind it, or all beyond the same side of its photo.
    """
    known = depth[depth > 0]
    if known.size == 0:
        return []
    view = views[index]
    height, width = depth.shape
    pixels = np.array([[x, y, 1.0] for x in (0, width - 1) for y in (0, height - 1)])
    rays = pixels @ np.linalg.inv(view.K).T
    local = np.concatenate([rays * float(known.min()), rays * float(known.max())])
    world = (local - view.cam_from_world[:, 3]) @ view.cam_from_world[:, :3]
    others = [j for j in range(len(views)) if j != index]
    if not others:
        return []
    R = np.stack([views[j].cam_from_world[:, :3] for j in others])
    t = np.stack([views[j].cam_from_world[:, 3] for j in others])
    K = np.stack([views[j].K for j in others])
    w = np.array([views[j].width for j in others])[:, None]
    h = np.array([views[j].height for j in others])[:, None]
    flat = (np.einsum("nij,kj->nki", R, world) + t[:, None]) @ K.transpose(0, 2, 1)
    x, y, z = flat[..., 0], flat[..., 1], flat[..., 2]
    low, edge = -0.5 - _MARGIN_PX, _MARGIN_PX - 0.5
    sides = (z <= 0, x < low * z, y < low * z, x > (w + edge) * z, y > (h + edge) * z)
    never = np.logical_or.reduce([side.all(axis=1) for side in sides])
    return [j for j, out in zip(others, never, strict=True) if not out]


_SAMPLED = 1000
"""Pixels of a depth map, about, by which other views are ranked."""


def views_that_hold_most(
    views: Sequence[PinholeView],
    index: int,
    depth: Float32[np.ndarray, "h w"],
    among: Sequence[int],
    most: int,
) -> list[int]:
    """Those of some views that have most pixels for what a view's depth map holds; all where they are few.

    A point counts in another view by the pixels that it covers there, no more than in the view itself: so the
    neighbours come first, not views from afar, before which something else stands as a rule.

    Args:
        among: ascending, as of ``views_that_may_see``.
        most: views at most.

    Returns:
        Indices of views, ascending.
    """
    if len(among) <= most:
        return list(among)
    step = max(1, round((depth.size / _SAMPLED) ** 0.5))
    some = depth[::step, ::step]
    y, x = np.nonzero(some > 0)
    rays = np.stack([x * step, y * step, np.ones_like(x)]).astype(np.float64)
    inverse, worth = 1.0 / some[y, x].astype(np.float64), np.zeros(len(among))
    for row, j in enumerate(among):
        M, v = projection_of(views[j], views[index])
        px, py, pz = M @ rays + v[:, None] * inverse  # the depth in the other view is pz / inverse
        inside = (pz > 0) & (np.minimum(px, py) >= -0.5 * pz)
        inside &= (px < (views[j].width - 0.5) * pz) & (py < (views[j].height - 0.5) * pz)
        scale = views[j].K[0, 0] / (views[index].K[0, 0] * pz[inside])
        worth[row] = (np.minimum(scale, 1.0) ** 2).sum()
    return sorted(among[row] for row in np.argsort(-worth, kind="stable")[:most])
