"""Results of other tools on disk: databases that COLMAP wrote, models and surfaces under their usual names."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from recon.errors import ReconError, UsageError
from recon.evaluation.sources import check_same_world, has_faces, read_truth
from recon.run.colmap_database import matches_from_database, photo_sizes_from_database
from recon.run.folder import RunFolder, find_cloud, find_mesh, find_model
from tests.support.evaluation_run import NAMES, Scene, make_scene, write_mesh_ply, write_model


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("scene"))


def write_database(path: Path, verified: bool) -> None:
    database = pycolmap.Database.open(str(path))
    camera = pycolmap.Camera(camera_id=1, model="PINHOLE", width=160, height=120, params=[100, 100, 80, 60])
    database.write_camera(camera, use_camera_id=True)
    for number, name in ((1, "b.png"), (2, "a.png")):
        database.write_image(pycolmap.Image(image_id=number, camera_id=1, name=name), use_image_id=True)
        database.write_keypoints(number, (np.arange(8).reshape(4, 2) + 10 * number + 0.5).astype(np.float32))
    rows = np.array([[0, 1], [2, 3], [3, 0]], np.uint32)
    database.write_matches(1, 2, rows)
    if verified:
        geometry = pycolmap.TwoViewGeometry()
        geometry.config = int(pycolmap.TwoViewGeometryConfiguration.CALIBRATED)
        geometry.inlier_matches = rows[:2]
        database.write_two_view_geometry(1, 2, geometry)
    database.close()


@pytest.mark.parametrize("verified", [True, False])
def test_matches_of_a_colmap_database(tmp_path: Path, verified: bool) -> None:
    """Pixels lose COLMAP's half, pairs come in the order of the names."""
    write_database(tmp_path / "database.db", verified)
    before = (tmp_path / "database.db").read_bytes()
    ((pair, match, count),) = matches_from_database(tmp_path)
    assert pair == ("a.png", "b.png")
    assert count == (2 if verified else 3)
    np.testing.assert_array_equal(match.xy_a[:2], [[22, 23], [26, 27]])
    np.testing.assert_array_equal(match.xy_b[:2], [[10, 11], [14, 15]])
    assert photo_sizes_from_database(tmp_path) == {"a.png": (160, 120), "b.png": (160, 120)}
    ((_, sample, total),) = matches_from_database(tmp_path / "database.db", limit=1)
    assert (len(sample.xy_a), total) == (1, count)
    assert (tmp_path / "database.db").read_bytes() == before


def test_what_is_no_database(tmp_path: Path) -> None:
    assert list(matches_from_database(tmp_path)) == []
    (tmp_path / "database.db").write_text("text, not a database, and longer than a header would be " * 20)
    with pytest.raises(ReconError, match=r"database\.db: not a COLMAP database"):
        list(matches_from_database(tmp_path))
    with pytest.raises(ReconError, match=r"database\.db: not a COLMAP database"):
        photo_sizes_from_database(tmp_path)
    (tmp_path / "database.db").unlink()
    sqlite3.connect(tmp_path / "database.db").execute("CREATE TABLE other (x)").connection.close()
    with pytest.raises(ReconError, match="not a COLMAP database"):
        list(matches_from_database(tmp_path))


@pytest.mark.parametrize("below", [".", "sparse", "sparse/0", "dense/sparse"])
def test_models_where_tools_leave_them(scene: Scene, tmp_path: Path, below: str) -> None:
    write_model(tmp_path / below, scene.views)
    run = RunFolder(tmp_path)
    assert find_model(tmp_path) == tmp_path / below
    assert list(run.cameras) == list(NAMES)
    np.testing.assert_allclose(run.cameras["0001.png"].intrinsics.K, scene.views[1].K, atol=1e-9)
    sparse = run.sparse()
    assert sparse is not None
    pixels, z = run.cameras["0002.png"].project(sparse.xyz)
    assert (z > 0).all()
    assert ((pixels > 0) & (pixels < [160, 120])).all()
    truth = read_truth(tmp_path)
    assert set(truth.cameras) == set(NAMES)
    assert truth.layout == "colmap"


def test_a_distorted_camera_projects_as_colmap_does(tmp_path: Path) -> None:
    (tmp_path / "cameras.txt").write_text("1 OPENCV 160 120 100 101 80 60 -0.1 0.02 0.001 -0.002\n")
    (tmp_path / "images.txt").write_text("1 1 0 0 0 0.1 0.2 0.3 1 a.png\n\n")
    (tmp_path / "points3D.txt").write_text("")
    points = np.array([[0.3, -0.2, 4.0], [1.0, 0.7, 3.0], [0, 0, -9.0]])
    pixels, z = RunFolder(tmp_path).cameras["a.png"].project(points)
    model = pycolmap.Reconstruction(str(tmp_path))
    image = model.images[1]
    for k in (0, 1):
        np.testing.assert_allclose(pixels[k] + 0.5, image.project_point(points[k]), atol=1e-6)
    assert np.isnan(pixels[2]).all()
    assert z[2] < 0
    camera = read_truth(tmp_path).cameras["a.png"]
    np.testing.assert_allclose(camera.intrinsics.params[4:], [-0.1, 0.02, 0.001, -0.002])
    assert camera.intrinsics.model == "OPENCV"


def test_surfaces_under_the_names_of_tools(scene: Scene, tmp_path: Path) -> None:
    assert find_cloud(tmp_path) is None
    assert find_mesh(tmp_path) is None
    write_mesh_ply(tmp_path / "scene_dense_mesh.ply", scene.mesh)
    write_mesh_ply(tmp_path / "fused.ply", scene.mesh)
    run = RunFolder(tmp_path)
    mesh, cloud = run.mesh(), run.cloud()
    assert mesh is not None
    assert cloud is not None
    np.testing.assert_allclose(mesh.vertices, scene.mesh.vertices, atol=1e-6)
    assert len(cloud) == len(scene.mesh.vertices)
    big = RunFolder(tmp_path, mesh=tmp_path / "scene_dense_mesh.ply", scale=1000.0)
    assert big.cloud() is None
    scaled = big.mesh()
    assert scaled is not None
    np.testing.assert_allclose(scaled.vertices, 1000 * mesh.vertices, rtol=1e-6)
    assert has_faces(tmp_path / "fused.ply")


def test_truth_from_files(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "scan.ply"
    write_mesh_ply(path, scene.mesh)
    assert read_truth(path).mesh == path
    path.write_text("ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"
                    "end_header\n1 2 3\n")  # fmt: skip
    assert read_truth(path).points == (path,)
    with pytest.raises(UsageError, match="no such file"):
        read_truth(tmp_path / "none")
    with pytest.raises(ReconError, match="holds no truth"):
        read_truth(tmp_path)
    path.write_text("solid")
    with pytest.raises(ReconError, match="not a PLY"):
        read_truth(path)
    path.write_text("ply\nformat ascii 1.0\n")
    with pytest.raises(ReconError, match="within its header"):
        read_truth(path)


def test_worlds_that_cannot_be_one() -> None:
    points = np.random.default_rng(0).uniform(0, 2, (500, 3))
    check_same_world(points, points * 3 + 1, "a.ply", "truth")
    with pytest.raises(ReconError, match=r"a\.ply.*units differ by about 0\.001"):
        check_same_world(points * 1000, points, "a.ply", "truth")
    with pytest.raises(ReconError, match=r"a\.ply and the truth truth lie .* apart"):
        check_same_world(points + np.array([50, 0, 0]), points, "a.ply", "truth")
