"""A rendered scene as a run that has ended: true cameras, tracks with noise, depth maps with noise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from recon.core.cameras import Intrinsics, PinholeView
from recon.core.colmap import camera_from_intrinsics, points_to_colmap, pycolmap
from recon.dense.types import DepthMap
from recon.io.manifest import FORMAT
from recon.io.pictures import encode_picture
from recon.photos.types import Photo, PhotoSet
from recon.run.folder import DEPTH, DEPTH_SIZE, write_depth
from recon.run.photos import PHOTO_SET, PHOTOS, photo_file, photo_set_to_json

# A track is seen where its depth is that of the photo's depth map to within this part.
_SAME_DEPTH = 0.005


def write_true_run(
    root: Path,
    views: Sequence[PinholeView],
    images: Sequence[UInt8[np.ndarray, "h w 3"]],
    depths: Sequence[Float32[np.ndarray, "h w"]],
    *,
    tracks: int = 1500,
    noise_px: float = 0.3,
    depth_noise: float = 0.0,
    seed: int = 0,
    gps: Sequence[tuple[float, float, float]] | None = None,
) -> None:
    """Write a workspace whose stages as far as depth hold the truth.

    Args:
        root: its folder, which must not exist.
        depths: exact z-depth, 0 where nothing is met.
        tracks: points on the surface that become tracks; their observations have the noise ``noise_px`` per axis.
        depth_noise: standard deviation of the depth, as a part of it.
        gps: latitude, longitude and altitude of each photo.
    """
    rng = np.random.default_rng(seed)
    first = views[0]
    params = (first.K[0, 0], first.K[1, 1], first.K[0, 2], first.K[1, 2])
    camera = Intrinsics("PINHOLE", tuple(float(v) for v in params), first.width, first.height, True, True)
    (root / PHOTOS).mkdir(parents=True)
    (root / DEPTH).mkdir(parents=True)
    photos = []
    for i, (view, rgb, depth) in enumerate(zip(views, images, depths, strict=True)):
        (root / PHOTOS / photo_file(view.name)).write_bytes(encode_picture(rgb))
        size = (view.width, view.height)
        place = gps[i] if gps is not None else None
        photos.append(Photo(i, view.name, f"{i:064d}", *size, *size, 0, False, place))
        noisy = depth * (1 + depth_noise * rng.standard_normal(depth.shape)).astype(np.float32)
        known = (depth > 0).astype(np.float32)
        facing = np.dstack([0 * known, 0 * known, -known])
        write_depth(root / DEPTH / f"{i}.npz", DepthMap(noisy.astype(np.float32), facing, known))
    (root / DEPTH / DEPTH_SIZE).write_text(json.dumps({"max_size": max(first.width, first.height)}))
    photo_set = PhotoSet(tuple(photos), (camera,))
    (root / PHOTO_SET).write_text(json.dumps(photo_set_to_json(photo_set)), encoding="utf-8")
    manifest = {"format": FORMAT, "source": "", "source_fingerprint": "", "run": {}, "stages": {}}
    (root / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    model = root / "sparse" / "0"
    model.mkdir(parents=True)
    _model(camera, views, depths, tracks, noise_px, rng).write(model)


def _model(
    camera: Intrinsics,
    views: Sequence[PinholeView],
    depths: Sequence[Float32[np.ndarray, "h w"]],
    tracks: int,
    noise_px: float,
    rng: np.random.Generator,
) -> pycolmap.Reconstruction:
    xyz = np.concatenate(
        [_surface_points(v, d, -(-tracks // len(views)), rng) for v, d in zip(views, depths, strict=True)]
    )
    made = pycolmap.Reconstruction()
    made.add_camera_with_trivial_rig(camera_from_intrinsics(camera, 1))
    elements: list[list[pycolmap.TrackElement]] = [[] for _ in xyz]
    for i, (view, depth) in enumerate(zip(views, depths, strict=True)):
        pixel, z = view.project(xyz)
        nearest = np.rint(pixel).astype(int)
        inside = (z > 0) & (nearest >= 0).all(axis=1) & (nearest < (view.width, view.height)).all(axis=1)
        rows = np.flatnonzero(inside)
        there = depth[nearest[rows, 1], nearest[rows, 0]]
        rows = rows[np.abs(there - z[rows]) < _SAME_DEPTH * z[rows]]
        seen = pixel[rows] + rng.normal(0, noise_px, (len(rows), 2))
        image = pycolmap.Image(
            name=view.name,
            keypoints=np.ascontiguousarray(points_to_colmap(seen)),
            camera_id=1,
            image_id=i + 1,
        )
        made.add_image_with_trivial_frame(image, pycolmap.Rigid3d(view.cam_from_world))
        for k, row in enumerate(rows.tolist()):
            elements[row].append(pycolmap.TrackElement(i + 1, k))
    for point, track in zip(xyz, elements, strict=True):
        if len(track) >= 2:
            made.add_point3D(point, pycolmap.Track(track), np.full(3, 128, np.uint8))
    return made


def _surface_points(
    view: PinholeView, depth: Float32[np.ndarray, "h w"], count: int, rng: np.random.Generator
) -> Float64[np.ndarray, "n 3"]:
    rows, columns = np.nonzero(depth > 0)
    chosen = rng.choice(len(rows), min(count, len(rows)), replace=False)
    x, y = columns[chosen], rows[chosen]
    z = depth[y, x].astype(np.float64)
    rays = np.stack(
        [(x - view.K[0, 2]) / view.K[0, 0], (y - view.K[1, 2]) / view.K[1, 1], np.ones(len(x))], -1
    )
    return np.asarray((rays * z[:, None]) @ view.cam_from_world[:, :3] + view.center)
