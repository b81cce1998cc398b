"""A small run whose photos, points and mesh are exact: a wavy wall, a board before it, five cameras. z is up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from recon.core.cameras import Intrinsics, PinholeView
from recon.core.mesh import FusedCloud, Mesh
from recon.core.raycasting import ray_scene, render_vertex_colors
from recon.exports.scene import Scene, SceneView, reconstruction_from_scene
from recon.io.manifest import FORMAT
from recon.io.pictures import encode_picture
from recon.io.surfaces import write_points_ply
from recon.live.glb import drawn_glb
from recon.photos.types import Photo, PhotoSet
from recon.run.photos import photo_file, photo_set_to_json

NAMES = ("süd seite/bild 1.png", "süd seite/bild 2.png", "塔 3.png", "vier.png", "fünf 5.png")
CAMERA = Intrinsics("PINHOLE", (300.0, 300.0, 161.0, 118.0), 320, 240, True, True)
BOARD = ((0.3, 0.8), -1.0, (-0.35, 0.35))
"""x, y and z of the board that hides a piece of the wall from some cameras."""


def wall_y(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    return 0.12 * np.sin(3 * x) * np.cos(2 * z)


def color(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Smooth, so that vertex colours, texture and photos agree."""
    rgb = np.stack(
        [130 + 90 * np.sin(3 * x + z), 130 + 90 * np.cos(4 * z), 120 + 80 * np.sin(2 * x - 3 * z)], -1
    )
    return np.rint(rgb).astype(np.uint8)


def wall(steps: int = 60, shift: float = 0.0) -> Mesh:
    """The wall, 4 by 3, with normals towards the cameras (-y)."""
    x, z = (a.ravel() for a in np.meshgrid(np.linspace(-2, 2, steps), np.linspace(-1.5, 1.5, steps)))
    corner = np.arange(steps * steps).reshape(steps, steps)
    a, b, c, d = (
        part.ravel() for part in (corner[:-1, :-1], corner[:-1, 1:], corner[1:, 1:], corner[1:, :-1])
    )
    faces = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]).astype(np.int32)
    xyz = np.stack([x, wall_y(x, z) + shift, z], -1).astype(np.float32)
    return Mesh(xyz, faces, color(x, z))


def with_board() -> Mesh:
    (x0, x1), y, (z0, z1) = BOARD
    base = wall()
    corners = np.array([[x0, y, z0], [x1, y, z0], [x1, y, z1], [x0, y, z1]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32) + len(base.vertices)
    rgb = color(corners[:, 0], corners[:, 2])
    assert base.rgb is not None
    return Mesh(
        np.concatenate([base.vertices, corners]),
        np.concatenate([base.faces, faces]),
        np.concatenate([base.rgb, rgb]),
    )


def poses() -> list[np.ndarray]:
    out = []
    for x in (-1.6, -0.8, 0.0, 0.8, 1.6):
        center = np.array([x, -4.0, 0.3])
        z = np.array([0.4 * x, 0.0, 0.0]) - center
        z /= np.linalg.norm(z)
        right = np.cross(z, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        R = np.stack([right, np.cross(z, right), z])
        out.append(np.column_stack([R, -R @ center]))
    return out


def views() -> list[PinholeView]:
    return [PinholeView(i, NAMES[i], CAMERA.K, pose, 320, 240) for i, pose in enumerate(poses())]


def made_scene(count: int = 60) -> Scene:
    """The cameras, and points of the wall with their exact pixels."""
    rng = np.random.default_rng(2)
    x, z = rng.uniform(-1.2, 0.2, count), rng.uniform(-0.8, 0.8, count)
    xyz = np.stack([x, wall_y(x, z), z], -1)
    made, observations = [], []
    for row, view in enumerate(views()):
        local = xyz @ view.cam_from_world[:, :3].T + view.cam_from_world[:, 3]
        xy = local[:, :2] / local[:, 2:] @ view.K[:2, :2].T + view.K[:2, 2]
        made.append(SceneView(view.name, 0, view.cam_from_world, xy))
        seen = ((xy > 0) & (xy < [319, 239])).all(axis=1)
        observations += [(int(point), row, int(point)) for point in np.flatnonzero(seen)]
    return Scene((CAMERA,), tuple(made), xyz, color(x, z), np.array(sorted(observations), np.int64))


def dense(count: int = 20_000) -> FusedCloud:
    rng = np.random.default_rng(3)
    x, z = rng.uniform(-2, 2, count), rng.uniform(-1.5, 1.5, count)
    slope = np.stack(
        [0.36 * np.cos(3 * x) * np.cos(2 * z), np.full(count, -1.0), -0.24 * np.sin(3 * x) * np.sin(2 * z)],
        -1,
    )
    normals = slope / np.linalg.norm(slope, axis=1, keepdims=True)
    return FusedCloud(
        np.stack([x, wall_y(x, z), z], -1).astype(np.float32),
        normals.astype(np.float32),
        color(x, z),
        rng.integers(2, 6, count).astype(np.uint16),
        rng.integers(0, 5, count).astype(np.int32),
        rng.random(count).astype(np.float32),
    )


def write_run(root: Path, textured: bool = True) -> Path:
    """A finished run with working photos, model, points and a textured mesh; the originals are gone."""
    mesh = with_board()
    rays = ray_scene(mesh)
    (root / "photos").mkdir(parents=True)
    photos = []
    for row, view in enumerate(views()):
        rgb = render_vertex_colors(mesh, view, scene=rays)[0]
        (root / "photos" / photo_file(view.name)).write_bytes(encode_picture(rgb))
        photos.append(Photo(row, view.name, f"{row:064d}", 320, 240, 320, 240, 0))
    (root / "photos.json").write_text(json.dumps(photo_set_to_json(PhotoSet(tuple(photos), (CAMERA,)))))
    source = str(root.parent / "photos that moved")
    manifest = {"format": FORMAT, "source": source, "source_fingerprint": "", "run": {}, "stages": {}}
    (root / "manifest.json").write_text(json.dumps(manifest))
    (root / "sparse" / "0").mkdir(parents=True)
    reconstruction_from_scene(made_scene()).write_binary(root / "sparse" / "0")
    (root / "dense").mkdir()
    write_points_ply(root / "dense" / "points.ply", dense())
    (root / "mesh").mkdir()
    if textured:
        (root / "mesh" / "textured.glb").write_bytes(textured_wall())
    return root


def textured_wall() -> bytes:
    """The wall and the board as a GLB with a texture."""
    mesh = with_board()
    x, z = np.meshgrid(np.linspace(-2, 2, 512), np.linspace(1.5, -1.5, 384))
    uv = np.stack([(mesh.vertices[:, 0] + 2) / 4, (mesh.vertices[:, 2] + 1.5) / 3], -1)
    return drawn_glb(mesh.vertices, mesh.faces, uv=uv, picture=encode_picture(color(x, z), "jpg", 95))
