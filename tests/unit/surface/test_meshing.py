"""Meshes of a sphere that is known exactly, and cleaning of meshes with known faults."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import open3d as o3d
import pytest

from recon.core.cameras import PinholeView
from recon.core.mesh import FusedCloud
from recon.dense.types import DepthMap
from recon.surface.blocks import Block, Patch
from recon.surface.meshing import (
    PartsPlan,
    clean_mesh,
    mesh_arrays,
    point_spacing,
    poisson_mesh,
    settled_patch,
    tsdf_mesh,
)


def sphere_cloud(n=20000, cap=None):
    """Points on the unit sphere (golden spiral); without the part above z = cap."""
    i = np.arange(n) + 0.5
    polar, turn = np.arccos(1 - 2 * i / n), np.pi * (1 + 5**0.5) * i
    xyz = np.stack([np.cos(turn) * np.sin(polar), np.sin(turn) * np.sin(polar), np.cos(polar)], -1)
    if cap is not None:
        xyz = xyz[xyz[:, 2] < cap]
    n = len(xyz)
    xyz = xyz.astype(np.float32)
    rgb = np.tile(np.array([[200, 100, 50]], np.uint8), (n, 1))
    return FusedCloud(
        xyz, xyz.copy(), rgb, np.full(n, 3, np.uint16), np.zeros(n, np.int32), np.ones(n, np.float32)
    )


def test_poisson_of_a_sphere():
    mesh = poisson_mesh(sphere_cloud(), depth=6, trim_quantile=0.0)
    xyz, triangles, _ = mesh_arrays(mesh)
    assert np.abs(np.linalg.norm(xyz, axis=1) - 1).max() < 0.01
    assert mesh.is_edge_manifold(allow_boundary_edges=False)
    assert mesh.euler_poincare_characteristic() == 2
    corners = xyz[triangles]
    area = (
        np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).sum()
        / 2
    )
    assert area == pytest.approx(4 * np.pi, rel=0.01)
    with pytest.raises(ValueError, match="too few"):
        poisson_mesh(sphere_cloud(5))


def settled(xyz, faces, cloud):
    """A mesh settled on a cloud that is meshed at once."""
    plan = PartsPlan(Block(), 2.5 * point_spacing(cloud.xyz))
    patch = Patch(np.array(xyz, np.float32), np.asarray(faces, np.int32))
    return settled_patch(patch, plan, lambda _: cloud)


def test_vertices_settle_on_the_points_and_take_their_colours():
    cloud = sphere_cloud()
    stripes = np.where(np.sin(40 * cloud.xyz[:, 2]) > 0, 250, 5).astype(np.uint8)
    cloud = replace(cloud, rgb=np.repeat(stripes[:, None], 3, axis=1))
    mesh = poisson_mesh(cloud, cell=6 * point_spacing(cloud.xyz), trim_quantile=0.0)
    before, faces, _ = mesh_arrays(mesh)
    before = before * np.float32(1.01)
    found = settled(before, faces, cloud)
    np.testing.assert_array_equal(found.faces, faces)
    error = np.abs(np.linalg.norm(found.vertices, axis=1) - 1)
    assert error.max() < 0.002 < 0.005 < np.abs(np.linalg.norm(before, axis=1) - 1).min()
    inside = np.abs(np.sin(40 * before[:, 2])) > 0.7
    truth = np.where(np.sin(40 * before[:, 2]) > 0, 250, 5)
    assert np.abs(found.rgb[inside, 0].astype(int) - truth[inside]).mean() < 10


def test_a_thin_wall_keeps_its_two_sides():
    side = np.stack(np.meshgrid(np.arange(30), np.arange(30)), axis=-1).reshape(-1, 2) * 0.01
    front = np.column_stack([side, np.zeros(len(side))]).astype(np.float32)
    back = front - np.float32([0, 0, 0.004])
    normals = np.repeat(np.float32([[0, 0, 1], [0, 0, -1]]), len(front), axis=0)
    n = len(normals)
    cloud = FusedCloud(
        np.concatenate([front, back]),
        normals,
        np.zeros((n, 3), np.uint8),
        np.full(n, 3, np.uint16),
        np.zeros(n, np.int32),
        np.ones(n, np.float32),
    )
    xyz, faces = grid_mesh(10)
    for facing, height in ((faces, 0.0), (faces[:, ::-1], -0.004)):
        found = settled(xyz * 0.02 + [0.05, 0.05, -0.002], facing, cloud)
        np.testing.assert_allclose(found.vertices[:, 2], height, atol=1e-5)


def test_far_points_do_not_cost_the_centre_its_resolution():
    cloud = sphere_cloud()
    far = cloud.xyz[:100] + np.float32(15.0)
    wide = FusedCloud(
        np.concatenate([cloud.xyz, far]),
        np.concatenate([cloud.normals, cloud.normals[:100]]),
        np.concatenate([cloud.rgb, cloud.rgb[:100]]),
        np.concatenate([cloud.view_count, cloud.view_count[:100]]),
        np.concatenate([cloud.reference_view, cloud.reference_view[:100]]),
        np.concatenate([cloud.confidence, cloud.confidence[:100]]),
    )
    xyz, _, _ = mesh_arrays(poisson_mesh(wide, depth=6, trim_quantile=0.0))
    near = xyz[np.linalg.norm(xyz, axis=1) < 2]
    # A vertex at least for the section of every cell, which is 2.5 spacings wide, with the sphere.
    assert len(near) > 4 * np.pi / (2.5 * point_spacing(cloud.xyz)) ** 2


@pytest.mark.parametrize("n", [9000, 30000])
def test_cells_follow_the_spacing_and_not_the_extent_alone(n):
    cloud = sphere_cloud(n)
    xyz, triangles, _ = mesh_arrays(poisson_mesh(cloud, trim_quantile=0.0))
    edges = np.linalg.norm(xyz[triangles] - np.roll(xyz[triangles], 1, axis=1), axis=2)
    # A cell's faces have edges up to its diagonal, and half of them are shorter than its side.
    assert 0.4 < np.median(edges) / (2.5 * point_spacing(cloud.xyz)) < 1.1


def test_a_rim_without_points_goes():
    cloud = sphere_cloud(cap=0.6)
    clean = clean_mesh(poisson_mesh(cloud, depth=7, trim_quantile=0.0), support=cloud.xyz)
    assert np.asarray(clean.vertices)[:, 2].max() < 0.6 + 2.5 * point_spacing(cloud.xyz)


def test_what_poisson_invents_is_cleaned_away():
    cloud = sphere_cloud(cap=0.6)
    mesh = poisson_mesh(cloud, depth=7, trim_quantile=0.0)
    assert np.asarray(mesh.vertices)[:, 2].max() > 0.65
    clean = clean_mesh(mesh, support=cloud.xyz, max_distance=0.05)
    xyz = np.asarray(clean.vertices)
    assert xyz[:, 2].max() < 0.66
    assert np.abs(np.linalg.norm(xyz, axis=1) - 1).max() < 0.02
    # Everything that was measured is still covered.
    away = np.asarray(
        o3d.geometry.PointCloud(
            o3d.utility.Vector3dVector(cloud.xyz.astype(float))
        ).compute_point_cloud_distance(o3d.geometry.PointCloud(clean.vertices))
    )
    assert np.percentile(away, 99) < 0.05


def test_tsdf_of_a_sphere():
    K = np.array([[200.0, 0, 99.5], [0, 200.0, 99.5], [0, 0, 1]])
    views, maps, images = [], [], []
    for i, angle in enumerate((-0.3, 0.0, 0.3)):
        c, s = np.cos(angle), np.sin(angle)
        R = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        view = PinholeView(i, str(i), K, np.c_[R, [0, 0, 3.0]], 200, 200)
        xs, ys = np.meshgrid(np.arange(200), np.arange(200))
        rays = np.stack([(xs - 99.5) / 200, (ys - 99.5) / 200, np.ones_like(xs)], -1)
        # The sphere's centre is (0, 0, 3) for every camera.
        b, a = rays @ [0, 0, 3.0], (rays**2).sum(-1)
        inside = b * b - a * 8.0
        depth = np.where(inside > 0, (b - np.sqrt(np.maximum(inside, 0))) / a, 0).astype(np.float32)
        views.append(view)
        maps.append(DepthMap(depth, np.zeros((200, 200, 3), np.float32), (depth > 0).astype(np.float32)))
        images.append(np.full((200, 200, 3), 90, np.uint8))
    mesh = tsdf_mesh(views, maps, images)
    xyz, triangles, rgb = mesh_arrays(mesh)
    assert len(triangles) > 3000
    assert np.median(np.abs(np.linalg.norm(xyz, axis=1) - 1)) < 0.005
    assert np.abs(rgb.astype(int) - 90).max() <= 2
    nothing = [DepthMap(m.depth * 0, m.normal, m.confidence) for m in maps]
    with pytest.raises(ValueError, match="no depth"):
        tsdf_mesh(views, nothing, images)


def grid_mesh(n, offset=(0.0, 0.0, 0.0)):
    """A flat n x n grid of unit squares, two triangles each."""
    xs, ys = np.meshgrid(np.arange(n + 1.0), np.arange(n + 1.0))
    xyz = np.stack([xs.ravel(), ys.ravel(), np.zeros(xs.size)], -1) + offset
    corner = (np.arange(n)[:, None] * (n + 1) + np.arange(n)).ravel()
    tri = np.concatenate(
        [
            np.stack([corner, corner + 1, corner + n + 1], -1),
            np.stack([corner + 1, corner + n + 2, corner + n + 1], -1),
        ]
    )
    return xyz, tri


def test_islands_long_triangles_and_loose_vertices_go():
    main, main_triangles = grid_mesh(20)
    island, island_triangles = grid_mesh(2, (100, 0, 0))
    xyz = np.concatenate([main, island, [[10, 500, 0], [7, 7, 7]]])
    tip = len(main) + len(island)
    triangles = np.concatenate([main_triangles, island_triangles + len(main), [[0, 1, tip]]])
    mesh = o3d.geometry.TriangleMesh(o3d.utility.Vector3dVector(xyz), o3d.utility.Vector3iVector(triangles))
    before = np.asarray(mesh.triangles).copy()
    clean = clean_mesh(mesh, min_island_triangles=20)
    assert len(clean.triangles) == 800
    assert len(clean.vertices) == 441
    assert np.array_equal(np.asarray(mesh.triangles), before)
    both = clean_mesh(mesh, min_island_triangles=5, min_island_share=0.0)
    assert len(both.triangles) == 808
    # Without measured points under the right half, it goes.
    left = clean_mesh(mesh, support=main[main[:, 0] <= 10], max_distance=0.5)
    assert np.asarray(left.vertices)[:, 0].max() == 10
    assert len(left.triangles) == 400


def test_cleaning_nothing_and_the_smallest_mesh():
    assert len(clean_mesh(o3d.geometry.TriangleMesh()).triangles) == 0
    # The largest part stays however small it is.
    xyz, tri = grid_mesh(1)
    one = o3d.geometry.TriangleMesh(o3d.utility.Vector3dVector(xyz), o3d.utility.Vector3iVector(tri))
    assert len(clean_mesh(one).triangles) == 2


def test_spacing_of_a_grid():
    xyz, _ = grid_mesh(30)
    # The sixth nearest of a grid point (itself the first) lies on the diagonal.
    assert point_spacing(xyz) == pytest.approx(2**0.5)
