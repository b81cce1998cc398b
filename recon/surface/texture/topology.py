"""Neighbourhoods of faces and vertices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64
from scipy import sparse
from scipy.sparse.csgraph import connected_components


@dataclass(frozen=True)
class Adjacency:
    """Neighbours of faces over edges that exactly two faces share.

    Attributes:
        face: (m, 3) the neighbour over the edge from corner j to corner j+1, -1 for none.
        back: (m, 3) which edge of that neighbour it is.
        pairs: (e, 2) faces that share an edge, each pair once, first < second.
        edges: (e, 2) the vertices of those edges.
    """

    face: Int32[np.ndarray, "m 3"]
    back: Int32[np.ndarray, "m 3"]
    pairs: Int32[np.ndarray, "e 2"]
    edges: Int32[np.ndarray, "e 2"]


def face_adjacency(faces: Int32[np.ndarray, "m 3"]) -> Adjacency:
    """Find the neighbours of every face."""
    start, end = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    low, high = np.minimum(start, end).astype(np.int64), np.maximum(start, end).astype(np.int64)
    key = low * (int(faces.max(initial=0)) + 1) + high
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    same = ordered[1:] == ordered[:-1]
    # A run of exactly two: equal to the next, but not to the one before or after those two.
    first = same.copy()
    first[1:] &= ~same[:-1]
    first[:-1] &= ~same[1:]
    at = np.flatnonzero(first)
    one, two = order[at], order[at + 1]
    face = np.full(faces.size, -1, np.int32)
    back = np.zeros(faces.size, np.int32)
    face[one], face[two] = two // 3, one // 3
    back[one], back[two] = two % 3, one % 3
    pairs = np.stack([one // 3, two // 3], axis=1).astype(np.int32)
    edges = np.stack([start[one], end[one]], axis=1).astype(np.int32)
    return Adjacency(face.reshape(-1, 3), back.reshape(-1, 3), pairs, edges)


def regions(adjacency: Adjacency, labels: Int32[np.ndarray, " m"]) -> Int32[np.ndarray, " m"]:
    """Number the connected regions of faces with one label."""
    i, j = adjacency.pairs[:, 0], adjacency.pairs[:, 1]
    same = labels[i] == labels[j]
    n = len(labels)
    graph = sparse.coo_matrix((np.ones(int(same.sum()), np.int8), (i[same], j[same])), shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(np.int32)


def face_frames(
    vertices: Float64[np.ndarray, "n 3"], faces: Int32[np.ndarray, "m 3"]
) -> tuple[Float64[np.ndarray, "m 3"], Float64[np.ndarray, "m 3"]]:
    """Compute centres and unit normals of faces."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    normal = np.cross(b - a, c - a)
    return (a + b + c) / 3, normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)


def vertex_normals(
    vertices: Float64[np.ndarray, "n 3"], faces: Int32[np.ndarray, "m 3"]
) -> Float32[np.ndarray, "n 3"]:
    """Compute unit normals of vertices, weighted by area."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    weighted = np.cross(b - a, c - a)
    total = incidence(faces, len(vertices)).T @ weighted
    length = np.linalg.norm(total, axis=1, keepdims=True)
    unit = np.where(length > 0, total / np.where(length > 0, length, 1), [0.0, 0.0, 1.0])
    return unit.astype(np.float32)


def incidence(faces: Int32[np.ndarray, "m 3"], vertices: int) -> sparse.csr_matrix:
    """The (m, n) matrix with a one for each corner of each face."""
    m = len(faces)
    indptr: Int64[np.ndarray, " k"] = np.arange(0, 3 * m + 1, 3)
    return sparse.csr_matrix(
        (np.ones(3 * m, np.float32), faces.ravel().astype(np.int64), indptr), shape=(m, vertices)
    )
