"""Reading photos: every orientation, depth, mode and container against Pillow, OpenCV and known values."""

from __future__ import annotations

import io
import os
import struct
import sys
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from recon.errors import ReconError
from recon.io.pictures import encode_picture, read_bgr, write_bgr
from recon.photos import reading
from recon.photos.exif import upright
from recon.photos.films import look_through_film
from recon.photos.reading import (
    PhotoError,
    decode_photo,
    load_photo,
    looks_like_image,
    read_mask,
    read_png,
)

# What Pillow itself does for each orientation (Exif 2.32, table of tag 274).
TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@given(st.integers(1, 8), st.integers(1, 7), st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_upright_is_pillows_transpose(orientation: int, height: int, width: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = Image.fromarray(image)
    if orientation in TRANSPOSES:
        expected = expected.transpose(TRANSPOSES[orientation])
    np.testing.assert_array_equal(upright(image, orientation), np.asarray(expected))
    np.testing.assert_array_equal(upright(image[:, :, 0], orientation), np.asarray(expected)[:, :, 0])


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_in_every_container(
    tmp_path: Path, picture: np.ndarray, suffix: str, orientation: int
) -> None:
    """The upright picture is stored turned the other way round, with the tag that says so."""
    back = {6: 8, 8: 6}.get(orientation, orientation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    options = {"webp": {"lossless": True}, "jpg": {"quality": 98, "subsampling": 0}}.get(suffix, {})
    Image.fromarray(upright(picture, back)).save(path, exif=exif, **options)
    photo = decode_photo(path)
    assert (photo.width, photo.height) == (96, 64)
    assert photo.exif.orientation == orientation
    np.testing.assert_allclose(photo.pixels.rgb, picture, atol=6 if suffix == "jpg" else 0)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bit_is_scaled_linearly_without_stretching(
    tmp_path: Path, suffix: str, channels: int
) -> None:
    values = np.linspace(1000, 30000, 40 * 30 * channels).astype(np.uint16).reshape(30, 40, channels)
    path = tmp_path / f"a.{suffix}"
    cv2.imwrite(str(path), values)  # an independent writer; BGR
    expected = np.repeat(values, 3, axis=2) if channels == 1 else values[:, :, ::-1]
    np.testing.assert_allclose(load_photo(path).rgb, expected / 257.0, atol=1.0)


def test_sixteen_bit_extremes(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.array([[0, 128, 129, 32768, 65535]], np.uint16))
    np.testing.assert_array_equal(load_photo(path).rgb[0, :, 0], [0, 0, 1, 128, 255])


def test_float_tiff(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32)).save(path)
    np.testing.assert_array_equal(load_photo(path).rgb[0, :, 1], [0, 128, 255])
    Image.fromarray(np.array([[0.0, 0.5, 7.0]], np.float32)).save(path)
    with pytest.raises(ReconError, match=r"a\.tif.*float values beyond 0…1"):
        load_photo(path)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "CMYK", "YCbCr", "LA", "RGBA"])
def test_every_mode_becomes_rgb(tmp_path: Path, picture: np.ndarray, mode: str) -> None:
    original = Image.fromarray(picture).convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.tif" if mode == "YCbCr" else "a.png")
    original.save(path, **({"quality": 100, "subsampling": 0} if mode == "CMYK" else {}))
    loaded = load_photo(path)
    assert loaded.rgb.shape == (64, 96, 3)
    assert loaded.rgb.dtype == np.uint8
    assert loaded.mask is None  # alpha is opaque
    np.testing.assert_allclose(
        loaded.rgb, np.asarray(original.convert("RGB")), atol=8 if mode == "CMYK" else 1
    )


@pytest.mark.parametrize("orientation", [1, 6])
def test_plain_ycbcr_tiff(tmp_path: Path, picture: np.ndarray, orientation: int) -> None:
    """A layout that versions of Pillow read differently: turned once, and a damaged file is refused."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.tif"
    Image.fromarray(picture).convert("YCbCr").save(path, exif=exif)
    photo = decode_photo(path)
    assert photo.exif.orientation == orientation
    np.testing.assert_allclose(photo.pixels.rgb, upright(picture, orientation), atol=3)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(PhotoError, match="damaged or cut short"):
        decode_photo(path)


def test_alpha_becomes_the_mask_and_turns_with_the_photo(tmp_path: Path, picture: np.ndarray) -> None:
    alpha = np.full((64, 96), 255, np.uint8)
    alpha[:10, :20] = 0
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.dstack([picture, alpha])).save(tmp_path / "a.png", exif=exif)
    loaded = load_photo(tmp_path / "a.png")
    assert loaded.mask is not None
    np.testing.assert_array_equal(loaded.mask, np.rot90(alpha >= 128, -1))
    np.testing.assert_array_equal(loaded.rgb, np.rot90(picture, -1))


def test_transparent_palette(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "a.png", transparency=0)
    loaded = load_photo(tmp_path / "a.png")
    assert loaded.mask is not None
    assert loaded.mask.tolist() == [[False, True]]
    assert loaded.rgb[0, 1].tolist() == [40, 50, 60]


def broken_files(folder: Path, picture: np.ndarray) -> dict[str, Path]:
    """Files that are no photos, each in its own way."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)).save(
        buffer, "JPEG"
    )
    contents = {
        "truncated.jpg": buffer.getvalue()[: len(buffer.getvalue()) // 2],
        "text.jpg": b"These are my holiday notes.\n" * 20,
        "empty.png": b"",
        "noise.tif": bytes(range(256)) * 4,
    }
    png = io.BytesIO()
    Image.fromarray(picture).save(png, "PNG")
    contents["truncated.png"] = png.getvalue()[:200]
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return {name: folder / name for name in contents}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("truncated.jpg", "truncated|cut short"),
        ("truncated.png", "truncated|cut short"),
        ("text.jpg", "is a text file, not an image"),
        ("empty.png", "is an empty file"),
        ("noise.tif", "is not an image of a known format"),
    ],
)
def test_what_is_no_photo_says_why(tmp_path: Path, picture: np.ndarray, name: str, reason: str) -> None:
    path = broken_files(tmp_path, picture)[name]
    with pytest.raises(PhotoError, match=reason):
        decode_photo(path)
    with pytest.raises(ReconError, match=name):
        load_photo(path)


def test_missing_file_and_missing_heic_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ReconError, match="no such file"):
        load_photo(tmp_path / "a.jpg")
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(b"x")
    with pytest.raises(ReconError, match=r"pip install 'recon-photogrammetry\[heic\]'"):
        load_photo(tmp_path / "a.heic")
    (tmp_path / "b.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(ReconError, match=r"pip install 'recon-photogrammetry\[heic\]'"):
        load_photo(tmp_path / "b.jpg")


@pytest.fixture
def heif() -> Any:
    """The library that the extra brings, registered as reading does it."""
    library = pytest.importorskip("pillow_heif", reason="reading HEIC is an extra")
    library.register_heif_opener()
    return library


@pytest.mark.usefixtures("heif")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_stands_upright_and_tells_its_camera(
    tmp_path: Path, picture: np.ndarray, orientation: int
) -> None:
    """A phone's file: the turn is in the container and in EXIF, and must be made once."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x0110] = orientation, "Maker", "Phone 1"
    exif.get_ifd(0x8769)[0xA405] = 26
    path = tmp_path / "a.heic"
    Image.fromarray(picture).save(path, "HEIF", quality=100, chroma=444, exif=exif.tobytes())
    photo = decode_photo(path)
    np.testing.assert_allclose(photo.pixels.rgb, upright(picture, orientation), atol=12)
    assert photo.pixels.mask is None
    assert (photo.exif.make, photo.exif.model, photo.exif.focal_35mm) == ("Maker", "Phone 1", 26.0)
    # 26 mm on a frame whose diagonal is 43.27 mm.
    assert photo.exif.focal_pixels(photo.width, photo.height) == pytest.approx(
        26 / 43.2666 * np.hypot(96, 64), rel=1e-4
    )


@pytest.mark.usefixtures("heif")
def test_heic_with_a_wrong_name_and_cut_short(tmp_path: Path, picture: np.ndarray) -> None:
    Image.fromarray(picture).save(tmp_path / "a.heic", quality=100, chroma=444)
    data = (tmp_path / "a.heic").read_bytes()
    (tmp_path / "renamed.jpg").write_bytes(data)
    np.testing.assert_allclose(load_photo(tmp_path / "renamed.jpg").rgb, picture, atol=12)
    (tmp_path / "cut.heic").write_bytes(data[: len(data) // 2])
    with pytest.raises(PhotoError, match=r"damaged or cut short|not an image"):
        decode_photo(tmp_path / "cut.heic")
    (tmp_path / "text.heic").write_text("these are my notes")
    with pytest.raises(PhotoError, match="is a text file"):
        decode_photo(tmp_path / "text.heic")


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_what_recon_stores_comes_back_exactly(height: int, width: int, seed: int) -> None:
    import tempfile

    random = np.random.default_rng(seed)
    rgb = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = random.random((height, width)) < 0.5
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.png")
        path.write_bytes(encode_picture(rgb))
        np.testing.assert_array_equal(read_png(path), rgb)
        np.testing.assert_array_equal(np.asarray(Image.open(path)), rgb)
        path.write_bytes(encode_picture(mask))
        np.testing.assert_array_equal(read_png(path)[:, :, 0] >= 128, mask)


def test_mask_files(tmp_path: Path) -> None:
    keep = np.zeros((64, 96), bool)
    keep[10:50, 20:80] = True
    path = tmp_path / "m.png"
    for stored in (
        Image.fromarray(keep.astype(np.uint8) * 255),
        Image.fromarray(keep.astype(np.uint8)),  # 0 and 1
        Image.fromarray(keep),  # one bit
        Image.fromarray(np.repeat(keep[:, :, None], 3, axis=2).astype(np.uint8) * 255),
    ):
        stored.save(path)
        np.testing.assert_array_equal(read_mask(path, 96, 64), keep)


def test_mask_over_the_stored_photo_turns_with_it(tmp_path: Path) -> None:
    keep = np.zeros((64, 96), bool)
    keep[:5, :7] = True
    Image.fromarray(keep).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", 64, 96, orientation=6), np.rot90(keep, -1))


def test_mask_of_the_wrong_size_names_both_sizes(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(
        ReconError, match=r"m\.png: the mask is 20x20 pixels, its photo is 96x64: another shape"
    ):
        read_mask(tmp_path / "m.png", 96, 64)
    (tmp_path / "m.png").write_text("no mask")
    with pytest.raises(ReconError, match=r"m\.png: cannot be read .*the mask has to be made anew"):
        read_mask(tmp_path / "m.png", 96, 64)


def test_mask_of_another_size_but_the_same_shape_is_resized(tmp_path: Path) -> None:
    keep = np.zeros((32, 48), np.uint8)
    keep[8:, 12:] = 255
    Image.fromarray(keep).save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png", 97, 64)
    assert mask.shape == (64, 97)
    assert mask.mean() == pytest.approx(0.75 * 0.75, abs=0.01)


@pytest.mark.parametrize("suffix", [".avif", ".jfif", ".pjpeg", ".mpo", ".jp2", ""])
def test_formats_by_name_and_by_content(tmp_path: Path, suffix: str) -> None:
    pixels = np.asarray(Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).resize((96, 64)))
    path = tmp_path / f"photo{suffix}"
    kind = {".avif": "AVIF", ".jp2": "JPEG2000", ".mpo": "MPO"}.get(suffix, "JPEG")
    Image.fromarray(pixels).save(path, format=kind, quality=95)
    assert looks_like_image(path)
    read = decode_photo(path)
    assert (read.width, read.height) == (96, 64)
    assert np.abs(read.pixels.rgb.astype(int) - pixels).mean() < 6.0


def test_text_does_not_look_like_an_image(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("no image")
    assert not looks_like_image(tmp_path / "a")
    assert not looks_like_image(tmp_path / "not there")


def test_jpeg_of_200_megapixels_is_decoded_at_a_fraction_of_its_size(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    small = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    small.convert("L").resize((20000, 10100), Image.Resampling.NEAREST).save(path, quality=30, exif=exif)
    read = decode_photo(path)
    assert (read.width, read.height) == (10100, 20000)
    assert read.pixels.rgb.shape == (10000, 5050, 3)


def test_too_large_for_a_format_that_is_decoded_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (300, 200)).save(tmp_path / "a.png")
    monkeypatch.setattr(reading, "DRAFT_PIXELS", 1000)
    monkeypatch.setattr(reading, "MOST_PIXELS", 50_000)
    with pytest.raises(ReconError, match=r"a\.png: has 300x200 pixels.*save it as JPEG"):
        load_photo(tmp_path / "a.png")


def raw_file(path: Path, orientation: int) -> None:
    """A minimal DNG (Adobe DNG 1.4): a Bayer mosaic whose left half is red and whose right half is blue."""
    width, height = 96, 64
    mosaic = np.full((height, width), 200, np.uint16)
    mosaic[0::2, 0 : width // 2 : 2] = 40000
    mosaic[1::2, width // 2 + 1 :: 2] = 40000
    rational = struct.pack
    matrix = b"".join(rational("<ii", int(v * 10000), 10000) for v in (1, 0, 0, 0, 1, 0, 0, 0, 1))
    inner = [(0x920A, 5, 1, struct.pack("<II", 50, 1)), (0xA405, 3, 1, struct.pack("<H", 75))]
    tags = [
        (254, 4, 1, struct.pack("<I", 0)),
        (256, 4, 1, struct.pack("<I", width)),
        (257, 4, 1, struct.pack("<I", height)),
        (258, 3, 1, struct.pack("<H", 16)),
        (259, 3, 1, struct.pack("<H", 1)),
        (262, 3, 1, struct.pack("<H", 32803)),
        (271, 2, 5, b"Maker"),
        (272, 2, 6, b"Model1"),
        (273, 4, 1, b"pixels"),
        (274, 3, 1, struct.pack("<H", orientation)),
        (277, 3, 1, struct.pack("<H", 1)),
        (278, 4, 1, struct.pack("<I", height)),
        (279, 4, 1, struct.pack("<I", mosaic.nbytes)),
        (33421, 3, 2, struct.pack("<HH", 2, 2)),
        (33422, 1, 4, bytes((0, 1, 1, 2))),
        (34665, 4, 1, b"inner"),
        (50706, 1, 4, bytes((1, 4, 0, 0))),
        (50708, 2, 6, b"Model1"),
        (50717, 4, 1, struct.pack("<I", 65535)),
        (50721, 10, 9, matrix),
        (50728, 5, 3, struct.pack("<IIIIII", 1, 1, 1, 1, 1, 1)),
        (50778, 3, 1, struct.pack("<H", 21)),
    ]
    data = bytearray()
    start = 8 + 2 + 12 * len(tags) + 4 + 2 + 12 * len(inner) + 4

    def stored(value: bytes) -> bytes:
        if len(value) <= 4:
            return value.ljust(4, b"\0")
        where = start + len(data)
        data.extend(value + b"\0" * (len(value) % 2))
        return struct.pack("<I", where)

    def directory(entries: list[tuple[int, int, int, bytes]]) -> bytes:
        body = b"".join(
            struct.pack("<HHI", tag, kind, count) + stored(value) for tag, kind, count, value in entries
        )
        return struct.pack("<H", len(entries)) + body + struct.pack("<I", 0)

    inner_at = 8 + 2 + 12 * len(tags) + 4
    pixels_at = stored(mosaic.tobytes())
    found = {b"inner": struct.pack("<I", inner_at), b"pixels": pixels_at}
    outer = directory([(tag, kind, count, found.get(value, value)) for tag, kind, count, value in tags])
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + outer + directory(inner) + bytes(data))


def test_raw_file_is_developed_upright_with_its_exif(tmp_path: Path) -> None:
    pytest.importorskip("rawpy", reason="raw files are read by the extra 'raw'")
    raw_file(tmp_path / "a.dng", orientation=6)
    read = decode_photo(tmp_path / "a.dng")
    assert (read.width, read.height) == (64, 96)
    assert (read.exif.focal_mm, read.exif.focal_35mm, read.exif.model) == (50.0, 75.0, "Model1")
    top, bottom = (
        read.pixels.rgb[part].reshape(-1, 3).mean(axis=0) for part in (slice(8, 40), slice(56, 88))
    )
    assert top[0] > 2 * top[2]  # the left half of the mosaic is above after the turn
    assert bottom[2] > 2 * bottom[0]
    (tmp_path / "cut.dng").write_bytes((tmp_path / "a.dng").read_bytes()[:300])
    with pytest.raises(ReconError, match=r"cut\.dng: cannot be decoded"):
        load_photo(tmp_path / "cut.dng")


def test_raw_file_without_the_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rawpy", None)
    raw_file(tmp_path / "a.dng", orientation=1)
    with pytest.raises(ReconError, match=r"a\.dng: reading raw files needs.*recon-photogrammetry\[raw\]"):
        load_photo(tmp_path / "a.dng")


def test_large_photos_wait_for_their_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LARGE_PIXELS", 100)
    for name, size in (("large.png", (20, 20)), ("small.png", (5, 5))):
        Image.new("RGB", size).save(tmp_path / name)
    (tmp_path / "damaged.png").write_bytes(b"no picture")
    passed = threading.Event()

    def second() -> None:
        with reading.in_turn(tmp_path / "large.png"):
            passed.set()

    other = threading.Thread(target=second)
    with reading.in_turn(tmp_path / "large.png"):
        with reading.in_turn(tmp_path / "small.png"), reading.in_turn(tmp_path / "damaged.png"):
            pass  # these wait for nobody
        other.start()
        assert not passed.wait(0.2)
    assert passed.wait(10)
    other.join()


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    """OpenCV's own readers and writers end the process at such a name; ours do not."""
    rgb = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    path = tmp_path / os.fsdecode(b"\xff\xfe.png")
    write_bgr(path, rgb[..., ::-1])
    np.testing.assert_array_equal(read_png(path), rgb)
    assert read_bgr(tmp_path / "nothing.png") is None
    film = path.rename(tmp_path / os.fsdecode(b"\xff.mp4"))
    with pytest.raises(ReconError, match="not UTF-8"):
        look_through_film(film)
