"""Views of each face: the best that see it, and its colour in them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int16, Int32, UInt8

from recon.core.cameras import PinholeView
from recon.core.mesh import Mesh
from recon.core.raycasting import cast_view, ray_scene, tensor
from recon.core.sampling import bilinear, sample_image
from recon.surface.texture.topology import face_frames

# A ray to a surface point ends short of it by this many typical edges, so that the point's own faces, and faces
# that lie on it within the accuracy of the surface, do not hide it.
_SHORT_BY_EDGES = 1.0
_CHUNK = 1 << 20
# Beside the outline of something nearer a photo shows that thing as soon as the surface is off by a pixel: a
# face this near to an outline counts a tenth in that view.
_FRINGE_PIXELS, _FRINGE_WORTH = 3, 0.1
# What is nearer by less than this share of the depth (plus the slope of the face itself) is no outline.
_FRINGE_DEPTH = 0.01


@dataclass(frozen=True)
class Candidates:
    """The best views of each face.

    Attributes:
        view: (m, k) index of the view, -1 for an empty slot.
        area: (m, k) what the face covers in that view, square pixels; a tenth beside the outline of something nearer.
        color: (m, k, 3) colour of the face's centre in that view, 0…255, blurred to about the size of a face.
    """

    view: Int16[np.ndarray, "m k"]
    area: Float32[np.ndarray, "m k"]
    color: Float32[np.ndarray, "m k 3"]


def hidden(
    scene: Any,
    points: Float64[np.ndarray, "n 3"],
    center: Float64[np.ndarray, "3"],
    short_by: float,
) -> Bool[np.ndarray, " n"]:
    """Tell which points something hides from a camera centre; within ``short_by`` of a point nothing counts."""
    out = np.zeros(len(points), bool)
    for start in range(0, len(points), _CHUNK):
        part = points[start : start + _CHUNK] - center
        distance = np.sqrt(_row_products(part, part))[:, None]
        rays = np.empty((len(part), 6), np.float32)
        rays[:, :3] = center
        # The ray's parameter is 1 where it must stop.
        rays[:, 3:] = part * np.maximum(1 - short_by / np.maximum(distance, 1e-30), 0)
        out[start : start + _CHUNK] = scene.test_occlusions(tensor(rays), 0.0, 1.0).numpy()
    return out


def _row_products(a: Float64[np.ndarray, "n 3"], b: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, " n"]:
    """Scalar product of each row with its like; a sum over so short an axis takes three times as long."""
    return a[:, 0] * b[:, 0] + a[:, 1] * b[:, 1] + a[:, 2] * b[:, 2]


def _at_all_corners(told: Bool[np.ndarray, " n"], faces: Int32[np.ndarray, "m 3"]) -> Bool[np.ndarray, " m"]:
    """Of which faces something holds at every vertex."""
    return told[faces[:, 0]] & told[faces[:, 1]] & told[faces[:, 2]]


def nearest_depth(scene: Any, view: PinholeView, reach: int) -> tuple[Float32[np.ndarray, "h w"], float]:
    """Least depth within ``reach`` pixels, at half the photo's size (infinite where nothing is), and the factor."""
    small = view.resized(max(1, view.width // 2), max(1, view.height // 2))
    hits = cast_view(scene, small)
    depth = np.where(hits.mask, hits.depth, np.float32(1e30))
    side = 2 * max(1, round(reach / 2)) + 1
    return cv2.erode(depth, np.ones((side, side), np.uint8), borderValue=1e30), 0.5


def look_up(
    texture: UInt8[np.ndarray, "h w 3"], uv: Float64[np.ndarray, "n 2"]
) -> Float32[np.ndarray, "n 3"]:
    """Sample a texture at texture coordinates (v up), bilinearly."""
    h, w = texture.shape[:2]
    return bilinear(texture, uv[:, 0] * w - 0.5, (1 - uv[:, 1]) * h - 0.5).astype(np.float32)


@dataclass(frozen=True)
class SeenFaces:
    """The faces that a view sees whole.

    Attributes:
        face: (k,) their numbers, ascending.
        area, color: of each, as in ``Candidates``.
    """

    face: Int32[np.ndarray, " k"]
    area: Float32[np.ndarray, " k"]
    color: Float32[np.ndarray, "k 3"]


class FacesInViews:
    """A mesh whose faces are looked for in views, one view after the other or several at once."""

    def __init__(
        self,
        vertices: Float64[np.ndarray, "n 3"],
        faces: Int32[np.ndarray, "m 3"],
        max_angle_deg: float = 82.0,
    ) -> None:
        """Prepare the mesh for rays.

        Args:
            vertices, faces: the mesh, near the origin (float32 rays).
            max_angle_deg: between the normal and the direction to the camera.
        """
        self._vertices, self._faces = vertices, faces
        self._centre, self._normal = face_frames(vertices, faces)
        side = vertices[faces[:, 0]] - vertices[faces[:, 1]]
        self._short_by = (
            _SHORT_BY_EDGES * float(np.median(np.linalg.norm(side, axis=1))) if len(faces) else 0.0
        )
        self._scene = ray_scene(Mesh(vertices.astype(np.float32), faces)) if len(faces) else None
        self._least_cosine = np.cos(np.radians(max_angle_deg))

    def seen(
        self,
        view: PinholeView,
        image: UInt8[np.ndarray, "_ _ 3"],
        mask: Bool[np.ndarray, "_ _"] | None = None,
    ) -> SeenFaces:
        """Find the faces that a view sees whole.

        A view sees a face when the face is turned towards it, its corners and its centre lie in the photo and its mask,
        and nothing hides them (rays against the mesh itself). The size in pixels joins resolution and angle in one
        figure; faces beside the outline of something nearer count little.

        Args:
            view, image, mask: of one size.
        """
        vertices, faces, centre, scene = self._vertices, self._faces, self._centre, self._scene
        to_camera = view.center - centre
        distance = np.sqrt(_row_products(to_camera, to_camera))
        cosine = _row_products(self._normal, to_camera) / np.maximum(distance, 1e-30)
        xy, z = view.project(vertices)
        usable = np.ones((view.height, view.width), np.uint8) if mask is None else mask.astype(np.uint8)
        # One pixel from the border and from what is masked, for the interpolation's sake.
        usable = cv2.erode(usable, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
        column = np.clip(np.rint(xy[:, 0]), -1, view.width).astype(np.int64)
        row = np.clip(np.rint(xy[:, 1]), -1, view.height).astype(np.int64)
        inside = (z > 0) & (column >= 0) & (row >= 0) & (column < view.width) & (row < view.height)
        inside[inside] = usable[row[inside], column[inside]] > 0
        asked = (cosine > self._least_cosine) & _at_all_corners(inside, faces)
        # Corners are asked once each, and only those that some face in question has.
        wanted = np.zeros(len(vertices), bool)
        wanted[faces[asked].ravel()] = True
        free = np.zeros(len(vertices), bool)
        free[wanted] = ~hidden(scene, vertices[wanted], view.center, self._short_by)
        asked &= _at_all_corners(free, faces)
        chosen = np.flatnonzero(asked)
        chosen = chosen[~hidden(scene, centre[chosen], view.center, self._short_by)]
        if len(chosen) == 0:
            return SeenFaces(np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros((0, 3), np.float32))
        corners = xy[faces[chosen]]
        one, two = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        area = (0.5 * np.abs(one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0])).astype(np.float32)
        near, half = nearest_depth(scene, view, _FRINGE_PIXELS)
        at, z_centre = view.project(centre[chosen])
        place = np.rint((at + 0.5) * half - 0.5).astype(np.int64)
        front = near[np.clip(place[:, 1], 0, near.shape[0] - 1), np.clip(place[:, 0], 0, near.shape[1] - 1)]
        slope = np.sqrt(1 - np.clip(cosine[chosen], 0.05, 1) ** 2) / np.clip(cosine[chosen], 0.05, 1)
        rise = 2 * _FRINGE_PIXELS * slope * z_centre / view.K[0, 0]
        fringe = front < z_centre * (1 - _FRINGE_DEPTH) - rise
        sigma = float(np.clip(0.5 * np.sqrt(np.median(area)), 0.7, 8.0))
        soft = cv2.GaussianBlur(image.astype(np.float32), (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        color = sample_image(soft, corners.mean(axis=1))
        area[fringe] *= np.float32(_FRINGE_WORTH)
        return SeenFaces(chosen.astype(np.int32), area, color.astype(np.float32))


def best_candidates(faces: int, views: int, seen: Iterable[SeenFaces], count: int = 8) -> Candidates:
    """Keep the views in which each face is largest.

    Args:
        faces: of the mesh.
        views: how many there are.
        seen: what each of them sees, in order; asked for one at a time.
        count: views kept per face.
    """
    count = max(1, min(count, views))
    best_view = np.full((faces, count), -1, np.int16)
    best_area = np.zeros((faces, count), np.float32)
    best_color = np.zeros((faces, count, 3), np.float32)
    for index, one in enumerate(seen):
        # The worst of the slots gives way.
        worst = best_area[one.face].argmin(axis=1)
        better = one.area > best_area[one.face, worst]
        row_of, slot = one.face[better], worst[better]
        best_view[row_of, slot] = index
        best_area[row_of, slot] = one.area[better]
        best_color[row_of, slot] = one.color[better]
    return Candidates(best_view, best_area, best_color)
