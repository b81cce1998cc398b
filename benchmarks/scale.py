"""How a run grows with its photos: one photo more, whole runs, memory, workers, faults, and ten thousand photos.

Usage: python benchmarks/scale.py more|whole|kept|memory|workers|faults|parts|simulate [--photos N] [--size 240x180]
       [--keep FOLDER] [--begin STAGE] [--until STAGE] [--rays 1] [--given-cameras] [--set KEY=VALUE ...]

``more``: a run of N - 1 rendered photos of a wall (or with ``--scene street`` of a street), then the missing one is
added: processor seconds by stage.
``whole``: runs of a street that closes, N and 4 N photos, quality preview: processor seconds a photo and
peak memory by stage, photos in the model, and how far the centres are off; with ``--keep`` it goes on where it stopped.
``kept``: the stages of a run of ``whole`` from ``--begin`` on, anew in one process, whatever code made what comes
before (``--keep`` is the folder of ``whole``): as ``whole``, for one number of photos.
``memory``: depth and fusion from true cameras on a wall of rendered photos, repeated along a street, N and 4 N photos:
peak memory of the process.
``workers``: one process on one core, two such processes at once (what the machine's two cores can do), and two
workers on one core each: wall and processor seconds, and whether the results are the same bytes. ``faults``: a worker
killed in each stage in turn, then scheduler, workers or workspace gone while pairs are matched: what the command says,
and whether the same command then ends with the bytes of an undisturbed run. ``parts``: points with 1 cm of noise on the
surface of the aerial block, meshed as a whole and in parts.
``simulate``: hours and disk of large sets by workers, from the measured costs of ``recon.run.forecast``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import psutil
from _common import machine, table

from recon import api
from recon.core.cameras import PinholeView
from recon.core.memory import give_memory_back, memory_size
from recon.core.mesh import FusedCloud, mesh_to_open3d
from recon.engine.recipe import load_recipe
from recon.engine.runner import CACHED_PART, _measured
from recon.engine.stage import StageContext
from recon.engine.workspace import Workspace
from recon.evaluation.poses import evaluate_poses, poses_from_colmap
from recon.io.files import INCOMPLETE
from recon.io.manifest import Manifest, read_manifest
from recon.matching.types import DenseMatch, FlowField
from recon.options import image_size
from recon.run.folder import FIELDS, GRAPH
from recon.run.forecast import Workload, plan, stage_costs
from recon.run.matches import FLOWS, write_dense_match
from recon.surface.blocks import join_blocks
from recon.surface.meshing import (
    block_mesh,
    cleaned_patch,
    plan_of_points,
    settled_patch,
)
from recon.synthetic.files import write_scene
from recon.synthetic.large import large_scene_parts, make_large_scene, street_path
from recon.synthetic.materials import facade_albedo
from recon.synthetic.paths import grid_path, pinhole_views
from recon.synthetic.presets import _wall
from recon.synthetic.rendering import Lighting
from recon.synthetic.runs import write_true_run
from recon.synthetic.scene import SyntheticScene, render_scene

_LONGEST = 10_000.0  # world units between repeats of the wall: no photo of one sees another
_SHARED_PER_PAIR, _SHARED_PER_PHOTO = 4e6, 40e6  # bytes that tasks read and write, at 1024 px
SPREAD = ("features", "pairs", "match", "verify", "depth", "fuse", "mesh", "texture")
"""Stages whose tasks the workers do."""
_SPREAD_PART = {"fuse": 0.5, "mesh": 0.75, "texture": 0.2}
"""Part of the processor seconds of these that are tasks; of the other ones all are."""
_FILE_SYSTEM = 300e6  # bytes a second of a shared file system


def wall(photos: int, size: tuple[int, int]) -> SyntheticScene:
    """Render photos of a façade, in rows of eight; each point is in about ten of them."""
    rows = -(-photos // 8)
    poses = grid_path(8, rows, (0, 0, 2.0), (0.6, 2.25 / rows), 2.6, 0.1, 3, 0.05)[:photos]
    light = Lighting(samples=2)
    return render_scene(
        "wall", _wall(3, 0.04), facade_albedo(3), pinhole_views(poses, *size, 62), light, seed=3
    )


def command_of(photos: Path, out: Path, size: tuple[int, int], *more: str) -> list[str]:
    """The command line of a run on one thread."""
    settings = ("map.one_thread=true", f"photos.max_size={max(size)}", "photos.camera_sharing=single")
    command = [
        sys.executable,
        "-m",
        "recon.cli",
        "reconstruct",
        str(photos),
        "--out",
        str(out),
        "--threads",
        "1",
    ]
    command += [part for one in settings for part in ("--set", one)]
    return [*command, *more]


def reconstruct(photos: Path, out: Path, size: tuple[int, int], *more: str) -> dict[str, float]:
    """Run the command in a process of its own; processor seconds by stage that this run did."""
    before = read_manifest(out) if out.exists() else None
    old = {} if before is None else {name: one.fingerprint for name, one in before.stages.items()}
    subprocess.run(command_of(photos, out, size, *more), check=True, stdout=subprocess.DEVNULL)
    after = read_manifest(out)
    assert after is not None
    return {name: one.cpu_seconds for name, one in after.stages.items() if old.get(name) != one.fingerprint}


def one_more(
    count: int, size: tuple[int, int], folder: Path, more: Sequence[str], street: bool, rays: int
) -> None:
    """A run without one photo of the middle, then with it: of a wall, or of a street."""
    if not (folder / "scene" / "images").exists():
        scene = make_large_scene("street", count, size, rays=rays) if street else wall(count, size)
        write_scene(scene, folder / "scene")
    images = folder / "scene" / "images"
    late = sorted(images.iterdir())[count // 2]
    shutil.move(late, folder / late.name)
    full = reconstruct(images, folder / "run", size, *more)
    shutil.move(folder / late.name, late)
    added = reconstruct(images, folder / "run", size, *more)
    manifest = read_manifest(folder / "run")
    assert manifest is not None
    kept = {name: one.counts.get("kept_of_before", "") for name, one in manifest.stages.items()}
    rows = [
        [name, full[name], added.get(name, 0.0), _share(added.get(name, 0.0), full[name]), kept[name]]
        for name in full
    ]
    groups = {
        "features to verify": ("features", "pairs", "match", "verify"),
        "depth": ("depth",),
        "tracks and map": ("tracks", "map"),
        "fuse, mesh, texture, report": ("fuse", "mesh", "texture", "report"),
        "all": tuple(full),
    }
    for title, names in groups.items():
        whole, again = (sum(one.get(name, 0.0) for name in names) for one in (full, added))
        rows.append([f"**{title}**", whole, again, _share(again, whole), ""])
    print(f"\n{count} photos of {size[0]}x{size[1]}, one of them added later\n")
    print(table(rows, ["stage", "without it, CPU s", "when it came, CPU s", "share", "kept"]))


def whole_runs(
    count: int, size: tuple[int, int], folder: Path, memory: str, more: Sequence[str], rays: int, given: bool
) -> None:
    """Runs of a street with N and 4 N photos, from photos to the report; by their true cameras if ``given``."""
    manifests, rows = [], []
    for photos in (count, 4 * count):
        scene, root = folder / f"street{photos}", folder / f"run{photos}"
        if not (scene / "images").exists():
            write_scene(make_large_scene("street", photos, size, rays=rays), scene)
        cameras = ["--set", f"map.poses={scene}", "--set", "map.polish=false"] if given else []
        fixed = ["--quality", "preview", "--memory", memory, *cameras]
        reconstruct(scene / "images", root, size, *fixed, *more)
        manifest = read_manifest(root)
        assert manifest is not None
        manifests.append(manifest.stages)
    few, many = manifests
    for name in few:
        each = [stages[name].cpu_seconds / n for stages, n in ((few, count), (many, 4 * count))]
        peaks = [few[name].peak_memory_mb, many[name].peak_memory_mb]
        rows.append(
            [name, *(f"{x:.2f}" for x in each), _ratio(*each), *(f"{x:.0f}" for x in peaks), _ratio(*peaks)]
        )
    for title, left in (("**all**", ()), ("**all but map**", ("map",))):
        each = [
            sum(one.cpu_seconds for name, one in stages.items() if name not in left) / n
            for stages, n in ((few, count), (many, 4 * count))
        ]
        peaks = [max(one.peak_memory_mb for one in stages.values()) for stages in manifests]
        rows.append(
            [title, *(f"{x:.2f}" for x in each), _ratio(*each), *(f"{x:.0f}" for x in peaks), _ratio(*peaks)]
        )
    print(f"\nstreets of {count} and {4 * count} photos of {size[0]}x{size[1]}, {memory} {' '.join(more)}\n")
    headers = (
        [f"CPU s a photo, {n} photos" for n in (count, 4 * count)],
        [f"peak MB, {n}" for n in (count, 4 * count)],
    )
    print(table(rows, ["stage", *headers[0], "ratio", *headers[1], "ratio"]))
    for photos in (count, 4 * count):
        _tell_centres(folder / f"run{photos}", photos, size)


def _tell_centres(root: Path, photos: int, size: tuple[int, int]) -> None:
    """How far the cameras of a street are from where they stood."""
    _, side = street_path(photos)
    length = 4 * side + 2 * np.pi * 3
    truth = {view.name: view.cam_from_world for view in large_scene_parts("street", photos, size)[2]}
    report = evaluate_poses(poses_from_colmap(root / "sparse" / "0"), truth)
    print(
        f"\n{photos} photos: {report.registered} in the model; centres off by {report.center_mean / length:.3%} of "
        f"the street's {length:.0f} m in the mean, {report.center_max / length:.3%} at most"
    )


def kept_run(root: Path, photos: int, size: tuple[int, int], begin: str, memory: str) -> None:
    """Stages of a finished run, anew in this process: processor seconds and memory by stage, and the centres."""
    workspace = Workspace(root, read_manifest(root) or Manifest())
    recipe = load_recipe(str(root / "recipe.toml"), api.stages())
    rows, todo = [], False
    for stage in api.stages():
        todo = todo or stage.name == begin
        record = workspace.manifest.stages[stage.name]
        record.checksums = {}  # what is read was written by another process, or by an earlier stage of this one
        workspace.save()
        if todo:
            work = StageContext(root, stage.name, "benchmark", memory=memory_size(memory) // CACHED_PART)
            work.reuse = False
            before = psutil.Process().memory_info().rss / 2**20
            with _measured(record):
                stage.run(recipe.settings[stage.name], work)
            give_memory_back()
            rows.append([stage.name, f"{record.cpu_seconds / photos:.3f}", before, record.peak_memory_mb])
            print(rows[-1], file=sys.stderr, flush=True)
    print(table(rows, ["stage", "CPU s a photo", "MB when it begins", "peak MB"]))
    _tell_centres(root, photos, size)


def _ratio(one: float, other: float) -> str:
    return f"{other / one:.2f}" if one > 0 else ""


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole > 0 else ""


def street_run(root: Path, scene: SyntheticScene, repeats: int, neighbours: int = 5) -> None:
    """A workspace as far as the fields: true cameras, tracks and flow, of a wall that comes ``repeats`` times."""
    views, images, depths = [], [], []
    for block in range(repeats):
        for view, rgb, depth in zip(scene.views, scene.images, scene.depths, strict=True):
            pose = view.cam_from_world.copy()
            pose[:, 3] -= pose[:, :3] @ np.array([block * _LONGEST, 0, 0])
            number = len(views)
            views.append(replace(view, photo_id=number, name=f"{number:05d}.png", cam_from_world=pose))
            images.append(rgb)
            depths.append(depth)
    write_true_run(root, views, images, depths, tracks=60 * len(views), noise_px=0.0)
    shutil.rmtree(root / "dense")
    each, pairs = len(scene.views), []
    for block in range(repeats):
        for i in range(each):
            for j in range(i + 1, min(i + 1 + neighbours, each)):
                pairs.append((block * each + i, block * each + j))
    known: dict[tuple[int, int], DenseMatch] = {}
    for i, j in pairs:
        key = (i % each, j % each)
        if key not in known:
            known[key] = true_match(
                scene.views[key[0]], scene.depths[key[0]], scene.views[key[1]], scene.depths[key[1]]
            )
        write_dense_match(root / FLOWS / f"{i}_{j}", known[key])
    import networkx as nx

    graph: nx.Graph[int] = nx.Graph()
    graph.add_nodes_from(range(len(views)))
    graph.add_edges_from(pairs)
    nx.write_graphml(graph, root / GRAPH)
    (root / FIELDS).write_text(json.dumps({"matcher": "truth", "pairs": pairs}))


def true_match(a: PinholeView, depth_a: np.ndarray, b: PinholeView, depth_b: np.ndarray) -> DenseMatch:
    """Both flows of two views of known depth; consistent where the surface is the same."""
    fields, consistent = [], []
    for view, depth, other, there in ((a, depth_a, b, depth_b), (b, depth_b, a, depth_a)):
        y, x = np.mgrid[: view.height, : view.width].astype(np.float64)
        rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(view.K).T
        world = (rays * np.maximum(depth, 1e-6)[..., None] - view.cam_from_world[:, 3]) @ view.cam_from_world[
            :, :3
        ]
        pixel, z = other.project(world.reshape(-1, 3))
        pixel, z = pixel.reshape(*depth.shape, 2), z.reshape(depth.shape)
        near = np.rint(pixel).astype(int)
        inside = (depth > 0) & (z > 0) & (near >= 0).all(-1) & (near < (other.width, other.height)).all(-1)
        seen = np.zeros(depth.shape, bool)
        seen[inside] = np.abs(there[near[inside][:, 1], near[inside][:, 0]] - z[inside]) < 0.01 * z[inside]
        flow = np.where(inside[..., None], pixel - np.stack([x, y], -1), 0).astype(np.float32)
        fields.append(FlowField(flow, seen.astype(np.float32)))
        consistent.append(seen)
    return DenseMatch(fields[0], fields[1], consistent[0], consistent[1])


def stages_alone(root: Path, memory: int) -> None:
    """Depth and fusion of a workspace, in this process; prints the peak memory after each."""
    from recon.stages.depth import DepthStage
    from recon.stages.fuse import FuseStage

    for stage in (DepthStage(), FuseStage()):
        work = StageContext(root, stage.name, "benchmark", memory=memory)
        stage.run(stage.Settings(), work)
        print(stage.name, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, flush=True)


def memory_growth(count: int, size: tuple[int, int], folder: Path, cache_mb: int) -> None:
    """Peak memory at ``count`` and at four times as many photos."""
    scene = wall(count, size)
    rows, peaks = [], []
    for repeats in (1, 4):
        root = folder / f"street{repeats}"
        street_run(root, scene, repeats)
        command = [sys.executable, __file__, "stages", "--keep", str(root), "--cache", str(cache_mb)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        peak = dict(zip(printed[::2], map(int, printed[1::2]), strict=True))
        peaks.append(peak)
        rows.append([repeats * count, peak["depth"], peak["fuse"]])
    rows.append(["growth", *(f"{peaks[1][name] / peaks[0][name] - 1:.1%}" for name in ("depth", "fuse"))])
    print(f"\n{size[0]}x{size[1]}, {cache_mb} MB for photos and maps at hand\n")
    print(table(rows, ["photos", "depth, peak MB", "with fusion, peak MB"]))


def two_workers(count: int, size: tuple[int, int], folder: Path, until: str, more: Sequence[str]) -> None:
    """One process on one core, two such processes at once, and two workers on one core each."""
    write_scene(wall(count, size), folder / "scene")
    images = folder / "scene" / "images"
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise SystemExit("two cores are needed")

    def run(name: str, on: Sequence[int], *options: str) -> subprocess.Popen[bytes]:
        command = command_of(images, folder / name, size, "--stop-after", until, *options, *more)
        pin = ["taskset", "-c", ",".join(map(str, on))]
        return subprocess.Popen([*pin, *command], stdout=subprocess.DEVNULL)

    measured: list[tuple[str, list[str]]] = []
    for title, runs in (
        ("one process", [("one-process", cores[:1], ())]),
        ("two processes at once", [(f"at-once-{core}", [core], ()) for core in cores]),
        ("two workers", [("two-workers", cores, ("--workers", "2"))]),
    ):
        processes = [run(name, on, *options) for name, on, options in runs]
        if any(process.wait() for process in processes):
            raise SystemExit(f"{title}: a run failed")
        measured.append((title, [name for name, _, _ in runs]))
    rows, walls, works = [], [], []
    spread = SPREAD[: SPREAD.index(until) + 1]
    for title, names in measured:
        stages = [read_manifest(folder / name).stages for name in names]  # type: ignore[union-attr]
        walls.append({one: max(each[one].seconds for each in stages) / len(names) for one in spread})
        works.append({one: sum(each[one].cpu_seconds for each in stages) / len(names) for one in spread})
        rows.append([f"{title}, wall s a run", *walls[-1].values()])
        rows.append([f"{title}, CPU s a run", *works[-1].values()])
    for i in (1, 2):
        rows.append(
            [f"**{measured[i][0]}, times as fast**", *(walls[0][one] / walls[i][one] for one in spread)]
        )
    print(f"\n{count} photos of {size[0]}x{size[1]}\n")
    print(table(rows, ["", *spread]))
    print(f"\nfiles that differ: {differing(folder / 'one-process', folder / 'two-workers')}")


def faults(count: int, size: tuple[int, int], folder: Path, more: Sequence[str]) -> None:
    """What becomes of runs whose workers, scheduler or workspace go, against one that nothing disturbs."""
    write_scene(wall(count, size), folder / "scene")
    images = folder / "scene" / "images"
    small = ("--stop-after", "mesh", "--set", "mesh.block_points=10000", *more)
    whole = folder / "undisturbed"
    reconstruct(images, whole, size, *small)
    rows = []
    root = folder / "workers"
    process = started(images, root, size, *small, "--workers", "2")
    killed = [stage for stage in SPREAD if in_stage(process, root, stage) and kill_worker(process)]
    rows.append([f"a worker killed in {', '.join(killed)}", *ended(process), differing(whole, root), ""])
    cases = ["scheduler killed in match", "workspace gone in match", "workers gone in match"]
    if os.geteuid() == 0:  # a mount, as nothing else keeps root from writing
        cases.append("workspace read-only in match")
    for what in cases:
        root = folder / what.replace(" ", "-")
        helpers = started_cluster(folder)
        process = started(images, root, size, *small, "--cluster", helpers[0][1])
        assert in_stage(process, root, "match")
        if what.startswith("scheduler"):
            helpers[0][0].kill()
        elif what.startswith("workers"):
            for one, _ in helpers[1:]:
                one.kill()
        elif what.startswith("workspace gone"):
            root.rename(folder / "elsewhere")
        else:
            subprocess.run(["mount", "--bind", root, root], check=True)
            subprocess.run(["mount", "-o", "remount,ro,bind", root], check=True)
        code, said = ended(process)
        if what.startswith("workspace read-only"):
            subprocess.run(["umount", root], check=True)
        for one, _ in helpers:
            one.kill()
        if what.startswith("workspace gone"):
            shutil.rmtree(root, ignore_errors=True)
            (folder / "elsewhere").rename(root)
        done = sum(path.is_dir() for path in (root / INCOMPLETE).glob("flows*/*_*"))
        reconstruct(images, root, size, *small)
        rows.append([what, code, said, differing(whole, root), f"{done} pairs were there"])
    print(f"\n{count} photos of {size[0]}x{size[1]}\n")
    print(table(rows, ["what", "exit code", "said last", "files that differ in the end", "kept"]))


def started(images: Path, root: Path, size: tuple[int, int], *more: str) -> subprocess.Popen[str]:
    """A run in the background."""
    command = command_of(images, root, size, *more)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and last line of a run."""
    printed, _ = process.communicate(timeout=600)
    return process.returncode, printed.strip().splitlines()[-1][:300]


def in_stage(process: subprocess.Popen[str], root: Path, name: str) -> bool:
    """Wait until a stage has begun; False where it is over, or the run."""
    while process.poll() is None:
        try:
            stages = json.loads((root / "manifest.json").read_text())["stages"]
        except (OSError, ValueError):
            stages = {}
        state = stages.get(name, {}).get("state")
        if state is not None:
            time.sleep(0.2)
            return bool(state == "running")
        time.sleep(0.02)
    return False


def kill_worker(process: subprocess.Popen[str]) -> bool:
    """Kill the worker process that has worked most."""
    children = psutil.Process(process.pid).children(recursive=True)
    workers = [one for one in children if "spawn_main" in " ".join(one.cmdline())]
    if not workers:
        return False
    max(workers, key=lambda one: one.cpu_times().user).kill()
    return True


def started_cluster(folder: Path) -> list[tuple[subprocess.Popen[str], str]]:
    """A scheduler and two workers, each a process that we started; the first one's address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", address, "--no-dashboard"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny"]
    worker += ["--no-dashboard", "--local-directory", str(folder / "dask")]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "text": True}
    return [(subprocess.Popen(command, **quiet), address) for command in (dask, worker, worker)]  # type: ignore[call-overload]


def differing(one: Path, two: Path) -> str:
    """How many files of a run were compared with another one's, and which are not the same."""
    places = (
        "features",
        "sparse_matches.npz",
        "two_view.npz",
        "tracks.npz",
        "dense/depth",
        "dense/points.ply",
    )
    paths = [one / place for place in (*places, "mesh/mesh.ply") if (one / place).exists()]
    files = [path for place in paths for path in ([place] if place.is_file() else sorted(place.iterdir()))]
    files += [path for path in (one / FLOWS).rglob("*") if path.is_file() and "/c/" in path.as_posix()]
    others = [two / path.relative_to(one) for path in files]
    differ = [
        path.name
        for path, other in zip(files, others, strict=True)
        if not other.exists() or path.read_bytes() != other.read_bytes()
    ]
    return f"{len(differ)} of {len(files)} {differ[:5] if differ else ''}"


def mesh_alone(most: int, points: int) -> None:
    """Mesh points of the aerial block; prints figures against the surface."""
    import open3d as o3d

    mesh = large_scene_parts("block", 9, (64, 48))[0]
    surface = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(mesh.vertices.astype(float)), o3d.utility.Vector3iVector(mesh.faces)
    )
    o3d.utility.random.seed(0)
    surface.compute_triangle_normals()
    drawn = surface.sample_points_uniformly(points, use_triangle_normal=True)
    normals = np.asarray(drawn.normals)
    noise = np.random.default_rng(0).normal(0, 0.01, (points, 1))
    xyz = (np.asarray(drawn.points) + noise * normals).astype(np.float32)
    zeros, ones = np.zeros(points, np.int32), np.ones(points, np.float32)
    grey = np.full((points, 3), 128, np.uint8)
    cloud = FusedCloud(xyz, normals.astype(np.float32), grey, zeros.astype(np.uint16), zeros, ones)
    del drawn
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    plan_ = plan_of_points(cloud.xyz, most)
    rows = plan_.rows(cloud.xyz)
    numbers = iter(rows)
    patch = join_blocks(
        plan_.block, lambda _: block_mesh(partial(cloud.rows, next(numbers)), plan_.cell), plan_.cell
    )
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    made = mesh_to_open3d(settled_patch(cleaned_patch(patch), plan_, lambda k: cloud.rows(rows[k])))
    took = time.process_time() - began
    faces = np.asarray(made.triangles)
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    rim = int((np.unique(edges, axis=0, return_counts=True)[1] == 1).sum())
    rays = o3d.t.geometry.RaycastingScene()
    rays.add_triangles(o3d.t.geometry.TriangleMesh.from_legacy(surface))
    o3d.utility.random.seed(1)
    asked = np.asarray(made.sample_points_uniformly(100_000).points).astype(np.float32)
    off = rays.compute_distance(o3d.core.Tensor(asked)).numpy()
    back = o3d.t.geometry.RaycastingScene()
    back.add_triangles(o3d.t.geometry.TriangleMesh.from_legacy(made))
    missed = back.compute_distance(o3d.core.Tensor(xyz[::10].copy())).numpy() > 0.1
    figures = [
        len(rows),
        peak,
        took,
        len(faces),
        rim,
        1000 * float(off.mean()),
        f"{missed.mean():.2%}",
    ]
    print(json.dumps(figures))


def mesh_parts(points: int) -> None:
    """A cloud meshed as a whole, and in parts of a third and of a tenth of its points."""
    rows = []
    for most in (points, points // 3, points // 10):
        command = [sys.executable, __file__, "mesh", "--photos", str(points), "--cache", str(most)]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    print(f"\n{points} points on the aerial block, 72 m wide\n")
    headers = ["parts", "MB that meshing takes", "CPU s with cleaning", "faces", "edges with one face"]
    print(
        table(rows, [*headers, "mean distance to the surface, mm", "points farther than 10 cm from the mesh"])
    )


def simulate(photos: int) -> None:
    """Hours by number of workers; what is not spread yet stays on one core and becomes the bottleneck."""
    work = Workload(photos, 0.7, 0.273, 25 * photos, 8 * photos)
    costs = stage_costs(work)
    part = {stage: _SPREAD_PART.get(stage, 1.0) if stage in SPREAD else 0.0 for stage in costs}
    moved = _SHARED_PER_PAIR * work.pairs + _SHARED_PER_PHOTO * photos
    left = {stage: (1 - part[stage]) * cost for stage, cost in costs.items()}
    serial = sum(left.values())
    rows = []
    for workers in (1, 2, 8, 32, 128, 512):
        tasks = max(sum(part[stage] * cost for stage, cost in costs.items()) / workers, moved / _FILE_SYSTEM)
        bound = "workers" if tasks > serial else "one core: " + max(left, key=lambda stage: left[stage])
        if tasks <= moved / _FILE_SYSTEM and tasks > serial:
            bound = "shared file system"
        rows.append([workers, tasks / 3600, serial / 3600, (tasks + serial) / 3600, bound])
    disk = plan(work, {}, 1, 8 << 30).disk
    print(
        f"\n{photos} photos of 1024x683, {work.pairs} pairs, {disk / 1e12:.2f} TB of disk, by measured costs\n"
    )
    print(table(rows, ["workers", "spread, h", "on one core, h", "all, h", "most of it"]))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "what",
        choices=(
            *("more", "whole", "kept", "memory", "workers", "faults", "parts", "simulate"),
            *("mesh", "stages"),  # what others start
        ),
    )
    parser.add_argument("--photos", type=int)
    parser.add_argument("--size", default="240x180")
    parser.add_argument("--cache", type=int, default=8, help="MB of photos and maps at hand, for memory")
    parser.add_argument("--memory", default="1G", help="that runs may take, for whole")
    parser.add_argument("--begin", default="tracks", help="first stage, for kept")
    parser.add_argument("--until", help="last stage of the runs, for more, whole and workers")
    parser.add_argument("--scene", choices=("wall", "street"), default="wall", help="for more")
    parser.add_argument("--quality", help="of the runs, for more")
    parser.add_argument(
        "--rays", type=int, default=2, help="per pixel and axis of the photos, for whole and streets"
    )
    parser.add_argument("--given-cameras", action="store_true", help="whole: map by the true cameras")
    parser.add_argument("--set", action="append", default=[], help="setting of the recipe for all runs")
    parser.add_argument("--keep", type=Path, help="folder for photos and runs; by default a temporary one")
    args = parser.parse_args()
    size = image_size(args.size, "--size")
    if args.what == "stages":
        stages_alone(args.keep.absolute(), args.cache << 20)
        return
    if args.what == "mesh":
        mesh_alone(args.cache, args.photos)
        return
    print(machine())
    more = [part for one in args.set for part in ("--set", one)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if args.what == "more":
            until = ["--stop-after", args.until] if args.until else []
            quality = ["--quality", args.quality] if args.quality else []
            one_more(
                args.photos or 24, size, folder, more + until + quality, args.scene == "street", args.rays
            )
        elif args.what == "whole":
            until = ["--stop-after", args.until] if args.until else []
            whole_runs(
                args.photos or 100, size, folder, args.memory, more + until, args.rays, args.given_cameras
            )
        elif args.what == "kept":
            photos = args.photos or 100
            kept_run((folder / f"run{photos}").absolute(), photos, size, args.begin, args.memory)
        elif args.what == "faults":
            faults(args.photos or 5, size, folder, more)
        elif args.what == "memory":
            memory_growth(args.photos or 24, size, folder, args.cache)
        elif args.what == "workers":
            two_workers(args.photos or 8, size, folder, args.until or "texture", more)
        elif args.what == "parts":
            mesh_parts(args.photos or 400_000)
        else:
            simulate(args.photos or 10_000)


if __name__ == "__main__":
    main()
