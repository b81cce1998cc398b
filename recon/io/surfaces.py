"""Clouds and meshes on disk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from recon.core.mesh import FusedCloud
from recon.errors import ReconError, UsageError, reading
from recon.io.glb import GlbBuilder, linear_of_srgb, model_from_scene, read_glb

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
_PLY_CORNERS = {"vertex_indices", "vertex_index"}
_PLY_NAMES = {"f4": "float", "f8": "double", "u1": "uchar", "u2": "ushort", "i4": "int"}

MESH_FORMATS = (".ply", ".obj", ".glb")


def write_points_ply(path: Path, cloud: FusedCloud) -> None:
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
    with open(path, "wb") as file:
        file.write(ply_header(rows))
        file.write(rows.tobytes())


def ply_header(rows: npt.NDArray[Any], comments: tuple[str, ...] = ()) -> bytes:
    """The header of a binary little-endian PLY with these vertices, one field of the rows for each property."""
    lines = ["ply", "format binary_little_endian 1.0", *(f"comment {text}" for text in comments)]
    lines.append(f"element vertex {len(rows)}")
    for name in rows.dtype.names or ():
        lines.append(f"property {_PLY_NAMES[rows.dtype[name].str[1:]]} {name}")
    return ("\n".join([*lines, "end_header"]) + "\n").encode("ascii", "replace")


def ply_elements(path: Path) -> dict[str, int]:
    """Counts of a PLY's elements by name ("vertex", "face", ...), from its header.

    Raises:
        ReconError: when the file is not a PLY, or ends within its header.
    """
    with reading(path), open(path, "rb") as file:
        return _ply_header(path, file)[1]


def read_ply_vertices(path: Path, every: int = 1) -> npt.NDArray[Any]:
    """Reads the vertices of a binary or ASCII PLY as a structured array with the properties that the file has.

    Args:
        every: above 1 only every so manieth vertex; of a binary file the others are not even read.

    Raises:
        ReconError: when the file is not a PLY with x, y and z, or is cut short.
    """
    with reading(path), open(path, "rb") as file:
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


def read_points_ply(path: Path) -> FusedCloud:
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

    return FusedCloud(
        np.stack([column(n, place) for n in ("x", "y", "z")], -1),
        np.stack([column(n, np.float32) for n in ("nx", "ny", "nz")], -1),
        np.stack([column(n, np.uint8) for n in ("red", "green", "blue")], -1),
        column("view_count", np.uint16),
        column("reference_view", np.int32),
        column("confidence", np.float32),
    )


@dataclass(frozen=True)
class _Element:
    """An element of a PLY: its properties' names, type codes, and of lists the type codes of their lengths."""

    name: str
    count: int
    properties: tuple[tuple[str, str, str], ...]


def _ply_layout(path: Path, file: BinaryIO) -> tuple[str, list[_Element]]:
    """Kind ("ascii", ...) and elements, from the header; the file is left at its end."""
    if file.readline().strip() != b"ply":
        raise ReconError(f"{path} is not a PLY file")
    kind = ""
    elements: list[_Element] = []
    for raw in iter(file.readline, b""):
        words = raw.decode("ascii", "replace").split()
        if not words or words[0] in {"comment", "obj_info"}:
            continue
        if words[0] == "format":
            kind = words[1]
        elif words[0] == "element":
            elements.append(_Element(words[1], int(words[2]), ()))
        elif words[0] == "property" and elements:
            is_list = words[1] == "list"
            length, code = (words[2], words[3]) if is_list else ("", words[1])
            if code not in _PLY_TYPES or (is_list and length not in _PLY_TYPES):
                raise ReconError(f"{path} has properties of a kind that is not supported ({' '.join(words)})")
            one = (words[-1], _PLY_TYPES[code], _PLY_TYPES[length] if is_list else "")
            elements[-1] = replace(elements[-1], properties=(*elements[-1].properties, one))
        elif words[0] == "end_header":
            return kind, elements
    raise ReconError(f"{path} ends within its header: write it again")


def _ply_header(path: Path, file: BinaryIO) -> tuple[str, dict[str, int], list[tuple[str, str]]]:
    """Kind ("ascii", ...), counts of the elements, and (name, type code) of the vertices' properties."""
    kind, layout = _ply_layout(path, file)
    elements = {one.name: one.count for one in layout}
    properties = [prop for one in layout if one.name == "vertex" for prop in one.properties]
    for name, _, length in properties:
        if length:
            raise ReconError(f"{path} has vertices of a kind that is not supported (list {name})")
    # Readers make room for what the header says. No element takes less than a byte.
    rest = path.stat().st_size - file.tell()
    vertices = elements.get("vertex", 0)
    size = np.dtype([(f"{i}", one[1]) for i, one in enumerate(properties)]).itemsize
    if kind != "ascii" and vertices * size > rest:
        raise ReconError(f"{path} is cut short: {rest // size} of {vertices} points")
    if min(elements.values(), default=0) < 0 or sum(elements.values()) > rest:
        raise ReconError(f"{path} is cut short: {sum(elements.values())} elements in {rest} bytes")
    return kind, elements, [(name, code) for name, code, _ in properties]


def _check_ply_faces(path: Path) -> None:
    """See that the faces of a PLY have three vertices or more, and all of them are in the file.

    Open3D looks at the vertices of polygons before anybody could check them.

    Raises:
        ReconError: they have not, or the file is cut short.
    """
    with reading(path), open(path, "rb") as file:
        kind, _, _ = _ply_header(path, file)
        file.seek(0)
        _, layout = _ply_layout(path, file)
        data = file.read()
    vertices = sum(one.count for one in layout if one.name == "vertex")
    order = ">" if kind == "binary_big_endian" else "<"
    with reading(path):
        at = 0
        words = data.split() if kind == "ascii" else []
        for element in layout:
            if kind == "ascii":
                at = _after_words(words, at, element, vertices)
            else:
                at = _after_bytes(data, at, element, vertices, order)


def _check_corners(corners: Any, vertices: int) -> None:
    if len(corners) and (np.min(corners) < 0 or np.max(corners) >= vertices):
        raise ValueError("it has a face whose vertices are not in the file")


def _after_bytes(data: bytes, at: int, element: _Element, vertices: int, order: str) -> int:
    """Offset of the next element of a binary PLY; faces are checked on the way."""
    fields: list[Any] = []
    for i, (_, code, length) in enumerate(element.properties):
        if length:
            fields += [(f"n{i}", order + length), (f"v{i}", order + code, 3)]
        else:
            fields.append((f"v{i}", order + code))
    row = np.dtype(fields)
    lists = [i for i, one in enumerate(element.properties) if one[2]]
    end = at + row.itemsize * element.count
    if end <= len(data):
        rows = np.frombuffer(data, row, element.count, at)
        if all((rows[f"n{i}"] == 3).all() for i in lists):  # triangles, as nearly always
            for i in lists:
                if element.properties[i][0] in _PLY_CORNERS:
                    _check_corners(rows[f"v{i}"], vertices)
            return end
    if not lists:
        raise ValueError("it is cut short")
    codes = [(name, np.dtype(order + code), length) for name, code, length in element.properties]
    for _ in range(element.count):
        for name, kind, length in codes:
            count = 1
            if length:
                length_type = np.dtype(order + length)
                count = int(np.frombuffer(data, length_type, 1, at)[0])
                at += length_type.itemsize
            values = np.frombuffer(data, kind, max(0, count), at)
            at += kind.itemsize * len(values)
            if length and name in _PLY_CORNERS:
                if count < 3:
                    raise ValueError(f"it has a face of {count} vertices")
                _check_corners(values, vertices)
    return at


def _after_words(words: list[bytes], at: int, element: _Element, vertices: int) -> int:
    """Position of the next element of an ASCII PLY; faces are checked on the way."""
    if not any(length for _, _, length in element.properties):
        return at + element.count * len(element.properties)
    for _ in range(element.count):
        for name, _, length in element.properties:
            count = int(words[at]) if length else 1
            at += bool(length)
            values = words[at : at + max(0, count)]
            at += len(values)
            if length and name in _PLY_CORNERS:
                if count < 3 or len(values) < count:
                    raise ValueError(f"it has a face of {len(values)} vertices")
                _check_corners(np.array([int(value) for value in values]), vertices)
    return at


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

    if path.suffix.lower() == ".ply":
        _check_ply_faces(path)
    with reading(path):
        mesh = o3d.io.read_triangle_mesh(str(path))
        triangles = np.asarray(mesh.triangles)
        if not len(triangles):
            raise ReconError(f"{path} holds no triangles")
        if triangles.min() < 0 or triangles.max() >= len(mesh.vertices):
            raise ReconError(f"{path} has a triangle whose vertices are not in the file")
        if path.suffix.lower() == ".glb":
            mesh.transform(model_from_scene(read_glb(path.read_bytes())[0]))
    return mesh


def _glb(mesh: Any) -> bytes:
    """Write a mesh as binary glTF: positions, normals and vertex colours.

    Open3D's own writer goes through Assimp, which leaves vertex colours out of some viewers.
    """
    glb = GlbBuilder()
    attributes = {"POSITION": glb.accessor(np.asarray(mesh.vertices, np.float32), bounds=True)}
    if mesh.has_vertex_normals():
        attributes["NORMAL"] = glb.accessor(np.asarray(mesh.vertex_normals, np.float32))
    if mesh.has_vertex_colors():
        linear = linear_of_srgb(np.clip(np.asarray(mesh.vertex_colors), 0, 1))
        rgba = np.concatenate([linear, np.ones((len(linear), 1))], 1)
        attributes["COLOR_0"] = glb.accessor(np.round(rgba * 65535).astype(np.uint16), normalized=True)
    indices = glb.accessor(np.asarray(mesh.triangles, np.uint32).reshape(-1))
    return glb.mesh(
        [{"attributes": attributes, "indices": indices, "material": 0}],
        [{"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0}, "doubleSided": True}],
    )
