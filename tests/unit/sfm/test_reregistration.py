"""A photo that stands in the wrong place goes where most of its points are seen from; the others stay."""

from __future__ import annotations

import numpy as np

from recon.core.colmap import image_id, pycolmap
from recon.graph.tracks import make_tracks
from recon.sfm.mapping import MappingSettings, map_known
from recon.sfm.reregistration import reregister_photos
from tests.support.sfm_scene import RING, exact_tracks, make_scene, photo_set_of

SETTINGS = MappingSettings(threads=1)


def test_the_majority_of_the_observations_says_where_a_photo_belongs() -> None:
    scene = make_scene(RING)
    photos = photo_set_of(scene)
    tracks = exact_tracks(scene, noise=0.1)
    truth = dict(enumerate(scene.poses))
    rng = np.random.default_rng(0)
    # A third of the observations of photo 3 are those of a look-alike place, and the mapper took them for its own.
    of_three = np.nonzero(tracks.photo_id == 3)[0]
    away = scene.poses[3].copy()
    away[:, 3] += [0.9, 0.0, 0.2]
    wrong = rng.choice(of_three, len(of_three) // 3, replace=False)
    local = scene.points[tracks.track_id[wrong]] @ away[:, :3].T + away[:, 3]
    xy = tracks.xy.copy()
    K = scene.camera.K
    xy[wrong] = (local[:, :2] / local[:, 2:] * [K[0, 0], K[1, 1]] + K[:2, 2]).astype(np.float32)
    tracks = make_tracks(tracks.track_id, tracks.photo_id, xy)
    folded = map_known(photos, tracks, {**truth, 3: away}, SETTINGS).best
    assert folded is not None
    found = reregister_photos(folded, photos, tracks, SETTINGS)
    assert found.moved == (3,)
    assert isinstance(found.model, pycolmap.Reconstruction)
    for photo in truth:
        image = found.model.images[image_id(photo)]
        centre = image.projection_center()
        true_centre = -truth[photo][:, :3].T @ truth[photo][:, 3]
        assert np.linalg.norm(centre - true_centre) < 0.02
    # A model that is right is handed back as it is.
    right = map_known(photos, tracks, truth, SETTINGS).best
    assert right is not None
    assert reregister_photos(right, photos, tracks, SETTINGS).model is right
