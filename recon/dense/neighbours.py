"""Which views help to see the depth of a view."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from recon.core.cameras import PinholeView

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
    n = len(views)
    seen = np.zeros((n, len(points)), bool)
    for i, view in enumerate(views):
        seen[i, np.asarray(observed_point)[np.asarray(observed_photo) == view.photo_id]] = True
    assert len(index_of) == n
    xyz = np.asarray(points, np.float64)
    result: list[tuple[int, ...]] = []
    for i, view in enumerate(views):
        ray_i = xyz - view.center
        far_i = np.linalg.norm(ray_i, axis=1)
        camera = xyz @ view.cam_from_world[:, :3].T + view.cam_from_world[:, 3]
        pixel = camera @ view.K.T
        z = np.maximum(pixel[:, 2], 1e-12)
        cell_x = np.clip(pixel[:, 0] / z / max(view.width, 1) * 8, 0, 7).astype(int)
        cell_y = np.clip(pixel[:, 1] / z / max(view.height, 1) * 8, 0, 7).astype(int)
        scores: list[tuple[float, int, int]] = []
        for j, other in enumerate(views):
            if j == i:
                continue
            both = seen[i] & seen[j]
            shared = int(both.sum())
            if shared == 0:
                continue
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
