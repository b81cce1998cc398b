"""Every reader against a small scene, written here as its publisher writes it.

The same three cameras look at the same four points; what a reader says of the pixels must agree with what the
publisher's own formula says, up to the shift between the pixel conventions.
"""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.path import Path as Polygon
from scipy.io import savemat

from recon.datasets.ground_truth import has_ground_truth, load_ground_truth
from recon.datasets.readers.dtu import split_projection
from recon.datasets.readers.mvsnet import read_pfm
from recon.datasets.readers.tanks_and_temples import in_polygon
from recon.errors import ReconError
from recon.io.flo import read_true_flow
from tests.support import dataset_scene as scene
from tests.support.dataset_scene import CENTERS, HEIGHT, POINTS, ROTATIONS, WIDTH, K, row

NAMES = ["0000.jpg", "0001.jpg", "0002.jpg"]


def check_cameras(truth: object, names: list[str]) -> None:
    assert sorted(truth.cameras) == sorted(names)  # type: ignore[attr-defined]
    for i, name in enumerate(names):
        camera = truth.cameras[name]  # type: ignore[attr-defined]
        np.testing.assert_allclose(scene.seen_by(camera), scene.pixels(i), atol=1e-6)
        assert (camera.width, camera.height) == (WIDTH, HEIGHT)
        assert np.linalg.det(camera.cam_from_world[:, :3]) == pytest.approx(1)


def extrinsic(i: int) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = ROTATIONS[i]
    pose[:3, 3] = -ROTATIONS[i] @ CENTERS[i]
    return pose


# ---- Strecha -------------------------------------------------------------------------------------


def write_strecha(folder: Path) -> None:
    scene.write_images(folder / "images", NAMES)
    (folder / "gt_dense_cameras").mkdir()
    for i, name in enumerate(NAMES):
        lines = [row(r) for r in K] + ["0 0 0"]
        # The file turns the camera's axes into the world's.
        lines += [row(r) for r in ROTATIONS[i].T] + [row(CENTERS[i]), f"{WIDTH} {HEIGHT}"]
        (folder / "gt_dense_cameras" / f"{name}.camera").write_text("\n".join(lines) + "\n")


def test_strecha(tmp_path: Path) -> None:
    write_strecha(tmp_path)
    truth = load_ground_truth(tmp_path)
    assert (truth.layout, truth.unit_in_metres) == ("strecha", 1.0)
    check_cameras(truth, NAMES)


def test_strecha_of_resized_photos(tmp_path: Path) -> None:
    write_strecha(tmp_path)
    scene.write_images(tmp_path / "images", NAMES, (WIDTH // 2, HEIGHT // 2))
    truth = load_ground_truth(tmp_path)
    for i, name in enumerate(NAMES):
        expected = (scene.pixels(i) + 0.5) / 2 - 0.5
        np.testing.assert_allclose(scene.seen_by(truth.cameras[name]), expected, atol=1e-9)


def test_a_real_strecha_file(shared_data: Path, tmp_path: Path) -> None:
    """The publisher's file of Herz-Jesus-P8's first photo against the uniform cameras.json made of it."""
    import shutil

    folder = shared_data / "datasets" / "strecha" / "Herz-Jesus-P8"
    (tmp_path / "images").mkdir()
    (tmp_path / "gt_dense_cameras").mkdir()
    shutil.copyfile(folder / "images" / "0000.jpg", tmp_path / "images" / "0000.jpg")
    (tmp_path / "gt_dense_cameras" / "0000.jpg.camera").write_text(
        "2759.48 0 1520.69 \n0 2764.16 1006.81 \n0 0 1 \n0 0 0\n-0.0552 0.132982 0.98958 \n"
        "0.998433 0.0164966 0.0534769 \n-0.00921322 0.990981 -0.133684 \n-6.71999 -14.2551 0.279539 \n3072 2048\n"
    )
    read, uniform = (load_ground_truth(place).cameras["0000.jpg"] for place in (tmp_path, folder))
    np.testing.assert_allclose(read.K, uniform.K, atol=1e-9)
    np.testing.assert_allclose(read.cam_from_world, uniform.cam_from_world, atol=1e-9)


def test_strecha_damaged(tmp_path: Path) -> None:
    write_strecha(tmp_path)
    path = tmp_path / "gt_dense_cameras" / "0001.jpg.camera"
    whole = path.read_text()
    for text, message in (
        (whole[:60], "26 are expected"),
        (whole.replace("0 0 0", "0 0 x"), "numbers"),
        (whole.replace("0 0 0", "0 0 nan"), "finite"),
        (whole.replace(f"{WIDTH} {HEIGHT}", "0 0"), "0x0"),
    ):
        path.write_text(text)
        with pytest.raises(ReconError, match=message):
            load_ground_truth(tmp_path)
    path.write_text(whole)
    (tmp_path / "images" / "0001.jpg").unlink()
    with pytest.raises(ReconError, match=r"0001\.jpg"):
        load_ground_truth(tmp_path)


# ---- COLMAP and ETH3D ----------------------------------------------------------------------------


def quaternion(R: np.ndarray) -> np.ndarray:
    """(w, x, y, z), by the largest eigenvector of Shepperd's matrix."""
    from scipy.spatial.transform import Rotation

    x, y, z, w = Rotation.from_matrix(R).as_quat()
    return np.array([w, x, y, z])


def write_colmap(folder: Path, camera: str, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cameras.txt").write_text(f"# Camera list\n7 {camera}\n")
    lines = ["# Image list with two lines of data per image:"]
    for i, name in enumerate(names):
        lines.append(f"{i + 3} {row(quaternion(ROTATIONS[i]))} {row(-ROTATIONS[i] @ CENTERS[i])} 7 {name}")
        lines.append("1.5 2.5 -1 3.5 4.5 12" if i == 1 else "")
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    (folder / "points3D.txt").write_text("# empty\n")


PINHOLE = f"PINHOLE {WIDTH} {HEIGHT} {K[0, 0]} {K[1, 1]} {K[0, 2] + 0.5} {K[1, 2] + 0.5}"
"""COLMAP counts from the corner of the top-left pixel."""


def test_colmap_text_and_binary(tmp_path: Path) -> None:
    import pycolmap

    scene.write_images(tmp_path / "images", NAMES)
    write_colmap(tmp_path / "sparse" / "0", PINHOLE, NAMES)
    truth = load_ground_truth(tmp_path)
    assert (truth.layout, truth.unit_in_metres) == ("colmap", None)
    check_cameras(truth, NAMES)
    other = tmp_path / "other"
    scene.write_images(other / "images", NAMES)
    (other / "sparse").mkdir()
    # Point 12 is not in the model: COLMAP itself wants it gone.
    images = tmp_path / "sparse" / "0" / "images.txt"
    images.write_text(images.read_text().replace(" 12\n", " -1\n"))
    pycolmap.Reconstruction(tmp_path / "sparse" / "0").write_binary(other / "sparse")
    check_cameras(load_ground_truth(other), NAMES)


def test_colmap_damaged(tmp_path: Path) -> None:
    write_colmap(tmp_path, "PINHOLE 24 16 20", NAMES)
    with pytest.raises(ReconError, match=r"parameters|COLMAP"):
        load_ground_truth(tmp_path)
    (tmp_path / "cameras.txt").write_text("7 NO_SUCH_MODEL 24 16 20 12 8\n")
    with pytest.raises(ReconError, match=r"cameras\.txt"):
        load_ground_truth(tmp_path)
    (tmp_path / "cameras.txt").write_text(f"8 {PINHOLE}\n")
    with pytest.raises(ReconError, match=r"images\.txt"):
        load_ground_truth(tmp_path)


FISHEYE = [19.0, 19.5, 12.1, 8.2, 0.02, 0.003, 0.001, -0.002, 0.001, 0.0, 0.002, -0.001]
"""fx fy cx cy k1 k2 p1 p2 k3 k4 sx1 sy1."""


def distort(xy: np.ndarray) -> np.ndarray:
    """THIN_PRISM_FISHEYE as ETH3D's documentation writes it; to COLMAP's pixels."""
    fx, fy, cx, cy, k1, k2, p1, p2, k3, k4, sx1, sy1 = FISHEYE
    r = np.linalg.norm(xy, axis=-1, keepdims=True)
    u, v = np.moveaxis(np.where(r > 1e-12, np.arctan(r) / np.maximum(r, 1e-12), 1.0) * xy, -1, 0)
    t2 = u * u + v * v
    radial = k1 * t2 + k2 * t2**2 + k3 * t2**3 + k4 * t2**4
    du = u * radial + 2 * p1 * u * v + p2 * (t2 + 2 * u * u) + sx1 * t2
    dv = v * radial + 2 * p2 * u * v + p1 * (t2 + 2 * v * v) + sy1 * t2
    return np.stack([fx * (u + du) + cx, fy * (v + dv) + cy], axis=-1)


def plane_depth(rays: np.ndarray) -> np.ndarray:
    """z where a ray (x, y, 1) meets the plane z = 3 + 0.2 x - 0.1 y of the camera."""
    return 3 / (1 - 0.2 * rays[..., 0] + 0.1 * rays[..., 1])


def write_eth3d(folder: Path) -> None:
    plain = [f"dslr_images_undistorted/{name}" for name in NAMES]
    scene.write_images(folder / "images", plain)
    write_colmap(folder / "dslr_calibration_undistorted", PINHOLE, plain)
    bent = [f"dslr_images/{name}" for name in NAMES]
    write_colmap(
        folder / "dslr_calibration_jpg", f"THIN_PRISM_FISHEYE {WIDTH} {HEIGHT} {row(np.array(FISHEYE))}", bent
    )
    # The ray of every pixel of the original, by Newton's method on the documented formula.
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    goal = np.stack([x, y], -1).reshape(-1, 2)
    rays = (goal - FISHEYE[2:4]) / FISHEYE[:2]
    for _ in range(20):
        step = np.stack([(distort(rays + d) - distort(rays - d)) / 2e-5 for d in np.eye(2) * 1e-5], -1)
        rays = rays - np.linalg.solve(step, (distort(rays) - goal)[..., None])[..., 0]
    depth = plane_depth(rays).reshape(HEIGHT, WIDTH).astype("<f4")
    depth[0, :] = np.inf
    (folder / "ground_truth_depth" / "dslr_images").mkdir(parents=True)
    depth.tofile(folder / "ground_truth_depth" / "dslr_images" / NAMES[0])
    move = np.eye(4)
    move[:3, :3], move[:3, 3] = scene.turn((0, 0, 1), 90), (1, 2, 3)
    scene.write_ply(folder / "dslr_scan_eval" / "scan1.ply", POINTS)
    scene.write_ply(folder / "dslr_scan_eval" / "scan2.ply", (POINTS - move[:3, 3]) @ move[:3, :3])
    meshes = "".join(
        f' <MLMesh label="{name}" filename="{name}"><MLMatrix44>\n{row(matrix)} \n</MLMatrix44></MLMesh>\n'
        for name, matrix in (("scan1.ply", np.eye(4)), ("scan2.ply", move))
    )
    (folder / "dslr_scan_eval" / "scan_alignment.mlp").write_text(
        f"<!DOCTYPE MeshLabDocument>\n<MeshLabProject>\n<MeshGroup>\n{meshes}</MeshGroup>\n</MeshLabProject>\n"
    )


def test_eth3d(tmp_path: Path) -> None:
    write_eth3d(tmp_path)
    truth = load_ground_truth(tmp_path)
    assert (truth.layout, truth.unit_in_metres) == ("eth3d", 1.0)
    assert truth.images == tmp_path / "images" / "dslr_images_undistorted"
    check_cameras(truth, NAMES)
    # The second scan lies elsewhere and is moved to where the first is.
    points = truth.load_points()
    np.testing.assert_allclose(points[:4], POINTS, atol=1e-6)
    np.testing.assert_allclose(points[4:], POINTS, atol=1e-5)
    assert truth.depth is not None
    depth = truth.depth(NAMES[0])
    assert depth is not None
    assert truth.depth(NAMES[1]) is None
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(K).T
    exact = plane_depth(rays[..., :2])
    known = depth > 0
    assert known.mean() > 0.6
    # The nearest pixel of the original is at most half its diagonal away.
    gradient = np.hypot(*np.gradient(exact)).max()
    assert np.abs(depth - exact)[known].max() < gradient
    # Taking the original's pixels as they are would be wrong by more than that.
    raw = np.fromfile(tmp_path / "ground_truth_depth" / "dslr_images" / NAMES[0], "<f4").reshape(
        HEIGHT, WIDTH
    )
    raw[~np.isfinite(raw)] = 0
    assert np.abs(raw - exact)[known].max() > gradient


def test_eth3d_originals(tmp_path: Path) -> None:
    import shutil

    write_eth3d(tmp_path)
    shutil.move(tmp_path / "images" / "dslr_images_undistorted", tmp_path / "images" / "dslr_images")
    truth = load_ground_truth(tmp_path)
    assert truth.images == tmp_path / "images" / "dslr_images"
    camera = truth.cameras[NAMES[0]]
    assert camera.intrinsics.model == "THIN_PRISM_FISHEYE"
    np.testing.assert_allclose(camera.intrinsics.params[4:], FISHEYE[4:])
    np.testing.assert_allclose(camera.K[:2, 2], np.array(FISHEYE[2:4]) - 0.5)
    assert truth.depth is not None
    depth = truth.depth(NAMES[0])
    assert depth is not None
    assert (depth[0] == 0).all()
    assert (depth[1:] > 0).all()
    (tmp_path / "ground_truth_depth" / "dslr_images" / NAMES[0]).write_bytes(b"1234")
    with pytest.raises(ReconError, match="24x16"):
        truth.depth(NAMES[0])


def test_eth3d_damaged(tmp_path: Path) -> None:
    write_eth3d(tmp_path)
    project = tmp_path / "dslr_scan_eval" / "scan_alignment.mlp"
    text = project.read_text()
    for damaged, message in (
        (text.replace("scan2", "scan3"), "scan3"),
        (text[:90], "MeshLab"),
        (text.replace("<MLMatrix44>", "<MLMatrix44>1 "), "17 numbers"),
    ):
        project.write_text(damaged)
        with pytest.raises(ReconError, match=message):
            load_ground_truth(tmp_path)


# ---- MVSNet, BlendedMVS, DTU ---------------------------------------------------------------------


def write_cams(folder: Path, numbers: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, number in enumerate(numbers):
        lines = ["extrinsic", *(row(r) for r in extrinsic(i)), "", "intrinsic", *(row(r) for r in K), ""]
        lines.append("2.5 0.05 128 9.0")
        (folder / f"{number}_cam.txt").write_text("\n".join(lines) + "\n")


NUMBERS = ["00000000", "00000001", "00000002"]
PAIRS = "3\n0\n2 1 900.5 2 10.0\n1\n1 0 900.5\n2\n2 1 33 0 10.0\n"


def write_pfm(path: Path, image: np.ndarray, order: str = "<") -> None:
    """Rows from the bottom; the sign of the scale is the order of the bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "Pf" if image.ndim == 2 else "PF"
    head = f"{kind}\n{image.shape[1]} {image.shape[0]}\n{-1.0 if order == '<' else 1.0}\n"
    path.write_bytes(head.encode() + image[::-1].astype(f"{order}f4").tobytes())


def test_blended_mvs(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in NUMBERS]
    scene.write_images(tmp_path / "blended_images", [*names, "00000000_masked.jpg"])
    write_cams(tmp_path / "cams", NUMBERS)
    (tmp_path / "cams" / "pair.txt").write_text(PAIRS)
    depth = np.arange(1, WIDTH * HEIGHT + 1, dtype=np.float32).reshape(HEIGHT, WIDTH)
    depth[3, 4] = 0
    write_pfm(tmp_path / "rendered_depth_maps" / "00000001.pfm", depth)
    truth = load_ground_truth(tmp_path)
    assert (truth.layout, truth.unit_in_metres) == ("blendedmvs", None)
    check_cameras(truth, names)
    assert truth.depth is not None
    np.testing.assert_array_equal(truth.depth(names[1]), depth)
    assert truth.depth(names[0]) is None
    assert [(pair.a[7], pair.b[7]) for pair in truth.pairs] == [("0", "1"), ("0", "2"), ("1", "2")]
    pair = truth.pairs[2]
    in_a = (POINTS - CENTERS[1]) @ ROTATIONS[1].T
    in_b = (POINTS - CENTERS[2]) @ ROTATIONS[2].T
    np.testing.assert_allclose(in_a @ pair.b_from_a[:, :3].T + pair.b_from_a[:, 3], in_b, atol=1e-9)
    (tmp_path / "cams" / "pair.txt").write_text(PAIRS[:20])
    with pytest.raises(ReconError, match="cut short"):
        load_ground_truth(tmp_path)


def test_pfm(tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(size=(5, 7, 3)).astype(np.float32)
    write_pfm(tmp_path / "a.pfm", image, ">")
    np.testing.assert_array_equal(read_pfm(tmp_path / "a.pfm"), image)
    # OpenCV reads the same file, blue first.
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "a.pfm"), cv2.IMREAD_UNCHANGED), image[..., ::-1])
    data = (tmp_path / "a.pfm").read_bytes()
    for damaged in (data[:-1], b"P6" + data[2:], b"", b"Pf\nx y\n1\n"):
        (tmp_path / "b.pfm").write_bytes(damaged)
        with pytest.raises(ReconError, match=r"b\.pfm"):
            read_pfm(tmp_path / "b.pfm")


def test_mvsnet_form(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in NUMBERS]
    scene.write_images(tmp_path / "images", names)
    write_cams(tmp_path / "cams", NUMBERS)
    truth = load_ground_truth(tmp_path)
    assert truth.layout == "mvsnet"
    check_cameras(truth, names)
    (tmp_path / "cams" / "00000001_cam.txt").write_text("extrinsic 1 2 3")
    with pytest.raises(ReconError, match="00000001_cam"):
        load_ground_truth(tmp_path)


def write_dtu(root: Path) -> Path:
    scan = root / "Rectified" / "scan6"
    names = [f"rect_{i + 1:03d}_{light}.png" for i in range(3) for light in ("0_r5000", "3_r5000", "max")]
    scene.write_images(scan, names, (1600, 1200))
    (root / "Calibration" / "cal18").mkdir(parents=True)
    to_full = np.array([[1600 / WIDTH, 0, 0], [0, 1200 / HEIGHT, 0], [0, 0, 1]])
    shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    full = np.linalg.inv(shift) @ to_full @ shift @ K
    for i in range(3):
        P = -2.5 * full @ extrinsic(i)[:3]
        (root / "Calibration" / "cal18" / f"pos_{i + 1:03d}.txt").write_text(
            "\n".join(row(r) for r in P) + "\n"
        )
    scene.write_ply(root / "Points" / "stl" / "stl006_total.ply", POINTS)
    seen = np.zeros((4, 4, 4), np.uint8)
    seen[1, 2, 3] = 1
    (root / "ObsMask").mkdir()
    savemat(
        root / "ObsMask" / "ObsMask6_10.mat",
        {"ObsMask": seen, "BB": np.array([[10.0, 20, 30], [19, 29, 39]]), "Res": 3.0},
    )
    return scan


def test_dtu(tmp_path: Path) -> None:
    scan = write_dtu(tmp_path)
    truth = load_ground_truth(scan)
    assert (truth.layout, truth.unit_in_metres) == ("dtu", 0.001)
    assert sorted(truth.cameras) == [f"rect_{i}_3_r5000.png" for i in ("001", "002", "003")]
    for i, name in enumerate(sorted(truth.cameras)):
        small = truth.cameras[name].resized(WIDTH, HEIGHT)
        np.testing.assert_allclose(scene.seen_by(small), scene.pixels(i), atol=1e-6)
    np.testing.assert_allclose(truth.load_points(), POINTS, atol=1e-6)
    assert truth.region is not None
    asked = np.array(
        [[13, 26, 39], [14.4, 27.4, 40.4], [14.6, 26, 39], [10, 20, 30], [0, 0, 0], [99, 26, 39.0]]
    )
    np.testing.assert_array_equal(truth.region(asked), [True, True, False, False, False, False])
    (tmp_path / "Calibration" / "cal18" / "pos_002.txt").write_text("1 2 3")
    with pytest.raises(ReconError, match="pos_002"):
        load_ground_truth(scan)


def test_dtu_sample_set_and_mvsnet_form(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in NUMBERS]
    scene.write_images(tmp_path / "scan6" / "images", names)
    write_cams(tmp_path / "scan6" / "cams", NUMBERS)
    (tmp_path / "scan6" / "pair.txt").write_text(PAIRS)
    scene.write_ply(tmp_path / "SampleSet" / "MVS Data" / "Points" / "stl" / "stl006_total.ply", POINTS)
    truth = load_ground_truth(tmp_path / "scan6")
    assert (truth.layout, len(truth.points), len(truth.pairs)) == ("dtu", 1, 3)
    check_cameras(truth, names)


def test_projection_matrices_are_split() -> None:
    rng = np.random.default_rng(4)
    for sign in (1.0, -3.0):
        camera = np.array([[900.0, 1.5, 310], [0, 880, 250], [0, 0, 1]])
        R = scene.turn(tuple(rng.normal(size=3)), 70)
        t = rng.normal(size=3)
        found = split_projection(sign * camera @ np.column_stack([R, t]), Path("x"))
        for a, b in zip(found, (camera, R, t), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-9)


# ---- Tanks and Temples ---------------------------------------------------------------------------


def write_barn(folder: Path) -> np.ndarray:
    scene.write_images(folder / "images", ["000001.jpg", "000002.jpg", "000003.jpg"])
    lines = []
    for i in range(3):
        lines += [f"{i} {i} 0", *(row(r) for r in np.linalg.inv(extrinsic(i)))]
    (folder / "Barn_COLMAP_SfM.log").write_text("\n".join(lines) + "\n")
    move = np.eye(4)
    move[:3, :3], move[:3, 3] = 1.7 * scene.turn((1, 2, 3), 40), (5, -6, 7)
    (folder / "Barn_trans.txt").write_text("\n".join(row(r) for r in move) + "\n")
    scene.write_ply(folder / "Barn.ply", POINTS @ move[:3, :3].T + move[:3, 3])
    crop = {
        "axis_max": 4.0,
        "axis_min": 1.0,
        "bounding_polygon": [[0, 0, 0], [0, 0, 4], [2, 0, 2], [4, 0, 4], [4, 0, 0]],
        "class_name": "SelectionPolygonVolume",
        "orthogonal_axis": "Y",
        "version_major": 1,
        "version_minor": 0,
    }
    (folder / "Barn.json").write_text(json.dumps(crop))
    (folder / "intrinsics.txt").write_text("\n".join(row(r) for r in K))
    return move


def test_tanks_and_temples(tmp_path: Path) -> None:
    """A point that is moved as the scan is, is seen by the moved cameras where it was seen before."""
    move = write_barn(tmp_path)
    truth = load_ground_truth(tmp_path)
    assert (truth.name, truth.layout, truth.unit_in_metres) == ("Barn", "tanks-and-temples", 1.0)
    points = truth.load_points().astype(float)
    np.testing.assert_allclose(points, POINTS @ move[:3, :3].T + move[:3, 3], atol=1e-5)
    for i, name in enumerate(sorted(truth.cameras)):
        np.testing.assert_allclose(scene.seen_by(truth.cameras[name], points), scene.pixels(i), atol=1e-4)
        depth_before = ((POINTS - CENTERS[i]) @ ROTATIONS[i].T)[:, 2]
        camera = truth.cameras[name]
        np.testing.assert_allclose(camera.to_camera(points)[:, 2], 1.7 * depth_before, atol=1e-4)
    assert truth.region is not None
    asked = np.array([[1, 2, 1], [1, 0.5, 1], [1, 4.5, 1], [2, 2, 3], [2, 2, 1.9], [3.9, 2, 3.8], [5, 2, 1]])
    np.testing.assert_array_equal(truth.region(asked), [True, False, False, False, True, True, False])


def test_tanks_and_temples_with_less(tmp_path: Path) -> None:
    write_barn(tmp_path)
    (tmp_path / "intrinsics.txt").unlink()
    (tmp_path / "Barn_trans.txt").unlink()
    truth = load_ground_truth(tmp_path)
    assert truth.unit_in_metres is None
    assert "0.607" in truth.note
    assert "Barn_trans.txt" in truth.note
    camera = truth.cameras["000001.jpg"]
    assert camera.K[0, 0] == pytest.approx(1166 * WIDTH / 1920)
    np.testing.assert_allclose(camera.center, CENTERS[0], atol=1e-9)
    (tmp_path / "images" / "000002.jpg").unlink()
    with pytest.raises(ReconError, match="2 photos"):
        load_ground_truth(tmp_path)
    (tmp_path / "Barn_COLMAP_SfM.log").write_text("0 0 0 1 2 3")
    with pytest.raises(ReconError, match="19"):
        load_ground_truth(tmp_path)


def test_polygon_against_matplotlib() -> None:
    rng = np.random.default_rng(1)
    polygon = rng.uniform(-1, 1, (9, 2))
    xy = rng.uniform(-1.2, 1.2, (4000, 2))
    # matplotlib fills by winding number: a star is compared by parity of crossings with simple polygons only.
    angle = np.sort(rng.uniform(0, 2 * np.pi, 9))
    polygon = np.stack([np.cos(angle), np.sin(angle)], 1) * rng.uniform(0.4, 1, (9, 1))
    np.testing.assert_array_equal(in_polygon(xy, polygon), Polygon(polygon).contains_points(xy))


# ---- Middlebury and KITTI ------------------------------------------------------------------------


def test_middlebury_stereo(tmp_path: Path) -> None:
    names = ["templeSR0001.png", "templeSR0002.png", "templeSR0003.png"]
    scene.write_images(tmp_path, names)
    lines = ["3"]
    for i, name in enumerate(names):
        lines.append(f"{name} {row(K)} {row(ROTATIONS[i])} {row(-ROTATIONS[i] @ CENTERS[i])}")
    (tmp_path / "templeSR_par.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "README.txt").write_text(
        "templeSparseRing data set\nThe (tight) bounding box for the temple model is\n"
        "(-0.45 0.05 -0.2)\n(0.2 0.3 0.4)\n"
    )
    truth = load_ground_truth(tmp_path)
    assert truth.layout == "middlebury-mvs"
    check_cameras(truth, names)
    assert truth.region is not None
    np.testing.assert_array_equal(truth.region(POINTS), [False, True, False, False])
    (tmp_path / "templeSR_par.txt").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(ReconError, match="promises 3 cameras and holds 2"):
        load_ground_truth(tmp_path)


def test_real_readme_of_middlebury(shared_data: Path) -> None:
    """The box of the README is the one that the uniform cameras.json was made with."""
    from recon.datasets.readers.middlebury import readme_box

    folder = shared_data / "datasets" / "middlebury_mvs" / "templeSparseRing"
    inside = readme_box(folder)
    uniform = load_ground_truth(folder).region
    assert inside is not None
    assert uniform is not None
    points = np.random.default_rng(0).uniform(-0.2, 0.3, (2000, 3))
    np.testing.assert_array_equal(inside(points), uniform(points))
    assert 0 < inside(points).sum() < 2000


def write_flo(path: Path, flow: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = np.array([flow.shape[1], flow.shape[0]], "<i4").tobytes()
    path.write_bytes(b"PIEH" + size + flow.astype("<f4").tobytes())


def test_middlebury_flow(tmp_path: Path) -> None:
    flow = np.random.default_rng(2).normal(size=(HEIGHT, WIDTH, 2)).astype(np.float32)
    stored = flow.copy()
    stored[2, 3, 1] = 1.666666752e9
    for home, truth_home in (("one", "one"), ("all/other-data/Grove2", "all/other-gt-flow/Grove2")):
        scene.write_images(tmp_path / home, ["frame10.png", "frame11.png"])
        write_flo(tmp_path / truth_home / "flow10.flo", stored)
    for folder, prefix in ((tmp_path / "one", ""), (tmp_path / "all", "Grove2/")):
        truth = load_ground_truth(folder)
        assert truth.flow_pairs == ((f"{prefix}frame10.png", f"{prefix}frame11.png"),)
        assert (truth.images / truth.flow_pairs[0][0]).is_file()
        assert truth.flow is not None
        found = truth.flow(*truth.flow_pairs[0])
        assert found is not None
        assert np.isnan(found[2, 3]).all()
        known = ~np.isnan(found)
        np.testing.assert_array_equal(found[known], flow[known])
        assert known.sum() == flow.size - 2
        assert truth.flow("a", "b") is None
    data = (tmp_path / "one" / "flow10.flo").read_bytes()
    for damaged in (data[:-4], b"XXXX" + data[4:], b"", data[:4] + b"\xff" * 8 + data[12:]):
        (tmp_path / "bad.flo").write_bytes(damaged)
        with pytest.raises(ReconError, match=r"bad\.flo"):
            read_true_flow(tmp_path / "bad.flo")


def test_real_flow_agrees_with_opencv(shared_data: Path) -> None:
    folder = shared_data / "datasets" / "flow_middlebury"
    truth = load_ground_truth(folder)
    assert len(truth.flow_pairs) == 4
    assert truth.flow is not None
    for a, b in truth.flow_pairs:
        mine = truth.flow(a, b)
        assert mine is not None
        other = cv2.readOpticalFlow(str(folder / Path(a).parent / "flow10.flo"))
        known = ~np.isnan(mine).any(axis=-1)
        np.testing.assert_array_equal(mine[known], other[known])
        assert (np.abs(other[~known]) > 1e9).any(axis=-1).all()


def test_kitti_flow(tmp_path: Path) -> None:
    u = np.arange(-12, 12, dtype=float)[None].repeat(HEIGHT, 0) / 4
    v = np.full((HEIGHT, WIDTH), 31.25)
    valid = np.ones((HEIGHT, WIDTH))
    valid[5] = 0
    bgr = np.stack([valid, v * 64 + 2**15, u * 64 + 2**15], -1).astype(np.uint16)
    (tmp_path / "flow_occ").mkdir()
    assert cv2.imwrite(str(tmp_path / "flow_occ" / "000007_10.png"), bgr)
    scene.write_images(tmp_path / "image_2", ["000007_10.png", "000007_11.png"])
    truth = load_ground_truth(tmp_path)
    assert truth.flow is not None
    flow = truth.flow("000007_10.png", "000007_11.png")
    assert flow is not None
    assert np.isnan(flow[5]).all()
    np.testing.assert_array_equal(np.delete(flow, 5, 0), np.delete(np.stack([u, v], -1), 5, 0))
    scene.write_images(tmp_path / "flow_occ", ["000007_10.png"])
    with pytest.raises(ReconError, match="KITTI"):
        truth.flow("000007_10.png", "000007_11.png")


# ---- lists of pairs ------------------------------------------------------------------------------


def relative() -> np.ndarray:
    return extrinsic(1) @ np.linalg.inv(extrinsic(0))


def check_pair(pair: object, shift: float) -> None:
    """Pixels in b of points that are known in the frame of a."""
    in_a = (POINTS - CENTERS[0]) @ ROTATIONS[0].T
    in_b = in_a @ pair.b_from_a[:, :3].T + pair.b_from_a[:, 3]  # type: ignore[attr-defined]
    image = in_b @ pair.K_b.T  # type: ignore[attr-defined]
    np.testing.assert_allclose(image[:, :2] / image[:, 2:], scene.pixels(1) - shift, atol=1e-6)
    image = in_a @ pair.K_a.T  # type: ignore[attr-defined]
    np.testing.assert_allclose(image[:, :2] / image[:, 2:], scene.pixels(0) - shift, atol=1e-6)


def test_pairs_of_superglue_and_glue_factory(tmp_path: Path) -> None:
    T = relative()
    tails = {
        "superglue": f"0 3 {row(K)} {row(K)} {row(T)}",
        "glue-factory": f"{row(K)} {row(K)} {row(T[:3, :3])} {row(T[:3, 3])}",
        "with a 4x4": f"{row(K)} {row(K)} {row(T)}",
    }
    for kind, tail in tails.items():
        folder = tmp_path / kind
        scene.write_images(folder, ["x/a.jpg", "x/b.jpg"])
        (folder / "pairs_calibrated.txt").write_text(f"# header\nx/a.jpg x/b.jpg {tail}\n\n")
        truth = load_ground_truth(folder)
        assert (truth.layout, len(truth.pairs), truth.images) == ("pairs", 1, folder)
        assert truth.pairs[0].turns_b == (3 if kind == "superglue" else 0)
        check_pair(truth.pairs[0], 0.0)
        assert load_ground_truth(folder / "pairs_calibrated.txt").pairs[0].a == "x/a.jpg"
    (tmp_path / "superglue" / "pairs_calibrated.txt").write_text(
        f"x/a.jpg x/b.jpg {tails['superglue']}\nx/a.jpg x/b.jpg 1 2 3\n"
    )
    with pytest.raises(ReconError, match="columns"):
        load_ground_truth(tmp_path / "superglue")


def test_a_line_of_the_real_scannet_list(tmp_path: Path) -> None:
    """K of SuperGlue's list is for the photos as they are, 1296x968; the pose moves by metres."""
    (tmp_path / "pairs.txt").write_text(
        "scene0711_00_frame-001680.jpg scene0711_00_frame-001995.jpg 0 0 1163.45     0.     653.626    0.    1164.79   "
        "481.6      0.       0.       1.    1163.45     0.     653.626    0.    1164.79   481.6      0.       0.       "
        "1.     0.78593 -0.35128  0.50884 -1.51061  0.39215  0.91944  0.02904 -0.05367 -0.47805  0.17672  0.86037  "
        "0.056    0.       0.       0.       1.\n"
    )
    scene.write_images(tmp_path, ["scene0711_00_frame-001680.jpg"], (1296, 968))
    truth = load_ground_truth(tmp_path)
    assert (truth.unit_in_metres, truth.images) == (1.0, tmp_path)
    np.testing.assert_array_equal(truth.pairs[0].K_a[0], [1163.45, 0, 653.626])
    np.testing.assert_array_equal(truth.pairs[0].b_from_a[:, 3], [-1.51061, -0.05367, 0.056])


def objects(values: list[object]) -> np.ndarray:
    out = np.empty(len(values), object)
    out[:] = values
    return out


def test_megadepth_1500(tmp_path: Path) -> None:
    """As LoFTR shares it: arrays of objects; K counts from the corner of the top-left pixel."""
    home = tmp_path / "megadepth_test_1500_scene_info"
    home.mkdir()
    names: list[object] = [f"Undistorted_SfM/0015/images/{i}.jpg" for i in range(3)]
    infos = objects([(np.array([0, 1]), 0.25, [1, 2]), (np.array([1, 2]), 0.15, [3])])
    for scene_name in ("0015_0.1_0.3", "0022_0.3_0.5"):
        np.savez(
            home / f"{scene_name}.npz",
            image_paths=objects([*names, None]),
            intrinsics=objects([K, K, K, None]),
            poses=objects([*(extrinsic(i) for i in range(3)), None]),
            pair_infos=infos,
        )
    truth = load_ground_truth(home)
    assert len(truth.pairs) == 4
    assert truth.pairs[0].overlap == 0.25
    check_pair(truth.pairs[0], 0.5)
    assert truth.unit_in_metres is None
    assert len(load_ground_truth(home / "0015_0.1_0.3.npz").pairs) == 2


def test_scannet_1500(tmp_path: Path) -> None:
    """As LoFTR shares it; K is for 640x480 pixels and follows the photos' size."""
    full = np.array(
        [[640 / WIDTH, 0, 0.5 * (640 / WIDTH - 1)], [0, 480 / HEIGHT, 0.5 * (480 / HEIGHT - 1)], [0, 0, 1]]
    )
    np.savez(
        tmp_path / "test.npz",
        name=np.array([[707, 0, 15, 585]]),
        rel_pose=relative()[None, :3].reshape(1, 12),
    )
    np.savez(tmp_path / "intrinsics.npz", scene0707_00=full @ K)
    scene.write_images(
        tmp_path / "scannet_test_1500", ["scene0707_00/color/15.jpg", "scene0707_00/color/585.jpg"]
    )
    truth = load_ground_truth(tmp_path)
    assert truth.images == tmp_path / "scannet_test_1500"
    assert (truth.pairs[0].a, truth.unit_in_metres) == ("scene0707_00/color/15.jpg", 1.0)
    check_pair(truth.pairs[0], 0.0)
    np.savez(tmp_path / "intrinsics.npz", scene0001_00=full @ K)
    with pytest.raises(ReconError, match="scene0707_00"):
        load_ground_truth(tmp_path)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, ("evil",))


def test_lists_of_pairs_run_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "0015_0.1_0.3.npz"
    np.savez(path, image_paths=objects([Evil()]), intrinsics=K, poses=K, pair_infos=objects([1]))
    assert has_ground_truth(tmp_path)
    with pytest.raises(ReconError, match="not allowed"):
        load_ground_truth(tmp_path)
    assert not (tmp_path / "evil").exists()
    # The file is what it says: an ordinary unpickler would have run it.
    pickle.loads(pickle.dumps(Evil()))
    assert (tmp_path / "evil").exists()
    path.write_bytes(b"not a zip")
    with pytest.raises(ReconError, match="0015"):
        load_ground_truth(tmp_path)
