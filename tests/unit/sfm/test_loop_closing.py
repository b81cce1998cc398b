"""A way round a yard, mapped with drift: its ends do not meet until they are joined."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from recon.core.colmap import pycolmap
from recon.sfm import loop_closing
from recon.sfm.adapter import model_from_tracks
from recon.sfm.loop_closing import close_loops
from recon.sfm.mapping import MappingSettings, posed_model, triangulate_tracks
from tests.support.sfm_scene import (
    KNOWN,
    Scene,
    camera_centers,
    centre_errors,
    exact_tracks,
    graph_of,
    look_at,
    photo_set_of,
)

PHOTOS = 36


def centre_of(pose: np.ndarray) -> np.ndarray:
    return np.asarray(-pose[:, :3].T @ pose[:, 3])


def drifted(poses: list[np.ndarray]) -> dict[int, np.ndarray]:
    """Each step turns a little too far and is a little longer than the one before."""
    turn = Rotation.from_euler("y", 0.05, degrees=True).as_matrix()
    found = {0: poses[0]}
    for i in range(1, len(poses)):
        before, last = poses[i - 1], found[i - 1]
        place = before[:, :3] @ (centre_of(poses[i]) - centre_of(before)) * (1 + 0.2 * i / len(poses))
        centre = centre_of(last) + last[:, :3].T @ place
        R = turn @ poses[i][:, :3] @ before[:, :3].T @ last[:, :3]
        found[i] = np.column_stack([R, -R @ centre])
    return found


def test_the_ends_of_a_way_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    angles = 2 * np.pi * np.arange(PHOTOS) / PHOTOS
    centres = 3 * np.column_stack([np.sin(angles), np.zeros(PHOTOS), np.cos(angles)])
    rng = np.random.default_rng(0)
    around, height = rng.uniform(0, 2 * np.pi, 2500), rng.uniform(-1.8, 1.8, 2500)
    wall = np.column_stack([8 * np.sin(around), height, 8 * np.cos(around)])
    scene = Scene(wall + rng.normal(0, 0.3, wall.shape), [look_at(c, 2 * c) for c in centres], KNOWN)
    photos, tracks = photo_set_of(scene), exact_tracks(scene)
    pairs = [(a, b) for a in range(PHOTOS) for b in range(a + 1, PHOTOS) if min(b - a, PHOTOS - b + a) <= 3]
    graph, _ = graph_of(photos, tracks, pairs)
    nx.set_edge_attributes(graph, 0.95, "evidence")
    settings = MappingSettings(threads=1)
    posed = posed_model(photos, drifted(scene.poses))
    open_one = model_from_tracks(posed, photos, tracks, triangulate_tracks(posed, photos, tracks, settings))
    pycolmap.ObservationManager(open_one).filter_all_points3D(settings.max_error, 1.5)
    names = [photo.name for photo in photos.photos]
    assert centre_errors(camera_centers(open_one), scene, names).max() > 0.25

    assert close_loops(open_one, photos, graph, tracks, settings) is open_one  # too few photos to drift
    monkeypatch.setattr(loop_closing, "FEWEST_IN_A_LOOP", 10)
    seen = loop_closing._Observed(open_one, photos, tracks)
    torn = seen.torn(graph)
    assert (0, PHOTOS - 1) in torn
    whole = [pair for pair in seen.pairs(graph) if pair not in torn]
    joins = seen.joins(torn, whole, settings)
    spread = posed_model(photos, loop_closing._spread(seen, [*map(seen.step, whole), *joins]))
    assert centre_errors(camera_centers(spread), scene, names).max() < 0.05
    closed = close_loops(open_one, photos, graph, tracks, settings)
    assert closed.num_reg_images() == PHOTOS
    assert centre_errors(camera_centers(closed), scene, names).max() < 2e-3
    assert close_loops(closed, photos, graph, tracks, settings) is closed
