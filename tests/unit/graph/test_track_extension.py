"""Tracks of earlier photos reach a new one where flow leads; observations that were there stay as they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recon.graph.track_extension import (
    carried_into,
    points_by_photo,
    refined_additions,
    renumbered_photos,
    with_more_tracks,
)
from recon.graph.tracks import Flows, build_tracks, select_observations
from recon.graph.types import Tracks
from tests.unit.graph.test_tracks import (
    ALL_PAIRS,
    HEIGHT,
    WIDTH,
    between,
    check_invariants,
    dense_matches,
    grid_anchors,
    photo_set,
)

NEW = 3
OLD_PAIRS = [pair for pair in ALL_PAIRS if NEW not in pair]


def flows(pairs: list[tuple[int, int]]) -> Flows:
    return Flows(dict.fromkeys(range(4), (WIDTH, HEIGHT)), dense_matches(pairs), {}, 5)


def before() -> Tracks:
    """Tracks of three photos."""
    return build_tracks(photo_set(4), dense_matches(OLD_PAIRS), grid_anchors([0, 1, 2]))


def test_tracks_are_carried_into_a_new_photo_and_stay_where_they_were() -> None:
    tracks = before()
    longer, is_new = carried_into(tracks, flows(ALL_PAIRS), [NEW])
    check_invariants(longer)
    assert (longer.photo_id[is_new] == NEW).all()
    assert is_new.sum() > 0.5 * tracks.count
    for name in ("track_id", "photo_id", "xy", "is_reference", "affinity"):
        np.testing.assert_array_equal(getattr(longer, name)[~is_new], getattr(tracks, name))
    assert longer.is_reference is not None
    assert longer.affinity is not None
    reference = np.nonzero(longer.is_reference)[0]
    for row in np.nonzero(is_new)[0]:
        r = reference[longer.track_id[row]]
        M = between(int(longer.photo_id[r]), NEW)
        np.testing.assert_allclose(longer.xy[row], M[:, :2] @ longer.xy[r] + M[:, 2], atol=0.02)
        np.testing.assert_allclose(longer.affinity[row], M[:, :2], atol=0.02)


def test_one_photo_that_is_not_the_reference_is_not_enough() -> None:
    tracks = before()
    assert tracks.is_reference is not None
    longer, is_new = carried_into(tracks, flows([*OLD_PAIRS, (1, NEW)]), [NEW])
    of_one = tracks.track_id[tracks.is_reference & (tracks.photo_id == 1)]
    assert is_new.any()
    assert np.isin(longer.track_id[is_new], of_one).all()


def test_flows_that_contradict_each_other_add_nothing() -> None:
    tracks = before()
    wrong = dense_matches(ALL_PAIRS)
    for pair in ((0, NEW), (1, NEW)):
        match, shift = wrong[pair], np.float32(4.0 if pair[0] else -4.0)
        forth = replace(match.a_to_b, flow=match.a_to_b.flow + shift)
        back = replace(match.b_to_a, flow=match.b_to_a.flow - shift)
        wrong[pair] = replace(match, a_to_b=forth, b_to_a=back)
    longer, is_new = carried_into(
        tracks, Flows(dict.fromkeys(range(4), (WIDTH, HEIGHT)), wrong, {}, 5), [NEW]
    )
    both = np.isin(tracks.track_id, tracks.track_id[tracks.photo_id == 0]) & (tracks.photo_id == 1)
    assert not np.isin(longer.track_id[is_new], tracks.track_id[both]).any()


def test_new_tracks_start_where_none_is() -> None:
    longer, _ = carried_into(before(), flows(ALL_PAIRS), [NEW])
    there = points_by_photo(longer, [NEW])
    anchors = grid_anchors([NEW], step=5)
    started = build_tracks(photo_set(4), dense_matches(ALL_PAIRS), anchors, occupied=there)
    assert started.is_reference is not None
    starts = started.xy[started.is_reference]
    assert 0 < len(starts) < len(anchors[NEW])
    assert np.linalg.norm(starts[:, None] - there[NEW][None], axis=2).min() >= 6.0
    both, is_new = with_more_tracks(longer, started)
    check_invariants(both)
    assert both.count == longer.count + started.count
    assert is_new.sum() == len(started.track_id)


def test_only_new_observations_are_refined_and_those_that_cannot_be_go() -> None:
    longer, is_new = carried_into(before(), flows(ALL_PAIRS), [NEW])
    seen: list[Tracks] = []

    def refine(some: Tracks) -> Tracks:
        """Moves all but references; those of every third track go."""
        assert some.is_reference is not None
        seen.append(some)
        moved = replace(some, xy=some.xy + np.float32(0.25) * ~some.is_reference[:, None])
        return select_observations(moved, (some.track_id % 3 > 0) | some.is_reference)

    found, still_new = refined_additions(longer, is_new, refine)
    (asked,) = seen
    assert len(asked.track_id) == 2 * is_new.sum()  # each with its reference
    went = np.unique(longer.track_id[is_new])[::3]
    keep = ~(is_new & np.isin(longer.track_id, went))
    np.testing.assert_array_equal(found.photo_id, longer.photo_id[keep])
    np.testing.assert_array_equal(found.xy[~still_new], longer.xy[keep & ~is_new])
    np.testing.assert_allclose(found.xy[still_new], longer.xy[keep & is_new] + 0.25)
    assert len(refined_additions(longer, np.zeros(len(is_new), bool), refine)[0].xy) == len(longer.xy)


def test_photos_that_are_gone_take_their_observations_and_short_tracks_with_them() -> None:
    tracks = before()
    found = renumbered_photos(tracks, {1: 2, 2: 0})
    assert set(found.photo_id.tolist()) == {0, 2}
    length = np.bincount(tracks.track_id[tracks.photo_id != 0], minlength=tracks.count)
    assert found.count == (length >= 2).sum()
    mine = np.nonzero((tracks.photo_id == 2) & (length[tracks.track_id] >= 2))[0]
    np.testing.assert_array_equal(found.xy[found.photo_id == 0], tracks.xy[mine])
    assert (np.diff(found.track_id) >= 0).all()
