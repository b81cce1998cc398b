"""Films of pictures, in files that browsers and phones play."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from recon.errors import ReconError, UsageError
from recon.io.pictures import check_film_name

SUFFIXES = (".mp4", ".webm")

# Matrix, primaries and transfer of ITU-T H.273; told in the file, so that players do not guess them by size.
_BT709 = 1
_MPEG_RANGE = 1
# Encoders and their settings: close to the pictures, not beyond what an eye sees.
_CODECS = {
    ".mp4": ("libx264", {"crf": "20", "preset": "medium"}),
    ".webm": ("libvpx-vp9", {"crf": "31", "b:v": "0", "deadline": "good", "cpu-used": "5", "row-mt": "1"}),
}


def write_video(path: Path, frames: Iterable[UInt8[np.ndarray, "h w 3"]], fps: float) -> tuple[int, str]:
    """Write a film: H.264 in .mp4 or VP9 in .webm with PyAV; without it, VP9 by OpenCV, which takes far longer.

    Args:
        path: .mp4 or .webm; the folder must be there.
        frames: RGB pictures of one size, both sides even.
        fps: pictures per second.

    Returns:
        The number of frames, and what they were coded with, in words.

    Raises:
        UsageError: another suffix, or an odd side (4:2:0 colour halves both).
        ReconError: nothing at hand can encode it, no frames, or the disk is full.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path}: a video is one of {', '.join(SUFFIXES)}")
    try:
        import av
    except ImportError:
        return _write_with_opencv(path, frames, fps), "VP9, by OpenCV"
    codec, options = _CODECS[path.suffix.lower()]
    if codec not in av.codecs_available:
        return _write_with_opencv(path, frames, fps), "VP9, by OpenCV"
    try:
        return _write_with_av(path, frames, fps, codec, options), "H.264" if codec == "libx264" else "VP9"
    except av.FFmpegError as error:
        raise ReconError(f"{path}: cannot be written ({error})") from error


def _write_with_av(path: Path, frames: Iterable[Any], fps: float, codec: str, options: dict[str, str]) -> int:
    from fractions import Fraction

    import av

    count = 0
    container_options = {"movflags": "+faststart"} if path.suffix.lower() == ".mp4" else {}
    with av.open(str(path), "w", options=container_options) as film:
        stream: Any = film.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=options)
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _MPEG_RANGE
        for frame in frames:
            if count == 0:
                _check_size(path, frame)
                stream.height, stream.width = frame.shape[:2]
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")
            film.mux(stream.encode(picture.reformat(format="yuv420p", dst_colorspace="ITU709")))
            count += 1
        if count == 0:
            raise ReconError(f"{path}: a video without pictures")
        film.mux(stream.encode())
    return count


def _write_with_opencv(path: Path, frames: Iterable[Any], fps: float) -> int:
    writer: Any = None
    count = 0
    try:
        for frame in frames:
            if writer is None:
                _check_size(path, frame)
                size = (frame.shape[1], frame.shape[0])
                check_film_name(path, "choose another --out")
                four = cv2.VideoWriter.fourcc(*("vp09" if path.suffix.lower() == ".mp4" else "VP90"))
                writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, four, fps, size)
                if not writer.isOpened():
                    raise ReconError(
                        f"{path}: no encoder for it is installed; pip install av, or use --stills"
                    )
            writer.write(np.ascontiguousarray(frame[..., ::-1]))
            count += 1
    finally:
        if writer is not None:
            writer.release()
    if count == 0:
        raise ReconError(f"{path}: a video without pictures")
    if not path.is_file() or path.stat().st_size == 0:
        raise ReconError(f"{path}: cannot be written; is the disk full?")
    return count


def _check_size(path: Path, frame: UInt8[np.ndarray, "h w 3"]) -> None:
    height, width = frame.shape[:2]
    if width % 2 or height % 2:
        raise UsageError(f"{path}: {width}x{height} has an odd side; videos need even ones")
