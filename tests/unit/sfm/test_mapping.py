"""Incremental and global mapping on synthetic scenes with bounded errors."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from recon.core.cameras import Intrinsics
from recon.core.colmap import image_id
from recon.graph.tracks import make_tracks, select_observations
from recon.graph.types import Tracks
from recon.sfm import mapping
from recon.sfm.adapter import intrinsics_from_reconstruction, write_database
from recon.sfm.mapping import (
    MOST_INCREMENTAL,
    MappingResult,
    MappingSettings,
    map_global,
    map_hierarchical,
    map_incremental,
    mapper_named,
)
from tests.support.sfm_scene import (
    RING,
    camera_centers,
    centre_errors,
    exact_tracks,
    graph_of,
    look_at,
    make_scene,
    photo_set_of,
)

ONE_THREAD = MappingSettings(threads=1)


def run(tmp_path: Path, mapper, photos, tracks: Tracks, settings=ONE_THREAD, **extra) -> MappingResult:  # type: ignore[no-untyped-def]
    graph, geometries = graph_of(photos, tracks)
    write_database(tmp_path / "d.db", photos, tracks, geometries)
    return mapper(tmp_path / "d.db", photos, graph, settings, **extra)


@pytest.mark.parametrize("mapper", [map_incremental, map_global, map_hierarchical])
def test_exact_tracks_give_exact_cameras(tmp_path: Path, mapper) -> None:  # type: ignore[no-untyped-def]
    scene = make_scene(RING)
    photos = photo_set_of(scene)
    reports: list[tuple[int, int]] = []
    result = run(tmp_path, mapper, photos, exact_tracks(scene), progress=lambda *args: reports.append(args))
    assert result.best is not None
    assert result.left_out == ()
    assert result.best.num_reg_images() == len(RING)
    errors = centre_errors(camera_centers(result.best), scene, [photo.name for photo in photos.photos])
    assert errors.max() < 1e-3  # of a distance of 7
    assert reports[-1] == (len(RING), len(RING))
    # Known intrinsics stay as they were.
    for intrinsics in intrinsics_from_reconstruction(result.best, photos).values():
        np.testing.assert_allclose(intrinsics.params, scene.camera.params, atol=1e-9)
        assert intrinsics.known


def test_the_mapper_is_chosen_by_the_number_of_photos() -> None:
    assert mapper_named("auto", MOST_INCREMENTAL) is map_incremental
    assert mapper_named("auto", MOST_INCREMENTAL + 1) is map_global
    assert mapper_named("hierarchical", 3) is map_hierarchical


def test_mapping_starts_from_the_pair_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which photos have poses when COLMAP has its first two."""
    scene = make_scene(RING[:5])
    photos = photo_set_of(scene)
    made = mapping.pycolmap.IncrementalPipeline
    first: list[set[int]] = []

    def watched(options, database, manager):  # type: ignore[no-untyped-def]
        pipeline = made(options, database, manager)
        event = int(mapping.pycolmap.IncrementalPipelineCallback.INITIAL_IMAGE_PAIR_REG_CALLBACK)
        pipeline.add_callback(event, lambda: first.append(set(manager.get(0).reg_image_ids())))
        return pipeline

    monkeypatch.setattr(mapping.pycolmap, "IncrementalPipeline", watched)
    for pair in ((0, 1), (3, 2)):
        (tmp_path / str(pair)).mkdir()
        settings = MappingSettings(threads=1, first_pair=pair)
        result = run(tmp_path / str(pair), map_incremental, photos, exact_tracks(scene), settings)
        assert first[-1] == {image_id(one) for one in pair}
        assert result.best is not None
        errors = centre_errors(camera_centers(result.best), scene, [photo.name for photo in photos.photos])
        assert errors.max() < 1e-3


def test_noise_gives_errors_of_its_size(tmp_path: Path) -> None:
    scene = make_scene(RING, n=600)
    photos = photo_set_of(scene)
    result = run(tmp_path, map_incremental, photos, exact_tracks(scene, share=0.8, noise=0.3))
    assert result.best is not None
    errors = centre_errors(camera_centers(result.best), scene, [photo.name for photo in photos.photos])
    # 0.3 px at a focal length of 600 and a distance of 7 is 3.5 mm for one ray; hundreds of rays do better.
    assert errors.max() < 0.006
    assert result.best.compute_mean_reprojection_error() == pytest.approx(0.3 * np.sqrt(np.pi / 2), rel=0.15)


def test_unknown_focal_length_and_distortion_are_found(tmp_path: Path) -> None:
    truth = Intrinsics("SIMPLE_RADIAL", (600.0, 319.5, 239.5, -0.06), 640, 480)
    scene = make_scene(RING, n=500, camera=truth)
    guess = Intrinsics("SIMPLE_RADIAL", (768.0, 319.5, 239.5, 0.0), 640, 480)
    photos = photo_set_of(scene, guess)
    result = run(tmp_path, map_incremental, photos, exact_tracks(scene))
    assert result.best is not None
    assert result.best.num_reg_images() == len(RING)
    found = intrinsics_from_reconstruction(result.best, photos)[0]
    assert found.params[0] == pytest.approx(600.0, rel=2e-3)
    assert found.params[3] == pytest.approx(-0.06, abs=3e-3)
    assert not found.known
    errors = centre_errors(camera_centers(result.best), scene, [photo.name for photo in photos.photos])
    assert errors.max() < 0.02


def test_an_off_centre_principal_point_is_found_where_photos_allow(tmp_path: Path) -> None:
    truth = Intrinsics("SIMPLE_RADIAL", (600.0, 326.0, 234.0, -0.06), 640, 480)
    guess = Intrinsics("SIMPLE_RADIAL", (768.0, 319.5, 239.5, 0.0), 640, 480)
    for count, found_expected in ((len(RING), True), (4, False)):
        scene = make_scene(RING[:count], n=500, camera=truth)
        photos = photo_set_of(scene, guess)
        folder = tmp_path / str(count)
        folder.mkdir()
        result = run(folder, map_incremental, photos, exact_tracks(scene))
        assert result.best is not None
        params = intrinsics_from_reconstruction(result.best, photos)[0].params
        if found_expected:
            np.testing.assert_allclose(params[1:3], [326.0, 234.0], atol=0.3)
            assert params[0] == pytest.approx(600.0, rel=1e-3)
        else:
            assert params[1:3] == (319.5, 239.5)


def test_wrong_matches_are_left_aside(tmp_path: Path) -> None:
    scene = make_scene(RING, n=500)
    tracks = exact_tracks(scene, noise=0.1)
    rng = np.random.default_rng(3)
    wrong = rng.random(len(tracks.track_id)) < 0.08
    xy = tracks.xy.copy()
    xy[wrong] += rng.uniform(-40, 40, (wrong.sum(), 2)).astype(np.float32)
    photos = photo_set_of(scene)
    result = run(tmp_path, map_incremental, photos, Tracks(tracks.track_id, tracks.photo_id, xy))
    assert result.best is not None
    errors = centre_errors(camera_centers(result.best), scene, [photo.name for photo in photos.photos])
    assert len(errors) == len(RING)
    assert errors.max() < 0.004


def test_few_points_join_two_parts_in_the_second_try(tmp_path: Path) -> None:
    """Photos 3 and 4 share many tracks, but only ten of them are seen by a third photo."""
    scene = make_scene(RING, n=600)
    tracks = exact_tracks(scene)
    track, photo = tracks.track_id, tracks.photo_id
    of_two = (track >= 10) & (track < 60)
    parts = np.where(photo < 4, track % 2 == 0, track % 2 == 1)
    keep = (track < 10) | (of_two & np.isin(photo, (3, 4))) | ((track >= 60) & parts)
    photos = photo_set_of(scene)
    result = run(tmp_path, map_incremental, photos, select_observations(tracks, keep))
    assert result.best is not None
    errors = centre_errors(camera_centers(result.best), scene, [photo.name for photo in photos.photos])
    assert len(errors) == len(RING)
    assert errors.max() < 0.01


def test_one_thread_agrees_bit_for_bit(tmp_path: Path) -> None:
    scene = make_scene(RING[:5], n=200)
    photos = photo_set_of(scene)
    tracks = exact_tracks(scene, noise=0.2)
    one, two = (camera_centers(run(tmp_path, map_incremental, photos, tracks).best) for _ in range(2))  # type: ignore[arg-type]
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


def test_photos_without_overlap_are_named_with_the_reason(tmp_path: Path) -> None:
    scene = make_scene([*RING[:5], look_at(np.array([0.0, 0.0, -9.0]), np.array([0.0, 0.0, -30.0]))])
    photos = photo_set_of(scene)
    result = run(tmp_path, map_incremental, photos, exact_tracks(scene))
    assert result.best is not None
    assert result.best.num_reg_images() == 5
    assert [out.name for out in result.left_out] == ["photo05.jpg"]
    assert "no other photo" in result.left_out[0].reason


def test_the_largest_model_is_chosen_and_the_others_kept(tmp_path: Path) -> None:
    """Two groups of photos that share no point: one model of five photos, one of three."""
    first, second = make_scene(RING[:5], n=300), make_scene(RING[:3], n=300, seed=9)
    a, b = exact_tracks(first), exact_tracks(second)
    tracks = make_tracks(
        np.concatenate([a.track_id, b.track_id + a.count]),
        np.concatenate([a.photo_id, b.photo_id + 5]),
        np.concatenate([a.xy, b.xy]),
    )
    both = type(first)(first.points, [*first.poses, *second.poses], first.camera)
    photos = photo_set_of(both)
    result = run(tmp_path, map_incremental, photos, tracks)
    assert [model.num_reg_images() for model in result.reconstructions] == [5, 3]
    assert result.chosen == 0
    assert {out.name for out in result.left_out} == {"photo05.jpg", "photo06.jpg", "photo07.jpg"}
    assert all("sparse/1" in out.reason for out in result.left_out)


def test_a_camera_that_only_turns_gives_no_model_and_says_so(tmp_path: Path) -> None:
    centre = np.array([0.0, 0.0, -7.0])
    poses = [look_at(centre, np.array([x, 0.1 * x, 0.0])) for x in (-0.6, -0.2, 0.2, 0.6)]
    scene = make_scene(poses, n=300)
    photos = photo_set_of(scene)
    result = run(tmp_path, map_incremental, photos, exact_tracks(scene))
    assert result.best is None
    assert result.chosen is None
    assert len(result.left_out) == 4
    assert all("no parallax" in out.reason for out in result.left_out)


def test_turns_with_noise_and_a_wrong_focal_length_give_no_model_without_points(tmp_path: Path) -> None:
    truth = Intrinsics("SIMPLE_RADIAL", (600.0, 319.5, 239.5, -0.06), 640, 480)
    guess = Intrinsics("SIMPLE_RADIAL", (768.0, 319.5, 239.5, 0.0), 640, 480)
    centre = np.array([0.0, 0.0, -7.0])
    poses = [look_at(centre, np.array([x, 0.1 * x, 0.0])) for x in np.linspace(-1.5, 1.5, 4)]
    scene = make_scene(poses, n=400, camera=truth)
    result = run(
        tmp_path, map_incremental, photo_set_of(scene, guess), exact_tracks(scene, share=0.9, noise=0.3)
    )
    assert all(model.num_points3D() >= 15 for model in result.reconstructions)
    assert result.best is None


def test_no_matches_at_all(tmp_path: Path) -> None:
    scene = make_scene(RING[:3])
    photos = photo_set_of(scene)
    graph = nx.Graph()
    graph.add_nodes_from(range(3))
    empty = make_tracks(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 2)))
    write_database(tmp_path / "d.db", photos, empty, {})
    for mapper in (map_incremental, map_global):
        result = mapper(tmp_path / "d.db", photos, graph, ONE_THREAD)
        assert result.best is None
        assert len(result.left_out) == 3


@pytest.mark.parametrize("known", [True, False])
def test_photos_close_together_start_under_small_angles(tmp_path: Path, known: bool) -> None:
    poses = [look_at(np.array([0.18 * k, 0.0, -7.0]), np.array([0.18 * k, 0.0, 0.0])) for k in range(3)]
    scene = make_scene(poses, n=300)
    guess = Intrinsics("SIMPLE_RADIAL", (768.0, 319.5, 239.5, 0.0), 640, 480)
    photos = photo_set_of(scene, None if known else guess)
    result = run(tmp_path, map_incremental, photos, exact_tracks(scene))
    assert result.best is not None
    assert result.small_angles
    assert result.best.num_reg_images() == 3
    camera = next(iter(result.best.cameras.values()))
    assert camera.focal_length_x == pytest.approx(600.0 if known else 768.0)  # not told by them
    if known:
        names = [photo.name for photo in photos.photos]
        assert centre_errors(camera_centers(result.best), scene, names).max() < 1e-3
