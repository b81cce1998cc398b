"""What the readers of data sets hand over: true cameras, and where the rest of the truth lies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64

from recon.core.cameras import FOCAL_AND_CENTRE, Intrinsics, PinholeView
from recon.core.posed import Camera


@dataclass(frozen=True)
class TruthCamera:
    """One photo's true camera, in recon's conventions (the centre of the top-left pixel is (0, 0)).

    Attributes:
        width, height: image size in pixels that ``K`` belongs to.
        K: (3, 3) float64 calibration.
        R: (3, 3) float64 rotation, x_cam = R @ x_world + t.
        t: (3,) float64, in world units.
        distortion: None for a pinhole; otherwise the parameters of ``model`` after focal length and
            principal point, in COLMAP's order.
        model: COLMAP's name of the camera model.
    """

    width: int
    height: int
    K: Float64[np.ndarray, "3 3"]
    R: Float64[np.ndarray, "3 3"]
    t: Float64[np.ndarray, "3"]
    distortion: Float64[np.ndarray, " n"] | None = None
    model: str = "PINHOLE"

    @property
    def cam_from_world(self) -> Float64[np.ndarray, "3 4"]:
        """(3, 4) float64, [R | t]."""
        return np.column_stack([self.R, self.t])

    @property
    def center(self) -> Float64[np.ndarray, "3"]:
        """The camera's centre in the world."""
        return -self.R.T @ self.t

    def resized(self, width: int, height: int) -> TruthCamera:
        """Resize the camera with its image: x' = (x + 0.5) * s - 0.5."""
        K = self.view("").resized(width, height).K
        return replace(self, width=width, height=height, K=K)

    @property
    def intrinsics(self) -> Intrinsics:
        """Known intrinsics at the camera's own size, distortion included, as COLMAP's model has them."""
        more = () if self.distortion is None else tuple(float(value) for value in self.distortion)
        fx, fy = FOCAL_AND_CENTRE.get(self.model, (0, 1, 2, 3))[:2]
        focal = (float(self.K[0, 0]),) if fx == fy else (float(self.K[0, 0]), float(self.K[1, 1]))
        params = (*focal, float(self.K[0, 2]), float(self.K[1, 2]), *more)
        return Intrinsics(self.model, params, self.width, self.height, known=True, has_focal_prior=True)

    def posed(self) -> Camera:
        """The camera with its distortion and its place."""
        return Camera(self.intrinsics, self.cam_from_world)

    def view(self, name: str, photo_id: int = 0) -> PinholeView:
        """The camera as densification and rendering take it; distortion is not part of it."""
        return PinholeView(photo_id, name, self.K, self.cam_from_world, self.width, self.height)


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
    cameras: Mapping[str, TruthCamera]
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
