"""The adjustment of a run to control points or exact positions of its photos, and what becomes of its georeference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from recon.core.colmap import points_to_colmap
from recon.core.similarity import align_similarity
from recon.errors import ReconError
from recon.exports.control import Triple
from recon.exports.georeference import Georeference, SurveyPoint, fit_bend
from recon.exports.precision import (
    PointPrecision,
    adjusted_views,
    arrays_of_scene,
    known_cameras,
    write_precision,
)
from recon.exports.scene import Scene, SceneView, reconstruction_from_scene
from recon.run.folder import ADJUSTED, PRECISION, RunFolder
from recon.sfm.control import (
    Adjustment,
    CenterPriors,
    Control,
    adjust,
    find_wrong,
    intersect,
)
from recon.sfm.evidence import ModelArrays

Mark = tuple[SceneView, float, float]
"""A view of the model and a pixel of it, at the size of the model's camera."""

_WEAK = 2.5
"""A side is weak where cameras place points so many times worse than at the control points."""

_ASKED = 300
"""Points of tracks that are asked how well cameras place them."""


@dataclass(frozen=True)
class Survey:
    """Control and check points with their marks, and positions of photos.

    Attributes:
        place: local coordinates of the frame, by name. sigma: their standard deviations.
        marks: of each point, in the views of the model. start: where the similarity has the point.
        checks: names of the points that are to check. gross: of those that the similarity already found to be wrong.
        mark_px: standard deviation of a mark, pixels at the size of the model's cameras.
        priors: positions of photos in local coordinates with their standard deviations, by the photo's name.
    """

    place: Mapping[str, Float64[np.ndarray, "3"]]
    sigma: Mapping[str, Triple]
    marks: Mapping[str, Sequence[Mark]]
    start: Mapping[str, Float64[np.ndarray, "3"]]
    checks: frozenset[str] = frozenset()
    gross: frozenset[str] = frozenset()
    mark_px: float = 0.5
    priors: Mapping[str, tuple[Float64[np.ndarray, "3"], Triple]] | None = None


def adjust_run(
    run: RunFolder, scene: Scene, before: Georeference, survey: Survey, *, move: bool = True
) -> tuple[Georeference, list[str]]:
    """Adjust, write OUT/adjusted (COLMAP model and covariance), and say what was found.

    Args:
        scene: of the run. before: its georeference by a similarity.
        move: False leaves the cameras where they are and only asks for their covariance.

    Returns:
        The georeference with its points' errors after the adjustment.
    """
    placed = scene.moved(before.similarity.scale, before.similarity.rotation, before.similarity.translation)
    model = arrays_of_scene(placed, known_cameras(run))
    row_of = {view.name: row for row, view in enumerate(scene.views)}
    names = tuple(name for name in survey.place if name not in survey.checks | survey.gross)
    control = _control(survey, names, row_of) if names else None
    found, control, wrong = _without_wrong(model, control, _priors(survey, row_of), move)
    lines: list[str] = []
    precision = PointPrecision(found.precision, tuple(view.name for view in scene.views))
    centres = np.sqrt(np.einsum("nii->n", found.precision.centres()))
    after = before
    if move:
        after = _moved_georeference(placed, found, before)
        lines += _bend_in_words(after, float(np.median(centres)))
    points = [
        *_controls(found, control),
        *_intersected(survey, [*sorted(survey.gross), *wrong], "wrong", found, row_of),
        *_intersected(survey, sorted(survey.checks), "check", found, row_of),
    ]
    after = replace(after, points=tuple(points))
    if points:
        residuals = tuple((one.name, one.error, one.kind == "control") for one in points)
        after = replace(after, residuals=residuals)
        lines += _points_in_words(after)
    if control is not None:
        lines += _reach_in_words(found, control, np.array(before.offset))
    _write(run, scene, after, found, precision, move)
    typical, worst = _metres(float(np.median(centres))), _metres(float(centres.max()))
    lines.append(f"cameras known to {typical} in the median, the worst to {worst}")
    return after, lines


def _control(survey: Survey, names: tuple[str, ...], row_of: Mapping[str, int]) -> Control:
    point, photo, xy = [], [], []
    for number, name in enumerate(names):
        for view, x, y in survey.marks[name]:
            point.append(number)
            photo.append(row_of[view.name])
            xy.append((x, y))
    return Control(
        names,
        np.array([survey.place[name] for name in names], np.float64),
        np.array([survey.sigma[name] for name in names], np.float64),
        np.array(point, np.int64),
        np.array(photo, np.int64),
        points_to_colmap(np.array(xy, np.float64)),
        survey.mark_px,
    )


def _priors(survey: Survey, row_of: Mapping[str, int]) -> CenterPriors | None:
    if not survey.priors:
        return None
    names = sorted(survey.priors, key=lambda name: row_of[name])
    return CenterPriors(
        np.array([row_of[name] for name in names], np.int64),
        np.array([survey.priors[name][0] for name in names], np.float64),
        np.array([survey.priors[name][1] for name in names], np.float64),
    )


def _without_wrong(
    model: ModelArrays, control: Control | None, priors: CenterPriors | None, move: bool
) -> tuple[Adjustment, Control | None, list[str]]:
    """Adjust; drop the control point that contradicts the others most, as long as one does; also the names of those."""
    wrong: list[str] = []
    found = adjust(model, control, priors, move=move)
    while control is not None and move:
        row, _ = find_wrong(found)
        if row is None or 2 * (len(wrong) + 1) > len(control.names) + len(wrong):
            break
        wrong.append(control.names[row])
        control = control.only(np.arange(len(control.names)) != row)
        found = adjust(model, control, priors, move=move)
    return found, control, wrong


def _moved_georeference(placed: Scene, found: Adjustment, before: Georeference) -> Georeference:
    """The similarity that explains most of what the adjustment moved, and the bend that is left."""
    back = before.similarity.inverse()
    old, new = placed.xyz[found.points], found.precision.model.xyz
    kept = np.ones(len(old), bool)
    for _ in range(4):
        fit = align_similarity(back(old[kept]), new[kept])
        rest = np.linalg.norm(fit(back(old)) - new, axis=1)
        kept = rest <= 4 * max(float(np.median(rest)), 1e-12)
    bend = fit_bend(back(old[kept]), fit.inverse()(new[kept]))
    return replace(before, similarity=fit, bend=bend)


def _bend_in_words(after: Georeference, known: float) -> list[str]:
    assert after.bend is not None
    scale = after.similarity.scale
    largest, rest = after.bend.largest * scale, after.bend.rest * scale
    lines = [f"adjusted: beside scale and place, points moved by up to {_metres(largest)}"]
    if rest > 0.5 * known:
        lines.append(
            f"note: {_metres(rest)} of that is not smooth; for a surface on the adjusted cameras: 'recon reconstruct' "
            f"with --set map.poses=OUT/{ADJUSTED}"
        )
    return lines


def _controls(found: Adjustment, control: Control | None) -> list[SurveyPoint]:
    if control is None:
        return []
    out = []
    for k, name in enumerate(control.names):
        sigma = np.sqrt(np.diag(found.covariance[k]))
        error = control.place[k] - found.place[k]
        # The measured coordinate has a part in where the adjustment has the point, so that its own error bounds both.
        stated = np.sqrt(sigma**2 + control.sigma[k] ** 2)
        photos = int((control.point == k).sum())
        place, off, deviation = _triples(found.place[k], error, stated)
        out.append(SurveyPoint(name, "control", place, off, deviation, float(found.pixels[k]), photos))
    return out


def _intersected(
    survey: Survey, names: Sequence[str], kind: str, found: Adjustment, row_of: Mapping[str, int]
) -> list[SurveyPoint]:
    """Points that took no part, from their marks and the adjusted cameras."""
    out = []
    for name in names:
        marks = survey.marks[name]
        xy = points_to_colmap(np.array([(x, y) for _, x, y in marks], np.float64))
        rows = np.array([row_of[view.name] for view, _, _ in marks], np.int64)
        place, covariance, pixels = intersect(found.precision, survey.start[name], rows, xy, survey.mark_px)
        sigma = np.sqrt(np.diag(covariance) + np.square(survey.sigma[name]))
        error = survey.place[name] - place
        where, off, deviation = _triples(place, error, sigma)
        out.append(SurveyPoint(name, kind, where, off, deviation, pixels, len(marks)))
    return out


def _triples(*values: Float64[np.ndarray, "3"]) -> list[Triple]:
    return [(float(v[0]), float(v[1]), float(v[2])) for v in values]


def _points_in_words(after: Georeference) -> list[str]:
    lines = []
    for one in after.points:
        if one.kind == "wrong":
            x, y, z = one.error
            off, known = _metres(math.hypot(x, y, z)), _metres(math.hypot(*one.sigma))
            lines.append(
                f"wrong point: {one.name} is off by {off} (x {x:+.3g}, y {y:+.3g}, z {z:+.3g}); the others say it to "
                f"{known}: left out; look at its coordinates and marks"
            )
    for kind in ("control", "check"):
        mine = [one for one in after.points if one.kind == kind]
        if not mine:
            continue
        error = np.array([one.error for one in mine])
        level = _metres(math.sqrt(float((error[:, :2] ** 2).sum(axis=1).mean())))
        height = _metres(math.sqrt(float((error[:, 2] ** 2).mean())))
        within = sum(3 - len(one.beyond) for one in mine)
        lines.append(
            f"{len(mine)} {kind} points: rms {level} level, {height} in height; "
            f"{within} of {3 * len(mine)} coordinates within twice what is stated"
        )
    return lines


def _reach_in_words(found: Adjustment, control: Control, offset: Float64[np.ndarray, "3"]) -> list[str]:
    """How well the cameras place points, and where far worse than at the control points, which leave that side out."""
    model, exact_px = found.precision.model, 1e-6
    rows = np.flatnonzero(np.bincount(model.point, minlength=len(model.xyz)) >= 3)
    rows = rows[:: max(1, len(rows) // _ASKED)]
    if not len(rows):
        return []
    number = np.full(len(model.xyz), -1)
    number[rows] = np.arange(len(rows))
    mine = number[model.point] >= 0
    xyz, point, photo = model.xyz[rows], number[model.point[mine]], model.photo[mine]
    there = np.linalg.norm(found.precision.sigma_of_points(xyz, point, photo, exact_px), axis=1)
    here = found.precision.sigma_of_points(found.place, control.point, control.photo, exact_px)
    near, far = float(np.median(np.linalg.norm(here, axis=1))), float(np.percentile(there, 95))
    lines = [f"the cameras place control points to {_metres(near)}, 95% of all points to {_metres(far)}"]
    if far > _WEAK * near:
        x, y, z = xyz[np.argmin(np.abs(there - far))] + offset
        lines.append(
            f"note: the control points leave a side out, that of x {x:.1f}, y {y:.1f}, z {z:.1f}: a point measured "
            "there helps most"
        )
    return lines


def _metres(value: float) -> str:
    return f"{1000 * value:.3g} mm" if value < 0.1 else f"{value:.3g} m"


def _write(
    run: RunFolder,
    scene: Scene,
    after: Georeference,
    found: Adjustment,
    precision: PointPrecision,
    move: bool,
) -> None:
    """Write OUT/adjusted: the covariance, and where the cameras moved the model in the run's own frame."""
    try:
        with run.files.fresh_directory(ADJUSTED) as folder:
            write_precision(folder / PRECISION.split("/")[1], precision)
            if not move or after.bend is None:
                return
            cameras, views = adjusted_views(scene, precision)
            back = after.similarity.inverse()
            xyz = after.bend(scene.xyz)
            xyz[found.points] = back(found.precision.model.xyz)
            placed = [replace(view, cam_from_world=back.camera(view.cam_from_world)) for view in views]
            whole = replace(scene, cameras=cameras, views=tuple(placed), xyz=xyz)
            reconstruction_from_scene(whole).write(folder)
    except OSError as error:
        raise ReconError(f"{run.path(ADJUSTED)}: cannot be written ({error.strerror})") from error


def check_places(
    crs_epsg: int | None, world: Mapping[str, Triple], gps: Sequence[tuple[float, float, float]]
) -> str | None:
    """Explain why control points cannot be in their reference system, with the way out; None if they can.

    Args:
        crs_epsg: code of the system of the control points. gps: latitude, longitude, height of photos.
    """
    from recon.exports.geodesy import transverse_mercator_of, utm_from_geodetic

    zone = transverse_mercator_of(crs_epsg) if crs_epsg is not None else None
    if zone is None or not world:
        return None
    number, south = zone
    at = np.array(list(world.values()), np.float64)
    middle = np.median(at, axis=0)[:2]
    if middle[0] > 1_000_000 > middle[1] > 0:
        return (
            f"X is {middle[0]:.0f} and Y is {middle[1]:.0f}: no easting has seven digits; X and Y are swapped: X is "
            "the easting, Y the northing"
        )
    if not gps:
        return None
    photos = np.median(np.array(gps, np.float64), axis=0)
    here = utm_from_geodetic(photos[None], number, south)[0, :2]
    near = 2_000.0 + 5.0 * float(np.linalg.norm(np.ptp(at[:, :2], axis=0)))
    if np.linalg.norm(here - middle) <= near:
        return None
    if np.linalg.norm(here - middle[::-1]) <= near:
        return "X and Y are swapped, by the photos' GPS: X is the easting, Y the northing"
    away = float(np.linalg.norm(here - middle)) / 1000
    for other in range(1, 61):
        for hemisphere in (False, True):
            there = utm_from_geodetic(photos[None], other, hemisphere)[0, :2]
            if abs(photos[1] - (other * 6 - 183)) < 15 and np.linalg.norm(there - middle) <= near:
                base = crs_epsg - number if crs_epsg is not None else 32600
                if hemisphere != south:
                    base = 32700 if hemisphere else 32600
                return (
                    f"the points lie {away:.0f} km from the photos' GPS; in zone {other}{'S' if hemisphere else 'N'} "
                    f"they would lie there: give --crs EPSG:{base + other}"
                )
    return f"the points lie {away:.0f} km from the photos' GPS: look at --crs and at the columns X and Y"
