"""Meshes from a cloud or from depth maps, and their cleaning."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Float32, Float64, Int, Int64, UInt8
from scipy.spatial import cKDTree

from recon.core.cameras import PinholeView
from recon.core.kernels import kernel
from recon.core.memory import give_memory_back
from recon.core.mesh import FusedCloud, Mesh
from recon.dense.types import DepthMap
from recon.surface.blocks import Block, Patch, compacted, plan_blocks

# Deeper octrees overflow the memory of a small machine before they resolve anything.
_MAX_OCTREE_DEPTH = 12
# Side of Poisson's smallest cells, in spacings of the points (``point_spacing``). On rendered scenes a finer one gains
# less than 0.02 of F at 10 mm, and its faces and time grow with the square (docs/benchmarks.md).
_CELL = 2.5
# Cube of the octree, in extents of the cloud, at least.
_LEAST_SCALE = 1.1
# A surface that is farther than this many spacings from all points was not measured. At six, as it was before, a rim of
# surface without points lowered F at 20 mm by 0.03 to 0.04 on rendered scenes. Three change nothing there, but on
# fountain-P11 make a third more faces, of which no photo sees one in five.
_REACH = 2.0
# A vertex is moved and coloured by so many nearest points, whose weight falls with their distance (Gaussian, its
# deviation in spacings), and by at most so many spacings.
_SETTLING_POINTS, _SETTLING_SIGMA, _SETTLING_STEP = 6, 1.0, 1.0
_SETTLING_CHUNK = 25_000
# Faces that are worked on at once.
_CHUNK = 65_536
# Parts of a cloud overlap by so many cells on each side of the plane between them: the surfaces of both are then within
# about a hundredth of a cell there.
_MARGIN_CELLS = 8.0
# Points that a cell of a measured surface holds, or somewhat more.
_POINTS_A_CELL = 8


def point_spacing(xyz: Float[np.ndarray, "n 3"], *, sample: int = 20000, seed: int = 0) -> float:
    """Median distance from a point to its sixth-nearest neighbour: what counts as close in this cloud."""
    if len(xyz) < 7:
        return 0.0
    rng = np.random.default_rng(seed)
    chosen = xyz[rng.choice(len(xyz), min(sample, len(xyz)), replace=False)]
    distance, _ = _tree(xyz).query(chosen, k=7)
    return float(np.median(distance[:, 6]))


def _tree(xyz: Float[np.ndarray, "n 3"]) -> Any:
    """A search tree that is built in half the usual time; each search takes a little longer."""
    return cKDTree(xyz, balanced_tree=False, compact_nodes=False)


def _as_open3d(cloud: FusedCloud) -> Any:
    """Places and normals: colours come later, from the points themselves (``settled_patch``)."""
    from recon.core.open3d import o3d

    points = o3d.geometry.PointCloud()
    points.points = o3d.utility.Vector3dVector(cloud.xyz.astype(np.float64))
    points.normals = o3d.utility.Vector3dVector(cloud.normals.astype(np.float64))
    return points


def poisson_mesh(
    cloud: FusedCloud,
    *,
    depth: int = 5,
    trim_quantile: float = 0.02,
    threads: int = -1,
    cell: float | None = None,
) -> Any:
    """A mesh by screened Poisson reconstruction (Kazhdan & Hoppe, 2013), trimmed where few points are.

    Args:
        cloud: points with normals.
        depth: of the octree at least: 10 resolves a thousandth of the extent. It is as deep as the spacing of the
            points asks for, so that far points do not cost the place of interest its detail (the octree only refines
            where points are), and its cube is as large as makes the cells fit the spacing.
        trim_quantile: share of vertices with the lowest density that is cut away.
        threads: of the solver; -1 for all.
        cell: side of the smallest cells; None for what the spacing of the points asks for.

    Returns:
        An ``open3d.geometry.TriangleMesh`` without colours.

    Raises:
        ValueError: for fewer than 10 points.
    """
    if len(cloud) < 10:
        raise ValueError(f"{len(cloud)} points are too few for a surface")
    octree = _octree(cloud, depth, cell or poisson_cell(cloud))
    mesh, density = _poisson(_as_open3d(cloud), octree, threads)
    if trim_quantile > 0:
        values = np.asarray(density)
        mesh.remove_vertices_by_mask(values < np.quantile(values, trim_quantile))
    return mesh


def _poisson(points: Any, octree: tuple[int, float], threads: int) -> Any:
    """Open3D's mesh of points with normals, and the density at its vertices."""
    from recon.core.open3d import o3d

    depth, scale = octree
    return o3d.geometry.TriangleMesh.create_from_point_cloud_poisson(
        points, depth=depth, scale=scale, linear_fit=False, n_threads=threads
    )


def poisson_cell(cloud: FusedCloud) -> float:
    """Side of Poisson's smallest cells that fits the spacing of the points."""
    return _CELL * point_spacing(cloud.xyz)


def _octree(cloud: FusedCloud, least_depth: int, cell: float) -> tuple[int, float]:
    """Depth of the octree and side of its cube, in extents of the cloud, for cells of a size."""
    extent = float(np.ptp(cloud.xyz, axis=0).max())
    wanted = math.ceil(math.log2(_LEAST_SCALE * extent / cell)) if 0 < cell < extent else least_depth
    if wanted < least_depth or wanted > _MAX_OCTREE_DEPTH:
        return max(least_depth, min(wanted, _MAX_OCTREE_DEPTH)), _LEAST_SCALE
    return wanted, max(_LEAST_SCALE, cell * 2**wanted / extent)


@dataclass(frozen=True)
class PartsPlan:
    """The parts in which a cloud is meshed.

    Attributes:
        block: the parts and the planes between them.
        cell: side of Poisson's smallest cells.
    """

    block: Block
    cell: float

    @property
    def margin(self) -> float:
        """Distance by which a part reaches beyond the planes that bound it."""
        return _MARGIN_CELLS * self.cell

    def rows(self, xyz: Float[np.ndarray, "n 3"]) -> list[Int64[np.ndarray, " k"]]:
        """The points of each part, margin included."""
        return self.block.rows(xyz, self.margin)


def plan_of_points(xyz: Float[np.ndarray, "n 3"], most: int, share: float = 1.0) -> PartsPlan:
    """Plan the parts of a cloud.

    Poisson's work and memory go with the cells that hold points, so points far apart count for more than near ones.

    Args:
        xyz: its points, or some of them drawn by chance.
        most: points of a part (``plan_blocks``), of which each cell that holds some counts as ``_POINTS_A_CELL``.
        share: of the cloud's points that were drawn. Distances on a surface shrink with the root of it.
    """
    side = _CELL * point_spacing(xyz)
    cell = side * math.sqrt(share)
    # In cells as large as suit the drawn points there are that share of the cloud's cells.
    cells = max(1, round(most * share / _POINTS_A_CELL))
    return PartsPlan(plan_blocks(_one_a_cell(xyz, side), cells, _MARGIN_CELLS * cell), cell)


def _one_a_cell(xyz: Float[np.ndarray, "n 3"], side: float) -> Float[np.ndarray, "m 3"]:
    """The first point of each cell of a grid. A hash tells cells apart (Teschner et al., VMV 2003), nearly always."""
    if not side > 0:
        return xyz
    key = np.zeros(len(xyz), np.int64)
    for axis, prime in enumerate((73856093, 19349663, 83492791)):
        key ^= np.floor(xyz[:, axis] / side).astype(np.int64) * prime
    return xyz[np.sort(np.unique(key, return_index=True)[1])]


def block_mesh(cloud_of: Callable[[], FusedCloud], cell: float, depth: int = 5, threads: int = 1) -> Patch:
    """The Poisson mesh of a part of a cloud in single precision, without what is too far from its points.

    Args:
        cloud_of: gives points with normals; asked twice, so that they need not be in memory meanwhile.
        cell: side of the smallest cells, that of the whole cloud (``poisson_cell``).
        depth, threads: as of ``poisson_mesh``.
    """
    cloud = cloud_of()
    if len(cloud) < 10:
        return Patch.empty()
    points, octree = _as_open3d(cloud), _octree(cloud, depth, cell)
    del cloud
    mesh, _ = _poisson(points, octree, threads)
    del points
    give_memory_back(cycles=False)  # the solver's
    # Beyond the points of its part a surface closes as it likes, and may come back to where the parts are joined.
    reach = _REACH * cell / _CELL
    near, _ = _tree(cloud_of().xyz).query(np.asarray(mesh.vertices), k=1, distance_upper_bound=reach)
    mesh.remove_vertices_by_mask(~np.isfinite(near))
    return Patch(np.asarray(mesh.vertices, np.float32), np.array(mesh.triangles, np.int32))


def cleaned_patch(patch: Patch, *, min_island_share: float = 0.002, min_island_triangles: int = 100) -> Patch:
    """A mesh without long triangles and islands, as ``clean_mesh`` does it, in little memory.

    Islands are what no common vertex joins, and the limit of an edge is that of a hundred thousand triangles. What is
    far from all points is gone already (``block_mesh``).
    """
    if len(patch.faces) == 0:
        return patch
    some = patch.faces[:: max(1, len(patch.faces) // 100_000)]
    corners = patch.xyz[some]
    limit = 8.0 * float(np.median(np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2)))
    keep = _longest_edges(patch.xyz, patch.faces) <= limit
    faces = patch.faces[keep]
    label = np.empty(len(faces), np.int32)
    _islands(faces, np.arange(len(patch.xyz), dtype=np.int32), label)
    sizes = np.bincount(label, minlength=1)
    small = (sizes < min_island_triangles) | (sizes < min_island_share * len(faces))
    small[int(sizes.argmax())] = False
    return compacted(Patch(patch.xyz, faces[~small[label]]))


def _longest_edges(xyz: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"]) -> Float32[np.ndarray, " m"]:
    """Longest edge of each face."""
    out = np.empty(len(faces), np.float32)
    for first in range(0, len(faces), _CHUNK):
        some = slice(first, first + _CHUNK)
        corners = xyz[faces[some]]
        out[some] = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1)
    return out


@kernel()
def _islands(faces, parent, out):  # type: ignore[no-untyped-def]
    """Names the island of each face: the smallest of its vertices. ``parent`` names each vertex itself."""
    for _ in range(2):  # the second time all is joined
        for f in range(len(faces)):
            least = faces[f, 0]
            for k in range(3):
                root = faces[f, k]
                while parent[root] != root:
                    parent[root] = parent[parent[root]]
                    root = parent[root]
                if k == 0:
                    least = root
                elif root < least:
                    parent[least] = root
                    least = root
                else:
                    parent[root] = least
            out[f] = least


def vertex_normals(
    xyz: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"]
) -> Float32[np.ndarray, "n 3"]:
    """Unit normals of vertices, faces weighted by their area, in little memory; (0, 0, 1) where there is no face."""
    out = np.zeros((len(xyz), 3), np.float32)
    chunk = max(_CHUNK, len(xyz) // 4)  # each takes time for all vertices
    for first in range(0, len(faces), chunk):
        some = faces[first : first + chunk]
        a, b, c = (xyz[some[:, k]] for k in range(3))
        weighted = np.cross(b - a, c - a)
        for axis in range(3):
            for corner in range(3):
                out[:, axis] += np.bincount(some[:, corner], weighted[:, axis], len(xyz))
    length = np.linalg.norm(out, axis=1, keepdims=True)
    out /= np.where(length > 0, length, 1)
    out[length[:, 0] == 0, 2] = 1.0
    return out


def settled_patch(patch: Patch, plan: PartsPlan, cloud_of: Callable[[int], FusedCloud]) -> Mesh:
    """A mesh moved along its normals onto the points and coloured by them, part by part.

    Poisson's cells are larger than the points' spacing, so its surface is smoother than what was measured. One step of
    a projection onto the points' tangent planes (Alexa et al., *Computing and rendering point set surfaces*, TVCG 2003,
    with given normals) brings that back; it leaves the faces alone.

    Args:
        patch: the mesh; its vertices are changed.
        cloud_of: the points of a part, margin included.
    """
    normals = vertex_normals(patch.xyz, patch.faces)
    rgb = np.full((len(patch.xyz), 3), 128, np.uint8)
    for number, mine in enumerate(plan.block.rows(patch.xyz)):
        cloud = cloud_of(number)
        if len(mine) == 0 or len(cloud) < _SETTLING_POINTS or plan.cell <= 0:
            continue
        tree = _tree(cloud.xyz)
        for first in range(0, len(mine), _SETTLING_CHUNK):
            rows = mine[first : first + _SETTLING_CHUNK]
            xyz, colours = _settled(
                patch.xyz[rows].astype(np.float64), normals[rows], tree, cloud, plan.cell / _CELL
            )
            patch.xyz[rows] = xyz
            rgb[rows] = np.round(colours * 255).clip(0, 255)
        del tree, cloud  # one part's at a time
        give_memory_back(cycles=False)
    return Mesh(patch.xyz, patch.faces, rgb, normals=vertex_normals(patch.xyz, patch.faces))


def tsdf_mesh(
    views: Sequence[PinholeView],
    depth_maps: Sequence[DepthMap],
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    *,
    voxel: float | None = None,
    truncation_voxels: float = 5.0,
    min_weight: float = 2.0,
    max_depth: float | None = None,
) -> Any:
    """A mesh by fusing depth maps into a truncated signed distance volume (Curless & Levoy 1996).

    Args:
        views, depth_maps, images: one each per view, of the view's size.
        voxel: side of a voxel; by default 1.5 times what a pixel covers at the median depth.
        truncation_voxels: distance at which the signed distance is cut, in voxels.
        min_weight: views that must have seen a voxel.
        max_depth: depths beyond are left out; by default twice the 99th percentile.

    Returns:
        An ``open3d.geometry.TriangleMesh`` with vertex colours and normals.

    Raises:
        ValueError: when no depth is known.
    """
    from recon.core.open3d import o3d

    known = [d.depth[d.depth > 0] for d in depth_maps]
    if not sum(len(k) for k in known):
        raise ValueError("no depth to fuse")
    every = np.concatenate([k[::17] for k in known])
    if voxel is None:
        sizes = [np.median(k) / v.K[0, 0] for k, v in zip(known, views, strict=True) if len(k)]
        voxel = 1.5 * float(np.median(sizes))
    if max_depth is None:
        max_depth = 2.0 * float(np.percentile(every, 99))
    device = o3d.core.Device("CPU:0")
    grid = o3d.t.geometry.VoxelBlockGrid(
        attr_names=("tsdf", "weight", "color"),
        attr_dtypes=(o3d.core.float32, o3d.core.float32, o3d.core.float32),
        attr_channels=((1), (1), (3)),
        voxel_size=voxel,
        block_resolution=8,
        block_count=20000,
        device=device,
    )
    for view, depth_map, image in zip(views, depth_maps, images, strict=True):
        if not (depth_map.depth > 0).any():
            continue
        depth = o3d.t.geometry.Image(o3d.core.Tensor(np.ascontiguousarray(depth_map.depth[..., None])))
        colour = o3d.t.geometry.Image(
            o3d.core.Tensor(np.ascontiguousarray(image.astype(np.float32) / np.float32(255.0)))
        )
        K = o3d.core.Tensor(np.ascontiguousarray(view.K, np.float64))
        pose = np.eye(4)
        pose[:3] = view.cam_from_world
        extrinsic = o3d.core.Tensor(pose)
        blocks = grid.compute_unique_block_coordinates(
            depth, K, extrinsic, 1.0, max_depth, trunc_voxel_multiplier=truncation_voxels
        )
        grid.integrate(
            blocks, depth, colour, K, K, extrinsic, 1.0, max_depth, trunc_voxel_multiplier=truncation_voxels
        )
    mesh = grid.extract_triangle_mesh(weight_threshold=min_weight - 0.5).to_legacy()
    mesh.compute_vertex_normals()
    return mesh


def clean_mesh(
    mesh: Any,
    *,
    support: Float[np.ndarray, "n 3"] | None = None,
    max_distance: float | None = None,
    max_edge: float | None = None,
    min_island_share: float = 0.002,
    min_island_triangles: int = 100,
) -> Any:
    """A copy of a mesh without triangles that nothing supports, long triangles and islands.

    Args:
        mesh: an ``open3d.geometry.TriangleMesh``.
        support: points that were measured; a triangle whose centre is farther than ``max_distance`` from all
            goes.
        max_distance: by default twice the spacing of the points of ``support``.
        max_edge: longest edge allowed; by default 8 times the median edge. Infinity keeps all.
        min_island_share: connected parts with a smaller share of the triangles go …
        min_island_triangles: … and so do those with fewer triangles; the largest part always stays.

    Returns:
        A new mesh; vertices that no triangle uses are gone.
    """
    from recon.core.open3d import o3d

    out = o3d.geometry.TriangleMesh(mesh)
    out.remove_duplicated_triangles()
    out.remove_degenerate_triangles()
    triangles = np.asarray(out.triangles)
    if len(triangles) == 0:
        return out
    xyz = np.asarray(out.vertices)
    # An edge of all triangles after the other: corners of millions at once would take more than Poisson does.
    edges = np.stack(
        [np.linalg.norm(xyz[triangles[:, k]] - xyz[triangles[:, k - 1]], axis=1) for k in range(3)], axis=1
    )
    limit = 8.0 * float(np.median(edges)) if max_edge is None else max_edge
    drop = edges.max(axis=1) > limit
    if support is not None and len(support) >= 7:
        reach = _REACH * point_spacing(support) if max_distance is None else max_distance
        # Vertices are asked rather than centres: half as many, and a triangle is no larger than the limit
        # above.
        near, _ = _tree(support).query(xyz, k=1, distance_upper_bound=reach, workers=-1)
        drop |= ~np.isfinite(near)[triangles].all(axis=1)
    out.remove_triangles_by_mask(drop)
    labels, sizes, _ = out.cluster_connected_triangles()
    labels, sizes = np.asarray(labels), np.asarray(sizes)
    if len(sizes):
        small = (sizes < min_island_triangles) | (sizes < min_island_share * sizes.sum())
        small[int(sizes.argmax())] = False
        out.remove_triangles_by_mask(small[labels])
    out.remove_unreferenced_vertices()
    out.compute_vertex_normals()
    return out


def _settled(
    xyz: Float64[np.ndarray, "k 3"],
    normals: Float[np.ndarray, "k 3"],
    tree: Any,
    cloud: FusedCloud,
    spacing: float,
) -> tuple[Float64[np.ndarray, "k 3"], Float64[np.ndarray, "k 3"]]:
    """Vertices moved onto the points, and their colours in 0…1."""
    distance, near = tree.query(xyz, k=_SETTLING_POINTS, workers=-1)
    weight = np.exp(-0.5 * (distance / (_SETTLING_SIGMA * spacing)) ** 2) + 1e-9
    colours = np.einsum("nk,nkc->nc", weight, cloud.rgb[near] / 255.0) / weight.sum(1, keepdims=True)
    planes = cloud.normals[near].astype(np.float64)
    # Points of the other side of a thin wall have no say.
    weight *= np.clip(np.einsum("nkc,nc->nk", planes, normals), 0, 1) ** 2
    gap = np.einsum("nkc,nkc->nk", cloud.xyz[near] - xyz[:, None], planes)
    step = (weight * gap).sum(axis=1) / (weight.sum(axis=1) + 1e-12)
    limit = _SETTLING_STEP * spacing
    return xyz + normals * np.clip(step, -limit, limit)[:, None], colours


def mesh_arrays(mesh: Any) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """Vertices, triangles and vertex colours of an Open3D mesh as arrays (mid grey where it has no colours)."""
    xyz = np.asarray(mesh.vertices, np.float32)
    triangles = np.asarray(mesh.triangles, np.int32)
    if mesh.has_vertex_colors():
        rgb = np.round(np.asarray(mesh.vertex_colors) * 255).clip(0, 255).astype(np.uint8)
    else:
        rgb = np.full(xyz.shape, 128, np.uint8)
    return xyz, triangles, rgb
