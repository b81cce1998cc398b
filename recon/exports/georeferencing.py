"""What ``recon georeference`` does: gathers what is known of a run's place and fits it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from recon.core.frames import up_of_photos
from recon.core.posed import Camera
from recon.errors import ReconError, UsageError
from recon.exports.control import Sighting, read_control
from recon.exports.files import write_json
from recon.exports.georeference import (
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
from recon.photos.exif import exif_facts
from recon.run.folder import GEOREFERENCE, RunFolder

_BAD_SIGHTING_PX = 10.0
"""A control point that reprojects this far from where it was marked was marked wrongly."""


def run_georeference(run: RunFolder, options: GeoreferenceOptions) -> list[str]:
    """Fit, write OUT/georeference.json, and say what was found, line by line.

    Raises:
        ReconError: what is known does not suffice, or contradicts itself; the message says which part is missing.
        UsageError: files or options that make no sense.
    """
    scene = load_scene(run)
    lines: list[str] = []
    up, told_by = _up(run, scene, options, lines)
    try:
        if options.control is not None:
            found = _from_control(run, scene, options, up, told_by, lines)
        elif options.length is not None or options.level:
            found = _from_length(run, scene, options, up, told_by, lines)
        else:
            found = _from_gps(run, scene, options, up, told_by)
    except ValueError as error:
        hint = ""
        if options.control is None and options.length is None and not options.level:
            hint = "; --gps-error takes a larger error, --control and --length need no GPS"
        raise ReconError(f"{run.root}: no georeference: {error}{hint}") from error
    path = run.root / GEOREFERENCE
    partial = path.with_name(f".{path.name}.part")
    try:
        write_json(partial, found.to_json())
        partial.replace(path)
    except OSError as error:
        raise ReconError(f"{path}: cannot be written ({error.strerror})") from error
    return [*lines, *_summary(found), f"written: {path}"]


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
        ups = _exif_ups(run, scene, options)
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


def _exif_ups(run: RunFolder, scene: Scene, options: GeoreferenceOptions) -> dict[int, np.ndarray]:
    """Up in camera axes of the views whose files tell it."""
    from PIL import Image, UnidentifiedImageError

    folder = options.photos or photo_folder(run)
    found: dict[int, np.ndarray] = {}
    for row, view in enumerate(scene.views):
        path = folder / view.name if folder is not None else None
        if path is None or not path.is_file():
            continue
        try:
            with Image.open(path) as image:
                exif = image.getexif()
                xmp = image.info.get("xmp", b"")
                up = up_from_exif(
                    dict(exif.get_ifd(0x8769)), xmp.encode() if isinstance(xmp, str) else bytes(xmp)
                )
        except (OSError, SyntaxError, ValueError, UnidentifiedImageError):
            continue
        if up is not None:
            found[row] = up
    return found


# The three ways


def _from_gps(
    run: RunFolder, scene: Scene, options: GeoreferenceOptions, up: np.ndarray | None, told_by: str
) -> Georeference:
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
    return georeference_gps(
        [scene.views[row].name for row in rows],
        np.array([scene.views[row].center for row in rows]),
        np.array([known[row] for row in rows]),
        frame=frame,
        up=up,
        gravity=told_by,
        sigma=options.gps_error,
        seed=options.seed,
    )


def _gps(run: RunFolder, scene: Scene, options: GeoreferenceOptions) -> dict[int, tuple[float, float, float]]:
    """Latitude, longitude and altitude of the views that have them: as the run noted, else from the files."""
    from PIL import Image, UnidentifiedImageError

    found: dict[int, tuple[float, float, float]] = {}
    folder = options.photos or photo_folder(run)
    for row, view in enumerate(scene.views):
        photo = run.photos.get(view.name)
        position = photo.latitude_longitude_altitude if photo is not None else None
        if position is None and folder is not None and (folder / view.name).is_file():
            try:
                with Image.open(folder / view.name) as image:
                    position = exif_facts(image.getexif()).position
            except (OSError, SyntaxError, ValueError, UnidentifiedImageError):
                position = None
        if position is not None:
            found[row] = position
    return found


def _from_control(
    run: RunFolder,
    scene: Scene,
    options: GeoreferenceOptions,
    up: np.ndarray | None,
    told_by: str,
    lines: list[str],
) -> Georeference:
    assert options.control is not None
    world, sightings = read_control(options.control)
    places = _locate(run, scene, sightings, options.control, lines)
    names = [name for name in places if name in world]
    crs = _crs(options.crs)
    if crs.epsg is not None and all(abs(x) <= 180 and abs(y) <= 180 for x, y, _ in world.values()):
        raise UsageError(
            f"{options.control}: X and Y look like degrees; give metres of a projected system ({crs.name} is to be one)"
        )
    if not names:
        raise ReconError(f"{options.control}: no control point was marked in two photos of the model")
    return georeference_control(
        names,
        np.array([places[name] for name in names]),
        np.array([world[name] for name in names]),
        crs,
        up=up,
        gravity=told_by,
        seed=options.seed,
    )


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
    run: RunFolder, scene: Scene, sightings: dict[str, list[Sighting]], path: Path, lines: list[str]
) -> dict[str, np.ndarray]:
    """Where marked points are in the model; a note for each that cannot be had."""
    views = {view.name: view for view in scene.views}
    places: dict[str, np.ndarray] = {}
    for name, seen in sightings.items():
        used = [(views[photo], x, y) for photo, x, y in seen if photo in views]
        for photo in sorted({photo for photo, _, _ in seen} - set(views)):
            if run.photos and photo not in run.photos:
                raise UsageError(f"{path}: {name}: there is no photo {photo}")
            lines.append(f"note: {name}: {photo} is not in the model")
        if len(used) < 2:
            lines.append(
                f"note: {name} is marked in {len(used)} photos of the model, two are needed: left out"
            )
            continue
        place, worst = _triangulate(run, scene, used)
        if place is None:
            lines.append(
                f"note: {name} cannot be triangulated (its photos were taken from one place): left out"
            )
        elif worst > _BAD_SIGHTING_PX:
            lines.append(f"note: {name} misses its marks by {worst:.1f} pixels: left out; mark it again")
        else:
            places[name] = place
    return places


def _triangulate(
    run: RunFolder, scene: Scene, seen: list[tuple[SceneView, float, float]]
) -> tuple[np.ndarray | None, float]:
    """A point and its worst reprojection error in pixels of the model's photos."""
    cameras, marks = [], []
    for view, x, y in seen:
        intrinsics = scene.intrinsics(view)
        photo = run.photos.get(view.name)
        width, height = (
            (photo.original_width, photo.original_height)
            if photo is not None
            else (intrinsics.width, intrinsics.height)
        )
        marks.append(
            [(x + 0.5) * intrinsics.width / width - 0.5, (y + 0.5) * intrinsics.height / height - 0.5]
        )
        cameras.append(Camera(intrinsics, view.cam_from_world))
    directions = np.array(
        [
            camera.cam_from_world[:, :3].T @ camera.rays(np.array([mark]))[0]
            for camera, mark in zip(cameras, marks, strict=True)
        ]
    )
    try:
        point = triangulate_rays(np.array([camera.center for camera in cameras]), directions)
    except ValueError:
        return None, math.inf
    errors = [
        float(np.linalg.norm(camera.pixels(camera.to_camera(point[None]))[0] - mark))
        for camera, mark in zip(cameras, marks, strict=True)
    ]
    return point, max(errors)
