"""What fell apart is joined by points seen through the flow of a pair, and only where the flow says one thing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from scipy.spatial import cKDTree

from recon.core.colmap import pycolmap
from recon.core.similarity import Similarity3, camera_center
from recon.graph.tracks import make_tracks
from recon.graph.types import Tracks, ViewGraph
from recon.photos.types import PhotoSet
from recon.sfm.adapter import posed_cameras
from recon.sfm.joining import find_joints, join_models
from recon.sfm.mapping import MappingSettings, map_known, result_of
from tests.support.sfm_scene import RING, Scene, exact_tracks, make_scene, photo_set_of, project

SETTINGS = MappingSettings(threads=1)
APART = Similarity3(2.5, np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]), np.array([3.0, -1, 2]))
"""From the world of the scene to that of the second model."""

Carry = Callable[[int, int, np.ndarray], tuple[np.ndarray, np.ndarray]]


def flow_of(scene: Scene, wrong: Mapping[tuple[int, int], int] | None = None, noise: float = 0.7) -> Carry:
    """Points carried to where the scene has them; by a ``wrong`` pair to where another photo would show them."""

    def carry(source: int, target: int, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        known = project(scene, source)
        distance, point = cKDTree(known).query(xy)
        moved = project(scene, (wrong or {}).get((source, target), target))[point]
        moved = moved + noise * np.random.default_rng((source, target)).normal(size=moved.shape)
        return moved.astype(np.float32), distance < 0.5

    return carry


def in_two(
    scene: Scene, photos: PhotoSet, first: range, second: range
) -> tuple[list[pycolmap.Reconstruction], Tracks]:
    """A model of each of two groups of photos that share no track; the second one in a world of its own."""
    whole = exact_tracks(scene)
    part = np.where(np.isin(whole.photo_id, list(first)), 0, 1)
    used = np.isin(whole.photo_id, [*first, *second])
    tracks = make_tracks((whole.track_id + part * whole.count)[used], whole.photo_id[used], whole.xy[used])
    models = []
    for group, world in ((first, None), (second, APART)):
        poses = {i: scene.poses[i] if world is None else world.camera(scene.poses[i]) for i in group}
        model = map_known(photos, tracks, poses, SETTINGS).best
        assert model is not None
        models.append(model)
    return models, tracks


@pytest.fixture(scope="module")
def scene() -> Scene:
    return make_scene(RING)


def test_a_model_is_joined_where_its_points_and_the_others_say_the_same(scene: Scene) -> None:
    photos = photo_set_of(scene)
    models, tracks = in_two(scene, photos, range(4), range(4, 8))
    joints = find_joints(models, photos, tracks, [(3, 4)], flow_of(scene), SETTINGS)
    assert sorted(joints.poses) == list(range(8))
    assert list(joints.pairs) == [(3, 4)]
    for photo, pose in joints.poses.items():
        assert np.linalg.norm(camera_center(pose) - camera_center(scene.poses[photo])) < 0.15


def test_a_flow_that_says_two_things_joins_no_model_and_none_of_its_photos(scene: Scene) -> None:
    photos = photo_set_of(scene)
    models, tracks = in_two(scene, photos, range(4), range(4, 8))
    # The flow back has locked to a bay further on: many of its matches agree on one pose, and it is another one.
    locked = flow_of(scene, {(4, 3): 2})
    joints = find_joints(models, photos, tracks, [(3, 4)], locked, SETTINGS)
    assert sorted(joints.poses) == list(range(4))
    assert not joints.pairs


def test_a_flow_that_leads_anywhere_places_no_photo(scene: Scene) -> None:
    photos = photo_set_of(scene)
    models, tracks = in_two(scene, photos, range(4), range(4, 8))

    def anywhere(source: int, target: int, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((source, target))
        return rng.uniform([0, 0], [640, 480], xy.shape).astype(np.float32), np.ones(len(xy), bool)

    joints = find_joints(models[:1], photos, tracks, [(2, 4), (3, 4)], anywhere, SETTINGS)
    assert sorted(joints.poses) == list(range(4))


def test_a_photo_is_placed_where_all_that_see_it_agree_and_see_enough(scene: Scene) -> None:
    photos = photo_set_of(scene)
    models, tracks = in_two(scene, photos, range(4), range(4, 8))

    def placed(carry: Carry) -> bool:
        return 4 in find_joints(models[:1], photos, tracks, [(2, 4), (3, 4)], carry, SETTINGS).poses

    right = flow_of(scene)
    assert placed(right)
    assert not placed(flow_of(scene, {(2, 4): 6}))

    def corner(source: int, target: int, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        moved, valid = right(source, target, xy)
        middle = np.median(xy, axis=0)
        return moved, valid & (xy > middle).all(axis=1) & (xy < middle + 90).all(axis=1)

    assert not placed(corner)


def test_what_fell_apart_becomes_one_model(scene: Scene) -> None:
    photos = photo_set_of(scene)
    models, tracks = in_two(scene, photos, range(4), range(4, 7))  # and photo 7 is in none
    graph = ViewGraph()
    for photo in photos.photos:
        graph.add_node(photo.id, name=photo.name)
    graph.add_edges_from(
        [(a, a + 1) for a in range(7) if a not in (3, 6)], model="E", inliers=100, evidence=0.7
    )
    asked: list[Sequence[tuple[int, int]]] = []

    def retrack(edges: Sequence[tuple[int, int]], geometry: Mapping[tuple[int, int], np.ndarray]) -> Tracks:
        asked.append(edges)
        assert {edge for edge in edges if 7 not in edge} <= geometry.keys()
        return exact_tracks(scene, noise=0.2)

    pairs = [(a, a + 1) for a in range(7)]
    joined = join_models(
        result_of(models, photos, graph), photos, graph, tracks, pairs, flow_of(scene), retrack, SETTINGS
    )
    assert joined is not None
    assert [model.num_reg_images() for model in joined.result.reconstructions] == [8]
    assert joined.result.left_out == ()
    assert joined.graph.has_edge(3, 4)
    assert joined.graph.has_edge(6, 7)
    assert not graph.has_edge(3, 4)
    cameras = posed_cameras(joined.result.reconstructions[0], photos)
    truth = np.array([camera_center(pose) for pose in scene.poses])
    found = np.array([cameras[i].center for i in range(8)])
    assert np.linalg.norm(np.diff(found, axis=0), axis=1) == pytest.approx(
        np.linalg.norm(np.diff(truth, axis=0), axis=1)
        * np.linalg.norm(found[1] - found[0])
        / np.linalg.norm(truth[1] - truth[0]),
        rel=0.02,
    )
    # Tracks that do not bear out what was joined: it stays as it was.
    apart = join_models(
        result_of(models, photos, graph),
        photos,
        graph,
        tracks,
        pairs,
        flow_of(scene),
        lambda _, __: exact_tracks(scene, noise=25.0),
        SETTINGS,
    )
    assert apart is None
