"""A photo added to a finished run, or taken from it: tracks and model go on from what is there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recon.api import reconstruct
from recon.core.colmap import read_reconstruction
from recon.engine.stage import StageContext
from recon.evaluation.poses import evaluate_poses, poses_from_colmap
from recon.io.cameras_json import poses_from_cameras_json
from recon.io.manifest import KEPT
from recon.run import photo_changes
from recon.run.folder import RunFolder
from recon.sfm.model_extension import NotPlacedError
from recon.tasks import model_extension
from tests.support.scenes import SceneFolder


@dataclass(frozen=True)
class Added:
    """A run of seven photos to which the eighth came.

    Attributes:
        photos, root: the folder of the photos and the workspace.
        late: name of the photo that came.
        counts: of the stages ``tracks`` and ``map`` when it came.
    """

    photos: Path
    root: Path
    late: str
    counts: dict[str, dict[str, Any]]


def run(scene: SceneFolder, photos: Path, out: Path, **more: Any) -> dict[str, dict[str, Any]]:
    settings = {"quality": "preview", "intrinsics": scene.cameras, "threads": 2, "stop_after": "map"}
    summary = reconstruct(photos, out, **settings, **more)
    return {name: dict(summary.counts(name)) for name in ("tracks", "map")}


@pytest.fixture(scope="module")
def added(scene: SceneFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Added]:
    """As if so many photos as here come and go were few."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photo_changes, "_MOST_CHANGED", 0.5)
        folder = tmp_path_factory.mktemp("added")
        photos, root = folder / "photos", folder / "out"
        shutil.copytree(scene.photos, photos)
        late = sorted(path.name for path in photos.iterdir())[3]
        (photos / late).unlink()
        assert KEPT not in run(scene, photos, root)["map"]
        shutil.copy(scene.photos / late, photos)
        yield Added(photos, root, late, run(scene, photos, root))


def poses(folder: Path) -> dict[str, tuple[float, ...]]:
    model = read_reconstruction(folder)
    return {
        image.name: tuple(image.cam_from_world().matrix().ravel().tolist()) for image in model.images.values()
    }


def test_earlier_cameras_stay_and_the_new_one_is_right(scene: SceneFolder, added: Added) -> None:
    assert added.counts["map"][KEPT] == 7
    assert added.counts["tracks"][KEPT] > 0
    then, now = poses(added.root / "previous/sparse/0"), poses(added.root / "sparse/0")
    assert now.keys() - then.keys() == {added.late}
    assert {name: pose for name, pose in now.items() if name != added.late} == then
    report = evaluate_poses(
        poses_from_colmap(added.root / "sparse/0"), poses_from_cameras_json(scene.cameras)
    )
    assert report.registered == 8
    # The cameras stand some 5 units from the wall; a pixel there covers about 0.015 units.
    assert report.center_max < 0.02
    before, after = (read_reconstruction(added.root / name) for name in ("previous/sparse/0", "sparse/0"))
    assert after.compute_mean_reprojection_error() < 1.1 * before.compute_mean_reprojection_error()
    assert after.num_points3D() > before.num_points3D()
    held = {image.name: image.num_points3D for image in after.images.values()}
    assert held[added.late] > 0.7 * np.median(list(held.values()))
    trust = RunFolder(added.root).trust()
    assert trust is not None
    assert trust["verdict"] == "sound"


def edit(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda stored: stored.update({name: value})


def other_focal_length(stored: dict[str, Any]) -> None:
    stored["given"]["cameras"][0]["params"][0] += 1.0


def camera_for_each(stored: dict[str, Any]) -> None:
    cameras = stored["photos"]["cameras"]
    cameras.append(cameras[0])
    stored["photos"]["photos"][0]["camera"] = 1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (edit("settings", "others"), "the settings are others"),
        (edit("verdict", "doubtful"), "it was doubtful"),
        (edit("models", 2), "one of 2"),
        (edit("tracks", "of another run"), "its tracks"),
        (edit("model", "another"), "not whole"),
        (edit("photos", {}), "not whole"),
        (other_focal_length, "intrinsics"),
        (camera_for_each, "a camera that no earlier photo has"),
    ],
)
def test_what_has_to_be_mapped_from_nothing(
    added: Added,
    tmp_path: Path,
    change: Callable[[dict[str, Any]], None],
    why: str,
) -> None:
    root = tmp_path / "out"
    shutil.copytree(added.root, root)
    path = root / "previous/sparse/sources.json"
    stored = json.loads(path.read_text())
    work, identity = StageContext(root, "map", "test"), stored["settings"]
    assert len(model_extension._earlier_model(RunFolder(root), identity, work).changes.new) == 1
    change(stored)
    path.write_text(json.dumps(stored))
    with pytest.raises(NotPlacedError, match=why):
        model_extension._earlier_model(RunFolder(root), identity, work)


def test_a_photo_taken_away_leaves_all_other_cameras(
    scene: SceneFolder, added: Added, tmp_path: Path
) -> None:
    root, gone = tmp_path / "out", sorted(path.name for path in added.photos.iterdir())[5]
    shutil.copytree(added.root, root)
    then = poses(root / "sparse/0")
    hidden = added.photos.parent / gone
    shutil.move(added.photos / gone, hidden)
    try:
        counts = run(scene, added.photos, root)
    finally:
        shutil.move(hidden, added.photos / gone)
    assert counts["map"][KEPT] == counts["map"]["registered"] == 7
    del then[gone]
    assert poses(root / "sparse/0") == then
    tracks = RunFolder(root).tracks()
    assert tracks.is_reference is not None
    assert np.bincount(tracks.track_id[tracks.is_reference]).tolist() == [1] * tracks.count
