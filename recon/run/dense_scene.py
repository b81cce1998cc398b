"""Undistorted photos with their cameras, as densification, meshing and texturing take them from a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TypeAlias

import cv2
import numpy as np
from jaxtyping import Bool, Float64, UInt8

from recon.core.cameras import PinholeView
from recon.core.colmap import photo_id
from recon.core.frames import offset_to_origin
from recon.core.memory import BoundedCache, Lazy, machine_memory
from recon.core.undistort import undistort_photo
from recon.dense.neighbours import select_neighbours
from recon.dense.types import DepthMap
from recon.run.folder import RunFolder

_Pixels: TypeAlias = tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"], UInt8[np.ndarray, "h w"]]


def moved_views(views: Sequence[PinholeView], shift: Float64[np.ndarray, "3"]) -> list[PinholeView]:
    """Views in a world in which everything is moved by ``shift``."""
    if not shift.any():
        return list(views)
    moved = []
    for view in views:
        pose = view.cam_from_world.copy()
        pose[:, 3] -= pose[:, :3] @ shift
        moved.append(replace(view, cam_from_world=pose))
    return moved


class DenseScene:
    """The undistorted photos and cameras of a run.

    Attributes:
        run: the run.
        full_views: at working size.
        views, images, masks, greys: at the size of this scene; pixels are read when they are asked for, and stay in
            memory while there is room in ``cache``.
    """

    @classmethod
    def of_depth_maps(cls, run: RunFolder, memory: int | None = None) -> DenseScene:
        """The scene at the size of the depth maps of the run."""
        return cls(run, run.depth_max_size, memory)

    def __init__(self, run: RunFolder, max_size: int, memory: int | None = None) -> None:
        """Read the cameras.

        Args:
            max_size: longest side of the photos of this scene.
            memory: bytes that photos and depth maps of the scene may take together; None for a quarter of what the
                machine has.
        """
        self.run = run
        self.intrinsics = run.intrinsics()
        self.full_views = run.views()
        self.views = [view.resized(*self._size(view, max_size)) for view in self.full_views]
        self.cache = BoundedCache(machine_memory() // 4 if memory is None else memory)
        count = len(self.views)
        self.images: Sequence[UInt8[np.ndarray, "h w 3"]] = Lazy(count, lambda i: self._photo(i)[0])
        self.masks: Sequence[Bool[np.ndarray, "h w"]] = Lazy(count, lambda i: self._photo(i)[1])
        self.greys: Sequence[UInt8[np.ndarray, "h w"]] = Lazy(count, lambda i: self._photo(i)[2])

    @staticmethod
    def _size(view: PinholeView, max_size: int) -> tuple[int, int]:
        factor = min(1.0, max_size / max(view.width, view.height))
        return max(1, round(view.width * factor)), max(1, round(view.height * factor))

    def _photo(self, index: int) -> _Pixels:
        """Undistorted pixels, mask and luminance of a view at the size of this scene."""
        return self.cache.get(("photo", index), lambda: self._read_photo(index), _bytes_of)

    def _read_photo(self, index: int) -> _Pixels:
        full, small = self.full_views[index], self.views[index]
        photo = self.run.photo_set.photos[full.photo_id]
        rgb, mask = undistort_photo(self.run.rgb(photo), self.run.mask(photo), self.intrinsics[full.photo_id])
        if (small.width, small.height) != (full.width, full.height):
            size = (small.width, small.height)
            rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
            mask = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
        return rgb, mask, cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)

    @cached_property
    def fields_of(self) -> dict[int, list[tuple[int, int]]]:
        """The pairs of each photo that have a dense field and are edges of the view graph, by photo id."""
        graph = self.run.view_graph()
        found: dict[int, list[tuple[int, int]]] = {}
        for pair in self.run.field_pairs():
            if graph.has_edge(*pair):
                for number in pair:
                    found.setdefault(number, []).append(pair)
        return found

    def source_views(self, count: int) -> list[tuple[int, ...]]:
        """Choose the source views of every view by the sparse points that they share, best first.

        Args:
            count: at most so many for each view.

        Returns:
            Indices into the views.
        """
        points = self.run.reconstruction.points3D
        ids = {key: row for row, key in enumerate(points)}
        xyz = np.array([point.xyz for point in points.values()]).reshape(-1, 3)
        point_rows, photo_rows = [], []
        for key, point in points.items():
            for element in point.track.elements:
                point_rows.append(ids[key])
                photo_rows.append(photo_id(element.image_id))
        return select_neighbours(
            self.views, xyz, np.array(point_rows, np.int64), np.array(photo_rows, np.int64), count=count
        )

    @property
    def offset(self) -> Float64[np.ndarray, "3"]:
        """Offset to subtract from the world's coordinates so that single precision holds them; 0 as a rule."""
        return offset_to_origin(np.array([view.center for view in self.views]))

    def near_views(self) -> list[PinholeView]:
        """The views in a world from which the offset is taken away."""
        return moved_views(self.views, -self.offset)

    def depth_maps(self) -> Sequence[DepthMap]:
        """The depth maps of the views."""
        return Lazy(len(self.views), lambda i: self.run.depth_map(self.views[i].photo_id))


def _bytes_of(arrays: Iterable[np.ndarray]) -> int:
    return sum(array.nbytes for array in arrays)
