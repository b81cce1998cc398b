#!/usr/bin/env python3
"""Inputs on which a run used to end with wrong cameras and no warning: what the result is, and what the run says.

    python benchmarks/trust_cases.py [--only NAME ...] [--keep FOLDER] [--code CHECKOUT]

Every input is rendered here (a rock face, 480 pixels), so the true cameras are known. Each goes through the recipe
``sift`` up to the cameras. Printed: registered photos, mean and largest distance of the centres from the truth after
the best similarity, as a share of the largest distance between two true centres, error of the focal length, exit code,
and the verdict with its first reason. ``--code`` runs the program of another checkout on the same inputs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from _common import machine, table
from _lenses import LensPhoto, bay, photograph_lenses
from PIL import Image

from recon.core.cameras import Intrinsics
from recon.photos.panoramas import VIEWS, view_matrix, view_of_panorama
from recon.synthetic.paths import look_at

SIZE = (480, 360)


@dataclass
class Case:
    """Photos by file name, and how they are run.

    Attributes:
        photos: rendered photos with their true cameras.
        exif: tags of each photo: make, model, and what is given by number in the Exif directory.
        crop: (left, top, right, bottom) that is kept, in pixels.
        extra: further files that are no photos of their own, name and source photo and longest side.
        options: of the command line.
        right: what a right answer is, in words.
    """

    photos: dict[str, LensPhoto]
    exif: dict[str, dict[int, Any]] = field(default_factory=dict)
    crop: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)
    extra: dict[str, tuple[str, int]] = field(default_factory=dict)
    options: list[str] = field(default_factory=list)
    right: str = ""


def pinhole(
    fov: float = 60.0, size: tuple[int, int] = SIZE, model: str = "PINHOLE", more: tuple = ()
) -> Intrinsics:
    """A camera with this horizontal field of view (of a pinhole; of an equidistant lens for a fisheye model)."""
    width, height = size
    half = np.radians(fov) / 2
    f = 0.5 * width / (half if "FISHEYE" in model else np.tan(half))
    one = model in {"SIMPLE_RADIAL", "RADIAL", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "SIMPLE_FISHEYE"}
    focal = (float(f),) if one else (float(f), float(f))
    return Intrinsics(model, (*focal, (width - 1) / 2, (height - 1) / 2, *more), width, height)


def arc(count: int = 9, degrees: float = 50.0, radius: float = 4.6, seed: int = 0) -> list[np.ndarray]:
    """Poses on an arc before the bay, at varying heights and distances."""
    rng = np.random.default_rng(seed)
    poses = []
    for angle in np.radians(np.linspace(-degrees / 2, degrees / 2, count)):
        r = radius * (1 + rng.uniform(-0.08, 0.08))
        eye = [r * np.sin(angle), -1.0 - r * np.cos(angle), 2 + rng.uniform(-0.5, 0.5)]
        poses.append(look_at(eye, [rng.uniform(-0.3, 0.3), -1.0, 2 + rng.uniform(-0.2, 0.2)]))
    return poses


def tags(mm: float = 24.0, equivalent: float | None = None, **more: Any) -> dict[int, Any]:
    """EXIF of a usual camera; ``more`` names the tag by its number as ``x....``."""
    found: dict[int, Any] = {0x010F: "Example", 0x0110: "Camera One", 0x920A: mm}
    if equivalent is not None:
        found[0xA405] = round(equivalent)
    return found | {int(key[1:], 16): value for key, value in more.items()}


def shoot(
    cameras: list[Any], poses: list[np.ndarray], bend: float = 0.1, seed: int = 0
) -> dict[str, LensPhoto]:
    """Photos 0000.png and on."""
    made = photograph_lenses(bay(seed, 0.04, bend), cameras, poses, seed)
    return {f"{index:04d}.png": one for index, one in enumerate(made)}


def panorama() -> Case:
    """Eight photos from one place, 12.6 degrees apart, no EXIF."""
    eye = np.array([0.0, -5.0, 2.0])
    angles = np.radians(12.6 * (np.arange(8) - 3.5))
    poses = [look_at(eye, eye + np.array([np.sin(a), np.cos(a), 0.02 * i])) for i, a in enumerate(angles)]
    return Case(shoot([pinhole(62)] * 8, poses), right="refused, says that the camera only turned")


def panorama_known() -> Case:
    """The same with the true intrinsics."""
    case = panorama()
    return replace(case, options=["--intrinsics", _spec(pinhole(62))])


def panorama_wrong() -> Case:
    """The same with a focal length that is a fifth too long, given as known."""
    case, wrong = panorama(), pinhole(62)
    params = (wrong.params[0] * 1.2, wrong.params[1] * 1.2, *wrong.params[2:])
    return replace(case, options=["--intrinsics", _spec(replace(wrong, params=params))])


def _spec(camera: Intrinsics) -> str:
    fx, fy, cx, cy = (camera.params[0], camera.params[1], camera.params[2], camera.params[3])
    return f"{fx},{fy},{cx},{cy}"


def digital_zoom() -> Case:
    """Nine photos, three with a digital zoom of 2 that only DigitalZoomRatio tells."""
    poses, zoomed = arc(), (2, 4, 7)
    wide, near = pinhole(60), pinhole(np.degrees(2 * np.arctan(np.tan(np.radians(30)) / 2)))
    photos = shoot([near if i in zoomed else wide for i in range(9)], poses)
    f35 = 36 * wide.params[0] / SIZE[0]
    exif = {name: tags(24, f35, xA404=2.0 if i in zoomed else 1.0) for i, name in enumerate(photos)}
    return Case(photos, exif, right="two cameras, within 0.3%")


def zoom_without_exif() -> Case:
    """The same without any EXIF."""
    return replace(digital_zoom(), exif={})


def crops() -> Case:
    """Nine photos, four of them cropped off centre, EXIF untouched."""
    photos = shoot([pinhole(60)] * 9, arc())
    w, h = SIZE
    kept = {
        "0001.png": (0, 0, 336, 270),
        "0003.png": (150, 60, w, h),
        "0006.png": (40, 100, 376, h),
        "0008.png": (0, 40, 330, 320),
    }
    f35 = 36 * pinhole(60).params[0] / w
    exif = {name: tags(24, f35, xA002=w, xA003=h) for name in photos}
    return Case(photos, exif, kept, right="said, within 1%")


def equirectangular() -> Case:
    """Panoramas of 2:1 from six places."""
    rng = np.random.default_rng(3)
    poses = []
    for i in range(6):
        eye = np.array([0.5 * (i - 2.5), -4.5 + rng.uniform(-0.3, 0.3), 2 + rng.uniform(-0.3, 0.3)])
        poses.append(look_at(eye, eye + np.array([0.05 * i, 1.0, 0.0])))
    return Case(shoot([960] * 6, poses), right="refused with the way out")


def equirectangular_split() -> Case:
    """The same, cut into views by ``recon panoramas``."""
    case, photos = equirectangular(), {}
    side = round(960 / np.pi)
    focal, middle = view_matrix(side)[0, [0, 2]].tolist()
    lens = Intrinsics("PINHOLE", (focal, focal, middle, middle), side, side)
    for name, one in case.photos.items():
        for degrees in range(0, 360, 360 // VIEWS):
            c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
            turn = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
            view = view_of_panorama(one.rgb, degrees, side)
            photos[f"{name[:4]}_{degrees:03d}.png"] = LensPhoto(view, lens, turn @ one.cam_from_world)
    return Case(photos, options=["--intrinsics", _spec(lens)], right="within 0.3%")


def fisheye_still() -> Case:
    """Sixteen fisheye photos of a rig that hardly moves: 4 mm between them, the rock face 5 m away."""
    rng = np.random.default_rng(4)
    poses = []
    for i in range(16):
        eye = np.array([0.0, -5.0, 2.0]) + rng.normal(size=3) * 0.004
        a = np.radians(10 * (i % 8 - 3.5))
        poses.append(look_at(eye, eye + np.array([np.sin(a), np.cos(a), 0.15 * (i // 8)])))
    lens = pinhole(120, (480, 480), "OPENCV_FISHEYE", (0.02, -0.01, 0.0, 0.0))
    return Case(shoot([lens] * 16, poses), right="no reconstruction, with the reason")


def wrong_equivalent() -> Case:
    """Nine photos with FocalLength 50 and a 35 mm equivalent of 500."""
    photos = shoot([pinhole(60)] * 9, arc())
    return Case(photos, {name: tags(50, 500) for name in photos}, right="prior loose or dropped")


def two_places() -> Case:
    """Six photos and three that see another part of the rock face."""
    there = [look_at([-3.8 + 0.5 * i, -4.6, 2.0], [-3.3 + 0.3 * i, 0, 2.0]) for i in range(6)]
    far = [look_at([3.6 + 0.4 * i, -4.4, 2.2], [4.2 + 0.2 * i, 0, 2.0]) for i in range(3)]
    return Case(shoot([pinhole(50)] * 9, [*there, *far]), right="said; the other model can be chosen")


def thumbnails() -> Case:
    """Nine photos with small copies in thumbnails/ and @eaDir/."""
    photos = shoot([pinhole(60)] * 9, arc())
    extra = {f"thumbnails/{name}": (name, 160) for name in photos}
    extra |= {f"@eaDir/{name}/SYNOPHOTO_THUMB_M.png": (name, 240) for name in photos}
    extra |= {f"small/{name}": (name, 240) for name in photos}
    return Case(photos, extra=extra, right="9 photos, the copies passed over")


def action_camera() -> Case:
    """A wide action camera, k1 -0.3, intrinsics unknown."""
    lens = pinhole(100, SIZE, "OPENCV", (-0.28, 0.07, 0.0, 0.0))
    return Case(shoot([lens] * 12, arc(12)), right="within 0.5%")


def fisheye_wide() -> Case:
    """An equidistant fisheye of 150 degrees, intrinsics unknown."""
    lens = pinhole(150, (480, 480), "SIMPLE_RADIAL_FISHEYE", (0.0,))
    return Case(shoot([lens] * 12, arc(12, 60, 3.6)), right="within 0.5%")


def usual() -> Case:
    """Nine photos of a usual camera: nothing is wrong."""
    photos = shoot([pinhole(60)] * 9, arc())
    return Case(
        photos, {name: tags(24, 36 * pinhole(60).params[0] / SIZE[0]) for name in photos}, right="sound"
    )


CASES: dict[str, Callable[[], Case]] = {
    function.__name__: function
    for function in (
        usual,
        panorama,
        panorama_known,
        panorama_wrong,
        digital_zoom,
        zoom_without_exif,
        crops,
        equirectangular,
        equirectangular_split,
        fisheye_still,
        wrong_equivalent,
        two_places,
        thumbnails,
        action_camera,
        fisheye_wide,
    )
}


def write_case(case: Case, folder: Path) -> None:
    """Write the photos of a case."""
    folder.mkdir(parents=True)
    for name, photo in case.photos.items():
        left, top, right, bottom = case.crop.get(name, (0, 0, photo.rgb.shape[1], photo.rgb.shape[0]))
        picture = Image.fromarray(np.ascontiguousarray(photo.rgb[top:bottom, left:right]))
        exif = picture.getexif()
        for tag, value in case.exif.get(name, {}).items():
            if tag in (0x010F, 0x0110):
                exif[tag] = value
            else:
                exif.get_ifd(0x8769)[tag] = value
        picture.save(folder / name, exif=exif)
    for name, (source, longest) in case.extra.items():
        rgb = case.photos[source].rgb
        factor = longest / max(rgb.shape[:2])
        small = cv2.resize(rgb, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(small).save(folder / name)


def run_case(case: Case, folder: Path, code: Path) -> dict[str, Any]:
    """Run the program of a checkout on a case and compare its cameras with the truth."""
    out = folder.parent / f"run-{folder.name}"
    shutil.rmtree(out, ignore_errors=True)
    command = [
        sys.executable,
        "-c",
        "import sys; from importlib import import_module as i; m = i('recon.cli'); sys.exit(m.main())",
        "reconstruct",
        str(folder),
        "-o",
        str(out),
        "--recipe",
        "sift",
        "--stop-after",
        "map",
        "--threads",
        "1",
        *case.options,
    ]
    environment = dict(os.environ, PYTHONPATH=str(code), NUMBA_NUM_THREADS="1")
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=code)
    return {"exit": ended.returncode, "said": ended.stderr + ended.stdout, **measured(case, out)}


def measured(case: Case, out: Path) -> dict[str, Any]:
    """Registered photos, errors of the centres as shares of the true extent, and the verdict."""
    from recon.core.colmap import pycolmap
    from recon.sfm.evidence import centre_differences, extent_of

    found: dict[str, Any] = {
        "registered": 0,
        "cameras": 0,
        "mean": np.nan,
        "largest": np.nan,
        "focal": np.nan,
    }
    trust = out / "trust.json"
    if trust.is_file():
        found["trust"] = json.loads(trust.read_text(encoding="utf-8"))
    model_folder = out / "sparse" / "0"
    if not model_folder.is_dir():
        return found
    model = pycolmap.Reconstruction(model_folder)
    names = list(case.photos)
    centres = {
        names.index(image.name): np.array(image.projection_center())
        for image in model.images.values()
        if image.has_pose and image.name in case.photos
    }
    truth = {names.index(name): photo.center for name, photo in case.photos.items()}
    found |= {"registered": len(centres), "cameras": len(model.cameras)}
    extent = extent_of(np.array(list(truth.values())))
    if len(centres) >= 3 and extent > 0:
        errors = centre_differences(centres, truth) / extent
        found |= {"mean": float(errors.mean()), "largest": float(errors.max())}
    ratios = []
    for image in model.images.values():
        photo = case.photos.get(image.name)
        if photo is not None and photo.intrinsics is not None:
            ratios.append(model.cameras[image.camera_id].mean_focal_length() / photo.intrinsics.K[0, 0] - 1)
    if ratios:
        found["focal"] = float(np.abs(ratios).max())
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=list(CASES), help="these inputs only")
    parser.add_argument("--keep", type=Path, help="folder for inputs and runs; a temporary one otherwise")
    parser.add_argument("--code", type=Path, help="another checkout to run instead of this one")
    arguments = parser.parse_args()
    here = Path(__file__).resolve().parents[1]
    code = (arguments.code or here).resolve()
    root = arguments.keep or Path(tempfile.mkdtemp(prefix="trust-"))
    rows = []
    for name in arguments.only or CASES:
        case = CASES[name]()
        folder = root / name
        if not folder.is_dir():
            write_case(case, folder)
        result = run_case(case, folder, code)
        trust = result.get("trust", {"verdict": "-", "reasons": []})
        reason = trust["reasons"][0]["what"] if trust["reasons"] else ""
        if not reason and result["exit"]:
            reason = " ".join(result["said"].split())[-220:]
        rows.append(
            [
                name,
                f"{result['registered']}/{len(case.photos)}",
                result["cameras"],
                f"{result['mean']:.2%}",
                f"{result['largest']:.2%}",
                f"{result['focal']:.1%}",
                result["exit"],
                trust["verdict"],
                reason[:160],
            ]
        )
        print(f"{name}: {rows[-1][1:]}", file=sys.stderr, flush=True)
    print(f"{machine()}\n")
    print(
        table(
            rows,
            ["input", "photos", "cameras", "mean", "largest", "focal", "exit", "verdict", "first reason"],
        )
    )
    if not arguments.keep:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
