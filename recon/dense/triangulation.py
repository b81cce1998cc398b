"""Depth per pixel from flow fields to several neighbours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from recon.core.cameras import PinholeView
from recon.core.kernels import kernel, maximum, minimum, part_of_kernel
from recon.dense.planes import normals_from_planes, planes_from_depth, projection_of
from recon.dense.types import DepthMap

_MAX_VIEWS = 16


@dataclass(frozen=True)
class FlowToView:
    """Flow from a reference view to one neighbour, both undistorted and at matching size.

    Attributes:
        view: the neighbour at matching size.
        flow: (h, w, 2) float32 on the reference's pixel grid: pixel p of the reference is p + flow[p] in the
            neighbour.
        confidence: (h, w) float32 in 0…1.
        consistent: (h, w) True where the two-sided check held.
    """

    view: PinholeView
    flow: Float32[np.ndarray, "h w 2"]
    confidence: Float32[np.ndarray, "h w"]
    consistent: Bool[np.ndarray, "h w"]


@part_of_kernel(error_model="numpy")
def _agreement(rows, count, value, max_px):  # type: ignore[no-untyped-def]
    """How ``count`` rows of ``_triangulate`` agree with an inverse depth.

    Returns:
        Confidence-weighted agreement and number of those whose flow lies within max_px of the projection, and the
        normal equation of a Gauss-Newton step over these. Their ``rows[:, 9]`` is at most 1.
    """
    score = 0.0
    n = 0
    jj = 0.0
    jr = 0.0
    for k in range(count):
        row = rows[k]
        row[9] = 2.0
        pz = row[2] + row[5] * value
        if pz <= 0.0:
            continue
        pu = (row[0] + row[3] * value) / pz
        pv = (row[1] + row[4] * value) / pz
        ru, rv = row[6] - pu, row[7] - pv
        error = (ru * ru + rv * rv) / (max_px * max_px)
        if error > 1.0:
            continue
        row[9] = error
        ju, jv = (row[3] - pu * row[5]) / pz, (row[4] - pv * row[5]) / pz
        score += row[8] * (1.0 - 0.5 * error)
        n += 1
        jj += row[8] * (ju * ju + jv * jv)
        jr += row[8] * (ju * ru + jv * rv)
    return score, n, jj, jr


@kernel(error_model="numpy")
def _triangulate(  # type: ignore[no-untyped-def]
    targets, weights, consistent, P, centre_dir, Kinv, max_px, min_angle, min_neighbours, rows, depth, confidence
):  # fmt: skip
    """Inverse depth per pixel: the candidate that most neighbours agree with, then least squares over those.

    ``P`` is (views, 3, 4): M and v of ``projection_of``. ``rows`` (views, 11) is room for a pixel's neighbours: M times
    the pixel, v, where its flow points, its weight, its error, and which neighbour it is.
    """
    views, h, w = consistent.shape
    for y in range(h):
        for x in range(w):
            count = np.int64(0)  # a plain 0 would have what it is given to compiled for that constant, too
            for k in range(views):
                if not consistent[k, y, x]:
                    continue
                row = rows[count]
                for c in range(3):
                    line = P[k, c]
                    row[c] = line[0] * x + line[1] * y + line[2]
                    row[3 + c] = line[3]
                row[6], row[7] = targets[k, y, x, 0], targets[k, y, x, 1]
                row[8], row[10] = weights[k, y, x], k
                count += 1
            score, value, n = 0.0, 0.0, 0
            for k in range(count):
                row = rows[k]
                # Inverse depth at which the pixel lands nearest to where the flow of this neighbour says:
                # (a + v w) x target = 0 are two equations linear in w.
                tu, tv = row[6], row[7]
                c0, d0 = row[0] - tu * row[2], row[3] - tu * row[5]
                c1, d1 = row[1] - tv * row[2], row[4] - tv * row[5]
                square = d0 * d0 + d1 * d1
                candidate = -(c0 * d0 + c1 * d1) / square if square > 1e-30 else -1.0
                if candidate <= 0.0:
                    continue
                found, agreeing, _, _ = _agreement(rows, count, candidate, max_px)
                if found > score:
                    score, value, n = found, candidate, agreeing
            if n < min_neighbours:
                continue
            # Gauss-Newton over the agreeing neighbours; their set is taken anew each time.
            for step in range(4):
                score, n, jj, jr = _agreement(rows, count, value, max_px)
                if jj <= 0.0 or step == 3:
                    break
                value += jr / jj
                if value <= 0.0:
                    break
            if value <= 0.0 or n < min_neighbours:
                continue
            # Widest angle between the reference's ray and the ray of an agreeing neighbour.
            X0 = (Kinv[0, 0] * x + Kinv[0, 1] * y + Kinv[0, 2]) / value
            X1 = (Kinv[1, 1] * y + Kinv[1, 2]) / value
            X2 = 1.0 / value
            length = math.sqrt(X0 * X0 + X1 * X1 + X2 * X2)
            least = 1.0
            for k in range(count):
                if rows[k, 9] > 1.0:
                    continue
                centre = centre_dir[np.int64(rows[k, 10])]
                d0, d1, d2 = X0 - centre[0], X1 - centre[1], X2 - centre[2]
                apart = length * math.sqrt(d0 * d0 + d1 * d1 + d2 * d2) + 1e-30
                least = minimum(least, (X0 * d0 + X1 * d1 + X2 * d2) / apart)
            if math.acos(maximum(-1.0, least)) < min_angle:
                continue
            depth[y, x] = 1.0 / value
            confidence[y, x] = minimum(1.0, score / n) * (1.0 - 0.5**n)


def triangulate_flow(
    reference: PinholeView,
    neighbours: Sequence[FlowToView],
    *,
    max_reprojection_px: float = 1.5,
    min_angle_deg: float = 1.0,
    min_views: int = 2,
) -> DepthMap:
    """Depth of every pixel of a view from its flow to several neighbours, where they agree.

    The ray of the pixel is kept and one number, inverse depth, is estimated: each neighbour proposes the value that
    brings the pixel nearest to where its flow points; the proposal that most neighbours (weighted by confidence)
    confirm within ``max_reprojection_px`` wins and is refined by Gauss-Newton on the reprojection error of those that
    agree.

    Args:
        reference: the view, at matching size.
        neighbours: flow from it to each neighbour (16 at most are used, in the order given).
        max_reprojection_px: neighbours further off than this do not count (pixels of the neighbour).
        min_angle_deg: the widest angle between the reference's ray and an agreeing neighbour's must reach
            this.
        min_views: views that must agree, the reference included; at least 2.

    Returns:
        Depth, normals fitted to it (0 where the surroundings are unknown), and a confidence that grows with
        the number of agreeing neighbours.

    Raises:
        ValueError: for a flow of another size than the reference, or min_views below 2.
    """
    if min_views < 2:
        raise ValueError("min_views counts the reference: it is at least 2")
    h, w = reference.height, reference.width
    used = list(neighbours)[:_MAX_VIEWS]
    depth = np.zeros((h, w), np.float32)
    confidence = np.zeros((h, w), np.float32)
    normal = np.zeros((h, w, 3), np.float32)
    if not used:
        return DepthMap(depth, normal, confidence)
    for n in used:
        if n.flow.shape[:2] != (h, w):
            raise ValueError(f"flow to {n.view.name} is not {w}x{h}")
    xs, ys = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
    grid = np.stack([xs, ys], -1)
    targets = np.stack([n.flow + grid for n in used]).astype(np.float32)
    weights = np.stack([np.maximum(n.confidence, 0.05) for n in used]).astype(np.float32)
    consistent = np.stack([n.consistent & np.isfinite(n.flow).all(-1) for n in used])
    models = [projection_of(n.view, reference) for n in used]
    P = np.stack([np.column_stack(model) for model in models])
    R, t = reference.cam_from_world[:, :3], reference.cam_from_world[:, 3]
    centres = np.stack([R @ n.view.center + t for n in used])
    _triangulate(
        targets, weights, consistent, P, centres, np.linalg.inv(reference.K), float(max_reprojection_px),
        math.radians(min_angle_deg), min_views - 1, np.empty((len(used), 11)), depth, confidence,
    )  # fmt: skip
    planes = planes_from_depth(depth)
    normal = normals_from_planes(reference, *planes)
    return DepthMap(depth, normal, confidence)


def undistort_flow(
    flow: Float32[np.ndarray, "hd wd 2"],
    confidence: Float32[np.ndarray, "hd wd"],
    consistent: Bool[np.ndarray, "hd wd"],
    distorted_from_undistorted: Float32[np.ndarray, "h w 2"],
    undistorted_from_distorted_target: Float32[np.ndarray, "ht wt 2"],
) -> tuple[Float32[np.ndarray, "h w 2"], Float32[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Flow between two photos as taken, brought to the pixel grids of their undistorted images.

    Args:
        flow, confidence, consistent: on the reference photo as taken.
        distorted_from_undistorted: for each pixel of the undistorted reference, where it lies in the photo as
            taken.
        undistorted_from_distorted_target: for each pixel of the neighbour as taken, where it lies in its
            undistorted image.

    Returns:
        Flow, confidence and consistency on the undistorted reference's grid. Flow is blended between pixels
        only where all four are consistent and alike; a step between two surfaces is never averaged. Outside
        the photo: 0 and False.
    """
    size = distorted_from_undistorted.shape[:2]
    out, new_confidence = np.zeros((*size, 2), np.float32), np.zeros(size, np.float32)
    good = np.zeros(size, bool)
    _undistort(
        np.ascontiguousarray(flow, np.float32),
        np.ascontiguousarray(confidence, np.float32),
        np.ascontiguousarray(consistent),
        np.ascontiguousarray(distorted_from_undistorted, np.float32),
        np.ascontiguousarray(undistorted_from_distorted_target, np.float32),
        out,
        new_confidence,
        good,
    )
    return out, new_confidence, good


@part_of_kernel()
def _corner(position: np.float32, length: int) -> tuple[int, int, np.float32]:
    """The two pixels between which a position lies that is no farther out than the last ones, and the share of the
    second."""
    position = minimum(maximum(position, np.float32(0)), np.float32(length - 1))
    first = minimum(np.int64(position), maximum(length - 2, 0))
    return first, minimum(first + 1, length - 1), position - np.float32(first)


@part_of_kernel()
def _between(
    a: np.float32, b: np.float32, c: np.float32, d: np.float32, fx: np.float32, fy: np.float32
) -> np.float32:
    """Bilinear mean of the values of four pixels: two above, two below."""
    one = np.float32(1)
    return (a * (one - fx) + b * fx) * (one - fy) + (c * (one - fx) + d * fx) * fy


@kernel()
def _undistort(
    flow: Float32[np.ndarray, "hd wd 2"],
    confidence: Float32[np.ndarray, "hd wd"],
    consistent: Bool[np.ndarray, "hd wd"],
    source: Float32[np.ndarray, "h w 2"],
    target: Float32[np.ndarray, "ht wt 2"],
    out: Float32[np.ndarray, "h w 2"],
    new_confidence: Float32[np.ndarray, "h w"],
    good: Bool[np.ndarray, "h w"],
) -> None:
    """``undistort_flow``; what stays outside is not touched."""
    hd, wd = consistent.shape
    ht, wt = target.shape[:2]
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            u, v = source[y, x, 0], source[y, x, 1]
            if not (u >= 0 and v >= 0 and u <= wd - 1 and v <= hd - 1):
                continue
            at_u, at_v = np.rint(u), np.rint(v)
            row, column = np.int64(at_v), np.int64(at_u)
            x0, x1, fx = _corner(u, wd)
            y0, y1, fy = _corner(v, hd)
            near_u, near_v = flow[row, column, 0], flow[row, column, 1]
            share = _between(
                np.float32(consistent[y0, x0]),
                np.float32(consistent[y0, x1]),
                np.float32(consistent[y1, x0]),
                np.float32(consistent[y1, x1]),
                fx,
                fy,
            )
            if share > np.float32(0.999):
                mean_u = _between(flow[y0, x0, 0], flow[y0, x1, 0], flow[y1, x0, 0], flow[y1, x1, 0], fx, fy)
                mean_v = _between(flow[y0, x0, 1], flow[y0, x1, 1], flow[y1, x0, 1], flow[y1, x1, 1], fx, fy)
                if abs(mean_u - near_u) < 1 and abs(mean_v - near_v) < 1:
                    # A blended position goes with the sub-pixel source, a nearest one with the pixel it was read at.
                    near_u, near_v, at_u, at_v = mean_u, mean_v, u, v
            to_u, to_v = at_u + near_u + (u - at_u), at_v + near_v + (v - at_v)
            if not (to_u >= 0 and to_v >= 0 and to_u <= wt - 1 and to_v <= ht - 1):
                continue
            new_confidence[y, x] = _between(
                confidence[y0, x0], confidence[y0, x1], confidence[y1, x0], confidence[y1, x1], fx, fy
            )
            if not consistent[row, column]:
                continue
            x0, x1, fx = _corner(to_u, wt)
            y0, y1, fy = _corner(to_v, ht)
            to_u = _between(
                target[y0, x0, 0], target[y0, x1, 0], target[y1, x0, 0], target[y1, x1, 0], fx, fy
            )
            to_v = _between(
                target[y0, x0, 1], target[y0, x1, 1], target[y1, x0, 1], target[y1, x1, 1], fx, fy
            )
            if np.isfinite(to_u) and np.isfinite(to_v):
                good[y, x] = True
                out[y, x, 0], out[y, x, 1] = to_u - np.float32(x), to_v - np.float32(y)
