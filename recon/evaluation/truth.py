"""The truth of a scene as an evaluation needs it: with the run's names, its surface, its photos without distortion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from recon.core.mesh import Mesh, mesh_from_open3d
from recon.core.posed import Camera
from recon.datasets.ground_truth import GroundTruth
from recon.errors import ReconError


def renamed_truth(truth: GroundTruth, names: Mapping[str, str]) -> GroundTruth:
    """The truth with the run's names of the photos (run's name to truth's)."""
    if all(ours == theirs for ours, theirs in names.items()):
        return truth
    back = {theirs: ours for ours, theirs in names.items()}
    depth, flow = truth.depth, truth.flow
    return replace(
        truth,
        cameras={back.get(name, name): camera for name, camera in truth.cameras.items()},
        depth=None if depth is None else lambda name: depth(names.get(name, name)),
        flow=None if flow is None else lambda a, b: flow(names.get(a, a), names.get(b, b)),
        pairs=tuple(replace(p, a=back.get(p.a, p.a), b=back.get(p.b, p.b)) for p in truth.pairs),
    )


def load_surface(truth: GroundTruth) -> Mesh | Float32[np.ndarray, "m 3"] | None:
    """Read the true surface: the mesh, or the scans together; None where there is neither.

    Raises:
        ReconError: a file cannot be read, or holds nothing.
    """
    if truth.mesh is not None:
        from recon.io.surfaces import read_mesh

        return mesh_from_open3d(read_mesh(truth.mesh))
    if truth.points:
        points = truth.load_points()
        if not len(points):
            raise ReconError(f"{truth.points[0]}: the scan holds no points; fetch it again")
        return points
    return None


def surface_extent(surface: Mesh | Float[np.ndarray, "m 3"]) -> float:
    """Compute the size of a surface: the diagonal of the box from the 1st to the 99th percentile of its points."""
    points = surface.vertices[np.unique(surface.faces)] if isinstance(surface, Mesh) else np.asarray(surface)
    step = max(1, len(points) // 200_000)
    low, high = np.percentile(points[::step], [1, 99], axis=0)
    return float(np.linalg.norm(high - low))


def surface_points(surface: Mesh | Float[np.ndarray, "m 3"]) -> Float[np.ndarray, "k 3"]:
    """Points of a surface; of a mesh those that its faces use."""
    if isinstance(surface, Mesh):
        return surface.vertices[np.unique(surface.faces)]
    return np.asarray(surface)


def undistorted_photo(path: Path, camera: Camera, long_side: int) -> UInt8[np.ndarray, "h w 3"]:
    """A photo of the truth without its distortion, at the size that the run worked at."""
    from recon.core.resize import resize_rgb, working_size
    from recon.core.undistort import undistortion_maps
    from recon.photos.reading import load_photo

    rgb = load_photo(path).rgb
    height, width = rgb.shape[:2]
    if not camera.intrinsics.is_pinhole:
        intrinsics = camera.intrinsics.resized(width, height)
        map_x, map_y = undistortion_maps(intrinsics, intrinsics.K, (width, height))
        rgb = cv2.remap(rgb, map_x, map_y, cv2.INTER_CUBIC)
    return resize_rgb(rgb, *working_size(width, height, long_side))
