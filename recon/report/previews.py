"""Preview pictures of a run: cameras and cloud, depth maps, mesh, view graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import Float32, UInt8

from recon.core.cameras import PinholeView
from recon.core.frames import offset_to_origin
from recon.core.memory import once
from recon.core.mesh import VertexMesh
from recon.io.surfaces import thin_points
from recon.render import pictures
from recon.render.canvas import Surface
from recon.render.pictures import Picture
from recon.run.dense_scene import DenseScene, moved_views
from recon.run.folder import CLOUD, RunFolder

Draw = Callable[[], Picture]

# So many photos at most are shown on one sheet, evenly taken from the set.
_SHEET_PHOTOS = 12

# Longest side of the photos on sheets, before they are fitted in, pixels.
_SHEET_SIDE = 640

# So many points at most are drawn.
_CLOUD_POINTS = 1_500_000


def previews(run: RunFolder, width: int, load_mesh: Callable[[], VertexMesh]) -> dict[str, Draw]:
    """Prepare the pictures of a finished run, by file name; each is drawn when it is called, by any thread.

    Args:
        width: of the pictures, pixels. load_mesh: gives the mesh of the run.
    """
    views = run.views()
    offset = offset_to_origin(np.array([view.center for view in views]))
    views = moved_views(views, -offset)  # what is drawn is single precision

    @once
    def cloud() -> tuple[Float32[np.ndarray, "n 3"], UInt8[np.ndarray, "n 3"]]:
        xyz, rgb = thin_points(run.path(CLOUD), _CLOUD_POINTS)
        return (xyz - offset).astype(np.float32), rgb

    @once
    def radius() -> float:
        return pictures.disc_radius(cloud()[0])

    @once
    def surface() -> Surface:
        mesh = load_mesh().near(offset)
        return Surface(mesh.vertices, mesh.faces, mesh.rgb, mesh.uv, mesh.texture)

    height = round(width * 2 / 3)
    shown = [views[i] for i in _spread(len(views), _SHEET_PHOTOS)]
    photos = once(lambda: DenseScene(run, _SHEET_SIDE))
    return {
        "cameras_oblique.png": lambda: pictures.cameras_picture(
            *cloud(), views, "oblique", width, height, radius()
        ),
        "cameras_top.png": lambda: pictures.cameras_picture(*cloud(), views, "top", width, height, radius()),
        "cloud.png": lambda: pictures.cloud_picture(
            *cloud(),
            pictures.overview_view(cloud()[0], views, "front", width, height, with_cameras=False),
            radius(),
        ),
        "mesh_front.png": lambda: _mesh(surface(), cloud()[0], views, "front", "color", width),
        "mesh_shaded.png": lambda: _mesh(surface(), cloud()[0], views, "front", "shaded", width),
        "mesh_oblique.png": lambda: _mesh(surface(), cloud()[0], views, "oblique", "color", width),
        "mesh_beside_photos.png": lambda: _beside_photos(
            photos(), surface(), shown[:: max(1, len(shown) // 3)][:3]
        ),
        "depth_maps.png": lambda: _depth_sheet(photos(), shown),
        "view_graph.png": lambda: _view_graph(run, width),
    }


def _spread(count: int, limit: int) -> list[int]:
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, limit))})


def _mesh(
    surface: Surface,
    xyz: np.ndarray,
    views: list[PinholeView],
    where: Literal["front", "oblique"],
    style: Literal["color", "shaded"],
    width: int,
) -> Picture:
    view = pictures.overview_view(xyz, views, where, width, round(width * 2 / 3), with_cameras=False)
    return _surface(surface, view, style)


def _surface(
    surface: Surface, view: PinholeView, style: Literal["color", "shaded"], samples: int = 2
) -> Picture:
    textured = style == "color" and surface.texture is not None
    return pictures.surface_picture(surface, view, "texture" if textured else style, samples)


def _depth_sheet(scene: DenseScene, shown: list[PinholeView]) -> Picture:
    row_of = {view.photo_id: row for row, view in enumerate(scene.views)}
    panels, captions = [], []
    for view, depth in zip(shown, (scene.run.depth_map(one.photo_id) for one in shown), strict=True):
        panels += [
            scene.images[row_of[view.photo_id]],
            pictures.depth_picture(depth.depth),
            pictures.normal_picture(depth.normal),
        ]
        covered = float((depth.depth > 0).mean())
        captions += [view.name, f"depth, {covered:.0%} of the pixels", "normals"]
    return pictures.contact_sheet(panels, captions, columns=3)


def _beside_photos(scene: DenseScene, surface: Surface, shown: list[PinholeView]) -> Picture:
    by_id = {view.photo_id: (row, view) for row, view in enumerate(scene.near_views())}
    panels, captions = [], []
    for one in shown:
        row, view = by_id[one.photo_id]
        # The sheet shows them at half this size: that makes samples enough.
        panels += [
            scene.images[row],
            _surface(surface, view, "color", 1),
            _surface(surface, view, "shaded", 1),
        ]
        captions += [view.name, "mesh from there", "its shape"]
    return pictures.contact_sheet(panels, captions, columns=3)


def _view_graph(run: RunFolder, width: int) -> Picture:
    photos = run.photo_set.photos
    graph = run.view_graph()
    weights = dict.fromkeys(run.pairs, 1.0)
    kept = set()
    inliers: int
    for a, b, inliers in graph.edges(data="inliers"):
        pair = (min(a, b), max(a, b))
        weights[pair] = float(inliers)
        kept.add(pair)
    return pictures.view_graph_picture([photo.name for photo in photos], weights, kept, width)
