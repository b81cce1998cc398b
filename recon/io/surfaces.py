"""Clouds and meshes on disk."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Float64, Int32, UInt8

from recon.core.memory import release
from recon.core.mesh import FusedCloud, Mesh
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


_ROWS = 200_000
"""Points or faces that are read or written at once."""


def write_points_ply(path: Path, cloud: FusedCloud | Iterable[FusedCloud], count: int | None = None) -> None:
    """Write a cloud as a binary little-endian PLY that common viewers open.

    Vertex properties: x y z (float, or double if the cloud's are), nx ny nz (float), red green blue (uchar), view_count
    (ushort), reference_view (int) and confidence (float).

    Args:
        cloud: or its parts, one after the other; all have coordinates of one type.
        count: points of all parts together; needed for parts.

    Raises:
        ValueError: the parts hold another number of points.
    """
    if isinstance(cloud, FusedCloud):
        whole, count = cloud, len(cloud)
        cloud = (whole.rows(slice(i, i + _ROWS)) for i in range(0, max(count, 1), _ROWS))
    written, layout = 0, _POINT
    with open(path, "wb") as file:
        for part in cloud:
            if file.tell() == 0:
                layout = _layout_of(part)
                file.write(_header_of(layout, count or 0))
            file.write(_rows_of(part, layout).tobytes())
            written += len(part)
        if file.tell() == 0:
            file.write(_header_of(layout, 0))
    if written != count:
        raise ValueError(f"{written} points where {count} were announced")


def _layout_of(cloud: FusedCloud) -> np.dtype[Any]:
    double = cloud.xyz.dtype == np.float64
    names = _POINT.names or ()
    return np.dtype([(name, "<f8" if double and name in "xyz" else _POINT[name].str) for name in names])


def _rows_of(cloud: FusedCloud, layout: np.dtype[Any]) -> npt.NDArray[Any]:
    rows = np.empty(len(cloud), layout)
    for i, axis in enumerate("xyz"):
        rows[axis] = cloud.xyz[:, i]
        rows["n" + axis] = cloud.normals[:, i]
    for i, name in enumerate(("red", "green", "blue")):
        rows[name] = cloud.rgb[:, i]
    rows["view_count"] = cloud.view_count
    rows["reference_view"] = cloud.reference_view
    rows["confidence"] = cloud.confidence
    return rows


def ply_header(rows: npt.NDArray[Any], comments: tuple[str, ...] = ()) -> bytes:
    """The header of a binary little-endian PLY with these vertices, one field of the rows for each property."""
    return _header_of(rows.dtype, len(rows), comments)


def _header_of(
    layout: np.dtype[Any], count: int, comments: tuple[str, ...] = (), faces: int | None = None
) -> bytes:
    lines = ["ply", "format binary_little_endian 1.0", *(f"comment {text}" for text in comments)]
    lines.append(f"element vertex {count}")
    for name in layout.names or ():
        lines.append(f"property {_PLY_NAMES[layout[name].str[1:]]} {name}")
    if faces is not None:
        lines += [f"element face {faces}", "property list uchar uint vertex_indices"]
    return ("\n".join([*lines, "end_header"]) + "\n").encode("ascii", "replace")


def ply_elements(path: Path) -> dict[str, int]:
    """Counts of a PLY's elements by name ("vertex", "face", ...), from its header.

    Raises:
        ReconError: when the file is not a PLY, or ends within its header.
    """
    with reading(path), open(path, "rb") as file:
        return _ply_header(path, file)[1]


def read_ply_vertices(path: Path, every: int = 1) -> npt.NDArray[Any]:
    """Read the vertices of a binary or ASCII PLY as a structured array with the properties that the file has.

    Args:
        every: above 1 only every so manieth vertex; of a binary file the others are not even read.

    Raises:
        ReconError: when the file is not a PLY with x, y and z, or is cut short.
    """
    with reading(path), open(path, "rb") as file:
        kind, count, dtype = _vertices_of(path, file)
        if kind == "ascii":
            names = dtype.names or ()
            text = np.loadtxt(file, max_rows=count, ndmin=2) if count else np.zeros((0, len(names)))
            if text.shape[0] < count:
                raise ReconError(f"{path} is cut short: {text.shape[0]} of {count} points")
            rows = np.empty(count, dtype)
            for i, name in enumerate(names):
                rows[name] = text[:, i]
            return rows[::every]
        if every > 1:
            start = file.tell()
            there = (file.seek(0, 2) - start) // dtype.itemsize
            if there < count:
                raise ReconError(f"{path} is cut short: {there} of {count} points")
            mapped = np.memmap(path, dtype, "r", start, (count,))
            some = np.empty(-(-count // every), dtype)
            for first in range(0, len(some), _ROWS):
                some[first : first + _ROWS] = mapped[first * every : (first + _ROWS) * every : every]
                release([mapped])
            return some
        data = file.read(count * dtype.itemsize)
        if len(data) < count * dtype.itemsize:
            raise ReconError(f"{path} is cut short: {len(data) // dtype.itemsize} of {count} points")
        return np.frombuffer(data, dtype)


def read_points_ply(path: Path) -> FusedCloud:
    """Read the vertices of a binary or ASCII PLY as a cloud; what the file lacks is zero.

    Positions are double precision where the file's are.

    Raises:
        ReconError: when the file is not a PLY with x, y and z, or is cut short.
    """
    parts = points_in_parts(path)
    first = next(parts)
    count = ply_elements(path).get("vertex", 0)
    if len(first) == count:
        return first
    names = [one.name for one in fields(FusedCloud)]
    whole = {}
    for name in names:
        values = getattr(first, name)
        whole[name] = np.empty((count, *values.shape[1:]), values.dtype)
    at = 0
    for part in itertools.chain([first], parts):
        for name in names:
            whole[name][at : at + len(part)] = getattr(part, name)
        at += len(part)
    return FusedCloud(**whole)


def points_in_parts(path: Path) -> Iterator[FusedCloud]:
    """As ``read_points_ply``, some points after the others, at least one part; an ASCII file comes in one.

    Raises:
        ReconError: as of ``read_points_ply``.
    """
    with reading(path), open(path, "rb") as file:
        kind, count, dtype = _vertices_of(path, file)
        if kind == "ascii":
            yield _cloud_of(read_ply_vertices(path))
            return
        for start in range(0, max(count, 1), _ROWS):
            size = min(_ROWS, count - start)
            data = file.read(size * dtype.itemsize)
            if len(data) < size * dtype.itemsize:
                raise ReconError(
                    f"{path} is cut short: {start + len(data) // dtype.itemsize} of {count} points"
                )
            yield _cloud_of(np.frombuffer(data, dtype))


def thin_points(path: Path, most: int) -> tuple[Float[np.ndarray, "k 3"], UInt8[np.ndarray, "k 3"]]:
    """Places and colours of points; of more than ``most`` every second, third and so on, less than twice as many.

    Raises:
        ReconError: as of ``read_points_ply``.
    """
    count = ply_elements(path).get("vertex", 0)
    step = max(1, count // most)
    kept, rgb, start, at = -(-count // step), np.zeros((0, 3), np.uint8), 0, 0
    xyz: npt.NDArray[Any] = np.zeros((0, 3), np.float32)
    for part in points_in_parts(path):
        if start == 0:
            xyz, rgb = np.empty((kept, 3), part.xyz.dtype), np.empty((kept, 3), np.uint8)
        chosen = slice(-start % step, None, step)
        some = part.xyz[chosen]
        xyz[at : at + len(some)], rgb[at : at + len(some)] = some, part.rgb[chosen]
        start, at = start + len(part), at + len(some)
    return xyz, rgb


def _cloud_of(rows: npt.NDArray[Any]) -> FusedCloud:
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


def _vertices_of(path: Path, file: BinaryIO) -> tuple[str, int, np.dtype[Any]]:
    """Kind ("ascii", ...), number and layout of the vertices with which a PLY begins; the file is left before them."""
    kind, elements, properties = _ply_header(path, file)
    first = next((name for name, size in elements.items() if size), "vertex")
    if first != "vertex" or not {"x", "y", "z"} <= {name for name, _ in properties}:
        raise ReconError(f"{path} does not begin with vertices that have x, y and z")
    order = ">" if kind == "binary_big_endian" else "<"
    return kind, elements.get("vertex", 0), np.dtype([(name, order + code) for name, code in properties])


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
    """Write an Open3D triangle mesh with vertex colours and normals as .ply (binary), .obj or .glb, by the suffix.

    Raises:
        UsageError: for another suffix.
        ReconError: when the file could not be written.
    """
    from recon.core.open3d import o3d

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
    """Read a mesh as an Open3D triangle mesh; a GLB of a run, which is turned upright, in the frame of the run.

    Raises:
        ReconError: when the file holds no triangles.
    """
    from recon.core.open3d import o3d

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


_MESH_VERTEX = np.dtype(
    [(name, "<f8") for name in ("x", "y", "z", "nx", "ny", "nz")]
    + [(c, "u1") for c in ("red", "green", "blue")]
)
_TRIANGLE = np.dtype([("corners", "u1"), ("vertex", "<u4", 3)])


def write_mesh_ply(path: Path, mesh: Mesh, offset: npt.NDArray[np.float64]) -> None:
    """Write a mesh with normals and colours as binary PLY, as ``write_mesh`` does, without a copy of it.

    Args:
        offset: (3,) is added to the vertices.
    """
    normals, rgb = mesh.normals, mesh.rgb
    assert normals is not None
    assert rgb is not None
    with open(path, "wb") as file:
        file.write(_header_of(_MESH_VERTEX, len(mesh.vertices), faces=len(mesh.faces)))
        for start in range(0, len(mesh.vertices), _ROWS):
            chosen = slice(start, start + _ROWS)
            xyz = mesh.vertices[chosen] + offset
            vertices = np.empty(len(xyz), _MESH_VERTEX)
            for i, axis in enumerate("xyz"):
                vertices[axis], vertices["n" + axis] = xyz[:, i], normals[chosen, i]
            for i, name in enumerate(("red", "green", "blue")):
                vertices[name] = rgb[chosen, i]
            file.write(vertices.tobytes())
        for start in range(0, len(mesh.faces), _ROWS):
            corners = mesh.faces[start : start + _ROWS]
            triangles = np.empty(len(corners), _TRIANGLE)
            triangles["corners"], triangles["vertex"] = 3, corners
            file.write(triangles.tobytes())


def read_mesh_shape(path: Path) -> tuple[Float64[np.ndarray, "n 3"], Int32[np.ndarray, "m 3"]]:
    """Vertices and triangles of a mesh; of a binary PLY of triangles without a second copy in memory.

    Raises:
        ReconError: as of ``read_mesh``.
    """
    if path.suffix.lower() == ".ply":
        with reading(path), open(path, "rb") as file:
            kind, _, _ = _ply_header(path, file)
            at = file.tell()
            file.seek(0)
            _, layout = _ply_layout(path, file)
            plain = kind == "binary_little_endian" and _is_plain(layout)
            found = _plain_mesh(file, at, layout) if plain else None
        if found is not None:
            return found
    mesh = read_mesh(path)
    return np.array(mesh.vertices), np.array(mesh.triangles, np.int32)


def _is_plain(layout: list[_Element]) -> bool:
    """True where a PLY has vertices, and then faces that are one list of 32-bit indices each."""
    if [one.name for one in layout] != ["vertex", "face"]:
        return False
    faces = layout[1].properties
    return len(faces) == 1 and faces[0][0] in _PLY_CORNERS and faces[0][1:] in (("u4", "u1"), ("i4", "u1"))


def _plain_mesh(
    file: BinaryIO, at: int, layout: list[_Element]
) -> tuple[Float64[np.ndarray, "n 3"], Int32[np.ndarray, "m 3"]] | None:
    """Vertices and triangles; None where the file is cut short, or its faces are others than triangles of vertices."""
    count, faces = (one.count for one in layout)
    row = np.dtype([(name, "<" + code) for name, code, _ in layout[0].properties])
    if not faces or file.seek(0, 2) < at + count * row.itemsize + faces * _TRIANGLE.itemsize:
        return None
    file.seek(at)
    xyz, corners = np.empty((count, 3)), np.empty((faces, 3), np.int32)
    for start in range(0, count, _ROWS):
        rows = np.frombuffer(file.read(min(_ROWS, count - start) * row.itemsize), row)
        for i, axis in enumerate("xyz"):
            xyz[start : start + len(rows), i] = rows[axis]
    for start in range(0, faces, _ROWS):
        triangles = np.frombuffer(file.read(min(_ROWS, faces - start) * _TRIANGLE.itemsize), _TRIANGLE)
        if (triangles["corners"] != 3).any() or triangles["vertex"].max() >= count:
            return None
        corners[start : start + len(triangles)] = triangles["vertex"]
    return xyz, corners


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
