"""Control points marked by hand: a click in one photo, and the cameras propose where the others show the point."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from recon.core.posed import Camera
from recon.core.resize import resize_points
from recon.core.undistort import distort_points
from recon.errors import ReconError
from recon.exports.control import Sighting, read_control_points, write_sightings
from recon.exports.georeference import triangulate_rays
from recon.live.picking import Surfaces
from recon.render.scene import ViewPhoto, ViewScene

# Photos that a point is proposed in at most, those that look at it most squarely first.
_PROPOSED = 60


@dataclass(frozen=True)
class Proposal:
    """Proposed position of a point in a photo, in pixels of the model's camera.

    Attributes:
        photo: row of the photo. xy: the mark, else where the cameras say that the point is.
        marked: whether somebody marked it. error: distance of the mark from where the cameras say, None without.
    """

    photo: int
    xy: tuple[float, float]
    marked: bool
    error: float | None = None


class Marking:
    """The marks of a run, kept in its file; of one point at a time also where the other photos show it."""

    def __init__(self, scene: ViewScene) -> None:
        self._scene = scene
        self._lock = threading.RLock()
        self._row_of = {photo.name: row for row, photo in enumerate(scene.photos)}
        self._marks: dict[str, dict[str, tuple[float, float]]] = {}
        self._surface: dict[str, Float64[np.ndarray, "3"]] = {}
        path = self.path
        if path is not None and path.is_file():
            for name, seen in read_control_points(path).sightings.items():
                self._marks[name] = {photo: (x, y) for photo, x, y in seen}

    @property
    def path(self) -> Path | None:
        """The file of the marks."""
        return self._scene.marks

    @property
    def names(self) -> list[str]:
        """The points that are marked somewhere."""
        return sorted(name for name, seen in self._marks.items() if seen)

    def next_name(self) -> str:
        """A name that no point has yet."""
        taken = set(self._marks) | set(self._surface)
        return next(name for k in range(1, 10_000) if (name := f"P{k}") not in taken)

    # Changes

    def mark_ray(self, name: str, row: int, direction: Float64[np.ndarray, "3"]) -> bool:
        """Mark a point in a photo that is looked through, along a click's ray; False beside the photo."""
        photo = self._scene.photos[row]
        pinhole, depth = photo.view.project((photo.view.center + direction)[None])
        x, y = distort_points(pinhole, photo.intrinsics, photo.view.K)[0].tolist()
        inside = -0.5 <= x <= photo.view.width - 0.5 and -0.5 <= y <= photo.view.height - 0.5
        if depth[0] <= 0 or not inside:
            return False
        self.mark(name, row, (x, y))
        return True

    def mark(self, name: str, row: int, xy: tuple[float, float]) -> None:
        """Mark a point at a pixel of the model's camera, and keep it in the file."""
        photo = self._scene.photos[row]
        x, y = resize_points(np.array(xy), _size(photo), _full(photo))
        with self._lock:
            self._marks.setdefault(name, {})[photo.name] = (float(x), float(y))
            self._write()

    def nudge(self, name: str, row: int, dx: float, dy: float) -> None:
        """Move a mark by pixels of the photo; a proposal becomes a mark."""
        for one in self.of(name, None):
            if one.photo == row:
                full, size = _full(self._scene.photos[row]), _size(self._scene.photos[row])
                step = (dx * size[0] / full[0], dy * size[1] / full[1])
                self.mark(name, row, (one.xy[0] + step[0], one.xy[1] + step[1]))

    def remove(self, name: str, row: int) -> None:
        """Take the mark in a photo away."""
        with self._lock:
            self._marks.get(name, {}).pop(self._scene.photos[row].name, None)
            self._write()

    def point_at(self, name: str, place: Float64[np.ndarray, "3"]) -> None:
        """Say where on the surface a point is; photos are proposed from it until two are marked."""
        self._surface[name] = np.asarray(place, np.float64)

    def _write(self) -> None:
        if self.path is None:
            return
        listed: dict[str, list[Sighting]] = {
            name: [(photo, x, y) for photo, (x, y) in seen.items()]
            for name, seen in self._marks.items()
            if seen
        }
        try:
            write_sightings(self.path, listed)
        except OSError as error:
            raise ReconError(f"{self.path}: cannot be written ({error.strerror})") from error

    # Proposals

    def _marked(self, name: str) -> dict[int, tuple[float, float]]:
        """Marks of a point in pixels of the model's cameras, by rows of photos."""
        found = {}
        for photo, xy in self._marks.get(name, {}).items():
            row = self._row_of.get(photo)
            if row is not None:
                one = self._scene.photos[row]
                x, y = resize_points(np.array(xy), _full(one), _size(one))
                found[row] = (float(x), float(y))
        return found

    def place(self, name: str, surfaces: Surfaces | None) -> Float64[np.ndarray, "3"] | None:
        """Position of a point in the scene: by two marks or more, else by the surface under one; None where unknown."""
        marked = self._marked(name)
        cameras = {row: _camera(self._scene.photos[row]) for row in marked}
        rays = [
            cameras[row].cam_from_world[:, :3].T @ cameras[row].rays(np.array([xy]))[0]
            for row, xy in marked.items()
        ]
        if len(marked) >= 2:
            try:
                return triangulate_rays(
                    np.array([camera.center for camera in cameras.values()]), np.array(rays)
                )
            except ValueError:
                return None
        if name in self._surface:
            return self._surface[name]
        if marked and surfaces is not None:
            (row,) = marked
            ray = rays[0] / np.linalg.norm(rays[0])
            hit = surfaces.hit(cameras[row].center, ray)
            return None if hit is None else hit[0]
        return None

    def of(self, name: str, surfaces: Surfaces | None) -> list[Proposal]:
        """Marks of a point, and proposals in the other photos that show it; marks first, in the order of the photos."""
        marked, place = self._marked(name), self.place(name, surfaces)
        out = []
        for row, xy in sorted(marked.items()):
            error = None
            if place is not None and len(marked) >= 2:
                seen, _ = _camera(self._scene.photos[row]).project(place[None])
                error = float(np.hypot(*(seen[0] - xy)))
            out.append(Proposal(row, xy, True, error))
        if place is None:
            return out
        if surfaces is not None:
            shown = surfaces.sightings(place, None, _PROPOSED)
            return out + [Proposal(one.photo, one.xy, False) for one in shown if one.photo not in marked]
        for row, photo in enumerate(self._scene.photos):
            seen, depth = _camera(photo).project(place[None])
            x, y = (float(v) for v in seen[0])
            if (
                row not in marked
                and depth[0] > 0
                and 0 <= x < photo.view.width
                and 0 <= y < photo.view.height
            ):
                out.append(Proposal(row, (x, y), False))
        return out


def _camera(photo: ViewPhoto) -> Camera:
    return Camera(photo.intrinsics, photo.view.cam_from_world)


def _size(photo: ViewPhoto) -> tuple[int, int]:
    return photo.view.width, photo.view.height


def _full(photo: ViewPhoto) -> tuple[int, int]:
    return photo.full_size or _size(photo)
