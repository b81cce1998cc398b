"""Depth per pixel from flow fields to several neighbours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from recon.core.cameras import PinholeView
from recon.core.kernels import kernel, maximum, minimum, part_of_kernel
from recon.core.sampling import bilinear
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
    hd, wd = consistent.shape
    map_x = np.ascontiguousarray(distorted_from_undistorted[..., 0], np.float32)
    map_y = np.ascontiguousarray(distorted_from_undistorted[..., 1], np.float32)
    h, w = map_x.shape
    inside = (map_x >= 0) & (map_y >= 0) & (map_x <= wd - 1) & (map_y <= hd - 1)

    near_x = np.clip(np.round(map_x), 0, wd - 1).astype(np.int64)
    near_y = np.clip(np.round(map_y), 0, hd - 1).astype(np.int64)
    smooth = bilinear(flow, map_x, map_y)
    near = flow[near_y, near_x]
    near_ok = consistent[near_y, near_x]
    all_ok = bilinear(consistent.astype(np.float32), map_x, map_y) > 0.999
    alike = np.abs(smooth - near).max(axis=-1) < 1.0
    new_flow = np.where((all_ok & alike)[..., None], smooth, near)
    # A blended position goes with the sub-pixel source, a nearest one with the pixel that it was read at.
    base_x = np.where(all_ok & alike, map_x, np.round(map_x))
    base_y = np.where(all_ok & alike, map_y, np.round(map_y))
    shift_x, shift_y = map_x - base_x, map_y - base_y
    to_x = (base_x + new_flow[..., 0] + shift_x).astype(np.float32)
    to_y = (base_y + new_flow[..., 1] + shift_y).astype(np.float32)
    ht, wt = undistorted_from_distorted_target.shape[:2]
    lands = (to_x >= 0) & (to_y >= 0) & (to_x <= wt - 1) & (to_y <= ht - 1)
    target = bilinear(undistorted_from_distorted_target, to_x, to_y)
    xs, ys = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
    good = inside & lands & near_ok & np.isfinite(target).all(-1)
    out = np.where(good[..., None], target - np.stack([xs, ys], -1), 0.0).astype(np.float32)
    new_confidence = np.where(inside & lands, bilinear(confidence, map_x, map_y), 0.0).astype(np.float32)
    return out, new_confidence, good
