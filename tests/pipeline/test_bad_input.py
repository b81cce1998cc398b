"""Bad input on the real command line: the message, the way out, the exit code, and what is left behind.

Kills in the middle of a stage: test_kill.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from recon.cli import main
from recon.engine.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]


def save(
    path: Path, seed: int, size: tuple[int, int] = (240, 160), scales: tuple[int, ...] = (4, 12, 40)
) -> Path:
    """A photo of its own, with structure at some scales (cells across the picture)."""
    random = np.random.default_rng(seed)
    image = np.zeros((size[1], size[0], 3))
    for cells in scales:
        coarse = random.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        image += np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)) / len(scales)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.astype(np.uint8)).save(path)
    return path


class Bench:
    """A folder with photos, and the command over it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.photos = folder / "photos"
        self.out = folder / "out"
        self.capsys = capsys

    def good_photos(self, count: int = 3) -> None:
        for index in range(count):
            save(self.photos / f"{index}.jpg", index)

    def run(self, *arguments: str, stop_after: str = "photos", out: Path | None = None) -> tuple[int, str]:
        """Exit code and everything printed."""
        self.capsys.readouterr()
        command = ["reconstruct", str(self.photos), "--out", str(out or self.out), "--stop-after", stop_after]
        code = main([*command, *arguments])
        printed = self.capsys.readouterr()
        text = printed.err + printed.out
        assert "Traceback" not in text
        return code, text

    @property
    def photo_set(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads((self.out / "photos.json").read_text())
        return data

    @property
    def names(self) -> list[str]:
        return [photo["name"] for photo in self.photo_set["photos"]]


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    return Bench(tmp_path, capsys)


def test_missing_folder(bench: Bench) -> None:
    code, text = bench.run()
    assert code == 2
    assert f"{bench.photos}: there is no such file or folder" in text


def test_empty_folder(bench: Bench) -> None:
    bench.photos.mkdir()
    code, text = bench.run()
    assert code == 1
    assert f"{bench.photos}: holds no photos" in text
    assert "JPEG" in text


def test_one_photo(bench: Bench) -> None:
    bench.good_photos(1)
    code, text = bench.run()
    assert code == 1
    assert "only one photo can be used" in text
    assert "two or more that overlap" in text


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cut.jpg", "damaged or cut short"),
        ("text.jpg", "is a text file, not an image"),
        ("dot.png", "1x1 pixels: too small"),
        ("band.png", "20000x200 pixels become 1024x10 at working size: too small"),
        ("twin.jpg", "has the same content as 0.jpg"),
    ],
)
def test_a_bad_photo_is_left_out_by_name_and_the_others_are_used(
    bench: Bench, name: str, reason: str
) -> None:
    bench.good_photos(3)
    data = (bench.photos / "0.jpg").read_bytes()
    (bench.photos / "cut.jpg").write_bytes(data[: len(data) // 2])
    (bench.photos / "text.jpg").write_text("these are my notes")
    (bench.photos / "twin.jpg").write_bytes(data)
    Image.new("RGB", (1, 1)).save(bench.photos / "dot.png")
    if name == "band.png":
        save(bench.photos / "band.png", 9, (20000, 200))
    for path in bench.photos.iterdir():
        if path.name not in {name, "0.jpg", "1.jpg", "2.jpg"}:
            path.unlink()
    code, text = bench.run()
    assert code == 0
    assert f"left out {name}: " in text
    assert reason in text
    assert bench.names == ["0.jpg", "1.jpg", "2.jpg"]
    assert [one["name"] for one in bench.photo_set["left_out"]] == [name]


def test_two_photos_with_the_same_content_are_one(bench: Bench) -> None:
    """Also when one of them is stored in another format."""
    image = Image.open(save(bench.photos / "a.png", 3))
    image.save(bench.photos / "b.tif")
    code, text = bench.run()
    assert code == 1
    assert "only one photo can be used" in text
    assert "b.tif: has the same content as a.png" in text


def test_only_bad_photos(bench: Bench) -> None:
    bench.photos.mkdir()
    for name in "ab":
        (bench.photos / f"{name}.jpg").write_text("these are my notes")
    code, text = bench.run()
    assert code == 1
    assert "no photo can be used" in text
    assert "a.jpg: is a text file" in text
    assert "b.jpg: is a text file" in text


def test_mixed_sizes_each_get_their_own_camera(bench: Bench) -> None:
    save(bench.photos / "a.jpg", 1, (240, 160))
    save(bench.photos / "b.jpg", 2, (160, 240))
    save(bench.photos / "c.jpg", 3, (2400, 1600))
    code, _ = bench.run()
    assert code == 0
    sizes = [(photo["width"], photo["height"]) for photo in bench.photo_set["photos"]]
    assert sizes == [(240, 160), (160, 240), (1024, 683)]
    cameras = bench.photo_set["cameras"]
    assert [(camera["width"], camera["height"]) for camera in cameras] == sizes


def test_output_folder_that_cannot_be_made(bench: Bench) -> None:
    bench.good_photos()
    (bench.folder / "file").touch()
    code, text = bench.run(out=bench.folder / "file" / "out")
    assert code == 1
    assert "cannot create the workspace folder" in text
    assert "choose another --out" in text.lower()


def in_process(bench: Bench, before: str, *arguments: str, match: bool = False) -> tuple[int, str]:
    """The command in a process of its own after some lines of Python."""
    code = f"import os, resource, sys\n{before}\nfrom recon.cli import main\nsys.exit(main(sys.argv[1:]))"
    command = [
        "reconstruct",
        str(bench.photos),
        "--out",
        str(bench.out),
        "--stop-after",
        "photos",
        *arguments,
    ]
    if match:
        command = ["match", *(str(bench.photos / f"{i}.jpg") for i in range(2)), "--out", str(bench.out)]
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        env={**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(bench.folder / "numba")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr


OBEY_PERMISSIONS = """
import ctypes
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
if os.getuid() == 0 and ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)()) != 0:
    sys.exit("capset failed")
"""
"""Root passes over permission bits by its capabilities: without them it obeys like everyone."""


def test_full_disk_loses_nothing_that_was_finished(bench: Bench) -> None:
    """A limit on the size of files stands for the full disk: writing fails in the same system call."""
    bench.good_photos()
    assert bench.run("--set", "photos.max_size=128")[0] == 0
    before = {path: path.read_bytes() for path in (bench.out / "photos").iterdir()}
    code, text = in_process(bench, "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, -1))")
    assert code == 1
    assert "no room to write" in text
    assert str(bench.out) in text
    assert "free some space" in text
    assert {path: path.read_bytes() for path in (bench.out / "photos").iterdir()} == before
    assert bench.run()[0] == 0
    assert bench.photo_set["photos"][0]["width"] == 240


@pytest.mark.skipif(sys.platform != "linux", reason="takes root's rights away as Linux does it")
def test_read_only_output_folder(bench: Bench) -> None:
    bench.good_photos()
    assert bench.run()[0] == 0
    before = {path: path.read_bytes() for path in (bench.out / "photos").iterdir()}
    bench.out.chmod(0o555)
    try:
        code, text = in_process(bench, OBEY_PERMISSIONS, "--set", "photos.max_size=128")
    finally:
        bench.out.chmod(0o755)
    assert code == 1
    assert str(bench.out) in text
    assert "choose another --out" in text.lower()
    assert {path: path.read_bytes() for path in (bench.out / "photos").iterdir()} == before


@pytest.mark.parametrize(
    ("name", "expected", "part"),
    [
        ("nope.jpg", 2, "there is no such file"),
        ("text.jpg", 1, "is a text file"),
        ("cut.jpg", 1, "damaged or cut short"),
        ("dot.png", 0, "consistent both ways: 0%"),
        ("black.png", 0, "consistent both ways: 0%"),
    ],
)
def test_match_of_a_bad_photo(bench: Bench, name: str, expected: int, part: str) -> None:
    """What is no photo is refused by name; what is one but has nothing to match gives no consistent pixel."""
    save(bench.photos / "a.jpg", 0, (96, 64))
    data = (bench.photos / "a.jpg").read_bytes()
    (bench.photos / "cut.jpg").write_bytes(data[: len(data) // 2])
    (bench.photos / "text.jpg").write_text("these are my notes")
    Image.new("RGB", (1, 1)).save(bench.photos / "dot.png")
    Image.new("RGB", (96, 64)).save(bench.photos / "black.png")
    code = main(["match", str(bench.photos / "a.jpg"), str(bench.photos / name), "--out", str(bench.out)])
    printed = bench.capsys.readouterr()
    assert code == expected
    assert part in printed.err + printed.out
    if code:
        assert str(bench.photos / name) in printed.err
    else:
        assert np.isfinite(np.load(bench.out / "flow_a_to_b.npy")).all()


def test_match_onto_a_full_disk(bench: Bench) -> None:
    """Here not even the compiled kernels can be kept."""
    bench.good_photos(2)
    code, text = in_process(bench, "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, -1))", match=True)
    assert code == 1
    assert "cannot be written" in text
    assert "choose another --out" in text


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ('extends = "siftflow"\n[match]\nwindwo = 3\n', ["match.windwo", "did you mean", "'window'"]),
        (
            'extends = "siftflow"\n[photos]\nmax_size = 3\n',
            ["photos.max_size = 3", "greater than or equal to 64"],
        ),
        ('extends = "siftflow"\n[phtos]\nmax_size = 300\n', ["phtos", "did you mean 'photos'"]),
        ('extends = "siftflow"\n[match]\nmatcher = "sitflow"\n', ["sitflow", "siftflow"]),
        ("[photos\n", ["not a valid TOML file"]),
    ],
)
def test_wrong_recipe(bench: Bench, content: str, parts: list[str]) -> None:
    bench.good_photos()
    recipe = bench.folder / "mine.toml"
    recipe.write_text(content)
    code, text = bench.run("--recipe", str(recipe))
    assert code == 2
    assert all(part in text for part in parts), text
    assert not bench.out.exists()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--set", "photos.max_size=3"], ["--set photos.max_size=3", "greater than or equal to 64"]),
        (["--set", "photos.maxsize=300"], ["did you mean 'max_size'"]),
        (["--recipe", "siftflwo"], ["siftflwo", "siftflow"]),
        (["--quality", "best"], ["best", "preview, normal, high"]),
        (["--restart-from", "fotos"], ["--restart-from fotos", "photos"]),
        (["--intrinsics", "1,2,3"], ["1,2,3", "cameras.json"]),
        (["--intrinsics", "nope.json"], ["nope.json", "there is no such file"]),
        (["--masks", "nope"], ["nope", "there is no such folder"]),
        (["--camera-sharing", "all"], ["--camera-sharing all", "auto, single, per-photo"]),
    ],
)
def test_wrong_options(bench: Bench, arguments: list[str], parts: list[str]) -> None:
    bench.good_photos()
    code, text = bench.run(*arguments)
    assert code == 2
    assert all(part in text for part in parts), text


def test_mask_of_the_wrong_size(bench: Bench) -> None:
    bench.good_photos()
    (bench.folder / "masks").mkdir()
    Image.new("L", (100, 100), 255).save(bench.folder / "masks" / "1.png")
    code, text = bench.run("--masks", str(bench.folder / "masks"))
    assert code == 0  # the other photos are enough
    assert (
        f"1.jpg: {bench.folder / 'masks' / '1.png'}: the mask is 100x100 pixels, its photo is 240x160" in text
    )
    Image.new("L", (240, 160), 255).save(bench.folder / "masks" / "1.png")
    assert bench.run("--masks", str(bench.folder / "masks"))[0] == 0


def test_workspace_of_another_photo_set(bench: Bench) -> None:
    bench.good_photos()
    assert bench.run()[0] == 0
    first, before = bench.photos, bench.photo_set
    bench.photos = bench.folder / "other"
    for index in range(3):
        save(bench.photos / f"{index}.jpg", 50 + index)
    code, text = bench.run()
    assert code == 1
    assert f"{bench.out} was made from {first}, not from {bench.photos}" in text
    assert "--restart-from photos" in text
    assert "--out" in text
    assert bench.photo_set == before
    assert bench.run("--restart-from", "photos")[0] == 0
    assert bench.photo_set != before


def test_out_is_a_folder_of_something_else(bench: Bench) -> None:
    """Above all not the folder that holds the photos: the stage would put its own 'photos' in their place."""
    bench.good_photos()
    code, text = bench.run(out=bench.folder)
    assert code == 1
    assert "is not a workspace" in text
    assert sorted(path.name for path in bench.photos.iterdir()) == ["0.jpg", "1.jpg", "2.jpg"]


def test_two_runs_on_one_workspace(bench: Bench) -> None:
    bench.good_photos()
    with Workspace.open(bench.out):
        code, text = bench.run()
    assert code == 1
    assert f"another run works on {bench.out} (process {os.getpid()}" in text
    assert bench.run()[0] == 0


def test_damaged_manifest(bench: Bench) -> None:
    bench.good_photos()
    assert bench.run()[0] == 0
    (bench.out / "manifest.json").write_text("{")
    code, text = bench.run()
    assert code == 1
    assert f"{bench.out / 'manifest.json'}: the manifest is damaged" in text
    (bench.out / "manifest.json").unlink()
    assert bench.run()[0] == 0


@pytest.mark.parametrize("scales", [(4, 12, 40), (16,), (24,)])
def test_photos_without_overlap(bench: Bench, scales: tuple[int, ...]) -> None:
    """Every photo is named with the reason; what was computed up to there stays.

    Between smooth photos there are patches of smooth flow, and some fundamental matrix fits many of them.
    """
    for index in range(3):
        save(bench.photos / f"{index}.jpg", index, scales=scales)
    code, text = bench.run("--quality", "preview", stop_after="map")
    assert code == 1
    assert "do not overlap enough" in text
    assert all(f"{index}.jpg" in text for index in range(3))
    assert "two thirds overlap" in text
    stages = json.loads((bench.out / "manifest.json").read_text())["stages"]
    assert stages["match"]["state"] == "done"
    assert stages["map"]["state"] == "failed"
