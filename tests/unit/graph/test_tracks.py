"""Tracks: exact transport on known flows, conflicts, and properties that every track set must have."""

from __future__ import annotations

import itertools

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon.core.cameras import Intrinsics
from recon.graph.tracks import (
    PhotoRows,
    TrackSettings,
    build_tracks,
    make_tracks,
    select_observations,
    track_matches,
    tracks_from_sparse,
    transport,
)
from recon.graph.types import Tracks
from recon.matching.types import DenseMatch, FlowField, SparseMatch
from recon.photos.types import Photo, PhotoSet

WIDTH, HEIGHT = 120, 90
# Photo i sees the plane point p at MAPS[i] @ (p, 1): rotations, scales and shears that keep most of the view.
MAPS = [
    np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
    np.array([[0.98, 0.06, 3.3], [-0.05, 1.02, -2.1]]),
    np.array([[1.05, -0.04, -4.2], [0.03, 0.97, 1.7]]),
    np.array([[0.95, 0.10, 2.6], [-0.08, 0.93, 4.4]]),
]


def photo_set(n: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> PhotoSet:
    width, height = size
    camera = Intrinsics("PINHOLE", (100.0, 100.0, 31.5, 23.5), width, height, known=True)
    return PhotoSet(
        tuple(Photo(i, f"{i}.jpg", "", width, height, width, height, 0) for i in range(n)), (camera,)
    )


def between(a: int, b: int) -> np.ndarray:
    """The exact map from photo a to photo b, 2x3."""
    A = np.linalg.inv(np.vstack([MAPS[a], [0, 0, 1]]))
    return (np.vstack([MAPS[b], [0, 0, 1]]) @ A)[:2]


def field(a: int, b: int) -> tuple[FlowField, np.ndarray]:
    xs, ys = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    M = between(a, b)
    p = np.stack([xs, ys], axis=-1)
    moved = p @ M[:, :2].T + M[:, 2]
    inside = (moved >= 4).all(-1) & (moved[..., 0] < WIDTH - 4) & (moved[..., 1] < HEIGHT - 4)
    return FlowField((moved - p).astype(np.float32), np.ones((HEIGHT, WIDTH), np.float32)), inside


def dense_matches(pairs: list[tuple[int, int]]) -> dict[tuple[int, int], DenseMatch]:
    matches = {}
    for a, b in pairs:
        (ab, ia), (ba, ib) = field(a, b), field(b, a)
        matches[a, b] = DenseMatch(ab, ba, ia, ib)
    return matches


def grid_anchors(photos: list[int], step: int = 11) -> dict[int, np.ndarray]:
    xs, ys = np.meshgrid(np.arange(8, WIDTH - 8, step), np.arange(8, HEIGHT - 8, step))
    return {photo: np.stack([xs.ravel(), ys.ravel()], axis=1).astype(np.float32) for photo in photos}


ALL_PAIRS = list(itertools.combinations(range(4), 2))


def check_invariants(tracks: Tracks, min_length: int = 2) -> None:
    assert (np.diff(tracks.track_id) >= 0).all()
    assert len(np.unique(np.column_stack([tracks.track_id, tracks.photo_id]), axis=0)) == len(tracks.track_id)
    if len(tracks.track_id):
        assert np.bincount(tracks.track_id).min() >= min_length
    if tracks.is_reference is not None and len(tracks.track_id):
        assert (np.bincount(tracks.track_id, tracks.is_reference) == 1).all()


def test_observations_and_affinities_are_exact_on_a_plane() -> None:
    tracks = build_tracks(photo_set(4), dense_matches(ALL_PAIRS), grid_anchors([0, 1, 2, 3]))
    check_invariants(tracks)
    assert tracks.count > 60
    assert len(tracks.track_id) / tracks.count > 3
    assert tracks.is_reference is not None
    assert tracks.affinity is not None
    rows = np.nonzero(tracks.is_reference)[0]
    reference = np.empty(tracks.count, int)
    reference[tracks.track_id[rows]] = rows
    for i in range(len(tracks.track_id)):
        r = reference[tracks.track_id[i]]
        M = between(int(tracks.photo_id[r]), int(tracks.photo_id[i]))
        np.testing.assert_allclose(tracks.xy[i], M[:, :2] @ tracks.xy[r] + M[:, 2], atol=5e-3)
        # The fit's small ridge pulls affinities towards the identity by under a percent, and with a window
        # cut off by the border, positions by thousandths of a pixel.
        np.testing.assert_allclose(tracks.affinity[i], M[:, :2], atol=5e-3)


def test_working_size_and_matching_size_may_differ() -> None:
    wide = photo_set(2, (2 * WIDTH, 3 * HEIGHT))
    anchors = {0: np.array([[100.0, 130.0], [60.5, 90.25]], np.float32)}
    tracks = build_tracks(wide, dense_matches([(0, 1)]), anchors)
    factors = np.array([2.0, 3.0])
    M = between(0, 1)
    assert tracks.count == 2
    for point in anchors[0]:
        at_match = (point + 0.5) / factors - 0.5
        expected = (M[:, :2] @ at_match + M[:, 2] + 0.5) * factors - 0.5
        found = tracks.xy[tracks.photo_id == 1]
        assert np.linalg.norm(found - expected, axis=1).min() < 5e-3
    assert tracks.affinity is not None
    np.testing.assert_allclose(
        tracks.affinity[tracks.photo_id == 1][0], M[:, :2] * factors[:, None] / factors[None], atol=2e-2
    )


def test_result_does_not_depend_on_the_order_of_the_input() -> None:
    matches = dense_matches(ALL_PAIRS)
    anchors = grid_anchors([0, 1, 2, 3])
    one = build_tracks(photo_set(4), matches, anchors)
    two = build_tracks(
        photo_set(4), dict(reversed(list(matches.items()))), dict(reversed(list(anchors.items())))
    )
    for name in ("track_id", "photo_id", "xy", "is_reference", "affinity"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_points_are_not_tracked_twice() -> None:
    settings = TrackSettings(suppression=8.0, extend=False)
    # Every photo offers the anchors of photo 0 carried by the exact maps: the same points, four times.
    anchors = grid_anchors([0], step=13)
    for photo in (1, 2, 3):
        M = between(0, photo)
        anchors[photo] = (anchors[0] @ M[:, :2].T + M[:, 2]).astype(np.float32)
    tracks = build_tracks(photo_set(4), dense_matches(ALL_PAIRS), anchors, settings)
    # Where the rim of a photo keeps flows apart a point may come twice; four times would be 192.
    assert tracks.count <= 1.1 * len(anchors[0])
    assert tracks.is_reference is not None
    for row in np.nonzero(tracks.is_reference)[0]:
        others = tracks.photo_id == tracks.photo_id[row]
        others[row] = False
        distance = np.linalg.norm(tracks.xy[others] - tracks.xy[row], axis=1)
        assert distance.min(initial=np.inf) > 1.0


def test_a_flow_that_contradicts_the_others_loses_its_observations() -> None:
    matches = dense_matches(ALL_PAIRS)
    good = matches[0, 3]
    shifted = FlowField(good.a_to_b.flow + np.float32(9.0), good.a_to_b.confidence)
    matches[0, 3] = DenseMatch(shifted, good.b_to_a, good.consistent_a, good.consistent_b)
    tracks = build_tracks(photo_set(4), matches, grid_anchors([0]), TrackSettings(extend=False))
    check_invariants(tracks)
    in_three = tracks.photo_id == 3
    # Photos 1 and 2 outvote the wrong flow wherever they see the point; alone it stands unopposed.
    confirmed = np.isin(tracks.track_id, np.unique(tracks.track_id[np.isin(tracks.photo_id, [1, 2])]))
    both = np.bincount(tracks.track_id[np.isin(tracks.photo_id, [1, 2])], minlength=tracks.count) == 2
    assert not (in_three & both[tracks.track_id]).any()
    assert confirmed.any()
    # Extended, the point comes back in photo 3, where it belongs, led there by photos 1 and 2.
    extended = build_tracks(photo_set(4), matches, grid_anchors([0]), TrackSettings(extend=True))
    length = np.bincount(extended.track_id)
    rows = np.nonzero((extended.photo_id == 3) & (length[extended.track_id] == 4))[0]
    assert len(rows) > 10
    M = between(0, 3)
    for row in rows:
        start = extended.xy[(extended.track_id == extended.track_id[row]) & (extended.photo_id == 0)][0]
        np.testing.assert_allclose(extended.xy[row], M[:, :2] @ start + M[:, 2], atol=5e-3)


def test_tracks_reach_photos_that_the_reference_does_not_see() -> None:
    pairs = [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)]
    tracks = build_tracks(photo_set(4), dense_matches(pairs), grid_anchors([0]))
    rows = np.nonzero(tracks.photo_id == 3)[0]
    assert len(rows) > 20
    M = between(0, 3)
    assert tracks.affinity is not None
    for row in rows:
        start = tracks.xy[(tracks.track_id == tracks.track_id[row]) & (tracks.photo_id == 0)][0]
        np.testing.assert_allclose(tracks.xy[row], M[:, :2] @ start + M[:, 2], atol=5e-3)
        np.testing.assert_allclose(tracks.affinity[row], M[:, :2], atol=2e-2)
    # One predecessor alone is not enough.
    chain = build_tracks(photo_set(4), dense_matches([(0, 1), (1, 3)]), grid_anchors([0]))
    assert not (chain.photo_id == 3).any()


def test_limits_are_kept() -> None:
    matches = dense_matches(ALL_PAIRS)
    tracks = build_tracks(
        photo_set(4), matches, grid_anchors([0, 1, 2, 3], 7), TrackSettings(max_anchors=9, suppression=1.0)
    )
    assert tracks.is_reference is not None
    assert np.bincount(tracks.photo_id[tracks.is_reference]).max() == 9
    longer = build_tracks(photo_set(4), matches, grid_anchors([0, 1]), TrackSettings(min_length=4))
    check_invariants(longer, 4)
    assert build_tracks(photo_set(4), {}, grid_anchors([0])).count == 0
    assert build_tracks(photo_set(4), matches, {}).count == 0


def reference_transport(
    point: np.ndarray, flow: np.ndarray, mask: np.ndarray, radius: int, step: float
) -> tuple[np.ndarray, np.ndarray]:
    """Plain weighted least squares of the flow round a point, as the kernel's text says."""
    cx, cy = np.rint(point).astype(int)
    rows, weights, values = [], [], []
    for y in range(cy - radius, cy + radius + 1):
        for x in range(cx - radius, cx + radius + 1):
            if 0 <= x < mask.shape[1] and 0 <= y < mask.shape[0] and mask[y, x]:
                d = np.array([x, y]) - point
                e = ((flow[y, x] - flow[cy, cx]) ** 2).sum() / step**2
                rows.append([1.0, *d])
                weights.append(np.exp(-(d @ d) / (2 * (0.5 * radius) ** 2)) / (1 + e))
                values.append(flow[y, x])
    X, w, f = np.array(rows), np.array(weights), np.array(values, float)
    normal = X.T @ (w[:, None] * X) + np.diag([0, 0.02 * w.sum(), 0.02 * w.sum()])
    fit = np.linalg.solve(normal, X.T @ (w[:, None] * f))
    return point + fit[0], np.eye(2) + fit[1:].T


def test_transport_agrees_with_its_plain_twin() -> None:
    rng = np.random.default_rng(0)
    flow = rng.normal(0, 1.0, (30, 40, 2)).astype(np.float32)
    mask = rng.random((30, 40)) < 0.8
    points = rng.uniform([0, 0], [39, 29], (60, 2)).astype(np.float32)
    moved, affinity, valid = transport(points, flow, mask, 4, 1.5, 0.0)
    nearest = np.rint(points).astype(int)
    np.testing.assert_array_equal(valid, mask[nearest[:, 1], nearest[:, 0]])
    for i in np.nonzero(valid)[0]:
        target, A = reference_transport(points[i].astype(float), flow, mask, 4, 1.5)
        np.testing.assert_allclose(moved[i], target, atol=1e-4)
        np.testing.assert_allclose(affinity[i], A, atol=1e-4)


def test_transport_keeps_to_one_side_of_a_depth_edge() -> None:
    flow = np.zeros((40, 40, 2), np.float32)
    flow[:, 20:, 0] = 12.0
    moved, _, valid = transport(
        np.array([[18.0, 20.0]], np.float32), flow, np.ones((40, 40), bool), 5, 1.5, 0.3
    )
    assert valid.all()
    assert abs(moved[0, 0] - 18.0) < 0.25


def sparse_from_truth(
    seed: int, photos: int, points: int, wrong: int
) -> tuple[dict[tuple[int, int], SparseMatch], int]:
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 1000, (photos, points, 2)).astype(np.float32)
    matches = {}
    for a, b in itertools.combinations(range(photos), 2):
        seen = rng.random(points) < 0.7
        left, right = np.nonzero(seen)[0], np.nonzero(seen)[0].copy()
        if wrong and len(right) > 1:
            spoiled = rng.choice(len(right), min(wrong, len(right)), replace=False)
            right[spoiled] = rng.integers(0, points, len(spoiled))
        score = (
            np.where(left == right, 0.9, 0.3).astype(np.float32)
            + rng.random(len(left)).astype(np.float32) * 0.05
        )
        matches[a, b] = SparseMatch(xy[a, left], xy[b, right], score)
    return matches, points


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_sparse_tracks_without_conflicts_are_connected_components(seed: int, photos: int) -> None:
    matches, _ = sparse_from_truth(seed, photos, 12, wrong=0)
    graph = nx.Graph()
    for (a, b), match in matches.items():
        for p, q in zip(match.xy_a, match.xy_b, strict=True):
            graph.add_edge((a, *p.tolist()), (b, *q.tolist()))
    expected = {frozenset(part) for part in nx.connected_components(graph)}
    tracks = tracks_from_sparse(matches)
    found = {
        frozenset(
            (int(tracks.photo_id[i]), *tracks.xy[i].tolist()) for i in np.nonzero(tracks.track_id == track)[0]
        )
        for track in range(tracks.count)
    }
    assert found == expected


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(0, 4))
def test_sparse_tracks_never_see_a_photo_twice(seed: int, photos: int, wrong: int) -> None:
    matches, _ = sparse_from_truth(seed, photos, 15, wrong)
    tracks = tracks_from_sparse(matches)
    check_invariants(tracks)
    rng = np.random.default_rng(seed)
    shuffled = {}
    for pair in rng.permutation(list(matches)):
        a, b = int(pair[0]), int(pair[1])
        order = rng.permutation(len(matches[a, b].score))
        match = matches[a, b]
        shuffled[a, b] = SparseMatch(match.xy_a[order], match.xy_b[order], match.score[order])
    again = tracks_from_sparse(shuffled)
    np.testing.assert_array_equal(tracks.track_id, again.track_id)
    np.testing.assert_array_equal(tracks.xy, again.xy)


def test_a_weak_wrong_match_does_not_spoil_good_tracks() -> None:
    matches, points = sparse_from_truth(4, 4, 20, wrong=0)
    clean = tracks_from_sparse(matches)
    first = matches[0, 1]
    extra = SparseMatch(
        np.concatenate([first.xy_a, first.xy_a[:1]]),
        np.concatenate([first.xy_b, first.xy_b[1:2]]),
        np.concatenate([first.score, np.array([0.1], np.float32)]),
    )
    spoiled = tracks_from_sparse({**matches, (0, 1): extra})
    np.testing.assert_array_equal(clean.track_id, spoiled.track_id)
    np.testing.assert_array_equal(clean.xy, spoiled.xy)
    # Without those inliers it is not even looked at.
    flags = {pair: np.ones(len(match.score), bool) for pair, match in matches.items()}
    flags[0, 1][:] = False
    fewer = tracks_from_sparse(matches, flags)
    assert len(PhotoRows(fewer).shared(0, 1)) <= points


def test_observations_of_a_pair_are_those_both_photos_see() -> None:
    tracks = make_tracks(
        np.array([5, 5, 7, 7, 7, 9, 9]),
        np.array([0, 2, 1, 0, 2, 1, 2]),
        np.arange(14, dtype=float).reshape(7, 2),
    )
    assert tracks.count == 3
    rows = PhotoRows(tracks).shared(0, 2)
    np.testing.assert_array_equal(tracks.track_id[rows], [[0, 0], [1, 1]])
    np.testing.assert_array_equal(tracks.photo_id[rows], [[0, 2], [0, 2]])
    matches = track_matches(tracks, [(0, 2), (0, 1)])
    np.testing.assert_array_equal(matches[0, 2].xy_a, [[0, 1], [6, 7]])
    np.testing.assert_array_equal(matches[0, 2].xy_b, [[2, 3], [8, 9]])
    assert len(matches[0, 1].score) == 1


def test_selection_drops_short_tracks_and_renumbers() -> None:
    tracks = make_tracks(np.repeat([0, 1, 2], 3), np.tile([0, 1, 2], 3), np.zeros((9, 2)))
    keep = np.array([1, 0, 0, 1, 1, 0, 1, 1, 1], bool)
    left = select_observations(tracks, keep)
    np.testing.assert_array_equal(left.track_id, [0, 0, 1, 1, 1])
    with pytest.raises(ValueError, match="two observations"):
        make_tracks(np.array([0, 0]), np.array([3, 3]), np.zeros((2, 2)))
