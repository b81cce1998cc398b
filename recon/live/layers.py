"""Everything but the dense points: cameras, photos, sparse points and the mesh as nodes of the browser's scene."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import viser
from jaxtyping import UInt8

from recon.core.cameras import PinholeView
from recon.core.mesh import PointCloud, VertexMesh
from recon.core.resize import resize_rgb, working_size
from recon.errors import ReconError
from recon.io.pictures import encode_picture
from recon.live.camera import frustum_depth, quaternion, scene_size
from recon.live.colors import CONFIDENCE, NORMAL, PHOTO, SHAPE, VIEWS, cloud_colors
from recon.live.dense import Style
from recon.live.glb import drawn_glb
from recon.live.tone import BRIGHTEST, before_tone_mapping, picture_before_tone_mapping
from recon.render.frusta import photo_corners
from recon.render.pictures import point_spacing
from recon.render.scene import ViewPhoto, ViewScene

FRUSTA, PHOTOS, SPARSE, MESH = "/frusta", "/photos", "/sparse", "/mesh"

_FRUSTUM_COLOR = (255, 176, 32)
_THUMBNAIL = 320
_DRAWN_TEXTURE = 8192
"""Longest side of a texture that browsers draw everywhere, texels."""
# From so many photos on their thumbnails are half as large.
_MANY_PHOTOS = 200


class CameraLayer:
    """Frusta of the photos, and the photos on them; a thread of its own reads the photos."""

    def __init__(
        self, server: viser.ViserServer, scene: ViewScene, clicked: Callable[[int, int], None]
    ) -> None:
        self.depth = frustum_depth(scene) if scene.photos else 0.0
        self._server, self._clicked = server, clicked
        self._frusta = server.scene.add_frame(FRUSTA, show_axes=False)
        self._photos = server.scene.add_frame(PHOTOS, show_axes=False)
        self._ended = False
        self._with_photo = [photo.path is not None for photo in scene.photos]
        self._handles = [self._add_frustum(row, photo.view) for row, photo in enumerate(scene.photos)]
        threading.Thread(
            target=self._add_photos, args=(scene.photos,), name="recon-view-photos", daemon=True
        ).start()

    def show(self, frusta: bool, photos: bool) -> None:
        """Draw the cameras or not, and the photos on them; cameras without photos are filled, to be easily clicked."""
        self._frusta.visible, self._photos.visible = frusta, photos
        for handle, with_photo in zip(self._handles, self._with_photo, strict=True):
            handle.variant = "wireframe" if photos and with_photo else "filled"

    def end(self) -> None:
        """Read no more photos."""
        self._ended = True

    def _add_frustum(self, row: int, view: PinholeView) -> viser.CameraFrustumHandle:
        corners = photo_corners(view, self.depth)
        half = float(corners[2, 1] - corners[0, 1]) / 2 / self.depth
        frustum = self._server.scene.add_camera_frustum(
            f"{FRUSTA}/{row}",
            fov=2 * float(np.arctan(half)),
            aspect=view.width / view.height,
            scale=_scale_of_depth(self.depth, half, view.width / view.height),
            thickness=1.6,
            thickness_units="screen",
            color=_FRUSTUM_COLOR,
            wxyz=quaternion(view.cam_from_world[:, :3].T),
            position=view.center,
            cast_shadow=False,
            receive_shadow=False,
        )
        frustum.on_click(_at_once(self._clicked, row))
        return frustum

    def _add_photos(self, photos: tuple[ViewPhoto, ...]) -> None:
        size = _THUMBNAIL if len(photos) < _MANY_PHOTOS else _THUMBNAIL // 2
        for row, photo in enumerate(photos):
            if self._ended or photo.path is None:
                continue
            try:
                rgb, _ = photo.undistorted(size)
            except ReconError:
                continue  # it is damaged: the camera is shown without it
            rotation = photo.view.cam_from_world[:, :3].T
            corners = photo_corners(photo.view, self.depth)
            image = self._server.scene.add_image(
                f"{PHOTOS}/{row}",
                rgb,
                render_width=float(corners[1, 0] - corners[0, 0]),
                render_height=float(corners[2, 1] - corners[0, 1]),
                jpeg_quality=80,
                wxyz=quaternion(rotation),
                position=photo.view.center + rotation @ corners.mean(axis=0),
                cast_shadow=False,
                receive_shadow=False,
            )
            image.on_click(_at_once(self._clicked, row))


class SparseLayer:
    """The sparse points."""

    def __init__(self, server: viser.ViserServer, scene: ViewScene) -> None:
        self._server = server
        self.cloud = sparse_cloud(scene)
        size = scene_size(scene)
        self._size = float(np.clip(0.5 * point_spacing(self.cloud.xyz), 1e-3 * size, 3e-3 * size))
        self._node: viser.PointCloudHandle | None = None
        self._drawn: Style | None = None

    def draw(self, style: Style, visible: bool) -> None:
        """Show the points that the clipping box leaves."""
        if not visible:
            if self._node is not None:
                self._node.remove()
            self._node = self._drawn = None
            return
        cloud = self.cloud
        if style.clip is not None:
            cloud = cloud.rows(style.clip.inside(cloud.xyz))
        if self._node is not None:
            self._node.remove()
            self._node = None
        if len(cloud):
            self._node = self._server.scene.add_point_cloud(
                SPARSE,
                cloud.xyz,
                cloud_colors(cloud, style.mode, style.ranges, style.errors),
                point_size=self._size * style.size,
                point_shape="circle",
                point_shading="flat",
                precision="float32",
            )
        self._drawn = style


@dataclass
class MeshLayer:
    """The mesh, in its own colours or in those of a mode."""

    server: viser.ViserServer
    mesh: VertexMesh
    nearest: PointCloud | None = None
    _node: viser.SceneNodeHandle | None = None
    _drawn: object = None
    _picture: bytes | None = None
    _values: dict[str, UInt8[np.ndarray, "n 3"]] = field(default_factory=dict)

    def draw(self, style: Style, visible: bool) -> None:
        """Show the faces that the clipping box leaves."""
        if not visible:
            if self._node is not None:
                self._node.visible = False
            return
        key = (style.mode, style.clip, style.ranges)
        if self._node is not None and self._drawn == key:
            self._node.visible = True
            return
        if self._node is not None:
            self._node.remove()
            self._node = None
        self._drawn = key
        faces = self.mesh.faces
        if style.clip is not None:
            faces = faces[style.clip.inside(self.mesh.vertices)[faces].all(axis=1)]
        if len(faces):
            self._node = self._add(faces, style)

    def _add(self, faces: np.ndarray, style: Style) -> viser.SceneNodeHandle:
        mesh = self.mesh
        plain = style.mode == SHAPE or (style.mode == PHOTO and mesh.rgb is None and not mesh.textured)
        if plain:
            return self.server.scene.add_mesh_simple(
                MESH,
                mesh.vertices,
                faces,
                color=(190, 190, 186),
                side="double",
                cast_shadow=False,
                receive_shadow=False,
            )
        if style.mode == PHOTO and mesh.textured:
            if self._picture is None:
                assert mesh.texture is not None
                height, width = mesh.texture.shape[:2]
                drawn = resize_rgb(mesh.texture, *working_size(width, height, _DRAWN_TEXTURE))
                self._picture = encode_picture(picture_before_tone_mapping(drawn), "jpg", 92)
            data = drawn_glb(mesh.vertices, faces, uv=mesh.uv, picture=self._picture, brightness=BRIGHTEST)
        else:
            data = drawn_glb(mesh.vertices, faces, rgb=before_tone_mapping(self._colors(style)))
        return self.server.scene.add_glb(MESH, data, cast_shadow=False, receive_shadow=False)

    def _colors(self, style: Style) -> UInt8[np.ndarray, "n 3"]:
        mesh = self.mesh
        normals = vertex_normals(mesh) if style.mode == NORMAL else None
        rgb = mesh.rgb if mesh.rgb is not None else texture_at_vertices(mesh)
        cloud = PointCloud(mesh.vertices, normals, rgb)
        if style.mode in (CONFIDENCE, VIEWS) and self.nearest is not None:
            cloud = self._as_nearest(cloud, self.nearest)
        return cloud_colors(cloud, style.mode, style.ranges, style.errors)

    def _as_nearest(self, cloud: PointCloud, dense: PointCloud) -> PointCloud:
        """The vertices with what the dense points beside them hold."""
        from scipy.spatial import cKDTree

        some = dense.rows(slice(None, None, max(1, len(dense) // 500_000)))
        row = cKDTree(some.xyz).query(cloud.xyz, workers=-1)[1]
        near = some.rows(np.asarray(row))
        return replace(near, xyz=cloud.xyz, normals=None, rgb=cloud.rgb, reference_view=None)


def sparse_cloud(scene: ViewScene) -> PointCloud:
    """The sparse points with the length of their tracks as number of views."""
    assert scene.sparse is not None
    lengths = np.bincount(scene.sparse.observations[:, 0], minlength=len(scene.sparse.xyz))
    return PointCloud(
        scene.sparse.xyz.astype(np.float32),
        rgb=scene.sparse.rgb,
        view_count=np.minimum(lengths, 65535).astype(np.uint16),
    )


def vertex_normals(mesh: VertexMesh) -> np.ndarray:
    """Unit normals of the vertices; those that charts repeat get the same."""
    from recon.surface.texture.topology import vertex_normals as weighted

    _, first, back = np.unique(mesh.vertices, axis=0, return_index=True, return_inverse=True)
    vertices = mesh.vertices[first].astype(np.float64)
    return weighted(vertices, back.reshape(-1)[mesh.faces].astype(np.int32))[back.reshape(-1)]


def texture_at_vertices(mesh: VertexMesh) -> UInt8[np.ndarray, "n 3"] | None:
    """Colours of the vertices out of the texture, None without one."""
    if mesh.uv is None or mesh.texture is None:
        return None
    h, w = mesh.texture.shape[:2]
    x = np.clip(np.rint(mesh.uv[:, 0] * w - 0.5), 0, w - 1).astype(int)
    y = np.clip(np.rint((1 - mesh.uv[:, 1]) * h - 0.5), 0, h - 1).astype(int)
    return np.ascontiguousarray(mesh.texture[y, x])


class PhotoOverlay:
    """A photo before the eyes of a browser that looks through its camera."""

    def __init__(self, client: viser.ClientHandle, photo: ViewPhoto, depth: float, size: int = 1600) -> None:
        self._client = client
        rgb, view = photo.undistorted(size)
        self._jpeg = encode_picture(picture_before_tone_mapping(rgb), "jpg", 90)
        corners = photo_corners(view, depth)
        self._vertices = corners.astype(np.float32)
        self._wxyz, self._position = quaternion(view.cam_from_world[:, :3].T), view.center
        self._node: viser.GlbHandle | None = None

    def draw(self, opacity: float) -> None:
        """Show the photo more or less."""
        if opacity <= 0.0:
            self.remove()
            return
        uv = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], np.float32)
        faces = np.array([[0, 2, 1], [0, 3, 2]], np.int32)
        data = drawn_glb(
            self._vertices,
            faces,
            uv=uv,
            picture=self._jpeg,
            opacity=min(opacity, 0.999),
            brightness=BRIGHTEST,
        )
        self._node = self._client.scene.add_glb(
            "/overlay",
            data,
            wxyz=self._wxyz,
            position=self._position,
            cast_shadow=False,
            receive_shadow=False,
        )

    def remove(self) -> None:
        """Take the photo away."""
        if self._node is not None:
            self._node.remove()
            self._node = None


def _at_once(clicked: Callable[[int, int], None], row: int) -> Callable[[Any], Any]:
    """A handler that ends before the browser's next message: a click on a camera is also one on the scene."""

    async def handler(event: Any) -> None:
        clicked(row, event.client_id)

    return handler


def _scale_of_depth(depth: float, half_height: float, aspect: float) -> float:
    """viser's scale of a frustum that is this deep: it keeps the volume of pyramids of all angles the same."""
    # y = half_height * depth, x = aspect * y: the client divides by the cube root of x y z / 3.
    return float(depth * (half_height * half_height * aspect / 3.0) ** (1 / 3))
