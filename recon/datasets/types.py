"""Types that readers of data sets return: true cameras, and the place of the rest of the truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64

from recon.core.cameras import FOCAL_AND_CENTRE, Intrinsics, PinholeView
from recon.core.posed import Camera


def true_camera(
    width: int,
    height: int,
    K: Float[np.ndarray, "3 3"],
    R: Float[np.ndarray, "3 3"],
    t: Float[np.ndarray, "3"],
    distortion: Float[np.ndarray, " n"] | None = None,
    model: str = "PINHOLE",
) -> Camera:
    """Build a photo's true camera, in recon's conventions (the centre of the top-left pixel is (0, 0)).

    Args:
        width, height: image size in pixels that ``K`` belongs to.
        K: calibration.
        R: rotation, x_cam = R @ x_world + t.
        t: in world units.
        distortion: None for a pinhole; otherwise the parameters of ``model`` after focal length and principal point,
            in COLMAP's order.
        model: COLMAP's name of the camera model.
    """
    fx, fy = FOCAL_AND_CENTRE[model][:2]
    focal = (K[0, 0],) if fx == fy else (K[0, 0], K[1, 1])
    params = (*focal, K[0, 2], K[1, 2], *(() if distortion is None else distortion))
    intrinsics = Intrinsics(
        model, tuple(float(value) for value in params), width, height, known=True, has_focal_prior=True
    )
    return Camera(intrinsics, np.column_stack([R, t]).astype(np.float64))


@dataclass(frozen=True)
class TruthPair:
    """A pair of photos with its own truth, as two-view benchmarks list them.

    Attributes:
        a, b: photo names, relative to the images folder.
        K_a, K_b: (3, 3) float64 calibrations in recon's pixel convention, at the size of the files.
        b_from_a: (3, 4) float64, x_b = R @ x_a + t. The length of t is in ``unit_in_metres`` where the
            benchmark has a scale.
        turns_a, turns_b: quarter turns counter-clockwise (``numpy.rot90``) that set each photo upright.
        overlap: as the benchmark states it; None where it does not.
    """

    a: str
    b: str
    K_a: Float64[np.ndarray, "3 3"]
    K_b: Float64[np.ndarray, "3 3"]
    b_from_a: Float64[np.ndarray, "3 4"]
    turns_a: int = 0
    turns_b: int = 0
    overlap: float | None = None


@dataclass(frozen=True)
class GroundTruth:
    """Truth of a scene. The world is the truth's own: cameras, points, mesh and region agree.

    Attributes:
        name: of the scene.
        images: folder with the photos; the keys of ``cameras`` are paths below it.
        cameras: by photo name.
        unit_in_metres: length of one world unit; None where there is no scale.
        layout: name of the reader that found it.
        depth: photo name to true z-depth, (height, width) float32 of the photo's camera, 0 where unknown,
            None for a photo without; None where the scene has no depth at all.
        mesh: true surface.
        points: scans of the true surface (PLY); ``load_points`` applies ``world_from_points``.
        world_from_points: (4, 4) per scan; empty where the scans are in the world already.
        masks: folder with a mask per photo (NAME.png or STEM.png, white: the object).
        pairs: the pairs that a two-view benchmark judges, or (with ``cameras``) that a data set proposes.
        region: world points to True where the truth can judge a point; None where it can everywhere.
        flow: pair of photo names to true flow, (h, w, 2) float32, NaN where unknown; None for a pair without.
        flow_pairs: the pairs that have a true flow.
        note: what the person who reads a table should know of this truth; may be empty.
    """

    name: str
    images: Path
    cameras: Mapping[str, Camera]
    unit_in_metres: float | None = None
    layout: str = ""
    depth: Callable[[str], Float32[np.ndarray, "h w"] | None] | None = None
    mesh: Path | None = None
    points: tuple[Path, ...] = ()
    world_from_points: tuple[Float64[np.ndarray, "4 4"], ...] = ()
    masks: Path | None = None
    pairs: tuple[TruthPair, ...] = ()
    region: Callable[[Float[np.ndarray, "n 3"]], Bool[np.ndarray, " n"]] | None = None
    flow: Callable[[str, str], Float32[np.ndarray, "h w 2"] | None] | None = None
    flow_pairs: tuple[tuple[str, str], ...] = ()
    note: str = ""

    def views(self) -> dict[str, PinholeView]:
        """The cameras as ``PinholeView``, by photo name; ids count them in the order of their names."""
        return {name: self.cameras[name].view(name, i) for i, name in enumerate(sorted(self.cameras))}

    def poses(self) -> dict[str, Float64[np.ndarray, "3 4"]]:
        """``cam_from_world`` by photo name."""
        return {name: camera.cam_from_world for name, camera in self.cameras.items()}

    def load_points(self) -> Float32[np.ndarray, "n 3"]:
        """Read all scans and set them in the world.

        Raises:
            ReconError: there is no scan, or one cannot be read.
        """
        from recon.errors import ReconError
        from recon.io.surfaces import read_points_ply

        if not self.points:
            raise ReconError(f"{self.name}: the truth has no scan")
        clouds = []
        for index, path in enumerate(self.points):
            xyz = read_points_ply(path).xyz
            if self.world_from_points:
                move = self.world_from_points[index]
                xyz = (xyz.astype(np.float64) @ move[:3, :3].T + move[:3, 3]).astype(np.float32)
            clouds.append(xyz)
        return np.concatenate(clouds)
