"""Bundle adjustment with control points and positions of cameras, each weighted by its accuracy, and its covariance.

COLMAP's adjustment takes positions of cameras but no measured points. Here the points of the tracks are eliminated
(Triggs et al., "Bundle Adjustment: A Modern Synthesis", 2000, section 6), and what remains, six unknowns a photo, is
solved densely by Levenberg's and Marquardt's method. Control points are points with a measured position.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.transform import Rotation

from recon.core.colmap import pycolmap
from recon.sfm.evidence import ModelArrays, free_parameters, jacobians, noise_px, projected

# Residuals of tracks beyond so many standard deviations lose weight (Cauchy).
LOSS_SIGMAS = 2.0
# Points of tracks that take part at most; more say the same about the cameras.
MOST_POINTS = 12_000
# Rounds of adjusting and asking the residuals anew how noisy the observations are; a start far off hides that.
_ROUNDS = 4
# The adjustment ends when a step lowers the cost by less than this part.
_ENOUGH = 1e-6
# A control point is wrong if chance makes its misfit so large once in 10 000 times (chi-square, 3 degrees of freedom).
WRONG_CHI2 = 21.1
# Median of chi-square with 3 degrees of freedom: what the misfits of good points show if the accuracies are right.
_MEDIAN_CHI2 = 2.366


@dataclass(frozen=True)
class Control:
    """Points whose position was measured, and where photos show them.

    Attributes:
        names: of the c points.
        place: measured position in the frame; sigma: its standard deviations.
        point, photo: of each mark, the control point and the row of the photo in the model.
        xy: of each mark, pixels in COLMAP's convention. mark_px: their standard deviation per axis.
    """

    names: tuple[str, ...]
    place: Float[np.ndarray, "c 3"]
    sigma: Float[np.ndarray, "c 3"]
    point: Int[np.ndarray, " m"]
    photo: Int[np.ndarray, " m"]
    xy: Float[np.ndarray, "m 2"]
    mark_px: float = 0.5

    def only(self, keep: Bool[np.ndarray, " c"]) -> Control:
        """Some of the points."""
        number = np.cumsum(keep) - 1
        marks = keep[self.point]
        return replace(
            self,
            names=tuple(name for name, kept in zip(self.names, keep, strict=True) if kept),
            place=self.place[keep],
            sigma=self.sigma[keep],
            point=number[self.point[marks]],
            photo=self.photo[marks],
            xy=self.xy[marks],
        )


@dataclass(frozen=True)
class CenterPriors:
    """Measured positions of cameras: rows of photos, places in the frame, standard deviations."""

    photo: Int[np.ndarray, " k"]
    place: Float[np.ndarray, "k 3"]
    sigma: Float[np.ndarray, "k 3"]


@dataclass(frozen=True)
class Precision:
    """Covariance of an adjustment's cameras, and through them of every point that photos show.

    Attributes:
        model: the adjusted cameras (its points may be left out).
        lens: (camera, parameter) of the intrinsics that were free.
        covariance: of six parameters a photo (turn in camera axes, centre), then of the lenses.
        noise: standard deviation per axis of an observation of a track, pixels.
    """

    model: ModelArrays
    lens: tuple[tuple[int, int], ...]
    covariance: Float[np.ndarray, "q q"]
    noise: float

    def centres(self) -> Float[np.ndarray, "n 3 3"]:
        """Covariance of each camera's centre."""
        n = len(self.model.photos)
        rows = (6 * np.arange(n)[:, None] + [3, 4, 5])[:, :, None]
        return self.covariance[rows, rows.swapaxes(1, 2)]

    def of_points(
        self,
        xyz: Float[np.ndarray, "p 3"],
        point: Int[np.ndarray, " m"],
        photo: Int[np.ndarray, " m"],
        pixel_sigma: float | None = None,
    ) -> Float[np.ndarray, "3p 3p"]:
        """Joint covariance of points from how well photos show them, and from that of the cameras.

        Args:
            xyz: the points. point, photo: of each sighting, the point and the row of the photo.
            pixel_sigma: of a sighting per axis; that of a track's observation by default.
        """
        B, A = jacobians(_looking(self.model, xyz, point, photo), list(self.lens))
        sigma = self.noise if pixel_sigma is None else pixel_sigma
        normal = (A.T @ A).toarray() / sigma**2
        normal += 1e-12 * np.trace(normal) / max(len(normal), 1) * np.eye(len(normal))
        own = np.linalg.inv(normal)
        moved = -own @ (A.T @ B).toarray() / sigma**2
        return np.asarray(own + moved @ self.covariance @ moved.T)

    def sigma_of_points(
        self,
        xyz: Float[np.ndarray, "p 3"],
        point: Int[np.ndarray, " m"],
        photo: Int[np.ndarray, " m"],
        pixel_sigma: float | None = None,
    ) -> Float[np.ndarray, "p 3"]:
        """Standard deviations of many points along the axes (see ``of_points``)."""
        sigma = np.zeros((len(xyz), 3))
        for start in range(0, len(xyz), 100):
            mine = (point >= start) & (point < start + 100)
            joint = self.of_points(xyz[start : start + 100], point[mine] - start, photo[mine], pixel_sigma)
            sigma[start : start + 100] = np.sqrt(np.diag(joint)).reshape(-1, 3)
        return sigma


@dataclass(frozen=True)
class Adjustment:
    """An adjusted model.

    Attributes:
        precision: the adjusted cameras with their covariance; its model holds the points that took part.
        points: rows of the given model's points that took part.
        place: adjusted positions of the control points. covariance: of each.
        leave_one_out: measured position minus where the others say that the point is, and the covariance of that.
        chi2: of that misfit; about 3 for a good point.
        pixels: root mean square of each control point's reprojection error, pixels.
    """

    precision: Precision
    points: Int[np.ndarray, " p"]
    place: Float[np.ndarray, "c 3"]
    covariance: Float[np.ndarray, "c 3 3"]
    leave_one_out: Float[np.ndarray, "c 3"]
    leave_one_out_covariance: Float[np.ndarray, "c 3 3"]
    chi2: Float[np.ndarray, " c"]
    pixels: Float[np.ndarray, " c"]


def adjust(
    model: ModelArrays,
    control: Control | None = None,
    priors: CenterPriors | None = None,
    *,
    move: bool = True,
    steps: int = 25,
    seed: int = 0,
) -> Adjustment:
    """Adjust cameras, lenses and points to tracks, control points and positions of cameras.

    Args:
        model: roughly in the frame of the control points and priors.
        move: False leaves everything in its place and only asks for the covariance.

    A principal point takes part where it is not the middle of the photo: an adjustment found it, and its error shifts
    and tilts what is measured. Without three control points or positions the world's similarity is held by inner
    constraints on the centres, so that the covariance is that of the shape alone.
    """
    rows = _chosen(len(model.xyz), seed)
    now = _Problem(_part(model, rows), control, priors)
    for _ in range(_ROUNDS if move else 0):
        noise = now.noise
        now = now.solved(steps).anew()
        if now.noise > 0.95 * noise:
            break
    return now.result(rows)


def _chosen(count: int, seed: int) -> Int[np.ndarray, " p"]:
    if count <= MOST_POINTS:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, MOST_POINTS, replace=False))


def _part(model: ModelArrays, rows: Int[np.ndarray, " p"]) -> ModelArrays:
    number = np.full(len(model.xyz), -1)
    number[rows] = np.arange(len(rows))
    kept = number[model.point] >= 0
    return replace(
        model,
        xyz=model.xyz[rows],
        point=number[model.point[kept]],
        photo=model.photo[kept],
        xy=model.xy[kept],
        residual=model.residual[kept],
    )


def _looking(
    model: ModelArrays,
    xyz: Float[np.ndarray, "p 3"],
    point: Int[np.ndarray, " m"],
    photo: Int[np.ndarray, " m"],
) -> ModelArrays:
    """The cameras of a model, looking at other points."""
    nothing = np.zeros((len(point), 2))
    return replace(model, xyz=xyz, point=point, photo=photo, xy=nothing, residual=nothing)


def _moved_centres(model: ModelArrays) -> set[int]:
    """Cameras whose principal point is not the middle of the photo."""
    return {
        number
        for number, camera in enumerate(model.cameras)
        if abs(camera.principal_point_x - 0.5 * camera.width) > 1e-6 * camera.width
        or abs(camera.principal_point_y - 0.5 * camera.height) > 1e-6 * camera.height
    }


class _Problem:
    """One state of the adjustment, with its normal equations."""

    def __init__(
        self,
        model: ModelArrays,
        control: Control | None,
        priors: CenterPriors | None,
        place: Float[np.ndarray, "c 3"] | None = None,
        noise: float | None = None,
    ) -> None:
        empty = np.zeros((0, 3))
        nobody = np.zeros(0, np.int64)
        self.control = control or Control((), empty, empty, nobody, nobody, np.zeros((0, 2)))
        self.priors = priors or CenterPriors(nobody, empty, empty)
        self.lens = free_parameters(model, _moved_centres(model))
        self.model = replace(model, residual=model.xy - projected(model))
        self.place = self.control.place if place is None else place
        self.noise = self._noise() if noise is None else noise

    def _noise(self) -> float:
        """Standard deviation of an observation: from the residuals, made larger for what the unknowns took up."""
        observed, unknown = 2 * len(self.model.xy), 3 * len(self.model.xyz) + 6 * len(self.model.photos)
        return max(noise_px(self.model), 0.02) * float(
            np.sqrt(observed / max(observed - unknown, 0.2 * observed))
        )

    def _joined(self) -> tuple[ModelArrays, Float[np.ndarray, " o"]]:
        """Tracks and marks together, and the weight of each observation."""
        model, control = self.model, self.control
        looking = _looking(model, self.place, control.point, control.photo)
        joined = replace(
            model,
            xyz=np.concatenate([model.xyz, self.place]),
            point=np.concatenate([model.point, control.point + len(model.xyz)]),
            photo=np.concatenate([model.photo, control.photo]),
            xy=np.concatenate([model.xy, control.xy]),
            residual=np.concatenate([model.residual, control.xy - projected(looking)]),
        )
        size = (model.residual**2).sum(axis=1) / (LOSS_SIGMAS * self.noise) ** 2
        weights = np.concatenate(
            [1 / (1 + size) / self.noise**2, np.full(len(control.xy), 1 / control.mark_px**2)]
        )
        return joined, np.where(np.isfinite(joined.residual).all(axis=1), weights, 0.0)

    def cost(self) -> float:
        """Value of the function that is minimized."""
        joined, _ = self._joined()
        n = len(self.model.xy)
        square = (joined.residual**2).sum(axis=1)
        limit = LOSS_SIGMAS**2
        tracks = limit * np.log1p(square[:n] / (limit * self.noise**2))
        total = float(np.nansum(tracks)) + float(np.nansum(square[n:])) / self.control.mark_px**2
        total += float((((self.place - self.control.place) / self.control.sigma) ** 2).sum())
        away = self.model.centre[self.priors.photo] - self.priors.place
        total += float(((away / self.priors.sigma) ** 2).sum())
        return total if np.isfinite(joined.residual[n:]).all() else float("inf")

    def equations(self, damping: float = 0.0) -> _Equations:
        """Normal equations with the points eliminated."""
        joined, weights = self._joined()
        B, A = jacobians(joined, self.lens)
        root = np.repeat(np.sqrt(weights), 2)
        B = sparse.diags_array(root) @ B
        A.data *= np.repeat(root, 3)
        r = np.nan_to_num(joined.residual).ravel() * root
        blocks = np.zeros((len(joined.xyz), 3, 3))
        values = A.data.reshape(-1, 2, 3)
        np.add.at(blocks, joined.point, np.einsum("oki,okj->oij", values, values))
        by_point, by_camera = A.T @ r, B.T @ r
        first = len(self.model.xyz)
        precise = 1 / self.control.sigma**2
        blocks[first:, [0, 1, 2], [0, 1, 2]] += precise
        by_point[3 * first :] += (precise * (self.control.place - self.place)).ravel()
        blocks[:, [0, 1, 2], [0, 1, 2]] *= 1 + damping
        blocks += 1e-9 * np.trace(blocks, axis1=1, axis2=2)[:, None, None] * np.eye(3) + 1e-300 * np.eye(3)
        inverse = sparse.block_diag(list(np.linalg.inv(blocks)), format="csr")
        W = (B.T @ A).tocsr()
        H = (B.T @ B).toarray()
        at = 6 * self.priors.photo[:, None] + [3, 4, 5]
        np.add.at(H, (at, at), 1 / self.priors.sigma**2)
        away = self.priors.place - self.model.centre[self.priors.photo]
        np.add.at(by_camera, at, away / self.priors.sigma**2)
        H[np.diag_indices_from(H)] *= 1 + damping
        S = H - (W @ inverse @ W.T).toarray()
        return _Equations(S, by_camera - W @ (inverse @ by_point), W, inverse, by_point)

    def solved(self, steps: int) -> _Problem:
        """The state of least cost, by damped steps."""
        now, cost, damping = self, self.cost(), 1e-4
        for _ in range(steps):
            better = now.moved(now.step(damping))
            after = better.cost()
            done = abs(cost - after) < _ENOUGH * cost
            if after < cost:
                now, cost, damping = better, after, max(damping / 5.0, 1e-9)
            else:
                damping *= 10.0
            if done or damping > 1e6:
                break
        return now

    def anew(self) -> _Problem:
        """The same state with the noise that its residuals show."""
        return _Problem(self.model, self.control, self.priors, self.place)

    def step(self, damping: float) -> Float[np.ndarray, " u"]:
        """The change of cameras, lenses, points and control points that lowers the linearized cost most."""
        found = self.equations(damping)
        size = 1 / np.sqrt(np.maximum(np.diag(found.S), 1e-12))
        scaled = found.S * size[:, None] * size[None]
        scaled[np.diag_indices_from(scaled)] += 1e-10
        try:
            camera = size * cho_solve(cho_factor(scaled), size * found.right)
        except np.linalg.LinAlgError:
            camera = size * np.linalg.lstsq(scaled, size * found.right, rcond=1e-12)[0]
        point = found.inverse @ (found.by_point - found.W.T @ camera)
        return np.concatenate([camera, point])

    def moved(self, step: Float[np.ndarray, " u"]) -> _Problem:
        """The state after a step."""
        n, model = len(self.model.photos), self.model
        pose = step[: 6 * n].reshape(n, 6)
        cameras = [pycolmap.Camera(camera.todict()) for camera in model.cameras]
        for (camera, index), change in zip(self.lens, step[6 * n : 6 * n + len(self.lens)], strict=True):
            params = np.array(cameras[camera].params)
            params[index] += change
            cameras[camera].params = params
        points = step[6 * n + len(self.lens) :].reshape(-1, 3)
        after = replace(
            model,
            rotation=Rotation.from_rotvec(pose[:, :3]).as_matrix() @ model.rotation,
            centre=model.centre + pose[:, 3:],
            cameras=tuple(cameras),
            xyz=model.xyz + points[: len(model.xyz)],
        )
        place = self.place + points[len(model.xyz) :]
        return _Problem(after, self.control, self.priors, place, self.noise)

    def result(self, rows: Int[np.ndarray, " p"]) -> Adjustment:
        """Covariances and misfits at the end."""
        found = self.equations()
        references = len(set(self.control.point.tolist())) + len(self.priors.photo)
        covariance = _inverse(found.S, None if references >= 3 else _gauge(self.model, len(found.S)))
        precision = Precision(self.model, tuple(self.lens), covariance, self.noise)
        c, first = len(self.control.names), 3 * len(self.model.xyz)
        place_covariance = np.zeros((c, 3, 3))
        for k in range(c):
            at = slice(first + 3 * k, first + 3 * k + 3)
            own = found.inverse[at, at].toarray()
            down = found.inverse[at, at] @ found.W[:, at].T.toarray()
            place_covariance[k] = own + down @ covariance @ down.T
        measured = np.einsum("ci,ij->cij", self.control.sigma**2, np.eye(3))
        misfit = self.control.place - self.place
        # Of the misfit; measured minus it is what the point's own measurement has already explained.
        of_misfit = measured - place_covariance
        floor = 1e-6 * np.trace(measured, axis1=1, axis2=2)[:, None, None] * np.eye(3)
        solved = np.linalg.inv(of_misfit + floor) if c else of_misfit
        left_out = np.einsum("cij,cjk,ck->ci", measured, solved, misfit)
        left_out_covariance = measured @ solved @ measured
        chi2 = np.einsum("ci,cij,cj->c", misfit, solved, misfit)
        marks = _looking(self.model, self.place, self.control.point, self.control.photo)
        square = ((self.control.xy - projected(marks)) ** 2).sum(axis=1)
        number = np.maximum(np.bincount(self.control.point, minlength=c), 1)
        pixels = np.sqrt(np.bincount(self.control.point, square, minlength=c) / number) if c else np.zeros(0)
        return Adjustment(
            precision, rows, self.place, place_covariance, left_out, left_out_covariance, chi2, pixels
        )


@dataclass(frozen=True)
class _Equations:
    """Normal equations of the cameras, and what gives the points once the cameras are known."""

    S: Float[np.ndarray, "q q"]
    right: Float[np.ndarray, " q"]
    W: sparse.csr_array
    inverse: sparse.csr_array
    by_point: Float[np.ndarray, " u"]


def _inverse(S: Float[np.ndarray, "q q"], gauge: Float[np.ndarray, "q 7"] | None) -> Float[np.ndarray, "q q"]:
    """The inverse of the cameras' normal matrix, in parameters of about one unit each."""
    size = 1 / np.sqrt(np.maximum(np.diag(S), 1e-12))
    scaled = S * size[:, None] * size[None]
    if gauge is not None:
        held, _ = np.linalg.qr(gauge / size[:, None])
        scaled = scaled + held @ held.T
    found = np.linalg.pinv(scaled, rcond=1e-14, hermitian=True) * size[:, None] * size[None]
    if gauge is not None:  # what moves along a similarity is no error
        basis, _ = np.linalg.qr(gauge)
        away = np.eye(len(S)) - basis @ basis.T
        found = away @ found @ away
    return np.asarray(found)


def _gauge(model: ModelArrays, count: int) -> Float[np.ndarray, "q 7"]:
    """Derivative of the parameters by a shift, a turn and a scale of the world about the middle of the centres."""
    n = len(model.photos)
    out = np.zeros((count, 7))
    centre = model.centre - model.centre.mean(axis=0)
    at = np.arange(n)
    for k in range(3):
        axis = np.eye(3)[k]
        out[6 * at + 3 + k, k] = 1
        for i in range(3):
            out[6 * at + i, 3 + k] = -(model.rotation @ axis)[:, i]
            out[6 * at + 3 + i, 3 + k] = np.cross(axis, centre)[:, i]
            out[6 * at + 3 + i, 6] = centre[:, i]
    return out


def find_wrong(found: Adjustment) -> tuple[int | None, float]:
    """The control point that contradicts the others most, None if none does; and its misfit's chi-square.

    Where most points misfit more than their accuracies allow, the accuracies are too good and not the points
    wrong: misfits are judged against the median.
    """
    if len(found.chi2) < 4:
        return None, float("nan")
    typical = max(float(np.median(found.chi2)) / _MEDIAN_CHI2, 1.0)
    worst = int(np.argmax(found.chi2))
    value = float(found.chi2[worst]) / typical
    return (worst if value > WRONG_CHI2 else None), value


def intersect(
    precision: Precision,
    start: Float[np.ndarray, "3"],
    photo: Int[np.ndarray, " m"],
    xy: Float[np.ndarray, "m 2"],
    mark_px: float,
) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3 3"], float]:
    """A point from its marks with the cameras as they are: position, covariance, and root mean square error, pixels."""
    point, zero = np.asarray(start, np.float64), np.zeros(len(photo), np.int64)
    for _ in range(10):
        looking = _looking(precision.model, point[None], zero, photo)
        _, A = jacobians(looking, [])
        step = np.linalg.lstsq(A.toarray(), (xy - projected(looking)).ravel(), rcond=None)[0]
        point = point + step
        if float(np.linalg.norm(step)) < 1e-9 * max(float(np.linalg.norm(point)), 1.0):
            break
    looking = _looking(precision.model, point[None], zero, photo)
    error = float(np.sqrt(((xy - projected(looking)) ** 2).sum(axis=1).mean()))
    return point, precision.of_points(point[None], zero, photo, mark_px), error
