"""Coded targets in photos, by OpenCV's ArUco and AprilTag detectors: marks of control points without a hand."""

from __future__ import annotations

from collections import Counter
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float64, UInt8

from recon.core.resize import resize_points
from recon.errors import ReconError, UsageError
from recon.exports.control import ControlPoints, Sighting, read_control_points, write_sightings
from recon.exports.options import ExportReport
from recon.exports.source import photo_folder
from recon.maps.options import TargetOptions
from recon.photos.reading import PhotoError, load_photo
from recon.run.folder import MARKS, RunFolder

DICTIONARIES = {
    "4x4_50": "DICT_4X4_50",
    "5x5_100": "DICT_5X5_100",
    "6x6_250": "DICT_6X6_250",
    "apriltag_36h11": "DICT_APRILTAG_36H11",
    "apriltag_25h9": "DICT_APRILTAG_25H9",
    "apriltag_16h5": "DICT_APRILTAG_16H5",
}
"""Families of targets by their usual names, and OpenCV's name."""

# Photos that tell which family is used, where the user does not say.
_ASKED = 12


def find_targets(grey: UInt8[np.ndarray, "h w"], family: str) -> dict[int, Float64[np.ndarray, "2"]]:
    """Numbers and centres of the targets of a family, pixels; a number that is there twice is left out.

    The centre is where the diagonals cross, which is that of the target whatever its slant.
    """
    aruco: Any = cv2.aruco
    parameters = aruco.DetectorParameters()
    parameters.cornerRefinementMethod = aruco.CORNER_REFINE_SUBPIX
    parameters.adaptiveThreshWinSizeMax = 53
    dictionary = aruco.getPredefinedDictionary(getattr(aruco, DICTIONARIES[family]))
    corners, numbers, _ = aruco.ArucoDetector(dictionary, parameters).detectMarkers(
        np.ascontiguousarray(grey)
    )
    if numbers is None:
        return {}
    listed = [int(number) for number in np.ravel(numbers)]
    many = Counter(listed)
    return {
        number: _crossing(np.asarray(four, np.float64).reshape(4, 2))
        for number, four in zip(listed, corners, strict=True)
        if many[number] == 1
    }


def _crossing(four: Float64[np.ndarray, "4 2"]) -> Float64[np.ndarray, "2"]:
    a, b, c, d = four
    along = np.linalg.solve(np.column_stack([c - a, b - d]), b - a)
    return np.asarray(a + along[0] * (c - a))


def run_targets(run: RunFolder, options: TargetOptions) -> ExportReport:
    """Find targets in all photos of the model and write them to OUT/marks.csv, beside marks that are there.

    Raises:
        ReconError: no photo can be read, or there are no targets. UsageError: no such family.
    """
    if options.family != "auto" and options.family not in DICTIONARIES:
        raise UsageError(f"--family {options.family}: it is auto, {', '.join(DICTIONARIES)}")
    names = sorted(run.cameras)
    family = options.family if options.family != "auto" else _family(run, names, options)
    sightings: dict[str, list[Sighting]] = {}
    notes, unread = [], 0
    for name in names:
        found = _read(run, name, options)
        if found is None:
            unread += 1
            continue
        grey, full = found
        for number, at in find_targets(grey, family).items():
            x, y = resize_points(at, (grey.shape[1], grey.shape[0]), full)
            sightings.setdefault(f"{options.prefix}{number}", []).append((name, float(x), float(y)))
    if unread:
        notes.append(f"{unread} photos could not be read; give --photos DIR")
    if not sightings:
        raise ReconError(f"{run.root}: no target of family {family} in {len(names) - unread} photos")
    single = sorted(name for name, seen in sightings.items() if len(seen) < 2)
    if single:
        notes.append(f"in one photo only, and of no use: {', '.join(single)}")
    path = run.path(MARKS)
    known = read_control_points(path) if path.is_file() else ControlPoints()
    try:
        write_sightings(path, known.sightings | sightings)
    except OSError as error:
        raise ReconError(f"{path}: cannot be written ({error.strerror})") from error
    count = sum(len(seen) for seen in sightings.values())
    notes.append(
        f"their coordinates: 'recon georeference {run.root} --control FILE' with a table of name, X, Y, Z"
    )
    return ExportReport(f"{len(sightings)} targets of {family}, {count} marks", (path,), tuple(notes))


def _family(run: RunFolder, names: list[str], options: TargetOptions) -> str:
    """The family with the most targets that two photos share."""
    step = max(1, len(names) // _ASKED)
    seen: dict[str, Counter[int]] = {family: Counter() for family in DICTIONARIES}
    for name in names[::step]:
        found = _read(run, name, options)
        if found is not None:
            for family, counter in seen.items():
                counter.update(find_targets(found[0], family).keys())
    repeated = {family: sum(n for n in counter.values() if n >= 2) for family, counter in seen.items()}
    best = max(repeated, key=lambda family: repeated[family])
    if not repeated[best]:
        raise ReconError(f"{run.root}: no targets that two photos share; --family says which to look for")
    return best


def _read(
    run: RunFolder, name: str, options: TargetOptions
) -> tuple[UInt8[np.ndarray, "h w"], tuple[int, int]] | None:
    """A photo in grey at the largest size there is, and the size that marks count in."""
    folder = options.photos or photo_folder(run)
    rgb = None
    if folder is not None and (folder / name).is_file():
        try:
            rgb = load_photo(folder / name).rgb
        except PhotoError:
            rgb = None
    if rgb is None:
        rgb = run.named_rgb(name)
    if rgb is None:
        return None
    photo = run.photos.get(name)
    camera = run.cameras[name].intrinsics
    full = (camera.width, camera.height) if photo is None else (photo.original_width, photo.original_height)
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)), full
