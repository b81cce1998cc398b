"""The photo set of a run on disk: ``photos.json``, and a PNG for every photo and mask."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from recon.core.cameras import NUMBER_OF_PARAMS
from recon.photos.types import PhotoSet

PHOTO_SET = "photos.json"
PHOTOS = "photos"

_LONGEST_NAME = 200
"""Bytes of a flat file name without its suffixes; file systems take 255 in all."""


def photo_file(name: str) -> str:
    """A flat file name for a photo in nested folders; different names stay different.

    A name that is too long for a file is cut, and told apart by a hash.
    """
    flat = name.replace("%", "%25").replace("/", "%2F")
    if len(flat.encode("utf-8", "surrogateescape")) > _LONGEST_NAME:
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        start = flat.encode("utf-8", "surrogateescape")[: _LONGEST_NAME - len(digest) - 3]
        flat = f"{start.decode('utf-8', 'ignore')}%23{digest}"
    return flat + ".png"


def mask_file(name: str) -> str:
    """The file name of a photo's mask."""
    return photo_file(name).removesuffix(".png") + ".mask.png"


def photo_set_to_json(photo_set: PhotoSet) -> dict[str, Any]:
    """A photo set as JSON values."""
    return asdict(photo_set)


def photo_set_from_json(data: Any) -> PhotoSet:
    """The inverse of ``photo_set_to_json``.

    Raises:
        ValueError: it is no photo set, or one that contradicts itself.
    """
    found = checked(PhotoSet, data)
    for number, photo in enumerate(found.photos):
        if photo.id != number or not 0 <= photo.camera < len(found.cameras):
            raise ValueError(f"photo {photo.name} has a wrong id or camera")
        if min(photo.width, photo.height, photo.original_width, photo.original_height) < 1:
            raise ValueError(f"photo {photo.name} has no size")
    for camera in found.cameras:
        if len(camera.params) != NUMBER_OF_PARAMS.get(camera.model) or not all(
            map(math.isfinite, camera.params)
        ):
            raise ValueError(f"no camera is {camera.model} with {camera.params}")
        if min(camera.width, camera.height) < 1:
            raise ValueError("a camera has no size")
    return found


Stored = TypeVar("Stored")


def checked(kind: type[Stored], data: Any) -> Stored:
    """JSON values as a type, of dataclasses for example.

    Raises:
        ValueError: they are something else; the message says where.
    """
    try:
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from error
