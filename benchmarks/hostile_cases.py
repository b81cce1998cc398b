# ruff: noqa: E501  (tables of cases, one a line)
"""Cases of hostile.py: the small run, the ways to spoil a file, and for each kind of file the commands that read it."""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SMALL = (
    "photos.max_size=160", "match.max_size=96", "match.top_iterations=12", "match.iterations=12",
    "verify.samples=300", "tracks.max_anchors=300", "map.one_thread=true", "map.refuse=false", "depth.iterations=1", "depth.levels=1",
    "depth.neighbours=2", "mesh.depth=5", "texture.faces=2000", "report.width=160",
)  # fmt: skip
"""Four photos of 160 px from end to end in a few seconds."""

FORMATS = (
    "colmap", "colmap-text", "nerfstudio", "openmvg", "openmvs", "bundler", "meshroom", "ply", "las", "obj", "glb",
)  # fmt: skip
IMPORTED = {
    "openmvg": "sfm_data.json", "nerfstudio": "transforms.json", "meshroom": "*.sfm", "bundler": "bundle.out",
    "colmap": "", "colmap-text": "",
}  # fmt: skip

_BOMB = 4_000_000_000
"""Bytes that a bomb unpacks to."""


@dataclass(frozen=True)
class Case:
    """A command on something that was spoiled.

    Attributes:
        argv: arguments of ``recon``.
        out: where the command may write.
        what: what was done, in words.
        named: of these the message of a failure names one.
        accounted: every one of these is in the photo set, or spoken of.
    """

    argv: list[str]
    out: Path
    what: str
    named: tuple[str, ...]
    accounted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """A kind of file: how its cases are made, and how many of them."""

    make: Callable[[random.Random, Path, Path], Case]
    weight: int


def settings(more: Sequence[str] = ()) -> list[str]:
    """The settings of the small run as options."""
    return [word for one in (*SMALL, *more) for word in ("--set", one)]


def reconstruct(
    photos: Path | str, out: Path, *more: str, cameras: Path | str | None = None, last: str = "photos"
) -> list[str]:
    """Arguments of a small reconstruction up to a stage."""
    given = [] if cameras is None else ["--intrinsics", str(cameras)]
    common = ["--out", str(out), "--quality", "preview", "--threads", "1", "--stop-after", last, *given]
    return ["reconstruct", str(photos), *common, *more, *settings()]


# What is spoiled


def make_base(base: Path) -> None:
    """Make two small runs, the first one's exports, and photos and films in many formats, once.

    In processes of their own: a process that has computed something has threads, and cannot be forked safely.
    """
    if (base / "complete").is_file():
        return
    shutil.rmtree(base, ignore_errors=True)
    (base / "pool").mkdir(parents=True)
    code = "import sys; sys.path[:0] = sys.argv[1:3]; import hostile_cases; hostile_cases.fill_base(hostile_cases.Path(sys.argv[3]))"
    here = Path(__file__).resolve().parent
    subprocess.run([sys.executable, "-c", code, str(here), str(here.parent), str(base)], check=True)
    (base / "complete").touch()


def fill_base(base: Path) -> None:
    """What ``make_base`` makes."""
    import cv2
    import numpy as np

    from recon.cli import main
    from recon.synthetic.files import write_scene
    from recon.synthetic.presets import make_scene

    scene = base / "scene"
    write_scene(make_scene("demo", size=(240, 180), coarseness=2.0), scene)
    photos = sorted((scene / "images").iterdir())
    (base / "other").mkdir()
    for photo in photos[4:7]:
        photo.rename(base / "other" / photo.name)
    photos[7].unlink()
    for folder, out in ((scene / "images", base / "out"), (base / "other", base / "other-out")):
        argv = reconstruct(folder, out, cameras=scene / "cameras.json", last="report")
        if main(argv) != 0:
            raise SystemExit("the small run itself fails")
    for name in FORMATS:
        if main(["export", str(base / "out"), "--to", name, "--out", str(base / "exports" / name)]) != 0:
            raise SystemExit(f"the small run cannot be exported to {name}")
    # What is below truth or exports must not name the run's own folder: cases work on copies.
    pictures = [cv2.imread(str(photo)) for photo in photos[:4]]
    fill_pool(base / "pool", pictures[0])
    for suffix, codec in ((".mp4", "mp4v"), (".avi", "MJPG"), (".mkv", "XVID"), (".webm", "VP80")):
        film = cv2.VideoWriter(
            str(base / "pool" / f"film{suffix}"), cv2.VideoWriter_fourcc(*codec), 10, (240, 180)
        )
        for index in range(12):
            film.write(np.roll(pictures[0], 3 * index, 1))
        film.release()


def fill_pool(pool: Path, picture: Any) -> None:
    """One photo in every format that Pillow and OpenCV write, with EXIF and a profile where there is place."""
    import cv2
    import numpy as np
    from PIL import Image, ImageCms

    rgb = Image.fromarray(np.ascontiguousarray(picture[:, :, ::-1]))
    exif = good_exif()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for suffix in (
        "jpg",
        "png",
        "tif",
        "webp",
        "gif",
        "bmp",
        "jp2",
        "avif",
        "ppm",
        "tga",
        "mpo",
        "ico",
        "heic",
        "jxl",
    ):
        try:
            if suffix == "heic":
                import pillow_heif

                pillow_heif.register_heif_opener()
            if suffix in {"jpg", "png", "webp", "avif", "mpo", "heic"}:
                rgb.save(pool / f"photo.{suffix}", exif=exif, icc_profile=profile)
            else:
                rgb.save(pool / f"photo.{suffix}")
        except (OSError, ValueError, KeyError, ImportError):
            (pool / f"photo.{suffix}").unlink(missing_ok=True)
    for name, how in (("lzw", "tiff_lzw"), ("deflate", "tiff_adobe_deflate"), ("jpeg", "jpeg")):
        rgb.save(pool / f"photo_{name}.tif", compression=how)
    cv2.imwrite(str(pool / "photo_16.png"), picture.astype(np.uint16) * 257)
    cv2.imwrite(str(pool / "photo_16.tif"), picture.astype(np.uint16) * 257)
    rgb.quantize(16).save(pool / "photo_palette.png")
    rgb.save(pool / "photo_progressive.jpg", progressive=True, exif=exif)
    frames = [rgb.rotate(angle) for angle in range(0, 60, 10)]
    for suffix in ("gif", "png", "webp", "tif"):
        frames[0].save(pool / f"animated.{suffix}", save_all=True, append_images=frames[1:], duration=40)
    # Raw files can hardly be written; a TIFF whose tags say DNG comes near.
    rgb.convert("L").save(
        pool / "raw.dng", format="TIFF", tiffinfo={50706: b"\1\4\0\0", 271: "Maker", 272: "Model"}
    )


def good_exif() -> bytes:
    """EXIF as a camera writes it."""
    from PIL import Image

    exif = Image.Exif()
    exif.update({0x010F: "Maker", 0x0110: "Model", 0x0112: 1, 0x0132: "2024:05:04 10:11:12"})
    exif.get_ifd(0x8769).update(
        {
            0x920A: 24.0,
            0xA405: 35,
            0x829A: 0.01,
            0x9003: "2024:05:04 10:11:12",
            0xA432: (24.0, 70.0, 2.8, 2.8),
            0xA434: "Lens",
        }
    )
    exif.get_ifd(0x8825).update(
        {1: "N", 2: (48.0, 8.0, 1.5), 3: "E", 4: (11.0, 34.0, 2.5), 5: b"\0", 6: 512.5}
    )
    return exif.tobytes()


# Ways to spoil


def spoiled_bytes(rng: random.Random, data: bytes, others: Sequence[bytes] = ()) -> tuple[bytes, str]:
    """Bytes with something done to them, and what."""
    how = rng.choice(
        ("flip", "flip head", "cut", "zeros", "insert", "double", "ones", "noise", "empty", "swap", "tail")
    )
    size = len(data)
    if how == "empty" or not size:
        return b"", "emptied"
    if how == "swap" and others:
        return rng.choice(others), "swapped with another file"
    if how == "cut":
        kept = rng.choice((1, 4, 16, 64, size // 2, size - 1, rng.randrange(size)))
        return data[:kept], f"cut to {kept} of {size} bytes"
    changed = bytearray(data)
    if how in {"flip", "flip head"}:
        reach, count = (
            (min(size, 256), 1 + rng.randrange(6)) if how == "flip head" else (size, 1 + rng.randrange(40))
        )
        for _ in range(count):
            changed[rng.randrange(reach)] = rng.randrange(256)
        return bytes(changed), f"{count} bytes of the first {reach} changed"
    at = rng.randrange(size)
    if how == "insert":
        return data[:at] + rng.randbytes(rng.randrange(1, 64)) + data[at:], f"bytes inserted at {at}"
    if how == "double":
        return data + data, "twice in one file"
    if how == "noise":
        return rng.randbytes(size), "random bytes"
    if how == "tail":
        return data + rng.randbytes(rng.randrange(1, 5000)), "with a tail"
    length = rng.choice((1, 2, 4, 8, 64, size))
    filling = b"\xff" if how == "ones" else b"\0"
    changed[at : at + length] = filling * len(changed[at : at + length])
    return bytes(changed), f"{length} bytes of {filling.hex()} at {at}"


VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2**31, 2**63, 10**30, 1e308, -1e-300, float("nan"), float("inf"), "", "x", "../../x", "0", "\0",
    "ä" * 300, [], {}, [[]], [None], [1, 2], {"a": {}}, "nan", 0.5,
)  # fmt: skip


def spoiled_value(rng: random.Random, tree: Any) -> str:
    """Change one value of a tree of dictionaries and lists in place; says which."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                walk(node[key])

    if isinstance(tree, (dict, list)):
        walk(tree)
    if not places:
        return "nothing"
    # Not mostly the numbers of long lists.
    node, key = rng.choice(
        places if rng.random() < 0.5 else [one for one in places if isinstance(one[0], dict)] or places
    )
    if rng.random() < 0.25:
        del node[key]
        return f"without {key!r}"
    node[key] = rng.choice(VALUES)
    return f"{key!r} = {str(node[key])[:40]!r}"


def spoiled_json(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    """JSON with a few values changed; sometimes nested a hundred thousand times, or with numbers of such length."""
    special = rng.randrange(12)
    if special == 0:
        return b"[" * 100_000, "nested 100 000 times"
    if special == 1:
        return b"1" * 10_000, "a number of 10 000 digits"
    if special == 2:
        value = rng.choice(VALUES)
        return json.dumps(value).encode(), f"only {str(value)[:20]}"
    tree = json.loads(data)
    done = [spoiled_value(rng, tree) for _ in range(rng.choice((1, 1, 1, 2, 5)))]
    return json.dumps(tree).encode(), "; ".join(done)


def spoiled_text(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    """A text of lines and words with some of them changed."""
    lines = data.decode("utf-8", "replace").split("\n")
    done = []
    for _ in range(rng.choice((1, 1, 2, 5))):
        row = rng.randrange(len(lines))
        how = rng.choice(("word", "word", "word", "drop", "double", "long", "word gone"))
        words = lines[row].split(" ")
        if how == "drop":
            del lines[row]
            lines = lines or [""]
        elif how == "double":
            lines.insert(row, lines[row])
        elif how == "long":
            lines[row] = lines[row] * 50
        else:
            at = rng.randrange(len(words))
            words[at : at + 1] = [] if how == "word gone" else [str(rng.choice(VALUES))]
            lines[row] = " ".join(words)
        done.append(f"{how} in line {row + 1}")
    return "\n".join(lines).encode("utf-8", "replace"), "; ".join(done)


def spoiled_npz(rng: random.Random, path: Path, target: Path) -> str:
    """An archive of arrays: one gone, of another type or shape, with NaN, or one that claims to be gigabytes."""
    import io
    import zipfile

    import numpy as np

    with np.load(path) as data:
        arrays = {name: data[name] for name in data.files}
    if not arrays:
        target.write_bytes(b"PK\5\6" + bytes(18))
        return "an empty archive"
    name = rng.choice(sorted(arrays))
    how = rng.choice(("gone", "type", "shape", "nan", "huge", "bomb", "object", "short", "scalar", "values"))
    array = arrays[name]
    if how == "gone":
        del arrays[name]
    elif how == "type":
        arrays[name] = (
            array.astype("U8")
            if rng.random() < 0.3
            else array.astype(np.complex64 if array.dtype.kind == "f" else np.float64)
        )
    elif how == "shape":
        arrays[name] = array.reshape(-1) if array.ndim > 1 else array[None]
    elif how == "nan":
        arrays[name] = np.full(array.shape, np.nan)
    elif how == "short":
        arrays[name] = array[: len(array) // 2] if array.ndim else array
    elif how == "scalar":
        arrays[name] = np.float64(3)
    elif how == "values":
        arrays[name] = array + array.dtype.type(7) if array.dtype.kind in "iuf" else array
    if how in {"huge", "bomb", "object"}:
        shape = {"huge": 10**12, "bomb": _BOMB, "object": 1}[how]
        kind = "|O" if how == "object" else "|u1"
        header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape},), }}"
        header += " " * (-(len(header) + 11) % 64) + "\n"
        start = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode()
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for other, values in arrays.items():
                if other != name:
                    stream = io.BytesIO()
                    np.save(stream, values)
                    archive.writestr(f"{other}.npy", stream.getvalue())
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                stream.write(start)
                if how == "bomb":
                    for _ in range(300):  # 300 MB are enough to see whether the rest is allocated
                        stream.write(bytes(1 << 20))
                else:
                    stream.write(b"cos\nsystem\n(S'touch boo'\ntR.")
    else:
        np.savez(target, **arrays)
    return f"array {name}: {how}"


def spoil(rng: random.Random, source: Path, target: Path, others: Sequence[Path] = ()) -> str:
    """Put a spoiled copy of a file at ``target``; says what was done."""
    target.parent.mkdir(parents=True, exist_ok=True)
    kind, data = source.suffix.lower(), source.read_bytes()
    structured = rng.random() < 0.6
    if structured and kind in {".json", ".sfm"} and data:
        new, what = spoiled_json(rng, data)
    elif (
        structured and kind in {".txt", ".toml", ".out", ".csv", ".mtl", ".obj", ".xml", ".graphml"} and data
    ):
        new, what = spoiled_text(rng, data)
    elif structured and kind == ".npz":
        if target.is_file():
            target.unlink()
        return spoiled_npz(rng, source, target)
    elif structured and kind == ".ply":
        new, what = spoiled_header(rng, data)
    else:
        new, what = spoiled_bytes(rng, data, [other.read_bytes() for other in others])
    if target.is_symlink() or target.is_file():
        target.unlink()
    target.write_bytes(new)
    return what


def spoiled_header(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    """A PLY whose header says something else."""
    head, end, body = data.partition(b"end_header\n")
    new, what = spoiled_text(rng, head)
    if rng.random() < 0.5:
        count = rng.choice((b"0", b"-1", b"1", b"99999999999", b"4294967296", b"1000000000", b"x"))
        lines = head.split(b"\n")
        rows = [row for row, line in enumerate(lines) if line.startswith(b"element")]
        row = rng.choice(rows)
        lines[row] = b" ".join([*lines[row].split()[:2], count])
        new, what = b"\n".join(lines), lines[row].decode()
    return new + end + body, f"header: {what}"


# Photos


def png(
    width: int, height: int, *, chunks: Sequence[tuple[bytes, bytes]] = (), body: bytes | None = None
) -> bytes:
    """A black PNG of one bit; ``body`` in place of its rows."""
    rows = bytes((width + 7) // 8 + 1) * height if body is None else b""
    made = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)), *chunks]
    made += [(b"IDAT", zlib.compress(rows, 9) if body is None else body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in made
    )


@functools.cache
def _packed_zeros() -> bytes:
    """A stream that unpacks to 300 MB."""
    return zlib.compress(bytes(300_000_000), 9)


def bomb(rng: random.Random, pool: Path) -> tuple[str, bytes, str]:
    """A file that is small and claims or unpacks to be large: suffix, bytes, words."""
    huge = rng.choice((65_000, 100_000, 2**31 - 1, 2**32 - 1))
    much = _packed_zeros()
    jpeg, tiff = (pool / "photo.jpg").read_bytes(), (pool / "photo.tif").read_bytes()

    def jpeg_of(width: int, height: int) -> bytes:
        at = next(i for i in range(len(jpeg)) if jpeg[i : i + 2] == b"\xff\xc0")
        return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]

    def tiff_of(tag: int, value: int) -> bytes:
        start = struct.unpack_from("<I", tiff, 4)[0]
        data = bytearray(tiff)
        for index in range(struct.unpack_from("<H", tiff, start)[0]):
            at = start + 2 + 12 * index
            if struct.unpack_from("<H", tiff, at)[0] == tag:
                struct.pack_into("<HII", data, at + 2, 4, 1, value & 0xFFFFFFFF)
        return bytes(data)

    choices: list[Callable[[], tuple[str, bytes, str]]] = [
        lambda: ("png", png(48_000, 48_000), "a PNG of 48 000² pixels"),
        lambda: ("png", png(huge, huge, body=zlib.compress(b"\0")), f"a PNG that claims {huge}² pixels"),
        lambda: ("png", png(64, 64, body=much), "a PNG whose rows unpack to 300 MB"),
        lambda: ("png", png(240, 180, chunks=[(b"iCCP", b"p\0\0" + much)]), "a profile that unpacks to 300 MB"),
        lambda: ("png", png(240, 180, chunks=[(b"zTXt", b"c\0\0" + much)]), "a text that unpacks to 300 MB"),
        lambda: ("png", png(240, 180, chunks=[(b"iTXt", b"c\0\1\0\0\0" + much)] * 3), "texts that unpack to 900 MB"),
        lambda: ("png", png(240, 180, chunks=[(b"eXIf", rng.randbytes(3000))]), "EXIF of noise in a PNG"),
        lambda: ("jpg", jpeg_of(65_500, 65_500), "a JPEG that claims 65 500² pixels"),
        lambda: ("jpg", jpeg_of(0, 0), "a JPEG of 0 pixels"),
        lambda: ("jpg", jpeg_of(65_500, 1), "a JPEG of one row"),
        lambda: ("tif", tiff_of(rng.choice((256, 257)), huge), "a TIFF with a huge side"),
        lambda: ("tif", tiff_of(rng.choice((258, 259, 262, 273, 277, 278, 279, 284)), huge), "a TIFF with a wrong tag"),
        lambda: ("bmp", b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, min(huge, 2**31 - 1), rng.choice((1, -(2**31), 100_000)), 1, 24, 0, 0, 0, 0, 0, 0), "a BMP with a huge side"),
        lambda: ("ppm", b"P6 %d %d 255\n" % (huge, huge) + bytes(100), "a PPM with huge sides"),
        lambda: ("pgm", b"P5 40000 40000 255\n" + bytes(100), "a PGM cut short"),
        lambda: ("gif", b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + (pool / "photo.gif").read_bytes()[13:], "a GIF on a screen of 65535²"),
        lambda: ("tga", struct.pack("<BBBHHBHHHHBB", 0, 0, 10, 0, 0, 0, 0, 0, 65535, 65535, 24, 0) + b"\xff\0\0\0" * 9, "a TGA of 65535²"),
        lambda: ("jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9999 9999\n(/tmp/boo) (w) file pop\n{} loop\n", "a PostScript program"),
        lambda: ("png", b"<?xml version='1.0'?><!DOCTYPE s [<!ENTITY a 'aaaaaaaaaa'>]><svg>&a;</svg>", "an SVG"),
        lambda: ("jpg", b"\x1f\x8b\x08\0\0\0\0\0" + much, "a gzip bomb"),
        lambda: ("jpg", b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 300_000, 300_000, 8, 3) + bytes(100), "a PSD of 300 000²"),
        lambda: ("hdr", b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 100000 +X 100000\n" + bytes(64), "a Radiance of 100 000²"),
        lambda: ("jp2", (pool / "photo.jp2").read_bytes()[:48] + struct.pack(">II", huge & 0xFFFFFFFF, huge & 0xFFFFFFFF) + (pool / "photo.jp2").read_bytes()[56:], "a JPEG 2000 with huge sides"),
        lambda: ("webp", b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0" + b"\xff\x3f\0" * 2 + b"ANMF" + b"\xff" * 8, "a WebP of 16384² without pictures"),
    ]  # fmt: skip
    return rng.choice(choices)()


def _photo_folder(base: Path, folder: Path, count: int = 3) -> Path:
    """A folder with good photos."""
    photos = folder / "photos"
    photos.mkdir()
    for one in sorted((base / "scene" / "images").iterdir())[:count]:
        shutil.copy(one, photos / one.name)
    return photos


def photos(rng: random.Random, base: Path, folder: Path) -> Case:
    """One photo of four is spoiled; sometimes two that are photographed are matched alone."""
    place, pool = _photo_folder(base, folder), base / "pool"
    files = sorted(pool.iterdir())
    how = rng.random()
    if how < 0.3:
        suffix, data, what = bomb(rng, pool)
        name = f"bad.{suffix}"
        (place / name).write_bytes(data)
    elif how < 0.4:
        name, what = (
            "bad.jpg",
            rng.choice(("a folder", "a link to itself", "a pipe", "a link to nothing", "a device")),
        )
        _strange_file(place / name, what)
    else:
        source = rng.choice([one for one in files if not one.name.startswith("film")])
        suffix = (
            source.suffix if rng.random() < 0.8 else rng.choice([".jpg", ".png", ".dng", ".heic", ".tif", ""])
        )
        name = f"bad{suffix}"
        what = spoil(rng, source, place / name, files)
        what = f"{source.name}: {what}"
    out = folder / "out"
    strange = what.startswith("a folder")
    if rng.random() < 0.06 and not strange:
        argv = ["match", str(place / "0000.png"), str(place / name), "--out", str(out), "--max-size", "64"]
        return Case([*argv, "--set", "iterations=8"], out, what, (name,))
    return Case(reconstruct(place, out), out, what, (name,), () if strange else (name,))


def _strange_file(path: Path, what: str) -> None:
    if what == "a folder":
        path.mkdir()
    elif what == "a link to itself":
        path.symlink_to(path.name)
    elif what == "a pipe":
        os.mkfifo(path)
    elif what == "a link to nothing":
        path.symlink_to("nowhere.jpg")
    else:
        path.symlink_to(random.Random(len(str(path))).choice(("/dev/zero", "/dev/null", "/dev/urandom")))


def films(rng: random.Random, base: Path, folder: Path) -> Case:
    """A spoiled film among photos, or alone."""
    files = sorted((base / "pool").glob("film*"))
    source = rng.choice(files)
    place = _photo_folder(base, folder) if rng.random() < 0.7 else folder / "photos"
    place.mkdir(exist_ok=True)
    name = f"bad{source.suffix if rng.random() < 0.8 else rng.choice(['.mp4', '.mov', '.mts', '.jpg'])}"
    what = spoil(rng, source, place / name, sorted((base / "pool").iterdir()))
    out = folder / "out"
    alone = rng.random() < 0.3
    return Case(
        reconstruct(place / name if alone else place, out), out, f"{source.name}: {what}", (name,), (name,)
    )


def exif(rng: random.Random, base: Path, folder: Path) -> Case:
    """EXIF with absurd values, and EXIF that is noise."""
    from PIL import Image

    place = _photo_folder(base, folder)
    tags = [0x010F, 0x0110, 0x0112, 0x0132, 0x9003, 0x920A, 0xA405, 0xA20E, 0xA20F, 0xA210, 0xA002, 0xA003, 0xA404, 0xA431, 0xA432, 0xA434, 0x927C, 0x9286, 0x8769, 0x8825, 1, 2, 3, 4, 5, 6, 7, 0x1D]  # fmt: skip
    values: list[Any] = [
        0, 1, 9, 65535, -1, "", "x" * 70_000, "<img src=x onerror=alert(1)>", "\0\0", "2024:99:99 99:99:99", "0000:00:00 00:00:00", b"",
        b"\xff" * 100, (0.0, 0.0, 0.0), (1e9, -1e9, 1e300), (1, 2), (400.0, 99.0, 0.0), 1e300, 1e-300, float("nan"), float("inf"), "N\0S",
        {1: 2}, "\ud83d\ude00", "1/0", (0,) * 5000,
    ]  # fmt: skip
    with Image.open(base / "pool" / "photo.jpg") as image:
        if rng.random() < 0.4:
            raw, what = spoiled_bytes(rng, good_exif())
            if rng.random() < 0.3:
                raw, what = _looping_exif(rng), "directories that name each other"
        else:
            made, what = Image.Exif(), ""
            made.load(good_exif())
            for _ in range(rng.choice((1, 2, 6))):
                tag, value = rng.choice(tags), rng.choice(values)
                where = (
                    made
                    if tag in {0x010F, 0x0110, 0x0112, 0x0132, 0x8769, 0x8825}
                    else made.get_ifd(0x8825 if tag < 0x100 else 0x8769)
                )
                where[tag] = value
                what += f"tag {tag:#x} = {str(value)[:30]!r} "
            try:
                raw = made.tobytes()
            except Exception:  # what Pillow cannot write becomes noise
                raw, what = spoiled_bytes(rng, good_exif())
        name = f"bad.{rng.choice(('jpg', 'jpg', 'png', 'webp'))}"
        try:
            image.save(place / name, exif=raw[:65_000])
        except Exception:
            data = (base / "pool" / "photo.jpg").read_bytes()
            name, block = "bad.jpg", b"Exif\0\0" + raw[:65_000]
            (place / name).write_bytes(
                data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]
            )
    out = folder / "out"
    return Case(reconstruct(place, out), out, what, (name,), (name,))


def _looping_exif(rng: random.Random) -> bytes:
    """Two entries that point back to the first directory, and a next directory that is the first."""
    entries = struct.pack("<HHII", 0x8769, 4, 1, 8) + struct.pack("<HHII", 0x8825, 4, 1, 8)
    far = struct.pack("<HHII", 0x920A, 5, rng.choice((1, 2**31, 2**32 - 1)), rng.choice((8, 2**32 - 1)))
    return (
        b"Exif\0\0II*\0" + struct.pack("<I", 8) + struct.pack("<H", 3) + entries + far + struct.pack("<I", 8)
    )


NAMES: tuple[bytes, ...] = (
    b"a\nb.png", b"-o.png", b"--help.png", b"a b  c.png", b" .png", b"...png", b".hidden.png", b"a%2Fb.png", b"%25.png", b"a\\b.png",
    b"\xff\xfe.png", b"\xed\xa0\x80.png", b"caf\xc3\xa9.png", b"cafe\xcc\x81.png", b"\xe2\x80\xaegnp.jpg.png", b"x" * 251 + b".png",
    b"\xe6\x97\xa5" * 83 + b".png", b"<img src=x onerror=alert(1)>.png", b"'\".png", b"$(touch boo).png", b"`id`.png", b"[a-z]*.png", b"?.png",
    b"con.png", b"nul", b"a.PNG", b"0000.PNG", b"0000.png.png", b"0000_mask.png", b"photos.json.png", b"#a.png", b"a,b.png", b"a\tb.png", b"{0}.png",
    b"%s%n.png", b"\x1b[31mred.png", b"\x07.png", b"\x7f.png", b"~.png", b"a;b.png", b"a|b.png", b"a.png ", b"a.", b"\xf0\x9f\x98\x80.png", b"\xc2\xa0.png",
    b"1e999.png", b"NaN.png", b"null.png", b"../".replace(b"/", b"_") + b".png", b"a.jpg.jpg.jpg.png", b"&amp;.png", b"</script>.png", b"\r.png",
)  # fmt: skip


def names(rng: random.Random, base: Path, folder: Path) -> Case:
    """Photos, and folders around them, of names that nobody expects."""
    place = _photo_folder(base, folder, 0)
    sources = sorted((base / "scene" / "images").iterdir())
    chosen = rng.sample(NAMES, 3)
    below = os.fsencode(place)
    given = []
    for source, name in zip(sources, chosen, strict=False):
        where = below
        if rng.random() < 0.3:
            where = os.path.join(below, rng.choice([one for one in NAMES if len(one) < 200]))
            if os.path.isfile(where):  # a photo has this name already
                where = below
            os.makedirs(where, exist_ok=True)
        target = os.path.join(where, name)
        if not os.path.exists(target):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copy(source, target)
            given.append(os.fsdecode(name))
    out = folder / (
        "out" if rng.random() < 0.7 else os.fsdecode(rng.choice([one for one in NAMES if one[:1] != b"-"]))
    )
    last = "photos" if rng.random() < 0.7 else "map"
    whole = reconstruct(place, out, last=last)
    if last == "map":
        whole = [*_without_flow_settings(whole), "--set", "match.matcher=sift"]
    return Case(whole, out, f"{chosen}", (*given, out.name, str(place.name)), ())


def _without_flow_settings(argv: list[str]) -> list[str]:
    """Arguments without the settings that a sparse matcher does not know."""
    kept: list[str] = []
    for word in argv:
        if word.startswith(("match.top_iterations", "match.iterations", "match.max_size")):
            kept.pop()
        else:
            kept.append(word)
    return kept


def masks(rng: random.Random, base: Path, folder: Path) -> Case:
    """A spoiled mask, beside the photos or in a folder."""
    import numpy as np
    from PIL import Image

    place = _photo_folder(base, folder)
    beside = rng.random() < 0.5
    target = place if beside else folder / "masks"
    target.mkdir(exist_ok=True)
    stem = rng.choice(("0001_mask", "0001.png", "0001-mask") if beside else ("0001", "0001.png", "0001_mask"))
    good = folder / "mask.png"
    mask = np.zeros((180, 240), np.uint8)
    mask[20:160, 30:200] = 255
    Image.fromarray(mask).save(good)
    how = rng.randrange(6)
    name = f"{stem}.{rng.choice(('png', 'PNG', 'tif', 'jpg'))}"
    if how < 2:
        what = spoil(rng, good, target / name, sorted((base / "pool").iterdir()))
    elif how == 2:
        suffix, data, what = bomb(rng, base / "pool")
        name = f"{stem}.{suffix}"
        (target / name).write_bytes(data)
    elif how == 3:
        size = rng.choice(((1, 1), (240, 1), (120, 90), (180, 240), (241, 181), (24_000, 18_000)))
        Image.new("1", size, 1).save(target / name)
        what = f"of {size} pixels"
    elif how == 4:
        mode = rng.choice(("1", "L", "P", "RGBA", "LA", "I;16", "F", "CMYK"))
        what, name = f"of mode {mode}", f"{stem}.tif"
        Image.new(mode, (240, 180)).save(target / name)
    else:
        what = rng.choice(("a folder", "a link to itself", "a pipe", "a link to nothing", "a device"))
        _strange_file(target / name, what)
    good.unlink()
    out = folder / "out"
    more = [] if beside else ["--masks", str(target)]
    return Case(
        reconstruct(place, out, *more), out, f"{name}: {what}", (name, "0001.png", str(target)), ("0001.png",)
    )


def intrinsics(rng: random.Random, base: Path, folder: Path) -> Case:
    """Spoiled cameras.json, cameras.txt, and numbers on the command line."""
    out = folder / "out"
    how = rng.randrange(4)
    if how == 0:
        spec = ",".join(
            str(rng.choice((0, -1, 1e308, "nan", "inf", "x", "", 200, 1e-9, 2**70)))
            for _ in range(rng.choice((1, 3, 4, 4, 4, 5, 8)))
        )
        named, what = spec, f"--intrinsics {spec}"
    else:
        text = base / "exports" / "colmap-text"
        source = base / "scene" / "cameras.json" if how < 3 else next(text.rglob("cameras.txt"))
        spoiled = folder / source.name
        what = spoil(rng, source, spoiled, [base / "pool" / "photo.jpg", base / "out" / "tracks.npz"])
        if how == 3 and rng.random() < 0.5:
            what += "; images.txt: " + spoil(rng, next(text.rglob("images.txt")), folder / "images.txt")
        spec, named = str(spoiled), source.name
    argv = reconstruct(base / "scene" / "images", out, f"--intrinsics={spec}")
    return Case(argv, out, what, (named, "images.txt", "--intrinsics"))


CHEAP = ("photos", "features", "pairs", "verify", "tracks", "map", "depth", "fuse")
"""Stages that take a fraction of a second."""


def recipes(rng: random.Random, base: Path, folder: Path) -> Case:
    """Spoiled recipes, and absurd values of settings that stages then run with."""
    how = rng.randrange(3)
    if how == 0:
        from recon.api import stages

        stage = rng.choice([one for one in stages() if one.name in CHEAP])
        key = rng.choice(list(stage.Settings.model_fields))
        value = rng.choice(
            (
                0,
                -1,
                1,
                2,
                3,
                1e-9,
                0.5,
                1e6,
                2**40,
                "nan",
                "inf",
                "true",
                "x",
                "[]",
                "{}",
                '""',
                "1e400",
                "'\\u0000'",
            )
        )
        out = folder / "out"
        copy_run(base, out)
        setting = f"{stage.name}.{key}={value}"
        argv = reconstruct(
            base / "scene" / "images", out, cameras=base / "scene" / "cameras.json", last=stage.name
        )
        return Case(
            [*argv, "--set", setting],
            out,
            f"--set {setting}",
            (f"{stage.name}.{key}", key, "--set", *WAYS_OUT),
        )
    spoiled = folder / "mine.toml"
    source = base / "out" / "recipe.toml"
    if how == 1:
        what = spoil(rng, source, spoiled, [base / "pool" / "photo.jpg"])
    else:
        lines = source.read_text().splitlines()
        rows = [row for row, line in enumerate(lines) if " = " in line]
        for _ in range(rng.choice((1, 2))):
            row = rng.choice(rows)
            lines[row] = (
                lines[row].split(" = ")[0]
                + " = "
                + rng.choice(
                    (
                        "nan",
                        "-1",
                        "[]",
                        '"x"',
                        "1e999",
                        "{a = 1}",
                        "2024-01-01",
                        "0x7fffffffffffffffff",
                        '"""',
                    )
                )
            )
        what = lines[row]
        if rng.random() < 0.2:
            lines.insert(
                0,
                rng.choice(
                    (
                        'extends = "mine"',
                        'extends = "./mine.toml"',
                        "extends = 3",
                        'extends = "/dev/zero"',
                        'extends = "../.."',
                    )
                ),
            )
            what = lines[0]
        spoiled.write_text("\n".join(lines))
    out = folder / "out"
    return Case(
        [*reconstruct(base / "scene" / "images", out, "--recipe", str(spoiled))], out, what, ("mine.toml",)
    )


WAYS_OUT = ("photos can be used", "overlap", "photo", "pairs", "min_")
"""Where settings that are allowed leave nothing, the message says what is missing."""


def pair_lists(rng: random.Random, base: Path, folder: Path) -> Case:
    """Spoiled lists of pairs, and lists of photos."""
    photos_ = sorted((base / "scene" / "images").iterdir())
    out, listing = folder / "out", folder / "list.txt"
    good = folder / "good.txt"
    if rng.random() < 0.5:
        good.write_text("".join(f"{a.name} {b.name}\n" for a in photos_ for b in photos_ if a < b))
        what = spoil(rng, good, listing, [base / "pool" / "photo.jpg"])
        copy_run(base, out)
        argv = reconstruct(
            base / "scene" / "images", out, cameras=base / "scene" / "cameras.json", last="pairs"
        )
        argv += ["--set", "pairs.mode=file", "--set", f"pairs.file={listing}"]
    else:
        good.write_text("".join(f"{one}\n" for one in photos_))
        what = spoil(rng, good, listing, [base / "pool" / "photo.jpg"])
        argv = reconstruct(listing, out)
    good.unlink()
    return Case(argv, out, what, ("list.txt",))


# Results


def copy_run(base: Path, out: Path, which: str = "out") -> None:
    """A copy of the small run."""
    shutil.copytree(base / which, out, symlinks=True)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def _reader(rng: random.Random, thing: Path, out: Path, base: Path, *, choices: Sequence[str]) -> list[str]:
    """A command that reads a result."""
    truth = str(base / "scene")
    name, port = rng.choice(choices), str(rng.randrange(20_000, 60_000))
    return {
        "view": ["view", str(thing), "--no-browser", "--port", port],
        "render": ["render", str(thing), "--out", str(out / "picture.png"), "--size", "96x72", "--threads", "1", "--samples", "1"],
        "surface": ["evaluate", "surface", str(thing), "--truth", str(base / "scene" / "truth" / "mesh.ply")],
        "surface truth": ["evaluate", "surface", str(base / "out" / "mesh" / "mesh.ply"), "--truth", str(thing)],
        "poses": ["evaluate", "poses", str(thing), "--truth", truth],
        "poses truth": ["evaluate", "poses", str(base / "out"), "--truth", str(thing)],
        "matches": ["evaluate", "matches", str(thing), "--truth", truth],
        "run": ["evaluate", "run", str(thing), "--truth", truth],
        "scene": ["evaluate", "scene", str(thing), "--scene", truth],
        "depth": ["evaluate", "depth", str(thing), "--truth", truth],
        "georeference": ["georeference", str(thing), "--level"],
        "ortho": ["ortho", str(thing), "--out", str(out / "maps")],
        "import": ["import", "colmap", str(thing), "--out", str(out / "import")],
        **{
            f"export {one}": ["export", str(thing), "--to", one, "--out", str(out / one)] for one in FORMATS
        },
    }[name]  # fmt: skip


def meshes(rng: random.Random, base: Path, folder: Path) -> Case:
    """Spoiled clouds and meshes given to the viewer, to renderings and to evaluation."""
    sources = [
        base / "out" / "dense" / "points.ply", base / "out" / "mesh" / "mesh.ply", base / "out" / "mesh" / "textured.glb",
        base / "out" / "mesh" / "textured.obj", base / "out" / "mesh" / "textured.mtl", base / "out" / "mesh" / "texture.jpg",
    ]  # fmt: skip
    source = rng.choice(sources)
    place, out = folder / "mesh", folder / "out"
    shutil.copytree(source.parent, place)
    what = spoil(rng, source, place / source.name, [*sources, base / "pool" / "photo.png"])
    thing = place / ("textured.obj" if source.suffix in {".mtl", ".jpg"} else source.name)
    choices = (
        ("view", "render")
        if source.suffix in {".mtl", ".jpg"}
        else ("view", "render", "surface", "surface truth")
    )
    return Case(
        _reader(rng, thing, out, base, choices=choices),
        out,
        f"{source.name}: {what}",
        (source.name, thing.name),
    )


MODEL_READERS = ("view", "render", "poses", "poses truth", "import", "georeference", "export nerfstudio", "export colmap", "export openmvg", "export bundler", "export meshroom", "export openmvs", "export ply")  # fmt: skip


def models(rng: random.Random, base: Path, folder: Path) -> Case:
    """Spoiled COLMAP models, binary and text, and the database."""
    text = rng.random() < 0.4
    place, out = folder / "model", folder / "out"
    source = base / "exports" / "colmap-text" if text else base / "out" / "sparse" / "0"
    model = next(
        one for one in (source, *sorted(source.rglob("*"))) if one.is_dir() and list(one.glob("cameras.*"))
    )
    shutil.copytree(model, place)
    files = sorted(one for one in place.iterdir() if one.is_file())
    if rng.random() < 0.12:
        shutil.copy(base / "out" / "database.db", place / "database.db")
        what = spoil(rng, base / "out" / "database.db", place / "database.db", files)
        argv = _reader(rng, place / "database.db", out, base, choices=("matches",))
        return Case(argv, out, f"database.db: {what}", ("database.db",))
    target = rng.choice(files)
    others = [
        *files,
        *(one for one in (base / "other-out" / "sparse" / "0").iterdir() if one.name == target.name),
    ]
    if rng.random() < 0.1:
        target.unlink()
        what = "missing"
    else:
        what = spoil(rng, target, target, others)
    argv = _reader(rng, place, out, base, choices=MODEL_READERS)
    if argv[0] == "georeference":
        out = place
    return Case(argv, out, f"{target.name}: {what}", (target.name, place.name))


def imports(rng: random.Random, base: Path, folder: Path) -> Case:
    """Spoiled files of other programs."""
    kind = rng.choice(list(IMPORTED))
    place, out = folder / "theirs", folder / "out"
    shutil.copytree(base / "exports" / kind, place)
    files = sorted(one for one in place.rglob("*") if one.is_file() and one.suffix not in {".png", ".jpg"})
    pattern = IMPORTED[kind]
    main_files = [one for one in files if pattern and one.match(pattern)]
    target = rng.choice(main_files if main_files and rng.random() < 0.6 else files)
    name = target.name
    if rng.random() < 0.1:
        target.unlink()
        what = "missing"
    else:
        what = spoil(rng, target, target, files)
    argv = ["import", kind.removesuffix("-text"), str(place), "--out", str(out)]
    return Case(argv, out, f"{kind}/{name}: {what}", (name, place.name))


def fields(rng: random.Random, base: Path, folder: Path) -> Case:
    """Spoiled depth maps, flow, camera paths and control points."""
    import numpy as np

    out, how = folder / "out", rng.randrange(4)
    others = [base / "pool" / "photo.jpg", base / "out" / "tracks.npz"]
    depth = np.full((90, 120), 5.0, np.float32)
    if how == 0:
        suffix = rng.choice((".npy", ".npz", ".pfm", ".bin"))
        good = folder / f"good{suffix}"
        if suffix == ".npy":
            np.save(good, depth)
        elif suffix == ".npz":
            np.savez(good, depth=depth)
        elif suffix == ".pfm":
            good.write_bytes(b"Pf\n120 90\n-1.0\n" + depth.tobytes())
        else:
            good.write_bytes(b"120&90&1&" + depth.tobytes())
        bad = folder / f"bad{suffix}"
        what = spoil(rng, good, bad, others)
        pair = [str(bad), "--truth", str(good)] if rng.random() < 0.5 else [str(good), "--truth", str(bad)]
        argv = ["evaluate", "depth", *pair]
    elif how == 1:
        good, bad = folder / "good.flo", folder / "bad.flo"
        good.write_bytes(b"PIEH" + struct.pack("<II", 120, 90) + np.zeros((90, 120, 2), "<f4").tobytes())
        what = spoil(rng, good, bad, others)
        pair = [str(bad), "--truth", str(good)] if rng.random() < 0.5 else [str(good), "--truth", str(bad)]
        argv = ["evaluate", "flow", *pair]
    elif how == 2:
        good, bad = folder / "good.txt", folder / "bad.txt"
        if rng.random() < 0.5:
            good = next((base / "exports" / "nerfstudio").rglob("transforms.json"))
            bad = folder / "bad.json"
        else:
            good.write_text("".join(f"{i} {i} 0 0 0 0 0 1\n" for i in range(5)))
        what = spoil(rng, good, bad, others)
        argv = [
            "render",
            str(base / "out"),
            "--out",
            str(out / "picture.png"),
            "--size",
            "96x72",
            "--layer",
            "sparse",
            "--trajectory",
            str(bad),
            "--threads",
            "1",
            "--samples",
            "1",
        ]
    else:
        good, bad = folder / "good.csv", folder / "bad.csv"
        rows = [
            f"p{i},{i},{i * i % 5},{i % 3},000{j}.png,{40 + 20 * i},{30 + 15 * i}"
            for i in range(5)
            for j in range(3)
        ]
        good.write_text("name,X,Y,Z,photo,x,y\n" + "\n".join(rows) + "\n")
        what = spoil(rng, good, bad, others)
        _copy(base / "out" / "sparse", out / "sparse")
        _copy(base / "out" / "photos.json", out / "photos.json")
        argv = ["georeference", str(out), "--control", str(bad)]
    return Case(argv, out, f"{bad.name}: {what}", (bad.name, good.name, "p0", "control"))


READS: dict[str, tuple[str, ...]] = {
    "manifest.json": ("resume photos", "run", "view", "export colmap", "georeference"),
    "photos.json": ("features", "verify", "map", "texture", "run", "view", "render", "export nerfstudio", "export openmvg"),
    "photos": ("features", "depth", "texture", "report", "export colmap", "export openmvs", "view"),
    "features": ("pairs", "verify"),
    "pairs.json": ("verify", "run", "matches", "report"),
    "sparse_matches.npz": ("verify",),
    "matching.json": ("verify", "tracks", "run", "matches"),
    "flows.zarr": ("verify", "tracks", "depth", "run", "matches"),
    "two_view.npz": ("tracks", "map", "run", "poses", "report"),
    "view_graph.graphml": ("tracks", "map", "report"),
    "pair_evidence.graphml": ("map", "report"),
    "verification.json": ("report",),
    "tracks.npz": ("map", "run", "report"),
    "database.db": ("map", "report", "matches"),
    "mapping.json": ("report", "run", "depth", "view"),
    "trust.json": ("report", "resume report", "run"),
    "sparse": ("depth", "mesh", "texture", "report", "view", "render", "poses", "run", "scene", "export colmap", "georeference", "ortho"),
    "fields.json": ("depth",),
    "dense/depth": ("fuse", "mesh", "depth maps", "run", "ortho", "report"),
    "dense/points.ply": ("mesh", "view", "render", "scene", "run", "export ply", "export las"),
    "mesh/mesh.ply": ("texture", "view", "scene", "surface", "export obj", "ortho", "report"),
    "mesh": ("view", "render", "report", "export glb", "export obj"),
    "summary.json": ("resume report", "run"),
    "recipe.toml": ("resume photos", "report"),
}  # fmt: skip
"""Files of a workspace, and the stages and commands that read them."""


def workspace(rng: random.Random, base: Path, folder: Path) -> Case:
    """A file of a workspace missing, empty, cut, spoiled, of another run or of an older layout."""
    out = folder / "out"
    copy_run(base, out)
    entry = rng.choice(list(READS))
    place = out / entry
    files = [place] if place.is_file() else sorted(one for one in place.rglob("*") if one.is_file())
    target = rng.choice(files)
    inside = target.relative_to(out)
    twin = base / "other-out" / inside
    how = rng.choice(
        ("missing", "empty", "cut", "spoiled", "spoiled", "other run", "older", "folder", "all missing")
    )
    if how == "missing":
        target.unlink()
    elif how == "all missing":
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    elif how == "empty":
        target.write_bytes(b"")
    elif how == "cut":
        target.write_bytes(target.read_bytes()[: rng.randrange(1, max(2, target.stat().st_size))])
    elif how == "folder":
        target.unlink()
        target.mkdir()
    elif how == "other run":
        source = twin if twin.is_file() else rng.choice(files)
        target.write_bytes(source.read_bytes())
    elif how == "older":
        how = _older(rng, target)
    else:
        how = spoil(rng, base / "out" / inside, target, [*files, base / "pool" / "photo.png"])
    reader = rng.choice(READS[entry])
    reader = "depth" if reader == "depth maps" else reader
    stage = reader.removeprefix("resume ")
    if reader.startswith("resume ") or reader in {*CHEAP, "mesh", "texture", "report"}:
        again = [] if reader.startswith("resume ") else ["--restart-from", stage]
        argv = reconstruct(
            base / "scene" / "images", out, *again, cameras=base / "scene" / "cameras.json", last=stage
        )
    else:
        argv = _reader(rng, out, out, base, choices=(reader,))
    # A folder of parts is named where a part of it is gone or does not fit.
    named = (
        inside.name,
        *[
            part
            for part in inside.parts[:-1]
            if "." in part or part in {"photos", "features", "sparse", "depth"}
        ],
        "restart-from",
        "sparse",
    )
    if "missing" in how:
        named = (*named, str(out))
    return Case(argv, out, f"{inside} {how}, {reader}", named)


def _older(rng: random.Random, target: Path) -> str:
    """An older layout: something that is there now was not there then."""
    import numpy as np

    if target.suffix == ".json" or target.name == "zarr.json":
        tree = json.loads(target.read_bytes())
        if target.name == "manifest.json" and rng.random() < 0.5:
            tree["format"] = rng.choice((0, 2))
        keys = [key for key in tree if key != "format"] if isinstance(tree, dict) else []
        inner = tree[0] if isinstance(tree, list) and tree and isinstance(tree[0], dict) else tree
        if isinstance(tree, dict):
            for value in tree.values():
                if isinstance(value, list) and value and isinstance(value[0], dict) and rng.random() < 0.5:
                    inner = value[0]
        gone = rng.choice(sorted(inner)) if isinstance(inner, dict) and inner else None
        if gone is not None:
            del inner[gone]
        target.write_text(json.dumps(tree))
        return f"older: without {gone!r} ({len(keys)} keys)"
    if target.suffix == ".npz":
        with np.load(target) as data:
            arrays = {name: data[name] for name in data.files}
        gone = rng.choice(sorted(arrays)) if arrays else ""
        arrays.pop(gone, None)
        np.savez(target, **arrays)
        return f"older: without {gone!r}"
    target.write_bytes(target.read_bytes()[: target.stat().st_size // 2])
    return "older: half of it"


KINDS: dict[str, Kind] = {
    "photos": Kind(photos, 20),
    "films": Kind(films, 5),
    "exif": Kind(exif, 10),
    "names": Kind(names, 8),
    "masks": Kind(masks, 7),
    "intrinsics": Kind(intrinsics, 7),
    "recipes": Kind(recipes, 8),
    "lists": Kind(pair_lists, 4),
    "meshes": Kind(meshes, 9),
    "models": Kind(models, 10),
    "imports": Kind(imports, 8),
    "fields": Kind(fields, 7),
    "workspace": Kind(workspace, 25),
}
