"""Evaluation by the photos: left-out ones predicted, all of them agreeing on the points."""

from __future__ import annotations

import cv2
import numpy as np

from recon.evaluation.consistency import PhotoView, photo_consistency
from recon.evaluation.evidence.subject import Subject
from recon.evaluation.repeats import predict_left_out
from recon.evaluation.report import ReportBuilder
from recon.evaluation.truth import undistorted_photo
from recon.photos.reading import load_photo


def left_out_evidence(subject: Subject, report: ReportBuilder) -> None:
    """Predict the photos of the truth that the run was not given."""
    truth, run = subject.truth, subject.run
    if truth is None or not run.photos or subject.truth_from_run is None:
        return
    names = [n for n in sorted(set(truth.cameras) - run.given) if (truth.images / n).is_file()]
    if not names:
        return
    side = max(max(p.width, p.height) for p in run.photos.values())
    photos = {name: undistorted_photo(truth.images / name, truth.cameras[name], side) for name in names}
    found = predict_left_out(
        run.root, truth.views(), photos, run_from_cameras=subject.truth_from_run.inverse()
    )
    for kind, predictions in (("mesh", found.mesh), ("cloud", found.cloud)):
        if predictions:
            report.photos(f"left_out.{kind}_psnr", {n: p.report.psnr for n, p in predictions.items()})
            report.photos(f"left_out.{kind}_ssim", {n: p.report.ssim for n, p in predictions.items()})
            report.photos(f"left_out.{kind}_coverage", {n: p.report.coverage for n, p in predictions.items()})


def consistency_evidence(subject: Subject, report: ReportBuilder) -> None:
    """Measure how far the photos agree on the points."""
    cloud = subject.read("points", subject.run.cloud, report)
    model = subject.run.sparse() if cloud is None or not len(cloud) else None
    if cloud is not None and len(cloud):
        xyz, normals, name = cloud.xyz, cloud.normals, "photo_consistency"
    elif model is not None:
        xyz, normals, name = model.xyz.astype(np.float32), None, "tracks.photo_consistency"
    else:
        return
    views = _photo_views(subject)
    if len(views) < 2:
        report.note("photo_consistency: the photos are not at hand")
        return
    found = photo_consistency(xyz, normals, views, seed=subject.seed)
    if not found.compared:
        report.note("photo_consistency: no point could be compared between two photos")
        return
    report.per_photo[name] = {photo: total / count for photo, (total, count) in found.by_photo.items()}
    report.statistic(name, found.by_photo, "ratio")
    report.metrics[f"{name}.agreeing_share"] = found.agreeing
    report.metrics[f"{name}.compared_share"] = found.compared / max(found.sampled, 1)


def _photo_views(subject: Subject) -> list[PhotoView]:
    """The registered photos with the run's own cameras."""
    views = []
    for name, camera in subject.run.cameras.items():
        rgb = subject.run.named_rgb(name)
        width, height = camera.intrinsics.width, camera.intrinsics.height
        if rgb is None and subject.truth is not None and (subject.truth.images / name).is_file():
            rgb = load_photo(subject.truth.images / name).rgb
        if rgb is None:
            continue
        if rgb.shape[:2] != (height, width):
            rgb = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
        pose = camera.cam_from_world
        grey = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY)
        center = -pose[:, :3].T @ pose[:, 3]
        views.append(PhotoView(name, grey, camera.project, center, float(camera.intrinsics.K[0, 0])))
    return views
