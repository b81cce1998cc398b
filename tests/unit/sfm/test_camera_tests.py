"""Tests of cameras by held-out tracks, on scenes whose cameras are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recon.core.cameras import Intrinsics
from recon.core.colmap import camera_from_intrinsics
from recon.graph.tracks import make_tracks
from recon.graph.types import Tracks
from recon.photos.types import PhotoSet
from recon.sfm import camera_tests
from recon.sfm.adapter import write_database
from recon.sfm.camera_tests import (
    LENS_MODELS,
    OTHER_THAN_GIVEN,
    CameraTester,
    _ask_for_few,
    _Decision,
    _own_fits,
    camera_groups,
    decide_cameras,
    in_model,
    own_cameras,
)
from recon.sfm.evidence import extent_of
from recon.sfm.mapping import MappingSettings, map_incremental
from tests.support.sfm_scene import (
    RING,
    camera_centers,
    centre_errors,
    exact_tracks,
    graph_of,
    make_scene,
    photo_set_of,
)

ONE_THREAD = MappingSettings(threads=1)
LENS = Intrinsics("SIMPLE_RADIAL", (600.0, 319.5, 239.5, 0.0), 640, 480)
ZOOMED = (1, 3, 6)


def mapped(folder: Path, photos: PhotoSet, tracks: Tracks):  # type: ignore[no-untyped-def]
    graph, geometries = graph_of(photos, tracks)
    write_database(folder / "d.db", photos, tracks, geometries)
    return map_incremental(folder / "d.db", photos, graph, ONE_THREAD).best


def decision_of(folder: Path, photos: PhotoSet, tracks: Tracks):  # type: ignore[no-untyped-def]
    return decide_cameras(CameraTester(mapped(folder, photos, tracks), photos, tracks, ONE_THREAD))


def enlarged(tracks: Tracks, factor: float) -> Tracks:
    """The tracks with some photos enlarged round their middle, and what is seen no longer left out."""
    xy = tracks.xy.astype(np.float64)
    zoomed = np.isin(tracks.photo_id, ZOOMED)
    middle = np.array([319.5, 239.5])
    xy[zoomed] = (xy[zoomed] - middle) * factor + middle
    seen = (xy >= 0).all(axis=1) & (xy <= [639, 479]).all(axis=1)
    return make_tracks(tracks.track_id[seen], tracks.photo_id[seen], xy[seen].astype(np.float32))


@pytest.fixture(scope="module")
def ring():  # type: ignore[no-untyped-def]
    scene = make_scene(RING, n=400, camera=LENS)
    return scene, exact_tracks(scene, noise=0.3)


def test_photos_zoomed_digitally_are_told_from_the_others(ring, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    scene, tracks = ring
    photos = photo_set_of(scene, replace(LENS, params=(640.0, *LENS.params[1:])))
    found = decision_of(tmp_path, photos, enlarged(tracks, 1.6))
    assert found is not None
    assert found.changed
    of = [photo.camera for photo in found.photos.photos]
    assert len(found.photos.cameras) == 2
    assert {i for i, one in enumerate(of) if one == of[ZOOMED[0]]} == set(ZOOMED)
    zoom = [found.photos.cameras[of[i]].params[0] for i in (ZOOMED[0], 0)]
    assert zoom[0] / zoom[1] == pytest.approx(1.6, rel=0.01)


@pytest.mark.parametrize("factor", [1.0, 1.6])
def test_few_cameras_are_asked_where_one_for_each_photo_was_too_much(ring, tmp_path: Path, factor) -> None:  # type: ignore[no-untyped-def]
    scene, tracks = ring
    photos = photo_set_of(scene, replace(LENS, params=(640.0, *LENS.params[1:])))
    changed = enlarged(tracks, factor)
    tester = CameraTester(mapped(tmp_path, photos, changed), photos, changed, ONE_THREAD)
    decision = _Decision(tester.fit(tester.as_found))
    taken = _ask_for_few(tester, decision, _own_fits(tester, decision.best))
    assert taken == (factor != 1.0)
    if taken:
        of = [photo.camera for photo in decision.best.photos.photos]
        assert {i for i, one in enumerate(of) if one == of[ZOOMED[0]]} == set(ZOOMED)
        test = decision.tests[-1]
        assert test.what == "2 cameras"
        assert test.gain > 0.5
        assert test.moves > 0.05  # a zoom taken for a step forward: the cameras stood elsewhere


def test_what_a_hypothesis_would_change_is_what_the_wrong_one_is_wrong_by(ring, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    scene, tracks = ring
    given = replace(LENS, params=(600.0 * 1.1, *LENS.params[1:]), known=True, has_focal_prior=True)
    photos = photo_set_of(scene, given)
    model = mapped(tmp_path, photos, tracks)
    found = decide_cameras(CameraTester(model, photos, tracks, ONE_THREAD))
    assert found is not None
    centres = camera_centers(model)
    wrong = centre_errors(centres, scene, list(centres)).mean()
    extent = extent_of(np.array([-pose[:, :3].T @ pose[:, 3] for pose in scene.poses]))
    assert found.tests[0].focal == pytest.approx(1 / 1.1, rel=0.02)
    assert found.tests[0].moves == pytest.approx(wrong / extent, rel=0.3)


def test_one_camera_stays_one_camera(ring, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    scene, tracks = ring
    photos = photo_set_of(scene, replace(LENS, params=(640.0, *LENS.params[1:])))
    found = decision_of(tmp_path, photos, tracks)
    assert found is not None
    assert not found.changed
    assert len(found.tests) >= 4
    # Chance alone: what is asked in vain moves the held-out tracks by few standard errors.
    assert not any(test.taken for test in found.tests)


@pytest.mark.parametrize("alike", [1.02, 1.9])
def test_cameras_that_hardly_differ_stay_one_whatever_they_gain(  # type: ignore[no-untyped-def]
    ring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alike: float
) -> None:
    scene, tracks = ring
    monkeypatch.setattr(camera_tests, "UNLIKE_FOCAL", alike)
    found = decision_of(tmp_path, photo_set_of(scene, LENS), enlarged(tracks, 1.6))
    assert found is not None
    own = [test for test in found.tests if test.what.startswith("a camera for each photo")]
    assert own[0].better
    assert own[0].taken == (alike < 1.6)


@pytest.mark.parametrize(("factor", "contradicted"), [(1.0, False), (1.2, True)])
def test_given_focal_lengths_stay_but_are_contradicted_when_wrong(
    ring, tmp_path: Path, factor, contradicted
) -> None:  # type: ignore[no-untyped-def]
    scene, tracks = ring
    given = replace(LENS, params=(600.0 * factor, *LENS.params[1:]), known=True, has_focal_prior=True)
    found = decision_of(tmp_path, photo_set_of(scene, given), tracks)
    assert found is not None
    assert found.photos.cameras[0].params == given.params
    assert [test.what for test in found.tests if test.taken] == ([OTHER_THAN_GIVEN] if contradicted else [])


def test_a_lens_that_was_named_is_taken_and_no_other_is_asked(ring, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    scene, tracks = ring
    photos = replace(photo_set_of(scene, LENS), lens="RADIAL_FISHEYE")
    found = decision_of(tmp_path, photos, tracks)
    assert found is not None
    assert found.photos.cameras[0].model == "RADIAL_FISHEYE"
    assert [test.what for test in found.tests if "lens" in test.what] == ["lens model RADIAL_FISHEYE"]


@pytest.mark.parametrize("model", [*LENS_MODELS, "RADIAL_FISHEYE", "FULL_OPENCV"])
def test_a_lens_in_another_model_shows_the_same_pixels(model: str) -> None:
    lens = replace(LENS, params=(500.0, 319.5, 239.5, -0.08))
    other = in_model(lens, model)
    assert other.model == model
    rng = np.random.default_rng(0)
    rays = np.column_stack(
        [rng.uniform(-0.6, 0.6, (200, 1)), rng.uniform(-0.45, 0.45, (200, 1)), np.ones(200)]
    )
    pixels = [np.asarray(camera_from_intrinsics(one).img_from_cam(rays)) for one in (lens, other)]
    assert np.abs(pixels[0] - pixels[1]).max() < (0.5 if "FISHEYE" in model else 1e-9)


def test_groups_of_cameras_are_those_of_like_focal_lengths_and_middles() -> None:
    photos = own_cameras(photo_set_of(make_scene(RING[:6], n=8, camera=LENS)))
    params = [(600, 320), (905, 320), (597, 321), (603, 420), (898, 319), (602, 422)]
    cameras = tuple(
        replace(one, params=(float(f), float(x), 239.5, 0.0))
        for one, (f, x) in zip(photos.cameras, params, strict=True)
    )
    groups = camera_groups(replace(photos, cameras=cameras), range(6))
    assert len(set(groups)) == 3
    assert groups[0] == groups[2]
    assert groups[1] == groups[4]
    assert groups[3] == groups[5]
