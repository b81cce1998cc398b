"""A scene with exact projections by COLMAP's own camera models, and a workspace that holds it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pycolmap

from recon.core.cameras import Intrinsics
from recon.core.colmap import camera_from_intrinsics, points_from_colmap
from recon.exports.scene import Scene, SceneView, reconstruction_from_scene
from recon.photos.types import Photo, PhotoSet

PARAMS: dict[str, tuple[float, ...]] = {
    "SIMPLE_PINHOLE": (210.0, 158.3, 121.1),
    "PINHOLE": (210.0, 214.0, 158.3, 121.1),
    "SIMPLE_RADIAL": (210.0, 158.3, 121.1, -0.06),
    "RADIAL": (210.0, 158.3, 121.1, -0.06, 0.012),
    "OPENCV": (210.0, 214.0, 158.3, 121.1, -0.06, 0.012, 0.0011, -0.0007),
    "FULL_OPENCV": (210.0, 214.0, 158.3, 121.1, -0.06, 0.012, 0.0011, -0.0007, 0.004, 0.0, 0.0, 0.0),
    "OPENCV_FISHEYE": (210.0, 214.0, 158.3, 121.1, -0.02, 0.004, -0.001, 0.0003),
    "SIMPLE_RADIAL_FISHEYE": (210.0, 158.3, 121.1, -0.02),
    "RADIAL_FISHEYE": (210.0, 158.3, 121.1, -0.02, 0.004),
}

NAMES = ("süd seite/bild 1.jpg", "süd seite/bild 2.jpg", "nord/bild 1.jpg", "塔.jpg")


def camera_of(model: str, width: int = 320, height: int = 240) -> Intrinsics:
    return Intrinsics(model, PARAMS[model], width, height, True, True)


def square(camera: Intrinsics) -> Intrinsics:
    """The same camera with one focal length, for formats that have no more."""
    if camera.model in {"PINHOLE", "OPENCV", "FULL_OPENCV", "OPENCV_FISHEYE"}:
        return replace(camera, params=(camera.params[0], camera.params[0], *camera.params[2:]))
    return camera


def look_at(centre: np.ndarray, target: np.ndarray, up: np.ndarray) -> np.ndarray:
    """cam_from_world of an upright camera."""
    z = (target - centre) / np.linalg.norm(target - centre)
    x = np.cross(z, up)
    x /= np.linalg.norm(x)
    R = np.stack([x, np.cross(z, x), z])
    return np.column_stack([R, -R @ centre])


def pixels(camera: Intrinsics, pose: np.ndarray, xyz: np.ndarray) -> np.ndarray:
    """Where COLMAP sees world points, in recon's convention."""
    inside = xyz @ pose[:, :3].T + pose[:, 3]
    found = camera_from_intrinsics(camera).img_from_cam(np.ascontiguousarray(inside))
    return points_from_colmap(np.asarray(found, np.float64))


def make_scene(cameras: list[Intrinsics], count: int = 40, seed: int = 0) -> Scene:
    """Four cameras in a ring look at random points, z is up; every camera sees most of them."""
    rng = np.random.default_rng(seed)
    xyz = rng.uniform(-0.8, 0.8, (count, 3)) * [1.0, 1.0, 0.8]
    views, observations = [], []
    for row, angle in enumerate(np.radians([-40.0, -10.0, 15.0, 45.0])):
        centre = np.array([4.0 * np.sin(angle), -4.0 * np.cos(angle), 0.4 + 0.3 * row])
        pose = look_at(centre, np.zeros(3), np.array([0.0, 0.0, 1.0]))
        index = row % len(cameras)
        seen = np.sort(rng.permutation(count)[: count - 6])
        xy = pixels(cameras[index], pose, xyz[seen])
        extra = rng.uniform(0, 200, (3, 2))  # features that no point explains
        views.append(SceneView(NAMES[row], index, pose, np.concatenate([extra, xy])))
        observations += [(int(point), row, 3 + i) for i, point in enumerate(seen)]
    rgb = rng.integers(0, 256, (count, 3)).astype(np.uint8)
    return Scene(tuple(cameras), tuple(views), xyz, rgb, np.array(sorted(observations), np.int64))


def assert_same_cameras(a: Scene, b: Scene, tolerance: float = 1e-6) -> None:
    """Same names, poses, sizes and, what counts, the same rays: whatever model the cameras are written in."""
    probe = np.random.default_rng(1).uniform([0, 0], [319, 239], (50, 2))
    assert [view.name for view in a.views] == [view.name for view in b.views]
    for one, two in zip(a.views, b.views, strict=True):
        np.testing.assert_allclose(two.cam_from_world, one.cam_from_world, atol=tolerance)
        before, after = a.intrinsics(one), b.intrinsics(two)
        assert (before.width, before.height) == (after.width, after.height)
        rays = [
            np.asarray(camera_from_intrinsics(camera).cam_from_img(probe + 0.5)) for camera in (before, after)
        ]
        np.testing.assert_allclose(rays[1], rays[0], atol=tolerance)


def assert_same_points(a: Scene, b: Scene, tolerance: float = 1e-6) -> None:
    """Same points, seen by the same views at the same pixels (keypoints may be numbered anew)."""
    np.testing.assert_allclose(b.xyz, a.xyz, atol=tolerance)
    assert len(a.observations) == len(b.observations)
    for track_a, track_b in zip(a.tracks(), b.tracks(), strict=True):
        assert track_a[:, 0].tolist() == track_b[:, 0].tolist()
        for (view, i), (_, j) in zip(track_a, track_b, strict=True):
            np.testing.assert_allclose(b.views[view].keypoints[j], a.views[view].keypoints[i], atol=1e-4)


SPOTS = np.array(
    [[0.36, -0.46, -0.83], [-1.26, 0.63, 0.74], [0.28, 0.46, 0.08], [1.25, 0.37, 0.27], [-0.04, 0.78, 0.78]]
)
"""World points that the photos of the workspace show as bright spots, well apart in each of them."""


def draw_spots(camera: Intrinsics, pose: np.ndarray) -> np.ndarray:
    """A grey photo with Gaussian spots exactly where the camera sees SPOTS."""
    xs, ys = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    out = np.full((camera.height, camera.width), 30.0)
    sigma = 0.012 * camera.width
    for x, y in pixels(camera, pose, SPOTS):
        out += 200.0 * np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * sigma**2))
    return np.repeat(np.rint(out.clip(0, 255)).astype(np.uint8)[..., None], 3, axis=2)


def spot_offset(rgb: np.ndarray, at: np.ndarray, radius: int) -> np.ndarray:
    """How far the centre of mass of the brightness round a place lies from it."""
    x, y = np.rint(at).astype(int)
    window = rgb[y - radius : y + radius + 1, x - radius : x + radius + 1, 0].astype(np.float64) - 30.0
    ys, xs = np.mgrid[y - radius : y + radius + 1, x - radius : x + radius + 1]
    return np.array([(window * xs).sum(), (window * ys).sum()]) / window.sum() - at


def write_workspace(
    root: Path,
    cameras: list[Intrinsics],
    gps: list[tuple[float, float, float]] | None = None,
    mask_of: int | None = None,
) -> Scene:
    """A finished run: photos at working size, photos twice as large in their folder, model, points, mesh."""
    import open3d as o3d

    from recon.core.mesh import FusedCloud
    from recon.io.manifest import FORMAT
    from recon.io.surfaces import write_mesh, write_points_ply
    from recon.run.photos import mask_file, photo_file, photo_set_to_json

    scene = make_scene(cameras)
    source = root.parent / "die fotos"
    (root / "photos").mkdir(parents=True)
    photos = []
    for row, view in enumerate(scene.views):
        camera = scene.intrinsics(view)
        rgb = draw_spots(camera, view.cam_from_world)
        (root / "photos" / photo_file(view.name)).write_bytes(_png(rgb))
        large = camera.resized(2 * camera.width, 2 * camera.height)
        path = source / view.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_jpg(draw_spots(large, view.cam_from_world)))
        if row == mask_of:
            mask = np.full((camera.height, camera.width, 3), 255, np.uint8)
            mask[:20] = 0
            (root / "photos" / mask_file(view.name)).write_bytes(_png(mask))
        photos.append(
            Photo(
                row,
                view.name,
                f"{row:064d}",
                camera.width,
                camera.height,
                large.width,
                large.height,
                view.camera,
                row == mask_of,
                gps[row] if gps else None,
            )
        )
    photo_set = PhotoSet(tuple(photos), tuple(cameras))
    (root / "photos.json").write_text(json.dumps(photo_set_to_json(photo_set)), encoding="utf-8")
    manifest = {"format": FORMAT, "source": str(source), "source_fingerprint": "", "run": {}, "stages": {}}
    (root / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (root / "sparse" / "0").mkdir(parents=True)
    reconstruction_from_scene(scene).write_binary(root / "sparse" / "0")
    (root / "dense").mkdir()
    rng = np.random.default_rng(5)
    n = 500
    normals = rng.normal(size=(n, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    cloud = FusedCloud(
        rng.uniform(-1, 1, (n, 3)).astype(np.float32),
        normals,
        rng.integers(0, 256, (n, 3)).astype(np.uint8),
        np.full(n, 3, np.uint16),
        np.zeros(n, np.int32),
        np.ones(n, np.float32),
    )
    write_points_ply(root / "dense" / "points.ply", cloud)
    (root / "mesh").mkdir()
    mesh = o3d.geometry.TriangleMesh.create_box(1.0, 0.5, 0.25)
    mesh.compute_vertex_normals()
    mesh.vertex_colors = o3d.utility.Vector3dVector(rng.uniform(size=(8, 3)))
    write_mesh(root / "mesh" / "mesh.ply", mesh)
    return scene


def read_rgb(path: Path) -> np.ndarray:
    """A picture file; paths with any letters."""
    return cv2.cvtColor(
        cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
    )


def model_of(folder: Path) -> pycolmap.Reconstruction:
    return pycolmap.Reconstruction(str(folder))


def _png(rgb: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", rgb[:, :, ::-1])[1])


def _jpg(rgb: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".jpg", rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])[1])
