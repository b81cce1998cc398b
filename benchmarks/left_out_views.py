"""Left-out photos predicted from the mesh: reconstruct without a photo, render the mesh from its camera, compare.

    python benchmarks/left_out_views.py [SCENE ...] [--views 2 5] [--quality normal] [--keep FOLDER]

Scenes are those with known cameras (fountain-P11, Herz-Jesus-P8, entry-P10, lund_door, templeSparseRing). The left-out
camera comes from the known poses, aligned by the other cameras' rotations and centres, so an error of the poses counts
too. Its exposure is fitted per channel. PSNR and SSIM are over the pixels that the reconstruction covers.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from _common import data_root, machine, table

from recon.api import reconstruct
from recon.core.mesh import mesh_from_open3d
from recon.datasets.cards import load_card
from recon.evaluation.poses import align_cameras, poses_from_colmap
from recon.evaluation.views import compare_view, predict_from_cloud, predict_from_mesh
from recon.io.cameras_json import read_cameras_json
from recon.io.surfaces import read_mesh, read_points_ply

DEFAULT = {"fountain-P11": (2, 5, 8), "Herz-Jesus-P8": (2, 5)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenes", nargs="*", default=list(DEFAULT))
    parser.add_argument(
        "--views", nargs="*", type=int, help="indexes of photos by name; left out one at a time"
    )
    parser.add_argument("--quality", default="normal")
    parser.add_argument("--recipe", default="siftflow")
    parser.add_argument("--keep", default="", help="folder for runs and pictures; a temporary one by default")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(args.keep or scratch)
        for name in args.scenes:
            card = load_card(name)
            folder = card.folder(data_root())
            truth = read_cameras_json(folder / card.layout["cameras"])
            names = sorted(truth)
            for index in args.views or DEFAULT.get(name, (len(names) // 2,)):
                rows += left_out(root, name, folder / card.layout["images"], truth, names[index], args)
    print(f"\nLeft-out photos, recipe {args.recipe}, quality {args.quality}, intrinsics known, one run each")
    print(f"{machine()}\n")
    print(table(rows, ["scene", "left out", "predicted from", "PSNR / dB", "SSIM", "coverage"]))


def left_out(root: Path, scene: str, images: Path, truth: dict, name: str, args: argparse.Namespace) -> list:
    """Rows of the table for one left-out photo."""
    photos, out = root / f"{scene}-without-{name}", root / f"{scene}-without-{name}-run"
    photos.mkdir(parents=True, exist_ok=True)
    for other in truth:
        if other != name and not (photos / other).exists():
            shutil.copy(images / other, photos / other)
    reconstruct(
        photos,
        out,
        recipe=args.recipe,
        quality=args.quality,
        overrides=args.overrides,
        intrinsics=images.parent / "cameras.json",
    )
    photo = cv2.cvtColor(cv2.imread(str(images / name)), cv2.COLOR_BGR2RGB)
    poses = poses_from_colmap(out / "sparse" / "0")
    known = {other: view.cam_from_world for other, view in truth.items()}
    truth_from_run = align_cameras(poses, known, by_rotations=True)
    # The known camera, moved into the run's world, scale included: pixels stay where they are.
    view = replace(truth[name], cam_from_world=truth_from_run.inverse().camera(known[name]))
    rows = []
    cloud = read_points_ply(out / "dense" / "points.ply")
    mesh = mesh_from_open3d(read_mesh(out / "mesh" / "mesh.ply"))
    for what, (picture, covered) in (
        ("mesh", predict_from_mesh(mesh, view)),
        ("points", predict_from_cloud(cloud.xyz, cloud.rgb, view)),
    ):
        report = compare_view(picture, covered, photo)
        rows.append([scene, name, what, f"{report.psnr:.2f}", f"{report.ssim:.3f}", f"{report.coverage:.3f}"])
        beside = np.concatenate([photo, picture], axis=1)[..., ::-1]
        cv2.imwrite(str(root / f"{scene}-{Path(name).stem}-{what}.png"), beside)
    return rows


if __name__ == "__main__":
    main()
