"""A rendered scene and a run of it that is made by hand, file by file, so that every error in it is known."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from recon.core.cameras import PinholeView
from recon.core.mesh import FusedCloud, Mesh
from recon.core.raycasting import cast_view, ray_scene, render_vertex_colors
from recon.core.similarity import Similarity3, camera_center
from recon.datasets.ground_truth import GroundTruth, true_camera
from recon.dense.types import DepthMap
from recon.io.surfaces import write_points_ply
from recon.matching.types import DenseMatch, FlowField, SparseMatch
from recon.run.folder import write_depth
from recon.run.matches import save_sparse_match, write_dense_match
from recon.synthetic.paths import look_at, pinhole_views
from recon.synthetic.shapes import height_field_mesh

RUN_FROM_TRUTH = Similarity3(
    0.4, Rotation.from_euler("xyz", [0.3, -0.5, 1.1]).as_matrix(), np.array([3.0, -2.0, 5.0])
)
"""The run's world is another one than the truth's."""
NAMES = tuple(f"{i:04d}.png" for i in range(5))


def relief(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    return 0.08 * np.sin(3 * x) * np.cos(2.5 * z)


@dataclass(frozen=True)
class Scene:
    """A textured relief two units wide and five cameras before it."""

    mesh: Mesh
    views: tuple[PinholeView, ...]
    photos: tuple[np.ndarray, ...]
    depths: tuple[np.ndarray, ...]
    truth: GroundTruth


def make_scene(folder: Path) -> Scene:
    mesh = height_field_mesh(relief, (-1.0, 1.0), (-1.0, 1.0), 0.02)
    rng = np.random.default_rng(0)
    colors = cv2.GaussianBlur(rng.integers(0, 256, (101, 101, 3)).astype(np.uint8), (0, 0), 1.2)
    stretched = np.clip((colors.astype(float) - 128) * 4 + 128, 0, 255).astype(np.uint8)
    mesh = replace(mesh, rgb=stretched.reshape(-1, 3))
    poses = [
        look_at((x, -2.6, 0.15 * (-1) ** i), (0.3 * x, 0, 0)) for i, x in enumerate(np.linspace(-0.7, 0.7, 5))
    ]
    views = pinhole_views(poses, 160, 120, field_of_view=50)
    scene = ray_scene(mesh)
    photos = tuple(render_vertex_colors(mesh, view, 2, scene=scene)[0] for view in views)
    depths = tuple(cast_view(scene, view).depth for view in views)
    images = folder / "images"
    images.mkdir(parents=True)
    for name, photo in zip(NAMES, photos, strict=True):
        cv2.imwrite(str(images / name), photo[..., ::-1])
    cameras = {
        v.name: true_camera(v.width, v.height, v.K, v.cam_from_world[:, :3], v.cam_from_world[:, 3])
        for v in views
    }
    write_mesh_ply(folder / "mesh.ply", mesh)
    known = dict(zip(NAMES, depths, strict=True))
    truth = GroundTruth("relief", images, cameras, 1.0, depth=known.get, mesh=folder / "mesh.ply")
    return Scene(mesh, views, photos, depths, truth)


def true_flow(scene: Scene, i: int, j: int) -> np.ndarray:
    """Flow from photo i to photo j of the surface that i sees; NaN where it sees none."""
    a, b, depth = scene.views[i], scene.views[j], scene.depths[i].astype(np.float64)
    x, y = np.meshgrid(np.arange(a.width), np.arange(a.height))
    pixels = np.stack([x, y, np.ones_like(x)], -1).astype(np.float64)
    world = (pixels @ np.linalg.inv(a.K).T * depth[..., None] - a.cam_from_world[:, 3]) @ a.cam_from_world[
        :, :3
    ]
    there = (world @ b.cam_from_world[:, :3].T + b.cam_from_world[:, 3]) @ b.K.T
    flow = there[..., :2] / there[..., 2:] - pixels[..., :2]
    flow[depth <= 0] = np.nan
    return flow


def make_run(scene: Scene, root: Path, kind: str = "dense", shift: float = 0.0, given: int = 5) -> Path:
    """A workspace without any error but ``shift`` of the points along the world's y, in the truth's units; of the
    first ``given`` photos."""
    for folder in ("photos", "sparse/0", "dense/depth", "mesh", "flows.zarr", "matches"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    views, names = scene.views[:given], NAMES[:given]
    for name, photo in zip(names, scene.photos, strict=False):
        cv2.imwrite(str(root / "photos" / f"{name}.png"), photo[..., ::-1])
    entry = {
        "sha256": "",
        "width": 160,
        "height": 120,
        "original_width": 160,
        "original_height": 120,
        "camera": 0,
        "latitude_longitude_altitude": None,
    }
    photos = [{"id": i, "name": name, **entry} for i, name in enumerate(names)]
    camera = {"model": "PINHOLE", "params": [100.0, 100.0, 50.0, 50.0]}
    camera |= {"width": entry["width"], "height": entry["height"]}
    (root / "photos.json").write_text(json.dumps({"photos": photos, "cameras": [camera], "left_out": []}))
    pairs = [(i, j) for i in range(given) for j in range(i + 1, given) if j - i <= 2]
    (root / "pairs.json").write_text(
        json.dumps([{"a": names[i], "b": names[j], "i": i, "j": j, "sparse_inliers": 0} for i, j in pairs])
    )
    (root / "matching.json").write_text(json.dumps({"kind": kind}))
    relative = {}
    for i, j in pairs:
        b_from_a = relative_pose_of(views[i], views[j])
        relative[f"{i}_{j}_pose"] = b_from_a
        forth, back = true_flow(scene, i, j), true_flow(scene, j, i)
        if kind == "dense":
            fields = [
                FlowField(np.nan_to_num(f).astype(np.float32), np.ones((120, 160), np.float32))
                for f in (forth, back)
            ]
            known = [np.isfinite(f).all(axis=-1) for f in (forth, back)]
            write_dense_match(root / "flows.zarr" / f"{i}_{j}", DenseMatch(*fields, *known), 0.5)
        else:
            rows, columns = np.nonzero(np.isfinite(forth).all(axis=-1))
            chosen = np.random.default_rng(0).choice(len(rows), 300, replace=False)
            xy = np.stack([columns[chosen], rows[chosen]], -1).astype(np.float32)
            there = (xy + forth[rows[chosen], columns[chosen]]).astype(np.float32)
            save_sparse_match(
                root / "matches" / f"{i}_{j}.npz", SparseMatch(xy, there, np.ones(300, np.float32)), 0.1
            )
    np.savez(root / "two_view.npz", **relative)
    write_model(root / "sparse" / "0", views)
    points = RUN_FROM_TRUTH(scene.mesh.vertices + np.array([0, shift, 0])).astype(np.float32)
    normals = np.tile(RUN_FROM_TRUTH.rotation @ [0, -1, 0], (len(points), 1)).astype(np.float32)
    count = len(points)
    write_points_ply(
        root / "dense" / "points.ply",
        FusedCloud(
            points, normals, scene.mesh.rgb, np.full(count, 3, np.uint16), np.zeros(count, np.int32),
            np.ones(count, np.float32),
        ),
    )  # fmt: skip
    write_mesh_ply(root / "mesh" / "mesh.ply", replace(scene.mesh, vertices=points))
    for i, depth in enumerate(scene.depths[:given]):
        found = (depth * RUN_FROM_TRUTH.scale).astype(np.float32)
        flat = np.zeros_like(found)
        write_depth(
            root / "dense" / "depth" / f"{i}.npz",
            DepthMap(found, np.zeros((*flat.shape, 3), np.float32), flat),
        )
    record = {
        "fingerprint": "",
        "state": "done",
        "reads": [],
        "cpu_seconds": 3.0,
        "peak_memory_mb": 100.0,
        "counts": {},
    }
    stages = {
        "match": {**record, "seconds": 4.0, "counts": {"pairs": len(pairs)}},
        "map": {**record, "seconds": 2.0, "peak_memory_mb": 250.0},
        "texture": {**record, "seconds": 9.0, "state": "failed"},
    }
    (root / "manifest.json").write_text(
        json.dumps({"format": 1, "source": "", "source_fingerprint": "", "stages": stages})
    )
    return root


def relative_pose_of(a: PinholeView, b: PinholeView) -> np.ndarray:
    """b_from_a by 4x4 matrices."""
    lift = [np.vstack([view.cam_from_world, [0, 0, 0, 1]]) for view in (a, b)]
    return (lift[1] @ np.linalg.inv(lift[0]))[:3]


def write_model(folder: Path, views: tuple[PinholeView, ...], names: tuple[str, ...] = NAMES) -> None:
    """A COLMAP text model of the views in the run's world, with three points that all photos see."""
    folder.mkdir(parents=True, exist_ok=True)
    K = views[0].K
    (folder / "cameras.txt").write_text(
        f"1 PINHOLE {views[0].width} {views[0].height} {K[0, 0]} {K[1, 1]} {K[0, 2] + 0.5} {K[1, 2] + 0.5}\n"
    )
    points = np.array([[-0.2, 0, 0.1], [0.1, 0, -0.2], [0.2, 0, 0.3]])
    points[:, 1] = -relief(points[:, 0], points[:, 2])
    lines, tracks = [], [[] for _ in points]
    for i, view in enumerate(views):
        moved = RUN_FROM_TRUTH.camera(view.cam_from_world)
        x, y, z, w = Rotation.from_matrix(moved[:, :3]).as_quat()
        tx, ty, tz = moved[:, 3]
        lines.append(f"{i + 1} {w} {x} {y} {z} {tx} {ty} {tz} 1 {names[i]}")
        local = points @ view.cam_from_world[:, :3].T + view.cam_from_world[:, 3]
        pixels = (local @ view.K.T)[:, :2] / local[:, 2:] + 0.5
        lines.append(" ".join(f"{px} {py} {k + 1}" for k, (px, py) in enumerate(pixels)))
        for k in range(len(points)):
            tracks[k] += [str(i + 1), str(k)]
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    world = RUN_FROM_TRUTH(points)
    (folder / "points3D.txt").write_text(
        "".join(
            f"{k + 1} {p[0]} {p[1]} {p[2]} 0 0 0 0.0 {' '.join(track)}\n"
            for k, (p, track) in enumerate(zip(world, tracks, strict=True))
        )
    )


def write_mesh_ply(path: Path, mesh: Mesh) -> None:
    """A text PLY, by the format's description."""
    header = [
        "ply", "format ascii 1.0", f"element vertex {len(mesh.vertices)}", "property float x", "property float y",
        "property float z", "property uchar red", "property uchar green", "property uchar blue",
        f"element face {len(mesh.faces)}", "property list uchar int vertex_indices", "end_header",
    ]  # fmt: skip
    colors = mesh.rgb if mesh.rgb is not None else np.full((len(mesh.vertices), 3), 128)
    lines = [
        f"{x:.9g} {y:.9g} {z:.9g} {r} {g} {b}"
        for (x, y, z), (r, g, b) in zip(mesh.vertices, colors, strict=True)
    ]
    lines += [f"3 {a} {b} {c}" for a, b, c in mesh.faces]
    path.write_text("\n".join([*header, *lines]) + "\n")


def center_of(view: PinholeView) -> np.ndarray:
    return camera_center(view.cam_from_world)
