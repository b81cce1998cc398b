"""Clouds, meshes and cameras made small enough for a page."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float, Float64, UInt8, UInt16

from recon.core.cameras import PinholeView
from recon.render.frusta import camera_lines
from recon.render.pictures import overview_view
from recon.report.content import Points, Surface

# Positions are whole numbers of so many steps across the box that is shown.
STEPS = 65535

# The box reaches so many times as far from the middle as nearly all points do; what lies beyond is not shown.
_MARGIN = 4.0

# Share of the points that "nearly all" means.
_INNER = 0.98


# Share of the points, those nearest to their middle, that the first look must have in the picture.
_BODY = 0.95

# For the cameras to be in the picture too, it goes at most so many times as far away.
_STEP_BACK = 3.0

# About so many points, evenly taken, tell where the first look is from.
_LOOKED_AT = 200_000

# Width and height of the picture that the first look is made for.
_START = (900, 600)


@dataclass(frozen=True)
class Box:
    """The part of the world that is shown.

    Attributes:
        origin: the corner with the smallest coordinates, world units in double precision.
        side: of the cube.
    """

    origin: Float64[np.ndarray, "3"]
    side: float

    def inside(self, xyz: Float[np.ndarray, "n 3"]) -> Bool[np.ndarray, " n"]:
        """Tell which points are finite and in the box."""
        found = np.ones(len(xyz), bool)
        with np.errstate(invalid="ignore"):
            for axis in range(3):  # clouds are large: one axis in double precision at a time
                local = np.asarray(xyz[:, axis], np.float64) - self.origin[axis]
                found &= (local >= 0) & (local <= self.side)
        return found

    def steps(self, xyz: Float[np.ndarray, "n 3"]) -> UInt16[np.ndarray, "n 3"]:
        """Points of the box in whole steps; the error is at most half a step on each axis."""
        local = (np.asarray(xyz, np.float64) - self.origin) / self.side
        return np.rint(np.clip(local, 0.0, 1.0) * STEPS).astype(np.uint16)

    def local(self, xyz: Float[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 3"]:
        """World points in the page's coordinates: the box is the unit cube."""
        return (np.asarray(xyz, np.float64) - self.origin) / self.side


def box_of(clouds: Sequence[Float[np.ndarray, "n 3"]], centers: Float[np.ndarray, "m 3"]) -> Box:
    """A cube around the cameras and nearly all of the points; far outliers would cost everything else its precision."""
    finite = []
    for xyz in clouds:
        some = np.asarray(xyz[:: max(1, len(xyz) // 20000)], np.float64)
        finite.append(some[np.isfinite(some).all(axis=1)])
    points = np.concatenate([*finite, np.zeros((0, 3))])
    cameras = np.asarray(centers, np.float64).reshape(-1, 3)
    every = np.concatenate([points, cameras])
    if not len(every):
        return Box(np.zeros(3), 1.0)
    middle = np.median(every, axis=0)
    reach = np.abs(every - middle).max(axis=1)
    radius = float(min(_MARGIN * np.quantile(reach, _INNER), reach.max()))
    radius = 1.001 * max(radius, float(np.abs(cameras - middle).max(initial=0.0)))
    if not radius > 0:
        radius = 1.0
    return Box(middle - radius, 2 * radius)


@dataclass
class Blob:
    """Arrays one after the other in one run of bytes; the header says where each is and what."""

    header: dict[str, Any] = field(default_factory=dict)
    _parts: list[bytes] = field(default_factory=list)
    _length: int = 0

    def add(self, array: npt.NDArray[Any] | bytes) -> dict[str, Any]:
        """Add an array; return its place: offset in bytes, number of elements, type of an element."""
        data = array if isinstance(array, bytes) else np.ascontiguousarray(array).tobytes()
        kind = "uint8" if isinstance(array, bytes) else str(array.dtype)
        count = len(data) if isinstance(array, bytes) else int(array.size)
        place = {"at": self._length, "count": count, "type": kind}
        padded = data + b"\0" * (-len(data) % 4)
        self._parts.append(padded)
        self._length += len(padded)
        return place

    def text(self) -> str:
        """All bytes, gzipped, in base64."""
        return base64.b64encode(gzip.compress(b"".join(self._parts), 6, mtime=0)).decode()


def add_points(blob: Blob, points: Points, box: Box, limit: int, seed: int = 0) -> dict[str, Any]:
    """At most ``limit`` points of the box, chosen by chance; they are mixed, so that any first few look like all."""
    rows = np.nonzero(box.inside(points.xyz))[0]
    inside = len(rows)
    rows = np.random.default_rng(seed).permutation(rows)[:limit]
    rgb = points.rgb[rows] if points.rgb.any() else np.full((len(rows), 3), 150, np.uint8)
    of = points.of or len(points.xyz)
    return {
        "count": len(rows),
        "of": of,
        "outside": round((len(points.xyz) - inside) * (of / max(1, len(points.xyz)))),
        "xyz": blob.add(box.steps(points.xyz[rows])),
        "rgb": blob.add(np.ascontiguousarray(rgb)),
    }


def add_surface(blob: Blob, surface: Surface, box: Box) -> dict[str, Any]:
    """The triangles of the box."""
    inside = box.inside(surface.xyz)
    faces = np.asarray(surface.faces)[inside[surface.faces].all(axis=1)]
    used = np.unique(faces)
    number = np.zeros(len(surface.xyz), np.int64)
    number[used] = np.arange(len(used))
    index = number[faces].ravel().astype(np.uint16 if len(used) <= STEPS else np.uint32)
    packed: dict[str, Any] = {
        "faces": len(faces),
        "note": surface.note,
        "xyz": blob.add(box.steps(surface.xyz[used])),
        "index": blob.add(index),
    }
    if surface.uv is not None and surface.texture is not None:
        packed["uv"] = blob.add(_unit_steps(surface.uv[used]))
        packed["texture"] = blob.add(surface.texture)
    else:
        rgb: UInt8[np.ndarray, "n 3"] = (
            np.full((len(surface.xyz), 3), 150, np.uint8) if surface.rgb is None else surface.rgb
        )
        packed["rgb"] = blob.add(np.ascontiguousarray(rgb[used]))
    return packed


def _unit_steps(values: Float[np.ndarray, "n 2"]) -> UInt16[np.ndarray, "n 2"]:
    return np.rint(np.clip(values, 0.0, 1.0) * STEPS).astype(np.uint16)


def cameras_of(views: Sequence[PinholeView], box: Box) -> list[dict[str, Any]]:
    """Each camera for the page: where it stands, how it looks, its calibration and the corners of its pyramid."""
    if not views:
        return []
    centers = np.array([view.center for view in views])
    return [
        {
            "photo": view.photo_id,
            "center": _rounded(box.local(view.center[None])[0]),
            "rotation": _rounded(view.cam_from_world[:, :3].ravel()),
            "focal": _rounded(np.array([view.K[0, 0], view.K[1, 1]])),
            "principal": _rounded(np.array([view.K[0, 2], view.K[1, 2]])),
            "size": [view.width, view.height],
            "corners": _rounded(box.local(camera_lines(view, size)[:4, 1]).ravel()),
        }
        for view, size in zip(views, _sizes(centers), strict=True)
    ]


def _sizes(centers: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, " n"]:
    """Depth of each camera's pyramid: a little less than the way to the nearest camera."""
    if len(centers) < 2:
        return np.ones(len(centers))
    from scipy.spatial import cKDTree

    nearest = np.asarray(cKDTree(centers).query(centers, k=2)[0])[:, 1]
    spread = float(np.linalg.norm(centers - centers.mean(axis=0), axis=1).max())
    return np.full(len(centers), max(0.4 * float(np.median(nearest)), 0.02 * spread, 1e-9))


def start_of(views: Sequence[PinholeView], xyz: Float[np.ndarray, "n 3"], box: Box) -> dict[str, Any] | None:
    """From where the page looks first: eye, target and up, the vertical field of view in degrees, and the picture's
    width over its height for which all is in it. The target is the middle of the points: the scene turns about it. None
    where there is nothing to look at."""
    points = np.asarray(xyz[:: max(1, len(xyz) // _LOOKED_AT)], np.float64)
    points = points[box.inside(points)]
    if not views:
        if not len(points):
            return None
        middle = np.median(points, axis=0)
        eye = middle + np.array([0.0, -0.3, -1.2]) * box.side
        up, fov = np.array([0.0, -1.0, 0.0]), 40.0
    else:
        view = overview_view(points, views, "oblique", *_START)
        R, fov = (
            view.cam_from_world[:, :3],
            float(np.degrees(2 * np.arctan(0.5 * view.height / view.K[1, 1]))),
        )
        centers = np.array([one.center for one in views])
        middle = np.median(points if len(points) else centers, axis=0)
        half = 0.46 * np.array([view.width, view.height]) / np.diag(view.K)[:2]
        reach = np.linalg.norm(points - middle, axis=1)
        body = points[reach <= np.quantile(reach, _BODY)] if len(points) else centers
        near, far = (
            float(np.max(np.abs(local[:, :2]) / half - local[:, 2:], initial=1e-3 * box.side))
            for local in ((body - middle) @ R.T, (np.concatenate([body, centers]) - middle) @ R.T)
        )
        eye = middle - min(far, _STEP_BACK * near) * R[2]
        up = -np.mean([one.cam_from_world[1, :3] for one in views], axis=0)
        length = float(np.linalg.norm(up))
        up = up / length if length > 1e-6 else np.array([0.0, 0.0, 1.0])
    return {
        "eye": _rounded(box.local(eye[None])[0]),
        "target": _rounded(box.local(middle[None])[0]),
        "up": _rounded(up),
        "aspect": _START[0] / _START[1],
        "fov": fov,
    }


def _rounded(values: npt.NDArray[Any]) -> list[float]:
    return [float(f"{value:.9g}") for value in np.asarray(values, np.float64).ravel()]
