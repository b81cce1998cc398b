"""Paths of a virtual camera: round the subject, through the photos, through given poses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float64

from recon.core.cameras import PinholeView
from recon.render.pose_splines import interpolate_poses, motion_times, walking_order

# Photos that leave no wider gap in their ring go all the way round.
_CIRCLE_GAP = np.radians(100.0)
# A swing is at least so wide, and goes so far beyond the outermost photos.
_LEAST_SWING, _BEYOND = np.radians(24.0), np.radians(6.0)
_WIDEST_SWING = np.radians(150.0)
# Distance and height of a ring follow the photos' within about this angle.
_RING_WIDTH = np.radians(25.0)
# A path keeps this share of its distance to the subject from everything.
_CLEARANCE = 0.12


@dataclass(frozen=True)
class Subject:
    """The subject of the photos.

    Attributes:
        middle: the point that most of them look at.
        distance: typical distance from a photo to what it shows.
        looking_in: False where the photos look apart, as in a room from its middle.
    """

    middle: Float64[np.ndarray, "3"]
    distance: float
    looking_in: bool


def find_subject(xyz: Float[np.ndarray, "n 3"], views: Sequence[PinholeView]) -> Subject:
    """Find what the photos are of: the mean of the points on their axes as deep as what each of them sees.

    Args:
        xyz: points or vertices of the scene.
        views: the photos, at least one.
    """
    points = _some(xyz)
    looked_at, depths, axes = [], [], []
    for view in views:
        xy, z = view.project(points)
        half = np.array([view.width, view.height]) / 2
        inside = (z > 0) & (np.abs(xy - half) < half).all(axis=1)
        depth = float(np.median(z[inside])) if inside.any() else np.nan
        axis = view.cam_from_world[2, :3]
        depths.append(depth)
        axes.append(axis)
        looked_at.append(view.center + depth * axis)
    known = np.isfinite(depths)
    if not known.any():
        middle = points.mean(axis=0) if len(points) else views[0].center + views[0].cam_from_world[2, :3]
        distance = float(np.median([np.linalg.norm(view.center - middle) for view in views])) or 1.0
        return Subject(middle, distance, True)
    middle = np.median(np.array(looked_at)[known], axis=0)
    to_middle = np.array([middle - view.center for view in views])
    length = np.maximum(np.linalg.norm(to_middle, axis=1), 1e-30)
    cosine = (np.array(axes) * to_middle).sum(axis=1) / length
    return Subject(middle, float(np.median(np.array(depths)[known])), bool(np.median(cosine) > 0.5))


@dataclass(frozen=True)
class Ring:
    """A way round an axis through the subject, by azimuth.

    Attributes:
        subject: what it goes round.
        up: unit vector.
        zero: unit vector, horizontal: azimuth 0; azimuths grow counter-clockwise seen from above.
        start, stop: azimuths of its ends, radians.
        closed: a full circle.
        azimuths, distances, heights: of the photos: horizontal distance from the axis and height above the middle.
    """

    subject: Subject
    up: Float64[np.ndarray, "3"]
    zero: Float64[np.ndarray, "3"]
    start: float
    stop: float
    closed: bool
    azimuths: Float64[np.ndarray, " n"]
    distances: Float64[np.ndarray, " n"]
    heights: Float64[np.ndarray, " n"]

    def azimuths_of(self, count: int, film: bool) -> Float64[np.ndarray, " k"]:
        """Azimuths of the cameras of a film (a circle once, a swing there and back) or of pictures along the ring."""
        if film or self.closed:
            phase = np.arange(count) / count
            shares = phase if self.closed else 0.5 + 0.5 * np.sin(2 * np.pi * phase)
        else:
            shares = even_shares(count)
        return self.start + (self.stop - self.start) * shares

    def at(self, azimuth: float, stretch: float = 1.0) -> Float64[np.ndarray, "3"]:
        """The place on the ring at an azimuth; distance and height are those of the photos near there.

        Args:
            stretch: factor on the distance from the subject.
        """
        away = np.abs((azimuth - self.azimuths + np.pi) % (2 * np.pi) - np.pi)
        weight = np.exp(-0.5 * (away / _RING_WIDTH) ** 2) + 1e-3
        distance = float(weight @ self.distances / weight.sum())
        height = float(weight @ self.heights / weight.sum())
        outwards = np.cos(azimuth) * self.zero + np.sin(azimuth) * np.cross(self.up, self.zero)
        return np.asarray(self.subject.middle + stretch * (distance * outwards + height * self.up))


def even_shares(count: int) -> Float64[np.ndarray, " k"]:
    """Numbers from 0 to 1 at even steps; a single one is in the middle."""
    return np.linspace(0.0, 1.0, count) if count > 1 else np.full(count, 0.5)


def find_ring(subject: Subject, views: Sequence[PinholeView], up: Float[np.ndarray, "3"]) -> Ring:
    """Choose a way round the subject where the photos were taken from: a circle, or a swing before a façade.

    The widest gap in azimuth between neighbouring photos decides: photos all round give a circle; else the swing
    covers their spread and no more, since nobody knows what is behind (a wall, as a rule).
    """
    up = np.asarray(up, np.float64) / np.linalg.norm(up)
    offset = np.array([view.center for view in views]) - subject.middle
    heights = offset @ up
    flat = offset - heights[:, None] * up
    distances = np.linalg.norm(flat, axis=1)
    zero = flat.sum(axis=0)
    if np.linalg.norm(zero) < 1e-6 * max(distances.max(), 1e-30):
        zero = flat[int(distances.argmax())]
    if np.linalg.norm(zero) < 1e-9 * max(subject.distance, 1e-30):  # all straight above
        zero = np.cross(up, [1.0, 0.0, 0.0] if abs(up[0]) < 0.9 else [0.0, 1.0, 0.0])
    zero = zero / np.linalg.norm(zero)
    azimuths = np.arctan2(flat @ np.cross(up, zero), flat @ zero)
    ordered = np.sort(azimuths)
    gaps = np.diff(np.append(ordered, ordered[0] + 2 * np.pi))
    widest = int(gaps.argmax())
    closed = len(views) > 2 and bool(gaps[widest] < _CIRCLE_GAP)
    if closed:
        start, stop = 0.0, 2 * np.pi
    else:
        start = float(ordered[(widest + 1) % len(ordered)])
        width = float(2 * np.pi - gaps[widest])
        middle, half = start + width / 2, max(width / 2 + _BEYOND, _LEAST_SWING / 2)
        half = min(half, max(_WIDEST_SWING / 2, width / 2))
        start, stop = middle - half, middle + half
    return Ring(subject, up, zero, start, stop, closed, azimuths, distances, heights)


def orbit(
    xyz: Float[np.ndarray, "n 3"],
    views: Sequence[PinholeView],
    up: Float[np.ndarray, "3"],
    count: int,
    width: int,
    height: int,
    *,
    film: bool = True,
    stretch: float = 1.0,
    rise: float = 0.0,
) -> list[PinholeView]:
    """Make cameras on a ring round the subject (in a room with photos that look outwards: that look round).

    Args:
        xyz: points or vertices; the ring keeps clear of them.
        views: the photos.
        up: up in the world.
        count: number of cameras.
        width, height: of the pictures.
        film: for a film that can run in a loop (round once, or there and back); else from one end to the other.
        stretch: farther from the subject than the photos by this factor, as far as nothing is in the way.
        rise: lifts the cameras, radians of elevation.
    """
    subject = find_subject(xyz, views)
    K = photos_calibration(views, width, height)
    up = np.asarray(up, np.float64) / np.linalg.norm(up)
    if not subject.looking_in:
        return _look_round(views, up, count, film, K, width, height)
    ring = find_ring(subject, views, up)
    azimuths = ring.azimuths_of(count, film)
    stretch = _free_stretch(ring, azimuths, xyz, stretch, rise)
    made = []
    for index, azimuth in enumerate(azimuths):
        eye = _lifted(ring, ring.at(azimuth, stretch), rise)
        made.append(look_at(eye, subject.middle, up, K, width, height, name=f"orbit-{index}"))
    return made


def _lifted(ring: Ring, eye: Float64[np.ndarray, "3"], rise: float) -> Float64[np.ndarray, "3"]:
    """The place at the same distance from the subject, higher by an angle (at most 75 degrees in all)."""
    if rise == 0.0:
        return eye
    offset = eye - ring.subject.middle
    length, height = float(np.linalg.norm(offset)), float(offset @ ring.up)
    flat = offset - height * ring.up
    flat /= max(float(np.linalg.norm(flat)), 1e-30)
    angle = min(
        np.arcsin(np.clip(height / length, -1, 1)) + rise, max(np.radians(75.0), np.arcsin(height / length))
    )
    return np.asarray(ring.subject.middle + length * (np.cos(angle) * flat + np.sin(angle) * ring.up))


def _free_stretch(
    ring: Ring, azimuths: Float64[np.ndarray, " k"], xyz: Float[np.ndarray, "n 3"], wanted: float, rise: float
) -> float:
    """The largest factor up to ``wanted`` with which the way out from the photos' ring meets nothing."""
    from scipy.spatial import cKDTree

    points = _some(xyz, 200_000)
    if wanted <= 1.0 or not len(points):
        return wanted
    tree = cKDTree(points)
    some = azimuths[:: max(1, len(azimuths) // 24)]
    best = 1.0
    for factor in np.linspace(1.0, wanted, 9)[1:]:
        eyes = np.array([_lifted(ring, ring.at(azimuth, factor), rise) for azimuth in some])
        reach = np.linalg.norm(eyes - ring.subject.middle, axis=1)
        if (tree.query(eyes)[0] < _CLEARANCE * reach).any():
            break
        best = float(factor)
    return best


def _look_round(
    views: Sequence[PinholeView],
    up: Float64[np.ndarray, "3"],
    count: int,
    film: bool,
    K: Float64[np.ndarray, "3 3"],
    width: int,
    height: int,
) -> list[PinholeView]:
    """Cameras in the middle of the photos that turn through the directions in which those look."""
    eye = np.median([view.center for view in views], axis=0)
    axes = np.array([view.cam_from_world[2, :3] for view in views])
    # A ring of the directions: what the photos look at lies on a unit sphere round the middle.
    ring = find_ring(
        Subject(np.zeros(3), 1.0, True),
        [
            replace(view, cam_from_world=_pose(np.eye(3), axis))
            for view, axis in zip(views, axes, strict=True)
        ],
        up,
    )
    made = []
    for index, azimuth in enumerate(ring.azimuths_of(count, film)):
        ahead = ring.at(float(azimuth))
        made.append(look_at(eye, eye + ahead, up, K, width, height, name=f"round-{index}"))
    return made


def look_at(
    eye: Float[np.ndarray, "3"],
    target: Float[np.ndarray, "3"],
    up: Float[np.ndarray, "3"],
    K: Float[np.ndarray, "3 3"],
    width: int,
    height: int,
    name: str = "",
) -> PinholeView:
    """Make a level camera at ``eye`` that looks at ``target``."""
    z = np.asarray(target, np.float64) - eye
    z /= np.linalg.norm(z)
    x = np.cross(z, up)
    if np.linalg.norm(x) < 1e-6:  # straight up or down
        x = np.cross(z, np.roll(np.asarray(up, np.float64), 1))
    x /= np.linalg.norm(x)
    R = np.stack([x, np.cross(z, x), z])
    return PinholeView(-1, name, np.asarray(K, np.float64), _pose(R, eye), width, height)


def photos_calibration(views: Sequence[PinholeView], width: int, height: int) -> Float64[np.ndarray, "3 3"]:
    """Calibration of a picture of this size with the photos' median angle of view across the diagonal."""
    angles = [np.hypot(view.width, view.height) / np.sqrt(view.K[0, 0] * view.K[1, 1]) for view in views]
    f = float(np.hypot(width, height) / np.median(angles))
    return np.array([[f, 0, (width - 1) / 2], [0, f, (height - 1) / 2], [0, 0, 1.0]])


def fitted(
    views: Sequence[PinholeView], shown: Float[np.ndarray, "n 3"], margin: float = 0.04
) -> list[PinholeView]:
    """Give cameras one calibration with which all of them see everything that is to be shown, as large as can be.

    The principal point moves too, as with a shift lens: the cameras stay where they are and look where they did. What
    is behind one of them does not count.

    Args:
        shown: points. margin: left free on each side, as a share of the picture.
    """
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    for view in views:
        local = np.asarray(shown, np.float64) @ view.cam_from_world[:, :3].T + view.cam_from_world[:, 3]
        flat = local[local[:, 2] > 1e-3 * np.abs(local[:, 2]).max(initial=0.0)]
        if len(flat):
            flat = flat[:, :2] / flat[:, 2:]
            low, high = np.minimum(low, flat.min(axis=0)), np.maximum(high, flat.max(axis=0))
    if not len(views) or not (high > low).all():
        return list(views)
    size = np.array([views[0].width, views[0].height], np.float64)
    f = float(((1 - 2 * margin) * size / (high - low)).min())
    centre = (size - 1) / 2 - f * (low + high) / 2
    K = np.array([[f, 0, centre[0]], [0, f, centre[1]], [0, 0, 1.0]])
    return [replace(view, K=K) for view in views]


# ---- through poses -------------------------------------------------------------------------------


def through_photos(
    xyz: Float[np.ndarray, "n 3"],
    views: Sequence[PinholeView],
    shares: Float[np.ndarray, " k"],
    width: int,
    height: int,
) -> list[PinholeView]:
    """Make cameras on a smooth way through all photos, in the order of a short walk.

    Args:
        xyz: points, for the distance that weighs turning against moving.
        views: the photos, in the order in which they were taken if that is known.
        shares: 0…1, how far along the way each camera is.
    """
    ordered = [views[i] for i in walking_order(np.array([view.center for view in views]))]
    poses = np.array([view.cam_from_world for view in ordered])
    times = motion_times(poses, find_subject(xyz, views).distance)
    K = photos_calibration(views, width, height)
    return [
        PinholeView(-1, f"photos-{i}", K, pose, width, height)
        for i, pose in enumerate(interpolate_poses(poses, times, np.asarray(shares) * times[-1]))
    ]


def _pose(R: Float[np.ndarray, "3 3"], eye: Float[np.ndarray, "3"]) -> Float64[np.ndarray, "3 4"]:
    return np.column_stack([R, -np.asarray(R, np.float64) @ eye])


def _some(xyz: Float[np.ndarray, "n 3"], limit: int = 20_000) -> Float64[np.ndarray, "m 3"]:
    """An even sample of the finite points, in double precision."""
    points = np.asarray(xyz).reshape(-1, 3)
    points = np.asarray(points[:: max(1, len(points) // limit)], np.float64)
    finite: Bool[np.ndarray, " n"] = np.isfinite(points).all(axis=1)
    return points[finite]
