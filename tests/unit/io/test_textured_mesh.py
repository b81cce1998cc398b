"""Textured meshes from OBJ and GLB files that are written here by hand."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recon.errors import ReconError
from recon.io.textured_mesh import read_textured_mesh
from recon.synthetic.materials import SurfaceSamples, texture_albedo
from recon.synthetic.surfaces import mesh_on_ground

QUARTERS = np.zeros((8, 8, 3), np.uint8)
QUARTERS[:4, :4], QUARTERS[:4, 4:] = (255, 0, 0), (0, 255, 0)
QUARTERS[4:, :4], QUARTERS[4:, 4:] = (0, 0, 255), (255, 255, 255)

OBJ = """# a quad of two windings, and a triangle with indices from the end
mtllib paint.mtl
v 0 0 0
v 1 0 0 0.5 0.5 0.5
v 1 1 0
v 0 1 0
vt 0 0
vt 1 0
vt 1 1
vt 0 1
vn 0 0 1
f 1/1/1 2/2/1 3/3/1 4/4/1
v 0 0 2
f -1/1 -4/2/1 -3/3
"""


def color_at(mesh: object, face: int, corner: int) -> np.ndarray:
    """The colour near a corner of a face."""
    weights = np.full(3, 0.1)
    weights[corner] = 0.8
    sample = SurfaceSamples(
        np.zeros((1, 3), np.float32),
        np.zeros((1, 3), np.float32),
        np.array([face], np.int32),
        np.array([weights], np.float32),
        np.array([1e-6], np.float32),
    )
    return texture_albedo(mesh)(sample)[0]  # type: ignore[arg-type]


def test_obj(tmp_path: Path) -> None:
    Image.fromarray(QUARTERS).save(tmp_path / "paint.png")
    Image.fromarray(QUARTERS[::-1]).save(tmp_path / "another.png")
    (tmp_path / "paint.mtl").write_text("newmtl m\nKd 1 1 1\nmap_Kd paint.png\n")
    (tmp_path / "a.obj").write_text(OBJ)
    mesh = read_textured_mesh(tmp_path / "a.obj")
    corners = mesh.vertices[mesh.faces]
    expected = [
        [[0, 0, 0], [1, 0, 0], [1, 1, 0]],
        [[0, 0, 0], [1, 1, 0], [0, 1, 0]],
        [[0, 0, 2], [1, 0, 0], [1, 1, 0]],
    ]
    np.testing.assert_array_equal(corners, expected)
    # v points up: the lower left corner of the quad is the lower left quarter of the picture.
    np.testing.assert_allclose(color_at(mesh, 0, 0), [0, 0, 1], atol=1e-5)
    np.testing.assert_allclose(color_at(mesh, 0, 1), [1, 1, 1], atol=1e-5)
    np.testing.assert_allclose(color_at(mesh, 0, 2), [0, 1, 0], atol=1e-5)
    np.testing.assert_allclose(color_at(mesh, 1, 2), [1, 0, 0], atol=1e-5)


def test_obj_with_a_picture_beside_it(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text(OBJ)
    assert read_textured_mesh(tmp_path / "a.obj").texture is None
    Image.fromarray(QUARTERS).save(tmp_path / "beside.png")
    np.testing.assert_array_equal(read_textured_mesh(tmp_path / "a.obj").texture, QUARTERS)
    Image.fromarray(QUARTERS).save(tmp_path / "which.png")
    assert read_textured_mesh(tmp_path / "a.obj").texture is None


def write_glb(path: Path, change: dict[str, object] | None = None, matrix: list[float] | None = None) -> None:
    """A quad of two triangles, one picture; glTF counts v downwards."""
    picture = io.BytesIO()
    Image.fromarray(QUARTERS).save(picture, "PNG")
    parts = [
        np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], "<f4").tobytes(),
        np.array([[0, 1], [1, 1], [1, 0], [0, 0]], "<f4").tobytes(),
        np.array([0, 1, 2, 0, 2, 3], "<u2").tobytes(),
        picture.getvalue(),
    ]
    views, binary = [], b""
    for part in parts:
        views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(part)})
        binary += part + b"\0" * (-len(part) % 4)
    document: dict[str, object] = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [
            {"translation": [10, 0, 0], "children": [1]},
            {
                "mesh": 0,
                **(
                    {"matrix": matrix}
                    if matrix
                    else {"rotation": [0, 0, 2**-0.5, 2**-0.5], "scale": [2, 2, 2]}
                ),
            },
        ],
        "meshes": [
            {"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "indices": 2, "material": 0}]}
        ],
        "materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}],
        "textures": [{"source": 0}],
        "images": [{"bufferView": 3, "mimeType": "image/png"}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 4, "type": "VEC3"},
            {"bufferView": 1, "componentType": 5126, "count": 4, "type": "VEC2"},
            {"bufferView": 2, "componentType": 5123, "count": 6, "type": "SCALAR"},
        ],
        "bufferViews": views,
        "buffers": [{"byteLength": len(binary)}],
        **(change or {}),
    }
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + 8 + len(binary)
    path.write_bytes(
        struct.pack("<III", 0x46546C67, 2, total)
        + struct.pack("<II", len(text), 0x4E4F534A)
        + text
        + struct.pack("<II", len(binary), 0x004E4942)
        + binary
    )


def test_glb(tmp_path: Path) -> None:
    write_glb(tmp_path / "a.glb")
    mesh = read_textured_mesh(tmp_path / "a.glb")
    # Turned a quarter round z, doubled, moved by 10 in x.
    expected = [[[10, 0, 0], [10, 2, 0], [8, 2, 0]], [[10, 0, 0], [8, 2, 0], [8, 0, 0]]]
    np.testing.assert_allclose(mesh.vertices[mesh.faces], expected, atol=1e-5)
    np.testing.assert_allclose(color_at(mesh, 0, 0), [0, 0, 1], atol=1e-5)
    np.testing.assert_allclose(color_at(mesh, 0, 2), [0, 1, 0], atol=1e-5)
    # A mirror turns the faces inside out; their order is turned back.
    write_glb(tmp_path / "m.glb", matrix=[-1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1])
    mirrored = read_textured_mesh(tmp_path / "m.glb")
    a, b, c = (mirrored.vertices[mirrored.faces[0, i]] for i in range(3))
    assert np.cross(b - a, c - a)[2] > 0
    assert mirrored.vertices[:, 0].min() == 9


def test_glb_with_colours_alone(tmp_path: Path) -> None:
    material = {"materials": [{"pbrMetallicRoughness": {"baseColorFactor": [0.25, 0.5, 1.0, 1.0]}}]}
    write_glb(tmp_path / "a.glb", material)
    mesh = read_textured_mesh(tmp_path / "a.glb")
    assert mesh.texture is None
    assert mesh.rgb is not None
    # The factors are linear; IEC 61966-2-1 codes 0.25 as 0.537 and 0.5 as 0.735.
    np.testing.assert_allclose(mesh.rgb / 255.0, np.tile([0.537, 0.735, 1.0], (4, 1)), atol=0.003)


def test_damaged_meshes(tmp_path: Path) -> None:
    cases = {
        "a.obj": OBJ.replace("f 1/1/1", "f 9/1/1"),
        "b.obj": OBJ.replace("v 1 1 0", "v 1 x 0"),
        "c.obj": "v 0 0 0\n",
        "d.obj": OBJ.replace("v 1 1 0", "v 1 nan 0"),
        "e.obj": OBJ.replace("f 1/1/1", "f 1/8/1"),
    }
    Image.fromarray(QUARTERS).save(tmp_path / "paint.png")
    for name, text in cases.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(ReconError, match=name):
            read_textured_mesh(tmp_path / name)
    write_glb(tmp_path / "ok.glb")
    data = (tmp_path / "ok.glb").read_bytes()
    (tmp_path / "short.glb").write_bytes(data[:-120])
    (tmp_path / "none.glb").write_bytes(b"glTF")
    write_glb(tmp_path / "loop.glb", {"nodes": [{"children": [0]}]})
    write_glb(tmp_path / "outside.glb", {"buffers": [{"byteLength": 9, "uri": "x.bin"}]})
    for name in ("short.glb", "none.glb", "outside.glb", "loop.glb"):
        with pytest.raises(ReconError, match=name.removesuffix(".glb") + r"|texture inside"):
            read_textured_mesh(tmp_path / name)
    (tmp_path / "x.stl").write_text("solid")
    with pytest.raises(ReconError, match="obj and"):
        read_textured_mesh(tmp_path / "x.stl")
    with pytest.raises(ReconError, match="is not there"):
        read_textured_mesh(tmp_path / "absent.obj")


def test_real_meshes(shared_data: Path) -> None:
    for name, faces in (("spot/spot_triangulated.obj", 5856), ("ycb_banana/mesh.obj", 15728)):
        mesh = read_textured_mesh(shared_data / "datasets" / "meshes" / name)
        assert len(mesh.faces) == faces
        assert mesh.texture is not None
        a, b, c = (mesh.vertices[mesh.faces[:, i]].astype(float) for i in range(3))
        # Closed and facing outwards: the divergence theorem gives a positive volume inside the bounding box.
        volume = np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6
        assert 0 < volume < np.prod(np.ptp(mesh.vertices, axis=0))


def test_an_object_rests_on_the_ground(shared_data: Path) -> None:
    """The cow stands, y of its file being up; the banana, whose file has z up, lies."""
    for name, height in (
        ("spot/spot_triangulated.obj", 1.69 / 1.718),
        ("ycb_banana/mesh.obj", 0.03755 / 0.19585),
    ):
        mesh = read_textured_mesh(shared_data / "datasets" / "meshes" / name)
        joined, _ = mesh_on_ground(mesh)
        own = joined.vertices[: len(mesh.vertices)]
        assert own[:, 2].min() == pytest.approx(0, abs=1e-6)
        assert np.ptp(own, axis=0).max() == pytest.approx(1)
        assert own[:, 2].max() == pytest.approx(height, rel=0.01)
