"""This code beside another commit's on the same photos: time, memory and errors, stage by stage.

    python benchmarks/against.py REV [--scene fountain-P11 | relief | ...] [--quality normal] [--other-quality normal]

REV is a commit (checked out for the time being) or the folder of a checkout. Scenes are those with known cameras
(fountain-P11, Herz-Jesus-P8, ...; intrinsics known) or rendered ones (relief, zoom, object, demo; these have a true
surface). Both codes run in processes of their own, one after the other. Each begins with an empty cache of kernels, so
what compiling costs is known: processor seconds of the threads that compile, a row of its own, contained in the
stages' figures. One run each; ratios are this code's part of the other's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _common import data_root, machine, table

from recon.datasets.cards import load_card
from recon.evaluation.poses import evaluate_poses, poses_from_colmap
from recon.evaluation.scene import judge_scene
from recon.io.cameras_json import poses_from_cameras_json
from recon.synthetic.files import write_scene
from recon.synthetic.presets import make_scene

RENDERED = ("relief", "zoom", "object", "demo")
THRESHOLDS = (0.005, 0.01, 0.02)
HERE = Path(__file__).resolve().parent.parent

# Runs the command line of whichever code is on the path and writes down what compiling kernels took.
_DRIVER = """
import json, os, sys, threading, time
from numba.core import event
depth, spent = threading.local(), {}
class Listener(event.Listener):
    def on_start(self, e):
        depth.n = getattr(depth, "n", 0) + 1
        if depth.n == 1:
            depth.begin = time.thread_time()
    def on_end(self, e):
        depth.n -= 1
        if depth.n == 0:
            name = e.data["dispatcher"].py_func.__qualname__
            spent[name] = spent.get(name, 0.0) + time.thread_time() - depth.begin
from recon.cli import main
out = sys.argv.pop(1)
with event.install_listener("numba:compile", Listener()):
    try:
        code = main(sys.argv[1:])
    except SystemExit as end:
        code = end.code
if os.path.exists(out):
    for name, seconds in json.load(open(out)).items():
        spent[name] = spent.get(name, 0.0) + seconds
with open(out, "w") as stream:
    json.dump(spent, stream)
sys.exit(code or 0)
"""


@dataclass(frozen=True)
class Run:
    """What one code did: figures of each stage by name, seconds of each kernel's compilation, and the workspace."""

    stages: dict[str, dict[str, Any]]
    compiled: dict[str, float]
    folder: Path

    @classmethod
    def read(cls, folder: Path) -> Run:
        """The run in ``folder``."""
        stages = json.loads((folder / "manifest.json").read_text())["stages"]
        return cls(stages, json.loads(folder.with_suffix(".compiled.json").read_text()), folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rev", help="a commit, or the folder of a checkout")
    parser.add_argument("--scene", default="fountain-P11")
    parser.add_argument("--size", default="", help="of rendered photos, as 640x480")
    parser.add_argument("--quality", default="normal")
    parser.add_argument("--other-quality", default="", help="of the other code; the same by default")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--stop-after", default="", metavar="STAGE")
    parser.add_argument(
        "--keep", default="", help="folder for scene and runs; runs found there are gone on with"
    )
    parser.add_argument(
        "--only", choices=("", "other", "this"), default="", help="run one code, compare nothing"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(args.keep or scratch).resolve()
        root.mkdir(parents=True, exist_ok=True)
        images, cameras, truth = scene_folder(args.scene, args.size, root)
        if args.only != "this":
            with checkout(args.rev, root) as tree:
                run(tree, root / "other", images, cameras, args.other_quality or args.quality, [], args)
        if args.only != "other":
            run(HERE, root / "this", images, cameras, args.quality, args.overrides, args)
        if args.only:
            return
        other, mine = (Run.read(root / name) for name in ("other", "this"))
        print(
            f"\n{args.scene}, {args.quality}, intrinsics known, {args.threads} threads, one run each; {machine()}"
        )
        print(f"other: {args.rev}, {args.other_quality or args.quality}\n")
        print(cost_table(other, mine), end="\n\n")
        print(quality_table(other, mine, cameras, truth))


def scene_folder(name: str, size: str, root: Path) -> tuple[Path, Path, Path | None]:
    """Folder of the photos, their cameras, and the scene's folder where it has a true surface."""
    if name not in RENDERED:
        card = load_card(name)
        folder = card.folder(data_root())
        return folder / card.layout["images"], folder / card.layout["cameras"], None
    folder = root / name
    if not (folder / "truth" / "mesh.ply").is_file():
        width, _, height = size.partition("x")
        write_scene(make_scene(name, (int(width), int(height)) if size else None), folder)
    return folder / "images", folder / "cameras.json", folder


@contextmanager
def checkout(rev: str, root: Path) -> Iterator[Path]:
    """The folder of a commit's code; a worktree that goes again, unless a folder is given."""
    if Path(rev).is_dir():
        yield Path(rev).resolve()
        return
    tree = root / "worktree"
    subprocess.run(["git", "worktree", "add", "--detach", str(tree), rev], cwd=HERE, check=True)
    try:
        yield tree
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=HERE, check=True)


def run(
    tree: Path,
    out: Path,
    images: Path,
    cameras: Path,
    quality: str,
    overrides: list[str],
    args: argparse.Namespace,
) -> None:
    """Reconstruct with the code in ``tree``, in a process of its own with an empty cache of kernels."""
    command = [sys.executable, "-c", _DRIVER, str(out.with_suffix(".compiled.json"))]
    command += ["reconstruct", str(images), "--out", str(out), "--intrinsics", str(cameras)]
    command += ["--quality", quality, "--threads", str(args.threads)]
    command += [word for one in overrides for word in ("--set", one)]
    command += ["--stop-after", args.stop_after] if args.stop_after else []
    with tempfile.TemporaryDirectory() as cache:
        env = {**os.environ, "PYTHONPATH": str(tree), "NUMBA_CACHE_DIR": cache}
        subprocess.run(command, cwd=tree, env=env, check=True)


def cost_table(other: Run, mine: Run) -> str:
    """Wall seconds, processor seconds and memory of every stage."""
    names = [name for name in mine.stages if name in other.stages]
    rows = []
    for name in names:
        a, b = other.stages[name], mine.stages[name]
        wall, cpu, memory = ((a[k], b[k]) for k in ("seconds", "cpu_seconds", "peak_memory_mb"))
        rows.append([name, *_pair(*wall), *_pair(*cpu), *_pair(*memory), _counts(b)])
    totals = [[sum(r.stages[n][k] for n in names) for r in (other, mine)] for k in ("seconds", "cpu_seconds")]
    peaks = [max(r.stages[n]["peak_memory_mb"] for n in names) for r in (other, mine)]
    rows.append(["in all", *_pair(*totals[0]), *_pair(*totals[1]), *_pair(*peaks), ""])
    compiling = [sum(r.compiled.values()) for r in (other, mine)]
    slowest = sorted(mine.compiled.items(), key=lambda one: -one[1])[:3]
    note = f"{len(mine.compiled)} kernels; " + ", ".join(f"{n} {s:.1f}" for n, s in slowest)
    rows.append(["compiling, of it", "", "", "", *_pair(*compiling), "", "", "", note])
    headers = [
        "stage",
        "wall s, other",
        "this",
        "ratio",
        "CPU s, other",
        "this",
        "ratio",
        "MB, other",
        "this",
        "ratio",
    ]
    return table(rows, [*headers, "this code's counts"])


def _pair(a: float, b: float) -> tuple[str, str, str]:
    return f"{a:.1f}", f"{b:.1f}", f"{b / a:.2f}" if a > 0.05 else "-"


def _counts(stage: dict[str, Any]) -> str:
    plain = {k: v for k, v in stage["counts"].items() if isinstance(v, int | float)}
    return ", ".join(f"{k} {v:.4g}" for k, v in list(plain.items())[:3])


def quality_table(other: Run, mine: Run, cameras: Path, truth: Path | None) -> str:
    """Errors of the cameras, and of points and mesh where the surface is known."""
    rows = []
    for label, one in (("other", other), ("this", mine)):
        if truth is not None:
            report = judge_scene(truth, one.folder, THRESHOLDS)
            poses, surfaces = report.poses, (("points", report.cloud), ("mesh", report.mesh))
        else:
            known = poses_from_cameras_json(cameras)
            poses, surfaces = evaluate_poses(poses_from_colmap(one.folder / "sparse" / "0"), known), ()
        centres = f"{1000 * poses.center_mean:.2f} mm"
        rows.append([label, "cameras", f"{poses.registered}/{poses.total}", centres, "", ""])
        for kind, surface in surfaces:
            if surface is not None:
                rows.append([label, kind, "F", *(f"{f:.3f}" for f in surface.f_score)])
    return table(rows, ["code", "what", "", *(f"{1000 * t:g} mm" for t in THRESHOLDS)])


if __name__ == "__main__":
    main()
