"""The mesh of a run, light enough to be drawn and to be sent."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float64, UInt8

from recon.engine.stage import StageContext
from recon.io.pictures import encode_picture
from recon.render.scene import ViewMesh, read_view_mesh
from recon.report.content import Surface

_TEXTURED_FACES = 450_000
"""A textured mesh with more faces goes into the page by vertex colours, simplified."""

_FACES = 200_000
"""About so many faces are left of a mesh that is simplified."""

_TEXTURE_SIDE, _QUALITY = 2048, 80
"""Longest side of the page's texture, texels, and its JPEG quality."""

RunMesh = tuple[Float64[np.ndarray, "n 3"], Callable[[Float64[np.ndarray, "3"]], ViewMesh]]
"""Vertices in the world, in double precision, and the mesh as a function of the offset that is taken away."""


def load_run_mesh(work: StageContext, textured: bool) -> RunMesh:
    """The textured mesh if there is one, which has fewer faces, otherwise the coloured one.

    Raises:
        ReconError: it cannot be read.
    """
    path = work.path("mesh", "textured.glb")
    if not (textured and path.is_file()):
        path = work.path("mesh", "mesh.ply")
    vertices, near, _ = read_view_mesh(path, in_model=True)
    return vertices, near


def page_surface(work: StageContext, mesh: RunMesh) -> Surface:
    """The mesh for the page: with its texture made smaller, or with fewer faces.

    Raises:
        ReconError: the mesh cannot be read.
    """
    vertices, near = mesh
    made = near(np.zeros(3))
    if made.uv is not None and made.texture is not None:
        if len(made.faces) <= _TEXTURED_FACES:
            uv = np.column_stack([made.uv[:, 0], 1.0 - made.uv[:, 1]])
            return Surface(vertices, made.faces, uv=uv, texture=_small_texture(made.texture))
        return page_surface(work, load_run_mesh(work, textured=False))
    if len(made.faces) <= 1.5 * _FACES:
        return Surface(vertices, made.faces, made.rgb)
    return _clustered(vertices, made)


def _clustered(vertices: Float64[np.ndarray, "n 3"], mesh: ViewMesh) -> Surface:
    """Vertices that fall into one cell of a grid become one: coarser than collapsing edges, and far faster."""
    import open3d as o3d

    center = vertices.mean(axis=0)
    made = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(vertices - center), o3d.utility.Vector3iVector(mesh.faces)
    )
    if mesh.rgb is not None:
        made.vertex_colors = o3d.utility.Vector3dVector(mesh.rgb / 255.0)
    cell = float(np.sqrt(2.0 * made.get_surface_area() / _FACES))
    made = made.simplify_vertex_clustering(max(cell, 1e-12))
    rgb = None if mesh.rgb is None else np.rint(np.asarray(made.vertex_colors) * 255).astype(np.uint8)
    note = f"simplified from {len(mesh.faces):,}"
    return Surface(np.asarray(made.vertices) + center, np.asarray(made.triangles), rgb, note=note)


def _small_texture(texture: UInt8[np.ndarray, "h w 3"]) -> bytes:
    height, width = texture.shape[:2]
    factor = min(1.0, _TEXTURE_SIDE / max(width, height))
    if factor < 1.0:
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        texture = np.asarray(cv2.resize(texture, size, interpolation=cv2.INTER_AREA))
    return encode_picture(texture, "jpg", _QUALITY)
