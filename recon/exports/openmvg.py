"""OpenMVG's ``sfm_data.json`` (version 0.3), ``.feat`` and ``matches.f.txt``, both ways.

Pixels are recon's: the centre of the top-left pixel is (0, 0), as the documentation of OpenMVG-rs says. Poses are a
rotation world to camera and the camera's centre. Pointers and class names are numbered as the cereal library does it:
the first use of a class or an object carries the highest bit of 32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from recon.core.cameras import Intrinsics
from recon.errors import ReconError
from recon.exports.colmap import database_pairs
from recon.exports.export import Export, Format
from recon.exports.files import Imported, Pairs, first_file, read_json, write_json
from recon.exports.scene import Scene, SceneView, pairs_of_tracks, scene_of_views, square_pinhole

FILE, MATCHES = "sfm_data.json", "matches.f.txt"

_FIRST_USE = 1 << 31
_NOT_POLYMORPHIC = 1 << 30
UNDEFINED = (1 << 32) - 1
"""OpenMVG's index of what is not there: a view without intrinsics or pose."""


def unrepresentable(camera: Intrinsics) -> str | None:
    """Parts of a camera that this format cannot hold, None if it can hold all."""
    if camera.model not in {
        "SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV", "OPENCV_FISHEYE",
        "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE",
    }:  # fmt: skip
        return f"camera model {camera.model}"
    K = camera.K
    if abs(K[0, 0] - K[1, 1]) > 1e-9 * K[0, 0]:
        return "two focal lengths"
    if camera.model == "FULL_OPENCV" and any(camera.params[9:]):
        return "the denominator of the distortion (k4, k5, k6)"
    return None


def to_sfm_data(scene: Scene, root_path: str) -> dict[str, Any]:
    """The content of ``sfm_data.json``: views, intrinsics, extrinsics and structure.

    Args:
        scene: view ``i`` gets the number ``i``.
        root_path: folder of the photos.

    Raises:
        ValueError: a camera cannot be represented (see ``unrepresentable``).
    """
    pointers = _Pointers()
    views, extrinsics, structure = [], [], []
    for number, view in enumerate(scene.views):
        folder, _, file = view.name.rpartition("/")
        size = scene.intrinsics(view)
        data = {
            "local_path": folder,
            "filename": file,
            "width": size.width,
            "height": size.height,
            "id_view": number,
            "id_intrinsic": view.camera,
            "id_pose": number,
        }
        views.append(
            {
                "key": number,
                "value": {"polymorphic_id": _NOT_POLYMORPHIC, "ptr_wrapper": pointers.wrap(data)},
            }
        )
    intrinsics = []
    for number, camera_model in enumerate(scene.cameras):
        name, data = _intrinsic(camera_model)
        value = pointers.named(name) | {"ptr_wrapper": pointers.wrap(data)}
        intrinsics.append({"key": number, "value": value})
    for number, view in enumerate(scene.views):
        pose = {"rotation": view.cam_from_world[:, :3].tolist(), "center": view.center.tolist()}
        extrinsics.append({"key": number, "value": pose})
    for number, track in enumerate(scene.tracks()):
        seen = [
            {
                "key": int(view),
                "value": {"id_feat": int(k), "x": scene.views[view].keypoints[k].tolist()},
            }
            for view, k in track
        ]
        structure.append({"key": number, "value": {"X": scene.xyz[number].tolist(), "observations": seen}})
    return {
        "sfm_data_version": "0.3",
        "root_path": root_path,
        "views": views,
        "intrinsics": intrinsics,
        "extrinsics": extrinsics,
        "structure": structure,
        "control_points": [],
    }


def from_sfm_data(
    data: Mapping[str, Any], features: Mapping[int, Float[np.ndarray, "n 2"]] | None = None
) -> tuple[Scene, dict[int, int]]:
    """The scene of a ``sfm_data.json`` of version 0.1 to 0.3.

    Args:
        data: the parsed file.
        features: positions of all features by view id, from the ``.feat`` files; keypoints are then numbered
            as the features are, otherwise only observed ones are there.

    Returns:
        The scene of the views that have a pose and intrinsics, and the row of each view id in it. Points have
        no colour in this format: grey.

    Raises:
        KeyError, ValueError, TypeError: an entry that is needed is missing or makes no sense.
    """
    cameras: list[Intrinsics] = []
    camera_row: dict[int, int] = {}
    names: dict[int, str] = {}  # of polymorphic classes, by their number
    for entry in data["intrinsics"]:
        value = entry["value"]
        number = int(value.get("polymorphic_id", 0)) & ~_FIRST_USE
        if "polymorphic_name" in value:
            names[number] = value["polymorphic_name"]
        camera_row[int(entry["key"])] = len(cameras)
        cameras.append(_camera(names[number], value["ptr_wrapper"]["data"]))
    poses = {}
    for entry in data["extrinsics"]:
        R = np.array(entry["value"]["rotation"], np.float64).reshape(3, 3)
        center = np.array(entry["value"]["center"], np.float64).reshape(3)
        poses[int(entry["key"])] = np.column_stack([R, -R @ center])
    seen: dict[int, dict[int, list[float]]] = {}
    xyz = []
    raw = []
    for row, entry in enumerate(data.get("structure") or []):
        xyz.append(entry["value"]["X"])
        for observation in entry["value"]["observations"] or []:
            view, value = int(observation["key"]), observation["value"]
            feature = int(value["id_feat"])
            if features is None and feature in seen.get(view, {}) and feature in (0, UNDEFINED):
                feature = -1 - len(seen[view])  # some writers number nothing
            seen.setdefault(view, {})[feature] = value["x"]
            raw.append((row, view, feature))
    views: list[SceneView] = []
    row_of: dict[int, int] = {}
    keypoint: dict[tuple[int, int], int] = {}
    for entry in data["views"]:
        view = entry["value"]["ptr_wrapper"]["data"] if "ptr_wrapper" in entry["value"] else entry["value"]
        number = int(view["id_view"])
        pose, camera = poses.get(int(view["id_pose"])), camera_row.get(int(view["id_intrinsic"]))
        if pose is None or camera is None:
            continue
        mine = seen.get(number, {})
        all_features = features.get(number) if features is not None else None
        if all_features is not None and (not mine or max(mine) < len(all_features)):
            xy = np.asarray(all_features, np.float64).copy()
            keypoint |= {(number, feature): feature for feature in mine}
            for feature, position in mine.items():
                xy[feature] = position
        else:
            order = sorted(mine)
            xy = np.array([mine[feature] for feature in order], np.float64).reshape(-1, 2)
            keypoint |= {(number, feature): i for i, feature in enumerate(order)}
        name = "/".join(part for part in (str(view["local_path"]).strip("/"), str(view["filename"])) if part)
        row_of[number] = len(views)
        views.append(SceneView(name, camera, pose, xy))
    observations = [(p, row_of[v], keypoint[v, f]) for p, v, f in raw if v in row_of]
    rgb = np.full((len(xyz), 3), 128, np.uint8)
    points = np.array(xyz, np.float64).reshape(-1, 3)
    return scene_of_views(cameras, views, points, rgb, observations), row_of


def to_features(view: SceneView) -> str:
    """The text of a ``.feat`` file: x, y, scale, orientation of each keypoint (scale 1, orientation 0)."""
    return "".join(f"{x:.9g} {y:.9g} 1 0\n" for x, y in view.keypoints)


def from_features(text: str) -> Float[np.ndarray, "n 2"]:
    """Positions of a ``.feat`` file.

    Raises:
        ValueError: a line does not begin with two numbers.
    """
    rows = [line.split()[:2] for line in text.splitlines() if line.strip()]
    return np.array(rows, np.float64).reshape(-1, 2)


def to_matches(pairs: Mapping[tuple[int, int], Int64[np.ndarray, "k 2"]]) -> str:
    """The text of ``matches.f.txt``: for each pair its two view ids, the number of matches, and the matches."""
    out = []
    for (a, b), rows in sorted(pairs.items()):
        out.append(f"{a} {b}\n{len(rows)}\n")
        out += [f"{i} {j}\n" for i, j in rows.tolist()]
    return "".join(out)


def from_matches(text: str) -> dict[tuple[int, int], Int64[np.ndarray, "k 2"]]:
    """The pairs of a ``matches.*.txt``.

    Raises:
        ValueError: it is cut short or holds something else.
    """
    numbers = np.array(text.split(), np.int64)
    found = {}
    at = 0
    while at < len(numbers):
        if at + 3 > len(numbers) or at + 3 + 2 * numbers[at + 2] > len(numbers):
            raise ValueError("the matches are cut short")
        a, b, count = (int(value) for value in numbers[at : at + 3])
        found[a, b] = numbers[at + 3 : at + 3 + 2 * count].reshape(-1, 2)
        at += 3 + 2 * count
    return found


def write(job: Export, folder: Path) -> str:
    """Write an ``sfm_data.json`` with features and matches into a folder; returns what it wrote in words."""
    scene = job.prepared(folder)
    write_json(folder / FILE, to_sfm_data(scene, job.photo_root()))
    pairs = database_pairs(job.run.root / "database.db", scene, job.names) or pairs_of_tracks(scene)
    matches = folder / "matches"
    matches.mkdir()
    (matches / MATCHES).write_text(to_matches(pairs), encoding="ascii")
    taken: set[str] = set()
    for view in scene.views:
        stem = PurePosixPath(view.name).stem
        if stem.lower() in taken:
            job.notes.append(
                f"two photos are called {stem}: OpenMVG keeps features by that name, only one has some"
            )
            continue
        taken.add(stem.lower())
        (matches / f"{stem}.feat").write_text(to_features(view), encoding="ascii")
    return f"{scene.in_words()}, matches of {len(pairs)} pairs"


def read(source: Path, photos: Path | None, notes: list[str]) -> Imported:
    """An ``sfm_data.json`` and, where they can be found, its features and matches."""
    del photos
    path = first_file(
        source, ("sfm_data.json", "reconstruction/sfm_data.json", "reconstruction_sequential/sfm_data.json",
                 "reconstruction_global/sfm_data.json", "out/sfm_data.json"),
        "openMVG_main_ConvertSfM_DataFormat -i sfm_data.bin -o sfm_data.json makes one of the binary file",
    )  # fmt: skip
    data = read_json(path)
    folder = path.parent if source.is_file() else source
    places = [
        folder,
        folder / "matches",
        path.parent,
        path.parent / "matches",
        path.parent.parent / "matches",
    ]
    match_file = next(
        (
            place / name
            for place in places
            for name in (MATCHES, "matches.e.txt", "matches.h.txt")
            if (place / name).is_file()
        ),
        None,
    )
    features: dict[int, np.ndarray] = {}
    if match_file is not None:
        for entry in data["views"]:
            view = entry["value"].get("ptr_wrapper", {"data": entry["value"]})["data"]
            name = match_file.parent / f"{Path(str(view['filename'])).stem}.feat"
            if name.is_file():
                features[int(view["id_view"])] = from_features(name.read_text(encoding="ascii"))
    scene, row_of = from_sfm_data(data, features or None)
    pairs: Pairs = {}
    if match_file is not None and features:
        for (a, b), rows in from_matches(match_file.read_text(encoding="ascii")).items():
            if a not in row_of or b not in row_of:
                continue
            i, j = row_of[a], row_of[b]
            sizes = len(scene.views[i].keypoints), len(scene.views[j].keypoints)
            if len(rows) and (rows.max(axis=0) >= sizes).any():
                raise ReconError(
                    f"{match_file}: pair {a} {b} names features that the .feat files do not have"
                )
            if len(rows):
                pairs[min(i, j), max(i, j)] = rows if i < j else rows[:, ::-1]
        notes.append(f"matches from {match_file}")
    elif match_file is not None:
        notes.append(f"{match_file}: its .feat files are not beside it, so the matches stay behind")
    if not data.get("structure"):
        notes.append("the file has no structure: cameras only")
    root = str(data.get("root_path", ""))
    return Imported(scene, pairs, (folder / root,) if root else ())  # an absolute root stays itself


FORMAT = Format(write, unrepresentable, square_pinhole, bare_names=True)


class _Pointers:
    """Numbers of shared pointers and classes, as cereal gives them out."""

    def __init__(self) -> None:
        self._count = 0
        self._classes: dict[str, int] = {}

    def wrap(self, data: dict[str, Any]) -> dict[str, Any]:
        self._count += 1
        return {"id": _FIRST_USE + self._count, "data": data}

    def named(self, name: str) -> dict[str, Any]:
        if name in self._classes:
            return {"polymorphic_id": self._classes[name]}
        self._classes[name] = len(self._classes) + 1
        return {"polymorphic_id": _FIRST_USE + self._classes[name], "polymorphic_name": name}


def _intrinsic(camera: Intrinsics) -> tuple[str, dict[str, Any]]:
    problem = unrepresentable(camera)
    if problem:
        raise ValueError(f"OpenMVG does not know {problem}")
    K = camera.K
    data: dict[str, Any] = {
        "width": camera.width,
        "height": camera.height,
        "focal_length": float(K[0, 0]),
        "principal_point": [float(K[0, 2]), float(K[1, 2])],
    }
    params = camera.params
    if camera.model.endswith("FISHEYE"):
        start = 4 if camera.model == "OPENCV_FISHEYE" else 3
        return "fisheye", data | {"fisheye": [*params[start:], 0.0, 0.0, 0.0, 0.0][:4]}
    if camera.is_pinhole:
        return "pinhole", data
    if camera.model == "SIMPLE_RADIAL":
        return "pinhole_radial_k1", data | {"disto_k1": [params[3]]}
    if camera.model == "RADIAL":
        return "pinhole_radial_k3", data | {"disto_k3": [params[3], params[4], 0.0]}
    k1, k2, p1, p2 = params[4:8]
    k3 = params[8] if camera.model == "FULL_OPENCV" else 0.0
    # OpenMVG's t1, t2 stand where OpenCV's p1, p2 do.
    return "pinhole_brown_t2", data | {"disto_t2": [k1, k2, k3, p1, p2]}


def _camera(name: str, data: Mapping[str, Any]) -> Intrinsics:
    base = data.get("value0", data)  # newer versions nest the members of the base class
    focal = float(base["focal_length"])
    cx, cy = (float(value) for value in base["principal_point"])
    size = int(base["width"]), int(base["height"])

    def made(model: str, *params: float) -> Intrinsics:
        return Intrinsics(model, tuple(float(value) for value in params), *size, True, True)

    if name == "pinhole":
        return made("SIMPLE_PINHOLE", focal, cx, cy)
    if name == "pinhole_radial_k1":
        return made("SIMPLE_RADIAL", focal, cx, cy, *data["disto_k1"][:1])
    if name == "pinhole_radial_k3":
        k1, k2, k3 = _padded(data["disto_k3"], 3)  # forks leave the last one out
        if k3 == 0.0:
            return (
                made("SIMPLE_PINHOLE", focal, cx, cy)
                if k1 == k2 == 0.0
                else made("RADIAL", focal, cx, cy, k1, k2)
            )
        return made("FULL_OPENCV", focal, focal, cx, cy, k1, k2, 0, 0, k3, 0, 0, 0)
    if name == "pinhole_brown_t2":
        k1, k2, k3, t1, t2 = _padded(data["disto_t2"], 5)
        if k3 == 0.0:
            return made("OPENCV", focal, focal, cx, cy, k1, k2, t1, t2)
        return made("FULL_OPENCV", focal, focal, cx, cy, k1, k2, t1, t2, k3, 0, 0, 0)
    if name == "fisheye":
        return made("OPENCV_FISHEYE", focal, focal, cx, cy, *data["fisheye"])
    raise ValueError(f"intrinsics of the kind {name!r}")


def _padded(values: Sequence[float], count: int) -> list[float]:
    return [float(value) for value in [*values, *[0.0] * count][:count]]
