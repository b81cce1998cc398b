"""Place of a scene on the Earth: scale, orientation and position from GPS, control points or a known length.

The result is a similarity to a local frame in metres (x east, y north, z up, or as the control points have it) and
an offset that is added to local coordinates to get those of the reference system. The offset keeps large coordinates
(UTM) out of single precision.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64

from recon.core.frames import level_rotation
from recon.core.similarity import Similarity3, align_similarity
from recon.exports.geodesy import enu_from_geodetic, utm_epsg, utm_from_geodetic, utm_zone

GPS_SIGMA_M = 5.0
"""What a phone's or camera's GPS errs by, horizontally, under open sky (GPS.gov: 4.9 m for smartphones)."""
GPS_VERTICAL_FACTOR = 2.0
"""Vertical errors of GPS over horizontal ones (US DoD GPS SPS performance standard: 8 m horizontal, 13 m
vertical at 95%; rounded up, as EXIF does not say above what the altitude is)."""

MAX_SAMPLES = 2000
"""Triples (or pairs) tried by the robust fit; all of them when there are fewer."""


@dataclass(frozen=True)
class Crs:
    """A frame of coordinates.

    Attributes:
        kind: "utm", "enu" (metres east, north and up of an origin), "epsg" (as the user says) or "local".
        epsg: its code, None for frames without one.
        name: for people.
        origin: latitude, longitude (degrees) and height of the origin of an ENU frame.
    """

    kind: str
    name: str
    epsg: int | None = None
    origin: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Bend:
    """Movement of a model's points by an adjustment: a polynomial of the third degree, itself in the model's frame.

    What control points mend (a bowl, a twist) is smooth; so is the difference of two adjustments of the same tracks.

    Attributes:
        middle, size: points are centred and scaled by these, and held within the box of those that it was fitted to.
        coefficients: of 1, x, y, z, xx, xy, ... in the order of ``_monomials``, for each axis.
        largest, rest: how far the points were moved at most, and root mean square of what the polynomial leaves.
    """

    middle: tuple[float, float, float]
    size: float
    coefficients: tuple[tuple[float, float, float], ...]
    largest: float
    rest: float

    def __call__(self, points: Float[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 3"]:
        """Points of the model where the adjustment has them."""
        at = np.asarray(points, np.float64)
        scaled = np.clip((at - self.middle) / self.size, -1.0, 1.0)
        return at + _monomials(scaled, len(self.coefficients)) @ np.array(self.coefficients)


_DEGREES = {4: 1, 10: 2, 20: 3}
"""Terms of a polynomial of three variables, and its degree."""


def _monomials(scaled: Float[np.ndarray, "n 3"], terms: int) -> Float64[np.ndarray, "n t"]:
    columns = [np.ones(len(scaled))]
    for degree in range(1, _DEGREES[terms] + 1):
        for axes in itertools.combinations_with_replacement(range(3), degree):
            columns.append(np.prod(scaled[:, axes], axis=1))
    return np.stack(columns, axis=1)


def fit_bend(before: Float[np.ndarray, "n 3"], after: Float[np.ndarray, "n 3"]) -> Bend:
    """The polynomial that takes points where an adjustment has them, without the few that moved otherwise."""
    a, moved = np.asarray(before, np.float64), np.asarray(after, np.float64) - before
    low, high = a.min(axis=0), a.max(axis=0)
    middle, size = 0.5 * (low + high), 0.5 * max(float((high - low).max()), 1e-12)
    terms = 20 if len(a) >= 200 else 10 if len(a) >= 60 else 4
    M = _monomials((a - middle) / size, terms)
    kept = np.ones(len(a), bool)
    for _ in range(4):
        # A weak pull towards 0 where the points do not tell a term (all of them in a plane).
        pull = 1e-4 * math.sqrt(max(int(kept.sum()), 1)) * np.eye(terms)
        rows = np.concatenate([M[kept], pull])
        solved = np.linalg.lstsq(rows, np.concatenate([moved[kept], np.zeros((terms, 3))]), rcond=None)[0]
        rest = np.linalg.norm(moved - M @ solved, axis=1)
        kept = rest <= 4 * max(float(np.median(rest)), 1e-15)
    found = np.linalg.norm(M[kept] @ solved, axis=1)
    return Bend(
        _triple(middle),
        size,
        tuple(_triple(row) for row in solved),
        float(found.max(initial=0.0)),
        float(np.sqrt(np.mean(rest[kept] ** 2))) if kept.any() else 0.0,
    )


@dataclass(frozen=True)
class SurveyPoint:
    """A control or check point after an adjustment; all in metres of the frame.

    Attributes:
        kind: "control", "check" or "wrong" (a control point that contradicts the others).
        place: where the adjustment has it (a check or wrong point: where the others have it).
        error: measured minus that. sigma: what is stated of the error, standard deviations.
        pixels: root mean square of the marks' reprojection errors. photos: in how many photos it was marked.
    """

    name: str
    kind: str
    place: tuple[float, float, float]
    error: tuple[float, float, float]
    sigma: tuple[float, float, float]
    pixels: float
    photos: int

    @property
    def beyond(self) -> str:
        """The axes that are off by more than twice what is stated; of good statements 5 in 100 coordinates are."""
        return "".join(
            axis for axis, e, s in zip("xyz", self.error, self.sigma, strict=True) if abs(e) > 2 * s
        )


@dataclass(frozen=True)
class Georeference:
    """Place of a scene in a frame: local = similarity(model); coordinates of the frame = local + offset.

    Attributes:
        method: "gps", "control", "length" or "level".
        gravity: what told where up is: "gps", "control", "exif", "photos", "plane" or "none".
        residuals: name, (x, y, z) error in the frame's units and whether it was used, of each reference.
        scale_error: standard deviation of the scale over the scale, None where nothing tells.
        bend: where an adjustment moved the model; applied before the similarity.
        points: control and check points of the adjustment.
    """

    similarity: Similarity3
    offset: tuple[float, float, float]
    crs: Crs
    method: str
    gravity: str
    residuals: tuple[tuple[str, tuple[float, float, float], bool], ...] = ()
    scale_error: float | None = None
    bend: Bend | None = None
    points: tuple[SurveyPoint, ...] = ()

    @property
    def rms(self) -> float:
        """Root mean square distance of the references that were used; NaN without any."""
        used = [error for _, error, kept in self.residuals if kept]
        return float(np.sqrt(np.mean(np.sum(np.square(used), axis=1)))) if used else float("nan")

    def to_crs(self, points: Float[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 3"]:
        """Points of the model in coordinates of the frame, in double precision."""
        return self.to_local(points) + np.array(self.offset)

    def to_local(self, points: Float[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 3"]:
        """Points of the model in local coordinates of the frame."""
        return self.similarity(points if self.bend is None else self.bend(points))

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        adjusted: dict[str, Any] = {}
        if self.bend is not None:
            adjusted = {"bend": asdict(self.bend), "points": [asdict(one) for one in self.points]}
        crs: dict[str, Any] = {"kind": self.crs.kind, "name": self.crs.name, "epsg": self.crs.epsg}
        if self.crs.origin is not None:
            crs["origin_latitude_longitude_height"] = list(self.crs.origin)
        return {
            "format": 1,
            "method": self.method,
            "gravity": self.gravity,
            "local_from_model": {
                "scale": self.similarity.scale,
                "rotation": self.similarity.rotation.tolist(),
                "translation": self.similarity.translation.tolist(),
            },
            "offset": list(self.offset),
            "crs": crs,
            "rms": None if math.isnan(self.rms) else self.rms,
            "scale_error": self.scale_error,
            "references": [
                {"name": name, "error": list(error), "used": used} for name, error, used in self.residuals
            ],
            **adjusted,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Georeference:
        """The inverse of ``to_json``.

        Raises:
            KeyError, TypeError, ValueError: an entry is missing or makes no sense.
        """
        if data["format"] != 1:
            raise ValueError(f"layout {data['format']}, this is 1")
        given, crs = data["local_from_model"], data["crs"]
        origin = crs.get("origin_latitude_longitude_height")
        return cls(
            Similarity3(
                float(given["scale"]),
                np.array(given["rotation"], np.float64).reshape(3, 3),
                np.array(given["translation"], np.float64).reshape(3),
            ),
            _triple(data["offset"]),
            Crs(crs["kind"], crs["name"], crs["epsg"], _triple(origin) if origin else None),
            data["method"],
            data["gravity"],
            tuple((one["name"], _triple(one["error"]), bool(one["used"])) for one in data["references"]),
            data["scale_error"],
            _bend_of(data.get("bend")),
            tuple(_survey_point(one) for one in data.get("points", ())),
        )


def _bend_of(data: Mapping[str, Any] | None) -> Bend | None:
    if data is None:
        return None
    rows = tuple(_triple(row) for row in data["coefficients"])
    if len(rows) not in _DEGREES:
        raise ValueError(f"a bend with {len(rows)} terms")
    return Bend(
        _triple(data["middle"]), float(data["size"]), rows, float(data["largest"]), float(data["rest"])
    )


def _survey_point(data: Mapping[str, Any]) -> SurveyPoint:
    place, error, sigma = (_triple(data[key]) for key in ("place", "error", "sigma"))
    return SurveyPoint(
        data["name"], data["kind"], place, error, sigma, float(data["pixels"]), int(data["photos"])
    )


def align_level(
    source: Float[np.ndarray, "n 3"],
    target: Float[np.ndarray, "n 3"],
    up: Float[np.ndarray, "3"],
    weights: Float[np.ndarray, " n"] | None = None,
) -> Similarity3:
    """The similarity with the least squared error among those that bring ``up`` to z (heading, scale, shift).

    Closed form: after levelling, heading and horizontal scale are one complex number.

    Raises:
        ValueError: fewer than two points, or all in one place seen from above.
    """
    a, b = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if a.shape != b.shape or len(a) < 2:
        raise ValueError("need two or more points and as many targets")
    w = np.ones(len(a)) if weights is None else np.asarray(weights, np.float64)
    w = w / w.sum()
    level = level_rotation(up)
    turned = a @ level.T
    mean_a, mean_b = w @ turned, w @ b
    p, q = turned - mean_a, b - mean_b
    flat_p, flat_q = p[:, 0] + 1j * p[:, 1], q[:, 0] + 1j * q[:, 1]
    if float(w @ np.abs(flat_p) ** 2) <= 1e-18 * max(float(w @ (turned**2).sum(axis=1)), 1e-300):
        raise ValueError("all points are in one place, seen from above")
    correlation = complex(np.sum(w * flat_q * np.conj(flat_p)))
    heading = correlation / abs(correlation) if abs(correlation) > 0 else 1.0 + 0.0j
    scale = float((abs(correlation) + w @ (q[:, 2] * p[:, 2])) / (w @ (p**2).sum(axis=1)))
    if scale <= 0:
        raise ValueError("the heights contradict the plan")
    turn = np.array([[heading.real, -heading.imag, 0.0], [heading.imag, heading.real, 0.0], [0.0, 0.0, 1.0]])
    rotation = turn @ level
    return Similarity3(scale, rotation, mean_b - scale * turn @ mean_a)


@dataclass(frozen=True)
class Fit:
    """A similarity, which references it trusts, and the error (target minus fit) of each."""

    similarity: Similarity3
    used: Bool[np.ndarray, " n"]
    errors: Float64[np.ndarray, "n 3"]
    gravity_used: bool


def fit_positions(
    source: Float[np.ndarray, "n 3"],
    target: Float[np.ndarray, "n 3"],
    *,
    sigma: float,
    vertical_factor: float = 1.0,
    up: Float[np.ndarray, "3"] | None = None,
    seed: int = 0,
) -> Fit:
    """The similarity that most of the references agree with, and its least-squares refinement on those.

    Minimal sets (all, or a seeded sample of ``MAX_SAMPLES``) are scored by the sum of squared errors, each
    capped at the square of 3 sigma (MSAC; Torr and Zisserman, CVIU 2000). If the references do not spread
    enough to tell the tilt better than ``up`` does, ``up`` is kept and only heading, scale and shift are fitted; unless
    four positions or more contradict it.

    Args:
        source: positions in the model.
        target: their positions in the frame (x, y horizontal, z up), near the origin.
        sigma: what the targets err by horizontally; ``vertical_factor`` times that in height.
        up: up in the model, None if nothing is known.

    Raises:
        ValueError: too few references (three, or two with ``up``), or all on a line without ``up``.
    """
    a, b = np.asarray(source, np.float64), np.asarray(target, np.float64)
    n = len(a)
    enough = 3 if up is None else 2
    if n < enough:
        raise ValueError(f"{n} positions, {enough} are needed")
    spread = np.linalg.svd(b - np.median(b, axis=0), compute_uv=False) / math.sqrt(n)
    # Across a second axis this wide, positions with this error tell the tilt to about 2 degrees.
    tilt_known = n >= 3 and spread[1] > 0.0 and sigma / (spread[1] * math.sqrt(n)) < math.radians(2.0)
    with_up = up is not None and not tilt_known
    if up is None:
        model_spread = np.linalg.svd(a - a.mean(axis=0), compute_uv=False)
        if model_spread[1] <= 1e-6 * model_spread[0]:
            raise ValueError("all positions are on one line: which way is up has to come from elsewhere")
    scaling = np.array([1.0, 1.0, 1.0 / vertical_factor])
    cap = 3.0 * sigma
    best = _consensus(a, b, up if with_up else None, scaling, cap, seed)
    if with_up and n >= 4 and spread[1] > sigma:
        # Up is believed unless the positions are far likelier without it: two more parameters lower the squared error
        # by 2 sigma² on average.
        free = _consensus(a, b, None, scaling, cap, seed)
        if (
            _capped_cost(best, a, b, scaling, cap) - _capped_cost(free, a, b, scaling, cap)
            > _DOUBT_OF_UP * sigma**2
        ):
            best, with_up = free, False
    used = _errors(best, a, b, scaling) <= cap
    return Fit(best, used, b - best(a), with_up)


_DOUBT_OF_UP = 18.0
"""Squared error, in units of the variance, that the positions must lose without ``up`` for it to be dropped.

By chi-square with two degrees of freedom chance alone does that once in eight thousand times."""


def _errors(
    fit: Similarity3,
    a: Float[np.ndarray, "n 3"],
    b: Float[np.ndarray, "n 3"],
    scaling: Float[np.ndarray, "3"],
) -> Float64[np.ndarray, " n"]:
    return np.asarray(np.linalg.norm((b - fit(a)) * scaling, axis=1))


def _capped_cost(
    fit: Similarity3,
    a: Float[np.ndarray, "n 3"],
    b: Float[np.ndarray, "n 3"],
    scaling: Float[np.ndarray, "3"],
    cap: float,
) -> float:
    return float(np.minimum(_errors(fit, a, b, scaling) ** 2, cap**2).sum())


def _consensus(
    a: Float[np.ndarray, "n 3"],
    b: Float[np.ndarray, "n 3"],
    up: Float[np.ndarray, "3"] | None,
    scaling: Float[np.ndarray, "3"],
    cap: float,
    seed: int,
) -> Similarity3:
    """The similarity with the least capped squared error, refined on the positions within ``cap``; see
    ``fit_positions``.

    Args:
        up: brought to z where given.
        scaling: weights of the errors along x, y, z.

    Raises:
        ValueError: no minimal set gives a similarity.
    """
    n = len(a)

    def solve(rows: Any) -> Similarity3:
        return align_similarity(a[rows], b[rows]) if up is None else align_level(a[rows], b[rows], up)

    size = 3 if up is None else 2
    if math.comb(n, size) <= MAX_SAMPLES:
        sets = [list(rows) for rows in itertools.combinations(range(n), size)]
    else:
        rng = np.random.default_rng(seed)
        sets = [rng.choice(n, size, replace=False).tolist() for _ in range(MAX_SAMPLES)]
    best, best_cost = None, np.inf
    for rows in sets:
        try:
            candidate = solve(rows)
        except (ValueError, np.linalg.LinAlgError):
            continue
        if not (np.isfinite(candidate.scale) and candidate.scale > 0):
            continue
        cost = _capped_cost(candidate, a, b, scaling, cap)
        if cost < best_cost:
            best, best_cost = candidate, cost
    if best is None:
        raise ValueError("the positions are all in one place")
    used = _errors(best, a, b, scaling) <= cap
    for _ in range(10):
        if used.sum() < size:
            break
        try:
            best = solve(used)
        except ValueError:
            break
        again = _errors(best, a, b, scaling) <= cap
        if np.array_equal(again, used):
            break
        used = again
    return best


def georeference_gps(
    names: Sequence[str],
    centers: Float[np.ndarray, "n 3"],
    positions: Float[np.ndarray, "n 3"],
    *,
    frame: str = "utm",
    up: Float[np.ndarray, "3"] | None = None,
    gravity: str = "none",
    sigma: float = GPS_SIGMA_M,
    seed: int = 0,
) -> Georeference:
    """Georeference from the GPS positions of photos.

    Args:
        names, centers: photos and their centres in the model.
        positions: latitude, longitude (degrees) and altitude (metres) of each.
        frame: "utm" or "enu".
        up, gravity: up in the model and where that comes from, for photos that do not spread enough.
        sigma: error of the positions in metres.

    Raises:
        ValueError: too few positions, or they agree with no similarity.
    """
    at = np.asarray(positions, np.float64)
    middle = np.median(at, axis=0)
    if frame == "enu":
        origin = tuple(float(round(value, 8)) for value in middle)
        local = enu_from_geodetic(at, np.array(origin))
        offset = np.zeros(3)
        crs = Crs("enu", "metres east, north and up of the origin", None, _triple(origin))
    elif frame == "utm":
        zone, south = utm_zone(float(middle[1])), bool(middle[0] < 0)
        world = utm_from_geodetic(at, zone, south)
        offset = np.floor(np.median(world, axis=0))
        local = world - offset
        crs = Crs(
            "utm",
            f"WGS 84 / UTM zone {zone}{'S' if south else 'N'}",
            utm_epsg(float(middle[0]), float(middle[1])),
        )
    else:
        raise ValueError(f"frame {frame!r}: it is utm or enu")
    fit = fit_positions(centers, local, sigma=sigma, vertical_factor=GPS_VERTICAL_FACTOR, up=up, seed=seed)
    if 2 * fit.used.sum() < len(names):
        raise ValueError(
            f"only {int(fit.used.sum())} of {len(names)} positions agree with each other within {3 * sigma:g} m"
        )
    told_by = gravity if fit.gravity_used else "gps"
    return Georeference(
        fit.similarity,
        _triple(offset),
        crs,
        "gps",
        told_by,
        _residuals(names, fit.errors, fit.used),
        _scale_error(fit, local, sigma),
    )


def georeference_control(
    names: Sequence[str],
    points: Float[np.ndarray, "n 3"],
    world: Float[np.ndarray, "n 3"],
    crs: Crs,
    *,
    up: Float[np.ndarray, "3"] | None = None,
    gravity: str = "none",
    sigma: float | None = None,
    seed: int = 0,
) -> Georeference:
    """Georeference from control points.

    Args:
        names, points: control points and where they are in the model.
        world: their coordinates in the reference system.
        sigma: what counts as an error of a good point; by default 1% of their extent, so that only blunders
            are left out.

    Raises:
        ValueError: fewer than three points (two with ``up``), or points on a line without ``up``.
    """
    at = np.asarray(world, np.float64)
    offset = np.floor(np.median(at, axis=0))
    local = at - offset
    if sigma is None:
        sigma = 0.01 * float(np.linalg.norm(np.ptp(local, axis=0)))
    fit = fit_positions(points, local, sigma=max(sigma, 1e-12), up=up, seed=seed)
    told_by = gravity if fit.gravity_used else "control"
    return Georeference(
        fit.similarity,
        _triple(offset),
        crs,
        "control",
        told_by,
        _residuals(names, fit.errors, fit.used),
        _scale_error(fit, local, None),
    )


def georeference_length(
    length_in_model: float,
    length: float,
    up: Float[np.ndarray, "3"] | None,
    origin: Float[np.ndarray, "3"],
    *,
    gravity: str = "none",
    north: Float[np.ndarray, "3"] | None = None,
) -> Georeference:
    """Scale from one known length, z up where that is known; the origin of the frame is ``origin``.

    Args:
        length_in_model, length: of the same stretch, in the model and in metres.
        north: direction in the model whose horizontal part becomes y (usually where the photos look).

    Raises:
        ValueError: a length is not positive.
    """
    if not (length_in_model > 0 and length > 0 and math.isfinite(length / length_in_model)):
        raise ValueError(f"a length of {length:g} that is {length_in_model:g} in the model")
    scale = length / length_in_model
    rotation = np.eye(3) if up is None else level_rotation(up, north)
    similarity = Similarity3(scale, rotation, -scale * rotation @ np.asarray(origin, np.float64))
    return Georeference(
        similarity,
        (0.0, 0.0, 0.0),
        Crs("local", "local, in metres"),
        "length",
        gravity if up is not None else "none",
    )


def triangulate_rays(
    centers: Float[np.ndarray, "n 3"], directions: Float[np.ndarray, "n 3"]
) -> Float64[np.ndarray, "3"]:
    """The point with the least sum of squared sines-weighted distances to rays.

    Least squares of distances to the rays, weighted by the inverse distance from each camera (two rounds), so
    that what counts is nearly the angle.

    Raises:
        ValueError: fewer than two rays, or rays that are parallel.
    """
    c, d = np.asarray(centers, np.float64), np.asarray(directions, np.float64)
    if len(c) < 2:
        raise ValueError("a point needs two photos")
    d = d / np.linalg.norm(d, axis=1, keepdims=True)
    across = np.eye(3) - d[:, :, None] * d[:, None, :]
    weights = np.ones(len(c))
    point = np.zeros(3)
    for _ in range(3):
        A = np.einsum("n,nij->ij", weights, across)
        if np.linalg.cond(A) > 1e10:
            raise ValueError("the rays are parallel: the photos were taken from one place")
        point = np.linalg.solve(A, np.einsum("n,nij,nj->i", weights, across, c))
        weights = 1.0 / np.maximum(((point - c) ** 2).sum(axis=1), 1e-30)
    if (((point - c) * d).sum(axis=1) <= 0).any():
        raise ValueError("the point lies behind a camera")
    return point


def _scale_error(fit: Fit, target: Float[np.ndarray, "n 3"], sigma: float | None) -> float | None:
    """Relative standard deviation of the scale: that of one coordinate over the root of the summed squares.

    The spread of the residuals tells the first, where six or more degrees of freedom are left; otherwise
    ``sigma``, if that is given.
    """
    used = np.asarray(target, np.float64)[fit.used]
    freedom = 3 * len(used) - (5 if fit.gravity_used else 7)
    if freedom >= 6:
        sigma = float(np.sqrt((fit.errors[fit.used] ** 2).sum() / freedom))
    extent = float(np.sqrt(((used - used.mean(axis=0)) ** 2).sum())) if len(used) else 0.0
    return sigma / extent if sigma is not None and extent > 0 else None


def _residuals(
    names: Sequence[str], errors: Float[np.ndarray, "n 3"], used: Bool[np.ndarray, " n"]
) -> tuple[tuple[str, tuple[float, float, float], bool], ...]:
    return tuple(
        (name, _triple(error), bool(kept)) for name, error, kept in zip(names, errors, used, strict=True)
    )


def _triple(values: Any) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
