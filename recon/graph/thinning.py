"""Fewer tracks: where many lie close to each other, the longest speak for all."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from recon.core.kernels import kernel, maximum, minimum
from recon.graph.tracks import select_observations
from recon.graph.types import Tracks


def thin_tracks(tracks: Tracks, radius: float) -> Tracks:
    """The tracks of which no observation lies nearer than ``radius`` to one of a longer track that stays.

    Tracks are taken longest first (ties: the lowest number). So every photo keeps points all over it, but a
    semi-dense matcher, which finds the same surface many times, does not slow the mapping.

    Args:
        radius: pixels at working size; 0 keeps all.
    """
    if radius <= 0 or tracks.count == 0:
        return tracks
    first = np.searchsorted(tracks.track_id, np.arange(tracks.count + 1))
    order = np.argsort(-np.diff(first), kind="stable")
    photos = np.unique(tracks.photo_id, return_inverse=True)[1].reshape(-1)
    low = tracks.xy.min(axis=0)
    cells = ((tracks.xy - low) / radius).astype(np.int64)
    kept = _thin(
        tracks.xy, photos, cells, first, order, float(radius), int(photos.max()) + 1, cells.max(axis=0) + 1
    )
    return select_observations(tracks, kept)


@kernel()
def _thin(
    xy: np.ndarray,
    photo: np.ndarray,
    cell: np.ndarray,
    first: np.ndarray,
    order: np.ndarray,
    radius: float,
    photos: int,
    size: np.ndarray,
) -> Bool[np.ndarray, " n"]:
    """Rows of the tracks that stay; those that do are listed by photo and cell."""
    head = np.full((photos, size[1], size[0]), -1, np.int64)
    following = np.full(len(xy), -1, np.int64)
    kept = np.zeros(len(xy), np.bool_)
    for track in order:
        free = True
        for row in range(first[track], first[track + 1]):
            x, y = cell[row]
            for v in range(maximum(y - 1, 0), minimum(y + 2, size[1])):
                for u in range(maximum(x - 1, 0), minimum(x + 2, size[0])):
                    k = head[photo[row], v, u]
                    while k >= 0 and free:
                        if (xy[k, 0] - xy[row, 0]) ** 2 + (xy[k, 1] - xy[row, 1]) ** 2 < radius * radius:
                            free = False
                        k = following[k]
            if not free:
                break
        if not free:
            continue
        for row in range(first[track], first[track + 1]):
            x, y = cell[row]
            kept[row] = True
            following[row] = head[photo[row], y, x]
            head[photo[row], y, x] = row
    return kept
