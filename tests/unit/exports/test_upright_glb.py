"""Meshes that open upright elsewhere, and that keep their millimetres in coordinates as large as UTM."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from recon.core.cameras import PinholeView
from recon.core.frames import upright_rotation
from recon.exports.scene import reconstruction_from_scene
from recon.io.glb import model_from_scene, move_glb, read_glb, upright_glb
from recon.io.pictures import encode_picture
from recon.io.surfaces import read_mesh
from recon.surface.texture.files import textured_glb, write_textured_obj
from recon.surface.texture.types import TexturedMesh
from tests.support.exports_scene import camera_of, look_at, write_workspace

trimesh = pytest.importorskip("trimesh")
pygltflib = pytest.importorskip("pygltflib")

UTM = np.array([500_000.0, 5_400_000.0, 300.0])
K = np.array([[300.0, 0, 159.5], [0, 300.0, 119.5], [0, 0, 1]])


def mesh_at(place: np.ndarray, R: np.ndarray) -> TexturedMesh:
    """A triangulated wall, 4 wide (x), 2 high (z), bulging to -y, turned by R and put somewhere."""
    x, z = np.meshgrid(np.linspace(-2, 2, 9), np.linspace(0, 2, 6))
    flat = np.stack([x, -0.3 * np.cos(x) * z, z], axis=-1).reshape(-1, 3)
    a = (np.arange(5)[:, None] * 9 + np.arange(8)[None]).ravel()
    faces = np.concatenate([np.stack([a, a + 1, a + 10], 1), np.stack([a, a + 10, a + 9], 1)]).astype(
        np.int32
    )
    uvs = (np.stack([x, z], axis=-1).reshape(-1, 2) / [4, 2] + [0.5, 0])[faces]
    texture = np.random.default_rng(0).integers(0, 256, (16, 32, 3)).astype(np.uint8)
    zero = np.zeros(len(faces), np.int32)
    return TexturedMesh(flat @ R.T + place, faces, uvs, texture, zero, zero)


def views_at(place: np.ndarray, R: np.ndarray) -> list[PinholeView]:
    """Photos along a walk before the wall, pitched as it comes."""
    views = []
    for index, x in enumerate((-3.0, -1.0, 1.0, 3.0)):
        eye = np.array([x, -6.0, 1.5 + 0.1 * x**2])
        pose = look_at(eye, np.array([0.2 * x, 0.0, 0.1 * x**2]), np.array([0.0, 0, 1]))
        rotation = pose[:, :3] @ R.T
        views.append(
            PinholeView(
                index, f"{index}", K, np.column_stack([rotation, -rotation @ (R @ eye + place)]), 320, 240
            )
        )
    return views


def scene_vertices(data: bytes) -> np.ndarray:
    """Corners of all faces as trimesh places them in the file's scene."""
    mesh = trimesh.load_scene(io.BytesIO(data), file_type="glb", process=False).to_mesh()
    return np.asarray(mesh.vertices, np.float64)[np.asarray(mesh.faces)]


@pytest.mark.parametrize("place", [np.zeros(3), UTM], ids=["near", "UTM"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_textured_glb_stands_upright_and_faces_the_viewer(
    place: np.ndarray, seed: int, tmp_path: Path
) -> None:
    R = Rotation.random(random_state=seed).as_matrix()
    mesh, views = mesh_at(place, R), views_at(place, R)
    data = upright_glb(textured_glb(mesh, [encode_picture(mesh.texture, "jpg")]), views)
    corners = scene_vertices(data)
    plain = mesh_at(np.zeros(3), np.eye(3))
    wall = plain.vertices[plain.faces]
    # Up is y, right as the photos see it is x, and what they see faces them at z: to 1.5 degrees.
    for axis, expected in ((0, wall[..., 0]), (1, wall[..., 2]), (2, -wall[..., 1])):
        got = corners[..., axis]
        np.testing.assert_allclose(got - got.mean(), expected - expected.mean(), atol=0.05)
    assert np.abs(corners).max() < 20  # nothing large: single precision holds it
    document = pygltflib.GLTF2.load_from_bytes(data)
    root = document.nodes[document.scenes[0].nodes[0]]
    matrix = np.array(root.matrix).reshape(4, 4).T
    np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1)
    assert np.abs(matrix).max() < 20
    # And the way back, in double precision.
    back = model_from_scene(read_glb(data)[0])
    model = corners @ back[:3, :3].T + back[:3, 3]
    np.testing.assert_allclose(model, mesh.vertices[mesh.faces], atol=1e-6)
    assert ("offset" in document.asset.extras) == bool(place.any())
    (tmp_path / "t.glb").write_bytes(data)
    read = np.asarray(read_mesh(tmp_path / "t.glb").vertices)
    np.testing.assert_allclose(read.min(axis=0), mesh.vertices.min(axis=0), atol=1e-5)
    np.testing.assert_allclose(read.max(axis=0), mesh.vertices.max(axis=0), atol=1e-5)


def test_turned_and_turned_back_is_the_file_that_was() -> None:
    mesh, views = mesh_at(UTM, np.eye(3)), views_at(UTM, np.eye(3))
    plain = textured_glb(mesh, [encode_picture(mesh.texture, "jpg")])
    data = upright_glb(plain, views)
    restored = move_glb(data, model_from_scene(read_glb(data)[0]), fresh=True)
    np.testing.assert_allclose(scene_vertices(restored), scene_vertices(plain), atol=1e-6)
    assert "extras" not in read_glb(restored)[0]["asset"]
    assert model_from_scene({"asset": {"version": "2.0"}}).tolist() == np.eye(4).tolist()


def test_photos_held_in_every_way_leave_the_model_as_it_lies() -> None:
    views = views_at(np.zeros(3), np.eye(3))[:2]
    over = np.diag([-1.0, -1.0, 1.0])  # the second photo upside down
    turned = [views[0], replace(views[0], cam_from_world=over @ views[0].cam_from_world)]
    with pytest.raises(ValueError, match="where up is"):
        upright_rotation(np.array([view.cam_from_world[:, :3] for view in turned]))
    mesh = mesh_at(np.zeros(3), np.eye(3))
    plain = textured_glb(mesh, [encode_picture(mesh.texture, "jpg")])
    np.testing.assert_allclose(scene_vertices(upright_glb(plain, turned)), scene_vertices(plain), atol=1e-7)


def test_obj_in_utm_has_the_digits(tmp_path: Path) -> None:
    mesh = mesh_at(UTM, np.eye(3))
    write_textured_obj(tmp_path / "t.obj", mesh, ["t.jpg"], material_path=tmp_path / "t.mtl")
    rows = [
        line.split()[1:] for line in (tmp_path / "t.obj").read_text().splitlines() if line.startswith("v ")
    ]
    np.testing.assert_allclose(np.array(rows, float), mesh.vertices, atol=1e-6)


def test_a_run_in_utm_gives_the_mesh_of_a_run_at_the_origin(tmp_path: Path) -> None:
    """Stages mesh and texture on a sphere of points, at the origin and in UTM: the same surface to 0.1 mm."""
    from recon.core.mesh import FusedCloud
    from recon.engine.stage import StageContext
    from recon.io.surfaces import read_points_ply, write_points_ply
    from recon.stages.mesh import MeshSettings, MeshStage
    from recon.stages.texture import TextureSettings, TextureStage

    rng = np.random.default_rng(0)
    normals = rng.normal(size=(4000, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    radii = []
    for name, place in (("near", np.zeros(3)), ("far", UTM)):
        root = tmp_path / name / "run"
        scene = write_workspace(root, [camera_of("PINHOLE")])
        reconstruction_from_scene(scene.moved(1.0, np.eye(3), place)).write_binary(root / "sparse" / "0")
        xyz = normals + place
        cloud = FusedCloud(
            xyz if place.any() else xyz.astype(np.float32),
            normals.astype(np.float32),
            np.full((4000, 3), 90, np.uint8),
            np.full(4000, 3, np.uint16),
            np.zeros(4000, np.int32),
            np.ones(4000, np.float32),
        )
        write_points_ply(root / "dense" / "points.ply", cloud)
        read = read_points_ply(root / "dense" / "points.ply")
        np.testing.assert_allclose(read.xyz, xyz, atol=1e-6)
        np.testing.assert_allclose(
            trimesh.load(root / "dense" / "points.ply", process=False).vertices, xyz, atol=1e-6
        )
        settings = MeshSettings(depth=6, formats=["ply", "obj", "glb"])
        MeshStage().run(settings, StageContext(root, threads=1))
        radii.append(
            np.sort(
                np.linalg.norm(np.asarray(read_mesh(root / "mesh" / "mesh.ply").vertices) - place, axis=1)
            )
        )
        from_obj = trimesh.load(root / "mesh" / "mesh.obj", process=False)
        assert np.abs(np.linalg.norm(from_obj.vertices - place, axis=1) - 1).max() < 0.02
        TextureStage().run(TextureSettings(faces=2000), StageContext(root, threads=1))
        textured = trimesh.load(root / "mesh" / "textured.obj", process=False, force="mesh")
        assert np.abs(np.linalg.norm(textured.vertices - place, axis=1) - 1).max() < 0.02
        data = (root / "mesh" / "textured.glb").read_bytes()
        back = model_from_scene(read_glb(data)[0])
        read = np.asarray(read_mesh(root / "mesh" / "textured.glb").vertices) - place
        assert np.abs(np.linalg.norm(read, axis=1) - 1).max() < 0.02
        model = scene_vertices(data) @ back[:3, :3].T + back[:3, 3] - place
        assert np.abs(np.linalg.norm(model, axis=-1) - 1).max() < 0.02
        corners = scene_vertices((root / "mesh" / "mesh.glb").read_bytes())
        assert np.abs(corners).max() < 8
        back = model_from_scene(read_glb((root / "mesh" / "mesh.glb").read_bytes())[0])
        model = corners.reshape(-1, 3) @ back[:3, :3].T + back[:3, 3] - place
        assert np.abs(np.linalg.norm(model, axis=1) - 1).max() < 0.02
    assert len(radii[0]) == len(radii[1])
    np.testing.assert_allclose(radii[0], radii[1], atol=1e-4)
