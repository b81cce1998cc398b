"""Finds photos, films and masks in what a user names: folders, files, patterns, lists of names."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from recon.errors import ReconError, UsageError
from recon.io.files import file_sha256
from recon.photos.films import FILM_SUFFIXES
from recon.photos.reading import IMAGE_NAMES, MOST_PIXELS, PHOTO_SUFFIXES, RAW_SUFFIXES, looks_like_image
from recon.photos.types import LeftOut

_WORKSPACE_FILES = ("manifest.json", "recipe.toml")
"""A folder that holds both is a workspace: its pictures are results, not photos."""

_LIST_SUFFIXES = frozenset({".txt", ".lst", ".list"})
"""A file of these kinds in the place of a photo is a list of names."""

# What operating systems leave in folders; nobody wants to hear of it.
_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db"})

# Folders in which systems and programs keep small copies of photos, or what was thrown away.
_SYSTEM_FOLDERS = frozenset(
    {
        "@eadir",
        "thumbnails",
        "thumbs",
        "#recycle",
        "$recycle.bin",
        "__macosx",
        "lost+found",
        "system volume information",
    }
)

# Cameras write a small copy of a photo or film beside it under these names.
_COPIES = frozenset({".thm", ".lrv"})

# Usual names of a mask, around the photo's own name: COLMAP "IMG_0.jpg.png", OpenDroneMap "IMG_0_mask.JPG",
# RealityCapture "IMG_0.jpg.mask.png", and their kin.
_MASK_NAMES = re.compile(r"^(?:mask[_-](?P<after>.+)|(?P<before>.+?)[._-]mask)$", re.IGNORECASE)

# Folders beside photos that hold masks.
_MASK_FOLDERS = frozenset({"mask", "masks"})

# A mask beside a photo has hardly any pixel that is neither nearly black nor nearly white (grey levels, share).
_MASK_TOLERANCE, _MASK_SHARE = 48, 0.98


@dataclass(frozen=True)
class PhotoFile:
    """A file that may be a photo: its name relative to the photo folder (forward slashes), and its path."""

    name: str
    path: Path


@dataclass(frozen=True)
class Found:
    """Contents of the places that the user named.

    Attributes:
        photos: files to read as photos, sorted by name.
        films: films to take frames from, sorted by name.
        masks: masks that lie beside photos, by the photo's name.
        passed_over: files that are neither, and why.
        folder: that the names are relative to.
    """

    photos: tuple[PhotoFile, ...]
    films: tuple[PhotoFile, ...] = ()
    masks: Mapping[str, Path] = field(default_factory=dict)
    passed_over: tuple[LeftOut, ...] = ()
    folder: Path = Path()

    @property
    def passed_over_in_words(self) -> str:
        """The files that were passed over, the first with their reasons."""
        count = len(self.passed_over)
        first = "; ".join(f"{one.name} {one.reason}" for one in self.passed_over[:5])
        more = f"; and {count - 5} more" if count > 5 else ""
        return f"passed over {count} file{'s' * (count > 1)}: {first}{more}"


def find_photos(sources: Sequence[Path | str], exclude: Iterable[Path | str] = ()) -> Found:
    """Find the photos and films of folders, files, patterns and lists of names.

    Args:
        sources: each a folder (searched with all below it), a photo, a film, a pattern such as ``DCIM/*.JPG``, or
            a text file with one name a line (relative to its folder; lines that begin with # are skipped).
        exclude: folders and files to pass over.

    Raises:
        UsageError: a source is not there, a pattern matches nothing, a list names a file that is not there.
        ReconError: a folder or list cannot be read.
    """
    passed_over = {Path(one).expanduser().resolve() for one in exclude}
    places, root = _places(sources)
    files: dict[str, Path] = {}
    for place in places:
        for path in _below(place, passed_over) if place.is_dir() else [place]:
            files.setdefault(Path(os.path.relpath(path, root)).as_posix(), path)
    return _sorted_out(files, root)


def source_folder(sources: Sequence[Path | str]) -> Path:
    """The folder that the names of the photos of these sources are relative to.

    Raises:
        UsageError: as ``find_photos``.
    """
    return _places(sources)[1]


def _places(sources: Sequence[Path | str]) -> tuple[list[Path], Path]:
    """The files and folders that all sources stand for, and the folder that holds them."""
    places = [place for source in sources for place in _expand(Path(source).expanduser())]
    if not places:
        named = f"{', '.join(str(source) for source in sources)}: " if sources else ""
        raise UsageError(f"{named}no photos are named; give a folder, files, a film, or a text file of names")
    return places, places[0] if len(places) == 1 and places[0].is_dir() else _common_folder(places)


def _expand(source: Path) -> Iterator[Path]:
    """The files and folders that one source stands for."""
    if source.is_dir():
        yield source
    elif source.is_file():
        if source.suffix.lower() in _LIST_SUFFIXES:
            yield from _listed(source)
        else:
            yield source
    elif glob.has_magic(str(source)):
        matches = sorted(Path(one) for one in glob.glob(str(source), recursive=True))
        if not matches:
            raise UsageError(f"{source}: no file has a name like this")
        yield from matches
    else:
        raise UsageError(f"{source}: there is no such file or folder; give the folder that holds the photos")


def _listed(path: Path) -> Iterator[Path]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ReconError(f"{path}: is no UTF-8 text; a list holds one photo's name a line") from None
    except OSError as error:
        raise ReconError(f"{path}: cannot be read ({error.strerror})") from error
    for number, line in enumerate(lines, 1):
        name = line.strip()
        if not name or name.startswith("#"):
            continue
        one = path.parent / Path(name).expanduser()
        if not one.exists():
            raise UsageError(f"{path}, line {number}: {one}: there is no such file")
        yield one


def _common_folder(places: Sequence[Path]) -> Path:
    folders = [str((place if place.is_dir() else place.parent).resolve()) for place in places]
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:  # several drives
        return Path(places[0].anchor)


def _below(root: Path, passed_over: set[Path]) -> Iterator[Path]:
    """All files below a folder that are not hidden, not in a workspace, not passed over."""
    seen: set[Path] = set()

    def refuse(error: OSError) -> None:
        raise ReconError(f"{error.filename}: the folder cannot be read ({error.strerror})")

    for place, folders, names in os.walk(root, followlinks=True, onerror=refuse):
        real = Path(place).resolve()
        if real in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(
            one
            for one in folders
            if not one.startswith(".")
            and one.lower() not in _SYSTEM_FOLDERS
            and (real / one).resolve() not in passed_over
            and not all((real / one / mark).is_file() for mark in _WORKSPACE_FILES)
        )
        for name in names:
            path = Path(place, name)
            if not name.startswith(".") and name.lower() not in _SYSTEM_FILES:
                yield path


def _sorted_out(files: Mapping[str, Path], root: Path) -> Found:
    """Photos, films, masks beside photos, and what is none of these."""
    photos: dict[str, Path] = {}
    films, passed_over = [], []
    for name, path in sorted(files.items()):
        suffix = path.suffix.lower()
        if not _is_file(path):
            reason = (
                "is a link to nothing" if path.is_symlink() else "is no file that could be read to its end"
            )
            passed_over.append(LeftOut(name, reason))
        elif suffix in FILM_SUFFIXES:
            films.append(PhotoFile(name, path))
        elif suffix not in _COPIES and (suffix in PHOTO_SUFFIXES or looks_like_image(path)):
            photos[name] = path
        elif suffix in _COPIES:
            passed_over.append(LeftOut(name, "is a small copy that the camera made"))
        else:
            passed_over.append(LeftOut(name, f"is no photo (read are {IMAGE_NAMES}) and no film"))
    masks = _masks_beside(photos)
    for path in masks.values():
        photos = {name: one for name, one in photos.items() if one != path}
    for name in _developed_twice(photos):
        del photos[name]
        passed_over.append(LeftOut(name, "is the raw file of a photo that lies beside it"))
    found = tuple(PhotoFile(name, path) for name, path in photos.items())
    return Found(found, tuple(films), masks, tuple(passed_over), root)


def _is_file(path: Path) -> bool:
    """Tell a file from a pipe, a device, a link to nothing or to itself."""
    try:
        return path.is_file()
    except OSError:
        return False


def _developed_twice(photos: Mapping[str, Path]) -> list[str]:
    """Raw files beside which the camera has put the developed photo under the same name."""
    developed = {_stem(name) for name in photos if PurePosixPath(name).suffix.lower() not in RAW_SUFFIXES}
    return [
        name
        for name in photos
        if PurePosixPath(name).suffix.lower() in RAW_SUFFIXES and _stem(name) in developed
    ]


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix("")).lower()


def _masks_beside(photos: Mapping[str, Path]) -> dict[str, Path]:
    """Masks among the photos, by the photo's name: named like one, and black and white."""
    by_name = {name.lower(): name for name in photos}
    by_stem: dict[str, str] = {}
    for name in photos:
        by_stem.setdefault(_stem(name), name)
    masks: dict[str, Path] = {}
    for name, path in photos.items():
        for wanted in _photos_of_mask(name):
            owner = by_name.get(wanted) or by_stem.get(wanted)
            if owner is not None and owner != name and owner not in masks and _is_black_and_white(path):
                masks[owner] = path
                break
    return masks


def _photos_of_mask(name: str) -> Iterator[str]:
    """Lower-case names and stems of the photos that a file of this name would be the mask of."""
    place, stem = PurePosixPath(name).parent, PurePosixPath(name).stem
    cores = []
    if match := _MASK_NAMES.match(stem):
        cores.append(match["after"] or match["before"])
    if PurePosixPath(stem).suffix.lower() in PHOTO_SUFFIXES:
        cores.append(stem)
    for core in cores:
        yield str(place / core).lower()
    if place.name.lower() in _MASK_FOLDERS:
        for core in [*cores, stem]:
            yield str(place.parent / core).lower()
            yield str(place.parent / "images" / core).lower()


def _is_black_and_white(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.draft("L", (512, 512))
            if image.width * image.height > MOST_PIXELS:
                return False
            values = np.asarray(image.convert("L").resize((256, 256), Image.Resampling.NEAREST))
    except (
        Exception
    ):  # Pillow's plugins raise whatever a damaged file leads them to; as a photo it gets its reason
        return False
    if values.max() <= 1:  # some tools write 0 and 1
        return bool(values.max() == 1)
    extreme = (values < _MASK_TOLERANCE) | (values > 255 - _MASK_TOLERANCE)
    return bool(extreme.mean() >= _MASK_SHARE)


def find_masks(folder: Path | str, photos: Iterable[PhotoFile]) -> dict[str, Path]:
    """Find the mask file of each photo that has one, by the photo's name.

    Looked for at the same place below the folder, whatever the case and the kind of image: for ``name.jpg`` the files
    ``name.png``, ``name.jpg.png`` (COLMAP), ``name_mask.png`` (OpenDroneMap), ``name.mask.png``, ``mask_name.png``.

    Raises:
        UsageError: the folder is not there, or holds no mask for any of the photos.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise UsageError(f"{root}: there is no such folder; --masks is a folder with a PNG for each photo")
    files = {path.relative_to(root).as_posix(): path for path in _below(root, set())}
    of_core: dict[str, Path] = {}
    for name, path in sorted(files.items(), key=lambda item: (item[1].suffix.lower() != ".png", item[0])):
        if path.suffix.lower() in PHOTO_SUFFIXES and _is_file(path):
            for core in (*_photos_of_mask(name), _stem(name)):
                of_core.setdefault(core, path)
    names = [photo.name for photo in photos]
    masks: dict[str, Path] = {}
    for name in names:
        found = of_core.get(name.lower()) or of_core.get(_stem(name))
        if found is not None:
            masks[name] = found
    if names and not masks:
        raise UsageError(
            f"{root}: holds no mask for any photo; for {names[0]} it would be "
            f"{Path(names[0]).with_suffix('.png').as_posix()} or {names[0]}.png"
        )
    return masks


def photo_sha256(path: Path | str) -> str:
    """SHA-256 of a photo's file, in hexadecimal.

    Raises:
        ReconError: it cannot be read.
    """
    try:
        return file_sha256(path)
    except OSError as error:
        raise ReconError(f"{path}: cannot be read ({error.strerror})") from error
