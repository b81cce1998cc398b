"""Undistorted photos with their cameras, as densification, meshing and texturing take them from a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from jaxtyping import Bool, Float64, UInt8

from recon.core.cameras import PinholeView
from recon.core.frames import offset_to_origin
from recon.core.undistort import undistort_photo
from recon.dense.types import DepthMap
from recon.run.folder import RunFolder


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
        full_views: at working size. views, images, masks: at the size of this scene.
    """

    @classmethod
    def of_depth_maps(cls, run: RunFolder) -> DenseScene:
        """The scene at the size of the depth maps of the run."""
        return cls(run, run.depth_max_size)

    def __init__(self, run: RunFolder, max_size: int) -> None:
        self.run = run
        self.intrinsics = run.intrinsics()
        self.full_views = run.views()
        self.views: list[PinholeView] = []
        self.images: list[UInt8[np.ndarray, "h w 3"]] = []
        self.masks: list[Bool[np.ndarray, "h w"]] = []
        for view in self.full_views:
            photo = run.photo_set.photos[view.photo_id]
            factor = min(1.0, max_size / max(view.width, view.height))
            small = view.resized(max(1, round(view.width * factor)), max(1, round(view.height * factor)))
            rgb, mask = undistort_photo(run.rgb(photo), run.mask(photo), self.intrinsics[view.photo_id])
            if factor < 1.0:
                size = (small.width, small.height)
                rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
                mask = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
            self.views.append(small)
            self.images.append(rgb)
            self.masks.append(mask)

    @property
    def offset(self) -> Float64[np.ndarray, "3"]:
        """What to take away from the world's coordinates so that single precision holds them; 0 as a rule."""
        return offset_to_origin(np.array([view.center for view in self.views]))

    def near_views(self) -> list[PinholeView]:
        """The views in a world from which the offset is taken away."""
        return moved_views(self.views, -self.offset)

    def depth_maps(self) -> list[DepthMap]:
        """The depth maps of the views."""
        return [self.run.depth_map(view.photo_id) for view in self.views]
