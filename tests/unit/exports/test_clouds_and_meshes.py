"""Point clouds and meshes, read back by libraries that this project does not use itself."""

from __future__ import annotations

import datetime
import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from recon.core.frames import Y_UP_FROM_Z_UP
from recon.core.mesh import PointCloud
from recon.core.similarity import Similarity3
from recon.exports.clouds import to_las, to_ply
from recon.io.glb import move_glb, read_glb
from recon.io.obj import move_obj, to_obj

trimesh = pytest.importorskip("trimesh")
laspy = pytest.importorskip("laspy")
pygltflib = pytest.importorskip("pygltflib")

TURN = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


def make_cloud(n: int = 300, extent: float = 20.0) -> PointCloud:
    rng = np.random.default_rng(3)
    normals = rng.normal(size=(n, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return PointCloud(
        rng.uniform(-extent, extent, (n, 3)),
        normals.astype(np.float32),
        rng.integers(0, 256, (n, 3)).astype(np.uint8),
    )


def test_ply_opens_elsewhere(tmp_path: Path) -> None:
    cloud = make_cloud()
    path = tmp_path / "Wölke 1.ply"
    path.write_bytes(to_ply(cloud, ("offset 1 2 3",)))
    read = trimesh.load(path, process=False)
    np.testing.assert_allclose(read.vertices, cloud.xyz.astype(np.float32), rtol=0, atol=0)
    assert np.array_equal(np.asarray(read.colors)[:, :3], cloud.rgb)
    import open3d as o3d

    points = o3d.io.read_point_cloud(str(path))
    np.testing.assert_allclose(np.asarray(points.normals), cloud.normals, atol=1e-6)


def test_cloud_moved_keeps_distances_and_turns_normals() -> None:
    cloud = make_cloud()
    moved = cloud.moved(2.0, TURN, np.array([5.0, 6.0, 7.0]))
    np.testing.assert_allclose(moved.xyz[:, 0], -2 * cloud.xyz[:, 1] + 5)
    np.testing.assert_allclose(moved.normals[:, 1], cloud.normals[:, 0], atol=1e-7)


def test_finite_leaves_out_what_is_no_number() -> None:
    cloud = make_cloud()
    cloud.xyz[4, 1] = np.nan
    cloud.xyz[9, 2] = np.inf
    assert len(cloud.finite()) == len(cloud) - 2


def test_las_keeps_millimetres_at_utm_coordinates() -> None:
    pyproj = pytest.importorskip("pyproj")
    cloud = make_cloud()
    offset = np.array([691_000.0, 5_334_000.0, 520.0])
    las = laspy.read(io.BytesIO(to_las(cloud, offset, 32632, created=datetime.date(2024, 2, 29))))
    assert las.header.creation_date == datetime.date(2024, 2, 29)
    truth = cloud.xyz + offset
    assert np.abs(las.xyz - truth).max() < 1e-4
    # The same in single precision would err by half a metre: this is what the offset is for.
    assert np.abs(truth.astype(np.float32) - truth).max() > 0.1
    np.testing.assert_allclose(las.header.mins, truth.min(axis=0), atol=1e-3)
    np.testing.assert_allclose(las.header.maxs, truth.max(axis=0), atol=1e-3)
    assert np.array_equal(np.stack([las.red, las.green, las.blue], 1) // 257, cloud.rgb)
    assert las.header.parse_crs() == pyproj.CRS.from_epsg(32632)
    assert np.all(np.asarray(las.return_number) == 1)
    assert las.header.point_count == len(cloud)


@pytest.mark.parametrize("extent", [1e-3, 1.0, 5e4])
def test_las_of_any_scale(extent: float) -> None:
    """A run without georeference has units of its own: their size must not matter."""
    cloud = make_cloud(extent=extent)
    las = laspy.read(io.BytesIO(to_las(cloud)))
    assert np.abs(las.xyz - cloud.xyz).max() < 1e-7 * extent
    assert las.header.parse_crs() is None


def test_las_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="without points"):
        to_las(PointCloud(np.zeros((0, 3)), np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8)))
    with pytest.raises(ValueError, match="does not fit"):
        to_las(make_cloud(extent=1e6), resolution=1e-6)


def test_obj_and_glb_moved_agree_with_the_formula(tmp_path: Path) -> None:
    box = trimesh.creation.box((1.0, 2.0, 3.0))
    box.visual.vertex_colors = np.random.default_rng(0).integers(0, 256, (len(box.vertices), 4))
    rotation = Y_UP_FROM_Z_UP @ TURN
    matrix = Similarity3(2.5, rotation, np.array([1.0, -2.0, 3.0])).matrix
    expected = 2.5 * box.vertices @ rotation.T + [1.0, -2.0, 3.0]

    moved = move_obj(trimesh.exchange.obj.export_obj(box, include_normals=True), matrix, ("offset 1 2 3",))
    assert moved.startswith("# offset 1 2 3\n")
    (tmp_path / "box.obj").write_text(moved)
    read = trimesh.load(tmp_path / "box.obj", process=False)
    np.testing.assert_allclose(np.sort(read.vertices, axis=0), np.sort(expected, axis=0), atol=1e-6)
    assert len(read.faces) == len(box.faces)
    assert read.volume == pytest.approx(6.0 * 2.5**3)  # positive: still the right way out

    data = move_glb(box.export(file_type="glb"), matrix)
    (tmp_path / "box.glb").write_bytes(data)
    scene = trimesh.load(tmp_path / "box.glb")
    np.testing.assert_allclose(
        np.sort(scene.to_mesh().vertices, axis=0), np.sort(expected, axis=0), atol=1e-6
    )
    document = pygltflib.GLTF2.load(str(tmp_path / "box.glb"))
    assert document.asset.version == "2.0"
    root = document.nodes[document.scenes[document.scene].nodes[0]]
    np.testing.assert_allclose(np.array(root.matrix).reshape(4, 4).T, matrix)


def test_obj_keeps_its_digits_and_colours(tmp_path: Path) -> None:
    """Millimetres of a scene that is kilometres wide, read back by two libraries."""
    import open3d as o3d

    rng = np.random.default_rng(1)
    vertices = rng.uniform(-5000, 5000, (60, 3)).astype(np.float32).astype(np.float64)
    triangles = rng.permutation(60).reshape(20, 3)
    normals = rng.normal(size=(60, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    colors = rng.uniform(size=(60, 3))
    path = tmp_path / "mesh.obj"
    path.write_text("".join(to_obj(vertices, triangles, normals, colors, ("crs local",))))
    read = trimesh.load(path, process=False, maintain_order=True)
    assert np.array_equal(
        read.vertices[read.faces].astype(np.float32), vertices[triangles].astype(np.float32)
    )
    again = o3d.io.read_triangle_mesh(str(path))
    # Open3D keeps corners apart that differ in their normals, so look at them face by face.
    corners = np.asarray(again.triangles).ravel()
    np.testing.assert_allclose(np.asarray(again.vertices)[corners], vertices[triangles.ravel()], atol=1e-3)
    np.testing.assert_allclose(
        np.asarray(again.vertex_normals)[corners], normals[triangles.ravel()], atol=1e-4
    )
    np.testing.assert_allclose(np.asarray(again.vertex_colors)[corners], colors[triangles.ravel()], atol=1e-3)


def test_glb_translations_that_cancel_leave_nothing_large() -> None:
    """A mesh in UTM, kept relative to a node, moved to the origin: no viewer has to subtract large numbers."""
    box = trimesh.creation.box((1.0, 2.0, 3.0))
    place = np.array([691_500.25, 5_334_700.5, 519.0])
    document, rest = read_glb(box.export(file_type="glb"))
    root = document["scenes"][0]["nodes"][0]
    while document["nodes"][root].get("mesh") is None:
        root = document["nodes"][root]["children"][0]
    document["nodes"] = [{"mesh": document["nodes"][root]["mesh"], "translation": place.tolist()}]
    document["scenes"] = [{"nodes": [0]}]
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    data = struct.pack("<4sII", b"glTF", 2, 20 + len(text) + len(rest))
    data += struct.pack("<I4s", len(text), b"JSON") + text + rest
    moved, _ = read_glb(move_glb(data, Similarity3(1.0, np.eye(3), -place + [1, 2, 3]).matrix))
    large = [
        abs(v) for node in moved["nodes"] for v in (*node.get("matrix", ()), *node.get("translation", ()))
    ]
    assert max(large) < 10
    read = trimesh.load(
        io.BytesIO(move_glb(data, Similarity3(1.0, np.eye(3), -place).matrix)), file_type="glb"
    )
    np.testing.assert_allclose(read.to_mesh().bounds, [[-0.5, -1, -1.5], [0.5, 1, 1.5]], atol=1e-6)


def test_glb_that_is_none() -> None:
    with pytest.raises(ValueError, match="binary glTF"):
        move_glb(b"ply\n" + b"\0" * 40, np.eye(4))


def test_y_up_turns_up_to_y() -> None:
    assert (Y_UP_FROM_Z_UP @ [0, 0, 1]).tolist() == [0, 1, 0]
    assert np.linalg.det(Y_UP_FROM_Z_UP) == pytest.approx(1)
