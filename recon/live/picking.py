"""Picking what lies under the mouse, and the photos that show it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8

from recon.core.cameras import PinholeView
from recon.core.mesh import Mesh, PointCloud, VertexMesh
from recon.core.raycasting import ray_scene, tensor
from recon.core.resize import resize_points, working_size
from recon.core.undistort import distort_points
from recon.errors import ReconError
from recon.live.clipping import ClipBox
from recon.live.levels import Blocks
from recon.render.scene import ViewPhoto, ViewScene

# A click finds points this close to its ray: a part of the picture's height (about seven pixels of 900).
PICK_RADIUS = 0.008

# What lies behind the surface by more than this part of its depth is hidden.
_HIDDEN = 0.02

# Longer side of the depth pictures that say what hides what where there is no mesh.
_BUFFER = 200


@dataclass(frozen=True)
class Sighting:
    """A photo that shows a point.

    Attributes:
        photo: index into the scene's photos.
        xy: pixel in the photo as taken (distortion included).
        error: distance of the keypoint from the projected point, pixels; None where no keypoint made the point.
    """

    photo: int
    xy: tuple[float, float]
    error: float | None = None


def nearest_on_ray(
    xyz: Float32[np.ndarray, "n 3"],
    origin: Float64[np.ndarray, "3"],
    direction: Float64[np.ndarray, "3"],
    radius: float,
) -> tuple[int, float] | None:
    """The first point along a ray, and its depth: of those in the cone, near its front, the one nearest to the ray.

    Args:
        radius: of the cone, per depth. direction: unit vector.
    """
    toward = xyz.astype(np.float64) - origin
    depth = toward @ direction
    aside = np.sqrt(np.maximum((toward**2).sum(axis=1) - depth**2, 0.0))
    inside = np.flatnonzero((depth > 0) & (aside <= radius * depth))
    if not len(inside):
        return None
    front = inside[depth[inside] <= 1.03 * depth[inside].min()]
    best = int(front[np.argmin(aside[front] / depth[front])])
    return best, float(depth[best])


def pick_in_blocks(
    blocks: Blocks,
    shown: Int64[np.ndarray, " b"],
    origin: Float64[np.ndarray, "3"],
    direction: Float64[np.ndarray, "3"],
    radius: float,
    clip: ClipBox | None = None,
) -> tuple[int, float] | None:
    """``nearest_on_ray`` of the points that are shown and in the box; the row is that of ``blocks.cloud``."""
    toward = blocks.centers.astype(np.float64) - origin
    depth = toward @ direction
    aside = np.sqrt(np.maximum((toward**2).sum(axis=1) - depth**2, 0.0))
    near = np.flatnonzero(
        (aside <= blocks.radii + radius * np.maximum(depth + blocks.radii, 0.0))
        & (depth > -blocks.radii)
        & (shown > 0)
    )
    if not len(near):
        return None
    rows = np.concatenate([blocks.order[blocks.starts[b] : blocks.starts[b] + shown[b]] for b in near])
    if clip is not None:
        rows = rows[clip.inside(blocks.cloud.xyz[rows])]
    found = nearest_on_ray(blocks.cloud.xyz[rows], origin, direction, radius)
    return None if found is None else (int(rows[found[0]]), found[1])


class Surfaces:
    """The photos that see a point: by the mesh where there is one, else by the depth of the dense points."""

    def __init__(self, scene: ViewScene) -> None:
        self._scene = scene
        self._lock = threading.Lock()
        self._rays: Any = None
        self._buffers: dict[int, Float32[np.ndarray, "h w"]] = {}

    def hit(
        self, origin: Float64[np.ndarray, "3"], direction: Float64[np.ndarray, "3"]
    ) -> tuple[Float64[np.ndarray, "3"], Float64[np.ndarray, "3"], float] | None:
        """Intersect a ray with the mesh: point, normal and depth."""
        if self._scene.mesh is None:
            return None
        ray = np.concatenate([origin, direction])[None].astype(np.float32)
        answer = self._ray_scene(self._scene.mesh).cast_rays(tensor(ray))
        depth = float(answer["t_hit"].numpy()[0])
        if not np.isfinite(depth):
            return None
        normal = answer["primitive_normals"].numpy()[0].astype(np.float64)
        return origin + depth * direction, normal, depth

    def sightings(
        self, point: Float64[np.ndarray, "3"], normal: Float64[np.ndarray, "3"] | None, limit: int = 8
    ) -> list[Sighting]:
        """Photos that see a point of the surface, those that look at it most squarely and from closest first.

        Args:
            normal: of the surface, None or zero where unknown.
        """
        found: list[tuple[float, Sighting]] = []
        for row, photo in enumerate(self._scene.photos):
            view = photo.view
            away = point - view.center
            distance = float(np.linalg.norm(away))
            pinhole, z = view.project(point[None])
            if z[0] <= 0 or distance <= 0:
                continue
            square = 1.0
            if normal is not None and normal.any():
                square = float(-(away @ normal) / distance)
                if square <= 0.05:
                    continue
            xy = self._pixel(photo, pinhole)
            if xy is None or self._hidden(row, point, float(z[0])):
                continue
            found.append((-square * view.K[0, 0] / distance, Sighting(row, xy)))
        return [sighting for _, sighting in sorted(found, key=lambda one: one[0])[:limit]]

    def sightings_of_track(self, point: int) -> list[Sighting]:
        """The photos and keypoints that made a sparse point."""
        sparse = self._scene.sparse
        assert sparse is not None
        first, last = np.searchsorted(sparse.observations[:, 0], [point, point + 1])
        out = []
        for row, keypoint in sparse.observations[first:last, 1:].tolist():
            photo = self._scene.photos[row]
            xy = sparse.views[row].keypoints[keypoint]
            pinhole, _ = photo.view.project(sparse.xyz[point][None])
            seen = self._pixel(photo, pinhole, anywhere=True)
            error = None if seen is None else float(np.hypot(*(np.array(seen) - xy)))
            out.append(Sighting(row, (float(xy[0]), float(xy[1])), error))
        return out

    def _pixel(
        self, photo: ViewPhoto, pinhole: Float64[np.ndarray, "1 2"], anywhere: bool = False
    ) -> tuple[float, float] | None:
        """Distort a pixel of the undistorted photo to the photo as taken; None outside of it."""
        view = photo.view
        x, y = distort_points(pinhole, photo.intrinsics, view.K)[0].tolist()
        inside = -0.5 <= x <= view.width - 0.5 and -0.5 <= y <= view.height - 0.5
        return (x, y) if inside or (anywhere and np.isfinite([x, y]).all()) else None

    def _hidden(self, row: int, point: Float64[np.ndarray, "3"], depth: float) -> bool:
        view = self._scene.photos[row].view
        if self._scene.mesh is not None:
            away = point - view.center
            distance = float(np.linalg.norm(away))
            ray = np.concatenate([view.center, away / distance])[None].astype(np.float32)
            first = float(self._ray_scene(self._scene.mesh).cast_rays(tensor(ray))["t_hit"].numpy()[0])
            return first < distance * (1 - _HIDDEN)
        if self._scene.dense is None:
            return False
        with self._lock:
            if row not in self._buffers:
                self._buffers[row] = depth_buffer(self._scene.dense, view)
            buffer = self._buffers[row]
        small = view.resized(buffer.shape[1], buffer.shape[0])
        x, y = np.rint(small.project(point[None])[0][0]).astype(int)
        x, y = np.clip(x, 0, buffer.shape[1] - 1), np.clip(y, 0, buffer.shape[0] - 1)
        return bool(buffer[y, x] < depth * (1 - _HIDDEN))

    def _ray_scene(self, mesh: VertexMesh) -> Any:
        with self._lock:
            if self._rays is None:
                self._rays = ray_scene(Mesh(mesh.vertices, mesh.faces))
            return self._rays


def depth_buffer(cloud: PointCloud, view: PinholeView, limit: int = 2_000_000) -> Float32[np.ndarray, "h w"]:
    """Depth of the nearest point in every pixel of a small picture; infinite without one."""
    small = view.resized(*working_size(view.width, view.height, _BUFFER))
    xyz = cloud.xyz[:: max(1, len(cloud) // limit)].astype(np.float64)
    xy, z = small.project(xyz)
    x, y = np.rint(xy).T
    inside = (z > 1e-9) & (x >= 0) & (y >= 0) & (x < small.width) & (y < small.height)
    buffer = np.full((small.height, small.width), np.inf, np.float32)
    pixel = (y[inside].astype(np.int64), x[inside].astype(np.int64))
    np.minimum.at(buffer, pixel, z[inside].astype(np.float32))
    return buffer


class PhotoShelf:
    """Photos that were looked at last, so that not every click reads files."""

    def __init__(self, photos: tuple[ViewPhoto, ...], keep: int = 12) -> None:
        self._photos, self._keep = photos, keep
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, UInt8[np.ndarray, "h w 3"]] = OrderedDict()

    def pixels(self, row: int) -> UInt8[np.ndarray, "h w 3"] | None:
        """Pixels of a photo as the file has them; None when they are not there."""
        with self._lock:
            if row in self._kept:
                self._kept.move_to_end(row)
                return self._kept[row]
        try:
            rgb = self._photos[row].pixels()
        except ReconError:
            return None
        with self._lock:
            self._kept[row] = rgb
            while len(self._kept) > self._keep:
                self._kept.popitem(last=False)
        return rgb

    def crop(self, sighting: Sighting, side: int = 72, zoom: int = 3) -> UInt8[np.ndarray, "h w 3"] | None:
        """A square of a photo around a pixel, magnified, with a cross on it; None without the photo."""
        rgb = self.pixels(sighting.photo)
        if rgb is None:
            return None
        view = self._photos[sighting.photo].view
        size = (rgb.shape[1], rgb.shape[0])
        x, y = resize_points(np.array(sighting.xy), (view.width, view.height), size)
        return crop_with_cross(rgb, float(x), float(y), side, zoom)


def crop_with_cross(
    rgb: UInt8[np.ndarray, "h w 3"], x: float, y: float, side: int, zoom: int
) -> UInt8[np.ndarray, "s s 3"]:
    """The pixels around (x, y), each zoom times as large, with a cross whose arms leave the point itself free."""
    size = side * zoom
    half = (size - 1) / 2
    # Output pixel u shows x + (u - half) / zoom: the point is in the middle whatever its fraction.
    matrix = np.array([[1 / zoom, 0, x - half / zoom], [0, 1 / zoom, y - half / zoom]])
    out = cv2.warpAffine(
        rgb,
        matrix,
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(30, 30, 30),
    )
    middle = round(half)
    gap, arm = round(0.04 * size), round(0.16 * size)
    for color, width in (((0, 0, 0), 3), ((255, 230, 40), 1)):
        for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            start = (middle + gap * dx, middle + gap * dy)
            end = (middle + arm * dx, middle + arm * dy)
            cv2.line(out, start, end, color, width, cv2.LINE_AA)
    return out


def sheet(
    crops: list[UInt8[np.ndarray, "s s 3"]], columns: int = 2, gap: int = 6
) -> UInt8[np.ndarray, "h w 3"]:
    """Crops of one size in rows, on the panel's dark ground."""
    s = crops[0].shape[0]
    rows = -(-len(crops) // columns)
    columns = min(columns, len(crops))
    out = np.full((rows * (s + gap) - gap, columns * (s + gap) - gap, 3), (36, 36, 36), np.uint8)
    for i, crop in enumerate(crops):
        y, x = i // columns * (s + gap), i % columns * (s + gap)
        out[y : y + s, x : x + s] = crop
    return out
