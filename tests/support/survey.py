"""A flight over rolling land as arrays: exact cameras and points, noisy observations, control points with truth."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from recon.core.cameras import Intrinsics
from recon.core.colmap import camera_from_intrinsics
from recon.sfm.control import CenterPriors, Control
from recon.sfm.evidence import ModelArrays, projected
from recon.synthetic.paths import look_at


@dataclass(frozen=True)
class Survey:
    """The truth, and what was measured of it."""

    truth: ModelArrays
    model: ModelArrays
    control: Control
    control_truth: np.ndarray


def make_survey(
    seed: int = 0,
    *,
    noise: float = 0.3,
    mark_px: float = 0.4,
    sigma: tuple[float, float, float] = (0.02, 0.02, 0.03),
    points: int = 200,
    controls: int = 8,
    known: bool = False,
    middle: tuple[float, float] = (255.5, 191.5),
) -> Survey:
    """Twelve photos from 40 m, twelve pixels a metre on the ground; the model is the truth with noise.

    Args:
        middle: the true principal point.
    """
    rng = np.random.default_rng(seed)
    lens = Intrinsics("SIMPLE_RADIAL", (480.0, *middle, -0.03), 512, 384, known, True)
    poses = [
        look_at((x, y, 40 + rng.normal()), (x, y + 2 * rng.normal(), 0.0), up=(0.0, 1.0, 0.0))
        for y in (-12.0, 0.0, 12.0)
        for x in (-18.0, -6.0, 6.0, 18.0)
    ]
    rotation = np.array([pose[:, :3] for pose in poses])
    centre = np.array([-pose[:, :3].T @ pose[:, 3] for pose in poses])

    def land(count: int) -> np.ndarray:
        at = rng.uniform([-26, -18], [26, 18], (count, 2))
        return np.column_stack([at, 2 * np.sin(at[:, 0] / 6) + 3 * (at[:, 1] > 5)])

    def observed(xyz: np.ndarray, base: ModelArrays, deviation: float) -> tuple[np.ndarray, ...]:
        p, q = len(xyz), len(poses)
        point, photo = np.repeat(np.arange(p), q), np.tile(np.arange(q), p)
        empty = np.zeros((p * q, 2))
        xy = projected(replace(base, xyz=xyz, point=point, photo=photo, xy=empty, residual=empty))
        inside = np.isfinite(xy).all(axis=1) & (xy > 0).all(axis=1) & (xy < [512, 384]).all(axis=1)
        seen = np.bincount(point[inside], minlength=p)
        inside &= seen[point] >= 2
        kept = np.unique(point[inside])
        number = np.full(p, -1)
        number[kept] = np.arange(len(kept))
        noisy = xy[inside] + rng.normal(0, deviation, (int(inside.sum()), 2))
        return xyz[kept], number[point[inside]], photo[inside], noisy

    nothing = np.zeros((0, 2))
    nobody = np.zeros(0, np.int64)
    base = ModelArrays(
        np.arange(12), np.zeros(12, np.int64), rotation, centre, (camera_from_intrinsics(lens),), (known,),
        np.zeros((0, 3)), nobody, nobody, nothing, nothing,
    )  # fmt: skip
    xyz, point, photo, xy = observed(land(points), base, noise)
    truth = replace(base, xyz=xyz, point=point, photo=photo, xy=xy, residual=np.zeros_like(xy))
    marked, at, where, marks = observed(land(controls), base, mark_px)
    measured = marked + rng.normal(0, 1, marked.shape) * sigma
    names = tuple(f"P{k + 1}" for k in range(len(marked)))
    control = Control(names, measured, np.tile(sigma, (len(marked), 1)), at, where, marks, mark_px)
    away = rng.normal(0, 0.3, xyz.shape)
    model = replace(truth, xyz=xyz + away, centre=centre + rng.normal(0, 0.3, centre.shape))
    return Survey(truth, model, control, marked)


def bowl(model: ModelArrays, depth: float) -> ModelArrays:
    """The model bent as wrong lenses bend it: the middle lower than the rim by ``depth``."""

    def bent(xyz: np.ndarray) -> np.ndarray:
        return np.asarray(
            xyz + np.array([0, 0, 1.0]) * (depth * ((xyz[:, :2] / 25) ** 2).sum(axis=1))[:, None]
        )

    return replace(model, xyz=bent(model.xyz), centre=bent(model.centre))


def gps(survey: Survey, sigma: tuple[float, float, float], seed: int = 0) -> CenterPriors:
    """Positions of all cameras with noise."""
    rng = np.random.default_rng(seed + 99)
    n = len(survey.truth.photos)
    place = survey.truth.centre + rng.normal(0, 1, (n, 3)) * sigma
    return CenterPriors(np.arange(n), place, np.tile(sigma, (n, 1)))
