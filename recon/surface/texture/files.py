"""Textured meshes as OBJ with MTL, and as binary glTF."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Float64, Int32, Int64, UInt8

from recon.core.kernels import kernel
from recon.io.glb import GlbBuilder, textures_of
from recon.io.obj import coordinate_digits
from recon.surface.texture.topology import vertex_normals
from recon.surface.texture.types import TexturedMesh

# From so many extents away from the origin on, a GLB keeps an offset: float32 would make its vertices jitter.
_FAR_FROM_ORIGIN = 1e4
# Lines of a file that are made at once.
_LINES = 1 << 16


def textures_of_mesh(mesh: TexturedMesh) -> list[UInt8[np.ndarray, "h w 3"]]:
    """The textures of a mesh, those of its tiles that hold faces."""
    columns, rows = mesh.tiles
    height, width = mesh.texture.shape[0] // rows, mesh.texture.shape[1] // columns
    used = int(_tile_of_faces(mesh).max(initial=0)) + 1
    corners = [(number // columns * height, number % columns * width) for number in range(used)]
    return [mesh.texture[y : y + height, x : x + width] for y, x in corners]


def parts_of_mesh(mesh: TexturedMesh) -> list[TexturedMesh]:
    """Take a mesh apart by its textures: all its vertices, and the faces of each with their own coordinates in 0…1."""
    if mesh.tiles == (1, 1):
        return [mesh]
    columns, rows = mesh.tiles
    tile = _tile_of_faces(mesh)
    parts = []
    for number, texture in enumerate(textures_of_mesh(mesh)):
        mine = tile == number
        row, column = divmod(number, columns)
        uvs = mesh.uvs[mine] * [columns, rows] - [column, rows - 1 - row]
        parts.append(
            TexturedMesh(
                mesh.vertices, mesh.faces[mine], uvs, texture, mesh.face_view[mine], mesh.face_chart[mine]
            )
        )
    return parts


def _tile_of_faces(mesh: TexturedMesh) -> Int64[np.ndarray, " m"]:
    columns, rows = mesh.tiles
    middle = mesh.uvs.mean(axis=1)
    column = (middle[:, 0] * columns).astype(np.int64)
    row = ((1 - middle[:, 1]) * rows).astype(np.int64)
    return row * columns + column


def split_vertices(
    mesh: TexturedMesh,
) -> tuple[Int64[np.ndarray, " k"], Float64[np.ndarray, "k 2"], Int64[np.ndarray, "m 3"]]:
    """Split vertices where charts meet, so that each has one texture coordinate.

    Returns:
        The vertex that each split vertex comes from, its texture coordinate, and the faces over split vertices.
    """
    vertex, uv = mesh.faces.ravel(), mesh.uvs.reshape(-1, 2)
    order = np.argsort(vertex, kind="stable")
    number, first = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
    first = first[: _number_places(vertex, uv, order, number, first)]
    return vertex[first].astype(np.int64), uv[first], number.reshape(-1, 3)


@kernel()
def _number_places(
    vertex: Int32[np.ndarray, " c"],
    uv: Float64[np.ndarray, "c 2"],
    order: Int64[np.ndarray, " c"],
    number: Int64[np.ndarray, " c"],
    first: Int64[np.ndarray, " c"],
) -> int:
    """Number the texture coordinates of each vertex in ascending order; returns how many there are.

    Args:
        order: the corners of the faces by vertex; those of a vertex are sorted here, by insertion, as they are few.
        number, first: the number of each corner, and the first corner with each number.
    """
    count = 0
    for i in range(len(order)):
        corner, at = order[i], i
        while at > 0 and vertex[order[at - 1]] == vertex[corner]:
            before = order[at - 1]
            if uv[before, 0] < uv[corner, 0]:
                break
            if uv[before, 0] == uv[corner, 0] and uv[before, 1] <= uv[corner, 1]:
                break
            order[at] = before
            at -= 1
        order[at] = corner
    for i in range(len(order)):
        corner, before = order[i], order[i - 1]
        if (
            i == 0
            or vertex[before] != vertex[corner]
            or uv[before, 0] != uv[corner, 0]
            or uv[before, 1] != uv[corner, 1]
        ):
            first[count] = corner
            count += 1
        number[corner] = count - 1
    return count


def write_textured_obj(
    path: Path,
    mesh: TexturedMesh,
    textures: Sequence[str],
    *,
    material_path: Path,
    material_name: str | None = None,
) -> None:
    """Write an OBJ and its MTL.

    Args:
        path: of the OBJ. mesh: to write.
        textures: names of the pictures as the MTL gives them (relative to the MTL; written by the caller), in the
            order of ``textures_of_mesh``.
        material_path: of the MTL.
        material_name: how the OBJ names it; its file name by default.
    """
    digits = coordinate_digits(mesh.vertices)
    parts = parts_of_mesh(mesh)
    splits = [split_vertices(part) for part in parts]
    with path.open("w", encoding="utf-8") as out:
        out.write("# recon: one vertex per position, one texture coordinate per chart\n")
        out.write(f"mtllib {material_name or material_path.name}\no mesh\n")
        out.writelines(_lines(f"v %.{digits}g %.{digits}g %.{digits}g\n", mesh.vertices))
        for _, uv, _ in splits:
            out.writelines(_lines("vt %.7g %.7g\n", uv))
        out.writelines(_lines("vn %.4g %.4g %.4g\n", vertex_normals(mesh.vertices, mesh.faces)))
        before = 0
        for number, (vertex, uv, split) in enumerate(splits):
            out.write(f"usemtl {_material(number)}\ns 1\n")
            out.writelines(_face_lines(vertex + 1, split, before + 1))
            before += len(uv)
    # illum 0: the colour is the photo's, no light is added.
    materials = [
        f"newmtl {_material(number)}\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nd 1\nillum 0\nmap_Kd {name}\n"
        for number, name in enumerate(textures)
    ]
    material_path.write_text("".join(materials), encoding="utf-8")


def _lines(template: str, values: npt.NDArray[Any]) -> Iterator[str]:
    """A line for each row of numbers: one call for many takes half the time."""
    for first in range(0, len(values), _LINES):
        some = values[first : first + _LINES]
        yield template * len(some) % tuple(some.ravel().tolist())


def _face_lines(
    vertex: Int64[np.ndarray, " k"], split: Int64[np.ndarray, "m 3"], first_uv: int
) -> Iterator[str]:
    """The lines of faces over split vertices, of which each is named by its vertex and its texture coordinate."""
    names = np.empty(len(vertex), object)
    names[:] = [f" {v}/{t}/{v}" for t, v in enumerate(vertex.tolist(), first_uv)]
    for first in range(0, len(split), _LINES):
        some = split[first : first + _LINES]
        words = np.full((len(some), 5), "f", object)
        words[:, 1:4], words[:, 4] = names[some], "\n"
        yield "".join(words.ravel().tolist())


def _material(number: int) -> str:
    return "photos" if number == 0 else f"photos_{number + 1}"


def textured_glb(mesh: TexturedMesh, pictures: Sequence[bytes], kind: Literal["jpg", "png"] = "jpg") -> bytes:
    """A textured mesh as binary glTF 2.0 with its pictures inside, which are in the order of ``textures_of_mesh``.

    The material is unlit (KHR_materials_unlit: the photos' light is in the texture already); programs that do not know
    that extension find a rough, non-metallic one. Far from the origin the positions are relative to a
    node's translation.
    """
    centre = 0.5 * (mesh.vertices.min(axis=0) + mesh.vertices.max(axis=0))
    extent = float(np.ptp(mesh.vertices, axis=0).max())
    far = float(np.abs(centre).max()) > min(_FAR_FROM_ORIGIN * max(extent, 1e-30), 1e4)
    origin = np.rint(centre) if far else np.zeros(3)
    all_normals = vertex_normals(mesh.vertices, mesh.faces)
    glb = GlbBuilder()
    primitives, materials = [], []
    for number, part in enumerate(parts_of_mesh(mesh)):
        vertex, uv, split = split_vertices(part)
        positions: Float32[np.ndarray, "k 3"] = (mesh.vertices[vertex] - origin).astype(np.float32)
        coordinates = np.column_stack([uv[:, 0], 1 - uv[:, 1]]).astype(np.float32)
        attributes = {
            "POSITION": glb.accessor(positions, bounds=True),
            "NORMAL": glb.accessor(all_normals[vertex]),
            "TEXCOORD_0": glb.accessor(coordinates),
        }
        indices = glb.accessor(split.astype(np.uint32 if len(vertex) > 65535 else np.uint16).ravel())
        primitives.append({"attributes": attributes, "indices": indices, "material": number, "mode": 4})
        materials.append(
            {
                "name": _material(number),
                "pbrMetallicRoughness": {
                    "baseColorTexture": {"index": number},
                    "metallicFactor": 0.0,
                    "roughnessFactor": 1.0,
                },
                "doubleSided": True,
                "extensions": {"KHR_materials_unlit": {}},
            }
        )
    return glb.mesh(
        primitives,
        materials,
        node={"name": "mesh", **({"translation": origin.tolist()} if far else {})},
        textures=textures_of([glb.view(picture) for picture in pictures], "jpeg" if kind == "jpg" else "png"),
    )
