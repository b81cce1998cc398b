"""Clouds and meshes on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from recon.core.mesh import PointCloud
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
_PLY_NAMES = {"f4": "float", "f8": "double", "u1": "uchar", "u2": "ushort", "i4": "int"}

MESH_FORMATS = (".ply", ".obj", ".glb")


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
            # Readers make room for what the header says. No element takes less than a byte.
            rest = path.stat().st_size - file.tell()
            vertices = elements.get("vertex", 0)
            size = np.dtype([(f"{i}", one[1]) for i, one in enumerate(properties)]).itemsize
            if kind != "ascii" and vertices * size > rest:
                raise ReconError(f"{path} is cut short: {rest // size} of {vertices} points")
            if min(elements.values(), default=0) < 0 or sum(elements.values()) > rest:
                raise ReconError(f"{path} is cut short: {sum(elements.values())} elements in {rest} bytes")
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

    if path.suffix.lower() == ".ply":
        ply_elements(path)
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
        {"attributes": attributes, "indices": indices, "material": 0},
        {"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0}, "doubleSided": True},
    )
