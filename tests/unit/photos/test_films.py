"""Films: motion, sharpness, time stamps and rotation against films whose every frame is known."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from recon.errors import ReconError
from recon.photos.films import (
    FRAME_STEP,
    FilmFrame,
    choose_frames,
    frames_wanted,
    look_through_film,
    read_frames,
)

av = pytest.importorskip("av")

WIDTH, HEIGHT = 320, 192
DIAGONAL = float(np.hypot(WIDTH, HEIGHT))


def wall() -> np.ndarray:
    """A wide smooth random picture to pan over."""
    noise = np.random.default_rng(3).integers(0, 256, (HEIGHT, 1200, 3), dtype=np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)


def make_film(
    path: Path, offsets: np.ndarray, seconds: np.ndarray, blurred: frozenset[int] = frozenset()
) -> np.ndarray:
    """A pan: frame i shows the wall from ``offsets[i]`` on, at time ``seconds[i]``. Returns the frames in RGB."""
    picture, frames = wall(), []
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, (offset, time) in enumerate(zip(offsets, seconds, strict=True)):
            shift = np.float32([[1, 0, -offset], [0, 1, 0]])
            frame = cv2.warpAffine(picture, shift, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
            if number in blurred:
                frame = cv2.GaussianBlur(frame, (0, 0), 6)
            frames.append(frame)
            video = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            video.pts, video.time_base = round(float(time) * 1000), Fraction(1, 1000)
            for packet in stream.encode(video):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return np.array(frames)


def test_motion_and_times_of_a_film_with_a_variable_frame_rate(tmp_path: Path) -> None:
    # One second at rest with 30 frames, then a pan over 600 pixels with 10 frames a second.
    seconds = np.concatenate([np.arange(30) / 30, 1 + np.arange(40) / 10])
    offsets = np.concatenate([np.zeros(30), np.linspace(0, 600, 40)])
    make_film(tmp_path / "a.mp4", offsets, seconds)
    look = look_through_film(tmp_path / "a.mp4")
    assert (look.frame_count, look.width, look.height) == (70, WIDTH, HEIGHT)
    np.testing.assert_allclose(look.seconds, seconds[list(look.index)], atol=0.002)
    np.testing.assert_allclose(look.motion, offsets[list(look.index)] / DIAGONAL, atol=0.03)
    chosen = choose_frames(look)
    assert len(chosen) == frames_wanted(look) == int(600 / DIAGONAL / FRAME_STEP) + 1
    assert sum(frame.seconds < 1.0 for frame in chosen) <= 1  # standing still earns no frames
    steps = np.diff(offsets[[frame.index for frame in chosen]]) / DIAGONAL
    assert steps.max() < 2 * FRAME_STEP


def test_shaking_on_the_spot_adds_up_to_nothing(tmp_path: Path) -> None:
    offsets = 100 + 5.0 * (np.arange(60) % 6 < 3)
    make_film(tmp_path / "a.mp4", offsets, np.arange(60) / 10)
    look = look_through_film(tmp_path / "a.mp4")
    assert look.motion[-1] < 2 * 5.0 / DIAGONAL
    assert frames_wanted(look) == 1


def test_sharp_frames_are_preferred(tmp_path: Path) -> None:
    offsets = np.linspace(0, 600, 61)
    blurred = frozenset(i for i in range(61) if i % 3)
    make_film(tmp_path / "a.mp4", offsets, np.arange(61) / 10, blurred)
    look = look_through_film(tmp_path / "a.mp4")
    for count in (6, 11):
        chosen = choose_frames(look, count)
        assert len(chosen) == count
        indices = [frame.index for frame in chosen]
        assert indices == sorted(set(indices))
        assert sum(index in blurred for index in indices) <= 1


def test_chosen_frames_come_with_their_pixels(tmp_path: Path) -> None:
    frames = make_film(tmp_path / "a.mp4", np.linspace(0, 600, 40), np.arange(40) / 10)
    wanted = (FilmFrame(0, 0.0), FilmFrame(17, 1.7), FilmFrame(39, 3.9))
    read = list(read_frames(tmp_path / "a.mp4", wanted))
    assert [frame for frame, _ in read] == list(wanted)
    for frame, rgb in read:
        errors = [np.abs(rgb.astype(int) - other).mean() for other in frames]
        assert int(np.argmin(errors)) == frame.index


def test_rotation_of_the_container_is_applied(tmp_path: Path) -> None:
    frames = make_film(tmp_path / "a.mp4", np.zeros(5), np.arange(5) / 10)
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    header = data.index(b"tkhd")
    # ISO/IEC 14496-12, 8.3.2: the matrix follows 40 bytes after the version of a version 0 box.
    quarter = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    data[header + 44 : header + 80] = quarter
    (tmp_path / "b.mp4").write_bytes(data)
    look = look_through_film(tmp_path / "b.mp4")
    assert (look.width, look.height) == (HEIGHT, WIDTH)
    ((_, rgb),) = read_frames(tmp_path / "b.mp4", (FilmFrame(0, 0.0),))
    assert np.abs(rgb.astype(int) - np.rot90(frames[0], -1)).mean() < 12


def test_what_is_no_film_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no film")
    with pytest.raises(ReconError, match=r"a\.mp4: is no film that can be decoded"):
        look_through_film(tmp_path / "a.mp4")
    with pytest.raises(ReconError, match=r"b\.mp4: there is no such file"):
        look_through_film(tmp_path / "b.mp4")
