"""COLMAP's own pipeline on the real scenes with a truth: what `pose_accuracy.py` is to be compared with.

    python benchmarks/colmap_baseline.py [--scenes Herz-Jesus-P8] [--intrinsics known] [--seeds 0 1 2]

pycolmap's SIFT, exhaustive matching and mapping, all with their defaults. Intrinsics known (PINHOLE, fixed), or not:
then one camera of COLMAP's default model, its focal length from EXIF or COLMAP's guess. Mean distance of the camera
centres from the truth after the similarity that fits best, over the seeds.

Other readings of "known": ``--focal mean`` gives one focal length, the mean of the calibration's two (which differ by
0.2%); ``--focal refined`` lets adjustments change the given ones; ``--half-pixel 0`` leaves out the step from the
pixels of cameras.json to COLMAP's.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from pathlib import Path

import pycolmap
from _common import data_root, machine, table
from pose_accuracy import SCENES, Scene

from recon.evaluation.poses import evaluate_poses, poses_from_colmap
from recon.io.cameras_json import poses_from_cameras_json, read_cameras_json

MAPPERS = ("incremental", "global")


def reader(folder: Path, focal: str, half_pixel: float) -> pycolmap.ImageReaderOptions:
    """How COLMAP is told of known intrinsics."""
    K = next(iter(read_cameras_json(folder / "cameras.json").values())).K
    options = pycolmap.ImageReaderOptions()
    options.camera_model = "PINHOLE"
    # COLMAP counts pixels from the corner of the first one, cameras.json from its centre.
    fx, fy = (K[0, 0], K[1, 1]) if focal != "mean" else (0.5 * (K[0, 0] + K[1, 1]),) * 2
    options.camera_params = f"{fx},{fy},{K[0, 2] + half_pixel},{K[1, 2] + half_pixel}"
    return options


def run(
    scene: Scene, known: bool, scratch: Path, seed: int, mapper: str, focal: str, half_pixel: float
) -> tuple[str, float, float]:
    """Registered photos, mean centre error in the scene's unit, seconds; no error where there is no model."""
    folder = data_root() / "datasets" / scene.folder
    pycolmap.set_random_seed(seed)
    options = reader(folder, focal, half_pixel) if known else pycolmap.ImageReaderOptions()
    free = not known
    begin = time.perf_counter()
    database = scratch / "database.db"
    pycolmap.extract_features(
        database, folder / "images", camera_mode=pycolmap.CameraMode.SINGLE, reader_options=options
    )
    pycolmap.match_exhaustive(database)
    photos, models = folder / "images", scratch / "models"
    if mapper == "incremental":
        incremental = pycolmap.IncrementalPipelineOptions()
        incremental.ba_refine_focal_length = free or focal == "refined"
        incremental.ba_refine_principal_point = False
        incremental.ba_refine_extra_params = free
        incremental.random_seed = seed
        found = pycolmap.incremental_mapping(database, photos, models, incremental)
    else:
        whole = pycolmap.GlobalPipelineOptions()
        whole.mapper.bundle_adjustment.refine_focal_length = free or focal == "refined"
        whole.mapper.bundle_adjustment.refine_principal_point = False
        whole.mapper.bundle_adjustment.refine_extra_params = free
        whole.random_seed = seed
        found = pycolmap.global_mapping(database, photos, models, whole)
    seconds = time.perf_counter() - begin
    total = len(list(photos.iterdir()))
    if not found:
        return f"0/{total}", math.inf, seconds
    best = max(found.values(), key=lambda model: model.num_reg_images())
    (scratch / "best").mkdir()
    best.write(scratch / "best")
    report = evaluate_poses(
        poses_from_colmap(scratch / "best"), poses_from_cameras_json(folder / "cameras.json")
    )
    return f"{report.registered}/{report.total}", scene.unit[1] * report.center_mean, seconds


def main() -> None:
    """Run the chosen scenes and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    scenes = {name: scene for name, scene in SCENES.items() if scene.has_truth}
    parser.add_argument("--scenes", nargs="+", choices=list(scenes), default=list(scenes))
    parser.add_argument("--intrinsics", choices=["known", "unknown", "both"], default="both")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--mappers", nargs="+", choices=MAPPERS, default=MAPPERS)
    parser.add_argument("--focal", choices=("given", "mean", "refined"), default="given")
    parser.add_argument("--half-pixel", type=float, default=0.5)
    options = parser.parse_args()
    pycolmap.logging.minloglevel = pycolmap.logging.Level.WARNING.value
    rows = []
    for name in options.scenes:
        scene = scenes[name]
        for mode in ("known", "unknown"):
            if options.intrinsics not in (mode, "both") or (mode == "known" and not scene.calibrated):
                continue
            for mapper in options.mappers:
                results = []
                for seed in options.seeds:
                    with tempfile.TemporaryDirectory() as scratch:
                        results.append(
                            run(
                                scene,
                                mode == "known",
                                Path(scratch),
                                seed,
                                mapper,
                                options.focal,
                                options.half_pixel,
                            )
                        )
                errors = [error for _, error, _ in results]
                registered = " ".join(sorted({counts for counts, _, _ in results}))
                spread = [f"{value:.3g}" for value in (min(errors), statistics.median(errors), max(errors))]
                seconds = f"{max(one[2] for one in results):.0f}"
                rows.append([name, mode, mapper, registered, *spread, scene.unit[0], seconds])
                print(*rows[-1], flush=True)
    print(
        f"pycolmap {pycolmap.__version__}, seeds {options.seeds}, focal lengths {options.focal}; {machine()}\n"
    )
    headers = [
        "scene",
        "intrinsics",
        "mapper",
        "registered",
        "mean error: min",
        "median",
        "max",
        "unit",
        "s at most",
    ]
    print(table(rows, headers))


if __name__ == "__main__":
    main()
