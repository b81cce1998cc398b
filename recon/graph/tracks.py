"""Multi-view tracks: from dense matches (anchors carried into every neighbour) and from sparse ones."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from scipy.spatial import cKDTree

from recon.core.kernels import kernel, maximum, minimum
from recon.core.sampling import pixel_positions
from recon.features.types import InterestPoints, MatchedPoints
from recon.graph.types import Tracks
from recon.matching.quarter_turns import quarter_turns
from recon.matching.types import DenseMatch, SparseMatch
from recon.photos.types import PhotoSet

# Flow vectors that differ from the middle one by more than this many pixels belong to another surface and get
# little weight in the local fit (matching size).
FLOW_STEP_PX = 1.5
# A local fit needs this share of consistent pixels in its window: below it, the affinity is guesswork.
MIN_SUPPORT = 0.3
# An anchor goes with the matched interest point that lies so near, in pixels at working size.
POINT_RADIUS = 1.5
# A patch that shrinks or grows beyond this is not one surface seen from two sides, but a wrong flow.
MAX_SCALE_CHANGE = 6.0


@dataclass(frozen=True)
class TrackSettings:
    """Settings for making tracks from dense matches. Lengths in pixels of the photos' working size unless stated.

    Attributes:
        max_anchors: at most this many tracks start in one photo.
        suppression: an anchor nearer than this to an observation of a better track is dropped.
        window: radius of the local affine fit of the flow, in pixels at matching size.
        loop_error: two observations of a track contradict each other when the flow between their photos
            misses by more than this, in pixels at matching size.
        min_length: shortest track that is kept.
        extend: carry accepted tracks on into photos that the reference does not see, where two observed
            photos agree.
    """

    max_anchors: int = 1500
    suppression: float = 6.0
    window: int = 5
    loop_error: float = 2.0
    min_length: int = 2
    extend: bool = True


def flow_turn(
    flow: Float32[np.ndarray, "h w 2"], consistent: Bool[np.ndarray, "h w"], *, step: int = 4
) -> Float32[np.ndarray, "2 2"]:
    """The linear part ``R - 1`` of a flow between photos turned by quarter turns; zero where they are not."""
    rows, columns = np.nonzero(consistent[::step, ::step])
    source = np.stack([columns, rows], axis=1).astype(np.float32) * step
    turns = quarter_turns(source, source + flow[rows * step, columns * step])
    turn = np.array([[0, -1], [1, 0]], np.float32)
    return (np.linalg.matrix_power(turn, turns) - np.eye(2)).astype(np.float32)


def _without_turn(
    flow: Float32[np.ndarray, "h w 2"], turn: Float32[np.ndarray, "2 2"]
) -> Float32[np.ndarray, "h w 2"]:
    if not turn.any():
        return flow
    return flow - pixel_positions(*flow.shape[:2]) @ turn.T


def transport(
    xy: Float32[np.ndarray, "n 2"],
    flow: Float32[np.ndarray, "h w 2"],
    consistent: Bool[np.ndarray, "h w"],
    radius: int,
    step: float,
    min_support: float,
) -> tuple[Float32[np.ndarray, "n 2"], Float32[np.ndarray, "n 2 2"], Bool[np.ndarray, " n"]]:
    """Points carried by a locally affine fit of the flow around them.

    At every point, flow(p) = f + (A - 1)(p - point) is fitted by weighted least squares to the consistent
    pixels within ``radius``: Gaussian weights of the distance (sigma radius/2) times a Cauchy weight of the
    difference to the flow at the middle (scale ``step``), which keeps the fit on one side of a depth edge.
    The fit averages integer or noisy flow to sub-pixel positions and gives the affinity that patches are
    compared with.

    Args:
        xy: (n, 2) float32 points of the source at matching size.
        flow: (h, w, 2) float32. consistent: (h, w) bool.

    Returns:
        Target points (n, 2) float32, affinities A (n, 2, 2) float32, and True where the nearest pixel is
        consistent and at least ``min_support`` of the window took part.
    """
    target, affinity = np.zeros((len(xy), 2), np.float32), np.zeros((len(xy), 2, 2), np.float32)
    valid = np.zeros(len(xy), np.bool_)
    near = np.empty((2, 2 * radius + 1))
    _transport(xy, flow, consistent, radius, step, min_support, near, target, affinity, valid)
    return target, affinity, valid


@kernel(error_model="numpy")
def _transport(  # type: ignore[no-untyped-def]
    xy, flow, consistent, radius, step, min_support, near, target, affinity, valid
):
    """Writes what ``transport`` returns. ``near`` is room for the Gaussian weights along both axes."""
    height, width = consistent.shape
    sigma2 = 0.5 * radius * radius
    for i in range(len(xy)):
        px, py = xy[i, 0], xy[i, 1]
        cx, cy = np.int64(np.rint(px)), np.int64(np.rint(py))
        if cx < 0 or cy < 0 or cx >= width or cy >= height or not consistent[cy, cx]:
            continue
        f0x, f0y = flow[cy, cx, 0], flow[cy, cx, 1]
        for k in range(2 * radius + 1):
            near[0, k] = np.exp(-((cx - radius + k - px) ** 2) / sigma2)
            near[1, k] = np.exp(-((cy - radius + k - py) ** 2) / sigma2)
        m00 = m01 = m02 = m11 = m12 = m22 = 0.0
        rx0 = rx1 = rx2 = ry0 = ry1 = ry2 = 0.0
        support = 0
        total = 0
        for y in range(cy - radius, cy + radius + 1):
            for x in range(cx - radius, cx + radius + 1):
                total += 1
                if x < 0 or y < 0 or x >= width or y >= height or not consistent[y, x]:
                    continue
                fx, fy = flow[y, x, 0], flow[y, x, 1]
                dx, dy = x - px, y - py
                ex, ey = fx - f0x, fy - f0y
                apart = (ex * ex + ey * ey) / (step * step)
                if apart < 4.0:
                    support += 1
                w = near[0, x - cx + radius] * near[1, y - cy + radius] / (1.0 + apart)
                m00 += w
                m01 += w * dx
                m02 += w * dy
                m11 += w * dx * dx
                m12 += w * dx * dy
                m22 += w * dy * dy
                rx0 += w * fx
                rx1 += w * dx * fx
                rx2 += w * dy * fx
                ry0 += w * fy
                ry1 += w * dx * fy
                ry2 += w * dy * fy
        if support < min_support * total:
            continue
        # A little ridge on the gradient: a sliver of consistent pixels fixes the value, not the affinity.
        ridge = 0.02 * m00
        m11 += ridge
        m22 += ridge
        c00 = m11 * m22 - m12 * m12
        c01 = m02 * m12 - m01 * m22
        c02 = m01 * m12 - m02 * m11
        det = m00 * c00 + m01 * c01 + m02 * c02
        if det <= 1e-9:
            continue
        c11 = m00 * m22 - m02 * m02
        c12 = m01 * m02 - m00 * m12
        c22 = m00 * m11 - m01 * m01
        target[i, 0] = px + (c00 * rx0 + c01 * rx1 + c02 * rx2) / det
        target[i, 1] = py + (c00 * ry0 + c01 * ry1 + c02 * ry2) / det
        affinity[i, 0, 0] = 1.0 + (c01 * rx0 + c11 * rx1 + c12 * rx2) / det
        affinity[i, 0, 1] = (c02 * rx0 + c12 * rx1 + c22 * rx2) / det
        affinity[i, 1, 0] = (c01 * ry0 + c11 * ry1 + c12 * ry2) / det
        affinity[i, 1, 1] = 1.0 + (c02 * ry0 + c12 * ry1 + c22 * ry2) / det
        valid[i] = True


def carry_by_points(
    xy: Float32[np.ndarray, "n 2"], source: InterestPoints, target: InterestPoints
) -> tuple[Float32[np.ndarray, "n 2"], Float32[np.ndarray, "n 2 2"], Bool[np.ndarray, " n"]]:
    """Carry points from photo to photo by the matched interest point next to each.

    The affinity is the similarity between the frames of both interest points: their scales and orientations.

    Args:
        xy: points of the source.
        source, target: interest points that match, row by row.

    Returns:
        Target points, affinities, and True where a matched point lies within ``POINT_RADIUS``.
    """
    if len(source) == 0:
        return xy.copy(), np.tile(np.eye(2, dtype=np.float32), (len(xy), 1, 1)), np.zeros(len(xy), bool)
    distance, row = cKDTree(source.xy).query(xy)
    scale = target.sigma[row] / source.sigma[row]
    angle = target.orientation[row] - source.orientation[row]
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    affinity = np.stack([np.stack([cos, -sin], axis=1), np.stack([sin, cos], axis=1)], axis=1)
    moved = target.xy[row] + np.einsum("nij,nj->ni", affinity, xy - source.xy[row])
    return moved.astype(np.float32), affinity.astype(np.float32), distance <= POINT_RADIUS


class Flows:
    """Directed access to the matches: working pixels outside, matching pixels inside."""

    def __init__(
        self,
        sizes: Mapping[int, tuple[int, int]],
        matches: Mapping[tuple[int, int], DenseMatch],
        points: Mapping[tuple[int, int], MatchedPoints],
        radius: int,
    ) -> None:
        self.sizes = sizes
        self.matches = matches
        self.points = points
        self.radius = radius
        self.neighbours: dict[int, list[int]] = {photo: [] for photo in sizes}
        for i, j in {*matches, *points}:
            self.neighbours[i].append(j)
            self.neighbours[j].append(i)
        for joined in self.neighbours.values():
            joined.sort()

    def connected(self, source: int, target: int) -> bool:
        pair = (min(source, target), max(source, target))
        return pair in self.matches or pair in self.points

    def carry(
        self, source: int, target: int, xy: Float32[np.ndarray, "n 2"]
    ) -> tuple[Float32[np.ndarray, "n 2"], Float32[np.ndarray, "n 2 2"], Bool[np.ndarray, " n"], float]:
        """Points of the source in the target, affinities, validity, and working pixels per matching pixel."""
        pair = (min(source, target), max(source, target))
        if pair in self.points:
            seen = self.points[pair]
            ends = (seen.a, seen.b) if source < target else (seen.b, seen.a)
            moved, affinity, valid = carry_by_points(xy, *ends)
            return moved, affinity, valid & self._plausible(target, moved, affinity), 1.0
        match = self.matches[pair]
        if source < target:
            field, mask, other = match.a_to_b, match.consistent_a, match.consistent_b
        else:
            field, mask, other = match.b_to_a, match.consistent_b, match.consistent_a
        from_work = np.array(mask.shape[::-1]) / np.array(self.sizes[source])
        to_work = np.array(self.sizes[target]) / np.array(other.shape[::-1])
        at_match = ((xy + 0.5) * from_work - 0.5).astype(np.float32)
        # Between photos turned against each other the flow runs steeply everywhere; without the turn it is smooth.
        turn = flow_turn(field.flow, mask)
        moved, affinity, valid = transport(
            at_match, _without_turn(field.flow, turn), mask, self.radius, FLOW_STEP_PX, MIN_SUPPORT
        )
        moved, affinity = moved + at_match @ turn.T, affinity + turn
        moved = ((moved + 0.5) * to_work - 0.5).astype(np.float32)
        affinity = (affinity * to_work[:, None] * from_work[None, :]).astype(np.float32)
        valid &= self._plausible(target, moved, affinity)
        return moved, affinity, valid, float(np.sqrt(to_work[0] * to_work[1]))

    def _plausible(
        self, target: int, moved: Float32[np.ndarray, "n 2"], affinity: Float32[np.ndarray, "n 2 2"]
    ) -> Bool[np.ndarray, " n"]:
        """Within the target, not mirrored, and of a scale that one surface can have."""
        determinant = np.linalg.det(affinity.astype(np.float64))
        scale = np.sqrt(np.abs(determinant))
        width, height = self.sizes[target]
        inside = (moved >= 0).all(axis=1) & (moved[:, 0] <= width - 1) & (moved[:, 1] <= height - 1)
        return inside & (determinant > 0) & (scale < MAX_SCALE_CHANGE) & (scale > 1 / MAX_SCALE_CHANGE)


@dataclass
class _Candidates:
    """Tracks that start at the anchors of one photo, with their observations in its neighbours.

    Attributes:
        end: of each track, the row after its last observation.
        photo, xy, affinity: of each observation.
        agreement: of each track, pairs of its observations that the flow between them confirms.
    """

    reference: int
    anchor: Float32[np.ndarray, "n 2"]
    end: Int[np.ndarray, " n"]
    photo: Int[np.ndarray, " o"]
    xy: Float32[np.ndarray, "o 2"]
    affinity: Float32[np.ndarray, "o 2 2"]
    agreement: Float[np.ndarray, " n"]

    def rows(self, track: int) -> slice:
        """The observations of a track."""
        return slice(int(self.end[track - 1]) if track else 0, int(self.end[track]))


def build_tracks(
    photos: PhotoSet,
    matches: Mapping[tuple[int, int], DenseMatch],
    anchors: Mapping[int, Float32[np.ndarray, "n 2"]],
    settings: TrackSettings | None = None,
    points: Mapping[tuple[int, int], MatchedPoints] | None = None,
    occupied: Mapping[int, Float32[np.ndarray, "n 2"]] | None = None,
) -> Tracks:
    """Multi-view tracks from dense matches: anchors of each photo carried directly into all its neighbours.

    An anchor is a pixel of its own photo, known exactly, and every observation comes from it in one step:
    errors do not add up along a chain of pairs. Where two neighbours are matched with each other, the flow
    between them must lead from one observation to the other; of observations that contradict each other,
    those with the most contradictions go first (ties: the fewest confirmations). Tracks are then taken in
    order of evidence (number of observations, number of confirmations); a track whose anchor lies next to an
    observation of a better track is the same point again and is dropped.

    Args:
        photos: for the working sizes.
        matches: dense matches of verified pairs (ascending photo ids) at matching size.
        anchors: points of each photo at working size, e.g. of ``find_anchors`` or SIFT points.
        points: pairs (not in ``matches``) whose interest points carry what lies next to them.
        occupied: observations of other tracks by photo; an anchor next to one starts none.

    Returns:
        Tracks with reference flags and affinities. The result does not depend on the order of the input.
    """
    settings = settings or TrackSettings()
    sizes = {photo.id: (photo.width, photo.height) for photo in photos.photos}
    flows = Flows(sizes, matches, points or {}, settings.window)
    candidates = []
    for reference in sorted(anchors):
        start = np.ascontiguousarray(anchors[reference], dtype=np.float32)
        if len(start) and flows.neighbours.get(reference):
            candidates.append(_carry_anchors(flows, reference, start, settings))
    return _select(candidates, flows, settings, occupied or {})


def _carry_anchors(
    flows: Flows, reference: int, anchor: Float32[np.ndarray, "n 2"], settings: TrackSettings
) -> _Candidates:
    neighbours = flows.neighbours[reference]
    n, m = len(anchor), len(neighbours)
    xy = np.zeros((n, m, 2), np.float32)
    affinity = np.zeros((n, m, 2, 2), np.float32)
    seen = np.zeros((n, m), bool)
    for column, photo in enumerate(neighbours):
        xy[:, column], affinity[:, column], seen[:, column], _ = flows.carry(reference, photo, anchor)
    agree = np.zeros((n, m, m), bool)
    contradict = np.zeros((n, m, m), bool)
    for p in range(m):
        for q in range(p + 1, m):
            if not flows.connected(neighbours[p], neighbours[q]):
                continue
            rows = np.nonzero(seen[:, p] & seen[:, q])[0]
            if len(rows) == 0:
                continue
            moved, _, valid, pixel = flows.carry(
                neighbours[p], neighbours[q], np.ascontiguousarray(xy[rows, p])
            )
            miss = np.linalg.norm(moved - xy[rows, q], axis=1) / pixel
            good, bad = (
                rows[valid & (miss <= settings.loop_error)],
                rows[valid & (miss > settings.loop_error)],
            )
            agree[good, p, q] = agree[good, q, p] = True
            contradict[bad, p, q] = contradict[bad, q, p] = True
    while True:
        against = (contradict & seen[:, None, :]).sum(axis=2) * seen
        rows = np.nonzero(against.max(axis=1, initial=0) > 0)[0]
        if len(rows) == 0:
            break
        confirmed = (agree[rows] & seen[rows, None, :]).sum(axis=2)
        # One observation per track and round: the most contradicted, then the least confirmed.
        blame = against[rows] * (m + 1) - confirmed
        blame[against[rows] == 0] = -(m + 1)
        seen[rows, blame.argmax(axis=1)] = False
    agreement = (agree & seen[:, None, :] & seen[:, :, None]).sum(axis=(1, 2)) / 2
    # Only what is seen is kept: the candidates of all photos are in memory until the best of them are chosen.
    length = seen.sum(axis=1)
    long = 1 + length >= settings.min_length
    seen &= long[:, None]
    seen_in = np.array(neighbours, np.int32)[np.nonzero(seen)[1]]
    end = np.cumsum(length[long], dtype=np.int32)
    return _Candidates(reference, anchor[long], end, seen_in, xy[seen], affinity[seen], agreement[long])


def _select(
    candidates: list[_Candidates],
    flows: Flows,
    settings: TrackSettings,
    others: Mapping[int, Float32[np.ndarray, "n 2"]],
) -> Tracks:
    counts = [len(one.anchor) for one in candidates]
    owner_of = np.repeat(np.arange(len(candidates)), counts)
    if len(owner_of) == 0:
        return _no_tracks()
    length = np.concatenate([np.diff(one.end, prepend=0) for one in candidates])
    row_of = np.concatenate([np.arange(len(one.anchor)) for one in candidates])
    agreement = np.concatenate([one.agreement for one in candidates])
    order = np.lexsort((row_of, owner_of, -agreement, -length))
    occupied = {photo: _Occupancy(settings.suppression, size) for photo, size in flows.sizes.items()}
    for photo, points in others.items():
        for (x, y), cell in zip(points.tolist(), occupied[photo].cells(points), strict=True):
            occupied[photo].add(x, y, cell)
    cells = [_cells(one, occupied) for one in candidates]
    started = dict.fromkeys(flows.sizes, 0)
    taken = np.zeros(len(order), bool)
    for position in order.tolist():
        candidate, row = candidates[owner_of[position]], int(row_of[position])
        reference = candidate.reference
        x, y = candidate.anchor[row].tolist()
        cell_of_anchor, cell_of = cells[owner_of[position]]
        cell = cell_of_anchor[row]
        if started[reference] >= settings.max_anchors or occupied[reference].taken(x, y, cell):
            continue
        rows = candidate.rows(row)
        occupied[reference].add(x, y, cell)
        observed = zip(
            candidate.photo[rows].tolist(), candidate.xy[rows].tolist(), cell_of[rows], strict=True
        )
        for photo, (x, y), cell in observed:
            occupied[photo].add(x, y, cell)
        started[reference] += 1
        taken[position] = True
    parts = [
        (
            np.zeros(0, np.int64),
            np.zeros(0, np.int64),
            np.zeros((0, 2)),
            np.zeros(0, bool),
            np.zeros((0, 2, 2)),
        )
    ]
    number = 0
    for candidate, mine in zip(candidates, np.split(taken, np.cumsum(counts)[:-1]), strict=True):
        tracks = number + np.arange(int(mine.sum()))
        number += len(tracks)
        seen = np.diff(candidate.end, prepend=0)
        rows = np.repeat(mine, seen)
        of = np.repeat(tracks, seen[mine])
        reference = np.full(len(tracks), candidate.reference)
        parts += [
            (tracks, reference, candidate.anchor[mine], tracks >= 0, np.tile(np.eye(2), (len(tracks), 1, 1))),
            (of, candidate.photo[rows], candidate.xy[rows], of < 0, candidate.affinity[rows]),
        ]
    candidates.clear()
    made = make_tracks(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    return _extend(made, flows, settings) if settings.extend else made


def _cells(candidates: _Candidates, occupied: Mapping[int, _Occupancy]) -> tuple[list[int], list[int]]:
    """The cell of each anchor in the grid of its photo, and that of each observation."""
    of_observation = np.zeros(len(candidates.photo), np.int64)
    for photo in np.unique(candidates.photo).tolist():
        mine = candidates.photo == photo
        of_observation[mine] = occupied[photo].cells(candidates.xy[mine])
    return occupied[candidates.reference].cells(candidates.anchor), of_observation.tolist()


class _Occupancy:
    """Points of one photo, asked for neighbours within a radius: a list for each cell of a grid, in flat arrays."""

    def __init__(self, radius: float, size: tuple[int, int]) -> None:
        self.limit = radius * radius
        self.side = max(radius, 1.0)
        # What lies outside has a rim, and that a border, so that every cell with points has eight neighbours.
        self.width, self.height = (int(side // self.side) + 5 for side in size)
        self.around = [v * self.width + u for v in (-1, 0, 1) for u in (-1, 0, 1)]
        self.last = array("i", bytes(4 * self.width * self.height))  # numbers from 1; 0 is none
        self.before = array("i", [0])
        self.xy = array("f", [0.0, 0.0])

    def cells(self, xy: Float32[np.ndarray, "n 2"]) -> list[int]:
        """The cell of each point."""
        cell = np.floor_divide(xy.astype(np.float64), self.side).astype(np.int64) + 2
        cell = np.clip(cell, 1, [self.width - 2, self.height - 2])
        return list((cell[:, 1] * self.width + cell[:, 0]).tolist())

    def add(self, x: float, y: float, cell: int) -> None:
        self.before.append(self.last[cell])
        self.last[cell] = len(self.before) - 1
        self.xy.extend((x, y))

    def taken(self, x: float, y: float, cell: int) -> bool:
        xy, before = self.xy, self.before
        for offset in self.around:
            point = self.last[cell + offset]
            while point:
                dx, dy = xy[2 * point] - x, xy[2 * point + 1] - y
                if dx * dx + dy * dy < self.limit:
                    return True
                point = before[point]
        return False


def _extend(tracks: Tracks, flows: Flows, settings: TrackSettings) -> Tracks:
    """Observations where the reference could not lead, but two observed photos lead to the same pixel."""
    assert tracks.affinity is not None
    assert tracks.is_reference is not None
    rows_of = PhotoRows(tracks)
    new: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    for target in sorted(flows.sizes):
        there = tracks.track_id[rows_of.of(target)]
        predictions: list[tuple[np.ndarray, np.ndarray, np.ndarray, float]] = []
        for source in flows.neighbours[target]:
            rows = rows_of.of(source)
            rows = rows[~np.isin(tracks.track_id[rows], there)]
            if len(rows) == 0:
                continue
            moved, affinity, valid, pixel = flows.carry(source, target, np.ascontiguousarray(tracks.xy[rows]))
            back, _, back_valid, back_pixel = flows.carry(target, source, moved)
            valid &= back_valid & (
                np.linalg.norm(back - tracks.xy[rows], axis=1) / back_pixel <= settings.loop_error
            )
            rows, moved = rows[valid], moved[valid]
            composed = affinity[valid] @ tracks.affinity[rows]
            predictions.append((tracks.track_id[rows], moved, composed, pixel))
        if not predictions:
            continue
        asked = np.unique(np.concatenate([track for track, _, _, _ in predictions]))
        number = np.zeros(len(asked), np.int64)
        sums, affinities = np.zeros((len(asked), 2)), np.zeros((len(asked), 2, 2))
        places = [np.searchsorted(asked, track) for track, _, _, _ in predictions]
        for at, (_, moved, composed, _) in zip(places, predictions, strict=True):
            sums[at] += moved
            affinities[at] += composed
            number[at] += 1
        mean = sums / np.maximum(number, 1)[:, None]
        spread_of = np.zeros(len(asked))
        for at, (_, moved, _, pixel) in zip(places, predictions, strict=True):
            spread_of[at] = np.maximum(spread_of[at], np.linalg.norm(moved - mean[at], axis=1) / pixel)
        agreed = np.nonzero((number >= 2) & (spread_of <= settings.loop_error))[0]
        if len(agreed):
            photo = np.full(len(agreed), target)
            told = (affinities[agreed] / number[agreed, None, None]).astype(np.float32)
            new.append((asked[agreed], photo, mean[agreed].astype(np.float32), told))
    if not new:
        return tracks
    added = [np.concatenate(column) for column in zip(*new, strict=True)]
    return make_tracks(
        np.concatenate([tracks.track_id, added[0]]),
        np.concatenate([tracks.photo_id, added[1]]),
        np.concatenate([tracks.xy, added[2]]),
        np.concatenate([tracks.is_reference, np.zeros(len(added[0]), bool)]),
        np.concatenate([tracks.affinity, added[3]]),
    )


def make_tracks(
    track_id: Int[np.ndarray, " n"],
    photo_id: Int[np.ndarray, " n"],
    xy: Float[np.ndarray, "n 2"],
    is_reference: Bool[np.ndarray, " n"] | None = None,
    affinity: Float[np.ndarray, "n 2 2"] | None = None,
) -> Tracks:
    """Tracks from observations in any order: sorted by track, then photo, and numbered from 0 without gaps.

    Raises:
        ValueError: a track has two observations in one photo.
    """
    if len(track_id) == 0:
        return _no_tracks()
    order = np.lexsort((photo_id, track_id))
    numbers = np.unique(track_id, return_inverse=True)[1].astype(np.int32)[order]
    photos = photo_id[order].astype(np.int32)
    if ((np.diff(numbers) == 0) & (np.diff(photos) == 0)).any():
        raise ValueError("a track has two observations in one photo")
    return Tracks(
        numbers,
        photos,
        xy[order].astype(np.float32),
        None if is_reference is None else is_reference[order].astype(bool),
        None if affinity is None else affinity[order].astype(np.float32),
    )


def _no_tracks() -> Tracks:
    return Tracks(
        np.zeros(0, np.int32),
        np.zeros(0, np.int32),
        np.zeros((0, 2), np.float32),
        np.zeros(0, bool),
        np.zeros((0, 2, 2), np.float32),
    )


def select_observations(tracks: Tracks, keep: Bool[np.ndarray, " n"], *, min_length: int = 2) -> Tracks:
    """The tracks with only the observations in ``keep``, without those shorter than ``min_length``."""
    length = np.bincount(tracks.track_id[keep], minlength=tracks.count)
    keep = keep & (length[tracks.track_id] >= min_length)
    return make_tracks(
        tracks.track_id[keep],
        tracks.photo_id[keep],
        tracks.xy[keep],
        None if tracks.is_reference is None else tracks.is_reference[keep],
        None if tracks.affinity is None else tracks.affinity[keep],
    )


class PhotoRows:
    """Observations of each photo: they are sorted once, not searched through for every pair."""

    def __init__(self, tracks: Tracks) -> None:
        self._tracks = tracks.track_id
        self._order = np.argsort(tracks.photo_id, kind="stable")
        ids, first, count = np.unique(tracks.photo_id[self._order], return_index=True, return_counts=True)
        spans = zip(first.tolist(), (first + count).tolist(), strict=True)
        self._spans = dict(zip(ids.tolist(), spans, strict=True))

    def of(self, photo: int) -> Int[np.ndarray, " n"]:
        """Rows of a photo's observations, ascending."""
        first, end = self._spans.get(photo, (0, 0))
        return self._order[first:end]

    def shared(self, a: int, b: int) -> Int[np.ndarray, "n 2"]:
        """Rows of the observations of the tracks that both photos see, by track: one column per photo."""
        rows_a, rows_b = self.of(a), self.of(b)
        _, at_a, at_b = np.intersect1d(
            self._tracks[rows_a], self._tracks[rows_b], assume_unique=True, return_indices=True
        )
        return np.stack([rows_a[at_a], rows_b[at_b]], axis=1)


def track_matches(tracks: Tracks, pairs: list[tuple[int, int]]) -> dict[tuple[int, int], SparseMatch]:
    """The observations as point matches of the given pairs; pairs that share no track are left out."""
    matches, rows_of = {}, PhotoRows(tracks)
    for a, b in sorted(pairs):
        rows = rows_of.shared(a, b)
        if len(rows):
            matches[(a, b)] = SparseMatch(
                tracks.xy[rows[:, 0]], tracks.xy[rows[:, 1]], np.ones(len(rows), np.float32)
            )
    return matches


def tracks_from_sparse(
    matches: Mapping[tuple[int, int], SparseMatch],
    inliers: Mapping[tuple[int, int], Bool[np.ndarray, " n"]] | None = None,
    *,
    min_length: int = 2,
    merge_radius: float = 1e-3,
) -> Tracks:
    """Tracks from sparse matches: connected observations (union-find), conflicts resolved by evidence.

    Points of one photo that agree to ``merge_radius`` pixels (on a grid of that size) are the same keypoint.
    Matches are joined in order of score, best first; a match that would give a track two different points in
    one photo is left out, so that a single wrong match cannot spoil two tracks that were good without it.

    Args:
        matches: per pair of photo ids, at working size.
        inliers: which of them to use; None for all.
    """
    keys: list[np.ndarray] = []
    scores: list[np.ndarray] = []
    for (a, b), match in sorted(matches.items()):
        use = slice(None) if inliers is None else inliers[(a, b)]
        xy_a, xy_b, score = match.xy_a[use], match.xy_b[use], match.score[use]
        n = len(score)
        keys.append(
            np.concatenate(
                [np.column_stack([np.full(n, a), xy_a]), np.column_stack([np.full(n, b), xy_b])], axis=1
            )
        )
        scores.append(score)
    if not keys or sum(map(len, scores)) == 0:
        return _no_tracks()
    table = np.concatenate(keys).astype(np.float64)
    score = np.concatenate(scores)
    points = np.concatenate([table[:, :3], table[:, 3:]])
    on_grid = np.column_stack([points[:, 0], np.round(points[:, 1:] / merge_radius)]).astype(np.int64)
    _, first, node = np.unique(on_grid, axis=0, return_index=True, return_inverse=True)
    node = node.reshape(-1)
    photo = points[first, 0].astype(np.int32)
    xy = points[first, 1:]
    left, right = node[: len(score)], node[len(score) :]
    # Ties in the score are broken by the points themselves, not by their order in the input.
    order = np.lexsort((right, left, -score))
    root = _join(left[order], right[order], photo)
    observations = np.arange(len(photo))
    length = np.bincount(root, minlength=len(photo))
    keep = length[root] >= min_length
    return make_tracks(root[observations][keep], photo[keep], xy[keep])


@kernel()
def _join(left: np.ndarray, right: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """Roots after union-find over matches in order, refusing unions that would see one photo twice."""
    n = len(photo)
    parent = np.arange(n)
    # Members of each set as a linked list: sets are as short as tracks, so a scan finds a photo seen twice.
    tail = np.arange(n)
    following = np.full(n, -1)
    for k in range(len(left)):
        a, b = left[k], right[k]
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        while parent[b] != b:
            parent[b] = parent[parent[b]]
            b = parent[b]
        if a == b:
            continue
        clash = False
        i = a
        while i >= 0 and not clash:
            j = b
            while j >= 0:
                if photo[i] == photo[j]:
                    clash = True
                    break
                j = following[j]
            i = following[i]
        if clash:
            continue
        low, high = minimum(a, b), maximum(a, b)
        parent[high] = low
        following[tail[low]] = high
        tail[low] = tail[high]
    root = np.empty(n, np.int64)
    for i in range(n):
        k = i
        while parent[k] != k:
            k = parent[k]
        root[i] = k
    return root
