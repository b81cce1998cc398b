"""Loops that stayed open: where the last photos of a long way meet the first ones, and drift keeps them apart.

Incremental mapping adds photo to photo, and errors add up. Where the way closes, the points that both ends see no
longer fit together and are taken for outliers: the model is torn there, and nothing pulls its ends together. Photos
that both ends can place tell how these lie to each other, and the error is spread over the way by a graph of
similarities (Strasdat, Montiel & Davison, "Scale Drift-Aware Large Scale Monocular SLAM", RSS 2010). Then all tracks
are triangulated anew and the model is adjusted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import networkx as nx
import numpy as np
from jaxtyping import Float, Int
from scipy import optimize, sparse
from scipy.spatial.transform import Rotation

from recon.core.colmap import image_id, points_to_colmap, pycolmap
from recon.graph.loops import STRONG
from recon.graph.tracks import PhotoRows, make_tracks
from recon.graph.types import Tracks, ViewGraph
from recon.photos.types import PhotoSet
from recon.sfm.adapter import keypoint_numbers, posed_cameras
from recon.sfm.mapping import FEWEST_IN_A_LOOP, MappingSettings, map_from, triangulate_tracks

# Likely pairs that share so many tracks or more are torn where the model holds a smaller share of these.
MIN_TRACKS, TORN_SHARE = 20, 0.3
# A photo is placed by so many points of a side; so many photos that both sides place tell how these lie to each other.
MIN_AGREEING, _MIN_PHOTOS = 12, 2
# The two ends are the photos so many pairs away from a torn one.
_AROUND = 2
# What a step of the way may err by: turn (radians), position (share of the step), and scale (logarithm).
_TURN, _SHIFT, _SCALE = 1e-3, 1e-2, 1e-2
_ROUNDS = 3


def close_loops(
    model: pycolmap.Reconstruction,
    photos: PhotoSet,
    graph: ViewGraph,
    tracks: Tracks,
    settings: MappingSettings | None = None,
) -> pycolmap.Reconstruction:
    """A model whose torn pairs are joined; the same object where there are none, or where that does not help.

    Small models (fewer than ``FEWEST_IN_A_LOOP`` photos) are left alone: they hardly drift.

    Args:
        model: it is not changed.
        graph: the verified view graph.
        tracks: whose observations are the model's keypoints.
    """
    settings = settings or MappingSettings()
    if model.num_reg_images() < FEWEST_IN_A_LOOP:
        return model
    seen = _Observed(model, photos, tracks)
    torn = seen.torn(graph)
    for _ in range(_ROUNDS):
        whole = [pair for pair in seen.pairs(graph) if pair not in set(torn)]
        joins = seen.joins(torn, whole, settings)
        if not joins:
            break
        steps = [seen.step(pair) for pair in whole]
        poses = _spread(seen, [*steps, *joins])
        found = map_from(photos, tracks, poses, settings).best
        if found is None or found.num_reg_images() < model.num_reg_images():
            break
        after = _Observed(found, photos, tracks)
        left = after.torn(graph)
        if len(left) >= len(torn):
            break
        model, seen, torn = found, after, left
    return model


@dataclass(frozen=True)
class _Step:
    """The second photo in the first one's camera frame: turn, place, and the logarithm of its unit over the first's."""

    pair: tuple[int, int]
    turn: Float[np.ndarray, "3 3"]
    place: Float[np.ndarray, "3"]
    scale: float = 0.0


@dataclass(frozen=True)
class _Placed:
    """Pose of a photo, ``cam_from_world``, and how many points agree with it."""

    pose: Float[np.ndarray, "3 4"]
    points: int


class _Observed:
    """A model and the tracks that it was made from."""

    def __init__(self, model: pycolmap.Reconstruction, photos: PhotoSet, tracks: Tracks) -> None:
        self.model, self.photos = model, photos
        self.poses = {i: one.cam_from_world for i, one in posed_cameras(model, photos).items()}
        self.tracks, self.rows_of = tracks, PhotoRows(tracks)
        names = {image.name: image for image in model.images.values()}
        self.point = np.full(len(tracks.track_id), -1, np.int64)
        numbers = keypoint_numbers(tracks)
        for photo in self.poses:
            rows = self.rows_of.of(photo)
            points = names[photos.photos[photo].name].points2D
            ids = np.array([one.point3D_id if one.has_point3D() else -1 for one in points], np.int64)
            self.point[rows] = ids[numbers[rows]]

    def pairs(self, graph: ViewGraph) -> list[tuple[int, int]]:
        """Likely pairs of the model's photos."""
        edges = sorted((min(edge), max(edge)) for edge in graph.edges)
        return [
            (a, b)
            for a, b in edges
            if a in self.poses and b in self.poses and graph.edges[a, b].get("evidence", 0.0) >= STRONG
        ]

    def torn(self, graph: ViewGraph) -> list[tuple[int, int]]:
        """Likely pairs whose common tracks the model mostly throws away."""
        found = []
        for pair in self.pairs(graph):
            ends = self.point[self.rows_of.shared(*pair)]
            if (
                len(ends) >= MIN_TRACKS
                and ((ends[:, 0] == ends[:, 1]) & (ends[:, 0] >= 0)).mean() < TORN_SHARE
            ):
                found.append(pair)
        return found

    def step(self, pair: tuple[int, int]) -> _Step:
        """How two photos stand in the model."""
        a, b = (self.poses[i] for i in pair)
        turn = b[:, :3] @ a[:, :3].T
        return _Step(pair, turn, a[:, :3] @ _centre(b) + a[:, 3])

    def joins(
        self, torn: Sequence[tuple[int, int]], whole: Sequence[tuple[int, int]], settings: MappingSettings
    ) -> list[_Step]:
        """How the photos of torn pairs stand to each other, where photos see enough of both sides.

        A photo of a torn pair may have been pulled away by the points of the other side: it gets the pose that those of
        its own side give it.
        """
        near: nx.Graph[int] = nx.Graph()
        near.add_nodes_from(self.poses)
        near.add_edges_from(whole)
        ends = {photo for pair in torn for photo in pair}
        around = set(ends)
        for _ in range(_AROUND):
            around |= {other for photo in around for other in near[photo]}
        sides = list(nx.connected_components(near.subgraph(around)))
        side_of = {photo: number for number, side in enumerate(sides) for photo in side}
        placed = [
            self._placed(side, around, settings) | self._placed(side - ends, around, settings)
            for side in sides
        ]
        for photo in ends:
            own = placed[side_of[photo]].get(photo)
            if own is not None:
                self.poses[photo] = own.pose
        found = []
        for a, b in torn:
            one, other = placed[side_of[a]], placed[side_of[b]]
            if side_of[a] != side_of[b] and len(one.keys() & other.keys()) >= _MIN_PHOTOS:
                found.append(self._joined((a, b), *_similarity(one, other)))
        return found

    def _placed(self, side: Set[int], asked: Set[int], settings: MappingSettings) -> dict[int, _Placed]:
        """Poses of photos by the points that the photos of one side see; photos that see too few are left out."""
        tracks = self.tracks
        rows = np.isin(tracks.photo_id, sorted(side))
        length = np.bincount(tracks.track_id[rows], minlength=tracks.count)
        rows &= (length >= 2)[tracks.track_id]
        if not rows.any():
            return {}
        seen = make_tracks(tracks.track_id[rows], tracks.photo_id[rows], tracks.xy[rows])
        xyz = np.full((tracks.count, 3), np.nan)
        xyz[length >= 2] = triangulate_tracks(self.model, self.photos, seen, settings)
        options = pycolmap.AbsolutePoseEstimationOptions()
        options.ransac.max_error, options.ransac.random_seed = settings.max_error, settings.seed
        found = {}
        for photo in sorted(asked):
            mine = self.rows_of.of(photo)
            mine = mine[np.isfinite(xyz[tracks.track_id[mine]]).all(axis=1)]
            if len(mine) < MIN_AGREEING:
                continue
            lens = self.model.cameras[self.model.images[image_id(photo)].camera_id]
            xy = points_to_colmap(tracks.xy[mine].astype(np.float64))
            one = pycolmap.estimate_and_refine_absolute_pose(xy, xyz[tracks.track_id[mine]], lens, options)
            if one is not None and one["num_inliers"] >= MIN_AGREEING:
                found[photo] = _Placed(one["cam_from_world"].matrix(), int(one["num_inliers"]))
        return found

    def _joined(
        self,
        pair: tuple[int, int],
        turn: Float[np.ndarray, "3 3"],
        scale: float,
        shift: Float[np.ndarray, "3"],
    ) -> _Step:
        """The step that puts the second photo where it belongs in the world as the first one's side sees it."""
        a, b = (self.poses[i] for i in pair)
        centre = turn.T @ (_centre(b) - shift) / scale
        return _Step(pair, b[:, :3] @ turn @ a[:, :3].T, a[:, :3] @ centre + a[:, 3], float(np.log(scale)))


def _centre(pose: Float[np.ndarray, "3 4"]) -> Float[np.ndarray, "3"]:
    return np.asarray(-pose[:, :3].T @ pose[:, 3])


def _similarity(
    one: Mapping[int, _Placed], other: Mapping[int, _Placed]
) -> tuple[Float[np.ndarray, "3 3"], float, Float[np.ndarray, "3"]]:
    """Turn, scale and shift from the world in which some photos stand to another in which they stand, too."""
    both = sorted(one.keys() & other.keys())
    weight = np.array([float(min(one[i].points, other[i].points)) for i in both])
    weight /= weight.sum()
    turns = Rotation.from_matrix(np.array([other[i].pose[:, :3].T @ one[i].pose[:, :3] for i in both]))
    turn = turns.mean(weight).as_matrix()
    a, b = (np.array([_centre(side[i].pose) for i in both]) for side in (one, other))
    middle_a, middle_b = weight @ a, weight @ b
    spread = [float(weight @ ((x - m) ** 2).sum(axis=1)) for x, m in ((a, middle_a), (b, middle_b))]
    scale = float(np.sqrt(spread[1] / max(spread[0], 1e-300)))
    return turn, scale, middle_b - scale * turn @ middle_a


def _spread(seen: _Observed, steps: Sequence[_Step]) -> dict[int, Float[np.ndarray, "3 4"]]:
    """Poses with the least misses of all steps, in turn, place and scale; the first photo stays."""
    ids = sorted(seen.poses)
    row_of = {photo: row for row, photo in enumerate(ids)}
    first: Int[np.ndarray, " e"] = np.array([row_of[one.pair[0]] for one in steps])
    second: Int[np.ndarray, " e"] = np.array([row_of[one.pair[1]] for one in steps])
    turn = Rotation.from_matrix(np.array([one.turn for one in steps]))
    place, scale = np.array([one.place for one in steps]), np.array([one.scale for one in steps])
    length = np.maximum(np.linalg.norm(place, axis=1), 1e-12)[:, None]
    start = np.array([seen.poses[i] for i in ids])
    turns, n = Rotation.from_matrix(start[:, :, :3]), len(ids)
    centre = -np.einsum("nji,nj->ni", start[:, :, :3], start[:, :, 3])
    unit = float(np.median(length))

    def of(values: Float[np.ndarray, " m"]) -> tuple[Rotation, np.ndarray, np.ndarray]:
        moved = np.vstack([np.zeros(7), values.reshape(-1, 7)])
        return Rotation.from_rotvec(moved[:, :3]) * turns, centre + unit * moved[:, 3:6], moved[:, 6]

    def misses(values: Float[np.ndarray, " m"]) -> Float[np.ndarray, " r"]:
        R, C, s = of(values)
        turned = (R[second] * R[first].inv() * turn.inv()).as_rotvec() / _TURN
        there = np.exp(s[first])[:, None] * R[first].apply(C[second] - C[first])
        shifted = (there - place) / (length * _SHIFT)
        scaled = (s[second] - s[first] - scale) / _SCALE
        return np.column_stack([turned, shifted, scaled]).ravel()

    ends = sparse.coo_array(
        (np.ones(2 * len(steps)), (np.tile(np.arange(len(steps)), 2), np.r_[first, second])), (len(steps), n)
    )
    pattern = sparse.kron(ends, np.ones((7, 7)), format="csc")[:, 7:]
    found = optimize.least_squares(
        misses, np.zeros(7 * (n - 1)), jac_sparsity=pattern, method="trf", x_scale="jac", max_nfev=50
    )
    R, C, _ = of(found.x)
    matrices = R.as_matrix()
    return {photo: np.column_stack([matrices[row], -matrices[row] @ C[row]]) for photo, row in row_of.items()}
