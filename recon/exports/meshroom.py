"""Meshroom's (AliceVision's) ``.sfm`` file: SfMData as JSON, version 1.2.8.

Every number is written as text, as that program does. Rotations are world to camera, their nine numbers column by
column, with the camera's centre. The principal point is given from the centre of the image (half its size), pixels
with the centre of the top-left pixel at (0, 0). Focal lengths are in mm of a sensor 36 mm wide; ``pixelRatio`` is
fy / fx (since version 1.2.5).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from recon.core.cameras import Intrinsics
from recon.exports.export import Export, Format
from recon.exports.files import Imported, first_file, read_json, write_json
from recon.exports.scene import Scene, SceneView, scene_of_views

FILE = "cameras.sfm"

SENSOR_WIDTH_MM = 36.0
"""Nominal: the program keeps focal lengths in mm, and only their ratio to this width counts."""

_VERSION = ("1", "2", "8")


def unrepresentable(camera: Intrinsics) -> str | None:
    """Parts of a camera that this format cannot hold, None if it can hold all."""
    if camera.model not in {
        "SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV", "OPENCV_FISHEYE",
        "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE",
    }:  # fmt: skip
        return f"camera model {camera.model}"
    if camera.model == "FULL_OPENCV" and any(camera.params[9:]):
        return "the denominator of the distortion (k4, k5, k6)"
    return None


def to_sfm(
    scene: Scene, path_of: Mapping[str, str] | None = None, *, structure: bool = True
) -> dict[str, Any]:
    """The content of the file: views, intrinsics, poses and, with ``structure``, the points with features.

    Args:
        path_of: where the photo of each name lies; names are paths themselves where it says nothing.

    Raises:
        ValueError: a camera cannot be represented (see ``unrepresentable``).
    """
    paths = path_of or {}
    out: dict[str, Any] = {"version": list(_VERSION)}
    out["views"] = [
        {
            "viewId": str(number + 1),
            "poseId": str(number + 1),
            "intrinsicId": str(view.camera + 1),
            "path": paths.get(view.name, view.name),
            "width": str(scene.intrinsics(view).width),
            "height": str(scene.intrinsics(view).height),
            "metadata": "",
        }
        for number, view in enumerate(scene.views)
    ]
    out["intrinsics"] = [_intrinsic(row, camera) for row, camera in enumerate(scene.cameras)]
    out["poses"] = [
        {
            "poseId": str(number + 1),
            "pose": {
                "transform": {
                    "rotation": _texts(view.cam_from_world[:, :3].T),
                    "center": _texts(view.center),
                },
                "locked": "0",
            },
        }
        for number, view in enumerate(scene.views)
    ]
    if structure and len(scene.xyz):
        out["structure"] = [
            {
                "landmarkId": str(row + 1),
                "descType": "sift",
                "color": [str(int(value)) for value in scene.rgb[row]],
                "X": _texts(scene.xyz[row]),
                "observations": [
                    {
                        "observationId": str(view + 1),
                        "featureId": str(keypoint),
                        "x": _texts(scene.views[view].keypoints[keypoint]),
                        "scale": "0",
                    }
                    for view, keypoint in track
                ],
            }
            for row, track in enumerate(scene.tracks())
        ]
    return out


def from_sfm(data: Mapping[str, Any]) -> Scene:
    """The posed views of a file of version 1.2.5 or later, with its points (keypoints: the observed ones).

    Raises:
        KeyError, ValueError, TypeError: an entry that is needed is missing or makes no sense.
    """
    version = tuple(int(part) for part in data["version"])
    if version < (1, 2, 5):
        raise ValueError(f"version {'.'.join(data['version'])}; open and save it with a newer Meshroom")
    cameras: list[Intrinsics] = []
    camera_row = {}
    for entry in data.get("intrinsics", ()):
        camera_row[entry["intrinsicId"]] = len(cameras)
        cameras.append(_camera(entry))
    poses = {}
    for entry in data.get("poses", ()):
        transform = entry["pose"]["transform"]
        R = np.array(transform["rotation"], np.float64).reshape(3, 3).T
        poses[entry["poseId"]] = np.column_stack([R, -R @ np.array(transform["center"], np.float64)])
    seen: dict[str, dict[str, Sequence[str]]] = {}
    raw, xyz, rgb = [], [], []
    for row, entry in enumerate(data.get("structure") or ()):
        xyz.append([float(value) for value in entry["X"]])
        rgb.append([int(value) for value in entry["color"]])
        for one in entry.get("observations") or ():
            seen.setdefault(one["observationId"], {})[one["featureId"]] = one["x"]
            raw.append((row, one["observationId"], one["featureId"]))
    views: list[SceneView] = []
    row_of: dict[str, int] = {}
    keypoint: dict[tuple[str, str], int] = {}
    for entry in data["views"]:
        pose, camera = poses.get(entry["poseId"]), camera_row.get(entry["intrinsicId"])
        if pose is None or camera is None:
            continue
        mine = seen.get(entry["viewId"], {})
        order = sorted(mine, key=int)
        keypoint |= {(entry["viewId"], feature): i for i, feature in enumerate(order)}
        xy = np.array([mine[feature] for feature in order], np.float64).reshape(-1, 2)
        row_of[entry["viewId"]] = len(views)
        views.append(SceneView(str(entry["path"]), camera, pose, xy))
    observations = [(p, row_of[v], keypoint[v, f]) for p, v, f in raw if v in row_of]
    colours = np.array(rgb, np.uint8).reshape(-1, 3)
    return scene_of_views(cameras, views, np.array(xyz, np.float64).reshape(-1, 3), colours, observations)


def write(job: Export, folder: Path) -> str:
    """Write a ``.sfm`` file into a folder; returns what it wrote in words."""
    scene = job.prepared(folder)
    root = job.photo_root()
    paths = {view.name: f"{root}/{view.name}" for view in scene.views} if root else {}
    write_json(folder / FILE, to_sfm(scene, paths))
    return scene.in_words()


def read(source: Path, photos: Path | None, notes: list[str]) -> Imported:
    """Read a ``.sfm`` file."""
    del photos, notes
    path = first_file(source, (FILE, "sfm.sfm", "sfm.json", "cameras.json"), "")
    scene = from_sfm(read_json(path))
    # Its paths are absolute, perhaps another computer's: names are what lies below the folder of them all.
    paths = {view.name: PurePosixPath(view.name.replace("\\", "/")) for view in scene.views}
    if paths and all(len(one.parts) > 1 for one in paths.values()):
        common = os.path.commonpath([str(one.parent) for one in paths.values()])
        scene = scene.renamed({name: one.relative_to(common).as_posix() for name, one in paths.items()})
        return Imported(scene, photos=(path.parent / common,))
    return Imported(scene)


FORMAT = Format(write, unrepresentable)


def _intrinsic(row: int, camera: Intrinsics) -> dict[str, Any]:
    problem = unrepresentable(camera)
    if problem:
        raise ValueError(f"Meshroom does not know {problem}")
    K, params = camera.K, camera.params
    kind = "none"
    distortion: tuple[float, ...] = ()
    if camera.model.endswith("FISHEYE"):
        start = 4 if camera.model == "OPENCV_FISHEYE" else 3
        kind, distortion = "fisheye", (*params[start:], 0.0, 0.0, 0.0, 0.0)[:4]
    elif camera.model in {"SIMPLE_RADIAL", "RADIAL"}:
        kind, distortion = "radialk3", (*params[3:], 0.0, 0.0)[:3]
    elif camera.model in {"OPENCV", "FULL_OPENCV"}:
        k1, k2, p1, p2 = params[4:8]
        kind, distortion = "brown", (k1, k2, params[8] if camera.model == "FULL_OPENCV" else 0.0, p1, p2)
    return {
        "intrinsicId": str(row + 1),
        "width": str(camera.width),
        "height": str(camera.height),
        "sensorWidth": _text(SENSOR_WIDTH_MM),
        "sensorHeight": _text(SENSOR_WIDTH_MM * camera.height / camera.width),
        "serialNumber": f"recon-{row + 1}",
        "type": "pinhole",
        "initializationMode": "calibrated",
        "initialFocalLength": _text(K[0, 0] / camera.width * SENSOR_WIDTH_MM),
        "focalLength": _text(K[0, 0] / camera.width * SENSOR_WIDTH_MM),
        "pixelRatio": _text(K[1, 1] / K[0, 0]),
        "pixelRatioLocked": "true",
        "principalPoint": _texts((K[0, 2] - 0.5 * camera.width, K[1, 2] - 0.5 * camera.height)),
        "distortionInitializationMode": "none" if kind == "none" else "calibrated",
        "distortionParams": _texts(distortion) or "",
        "undistortionOffset": ["0", "0"],
        "undistortionParams": "",
        "distortionType": kind,
        "undistortionType": "none",
        "locked": "true" if camera.known else "false",
    }


def _camera(entry: Mapping[str, Any]) -> Intrinsics:
    width, height = int(entry["width"]), int(entry["height"])
    fx = float(entry["focalLength"]) / float(entry["sensorWidth"]) * width
    fy = fx * float(entry.get("pixelRatio", 1.0))
    dx, dy = (float(value) for value in entry["principalPoint"])
    linear = (fx, fy, dx + 0.5 * width, dy + 0.5 * height)
    kind = entry.get("distortionType", "none") or "none"
    distortion = tuple(float(value) for value in entry.get("distortionParams") or ())
    if entry["type"] != "pinhole":
        raise ValueError(f"a camera of the kind {entry['type']!r}")

    def made(model: str, params: Iterable[float]) -> Intrinsics:
        return Intrinsics(model, tuple(params), width, height, entry.get("locked") in ("true", "1"), True)

    if kind == "none" or not any(distortion):
        return made("PINHOLE", linear)
    if kind in {"radialk1", "radialk3"}:
        k1, k2, k3 = (*distortion, 0.0, 0.0)[:3]
        if k3 == 0.0:
            return made("OPENCV", (*linear, k1, k2, 0.0, 0.0))
        return made("FULL_OPENCV", (*linear, k1, k2, 0.0, 0.0, k3, 0.0, 0.0, 0.0))
    if kind == "brown":
        k1, k2, k3, p1, p2 = distortion
        if k3 == 0.0:
            return made("OPENCV", (*linear, k1, k2, p1, p2))
        return made("FULL_OPENCV", (*linear, k1, k2, p1, p2, k3, 0.0, 0.0, 0.0))
    if kind == "fisheye":
        return made("OPENCV_FISHEYE", (*linear, *distortion))
    raise ValueError(f"distortion of the kind {kind!r}")


def _text(value: float) -> str:
    return f"{float(value):.17g}"


def _texts(values: Any) -> list[str]:
    return [_text(value) for value in np.asarray(values, np.float64).ravel()]
