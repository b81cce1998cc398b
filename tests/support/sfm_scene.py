"""A synthetic scene: cameras on an arc looking at a relief of points, with exact projections."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from recon.core.cameras import Intrinsics
from recon.graph.tracks import make_tracks, track_matches
from recon.graph.two_view import verify_pair
from recon.graph.types import Tracks, TwoViewGeometry, ViewGraph
from recon.graph.view_graph import PairEvidence, build_view_graph
from recon.matching.types import SparseMatch
from recon.photos.types import Photo, PhotoSet

KNOWN = Intrinsics("PINHOLE", (600.0, 605.0, 322.5, 236.0), 640, 480, known=True, has_focal_prior=True)


def look_at(centre: np.ndarray, target: np.ndarray) -> np.ndarray:
    """cam_from_world of a camera that looks at a target, with the world's y pointing down."""
    z = (target - centre) / np.linalg.norm(target - centre)
    x = np.cross([0.0, 1.0, 0.0], z)
    x /= np.linalg.norm(x)
    R = np.stack([x, np.cross(z, x), z])
    return np.column_stack([R, -R @ centre])


RING = [
    look_at(np.array([7 * np.sin(a), -0.6 + 0.25 * k % 2, -7 * np.cos(a)]), np.zeros(3))
    for k, a in enumerate(np.radians(np.arange(-42, 43, 12.0)))
]


@dataclass(frozen=True)
class Scene:
    """World points, poses and the camera they are seen with."""

    points: np.ndarray
    poses: list[np.ndarray]
    camera: Intrinsics


def make_scene(poses: list[np.ndarray], n: int = 400, seed: int = 0, camera: Intrinsics = KNOWN) -> Scene:
    rng = np.random.default_rng(seed)
    points = rng.uniform([-2.2, -1.6, -1.0], [2.2, 1.6, 1.0], (n, 3))
    return Scene(points, poses, camera)


def project(scene: Scene, photo: int) -> np.ndarray:
    inside = scene.points @ scene.poses[photo][:, :3].T + scene.poses[photo][:, 3]
    inside[inside[:, 2] <= 0] = np.nan  # behind the camera
    plane = inside[:, :2] / inside[:, 2:]
    if scene.camera.model == "SIMPLE_RADIAL":
        plane = plane * (1 + scene.camera.params[3] * (plane**2).sum(axis=1, keepdims=True))
    K = scene.camera.K
    return np.asarray(plane * [K[0, 0], K[1, 1]] + K[:2, 2])


def photo_set_of(scene: Scene, camera: Intrinsics | None = None) -> PhotoSet:
    camera = camera or scene.camera
    photos = tuple(
        Photo(i, f"photo{i:02d}.jpg", "", camera.width, camera.height, camera.width, camera.height, 0)
        for i in range(len(scene.poses))
    )
    return PhotoSet(photos, (camera,))


def exact_tracks(scene: Scene, share: float = 1.0, noise: float = 0.0, seed: int = 1) -> Tracks:
    """Projections inside the photos, a random share of them, with Gaussian noise in pixels."""
    rng = np.random.default_rng(seed)
    track, photo, xy = [], [], []
    for i in range(len(scene.poses)):
        seen = project(scene, i)
        inside = (seen >= 0).all(axis=1) & (seen < [scene.camera.width - 1, scene.camera.height - 1]).all(
            axis=1
        )
        rows = np.nonzero(inside & (rng.random(len(seen)) < share))[0]
        track.append(rows)
        photo.append(np.full(len(rows), i))
        xy.append(seen[rows] + noise * rng.normal(size=(len(rows), 2)))
    tracks = make_tracks(np.concatenate(track), np.concatenate(photo), np.concatenate(xy))
    return tracks


def verified(
    matches: dict[tuple[int, int], SparseMatch], photos: PhotoSet
) -> dict[tuple[int, int], TwoViewGeometry]:
    """Two-view geometry of every pair."""
    camera = [photos.cameras[photo.camera] for photo in photos.photos]
    return {
        (i, j): verify_pair(match.xy_a, match.xy_b, camera[i], camera[j])
        for (i, j), match in sorted(matches.items())
    }


def graph_of(
    photos: PhotoSet, tracks: Tracks, pairs: list[tuple[int, int]] | None = None
) -> tuple[ViewGraph, dict[tuple[int, int], TwoViewGeometry]]:
    """Verified geometries of all pairs and their view graph."""
    pairs = pairs or list(itertools.combinations(range(len(photos.photos)), 2))
    found = verified(track_matches(tracks, pairs), photos)
    geometries = {pair: geometry for pair, geometry in found.items() if geometry.model != "none"}
    graph = build_view_graph(
        photos, {pair: PairEvidence(g, len(g.inliers)) for pair, g in geometries.items()}
    )
    return graph, geometries


def camera_centers(model: Any) -> dict[str, np.ndarray]:
    """Centres of the registered cameras of a pycolmap model, by photo name."""
    return {
        image.name: np.array(image.projection_center()) for image in model.images.values() if image.has_pose
    }


def centre_errors(centres: dict[str, np.ndarray], scene: Scene, names: list[str]) -> np.ndarray:
    """Distances of camera centres from the truth after the best similarity (Umeyama 1991)."""
    A = np.array([centres[name] for name in names])
    B = np.array(
        [-scene.poses[int(name[5:7])][:, :3].T @ scene.poses[int(name[5:7])][:, 3] for name in names]
    )
    a, b = A - A.mean(axis=0), B - B.mean(axis=0)
    U, S, Vt = np.linalg.svd(b.T @ a)
    D = np.diag([1.0, 1.0, np.sign(np.linalg.det(U @ Vt))])
    scale = np.trace(np.diag(S) @ D) / (a**2).sum()
    return np.asarray(np.linalg.norm(scale * a @ (U @ D @ Vt).T - b, axis=1))
