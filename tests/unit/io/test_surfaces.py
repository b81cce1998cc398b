"""Clouds and meshes written here and read by others."""

from __future__ import annotations

import json
import struct

import numpy as np
import open3d as o3d
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon.core.mesh import FusedCloud, Mesh
from recon.errors import ReconError, UsageError
from recon.io import surfaces
from recon.io.surfaces import (
    points_in_parts,
    read_mesh,
    read_mesh_shape,
    read_ply_vertices,
    read_points_ply,
    thin_points,
    write_mesh,
    write_mesh_ply,
    write_points_ply,
)


def cloud_of(n, seed=0):
    rng = np.random.default_rng(seed)
    normals = rng.normal(size=(n, 3))
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    return FusedCloud(
        rng.normal(size=(n, 3)).astype(np.float32),
        normals.astype(np.float32),
        rng.integers(0, 256, (n, 3), np.uint8),
        rng.integers(1, 60000, n).astype(np.uint16),
        rng.integers(0, 100000, n).astype(np.int32),
        rng.random(n).astype(np.float32),
    )


def box():
    mesh = o3d.geometry.TriangleMesh.create_box(1.0, 2.0, 3.0)
    colours = np.linspace(0, 1, len(mesh.vertices) * 3).reshape(-1, 3)
    mesh.vertex_colors = o3d.utility.Vector3dVector(np.round(colours * 255) / 255)
    mesh.compute_vertex_normals()
    return mesh


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 50), st.integers(0, 1000))
def test_cloud_round_trip_is_exact(tmp_path_factory, n, seed):
    path = tmp_path_factory.mktemp("ply") / "points.ply"
    cloud = cloud_of(n, seed)
    write_points_ply(path, cloud)
    back = read_points_ply(path)
    for name in ("xyz", "normals", "rgb", "view_count", "reference_view", "confidence"):
        assert np.array_equal(getattr(back, name), getattr(cloud, name))
        assert getattr(back, name).dtype == getattr(cloud, name).dtype


def test_open3d_reads_our_cloud_and_we_read_theirs(tmp_path):
    cloud = cloud_of(200)
    write_points_ply(tmp_path / "a.ply", cloud)
    theirs = o3d.io.read_point_cloud(str(tmp_path / "a.ply"))
    assert np.allclose(np.asarray(theirs.points), cloud.xyz)
    assert np.allclose(np.asarray(theirs.normals), cloud.normals)
    assert np.array_equal(np.round(np.asarray(theirs.colors) * 255), cloud.rgb)
    for name, ascii_ in (("binary.ply", False), ("text.ply", True)):
        o3d.io.write_point_cloud(str(tmp_path / name), theirs, write_ascii=ascii_)
        back = read_points_ply(tmp_path / name)
        assert np.allclose(back.xyz, cloud.xyz, atol=1e-6)
        assert np.array_equal(back.rgb, cloud.rgb)
        assert not back.view_count.any()


def test_parts_give_the_bytes_and_points_of_the_whole(tmp_path, monkeypatch):
    cloud = cloud_of(1000)
    write_points_ply(tmp_path / "whole.ply", cloud)
    monkeypatch.setattr(surfaces, "_ROWS", 64)
    write_points_ply(tmp_path / "again.ply", cloud)
    write_points_ply(
        tmp_path / "parts.ply", (cloud.rows(slice(i, i + 100)) for i in range(0, 1000, 100)), 1000
    )
    for name in ("again.ply", "parts.ply"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "whole.ply").read_bytes()
    parts = list(points_in_parts(tmp_path / "whole.ply"))
    assert [len(one) for one in parts] == [64] * 15 + [40]
    assert np.array_equal(np.concatenate([one.confidence for one in parts]), cloud.confidence)
    assert np.array_equal(read_points_ply(tmp_path / "whole.ply").xyz, cloud.xyz)
    for most, step in ((600, 1), (300, 3), (140, 7)):
        xyz, rgb = thin_points(tmp_path / "whole.ply", most)
        assert np.array_equal(xyz, cloud.xyz[::step])
        assert np.array_equal(rgb, cloud.rgb[::step])
    assert np.array_equal(read_ply_vertices(tmp_path / "whole.ply", 7)["red"], cloud.rgb[::7, 0])
    with pytest.raises(ValueError, match="1000 points where 999"):
        write_points_ply(tmp_path / "wrong.ply", iter([cloud]), 999)


def test_a_mesh_is_written_and_read_a_little_at_a_time(tmp_path, monkeypatch):
    """As Open3D writes and reads it; polygons and damaged files are left to the other reader."""
    theirs = box().subdivide_midpoint(2)
    theirs.compute_vertex_normals()
    mesh = Mesh(
        np.asarray(theirs.vertices),
        np.asarray(theirs.triangles),
        np.rint(np.asarray(theirs.vertex_colors) * 255).astype(np.uint8),
        normals=np.asarray(theirs.vertex_normals, np.float32),
    )
    monkeypatch.setattr(surfaces, "_ROWS", 7)
    write_mesh_ply(tmp_path / "ours.ply", mesh, np.array([5e5, 4e6, 1.0]))
    write_mesh(tmp_path / "theirs.ply", theirs)
    back = read_mesh(tmp_path / "ours.ply")
    assert np.array_equal(np.asarray(back.vertices) - [5e5, 4e6, 1.0], mesh.vertices)
    assert np.array_equal(np.rint(np.asarray(back.vertex_colors) * 255), mesh.rgb)
    assert np.allclose(np.asarray(back.vertex_normals), mesh.normals)
    monkeypatch.setattr(surfaces, "read_mesh", None)
    for name, offset in (("ours.ply", [5e5, 4e6, 1.0]), ("theirs.ply", 0.0)):
        xyz, faces = read_mesh_shape(tmp_path / name)
        assert np.array_equal(xyz - offset, mesh.vertices)
        assert np.array_equal(faces, mesh.faces)
        assert faces.dtype == np.int32
    monkeypatch.undo()
    o3d.io.write_triangle_mesh(str(tmp_path / "text.ply"), theirs, write_ascii=True)
    assert np.array_equal(read_mesh_shape(tmp_path / "text.ply")[1], mesh.faces)
    (tmp_path / "short.ply").write_bytes((tmp_path / "ours.ply").read_bytes()[:-40])
    with pytest.raises(ReconError, match=r"short\.ply"):
        read_mesh_shape(tmp_path / "short.ply")


def test_broken_files_are_named(tmp_path):
    path = tmp_path / "points.ply"
    write_points_ply(path, cloud_of(20))
    data = path.read_bytes()
    path.write_bytes(data[:-7])
    with pytest.raises(ReconError, match=r"points\.ply is cut short: 19 of 20"):
        read_points_ply(path)
    path.write_bytes(data[:40])
    with pytest.raises(ReconError, match="header"):
        read_points_ply(path)
    path.write_bytes(b"JFIF")
    with pytest.raises(ReconError, match="not a PLY"):
        read_points_ply(path)


@pytest.mark.parametrize("suffix", [".ply", ".obj"])
def test_mesh_round_trip(tmp_path, suffix):
    mesh = box()
    write_mesh(tmp_path / f"mesh{suffix}", mesh)
    back = read_mesh(tmp_path / f"mesh{suffix}")
    # Readers may number vertices anew: the corners of the triangles must be the same, in the same order.
    for name, tolerance in (("vertices", 1e-6), ("vertex_colors", 0.003)):
        theirs = np.asarray(getattr(back, name))[np.asarray(back.triangles)]
        ours = np.asarray(getattr(mesh, name))[np.asarray(mesh.triangles)]
        assert np.allclose(theirs, ours, atol=tolerance)


def test_glb_says_what_the_mesh_is(tmp_path):
    """Parsed by hand as the glTF specification lays it out, and by Open3D's importer."""
    mesh = box()
    path = tmp_path / "mesh.glb"
    write_mesh(path, mesh)
    data = path.read_bytes()
    magic, version, length, json_length = struct.unpack("<4sIII", data[:16])
    assert (magic, version, length) == (b"glTF", 2, len(data))
    document = json.loads(data[20 : 20 + json_length])
    binary = data[28 + json_length :]
    primitive = document["meshes"][0]["primitives"][0]

    def read(index, dtype, width):
        accessor = document["accessors"][index]
        view = document["bufferViews"][accessor["bufferView"]]
        raw = binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
        return np.frombuffer(raw, dtype).reshape(accessor["count"], width)

    xyz = read(primitive["attributes"]["POSITION"], "<f4", 3)
    assert np.allclose(xyz, np.asarray(mesh.vertices))
    assert np.array_equal(read(primitive["indices"], "<u4", 1).reshape(-1, 3), np.asarray(mesh.triangles))
    colour = read(primitive["attributes"]["COLOR_0"], "<u2", 4)[:, :3] / 65535
    # White and black stay, mid grey gets darker: linear light.
    assert np.allclose(colour[np.asarray(mesh.vertex_colors) == 1], 1)
    assert (colour <= np.asarray(mesh.vertex_colors) + 1e-4).all()
    assert len(o3d.io.read_triangle_mesh(str(path)).triangles) == 12


def test_unknown_suffix_and_missing_folder(tmp_path):
    with pytest.raises(UsageError, match=r"mesh\.stl"):
        write_mesh(tmp_path / "mesh.stl", box())
    with pytest.raises(ReconError, match="could not be written"):
        write_mesh(tmp_path / "nowhere" / "mesh.ply", box())
