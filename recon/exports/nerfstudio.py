"""nerfstudio's ``transforms.json``.

Source: docs.nerf.studio, "Data conventions". Camera axes are OpenGL's (x right, y up, z backwards); pixels are
COLMAP's (the ray of the top-left pixel goes through (0.5, 0.5)). ``transform_matrix`` is world-from-camera. The
world stays as it is: no ``applied_transform`` is written, so the points and the cameras share one frame.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from recon.core.cameras import Intrinsics
from recon.core.colmap import HALF_PIXEL
from recon.core.mesh import PointCloud
from recon.exports.clouds import to_ply
from recon.exports.export import Export, Format
from recon.exports.files import Imported, first_file, read_json, write_json
from recon.exports.scene import Scene, SceneView, scene_of_views

FILE = "transforms.json"

OPENGL_FROM_CAMERA = np.diag([1.0, -1.0, -1.0])

# Where each parameter of COLMAP's models stands in nerfstudio's polynomial, in COLMAP's order after the
# principal point. Its OPENCV model is 1 + k1 r2 + k2 r4 + k3 r6 + k4 r8 with p1, p2.
_DISTORTION: dict[str, tuple[str, tuple[str, ...]]] = {
    "SIMPLE_PINHOLE": ("OPENCV", ()),
    "PINHOLE": ("OPENCV", ()),
    "SIMPLE_RADIAL": ("OPENCV", ("k1",)),
    "RADIAL": ("OPENCV", ("k1", "k2")),
    "OPENCV": ("OPENCV", ("k1", "k2", "p1", "p2")),
    "FULL_OPENCV": ("OPENCV", ("k1", "k2", "p1", "p2", "k3", "", "", "")),
    "OPENCV_FISHEYE": ("OPENCV_FISHEYE", ("k1", "k2", "k3", "k4")),
    "SIMPLE_RADIAL_FISHEYE": ("OPENCV_FISHEYE", ("k1",)),
    "RADIAL_FISHEYE": ("OPENCV_FISHEYE", ("k1", "k2")),
}


def unrepresentable(camera: Intrinsics) -> str | None:
    """Parts of a camera that this format cannot hold, None if it can hold all."""
    if camera.model not in _DISTORTION:
        return f"camera model {camera.model}"
    names = _DISTORTION[camera.model][1]
    values = camera.params[len(camera.params) - len(names) :]
    if any(value != 0.0 for name, value in zip(names, values, strict=True) if not name):
        return "the denominator of the distortion (k4, k5, k6)"
    return None


def to_transforms(scene: Scene, points_file: str | None = None) -> dict[str, Any]:
    """The content of ``transforms.json``.

    Args:
        scene: names of views and masks are written as they are (paths relative to the JSON file).
        points_file: name of a PLY with initial points in the same world, None without.

    Raises:
        ValueError: a camera cannot be represented (see ``unrepresentable``).
    """
    cameras = [_camera(camera) for camera in scene.cameras]
    used = {view.camera for view in scene.views}
    shared = cameras[next(iter(used))] if len(used) == 1 else {}
    frames = []
    for view in scene.views:
        frame: dict[str, Any] = {"file_path": view.name}
        if view.mask is not None:
            frame["mask_path"] = view.mask
        matrix = np.eye(4)
        matrix[:3, :3] = view.cam_from_world[:, :3].T @ OPENGL_FROM_CAMERA
        matrix[:3, 3] = view.center
        frame["transform_matrix"] = matrix.tolist()
        if not shared:
            frame |= cameras[view.camera]
        frames.append(frame)
    if not shared:
        # The model of lens is one for the whole file.
        models = {cameras[index]["camera_model"] for index in used}
        if len(models) > 1:
            raise ValueError("fisheye and other lenses in one scene")
        for frame in frames:
            frame.pop("camera_model")
        shared = {"camera_model": models.pop()} if models else {}
    out: dict[str, Any] = dict(shared)
    if points_file is not None:
        out["ply_file_path"] = points_file
    out["frames"] = frames
    return out


def from_transforms(data: dict[str, Any]) -> Scene:
    """The cameras of a ``transforms.json`` with intrinsics (shared or per frame); points are in its PLY.

    Raises:
        KeyError, ValueError: an entry that is needed is missing or makes no sense.
    """
    cameras: list[Intrinsics] = []
    views = []
    for frame in data["frames"]:
        camera = _intrinsics({**data, **frame})
        if camera not in cameras:
            cameras.append(camera)
        matrix = np.array(frame["transform_matrix"], np.float64)
        rotation = OPENGL_FROM_CAMERA @ matrix[:3, :3].T
        pose = np.column_stack([rotation, -rotation @ matrix[:3, 3]])
        views.append(
            SceneView(
                str(frame["file_path"]), cameras.index(camera), pose, np.zeros((0, 2)), frame.get("mask_path")
            )
        )
    return scene_of_views(cameras, views, np.zeros((0, 3)), np.zeros((0, 3), np.uint8), [])


def write(job: Export, folder: Path) -> str:
    """Write a ``transforms.json``, points and photos into a folder; returns what it wrote in words."""
    scene = job.with_folder(job.prepared(folder))
    points = None
    if len(scene.xyz):
        points = "points.ply"
        cloud = PointCloud(scene.xyz, rgb=scene.rgb)
        (folder / points).write_bytes(to_ply(cloud, job.remarks()))
    write_json(folder / FILE, to_transforms(scene, points))
    return scene.in_words()


def read(source: Path, photos: Path | None, notes: list[str]) -> Imported:
    """Read a ``transforms.json``, points and photos."""
    del photos
    data = read_json(first_file(source, (FILE,), ""))
    if "applied_transform" in data:
        notes.append("applied_transform is kept: the world is nerfstudio's, not the one before it")
    return Imported(from_transforms(data))


FORMAT = Format(write, unrepresentable, masks="all")


def _camera(camera: Intrinsics) -> dict[str, Any]:
    problem = unrepresentable(camera)
    if problem:
        raise ValueError(f"nerfstudio does not know {problem}")
    model, names = _DISTORTION[camera.model]
    K: Float64[np.ndarray, "3 3"] = camera.K
    out: dict[str, Any] = {
        "camera_model": model,
        "fl_x": float(K[0, 0]),
        "fl_y": float(K[1, 1]),
        "cx": float(K[0, 2]) + HALF_PIXEL,
        "cy": float(K[1, 2]) + HALF_PIXEL,
        "w": camera.width,
        "h": camera.height,
    }
    coefficients = dict.fromkeys(
        ("k1", "k2", "k3", "k4", "p1", "p2") if model == "OPENCV" else ("k1", "k2", "k3", "k4"), 0.0
    )
    values = camera.params[len(camera.params) - len(names) :]
    coefficients |= {name: float(value) for name, value in zip(names, values, strict=True) if name}
    return out | coefficients


def _intrinsics(entry: dict[str, Any]) -> Intrinsics:
    model = entry.get("camera_model", "OPENCV")
    value = {name: float(entry.get(name, 0.0)) for name in ("k1", "k2", "k3", "k4", "p1", "p2")}
    centre = (float(entry["cx"]) - HALF_PIXEL, float(entry["cy"]) - HALF_PIXEL)
    linear = (float(entry["fl_x"]), float(entry["fl_y"]), *centre)
    width, height = int(entry["w"]), int(entry["h"])
    if model == "OPENCV_FISHEYE":
        params = (*linear, value["k1"], value["k2"], value["k3"], value["k4"])
        return Intrinsics("OPENCV_FISHEYE", params, width, height, True, True)
    if model not in ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "RADIAL", "SIMPLE_RADIAL"):
        raise ValueError(f"camera model {model}")
    if value["k4"] != 0.0:
        raise ValueError("a fourth radial coefficient (k4)")
    if value["k3"] != 0.0:
        full = (*linear, value["k1"], value["k2"], value["p1"], value["p2"], value["k3"], 0.0, 0.0, 0.0)
        return Intrinsics("FULL_OPENCV", full, width, height, True, True)
    if any(value.values()):
        brown = (*linear, value["k1"], value["k2"], value["p1"], value["p2"])
        return Intrinsics("OPENCV", brown, width, height, True, True)
    return Intrinsics("PINHOLE", linear, width, height, True, True)
