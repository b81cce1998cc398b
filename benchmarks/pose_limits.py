"""What limits the accuracy of the camera poses: the noise of the matches, or the truth and its calibration?

    python benchmarks/pose_limits.py [--scenes Herz-Jesus-P8] [--keep FOLDER]

The scene is mapped once with known intrinsics; then its bundle adjustment is repeated under other conditions, and
the mean distance of the camera centres from the truth is printed for each:

- half of the points, twice (drawn at random): if noise of the matches made the error, it would grow by about 1.4;
- robust loss of another size, long tracks only, small residuals only, other intrinsics freed;
- for Herz-Jesus-P8 also photos of 1536 px: an error made by the localisation of points would fall by a third;
- one focal length instead of the two of the calibration, which differ by 0.2%;
- the residuals of the same observations at the true cameras: what the photos say about the truth.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pycolmap
from _common import data_root, machine, table

import recon.api
from recon.evaluation.poses import align_cameras, evaluate_poses
from recon.io.cameras_json import poses_from_cameras_json

SCENES = ("fountain-P11", "Herz-Jesus-P8", "entry-P10")


def adjust(
    model: pycolmap.Reconstruction,
    *,
    loss: float = 1.0,
    focal: bool = False,
    centre: bool = False,
    distortion: bool = False,
    fixed_cameras: bool = False,
) -> pycolmap.Reconstruction:
    """A copy of the model, adjusted."""
    model = pycolmap.Reconstruction(model)
    if distortion:
        for camera in model.cameras.values():
            params = camera.params
            camera.model = pycolmap.CameraModelId.OPENCV
            camera.params = np.concatenate([params, np.zeros(4)])
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.refine_focal_length, options.refine_principal_point = focal, centre
    options.refine_extra_params = distortion
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    options.ceres.loss_function_scale = loss
    options.ceres.solver_options.max_num_iterations = 300
    options.ceres.solver_options.function_tolerance = 1e-9
    config = pycolmap.BundleAdjustmentConfig()
    for number in model.reg_image_ids():
        config.add_image(number)
        if fixed_cameras:
            config.set_constant_rig_from_world_pose(model.images[number].frame_id)
    if not (focal or centre or distortion):
        for number in model.cameras:
            config.set_constant_cam_intrinsics(number)
    if not fixed_cameras:
        config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    pycolmap.create_default_bundle_adjuster(options, config, model).solve()
    model.update_point_3d_errors()
    return model


def only(
    model: pycolmap.Reconstruction, wanted: Callable[[pycolmap.Point3D], bool]
) -> pycolmap.Reconstruction:
    """A copy with the points that are wanted."""
    model = pycolmap.Reconstruction(model)
    for number in list(model.points3D):
        if not wanted(model.points3D[number]):
            model.delete_point3D(number)
    return model


def with_focal(model: pycolmap.Reconstruction, focal: float) -> pycolmap.Reconstruction:
    """A copy with this focal length both ways."""
    model = pycolmap.Reconstruction(model)
    for camera in model.cameras.values():
        camera.params = np.array([focal, focal, *camera.params[2:]])
    return model


def poses(model: pycolmap.Reconstruction) -> dict[str, np.ndarray]:
    return {
        model.images[number].name: model.images[number].cam_from_world().matrix()
        for number in model.reg_image_ids()
    }


def at_truth(model: pycolmap.Reconstruction, true: dict[str, np.ndarray]) -> pycolmap.Reconstruction:
    """The model with the cameras of the truth, its points fitted to them."""
    alignment = align_cameras(poses(model), true)
    model = pycolmap.Reconstruction(model)
    model.transform(
        pycolmap.Sim3d(alignment.scale, pycolmap.Rotation3d(alignment.rotation), alignment.translation)
    )
    for number in model.reg_image_ids():
        image = model.images[number]
        pose = true[image.name]
        model.frames[image.frame_id].set_cam_from_world(
            image.camera_id, pycolmap.Rigid3d(pycolmap.Rotation3d(pose[:, :3]), pose[:, 3])
        )
    return adjust(model, fixed_cameras=True)


def residual(model: pycolmap.Reconstruction) -> str:
    """Median and mean length of the residuals, pixels."""
    lengths = []
    for number in model.reg_image_ids():
        image = model.images[number]
        for point in image.points2D:
            if point.has_point3D():
                seen = image.project_point(model.points3D[point.point3D_id].xyz)
                if seen is not None:
                    lengths.append(float(np.linalg.norm(np.asarray(point.xy) - seen)))
    return f"{np.median(lengths):.3f} / {np.mean(lengths):.3f}"


def mapped(name: str, root: Path, suffix: str = "", size: int = 1024) -> pycolmap.Reconstruction:
    """The scene's model with known intrinsics."""
    folder = data_root() / "datasets" / "strecha" / name
    out = root / f"{name}{suffix}"
    recon.api.reconstruct(
        folder / f"images{suffix}",
        out,
        quality="normal",
        intrinsics=folder / f"cameras{suffix}.json",
        overrides=(f"photos.max_size={size}",),
        stop_after="map",
    )
    return pycolmap.Reconstruction(out / "sparse" / "0")


def study(name: str, root: Path) -> list[list[str]]:
    true = poses_from_cameras_json(data_root() / "datasets" / "strecha" / name / "cameras.json")
    model = mapped(name, root)
    rows = []

    def add(what: str, result: pycolmap.Reconstruction) -> None:
        report = evaluate_poses(poses(result), true)
        rows.append(
            [
                name,
                what,
                str(result.num_points3D()),
                f"{1000 * report.center_mean:.2f}",
                f"{1000 * report.center_max:.2f}",
                residual(result),
            ]
        )
        print(*rows[-1], sep="  ", flush=True)

    add("as mapped", model)
    rng = np.random.default_rng(0)
    first = {number for number in model.points3D if rng.random() < 0.5}
    errors = {number: point.error for number, point in model.points3D.items()}
    by_place = {tuple(point.xyz): number for number, point in model.points3D.items()}
    add("one half of the points", adjust(only(model, lambda p: by_place[tuple(p.xyz)] in first)))
    add("the other half", adjust(only(model, lambda p: by_place[tuple(p.xyz)] not in first)))
    add("tracks of 4 and more", adjust(only(model, lambda p: p.track.length() >= 4)))
    add("points below 0.1 px", adjust(only(model, lambda p: errors[by_place[tuple(p.xyz)]] < 0.1)))
    for loss in (0.1, 0.3, 3.0):
        add(f"loss {loss} px", adjust(model, loss=loss))
    fx, fy = next(iter(model.cameras.values())).params[:2]
    for what, focal in (
        ("fx for both", fx),
        ("mean of fx and fy for both", 0.5 * (fx + fy)),
        ("fy for both", fy),
    ):
        add(what, adjust(with_focal(model, focal)))
    add("focal lengths free", adjust(model, focal=True))
    add("principal point free", adjust(model, centre=True))
    add("distortion free", adjust(model, distortion=True))
    add("at the true cameras", at_truth(model, true))
    if (data_root() / "datasets" / "strecha" / name / "images_1536").is_dir():
        add("photos of 1536 px", mapped(name, root, "_1536", 1536))
    return rows


def main() -> None:
    """Run the chosen scenes and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=SCENES)
    parser.add_argument("--keep", type=Path, help="folder for the workspaces; resumed if they exist")
    options = parser.parse_args()
    pycolmap.logging.minloglevel = pycolmap.logging.Level.WARNING.value
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.scenes:
            rows += study(name, options.keep or Path(scratch))
    print(f"\nsiftflow, normal, seed 0; {machine()}\n")
    headers = ["scene", "adjusted with", "points", "mean mm", "largest mm", "residual px, median / mean"]
    print(table(rows, headers))


if __name__ == "__main__":
    main()
