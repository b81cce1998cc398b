"""The work of ``recon georeference``: gathers what is known of a run's place and fits it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np

from recon.core.frames import up_of_photos
from recon.core.posed import Camera
from recon.core.resize import resize_points
from recon.errors import ReconError, UsageError
from recon.exports.adjusting import Mark, Survey, adjust_run, check_places
from recon.exports.control import (
    ControlPoints,
    Sighting,
    Triple,
    in_metres,
    read_control,
    read_control_points,
)
from recon.exports.files import write_json
from recon.exports.georeference import (
    GPS_VERTICAL_FACTOR,
    Crs,
    Georeference,
    georeference_control,
    georeference_gps,
    georeference_length,
    triangulate_rays,
)
from recon.exports.gravity import dominant_plane, up_from_exif, up_of_directions
from recon.exports.options import GeoreferenceOptions
from recon.exports.scene import Scene, SceneView
from recon.exports.source import load_scene, photo_folder
from recon.photos.exif import exif_facts, position_accuracy
from recon.run.folder import ADJUSTED, GEOREFERENCE, MARKS, RunFolder

_FROM_BELOW = 0.7
"""Sine of the angle above which photos look straight up."""

_BAD_SIGHTING_PX = 10.0
"""A control point that reprojects this far from where it was marked was marked wrongly."""


Told = TypeVar("Told")


def run_georeference(run: RunFolder, options: GeoreferenceOptions) -> list[str]:
    """Fit, adjust to control points or exact GPS, write OUT/georeference.json, and say what was found, line by line.

    Raises:
        ReconError: what is known does not suffice, or contradicts itself; the message says which part is missing.
        UsageError: files or options that make no sense.
    """
    scene = load_scene(run)
    lines: list[str] = []
    up, told_by = _up(run, scene, options, lines)
    survey: Survey | None = None
    exact = False
    try:
        if options.control is not None:
            found, survey = _from_control(run, scene, options, up, told_by, lines)
            exact = True
        elif options.length is not None or options.level:
            found = _from_length(run, scene, options, up, told_by, lines)
        else:
            found, survey, exact = _from_gps(run, scene, options, up, told_by, lines)
    except ValueError as error:
        hint = ""
        if options.control is None and options.length is None and not options.level:
            hint = "; --gps-error takes a larger error, --control and --length need no GPS"
        raise ReconError(f"{run.root}: no georeference: {error}{hint}") from error
    said: list[str] = []
    if survey is not None and len(scene.observations):
        found, said = adjust_run(run, scene, found, survey, move=options.adjust and exact)
    else:
        shutil.rmtree(run.path(ADJUSTED), ignore_errors=True)
    path = run.root / GEOREFERENCE
    partial = path.with_name(f".{path.name}.part")
    try:
        write_json(partial, found.to_json())
        partial.replace(path)
    except OSError as error:
        raise ReconError(f"{path}: cannot be written ({error.strerror})") from error
    return [*lines, *_summary(found), *said, f"written: {path}"]


def level_georeference(run: RunFolder) -> tuple[Georeference, list[str]]:
    """The frame of a run without a georeference: z up, the scale that of the run; and what told where up is.

    Raises:
        ReconError: the run has no cameras, or nothing tells where up is.
    """
    scene, options, lines = load_scene(run), GeoreferenceOptions(level=True), list[str]()
    up, told_by = _up(run, scene, options, lines)
    return _from_length(run, scene, options, up, told_by, lines), [*lines, f"up from: {told_by}"]


def _summary(found: Georeference) -> list[str]:
    unit = f"one unit of the run is {found.similarity.scale:.6g} m"
    if found.method == "level":
        unit = "the scale is that of the run"
    lines = [
        f"{unit}; up from: {found.gravity}",
        f"frame: {found.crs.name}" + (f" (EPSG:{found.crs.epsg})" if found.crs.epsg else ""),
    ]
    if any(found.offset):
        lines.append("offset: " + " ".join(f"{value:.3f}" for value in found.offset))
    if found.points:
        return lines  # the adjustment says what it found of them
    if found.residuals:
        used = sum(kept for _, _, kept in found.residuals)
        lines.append(f"{used} of {len(found.residuals)} references used, rms {found.rms:.3g} m")
        if found.scale_error is not None:
            lines.append(f"scale known to about {100 * found.scale_error:.2g}%")
        for name, error, kept in found.residuals:
            if not kept:
                distance = math.sqrt(sum(value**2 for value in error))
                lines.append(f"left out: {name}, off by {distance:.3g} m")
    return lines


# Up


def _up(
    run: RunFolder, scene: Scene, options: GeoreferenceOptions, lines: list[str]
) -> tuple[np.ndarray | None, str]:
    """Up in the model and what told it."""
    if options.gravity == "none":
        return None, "none"
    rotations = np.array([view.cam_from_world[:, :3] for view in scene.views])
    if options.gravity in ("auto", "exif"):
        everyone = range(len(scene.views))
        ups = _told_by_files(
            run, scene, options, everyone, lambda exif, xmp: up_from_exif(dict(exif.get_ifd(0x8769)), xmp)
        )
        if 2 * len(ups) >= len(scene.views) and len(ups):
            rows = sorted(ups)
            try:
                return up_of_directions(rotations[rows], np.array([ups[row] for row in rows])), "exif"
            except ValueError as error:
                if options.gravity == "exif":
                    raise ReconError(f"{run.root}: {error}; try --gravity photos") from error
        elif options.gravity == "exif":
            raise ReconError(
                f"{run.root}: {len(ups)} of {len(scene.views)} photos say how the camera was held "
                "(CameraElevationAngle or a gimbal's pitch); try --gravity photos"
            )
    try:
        up = up_of_photos(rotations)
    except ValueError as error:
        if options.gravity == "auto":
            lines.append(f"note: {error}")
            return None, "none"
        raise ReconError(f"{run.root}: {error}; try --gravity none") from error
    if options.gravity in ("auto", "plane"):
        try:
            normal, inside = dominant_plane(_points(run, scene), up, seed=options.seed)
        except ValueError as error:
            if options.gravity == "plane":
                raise ReconError(f"{run.root}: {error}; try --gravity photos") from error
        else:
            share = float(inside.mean())
            lines.append(f"level plane: {100 * share:.0f}% of the points")
            return normal, "plane"
    return up, "photos"


def _points(run: RunFolder, scene: Scene) -> np.ndarray:
    from recon.io.surfaces import read_points_ply

    path = run.root / "dense" / "points.ply"
    if not path.is_file():
        return scene.xyz
    xyz = read_points_ply(path).xyz.astype(np.float64)
    return xyz[:: max(1, len(xyz) // 200_000)]


def _told_by_files(
    run: RunFolder,
    scene: Scene,
    options: GeoreferenceOptions,
    rows: Iterable[int],
    read: Callable[[Any, bytes], Told | None],
) -> dict[int, Told]:
    """Read something from the EXIF and XMP of the files of views, for those that have it and can be read."""
    from PIL import Image, UnidentifiedImageError

    folder = options.photos or photo_folder(run)
    found: dict[int, Told] = {}
    if folder is None:
        return found
    for row in rows:
        try:
            with Image.open(folder / scene.views[row].name) as image:
                xmp = image.info.get("xmp", b"")
                told = read(image.getexif(), xmp.encode() if isinstance(xmp, str) else bytes(xmp))
        except (OSError, SyntaxError, ValueError, UnidentifiedImageError):
            continue
        if told is not None:
            found[row] = told
    return found


# The three ways


def _from_gps(
    run: RunFolder,
    scene: Scene,
    options: GeoreferenceOptions,
    up: np.ndarray | None,
    told_by: str,
    lines: list[str],
) -> tuple[Georeference, Survey, bool]:
    """The georeference, the photos' positions for the adjustment, and whether those say how exact they are."""
    frame = "utm" if options.crs == "auto" else options.crs
    if frame not in ("utm", "enu"):
        raise UsageError(f"--crs {options.crs}: with GPS it is utm or enu")
    known = _gps(run, scene, options)
    if not known:
        raise ReconError(
            f"{run.root}: no photo says where it was taken (no GPS in EXIF); give --control FILE or "
            "--length A,B=METRES"
        )
    rows = sorted(known)
    accuracy = _told_by_files(run, scene, options, rows, position_accuracy)
    exact = 2 * len(accuracy) > len(rows)
    sigma = options.gps_error
    if exact:
        typical = float(np.median([max(one[0], one[1]) for one in accuracy.values()]))
        lines.append(
            f"the photos say how exact their positions are: {typical:.3g} m horizontally, in the median"
        )
        sigma = max(typical, 0.02)
    found = georeference_gps(
        [scene.views[row].name for row in rows],
        np.array([scene.views[row].center for row in rows]),
        np.array([known[row] for row in rows]),
        frame=frame,
        up=up,
        gravity=told_by,
        sigma=sigma,
        seed=options.seed,
    )
    rough = (sigma, sigma, GPS_VERTICAL_FACTOR * sigma)
    priors = {}
    for row, (name, error, used) in zip(rows, found.residuals, strict=True):
        if used:
            place = found.similarity(scene.views[row].center[None])[0] + np.array(error)
            priors[name] = (place, accuracy.get(row, rough))
    return found, Survey({}, {}, {}, {}, priors=priors), exact


def _gps(run: RunFolder, scene: Scene, options: GeoreferenceOptions) -> dict[int, tuple[float, float, float]]:
    """Latitude, longitude and altitude of the views that have them: as the run noted, else from the files."""
    photos = [run.photos.get(view.name) for view in scene.views]
    noted = [None if photo is None else photo.latitude_longitude_altitude for photo in photos]
    silent = [row for row, position in enumerate(noted) if position is None]
    told = _told_by_files(run, scene, options, silent, lambda exif, _: exif_facts(exif).position)
    found = {row: position or told.get(row) for row, position in enumerate(noted)}
    return {row: position for row, position in found.items() if position is not None}


def _from_control(
    run: RunFolder,
    scene: Scene,
    options: GeoreferenceOptions,
    up: np.ndarray | None,
    told_by: str,
    lines: list[str],
) -> tuple[Georeference, Survey]:
    assert options.control is not None
    points, gps = _control_points(run, options), list(_gps(run, scene, options).values())
    try:
        world, named = in_metres(points, options.crs, gps)
    except UsageError as error:
        raise UsageError(f"{options.control}: {error}") from error
    marks: dict[str, list[Mark]] = {}
    places = _locate(run, scene, points.sightings, options.control, lines, marks)
    crs = _crs(named)
    if crs.epsg is not None and all(abs(x) <= 180 and abs(y) <= 180 for x, y, _ in world.values()):
        raise UsageError(
            f"{options.control}: X and Y look like degrees, but {crs.name} has metres; --crs EPSG:4326 takes degrees "
            "(X the longitude, Y the latitude)"
        )
    problem = check_places(crs.epsg, world, gps)
    if problem is not None:
        raise UsageError(f"{options.control}: {problem}")
    checks = points.checks | {name.strip() for name in options.check.split(",") if name.strip()}
    unknown = sorted(checks - set(world))
    if unknown:
        raise UsageError(f"--check {unknown[0]}: {options.control} has no such point with coordinates")
    located = [name for name in places if name in world]
    names = [name for name in located if name not in checks]
    if not names:
        raise ReconError(f"{options.control}: no control point was marked in two photos of the model")
    found = _fit_control(scene, names, places, world, crs, options, up, told_by)
    local = {name: np.array(world[name]) - np.array(found.offset) for name in located}
    gross = {name for name, _, used in found.residuals if not used}
    default = (options.control_error,) * 2 + (1.5 * options.control_error,)
    width = float(np.median([_shrink(run, scene, view) for seen in marks.values() for view, _, _ in seen]))
    survey = Survey(
        local,
        {name: points.sigma.get(name, default) for name in located},
        {name: marks[name] for name in located},
        {name: found.similarity(places[name][None])[0] for name in located},
        frozenset(checks & set(located)),
        frozenset(gross),
        options.mark_error * width,
    )
    return found, survey


def _control_points(run: RunFolder, options: GeoreferenceOptions) -> ControlPoints:
    """Control points of the control file and the file of marks together."""
    assert options.control is not None
    points = read_control_points(options.control)
    marks = options.marks or (run.path(MARKS) if run.path(MARKS).is_file() else None)
    if marks is not None:
        points.add(read_control_points(marks))
    if not points.world:
        raise UsageError(f"{options.control}: no point has coordinates")
    if not points.sightings:
        raise UsageError(
            f"{options.control}: no point is marked in a photo; mark them with 'recon view {run.root}', find targets "
            f"with 'recon targets {run.root}', or give --marks FILE"
        )
    return points


def _fit_control(
    scene: Scene,
    names: list[str],
    places: dict[str, np.ndarray],
    world: dict[str, Triple],
    crs: Crs,
    options: GeoreferenceOptions,
    up: np.ndarray | None,
    told_by: str,
) -> Georeference:
    """The similarity to the control points; swapped axes are found by how much better the points fit the other way."""
    model, target = np.array([places[name] for name in names]), np.array([world[name] for name in names])

    def fit(at: np.ndarray) -> Georeference:
        return georeference_control(names, model, at, crs, up=up, gravity=told_by, seed=options.seed)

    found = fit(target)
    if len(names) < 4:
        return found
    extent = float(np.linalg.norm(np.ptp(target, axis=0)))
    looks = np.array([view.cam_from_world[2, :3] for view in scene.views])

    def misfit(one: Georeference) -> float:
        off = np.median([math.hypot(*error) for _, error, _ in one.residuals])
        # Points that are nearly level fit their mirror image too: then the cameras look at them from below.
        from_below = float(np.median(looks @ one.similarity.rotation[2])) > _FROM_BELOW
        return float(off) + extent * from_below

    before = misfit(found)
    if before > 0.01 * extent:
        for order, said in (([1, 0, 2], "X and Y"), ([0, 2, 1], "Y and Z"), ([2, 1, 0], "X and Z")):
            try:
                other = misfit(fit(target[:, order]))
            except ValueError:
                continue
            if other < 0.1 * before:
                raise UsageError(f"{options.control}: {said} are swapped: the other way round the points fit")
    return found


def _shrink(run: RunFolder, scene: Scene, view: SceneView) -> float:
    """Pixels of the model's camera for one of the photo."""
    photo = run.photos.get(view.name)
    return 1.0 if photo is None else scene.intrinsics(view).width / photo.original_width


def _from_length(
    run: RunFolder,
    scene: Scene,
    options: GeoreferenceOptions,
    up: np.ndarray | None,
    told_by: str,
    lines: list[str],
) -> Georeference:
    centres = np.array([view.center for view in scene.views])
    looks = np.array([view.cam_from_world[2, :3] for view in scene.views])
    origin = np.median(scene.xyz, axis=0) if len(scene.xyz) else centres.mean(axis=0)
    if options.level:
        if up is None:
            raise ReconError(f"{run.root}: nothing tells where up is: the photos are turned all ways")
        found = georeference_length(1.0, 1.0, up, origin, gravity=told_by, north=looks.mean(axis=0))
        return replace(found, method="level", crs=Crs("local", "local, in the run's own units"))
    assert options.length is not None
    ends, equals, value = options.length.rpartition("=")
    try:
        metres = float(value)
    except ValueError:
        metres = math.nan
    if not equals or not (math.isfinite(metres) and metres > 0):
        raise UsageError(f"--length {options.length}: write A,B=METRES, for example left,right=1.25")
    known = {view.name: view.center for view in scene.views}
    if options.points is not None:
        _, sightings = read_control(options.points)
        known |= _locate(run, scene, sightings, options.points, lines)
    a, b = _two_names(ends, known, options.length)
    return georeference_length(
        float(np.linalg.norm(known[a] - known[b])),
        metres,
        up,
        origin,
        gravity=told_by,
        north=looks.mean(axis=0),
    )


def _two_names(text: str, known: dict[str, np.ndarray], whole: str) -> tuple[str, str]:
    """The two names; they may hold commas themselves."""
    parts = text.split(",")
    for cut in range(1, len(parts)):
        a, b = ",".join(parts[:cut]).strip(), ",".join(parts[cut:]).strip()
        if a in known and b in known and a != b:
            return a, b
    shown = ", ".join(sorted(known)[:4])
    raise UsageError(
        f"--length {whole}: needs two different names of photos or points; there are {shown}, ..."
    )


def _crs(text: str) -> Crs:
    if text in ("auto", "local"):
        return Crs("local", "local, as the control points have it")
    kind, _, code = text.partition(":")
    if kind.upper() != "EPSG" or not code.isdigit() or not 1024 <= int(code) <= 65535:
        raise UsageError(f"--crs {text}: with control points it is EPSG:CODE (for example EPSG:25832)")
    return Crs("epsg", f"EPSG:{code}", int(code))


# Points that were marked in photos


def _locate(
    run: RunFolder,
    scene: Scene,
    sightings: dict[str, list[Sighting]],
    path: Path,
    lines: list[str],
    marks: dict[str, list[Mark]] | None = None,
) -> dict[str, np.ndarray]:
    """Places of marked points in the model, and their marks in its views; a note for each that cannot be had."""
    views = {view.name: view for view in scene.views}
    given = _PhotoNames([*views, *run.photos])
    places: dict[str, np.ndarray] = {}
    for name, seen in sightings.items():
        used = []
        for photo, x, y in seen:
            known = given.find(photo)
            if known is None and run.photos:
                raise UsageError(f"{path}: {name}: there is no photo {photo}")
            if known is None or known not in views:
                lines.append(f"note: {name}: {photo} is not in the model")
            else:
                used.append(_in_model(run, scene, views[known], x, y))
        if len(used) < 2:
            lines.append(
                f"note: {name} is marked in {len(used)} photos of the model, two are needed: left out"
            )
            continue
        place, errors = _triangulate(scene, used)
        if place is not None and max(errors) > _BAD_SIGHTING_PX and len(used) > 2:
            used, place, errors = _without_bad_mark(scene, name, used, place, errors, lines)
        if place is None:
            lines.append(
                f"note: {name} cannot be triangulated (its photos were taken from one place): left out"
            )
        elif max(errors) > _BAD_SIGHTING_PX:
            lines.append(
                f"note: {name} misses its marks by {max(errors):.1f} pixels: left out; mark it again"
            )
        else:
            places[name] = place
            if marks is not None:
                marks[name] = used
    return places


class _PhotoNames:
    """Photos by how other programs name them: whole, without folders, or without the suffix too."""

    def __init__(self, names: Sequence[str]) -> None:
        self._whole = set(names)
        self._short: dict[str, set[str]] = {}
        for name in names:
            path = PurePosixPath(name)
            for key in {path.name.lower(), path.stem.lower()}:
                self._short.setdefault(key, set()).add(name)

    def find(self, name: str) -> str | None:
        """The run's name of a photo; None where there is none, or more than one."""
        if name in self._whole:
            return name
        found = self._short.get(PurePosixPath(name.replace("\\", "/")).name.lower(), set())
        return next(iter(found)) if len(found) == 1 else None


def _in_model(run: RunFolder, scene: Scene, view: SceneView, x: float, y: float) -> Mark:
    """A mark in the photo's own pixels, in those of the model's camera."""
    intrinsics = scene.intrinsics(view)
    photo = run.photos.get(view.name)
    width, height = (
        (photo.original_width, photo.original_height)
        if photo is not None
        else (intrinsics.width, intrinsics.height)
    )
    new = resize_points(np.array([x, y]), (width, height), (intrinsics.width, intrinsics.height))
    return view, float(new[0]), float(new[1])


def _without_bad_mark(
    scene: Scene, name: str, used: list[Mark], place: np.ndarray, errors: list[float], lines: list[str]
) -> tuple[list[Mark], np.ndarray | None, list[float]]:
    """Leave out the one mark without which the others agree, if there is one, and say which."""
    best: tuple[float, int, np.ndarray, list[float]] | None = None
    for row in range(len(used)):
        there, rest = _triangulate(scene, used[:row] + used[row + 1 :])
        if there is not None and (best is None or max(rest) < best[0]):
            best = (max(rest), row, there, rest)
    if best is None or best[0] > 0.3 * _BAD_SIGHTING_PX:
        return used, place, errors
    _, row, there, rest = best
    view, x, y = used[row]
    camera = Camera(scene.intrinsics(view), view.cam_from_world)
    off = float(np.hypot(*(camera.project(there[None])[0][0] - (x, y))))
    lines.append(f"note: {name}: the mark in {view.name} is off by {off:.1f} pixels: left out; mark it again")
    return used[:row] + used[row + 1 :], there, rest


def _triangulate(scene: Scene, seen: list[Mark]) -> tuple[np.ndarray | None, list[float]]:
    """A point and its reprojection errors in pixels of the model's photos."""
    cameras = [Camera(scene.intrinsics(view), view.cam_from_world) for view, _, _ in seen]
    marks = [np.array([x, y]) for _, x, y in seen]
    directions = np.array(
        [
            camera.cam_from_world[:, :3].T @ camera.rays(mark[None])[0]
            for camera, mark in zip(cameras, marks, strict=True)
        ]
    )
    try:
        point = triangulate_rays(np.array([camera.center for camera in cameras]), directions)
    except ValueError:
        return None, [math.inf]
    errors = [
        float(np.linalg.norm(camera.pixels(camera.to_camera(point[None]))[0] - mark))
        for camera, mark in zip(cameras, marks, strict=True)
    ]
    return point, errors
