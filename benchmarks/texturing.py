"""Textured meshes: time, memory, and how well photos are predicted from what was written to disk.

    python benchmarks/texturing.py                                   # reconstructs the scenes first
    python benchmarks/texturing.py --run fountain-P11=OUT [...]      # textures the meshes of finished runs
    python benchmarks/texturing.py --rendered --runs-off             # rendered scenes alone

Three tables. The first textures the mesh of a run in a process of its own (the run's folder is only read) and renders
``textured.glb`` from the cameras of the photos that made it. Photos of the scene that the run did not have
are left-out photos: their known cameras are aligned to the run by the other cameras' centres, so that an error of the
poses counts too. The third takes rendered scenes with their exact surface and cameras, which leaves texturing alone.
Exposure is fitted per channel everywhere (``recon.evaluation.views.compare_view``); PSNR and SSIM are over the pixels
that the mesh covers, means over photos. The seam figure is the median colour step between both sides of the edges where
two photos meet, in grey levels: between the photos as they are → in the texture.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import psutil
from _common import data_root, machine, table

from recon.api import reconstruct
from recon.core.cameras import PinholeView
from recon.datasets.cards import load_card
from recon.evaluation.poses import align_cameras
from recon.evaluation.views import compare_view
from recon.io.cameras_json import read_cameras_json
from recon.io.glb import model_from_scene, read_glb
from recon.io.textured_mesh import read_textured_mesh
from recon.render.canvas import Canvas, Surface
from recon.run.dense_scene import DenseScene
from recon.run.folder import RunFolder
from recon.surface.texture.files import split_vertices
from recon.surface.texture.simplify import simplify_faces
from recon.surface.texture.texturing import texture_mesh
from recon.surface.texture.types import TexturedMesh, TextureOptions
from recon.synthetic.difficulties import make_benchmark_scene
from recon.synthetic.presets import make_scene

DEFAULT = ("fountain-P11", "Herz-Jesus-P8")
RENDERED = ("relief", "rocks", "object")
PEER = {"fountain-P11": "28.0 dB over 88.3%", "Herz-Jesus-P8": "25.7 dB over 86%"}
"""PSNR and coverage of another program's textured mesh of the same photos, rendered from their cameras."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", action="append", default=[], metavar="SCENE=FOLDER", help="a finished run")
    parser.add_argument("--runs-off", action="store_true", help="leave the runs out")
    parser.add_argument(
        "--rendered",
        nargs="*",
        metavar="SCENE",
        help="rendered scenes too: relief, rocks, object, ... (all three)",
    )
    parser.add_argument("--quality", default="normal", help="of runs that are made")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="texture settings, JSON"
    )
    parser.add_argument("--samples", type=int, default=2, help="rays per pixel and axis")
    parser.add_argument(
        "--repeats", type=int, default=1, help="texturings per run, for the spread of seconds"
    )
    parser.add_argument(
        "--keep", default="", help="folder for pictures and files; a temporary one by default"
    )
    args = parser.parse_args()
    settings = {key: json.loads(value) for key, _, value in (text.partition("=") for text in args.set)}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(args.keep or scratch)
        root.mkdir(parents=True, exist_ok=True)
        runs = [tuple(text.split("=", 1)) for text in args.run]
        if not runs and not args.runs_off:
            runs = [(scene, str(_reconstruct(root, scene, args.quality))) for scene in DEFAULT]
        first, second = [], []
        for number, (scene, folder) in enumerate([] if args.runs_off else runs):
            used, left = measure_run(root / f"{number}-{scene}", scene, Path(folder), settings, args)
            first.append(used)
            second += left
        third = rendered_scenes(root, args) if args.rendered is not None else []
    print(f"\n{machine()}, {args.samples}x{args.samples} rays per pixel\n")
    if first:
        print("Photos that made the texture, rendered again\n")
        heads = "scene, faces, charts, texture, seconds, peak MB, PSNR / dB, SSIM, coverage, seam, peer"
        print(table(first, heads.split(", ")))
    if second:
        print("\nPhotos that the run did not have\n")
        print(table(second, ["scene", "photo", "PSNR / dB", "SSIM", "coverage"]))
    if third:
        print("\nRendered scenes, exact surface and cameras: photos used and photos left out\n")
        heads = "scene, faces, seconds, used: PSNR, SSIM, left out: PSNR, SSIM, coverage, seam"
        print(table(third, heads.split(", ")))


def _reconstruct(root: Path, scene: str, quality: str) -> Path:
    card = load_card(scene)
    folder = card.folder(data_root())
    out = root / f"{scene}-run"
    reconstruct(
        folder / card.layout["images"],
        out,
        quality=quality,
        intrinsics=folder / card.layout["cameras"],
        overrides=["texture.enabled=false"],
    )
    return out


_CHILD = """
import json, sys, time
from pathlib import Path
start = time.perf_counter()
from recon.engine.stage import StageContext
from recon.stages.texture import TextureSettings, TextureStage
TextureStage().run(TextureSettings(**json.loads(sys.argv[2])), StageContext(Path(sys.argv[1]), threads=2))
print(time.perf_counter() - start)
"""


def _texture(folder: Path, settings: dict) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak memory in MB (resident, sampled) of the stage in a process of its own.

    Imports and the process's own children count.
    """
    root = str(Path(__file__).resolve().parent.parent)
    before = os.times()
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(folder), json.dumps(settings)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    family, peak = psutil.Process(child.pid), 0
    while child.poll() is None:
        with contextlib.suppress(psutil.Error):
            members = [family, *family.children(recursive=True)]
            peak = max(peak, sum(member.memory_info().rss for member in members))
        time.sleep(0.05)
    assert child.stdout is not None
    if child.returncode:
        raise SystemExit(f"texturing {folder} failed")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return float(child.stdout.read().split()[-1]), cpu, peak / 2**20


def _borrow(run: Path, place: Path) -> Path:
    """A folder of links to a run, in which the stage can write without touching the run."""
    (place / "mesh").mkdir(parents=True, exist_ok=True)
    for name in ("photos", "photos.json", "mapping.json", "sparse"):
        if not (place / name).exists():
            (place / name).symlink_to((run / name).resolve())
    if not (place / "mesh" / "mesh.ply").exists():
        (place / "mesh" / "mesh.ply").symlink_to((run / "mesh" / "mesh.ply").resolve())
    return place


def as_textured(path: Path) -> TexturedMesh:
    """A textured mesh from its file."""
    read = read_textured_mesh(path)
    if read.uv is None or read.texture is None:
        raise SystemExit(f"{path} has no texture")
    nothing = np.zeros(len(read.faces), np.int32)
    back = model_from_scene(read_glb(path.read_bytes())[0])
    return TexturedMesh(
        read.vertices.astype(np.float64) @ back[:3, :3].T + back[:3, 3],
        read.faces,
        read.uv.astype(np.float64),
        read.texture,
        nothing,
        nothing,
    )


def measure_run(
    place: Path, scene: str, run: Path, settings: dict, args: argparse.Namespace
) -> tuple[list, list[list]]:
    """A row of the first table and rows of the second."""
    work = _borrow(run, place)
    seconds, cpu, peaks = [], [], []
    for _ in range(args.repeats):
        wall, busy, peak = _texture(work, settings)
        seconds.append(wall)
        cpu.append(busy)
        peaks.append(peak)
    figures = json.loads((work / "mesh" / "texture.json").read_text(encoding="utf-8"))
    mesh = as_textured(work / "mesh" / "textured.glb")
    dense = DenseScene(RunFolder(work), 1 << 16)
    reports = []
    for view, photo in zip(dense.views, dense.images, strict=True):
        picture, covered = render_textured(mesh, view, samples=args.samples)
        reports.append(compare_view(picture, covered, photo))
        _save(place / f"used-{Path(view.name).stem}.png", photo, picture)
    levels = [report.psnr for report in reports]
    row = [
        scene,
        figures["faces"],
        figures["charts"],
        figures["texture"],
        f"{min(seconds):.1f}…{max(seconds):.1f} (CPU {min(cpu):.1f})",
        f"{max(peaks):.0f}",
        f"{np.mean(levels):.2f} ({min(levels):.1f}…{max(levels):.1f})",
        f"{np.mean([r.ssim for r in reports]):.3f}",
        f"{np.mean([r.coverage for r in reports]):.3f}",
        f"{figures['seam_step_before']} → {figures['seam_step']}",
        PEER.get(scene, ""),
    ]
    card = load_card(scene)
    folder = card.folder(data_root())
    truth = read_cameras_json(folder / card.layout["cameras"])
    ours = {view.name: view.cam_from_world for view in dense.views}
    known = {name: view.cam_from_world for name, view in truth.items()}
    to_truth = align_cameras(ours, known)
    left = []
    for name in sorted(set(truth) - set(ours)):
        view = replace(truth[name], cam_from_world=to_truth.inverse().camera(known[name]))
        photo = cv2.cvtColor(cv2.imread(str(folder / card.layout["images"] / name)), cv2.COLOR_BGR2RGB)
        working = dense.images[0].shape[1]
        if photo.shape[1] > working:
            photo = cv2.resize(
                photo,
                (working, round(photo.shape[0] * working / photo.shape[1])),
                interpolation=cv2.INTER_AREA,
            )
        view = view.resized(photo.shape[1], photo.shape[0])
        picture, covered = render_textured(mesh, view, samples=args.samples)
        report = compare_view(picture, covered, photo)
        left.append([scene, name, f"{report.psnr:.2f}", f"{report.ssim:.3f}", f"{report.coverage:.3f}"])
        _save(place / f"left-{Path(name).stem}.png", photo, picture)
    return row, left


def rendered_scenes(root: Path, args: argparse.Namespace) -> list[list]:
    """Rows of the third table."""
    size = (640, 480)
    scenes = [
        make_scene(name, size, coarseness=2.0)
        if name == "relief"
        else make_benchmark_scene(name, photos=9, size=size, coarseness=2.0)
        for name in (args.rendered or RENDERED)
    ]
    rows = []
    for scene in scenes:
        used = [i for i in range(len(scene.views)) if i % 4 != 2]
        left = [i for i in range(len(scene.views)) if i % 4 == 2]
        vertices, faces = simplify_faces(scene.mesh.vertices.astype(np.float64), scene.mesh.faces, 150_000)
        start = time.perf_counter()
        mesh, report = texture_mesh(
            vertices,
            faces,
            [scene.views[i] for i in used],
            [scene.images[i] for i in used],
            None,
            TextureOptions(),
        )
        seconds = time.perf_counter() - start
        figures = []
        for group in (used, left):
            reports = []
            for i in group:
                picture, covered = render_textured(mesh, scene.views[i], samples=args.samples, seen_only=True)
                reports.append(compare_view(picture, covered, scene.images[i]))
                if i == group[0]:
                    kind = "used" if group is used else "left"
                    _save(root / f"rendered-{scene.name}-{kind}.png", scene.images[i], picture)
            figures.append(reports)
        rows.append(
            [
                scene.name,
                len(faces),
                f"{seconds:.1f}",
                f"{np.mean([r.psnr for r in figures[0]]):.2f}",
                f"{np.mean([r.ssim for r in figures[0]]):.3f}",
                f"{np.mean([r.psnr for r in figures[1]]):.2f}",
                f"{np.mean([r.ssim for r in figures[1]]):.3f}",
                f"{np.mean([r.coverage for r in figures[1]]):.3f}",
                f"{report.seam_before:.1f} → {report.seam_after:.1f}",
            ]
        )
    return rows


def render_textured(
    mesh: TexturedMesh, view: PinholeView, samples: int, seen_only: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """A picture, and where at least half of a pixel's rays meet the mesh (``seen_only``: a face with a photo)."""
    centre = mesh.vertices.mean(axis=0)
    pose = view.cam_from_world.copy()
    pose[:, 3] += pose[:, :3] @ centre
    near = replace(view, cam_from_world=pose)
    vertex, uv, faces = split_vertices(mesh)
    vertices = mesh.vertices[vertex] - centre
    canvas = Canvas.blank(near, (0, 0, 0), samples)
    Surface(vertices, faces, uv=uv, texture=mesh.texture).draw(canvas, "texture")
    unseen = mesh.face_view < 0
    if seen_only and unseen.any():
        hide = Canvas.blank(near, (0, 0, 0), samples)
        Surface(vertices, faces[unseen]).draw(hide)
        behind = canvas.depth >= hide.depth
        canvas.color[behind], canvas.depth[behind] = 0, np.inf
    share = np.isfinite(canvas.depth).reshape(view.height, samples, view.width, samples).mean(axis=(1, 3))
    picture = canvas.picture() / np.maximum(share, 1e-6)[..., None]  # the mean of the rays that meet it
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8), share >= 0.5


def _save(path: Path, photo: np.ndarray, picture: np.ndarray) -> None:
    cv2.imwrite(str(path), np.concatenate([photo, picture], axis=1)[..., ::-1])


if __name__ == "__main__":
    main()
