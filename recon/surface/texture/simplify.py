"""Fewer faces, and holes closed, before a texture takes over the detail."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import numpy as np
from jaxtyping import Float32, Float64, Int32

# How fast the threshold rises ("aggressiveness"): the slow one, and the library's own where that stops too early.
_THRESHOLD_RISES = (5, 7)


# Larger meshes are simplified in a process of their own, which takes 0.2 CPU s to start and keeps no memory: here
# 300 bytes a face would stay.
_APART_FACES = 250_000


def simplify_faces(
    vertices: Float64[np.ndarray, "n 3"],
    faces: Int32[np.ndarray, "m 3"],
    target: int,
    most: int | None = None,
) -> tuple[Float64[np.ndarray, "k 3"], Int32[np.ndarray, "l 3"]]:
    """Collapse edges by quadric error (Garland & Heckbert 1997) until about ``target`` faces are left.

    The library (fast-simplification) collapses in passes with a rising threshold instead of by a priority queue: about
    ten times as fast as Open3D's at the same distance to the input, if the threshold rises slowly (docs/texturing.md).

    Args:
        vertices, faces: the mesh.
        target: number of faces; a mesh that has no more stays as it is.
        most: larger meshes are first clustered to about so many faces, as collapsing edges takes 300 bytes a face.

    Returns:
        Vertices and faces; vertices that no face uses are gone.
    """
    if target <= 0 or len(faces) <= target:
        return compact(vertices, faces)
    centre = vertices.mean(axis=0)
    points, triangles = (vertices - centre).astype(np.float32), np.ascontiguousarray(faces, np.int32)
    del vertices, faces
    if most is not None and len(triangles) > most:
        points, triangles = clustered(points, triangles, most)
    work = _collapse_apart if len(triangles) > _APART_FACES else _collapse
    points, triangles = work(points, triangles, int(target))
    return compact(points.astype(np.float64) + centre, triangles)


def clustered(
    points: Float32[np.ndarray, "n 3"], triangles: Int32[np.ndarray, "m 3"], most: int
) -> tuple[Float32[np.ndarray, "k 3"], Int32[np.ndarray, "l 3"]]:
    """Vertices of one cell of a grid become their mean (Rossignac & Borrel 1993); about ``most`` faces are left.

    Coarser than collapsing edges, but it takes little more memory than the mesh.
    """
    some = triangles[:: max(1, len(triangles) // 100_000)]
    a, b, c = (points[some[:, i]].astype(np.float64) for i in range(3))
    area = 0.5 * float(np.linalg.norm(np.cross(b - a, c - a), axis=1).mean()) * len(triangles)
    low = points.min(axis=0)
    # A surface crosses up to sqrt(3) area / cell² cells, and has two faces for each.
    cell = float(np.sqrt(2.0 * area / most))
    while True:
        key = np.zeros(len(points), np.int64)
        for axis in range(3):
            steps = np.floor((points[:, axis] - low[axis]) / cell).astype(np.int64)
            key = key * (int(steps.max()) + 1) + steps
        _, number = np.unique(key, return_inverse=True)
        number = number.reshape(-1).astype(np.int32)
        found = number[triangles]
        keep = (found[:, 0] != found[:, 1]) & (found[:, 1] != found[:, 2]) & (found[:, 2] != found[:, 0])
        if int(keep.sum()) <= most:
            break
        cell *= 1.1
    count = np.bincount(number)
    sums = [np.bincount(number, points[:, axis]) for axis in range(3)]
    return np.stack([one / count for one in sums], axis=1).astype(np.float32), found[keep]


def _collapse(
    points: Float32[np.ndarray, "n 3"], triangles: Int32[np.ndarray, "m 3"], target: int
) -> tuple[Float32[np.ndarray, "k 3"], Int32[np.ndarray, "l 3"]]:
    import fast_simplification

    for rise in _THRESHOLD_RISES:
        points, triangles = fast_simplification.simplify(points, triangles, target_count=target, agg=rise)
        if len(triangles) <= 1.02 * target:
            break
    return np.asarray(points, np.float32), np.asarray(triangles, np.int32)


_APART = """
import io, json, sys
sys.path[:] = json.loads(sys.argv[1])
import numpy as np
from recon.surface.texture.simplify import _collapse
with np.load(io.BytesIO(sys.stdin.buffer.read())) as given:
    points, triangles = _collapse(given["points"], given["triangles"], int(sys.argv[2]))
out = io.BytesIO()
np.savez(out, points=points, triangles=triangles)
sys.stdout.buffer.write(out.getvalue())
"""


def _collapse_apart(
    points: Float32[np.ndarray, "n 3"], triangles: Int32[np.ndarray, "m 3"], target: int
) -> tuple[Float32[np.ndarray, "k 3"], Int32[np.ndarray, "l 3"]]:
    """The same in a process of its own: the library keeps its working memory (a gigabyte for 3.5 million faces)."""
    given = io.BytesIO()
    np.savez(given, points=points, triangles=triangles)
    done = subprocess.run(
        [sys.executable, "-c", _APART, json.dumps(sys.path), str(target)],
        input=given.getbuffer(),
        stdout=subprocess.PIPE,
        check=True,
    )
    with np.load(io.BytesIO(done.stdout)) as found:
        return found["points"], found["triangles"]


def close_holes(
    vertices: Float64[np.ndarray, "n 3"], faces: Int32[np.ndarray, "m 3"], size: float
) -> tuple[Float64[np.ndarray, "k 3"], Int32[np.ndarray, "l 3"]]:
    """Close the holes whose bounding box has half a diagonal up to ``size`` (VTK's filter, through Open3D).

    The outer border of an open surface is a hole too, a large one: keep ``size`` well below its extent.
    """
    from recon.core.open3d import o3d

    if size <= 0:
        return vertices, faces
    centre = vertices.mean(axis=0)
    mesh = o3d.t.geometry.TriangleMesh(
        o3d.core.Tensor(np.ascontiguousarray(vertices - centre, np.float64)),
        o3d.core.Tensor(np.ascontiguousarray(faces, np.int64)),
    )
    filled = mesh.fill_holes(size)
    points = filled.vertex.positions.numpy().astype(np.float64) + centre
    return compact(points, filled.triangle.indices.numpy().astype(np.int32))


def compact(
    vertices: Float64[np.ndarray, "n 3"], faces: Int32[np.ndarray, "m 3"]
) -> tuple[Float64[np.ndarray, "k 3"], Int32[np.ndarray, "l 3"]]:
    """Drop faces that have no area or come twice, and vertices that no face uses."""
    faces = np.asarray(faces, np.int32)
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    kept = np.linalg.norm(np.cross(b - a, c - a), axis=1) > 0
    kept &= (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    faces = faces[kept]
    key = np.sort(faces, axis=1)
    _, first = np.unique(key, axis=0, return_index=True)
    faces = faces[np.sort(first)]
    used = np.zeros(len(vertices), bool)
    used[faces.ravel()] = True
    number = np.cumsum(used) - 1
    return np.asarray(vertices, np.float64)[used], number[faces].astype(np.int32)
