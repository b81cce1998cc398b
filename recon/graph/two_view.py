"""Robust geometry of a pair of photos: fundamental matrix, essential matrix or homography, by evidence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float64, UInt32
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from recon.core.cameras import Intrinsics, fundamental_matrix
from recon.core.colmap import pycolmap
from recon.core.posed import Camera
from recon.core.resize import resize_points
from recon.graph.types import TwoViewGeometry
from recon.matching.types import DenseMatch, FlowField, SparseMatch

# A pair is planar or a pure rotation when a homography explains this share of what the epipolar geometry
# explains; calibrated when E explains this share of what F does (COLMAP's TwoViewGeometryOptions).
MAX_HOMOGRAPHY_SHARE = 0.8
MIN_ESSENTIAL_SHARE = 0.95
# Mean confidence of the consistent pixels below which a dense match says nothing. Between photos of different things
# there are consistent pixels too, and a few smooth patches of flow always agree on some fundamental matrix, with any
# number and share of inliers; but the flow is uneven there. Measured with SIFT Flow: 22 pairs of smooth random
# pictures 0.06 to 0.12 (where enough pixels are consistent at all), photos of different places 0.04 to 0.06. Of 141
# pairs of fountain-P11, Herz-Jesus-P8, entry-P10 and templeSparseRing those with most matches on the true epipolar
# lines have 0.14 to 0.85; the six below 0.09 have 0% to 31% there.
MIN_CONFIDENCE_ALONE = 0.13
MIN_CONFIDENCE_SUPPORTED = 0.09
# A pose that a homography allows has so many of the inliers before its plane; nearer to the chosen one than this (norm
# of the difference of the matrices) it is the same.
BEFORE_CAMERA = 0.9
SAME_POSE = 0.02
# RANSAC stops here even when the inlier share promises nothing (COLMAP's default).
MAX_RANSAC_TRIALS = 10_000
# It begins with so many, whatever the inlier share promises: COLMAP's 100 find the same inliers in twice the time.
MIN_RANSAC_TRIALS = 30
# Matches that known cameras see under smaller angles (radians, in the median) do not tell how the camera moved.
MIN_POSED_ANGLE = np.deg2rad(0.1)

ModelChoice = Literal["evidence", "F", "E", "H"]

_MODEL_OF_CONFIGURATION = {
    pycolmap.TwoViewGeometryConfiguration.CALIBRATED: "E",
    pycolmap.TwoViewGeometryConfiguration.UNCALIBRATED: "F",
    pycolmap.TwoViewGeometryConfiguration.PLANAR: "H",
    pycolmap.TwoViewGeometryConfiguration.PANORAMIC: "H",
    pycolmap.TwoViewGeometryConfiguration.PLANAR_OR_PANORAMIC: "H",
}


def sample_matches(
    dense: DenseMatch,
    *,
    max_matches: int = 3000,
    size_a: tuple[int, int] | None = None,
    size_b: tuple[int, int] | None = None,
) -> SparseMatch:
    """Consistent pixels of a dense match, spread evenly over the image, as point matches.

    The image of A is cut into square cells, as many as ``max_matches`` allows, and every cell gives the
    consistent pixel with the highest confidence (ties: the one nearest to the cell's middle). Geometry
    estimated from such a sample is not ruled by the best textured corner of the photo.

    Args:
        dense: both directions of the pair, at matching size.
        max_matches: upper bound of the number of matches.
        size_a, size_b: (width, height) in which the points are wanted, usually the photos' working sizes;
            None keeps the matching size.

    Returns:
        At most ``max_matches`` matches; ``score`` is the flow's confidence.
    """
    target = dense.consistent_b.shape
    return sample_field(
        dense.a_to_b, dense.consistent_a, target, max_matches=max_matches, size_a=size_a, size_b=size_b
    )


def sample_field(
    field: FlowField,
    consistent: Bool[np.ndarray, "h w"],
    target: tuple[int, ...],
    *,
    max_matches: int = 3000,
    size_a: tuple[int, int] | None = None,
    size_b: tuple[int, int] | None = None,
) -> SparseMatch:
    """The same of one direction, from A to B.

    Args:
        consistent: where the way back agrees.
        target: (height, width) of B at matching size.
        max_matches, size_a, size_b: as of ``sample_matches``.
    """
    if max_matches < 1:
        raise ValueError("max_matches must be positive")
    height, width = consistent.shape
    ys, xs = np.nonzero(consistent)
    if len(xs) == 0:
        empty = np.zeros((0, 2), np.float32)
        return SparseMatch(empty, empty.copy(), np.zeros(0, np.float32))
    # The cell is sized by what can be matched at all, and grown until the number of cells fits.
    cell = max(1, int(np.sqrt(len(xs) / max_matches)))
    while True:
        columns = (width + cell - 1) // cell
        cell_of = (ys // cell) * columns + xs // cell
        if len(np.unique(cell_of)) <= max_matches:
            break
        cell += 1
    score = field.confidence[ys, xs].astype(np.float32)
    middle = (np.hypot(xs % cell - 0.5 * (cell - 1), ys % cell - 0.5 * (cell - 1))).astype(np.float32)
    order = np.lexsort((middle, -score, cell_of))
    first = np.ones(len(order), bool)
    first[1:] = cell_of[order][1:] != cell_of[order][:-1]
    chosen = order[first]
    xy_a = np.stack([xs[chosen], ys[chosen]], axis=1).astype(np.float32)
    xy_b = xy_a + field.flow[ys[chosen], xs[chosen]]
    height_b, width_b = target
    return SparseMatch(
        resize_points(xy_a, (width, height), size_a or (width, height)).astype(np.float32),
        resize_points(xy_b, (width_b, height_b), size_b or (width_b, height_b)).astype(np.float32),
        score[chosen],
    )


def match_confidence(dense: DenseMatch) -> float:
    """Mean confidence (0…1) of the consistent pixels of both photos; 0 where there are none."""
    counts = int(dense.consistent_a.sum()) + int(dense.consistent_b.sum())
    if counts == 0:
        return 0.0
    total = dense.a_to_b.confidence[dense.consistent_a].sum(dtype=np.float64)
    total += dense.b_to_a.confidence[dense.consistent_b].sum(dtype=np.float64)
    return float(total) / counts


def camera_for_geometry(camera: Intrinsics) -> pycolmap.Camera:
    """The camera for COLMAP's estimators, in recon's own pixel convention.

    Two-view geometry depends only on points relative to the principal point, so points and camera in the same
    convention need no shift. Cameras that leave for a database or a model go through ``recon.sfm.adapter``.
    """
    colmap = pycolmap.Camera(
        model=camera.model, width=camera.width, height=camera.height, params=list(camera.params)
    )
    colmap.has_prior_focal_length = camera.known or camera.has_focal_prior
    return colmap


def verify_pair(
    xy_a: Float[np.ndarray, "n 2"],
    xy_b: Float[np.ndarray, "n 2"],
    camera_a: Intrinsics,
    camera_b: Intrinsics,
    *,
    max_error_px: float = 4.0,
    min_inliers: int = 15,
    seed: int = 0,
    model: ModelChoice = "evidence",
    essential_share: float = MIN_ESSENTIAL_SHARE,
) -> TwoViewGeometry:
    """Robust two-view geometry of point matches, the model chosen by evidence.

    LO-RANSAC estimates F, H and, where both focal lengths are known or come from EXIF, E (COLMAP's
    ``estimate_two_view_geometry``; Schönberger & Frahm, "Structure-from-Motion Revisited", section 4.1). H is
    chosen when it explains ``MAX_HOMOGRAPHY_SHARE`` of the inliers of the epipolar geometry: a plane or a
    camera that only turned. E is preferred over F when it explains ``essential_share`` of F's inliers,
    and always where both intrinsics are known. The seed makes it repeatable.

    Args:
        xy_a, xy_b: matched points in the pixels of ``camera_a`` and ``camera_b`` (their width and height).
        max_error_px: inlier threshold, in those pixels.
        min_inliers: fewer inliers than this give the model "none".
        essential_share: of F's inliers that E must explain to be preferred, where focal lengths come from EXIF.
        model: "F", "E" or "H" instead of the choice by evidence; "E" trusts the intrinsics, even guessed ones.

    Returns:
        The geometry, ``inliers`` aligned with the input. ``b_from_a`` where E or H could be decomposed.
    """
    count = len(xy_a)
    if len(xy_b) != count:
        raise ValueError(f"{count} points in A but {len(xy_b)} in B")
    nothing = TwoViewGeometry("none", None, None, np.zeros(count, bool))
    # Seven matches determine F; RANSAC below eight has nothing left to vote with.
    if count < max(8, min_inliers):
        return nothing
    options = _options(max_error_px, min_inliers, seed)
    # With intrinsics that are known, a pair that only F explains is a wrong pair.
    options.min_E_F_inlier_ratio = 0.0 if camera_a.known and camera_b.known else essential_share
    options.force_H_use = model == "H"
    colmap_a, colmap_b = camera_for_geometry(camera_a), camera_for_geometry(camera_b)
    calibrated = colmap_a.has_prior_focal_length and colmap_b.has_prior_focal_length
    matches = np.repeat(np.arange(count, dtype=np.uint32)[:, None], 2, axis=1)
    sides = (colmap_a, np.asarray(xy_a, np.float64), colmap_b, np.asarray(xy_b, np.float64))
    if model in ("E", "F"):
        found = _forced_epipolar(model, sides, matches, options.ransac)
    else:
        found = pycolmap.estimate_two_view_geometry(*sides, matches, options)
    chosen = _MODEL_OF_CONFIGURATION.get(pycolmap.TwoViewGeometryConfiguration(found.config))
    if chosen is None or len(found.inlier_matches) < min_inliers:
        return nothing
    inliers = np.zeros(count, bool)
    inliers[np.asarray(found.inlier_matches)[:, 0]] = True
    if chosen == "H":
        matrix = found.H
    elif chosen == "E":
        matrix = np.linalg.inv(camera_b.K).T @ found.E @ np.linalg.inv(camera_a.K)
    else:
        matrix = found.F
    if matrix is None:
        return nothing
    matrix = np.array(matrix, np.float64)
    matrix /= np.linalg.norm(matrix)
    pose, angle = None, float("nan")
    if (calibrated or chosen == "E") and found.cam2_from_cam1 is not None:
        candidate = np.array(found.cam2_from_cam1.matrix(), np.float64)
        # COLMAP leaves NaN or zeros where the decomposition had no points in front of both cameras.
        if np.isfinite(candidate).all() and abs(np.linalg.det(candidate[:, :3]) - 1.0) < 1e-6:
            length = np.linalg.norm(candidate[:, 3])
            if length > 0:
                candidate[:, 3] /= length
            pose = candidate
            angle = float(found.tri_angle) if found.tri_angle >= 0 else float("nan")
    other = None
    if chosen == "H" and pose is not None:
        between = np.linalg.inv(camera_b.K) @ matrix @ camera_a.K
        other = other_pose(between, pose, colmap_a.cam_from_img(sides[1][inliers]))
    return TwoViewGeometry(chosen, matrix, pose, inliers, angle, other)  # type: ignore[arg-type]


def other_pose(
    homography: Float[np.ndarray, "3 3"], pose: Float[np.ndarray, "3 4"], points: Float[np.ndarray, "n 2"]
) -> Float64[np.ndarray, "3 4"] | None:
    """The second relative pose that explains a homography between two cameras, None where no other one does.

    Two planes with two motions give the same homography, and often all points lie before both cameras either way
    (Ma, Soatto, Kosecka & Sastry, "An Invitation to 3-D Vision", section 5.3.3).

    Args:
        homography: from A to B, in image coordinates of focal length 1.
        pose: that was chosen, B from A.
        points: in A, which the plane must show from the front; same coordinates.
    """
    signed = homography * np.sign(np.linalg.det(homography))
    _, turns, shifts, normals = cv2.decomposeHomographyMat(signed, np.eye(3))
    rays = np.column_stack([points, np.ones(len(points))])
    found: list[Float64[np.ndarray, "3 4"]] = []
    for turn, shift, normal in zip(turns, shifts, normals, strict=True):
        length = float(np.linalg.norm(shift))
        if length > 0 and (rays @ normal > 0).mean() >= BEFORE_CAMERA:
            found.append(np.column_stack([turn, shift / length]))
    other = max(found, key=lambda one: float(np.linalg.norm(one - pose)), default=None)
    return None if other is None or np.linalg.norm(other - pose) < SAME_POSE else other


def refined_geometry(
    geometry: TwoViewGeometry,
    xy_a: Float[np.ndarray, "n 2"],
    xy_b: Float[np.ndarray, "n 2"],
    camera_a: Intrinsics,
    camera_b: Intrinsics,
    scale_px: float,
) -> TwoViewGeometry:
    """The essential matrix that fits the tightest matches, from one that most matches fit within some pixels.

    Where texture is weak, many matches of a flow are off by a pixel or two and all the same way, and many others are
    right to a fraction of a pixel. A count of inliers cannot tell these apart; a Cauchy loss of their Sampson distances
    with a scale of that fraction can.

    Args:
        geometry: of these matches; only "E" with a pose is changed.
        scale_px: distance (in the pixels of the cameras) up to which a match counts in full.
    """
    if geometry.model != "E" or geometry.b_from_a is None:
        return geometry
    a, b = _rays(xy_a, camera_a), _rays(xy_b, camera_b)
    fine = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1)
    a, b = a[fine], b[fine]
    turn, along = geometry.b_from_a[:, :3], geometry.b_from_a[:, 3]
    across = np.linalg.svd(along[None])[2][1:]
    pixels = _mean_focal(camera_a, camera_b)

    def pose(values: Float64[np.ndarray, "5"]) -> Float64[np.ndarray, "3 4"]:
        direction = along + values[3:] @ across
        rotation = Rotation.from_rotvec(values[:3]).as_matrix() @ turn
        return np.column_stack([rotation, direction / np.linalg.norm(direction)])

    def distances(values: Float64[np.ndarray, "5"]) -> Float64[np.ndarray, " n"]:
        return pixels * _sampson(essential_matrix(pose(values)), a, b)

    found = least_squares(distances, np.zeros(5), loss="cauchy", f_scale=scale_px, max_nfev=20)
    b_from_a = pose(found.x)
    matrix = np.linalg.inv(camera_b.K).T @ essential_matrix(b_from_a) @ np.linalg.inv(camera_a.K)
    return replace(geometry, matrix=matrix / np.linalg.norm(matrix), b_from_a=b_from_a)


def geometry_of_posed(
    xy_a: Float[np.ndarray, "n 2"],
    xy_b: Float[np.ndarray, "n 2"],
    camera_a: Camera,
    camera_b: Camera,
    *,
    max_error_px: float = 4.0,
    min_inliers: int = 15,
) -> TwoViewGeometry | None:
    """The geometry of a pair whose cameras are known, and which of its matches agree with them.

    None where the matches do not determine a relative pose: too few agree, or they are seen under angles so small that
    the camera only turned between the photos.

    Args:
        xy_a, xy_b: matched points in the pixels of the cameras.
        max_error_px: largest Sampson distance of a match that agrees, in those pixels.
    """
    a, b = _rays(xy_a, camera_a.intrinsics), _rays(xy_b, camera_b.intrinsics)
    pose_a, pose_b = camera_a.cam_from_world, camera_b.cam_from_world
    turn = pose_b[:, :3] @ pose_a[:, :3].T
    along = pose_b[:, 3] - turn @ pose_a[:, 3]
    length = float(np.linalg.norm(along))
    if length == 0:
        return None
    b_from_a = np.column_stack([turn, along / length])
    E = essential_matrix(b_from_a)
    with np.errstate(invalid="ignore"):
        distance = _mean_focal(camera_a.intrinsics, camera_b.intrinsics) * np.abs(_sampson(E, a, b))
        inliers = distance <= max_error_px  # not where a ray is NaN
    if inliers.sum() < min_inliers:
        return None
    first, second = a[inliers] @ turn.T, b[inliers]
    across = np.linalg.norm(np.cross(first, second), axis=1)
    angle = float(np.median(np.arctan2(across, (first * second).sum(axis=1))))
    if angle < MIN_POSED_ANGLE:
        return None
    return TwoViewGeometry("E", fundamental_matrix(camera_a, camera_b), b_from_a, inliers, angle)


def _rays(xy: Float[np.ndarray, "n 2"], camera: Intrinsics) -> Float64[np.ndarray, "n 3"]:
    """Points in the camera's image plane at a focal length of 1; NaN where the lens shows nothing."""
    flat = camera_for_geometry(camera).cam_from_img(np.asarray(xy, np.float64))
    return np.column_stack([flat, np.ones(len(flat))])


def _mean_focal(a: Intrinsics, b: Intrinsics) -> float:
    return 0.25 * float(np.sum([np.diag(camera.K)[:2] for camera in (a, b)]))


def _sampson(
    E: Float[np.ndarray, "3 3"], a: Float[np.ndarray, "n 3"], b: Float[np.ndarray, "n 3"]
) -> Float64[np.ndarray, " n"]:
    """Signed Sampson distances (Hartley & Zisserman, 2nd ed., eq. 11.9) of rays to an essential matrix."""
    in_b, in_a = a @ E.T, b @ E
    slope = np.sqrt((in_b[:, :2] ** 2).sum(axis=1) + (in_a[:, :2] ** 2).sum(axis=1))
    return np.asarray((b * in_b).sum(axis=1) / np.maximum(slope, 1e-12))


def essential_matrix(b_from_a: Float64[np.ndarray, "3 4"]) -> Float64[np.ndarray, "3 3"]:
    """E of a relative pose, with b^T E a = 0 for rays of A and B."""
    x, y, z = b_from_a[:, 3]
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ b_from_a[:, :3]


def _options(max_error_px: float, min_inliers: int, seed: int) -> pycolmap.TwoViewGeometryOptions:
    """Options for COLMAP's estimate of the geometry of a pair, repeatable."""
    options = pycolmap.TwoViewGeometryOptions()
    options.min_num_inliers = min_inliers
    options.max_H_inlier_ratio = MAX_HOMOGRAPHY_SHARE
    options.compute_relative_pose = True
    options.detect_watermark = False
    options.ransac.max_error = max_error_px
    options.ransac.max_num_trials = MAX_RANSAC_TRIALS
    options.ransac.min_num_trials = MIN_RANSAC_TRIALS
    options.ransac.random_seed = seed
    options.ransac.num_threads = 1
    return options


def _forced_epipolar(
    model: str, sides: tuple[Any, Any, Any, Any], matches: UInt32[np.ndarray, "n 2"], ransac: Any
) -> pycolmap.TwoViewGeometry:
    """E or F and its pose, whatever else might explain the matches better."""
    camera_a, xy_a, camera_b, xy_b = sides
    kinds = pycolmap.TwoViewGeometryConfiguration
    geometry = pycolmap.TwoViewGeometry()
    if model == "E":
        found = pycolmap.estimate_essential_matrix(xy_a, xy_b, camera_a, camera_b, ransac)
    else:
        found = pycolmap.estimate_fundamental_matrix(xy_a, xy_b, ransac)
    if found is None:
        return geometry
    geometry.config = kinds.CALIBRATED if model == "E" else kinds.UNCALIBRATED
    setattr(geometry, model, found[model])
    geometry.inlier_matches = matches[np.asarray(found["inlier_mask"], bool)]
    pycolmap.estimate_two_view_geometry_pose(camera_a, xy_a, camera_b, xy_b, geometry)
    return geometry
