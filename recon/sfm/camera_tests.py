"""Cameras and lenses tested by tracks that no fit has seen.

More parameters always fit better; only tracks that were held out tell whether they are true. A hypothesis says which
photos share a camera, of which model it is and what of it is free. All are adjusted to the same tracks and asked about
the same others, so the difference has a standard error of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.cluster.hierarchy import fcluster, linkage

from recon.core.cameras import FOCAL_AND_CENTRE, NUMBER_OF_PARAMS, Intrinsics
from recon.core.colmap import camera_from_intrinsics, points_to_colmap, pycolmap
from recon.core.posed import Camera
from recon.graph.tracks import select_observations
from recon.graph.types import Tracks
from recon.photos.types import PhotoSet
from recon.sfm.adapter import model_from_tracks, posed_cameras
from recon.sfm.evidence import centre_differences, extent_of
from recon.sfm.mapping import MappingSettings, adjust, posed_model

# A test looks at so many photos and tracks at most: it asks what kind of camera it was, and more say the same. Of the
# tracks, what is not fitted is held out, which costs next to nothing.
MAX_TEST_PHOTOS = 30
MAX_FITTED = 675
MAX_HELD_OUT = 2000
# The least share of the tracks that is held out, and how many of them must be there to ask.
HELD_OUT = 0.25
MIN_HELD_OUT = 25
# A hypothesis with more freedom is taken when the tracks held out are better off by so many standard errors, and by
# this share of their median error: neighbouring tracks err alike, so the standard error alone is too small.
MIN_STANDARD_ERRORS = 4.0
MIN_GAIN = 0.04
# Tracks with a lower score are told well enough that their points show what a hypothesis does to the scene.
WELL_TOLD = 2.0
# What is better by so many is no more than likely: it is not taken, but what it would change is not certain.
LIKELY_STANDARD_ERRORS = 2.0
# So often the similarity between two fits is fitted again, without points that it misses by three times the median.
BEND_ROUNDS = 5
# Side of the blocks of a photo whose tracks err alike, as a share of its longest side.
BLOCK = 1 / 8
# Misses of up to the median one (pixels, within these bounds) count in full, larger ones less and less: a few tracks
# that are wrong must not drown what all others say.
SCALE_PX = (0.05, 1.0)
# Photos are of one camera where their focal lengths differ by less than this factor, or their principal points by
# this share of the diagonal.
SAME_FOCAL = 1.08
SAME_CENTRE = 0.03
# A camera for each photo is taken where focal lengths differ by this factor and more, or principal points by that
# share. One lens that was not touched differs by less: what a camera for each photo gains there is something else that
# the model does not know.
UNLIKE_FOCAL = 1.02
# Radii (shares of the half diagonal) at which one lens model is fitted to another.
RADII = np.linspace(0.02, 1.0, 60)

LENS_MODELS = ("RADIAL", "OPENCV", "SIMPLE_RADIAL_FISHEYE", "OPENCV_FISHEYE")
"""What is asked after SIMPLE_RADIAL, in this order."""
_EVER_FREER = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV",
               "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "OPENCV_FISHEYE")  # fmt: skip

OTHER_THAN_GIVEN = "other focal length and distortion than the given ones"
OTHER_CENTRE_THAN_GIVEN = "another principal point than the given one"


@dataclass(frozen=True)
class Rays:
    """Observations of some tracks, by the cameras of a model.

    Attributes:
        track, photo: of each observation; tracks count from 0.
        xy: pixels in COLMAP's convention.
    """

    track: Int[np.ndarray, " o"]
    photo: Int[np.ndarray, " o"]
    xy: Float[np.ndarray, "o 2"]


@dataclass(frozen=True)
class CameraTest:
    """One hypothesis against what it was compared with.

    Attributes:
        what: the hypothesis in words.
        before_px, after_px: median miss of the observations of the tracks held out, each told by the others of its
            track.
        standard_errors: how many standard errors the held-out tracks are better off.
        taken: whether the hypothesis was taken.
        moves: mean distance by which it moves the camera centres, as a share of their extent.
        bends: median distance by which it moves the points, as a share of their median distance from their middle.
        focal: by which factor it changes the focal lengths, in the median of the photos.
    """

    what: str
    before_px: float
    after_px: float
    standard_errors: float
    taken: bool = False
    moves: float = 0.0
    bends: float = 0.0
    focal: float = 1.0

    @property
    def gain(self) -> float:
        """Share of the median miss that goes."""
        return 1 - self.after_px / max(self.before_px, 1e-12)

    @property
    def better(self) -> bool:
        """Better by more than chance."""
        return self.standard_errors >= MIN_STANDARD_ERRORS and self.gain >= MIN_GAIN

    @property
    def likely(self) -> bool:
        """Better, though chance alone may do that."""
        return self.standard_errors >= LIKELY_STANDARD_ERRORS and self.gain >= MIN_GAIN


@dataclass(frozen=True)
class Fit:
    """A hypothesis adjusted to the tracks that were not held out.

    Attributes:
        photos: with the cameras of the hypothesis; those that are known stay as they are.
        miss: of each observation of the tracks held out, pixels; infinite behind a camera.
        score: of each track held out, smaller is better.
        points: where the rays of each track held out come nearest to each other.
        block: of each track held out, which part of which photo it is in.
    """

    photos: PhotoSet
    free_centre: bool
    model: pycolmap.Reconstruction
    miss: Float[np.ndarray, " o"]
    score: Float[np.ndarray, " t"]
    points: Float[np.ndarray, "t 3"]
    block: Int[np.ndarray, " t"]

    def against(self, other: Fit, what: str) -> CameraTest:
        """Compare this fit with a simpler one."""
        drop = other.score - self.score
        mean = float(drop.mean())
        # Neighbouring tracks err alike: the error is that of the sums over blocks, not of the single tracks.
        of_block = np.bincount(self.block, drop - mean)
        error = float(np.sqrt((of_block**2).sum())) / len(drop)
        missed = [min(float(np.median(one.miss)), 1e3) for one in (other, self)]
        posed = [posed_cameras(fit.model, fit.photos) for fit in (self, other)]
        centres = [{i: one.center for i, one in cameras.items()} for cameras in posed]
        focal = [
            np.array([np.sqrt(one.K[0, 0] * one.K[1, 1]) for one in cameras.values()]) for cameras in posed
        ]
        extent = extent_of(np.array(list(centres[1].values())))
        well = np.nonzero((self.score < WELL_TOLD) & (other.score < WELL_TOLD))[0].tolist()
        points = [{i: fit.points[i] for i in well} for fit in (self, other)]
        return CameraTest(
            what,
            missed[0],
            missed[1],
            mean / max(error, 1e-9),
            moves=float(centre_differences(*centres).mean() / max(extent, 1e-300)),
            bends=_bends(*points) if len(well) >= MIN_HELD_OUT else 0.0,
            focal=float(np.median(focal[0] / focal[1])),
        )


def _bends(a: Mapping[int, Float[np.ndarray, "3"]], b: Mapping[int, Float[np.ndarray, "3"]]) -> float:
    """Median distance of points after the best similarity, as a share of their median distance from their middle."""
    xyz = np.array(list(b.values()))
    size = float(np.median(np.linalg.norm(xyz - np.median(xyz, axis=0), axis=1)))
    kept = sorted(b)
    for _ in range(BEND_ROUNDS):  # points far away are told badly, and would rule the similarity
        away = centre_differences({i: a[i] for i in kept}, {i: b[i] for i in kept})
        middle = float(np.median(away))
        kept = [i for i, far in zip(kept, away.tolist(), strict=True) if far <= 3 * middle]
    return middle / max(size, 1e-300)


@dataclass(frozen=True)
class _Nearest:
    """The points nearest to the rays of the tracks, each distance in parts of the depth: A x = b, summed over parts."""

    A: Float[np.ndarray, "t 3 3"]
    b: Float[np.ndarray, "t 3"]
    part: Float[np.ndarray, "o 3 3"]
    start: Float[np.ndarray, "o 3"]


def _solved(A: Float[np.ndarray, "n 3 3"], b: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Solutions of small systems; a little is added to the diagonals of those that hold no point."""
    ridge = 1e-9 * np.trace(A, axis1=1, axis2=2)[:, None, None] * np.eye(3) + 1e-12 * np.eye(3)
    return np.asarray(np.linalg.solve(A + ridge, b[:, :, None])[:, :, 0])


def _nearest(
    rays: Rays, lenses: Sequence[pycolmap.Camera], cam_from_world: Float[np.ndarray, "n 3 4"]
) -> _Nearest:
    R, t = cam_from_world[:, :, :3], cam_from_world[:, :, 3]
    ray = np.full((len(rays.xy), 3), np.nan)
    for i, lens in enumerate(lenses):
        mine = rays.photo == i
        if mine.any():
            ray[mine] = np.asarray(lens.cam_ray_from_img(np.ascontiguousarray(rays.xy[mine])))
    lost = ~np.isfinite(ray).all(axis=1)
    ray[lost] = [0, 0, 1]
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    world = np.einsum("oji,oj->oi", R[rays.photo], ray)
    across = np.eye(3) - world[:, :, None] * world[:, None]
    across[lost] = 0
    start = -np.einsum("nji,nj->ni", R, t)[rays.photo]
    weight = np.ones(len(ray))
    count = int(rays.track.max()) + 1
    for _ in range(2):
        part = across * weight[:, None, None]
        A, b = np.zeros((count, 3, 3)), np.zeros((count, 3))
        np.add.at(A, rays.track, part)
        np.add.at(b, rays.track, np.einsum("oij,oj->oi", part, start))
        depth = np.linalg.norm(_solved(A, b)[rays.track] - start, axis=1)
        weight = (np.median(depth) / np.maximum(depth, 1e-300)) ** 2
    return _Nearest(A, b, part, start)


def nearest_points(
    rays: Rays, cameras: Sequence[Intrinsics], cam_from_world: Float[np.ndarray, "n 3 4"]
) -> Float[np.ndarray, "t 3"]:
    """Points where the rays of each track come nearest to each other."""
    found = _nearest(rays, [camera_from_intrinsics(one) for one in cameras], cam_from_world)
    return _solved(found.A, found.b)


def left_out_misses(
    rays: Rays, cameras: Sequence[Intrinsics], cam_from_world: Float[np.ndarray, "n 3 4"]
) -> Float[np.ndarray, " o"]:
    """Distance of each observation from where the others of its track say, pixels; infinite behind a camera.

    Args:
        rays: every track has three observations or more; ``photo`` indexes the cameras.
    """
    lenses = [camera_from_intrinsics(one) for one in cameras]
    found = _nearest(rays, lenses, cam_from_world)
    rest = found.A[rays.track] - found.part
    told = _solved(rest, found.b[rays.track] - np.einsum("oij,oj->oi", found.part, found.start))
    R, t = cam_from_world[:, :, :3], cam_from_world[:, :, 3]
    seen = np.einsum("oij,oj->oi", R[rays.photo], told) + t[rays.photo]
    miss = np.full(len(seen), np.inf)
    for i, lens in enumerate(lenses):
        mine = rays.photo == i
        if mine.any():
            at = np.asarray(lens.img_from_cam(np.ascontiguousarray(seen[mine])))
            miss[mine] = np.linalg.norm(at - rays.xy[mine], axis=1)
    miss[~np.isfinite(miss)] = np.inf
    return miss


def in_model(camera: Intrinsics, model: str) -> Intrinsics:
    """The camera in another of COLMAP's models: exact where that has all its terms, else the nearest over the photo.

    A camera whose model is as free, or of another family, stays as it is.
    """
    order = _EVER_FREER
    if camera.model not in order or order.index(camera.model) >= order.index(model):
        return camera
    fx, fy, cx, cy = (camera.params[i] for i in FOCAL_AND_CENTRE[camera.model])
    f = float(np.sqrt(fx * fy))
    bend = list(camera.params[max(FOCAL_AND_CENTRE[camera.model]) + 1 :])
    if model.endswith("FISHEYE"):
        reach = 0.5 * float(np.hypot(camera.width, camera.height))
        lens = camera_from_intrinsics(camera)
        xy = np.column_stack([cx + 0.5 + RADII * reach, np.full(len(RADII), cy + 0.5)])
        ray = np.asarray(lens.cam_ray_from_img(np.ascontiguousarray(xy)))
        angle = np.arctan2(np.hypot(ray[:, 0], ray[:, 1]), ray[:, 2])
        good = np.isfinite(angle) & (angle > 0) & (angle < 1.5)
        powers = angle[good, None] ** np.array([1, 3] if model == "SIMPLE_RADIAL_FISHEYE" else [1, 3, 5])
        a = np.linalg.lstsq(powers, RADII[good] * reach, rcond=None)[0]
        fx = fy = f = float(a[0])
        bend = (a[1:] / a[0]).tolist()
    one_focal = FOCAL_AND_CENTRE[model][0] == FOCAL_AND_CENTRE[model][1]
    params = ([f] if one_focal else [fx, fy]) + [cx, cy, *bend]
    params += [0.0] * (NUMBER_OF_PARAMS[model] - len(params))
    return replace(camera, model=model, params=tuple(params))


def own_cameras(photos: PhotoSet) -> PhotoSet:
    """Every photo has a camera of its own, like the one that it had."""
    return grouped_cameras(photos, range(len(photos.photos)))


def grouped_cameras(photos: PhotoSet, of: Sequence[int]) -> PhotoSet:
    """Photos of one group (numbers by photo id) and size share the camera that the first of them had."""
    groups: dict[tuple[int, int, int], int] = {}
    cameras: list[Intrinsics] = []
    changed = []
    for photo in photos.photos:
        key = (of[photo.id], photo.width, photo.height)
        if key not in groups:
            groups[key] = len(cameras)
            cameras.append(photos.cameras[photo.camera])
        changed.append(replace(photo, camera=groups[key]))
    return replace(photos, photos=tuple(changed), cameras=tuple(cameras))


def camera_groups(photos: PhotoSet, ids: Sequence[int], same_focal: float = SAME_FOCAL) -> list[int]:
    """The group of each photo: those whose cameras hardly differ share one; photos not in ``ids`` join the largest.

    Args:
        same_focal: factor between focal lengths that hardly differ.
    """
    like = np.zeros((len(ids), 3))
    for row, i in enumerate(ids):
        camera = photos.cameras[photos.photos[i].camera]
        K = camera.K
        diagonal = np.hypot(camera.width, camera.height)
        log_focal = 0.5 * np.log(K[0, 0] * K[1, 1]) / np.log(same_focal)
        like[row] = [log_focal, *(K[:2, 2] / diagonal / SAME_CENTRE)]
    if len(ids) == 1:
        return [0] * len(photos.photos)
    numbers = fcluster(linkage(like, "average"), 1.0, "distance") - 1
    largest = int(np.bincount(numbers).argmax())
    of = dict(zip(ids, numbers.tolist(), strict=True))
    return [of.get(photo.id, largest) for photo in photos.photos]


def _blocks(rays: Rays, photos: PhotoSet, ids: Sequence[int]) -> Int[np.ndarray, " t"]:
    """Of each track, a number of the part of the first photo that sees it."""
    first = np.unique(rays.track, return_index=True)[1]
    longest = [max(photos.photos[i].width, photos.photos[i].height) for i in ids]
    cell = (rays.xy[first] // (BLOCK * np.array(longest)[rays.photo[first]])[:, None]).astype(int)
    _, block = np.unique(np.column_stack([rays.photo[first], cell]), axis=0, return_inverse=True)
    return np.asarray(block.reshape(-1))


class CameraTester:
    """Hypotheses on the cameras of one model, all asked about the same held-out tracks.

    Args:
        model: registered photos with their poses; it is not changed.
        tracks: all that were built, also those that the model threw away: a wrong lens throws away its rim.
    """

    def __init__(
        self,
        model: pycolmap.Reconstruction,
        photos: PhotoSet,
        tracks: Tracks,
        settings: MappingSettings,
        seed: int = 0,
    ) -> None:
        rng = np.random.default_rng(seed)
        posed = posed_cameras(model, photos)
        ids = sorted(posed)
        if len(ids) > MAX_TEST_PHOTOS:  # neighbours in the order of the names: they share most
            start = int(rng.integers(len(ids) - MAX_TEST_PHOTOS + 1))
            ids = ids[start : start + MAX_TEST_PHOTOS]
        self.ids = ids
        self.settings = settings
        self.start = {i: posed[i].cam_from_world for i in ids}
        self.found = posed
        self.as_found = _centred(with_intrinsics(photos, {i: posed[i].intrinsics for i in ids}))
        rows = np.isin(tracks.photo_id, ids)
        length = np.bincount(tracks.track_id[rows], minlength=tracks.count)
        usable = rng.permutation(np.nonzero(length >= 3)[0])[: MAX_FITTED + MAX_HELD_OUT]
        held = max(int(HELD_OUT * len(usable)), len(usable) - MAX_FITTED)
        self.enough = held >= MIN_HELD_OUT
        self.held = self._rays(tracks, rows & np.isin(tracks.track_id, usable[:held]))
        self.block = _blocks(self.held, self.as_found, ids)
        self.scale_px = 1.0
        if self.enough:
            self.scale_px = float(np.clip(np.median(self._misses(posed)), *SCALE_PX))
        self.fitted = select_observations(tracks, rows & np.isin(tracks.track_id, usable[held:]))

    def _rays(self, tracks: Tracks, rows: Bool[np.ndarray, " n"]) -> Rays:
        _, track = np.unique(tracks.track_id[rows], return_inverse=True)
        photo = np.searchsorted(self.ids, tracks.photo_id[rows])
        return Rays(track.reshape(-1), photo, points_to_colmap(tracks.xy[rows].astype(np.float64)))

    def fit(
        self, photos: PhotoSet, *, free_centre: bool = False, start: pycolmap.Reconstruction | None = None
    ) -> Fit:
        """Adjust a hypothesis to the tracks that are not held out, and ask the others.

        Args:
            photos: its cameras, with where they start; ``known`` ones stay.
            free_centre: principal points are adjusted too.
            start: whose poses to start from; None for the model's.
        """
        poses = self.start
        if start is not None:
            posed = posed_cameras(start, photos)
            poses = {i: posed[i].cam_from_world for i in self.ids}
        model = posed_model(photos, poses)
        constant = {index + 1 for index, camera in enumerate(photos.cameras) if camera.known}
        for _ in range(2):
            model = model_from_tracks(model, photos, self.fitted, self._points(model, photos))
            adjust(model, self.settings, constant, refine_principal_point=free_centre)
            model.normalize()  # only a direction is held: the scale runs away where focal lengths change much
        found = posed_cameras(model, photos)
        photos = with_intrinsics(photos, {i: one.intrinsics for i, one in found.items()})
        miss = self._misses(found)
        value = np.log1p((np.minimum(miss, 1e3) / self.scale_px) ** 2)
        count = np.bincount(self.held.track)
        score = np.bincount(self.held.track, value) / np.maximum(count, 1)
        points = nearest_points(self.held, *self._cameras(found))
        return Fit(photos, free_centre, model, miss, score, points, self.block)

    def _cameras(self, of: Mapping[int, Camera]) -> tuple[list[Intrinsics], Float[np.ndarray, "n 3 4"]]:
        return [of[i].intrinsics for i in self.ids], np.array([of[i].cam_from_world for i in self.ids])

    def _misses(self, of: Mapping[int, Camera]) -> Float[np.ndarray, " o"]:
        return left_out_misses(self.held, *self._cameras(of))

    def fits(self, model: pycolmap.Reconstruction, photos: PhotoSet) -> bool:
        """A model of the same photos does no worse on the held-out tracks than the first one, as it stands."""
        posed = posed_cameras(model, photos)
        if not set(self.ids) <= set(posed):
            return False
        return float(np.median(self._misses(posed))) <= float(np.median(self._misses(self.found)))

    def _points(self, model: pycolmap.Reconstruction, photos: PhotoSet) -> Float[np.ndarray, "t 3"]:
        """Points where the rays of each track that is not held out come nearest to each other."""
        posed = posed_cameras(model, photos)
        rays = self._rays(self.fitted, np.ones(len(self.fitted.track_id), bool))
        return nearest_points(rays, *self._cameras(posed))


def _centred(photos: PhotoSet) -> PhotoSet:
    """Principal points of cameras that are not known in the middle: that of a wrong model makes up for its faults."""
    cameras = []
    for one in photos.cameras:
        _, _, x, y = FOCAL_AND_CENTRE[one.model]
        params = list(one.params)
        params[x], params[y] = (one.width - 1) / 2, (one.height - 1) / 2
        cameras.append(one if one.known else replace(one, params=tuple(params)))
    return replace(photos, cameras=tuple(cameras))


def with_intrinsics(photos: PhotoSet, of: dict[int, Intrinsics]) -> PhotoSet:
    """The photos with other intrinsics of their cameras, given by photo id; what is known or told by EXIF stays so."""
    cameras = list(photos.cameras)
    for i, one in of.items():
        number = photos.photos[i].camera
        old = photos.cameras[number]
        cameras[number] = replace(one, known=old.known, has_focal_prior=old.has_focal_prior)
    return replace(photos, cameras=tuple(cameras))


@dataclass(frozen=True)
class CameraDecision:
    """The cameras that the held-out tracks speak for.

    Attributes:
        photos: with the cameras that were decided on, and where their intrinsics start.
        free_centres: cameras (indices) whose principal point is to be found.
        tests: what was asked, in this order.
        changed: other cameras than those of the model.
        poses: of the photos that were looked at, by their ids.
    """

    photos: PhotoSet
    free_centres: frozenset[int]
    tests: tuple[CameraTest, ...]
    changed: bool
    poses: Mapping[int, Float[np.ndarray, "3 4"]]


class _Decision:
    """The best fit so far, and what was asked."""

    def __init__(self, best: Fit) -> None:
        self.best = best
        self.tests: list[CameraTest] = []

    def ask(self, fit: Fit, what: str, *, named: bool = False, plausible: bool = True) -> bool:
        """Take a fit with more freedom if it is plausible and better by more than chance, or if the user named it."""
        test = fit.against(self.best, what)
        taken = named or (plausible and test.better)
        self.tests.append(replace(test, taken=taken))
        if taken:
            self.best = fit
        return taken


def decide_cameras(tester: CameraTester) -> CameraDecision | None:
    """Ask the held-out tracks which photos share a camera, where its principal point is, and what its lens is like.

    Intrinsics that are all given are left alone; the tests tell whether the photos contradict them.

    Returns:
        None where there are too few tracks that three photos see.
    """
    if not tester.enough:
        return None
    first = tester.fit(tester.as_found)
    decision = _Decision(first)
    free = replace(first.photos, cameras=tuple(replace(one, known=False) for one in first.photos.cameras))
    seen = {tester.as_found.photos[i].camera for i in tester.ids}
    if all(first.photos.cameras[number].known for number in seen):
        bent = replace(free, cameras=tuple(in_model(one, "OPENCV") for one in free.cameras))
        decision.ask(tester.fit(bent), OTHER_THAN_GIVEN)
        start = decision.best.photos if decision.best is not first else free
        decision.ask(tester.fit(start, free_centre=True), OTHER_CENTRE_THAN_GIVEN)
        return CameraDecision(tester.as_found, frozenset(), tuple(decision.tests), False, tester.start)
    centred = tester.fit(first.photos, free_centre=True, start=first.model)
    decision.ask(centred, "principal points off the middle, as cropped photos have")
    _ask_for_lens(tester, decision)
    own = _own_fits(tester, decision.best)
    if _ask_for_own(tester, decision, own):
        _ask_for_lens(tester, decision)
        _ask_for_groups(tester, decision)
    elif _ask_for_few(tester, decision, own):
        _ask_for_lens(tester, decision)
    best = decision.best
    free_centres = frozenset(
        number for number, one in enumerate(best.photos.cameras) if best.free_centre and not one.known
    )
    # What was found is where mapping starts: without a focal length COLMAP takes no pair of fisheye photos.
    told = tuple(one if one.known else replace(one, has_focal_prior=True) for one in best.photos.cameras)
    photos = replace(best.photos, cameras=told)
    poses = {i: one.cam_from_world for i, one in posed_cameras(best.model, photos).items()}
    return CameraDecision(photos, free_centres, tuple(decision.tests), best is not first, poses)


def _ask_for_lens(tester: CameraTester, decision: _Decision) -> None:
    """Lens models with ever more freedom, or the one that the user named."""
    named = tester.as_found.lens
    for model in LENS_MODELS if named is None else (named,):
        photos = decision.best.photos
        cameras = tuple(one if one.known else in_model(one, model) for one in photos.cameras)
        if cameras == photos.cameras:
            continue
        fit = tester.fit(
            replace(photos, cameras=cameras),
            free_centre=decision.best.free_centre,
            start=decision.best.model,
        )
        decision.ask(fit, f"lens model {model}", named=named is not None)


def _own_fits(tester: CameraTester, best: Fit) -> tuple[Fit, ...]:
    """A camera for each photo, without and with principal points off the middle; none if that is so already."""
    shared = [best.photos.photos[i].camera for i in tester.ids]
    if len(set(shared)) == len(shared):
        return ()
    own = tester.fit(own_cameras(best.photos), start=best.model)
    return own, tester.fit(own.photos, free_centre=True, start=own.model)


def _ask_for_own(tester: CameraTester, decision: _Decision, fits: tuple[Fit, ...]) -> bool:
    """A camera for each photo: whether that was taken."""
    names = ("a camera for each photo", "a camera for each photo, principal points off the middle")
    taken = []
    for fit, what in zip(fits, names, strict=False):
        unlike = len(set(camera_groups(fit.photos, tester.ids, UNLIKE_FOCAL))) > 1
        taken.append(decision.ask(fit, what, plausible=unlike))
    return any(taken)


def _ask_for_few(tester: CameraTester, decision: _Decision, fits: tuple[Fit, ...]) -> bool:
    """One camera for each group of photos that are alike with a camera for each; if taken.

    It has less freedom than a camera for each photo, so fewer tracks tell it.
    """
    for each in fits:
        groups = camera_groups(each.photos, tester.ids)
        count = len(set(groups))
        if 1 < count < len(tester.ids):
            cameras = grouped_cameras(each.photos, groups)
            few = tester.fit(cameras, free_centre=each.free_centre, start=each.model)
            where = ", principal points off the middle" if each.free_centre else ""
            if decision.ask(few, f"{count} cameras{where}"):
                return True
    return False


def _ask_for_groups(tester: CameraTester, decision: _Decision) -> None:
    """One camera for each group of photos whose cameras hardly differ, where that is no worse than one for each."""
    best = decision.best
    groups = camera_groups(best.photos, tester.ids)
    if len(set(groups)) == len(tester.ids):
        return
    together = tester.fit(
        grouped_cameras(best.photos, groups), free_centre=best.free_centre, start=best.model
    )
    test = best.against(together, f"{len(set(groups))} cameras instead of one for each photo")
    if not test.better:
        decision.best = together
        decision.tests.append(
            CameraTest(test.what, test.after_px, test.before_px, -test.standard_errors, taken=True)
        )
