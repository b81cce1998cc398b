"""Frames of films: which ones to take, and their pixels.

A film holds far more frames than a reconstruction needs, most of them shaken or a hair away from the last. Frames are
taken by how far the picture has moved, and among those at the right distance the sharpest. Reading is OpenCV's, with
the FFmpeg that its wheel brings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float64, UInt8

from recon.errors import ReconError
from recon.io.pictures import check_film_name

FILM_SUFFIXES = frozenset(
    {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".mts", ".m2ts", ".3gp"}
)

FRAME_STEP = 0.08
"""Motion between chosen frames, in parts of the image diagonal: neighbours then share about nine tenths."""
MOST_FRAMES = 300
"""Frames that are taken at most when nobody asks for a number."""

# Each film is looked at about ten times a second: hand-held motion does not outrun that, and of six frames in a row
# of a 60 Hz film one is as good as another.
_LOOKS_PER_SECOND = 10.0
# Longest side at which motion and sharpness are measured, pixels.
_LOOK_SIZE = 480
# Corners that are followed, and the share of them that must survive before new ones are looked for.
_CORNERS = 300
_SURVIVING = 0.6
# The corners are also renewed when they have moved so far (parts of the diagonal); until then, shaking to and fro
# does not add up.
_RENEW = 0.05
# A look that keeps fewer corners than this shows another place: a cut, a flash or a hand before the lens.
_FEWEST_CORNERS = 12
# How far from its ideal place a frame may be chosen for its sharpness, in parts of the step.
_SLACK = 0.35


@dataclass(frozen=True)
class FilmLook:
    """Frames and motion found in one pass over a film.

    Attributes:
        index: frame number of each look, counted from 0 in decoding order.
        seconds: presentation time.
        motion: path of the picture since the first look, in parts of the image diagonal; never falls.
        sharpness: mean squared gradient; comparable between neighbours only.
        frame_count: frames that could be decoded.
        width, height: of the upright frames, pixels.
    """

    index: tuple[int, ...]
    seconds: Float64[np.ndarray, " n"]
    motion: Float64[np.ndarray, " n"]
    sharpness: Float64[np.ndarray, " n"]
    frame_count: int
    width: int
    height: int


@dataclass(frozen=True)
class FilmFrame:
    """A frame to take: its number in decoding order and its time in seconds."""

    index: int
    seconds: float


class _Follower:
    """Follows corners through the looks and adds up how far the picture has moved."""

    def __init__(self) -> None:
        self._last: UInt8[np.ndarray, "h w"] | None = None
        self._start = np.zeros((0, 2), np.float32)
        self._now = np.zeros((0, 2), np.float32)
        self._begun_with = 0
        self._base = 0.0
        self.path = 0.0

    def add(self, grey: UInt8[np.ndarray, "h w"]) -> float:
        """Path up to this look, in parts of the diagonal."""
        if self._last is None:
            self._renew(grey)
            return self.path
        diagonal = math.hypot(*grey.shape)
        self._track(grey)
        if len(self._now) < _FEWEST_CORNERS:
            self.path += (
                FRAME_STEP  # nothing can be measured; take it for a full step, so that a frame is chosen
            )
            self._renew(grey)
            return self.path
        moved = float(np.median(np.linalg.norm(self._now - self._start, axis=1))) / diagonal
        self.path = max(self.path, self._base + moved)
        if moved > _RENEW or len(self._now) < _SURVIVING * self._begun_with:
            self._renew(grey)
        self._last = grey
        return self.path

    def _track(self, grey: UInt8[np.ndarray, "h w"]) -> None:
        if not len(self._now):
            return
        assert self._last is not None
        ahead, found, _ = cv2.calcOpticalFlowPyrLK(self._last, grey, self._now[:, None], None)
        back, returned, _ = cv2.calcOpticalFlowPyrLK(grey, self._last, ahead, None)
        good = (found.ravel() == 1) & (returned.ravel() == 1)
        good &= np.linalg.norm(back[:, 0] - self._now, axis=1) < 1.0
        self._start, self._now = self._start[good], ahead[good, 0]

    def _renew(self, grey: UInt8[np.ndarray, "h w"]) -> None:
        corners = cv2.goodFeaturesToTrack(grey, _CORNERS, 0.01, 8)
        self._start = np.zeros((0, 2), np.float32) if corners is None else corners.reshape(-1, 2)
        self._now = self._start.copy()
        self._begun_with = len(self._start)
        self._base = self.path
        self._last = grey


def look_through_film(path: Path, progress: Callable[[int], None] | None = None) -> FilmLook:
    """Measure motion and sharpness all through a film.

    Memory does not grow with its length.

    Args:
        path: of the film.
        progress: called with the number of frames decoded since the last call.

    Raises:
        ReconError: it cannot be decoded, or holds no frame.
    """
    follower = _Follower()
    index, seconds, motion, sharpness = [], [], [], []
    due, count, size = -math.inf, 0, (0, 0)
    for number, time, retrieve in _decoded(path):
        count = number + 1
        if time >= due:
            frame = retrieve()
            if frame is not None:
                due = time + 1.0 / _LOOKS_PER_SECOND - 1e-6
                size = (frame.shape[1], frame.shape[0])
                grey = _small_grey(frame)
                index.append(number)
                seconds.append(time)
                motion.append(follower.add(grey))
                sharpness.append(_sharpness(grey))
        if progress is not None:
            progress(1)
    if not index:
        raise ReconError(
            f"{path}: holds no frame that can be decoded; convert it to MP4 (H.264), or give the frames"
        )
    return FilmLook(
        tuple(index), np.array(seconds), np.array(motion), np.array(sharpness), count, size[0], size[1]
    )


def choose_frames(look: FilmLook, count: int | None = None) -> tuple[FilmFrame, ...]:
    """Choose frames at equal steps of motion, each the sharpest near its place.

    Args:
        look: of ``look_through_film``.
        count: how many; None for as many as the motion asks for (steps of ``FRAME_STEP``, at most ``MOST_FRAMES``).

    Returns:
        In the order of time; fewer than ``count`` where the film was looked at less often.
    """
    total = float(look.motion[-1])
    wanted = count if count is not None else min(MOST_FRAMES, math.floor(total / FRAME_STEP) + 1)
    wanted = max(1, min(wanted, len(look.index)))
    if wanted == 1:
        best = int(np.argmax(look.sharpness))
        return (FilmFrame(look.index[best], float(look.seconds[best])),)
    # Where the picture stands still, time decides: the same few looks must not be asked for over and over.
    place = look.motion + 1e-6 * np.arange(len(look.motion))
    step = (place[-1] - place[0]) / (wanted - 1)
    chosen: list[int] = []
    for k in range(wanted):
        target = place[0] + k * step
        first = int(np.searchsorted(place, target - _SLACK * step))
        last = int(np.searchsorted(place, target + _SLACK * step, side="right"))
        if chosen:
            first = max(first, chosen[-1] + 1)
        if last <= first:  # no look lies so near: the one that comes next
            first = int(np.searchsorted(place, target))
            first = max(first, chosen[-1] + 1 if chosen else 0)
            last = first + 1
        if first < len(place):
            last = min(last, len(place))
            chosen.append(first + int(np.argmax(look.sharpness[first:last])))
    return tuple(FilmFrame(look.index[i], float(look.seconds[i])) for i in chosen)


def frames_wanted(look: FilmLook) -> int:
    """Number of frames that the motion asks for, without the bound."""
    return math.floor(float(look.motion[-1]) / FRAME_STEP) + 1


def read_frames(
    path: Path, frames: tuple[FilmFrame, ...], progress: Callable[[int], None] | None = None
) -> Iterator[tuple[FilmFrame, UInt8[np.ndarray, "h w 3"]]]:
    """Yield the upright RGB pixels of these frames, one at a time.

    Raises:
        ReconError: a frame that was there at the first pass cannot be decoded.
    """
    wanted = {frame.index: frame for frame in frames}
    for number, _, retrieve in _decoded(path):
        if progress is not None:
            progress(1)
        if number in wanted:
            bgr = retrieve()
            if bgr is not None:
                frame = wanted.pop(number)
                yield frame, np.ascontiguousarray(bgr[:, :, ::-1])
        if not wanted:
            return
    if wanted:
        raise ReconError(f"{path}: {len(wanted)} chosen frames cannot be decoded again; copy the film anew")


def frame_count_estimate(path: Path) -> int | None:
    """Number of frames that the container states; None where it states none. For progress bars only."""
    capture = _open(path)
    stated = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    return stated if stated > 0 else None


def _open(path: Path) -> cv2.VideoCapture:
    if not path.is_file():
        raise ReconError(f"{path}: there is no such file")
    check_film_name(path, "rename the film")
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise ReconError(
            f"{path}: is no film that can be decoded; convert it to MP4 (H.264), or give the frames as photos"
        )
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
    return capture


def _decoded(path: Path) -> Iterator[tuple[int, float, Callable[[], UInt8[np.ndarray, "h w 3"] | None]]]:
    """Number, time and a way to the pixels (BGR, upright) of each frame in turn."""
    capture = _open(path)
    rate = capture.get(cv2.CAP_PROP_FPS)
    rate = rate if math.isfinite(rate) and rate > 0 else 25.0

    def retrieve() -> UInt8[np.ndarray, "h w 3"] | None:
        done, frame = capture.retrieve()
        return np.asarray(frame) if done and frame is not None and frame.ndim == 3 else None

    try:
        number, before = 0, -math.inf
        while capture.grab():
            time = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0
            if not math.isfinite(time) or time <= before:  # a container without time stamps
                time = before + 1.0 / rate if math.isfinite(before) else number / rate
            before = time
            yield number, time, retrieve
            number += 1
    finally:
        capture.release()


def _small_grey(bgr: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w"]:
    factor = min(1.0, _LOOK_SIZE / max(bgr.shape[:2]))
    grey = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
    if factor < 1.0:
        size = (max(1, round(grey.shape[1] * factor)), max(1, round(grey.shape[0] * factor)))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return np.asarray(grey)


def _sharpness(grey: UInt8[np.ndarray, "h w"]) -> float:
    values = grey.astype(np.float32)
    return float(np.mean(np.diff(values, axis=0) ** 2) + np.mean(np.diff(values, axis=1) ** 2))
