"""The photo set of a run on disk: ``photos.json``, and a PNG for every photo and mask."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from recon.core.cameras import Intrinsics
from recon.photos.types import LeftOut, Photo, PhotoSet

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


def photo_set_from_json(data: Mapping[str, Any]) -> PhotoSet:
    """The inverse of ``photo_set_to_json``."""
    photos = []
    for entry in data["photos"]:
        position = entry["latitude_longitude_altitude"]
        photos.append(
            Photo(**{**entry, "latitude_longitude_altitude": tuple(position) if position else None})
        )
    cameras = tuple(Intrinsics(**{**entry, "params": tuple(entry["params"])}) for entry in data["cameras"])
    return PhotoSet(tuple(photos), cameras, tuple(LeftOut(**entry) for entry in data["left_out"]))
