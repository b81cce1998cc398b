"""Reads photos and masks from files: any format, depth and orientation to upright RGB of 8 bit."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, UnidentifiedImageError

from recon.errors import ReconError
from recon.photos.exif import ExifFacts, exif_facts, upright
from recon.photos.types import LoadedPhoto

PHOTO_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".png", ".tif", ".tiff", ".webp", ".bmp", ".heic", ".heif"}
)
_HEIF_SUFFIXES = frozenset({".heic", ".heif"})
_HEIF_BRANDS = (
    b"heic",
    b"heix",
    b"heim",
    b"heis",
    b"hevc",
    b"hevx",
    b"mif1",
    b"msf1",
)  # ISO/IEC 23008-12, B.4
_OPAQUE = 128  # alpha from here on counts as picture

# TIFF 6.0, section 8 (baseline fields) and section 21 (YCbCr images).
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS, _TIFF_COMPRESSION, _TIFF_PHOTOMETRIC, _TIFF_YCBCR = (
    256,
    257,
    258,
    259,
    262,
    6,
)
_TIFF_STRIPS, _TIFF_STRIP_BYTES, _TIFF_PLANES, _TIFF_SUBSAMPLING = 273, 279, 284, 530

# Large panoramas are photos too; what is beyond Pillow's hard limit (178 megapixels) still raises.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class PhotoError(ReconError):
    """A file is no photo that can be used; the message is the reason, without the file's name."""


@dataclass(frozen=True)
class DecodedPhoto:
    """A photo at its full size, upright, with what EXIF says."""

    pixels: LoadedPhoto
    exif: ExifFacts

    @property
    def width(self) -> int:
        return int(self.pixels.rgb.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.rgb.shape[0])


def load_photo(path: Path | str) -> LoadedPhoto:
    """Upright RGB pixels of a photo file and the mask of its alpha channel (None if opaque).

    16-bit values are scaled linearly (divided by 257), float values from 0…1; colour profiles are ignored.

    Raises:
        ReconError: the file cannot be read as a photo.
    """
    try:
        return decode_photo(path).pixels
    except PhotoError as error:
        raise ReconError(f"{path}: {error}") from error


def decode_photo(path: Path | str) -> DecodedPhoto:
    """As ``load_photo``, together with the facts of EXIF.

    Raises:
        PhotoError: the file cannot be read as a photo.
    """
    path = Path(path)
    if path.suffix.lower() in _HEIF_SUFFIXES or _is_heif(path):
        _register_heif()
    try:
        with Image.open(path) as image:
            facts = exif_facts(image.getexif())
            alpha: np.ndarray | None = None
            if _is_plain_ycbcr(image):
                values, turn = _plain_ycbcr(path, image), facts.orientation
            else:
                image.load()
                # Pillow turns TIFF upright by itself while loading, and takes the tag away when it does.
                turn = exif_facts(image.getexif()).orientation
                values, alpha = _to_arrays(image)
    except UnidentifiedImageError:
        raise PhotoError(_not_an_image(path)) from None
    except Image.DecompressionBombError:
        raise PhotoError("has more than 178 million pixels; make it smaller") from None
    except PhotoError:
        raise
    except FileNotFoundError:
        raise PhotoError("there is no such file") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        raise PhotoError(f"cannot be decoded ({error}); the file is damaged or cut short") from None
    rgb = upright(values, turn)
    mask = upright(alpha >= _OPAQUE, turn) if alpha is not None else None
    if mask is not None and mask.all():
        mask = None
    return DecodedPhoto(LoadedPhoto(rgb, mask), facts)


def read_mask(path: Path | str, width: int, height: int, orientation: int = 1) -> Bool[np.ndarray, "h w"]:
    """A mask file as booleans: white may be used, black may not.

    A mask has the size of the upright photo. One that was drawn over the photo as it is stored on disk
    (COLMAP's way) is turned upright when the sizes tell that.

    Raises:
        ReconError: it cannot be read, or has another size than the photo.
    """
    try:
        with Image.open(path) as image:
            # A palette stores indices, and "1" stores booleans: look at the brightness in every case.
            values, _ = _to_arrays(image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, PhotoError) as error:
        raise ReconError(f"{path}: the mask cannot be read ({error})") from None
    brightness = values.max(axis=2)
    # Some tools write 0 and 1 instead of black and white.
    mask: np.ndarray = brightness >= (_OPAQUE if brightness.max() >= _OPAQUE else 1)
    if orientation >= 5 and mask.shape == (width, height) and width != height:
        mask = upright(mask, orientation)
    if mask.shape != (height, width):
        raise ReconError(
            f"{path}: the mask is {mask.shape[1]}x{mask.shape[0]} pixels, its photo is {width}x{height}; "
            "make the mask anew at the photo's size, or take it away"
        )
    return mask


def read_png(path: Path | str) -> UInt8[np.ndarray, "h w 3"]:
    """RGB of a PNG that recon wrote itself; quick, and without the interpreter lock.

    Raises:
        ReconError: it is not there or damaged.
    """
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ReconError(f"{path}: cannot be read; run again with --restart-from photos")
    rgb: np.ndarray = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    return rgb


def png_bytes(image: UInt8[np.ndarray, "h w 3"] | Bool[np.ndarray, "h w"]) -> bytes:
    """An RGB image or a mask (white is True) as a PNG."""
    if image.dtype == np.bool_:
        array: np.ndarray = image.astype(np.uint8) * 255
    else:
        array = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".png", array)
    if not done:
        raise ValueError(f"no PNG for an array of shape {image.shape}")
    return bytes(data)


def _to_arrays(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """RGB uint8 and alpha uint8 (None without) of any Pillow mode."""
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        grey = _linear_8bit(np.asarray(image), mode)
        return np.repeat(grey[:, :, None], 3, axis=2), None
    has_alpha = "A" in mode or "a" in mode or (mode != "RGBX" and "transparency" in image.info)
    if has_alpha and mode != "LAB":
        rgba = np.asarray(image.convert("RGBA"))
        return rgba[:, :, :3], rgba[:, :, 3]
    return np.asarray(image.convert("RGB")), None


def _is_plain_ycbcr(image: Image.Image) -> bool:
    """A TIFF with uncompressed YCbCr samples in strips: Pillow before 13 takes them for another layout and fails."""
    tags = getattr(image, "tag_v2", {})
    return bool(
        tags.get(_TIFF_PHOTOMETRIC) == _TIFF_YCBCR
        and tags.get(_TIFF_COMPRESSION, 1) == 1
        and tags.get(_TIFF_BITS) == (8, 8, 8)
        and tags.get(_TIFF_PLANES, 1) == 1
        and tags.get(_TIFF_SUBSAMPLING) == (1, 1)
        and _TIFF_STRIPS in tags
    )


def _plain_ycbcr(path: Path, image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    """RGB as stored, put together from the strips."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    size = tags[_TIFF_WIDTH], tags[_TIFF_HEIGHT]  # as stored; Pillow may have swapped its own already
    with path.open("rb") as stream:
        parts = []
        for offset, count in zip(tags[_TIFF_STRIPS], tags[_TIFF_STRIP_BYTES], strict=True):
            stream.seek(offset)
            parts.append(stream.read(count))
    return np.asarray(Image.frombytes("YCbCr", size, b"".join(parts)).convert("RGB"))


def _linear_8bit(values: np.ndarray, mode: str) -> np.ndarray:
    """Deep grey values as 8 bit by the range of their type: unstretched, so that photos stay comparable."""
    if mode == "F":
        if not np.isfinite(values).all() or values.min() < 0.0 or values.max() > 1.0:
            raise PhotoError("holds float values beyond 0…1; scale them to 0…1 or to 16 bit")
        return np.asarray(np.rint(values * 255.0), dtype=np.uint8)
    deep = values.astype(np.int64)
    if deep.min() < 0 or deep.max() > 65535:
        raise PhotoError("holds integers beyond 16 bit; scale them to 16 bit")
    return ((deep + 128) // 257).astype(np.uint8)


def _is_heif(path: Path) -> bool:
    """The content is HEIF whatever the name says: phones and mail programs rename without converting."""
    try:
        with path.open("rb") as stream:
            start = stream.read(12)
    except OSError:
        return False
    return start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS


def _register_heif() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise PhotoError("reading HEIC needs an extra library: pip install 'recon[heic]'") from None
    register_heif_opener()


def _not_an_image(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            start = stream.read(512)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if not start:
        return "is an empty file"
    if all(byte >= 32 or byte in b"\t\r\n" for byte in start) and b"<svg" not in start.lower():
        return f"is a text file, not an image, in spite of its name ({path.suffix})"
    return "is not an image of a known format (JPEG, PNG, TIFF, WebP, HEIC)"
