"""Maps against the truth: surface model, orthophoto, check points, volume and memory on rendered scenes.

    python benchmarks/maps.py [--keep FOLDER] [--sets N] [--parts whole,true,facade,memory]

whole: twenty photos of a hamlet (16 straight down, 4 oblique; GPS with 1.5 m and 3 m of noise in EXIF) from the photos
to the maps, intrinsics unknown; N sets of eight control and eight check points, measured to 2 and 3 cm, marked to
0.4 px. true: the same photos with true cameras, and depth with 0.15% of noise. facade: an elevation of a façade with
true cameras. memory: the peak of 'recon ortho' with true cameras, and for four times the land. A run is made once (same
seed, same result up to tracks). With --keep what is there already is not made again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from _common import machine, table
from PIL import Image

from recon.api import reconstruct
from recon.core.cameras import PinholeView
from recon.core.mesh import Mesh
from recon.core.posed import Camera
from recon.core.raycasting import ray_scene, tensor
from recon.core.similarity import Similarity3
from recon.exports.georeference import Crs, Georeference
from recon.exports.georeferencing import run_georeference
from recon.exports.options import GeoreferenceOptions
from recon.exports.source import read_georeference
from recon.io.cameras_json import read_cameras_json
from recon.maps.making import run_ortho
from recon.maps.options import OrthoOptions, VolumeOptions
from recon.maps.volume import run_volume
from recon.photos.reading import read_png
from recon.run.folder import RunFolder
from recon.synthetic.aerial import HEAP, aerial_height, aerial_mesh
from recon.synthetic.files import write_scene
from recon.synthetic.presets import make_scene
from recon.synthetic.runs import write_true_run

OFFSET = np.array([691500.0, 5334700.0, 500.0])
EPSG = 25832
GPS_NOISE, CONTROL_NOISE, MARK_NOISE = (1.5, 1.5, 3.0), (0.02, 0.02, 0.03), 0.4
# Both lands fill several tiles of this size, so that the working set of one tile is in both figures.
_COARSE = ("--gsd", "0.19", "--tile", "256", "--no-png")
HERE = Similarity3(1.0, np.eye(3), np.zeros(3))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", default="", help="folder for scenes and runs; a temporary one by default")
    parser.add_argument("--sets", type=int, default=5, help="sets of control points")
    parser.add_argument("--parts", default="whole,true,facade,memory")
    args = parser.parse_args()
    parts = args.parts.split(",")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(args.keep or scratch)
        rows: list[list[Any]] = []
        if "whole" in parts:
            whole(root, args.sets, rows)
        if "true" in parts:
            true_cameras(root, rows)
        if "facade" in parts:
            facade(root, rows)
        memory = peak_memory(root) if "memory" in parts else []
    print(f"\n{machine()}\n")
    headers = ["set", "surface", "cells with colour", "within 1 px", "95% within / px", "heights: median / gsd",
               "90% / gsd", "volume"]  # fmt: skip
    print(table(rows, headers))
    if memory:
        print()
        print(table(memory, ["land", "photos", "cells", "peak / MB", "over the first"]))


# Scenes and runs


def aerial(root: Path) -> Path:
    """The hamlet's photos with GPS in EXIF, and its truth."""
    folder = root / "aerial"
    if not (folder / "cameras.json").is_file():
        write_scene(make_scene("aerial"), folder)
        write_gps(folder)
    return folder


def write_gps(folder: Path) -> None:
    from pyproj import Transformer

    to_geodetic = Transformer.from_crs(EPSG, 4326, always_xy=True)
    rng = np.random.default_rng(5)
    for name, view in read_cameras_json(folder / "cameras.json").items():
        x, y, z = view.center + OFFSET + rng.normal(size=3) * GPS_NOISE
        longitude, latitude = to_geodetic.transform(x, y)
        image = Image.open(folder / "images" / name)
        image.load()
        exif = image.getexif()
        exif.get_ifd(0x8825).update(
            {1: "N", 2: sexagesimal(latitude), 3: "E", 4: sexagesimal(longitude), 5: b"\x00", 6: float(z)}
        )
        image.save(folder / "images" / name, exif=exif)


def sexagesimal(degrees: float) -> tuple[float, float, float]:
    whole = int(degrees)
    minutes = int((degrees - whole) * 60)
    return float(whole), float(minutes), (degrees - whole - minutes / 60) * 3600


def write_control(folder: Path, path: Path, seed: int) -> list[str]:
    """Sixteen points on the land and on roofs as OpenDroneMap lists them; every other one is to check."""
    rng = np.random.default_rng(seed)
    side = [(x, y) for x in np.linspace(-24, 24, 4) for y in np.linspace(-22, 22, 4)]
    spots = np.array(side) + rng.uniform(-2.5, 2.5, (16, 2))
    places = np.column_stack([spots, aerial_height(*spots.T)])
    lines = [f"EPSG:{EPSG}"]
    views = read_cameras_json(folder / "cameras.json")
    depths = {name: np.load(folder / "truth" / "depth" / f"{Path(name).stem}.npz")["depth"] for name in views}
    for k, place in enumerate(places):
        x, y, z = place + OFFSET + rng.normal(size=3) * CONTROL_NOISE
        for name, view in views.items():
            (u, v), depth = (value[0] for value in view.project(place[None]))
            inside = 3 < u < view.width - 4 and 3 < v < view.height - 4
            if inside and abs(depths[name][round(v), round(u)] - depth) < 0.02 * depth:
                a, b = rng.normal(0, MARK_NOISE, 2)
                lines.append(f"{x:.4f} {y:.4f} {z:.4f} {u + a:.3f} {v + b:.3f} {name} P{k + 1}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [f"P{k}" for k in range(2, 17, 2)]


def whole(root: Path, sets: int, rows: list[list[Any]]) -> None:
    folder, out = aerial(root), root / "run"
    if not (out / "dense" / "depth").is_dir():
        reconstruct(folder / "images", out)
    run = RunFolder(out)
    ratio, within, points = [], 0, 0
    for seed in range(sets):
        checks = write_control(folder, root / "gcp_list.txt", seed)
        options = GeoreferenceOptions(
            control=root / "gcp_list.txt", check=",".join(checks), mark_error=MARK_NOISE
        )
        run_georeference(run, options)
        for one in read_georeference(run).points:
            if one.kind == "check":
                ratio += [e / s for e, s in zip(one.error, one.sigma, strict=True)]
                within += one.within
                points += 1
    inside = float(np.mean(np.abs(ratio) < 2))
    print(
        f"check points of {sets} sets: {within} of {points} within twice what is stated on every axis, "
        f"{100 * inside:.0f}% of the coordinates; rms {np.sqrt(np.mean(np.square(ratio))):.2f} of what is stated"
    )
    georeference = read_georeference(run)
    truth = Similarity3(1.0, np.eye(3), OFFSET - np.array(georeference.offset))
    for surface in ("auto", "depth", "mesh"):
        maps = root / f"maps-{surface}"
        run_ortho(run, maps, OrthoOptions(surface=surface, png=False))
        judge(f"whole run, {surface}", run, maps, aerial_mesh(), views_of(folder), truth, rows, heap=True)


def views_of(folder: Path) -> dict[str, PinholeView]:
    return read_cameras_json(folder / "cameras.json")


def true_run(folder: Path, out: Path, epsg: int | None, copies: int = 1) -> RunFolder:
    """A run with true cameras and depth; with four copies the land and its photos lie side by side twice and twice."""
    if not out.is_dir():
        views, images, depths = [], [], []
        for k in range(copies):
            shift = 60.0 * np.array([k % 2, k // 2, 0])
            for name, view in views_of(folder).items():
                pose = view.cam_from_world.copy()
                pose[:, 3] -= pose[:, :3] @ shift
                number = len(views)
                views.append(
                    replace(
                        view, photo_id=number, name=f"{k}-{name}" if copies > 1 else name, cam_from_world=pose
                    )
                )
                images.append(read_png(folder / "images" / name))
                depths.append(np.load(folder / "truth" / "depth" / f"{Path(name).stem}.npz")["depth"])
        write_true_run(out, views, images, depths, depth_noise=0.0015)
        crs = Crs("epsg", f"EPSG:{epsg}", epsg) if epsg else Crs("local", "local, in metres")
        offset = tuple(float(v) for v in OFFSET) if epsg else (0.0, 0.0, 0.0)
        found = Georeference(HERE, offset, crs, "control", "control")  # type: ignore[arg-type]
        (out / "georeference.json").write_text(json.dumps(found.to_json()), encoding="utf-8")
    return RunFolder(out)


def true_cameras(root: Path, rows: list[list[Any]]) -> None:
    folder = aerial(root)
    run = true_run(folder, root / "true", EPSG)
    run_ortho(run, root / "maps-true", OrthoOptions(png=False))
    judge("true cameras", run, root / "maps-true", aerial_mesh(), views_of(folder), HERE, rows, heap=True)


def facade(root: Path, rows: list[list[Any]]) -> None:
    folder = root / "relief"
    if not (folder / "cameras.json").is_file():
        write_scene(make_scene("relief", (480, 360), coarseness=1.6), folder)
    run = true_run(folder, root / "true-relief", None)
    run_ortho(run, root / "maps-facade", OrthoOptions(png=True))
    from recon.io.surfaces import read_mesh

    read = read_mesh(folder / "truth" / "mesh.ply")
    mesh = Mesh(np.asarray(read.vertices, np.float32), np.asarray(read.triangles, np.int32))
    judge("façade, true cameras", run, root / "maps-facade", mesh, views_of(folder), HERE, rows)


# Judging


def judge(
    name: str,
    run: RunFolder,
    maps: Path,
    mesh: Mesh,
    views: dict[str, PinholeView],
    frame_from_truth: Similarity3,
    rows: list[list[Any]],
    heap: bool = False,
) -> None:
    """Compare maps with the true surface, and each cell's colour with where its photo's pixel truly lies.

    Args:
        mesh, views: the truth. frame_from_truth: brings them to local coordinates of the run's georeference.
    """
    import rasterio

    with rasterio.open(maps / "dsm.tif") as raster:
        heights, place, tags = raster.read(1, masked=True).filled(np.nan), raster.transform, raster.tags()
    with rasterio.open(maps / "photos.tif") as raster:
        label, names = raster.read(1), raster.tags()
    offset = np.array(json.loads(tags["file_from_local"]))[:3, 3]
    M = np.array(json.loads(tags["local_from_model"]))
    scale = float(np.cbrt(np.linalg.det(M[:3, :3])))
    map_from_model = Similarity3(scale, M[:3, :3] / scale, M[:3, 3])
    georeference = read_georeference(run).similarity
    back = georeference.inverse()
    turned = map_from_model.rotation @ back.rotation  # of the map's plane against the georeference's axes
    moved = map_from_model.scale * map_from_model.rotation @ back.translation + map_from_model.translation
    map_from_truth = Similarity3(
        frame_from_truth.scale,
        turned @ frame_from_truth.rotation,
        turned @ frame_from_truth.translation + moved,
    )
    rays = ray_scene(replace(mesh, vertices=map_from_truth(mesh.vertices).astype(np.float32)))
    columns, lines = np.meshgrid(np.arange(label.shape[1]) + 0.5, np.arange(label.shape[0]) + 0.5)
    gsd = place.a
    x, y, z = place.c + gsd * columns - offset[0], place.f - gsd * lines - offset[1], heights - offset[2]
    top = float(np.nanmax(z)) + 50 * gsd
    down = np.stack([x, y, 0 * x + top, 0 * x, 0 * x, 0 * x - 1], -1).astype(np.float32)
    true = top - rays.cast_rays(tensor(down))["t_hit"].numpy()
    judged = np.isfinite(z) & np.isfinite(true)
    error = np.abs(z - true)[judged] / gsd
    cameras = {**run.cameras, **run.adjusted_cameras()} if read_georeference(run).bend else run.cameras
    off = np.full(label.shape, np.inf)
    for number in np.unique(label[label > 0]):
        photo, mine = names[f"photo_{number}"], label == number
        seen = Camera(cameras[photo].intrinsics, map_from_model.camera(cameras[photo].cam_from_world))
        pixel, _ = seen.project(np.stack([x[mine], y[mine], z[mine]], -1))
        view = views[photo]
        pose = map_from_truth.camera(view.cam_from_world)
        toward = np.column_stack([pixel, np.ones(len(pixel))]) @ np.linalg.inv(view.K).T @ pose[:, :3]
        start = -pose[:, :3].T @ pose[:, 3]
        ray = np.hstack([np.broadcast_to(start, toward.shape), toward]).astype(np.float32)
        hit = start + toward * rays.cast_rays(tensor(ray))["t_hit"].numpy()[:, None]
        off[mine] = np.nan_to_num(np.hypot(hit[:, 0] - x[mine], hit[:, 1] - y[mine]) / gsd, nan=np.inf)
    off = off[label > 0]
    facts = json.loads((maps / "maps.json").read_text())
    said = volume_of_heap(run, maps) if heap else ""
    rows.append(
        [name, facts["surface"], f"{100 * float((label > 0).mean()):.1f}%", f"{100 * float((off <= 1).mean()):.1f}%",
         f"{np.percentile(off, 95):.2f}", f"{np.median(error):.3f}", f"{np.percentile(error, 90):.2f}", said]
    )  # fmt: skip


def volume_of_heap(run: RunFolder, maps: Path) -> str:
    """The heap's volume against that of its cone."""
    t = np.linspace(0, 2 * np.pi, 61)
    ring = np.array(HEAP[:2]) + (HEAP[2] + 0.5) * np.column_stack([np.cos(t), np.sin(t)]) + OFFSET[:2]
    geometry = {"type": "Polygon", "coordinates": [ring.tolist()]}
    path = maps / "heap.geojson"
    path.write_text(json.dumps({"type": "Feature", "properties": {"name": "heap"}, "geometry": geometry}))
    (said,) = run_volume(run, maps, VolumeOptions(polygon=path))
    found = float(said.split(": ")[1].split(" m³")[0])
    stated = float(said.split("± ")[1].split(" m³")[0])
    true = np.pi * HEAP[2] ** 2 * HEAP[3] / 3
    return f"{100 * (found / true - 1):+.2f}% (± {100 * stated / true:.2f}%)"


def peak_memory(root: Path) -> list[list[Any]]:
    """Peak memory of the command for the land, and for four times as much of it."""
    folder = aerial(root)
    rows: list[list[Any]] = []
    for copies in (1, 4):
        out = root / f"memory-{copies}"
        run = true_run(folder, out, EPSG, copies)
        code = (
            "import resource, sys; from recon.cli import main; "
            "assert main(sys.argv[1:]) == 0; print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        said = subprocess.run(
            [sys.executable, "-c", code, "ortho", str(out), *_COARSE],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        peak = int(said.split("peak ")[1]) / 1024
        facts = json.loads((out / "maps" / "maps.json").read_text())
        cells = facts["columns"] * facts["rows"]
        over = peak / rows[0][3] if rows else 1.0
        rows.append([f"{copies} ×", len(run.cameras), cells, peak, over])
    return rows


if __name__ == "__main__":
    main()
