"""Tracks of earlier photos carried on when photos were added or taken away."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float32

from recon.graph.tracks import Flows, PhotoRows, TrackSettings, make_tracks, select_observations
from recon.graph.types import Tracks


def renumbered_photos(tracks: Tracks, now: Mapping[int, int]) -> Tracks:
    """The tracks with other photo ids, without the photos that have none; tracks left with one observation go.

    Args:
        now: new id by old id.
    """
    stays = np.isin(tracks.photo_id, list(now))
    table = np.zeros(int(tracks.photo_id.max(initial=0)) + 1, np.int32)
    for before, after in now.items():
        if before < len(table):
            table[before] = after
    return select_observations(replace(tracks, photo_id=table[tracks.photo_id]), stays)


def carried_into(
    tracks: Tracks, flows: Flows, targets: Collection[int], settings: TrackSettings | None = None
) -> tuple[Tracks, Bool[np.ndarray, " n"]]:
    """Tracks with observations added in photos that have none yet, where flow leads there and back.

    One is added where the flow from the reference leads, or from two observed photos or more, if all that lead there
    agree to ``settings.loop_error``.

    Args:
        tracks: with references and affinities.
        flows: matches between the targets and the photos of the tracks.
        targets: ids of the photos.

    Returns:
        The tracks, and which observations are new.
    """
    settings = settings or TrackSettings()
    assert tracks.affinity is not None
    assert tracks.is_reference is not None
    rows_of = PhotoRows(tracks)
    parts = [(tracks.track_id, tracks.photo_id, tracks.xy, tracks.affinity)]
    for target in sorted(targets):
        found = _predictions(tracks, rows_of, flows, target, settings)
        if found is None:
            continue
        row, moved, composed, pixel = found
        asked, place = np.unique(tracks.track_id[row], return_inverse=True)
        place = place.reshape(-1)
        number = np.bincount(place)
        mean = np.stack([np.bincount(place, moved[:, axis]) for axis in range(2)], axis=1) / number[:, None]
        affinity = np.zeros((len(asked), 2, 2))
        np.add.at(affinity, place, composed)
        spread, led = np.zeros(len(asked)), np.zeros(len(asked), bool)
        np.maximum.at(spread, place, np.linalg.norm(moved - mean[place], axis=1) / pixel)
        led[place[tracks.is_reference[row]]] = True
        agreed = np.nonzero((led | (number >= 2)) & (spread <= settings.loop_error))[0]
        photo = np.full(len(agreed), target, np.int32)
        told = (affinity[agreed] / number[agreed, None, None]).astype(np.float32)
        parts.append((asked[agreed].astype(np.int32), photo, mean[agreed].astype(np.float32), told))
    track, photo, xy, affinities = (np.concatenate(column) for column in zip(*parts, strict=True))
    is_new = np.arange(len(track)) >= len(tracks.track_id)
    reference = np.concatenate([tracks.is_reference, np.zeros(int(is_new.sum()), bool)])
    order = np.lexsort((photo, track))
    return make_tracks(track, photo, xy, reference, affinities), is_new[order]


def _predictions(
    tracks: Tracks, rows_of: PhotoRows, flows: Flows, target: int, settings: TrackSettings
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """Where observations lead to in a photo, and back from: their rows, pixels there, affinities, pixels per matching
    pixel."""
    assert tracks.affinity is not None
    found = []
    for source in flows.neighbours[target]:
        rows = rows_of.of(source)
        if len(rows) == 0:
            continue
        start = np.ascontiguousarray(tracks.xy[rows])
        moved, affinity, valid, pixel = flows.carry(source, target, start)
        back, _, back_valid, back_pixel = flows.carry(target, source, moved)
        valid &= back_valid & (np.linalg.norm(back - start, axis=1) / back_pixel <= settings.loop_error)
        composed = affinity[valid] @ tracks.affinity[rows[valid]]
        found.append((rows[valid], moved[valid], composed, np.full(int(valid.sum()), pixel)))
    if not found:
        return None
    row, there, affinities, pixels = (np.concatenate(column) for column in zip(*found, strict=True))
    return (row, there, affinities, pixels) if len(row) else None


def refined_additions(
    tracks: Tracks, is_new: Bool[np.ndarray, " n"], refine: Callable[[Tracks], Tracks]
) -> tuple[Tracks, Bool[np.ndarray, " n"]]:
    """The tracks with their new observations refined, each against the reference of its track; the others stay.

    Args:
        refine: takes tracks and returns them without the observations that could not be refined, and without the
            tracks of which one observation is left; the position of the reference stays.

    Returns:
        The tracks, and which observations are new.
    """
    assert tracks.is_reference is not None
    assert tracks.affinity is not None
    asked = np.unique(tracks.track_id[is_new])
    if len(asked) == 0:
        return tracks, is_new
    mine = is_new | (tracks.is_reference & np.isin(tracks.track_id, asked))
    rows = np.nonzero(mine)[0]
    part = make_tracks(
        tracks.track_id[rows],
        tracks.photo_id[rows],
        tracks.xy[rows],
        tracks.is_reference[rows],
        tracks.affinity[rows],
    )
    found = refine(part)
    assert found.is_reference is not None
    assert found.affinity is not None
    # Tracks that were not refined have no number in what was found, the others keep their order.
    references, number = zip(_references(part), asked.tolist(), strict=True), []
    for reference in _references(found):
        number.append(next(track for one, track in references if one == reference))
    track = np.array(number, np.int64)[found.track_id] if number else np.zeros(0, np.int64)
    place = {(t, p): k for k, (t, p) in enumerate(zip(track.tolist(), found.photo_id.tolist(), strict=True))}
    xy, affinity = tracks.xy.copy(), tracks.affinity.copy()
    keep = ~is_new
    for row in np.nonzero(is_new)[0].tolist():
        k = place.get((int(tracks.track_id[row]), int(tracks.photo_id[row])))
        if k is not None:
            xy[row], affinity[row], keep[row] = found.xy[k], found.affinity[k], True
    length = np.bincount(tracks.track_id[keep], minlength=tracks.count)
    return (
        select_observations(replace(tracks, xy=xy, affinity=affinity), keep),
        is_new[keep & (length[tracks.track_id] >= 2)],
    )


def _references(tracks: Tracks) -> list[tuple[int, float, float]]:
    """Photo and pixel of the reference of each track."""
    assert tracks.is_reference is not None
    rows = np.nonzero(tracks.is_reference)[0]
    return [
        (photo, x, y)
        for photo, (x, y) in zip(tracks.photo_id[rows].tolist(), tracks.xy[rows].tolist(), strict=True)
    ]


def with_more_tracks(tracks: Tracks, more: Tracks) -> tuple[Tracks, Bool[np.ndarray, " n"]]:
    """Both, the second ones numbered after the first ones; and which observations are of the second."""
    assert tracks.is_reference is not None
    assert tracks.affinity is not None
    if len(more.track_id) == 0:
        return tracks, np.zeros(len(tracks.track_id), bool)
    assert more.is_reference is not None
    assert more.affinity is not None
    both = Tracks(
        np.concatenate([tracks.track_id, more.track_id + np.int32(tracks.count)]),
        np.concatenate([tracks.photo_id, more.photo_id]),
        np.concatenate([tracks.xy, more.xy]),
        np.concatenate([tracks.is_reference, more.is_reference]),
        np.concatenate([tracks.affinity, more.affinity]),
    )
    return both, np.arange(len(both.track_id)) >= len(tracks.track_id)


def points_by_photo(tracks: Tracks, photos: Collection[int]) -> dict[int, Float32[np.ndarray, "n 2"]]:
    """Observations of some photos."""
    return {photo: tracks.xy[tracks.photo_id == photo] for photo in photos}
