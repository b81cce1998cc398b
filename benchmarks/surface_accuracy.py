"""Surface accuracy on rendered scenes with exact truth: photos to mesh, judged where the photos could tell.

    python benchmarks/surface_accuracy.py [SCENE ...] [--quality normal] [--size 800x600] [--keep FOLDER]

Scenes: relief, zoom (camera distances differ by a factor of 2.6), object. Each is rendered, reconstructed with known
intrinsics, aligned to the truth by the camera centres alone, and compared with the true mesh. A run is made once:
the figures have no spread over repetitions (same seed, same result up to tracks).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from _common import machine, table

from recon.api import reconstruct
from recon.evaluation.scene import judge_scene
from recon.synthetic.files import write_scene
from recon.synthetic.presets import make_scene

THRESHOLDS = (0.005, 0.01, 0.02, 0.05)
SCENES = ("relief", "zoom", "object")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenes", nargs="*", default=SCENES, help=f"of {', '.join(SCENES)}; all by default")
    parser.add_argument("--quality", default="normal")
    parser.add_argument("--recipe", default="siftflow")
    parser.add_argument("--size", default="", help="of the photos, as 800x600")
    parser.add_argument("--keep", default="", help="folder for scenes and runs; a temporary one by default")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    args = parser.parse_args()
    size = tuple(int(v) for v in args.size.split("x")) if args.size else None
    rows, cameras = [], []
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(args.keep or scratch)
        for name in args.scenes:
            folder, out = root / name, root / f"{name}-{args.recipe}-{args.quality}"
            if not (folder / "truth" / "mesh.ply").is_file():
                write_scene(make_scene(name, size), folder)
            start = time.perf_counter()
            reconstruct(
                folder / "images",
                out,
                recipe=args.recipe,
                quality=args.quality,
                overrides=args.overrides,
                intrinsics=folder / "cameras.json",
            )
            seconds = time.perf_counter() - start
            report = judge_scene(folder, out, THRESHOLDS)
            poses = report.poses
            cameras.append(
                [name, f"{poses.registered}/{poses.total}", 1000 * poses.center_mean, 1000 * poses.center_max,
                 poses.rotation_mean, seconds]
            )  # fmt: skip
            for kind, surface in (("points", report.cloud), ("mesh", report.mesh)):
                if surface is None:
                    continue
                for i, limit in enumerate(surface.thresholds):
                    rows.append(
                        [name, kind, f"{1000 * limit:g} mm", f"{surface.precision[i]:.3f}",
                         f"{surface.recall[i]:.3f}", f"{surface.f_score[i]:.3f}",
                         f"{1000 * surface.accuracy[1]:.1f} mm", f"{1000 * surface.completeness[1]:.1f} mm"]
                    )  # fmt: skip
    print(f"\nRendered scenes, recipe {args.recipe}, quality {args.quality}, intrinsics known, one run each")
    print(f"{machine()}\n")
    headers = ["scene", "placed", "centre mean / mm", "worst / mm", "rotation / deg", "seconds"]
    print(table(cameras, headers), end="\n\n")
    headers = ["scene", "what", "within", "precision", "recall", "F", "median to truth", "median from truth"]
    print(table(rows, headers))


if __name__ == "__main__":
    main()
