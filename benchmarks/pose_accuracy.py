"""Accuracy of camera poses on real photos: mean and largest centre error against the truth, photos registered.

    python benchmarks/pose_accuracy.py                      # every scene; intrinsics known, and not
    python benchmarks/pose_accuracy.py --scenes fountain-P11 --seeds 0 1 2
    python benchmarks/pose_accuracy.py --recipe sift        # the same photos through another recipe

Photos go in as they are (at most 1024 px on the longer side); the model is read from OUT/sparse/0 as it was
written. Errors are distances of camera centres after the similarity that fits them best, in millimetres where
the truth is in metres. With --keep, workspaces stay and are resumed: only mapping runs again for another
seed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from _common import data_root, machine, table

import recon.api
from recon.errors import ReconError
from recon.evaluation.poses import evaluate_poses, poses_from_colmap
from recon.io.cameras_json import poses_from_cameras_json


@dataclass(frozen=True)
class Scene:
    """A folder of photos with or without known cameras.

    Attributes:
        folder: below datasets/.
        unit: what a length of the truth is called, and how many of them one unit of the truth holds.
        known_target: mean centre error of SIFT and COLMAP with known intrinsics, in that unit.
        calibrated: the truth's intrinsics are good enough to be given as known.
        has_truth: its cameras are known.
    """

    folder: str
    unit: tuple[str, float] = ("mm", 1000.0)
    known_target: float | None = None
    calibrated: bool = True
    has_truth: bool = True


SCENES = {
    "fountain-P11": Scene("strecha/fountain-P11", known_target=2.4),
    "Herz-Jesus-P8": Scene("strecha/Herz-Jesus-P8", known_target=3.0),
    "entry-P10": Scene("strecha/entry-P10", known_target=5.9),
    # The truth of lund_door is another reconstruction, without metric scale.
    "lund_door": Scene("pose_small/lund_door", unit=("units", 1.0), calibrated=False),
    # Three frames of a film, 0.2 units from first to last, the barn about 4 units away.
    "tnt_barn3": Scene("pose_small/tnt_barn3", unit=("units", 1.0)),
    "templeSparseRing": Scene("middlebury_mvs/templeSparseRing"),
    "sceaux_castle": Scene("unposed/sceaux_castle", calibrated=False, has_truth=False),
    "sacre_coeur": Scene("internet/sacre_coeur", calibrated=False, has_truth=False),
}


def run(scene: Scene, known: bool, seed: int, recipe: str, out: Path) -> tuple[str, str, str, str, float]:
    """Registered photos, mean and largest error, mean reprojection error, seconds."""
    import pycolmap

    folder = data_root() / "datasets" / scene.folder
    truth_file = folder / "cameras.json"
    photos = len(list((folder / "images").iterdir()))
    start = time.perf_counter()
    try:
        recon.api.reconstruct(
            folder / "images",
            out,
            recipe=recipe,
            quality="normal",
            intrinsics=truth_file if known else None,
            stop_after="map",
            seed=seed,
        )
    except ReconError as error:
        return f"0/{photos}", "-", "-", str(error).split(":")[0], time.perf_counter() - start
    seconds = time.perf_counter() - start
    model = pycolmap.Reconstruction(out / "sparse" / "0")
    registered = f"{model.num_reg_images()}/{photos}"
    reprojection = f"{model.compute_mean_reprojection_error():.3f}"
    if not truth_file.exists():
        return registered, "no truth", "", reprojection, seconds
    report = evaluate_poses(poses_from_colmap(out / "sparse" / "0"), poses_from_cameras_json(truth_file))
    name, factor = scene.unit
    errors = report.center_errors * factor
    return registered, f"{errors.mean():.3g} {name}", f"{errors.max():.3g} {name}", reprojection, seconds


def main() -> None:
    """Run the chosen scenes and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", nargs="+", choices=list(SCENES), default=list(SCENES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--recipe", default="siftflow")
    parser.add_argument("--intrinsics", choices=["known", "unknown", "both"], default="both")
    parser.add_argument("--keep", type=Path, help="folder for the workspaces; resumed if they exist")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        root = options.keep or Path(scratch)
        for name in options.scenes:
            scene = SCENES[name]
            modes = [mode for mode in ("known", "unknown") if options.intrinsics in (mode, "both")]
            for mode in modes:
                if mode == "known" and not scene.calibrated:
                    continue
                for seed in options.seeds:
                    out = root / f"{name}-{mode}-{options.recipe}-{seed}"
                    registered, mean, largest, reprojection, seconds = run(
                        scene, mode == "known", seed, options.recipe, out
                    )
                    target = f"{scene.known_target} mm" if mode == "known" and scene.known_target else ""
                    rows.append(
                        [name, mode, seed, registered, mean, largest, target, reprojection, f"{seconds:.0f}"]
                    )
                    print(*rows[-1], flush=True)
    print(f"\nrecipe {options.recipe}, quality normal; {machine()}\n")
    headers = [
        "scene", "intrinsics", "seed", "registered", "mean error", "largest", "SIFT + COLMAP", "reprojection px", "s",
    ]  # fmt: skip
    print(table(rows, headers))


if __name__ == "__main__":
    main()
