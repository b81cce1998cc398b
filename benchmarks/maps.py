"""Maps against the truth: surface model, orthophoto, check points, volumes and memory on rendered scenes.

    python benchmarks/maps.py [--keep FOLDER] [--sets N] [--parts whole,true,facade-whole,facade,checks,memory]

whole: twenty photos of a hamlet (16 straight down, 4 oblique; GPS with 1.5 m and 3 m of noise in EXIF) from the photos
to the maps, intrinsics unknown; N sets of eight control and eight check points, measured to 2 and 3 cm, marked to
0.4 px. true: the same photos with true cameras, and depth with 0.15% of noise. facade-whole: twelve photos of a façade
from the photos to the elevation, intrinsics unknown, N sets of points measured to 2 and 3 mm, an elevation of each
set; once with the control points all over the wall, once with all in its left half. facade: the same with true
cameras. checks: N runs with true photos of the hamlet, each with noise of its own in tracks, marks and measurements.
memory: the peak of 'recon ortho' with true cameras, and for four times the land, in tiles of 256 cells and of the
default size. A run is made once (same seed, same result up to tracks). With --keep what is there already is not made
again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from _common import machine, table
from matplotlib.path import Path as MplPath
from PIL import Image

from recon.api import reconstruct
from recon.core.cameras import PinholeView
from recon.core.mesh import Mesh
from recon.core.posed import Camera
from recon.core.raycasting import ray_scene, tensor
from recon.core.similarity import Similarity3, align_similarity
from recon.exports.georeference import Crs, Georeference
from recon.exports.georeferencing import run_georeference
from recon.exports.options import GeoreferenceOptions
from recon.exports.source import load_scene, read_georeference
from recon.io.cameras_json import read_cameras_json
from recon.maps.making import run_ortho
from recon.maps.options import OrthoOptions, VolumeOptions
from recon.maps.volume import run_volume
from recon.photos.reading import read_png
from recon.run.folder import RunFolder
from recon.synthetic.aerial import HEAPS, aerial_height, aerial_mesh
from recon.synthetic.files import write_scene
from recon.synthetic.presets import make_scene
from recon.synthetic.runs import write_true_run

OFFSET = np.array([691500.0, 5334700.0, 500.0])
EPSG = 25832
GPS_NOISE, CONTROL_NOISE, MARK_NOISE = (1.5, 1.5, 3.0), np.array([1.0, 1.0, 1.5]), 0.4
"""Standard deviations in metres; of the level error of a control point; in pixels."""
# Both lands fill several tiles, so that the working set of one tile is in both figures.
_CELLS = (("--gsd", "0.19", "--tile", "256"), ())
HERE = Similarity3(1.0, np.eye(3), np.zeros(3))
Set: TypeAlias = tuple[RunFolder, Path, np.ndarray, int]
"""A run, the folder of its truth, points to measure, and a seed."""
# Orders of the points on the wall. Every other one is a control point: all over the wall, or all in its left half.
LAYOUTS = {
    "control all over": (0, 1, 3, 2, 4, 5, 7, 6, 9, 8, 10, 11, 13, 12, 14, 15),
    "control in the left half": tuple(range(16)),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", default="", help="folder for scenes and runs; a temporary one by default")
    parser.add_argument("--sets", type=int, default=5, help="sets of control points")
    parser.add_argument("--parts", default="whole,true,facade-whole,facade,checks,memory")
    args = parser.parse_args()
    parts = args.parts.split(",")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(args.keep or scratch)
        rows: list[list[Any]] = []
        checks: list[list[Any]] = []
        volumes: list[list[Any]] = []
        if "whole" in parts:
            whole(root, args.sets, rows, checks, volumes)
        if "true" in parts:
            true_cameras(root, rows, volumes)
        if "facade-whole" in parts:
            facade_whole(root, args.sets, rows, checks)
        if "facade" in parts:
            facade(root, rows)
        if "checks" in parts:
            checks.append(many_checks(root, args.sets))
        memory = peak_memory(root) if "memory" in parts else []
    print(f"\n{machine()}")
    headers = ["set", "surface", "cells with colour", "within 1 px", "95% within / px", "heights: median / gsd",
               "90% / gsd"]  # fmt: skip
    shown = [
        (rows, headers),
        (volumes, ["set", "true / m³", "found", "stated ±"]),
        (
            checks,
            [
                "check points",
                "points",
                "coordinates within 2 σ",
                "points on all axes",
                "rms / σ x",
                "y",
                "z",
                "sets with a weak side",
            ],
        ),
        (memory, ["land", "cells", "photos", "peak / MB", "over the first"]),
    ]
    for values, heads in shown:
        if values:
            print(f"\n{table(values, heads)}")


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


def write_control(
    folder: Path, path: Path, places: np.ndarray, seed: int, sigma: float, epsg: int | None
) -> list[str]:
    """Marks of measured points in all photos that show them; as OpenDroneMap lists them, or as a plain table.

    Returns the names of every other one, which are to check.
    """
    rng = np.random.default_rng(seed)
    views = read_cameras_json(folder / "cameras.json")
    depths = {name: np.load(folder / "truth" / "depth" / f"{Path(name).stem}.npz")["depth"] for name in views}
    lines = ["name,X,Y,Z,photo,x,y"] if epsg is None else [f"EPSG:{epsg}"]
    for k, place in enumerate(places):
        x, y, z = place + (0.0 if epsg is None else OFFSET) + sigma * rng.normal(size=3) * CONTROL_NOISE
        for name, view in views.items():
            (u, v), depth = (value[0] for value in view.project(place[None]))
            inside = 3 < u < view.width - 4 and 3 < v < view.height - 4
            if inside and abs(depths[name][round(v), round(u)] - depth) < 0.02 * depth:
                a, b = rng.normal(0, MARK_NOISE, 2)
                cells = f"{x:.4f} {y:.4f} {z:.4f} {u + a:.3f} {v + b:.3f} {name} P{k + 1}".split()
                lines.append(
                    " ".join(cells) if epsg else ",".join([cells[6], *cells[:3], cells[5], *cells[3:5]])
                )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [f"P{k + 1}" for k in range(1, len(places), 2)]


def spots_on_land(seed: int) -> np.ndarray:
    """Sixteen points on the land and on roofs."""
    rng = np.random.default_rng(seed)
    side = [(x, y) for x in np.linspace(-24, 24, 4) for y in np.linspace(-22, 22, 4)]
    spots = np.array(side) + rng.uniform(-2.5, 2.5, (16, 2))
    return np.column_stack([spots, aerial_height(*spots.T)])


def spots_on_wall(folder: Path, seed: int) -> np.ndarray:
    """Sixteen points that the middle photos of the façade show."""
    rng = np.random.default_rng(seed)
    found = []
    views = list(read_cameras_json(folder / "cameras.json").items())
    for name, view in (views[1], views[4], views[7], views[10]):
        depth = np.load(folder / "truth" / "depth" / f"{Path(name).stem}.npz")["depth"]
        for x, y in ((0.2, 0.2), (0.8, 0.25), (0.25, 0.8), (0.75, 0.75)):
            u, v = (
                round((at + rng.uniform(-0.08, 0.08)) * side)
                for at, side in ((x, view.width), (y, view.height))
            )
            ray = np.linalg.inv(view.K) @ (u, v, 1.0) * float(depth[v, u])
            found.append(view.cam_from_world[:, :3].T @ ray + view.center)
    return np.array(found)


def check_points(
    name: str,
    runs: Iterable[Set],
    sigma: float,
    epsg: int | None,
    path: Path,
) -> list[Any]:
    """Adjust each run to control points; how the check points' errors compare with what is stated of them."""
    ratio: list[list[float]] = []
    weak: list[str] = []
    for run, folder, places, seed in runs:
        checks = write_control(folder, path, places, seed, sigma, epsg)
        options = GeoreferenceOptions(
            control=path, check=",".join(checks), control_error=sigma, mark_error=MARK_NOISE
        )
        said = run_georeference(run, options)
        weak += [line for line in said if "leave a side out" in line]
        points = read_georeference(run).points
        ratio += [[e / s for e, s in zip(p.error, p.sigma, strict=True)] for p in points if p.kind == "check"]
    off = np.array(ratio)
    rms = [f"{value:.2f}" for value in np.sqrt((off**2).mean(axis=0))]
    axes, points = (np.abs(off) < 2).mean(), (np.abs(off) < 2).all(axis=1).mean()
    print(
        f"{name}, last set:",
        *(line for line in said if "place control points" in line or "leave a side" in line),
        sep="\n  ",
    )
    return [name, len(off), f"{100 * axes:.1f}%", f"{100 * points:.1f}%", *rms, len(weak)]


def whole(
    root: Path, sets: int, rows: list[list[Any]], checks: list[list[Any]], volumes: list[list[Any]]
) -> None:
    folder, out = aerial(root), root / "run"
    reconstruct(folder / "images", out)  # goes on where it was, or finds all done
    run = RunFolder(out)
    runs = ((run, folder, spots_on_land(seed), seed) for seed in range(sets))
    checks.append(check_points("hamlet, whole run", runs, 0.02, EPSG, root / "gcp_list.txt"))
    georeference = read_georeference(run)
    truth = Similarity3(1.0, np.eye(3), OFFSET - np.array(georeference.offset))
    for surface in ("auto", "depth", "mesh"):
        maps = root / f"maps-{surface}"
        run_ortho(run, maps, OrthoOptions(surface=surface, png=False))
        judged = judge(run, maps, aerial_mesh(), views_of(folder), truth)
        rows.append(row_of(f"hamlet, whole run, {surface}", [judged]))
        if surface == "auto":
            volumes += volumes_of_heaps("whole run", run, maps)


def relief(root: Path) -> Path:
    folder = root / "relief"
    if not (folder / "cameras.json").is_file():
        write_scene(make_scene("relief", (480, 360), coarseness=1.6), folder)
    return folder


def facade_whole(root: Path, sets: int, rows: list[list[Any]], checks: list[list[Any]]) -> None:
    folder, out = relief(root), root / "run-relief"
    reconstruct(folder / "images", out)  # goes on where it was, or finds all done
    run = RunFolder(out)
    scene, views = load_scene(run), views_of(folder)
    found = np.array([view.center for view in scene.views])
    true = np.array([views[view.name].center for view in scene.views])
    off = align_similarity(found, true)(found) - true
    rms = ", ".join(f"{1000 * value:.2f}" for value in np.sqrt((off**2).mean(axis=0)))
    focal, real = scene.cameras[0].K[0, 0], views[scene.views[0].name].K[0, 0]
    print(
        f"façade, cameras after a similarity: rms {rms} mm; focal length {focal:.2f} px, true {real:.2f} px"
    )
    for layout, order in LAYOUTS.items():
        judged: list[Judged] = []

        def runs(order: tuple[int, ...] = order, judged: list[Judged] = judged) -> Iterator[Set]:
            for seed in range(sets):
                yield run, folder, spots_on_wall(folder, seed)[list(order)], seed
                maps = root / "maps-relief"  # of the set that was just adjusted
                run_ortho(run, maps, OrthoOptions(png=False))
                truth = Similarity3(1.0, np.eye(3), -np.array(read_georeference(run).offset))
                judged.append(judge(run, maps, wall_mesh(folder), views_of(folder), truth))

        name = f"façade, whole run, {layout}"
        checks.append(check_points(name, runs(), 0.002, None, root / "points.csv"))
        rows.append(row_of(name, judged))
        ends = ", ".join(f"{one.ends[0]:+.2f} {one.ends[1]:+.2f}" for one in judged)
        print(f"{name}: median error of heights at the left and the right end, cells: {ends}")


def many_checks(root: Path, sets: int) -> list[Any]:
    """Check points of runs whose tracks have noise of their own."""
    folder = aerial(root)

    def runs() -> Iterator[Set]:
        for seed in range(sets):
            out = root / f"checks-{seed}"
            yield true_run(folder, out, EPSG, seed=seed), folder, spots_on_land(100 + seed), 100 + seed
            shutil.rmtree(out)

    return check_points("hamlet, true photos", runs(), 0.02, EPSG, root / "gcp_list.txt")


def views_of(folder: Path) -> dict[str, PinholeView]:
    return read_cameras_json(folder / "cameras.json")


def true_run(folder: Path, out: Path, epsg: int | None, copies: int = 1, seed: int = 0) -> RunFolder:
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
        write_true_run(out, views, images, depths, depth_noise=0.0015, seed=seed)
        crs = Crs("epsg", f"EPSG:{epsg}", epsg) if epsg else Crs("local", "local, in metres")
        offset = tuple(float(v) for v in OFFSET) if epsg else (0.0, 0.0, 0.0)
        found = Georeference(HERE, offset, crs, "control", "control")  # type: ignore[arg-type]
        (out / "georeference.json").write_text(json.dumps(found.to_json()), encoding="utf-8")
    return RunFolder(out)


def true_cameras(root: Path, rows: list[list[Any]], volumes: list[list[Any]]) -> None:
    folder = aerial(root)
    run = true_run(folder, root / "true", EPSG)
    run_ortho(run, root / "maps-true", OrthoOptions(png=False))
    judged = judge(run, root / "maps-true", aerial_mesh(), views_of(folder), HERE)
    rows.append(row_of("hamlet, true cameras", [judged]))
    volumes += volumes_of_heaps("true cameras", run, root / "maps-true")


def wall_mesh(folder: Path) -> Mesh:
    from recon.io.surfaces import read_mesh

    read = read_mesh(folder / "truth" / "mesh.ply")
    return Mesh(np.asarray(read.vertices, np.float32), np.asarray(read.triangles, np.int32))


def facade(root: Path, rows: list[list[Any]]) -> None:
    folder = relief(root)
    run = true_run(folder, root / "true-relief", None)
    run_ortho(run, root / "maps-facade", OrthoOptions(png=True))
    judged = judge(run, root / "maps-facade", wall_mesh(folder), views_of(folder), HERE)
    rows.append(row_of("façade, true cameras", [judged]))


# Judging


@dataclass(frozen=True)
class Judged:
    """Maps against the truth: shares of cells, distances in pixels, errors of heights in cells (``ends``: signed
    medians in the first and the last tenth of the map)."""

    surface: str
    coloured: float
    within: float
    off_95: float
    median: float
    error_90: float
    ends: tuple[float, float]


def row_of(name: str, judged: Sequence[Judged]) -> list[Any]:
    """A row of the table: medians over sets of control points; of the heights' median error also the range."""
    middle = {
        key: float(np.median([getattr(one, key) for one in judged]))
        for key in ("coloured", "within", "off_95", "median", "error_90")
    }
    medians = [one.median for one in judged]
    spread = f" ({min(medians):.3f} to {max(medians):.3f})" if len(judged) > 1 else ""
    return [name, judged[0].surface, f"{100 * middle['coloured']:.1f}%", f"{100 * middle['within']:.1f}%",
            f"{middle['off_95']:.2f}", f"{middle['median']:.3f}{spread}", f"{middle['error_90']:.2f}"]  # fmt: skip


def judge(
    run: RunFolder, maps: Path, mesh: Mesh, views: dict[str, PinholeView], frame_from_truth: Similarity3
) -> Judged:
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
    error = (z - true)[judged] / gsd
    column = np.nonzero(judged)[1]
    first, last = np.percentile(column, (10, 90))
    ends = float(np.median(error[column <= first])), float(np.median(error[column >= last]))
    error = np.abs(error)
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
    return Judged(
        facts["surface"],
        float((label > 0).mean()),
        float((off <= 1).mean()),
        float(np.percentile(off, 95)),
        float(np.median(error)),
        float(np.percentile(error, 90)),
        ends,
    )


def volumes_of_heaps(name: str, run: RunFolder, maps: Path) -> list[list[Any]]:
    """What lies over level ground in a ring about each heap (beside the third stands the corner of a house)."""
    t = np.linspace(0, 2 * np.pi, 61)
    features, true = [], []
    for k, (x, y, radius, _) in enumerate(HEAPS):
        ring = np.array([x, y]) + (radius + 0.5) * np.column_stack([np.cos(t), np.sin(t)])
        geometry = {"type": "Polygon", "coordinates": [(ring + OFFSET[:2]).tolist()]}
        features.append({"type": "Feature", "properties": {"name": f"heap {k + 1}"}, "geometry": geometry})
        side = 0.01 * np.arange(-round(100 * radius + 50), round(100 * radius + 51))
        spots = np.stack(np.meshgrid(x + side, y + side), -1).reshape(-1, 2)
        inside = MplPath(ring).contains_points(spots)
        true.append(float(aerial_height(*spots[inside].T).sum()) * 1e-4)
    path = maps / "heaps.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    rows = []
    for said, volume in zip(run_volume(run, maps, VolumeOptions(polygon=path)), true, strict=True):
        found = float(said.split(": ")[1].split(" m³")[0])
        stated = float(said.split("± ")[1].split(" m³")[0])
        off = f"{100 * (found - volume) / abs(volume):+.2f}%"
        rows.append([name, f"{volume:.2f}", off, f"{100 * stated / abs(volume):.2f}%"])
    return rows


def peak_memory(root: Path) -> list[list[Any]]:
    """Peak memory of the command for the land, and for four times as much of it."""
    folder = aerial(root)
    rows: list[list[Any]] = []
    for cells in _CELLS:
        first = 0.0
        for copies in (1, 4):
            out = root / f"memory-{copies}"
            run = true_run(folder, out, EPSG, copies)
            code = (
                "import resource, sys; from recon.cli import main; "
                "assert main(sys.argv[1:]) == 0; print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
            )
            said = subprocess.run(
                [sys.executable, "-c", code, "ortho", str(out), *cells, "--no-png"],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            peak = int(said.split("peak ")[1]) / 1024
            first = first or peak
            facts = json.loads((out / "maps" / "maps.json").read_text())
            size = f"{facts['columns']} × {facts['rows']} of {facts['gsd']:g} m"
            rows.append(
                [
                    " ".join([f"{copies} ×", *cells]),
                    size,
                    len(run.cameras),
                    f"{peak:.0f}",
                    f"{peak / first:.2f}",
                ]
            )
    return rows


if __name__ == "__main__":
    main()
