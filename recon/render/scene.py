"""A scene to look at: photos with their poses, points and a mesh, near the origin of single precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8

from recon.core.cameras import Intrinsics, PinholeView
from recon.core.mesh import PointCloud, VertexMesh
from recon.core.resize import resize_rgb, working_size
from recon.core.undistort import undistort_photo
from recon.errors import ReconError
from recon.exports.georeference import Georeference
from recon.exports.precision import PointPrecision
from recon.exports.scene import Scene
from recon.photos.reading import load_photo, read_png


@dataclass(frozen=True)
class ViewPhoto:
    """A photo with its pose.

    Attributes:
        view: the undistorted pinhole camera; ``photo_id`` is that of the run (the position in the model where there
            is no run), which dense points name as their reference view.
        intrinsics: of the photo as it is, distortion included.
        path: of the pixels, at the size of the camera or larger; None when the photo is not there.
        full_size: width and height of the photo's file, where it is known.
    """

    view: PinholeView
    intrinsics: Intrinsics
    path: Path | None = None
    full_size: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """Of the photo's file, relative to the photo folder."""
        return self.view.name

    def undistorted(self, max_size: int | None = None) -> tuple[UInt8[np.ndarray, "h w 3"], PinholeView]:
        """Pixels of the undistorted photo, and the camera at that size.

        Args:
            max_size: of the longer side; that of the camera by default, and never more.

        Raises:
            ReconError: the photo is not there or cannot be read.
        """
        view = self.view
        width, height = working_size(view.width, view.height, max_size or max(view.width, view.height))
        rgb = resize_rgb(self.pixels(), width, height)
        rgb, _ = undistort_photo(rgb, None, self.intrinsics.resized(width, height), cv2.INTER_LINEAR)
        return rgb, view.resized(width, height)

    def pixels(self) -> UInt8[np.ndarray, "h w 3"]:
        """Pixels of the file: upright, distortion left in, at the size of the file.

        Raises:
            ReconError: the photo is not there or cannot be read.
        """
        if self.path is None:
            raise ReconError(f"{self.name}: the photo is not there (any more); give --photos DIR")
        return read_png(self.path) if self.path.suffix == ".png" else load_photo(self.path).rgb


@dataclass(frozen=True)
class UnreadCloud:
    """A dense cloud of which only a sample was read so far.

    Attributes:
        count: of all points in the file. read: reads them all; the cloud, and what there is to say of it.
    """

    count: int
    read: Callable[[], tuple[PointCloud, tuple[str, ...]]]


@dataclass(frozen=True)
class ViewScene:
    """All that can be looked at of one run or file.

    Attributes:
        name: for people.
        photos: with a pose, in the order of the views of ``sparse``.
        sparse: cameras, keypoints and points with their tracks, the offset taken away; None without a model.
        dense: the dense cloud. mesh: the mesh, the textured one if there is one.
        offset: what was taken away from all coordinates, so that single precision holds them.
        up: unit vector, which way is up.
        georeference: how the model (offset given back) lies in a frame, if that is known.
        notes: what a person should know: points dropped, photos that are missing.
        unread: the whole dense cloud, where ``dense`` is a sample of it.
        precision: gives how precisely the cameras are known, in the frame of the georeference, else of the model.
        marks: file of the run's marks of control points; None where there is no run.
    """

    name: str
    photos: tuple[ViewPhoto, ...] = ()
    sparse: Scene | None = None
    dense: PointCloud | None = None
    mesh: VertexMesh | None = None
    offset: Float64[np.ndarray, "3"] = field(default_factory=lambda: np.zeros(3))
    up: Float64[np.ndarray, "3"] = field(default_factory=lambda: np.array([0.0, 0.0, 1.0]))
    georeference: Georeference | None = None
    notes: tuple[str, ...] = ()
    unread: UnreadCloud | None = None
    precision: Callable[[], PointPrecision | None] = lambda: None
    marks: Path | None = None

    @property
    def dense_count(self) -> int:
        """Points of the dense cloud, read or not."""
        if self.unread is not None:
            return self.unread.count
        return len(self.dense) if self.dense is not None else 0

    @property
    def views(self) -> list[PinholeView]:
        """The undistorted cameras of the photos."""
        return [photo.view for photo in self.photos]

    def points(self, limit: int = 100_000) -> Float32[np.ndarray, "n 3"]:
        """Points all over the scene: of the dense cloud, else of the mesh, else the sparse ones."""
        if self.dense is not None and len(self.dense):
            xyz: np.ndarray = self.dense.xyz
        elif self.mesh is not None:
            xyz = self.mesh.vertices
        elif self.sparse is not None:
            xyz = self.sparse.xyz
        else:
            xyz = np.zeros((0, 3))
        return np.asarray(xyz[:: max(1, -(-len(xyz) // limit))], np.float32)
