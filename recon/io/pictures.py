"""Pictures as JPEG and PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from recon.errors import ReconError


def encode_picture(
    picture: UInt8[np.ndarray, "h w 3"] | Bool[np.ndarray, "h w"],
    kind: Literal["jpg", "png"] = "png",
    quality: int = 95,
) -> bytes:
    """Encode an RGB picture, or a mask (True is white).

    Args:
        kind: JPEG keeps the full colour resolution (charts are cut out of a texture at every texel).
        quality: of a JPEG.

    Raises:
        ReconError: it has no pixels, or more than the format takes.
    """
    mask = picture.dtype == np.bool_
    data = picture.astype(np.uint8) * 255 if mask else np.ascontiguousarray(picture[..., ::-1])
    options = []
    if kind == "jpg":
        sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
        options = [cv2.IMWRITE_JPEG_QUALITY, quality, *sampling]
    try:
        done, encoded = cv2.imencode(f".{kind}", data, options)
    except cv2.error:
        done = False
    if not done:
        size = f"{picture.shape[1]} x {picture.shape[0]}"
        raise ReconError(f"a picture of {size} pixels cannot be encoded as {kind}")
    return encoded.tobytes()


def read_bgr(path: Path | str, flags: int = cv2.IMREAD_COLOR) -> np.ndarray | None:
    """Decode an image file as OpenCV does, channels in its order; None where it is missing or no image.

    OpenCV's own reader ends the process at a name that is not UTF-8.

    Raises:
        OSError: it is there, but cannot be read.
    """
    try:
        data = np.frombuffer(Path(path).read_bytes(), np.uint8)
    except FileNotFoundError:
        return None
    return cv2.imdecode(data, flags) if data.size else None


def write_bgr(path: Path, bgr: UInt8[np.ndarray, "h w 3"], quality: int = 95) -> None:
    """Write an image as OpenCV does, in the format of the name's suffix; see ``read_bgr``.

    Args:
        quality: of a JPEG.

    Raises:
        OSError: it cannot be written.
    """
    _, data = cv2.imencode(path.suffix, bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    path.write_bytes(data.tobytes())


def check_film_name(path: Path, advice: str) -> None:
    """Refuse a film whose name is not UTF-8: OpenCV would end the process.

    Args:
        advice: the way out, for the message.

    Raises:
        ReconError: it is such a name.
    """
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ReconError(f"{path}: the name is not UTF-8; {advice}") from error
