"""Errors of estimated cameras against known ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64

from recon.core.similarity import Similarity3, align_similarity, camera_center
from recon.evaluation.bootstrap import area_under_curve

# Singular values of the centred camera centres below this share of the largest count as zero: the centres lie
# on a line, and a rotation about it cannot be had from them.
_COLLINEAR = 1e-3
# More triples than this are sampled instead of enumerated in the robust alignment.
_MAX_TRIPLES = 2000


@dataclass(frozen=True)
class PoseReport:
    """Errors of estimated cameras.

    Attributes:
        names: the cameras that both sides have, sorted.
        center_errors: distance of the centres after alignment, in units of the truth, one per name.
        rotation_errors: degrees after alignment, one per name.
        registered, total: how many cameras of the truth were estimated, and how many there are.
        auc: area under the recall curve of the relative pose error (the larger of the angles of rotation and of
            direction of translation, all pairs of the truth) up to 1, 3, 5, 10 and 20 degrees, in 0…1.
        truth_from_estimate: the similarity that was used.
        missing: the truth's cameras that were not estimated, sorted.
        pair_errors: relative pose error in degrees of every pair of the truth's cameras, infinite for a miss.
    """

    names: tuple[str, ...]
    center_errors: Float64[np.ndarray, " n"]
    rotation_errors: Float64[np.ndarray, " n"]
    registered: int
    total: int
    auc: Mapping[float, float]
    truth_from_estimate: Similarity3
    missing: tuple[str, ...] = ()
    pair_errors: Mapping[tuple[str, str], float] = field(default_factory=dict)

    @property
    def center_mean(self) -> float:
        """Mean centre error, NaN without cameras."""
        return float(self.center_errors.mean()) if len(self.names) else float("nan")

    @property
    def center_median(self) -> float:
        """Median centre error, NaN without cameras."""
        return float(np.median(self.center_errors)) if len(self.names) else float("nan")

    @property
    def center_max(self) -> float:
        """Largest centre error, NaN without cameras."""
        return float(self.center_errors.max()) if len(self.names) else float("nan")

    @property
    def rotation_mean(self) -> float:
        """Mean rotation error in degrees, NaN without cameras."""
        return float(self.rotation_errors.mean()) if len(self.names) else float("nan")

    def text(self) -> str:
        """The figures for a person to read."""
        areas = ", ".join(f"{100 * value:.1f} at {limit:g}°" for limit, value in self.auc.items())
        return (
            f"cameras {self.registered}/{self.total}; centre error mean {self.center_mean:.4g}, "
            f"median {self.center_median:.4g}, largest {self.center_max:.4g}; "
            f"rotation error mean {self.rotation_mean:.3g}°; relative pose AUC {areas}"
            + (f"; not registered: {', '.join(self.missing)}" if self.missing else "")
        )


def rotation_angle(rotation: Float[np.ndarray, "3 3"]) -> float:
    """Compute the angle of a rotation in radians, accurate near 0 and pi."""
    skew = np.array(
        [rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]]
    )
    return float(np.arctan2(np.linalg.norm(skew), np.trace(rotation) - 1.0))


def align_similarity_robust(
    source: Float[np.ndarray, "n 3"], target: Float[np.ndarray, "n 3"], seed: int = 0
) -> Similarity3:
    """Compute a similarity that up to half of the points cannot pull away.

    Least median of squares over triples (all of them, or a seeded sample of 2000), then least squares over
    the points within 2.5 robust standard deviations of that fit (Rousseeuw & Leroy 1987, section 5.1).

    Raises:
        ValueError: as ``align_similarity``.
    """
    a, b = np.asarray(source, np.float64), np.asarray(target, np.float64)
    n = len(a)
    if n < 4:
        return align_similarity(a, b)
    if n * (n - 1) * (n - 2) // 6 <= _MAX_TRIPLES:
        triples = list(itertools.combinations(range(n), 3))
    else:
        rng = np.random.default_rng(seed)
        triples = [tuple(rng.choice(n, 3, replace=False)) for _ in range(_MAX_TRIPLES)]
    best, best_error = align_similarity(a, b), np.inf
    for triple in triples:
        index = list(triple)
        try:
            candidate = align_similarity(a[index], b[index])
        except ValueError:
            continue
        error = float(np.partition(np.linalg.norm(candidate(a) - b, axis=1), n // 2)[n // 2])
        if error < best_error:
            best, best_error = candidate, error
    sigma = 1.4826 * (1 + 5 / max(n - 3, 1)) * best_error
    keep = np.linalg.norm(best(a) - b, axis=1) <= 2.5 * sigma + 1e-12
    return align_similarity(a[keep], b[keep]) if keep.sum() >= 3 else best


def align_cameras(
    estimated: Mapping[str, Float[np.ndarray, "3 4"]],
    truth: Mapping[str, Float[np.ndarray, "3 4"]],
    robust: bool = False,
    *,
    by_rotations: bool = False,
) -> Similarity3:
    """Compute the similarity from the estimate's world to the truth's, by the centres of the shared cameras.

    Centres on a line (or only two of them) leave a rotation about it open; then the rotation comes from the
    mean of the cameras' own rotations.

    Args:
        robust: outliers among the centres have no say.
        by_rotations: take the rotation from the cameras' own always, as is right for what the cameras see: centres
            nearly in a line turn it by what they err.

    Raises:
        ValueError: fewer than two cameras in common, or all of them in one place.
    """
    names = sorted(set(estimated) & set(truth))
    if len(names) < 2:
        raise ValueError(f"an alignment needs two cameras in common, there are {len(names)}")
    a = np.array([camera_center(estimated[name]) for name in names])
    b = np.array([camera_center(truth[name]) for name in names])
    spread = np.linalg.svd(a - a.mean(axis=0), compute_uv=False)
    if not by_rotations and len(names) > 2 and spread[1] > _COLLINEAR * spread[0]:
        return align_similarity_robust(a, b) if robust else align_similarity(a, b)
    total = np.zeros((3, 3))
    for name in names:
        total += np.asarray(truth[name])[:, :3].T @ np.asarray(estimated[name])[:, :3]
    U, _, Vt = np.linalg.svd(total)
    rotation = (U * [1, 1, np.sign(np.linalg.det(U @ Vt))]) @ Vt
    ca, cb = (a - a.mean(axis=0)) @ rotation.T, b - b.mean(axis=0)
    variance = float((ca**2).sum())
    if variance <= 1e-24:
        raise ValueError("all cameras are in one place")
    scale = abs(float((ca * cb).sum())) / variance
    return Similarity3(scale, rotation, b.mean(axis=0) - scale * rotation @ a.mean(axis=0))


def multi_view_errors(
    estimated: Mapping[str, Float[np.ndarray, "3 4"]], truth: Mapping[str, Float[np.ndarray, "3 4"]]
) -> dict[tuple[str, str], float]:
    """Compute the relative pose error in degrees of every pair of the truth's cameras, by their names in order.

    The pose of B in A's frame follows from the two absolute poses of the reconstruction, so the sign of the
    translation is known and is not folded: a baseline that points backwards is wrong by 180 degrees. A pair with
    a camera that was not registered is a miss: infinite. Source: the multi-view task of Jin et al., "Image
    matching across wide baselines", IJCV 2021.
    """
    errors = {}
    for a, b in itertools.combinations(sorted(truth), 2):
        if a in estimated and b in estimated:
            errors[a, b] = relative_pose_error(
                relative_pose(estimated[a], estimated[b]), relative_pose(truth[a], truth[b])
            )
        else:
            errors[a, b] = float("inf")
    return errors


def two_view_errors(
    estimated: Mapping[tuple[str, str], Float[np.ndarray, "3 4"]],
    truth: Mapping[tuple[str, str], Float[np.ndarray, "3 4"]],
) -> dict[tuple[str, str], float]:
    """Compute the relative pose error in degrees of every pair whose pose was estimated from its own matches.

    The sign of the translation is folded, min(e, 180 - e), because an essential matrix does not fix it (as Sarlin
    et al., SuperGlue, CVPR 2020, section 5.2 and its released evaluation do). A pair without an estimate is a miss:
    infinite.

    Args:
        estimated: pair of names to ``b_from_a``, in either order; the length of the translation does not matter.
        truth: pair of names to ``b_from_a``, of all pairs that were tried.
    """
    errors = {}
    for (a, b), known in truth.items():
        if (a, b) in estimated:
            errors[a, b] = relative_pose_error(estimated[a, b], known, fold=True)
        elif (b, a) in estimated:
            errors[a, b] = relative_pose_error(inverse_pose(estimated[b, a]), known, fold=True)
        else:
            errors[a, b] = float("inf")
    return errors


def relative_pose_error(
    b_from_a: Float[np.ndarray, "3 4"], truth: Float[np.ndarray, "3 4"], *, fold: bool = False
) -> float:
    """Compute the larger of the angle between two rotations and that between two translations, in degrees.

    Args:
        b_from_a, truth: poses 3x4; only the direction of the translation counts.
        fold: take a translation and its opposite for the same.
    """
    estimate, known = np.asarray(b_from_a, np.float64), np.asarray(truth, np.float64)
    turn = rotation_angle(estimate[:, :3] @ known[:, :3].T)
    direction = _angle(estimate[:, 3], known[:, 3])
    if fold:
        direction = min(direction, np.pi - direction)
    return float(np.degrees(max(turn, direction)))


def matched_names(estimated: Iterable[str], truth: Iterable[str]) -> dict[str, str]:
    """Find which photo of the truth each estimated camera is: the same name, or else the same last part of the
    path, or else that without its suffix, as far as it is the only one (other tools drop folders and suffixes).

    Returns:
        Estimated name to name in the truth; without the names that have no counterpart.
    """
    theirs, known = sorted(set(estimated)), sorted(set(truth))
    for key in (str, _last_part, _stem):
        ours = _unique(known, key)
        found = {name: ours[k] for k, name in _unique(theirs, key).items() if k in ours}
        if found:
            return found
    return {}


def evaluate_poses(
    estimated: Mapping[str, Float[np.ndarray, "3 4"]],
    truth: Mapping[str, Float[np.ndarray, "3 4"]],
    limits: tuple[float, ...] = (1.0, 3.0, 5.0, 10.0, 20.0),
    robust: bool = False,
) -> PoseReport:
    """Compare estimated cameras with known ones after the similarity that fits the centres best.

    Args:
        estimated, truth: name to ``cam_from_world`` (3x4). Names that only the estimate has are ignored.
        limits: degrees for the areas under the curve of the relative pose error.
        robust: align so that single bad cameras do not spoil the errors of the others.

    Raises:
        ValueError: fewer than two cameras in common.
    """
    names = tuple(sorted(set(estimated) & set(truth)))
    alignment = align_cameras(estimated, truth, robust)
    centers, turns = [], []
    for name in names:
        moved = alignment.camera(estimated[name])
        centers.append(np.linalg.norm(camera_center(moved) - camera_center(truth[name])))
        turns.append(np.degrees(rotation_angle(moved[:, :3] @ np.asarray(truth[name])[:, :3].T)))
    pairs = multi_view_errors(estimated, truth)
    auc = {limit: area_under_curve(np.array(list(pairs.values())), limit) for limit in limits}
    missing = tuple(sorted(set(truth) - set(estimated)))
    return PoseReport(
        names,
        np.array(centers),
        np.array(turns),
        len(names),
        len(truth),
        auc,
        alignment,
        missing,
        pairs,
    )


def poses_from_colmap(folder: Path) -> dict[str, Float64[np.ndarray, "3 4"]]:
    """Read name to ``cam_from_world`` from a COLMAP model folder (binary or text).

    Raises:
        ReconError: the folder holds no model that can be read.
    """
    from recon.core.colmap import read_reconstruction
    from recon.core.posed import registered_cameras

    return {name: one.cam_from_world for name, one in registered_cameras(read_reconstruction(folder)).items()}


def relative_pose(a: Float[np.ndarray, "3 4"], b: Float[np.ndarray, "3 4"]) -> Float64[np.ndarray, "3 4"]:
    """Compute b_from_a of two cameras given by ``cam_from_world``."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    R = b[:, :3] @ a[:, :3].T
    return np.column_stack([R, b[:, 3] - R @ a[:, 3]])


def inverse_pose(b_from_a: Float[np.ndarray, "3 4"]) -> Float64[np.ndarray, "3 4"]:
    """Compute a_from_b."""
    pose = np.asarray(b_from_a, np.float64)
    return np.column_stack([pose[:, :3].T, -pose[:, :3].T @ pose[:, 3]])


def _last_part(name: str) -> str:
    return name.replace("\\", "/").rsplit("/", 1)[-1]


def _stem(name: str) -> str:
    return _last_part(name).rsplit(".", 1)[0]


def _unique(names: Sequence[str], key: Callable[[str], str]) -> dict[str, str]:
    """Key to name, without the keys that several names have."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(key(name), []).append(name)
    return {k: same[0] for k, same in found.items() if len(same) == 1}


def _angle(a: Float[np.ndarray, "3"], b: Float[np.ndarray, "3"]) -> float:
    """Angle between two directions in radians; 0 if both vanish, pi if only one does."""
    lengths = np.linalg.norm(a), np.linalg.norm(b)
    if min(lengths) < 1e-12:
        return 0.0 if max(lengths) < 1e-12 else float(np.pi)
    return float(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b))
