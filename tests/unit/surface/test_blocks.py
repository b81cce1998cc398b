"""Meshes of parts of a cloud, joined: against the exact surface and the mesh of the whole cloud."""

from __future__ import annotations

import numpy as np
import pytest

from recon.core.mesh import FusedCloud
from recon.surface.blocks import Block, Patch, join_at_plane, plan_blocks
from recon.surface.meshing import block_mesh, mesh_of_blocks, plan_of_cloud, poisson_mesh


def away(xyz: np.ndarray) -> np.ndarray:
    """Distance of points from a ball with waves, along the radius."""
    radius = np.linalg.norm(xyz, axis=1)
    x, y, _ = (xyz / radius[:, None]).T
    return radius - (1 + 0.1 * np.sin(6 * x) * np.cos(5 * y))


def waves(n: int, cap: float = 2.0) -> FusedCloud:
    """Points on the ball with waves, without those above z = cap, with a little noise; colours follow the place."""
    rng = np.random.default_rng(0)
    unit = rng.normal(size=(n, 3))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    xyz = unit * (1 - away(unit))[:, None]
    normals = np.stack([away(xyz + 1e-5 * axis) - away(xyz - 1e-5 * axis) for axis in np.eye(3)], axis=1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    keep = xyz[:, 2] < cap
    xyz, normals = (xyz + normals * rng.normal(0, 0.001, (n, 1)))[keep], normals[keep]
    k = len(xyz)
    rgb = np.rint((xyz * 0.4 + 0.5) * 255).clip(0, 255).astype(np.uint8)
    zeros = np.zeros(k, np.int32)
    return FusedCloud(
        xyz.astype(np.float32),
        normals.astype(np.float32),
        rgb,
        np.full(k, 3, np.uint16),
        zeros,
        np.ones(k, np.float32),
    )


def open_edges(faces: np.ndarray) -> np.ndarray:
    """Edges that one face has, as vertex pairs; no edge may have more than two."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    unique, count = np.unique(edges, axis=0, return_counts=True)
    assert count.max() <= 2
    return unique[count == 1]


def meshed(cloud: FusedCloud, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    plan, cell = plan_of_cloud(cloud, most)
    mesh = mesh_of_blocks(plan, lambda block: block_mesh(cloud.rows(block.points), cell), cell)
    parts = (np.asarray(mesh.vertices), np.asarray(mesh.triangles), np.asarray(mesh.vertex_colors))
    return *parts, len(plan.leaves())


@pytest.mark.parametrize(("points", "most"), [(20_000, 15_000), (40_000, 14_000)])
def test_parts_join_without_a_gap_and_lie_as_near_as_the_whole(points: int, most: int) -> None:
    cloud = waves(points)
    xyz, faces, rgb, parts = meshed(cloud, most)
    assert parts >= 2
    assert len(open_edges(faces)) == 0
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    assert len(np.unique(directed, axis=0)) == len(directed)  # all faces go round the same way
    whole = poisson_mesh(cloud, trim_quantile=0.0, threads=1)
    there, colour = middles(
        np.asarray(whole.vertices), np.asarray(whole.triangles), np.asarray(whole.vertex_colors)
    )
    here, mine = middles(xyz, faces, rgb)
    assert here[0] < 1.05 * there[0]
    assert here[1] < 1.5 * there[1]
    assert mine < 1.1 * colour


def middles(xyz: np.ndarray, faces: np.ndarray, rgb: np.ndarray) -> tuple[tuple[float, float], float]:
    """How far the middles of the faces are from the surface, in the mean by area and at most, and their colours off."""
    corners = xyz[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    middle = corners.mean(axis=1)
    off = np.abs(away(middle))
    colour = np.abs(rgb[faces].mean(axis=1) - (middle * 0.4 + 0.5)).mean(axis=1)
    return (float(np.average(off, weights=area)), float(off.max())), float(np.average(colour, weights=area))


def test_an_open_surface_has_its_rim_and_no_other_hole() -> None:
    cloud = waves(30_000, cap=0.6)
    xyz, faces, _, parts = meshed(cloud, 15_000)
    assert parts >= 2
    rim = xyz[np.unique(open_edges(faces))]
    assert len(rim) > 20
    assert rim[:, 2].min() > 0.5


def test_parts_cover_the_cloud_and_overlap_by_the_margin() -> None:
    xyz = np.random.default_rng(1).uniform(0, 1, (5000, 3)) * [4, 1, 1]
    plan = plan_blocks(xyz, 2000, 0.1)
    leaves = plan.leaves()
    assert max(len(leaf.points) for leaf in leaves) <= 2000
    assert set(np.concatenate([leaf.points for leaf in leaves]).tolist()) == set(range(5000))
    assert plan.axis == 0
    below, above = (
        xyz[np.unique(np.concatenate([one.points for one in part.leaves()])), 0] for part in plan.parts
    )
    assert plan.at + 0.09 < below.max() <= plan.at + 0.1
    assert plan.at - 0.1 <= above.min() < plan.at - 0.09
    # Where margins are all there is, nothing is cut.
    assert plan_blocks(xyz, 2000, 9.0).parts == ()


def test_a_mesh_on_one_side_only_is_cut_and_kept() -> None:
    square = np.array([[0.0, 0, 0], [2, 0, 0], [2, 1, 0], [0, 1, 0]])
    one = Patch(square, np.array([[0, 1, 2], [0, 2, 3]]), np.full((4, 3), 0.5))
    none = Patch(np.zeros((0, 3)), np.zeros((0, 3), np.int64), np.zeros((0, 3)))
    left = join_at_plane(one, none, 0, 1.0, 0.1)
    right = join_at_plane(none, one, 0, 1.0, 0.1)
    both = join_at_plane(one, one, 0, 1.0, 0.1)
    for mesh, area in ((left, 1.0), (right, 1.0), (both, 2.0)):
        corners = mesh.xyz[mesh.faces]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        assert 0.5 * normals[:, 2].sum() == pytest.approx(area)
        assert (normals[:, 2] > 0).all()
    assert len(open_edges(both.faces)) == 6  # the outline; nothing along the plane
    assert isinstance(plan_blocks(square, 10, 0.1), Block)
