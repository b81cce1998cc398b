"""New photos are placed in a model whose cameras stay bit for bit; one that does not belong is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recon.core.colmap import image_id, pycolmap
from recon.graph.tracks import select_observations
from recon.graph.types import Tracks
from recon.sfm.adapter import points_of_tracks, posed_cameras
from recon.sfm.mapping import MappingSettings, map_known
from recon.sfm.model_extension import NotPlacedError, posed_tracks, register_photos
from recon.sfm.track_refinement import with_references
from tests.support.sfm_scene import RING, exact_tracks, make_scene, photo_set_of
from tests.unit.sfm import test_polish as ridge

SETTINGS = MappingSettings(threads=1)
SCENE = make_scene(RING)
PHOTOS = photo_set_of(SCENE)
NEW = 3


def seen() -> Tracks:
    return with_references(exact_tracks(SCENE, noise=0.1))


def renumbered(without: int) -> dict[int, int]:
    """Ids of all photos by their ids in a set without one of them."""
    return {number - (number > without): number for number in range(len(RING)) if number != without}


def before(tracks: Tracks, without: int = NEW) -> tuple[object, object, Tracks]:
    """The model, the photos and the tracks of a run without a photo."""
    ids = {after: number for number, after in renumbered(without).items()}
    left = select_observations(tracks, tracks.photo_id != without)
    left = replace(left, photo_id=np.array([ids[one] for one in left.photo_id.tolist()], np.int32))
    kept = [photo for photo in PHOTOS.photos if photo.id != without]
    photos = replace(PHOTOS, photos=tuple(replace(photo, id=ids[photo.id]) for photo in kept))
    poses = {ids[number]: pose for number, pose in enumerate(SCENE.poses) if number != without}
    model = map_known(photos, with_references(left), poses, SETTINGS).best
    assert model is not None
    return model, photos, with_references(left)


def poses_of(model: pycolmap.Reconstruction) -> dict[str, bytes]:
    """Poses by photo name, as they are in memory."""
    return {
        image.name: np.concatenate([pose.rotation.quat, pose.translation]).tobytes()
        for image in model.images.values()
        for pose in [image.cam_from_world()]
    }


def test_a_photo_is_placed_and_all_others_stay_bit_for_bit() -> None:
    tracks = seen()
    model, photos, left = before(tracks)
    earlier = posed_tracks(model, photos, left, renumbered(NEW))  # type: ignore[arg-type]
    found = register_photos(earlier, PHOTOS, [NEW], tracks, {}, SETTINGS, polish=False)
    now, then = poses_of(found.model), poses_of(model)  # type: ignore[arg-type]
    name = PHOTOS.photos[NEW].name
    assert {key: pose for key, pose in now.items() if key != name} == then
    assert now.keys() - then.keys() == {name}
    camera = posed_cameras(found.model, PHOTOS)[NEW]
    truth = SCENE.poses[NEW]
    assert np.linalg.norm(camera.center + truth[:, :3].T @ truth[:, 3]) < 0.005
    _, held = points_of_tracks(found.model, PHOTOS, found.tracks)
    assert held[found.tracks.photo_id == NEW].mean() > 0.95
    found.model.update_point_3d_errors()
    assert found.model.compute_mean_reprojection_error() < 0.2
    assert found.model.images[image_id(NEW)].num_points3D > 300


def test_a_track_that_starts_in_the_new_photo_becomes_a_point() -> None:
    tracks = seen()
    assert tracks.is_reference is not None
    mine = np.unique(tracks.track_id[tracks.photo_id == NEW])[::4]  # the run before had none of these
    known = select_observations(tracks, ~np.isin(tracks.track_id, mine))
    model, photos, left = before(known)
    starts = (tracks.photo_id == NEW) & np.isin(tracks.track_id, mine)
    reference = np.where(np.isin(tracks.track_id, mine), starts, tracks.is_reference)
    earlier = posed_tracks(model, photos, left, renumbered(NEW))  # type: ignore[arg-type]
    found = register_photos(
        earlier, PHOTOS, [NEW], replace(tracks, is_reference=reference), {}, SETTINGS, polish=False
    )
    xyz, _ = points_of_tracks(found.model, PHOTOS, found.tracks)
    added = xyz[earlier.tracks.count :]
    assert len(added) == len(mine)
    near = np.linalg.norm(added[:, None] - SCENE.points[None], axis=2).min(axis=1)
    assert np.nanmedian(near) < 0.02
    assert np.isfinite(added).all(axis=1).mean() > 0.9


def test_a_photo_that_is_gone_takes_only_its_own_observations_with_it() -> None:
    tracks = seen()
    model = map_known(PHOTOS, tracks, dict(enumerate(SCENE.poses)), SETTINGS).best
    assert model is not None
    now = {before: after for after, before in renumbered(NEW).items()}
    earlier = posed_tracks(model, PHOTOS, tracks, now)
    kept = [photo for photo in PHOTOS.photos if photo.id != NEW]
    photos = replace(PHOTOS, photos=tuple(replace(photo, id=now[photo.id]) for photo in kept))
    found = register_photos(earlier, photos, [], earlier.tracks, {}, SETTINGS, polish=False)
    then = poses_of(model)
    del then[PHOTOS.photos[NEW].name]
    assert poses_of(found.model) == then
    assert len(found.tracks.track_id) <= len(tracks.track_id) - int((tracks.photo_id == NEW).sum())
    assert found.model.num_points3D() > 0.95 * model.num_points3D()


def test_a_photo_of_something_else_is_refused() -> None:
    tracks = seen()
    model, photos, left = before(tracks)
    rng = np.random.default_rng(0)
    xy = tracks.xy.copy()
    of_new = np.nonzero(tracks.photo_id == NEW)[0]
    xy[of_new] = rng.permutation(xy[of_new])
    earlier = posed_tracks(model, photos, left, renumbered(NEW))  # type: ignore[arg-type]
    with pytest.raises(NotPlacedError, match=r"points of the earlier model agree on where photo03\.jpg"):
        register_photos(earlier, PHOTOS, [NEW], replace(tracks, xy=xy), {}, SETTINGS, polish=False)
    alone = select_observations(tracks, tracks.photo_id != NEW)
    with pytest.raises(NotPlacedError, match=r"photo03\.jpg sees 0 points"):
        register_photos(earlier, PHOTOS, [NEW], alone, {}, SETTINGS, polish=False)


def test_observations_in_the_new_photo_are_aligned_and_others_stay_where_they_are() -> None:
    photos, exact, points, images = ridge.exact()
    rng = np.random.default_rng(1)
    of_new = exact.photo_id == 4
    xy = exact.xy.copy()
    xy[of_new] += rng.normal(0, 0.5, (int(of_new.sum()), 2)).astype(np.float32)
    rough = replace(exact, xy=xy)
    model = ridge.true_model(photos, exact, points)
    earlier = posed_tracks(model, photos, exact, {number: number for number in range(4)})
    found = register_photos(earlier, photos, [4], rough, images, SETTINGS)
    truth = ridge.POSES[4]
    off = {
        polish: np.linalg.norm(posed_cameras(one.model, photos)[4].center + truth[:, :3].T @ truth[:, 3])
        for polish, one in (
            (True, found),
            (False, register_photos(earlier, photos, [4], rough, images, SETTINGS, polish=False)),
        )
    }
    assert off[True] < 0.3 * off[False]
    assert off[True] < 0.003
    others = found.tracks.photo_id != 4
    places = {tuple(row) for row in earlier.tracks.xy.tolist()}
    share = np.mean([tuple(row) in places for row in found.tracks.xy[others].tolist()])
    assert share == 1.0
