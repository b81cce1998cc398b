"""Finds photos and their masks in folders."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from recon.errors import ReconError, UsageError
from recon.photos.reading import PHOTO_SUFFIXES

_WORKSPACE_FILES = ("manifest.json", "recipe.toml")
"""A folder that holds both is a workspace: its pictures are results, not photos."""


@dataclass(frozen=True)
class PhotoFile:
    """A file that may be a photo: its name relative to the photo folder (forward slashes), and its path."""

    name: str
    path: Path


def scan_folder(folder: Path | str, exclude: Iterable[Path | str] = ()) -> tuple[PhotoFile, ...]:
    """All files below a folder that are photos by their suffix, sorted by name.

    Hidden files and folders, workspaces, and the folders in ``exclude`` are passed over; links are followed.

    Raises:
        UsageError: the folder is not there or is no folder.
        ReconError: it cannot be read.
    """
    root = Path(folder).expanduser()
    if not root.exists():
        raise UsageError(f"{root}: there is no such folder; give the folder that holds the photos")
    if not root.is_dir():
        raise UsageError(f"{root}: is a file; give the folder that holds the photos")
    passed_over = {Path(one).expanduser().resolve() for one in exclude}
    seen: set[Path] = set()
    found: list[PhotoFile] = []

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
            and (real / one).resolve() not in passed_over
            and not all((real / one / mark).is_file() for mark in _WORKSPACE_FILES)
        )
        for name in names:
            path = Path(place, name)
            if not name.startswith(".") and path.suffix.lower() in PHOTO_SUFFIXES and path.is_file():
                found.append(PhotoFile(path.relative_to(root).as_posix(), path))
    return tuple(sorted(found, key=lambda one: one.name))


def find_masks(folder: Path | str, photos: Iterable[PhotoFile]) -> dict[str, Path]:
    """The mask file of each photo that has one, by the photo's name.

    Looked for: ``name.png`` and ``name.jpg.png`` (COLMAP's way) for ``name.jpg``, at the same place below the
    folder.

    Raises:
        UsageError: the folder is not there, or holds no mask for any of the photos.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise UsageError(f"{root}: there is no such folder; --masks is a folder with a PNG for each photo")
    masks: dict[str, Path] = {}
    names = [photo.name for photo in photos]
    for name in names:
        for candidate in (f"{name}.png", str(Path(name).with_suffix(".png"))):
            path = root / candidate
            if path.is_file():
                masks[name] = path
                break
    if names and not masks:
        raise UsageError(
            f"{root}: holds no mask for any photo; for {names[0]} it would be "
            f"{Path(names[0]).with_suffix('.png').as_posix()} or {names[0]}.png"
        )
    return masks


def file_sha256(path: Path | str) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        ReconError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise ReconError(f"{path}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()
