"""Formats of cameras and points: what the target program would see, by its own documented formulas."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from recon.core.cameras import Intrinsics
from recon.exports import bundler, meshroom, nerfstudio, openmvg, pmvs
from recon.exports.colmap import database_pairs, write_database
from recon.exports.scene import (
    Scene,
    centred_pinhole,
    pairs_of_tracks,
    reconstruction_from_scene,
    scene_from_reconstruction,
)
from tests.support.exports_scene import (
    PARAMS,
    assert_same_cameras,
    assert_same_points,
    camera_of,
    make_scene,
    square,
)


def seen(scene: Scene, view: int) -> tuple[np.ndarray, np.ndarray]:
    """World points and the pixels (recon's convention) at which COLMAP's model sees them in a view."""
    rows = scene.observations[scene.observations[:, 1] == view]
    return scene.xyz[rows[:, 0]], scene.views[view].keypoints[rows[:, 2]]


def through_json(data: object) -> dict:
    return json.loads(json.dumps(data, ensure_ascii=False))


# COLMAP


@pytest.mark.parametrize("model", list(PARAMS))
def test_colmap_model_and_back(model: str) -> None:
    scene = make_scene([camera_of(model)])
    made = reconstruction_from_scene(scene)
    # COLMAP's own judgement: it projects the points to where the scene says, half pixel included.
    assert made.compute_mean_reprojection_error() < 1e-9
    back = scene_from_reconstruction(made)
    assert_same_cameras(scene, back, 1e-12)
    assert_same_points(scene, back, 1e-12)
    assert np.array_equal(scene.rgb, back.rgb)


def test_moved_scene_looks_the_same() -> None:
    scene = make_scene([camera_of("OPENCV")])
    angle = 0.7
    R = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])
    moved = scene.moved(3.5, R, np.array([400_000.0, 5_000_000.0, 100.0]))
    made = reconstruction_from_scene(moved)
    assert made.compute_mean_reprojection_error() < 1e-6  # 5e6 m leave 1e-9 m to double precision
    distance = np.linalg.norm(moved.views[0].center - moved.views[3].center)
    assert distance == pytest.approx(3.5 * np.linalg.norm(scene.views[0].center - scene.views[3].center))


def test_resized_scene_agrees_with_colmap() -> None:
    scene = make_scene([camera_of("OPENCV"), camera_of("SIMPLE_RADIAL")])
    larger = scene.resized(lambda view: (640, 480) if view.camera == 0 else (320, 240))
    assert reconstruction_from_scene(larger).compute_mean_reprojection_error() < 1e-9
    assert {camera.width for camera in larger.cameras} == {640, 320}


@pytest.mark.parametrize("model", ["OPENCV", "OPENCV_FISHEYE"])
def test_undistorted_scene_agrees_with_colmap(model: str) -> None:
    scene = make_scene([camera_of(model)])
    for change in (Intrinsics.pinhole, centred_pinhole):
        flat = scene.undistorted(change)
        assert flat.cameras[0].is_pinhole
        assert reconstruction_from_scene(flat).compute_mean_reprojection_error() < 1e-4


def test_pairs_of_tracks_match_pixels_of_one_point() -> None:
    scene = make_scene([camera_of("PINHOLE")])
    point_of = {(int(v), int(k)): int(p) for p, v, k in scene.observations}
    pairs = pairs_of_tracks(scene)
    assert set(pairs) == {(a, b) for a in range(4) for b in range(a + 1, 4)}
    for (a, b), rows in pairs.items():
        common = {p for p, v, _ in scene.observations if v == a} & {
            p for p, v, _ in scene.observations if v == b
        }
        assert len(rows) == len(common)
        assert all(point_of[a, i] == point_of[b, j] for i, j in rows.tolist())


# nerfstudio


def nerfstudio_pixels(data: dict, frame: dict, xyz: np.ndarray) -> np.ndarray:
    """Projection by nerfstudio's documented conventions; the top-left pixel's centre is (0.5, 0.5)."""
    camera = {**data, **frame}
    c2w = np.array(frame["transform_matrix"])
    local = (xyz - c2w[:3, 3]) @ c2w[:3, :3]  # x right, y up, z backwards
    x, y = local[:, 0] / -local[:, 2], -local[:, 1] / -local[:, 2]
    if camera["camera_model"] == "OPENCV_FISHEYE":
        r = np.hypot(x, y)
        theta = np.arctan(r)
        k = [camera[f"k{i}"] for i in (1, 2, 3, 4)]
        bent = theta * (1 + sum(c * theta ** (2 * i) for i, c in enumerate(k, 1)))
        x, y = x * bent / r, y * bent / r
    else:
        r2 = x * x + y * y
        radial = 1 + r2 * (camera["k1"] + r2 * (camera["k2"] + r2 * (camera["k3"] + r2 * camera["k4"])))
        p1, p2 = camera["p1"], camera["p2"]
        x, y = (
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + 2 * p2 * x * y + p1 * (r2 + 2 * y * y),
        )
    return np.column_stack([camera["fl_x"] * x + camera["cx"], camera["fl_y"] * y + camera["cy"]])


@pytest.mark.parametrize("model", list(PARAMS))
def test_nerfstudio_sees_what_colmap_sees(model: str) -> None:
    scene = make_scene([camera_of(model)])
    data = through_json(nerfstudio.to_transforms(scene, "points.ply"))
    for row, frame in enumerate(data["frames"]):
        xyz, xy = seen(scene, row)
        np.testing.assert_allclose(nerfstudio_pixels(data, frame, xyz), xy + 0.5, atol=1e-6)
    assert_same_cameras(scene, nerfstudio.from_transforms(data))


def test_nerfstudio_rules() -> None:
    """What its data parser insists on: shared or complete intrinsics per frame, rigid 4x4 matrices, one lens model."""
    scene = make_scene([camera_of("OPENCV"), camera_of("SIMPLE_RADIAL")])
    data = through_json(nerfstudio.to_transforms(scene))
    assert data["camera_model"] == "OPENCV"
    assert "ply_file_path" not in data
    assert "fl_x" not in data
    for frame in data["frames"]:
        assert {"file_path", "transform_matrix", "fl_x", "fl_y", "cx", "cy", "w", "h", "k1", "k2"} <= set(
            frame
        )
        matrix = np.array(frame["transform_matrix"])
        assert matrix.shape == (4, 4)
        assert matrix[3].tolist() == [0, 0, 0, 1]
        np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-12)
        assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1)
        assert not frame["file_path"].startswith("/")
    assert_same_cameras(scene, nerfstudio.from_transforms(data))
    shared = through_json(nerfstudio.to_transforms(make_scene([camera_of("PINHOLE")])))
    assert "fl_x" in shared
    assert all(set(frame) == {"file_path", "transform_matrix"} for frame in shared["frames"])
    with pytest.raises(ValueError, match="fisheye"):
        nerfstudio.to_transforms(make_scene([camera_of("OPENCV"), camera_of("OPENCV_FISHEYE")]))


# OpenMVG


def openmvg_pixels(kind: str, data: dict, pose: dict, xyz: np.ndarray) -> np.ndarray:
    """Projection by OpenMVG's camera classes (their documented formulas); pixel centres are whole numbers."""
    local = (xyz - np.array(pose["center"])) @ np.array(pose["rotation"]).T
    x, y = local[:, 0] / local[:, 2], local[:, 1] / local[:, 2]
    r2 = x * x + y * y
    if kind == "pinhole_radial_k1":
        x, y = x * (1 + data["disto_k1"][0] * r2), y * (1 + data["disto_k1"][0] * r2)
    elif kind == "pinhole_radial_k3":
        k1, k2, k3 = data["disto_k3"]
        x, y = x * (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3), y * (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3)
    elif kind == "pinhole_brown_t2":
        k1, k2, k3, t1, t2 = data["disto_t2"]
        radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
        x, y = (
            x * radial + t2 * (r2 + 2 * x * x) + 2 * t1 * x * y,
            y * radial + t1 * (r2 + 2 * y * y) + 2 * t2 * x * y,
        )
    elif kind == "fisheye":
        r = np.sqrt(r2)
        theta = np.arctan(r)
        bent = theta + sum(k * theta ** (2 * i + 1) for i, k in enumerate(data["fisheye"], 1))
        x, y = x * bent / r, y * bent / r
    cx, cy = data["principal_point"]
    return np.column_stack([data["focal_length"] * x + cx, data["focal_length"] * y + cy])


@pytest.mark.parametrize("model", list(PARAMS))
def test_openmvg_sees_what_colmap_sees(model: str) -> None:
    scene = make_scene([square(camera_of(model)), square(camera_of("RADIAL"))])
    data = through_json(openmvg.to_sfm_data(scene, "/fotos/süd"))
    assert data["sfm_data_version"] == "0.3"
    kinds = {}
    names = {}
    for entry in data["intrinsics"]:
        value = entry["value"]
        number = value["polymorphic_id"]
        if "polymorphic_name" in value:
            assert number & 1 << 31  # cereal: the name stands where the class is used first
            names[number & ~(1 << 31)] = value["polymorphic_name"]
        kinds[entry["key"]] = names[number & ~(1 << 31)], value["ptr_wrapper"]["data"]
    poses = {entry["key"]: entry["value"] for entry in data["extrinsics"]}
    pointers = [e["value"]["ptr_wrapper"]["id"] for part in ("views", "intrinsics") for e in data[part]]
    assert sorted(pointers) == [(1 << 31) + i for i in range(1, len(pointers) + 1)]
    for entry in data["views"]:
        view = entry["value"]["ptr_wrapper"]["data"]
        assert "/".join([view["local_path"], view["filename"]]).strip("/") == scene.views[entry["key"]].name
        xyz, xy = seen(scene, view["id_view"])
        kind, intrinsics = kinds[view["id_intrinsic"]]
        got = openmvg_pixels(kind, intrinsics, poses[view["id_pose"]], xyz)
        np.testing.assert_allclose(got, xy, atol=1e-6)
    back, rows = openmvg.from_sfm_data(data)
    assert rows == {i: i for i in range(4)}
    assert_same_cameras(scene, back)
    assert_same_points(scene, back)


def test_openmvg_features_and_matches_round_trip() -> None:
    scene = make_scene([camera_of("RADIAL")])
    features = {row: openmvg.from_features(openmvg.to_features(view)) for row, view in enumerate(scene.views)}
    np.testing.assert_allclose(features[2], scene.views[2].keypoints, atol=1e-6)
    pairs = pairs_of_tracks(scene)
    back = openmvg.from_matches(openmvg.to_matches(pairs))
    assert set(back) == set(pairs)
    assert all(np.array_equal(back[pair], pairs[pair]) for pair in pairs)
    with_features, _ = openmvg.from_sfm_data(openmvg.to_sfm_data(scene, ""), features)
    assert np.array_equal(with_features.observations, scene.observations)  # numbered as the features are
    with pytest.raises(ValueError, match="cut short"):
        openmvg.from_matches("0 1\n3\n0 0\n1 1\n")


def test_verified_matches_are_read_without_a_change_to_the_database(tmp_path: Path) -> None:
    scene = make_scene([camera_of("RADIAL")])
    pairs = pairs_of_tracks(scene)
    path = tmp_path / "database.db"
    write_database(path, scene, pairs)
    path.chmod(0o444)
    tmp_path.chmod(0o555)
    before = path.read_bytes(), path.stat().st_mtime_ns
    try:
        back = database_pairs(path, scene, {})
        assert [one.name for one in tmp_path.iterdir()] == ["database.db"]
    finally:
        tmp_path.chmod(0o755)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert set(back) == set(pairs)
    assert all(np.array_equal(back[pair], pairs[pair]) for pair in pairs)
    renamed = {view.name: f"other/{view.name}" for view in scene.views}
    assert database_pairs(path, scene, renamed) == {}
    assert database_pairs(tmp_path / "none.db", scene, {}) == {}


def test_openmvg_files_of_other_versions() -> None:
    """Views before 0.3 have no pointer, newer intrinsics nest their base class, unposed views are common."""
    data = {
        "sfm_data_version": "0.2",
        "root_path": "",
        "views": [
            {"key": i, "value": {"ptr_wrapper": {"id": 2147483649 + i, "data": {
                "local_path": "/", "filename": f"{i}.jpg", "width": 100, "height": 80,
                "id_view": i, "id_intrinsic": 0 if i < 2 else openmvg.UNDEFINED, "id_pose": i}}}}
            for i in range(3)
        ],
        "intrinsics": [
            {"key": 0, "value": {"polymorphic_id": 2147483649, "polymorphic_name": "pinhole_radial_k3",
             "ptr_wrapper": {"id": 2147483660, "data": {
                "value0": {"width": 100, "height": 80, "focal_length": 90.0, "principal_point": [50.0, 40.0]},
                "disto_k3": [0.1, 0.0, 0.0]}}}},
        ],
        "extrinsics": [
            {"key": 0, "value": {"rotation": [[1, 0, 0], [0, 1, 0], [0, 0, 1]], "center": [1, 2, 3]}},
            {"key": 2, "value": {"rotation": [[1, 0, 0], [0, 1, 0], [0, 0, 1]], "center": [1, 2, 3]}},
        ],
        "structure": [],
    }  # fmt: skip
    scene, rows = openmvg.from_sfm_data(data)
    assert rows == {0: 0}
    assert scene.views[0].name == "0.jpg"
    assert scene.views[0].cam_from_world[:, 3].tolist() == [-1, -2, -3]
    assert scene.cameras[0].model == "RADIAL"
    assert scene.cameras[0].params == (90.0, 50.0, 40.0, 0.1, 0.0)
    value = data["intrinsics"][0]["value"]
    del value["polymorphic_id"]  # other programs leave it out, and a fork the last coefficient
    value["ptr_wrapper"]["data"]["disto_k3"] = [0.1, 0.2]
    assert openmvg.from_sfm_data(data)[0].cameras[0].params[3:] == (0.1, 0.2)


# Meshroom


def meshroom_pixels(entry: dict, pose: dict, xyz: np.ndarray) -> np.ndarray:
    """Projection by AliceVision's rules: column by column, principal point from the centre of the image."""
    R = np.array([float(v) for v in pose["rotation"]]).reshape(3, 3, order="F")
    local = (xyz - np.array([float(v) for v in pose["center"]])) @ R.T
    x, y = local[:, 0] / local[:, 2], local[:, 1] / local[:, 2]
    r2 = x * x + y * y
    k = [float(v) for v in entry["distortionParams"]]
    if entry["distortionType"] == "radialk3":
        radial = 1 + k[0] * r2 + k[1] * r2**2 + k[2] * r2**3
        x, y = x * radial, y * radial
    elif entry["distortionType"] == "brown":
        radial = 1 + k[0] * r2 + k[1] * r2**2 + k[2] * r2**3
        t1, t2 = k[3], k[4]
        x, y = (
            x * radial + t2 * (r2 + 2 * x * x) + 2 * t1 * x * y,
            y * radial + t1 * (r2 + 2 * y * y) + 2 * t2 * x * y,
        )
    elif entry["distortionType"] == "fisheye":
        r = np.sqrt(r2)
        theta = np.arctan(r)
        bent = theta + sum(c * theta ** (2 * i + 1) for i, c in enumerate(k, 1))
        x, y = x * bent / r, y * bent / r
    width, height = float(entry["width"]), float(entry["height"])
    fx = float(entry["focalLength"]) / float(entry["sensorWidth"]) * width
    fy = fx * float(entry["pixelRatio"])
    dx, dy = (float(v) for v in entry["principalPoint"])
    return np.column_stack([fx * x + width / 2 + dx, fy * y + height / 2 + dy])


@pytest.mark.parametrize("model", list(PARAMS))
def test_meshroom_sees_what_colmap_sees(model: str) -> None:
    scene = make_scene([camera_of(model)])
    data = through_json(meshroom.to_sfm(scene))
    assert data["version"] == ["1", "2", "8"]
    poses = {entry["poseId"]: entry["pose"]["transform"] for entry in data["poses"]}
    intrinsics = {entry["intrinsicId"]: entry for entry in data["intrinsics"]}
    for row, view in enumerate(data["views"]):
        assert all(isinstance(value, str) for value in view.values())
        xyz, xy = seen(scene, row)
        got = meshroom_pixels(intrinsics[view["intrinsicId"]], poses[view["poseId"]], xyz)
        np.testing.assert_allclose(got, xy, atol=1e-6)
    back = meshroom.from_sfm(data)
    assert_same_cameras(scene, back)
    assert_same_points(scene, back)
    assert np.array_equal(scene.rgb, back.rgb)


def test_meshroom_reads_the_numbers_of_its_own_sample() -> None:
    """From AliceVision's compatibility scene of version 1.2.8: 1000 and 2000 px of focal length at 4092x2048."""
    entry = {
        "intrinsicId": "1", "width": "4092", "height": "2048", "sensorWidth": "36", "sensorHeight": "24",
        "type": "pinhole", "focalLength": "8.7976539589442808", "pixelRatio": "2",
        "principalPoint": ["-26", "16"], "distortionParams": ["0.1", "0.05", "-0.001"],
        "distortionType": "radialk3", "locked": "false",
    }  # fmt: skip
    pose = {
        "transform": {"rotation": ["0", "1", "0", "-1", "0", "0", "0", "0", "1"], "center": ["1", "2", "3"]},
        "locked": "0",
    }
    scene = meshroom.from_sfm(
        {
            "version": ["1", "2", "8"],
            "views": [{"viewId": "7", "poseId": "7", "intrinsicId": "1", "path": "a.jpg"}],
            "intrinsics": [entry],
            "poses": [{"poseId": "7", "pose": pose}],
        }
    )
    camera = scene.cameras[0]
    assert camera.model == "FULL_OPENCV"
    np.testing.assert_allclose(camera.params[:4], [1000.0, 2000.0, 2020.0, 1040.0], atol=1e-9)
    assert camera.params[4:9] == (0.1, 0.05, 0.0, 0.0, -0.001)
    assert scene.views[0].cam_from_world[:, :3].tolist() == [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    np.testing.assert_allclose(scene.views[0].center, [1, 2, 3])


def test_meshroom_refuses_older_layouts() -> None:
    with pytest.raises(ValueError, match=r"1\.2\.0"):
        meshroom.from_sfm({"version": ["1", "2", "0"], "views": []})


# Bundler


def test_bundler_sees_what_colmap_sees() -> None:
    centred = (159.5, 119.5)
    cameras = [camera_of("RADIAL"), camera_of("SIMPLE_RADIAL"), camera_of("SIMPLE_PINHOLE")]
    for i, camera in enumerate(cameras):
        params = (camera.params[0], *centred, *camera.params[3:])
        cameras[i] = type(camera)(camera.model, params, 320, 240)
    scene = make_scene(cameras)
    scene = scene.renamed({view.name: f"{i}.jpg" for i, view in enumerate(scene.views)})
    text = bundler.to_bundle(scene)
    lines = text.splitlines()
    assert lines[0] == "# Bundle file v0.3"
    assert lines[1] == f"4 {len(scene.xyz)}"
    for row in range(4):
        block = [[float(v) for v in line.split()] for line in lines[2 + 5 * row : 7 + 5 * row]]
        focal, k1, k2 = block[0]
        xyz, xy = seen(scene, row)
        # The manual: P = R X + t, p = -P / P.z, p' = f r(p) p; origin at the centre, y up.
        P = xyz @ np.array(block[1:4]).T + np.array(block[4])
        p = -P[:, :2] / P[:, 2:]
        r2 = (p**2).sum(axis=1, keepdims=True)
        got = focal * (1 + k1 * r2 + k2 * r2**2) * p
        np.testing.assert_allclose(got, (xy - centred) * [1, -1], atol=1e-6)
    back = bundler.from_bundle(text, [view.name for view in scene.views], [(320, 240)] * 4)
    assert_same_cameras(scene, back)
    assert_same_points(scene, back)
    assert bundler.to_list(scene).splitlines()[1] == "1.jpg 0 210"


@pytest.mark.parametrize("model", ["PINHOLE", "RADIAL", "OPENCV", "OPENCV_FISHEYE"])
def test_bundler_says_what_it_cannot_hold(model: str) -> None:
    assert bundler.unrepresentable(camera_of(model))
    with pytest.raises(ValueError, match="Bundler does not know"):
        bundler.to_bundle(make_scene([camera_of(model)]))
    assert bundler.unrepresentable(centred_pinhole(camera_of(model))) is None


def test_pmvs_and_lists_see_what_colmap_sees() -> None:
    """PMVS projects by the matrix alone; ``lists.txt`` names K row by row; visibility counts shared points."""
    camera = camera_of("PINHOLE")
    scene = make_scene([camera]).renamed({})
    for row, view in enumerate(scene.views):
        xyz, xy = seen(scene, row)
        homogeneous = np.column_stack([xyz, np.ones(len(xyz))]) @ pmvs.projection(scene, view).T
        np.testing.assert_allclose(homogeneous[:, :2] / homogeneous[:, 2:], xy, atol=1e-6)
    lines = pmvs.to_lists(scene).splitlines()
    fields = lines[3].split(";")
    assert fields[:3] == ["塔.jpg", "320", "240"]
    np.testing.assert_allclose([float(one) for one in fields[3:]], [210, 0, 158.3, 0, 214, 121.1, 0, 0, 1])
    table = [[int(one) for one in line.split()] for line in pmvs.visibility(scene).splitlines()[2:]]
    points = [{int(p) for p, v, _ in scene.observations if v == row} for row in range(4)]
    for row, (index, count, *others) in enumerate(table):
        assert index == row
        shared = {other: len(points[row] & points[other]) for other in range(4) if other != row}
        assert set(others) == {other for other, number in shared.items() if number}
        assert count == len(others)
        assert [shared[other] for other in others] == sorted((shared[o] for o in others), reverse=True)
    with pytest.raises(ValueError, match="OPENCV"):
        pmvs.to_lists(make_scene([camera_of("OPENCV")]))


def test_unrepresentable_cameras_are_named() -> None:
    rational = camera_of("FULL_OPENCV")
    rational = type(rational)("FULL_OPENCV", (*rational.params[:9], 0.1, 0.0, 0.0), 320, 240)
    for room in (nerfstudio, openmvg, meshroom):
        assert room.unrepresentable(type(rational)("FOV", (1.0,) * 5, 320, 240)) == "camera model FOV"
    for room, camera in ((nerfstudio, rational), (openmvg, square(rational)), (meshroom, rational)):
        assert "denominator" in str(room.unrepresentable(camera))
    assert openmvg.unrepresentable(camera_of("PINHOLE")) == "two focal lengths"
