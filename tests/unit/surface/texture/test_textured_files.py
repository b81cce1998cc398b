"""Textured files read back by other programs' readers."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree

from recon.engine.stage import StageContext
from recon.io.glb import own_textured_parts, pack_glb, read_glb, upright_glb
from recon.io.pictures import encode_picture
from recon.io.textured_mesh import read_mesh_file, read_textured_mesh
from recon.render.scene_files import read_view_mesh
from recon.stages.texture import TextureSettings, TextureStage
from recon.surface.texture.files import (
    parts_of_mesh,
    split_vertices,
    textured_glb,
    textures_of_mesh,
    write_textured_obj,
)
from recon.surface.texture.texturing import texture_mesh
from recon.surface.texture.types import TextureOptions
from recon.surface.texture.visibility import look_up
from tests.support.texturing_scenes import arc, photos, sheet


@pytest.fixture(scope="module")
def mesh():
    views = arc(3)
    return texture_mesh(*sheet(12), views, photos(views))[0]


@pytest.fixture
def folder(mesh, tmp_path):
    where = tmp_path / "Fünf Brunnen"
    where.mkdir()
    (where / "texture.png").write_bytes(encode_picture(mesh.texture, "png"))
    write_textured_obj(where / "t.obj", mesh, ["texture.png"], material_path=where / "t.mtl")
    (where / "t.glb").write_bytes(textured_glb(mesh, [encode_picture(mesh.texture, "png")], "png"))
    return where


def test_splitting_keeps_every_corner(mesh):
    vertex, uv, faces = split_vertices(mesh)
    assert (vertex[faces] == mesh.faces).all()
    assert (uv[faces] == mesh.uvs).all()
    assert len(np.unique(np.column_stack([vertex, uv]), axis=0)) == len(vertex)


@pytest.mark.parametrize("name", ["t.obj", "t.glb"])
def test_trimesh_sees_the_same_colours_at_the_same_places(mesh, folder, name):
    trimesh = pytest.importorskip("trimesh")
    read = trimesh.load(folder / name, process=False, force="mesh")
    assert len(read.faces) == len(mesh.faces)
    ours = mesh.vertices[mesh.faces]
    theirs = np.asarray(read.vertices)[np.asarray(read.faces)]
    assert np.abs(ours - theirs).max() < 1e-6
    material = read.visual.material
    picture = np.asarray((getattr(material, "baseColorTexture", None) or material.image).convert("RGB"))
    assert (picture == mesh.texture).all()
    # trimesh's v is up in both formats.
    uv = np.asarray(read.visual.uv)[np.asarray(read.faces)].mean(axis=1)
    assert np.abs(look_up(picture, uv) - look_up(mesh.texture, mesh.uvs.mean(axis=1))).max() < 1


@pytest.mark.parametrize("name", ["t.obj", "t.glb"])
def test_our_own_reader_of_foreign_files_agrees(mesh, folder, name):
    read = read_textured_mesh(folder / name)
    assert (read.texture == mesh.texture).all()
    assert np.abs(read.vertices[read.faces] - mesh.vertices[mesh.faces]).max() < 1e-6
    assert np.abs(read.uv - mesh.uvs).max() < 1e-6


@pytest.mark.parametrize("name", ["t.obj", "t.glb"])
def test_several_textures_are_read_back(tmp_path, name):
    views = arc(3)
    options = TextureOptions(max_texture=128, max_textures=9)
    mesh = texture_mesh(*sheet(12), views, photos(views), options=options)[0]
    textures = textures_of_mesh(mesh)
    assert len(textures) > 1
    pictures = [encode_picture(texture, "png") for texture in textures]
    names = [f"texture_{number}.png" for number in range(len(pictures))]
    for file, picture in zip(names, pictures, strict=True):
        (tmp_path / file).write_bytes(picture)
    write_textured_obj(tmp_path / "t.obj", mesh, names, material_path=tmp_path / "t.mtl")
    (tmp_path / "t.glb").write_bytes(textured_glb(mesh, pictures, "png"))
    order = np.concatenate([_rows_of(mesh, part) for part in parts_of_mesh(mesh)])
    ours = look_up(mesh.texture, mesh.uvs[order].mean(axis=1))
    read = read_textured_mesh(tmp_path / name)
    assert np.abs(read.vertices[read.faces] - mesh.vertices[mesh.faces[order]]).max() < 1e-6
    assert np.abs(look_up(read.texture, read.uv.mean(axis=1).astype(float)) - ours).max() < 0.1
    foreign = trimesh.load_scene(tmp_path / name, process=False)
    assert sum(len(one.faces) for one in foreign.geometry.values()) == len(mesh.faces)
    viewed, _ = read_view_mesh(tmp_path / name)
    assert viewed.textured
    centers = viewed.vertices[viewed.faces].mean(axis=1)
    miss, order = cKDTree(centers).query(mesh.vertices[mesh.faces[order]].mean(axis=1))
    assert miss.max() < 1e-6
    assert (
        np.abs(
            look_up(viewed.texture, viewed.uv[viewed.faces[order]].mean(axis=1).astype(float)) - ours
        ).max()
        < 1
    )
    half, _ = read_view_mesh(tmp_path / name, texels=sum(one.size for one in textures) // 12)
    assert half.texture.shape == (viewed.texture.shape[0] // 2, viewed.texture.shape[1] // 2, 3)
    assert np.array_equal(half.uv, viewed.uv)


@pytest.mark.parametrize("side", [4096, 128])
def test_our_own_glb_is_read_as_trimesh_reads_it(tmp_path, side):
    views = arc(3)
    options = TextureOptions(max_texture=side, max_textures=9)
    mesh = texture_mesh(*sheet(12), views, photos(views), options=options)[0]
    data = textured_glb(mesh, [encode_picture(texture, "png") for texture in textures_of_mesh(mesh)], "png")
    path = tmp_path / "t.glb"
    path.write_bytes(upright_glb(data, views))
    ours = read_mesh_file(path)
    document, rest = read_glb(path.read_bytes())
    document["asset"]["generator"] = "another program"
    assert own_textured_parts(pack_glb(document, rest)) is None
    path.write_bytes(pack_glb(document, rest))
    theirs = read_mesh_file(path)
    assert np.allclose(ours.vertices, theirs.vertices, rtol=0, atol=1e-12)
    assert np.array_equal(ours.faces, theirs.faces)
    assert np.array_equal(ours.uv, theirs.uv)
    assert np.array_equal(ours.texture, theirs.texture)


def _rows_of(mesh, part):
    """The faces of a mesh that a part of it has."""
    number = {tuple(face): row for row, face in enumerate(mesh.faces.tolist())}
    return np.array([number[tuple(face)] for face in part.faces.tolist()])


def test_glb_as_pygltflib_sees_it(mesh, folder):
    pygltflib = pytest.importorskip("pygltflib")
    document = pygltflib.GLTF2().load(str(folder / "t.glb"))
    assert document.extensionsUsed == ["KHR_materials_unlit"]
    assert document.accessors[3].count == mesh.faces.size
    blob = document.binary_blob()
    assert document.buffers[0].byteLength == len(blob)
    view = document.bufferViews[4]
    png = blob[view.byteOffset : view.byteOffset + view.byteLength]
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert (picture == mesh.texture).all()
    for accessor in document.accessors:
        view = document.bufferViews[accessor.bufferView]
        width = {5126: 4, 5125: 4, 5123: 2}[accessor.componentType]
        parts = {"VEC3": 3, "VEC2": 2, "SCALAR": 1}[accessor.type]
        assert view.byteLength == accessor.count * width * parts
        assert view.byteOffset % 4 == 0
    low = np.array(document.accessors[0].min)
    assert low == pytest.approx(mesh.vertices.min(axis=0), abs=1e-6)


def test_glb_far_from_the_origin_keeps_its_millimetres(mesh):
    from dataclasses import replace

    pygltflib = pytest.importorskip("pygltflib")
    offset = np.array([4.5e5, 5.2e6, 300.0])
    far = replace(mesh, vertices=mesh.vertices + offset)
    document = pygltflib.GLTF2().load_from_bytes(textured_glb(far, [encode_picture(mesh.texture, "jpg")]))
    view = document.bufferViews[0]
    raw = document.binary_blob()[view.byteOffset : view.byteOffset + view.byteLength]
    positions = np.frombuffer(raw, "<f4").reshape(-1, 3).astype(float) + document.nodes[0].translation
    vertex, _, _ = split_vertices(far)
    assert np.abs(positions - far.vertices[vertex]).max() < 1e-6


def test_jpeg_keeps_colours_at_chart_borders():
    texture = np.zeros((64, 64, 3), np.uint8)
    texture[:, ::2] = (255, 0, 0)
    texture[:, 1::2] = (0, 0, 255)
    data = encode_picture(texture, "jpg", 95)
    back = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    # With halved colour resolution both columns would be purple.
    assert np.abs(back.astype(int) - texture).mean() < 12


def test_a_stage_that_is_off_takes_old_files_away(tmp_path):
    (tmp_path / "mesh").mkdir()
    for name in ("textured.obj", "textured.glb", "texture.jpg", "texture_2.jpg", "mesh.ply"):
        (tmp_path / "mesh" / name).write_text("old")
    assert TextureStage().run(TextureSettings(enabled=False), StageContext(tmp_path)) == {"faces": 0}
    assert sorted(path.name for path in (tmp_path / "mesh").iterdir()) == ["mesh.ply"]
