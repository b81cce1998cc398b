"""COLMAP's own pipeline on the scenes with surveyed cameras: what `pose_accuracy.py` is to be compared with.

    python benchmarks/colmap_baseline.py [--scenes Herz-Jesus-P8]

pycolmap's SIFT, exhaustive matching and incremental mapping, all with their defaults; intrinsics known and fixed.
Mean and largest distance of the camera centres from the truth after the similarity that fits best.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import pycolmap
from _common import data_root, machine, table

from recon.evaluation.poses import (
    evaluate_poses,
    poses_from_cameras_json,
    poses_from_colmap,
    views_from_cameras_json,
)

SCENES = ("fountain-P11", "Herz-Jesus-P8", "entry-P10")


def run(folder: Path, scratch: Path) -> tuple[str, str, str, str]:
    """Registered photos, mean and largest error in millimetres, seconds."""
    K = next(iter(views_from_cameras_json(folder / "cameras.json").values())).K
    options = pycolmap.ImageReaderOptions()
    options.camera_model = "PINHOLE"
    # COLMAP counts pixels from the corner of the first one, cameras.json from its centre.
    options.camera_params = f"{K[0, 0]},{K[1, 1]},{K[0, 2] + 0.5},{K[1, 2] + 0.5}"
    begin = time.perf_counter()
    database = scratch / "database.db"
    pycolmap.extract_features(
        database, folder / "images", camera_mode=pycolmap.CameraMode.SINGLE, reader_options=options
    )
    pycolmap.match_exhaustive(database)
    mapping = pycolmap.IncrementalPipelineOptions()
    mapping.ba_refine_focal_length = mapping.ba_refine_principal_point = mapping.ba_refine_extra_params = (
        False
    )
    models = pycolmap.incremental_mapping(database, folder / "images", scratch / "models", mapping)
    seconds = time.perf_counter() - begin
    best = max(models.values(), key=lambda model: model.num_reg_images())
    (scratch / "best").mkdir()
    best.write(scratch / "best")
    report = evaluate_poses(
        poses_from_colmap(scratch / "best"), poses_from_cameras_json(folder / "cameras.json")
    )
    return (
        f"{report.registered}/{report.total}",
        f"{1000 * report.center_mean:.2f}",
        f"{1000 * report.center_max:.2f}",
        f"{seconds:.0f}",
    )


def main() -> None:
    """Run the chosen scenes and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=SCENES)
    options = parser.parse_args()
    pycolmap.logging.minloglevel = pycolmap.logging.Level.WARNING.value
    rows = []
    for name in options.scenes:
        with tempfile.TemporaryDirectory() as scratch:
            rows.append([name, *run(data_root() / "datasets" / "strecha" / name, Path(scratch))])
    print(f"pycolmap {pycolmap.__version__}, one run each; {machine()}\n")
    print(table(rows, ["scene", "registered", "mean mm", "largest mm", "s"]))


if __name__ == "__main__":
    main()
