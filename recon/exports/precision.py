"""Precision of a run's points: the covariance of its cameras, kept beside the georeference."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64

from recon.core.cameras import Intrinsics
from recon.core.colmap import camera_from_intrinsics, intrinsics_from_camera, points_to_colmap
from recon.core.similarity import Similarity3
from recon.errors import ReconError
from recon.exports.georeference import Georeference
from recon.exports.scene import Scene, SceneView
from recon.run.folder import GEOREFERENCE, PRECISION, RunFolder
from recon.sfm.control import Precision, adjust
from recon.sfm.evidence import ModelArrays, projected

# Photos of a model whose covariance is kept whole; beyond, the file would take hundreds of megabytes.
MOST_PHOTOS = 800


@dataclass(frozen=True)
class PointPrecision:
    """Places and standard deviations of points that photos show.

    Attributes:
        precision: of the cameras, in local coordinates of the frame.
        names: of the photos, in the order of its rows.
    """

    precision: Precision
    names: tuple[str, ...]

    def _rows(self, photos: Sequence[Iterable[str]]) -> tuple[np.ndarray, np.ndarray]:
        row_of = {name: row for row, name in enumerate(self.names)}
        point, photo = [], []
        for number, names in enumerate(photos):
            for name in names:
                if name in row_of:
                    point.append(number)
                    photo.append(row_of[name])
        return np.array(point, np.int64), np.array(photo, np.int64)

    def covariance(
        self, local: Float[np.ndarray, "p 3"], photos: Sequence[Iterable[str]]
    ) -> Float64[np.ndarray, "3p 3p"] | None:
        """Joint covariance of points in local coordinates; None where one is seen by fewer than two photos.

        Args:
            photos: names of those that show each point.
        """
        point, photo = self._rows(photos)
        if (np.bincount(point, minlength=len(local)) < 2).any():
            return None
        found = self.precision.of_points(np.asarray(local, np.float64), point, photo)
        return np.asarray(found) if np.isfinite(found).all() else None

    def sigma(self, local: Float[np.ndarray, "3"], photos: Iterable[str]) -> Float64[np.ndarray, "3"] | None:
        """Standard deviations of one point along the axes; None where they are not known."""
        found = self.covariance(np.asarray(local)[None], [tuple(photos)])
        return None if found is None else np.sqrt(np.diag(found))

    def length_sigma(
        self,
        a: Float[np.ndarray, "3"],
        b: Float[np.ndarray, "3"],
        photos_a: Iterable[str],
        photos_b: Iterable[str],
    ) -> float | None:
        """Standard deviation of the distance of two points; what they share of the cameras' errors cancels."""
        joint = self.covariance(np.stack([a, b]), [tuple(photos_a), tuple(photos_b)])
        length = float(np.linalg.norm(np.asarray(b) - a))
        if joint is None or length == 0.0:
            return None
        toward = (np.asarray(b) - a) / length
        along = np.concatenate([-toward, toward])
        return math.sqrt(max(float(along @ joint @ along), 0.0))


def with_sigma(value: float, sigma: float | None, unit: str) -> str:
    """A length with its standard deviation: "2.403 m ± 4 mm"; as many digits as the deviation has two of."""
    if sigma is None or not (math.isfinite(sigma) and sigma > 0):
        return f"{value:.4g} {unit}"
    digits = int(min(max(1 - math.floor(math.log10(sigma)), 0), 9))
    shown = f"{sigma:.2g} {unit}"
    if unit == "m":
        for name, factor in (("km", 1e-3), ("m", 1.0), ("cm", 1e2), ("mm", 1e3), ("µm", 1e6)):
            if sigma * factor >= 0.95 or name == "µm":
                text = f"{sigma * factor:.2g}" if sigma * factor < 10 else f"{sigma * factor:.0f}"
                shown = f"{text} {name}"
                break
    return f"{value:.{min(digits, 6)}f} {unit} ± {shown}"


def arrays_of_scene(scene: Scene, known: Mapping[str, bool] | None = None) -> ModelArrays:
    """A scene as flat arrays; observations behind their camera are left out.

    Args:
        known: of each photo, whether its camera was given by the user and is not adjusted.
    """
    point, view, keypoint = scene.observations.T if len(scene.observations) else np.zeros((3, 0), np.int64)
    xy = np.zeros((len(point), 2))
    for row, one in enumerate(scene.views):
        mine = view == row
        xy[mine] = points_to_colmap(one.keypoints[keypoint[mine]])
    held = [False] * len(scene.cameras)
    for one in scene.views:
        held[one.camera] |= bool(known and known.get(one.name))
    model = ModelArrays(
        np.arange(len(scene.views)),
        np.array([one.camera for one in scene.views], np.int64),
        np.array([one.cam_from_world[:, :3] for one in scene.views]),
        np.array([one.center for one in scene.views]),
        tuple(camera_from_intrinsics(camera) for camera in scene.cameras),
        tuple(held),
        scene.xyz,
        point,
        view,
        xy,
        np.zeros_like(xy),
    )
    residual = model.xy - projected(model)
    fine = np.isfinite(residual).all(axis=1)
    return ModelArrays(
        model.photos, model.camera, model.rotation, model.centre, model.cameras, model.known, model.xyz,
        point[fine], view[fine], xy[fine], residual[fine],
    )  # fmt: skip


def known_cameras(run: RunFolder) -> dict[str, bool]:
    """Of each photo of a workspace, whether the user gave its camera."""
    if not run.photos:
        return {}
    cameras = run.photo_set.cameras
    return {name: cameras[photo.camera].known for name, photo in run.photos.items()}


def write_precision(path: Path, found: PointPrecision) -> None:
    """Write the covariance of the cameras with what it belongs to."""
    model, cameras = found.precision.model, [intrinsics_from_camera(c) for c in found.precision.model.cameras]
    small = len(found.names) <= MOST_PHOTOS
    covariance = found.precision.covariance
    np.savez_compressed(
        path,
        names=np.array(found.names),
        rotation=model.rotation,
        centre=model.centre,
        camera=model.camera,
        models=np.array([one.model for one in cameras]),
        sizes=np.array([(one.width, one.height) for one in cameras]),
        params=np.concatenate([one.params for one in cameras]),
        lens=np.array(found.precision.lens, np.int64).reshape(-1, 2),
        noise=found.precision.noise,
        covariance=covariance if small else np.zeros((0, 0)),
    )


def read_precision(path: Path) -> PointPrecision | None:
    """Read what ``write_precision`` wrote; None where there is none, or it was too large to be kept."""
    if not path.is_file():
        return None
    try:
        with np.load(path) as data:
            if not data["covariance"].size:
                return None
            params, at, cameras = data["params"], 0, []
            for model, (width, height) in zip(data["models"], data["sizes"], strict=True):
                empty = camera_from_intrinsics(_blank(str(model), int(width), int(height)))
                count = len(empty.params)
                given = tuple(float(v) for v in params[at : at + count])
                cameras.append(camera_from_intrinsics(Intrinsics(str(model), given, int(width), int(height))))
                at += count
            nothing, nobody = np.zeros((0, 2)), np.zeros(0, np.int64)
            model_arrays = ModelArrays(
                np.arange(len(data["names"])), data["camera"], data["rotation"], data["centre"], tuple(cameras),
                (True,) * len(cameras), np.zeros((0, 3)), nobody, nobody, nothing, nothing,
            )  # fmt: skip
            lens = tuple((int(a), int(b)) for a, b in data["lens"])
            precision = Precision(model_arrays, lens, data["covariance"], float(data["noise"]))
            return PointPrecision(precision, tuple(str(name) for name in data["names"]))
    except (OSError, ValueError, KeyError) as error:
        raise ReconError(f"{path}: is damaged ({error}); run 'recon georeference' again") from error


def _blank(model: str, width: int, height: int) -> Intrinsics:
    """A camera of a model with as many parameters as it has."""
    from recon.core.colmap import pycolmap

    made = pycolmap.Camera.create_from_model_name(1, model, 1.0, width, height)
    return Intrinsics(model, tuple(float(v) for v in made.params), width, height)


def find_precision(run: RunFolder, scene: Scene, georeference: Georeference | None) -> PointPrecision | None:
    """The precision that the georeference kept; else that of the model's shape, in the frame of the georeference or of
    the run."""
    kept = read_precision(run.path(PRECISION)) if run.path(GEOREFERENCE).is_file() else None
    if kept is not None or len(scene.views) > MOST_PHOTOS or not len(scene.observations):
        return kept
    move = Similarity3(1.0, np.eye(3), np.zeros(3)) if georeference is None else georeference.similarity
    placed = scene.moved(move.scale, move.rotation, move.translation)
    found = adjust(arrays_of_scene(placed, known_cameras(run)), None, None, move=False)
    return PointPrecision(found.precision, tuple(view.name for view in scene.views))


def sigma_of_cloud(
    found: PointPrecision,
    scene: Scene,
    georeference: Georeference,
    local: Float[np.ndarray, "n 3"],
    most: int = 1500,
) -> Float64[np.ndarray, "n 3"] | None:
    """Standard deviations of points of a surface: those of the nearest of the model's points.

    Args:
        scene: of the run, in its own frame. local: points in local coordinates of the georeference.
        most: points of the model that are asked.
    """
    from scipy.spatial import cKDTree

    if not len(scene.xyz):
        return None
    tracks = scene.tracks()
    chosen = [
        row for row in range(0, len(scene.xyz), max(1, len(scene.xyz) // most)) if len(tracks[row]) >= 2
    ]
    places = georeference.to_local(scene.xyz[chosen])
    point, photo = [], []
    for number, row in enumerate(chosen):
        for view in sorted(set(tracks[row][:, 0].tolist())):
            point.append(number)
            photo.append(view)
    sigma = found.precision.sigma_of_points(places, np.array(point), np.array(photo))
    _, nearest = cKDTree(places).query(local)
    return np.asarray(sigma[nearest])


def adjusted_views(scene: Scene, found: PointPrecision) -> tuple[tuple[Intrinsics, ...], list[SceneView]]:
    """Cameras and views of a scene as an adjustment has them, in its frame."""
    model = found.precision.model
    cameras = tuple(
        intrinsics_from_camera(camera, known=before.known, has_focal_prior=before.has_focal_prior)
        for camera, before in zip(model.cameras, scene.cameras, strict=True)
    )
    views = []
    for view, R, c in zip(scene.views, model.rotation, model.centre, strict=True):
        pose = np.column_stack([R, -R @ c])
        views.append(SceneView(view.name, view.camera, pose, view.keypoints, view.mask))
    return cameras, views
