"""Smooth ways through given poses."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64, Int64

# Turning by a radian takes as long as moving by so many distances to the subject.
_RADIANS_PER_DISTANCE = 1.0


def walking_order(places: Float[np.ndarray, "n 3"]) -> Int64[np.ndarray, " n"]:
    """Order places for a short walk: as given, unless another order halves the way (nearest neighbour, then 2-opt)."""
    places = np.asarray(places, np.float64)
    n = len(places)
    given = np.arange(n)
    if n < 4:
        return given
    gap = np.linalg.norm(places[:, None] - places[None], axis=2)

    def length(order: Int64[np.ndarray, " n"]) -> float:
        return float(gap[order[:-1], order[1:]].sum())

    start = int(np.argmax(gap.sum(axis=1)))
    order, left = [start], set(range(n)) - {start}
    while left:
        order.append(min(left, key=lambda i: (gap[order[-1], i], i)))
        left.remove(order[-1])
    best = np.array(order)
    for _ in range(20):
        before = length(best)
        for i in range(n - 1):
            # Reversing i+1…j swaps two edges for two others; beyond the last one there is no edge to swap.
            j = np.arange(i + 1, n)
            after = np.append(gap[best[i + 1], best[j[:-1] + 1]] - gap[best[j[:-1]], best[j[:-1] + 1]], 0.0)
            gain = gap[best[i], best[j]] - gap[best[i], best[i + 1]] + after
            at = int(gain.argmin())
            if gain[at] < -1e-12 * before:
                best[i + 1 : j[at] + 1] = best[i + 1 : j[at] + 1][::-1].copy()
        if length(best) > before * (1 - 1e-9):
            break
    if length(best) > 0.5 * length(given):
        return given
    return best if best[0] < best[-1] else best[::-1]


def motion_times(poses: Float[np.ndarray, "n 3 4"], distance: float) -> Float64[np.ndarray, " n"]:
    """Times at which poses are passed, so that what a camera sees moves about evenly.

    Args:
        poses: world to camera.
        distance: to what they show; moving by it counts as much as turning by a radian.
    """
    from scipy.spatial.transform import Rotation

    R, t = poses[:, :, :3], poses[:, :, 3]
    centers = -np.einsum("nji,nj->ni", R, t)
    moved = np.linalg.norm(np.diff(centers, axis=0), axis=1) / max(distance, 1e-30)
    turned = Rotation.from_matrix(R[1:] @ R[:-1].transpose(0, 2, 1)).magnitude() * _RADIANS_PER_DISTANCE
    # Two photos from one place still get a moment of their own.
    step = moved + turned
    step = np.maximum(step, 0.05 * (float(np.median(step)) if len(step) else 1.0))
    return np.concatenate([[0.0], np.cumsum(np.maximum(step, 1e-6))])


def interpolate_poses(
    poses: Float[np.ndarray, "n 3 4"], times: Float[np.ndarray, " n"], at: Float[np.ndarray, " k"]
) -> Float64[np.ndarray, "k 3 4"]:
    """Interpolate poses smoothly: centres by monotone cubic pieces, rotations by a spline without jumps in speed.

    Centres: Fritsch & Carlson 1980 (no coordinate overshoots, so that a path does not swing through what its poses
    avoid); rotations: SciPy's ``RotationSpline``.

    Args:
        poses: world to camera; times: ascending.
        at: times asked for, within the range of ``times``.
    """
    from scipy.interpolate import PchipInterpolator
    from scipy.spatial.transform import Rotation, RotationSpline

    poses = np.asarray(poses, np.float64)
    at = np.clip(at, times[0], times[-1])
    if len(poses) == 1:
        return np.repeat(poses, len(at), axis=0)
    R, t = poses[:, :, :3], poses[:, :, 3]
    centers = PchipInterpolator(times, -np.einsum("nji,nj->ni", R, t))(at)
    rotations = RotationSpline(times, Rotation.from_matrix(R))(at).as_matrix()
    return np.concatenate([rotations, -np.einsum("nij,nj->ni", rotations, centers)[:, :, None]], axis=2)


def parse_tum(text: str) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, "n 3 4"]]:
    """Read a trajectory in TUM's form: ``time tx ty tz qx qy qz qw``, camera to world (x right, y down, z ahead).

    Source: Sturm et al., "A benchmark for the evaluation of RGB-D SLAM systems", IROS 2012 (file formats).

    Returns:
        Times from 0, ascending, and poses world to camera.

    Raises:
        ValueError: a line that is not eight finite numbers (named), a zero quaternion, times that do not ascend.
    """
    from scipy.spatial.transform import Rotation

    rows: list[list[float]] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#", 1)[0].replace(",", " ").split()
        if not words:
            continue
        try:
            values = [float(word) for word in words]
        except ValueError:
            values = []
        if len(values) != 8 or not np.isfinite(values).all() or not any(values[4:]):
            raise ValueError(f"line {number} is not 'time tx ty tz qx qy qz qw'")
        rows.append(values)
    if not rows:
        raise ValueError("it has no pose")
    table = np.array(rows)
    if (np.diff(table[:, 0]) <= 0).any():
        raise ValueError("its times do not ascend")
    R = Rotation.from_quat(table[:, 4:]).as_matrix().transpose(0, 2, 1)
    poses = np.concatenate([R, -np.einsum("nij,nj->ni", R, table[:, 1:4])[:, :, None]], axis=2)
    return table[:, 0] - table[0, 0], poses
