"""Known intrinsics in their three forms, against pycolmap's own reader and the numbers in the files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recon.errors import UsageError
from recon.photos.intrinsics import read_intrinsics


@dataclass(frozen=True)
class Sized:
    name: str
    original_width: int = 1024
    original_height: int = 683


PHOTOS = [Sized("a/0000.jpg"), Sized("a/0001.jpg")]


def write_json(folder: Path, entries: list[dict[str, Any]]) -> Path:
    path = folder / "cameras.json"
    path.write_text(json.dumps({"images": entries, "world_unit": "metre"}))
    return path


def entry(name: str, **change: Any) -> dict[str, Any]:
    return {"name": name, "width": 1024, "height": 683, "fx": 900, "fy": 910, "cx": 500, "cy": 340, **change}


def test_real_cameras_json(shared_data: Path) -> None:
    path = shared_data / "datasets" / "strecha" / "fountain-P11" / "cameras.json"
    data = json.loads(path.read_text())
    photos = [Sized(one["name"]) for one in data["images"]]
    found = read_intrinsics(path, photos)
    assert len(found) == 11
    for one in data["images"]:
        camera = found[one["name"]]
        expected = [[one["fx"], 0, one["cx"]], [0, one["fy"], one["cy"]], [0, 0, 1]]
        np.testing.assert_array_equal(camera.K, expected)
        assert camera.known
        assert camera.has_focal_prior
    # The same scene's photos at their full size: the file's numbers scale.
    full = read_intrinsics(path, [Sized(p.name, 3072, 2048) for p in photos])["0000.jpg"]
    assert full.K[0, 0] == pytest.approx(3 * data["images"][0]["fx"])
    assert full.K[0, 2] == pytest.approx(3 * (data["images"][0]["cx"] + 0.5) - 0.5)
    assert (full.width, full.height) == (3072, 2048)


def test_names_agree_by_path_then_file_name_then_stem(tmp_path: Path) -> None:
    path = write_json(
        tmp_path, [entry("a/0000.jpg", fx=1), entry("0001.png", fx=2), entry("b/0000.jpg", fx=3)]
    )
    found = read_intrinsics(path, [*PHOTOS, Sized("c/0002.jpg")])
    assert {name: camera.params[0] for name, camera in found.items()} == {"a/0000.jpg": 1, "a/0001.jpg": 2}


@pytest.mark.parametrize(
    ("entries", "parts"),
    [
        ([], ["has no list 'images'"]),
        ([{"name": "0000.jpg", "width": 1024, "height": 683, "fx": 1}], ["0000.jpg", "'fy' is missing"]),
        ([entry("x.jpg")], ["knows none of the photos", "x.jpg", "a/0000.jpg"]),
        ([entry("0000.jpg", fx=-3)], ["0000.jpg", "must be positive"]),
        ([entry("0000.jpg", cx=9000)], ["0000.jpg", "principal point"]),
        ([entry("0000.jpg", width=683, height=1024)], ["683x1024", "1024x683", "another shape"]),
        ([entry("0000.jpg", width=0)], ["not positive"]),
        ([entry("0000.jpg", fx="wide")], ["0000.jpg", "wide"]),
    ],
)
def test_mistakes_in_cameras_json(tmp_path: Path, entries: list[dict[str, Any]], parts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        read_intrinsics(write_json(tmp_path, entries), PHOTOS)
    for part in [*parts, "cameras.json"]:
        assert part in str(caught.value)


def test_four_numbers(tmp_path: Path) -> None:
    found = read_intrinsics("900, 910.5,500,340", PHOTOS)
    assert [found[photo.name].params for photo in PHOTOS] == [(900, 910.5, 500, 340)] * 2
    assert found["a/0000.jpg"].model == "PINHOLE"
    for text, part in (
        ("900,910,500", "3 numbers"),
        ("900,910,x,3", "not four numbers"),
        (str(tmp_path / "nope.json"), "no such file"),
        (str(tmp_path), "is a folder"),
    ):
        with pytest.raises(UsageError, match=part):
            read_intrinsics(text, PHOTOS)
    with pytest.raises(UsageError, match=r"one size only.*800x600"):
        read_intrinsics("900,910,500,340", [*PHOTOS, Sized("b.jpg", 800, 600)])


@pytest.mark.parametrize(
    ("model", "params"),
    [
        ("SIMPLE_PINHOLE", [900, 512.5, 342.0]),
        ("PINHOLE", [900, 905, 512.5, 342.0]),
        ("SIMPLE_RADIAL", [900, 512.5, 342.0, 0.01]),
        ("OPENCV", [900, 905, 512.5, 342.0, 0.1, 0.01, 0.001, 0.002]),
        ("OPENCV_FISHEYE", [900, 905, 512.5, 342.0, 0.1, 0.01, 0.001, 0.002]),
    ],
)
def test_cameras_txt_as_pycolmap_reads_it(tmp_path: Path, model: str, params: list[float]) -> None:
    """The same pixel gives the same ray: ours at (x, y), COLMAP's at (x + 0.5, y + 0.5)."""
    pycolmap = pytest.importorskip("pycolmap")
    path = tmp_path / "cameras.txt"
    path.write_text(f"# a comment\n1 {model} 1024 683 {' '.join(map(str, params))}\n")
    ours = read_intrinsics(path, PHOTOS)["a/0000.jpg"]
    theirs = pycolmap.Camera(model=model, width=1024, height=683, params=params)
    np.testing.assert_allclose(ours.K[:2, 2] + 0.5, theirs.calibration_matrix()[:2, 2])
    np.testing.assert_allclose(np.diag(ours.K), np.diag(theirs.calibration_matrix()))
    assert ours.model == model
    assert len(ours.params) == len(params)


def test_cameras_txt_with_images_txt_beside_it(tmp_path: Path) -> None:
    (tmp_path / "cameras.txt").write_text(
        "1 PINHOLE 1024 683 900 900 512 341\n2 PINHOLE 1024 683 700 700 512 341\n"
    )
    with pytest.raises(UsageError, match=r"several cameras \(1, 2\).*images\.txt"):
        read_intrinsics(tmp_path / "cameras.txt", PHOTOS)
    (tmp_path / "images.txt").write_text(
        "# Image list\n1 1 0 0 0 0 0 0 2 a/0000.jpg\n1.0 2.0 -1\n2 1 0 0 0 0 0 0 1 a/0001.jpg\n\n"
    )
    found = read_intrinsics(tmp_path / "cameras.txt", PHOTOS)
    assert {name: camera.params[0] for name, camera in found.items()} == {
        "a/0000.jpg": 700,
        "a/0001.jpg": 900,
    }


def test_cameras_txt_by_size_and_its_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "cameras.txt"
    path.write_text("1 PINHOLE 1024 683 900 900 512 341\n2 PINHOLE 683 1024 700 700 341 512\n")
    found = read_intrinsics(path, [*PHOTOS, Sized("tall.jpg", 683, 1024)])
    assert found["tall.jpg"].params[0] == 700
    for text, part in (
        ("", "holds no camera"),
        ("hello", "not a line of COLMAP"),
        ("1 BANANA 10 10 1 2 3", "unknown model BANANA"),
        ("1 PINHOLE 1024 683 900 900 512", "PINHOLE has 4 parameters, 3 are given"),
        ("1 PINHOLE 10 10 9 9 5 5\n2 PINHOLE 20 20 9 9 5 5", "none of its cameras fits"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match=part):
            read_intrinsics(path, PHOTOS)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    deep = tmp_path / "cameras.json"
    deep.write_text("[" * 100_000)
    with pytest.raises(
        UsageError, match=r"cameras\.json: cannot be read as JSON \(it is nested too deeply\)"
    ):
        read_intrinsics(deep, PHOTOS)
    cameras = tmp_path / "cameras.txt"
    cameras.write_text("1 PINHOLE 1024 683 900 910 500 340\n")
    (tmp_path / "images.txt").write_bytes(b"1 \xa2\n")
    with pytest.raises(UsageError, match=r"images\.txt: cannot be read"):
        read_intrinsics(cameras, PHOTOS)
