"""Reading of a run for maps: cameras, photos, depth maps and mesh, in the frame of the map."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

from recon.core.mesh import Mesh
from recon.core.posed import Camera
from recon.core.resize import resize_mask, resize_points, resize_rgb
from recon.errors import ReconError
from recon.exports.source import photo_folder
from recon.maps.frame import MapFrame
from recon.maps.ortho import reach_of
from recon.photos.reading import PhotoError, load_photo
from recon.run.folder import DEPTH, RunFolder

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

# Photos and depth maps that are kept, bytes each; what memory takes beside the mesh.
_KEPT = 64_000_000
# Photos finer than the map by more than this are made smaller first, so that nothing flickers.
_FINER = 1.5
# Of the pixels of a depth map, in steps along both axes, those that tell where it lies.
_SPARSELY = 6


class Kept(Generic[Key, Value]):
    """The values that were asked for last, as many as fit into so many bytes."""

    def __init__(self, make: Callable[[Key], Value], size: Callable[[Value], int], most: int = _KEPT) -> None:
        self._make, self._size, self._most = make, size, most
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._bytes = 0

    def __call__(self, key: Key) -> Value:
        """The value of a key."""
        if key not in self._values:
            self._values[key] = made = self._make(key)
            self._bytes += self._size(made)
            while self._bytes > self._most and len(self._values) > 1:
                self._bytes -= self._size(self._values.popitem(last=False)[1])
        self._values.move_to_end(key)
        return self._values[key]


@dataclass(frozen=True)
class MapView:
    """A photo in the frame of a map.

    Attributes:
        camera: at working size. reach: of the camera, see ``reach_of``.
        low, high: corners of the box that its depth map fills, None without one.
    """

    name: str
    camera: Camera
    reach: float
    low: Float64[np.ndarray, "3"] | None
    high: Float64[np.ndarray, "3"] | None


@dataclass(frozen=True)
class DepthSurface:
    """A depth map lifted into the frame of a map: points (0 depth where unknown) and focal length in pixels."""

    points: Float64[np.ndarray, "h w 3"]
    depth: Float32[np.ndarray, "h w"]
    focal: float


class MapSource:
    """The parts of a run that a map is made of, read when they are asked for."""

    def __init__(
        self, run: RunFolder, frame: MapFrame, photos: Path | None = None, size: str = "working"
    ) -> None:
        self.run, self.frame = run, frame
        self._folder = photos or photo_folder(run)
        self._given = photos is not None or size == "original"
        self._larger = {name: self._enlargement(name, size) for name in run.cameras}
        move = frame.from_model
        self._depth_cameras = {name: camera for name, camera in run.cameras.items() if self._has_depth(name)}
        self.depth = Kept(self._lifted, lambda one: one.points.nbytes + one.depth.nbytes)
        self.views: list[MapView] = []
        adjusted = run.adjusted_cameras() if frame.bend is not None else {}
        for name, before in run.cameras.items():
            camera = adjusted.get(name, before)
            placed = Camera(camera.intrinsics, move.camera(camera.cam_from_world))
            low = high = None
            if name in self._depth_cameras:
                surface = self.depth(name)
                known = surface.points[::_SPARSELY, ::_SPARSELY][surface.depth[::_SPARSELY, ::_SPARSELY] > 0]
                if len(known) > 20:
                    low, high = np.percentile(known, [0.3, 99.7], axis=0)
            self.views.append(MapView(name, placed, reach_of(placed), low, high))
        self.photo = Kept(self._read, lambda one: one[0].nbytes)
        self._factor: dict[str, float] = {}

    def _enlargement(self, name: str, size: str) -> float:
        """Pixels of the photo that is read per pixel of the model's camera."""
        full = self.run.original_size(name) if size == "original" else None
        return 1.0 if full is None else max(1.0, full[0] / self.run.cameras[name].intrinsics.width)

    def pixels(self, view: MapView) -> float:
        """Focal length of a photo in pixels of the size that is read."""
        return float(view.camera.intrinsics.K[0, 0]) * self._larger[view.name]

    def _has_depth(self, name: str) -> bool:
        photo = self.run.photos.get(name)
        return photo is not None and self.run.path(DEPTH, f"{photo.id}.npz").is_file()

    def _lifted(self, name: str) -> DepthSurface:
        camera = self._depth_cameras[name]
        depth = self.run.named_depth(name)
        assert depth is not None
        h, w = depth.shape
        view = camera.view(name).resized(w, h)
        x, y = np.meshgrid(np.arange(w), np.arange(h))
        rays = np.stack(
            [(x - view.K[0, 2]) / view.K[0, 0], (y - view.K[1, 2]) / view.K[1, 1], np.ones((h, w))], -1
        )
        world = (rays * depth[..., None]) @ view.cam_from_world[:, :3] + view.center
        points = self.frame.place(world.reshape(-1, 3)).reshape(h, w, 3)
        return DepthSurface(points, depth, float(view.K[0, 0]))

    def mesh(self) -> Mesh | None:
        """The mesh in local coordinates of the map; None without one."""
        mesh = self.run.mesh()
        if mesh is None:
            return None
        vertices = self.frame.place(mesh.vertices.astype(np.float64)).astype(np.float32)
        return Mesh(vertices, mesh.faces)

    def make_smaller(self, gsd: float, heights: float) -> None:
        """Read photos from now on as coarse as a map of this cell size needs them, its surface at about ``heights``."""
        for view in self.views:
            distance = max(float(view.camera.center[2]) - heights, 1e-9)
            fine = gsd * self.pixels(view) / distance
            self._factor[view.name] = self._larger[view.name] / (fine if fine > _FINER else 1.0)

    def _read(self, name: str) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"] | None]:
        """Pixels and mask of a photo, at the size that the map needs."""
        photo = self.run.photos.get(name)
        rgb = None if self._given else self.run.named_rgb(name)
        if rgb is None:
            path = None if self._folder is None else self._folder / name
            if path is None or not path.is_file():
                where = name if path is None else str(path)
                raise ReconError(f"{where}: the photo is not there (any more); give --photos DIR")
            try:
                rgb = load_photo(path).rgb
            except PhotoError as error:
                raise ReconError(f"{path}: {error}") from error
        mask = None if photo is None else self.run.mask(photo)
        camera = self.run.cameras[name].intrinsics
        factor = self._factor.get(name, 1.0)
        width, height = max(2, round(camera.width * factor)), max(2, round(camera.height * factor))
        if rgb.shape[:2] != (height, width):
            rgb = resize_rgb(rgb, width, height)
            mask = None if mask is None else resize_mask(mask, width, height)
        return rgb, mask

    def colors(
        self, view: MapView, xy: Float64[np.ndarray, "h w 2"], *, cubic: bool = True
    ) -> tuple[Float32[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
        """Colours of a photo at pixels of its working size, and where its mask lets it be used."""
        rgb, mask = self.photo(view.name)
        size = view.camera.intrinsics.width, view.camera.intrinsics.height
        at = resize_points(xy, size, (rgb.shape[1], rgb.shape[0])).astype(np.float32)
        how: Any = cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR
        found = cv2.remap(rgb, at[..., 0], at[..., 1], how, borderMode=cv2.BORDER_REPLICATE)
        if mask is None:
            return found.astype(np.float32), np.ones(at.shape[:2], bool)
        usable = cv2.remap(mask.astype(np.uint8), at[..., 0], at[..., 1], cv2.INTER_NEAREST)
        return found.astype(np.float32), usable > 0


def tensor_rays(x: np.ndarray, y: np.ndarray, top: float) -> Float32[np.ndarray, "h w 6"]:
    """Rays straight down through the middles of cells, from the height ``top``."""
    rays = np.zeros((*x.shape, 6), np.float32)
    rays[..., 0], rays[..., 1], rays[..., 2] = x, y, top
    rays[..., 5] = -1.0
    return rays
