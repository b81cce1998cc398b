"""Triangle meshes and clouds as arrays."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, Int32, UInt8, UInt16

if TYPE_CHECKING:
    from typing_extensions import Self  # of typing from Python 3.11 on


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


@dataclass(frozen=True)
class VertexMesh:
    """A triangle mesh as graphics hardware has it: texture coordinates belong to vertices, not to corners of faces.

    So vertices are repeated where charts of a texture meet. ``Mesh`` has each place once, as computing on a surface
    asks for: whoever draws takes this one, whoever measures the other.

    Attributes:
        vertices: (n, 3), finite; in double precision as read, in single with a scene's offset taken away.
        faces: (m, 3) vertex indices, counter-clockwise seen from outside.
        rgb: (n, 3) colours of the vertices; None where the file has none.
        uv: (n, 2) texture coordinates, v up; None without texture.
        texture: (h, w, 3), first row at v = 1.
    """

    vertices: Float[np.ndarray, "n 3"]
    faces: Int32[np.ndarray, "m 3"]
    rgb: UInt8[np.ndarray, "n 3"] | None = None
    uv: Float32[np.ndarray, "n 2"] | None = None
    texture: UInt8[np.ndarray, "h w 3"] | None = None

    @property
    def textured(self) -> bool:
        """True where there is a texture to draw."""
        return self.uv is not None and self.texture is not None

    def near(self, offset: Float64[np.ndarray, "3"]) -> VertexMesh:
        """Take an offset away, which brings the mesh near the origin, and go over to single precision."""
        return replace(self, vertices=(self.vertices - offset).astype(np.float32))


def mesh_from_open3d(mesh: Any) -> Mesh:
    """Convert an Open3D ``TriangleMesh``; a texture is taken along if it has exactly one."""
    rgb = uv = texture = None
    if mesh.has_vertex_colors():
        rgb = np.rint(np.asarray(mesh.vertex_colors) * 255).astype(np.uint8)
    if mesh.has_triangle_uvs() and len(mesh.textures) == 1:
        uv = np.asarray(mesh.triangle_uvs, np.float32).reshape(-1, 3, 2)
        texture = np.ascontiguousarray(np.asarray(mesh.textures[0])[..., :3])
    return Mesh(np.asarray(mesh.vertices, np.float32), np.asarray(mesh.triangles, np.int32), rgb, uv, texture)


def mesh_to_open3d(mesh: Mesh) -> Any:
    """Convert to an Open3D ``TriangleMesh``, with normals and colours where there are some; without texture."""
    from recon.core.open3d import o3d

    made = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(mesh.vertices.astype(np.float64)), o3d.utility.Vector3iVector(mesh.faces)
    )
    if mesh.normals is not None:
        made.vertex_normals = o3d.utility.Vector3dVector(mesh.normals.astype(np.float64))
    if mesh.rgb is not None:
        made.vertex_colors = o3d.utility.Vector3dVector(mesh.rgb / 255.0)
    return made


@dataclass(frozen=True)
class PointCloud:
    """Points; None where something is not known of them.

    Attributes:
        xyz: (n, 3) coordinates; float32, or float64 far from the origin, where that would be too coarse.
        normals: (n, 3) float32 unit vectors, zero where unknown.
        rgb: (n, 3) uint8.
        view_count: number of views that agree on each point, (n,) uint16.
        reference_view: photo id of the view that made the point, (n,) int32.
        confidence: (n,) float32 in 0…1.
    """

    xyz: Float[np.ndarray, "n 3"]
    normals: Float32[np.ndarray, "n 3"] | None = None
    rgb: UInt8[np.ndarray, "n 3"] | None = None
    view_count: UInt16[np.ndarray, " n"] | None = None
    reference_view: Int32[np.ndarray, " n"] | None = None
    confidence: Float32[np.ndarray, " n"] | None = None

    def __len__(self) -> int:
        return len(self.xyz)

    def rows(self, chosen: Int[np.ndarray, " k"] | Bool[np.ndarray, " n"] | slice) -> Self:
        """Some of the points."""
        known = {one.name: getattr(self, one.name) for one in fields(self)}
        return replace(self, **{name: values[chosen] for name, values in known.items() if values is not None})

    def finite(self) -> Self:
        """Only the points whose coordinates are numbers."""
        keep: Bool[np.ndarray, " n"] = np.isfinite(self.xyz).all(axis=1)
        return self if keep.all() else self.rows(keep)

    def moved(
        self, scale: float, rotation: Float[np.ndarray, "3 3"], translation: Float[np.ndarray, "3"]
    ) -> Self:
        """The cloud in another world, in double precision: x' = scale * rotation @ x + translation."""
        R = np.asarray(rotation, np.float64)
        xyz = scale * self.xyz.astype(np.float64) @ R.T + np.asarray(translation, np.float64)
        turned = None if self.normals is None else (self.normals @ R.T).astype(np.float32)
        return replace(self, xyz=xyz, normals=turned)


@dataclass(frozen=True)
class FusedCloud(PointCloud):
    """Points of depth maps: all is known of them, normals point towards the cameras."""

    normals: Float32[np.ndarray, "n 3"]
    rgb: UInt8[np.ndarray, "n 3"]
    view_count: UInt16[np.ndarray, " n"]
    reference_view: Int32[np.ndarray, " n"]
    confidence: Float32[np.ndarray, " n"]
