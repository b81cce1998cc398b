"""The mesh of a run, light enough to be drawn and to be sent."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recon.core.memory import once
from recon.core.mesh import VertexMesh
from recon.core.resize import resize_rgb, working_size
from recon.io.manifest import Manifest
from recon.io.pictures import encode_picture
from recon.render.scene_files import read_view_mesh
from recon.report.content import Surface
from recon.run.folder import RunFolder

# A textured mesh with more faces goes into the page by vertex colours, simplified.
_TEXTURED_FACES = 450_000

# About so many faces are left of a mesh that is simplified.
_FACES = 200_000

# Textures are read so large at most, all together: pictures and page show no more.
_TEXELS = 1 << 23

# Longest side of the page's texture, texels, and its JPEG quality.
_TEXTURE_SIDE, _QUALITY = 2048, 80


def run_mesh(run: RunFolder, manifest: Manifest) -> Callable[[], VertexMesh]:
    """Give the mesh of a run, read when it is asked for: the textured one, which has fewer faces, if there is one."""
    texture = manifest.stages.get("texture")
    path = run.path("mesh", "textured.glb")
    if texture is None or texture.state != "done" or not path.is_file():
        path = run.path("mesh", "mesh.ply")
    return once(lambda: read_view_mesh(path, in_model=True, texels=_TEXELS)[0])


def page_surface(run: RunFolder, mesh: VertexMesh) -> Surface:
    """Make a mesh ready for the page: with its texture made smaller, or with fewer faces.

    Raises:
        ReconError: the mesh cannot be read.
    """
    if mesh.uv is not None and mesh.texture is not None:
        if len(mesh.faces) <= _TEXTURED_FACES:
            uv = np.column_stack([mesh.uv[:, 0], 1.0 - mesh.uv[:, 1]])
            width, height = working_size(mesh.texture.shape[1], mesh.texture.shape[0], _TEXTURE_SIDE)
            texture = encode_picture(resize_rgb(mesh.texture, width, height), "jpg", _QUALITY)
            return Surface(mesh.vertices, mesh.faces, uv=uv, texture=texture)
        return page_surface(run, read_view_mesh(run.path("mesh", "mesh.ply"))[0])
    if len(mesh.faces) <= 1.5 * _FACES:
        return Surface(mesh.vertices, mesh.faces, mesh.rgb)
    return _clustered(mesh)


def _clustered(mesh: VertexMesh) -> Surface:
    """Vertices that fall into one cell of a grid become one: coarser than collapsing edges, and far faster."""
    from recon.core.open3d import o3d

    center = mesh.vertices.mean(axis=0)
    made = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(mesh.vertices - center), o3d.utility.Vector3iVector(mesh.faces)
    )
    if mesh.rgb is not None:
        made.vertex_colors = o3d.utility.Vector3dVector(mesh.rgb / 255.0)
    cell = float(np.sqrt(2.0 * made.get_surface_area() / _FACES))
    made = made.simplify_vertex_clustering(max(cell, 1e-12))
    rgb = None if mesh.rgb is None else np.rint(np.asarray(made.vertex_colors) * 255).astype(np.uint8)
    note = f"simplified from {len(mesh.faces):,}"
    return Surface(np.asarray(made.vertices) + center, np.asarray(made.triangles), rgb, note=note)
