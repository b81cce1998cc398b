"""How long and how much memory it takes to judge a million points against a million points of truth.

    python benchmarks/surface_evaluation.py [--points 1000000] [--views 12] [--repeats 3]

The truth is a scan of a rendered facade, the estimate another one with noise, gaps and floaters. Judged without cameras
(every point counts), with cameras (only what they and the truth can tell), and from files by the command line, start of
the program included. Each runs in a process of its own; memory is the process's peak.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _common import machine, table

CASES = ("no cameras", "with cameras", "thinned, with cameras", "command line")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--views", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", nargs=2, metavar=("CASE", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(run_case(args.child[0], Path(args.child[1]))))
        return
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        make_files(Path(scratch), args.points, args.views)
        for case in CASES:
            found = []
            for _ in range(args.repeats):
                command = [sys.executable, __file__, "--child", case, scratch]
                answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                found.append(json.loads(answer.splitlines()[-1]))
            seconds = sorted(one["seconds"] for one in found)
            cpu = sorted(one["cpu_seconds"] for one in found)
            memory = max(one["peak_gb"] for one in found)
            row = [case, *(f"{s:.1f}" for s in (seconds[0], seconds[len(seconds) // 2], seconds[-1]))]
            rows.append([*row, f"{cpu[0]:.1f}", f"{memory:.2f}", f"{found[0]['f']:.4f}"])
    print(
        f"\n{args.points} points against {args.points} points, {args.views} views, {args.repeats} runs each"
    )
    print(f"{machine()}\n")
    print(table(rows, ["judged", "s min", "s median", "s max", "CPU s min", "peak GB", "F at 20 mm"]))


def make_files(folder: Path, points: int, views: int) -> None:
    """Scans of a facade eight metres wide, as PLY and as arrays, and cameras before it."""
    from recon.evaluation.surface import sample_mesh
    from recon.synthetic.paths import arc_path, pinhole_views
    from recon.synthetic.reliefs import facade_height
    from recon.synthetic.shapes import height_field_mesh

    mesh = height_field_mesh(facade_height(0), (-4.0, 4.0), (0.0, 5.0), 0.02)
    truth = sample_mesh(mesh, points, seed=1)
    rng = np.random.default_rng(2)
    estimate = sample_mesh(mesh, points, seed=3)
    # A reconstruction covers not all of the scan, is noisy, and has floaters before the surface.
    keep = np.flatnonzero(~((estimate[:, 0] > 1.0) & (estimate[:, 2] > 3.0)))
    estimate = estimate[rng.choice(keep, points)]
    estimate += rng.normal(scale=0.008, size=estimate.shape).astype(np.float32)
    floating = rng.random(points) < 0.02
    estimate[floating, 1] -= rng.uniform(0.1, 2.0, floating.sum()).astype(np.float32)
    np.savez(folder / "clouds.npz", truth=truth, estimate=estimate)
    for name, cloud in (("truth", truth), ("estimate", estimate)):
        header = f"ply\nformat binary_little_endian 1.0\nelement vertex {points}\n"
        header += "".join(f"property float {axis}\n" for axis in "xyz") + "end_header\n"
        (folder / f"{name}.ply").write_bytes(header.encode() + cloud.astype("<f4").tobytes())
    poses = arc_path(views, (0.0, 0.0, 2.5), 6.0, 70.0, 2.0)
    images = [
        {
            "name": view.name, "width": view.width, "height": view.height, "fx": view.K[0, 0], "fy": view.K[1, 1],
            "cx": view.K[0, 2], "cy": view.K[1, 2], "R": view.cam_from_world[:, :3].tolist(),
            "t": view.cam_from_world[:, 3].tolist(),
        }
        for view in pinhole_views(poses, 1024, 768, 70.0)
    ]  # fmt: skip
    (folder / "cameras.json").write_text(json.dumps({"world_unit": "metre", "images": images}))


def run_case(case: str, folder: Path) -> dict[str, float]:
    """Time one case in this process."""
    if case == "command line":
        start = time.perf_counter()
        command = [sys.executable, "-m", "recon.cli", "evaluate", "surface", str(folder / "estimate.ply")]
        command += ["--truth", str(folder / "truth.ply"), "--views", str(folder / "cameras.json")]
        out = folder / "report.json"
        command += ["--thresholds", "0.01,0.02,0.05", "--json", str(out)]
        subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).resolve().parent.parent)
        seconds = time.perf_counter() - start
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        metrics = json.loads(out.read_text())["metrics"]
        score = next(metrics[name] for name in metrics if name in {"points.f_20mm", "points.f_0.02u"})
    else:
        from recon.evaluation.surface import SurfaceProtocol, evaluate_surface
        from recon.io.cameras_json import read_cameras_json

        with np.load(folder / "clouds.npz") as data:
            truth, estimate = data["truth"], data["estimate"]
        views = [] if case == "no cameras" else list(read_cameras_json(folder / "cameras.json").values())
        start = time.perf_counter()
        voxel = 0.005 if "thinned" in case else None
        report = evaluate_surface(
            estimate, truth, views, (0.01, 0.02, 0.05), protocol=SurfaceProtocol(voxel=voxel)
        )
        seconds = time.perf_counter() - start
        used = resource.getrusage(resource.RUSAGE_SELF)
        score = report.f_score[1]
    return {
        "seconds": seconds,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_gb": used.ru_maxrss * 1024 / 1e9,
        "f": score,
    }


if __name__ == "__main__":
    main()
