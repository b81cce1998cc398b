"""Frames of films, taken into the workspace as photos; part of the stage ``photos``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2

from recon.engine.stage import StageContext
from recon.errors import ReconError
from recon.photos.films import (
    choose_frames,
    frame_count_estimate,
    frames_wanted,
    look_through_film,
    read_frames,
)
from recon.photos.scanning import PhotoFile
from recon.photos.types import LeftOut

FOLDER = "frames"
LISTING = "frames.json"
"""Which frame of which film each photo is, and its time in seconds."""

_JPEG_QUALITY = 95
_WHOLE = 0.8
"""A film of which this part can be decoded is whole: what containers state is an estimate."""


def take_frames(
    films: tuple[PhotoFile, ...], work: StageContext
) -> tuple[tuple[PhotoFile, ...], list[LeftOut]]:
    """Write the frames to use of every film to ``frames/``.

    Returns:
        The frames as photos, each named after its film and its number, and films that could not be read.
    """
    if not films:
        work.remove(FOLDER)
        return (), []
    taken: list[tuple[PhotoFile, dict[str, Any]]] = []
    bad: list[LeftOut] = []
    with work.fresh_directory(FOLDER) as folder:
        for film in films:
            try:
                taken += _frames_of(film, folder, work)
            except ReconError as error:
                bad.append(LeftOut(film.name, str(error).removeprefix(f"{film.path}: ")))
        listing = [facts for _, facts in taken]
        (folder / LISTING).write_text(
            json.dumps(listing, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    in_place = work.path(FOLDER)
    return tuple(PhotoFile(photo.name, in_place / photo.name) for photo, _ in taken), bad


def _frames_of(film: PhotoFile, folder: Path, work: StageContext) -> list[tuple[PhotoFile, dict[str, Any]]]:
    asked = work.inputs.frames
    total = frame_count_estimate(film.path)
    with work.progress(total, f"looking through {film.path.name}") as bar:
        look = look_through_film(film.path, bar.update)
    if total is not None and look.frame_count < _WHOLE * total:
        work.warn(
            f"{film.name}: only {look.frame_count} of its {total} frames can be decoded; the rest is damaged"
        )
    frames = choose_frames(look, asked)
    wanted = frames_wanted(look)
    if asked is None and wanted > len(frames):
        work.warn(
            f"{film.name}: its motion asks for {wanted} frames, {len(frames)} are taken; "
            "--frames N takes another number"
        )
    taken: list[tuple[PhotoFile, dict[str, Any]]] = []
    with work.progress(total, f"taking {len(frames)} frames") as bar:
        for frame, rgb in read_frames(film.path, frames, bar.update):
            name = f"{film.name}/frame_{frame.index:06d}.jpg"
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            done, data = cv2.imencode(".jpg", rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
            if not done:
                raise ValueError(f"no JPEG for an array of shape {rgb.shape}")
            path.write_bytes(bytes(data))
            facts = {
                "photo": name,
                "film": film.name,
                "frame": frame.index,
                "seconds": round(frame.seconds, 6),
            }
            taken.append((PhotoFile(name, path), facts))
    work.log.info(
        "%s: %d of %d frames taken (%dx%d, %.1f s, motion of %.1f image diagonals)",
        film.name, len(taken), look.frame_count, look.width, look.height, look.seconds[-1], look.motion[-1],
    )  # fmt: skip
    return taken
