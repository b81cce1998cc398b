"""Measures of runs made for the purpose: photos left out and predicted, the same run made again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from recon.core.cameras import PinholeView
from recon.core.similarity import Similarity3
from recon.errors import ReconError
from recon.evaluation.matches import match_repeatability
from recon.evaluation.poses import align_cameras
from recon.evaluation.views import (
    ViewReport,
    compare_view,
    predict_from_cloud,
    predict_from_mesh,
    psnr_whole,
)
from recon.run.folder import NamePair, RunFolder


@dataclass(frozen=True)
class Prediction:
    """A photo as a reconstruction predicts it, and how like the real one it is.

    Attributes:
        report: the agreement over the covered pixels; its coverage is a share of the usable pixels.
        psnr_whole: PSNR over all usable pixels, where holes take the photo's mean colour.
        picture: the prediction.
        covered: where it says something.
    """

    report: ViewReport
    psnr_whole: float
    picture: UInt8[np.ndarray, "h w 3"]
    covered: Bool[np.ndarray, "h w"]


@dataclass(frozen=True)
class LeftOutReport:
    """Accuracy of a run's prediction of photos that it was not given.

    Attributes:
        mesh, cloud: prediction by photo name; empty where the run left no mesh or cloud.
    """

    mesh: Mapping[str, Prediction]
    cloud: Mapping[str, Prediction]


def predict_left_out(
    run: Path,
    cameras: Mapping[str, PinholeView],
    photos: Mapping[str, UInt8[np.ndarray, "h w 3"]],
    *,
    usable: Mapping[str, Bool[np.ndarray, "h w"]] | None = None,
    run_from_cameras: Similarity3 | None = None,
) -> LeftOutReport:
    """Compute how well a run's mesh and cloud predict photos that it has not seen.

    Args:
        run: the run's folder.
        cameras: in one world, by photo name: those of the left-out photos, and (to find the run's world) at least two
            of the photos that the run registered.
        photos: the left-out photos without distortion; a camera is brought to its photo's size.
        usable: pixels of the left-out photos that count; all where a photo is not named.
        run_from_cameras: the similarity from the cameras' world to the run's; by the shared cameras if None.

    Raises:
        ReconError: the run shares fewer than two cameras, or a left-out photo has no camera.
    """
    files = RunFolder(run)
    missing = sorted(set(photos) - set(cameras))
    if missing:
        raise ReconError(f"no camera is known for the left-out photo {missing[0]}; it cannot be predicted")
    if run_from_cameras is None:
        known = {name: view.cam_from_world for name, view in cameras.items() if name not in photos}
        try:
            run_from_cameras = align_cameras(known, files.poses, robust=True)
        except ValueError as error:
            raise ReconError(
                f"{files.root}: the left-out cameras cannot be placed in this run: {error}"
            ) from error
    mesh, cloud = files.mesh(), files.cloud()
    from_mesh, from_cloud = {}, {}
    for name, photo in photos.items():
        height, width = photo.shape[:2]
        view = cameras[name].resized(width, height)
        view = replace(view, cam_from_world=run_from_cameras.camera(view.cam_from_world))
        counted = (usable or {}).get(name, np.ones((height, width), bool))
        if mesh is not None and len(mesh.faces) and mesh.rgb is not None:
            from_mesh[name] = _prediction(*predict_from_mesh(mesh, view), photo, counted)
        if cloud is not None and len(cloud):
            from_cloud[name] = _prediction(*predict_from_cloud(cloud.xyz, cloud.rgb, view), photo, counted)
    return LeftOutReport(from_mesh, from_cloud)


def _prediction(
    picture: UInt8[np.ndarray, "h w 3"],
    seen: Bool[np.ndarray, "h w"],
    photo: UInt8[np.ndarray, "h w 3"],
    usable: Bool[np.ndarray, "h w"],
) -> Prediction:
    covered = seen & usable
    report = compare_view(picture, covered, photo)
    report = replace(report, coverage=float(covered.sum() / max(usable.sum(), 1)))
    return Prediction(report, psnr_whole(picture, covered, photo, usable, report.gain), picture, seen)


def repeatability_of_runs(
    runs: Sequence[Path], radius: float = 1.0, *, seed: int = 0
) -> dict[NamePair, float]:
    """Compute for each pair how much of its matches comes again in runs that differ only by their seed.

    Args:
        runs: workspaces of the same photos and matcher.
        radius: pixels of the working size.
        seed: of the sampling of matches.
    """
    files = [RunFolder(run) for run in runs]
    shared = (
        [pair for pair in files[0].named_pairs if all(pair in other.named_pairs for other in files[1:])]
        if files
        else []
    )
    out = {}
    for pair in shared:
        found = [one.named_matches(pair, None) for one in files]
        matches = [match[0] for match in found if match is not None]
        if len(matches) == len(files):
            out[pair] = match_repeatability(matches, radius, seed=seed)
    return out
