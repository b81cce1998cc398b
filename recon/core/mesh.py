"""Triangle meshes and clouds as arrays."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int32, Int64, UInt8, UInt16


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh as arrays.

    Attributes:
        vertices: (n, 3) in the world, float32 or float64.
        faces: (m, 3) int32 vertex indices, counter-clockwise seen from outside.
        rgb: (n, 3) uint8 colours of the vertices, None where the mesh has none.
        uv: (m, 3, 2) texture coordinates of each face's corners, v up (OBJ; glTF's v is 1 - v); None without texture.
        texture: (th, tw, 3) uint8 RGB, first row at v = 1; None without texture.
        normals: (n, 3) float32 unit normals of the vertices, None where the mesh has none.
    """

    vertices: Float[np.ndarray, "n 3"]
    faces: Int32[np.ndarray, "m 3"]
    rgb: UInt8[np.ndarray, "n 3"] | None = None
    uv: Float[np.ndarray, "m 3 2"] | None = None
    texture: UInt8[np.ndarray, "th tw 3"] | None = None
    normals: Float32[np.ndarray, "n 3"] | None = None

    @property
    def textured(self) -> bool:
        """True where there is a texture to draw."""
        return self.uv is not None and self.texture is not None


def mesh_from_open3d(mesh: Any) -> Mesh:
    """Convert an Open3D ``TriangleMesh``; a texture is taken along if it has exactly one."""
    rgb = uv = texture = None
    if mesh.has_vertex_colors():
        rgb = np.rint(np.asarray(mesh.vertex_colors) * 255).astype(np.uint8)
    if mesh.has_triangle_uvs() and len(mesh.textures) == 1:
        uv = np.asarray(mesh.triangle_uvs, np.float32).reshape(-1, 3, 2)
        texture = np.ascontiguousarray(np.asarray(mesh.textures[0])[..., :3])
    return Mesh(np.asarray(mesh.vertices, np.float32), np.asarray(mesh.triangles, np.int32), rgb, uv, texture)


@dataclass(frozen=True)
class PointCloud:
    """Fused points.

    Attributes:
        xyz: (n, 3) world coordinates; float32, or float64 far from the origin, where that would be too coarse.
        normals: (n, 3) float32 unit vectors in the world, towards the cameras.
        rgb: (n, 3) uint8.
        view_count: number of views that agree on each point, (n,) uint16.
        reference_view: photo id of the view that made the point, (n,) int32.
        confidence: (n,) float32.
    """

    xyz: Float[np.ndarray, "n 3"]
    normals: Float32[np.ndarray, "n 3"]
    rgb: UInt8[np.ndarray, "n 3"]
    view_count: UInt16[np.ndarray, " n"]
    reference_view: Int32[np.ndarray, " n"]
    confidence: Float32[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.xyz)

    def rows(self, chosen: Int64[np.ndarray, " k"]) -> PointCloud:
        """Some of the points."""
        return PointCloud(*(getattr(self, one.name)[chosen] for one in fields(self)))
