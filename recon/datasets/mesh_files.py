"""Textured meshes from Wavefront OBJ and binary glTF files."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int32, UInt8

from recon.core.mesh import Mesh
from recon.errors import ReconError

# glTF 2.0, section 3.6.2.2: component types and numbers of components.
_COMPONENTS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_GLB_MAGIC, _JSON_CHUNK, _BINARY_CHUNK = 0x46546C67, 0x4E4F534A, 0x004E4942
_PICTURES = (".png", ".jpg", ".jpeg")


def read_textured_mesh(path: Path) -> Mesh:
    """Read a mesh with its texture or vertex colours.

    Args:
        path: an OBJ file (its texture is the ``map_Kd`` of its material library, or the one picture beside
            it), or a GLB file with at most one base colour texture.

    Returns:
        The mesh in the file's own axes and units; vertices at one position are one vertex, so that normals
        are smooth over the seams of the texture.

    Raises:
        ReconError: the file cannot be read, has no triangles, or has several textures.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ReconError(f"{path}: cannot be read: {error}") from error
    if path.suffix.lower() == ".obj":
        return _read_obj(path, data.decode("utf-8", "replace"))
    if path.suffix.lower() == ".glb":
        return _read_glb(path, data)
    raise ReconError(f"{path}: textured meshes are read from .obj and .glb files")


def _welded(
    path: Path,
    positions: Float64[np.ndarray, "n 3"],
    faces: Int32[np.ndarray, "m 3"],
    uvs: Float64[np.ndarray, "m 3 2"] | None,
    texture: UInt8[np.ndarray, "h w 3"] | None,
    colors: UInt8[np.ndarray, "n 3"] | None = None,
) -> Mesh:
    """Join vertices at one position and check that a mesh is left."""
    if not len(faces):
        raise ReconError(f"{path}: has no triangles")
    if faces.min() < 0 or faces.max() >= len(positions):
        raise ReconError(f"{path}: has a triangle whose vertices are not in the file")
    if not np.isfinite(positions).all():
        raise ReconError(f"{path}: has a vertex that is not finite")
    unique, first, back = np.unique(
        positions.astype(np.float32), axis=0, return_index=True, return_inverse=True
    )
    faces = np.ascontiguousarray(back.reshape(-1)[faces].astype(np.int32))
    textured = uvs is not None and texture is not None
    return Mesh(
        unique,
        faces,
        None if colors is None else np.ascontiguousarray(colors[first]),
        np.ascontiguousarray(uvs, np.float32) if textured and uvs is not None else None,
        texture if textured else None,
    )


# ---- Wavefront OBJ -------------------------------------------------------------------------------


def _read_obj(path: Path, text: str) -> Mesh:
    positions: list[list[float]] = []
    coordinates: list[list[float]] = []
    corners: list[tuple[int, int]] = []
    library: list[str] = []
    try:
        for line in text.splitlines():
            words = line.split()
            if not words:
                continue
            if words[0] == "v":
                positions.append([float(word) for word in words[1:4]])
            elif words[0] == "vt":
                coordinates.append([float(word) for word in words[1:3]])
            elif words[0] == "f":
                polygon = [_corner(word, len(positions), len(coordinates)) for word in words[1:]]
                for i in range(1, len(polygon) - 1):
                    corners += [polygon[0], polygon[i], polygon[i + 1]]
            elif words[0] == "mtllib":
                library.append(line.split(None, 1)[1].strip())
    except (ValueError, IndexError) as error:
        raise ReconError(f"{path}: has a line that is no OBJ ({error})") from error
    table = np.array(corners, np.int64).reshape(-1, 3, 2)
    uvs = None
    if coordinates and len(table) and table[..., 1].min() >= 0:
        if table[..., 1].max() >= len(coordinates):
            raise ReconError(f"{path}: has a texture coordinate that is not in the file")
        uvs = np.array(coordinates, np.float64)[table[..., 1]]
    texture = _obj_texture(path, library) if uvs is not None else None
    return _welded(
        path, np.array(positions, np.float64).reshape(-1, 3), table[..., 0].astype(np.int32), uvs, texture
    )


def _corner(word: str, positions: int, coordinates: int) -> tuple[int, int]:
    """Position and texture index of ``v``, ``v/vt``, ``v//vn`` or ``v/vt/vn``; negative ones count back."""
    parts = word.split("/")
    v = int(parts[0])
    t = int(parts[1]) if len(parts) > 1 and parts[1] else 0
    return (v - 1 if v > 0 else positions + v), (t - 1 if t > 0 else coordinates + t if t < 0 else -1)


def _obj_texture(path: Path, libraries: list[str]) -> UInt8[np.ndarray, "h w 3"] | None:
    for name in libraries:
        library = path.parent / name
        if not library.is_file():
            continue
        named = {
            line.split()[-1]
            for line in library.read_text(encoding="utf-8", errors="replace").splitlines()
            if line.strip().startswith("map_Kd") and len(line.split()) > 1
        }
        if len(named) > 1:
            raise ReconError(f"{path}: has {len(named)} textures; bake them into one")
        if named:
            return _picture(path.parent / named.pop())
    beside = [one for one in sorted(path.parent.iterdir()) if one.suffix.lower() in _PICTURES]
    return _picture(beside[0]) if len(beside) == 1 else None


def _picture(source: Path | bytes) -> UInt8[np.ndarray, "h w 3"]:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            return np.ascontiguousarray(np.asarray(image.convert("RGB")))
    except (OSError, ValueError) as error:
        what = "a texture inside a GLB file" if isinstance(source, bytes) else str(source)
        raise ReconError(f"{what}: cannot be read: {error}") from error


# ---- binary glTF 2.0 -----------------------------------------------------------------------------


def _read_glb(path: Path, data: bytes) -> Mesh:
    try:
        document, binary = _chunks(data)
        return _assemble(path, document, binary)
    except (struct.error, KeyError, IndexError, TypeError, ValueError) as error:
        raise ReconError(
            f"{path}: is no GLB that can be read ({type(error).__name__}: {error}); only uncompressed "
            "meshes with their buffers inside the file can"
        ) from error


def _chunks(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The JSON document and the binary buffer (glTF 2.0, section 4.4)."""
    magic, version, _ = struct.unpack_from("<III", data, 0)
    if magic != _GLB_MAGIC or version != 2:
        raise ValueError("does not begin as glTF 2.0")
    document: dict[str, Any] = {}
    binary = b""
    at = 12
    while at + 8 <= len(data):
        length, kind = struct.unpack_from("<II", data, at)
        body = data[at + 8 : at + 8 + length]
        if kind == _JSON_CHUNK:
            document = json.loads(body)
        elif kind == _BINARY_CHUNK:
            binary = body
        at += 8 + length
    return document, binary


def _accessor(document: dict[str, Any], binary: bytes, index: int) -> np.ndarray:
    """The values of an accessor, (n, width); whole numbers that stand for 0…1 are divided."""
    accessor = document["accessors"][index]
    view = document["bufferViews"][accessor["bufferView"]]
    if "uri" in document["buffers"][view["buffer"]]:
        raise ValueError("its buffers lie in other files")
    kind = np.dtype(_COMPONENTS[accessor["componentType"]])
    width, count = _WIDTHS[accessor["type"]], accessor["count"]
    start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    stride = view.get("byteStride", width * kind.itemsize)
    if start + stride * (count - 1) + width * kind.itemsize > len(binary):
        raise ValueError("its buffer is cut short")
    values = np.ndarray((count, width), kind, binary, start, (stride, kind.itemsize)).copy()
    if accessor.get("normalized") and kind.kind != "f":
        return values / float(np.iinfo(kind).max)
    return values


def _assemble(path: Path, document: dict[str, Any], binary: bytes) -> Mesh:
    positions, colors, faces, uvs = [], [], [], []
    textures: set[int] = set()
    offset = 0
    for node, matrix in _nodes(document):
        for primitive in document["meshes"][node["mesh"]]["primitives"]:
            if primitive.get("mode", 4) != 4:
                continue
            at = primitive["attributes"]
            xyz = _accessor(document, binary, at["POSITION"]).astype(np.float64)
            if "indices" in primitive:
                face = _accessor(document, binary, primitive["indices"]).astype(np.int64).reshape(-1, 3)
            else:
                face = np.arange(len(xyz)).reshape(-1, 3)
            base = {}
            if "material" in primitive:
                base = document["materials"][primitive["material"]].get("pbrMetallicRoughness", {})
            # glTF counts v downwards.
            uv = np.zeros((len(xyz), 2))
            if "baseColorTexture" in base:
                textures.add(int(document["textures"][base["baseColorTexture"]["index"]]["source"]))
                coordinate = base["baseColorTexture"].get("texCoord", 0)
                uv = _accessor(document, binary, at[f"TEXCOORD_{coordinate}"]) * [1, -1] + [0, 1]
            factor = np.asarray(base.get("baseColorFactor", (1, 1, 1, 1)), np.float64)[:3]
            shade = np.broadcast_to(factor, (len(xyz), 3))
            if "COLOR_0" in at:
                shade = shade * _accessor(document, binary, at["COLOR_0"])[:, :3]
            # The factors are linear (section 3.9.2); recon's vertex colours are gamma-coded.
            colors.append(np.rint(np.clip(shade, 0, 1) ** (1 / 2.2) * 255).astype(np.uint8))
            positions.append(xyz @ matrix[:3, :3].T + matrix[:3, 3])
            if np.linalg.det(matrix[:3, :3]) < 0:
                face = face[:, ::-1]
            uvs.append(uv[face] if len(face) else np.zeros((0, 3, 2)))
            faces.append(face + offset)
            offset += len(xyz)
    if len(textures) > 1:
        raise ReconError(f"{path}: has {len(textures)} textures; bake them into one")
    if not faces:
        raise ReconError(f"{path}: has no triangles")
    texture = None
    if textures:
        image = document["images"][textures.pop()]
        view = document["bufferViews"][image["bufferView"]]
        start = view.get("byteOffset", 0)
        texture = _picture(binary[start : start + view["byteLength"]])
    return _welded(
        path,
        np.concatenate(positions),
        np.concatenate(faces).astype(np.int32),
        np.concatenate(uvs),
        texture,
        None if texture is not None else np.concatenate(colors),
    )


def _nodes(document: dict[str, Any]) -> list[tuple[dict[str, Any], Float64[np.ndarray, "4 4"]]]:
    """The nodes with meshes and their transforms to the scene."""
    nodes = document.get("nodes", [])
    scenes = document.get("scenes")
    roots = scenes[document.get("scene", 0)]["nodes"] if scenes else range(len(nodes))
    found: list[tuple[dict[str, Any], Float64[np.ndarray, "4 4"]]] = []
    stack = [(int(index), np.eye(4)) for index in roots]
    for _ in range(100_000):
        if not stack:
            return found
        index, above = stack.pop(0)
        node = nodes[index]
        matrix = above @ _local(node)
        if "mesh" in node:
            found.append((node, matrix))
        stack += [(int(child), matrix) for child in node.get("children", [])]
    raise ValueError("its nodes form a loop")


def _local(node: dict[str, Any]) -> Float64[np.ndarray, "4 4"]:
    """A node's own transform: a matrix in columns, or translation · rotation · scale (section 3.5.2)."""
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    x, y, z, w = node.get("rotation", (0, 0, 0, 1))
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    ) * np.array(node.get("scale", (1, 1, 1)))
    matrix[:3, 3] = node.get("translation", (0, 0, 0))
    return matrix
