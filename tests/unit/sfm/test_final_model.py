"""From the models of a mapping to the final one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recon.core.colmap import image_id
from recon.graph.tracks import make_tracks
from recon.graph.types import Tracks
from recon.photos.types import PhotoSet
from recon.sfm.final_model import FinalModel, checked, verdict_on
from recon.sfm.mapping import MappingSettings, map_incremental, map_known
from tests.support.sfm_scene import RING, exact_tracks, graph_of, make_scene, photo_set_of, project

OPTIONS = MappingSettings(threads=1)


def not_written(*_: PhotoSet | Tracks) -> Path:
    raise AssertionError("nothing speaks for other cameras")


def test_a_photo_in_the_wrong_place_is_registered_again_and_said() -> None:
    scene = make_scene(RING)
    photos = photo_set_of(scene)
    away = scene.poses[3].copy()
    away[:, 3] += [0.9, 0.0, 0.2]
    tracks = exact_tracks(scene, noise=0.1)
    rows = np.nonzero(tracks.photo_id == 3)[0][::3]
    xy = tracks.xy.copy()
    xy[rows] = project(replace(scene, poses=[away]), 0)[tracks.track_id[rows]]
    tracks = make_tracks(tracks.track_id, tracks.photo_id, xy)
    folded = map_known(photos, tracks, {**dict(enumerate(scene.poses)), 3: away}, OPTIONS)
    graph, _ = graph_of(photos, tracks)
    before = FinalModel(folded, photos, tracks, OPTIONS)
    after = checked(before, graph, mapper=map_incremental, write=not_written, test_cameras=False)
    assert after.notes == ("photo03.jpg was registered again: most of its points were elsewhere",)
    truth = -scene.poses[3][:, :3].T @ scene.poses[3][:, 3]
    centres = [np.array(final.model.images[image_id(3)].projection_center()) for final in (before, after)]
    assert np.linalg.norm(centres[0] - truth) > 0.5
    assert np.linalg.norm(centres[1] - truth) < 0.02


@pytest.mark.parametrize("known", [True, False])
def test_under_small_angles_intrinsics_stay_and_only_a_guess_is_a_doubt(known: bool) -> None:
    scene = make_scene(RING)
    camera = replace(scene.camera, known=known, has_focal_prior=known)
    photos, tracks = photo_set_of(scene, camera), exact_tracks(scene, noise=0.1)
    graph, _ = graph_of(photos, tracks)
    result = replace(map_known(photos, tracks, dict(enumerate(scene.poses)), OPTIONS), small_angles=True)
    final = checked(
        FinalModel(result, photos, tracks, OPTIONS), graph, mapper=map_incremental, write=not_written
    )
    assert final.tests == ()
    assert all(one.known for one in final.photos.cameras)
    assert final.guess_stayed is not known
    assert verdict_on(final, graph, ()).figures.intrinsics_fixed is not known
