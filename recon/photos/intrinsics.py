"""Intrinsics that the user knows: from a cameras.json, a COLMAP cameras.txt, or four numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from recon.core.cameras import FOCAL_AND_CENTRE, NUMBER_OF_PARAMS, Intrinsics
from recon.errors import UsageError
from recon.io.files import parse_json

_COLMAP_PIXEL_CENTRE = 0.5
"""COLMAP's centre of the top-left pixel is (0.5, 0.5), recon's is (0, 0)."""

_MODELS = (
    "SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV", "OPENCV_FISHEYE",
    "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE",
)  # fmt: skip
"""Camera models that may be given."""

_FORMS = "a cameras.json, a COLMAP cameras.txt, or 'fx,fy,cx,cy'"


class SizedPhoto(Protocol):
    """A photo as calibrations need it: its name and its upright size on disk."""

    @property
    def name(self) -> str: ...

    @property
    def original_width(self) -> int: ...

    @property
    def original_height(self) -> int: ...


def read_intrinsics(spec: str | Path, photos: Sequence[SizedPhoto]) -> dict[str, Intrinsics]:
    """Known intrinsics of photos at their original size, by photo name.

    Args:
        spec: the path of a ``cameras.json`` (entries "name", "width", "height", "fx", "fy", "cx", "cy" in
            recon's pixel convention; poses are not looked at) or of COLMAP's ``cameras.txt``, or the text
            "fx,fy,cx,cy" for all photos at their size on disk. Files for another size are scaled.
        photos: the photos to find intrinsics for.

    Returns:
        Intrinsics of the photos that the file knows; a photo that is missing has none.

    Raises:
        UsageError: it cannot be read, knows none of the photos, or was made for another shape of image.
    """
    text = str(spec).strip()
    path = Path(text).expanduser()
    if path.is_file():
        if path.suffix.lower() == ".json":
            return _from_json(path, photos)
        if path.suffix.lower() == ".txt":
            return _from_colmap(path, photos)
        raise UsageError(f"{path}: intrinsics are {_FORMS}")
    if "," in text:
        return _from_numbers(text, photos)
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; intrinsics are {_FORMS}")
    raise UsageError(f"--intrinsics {text}: there is no such file; intrinsics are {_FORMS}")


def resized_to_photo(intrinsics: Intrinsics, width: int, height: int, what: str) -> Intrinsics:
    """Intrinsics at a photo's size; both sizes must have the same shape up to rounding.

    Raises:
        UsageError: the sizes are not in proportion.
    """
    if (intrinsics.width, intrinsics.height) == (width, height):
        return intrinsics
    scale = width / intrinsics.width
    tolerance = max(1.0, scale, 1.0 / scale)  # a size is rounded to whole pixels at the smaller of the two
    if abs(intrinsics.height * scale - height) > tolerance:
        raise UsageError(
            f"{what}: the intrinsics are for {intrinsics.width}x{intrinsics.height} pixels, the photo is "
            f"{width}x{height}, which is another shape; give intrinsics for the photos as they are"
        )
    return intrinsics.resized(width, height)


def _from_numbers(text: str, photos: Sequence[SizedPhoto]) -> dict[str, Intrinsics]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--intrinsics {text}: not four numbers; intrinsics are {_FORMS}") from None
    if len(numbers) != 4:
        raise UsageError(f"--intrinsics {text}: {len(numbers)} numbers; intrinsics are {_FORMS}")
    sizes = Counter((photo.original_width, photo.original_height) for photo in photos)
    if len(sizes) > 1:
        shown = ", ".join(f"{w}x{h}" for (w, h), _ in sizes.most_common(3))
        raise UsageError(
            f"--intrinsics {text}: four numbers hold for photos of one size only, these have {shown}; "
            "give a cameras.json or a cameras.txt"
        )
    found: dict[str, Intrinsics] = {}
    for photo in photos:
        width, height = photo.original_width, photo.original_height
        found[photo.name] = _checked("PINHOLE", numbers, width, height, f"--intrinsics {text}")
    return found


def _from_json(path: Path, photos: Sequence[SizedPhoto]) -> dict[str, Intrinsics]:
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as JSON ({error})") from None
    images = data.get("images") if isinstance(data, dict) else data
    if not isinstance(images, list) or not images:
        raise UsageError(
            f"{path}: has no list 'images' with name, width, height, fx, fy, cx, cy of each photo"
        )
    known: dict[str, Intrinsics] = {}
    for entry in images:
        try:
            name = str(entry["name"])
            params = tuple(float(entry[key]) for key in ("fx", "fy", "cx", "cy"))
            width, height = int(entry["width"]), int(entry["height"])
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{path}: entry {_short(entry)}: {_reason(error)}") from None
        known[name] = _checked("PINHOLE", params, width, height, f"{path}: {name}")
    by_name = _match_names([photo.name for photo in photos], known)
    if not by_name:
        raise UsageError(
            f"{path}: knows none of the photos (it has {_some(known)}, the photos are "
            f"{_some(photo.name for photo in photos)}); names must agree"
        )
    return _at_photos(photos, {photo: known[name] for photo, name in by_name.items()}, path)


def _from_colmap(path: Path, photos: Sequence[SizedPhoto]) -> dict[str, Intrinsics]:
    """Cameras of COLMAP's text format, given to photos by images.txt beside it, or by their size."""
    cameras: dict[str, Intrinsics] = {}
    for line in _lines(path):
        parts = line.split()
        where = f"{path}: camera {parts[0]}"
        try:
            model, width, height = parts[1], int(parts[2]), int(parts[3])
            params = [float(part) for part in parts[4:]]
        except (IndexError, ValueError):
            raise UsageError(f"{path}: not a line of COLMAP's cameras.txt: {line[:60]}") from None
        if model not in _MODELS:
            raise UsageError(f"{where}: unknown model {model}; known are: {', '.join(_MODELS)}")
        if len(params) == NUMBER_OF_PARAMS[model]:
            for index in FOCAL_AND_CENTRE[model][2:]:
                params[index] -= _COLMAP_PIXEL_CENTRE
        cameras[parts[0]] = _checked(model, tuple(params), width, height, where)
    if not cameras:
        raise UsageError(f"{path}: holds no camera")
    camera_of = _camera_of_photo(path, cameras, photos)
    if not camera_of:
        raise UsageError(
            f"{path}: none of its cameras fits the photos: {_some(photo.name for photo in photos)}; "
            "keep COLMAP's images.txt beside it, or give a cameras.json"
        )
    return _at_photos(photos, {photo: cameras[number] for photo, number in camera_of.items()}, path)


def _at_photos(
    photos: Sequence[SizedPhoto], known: Mapping[str, Intrinsics], path: Path
) -> dict[str, Intrinsics]:
    """The intrinsics of the photos that have some, at the photos' size."""
    return {
        photo.name: resized_to_photo(
            known[photo.name], photo.original_width, photo.original_height, f"{path}: {photo.name}"
        )
        for photo in photos
        if photo.name in known
    }


def _camera_of_photo(
    path: Path, cameras: Mapping[str, Intrinsics], photos: Sequence[SizedPhoto]
) -> dict[str, str]:
    """The camera of each photo: by images.txt, else the only camera, else the only one of its size."""
    listing = path.with_name("images.txt")
    if listing.is_file():
        # Every image is two lines, the second one (its points, possibly empty) is of no interest.
        of_image: dict[str, str] = {}
        rows = [row for row in _text(listing).split("\n") if not row.startswith("#")]
        for row in rows[::2]:
            parts = row.split(maxsplit=9)
            if len(parts) == 10:
                of_image[parts[9].strip()] = parts[8]
        by_name = _match_names([photo.name for photo in photos], of_image)
        return {name: of_image[image] for name, image in by_name.items() if of_image[image] in cameras}
    if len(cameras) == 1:
        only = next(iter(cameras))
        return {photo.name: only for photo in photos}
    by_size: dict[tuple[int, int], list[str]] = {}
    for key, camera in cameras.items():
        by_size.setdefault((camera.width, camera.height), []).append(key)
    found: dict[str, str] = {}
    for photo in photos:
        fitting = by_size.get((photo.original_width, photo.original_height), [])
        if len(fitting) > 1:
            raise UsageError(
                f"{path}: several cameras ({', '.join(fitting[:4])}) have the size of {photo.name}; "
                "keep COLMAP's images.txt beside it, or give a cameras.json"
            )
        if fitting:
            found[photo.name] = fitting[0]
    return found


def _checked(model: str, params: tuple[float, ...], width: int, height: int, what: str) -> Intrinsics:
    """Known intrinsics, or an error when they can't be true."""
    if width <= 0 or height <= 0:
        raise UsageError(f"{what}: the image size {width}x{height} is not positive")
    if len(params) != NUMBER_OF_PARAMS[model]:
        raise UsageError(f"{what}: {model} has {NUMBER_OF_PARAMS[model]} parameters, {len(params)} are given")
    fx, fy, cx, cy = (params[index] for index in FOCAL_AND_CENTRE[model])
    if not all(math.isfinite(value) for value in params) or fx <= 0 or fy <= 0:
        raise UsageError(f"{what}: focal lengths must be positive numbers, not {fx:g} and {fy:g}")
    if not (-width < cx < 2 * width and -height < cy < 2 * height):
        raise UsageError(
            f"{what}: the principal point ({cx:g}, {cy:g}) is far outside of {width}x{height} pixels"
        )
    return Intrinsics(model, params, width, height, known=True, has_focal_prior=True)


def _match_names(names: Sequence[str], known: Iterable[str]) -> dict[str, str]:
    """Photo name to known name: same path, else same file name, else same without suffix, if unique."""
    listed = list(known)
    found = {name: name for name in names if name in set(listed)}
    by: tuple[Callable[[str], str], ...] = (lambda n: PurePosixPath(n).name, lambda n: PurePosixPath(n).stem)
    for key in by:
        places: dict[str, list[str]] = {}
        for one in listed:
            places.setdefault(key(one), []).append(one)
        twice = Counter(key(name) for name in names)
        for name in names:
            fitting = places.get(key(name), [])
            if name not in found and len(fitting) == 1 and twice[key(name)] == 1:
                found[name] = fitting[0]
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from None


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in _text(path).splitlines() if line.strip() and not line.startswith("#")]


def _reason(error: Exception) -> str:
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)


def _short(entry: Any) -> str:
    text = entry.get("name", entry) if isinstance(entry, dict) else entry
    return str(text)[:40]


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "")
