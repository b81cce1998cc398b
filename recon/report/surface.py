"""The mesh of a run, light enough to be drawn and to be sent."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from recon.core.resize import resize_rgb, working_size
from recon.io.manifest import Manifest
from recon.io.pictures import encode_picture
from recon.render.scene import ViewMesh, read_view_mesh
from recon.report.content import Surface
from recon.run.folder import RunFolder

# A textured mesh with more faces goes into the page by vertex colours, simplified.
_TEXTURED_FACES = 450_000

# About so many faces are left of a mesh that is simplified.
_FACES = 200_000

# Longest side of the page's texture, texels, and its JPEG quality.
_TEXTURE_SIDE, _QUALITY = 2048, 80

# Vertices in the world, in double precision, and the mesh as a function of the offset that is taken away.
RunMesh = tuple[Float64[np.ndarray, "n 3"], Callable[[Float64[np.ndarray, "3"]], ViewMesh]]


def run_mesh(run: RunFolder, manifest: Manifest) -> Callable[[], RunMesh]:
    """Give the mesh of a run, read when it is asked for: the textured one, which has fewer faces, if there is one."""
    texture = manifest.stages.get("texture")
    path = run.path("mesh", "textured.glb")
    if texture is None or texture.state != "done" or not path.is_file():
        path = run.path("mesh", "mesh.ply")
    return cache(lambda: _read(path))


def _read(path: Path) -> RunMesh:
    vertices, near, _ = read_view_mesh(path, in_model=True)
    return vertices, near


def page_surface(run: RunFolder, mesh: RunMesh) -> Surface:
    """Make a mesh ready for the page: with its texture made smaller, or with fewer faces.

    Raises:
        ReconError: the mesh cannot be read.
    """
    vertices, near = mesh
    made = near(np.zeros(3))
    if made.uv is not None and made.texture is not None:
        if len(made.faces) <= _TEXTURED_FACES:
            uv = np.column_stack([made.uv[:, 0], 1.0 - made.uv[:, 1]])
            width, height = working_size(made.texture.shape[1], made.texture.shape[0], _TEXTURE_SIDE)
            texture = encode_picture(resize_rgb(made.texture, width, height), "jpg", _QUALITY)
            return Surface(vertices, made.faces, uv=uv, texture=texture)
        return page_surface(run, _read(run.path("mesh", "mesh.ply")))
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
