"""Meshes of parts of a cloud, joined: against the exact surface and the mesh of the whole cloud."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from recon.core.mesh import FusedCloud
from recon.surface.blocks import Block, Patch, join_at_plane, join_blocks, plan_blocks
from recon.surface.meshing import (
    PartsPlan,
    block_mesh,
    clean_mesh,
    cleaned_patch,
    mesh_arrays,
    plan_of_points,
    point_spacing,
    poisson_mesh,
    settled_patch,
    vertex_normals,
)


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


def meshed(cloud: FusedCloud, most: int) -> tuple[Patch, int]:
    plan = plan_of_points(cloud.xyz, most)
    parts = [block_mesh(partial(cloud.rows, rows), plan.cell) for rows in plan.rows(cloud.xyz)]
    patches = iter(parts)
    return join_blocks(plan.block, lambda _: next(patches), plan.cell), len(parts)


@pytest.mark.parametrize(("points", "most"), [(20_000, 15_000), (40_000, 14_000)])
def test_parts_join_without_a_gap_and_lie_as_near_as_the_whole(points: int, most: int) -> None:
    cloud = waves(points)
    made, parts = meshed(cloud, most)
    faces = made.faces
    assert parts >= 2
    assert (made.xyz.dtype, faces.dtype) == (np.float32, np.int32)
    assert len(open_edges(faces)) == 0
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    assert len(np.unique(directed, axis=0)) == len(directed)  # all faces go round the same way
    whole = poisson_mesh(cloud, trim_quantile=0.0, threads=1)
    there = middles(np.asarray(whole.vertices), np.asarray(whole.triangles))
    here = middles(made.xyz.astype(float), faces)
    assert here[0] < 1.05 * there[0]
    assert here[1] < 1.5 * there[1]


def test_parts_are_cleaned_and_settled_as_the_whole_is() -> None:
    """The surface, its normals and its colours; an island and a long triangle go."""
    cloud = waves(30_000)
    plan = plan_of_points(cloud.xyz, 14_000)
    rows = plan.rows(cloud.xyz)
    patches = iter([block_mesh(partial(cloud.rows, mine), plan.cell) for mine in rows])
    joined = join_blocks(plan.block, lambda _: next(patches), plan.cell)
    n = len(joined.xyz)
    island = np.array([[3.0, 0, 0], [3.01, 0, 0], [3, 0.01, 0]], np.float32)
    more = np.array([[n, n + 1, n + 2], [0, n // 2, n - 1]], np.int32)
    dirty = Patch(np.concatenate([joined.xyz, island]), np.concatenate([joined.faces, more]))
    clean = cleaned_patch(dirty)
    np.testing.assert_array_equal(clean.faces, joined.faces)
    mine = settled_patch(clean, plan, lambda number: cloud.rows(rows[number]))
    whole = clean_mesh(poisson_mesh(cloud, trim_quantile=0.0, threads=1), support=cloud.xyz)
    theirs = settled_patch(
        Patch(*mesh_arrays(whole)[:2]), PartsPlan(Block(), 2.5 * point_spacing(cloud.xyz)), lambda _: cloud
    )
    figures = []
    for mesh in (mine, theirs):
        assert mesh.rgb is not None
        assert mesh.normals is not None
        outward = (mesh.normals * mesh.vertices).sum(axis=1) / np.linalg.norm(mesh.vertices, axis=1)
        wrong = np.abs(mesh.rgb / 255.0 - (mesh.vertices * 0.4 + 0.5)).mean()
        figures.append((middles(mesh.vertices.astype(float), mesh.faces)[0], wrong, outward.mean()))
        np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1.0, atol=1e-5)
    assert figures[0][0] < 1.05 * figures[1][0]
    assert figures[0][1] < 1.05 * figures[1][1]
    assert abs(figures[0][2] - figures[1][2]) < 0.01
    xyz, faces, _ = mesh_arrays(whole)
    assert np.abs(vertex_normals(xyz, faces) - np.asarray(whole.vertex_normals)).max() < 1e-3


def test_a_sample_plans_nearly_what_the_cloud_does() -> None:
    cloud = waves(60_000)
    drawn = np.random.default_rng(3).random(len(cloud)) < 0.2
    whole, sample = plan_of_points(cloud.xyz, 20_000), plan_of_points(cloud.xyz[drawn], 20_000, 0.2)
    assert sample.cell == pytest.approx(whole.cell, rel=0.05)
    assert len(sample.block.leaves()) == len(whole.block.leaves())
    assert max(map(len, sample.rows(cloud.xyz))) < 22_000


def test_scattered_points_count_for_more_than_near_ones() -> None:
    """A dense square with a sparse one beside it: parts share what Poisson works on, the cells, not the points."""
    rng = np.random.default_rng(0)
    dense, sparse = rng.random((40_000, 3)), rng.random((4_000, 3)) * 8 + [2, 0, 0]
    dense[:, 2] = sparse[:, 2] = 0
    xyz = np.concatenate([dense, sparse]).astype(np.float32)
    plan = plan_of_points(xyz, 45_000)
    cells = [
        len(np.unique(np.floor(xyz[rows] / plan.cell).astype(np.int64), axis=0)) for rows in plan.rows(xyz)
    ]
    points = [len(rows) for rows in plan.rows(xyz)]
    assert len(cells) >= 2
    assert max(cells) < 1.5 * min(cells)
    assert max(points) > 3 * min(points)
    assert len(plan_of_points(dense.astype(np.float32), 60_000).block.leaves()) == 1


def middles(xyz: np.ndarray, faces: np.ndarray) -> tuple[float, float]:
    """How far the middles of the faces are from the surface, in the mean by area and at most."""
    corners = xyz[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    off = np.abs(away(corners.mean(axis=1)))
    return float(np.average(off, weights=area)), float(off.max())


def test_an_open_surface_has_its_rim_and_no_other_hole() -> None:
    cloud = waves(30_000, cap=0.6)
    made, parts = meshed(cloud, 15_000)
    assert parts >= 2
    rim = made.xyz[np.unique(open_edges(made.faces))]
    assert len(rim) > 20
    assert rim[:, 2].min() > 0.5


def test_parts_cover_the_cloud_and_overlap_by_the_margin() -> None:
    xyz = np.random.default_rng(1).uniform(0, 1, (5000, 3)) * [4, 1, 1]
    plan = plan_blocks(xyz, 2000, 0.1)
    rows = plan.rows(xyz, 0.1)
    assert len(rows) == len(plan.leaves())
    assert max(map(len, rows)) <= 2000
    assert set(np.concatenate(rows).tolist()) == set(range(5000))
    assert sorted(np.concatenate(plan.rows(xyz)).tolist()) == list(range(5000))
    assert plan.axis == 0
    count = len(plan.parts[0].leaves())
    below, above = (xyz[np.unique(np.concatenate(part)), 0] for part in (rows[:count], rows[count:]))
    assert plan.at + 0.09 < below.max() <= plan.at + 0.1
    assert plan.at - 0.1 <= above.min() < plan.at - 0.09
    # Where margins are all there is, nothing is cut.
    assert plan_blocks(xyz, 2000, 9.0).parts == ()


def test_two_walls_that_meet_are_cut_beside_the_median() -> None:
    """Half of the points lie in each wall, so that both medians do."""
    along, up = np.random.default_rng(2).uniform(0, 10, (2, 4000))
    zeros = np.zeros(2000)
    one, other = (zeros, along[:2000], up[:2000]), (along[2000:], zeros, up[2000:])
    xyz = np.concatenate([np.stack(one, 1), np.stack(other, 1)]) * [1, 1, 0.1]
    rows = plan_blocks(xyz, 1500, 0.2).rows(xyz, 0.2)
    assert len(rows) > 2
    assert max(map(len, rows)) <= 1500


def test_a_mesh_on_one_side_only_is_cut_and_kept() -> None:
    square = np.array([[0.0, 0, 0], [2, 0, 0], [2, 1, 0], [0, 1, 0]])
    one = Patch(square, np.array([[0, 1, 2], [0, 2, 3]]))
    none = Patch.empty()
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
