"""Points from cameras that are given: the cameras stay, and the points are where they must be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recon.datasets.given_cameras import cameras_fingerprint, given_poses, read_cameras, with_given_intrinsics
from recon.errors import ReconError, UsageError
from recon.sfm.adapter import points_of_tracks, posed_cameras
from recon.sfm.mapping import MappingSettings, map_known
from tests.support.sfm_scene import KNOWN, RING, exact_tracks, make_scene, photo_set_of


def cameras_json(
    folder: Path, poses: list[np.ndarray], names: str = "photo{:02d}.jpg", scale: int = 1
) -> Path:
    fx, fy, cx, cy = KNOWN.params
    entries = [
        {
            "name": names.format(i),
            "width": 640 * scale,
            "height": 480 * scale,
            "fx": fx * scale,
            "fy": fy * scale,
            "cx": (cx + 0.5) * scale - 0.5,
            "cy": (cy + 0.5) * scale - 0.5,
            "R": pose[:, :3].tolist(),
            "t": pose[:, 3].tolist(),
        }
        for i, pose in enumerate(poses)
    ]
    path = folder / "cameras.json"
    path.write_text(json.dumps({"images": entries}))
    return path


def test_points_are_exact_and_cameras_stay() -> None:
    scene = make_scene(RING)
    photos = photo_set_of(scene)
    tracks = exact_tracks(scene, share=0.7)
    result = map_known(photos, tracks, dict(enumerate(RING)))
    assert result.best is not None
    assert result.left_out == ()
    for photo, camera in posed_cameras(result.best, photos).items():
        np.testing.assert_allclose(camera.cam_from_world, RING[photo], atol=1e-12)
    xyz, held = points_of_tracks(result.best, photos, tracks)
    assert held.mean() > 0.99
    # Tracks are renumbered in the order of the scene's points that at least two photos see.
    found = xyz[np.isfinite(xyz).all(axis=1)]
    distance = np.linalg.norm(found[:, None] - scene.points[None], axis=2).min(axis=1)
    assert distance.max() < 1e-4  # xy is float32: 1e-5 px of 640


def test_wrong_observations_are_dropped_and_the_points_stay_good() -> None:
    scene = make_scene(RING)
    photos = photo_set_of(scene)
    tracks = exact_tracks(scene)
    rng = np.random.default_rng(3)
    wrong = rng.random(len(tracks.xy)) < 0.15
    xy = tracks.xy + 80 * wrong[:, None] * rng.choice([-1, 1], tracks.xy.shape)
    spoilt = replace(tracks, xy=xy.astype(np.float32))
    result = map_known(photos, spoilt, dict(enumerate(RING)), MappingSettings(seed=1))
    assert result.best is not None
    xyz, held = points_of_tracks(result.best, photos, spoilt)
    assert not held[wrong].any()
    assert held[~wrong].mean() > 0.98
    found = xyz[np.isfinite(xyz).all(axis=1)]
    assert np.linalg.norm(found[:, None] - scene.points[None], axis=2).min(axis=1).max() < 1e-3


def test_photos_without_a_pose_are_left_out() -> None:
    scene = make_scene(RING)
    photos = photo_set_of(scene)
    poses = {i: pose for i, pose in enumerate(RING) if i != 3}
    result = map_known(photos, exact_tracks(scene), poses)
    assert [out.name for out in result.left_out] == ["photo03.jpg"]
    assert result.best is not None
    assert result.best.num_reg_images() == len(RING) - 1
    with pytest.raises(ValueError, match="two are needed"):
        map_known(photos, exact_tracks(scene), {0: RING[0]})


def test_given_cameras_of_another_size_and_folder(tmp_path: Path) -> None:
    photos = photo_set_of(make_scene(RING))
    path = cameras_json(tmp_path, RING, names="somewhere/photo{:02d}.jpg", scale=2)
    cameras = read_cameras(path)
    fitted = with_given_intrinsics(photos, cameras, path)
    assert len(fitted.cameras) == 1
    assert fitted.cameras[0].known
    np.testing.assert_allclose(fitted.cameras[0].params, KNOWN.params, atol=1e-9)
    np.testing.assert_allclose(given_poses(fitted, cameras)[4], RING[4], atol=1e-9)


def test_a_model_of_colmap_gives_its_cameras(tmp_path: Path) -> None:
    scene = make_scene(RING)
    photos = photo_set_of(scene)
    result = map_known(photos, exact_tracks(scene), dict(enumerate(RING)))
    assert result.best is not None
    folder = tmp_path / "sparse" / "0"
    folder.mkdir(parents=True)
    result.best.write(folder)
    cameras = read_cameras(tmp_path)  # a run's folder
    assert sorted(cameras) == [photo.name for photo in photos.photos]
    np.testing.assert_allclose(cameras["photo02.jpg"].cam_from_world, RING[2], atol=1e-12)
    np.testing.assert_allclose(cameras["photo02.jpg"].intrinsics.params, KNOWN.params, atol=1e-9)


def test_the_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    path = cameras_json(tmp_path, RING)
    before = cameras_fingerprint(path)
    path.write_text(json.dumps(json.loads(path.read_text()), indent=3))
    assert cameras_fingerprint(path) == before
    cameras_json(tmp_path, RING[::-1])
    assert cameras_fingerprint(path) != before


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    photos = photo_set_of(make_scene(RING))
    path = cameras_json(tmp_path, RING, names="other{:02d}.jpg")
    with pytest.raises(ReconError, match=r"cameras for 0 of the 8 photos.*other00.*photo00"):
        with_given_intrinsics(photos, read_cameras(path), path)
    with pytest.raises(UsageError, match="no such file"):
        read_cameras(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReconError, match="holds no cameras"):
        read_cameras(tmp_path / "empty")
