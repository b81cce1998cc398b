"""What the stage ``map`` does beside its steps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from recon.core.colmap import pycolmap
from recon.engine.stage import StageContext
from recon.errors import ReconError, UsageError
from recon.run.folder import TRUST
from recon.sfm.mapping import MappingResult, MappingSettings, map_incremental, map_known
from recon.sfm.trust import figures_of, judge
from recon.tasks.mapping import (
    TrackDatabase,
    map_with_progress,
    starting_pair,
    tell_no_model,
    tell_verdict,
)
from tests.support.sfm_scene import RING, exact_tracks, graph_of, make_scene, photo_set_of

OPTIONS = MappingSettings(threads=1)


@pytest.fixture(scope="module")
def ring():  # type: ignore[no-untyped-def]
    scene = make_scene(RING[:5])
    photos, tracks = photo_set_of(scene), exact_tracks(scene)
    return scene, photos, tracks, graph_of(photos, tracks, [(0, 1), (1, 2), (2, 3), (3, 4), (0, 2)])[0]


def test_the_database_holds_the_tracks_and_the_edges(tmp_path: Path, ring) -> None:  # type: ignore[no-untyped-def]
    _, photos, tracks, graph = ring
    work = StageContext(tmp_path, "map", "test")
    path = TrackDatabase(work, graph.edges, 4.0).write(photos, tracks)
    assert work.written == [path.name]
    with pycolmap.Database.open(path) as database:
        assert database.num_images() == 5
        assert database.num_keypoints() == len(tracks.track_id)
        assert database.num_verified_image_pairs() == 5
    result = map_with_progress(map_incremental, path, photos, graph, OPTIONS, work)
    assert result.best is not None
    assert result.best.num_reg_images() == 5
    # Written again with the model, the geometries are those of its cameras, and as good to map by.
    path = TrackDatabase(work, graph.edges, 4.0).write(photos, tracks, result.best)
    with pycolmap.Database.open(path) as database:
        assert database.num_verified_image_pairs() == 5
        found = database.read_two_view_geometry(1, 3)
        assert found.config == int(pycolmap.TwoViewGeometryConfiguration.CALIBRATED)
        assert len(found.inlier_matches) == len(database.read_matches(1, 3))
        images = [result.best.images[number] for number in (1, 3)]
        relative = images[1].cam_from_world() * images[0].cam_from_world().inverse()
        np.testing.assert_allclose(
            found.cam2_from_cam1.rotation.matrix(), relative.rotation.matrix(), atol=1e-9
        )
        unit = relative.translation / np.linalg.norm(relative.translation)
        np.testing.assert_allclose(found.cam2_from_cam1.translation, unit, atol=1e-9)
    again = map_with_progress(map_incremental, path, photos, graph, OPTIONS, work)
    assert again.best is not None
    assert again.best.num_reg_images() == 5


def test_a_starting_pair_is_two_photos_that_the_graph_joins(ring) -> None:  # type: ignore[no-untyped-def]
    _, photos, _, graph = ring
    assert starting_pair("", photos, graph, usable=False) is None
    assert starting_pair(" photo02.jpg , photo00.jpg", photos, graph, usable=True) == (2, 0)
    for names, usable, what in (
        ("photo00.jpg,other.jpg", True, "no photo 'other.jpg'"),
        ("photo00.jpg", True, "two photos were expected"),
        ("photo00.jpg,photo00.jpg", True, "two photos were expected"),
        ("photo00.jpg,photo01.jpg", False, "incremental mapping of unknown cameras"),
        ("photo00.jpg,photo04.jpg", True, "does not join"),
    ):
        with pytest.raises(UsageError, match=what):
            starting_pair(names, photos, graph, usable=usable)


def test_a_verdict_is_written_told_and_ends_the_run_where_it_must(tmp_path: Path, ring) -> None:  # type: ignore[no-untyped-def]
    scene, photos, tracks, graph = ring
    model = map_known(photos, tracks, dict(enumerate(scene.poses)), OPTIONS).best
    assert model is not None
    sound = judge(figures_of(model, photos, graph, tracks))
    work = StageContext(tmp_path, "map", "test")
    tell_verdict(sound, work, refuse=True)
    assert json.loads((tmp_path / TRUST).read_text())["verdict"] == sound.verdict
    nothing = judge(replace(sound.figures, turns_explain=0.97))
    assert nothing.verdict == "not a reconstruction"
    tell_verdict(nothing, work, refuse=False)
    assert any(warning.startswith("not a reconstruction: ") for warning in work.warnings)
    with pytest.raises(ReconError, match="this is not a reconstruction"):
        tell_verdict(nothing, work, refuse=True)
    assert json.loads((tmp_path / TRUST).read_text())["verdict"] == "not a reconstruction"


def test_photos_without_a_model_are_told_a_turn_from_little_overlap(tmp_path: Path, ring) -> None:  # type: ignore[no-untyped-def]
    scene, photos, tracks, _ = ring
    none = MappingResult((), None, ())
    work = StageContext(tmp_path, "map", "test")
    assert "no cameras could be found" in str(tell_no_model(none, photos, tracks, work))
    assert not (tmp_path / TRUST).exists()
    about_y = [Rotation.from_euler("y", degrees, degrees=True).as_matrix() for degrees in (-8, -4, 0, 4, 8)]
    turns = make_scene([turn @ scene.poses[2] for turn in about_y])
    error = tell_no_model(none, photos, exact_tracks(turns), work)
    assert "The camera only turned" in str(error)
    assert json.loads((tmp_path / TRUST).read_text())["figures"]["turns_explain"] > 0.9
