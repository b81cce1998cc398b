"""Photos and models joined by points that one photo sees and the flow carries into another.

Without texture the matches of two neighbours are often right and their relative pose is not: a smooth flow leaves turn
and shift undecided, so the pair is dropped and the model falls apart. Points of a model know their depth. Seen through
the same flow in a photo that is not in the model, many of them over a wide area give its pose to a degree or two, and
those of a wrong flow agree on none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Float64

from recon.core.cameras import fundamental_matrix
from recon.core.colmap import camera_from_intrinsics, image_id, points_to_colmap, pycolmap
from recon.core.posed import Camera
from recon.graph.contradictions import disagreement, model_contradictions
from recon.graph.loops import STRONG
from recon.graph.types import Tracks, ViewGraph
from recon.photos.types import PhotoSet
from recon.sfm.adapter import (
    intrinsics_from_reconstruction,
    points_of_tracks,
    posed_cameras,
)
from recon.sfm.camera_tests import with_intrinsics
from recon.sfm.mapping import (
    MIN_POINTS_FOR_A_PHOTO,
    MappingResult,
    MappingSettings,
    map_from,
    result_of,
)

Pair = tuple[int, int]

# A photo is placed by so many of the points that another one shows, as a share of these, by so many of those that the
# flow carried, and over so much of the area that the points cover. On two renderings of the pale figure and on the
# table-top right flow explained 17% and more of the points, wrong flow 11% at most.
MIN_EXPLAINED = 0.15
MIN_INLIERS = 0.7
MIN_SPREAD = 0.2
# What two sights say of a relative pose, and what one says and the model, agree within so many degrees of rotation and
# of direction of translation.
MAX_TURN = 10.0
MAX_DIRECTION = 20.0
# Round an object an open chain of photos drifts: sights of one photo from both its ends may differ by so much in
# rotation. Which of them is right the adjustment says.
MAX_DRIFT = 15.0
# A photo that is new in a model holds so many of its observations.
MIN_HELD = 0.5
# Photos that are joined lead to further ones.
_ROUNDS = 8

Carry = Callable[
    [int, int, Float32[np.ndarray, "n 2"]], tuple[Float32[np.ndarray, "n 2"], Bool[np.ndarray, " n"]]
]
"""Points of one photo in another, through the flow of their pair, and where it says something; working pixels."""

Retrack = Callable[[Sequence[Pair], Mapping[Pair, Float64[np.ndarray, "3 3"]]], Tracks]
"""Tracks through these pairs, by this geometry of some of them (fundamental matrices in working pixels)."""


@dataclass(frozen=True)
class Sight:
    """A photo placed in a model by the points that another one shows.

    Attributes:
        pose: of the photo in the model's world.
        b_from_a: from the other photo to this one, in the model's scale.
        inliers: points that agree with it.
    """

    pose: Float64[np.ndarray, "3 4"]
    b_from_a: Float64[np.ndarray, "3 4"]
    inliers: int


def sight_of(
    points: Float[np.ndarray, "n 3"],
    source: Float32[np.ndarray, "n 2"],
    target: Float32[np.ndarray, "n 2"],
    carried: Bool[np.ndarray, " n"],
    cameras: tuple[Camera, Camera],
    settings: MappingSettings,
) -> Sight | None:
    """The pose of a photo from points of a model that another photo shows; None where too few say the same.

    Args:
        points: of the model. source: where the other photo shows them.
        target: where the flow leads. carried: where it says something.
        cameras: of the other photo, and of this one (its pose is not used).
    """
    if carried.sum() < MIN_POINTS_FOR_A_PHOTO:
        return None
    options = pycolmap.AbsolutePoseEstimationOptions()
    options.ransac.max_error = settings.max_error
    options.ransac.random_seed = settings.seed
    lens = camera_from_intrinsics(cameras[1].intrinsics, 1)
    found = pycolmap.estimate_and_refine_absolute_pose(
        points_to_colmap(target[carried].astype(np.float64)), points[carried], lens, options
    )
    if found is None:
        return None
    inside = target[carried][found["inlier_mask"]]
    if len(inside) < max(
        MIN_POINTS_FOR_A_PHOTO, MIN_EXPLAINED * len(points), MIN_INLIERS * carried.sum()
    ) or _area(inside) < MIN_SPREAD * _area(source):
        return None
    pose = found["cam_from_world"].matrix()
    return Sight(pose, _relative(cameras[0].cam_from_world, pose), len(inside))


def _area(xy: Float32[np.ndarray, "n 2"]) -> float:
    return float(cv2.contourArea(cv2.convexHull(xy.astype(np.float32))))


def _relative(a: Float[np.ndarray, "3 4"], b: Float[np.ndarray, "3 4"]) -> Float64[np.ndarray, "3 4"]:
    rotation = b[:, :3] @ a[:, :3].T
    return np.column_stack([rotation, b[:, 3] - rotation @ a[:, 3]])


def _agree(
    b_from_a: Float64[np.ndarray, "3 4"], a: Float64[np.ndarray, "3 4"], b: Float64[np.ndarray, "3 4"]
) -> bool:
    turn, direction = disagreement(b_from_a, a, b)
    return turn <= MAX_TURN and direction <= MAX_DIRECTION


@dataclass(frozen=True)
class Joints:
    """Poses and pairs that sights agree on.

    Attributes:
        poses: of the photos of the first model and of all that were joined to it, by id.
        pairs: those whose flow agrees with these poses, but for drift, and the relative poses that it speaks for.
    """

    poses: dict[int, Float64[np.ndarray, "3 4"]]
    pairs: dict[Pair, Float64[np.ndarray, "3 4"]]


def find_joints(
    models: Sequence[pycolmap.Reconstruction],
    photos: PhotoSet,
    tracks: Tracks,
    pairs: Iterable[Pair],
    carry: Carry,
    settings: MappingSettings,
) -> Joints:
    """Join photos without a model, and other models, to the first model by what its points say through the flow.

    A model is joined where a photo of each shows the other one's points: what both say of the pair's relative pose must
    agree, and they share no point, so this can fail. A photo is joined where the sights from all photos agree, unless
    it is in a model that contradicts them.

    Args:
        models: their keypoints are the observations of ``tracks``.
        pairs: that were matched, ascending.
    """
    cameras = [posed_cameras(model, photos) for model in models]
    sights: dict[tuple[int, int, int], Sight] = {}
    for index, model in enumerate(models):
        xyz, held = points_of_tracks(model, photos, tracks)
        for pair in pairs:
            for source, target in (pair, pair[::-1]):
                if source not in cameras[index]:
                    continue
                rows = np.nonzero(held & (tracks.photo_id == source))[0]
                xy = np.ascontiguousarray(tracks.xy[rows])
                moved, carried = carry(source, target, xy)
                other = cameras[index].get(target) or Camera(
                    photos.cameras[photos.photos[target].camera], np.eye(3, 4)
                )
                both = cameras[index][source], other
                found = sight_of(xyz[tracks.track_id[rows]], xy, moved, carried, both, settings)
                if found is not None:
                    sights[index, source, target] = found
    poses = {photo: camera.cam_from_world for photo, camera in cameras[0].items()}
    doubted: set[int] = set()
    for index in range(1, len(models)):
        through = _through(index, cameras[index], sights)
        if through is None:
            doubted |= cameras[index].keys()
        else:
            poses = {**through, **poses}
    alone = {target for index, _, target in sights if index == 0} - poses.keys() - doubted
    for photo in sorted(alone):
        seen = sorted(
            (sight for (index, _, target), sight in sights.items() if index == 0 and target == photo),
            key=lambda sight: -sight.inliers,
        )
        if all(_turn(seen[0].pose, sight.pose) <= MAX_DRIFT for sight in seen):
            poses[photo] = seen[0].pose
    return Joints(poses, _agreeing(sights, poses, cameras[0].keys()))


def _turn(a: Float64[np.ndarray, "3 4"], b: Float64[np.ndarray, "3 4"]) -> float:
    return disagreement(_relative(a, b), np.eye(3, 4), np.eye(3, 4))[0]


def _agreeing(
    sights: Mapping[tuple[int, int, int], Sight],
    poses: Mapping[int, Float64[np.ndarray, "3 4"]],
    before: Collection[int],
) -> dict[Pair, Float64[np.ndarray, "3 4"]]:
    """Pairs that agree with the poses, and the relative poses that these, or where they drift the sights, give them."""
    found: dict[Pair, Float64[np.ndarray, "3 4"]] = {}
    for (_, a, b), sight in sorted(sights.items(), key=lambda item: -item[1].inliers):
        pair = min(a, b), max(a, b)
        if a not in poses or b not in poses or pair in found:
            continue
        own = _relative(poses[a], poses[b])
        if not _agree(sight.b_from_a, poses[a], poses[b]):
            if {a, b} <= set(before) or _turn(own, sight.b_from_a) > MAX_DRIFT:
                continue
            own = sight.b_from_a
        found[pair] = own if a < b else _relative(own, np.eye(3, 4))
    return found


def _through(
    index: int, cameras: Mapping[int, Camera], sights: Mapping[tuple[int, int, int], Sight]
) -> dict[int, Float64[np.ndarray, "3 4"]] | None:
    """Poses of another model's photos in the first one's world, through the pair that most points hold.

    Empty where no pair says anything both ways, None where pairs do and contradict themselves.
    """
    ways, asked = [], False
    for (first, a, b), there in sights.items():
        back = sights.get((index, b, a))
        if first == 0 and back is not None and b in cameras:
            asked = True
            own = _relative(back.pose, cameras[b].cam_from_world)
            if _agree(there.b_from_a, np.eye(3, 4), own):
                ways.append((min(there.inliers, back.inliers), a, b, own))
    if not ways:
        return None if asked else {}
    _, a, b, own = max(ways, key=lambda way: way[:3])
    there = sights[0, a, b]
    scale = float(np.linalg.norm(there.b_from_a[:, 3])) / max(float(np.linalg.norm(own[:, 3])), 1e-12)
    found = {}
    for photo, camera in cameras.items():
        step = _relative(cameras[b].cam_from_world, camera.cam_from_world)
        shift = step[:, :3] @ there.pose[:, 3] + scale * step[:, 3]
        found[photo] = np.column_stack([step[:, :3] @ there.pose[:, :3], shift])
    return found


@dataclass(frozen=True)
class Joined:
    """A mapping after ``join_models``.

    Attributes:
        result: the models; their keypoints are the observations of ``tracks``.
        photos: with the intrinsics that the first model has.
        graph: with the pairs that were taken in.
    """

    result: MappingResult
    photos: PhotoSet
    graph: ViewGraph
    tracks: Tracks


def join_models(
    result: MappingResult,
    photos: PhotoSet,
    graph: ViewGraph,
    tracks: Tracks,
    pairs: Sequence[Pair],
    carry: Carry,
    retrack: Retrack,
    settings: MappingSettings,
) -> Joined | None:
    """Map again with the pairs whose flow agrees with the models, and with the photos and models that they join.

    Pairs between photos of one model come in as well: three photos that see a point hold it better than two. Other
    models grow too, if the first one does not, and may join it then. What comes of it is taken if photos that are new
    hold most of their observations, and no strong pair between what was apart contradicts the model.

    Args:
        result: its models' keypoints are the observations of ``tracks``.
        graph: the verified view graph.
        pairs: matched ones to ask, ascending.

    Returns:
        None where nothing was gained.
    """
    now = None
    for _ in range(_ROUNDS):
        for index in range(len(result.reconstructions)):
            grown = _grown(index, result, photos, graph, tracks, pairs, carry, retrack, settings)
            if grown is not None:
                break
        else:
            return now
        now, result, graph, tracks = grown, grown.result, grown.graph, grown.tracks
    return now


def _grown(
    index: int,
    result: MappingResult,
    photos: PhotoSet,
    graph: ViewGraph,
    tracks: Tracks,
    pairs: Sequence[Pair],
    carry: Carry,
    retrack: Retrack,
    settings: MappingSettings,
) -> Joined | None:
    """The models after one of them took in what is joined to it; None where that is nothing."""
    parts = list(result.reconstructions)
    largest, base = parts[0], parts.pop(index)
    parts.insert(0, base)
    photos = with_intrinsics(photos, intrinsics_from_reconstruction(base, photos))
    photos = with_intrinsics(photos, intrinsics_from_reconstruction(largest, photos))
    joints = find_joints(parts, photos, tracks, pairs, carry, settings)
    joining = [pair for pair in sorted(joints.pairs) if not graph.has_edge(*pair)]
    if len(joints.poses) <= base.num_reg_images():
        return None
    graph = graph.copy()
    for pair in joining:
        graph.add_edge(*pair, model="E", inliers=0, joint=True)
    edges = sorted((min(edge), max(edge)) for edge in graph.edges)
    geometry: dict[Pair, Float64[np.ndarray, "3 3"]] = {}
    for poses in (*(_poses(part, photos) for part in reversed(parts)), joints.poses):
        geometry |= _geometry(edges, photos, poses)
    for (a, b), b_from_a in joints.pairs.items():
        geometry |= _geometry([(a, b)], photos, {a: np.eye(3, 4), b: b_from_a})
    tracks = retrack(edges, geometry)
    model = map_from(photos, tracks, joints.poses, settings).best
    if model is None or not _holds(model, parts, photos, graph, tracks):
        return None
    models = [model]
    inside = set(model.reg_image_ids())
    for other in parts[1:]:
        if not set(other.reg_image_ids()) <= inside:
            models += map_from(photos, tracks, _poses(other, photos), settings).reconstructions
    models.sort(key=lambda one: (-one.num_reg_images(), -one.num_points3D()))
    found = replace(result_of(models, photos, graph), small_angles=result.small_angles)
    return Joined(found, photos, graph, tracks)


def _poses(model: pycolmap.Reconstruction, photos: PhotoSet) -> dict[int, Float64[np.ndarray, "3 4"]]:
    return {photo: camera.cam_from_world for photo, camera in posed_cameras(model, photos).items()}


def _geometry(
    edges: Sequence[Pair], photos: PhotoSet, poses: Mapping[int, Float64[np.ndarray, "3 4"]]
) -> dict[Pair, Float64[np.ndarray, "3 3"]]:
    """Fundamental matrices of the edges between posed photos."""
    cameras = {
        photo: Camera(photos.cameras[photos.photos[photo].camera], pose) for photo, pose in poses.items()
    }
    return {
        (a, b): fundamental_matrix(cameras[a], cameras[b]) for a, b in edges if a in cameras and b in cameras
    }


def _holds(
    model: pycolmap.Reconstruction,
    parts: Sequence[pycolmap.Reconstruction],
    photos: PhotoSet,
    graph: ViewGraph,
    tracks: Tracks,
) -> bool:
    """Whether photos that are new hold most of their observations, and no strong pair between parts contradicts it."""
    poses = _poses(model, photos)
    shown = np.isin(tracks.photo_id, list(poses))
    length = np.bincount(tracks.track_id[shown], minlength=tracks.count)
    for photo in poses.keys() - _poses(parts[0], photos).keys():
        seen = int((length[tracks.track_id[tracks.photo_id == photo]] >= 2).sum())
        if model.images[image_id(photo)].num_points3D < max(MIN_POINTS_FOR_A_PHOTO, MIN_HELD * seen):
            return False
    inside = [_poses(part, photos).keys() for part in parts]
    between = graph.copy()
    between.remove_edges_from(
        [(a, b) for a, b in graph.edges if any(a in part and b in part for part in inside)]
    )
    return model_contradictions(between, poses, min_evidence=STRONG).strong == 0
