"""Textured meshes as OBJ with MTL, and as binary glTF."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, Int64

from recon.io.glb import GlbBuilder, one_texture
from recon.io.obj import coordinate_digits
from recon.surface.texture.topology import vertex_normals
from recon.surface.texture.types import TexturedMesh

# From so many extents away from the origin on, a GLB keeps an offset: float32 would make its vertices jitter.
_FAR_FROM_ORIGIN = 1e4


def split_vertices(
    mesh: TexturedMesh,
) -> tuple[Int64[np.ndarray, " k"], Float64[np.ndarray, "k 2"], Int64[np.ndarray, "m 3"]]:
    """Split vertices where charts meet, so that each has one texture coordinate.

    Returns:
        The vertex that each split vertex comes from, its texture coordinate, and the faces over split vertices.
    """
    corner = mesh.faces.ravel().astype(np.int64)
    uv = mesh.uvs.reshape(-1, 2)
    order = np.lexsort((uv[:, 1], uv[:, 0], corner))
    new = np.ones(len(order), bool)
    new[1:] = (corner[order][1:] != corner[order][:-1]) | (uv[order][1:] != uv[order][:-1]).any(axis=1)
    number = np.empty(len(order), np.int64)
    number[order] = np.cumsum(new) - 1
    first = order[new]
    return corner[first], uv[first], number.reshape(-1, 3)


def write_textured_obj(
    path: Path,
    mesh: TexturedMesh,
    texture_name: str,
    *,
    material_path: Path,
    material_name: str | None = None,
) -> None:
    """Write an OBJ and its MTL.

    Args:
        path: of the OBJ. mesh: to write.
        texture_name: name of the picture as the MTL gives it (relative to the MTL; written by the caller).
        material_path: of the MTL.
        material_name: how the OBJ names it; its file name by default.
    """
    _, uv, split = split_vertices(mesh)
    lines = [
        "# recon: one vertex per position, one texture coordinate per chart",
        f"mtllib {material_name or material_path.name}",
        "o mesh",
    ]
    digits = coordinate_digits(mesh.vertices)
    lines += [f"v {x:.{digits}g} {y:.{digits}g} {z:.{digits}g}" for x, y, z in mesh.vertices.tolist()]
    lines += [f"vt {u:.7g} {v:.7g}" for u, v in uv.tolist()]
    normals = vertex_normals(mesh.vertices, mesh.faces)
    lines += [f"vn {x:.4g} {y:.4g} {z:.4g}" for x, y, z in normals.tolist()]
    lines += ["usemtl photos", "s 1"]
    table = np.concatenate([mesh.faces.astype(np.int64) + 1, split + 1], axis=1)
    lines += [f"f {a}/{d}/{a} {b}/{e}/{b} {c}/{f}/{c}" for a, b, c, d, e, f in table.tolist()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    # illum 0: the colour is the photo's, no light is added.
    material_path.write_text(
        f"newmtl photos\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nd 1\nillum 0\nmap_Kd {texture_name}\n",
        encoding="utf-8",
    )


def textured_glb(mesh: TexturedMesh, picture: bytes, kind: Literal["jpg", "png"] = "jpg") -> bytes:
    """A textured mesh as binary glTF 2.0 with the picture inside.

    The material is unlit (KHR_materials_unlit: the photos' light is in the texture already); programs that do not know
    that extension find a rough, non-metallic one. Far from the origin the positions are relative to a
    node's translation.
    """
    vertex, uv, split = split_vertices(mesh)
    centre = 0.5 * (mesh.vertices.min(axis=0) + mesh.vertices.max(axis=0))
    extent = float(np.ptp(mesh.vertices, axis=0).max())
    far = float(np.abs(centre).max()) > min(_FAR_FROM_ORIGIN * max(extent, 1e-30), 1e4)
    origin = np.rint(centre) if far else np.zeros(3)
    positions: Float32[np.ndarray, "k 3"] = (mesh.vertices[vertex] - origin).astype(np.float32)
    normals = vertex_normals(mesh.vertices, mesh.faces)[vertex]
    coordinates = np.column_stack([uv[:, 0], 1 - uv[:, 1]]).astype(np.float32)
    index = split.astype(np.uint32 if len(vertex) > 65535 else np.uint16).ravel()
    glb = GlbBuilder()
    attributes = {
        "POSITION": glb.accessor(positions, bounds=True),
        "NORMAL": glb.accessor(normals),
        "TEXCOORD_0": glb.accessor(coordinates),
    }
    indices = glb.accessor(index)
    return glb.mesh(
        {"attributes": attributes, "indices": indices, "material": 0, "mode": 4},
        {
            "name": "photos",
            "pbrMetallicRoughness": {
                "baseColorTexture": {"index": 0},
                "metallicFactor": 0.0,
                "roughnessFactor": 1.0,
            },
            "doubleSided": True,
            "extensions": {"KHR_materials_unlit": {}},
        },
        node={"name": "mesh", **({"translation": origin.tolist()} if far else {})},
        textures=one_texture(glb.view(picture), "jpeg" if kind == "jpg" else "png"),
    )
