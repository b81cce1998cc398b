"""COLMAP's own pipeline on the scenes with surveyed cameras: what `pose_accuracy.py` is to be compared with.

    python benchmarks/colmap_baseline.py [--scenes Herz-Jesus-P8] [--seeds 0 1 2] [--mappers incremental global]

pycolmap's SIFT, exhaustive matching and mapping, all with their defaults; intrinsics known and fixed. Mean distance
of the camera centres from the truth after the similarity that fits best, over the seeds.

Other readings of "known": ``--focal mean`` gives one focal length, the mean of the calibration's two (which differ by
0.2%); ``--focal refined`` lets adjustments change the given ones; ``--half-pixel 0`` leaves out the step from the
pixels of cameras.json to COLMAP's.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import pycolmap
from _common import data_root, machine, table

from recon.evaluation.poses import evaluate_poses, poses_from_colmap
from recon.io.cameras_json import poses_from_cameras_json, read_cameras_json

SCENES = ("fountain-P11", "Herz-Jesus-P8", "entry-P10")
MAPPERS = ("incremental", "global")


def run(
    folder: Path, scratch: Path, seed: int, mapper: str, focal: str, half_pixel: float
) -> tuple[str, float, float]:
    """Registered photos, mean centre error in millimetres, seconds."""
    pycolmap.set_random_seed(seed)
    K = next(iter(read_cameras_json(folder / "cameras.json").values())).K
    options = pycolmap.ImageReaderOptions()
    options.camera_model = "PINHOLE"
    # COLMAP counts pixels from the corner of the first one, cameras.json from its centre.
    fx, fy = (K[0, 0], K[1, 1]) if focal != "mean" else (0.5 * (K[0, 0] + K[1, 1]),) * 2
    options.camera_params = f"{fx},{fy},{K[0, 2] + half_pixel},{K[1, 2] + half_pixel}"
    begin = time.perf_counter()
    database = scratch / "database.db"
    pycolmap.extract_features(
        database, folder / "images", camera_mode=pycolmap.CameraMode.SINGLE, reader_options=options
    )
    pycolmap.match_exhaustive(database)
    photos, models = folder / "images", scratch / "models"
    if mapper == "incremental":
        incremental = pycolmap.IncrementalPipelineOptions()
        incremental.ba_refine_focal_length = focal == "refined"
        incremental.ba_refine_principal_point = False
        incremental.ba_refine_extra_params = False
        incremental.random_seed = seed
        found = pycolmap.incremental_mapping(database, photos, models, incremental)
    else:
        whole = pycolmap.GlobalPipelineOptions()
        whole.mapper.bundle_adjustment.refine_focal_length = focal == "refined"
        whole.mapper.bundle_adjustment.refine_principal_point = False
        whole.mapper.bundle_adjustment.refine_extra_params = False
        whole.random_seed = seed
        found = pycolmap.global_mapping(database, photos, models, whole)
    seconds = time.perf_counter() - begin
    best = max(found.values(), key=lambda model: model.num_reg_images())
    (scratch / "best").mkdir()
    best.write(scratch / "best")
    report = evaluate_poses(
        poses_from_colmap(scratch / "best"), poses_from_cameras_json(folder / "cameras.json")
    )
    return f"{report.registered}/{report.total}", 1000 * report.center_mean, seconds


def main() -> None:
    """Run the chosen scenes and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=SCENES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--mappers", nargs="+", choices=MAPPERS, default=MAPPERS)
    parser.add_argument("--focal", choices=("given", "mean", "refined"), default="given")
    parser.add_argument("--half-pixel", type=float, default=0.5)
    options = parser.parse_args()
    pycolmap.logging.minloglevel = pycolmap.logging.Level.WARNING.value
    rows = []
    for name in options.scenes:
        for mapper in options.mappers:
            results = []
            for seed in options.seeds:
                with tempfile.TemporaryDirectory() as scratch:
                    folder = data_root() / "datasets" / "strecha" / name
                    results.append(
                        run(folder, Path(scratch), seed, mapper, options.focal, options.half_pixel)
                    )
            errors = [error for _, error, _ in results]
            registered = " ".join(sorted({counts for counts, _, _ in results}))
            spread = [f"{value:.2f}" for value in (min(errors), statistics.median(errors), max(errors))]
            rows.append([name, mapper, registered, *spread, f"{max(one[2] for one in results):.0f}"])
    print(
        f"pycolmap {pycolmap.__version__}, seeds {options.seeds}, focal lengths {options.focal}; {machine()}\n"
    )
    headers = ["scene", "mapper", "registered", "mean mm: min", "median", "max", "s at most"]
    print(table(rows, headers))


if __name__ == "__main__":
    main()
