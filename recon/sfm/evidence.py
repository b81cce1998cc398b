"""Evidence for and against a model: figures that a reprojection error does not show.

A small reprojection error says that cameras and points explain the tracks, not that nothing else does. The functions
here ask what else would: a camera that only turned, another half of the tracks, a lens of another kind; and how far
the cameras could move before the tracks object.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import optimize, sparse
from scipy.sparse.linalg import splu
from scipy.spatial.transform import Rotation

from recon.core.colmap import camera_from_intrinsics, points_to_colmap, pycolmap
from recon.graph.types import Tracks
from recon.photos.types import PhotoSet
from recon.sfm.adapter import posed_cameras

# A fit of turns alone looks at so many photos and tracks at most: it asks a yes or no question, and more say the same.
MAX_TURN_PHOTOS = 40
MAX_TURN_TRACKS = 400
# Factors on the assumed focal length from which a fit of turns starts: a guess is rarely further off.
TURN_FOCAL_FACTORS = (0.5, 0.72, 1.0, 1.4, 2.0)
# Where each photo may have been zoomed: what its focal length is tried as, in parts of that of the photo before.
TURN_ZOOMS = (0.5, 0.63, 0.8, 1.0, 1.25, 1.6, 2.0)
# Of the lens: the factor on the angles near the axis, and what the two higher terms add at the rim.
TURN_LENS_LOW, TURN_LENS_HIGH = (0.3, -0.2, -0.06), (3.0, 0.35, 0.1)
# Turns that are chained and still miss by so many pixels in the median are those of a camera that moved.
HOPELESS_TURN_PX = 12.0
# Cells along each side of a photo: for residuals as a function of the place, and for the spread of a photo's points.
RESIDUAL_CELLS = 8
SPREAD_CELLS = 6
# A ring or cell of a photo says something of the lens from so many observations.
MIN_OBSERVATIONS_OF_PLACE = 30


# The deviations of more photos are found from sparse factors, whose memory grows with their pairs and not with the
# square of their number; and of at most so many photos.
MAX_DENSE_PHOTOS = 200
MAX_SAMPLED_PHOTOS = 200
# So many points are eliminated at once; their observations take about a kilobyte each meanwhile.
_POINTS_AT_ONCE = 10_000
# So many pairs of rays are compared at once.
_PAIRS_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class ModelArrays:
    """A model as flat arrays.

    Attributes:
        photos: ids of the registered photos, ascending; ``n`` of them.
        camera: of each photo, index into ``cameras``.
        rotation, centre: world to camera, and where the camera stands.
        cameras: COLMAP's cameras; ``known`` says which of them the adjustment left alone.
        xyz: points in the world, ``p`` of them.
        point, photo: of each observation, indices into ``xyz`` and ``photos``.
        xy, residual: observed pixel in COLMAP's convention, and observed minus projected, pixels.
    """

    photos: Int[np.ndarray, " n"]
    camera: Int[np.ndarray, " n"]
    rotation: Float[np.ndarray, "n 3 3"]
    centre: Float[np.ndarray, "n 3"]
    cameras: tuple[pycolmap.Camera, ...]
    known: tuple[bool, ...]
    xyz: Float[np.ndarray, "p 3"]
    point: Int[np.ndarray, " o"]
    photo: Int[np.ndarray, " o"]
    xy: Float[np.ndarray, "o 2"]
    residual: Float[np.ndarray, "o 2"]

    @property
    def in_camera(self) -> Float[np.ndarray, "o 3"]:
        """The observed points in the coordinates of the cameras that see them."""
        away = self.xyz[self.point] - self.centre[self.photo]
        return np.einsum("oij,oj->oi", self.rotation[self.photo], away)

    @property
    def extent(self) -> float:
        """Largest distance between two camera centres, or 0 for a single one."""
        return extent_of(self.centre)


def extent_of(centre: Float[np.ndarray, "n 3"]) -> float:
    """The largest distance between two points: for the largest sets, of their bounding box's diagonal."""
    if len(centre) < 2:
        return 0.0
    if len(centre) > 2000:
        return float(np.linalg.norm(np.ptp(centre, axis=0)))
    from scipy.spatial.distance import pdist

    return float(pdist(centre).max())


def model_arrays(model: pycolmap.Reconstruction, photos: PhotoSet) -> ModelArrays:
    """The model as arrays; observations behind their camera are left out."""
    posed = posed_cameras(model, photos)
    ids = np.array(sorted(posed), np.int64)
    row_of = {photo: row for row, photo in enumerate(ids.tolist())}
    numbers = sorted({photos.photos[i].camera for i in ids.tolist()})
    camera_row = {number: row for row, number in enumerate(numbers)}
    keys = np.array(sorted(model.points3D), np.int64)
    xyz = np.array([model.points3D[int(key)].xyz for key in keys]).reshape(-1, 3)
    names = {image.name: image for image in model.images.values()}
    point, photo, xy = [], [], []
    for i in ids.tolist():
        seen = [one for one in names[photos.photos[i].name].points2D if one.has_point3D()]
        point.append(np.searchsorted(keys, np.array([one.point3D_id for one in seen], np.int64)))
        photo.append(np.full(len(seen), row_of[i]))
        xy.append(np.array([one.xy for one in seen]).reshape(-1, 2))
    cameras = {photos.photos[i].camera: camera_from_intrinsics(posed[i].intrinsics) for i in ids.tolist()}
    arrays = ModelArrays(
        ids,
        np.array([camera_row[photos.photos[i].camera] for i in ids.tolist()], np.int64),
        np.array([posed[i].cam_from_world[:, :3] for i in ids.tolist()]).reshape(-1, 3, 3),
        np.array([posed[i].center for i in ids.tolist()]).reshape(-1, 3),
        tuple(cameras[number] for number in numbers),
        tuple(photos.cameras[number].known for number in numbers),
        xyz,
        np.concatenate(point).astype(np.int64) if point else np.zeros(0, np.int64),
        np.concatenate(photo).astype(np.int64) if photo else np.zeros(0, np.int64),
        np.concatenate(xy) if xy else np.zeros((0, 2)),
        np.zeros((0, 2)),
    )
    residual = arrays.xy - projected(arrays)
    fine = np.isfinite(residual).all(axis=1)
    return replace(
        arrays,
        point=arrays.point[fine],
        photo=arrays.photo[fine],
        xy=arrays.xy[fine],
        residual=residual[fine],
    )


def projected(model: ModelArrays) -> Float[np.ndarray, "o 2"]:
    """Pixels (COLMAP's convention) at which the model shows its points; NaN behind a camera."""
    return _pixels(model.cameras, model.camera[model.photo], model.in_camera)


def _pixels(
    cameras: tuple[pycolmap.Camera, ...], of: Int[np.ndarray, " o"], point: Float[np.ndarray, "o 3"]
) -> Float[np.ndarray, "o 2"]:
    found = np.full((len(point), 2), np.nan)
    for index, camera in enumerate(cameras):
        rows = of == index
        if rows.any():
            found[rows] = np.asarray(camera.img_from_cam(np.ascontiguousarray(point[rows])), np.float64)
    return found


def noise_px(model: ModelArrays) -> float:
    """Standard deviation per axis of an observation, from the median residual (a Rayleigh distribution's)."""
    if not len(model.residual):
        return 0.0
    return float(np.median(np.hypot(*model.residual.T)) / 1.1774)


# ---- parallax ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parallax:
    """Under which angles a model sees its points.

    Attributes:
        angle: median over the points of the largest angle between two of their rays, degrees.
        base_to_depth: median over the points of the largest distance between two cameras that see one, over its
            mean distance from them.
    """

    angle: float
    base_to_depth: float


def parallax(model: ModelArrays) -> Parallax:
    """Median triangulation angle and base to depth of the points."""
    angles, bases = [], []
    order = np.argsort(model.point, kind="stable")
    seen = np.bincount(model.point, minlength=len(model.xyz))
    first = np.cumsum(seen) - seen
    # Points that as many photos see, together.
    for count in np.unique(seen[seen >= 2]).tolist():
        every = np.flatnonzero(seen == count)
        for points in np.array_split(every, 1 + len(every) * count**2 // _PAIRS_AT_ONCE):
            centres = model.centre[model.photo[order[first[points][:, None] + np.arange(count)]]]
            away = model.xyz[points][:, None] - centres
            depth = np.linalg.norm(away, axis=2)
            unit = away / depth[..., None]
            cosine = np.einsum("pic,pjc->pij", unit, unit).min(axis=(1, 2))
            angles.append(np.arccos(np.clip(cosine, -1, 1)))
            apart = np.linalg.norm(centres[:, :, None] - centres[:, None], axis=3)
            bases.append(apart.max(axis=(1, 2)) / depth.mean(axis=1))
    if not angles:
        return Parallax(0.0, 0.0)
    return Parallax(
        float(np.degrees(np.median(np.concatenate(angles)))), float(np.median(np.concatenate(bases)))
    )


@dataclass(frozen=True)
class TurnFit:
    """Fit of a camera that only turned to the tracks.

    Attributes:
        share: of the tracks, those whose observations all turns explain within the tolerance.
        rms_px: median over the tracks of the root mean square miss, pixels.
        tracks: number of tracks that were looked at.
    """

    share: float
    rms_px: float
    tracks: int


def turn_fit(
    tracks: Tracks,
    photos: PhotoSet,
    chosen: Int[np.ndarray, " n"] | None = None,
    *,
    tolerance_px: float = 1.0,
    zoomed: bool = False,
    seed: int = 0,
) -> TurnFit:
    """Fit turns of a camera at one place to the tracks, with any lens.

    A panorama from a tripod has no depth in it, yet with a focal length that is free or wrong an adjustment finds
    cameras on an arc that explain its tracks. Here each photo has a rotation, each camera three terms of an odd
    polynomial in the angle from its axis (which takes up a wrong focal length and distortion), each track a direction.

    Args:
        tracks: at working size.
        chosen: photo ids to look at; None for all.
        tolerance_px: root mean square miss of a track that counts as explained.
        zoomed: each photo has a lens of its own.
        seed: of the choice of tracks and photos where there are many.
    """
    problem = _turn_problem(tracks, photos, chosen, zoomed, seed)
    if problem is None:
        return TurnFit(0.0, float("inf"), 0)
    starts = [problem.start(factor) for factor in TURN_FOCAL_FACTORS]
    starts.sort(key=lambda one: float(np.median(problem.misses(one))))
    best, lowest = starts[0], np.inf
    for start in starts[:2]:
        # A start this far off is that of a camera that moved: a few steps tell.
        steps = 20 if np.median(problem.misses(start)) < HOPELESS_TURN_PX else 6
        found = optimize.least_squares(
            problem.residuals,
            start,
            problem.jacobian,
            bounds=problem.bounds(),
            loss="cauchy",
            f_scale=1.0,
            max_nfev=steps,
            x_scale="jac",
        )
        if found.cost < lowest:
            best, lowest = found.x, found.cost
        if np.median(problem.misses(best)) < tolerance_px or steps == 6:
            break
    misses = problem.misses(best)
    return TurnFit(float((misses <= tolerance_px).mean()), float(np.median(misses)), len(misses))


@dataclass(frozen=True)
class _TurnProblem:
    """Observations as angles from their camera's axis, and what turns make of them."""

    photos: int
    cameras: int
    tracks: int
    photo: Int[np.ndarray, " o"]
    camera: Int[np.ndarray, " o"]
    track: Int[np.ndarray, " o"]
    angle: Float[np.ndarray, " o"]
    side: Float[np.ndarray, "o 2"]
    focal: Float[np.ndarray, " o"]

    def bearings(
        self, lens: Float[np.ndarray, "c 3"]
    ) -> tuple[Float[np.ndarray, "o 3"], Float[np.ndarray, " o"]]:
        """Unit rays in camera coordinates, and pixels a radian."""
        a, b, c = lens[self.camera].T
        squared = (self.angle / self.angle.max()) ** 2
        angle = self.angle * a * (1 + squared * (b + squared * c))
        unit = np.column_stack([self.side * np.sin(angle)[:, None], np.cos(angle)])
        return unit, self.focal / a

    def residuals(self, values: Float[np.ndarray, " m"]) -> Float[np.ndarray, " r"]:
        """Misses of all observations, three numbers each, in pixels."""
        world, _, scale = self._in_world(values)
        total = self._summed(world)
        mean = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
        return np.asarray(((world - mean[self.track]) * scale[:, None]).ravel())

    def jacobian(self, values: Float[np.ndarray, " m"]) -> Float[np.ndarray, "r m"]:
        """Derivatives of the residuals."""
        world, turns, scale = self._in_world(values)
        total = self._summed(world)
        length = np.maximum(np.linalg.norm(total, axis=1), 1e-12)
        mean = total / length[:, None]
        lens = values[3 * self.photos :].reshape(-1, 3)
        # Of each ray in the world, by the turn of its photo and by the lens of its camera.
        turned = (
            _cross_matrices(world) @ _turn_derivatives(values[: 3 * self.photos].reshape(-1, 3))[self.photo]
        )
        a, b, c = lens[self.camera].T
        squared = (self.angle / self.angle.max()) ** 2
        angle = self.angle * a * (1 + squared * (b + squared * c))
        along = np.column_stack([self.side * np.cos(angle)[:, None], -np.sin(angle)])
        by_lens = self.angle[:, None] * np.column_stack(
            [1 + squared * (b + squared * c), a * squared, a * squared**2]
        )
        bent = np.einsum("oji,oj->oi", turns[self.photo], along)[:, :, None] * by_lens[:, None]
        of_turn, of_lens = 3 * self.photo, 3 * (self.photos + self.camera)
        axis = np.arange(3)
        by_track = np.zeros((self.tracks, 3, len(values)))
        for first, part in ((of_turn, turned), (of_lens, bent)):
            columns = (first[:, None] + axis)[:, None]
            np.add.at(by_track, (self.track[:, None, None], axis[None, :, None], columns), part)
        across = (np.eye(3) - mean[:, :, None] * mean[:, None]) / length[:, None, None]
        found = -(across @ by_track)[self.track]
        rows = np.arange(len(world))[:, None, None]
        for first, part in ((of_turn, turned), (of_lens, bent)):
            found[rows, axis[None, :, None], (first[:, None] + axis)[:, None]] += part
        found *= scale[:, None, None]
        # Pixels a radian go by the first number of the lens.
        found[rows[:, :, 0], axis, of_lens[:, None]] -= (world - mean[self.track]) * (scale / a)[:, None]
        return found.reshape(-1, len(values))

    def _in_world(
        self, values: Float[np.ndarray, " m"]
    ) -> tuple[Float[np.ndarray, "o 3"], Float[np.ndarray, "n 3 3"], Float[np.ndarray, " o"]]:
        """Unit rays in the world, the turns of the photos, and pixels a radian."""
        turns = Rotation.from_rotvec(values[: 3 * self.photos].reshape(-1, 3)).as_matrix()
        unit, scale = self.bearings(values[3 * self.photos :].reshape(-1, 3))
        return np.einsum("oji,oj->oi", turns[self.photo], unit), turns, scale

    def _summed(self, world: Float[np.ndarray, "o 3"]) -> Float[np.ndarray, "t 3"]:
        """Sum of the rays of each track."""
        return np.stack([np.bincount(self.track, world[:, k], self.tracks) for k in range(3)], axis=1)

    def misses(self, values: Float[np.ndarray, " m"]) -> Float[np.ndarray, " t"]:
        """Root mean square miss of each track, pixels."""
        squared = (self.residuals(values).reshape(-1, 3) ** 2).sum(axis=1)
        # The direction took two of the numbers of each track.
        length = np.bincount(self.track, minlength=self.tracks)
        return np.asarray(
            np.sqrt(np.bincount(self.track, squared, self.tracks) / np.maximum(length - 1, 1) / 2)
        )

    def bounds(self) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
        """Limits of the values: a lens that folded or shrank to nothing would explain everything."""
        turn = np.full(3 * self.photos, np.inf)
        low, high = np.tile(TURN_LENS_LOW, self.cameras), np.tile(TURN_LENS_HIGH, self.cameras)
        return np.concatenate([-turn, low]), np.concatenate([turn, high])

    def start(self, factor: float) -> Float[np.ndarray, " m"]:
        """Turns chained from photo to photo over the most shared tracks, for one factor on the focal length."""
        lens = np.tile([1.0 / factor, 0.0, 0.0], (self.cameras, 1))
        unit, _ = self.bearings(lens)
        seen = sparse.csr_array(
            (np.ones(len(self.track)), (self.photo, self.track)), (self.photos, self.tracks)
        )
        shared = (seen @ seen.T).toarray()
        where = {(p, t): row for row, (p, t) in enumerate(zip(self.photo, self.track, strict=True))}
        of = [np.unique(self.track[self.photo == i]) for i in range(self.photos)]
        turns = np.tile(np.eye(3), (self.photos, 1, 1))
        done = [0]
        left = set(range(1, self.photos))
        while left:
            _, old, new = max((shared[i, j], i, j) for i in done for j in left)
            both = np.intersect1d(of[old], of[new])
            if len(both) >= 3:
                a = unit[[where[old, t] for t in both]] @ turns[old]
                rows = [where[new, t] for t in both]
                mine = self.camera[rows[0]]
                tried = []
                for zoom in TURN_ZOOMS if self.cameras == self.photos else (1.0,):
                    changed = lens.copy()
                    focal = lens[self.camera[where[old, both[0]]], 0] / zoom
                    changed[mine, 0] = np.clip(focal, TURN_LENS_LOW[0], TURN_LENS_HIGH[0])
                    b = self.bearings(changed)[0][rows]
                    turn = _robust_turn(a, b)
                    tried.append(
                        (float(np.median(np.linalg.norm(b - a @ turn.T, axis=1))), zoom, turn, changed)
                    )
                _, _, turns[new], lens = min(tried, key=lambda one: one[:2])
                unit[rows] = self.bearings(lens)[0][rows]
            done.append(new)
            left.remove(new)
        return np.concatenate([Rotation.from_matrix(turns).as_rotvec().ravel(), lens.ravel()])


def _cross_matrices(vectors: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3 3"]:
    """Of each vector v the matrix of v × w."""
    x, y, z = vectors.T
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)


def _turn_derivatives(turns: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3 3"]:
    """Right Jacobians of rotation vectors (Solà, Deray & Atchuthan, "A micro Lie theory", 2018, eq. 143)."""
    angle = np.linalg.norm(turns, axis=1)[:, None, None]
    small = angle < 1e-4
    safe = np.where(small, 1.0, angle)
    first = np.where(small, 0.5 - angle**2 / 24, (1 - np.cos(safe)) / safe**2)
    second = np.where(small, 1 / 6 - angle**2 / 120, (safe - np.sin(safe)) / safe**3)
    cross = _cross_matrices(turns)
    return np.eye(3) - first * cross + second * (cross @ cross)


def _robust_turn(a: Float[np.ndarray, "n 3"], b: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "3 3"]:
    """The rotation that takes most directions a to b (Kabsch, reweighted)."""
    weights = np.ones(len(a))
    R = np.eye(3)
    for _ in range(8):
        U, _, Vt = np.linalg.svd((b * weights[:, None]).T @ a)
        R = U @ np.diag([1, 1, np.sign(np.linalg.det(U @ Vt))]) @ Vt
        miss = np.linalg.norm(b - a @ R.T, axis=1)
        weights = 1 / (miss + max(float(np.median(miss)), 1e-6))
    return np.asarray(R)


def _turn_problem(
    tracks: Tracks, photos: PhotoSet, chosen: Int[np.ndarray, " n"] | None, zoomed: bool, seed: int
) -> _TurnProblem | None:
    rng = np.random.default_rng(seed)
    ids = np.unique(tracks.photo_id) if chosen is None else np.unique(chosen)
    if len(ids) > MAX_TURN_PHOTOS:  # neighbours in the order of the names: they share most
        start = int(rng.integers(len(ids) - MAX_TURN_PHOTOS + 1))
        ids = ids[start : start + MAX_TURN_PHOTOS]
    rows = np.nonzero(np.isin(tracks.photo_id, ids))[0]
    length = np.bincount(tracks.track_id[rows], minlength=tracks.count)
    usable = np.nonzero(length >= 2)[0]
    if len(usable) < 8:
        return None
    if len(usable) > MAX_TURN_TRACKS:
        usable = np.sort(rng.choice(usable, MAX_TURN_TRACKS, replace=False))
    rows = rows[np.isin(tracks.track_id[rows], usable)]
    ids, photo = np.unique(tracks.photo_id[rows], return_inverse=True)
    numbers = np.array([photos.photos[i].camera for i in ids.tolist()])
    camera_of = np.arange(len(ids)) if zoomed else np.unique(numbers, return_inverse=True)[1]
    ray, focal = np.zeros((len(rows), 3)), np.zeros(len(rows))
    for index, number in enumerate(numbers.tolist()):
        mine = photo == index
        camera = camera_from_intrinsics(photos.cameras[number])
        xy = points_to_colmap(tracks.xy[rows[mine]].astype(np.float64))
        ray[mine] = np.asarray(camera.cam_ray_from_img(np.ascontiguousarray(xy)))
        focal[mine] = camera.mean_focal_length()
    flat = np.hypot(ray[:, 0], ray[:, 1])
    fine = np.isfinite(ray).all(axis=1)
    rows, photo, ray, focal, flat = rows[fine], photo[fine], ray[fine], focal[fine], flat[fine]
    kept, track = np.unique(tracks.track_id[rows], return_inverse=True)
    return _TurnProblem(
        len(ids),
        int(camera_of.max()) + 1,
        len(kept),
        photo,
        camera_of[photo],
        track,
        np.arctan2(flat, ray[:, 2]),
        ray[:, :2] / np.maximum(flat, 1e-12)[:, None],
        focal,
    )


# ---- how far cameras could move ------------------------------------------------------------------


@dataclass(frozen=True)
class Uncertainty:
    """Standard deviations of a model's cameras, with the world laid onto the centres as well as can be.

    Attributes:
        centre: of each photo's centre (root of the trace), in the model's units.
        focal: of each camera's focal length, relative; 0 where it is known.
        free: number of parameters that the observations determine beside the points.
    """

    centre: Float[np.ndarray, " n"]
    focal: Float[np.ndarray, " c"]
    free: int


def uncertainty(
    model: ModelArrays,
    *,
    free_centre: bool = False,
    loss_scale_px: float = 1.0,
    block: Int[np.ndarray, " p"] | None = None,
) -> Uncertainty:
    """Propagate the noise of the observations to the cameras.

    The normal equations of the adjustment, points eliminated (Triggs et al., "Bundle Adjustment: A Modern Synthesis",
    2000, section 6), with the weights of its robust loss and the noise that the residuals show. A similarity of the
    world is no error: it is held by inner constraints on the centres (ibid., section 9).

    Args:
        free_centre: principal points of cameras that are not known were adjusted too.
        loss_scale_px: of the Cauchy loss of the adjustment.
        block: a number of each point: points of one block may err alike, others err independently (a "sandwich" with
            clusters: Liang & Zeger, Biometrika 1986). None: every observation errs for itself, all by the same noise.
    """
    n = len(model.photos)
    lens = free_parameters(model, range(len(model.cameras)) if free_centre else ())
    count = 6 * n + len(lens)
    weight = 1 / (1 + (model.residual**2).sum(axis=1) / loss_scale_px**2)
    freedom = max(2 * len(model.xy) - 3 * len(model.xyz) - count + 7, 1)
    variance = float((weight * (model.residual**2).sum(axis=1)).sum() / freedom)
    normal, summed = None, None
    for start in range(0, len(model.xyz), _POINTS_AT_ONCE):
        last = start + _POINTS_AT_ONCE
        mine = (model.point >= start) & (model.point < last)
        blocks = None if block is None else (block[start:last], int(block.max()) + 1)
        part, pull = _without_points(_some_points(model, mine, start, last), lens, weight[mine], blocks)
        normal = part if normal is None else normal + part
        if pull is not None:
            pull = sparse.csr_array(pull / np.sqrt(variance))
            summed = pull if summed is None else summed + pull
    assert normal is not None
    if n > MAX_DENSE_PHOTOS:
        spread, of_lens = _sparse_variances(normal, model.centre, len(lens), summed)
    else:
        spread, of_lens = _dense_variances(normal.toarray(), model, count, summed)
    focal = np.zeros(len(model.cameras))
    for position, (camera, index) in enumerate(lens):
        if index in model.cameras[camera].focal_length_idxs():
            deviation = np.sqrt(max(of_lens[position] * variance, 0.0))
            focal[camera] = max(focal[camera], deviation / model.cameras[camera].params[index])
    return Uncertainty(np.sqrt(np.maximum(spread * variance, 0)), focal, count - 7)


def _some_points(model: ModelArrays, mine: Bool[np.ndarray, " o"], start: int, last: int) -> ModelArrays:
    """The model with only some of its points, one after the other, and their observations."""
    if mine.all():
        return model
    rows = {name: getattr(model, name)[mine] for name in ("photo", "xy", "residual")}
    return replace(model, xyz=model.xyz[start:last], point=model.point[mine] - start, **rows)


def _without_points(
    model: ModelArrays,
    lens: list[tuple[int, int]],
    weight: Float[np.ndarray, " o"],
    blocks_of: tuple[Int[np.ndarray, " p"], int] | None,
) -> tuple[sparse.csr_array, sparse.csr_array | None]:
    """Normal equations of the cameras, and what the residuals of each block of points pull at these (see
    ``uncertainty``)."""
    B, A = jacobians(model, lens)
    root = np.repeat(np.sqrt(weight), 2)
    B = sparse.diags_array(root) @ B
    A.data *= np.repeat(root, 3)
    blocks = np.zeros((len(model.xyz), 3, 3))
    values = A.data.reshape(-1, 2, 3)
    np.add.at(blocks, model.point, np.einsum("oki,okj->oij", values, values))
    blocks += 1e-9 * np.trace(blocks, axis1=1, axis2=2)[:, None, None] * np.eye(3) + 1e-300 * np.eye(3)
    inverse = sparse.block_diag(list(np.linalg.inv(blocks)), format="csr")
    W = (B.T @ A).tocsr()
    normal = sparse.csr_array(B.T @ B - W @ inverse @ W.T)
    if blocks_of is None:
        return normal, None
    block, number = blocks_of
    score = sparse.diags_array(root * model.residual.ravel()) @ (B - A @ (inverse @ W.T))
    rows = np.repeat(block[model.point], 2)
    of = sparse.csr_array((np.ones(len(root)), (rows, np.arange(len(root)))), (number, len(root)))
    return normal, sparse.csr_array(of @ score)


def _dense_variances(
    S: Float[np.ndarray, "m m"], model: ModelArrays, count: int, summed: sparse.csr_array | None
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " k"]]:
    """Variances of the centres (summed over the axes) and lens parameters for noise of one pixel.

    Args:
        S: normal equations without points. summed: of each block of points, what its residuals pull at the parameters.
    """
    n = len(model.photos)
    gauge = np.zeros((count, 7))
    centre = model.centre - model.centre.mean(axis=0)
    for k in range(3):
        axis = np.eye(3)[k]
        for i in range(n):
            gauge[6 * i + 3 + k, k] = 1
            gauge[6 * i : 6 * i + 3, 3 + k] = -model.rotation[i] @ axis
            gauge[6 * i + 3 : 6 * i + 6, 3 + k] = np.cross(axis, centre[i])
    for i in range(n):
        gauge[6 * i + 3 : 6 * i + 6, 6] = centre[i]
    # Parameters of one unit each, so that the inverse is well behaved.
    size = 1 / np.sqrt(np.maximum(np.diag(S), 1e-12))
    scaled = S * size[:, None] * size[None]
    held = gauge / size[:, None]
    held, _ = np.linalg.qr(held)
    covariance = np.linalg.pinv(scaled + held @ held.T, rcond=1e-14, hermitian=True)
    covariance = covariance * size[:, None] * size[None]
    if summed is not None:
        covariance = covariance @ (summed.T @ summed).toarray() @ covariance
    of_centres = np.concatenate([np.arange(6 * i + 3, 6 * i + 6) for i in range(n)])
    basis, _ = np.linalg.qr(gauge[of_centres])
    project = np.eye(3 * n) - basis @ basis.T
    around = project @ covariance[np.ix_(of_centres, of_centres)] @ project
    spread = np.diag(around).reshape(-1, 3).sum(axis=1)
    return np.asarray(spread), np.asarray(np.diag(covariance)[6 * n :])


def _sparse_variances(
    S: sparse.csr_array, centre: Float[np.ndarray, "n 3"], lenses: int, summed: sparse.csr_array | None
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " k"]]:
    """Result of ``_dense_variances``, with memory that grows with the pairs of photos that share points.

    Variances that a similarity of the world does not change are the same whichever seven parameters hold it: here the
    first camera, and a coordinate of the one that is farthest away. At most ``MAX_SAMPLED_PHOTOS`` centres are asked;
    the others are given the variance of the one that is nearest in the photos' order.
    """
    n = len(centre)
    far = int(np.argmax(((centre - centre[0]) ** 2).sum(axis=1)))
    along = int(np.argmax(np.abs(centre[far] - centre[0])))
    keep = np.setdiff1d(np.arange(6, S.shape[0]), [6 * far + 3 + along])
    # Parameters of one unit each, so that the factors are well behaved.
    size = 1 / np.sqrt(np.maximum(S.diagonal()[keep], 1e-12))
    scale = sparse.diags_array(size)
    factors = splu(
        sparse.csc_array(scale @ S[keep][:, keep] @ scale) + 1e-12 * sparse.eye_array(len(keep), format="csc")
    )

    pull = None if summed is None else summed[:, keep]

    def variance(rows: Int[np.ndarray, " r"], values: Float[np.ndarray, " r"]) -> float:
        side = np.zeros(S.shape[0])
        side[rows] = values
        side = side[keep] * size
        moves = factors.solve(side)
        return float(side @ moves if pull is None else ((pull @ (size * moves)) ** 2).sum())

    moved = centre - centre.mean(axis=0)
    gauge = np.zeros((3 * n, 7))
    for k in range(3):
        gauge[k::3, k] = 1
        gauge[:, 3 + k] = np.cross(np.eye(3)[k], moved).ravel()
    gauge[:, 6] = moved.ravel()
    basis, _ = np.linalg.qr(gauge)
    of_centres = np.concatenate([np.arange(6 * i + 3, 6 * i + 6) for i in range(n)])
    asked = np.unique(np.linspace(0, n - 1, min(n, MAX_SAMPLED_PHOTOS)).round().astype(int))
    found = np.zeros(len(asked))
    for position, i in enumerate(asked.tolist()):
        for row in range(3 * i, 3 * i + 3):
            around = -basis @ basis[row]
            around[row] += 1
            found[position] += variance(of_centres, around)
    nearest = asked[np.abs(np.arange(n)[:, None] - asked[None]).argmin(axis=1)]
    lens = [variance(np.array([6 * n + k]), np.ones(1)) for k in range(lenses)]
    return found[np.searchsorted(asked, nearest)], np.array(lens)


def free_parameters(model: ModelArrays, centres: Container[int]) -> list[tuple[int, int]]:
    """(camera, index of the parameter) of all intrinsics that the adjustment moves.

    Args:
        centres: cameras whose principal point moves too, unless they are known.
    """
    free = []
    for number, camera in enumerate(model.cameras):
        if not model.known[number]:
            fixed = () if number in centres else tuple(camera.principal_point_idxs())
            free += [(number, index) for index in range(len(camera.params)) if index not in fixed]
    return free


def jacobians(model: ModelArrays, lens: list[tuple[int, int]]) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Derivatives of the projections by cameras (turn in camera coordinates, centre; then lenses) and by points."""
    o, n = len(model.xy), len(model.photos)
    point = model.in_camera
    of = model.camera[model.photo]
    by_point = np.zeros((o, 2, 3))
    step = 1e-6 * np.linalg.norm(point, axis=1)
    for k in range(3):
        moved = np.eye(3)[k] * step[:, None]
        by_point[:, :, k] = (
            _pixels(model.cameras, of, point + moved) - _pixels(model.cameras, of, point - moved)
        ) / (2 * step[:, None])
    by_point = np.nan_to_num(by_point)
    cross = np.zeros((o, 3, 3))  # the derivative of exp(w) p by w is -[p]x
    x, y, z = point.T
    cross[:, 0, 1], cross[:, 0, 2], cross[:, 1, 2] = z, -y, x
    cross[:, 1, 0], cross[:, 2, 0], cross[:, 2, 1] = -z, y, -x
    by_turn = by_point @ cross
    by_world = by_point @ model.rotation[model.photo]
    of_camera = np.concatenate([by_turn, -by_world], axis=2)
    row = np.arange(2 * o).reshape(o, 2, 1)
    column = (6 * model.photo)[:, None, None] + np.arange(6)
    rows, columns, values = (
        [np.broadcast_to(row, (o, 2, 6)).ravel()],
        [np.broadcast_to(column, (o, 2, 6)).ravel()],
        [of_camera.ravel()],
    )
    for position, (camera, index) in enumerate(lens):
        mine = np.nonzero(of == camera)[0]
        h = 1e-6 * max(abs(model.cameras[camera].params[index]), 1.0)
        both = []
        for sign in (1, -1):
            changed = pycolmap.Camera(model.cameras[camera].todict())
            params = np.array(changed.params)
            params[index] += sign * h
            changed.params = params
            both.append(_pixels((changed,), np.zeros(len(mine), np.int64), point[mine]))
        rows.append((2 * mine[:, None] + np.arange(2)).ravel())
        columns.append(np.full(2 * len(mine), 6 * n + position))
        values.append(np.nan_to_num((both[0] - both[1]) / (2 * h)).ravel())
    cameras = sparse.csr_array(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), (2 * o, 6 * n + len(lens))
    )
    column = (3 * model.point)[:, None, None] + np.arange(3)
    # Built row by row, so that the stored order is that of the observations.
    points = sparse.csr_array(
        (by_world.ravel(), np.broadcast_to(column, (o, 2, 3)).ravel(), 3 * np.arange(2 * o + 1)),
        (2 * o, 3 * len(model.xyz)),
    )
    return cameras, points


# ---- lenses and places ---------------------------------------------------------------------------


def systematic_px(model: ModelArrays) -> Float[np.ndarray, " c"]:
    """Part of each camera's residuals that depends on the place in the image, pixels.

    A lens that the model cannot follow leaves residuals that point the same way at the same distance from the middle
    or in the same corner, whatever the photo. The root mean square over rings (along the radius) or cells of the mean
    residual, without what noise alone would leave; the larger of the two.
    """
    found = np.zeros(len(model.cameras))
    of = model.camera[model.photo]
    for number, camera in enumerate(model.cameras):
        mine = of == number
        xy, residual = model.xy[mine], model.residual[mine]
        away = xy - [camera.principal_point_x, camera.principal_point_y]
        radius = np.maximum(np.hypot(*away.T), 1e-9)
        along = (residual * away).sum(axis=1) / radius
        reach = 0.5 * np.hypot(camera.width, camera.height)
        ring = np.minimum((radius / reach * RESIDUAL_CELLS).astype(int), RESIDUAL_CELLS - 1)
        cell = (np.clip(xy / [camera.width, camera.height], 0, 0.999) * RESIDUAL_CELLS).astype(int)
        found[number] = max(
            _means_beyond_noise(along[:, None], ring, RESIDUAL_CELLS),
            _means_beyond_noise(residual, cell[:, 1] * RESIDUAL_CELLS + cell[:, 0], RESIDUAL_CELLS**2),
        )
    return found


def _means_beyond_noise(values: Float[np.ndarray, "n k"], of: Int[np.ndarray, " n"], places: int) -> float:
    """Root mean square of the means at the places, less the variance that means of so few have."""
    total, weights = 0.0, 0
    for place in range(places):
        mine = values[of == place]
        if len(mine) < MIN_OBSERVATIONS_OF_PLACE:
            continue
        # Clipped where few outliers would rule the mean.
        limit = 3 * 1.4826 * np.median(np.abs(mine - np.median(mine, axis=0)), axis=0) + 1e-9
        mine = np.clip(mine, np.median(mine, axis=0) - limit, np.median(mine, axis=0) + limit)
        mean, variance = mine.mean(axis=0), mine.var(axis=0) / len(mine)
        total += len(mine) * float((mean**2 - variance).sum())
        weights += len(mine)
    return float(np.sqrt(max(total, 0.0) / weights)) if weights else 0.0


def spread_of_points(model: ModelArrays) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Of each photo, how many points hold it, and the share of its cells (``SPREAD_CELLS`` a side) with one."""
    count = np.bincount(model.photo, minlength=len(model.photos))
    share = np.zeros(len(model.photos))
    for index in range(len(model.photos)):
        camera = model.cameras[model.camera[index]]
        xy = model.xy[model.photo == index] / [camera.width, camera.height]
        cells = (np.clip(xy, 0, 0.999) * SPREAD_CELLS).astype(int)
        share[index] = len(np.unique(cells @ [1, SPREAD_CELLS])) / SPREAD_CELLS**2
    return count, share


def centre_differences(
    a: Mapping[int, Float[np.ndarray, "3"]], b: Mapping[int, Float[np.ndarray, "3"]]
) -> Float[np.ndarray, " n"]:
    """Distances of the centres of two models after the best similarity from a to b (Umeyama 1991), in b's units."""
    both = sorted(set(a) & set(b))
    A, B = np.array([a[i] for i in both]), np.array([b[i] for i in both])
    A, B = A - A.mean(axis=0), B - B.mean(axis=0)
    U, S, Vt = np.linalg.svd(B.T @ A)
    D = np.array([1.0, 1.0, np.sign(np.linalg.det(U @ Vt))])
    scale = (S * D).sum() / max((A**2).sum(), 1e-300)
    return np.asarray(np.linalg.norm(scale * A @ (U * D @ Vt).T - B, axis=1))


def used_share(tracks: Tracks, model: ModelArrays, used: Bool[np.ndarray, " t"]) -> tuple[int, int]:
    """Number of the tracks in two photos of the model or more that became points, and number of all of them."""
    inside = np.isin(tracks.photo_id, model.photos)
    seen = np.bincount(tracks.track_id[inside], minlength=tracks.count) >= 2
    return int((seen & used).sum()), int(seen.sum())
