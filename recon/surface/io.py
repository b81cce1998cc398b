"""Clouds and meshes on disk."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64

from recon.dense.types import PointCloud
from recon.errors import ReconError, UsageError

_POINT = np.dtype(
    [
        ("x", "<f4"), ("y", "<f4"), ("z", "<f4"),
        ("nx", "<f4"), ("ny", "<f4"), ("nz", "<f4"),
        ("red", "u1"), ("green", "u1"), ("blue", "u1"),
        ("view_count", "<u2"), ("reference_view", "<i4"), ("confidence", "<f4"),
    ]
)  # fmt: skip
_PLY_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_PLY_NAMES = {"f4": "float", "f8": "double", "u1": "uchar", "u2": "ushort", "i4": "int"}

MESH_FORMATS = (".ply", ".obj", ".glb")

JSON_CHUNK = 0x4E4F534A
MODEL_FROM_SCENE = "model_from_scene"
"""Entry of a GLB's ``asset.extras``: the matrix (by rows) that takes its scene back to the frame of the model."""


def write_points_ply(path: Path, cloud: PointCloud) -> None:
    """Writes a cloud as a binary little-endian PLY that common viewers open.

    Vertex properties: x y z (float, or double if the cloud's are), nx ny nz (float), red green blue (uchar),
        view_count (ushort), reference_view (int) and confidence (float).
    """
    double = cloud.xyz.dtype == np.float64
    names = _POINT.names or ()
    layout = [(name, "<f8" if double and name in "xyz" else _POINT[name].str) for name in names]
    rows = np.empty(len(cloud), np.dtype(layout))
    for i, axis in enumerate("xyz"):
        rows[axis] = cloud.xyz[:, i]
        rows["n" + axis] = cloud.normals[:, i]
    for i, name in enumerate(("red", "green", "blue")):
        rows[name] = cloud.rgb[:, i]
    rows["view_count"] = cloud.view_count
    rows["reference_view"] = cloud.reference_view
    rows["confidence"] = cloud.confidence
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    lines += [f"property {_PLY_NAMES[rows.dtype[name].str[1:]]} {name}" for name in names]
    with open(path, "wb") as file:
        file.write(("\n".join([*lines, "end_header"]) + "\n").encode("ascii"))
        file.write(rows.tobytes())


def ply_elements(path: Path) -> dict[str, int]:
    """Counts of a PLY's elements by name ("vertex", "face", ...), from its header.

    Raises:
        ReconError: when the file is not a PLY, or ends within its header.
    """
    with open(path, "rb") as file:
        return _ply_header(path, file)[1]


def read_ply_vertices(path: Path, every: int = 1) -> npt.NDArray[Any]:
    """Reads the vertices of a binary or ASCII PLY as a structured array with the properties that the file has.

    Args:
        every: above 1 only every so manieth vertex; of a binary file the others are not even read.

    Raises:
        ReconError: when the file is not a PLY with x, y and z, or is cut short.
    """
    with open(path, "rb") as file:
        kind, elements, properties = _ply_header(path, file)
        count = elements.get("vertex", 0)
        first = next((name for name, size in elements.items() if size), "vertex")
        if first != "vertex" or not {"x", "y", "z"} <= {name for name, _ in properties}:
            raise ReconError(f"{path} does not begin with vertices that have x, y and z")
        order = ">" if kind == "binary_big_endian" else "<"
        dtype = np.dtype([(name, order + code) for name, code in properties])
        if kind == "ascii":
            text = np.loadtxt(file, max_rows=count, ndmin=2) if count else np.zeros((0, len(properties)))
            if text.shape[0] < count:
                raise ReconError(f"{path} is cut short: {text.shape[0]} of {count} points")
            rows = np.empty(count, dtype)
            for i, (name, _) in enumerate(properties):
                rows[name] = text[:, i]
            return rows[::every]
        if every > 1:
            start = file.tell()
            there = (file.seek(0, 2) - start) // dtype.itemsize
            if there < count:
                raise ReconError(f"{path} is cut short: {there} of {count} points")
            return np.array(np.memmap(path, dtype, "r", start, (count,))[::every])
        data = file.read(count * dtype.itemsize)
        if len(data) < count * dtype.itemsize:
            raise ReconError(f"{path} is cut short: {len(data) // dtype.itemsize} of {count} points")
        return np.frombuffer(data, dtype)


def read_points_ply(path: Path) -> PointCloud:
    """Reads the vertices of a binary or ASCII PLY as a cloud; what the file lacks is zero.

    Positions are double precision where the file's are.

    Raises:
        ReconError: when the file is not a PLY with x, y and z, or is cut short.
    """
    rows = read_ply_vertices(path)
    place = np.float64 if any(rows.dtype[axis] == np.float64 for axis in "xyz") else np.float32

    def column(name: str, kind: Any) -> npt.NDArray[Any]:
        if name in (rows.dtype.names or ()):
            return np.ascontiguousarray(rows[name]).astype(kind)
        return np.zeros(len(rows), kind)

    return PointCloud(
        np.stack([column(n, place) for n in ("x", "y", "z")], -1),
        np.stack([column(n, np.float32) for n in ("nx", "ny", "nz")], -1),
        np.stack([column(n, np.uint8) for n in ("red", "green", "blue")], -1),
        column("view_count", np.uint16),
        column("reference_view", np.int32),
        column("confidence", np.float32),
    )


def _ply_header(path: Path, file: BinaryIO) -> tuple[str, dict[str, int], list[tuple[str, str]]]:
    """Kind ("ascii", ...), counts of the elements, and (name, type code) of the vertices' properties."""
    if file.readline().strip() != b"ply":
        raise ReconError(f"{path} is not a PLY file")
    kind = element = ""
    elements: dict[str, int] = {}
    properties: list[tuple[str, str]] = []
    for raw in iter(file.readline, b""):
        words = raw.decode("ascii", "replace").split()
        if not words or words[0] in {"comment", "obj_info"}:
            continue
        if words[0] == "format":
            kind = words[1]
        elif words[0] == "element":
            element = words[1]
            elements[element] = int(words[2])
        elif words[0] == "property" and element == "vertex":
            if words[1] == "list" or words[1] not in _PLY_TYPES:
                raise ReconError(f"{path} has vertices of a kind that is not supported ({' '.join(words)})")
            properties.append((words[2], _PLY_TYPES[words[1]]))
        elif words[0] == "end_header":
            return kind, elements, properties
    raise ReconError(f"{path} ends within its header: write it again")


def write_mesh(path: Path, mesh: Any) -> None:
    """Writes an Open3D triangle mesh with vertex colours and normals as .ply (binary), .obj or .glb, by the suffix.

    Raises:
        UsageError: for another suffix.
        ReconError: when the file could not be written.
    """
    import open3d as o3d

    if path.suffix.lower() not in MESH_FORMATS:
        raise UsageError(f"{path.name}: a mesh is written as one of {', '.join(MESH_FORMATS)}")
    if path.suffix.lower() == ".glb":
        path.write_bytes(_glb(mesh))
        return
    if mesh.has_vertex_colors():
        colors = np.clip(np.asarray(mesh.vertex_colors), 0.0, 1.0)
        mesh = o3d.geometry.TriangleMesh(mesh)
        mesh.vertex_colors = o3d.utility.Vector3dVector(colors)
    if not o3d.io.write_triangle_mesh(str(path), mesh, write_ascii=False, compressed=False):
        raise ReconError(f"{path} could not be written: is the folder there, and the disk not full?")


def read_mesh(path: Path) -> Any:
    """Reads a mesh as an Open3D triangle mesh; a GLB of a run, which is turned upright, in the frame of the run.

    Raises:
        ReconError: when the file holds no triangles.
    """
    import open3d as o3d

    mesh = o3d.io.read_triangle_mesh(str(path))
    if len(mesh.triangles) == 0:
        raise ReconError(f"{path} holds no triangles")
    if path.suffix.lower() == ".glb":
        mesh.transform(model_from_scene(read_glb(path.read_bytes())[0]))
    return mesh


def _glb(mesh: Any) -> bytes:
    """A mesh as binary glTF 2.0: one primitive with positions, normals and vertex colours.

    Open3D's own writer goes through Assimp, which leaves vertex colours out of some viewers; the format is
    small enough to write (Khronos glTF 2.0 specification, section 4.4).
    """
    xyz = np.asarray(mesh.vertices, np.float32)
    triangles = np.asarray(mesh.triangles, np.uint32)
    parts: list[bytes] = []
    views: list[dict[str, Any]] = []
    accessors: list[dict[str, Any]] = []

    def add(data: npt.NDArray[Any], component: int, kind: str, target: int, **more: Any) -> int:
        raw = np.ascontiguousarray(data).tobytes()
        views.append(
            {"buffer": 0, "byteOffset": sum(map(len, parts)), "byteLength": len(raw), "target": target}
        )
        parts.append(raw + b"\0" * (-len(raw) % 4))
        accessors.append(
            {
                "bufferView": len(views) - 1,
                "componentType": component,
                "count": len(data) if kind != "SCALAR" else data.size,
                "type": kind,
                **more,
            }
        )
        return len(accessors) - 1

    low = xyz.min(axis=0).tolist() if len(xyz) else [0.0] * 3
    high = xyz.max(axis=0).tolist() if len(xyz) else [0.0] * 3
    attributes = {"POSITION": add(xyz, 5126, "VEC3", 34962, min=low, max=high)}
    if mesh.has_vertex_normals():
        attributes["NORMAL"] = add(np.asarray(mesh.vertex_normals, np.float32), 5126, "VEC3", 34962)
    if mesh.has_vertex_colors():
        # glTF colours are linear; photos are sRGB (IEC 61966-2-1).
        srgb = np.clip(np.asarray(mesh.vertex_colors), 0, 1)
        linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
        rgba = np.concatenate([linear, np.ones((len(linear), 1))], 1)
        attributes["COLOR_0"] = add(
            np.round(rgba * 65535).astype(np.uint16), 5123, "VEC4", 34962, normalized=True
        )
    indices = add(triangles.reshape(-1), 5125, "SCALAR", 34963)
    binary = b"".join(parts)
    document = {
        "asset": {"version": "2.0", "generator": "recon"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}],
        "materials": [
            {"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0}, "doubleSided": True}
        ],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(binary)}],
    }
    return glb_container(document, binary)


def glb_container(document: Mapping[str, Any], binary: bytes) -> bytes:
    """A GLB file of a glTF document and its one buffer, whose length is a multiple of four (glTF 2.0, section 4.4)."""
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    length = 12 + 8 + len(text) + 8 + len(binary)
    return b"".join(
        [
            b"glTF",
            np.array([2, length, len(text)], "<u4").tobytes(),
            b"JSON",
            text,
            np.array([len(binary)], "<u4").tobytes(),
            b"BIN\0",
            binary,
        ]
    )


def read_glb(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The document of a GLB and its remaining chunks as they are.

    Raises:
        ValueError: it is not a binary glTF 2.0 file.
    """
    if len(data) < 20 or data[:4] != b"glTF" or struct.unpack_from("<I", data, 4)[0] != 2:
        raise ValueError("not a binary glTF 2.0 file")
    length, kind = struct.unpack_from("<II", data, 12)
    if kind != JSON_CHUNK:
        raise ValueError("a GLB that does not begin with its JSON")
    document = json.loads(data[20 : 20 + length])
    return document, data[20 + length :]


def model_from_scene(document: dict[str, Any]) -> Float64[np.ndarray, "4 4"]:
    """The matrix from a glTF document's scene to the model that it was made of; the identity for foreign files."""
    found = document.get("asset", {}).get("extras", {})
    rows = found.get(MODEL_FROM_SCENE) if isinstance(found, dict) else None
    return np.eye(4) if rows is None else np.array(rows, np.float64).reshape(4, 4)
