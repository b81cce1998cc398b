"""Distances from meshes."""

from __future__ import annotations

import time

import numpy as np

from recon.core.mesh import Mesh
from recon.core.raycasting import distance_to


def test_distances_of_near_and_of_absurdly_far_points() -> None:
    side = 120
    row, column = np.mgrid[: side - 1, : side - 1]
    corner = (row * side + column).ravel()
    faces = np.concatenate(
        [
            np.stack([corner, corner + 1, corner + side], 1),
            np.stack([corner + 1, corner + side + 1, corner + side], 1),
        ]
    )
    x, y = np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side))
    vertices = np.stack([x, y, np.zeros_like(x)], axis=-1).reshape(-1, 3)
    unused = np.full((1, 3), 1e30)  # no face has it: it must not make the mesh look larger
    mesh = Mesh(np.concatenate([vertices, unused]).astype(np.float32), faces.astype(np.int32))
    distance = distance_to(mesh)
    heights = np.array([0.0, 0.25, 3.0, 1e4, 1e12, 1e30, 3e38])
    points = np.stack([np.zeros(7), np.zeros(7), heights], axis=1).astype(np.float32)
    np.testing.assert_allclose(distance(points), points[:, 2].astype(np.float64), rtol=1e-5, atol=1e-6)
    assert distance(points[:0]).shape == (0,)
    many = np.random.default_rng(0).normal(0, 1e20, (20_000, 3)).astype(np.float32)
    began = time.process_time()
    np.testing.assert_allclose(distance(many), np.linalg.norm(many.astype(np.float64), axis=1), rtol=1e-5)
    assert time.process_time() - began < 1  # a search of all faces for each takes half a minute
