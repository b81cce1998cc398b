"""The whole walk on rendered photos with exact truth: from a folder of photos to a mesh."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from recon.api import reconstruct, stages
from recon.errors import UsageError
from recon.evaluation.poses import evaluate_poses, poses_from_colmap
from recon.io.cameras_json import poses_from_cameras_json
from recon.io.surfaces import read_mesh, read_points_ply
from tests.support.scenes import SceneFolder


def test_every_photo_is_registered_close_to_the_truth(scene: SceneFolder, finished: Path) -> None:
    truth = poses_from_cameras_json(scene.cameras)
    report = evaluate_poses(poses_from_colmap(finished / "sparse" / "0"), truth)
    assert report.registered == report.total == len(truth)
    # The cameras stand some 5 units from the wall; a pixel there covers about 0.015 units.
    assert report.center_errors.mean() < 0.015
    assert np.max(report.rotation_errors) < 0.3


def test_surface_lies_on_the_truth(scene: SceneFolder, finished: Path) -> None:
    truth = poses_from_cameras_json(scene.cameras)
    similarity = evaluate_poses(poses_from_colmap(finished / "sparse" / "0"), truth).truth_from_estimate
    surface = np.asarray(read_mesh(scene.truth_mesh).sample_points_uniformly(200_000).points)
    from scipy.spatial import cKDTree

    tree = cKDTree(surface)
    for name, points in (
        ("cloud", read_points_ply(finished / "dense" / "points.ply").xyz.astype(float)),
        ("mesh", np.asarray(read_mesh(finished / "mesh" / "mesh.ply").vertices)),
    ):
        moved = similarity.scale * points @ similarity.rotation.T + similarity.translation
        distance, _ = tree.query(moved[:: max(1, len(moved) // 20_000)])
        assert np.median(distance) < 0.03, name
        assert np.mean(distance < 0.1) > 0.9, name


def test_cloud_and_mesh_are_coloured_like_the_photos(scene: SceneFolder, finished: Path) -> None:
    import cv2

    mean = np.mean([cv2.imread(str(p))[:, :, ::-1].mean(axis=(0, 1)) for p in scene.photos.iterdir()], axis=0)
    cloud = read_points_ply(finished / "dense" / "points.ply")
    assert np.abs(cloud.rgb.mean(axis=0) - mean).max() < 40
    colours = np.asarray(read_mesh(finished / "mesh" / "mesh.ply").vertex_colors) * 255
    assert np.abs(colours.mean(axis=0) - mean).max() < 40


def test_summary_says_what_is_on_disk(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    model = pycolmap.Reconstruction(finished / "sparse" / "0")
    assert summary["photos"]["registered"] == model.num_reg_images()
    assert summary["sparse"]["points"] == model.num_points3D()
    assert summary["dense"]["points"] == len(read_points_ply(finished / "dense" / "points.ply"))
    assert summary["mesh"]["faces"] == len(read_mesh(finished / "mesh" / "mesh.ply").triangles)
    names = [stage["name"] for stage in summary["stages"]]
    assert names == [stage.name for stage in stages()][:-1]
    assert all(stage["seconds"] >= 0 and stage["peak_memory_mb"] > 0 for stage in summary["stages"])
    assert summary["pictures"]
    assert all((finished / name).stat().st_size > 1000 for name in summary["pictures"])
    text = (finished / "summary.txt").read_text()
    assert f"{len(read_points_ply(finished / 'dense' / 'points.ply'))} points" in text


def test_database_and_graph_open_in_other_programs(finished: Path) -> None:
    import networkx as nx

    with pycolmap.Database.open(finished / "database.db") as database:
        assert database.num_images() == 8
        assert database.num_inlier_matches() > 1000
    graph = nx.read_graphml(finished / "view_graph.graphml", node_type=int)
    assert nx.is_connected(graph)
    assert graph.number_of_nodes() == 8


def test_second_run_computes_nothing(scene: SceneFolder, finished: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*.ply")}
    summary = reconstruct(scene.photos, finished, quality="preview", intrinsics=scene.cameras, threads=2)
    assert all(stage.skipped for stage in summary.stages)
    assert before == {p: p.stat().st_mtime_ns for p in finished.rglob("*.ply")}


def test_another_mesh_setting_keeps_the_points(scene: SceneFolder, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    summary = reconstruct(
        scene.photos,
        out,
        quality="preview",
        intrinsics=scene.cameras,
        overrides=["mesh.method=tsdf", "report.pictures=false"],
        threads=2,
    )
    redone = [stage.name for stage in summary.stages if not stage.skipped]
    assert redone == ["mesh", "texture", "report"]
    assert len(read_mesh(out / "mesh" / "mesh.ply").triangles) > 1000


def test_tracks_do_not_depend_on_threads_and_repeat_bit_for_bit(scene: SceneFolder, tmp_path: Path) -> None:
    """Four of the photos: six pairs, so that two threads always have several each."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in sorted(scene.photos.iterdir())[2:6]:
        shutil.copy(path, photos)
    for threads in (1, 2):
        out = tmp_path / f"threads-{threads}"
        reconstruct(
            photos, out, quality="preview", intrinsics=scene.cameras, threads=threads, stop_after="tracks"
        )
    with (
        np.load(tmp_path / "threads-1" / "tracks.npz") as one,
        np.load(tmp_path / "threads-2" / "tracks.npz") as two,
    ):
        assert set(one.files) == set(two.files)
        assert len(one["xy"]) > 1000
        for name in one.files:
            np.testing.assert_array_equal(one[name], two[name])


def test_a_folder_that_does_not_exist_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        reconstruct(tmp_path / "nothing", tmp_path / "out")
