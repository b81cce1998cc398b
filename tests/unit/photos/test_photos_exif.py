"""Focal length, camera names and position from EXIF, through real files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from recon.photos.exif import ExifFacts, exif_facts
from recon.photos.reading import decode_photo


def facts_of(
    folder: Path, main: dict[int, Any], inner: dict[int, Any], gps: dict[int, Any] | None = None
) -> ExifFacts:
    """Write a JPEG with these tags and read the facts back."""
    exif = Image.Exif()
    exif.update(main)
    exif.get_ifd(0x8769).update(inner)
    if gps:
        exif.get_ifd(0x8825).update(gps)
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(folder / "a.jpg", exif=exif)
    return decode_photo(folder / "a.jpg").exif


def test_camera_and_lens(tmp_path: Path) -> None:
    facts = facts_of(
        tmp_path, {0x010F: "Canon ", 0x0110: "EOS\x00"}, {0xA434: "EF 50mm", 0x920A: IFDRational(50)}
    )
    assert (facts.make, facts.model, facts.lens, facts.focal_mm) == ("Canon", "EOS", "EF 50mm", 50.0)
    assert facts.names_camera


def test_focal_length_from_the_sensors_resolution(tmp_path: Path) -> None:
    """A sensor 22.2 mm wide with 3888 pixels (Canon 400D) and 50 mm: 3888 * 50 / 22.2 pixels."""
    inner = {
        0x920A: IFDRational(50),
        0xA20E: IFDRational(3888 * 254, 222),  # pixels per inch, as Canon writes it
        0xA210: 2,
        0xA002: 3888,
        0xA003: 2592,
    }
    facts = facts_of(tmp_path, {}, inner)
    expected = 3888 * 50 / 22.2
    assert facts.focal_pixels(3888, 2592) == pytest.approx(expected, rel=1e-6)
    assert facts.focal_pixels(1944, 1296) == pytest.approx(expected / 2, rel=1e-6)
    assert facts.focal_pixels(2592, 3888) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("unit", "per_mm"), [(2, 1 / 25.4), (3, 0.1), (4, 1.0)])
def test_units_of_the_resolution(tmp_path: Path, unit: int, per_mm: float) -> None:
    facts = facts_of(tmp_path, {}, {0xA20E: IFDRational(1000), 0xA210: unit})
    assert facts.pixels_per_mm == pytest.approx(1000 * per_mm)


def test_focal_length_from_the_35_mm_equivalent() -> None:
    """36 mm on a full frame (3:2) is the width; on a 4:3 sensor it is the same diagonal angle."""
    facts = ExifFacts(focal_35mm=36.0)
    assert facts.focal_pixels(3000, 2000) == pytest.approx(3000.0)
    focal = facts.focal_pixels(4000, 3000)
    assert focal is not None
    assert math.atan(2500 / focal) == pytest.approx(math.atan(math.hypot(18, 12) / 36))


def test_nonsense_is_no_prior(tmp_path: Path) -> None:
    assert ExifFacts().focal_pixels(100, 100) is None
    assert ExifFacts(focal_mm=50, pixels_per_mm=0.1).focal_pixels(4000, 3000) is None
    # An absurd resolution falls back on the equivalent.
    assert ExifFacts(focal_mm=50, pixels_per_mm=0.1, focal_35mm=36).focal_pixels(3000, 2000) == pytest.approx(
        3000
    )
    facts = facts_of(tmp_path, {}, {0x920A: IFDRational(0, 0), 0xA405: 0})
    assert (facts.focal_mm, facts.focal_35mm) == (None, None)
    assert exif_facts(Image.Exif()) == ExifFacts()


@pytest.mark.parametrize(("north", "east"), [("N", "E"), ("S", "W")])
def test_position(tmp_path: Path, north: str, east: str) -> None:
    gps = {
        1: north,
        2: (IFDRational(48), IFDRational(51), IFDRational(2952, 100)),
        3: east,
        4: (IFDRational(2), IFDRational(17), IFDRational(402, 10)),
        5: b"\x01",
        6: IFDRational(35),
    }
    facts = facts_of(tmp_path, {}, {}, gps)
    sign = 1 if north == "N" else -1
    expected = (sign * (48 + 51 / 60 + 29.52 / 3600), sign * (2 + 17 / 60 + 40.2 / 3600), -35.0)
    assert facts.position == pytest.approx(expected)


def test_empty_position_is_none(tmp_path: Path) -> None:
    zero = (IFDRational(0), IFDRational(0), IFDRational(0))
    assert facts_of(tmp_path, {}, {}, {1: "N", 2: zero, 3: "E", 4: zero}).position is None
    assert facts_of(tmp_path, {}, {}, {1: "N", 2: (IFDRational(1, 0),) * 3, 3: "E", 4: zero}).position is None
