"""The mesh of a run, light enough for a page."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from recon.engine.stage import StageContext
from recon.surface.io import model_from_scene, read_glb, read_mesh
from recon.viewer.report.content import Surface

_TEXTURED_FACES = 450_000
"""A textured mesh with more faces is shown by its vertex colours, simplified."""

_FACES = 200_000
"""About so many faces are left of a mesh that is simplified."""

_TEXTURE_SIDE = 2048

_TYPES = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
"""glTF 2.0, section 3.6.2.2: component types of accessors."""

_COMPONENTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


def load_surface(work: StageContext, textured: bool) -> Surface | None:
    """The textured mesh if there is one, otherwise the coloured one with fewer faces."""
    path = work.path("mesh", "textured.glb")
    if textured and path.is_file():
        surface = textured_surface(path.read_bytes())
        if 0 < len(surface.faces) <= _TEXTURED_FACES:
            return surface
    mesh = read_mesh(work.path("mesh", "mesh.ply"))
    faces, note = len(mesh.triangles), ""
    if faces > 1.5 * _FACES:
        # Vertices that fall into one cell of a grid become one: coarser than collapsing edges, and far faster.
        cell = float(np.sqrt(2.0 * mesh.get_surface_area() / _FACES))
        mesh = mesh.simplify_vertex_clustering(max(cell, 1e-12))
        note = f"simplified from {faces:,}"
    rgb = None
    if mesh.has_vertex_colors():
        rgb = np.rint(np.clip(np.asarray(mesh.vertex_colors), 0, 1) * 255).astype(np.uint8)
    return Surface(np.asarray(mesh.vertices), np.asarray(mesh.triangles), rgb, note=note)


def textured_surface(data: bytes) -> Surface:
    """The mesh of a GLB with one primitive and one picture; the picture is made smaller.

    Raises:
        ValueError: it is no such file.
    """
    document, rest = read_glb(data)
    binary = rest[8:]
    primitive = document["meshes"][0]["primitives"][0]
    attributes = primitive["attributes"]

    def array(number: int) -> np.ndarray:
        accessor = document["accessors"][number]
        view = document["bufferViews"][accessor["bufferView"]]
        kind, width = _TYPES[accessor["componentType"]], _COMPONENTS[accessor["type"]]
        at = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        flat = np.frombuffer(binary, kind, accessor["count"] * width, at)
        return flat.reshape(-1, width)

    xyz = array(attributes["POSITION"]).astype(np.float64)
    root = document["nodes"][document["scenes"][0]["nodes"][0]]
    to_model = (
        model_from_scene(document) @ np.array(root.get("matrix", np.eye(4)), np.float64).reshape(4, 4).T
    )
    xyz = xyz @ to_model[:3, :3].T + to_model[:3, 3]
    view = document["bufferViews"][document["images"][0]["bufferView"]]
    begin = view.get("byteOffset", 0)
    return Surface(
        xyz,
        array(primitive["indices"]).reshape(-1, 3).astype(np.int64),
        uv=array(attributes["TEXCOORD_0"]),
        texture=_small_texture(binary[begin : begin + view["byteLength"]]),
    )


def _small_texture(data: bytes) -> bytes:
    picture: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError("the texture cannot be decoded")
    height, width = picture.shape[:2]
    factor = min(1.0, _TEXTURE_SIDE / max(width, height))
    if factor < 1.0:
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    done, smaller = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])
    if not done:
        raise ValueError("the texture cannot be encoded")
    return bytes(smaller.tobytes())
