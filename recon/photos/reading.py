"""Reads photos and masks from files: any format, depth and orientation to upright RGB of 8 bit."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, UnidentifiedImageError

from recon.core.resize import resize_mask
from recon.errors import ReconError, reading
from recon.io.pictures import read_bgr
from recon.photos.exif import ExifFacts, exif_facts, upright
from recon.photos.types import LoadedPhoto

_HEIF_SUFFIXES = frozenset({".heic", ".heif"})
_JXL_SUFFIXES = frozenset({".jxl"})
RAW_SUFFIXES = frozenset(
    {
        ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".raf", ".orf", ".rw2", ".pef", ".srw", ".3fr",
        ".iiq", ".rwl",
    }
)  # fmt: skip
"""Raw files of cameras, read through LibRaw (rawpy)."""
PHOTO_SUFFIXES = (
    frozenset(
        {
            ".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp", ".mpo", ".png", ".tif", ".tiff", ".webp", ".bmp",
            ".avif", ".jp2", ".j2k",
        }
    )
    | _HEIF_SUFFIXES
    | _JXL_SUFFIXES
    | RAW_SUFFIXES
)  # fmt: skip
IMAGE_NAMES = "JPEG, PNG, TIFF, WebP, HEIC, AVIF, JPEG 2000, JPEG XL, raw files"

# First bytes of a HEIF file after its box length (ISO/IEC 23008-12, B.4).
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
# First bytes of the formats that Pillow reads, of JPEG XL, and of AVIF after its box length.
_SIGNATURES = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"II*\0",
    b"MM\0*",
    b"\0\0\0\x0cjP  ",
    b"\xff\x4f\xff\x51",
)
_JXL_SIGNATURES = (b"\xff\x0a", b"\0\0\0\x0cJXL ")
_AVIF_BRANDS = (b"avif", b"avis")

# From so many pixels on a JPEG is decoded at a half, a quarter or an eighth of its size. Full decoding would need
# gigabytes, and no working size asks for that much.
DRAFT_PIXELS = 178_000_000
# Other formats cannot be decoded in part; so many pixels need about three gigabytes.
MOST_PIXELS = 400_000_000
# Of photos from so many pixels on one is decoded at a time, however many threads there are.
LARGE_PIXELS = 60_000_000
_LARGE = threading.Lock()
# Masks of another size are resized when the longer side errs by less than this share (or by their rounding).
_MASK_ASPECT = 0.005
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

# Large panoramas are photos too: what is too large is decided here, with memory in mind.
Image.MAX_IMAGE_PIXELS = None


class PhotoError(ReconError):
    """A file is no photo that can be used; the message is the reason, without the file's name."""


@dataclass(frozen=True)
class DecodedPhoto:
    """An upright photo with what EXIF says.

    Attributes:
        pixels: at full size; a very large JPEG at a half, a quarter or an eighth of it.
        width, height: full size, upright.
    """

    pixels: LoadedPhoto
    exif: ExifFacts
    width: int
    height: int


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Wait until no other large photo is being read, if this is a large one: several would take gigabytes together."""
    large = False
    with suppress(Exception), Image.open(path) as image:  # of a damaged file whoever reads it says so
        large = image.width * image.height > LARGE_PIXELS
    if not large:
        yield
        return
    with _LARGE:
        yield


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
    start = _first_bytes(path, 16)
    if path.suffix.lower() in RAW_SUFFIXES:
        return _decode_raw(path)
    if path.suffix.lower() in _HEIF_SUFFIXES or _has_brand(start, _HEIF_BRANDS):
        _register_heif()
    if path.suffix.lower() in _JXL_SUFFIXES or start.startswith(_JXL_SIGNATURES):
        _register_jxl()
    try:
        with Image.open(path) as image:
            full_size = _reduced(image)
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
    except PhotoError:
        raise
    except FileNotFoundError:
        raise PhotoError("there is no such file") from None
    except MemoryError:
        raise PhotoError("there is not enough memory to decode it; make it smaller") from None
    except Exception as error:  # Pillow's plugins raise whatever a damaged file leads them to
        reason = str(error) or type(error).__name__
        raise PhotoError(f"cannot be decoded ({reason}); the file is damaged or cut short") from None
    rgb = upright(values, turn)
    mask = upright(alpha >= _OPAQUE, turn) if alpha is not None else None
    if mask is not None and mask.all():
        mask = None
    height, width = rgb.shape[:2]
    if full_size is not None:
        width, height = full_size if facts.orientation < 5 else full_size[::-1]
    return DecodedPhoto(LoadedPhoto(rgb, mask), facts, width, height)


def read_mask(path: Path | str, width: int, height: int, orientation: int = 1) -> Bool[np.ndarray, "h w"]:
    """A mask file as booleans: white may be used, black may not.

    A mask has the size of the upright photo. One that was drawn over the photo as it is stored on disk
    (COLMAP's way) is turned upright when the sizes tell that. One of another size but the same shape is resized.

    Raises:
        ReconError: it cannot be read, or has another shape than the photo.
    """
    with reading(path, "the mask has to be made anew, or taken away"):
        try:
            with Image.open(path) as image:
                _reduced(image)
                # A palette stores indices, and "1" stores booleans: look at the brightness in every case.
                values, _ = _to_arrays(image)
        except PhotoError as error:
            raise ReconError(f"{path}: {error}") from None
    brightness = values.max(axis=2)
    # Some tools write 0 and 1 instead of black and white.
    mask: np.ndarray = brightness >= (_OPAQUE if brightness.max() >= _OPAQUE else 1)
    if orientation >= 5 and mask.shape == (width, height) and width != height:
        mask = upright(mask, orientation)
    mask_height, mask_width = mask.shape
    if (mask_width, mask_height) == (width, height):
        return mask
    if max(
        abs(mask_width * height / mask_height - width), abs(mask_height * width / mask_width - height)
    ) > max(_MASK_ASPECT * max(width, height), max(width / mask_width, height / mask_height)):
        raise ReconError(
            f"{path}: the mask is {mask_width}x{mask_height} pixels, its photo is {width}x{height}: another shape; "
            "make the mask anew at the photo's size, or take it away"
        )
    return resize_mask(mask, width, height)


def read_png(path: Path | str) -> UInt8[np.ndarray, "h w 3"]:
    """RGB of a PNG that recon wrote itself; quick, and without the interpreter lock.

    Raises:
        ReconError: it is not there or damaged.
    """
    with reading(path, "run again with --restart-from photos"):
        bgr = read_bgr(path)
    if bgr is None:
        raise ReconError(f"{path}: cannot be read; run again with --restart-from photos")
    rgb: np.ndarray = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    return rgb


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
    return np.asarray(image if mode == "RGB" else image.convert("RGB")), None


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


def _reduced(image: Image.Image) -> tuple[int, int] | None:
    """Make Pillow decode a very large JPEG at a smaller size; its full size as stored, None where nothing is done.

    Raises:
        PhotoError: it is too large and of a format that can only be decoded as a whole.
    """
    width, height = image.size
    if width * height <= DRAFT_PIXELS:
        return None
    if image.format in {"JPEG", "MPO"} and image.draft("RGB", (width // 2, height // 2)) is not None:
        while image.size[0] * image.size[1] > DRAFT_PIXELS:
            before = image.size
            image.draft("RGB", (image.size[0] // 2, image.size[1] // 2))
            if image.size == before:
                break
        if image.size[0] * image.size[1] <= DRAFT_PIXELS:
            return width, height
    if width * height > MOST_PIXELS:
        limit = MOST_PIXELS // 1_000_000
        raise PhotoError(
            f"has {width}x{height} pixels, more than {limit} million; make it smaller, or save it as JPEG"
        )
    return None


def _decode_raw(path: Path) -> DecodedPhoto:
    """A camera's raw file, developed with the camera's white balance and LibRaw's other defaults."""
    try:
        import rawpy
    except ImportError:
        raise PhotoError(
            "reading raw files needs an extra library: pip install 'recon-photogrammetry[raw]'"
        ) from None
    try:
        with rawpy.imread(str(path)) as raw:
            facts = exif_facts(_raw_exif(path, raw))
            rgb = np.ascontiguousarray(raw.postprocess(use_camera_wb=True, output_bps=8))
    except Exception as error:  # LibRaw's, and whatever its arrays lead to
        reason = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else error
        raise PhotoError(
            f"cannot be decoded ({reason}); the file is damaged or of an unknown camera"
        ) from None
    return DecodedPhoto(LoadedPhoto(rgb, None), facts, rgb.shape[1], rgb.shape[0])


def _raw_exif(path: Path, raw: Any) -> Image.Exif:
    """EXIF of a raw file: most are TIFF files themselves; of the others the camera's preview has it."""
    exif = Image.Exif()
    try:
        with path.open("rb") as stream:
            exif.load_from_fp(stream)
            if exif:
                exif_facts(exif)  # reads the inner directories while the file is open
                return exif
    except (OSError, SyntaxError, ValueError, KeyError):
        pass
    try:
        preview = raw.extract_thumb()
        with Image.open(io.BytesIO(preview.data)) as image:
            return image.getexif()
    except Exception:  # whatever the preview is, the pixels do not depend on it
        return Image.Exif()


def _first_bytes(path: Path, count: int) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(count)
    except OSError:
        return b""


def _has_brand(start: bytes, brands: tuple[bytes, ...]) -> bool:
    """An ISO media file of one of these brands: phones and mail programs rename without converting."""
    return start[4:8] == b"ftyp" and start[8:12] in brands


def looks_like_image(path: Path) -> bool:
    """Tell whether the content is an image of a known format, whatever the name says."""
    start = _first_bytes(path, 16)
    if start.startswith((*_SIGNATURES, *_JXL_SIGNATURES)) or _has_brand(start, _HEIF_BRANDS + _AVIF_BRANDS):
        return True
    return start[:4] == b"RIFF" and start[8:12] == b"WEBP"


def _register_heif() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise PhotoError(
            "reading HEIC needs an extra library: pip install 'recon-photogrammetry[heic]'"
        ) from None
    register_heif_opener()


def _register_jxl() -> None:
    try:
        import pillow_jxl  # noqa: F401  registers itself
    except ImportError:
        raise PhotoError(
            "reading JPEG XL needs an extra library: pip install 'recon-photogrammetry[jxl]'"
        ) from None


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
    return f"is not an image of a known format ({IMAGE_NAMES})"
