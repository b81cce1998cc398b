from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recon.graph.thinning import thin_tracks
from recon.graph.tracks import make_tracks
from recon.graph.types import Tracks


def random_tracks(seed: int, count: int, photos: int, side: float) -> Tracks:
    rng = np.random.default_rng(seed)
    track, photo = [], []
    for number in range(count):
        seen = rng.choice(photos, rng.integers(2, photos + 1), replace=False)
        track += [number] * len(seen)
        photo += list(seen)
    xy = rng.uniform(-3, side, (len(track), 2))
    return make_tracks(np.array(track), np.array(photo), xy.astype(np.float32))


def thinned_slowly(tracks: Tracks, radius: float) -> set[tuple[float, ...]]:
    """The same rule in plain Python: longest first, nothing nearer than the radius to what is taken."""
    rows = [np.nonzero(tracks.track_id == number)[0] for number in range(tracks.count)]
    taken: list[int] = []
    for own in sorted(rows, key=lambda r: (-len(r), tracks.track_id[r[0]])):
        near = any(
            tracks.photo_id[i] == tracks.photo_id[k]
            and np.sum((tracks.xy[i] - tracks.xy[k]) ** 2) < np.float32(radius) ** 2
            for i in own
            for k in taken
        )
        if not near:
            taken += list(own)
    return {(int(tracks.photo_id[i]), *tracks.xy[i].tolist()) for i in taken}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.sampled_from([0.5, 4.0, 11.0, 70.0]))
def test_the_longest_tracks_stay_and_nothing_lies_near_them(seed: int, count: int, radius: float) -> None:
    tracks = random_tracks(seed, count, 4, 60.0)
    thin = thin_tracks(tracks, radius)
    rows = {(int(p), *xy) for p, xy in zip(thin.photo_id, thin.xy.tolist(), strict=True)}
    assert rows == thinned_slowly(tracks, radius)


def test_nothing_happens_without_a_radius_or_without_tracks() -> None:
    tracks = random_tracks(1, 20, 3, 10.0)
    assert thin_tracks(tracks, 0) is tracks
    none = make_tracks(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 2)))
    assert thin_tracks(none, 5).count == 0
