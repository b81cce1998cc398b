"""Distances of points from a surface that is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

from recon.core.mesh import Mesh
from recon.core.raycasting import distance_to
from recon.core.similarity import Similarity3
from recon.errors import ReconError
from recon.evaluation.poses import align_cameras, matched_names
from recon.io.cameras_json import poses_from_cameras_json
from recon.io.surfaces import read_ply_vertices
from recon.render.scene import ViewScene
from recon.render.scene_files import is_mesh_file, read_view_mesh


class Truth:
    """A mesh or a cloud that is right, in the frame of the model or moved there by the cameras of both."""

    def __init__(
        self,
        distance: Callable[[Float[np.ndarray, "n 3"]], Float32[np.ndarray, " n"]],
        truth_from_scene: Similarity3,
        aligned: bool,
    ) -> None:
        self._distance, self._similarity, self.aligned = distance, truth_from_scene, aligned

    def errors(self, xyz: Float32[np.ndarray, "n 3"]) -> Float32[np.ndarray, " n"]:
        """Distance of points of the scene from the truth, in the truth's units."""
        return self._distance(self._similarity(xyz))


def load_truth(path: Path, scene: ViewScene) -> Truth:
    """The truth of a scene.

    Args:
        path: a mesh or a cloud in the model's own frame; or a folder with ``cameras.json`` and ``truth/mesh.ply``, as
            rendered scenes have it: then the cameras of both bring the model to the truth.

    Raises:
        ReconError: it cannot be read, or it has no two photos of the scene.
    """
    if not path.exists():
        raise ReconError(f"--truth {path}: there is no such file or folder")
    shift = Similarity3(1.0, np.eye(3), scene.offset)
    if path.is_file():
        return Truth(_distance_to(path), shift, False)
    surface, cameras = path / "truth" / "mesh.ply", path / "cameras.json"
    if not surface.is_file() or not cameras.is_file():
        raise ReconError(
            f"--truth {path}: has no cameras.json and truth/mesh.ply; give those of a rendered scene, or a file in "
            "the frame of the model"
        )
    known = poses_from_cameras_json(cameras)
    found = {photo.name: photo.view.cam_from_world for photo in scene.photos}
    names = matched_names(found, known)
    try:
        similarity = align_cameras(
            {name: found[name] for name in names}, {name: known[theirs] for name, theirs in names.items()}
        )
    except ValueError as error:
        raise ReconError(f"--truth {path}: {error}") from error
    return Truth(_distance_to(surface), similarity, True)


def _distance_to(path: Path) -> Callable[[Float[np.ndarray, "n 3"]], Float32[np.ndarray, " n"]]:
    """The distance of points from a file's surface or points."""
    if is_mesh_file(path):
        mesh, _ = read_view_mesh(path)
        middle = mesh.vertices.mean(axis=0)
        near = mesh.near(middle)
        distance = distance_to(Mesh(near.vertices, near.faces))
        return lambda points: distance(points - middle).astype(np.float32)
    from scipy.spatial import cKDTree

    rows = read_ply_vertices(path)
    known = np.stack([np.asarray(rows[axis], np.float64) for axis in "xyz"], axis=-1)
    known = known[np.isfinite(known).all(axis=1)]
    if not len(known):
        raise ReconError(f"--truth {path}: none of its points has coordinates")
    tree = cKDTree(known)

    def to_points(points: Float[np.ndarray, "n 3"]) -> Float32[np.ndarray, " n"]:
        return np.asarray(tree.query(points, workers=-1)[0], np.float32)

    return to_points
