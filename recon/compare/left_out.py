"""Photos that a reconstruction has not seen, predicted from it: a measure that needs no truth."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from recon.compare.evaluation import write_text
from recon.compare.options import Options
from recon.compare.results import FIELDS, Entry, Log, SceneResult, add_samples, poses_place, workspaces
from recon.compare.running import Job, run_job
from recon.compare.sharing import link_tree
from recon.core.cameras import Intrinsics, PinholeView
from recon.core.undistort import undistort_photo
from recon.errors import ReconError
from recon.evaluation.repeats import predict_left_out as predict_from_run
from recon.io.files import finite, parse_json
from recon.io.manifest import read_manifest
from recon.io.pictures import read_bgr, write_bgr
from recon.photos.types import Photo
from recon.run.folder import RunFolder

FOLDER = "left_out"

_FORMAT = 3
"""Raised when the measure changes."""


@dataclass(frozen=True)
class Target:
    """The camera that a photo is predicted for.

    Attributes:
        source: where the camera comes from, in words.
        intrinsics: at the photo's working size.
        pose: in the world of ``poses``.
        poses: cameras of the same world, by photo name, that others are aligned with.
    """

    source: str
    intrinsics: Intrinsics
    pose: Float[np.ndarray, "3 4"]
    poses: Mapping[str, Float[np.ndarray, "3 4"]]


def choose(names: tuple[str, ...], count: int) -> list[str]:
    """Photos to leave out: evenly spread, none at the ends of the set, where nothing would see what they see."""
    inner = np.linspace(0, len(names) - 1, min(count, max(len(names) - 2, 1)) + 2)[1:-1]
    return [names[i] for i in sorted({round(position) for position in inner})]


def predict_left_out(result: SceneResult, intrinsics: str | None, say: Log) -> None:
    """Leave photos out, one at a time, and add ``left_out.*`` to every entry's metrics.

    Raises:
        ReconError: there are too few photos to leave one out.
    """
    options, names = result.options, result.photo_names
    if len(names) < 4:
        raise ReconError(f"--leave-out: of {len(names)} photos none can be spared; four are needed")
    chosen = choose(names, options.leave_out)
    values: dict[str, dict[str, dict[str, float]]] = {e.contender.label: {} for e in result.entries}
    sources: dict[str, set[str]] = {}
    for name in chosen:
        folder = result.folder / FOLDER / _safe(name)
        _photos_without(result, name, folder / "photos")
        for entry in sorted(result.entries, key=lambda one: one.contender.label != options.poses):
            label = entry.contender.label
            target = _target(result, entry, name)
            if target is None:
                entry.warnings = (
                    *entry.warnings,
                    f"{name} was not left out: no reconstruction knows its camera",
                )
                continue
            sources.setdefault(target.source, set()).add(label)
            say(f"{result.scene.name}: {label} without {name}")
            error = _run(result, entry, folder, intrinsics)
            if error:
                say(f"{result.scene.name}: {label} without {name} failed: {error}")
                entry.warnings = (*entry.warnings, f"without {name} it failed: {error}")
            found = _measured(result, entry, name, target, folder, error)
            for quantity, value in found.items():
                values[label].setdefault(quantity, {})[name] = value
    for entry in result.entries:
        for quantity, by_photo in values[entry.contender.label].items():
            add_samples(entry, f"left_out.{quantity}", by_photo)
    if sources:
        said = "; ".join(
            f"{source} ({', '.join(sorted(labels))})" if len(sources) > 1 else source
            for source, labels in sources.items()
        )
        result.notes.append(
            f"Left out one at a time: {', '.join(chosen)}. Their cameras come from {said}, aligned by the other "
            "cameras; exposure is fitted per colour channel."
        )


def _safe(name: str) -> str:
    return name.replace("%", "%25").replace("/", "%2F")


def _photos_without(result: SceneResult, name: str, folder: Path) -> None:
    for other in result.photo_names:
        place = folder / other
        if other != name and not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            link_tree(result.scene.photos / other, place)


def _run(result: SceneResult, entry: Entry, folder: Path, intrinsics: str | None) -> str:
    """Reconstruct without the photo; returns why that failed, "" where it did not."""
    options: Options = result.options
    root = folder / _run_name(options, entry)
    own = [path for path in workspaces(result.folder / FOLDER) if path.parent == folder]
    given = poses_place(
        result.scene,
        options,
        entry.contender.label,
        lambda label: folder / f"{label}-{_short(options.poses)}",
    )
    job = Job(
        photos=str(folder / "photos"),
        out=str(root),
        recipe=entry.contender.recipe,
        overrides=(
            *entry.contender.overrides,
            *((f"map.poses={json.dumps(given)}",) if given else ()),
            "report.pictures=false",
        ),
        quality=options.quality,
        intrinsics=intrinsics,
        masks=None if result.scene.masks is None else str(result.scene.masks),
        stop_after="mesh",
        threads=options.threads,
        seed=options.seed,
        field_cache=str(result.folder / FIELDS),
    )
    return run_job(job, own, isolate=options.isolate).error


def _run_name(options: Options, entry: Entry) -> str:
    return f"{entry.contender.label}-{_short(options.poses)}"


def _short(poses: str) -> str:
    return poses if poses.isalnum() else hashlib.sha256(poses.encode()).hexdigest()[:8]


def _target(result: SceneResult, entry: Entry, name: str) -> Target | None:
    """The photo's camera: the true one, else that of the contender's own run with all photos, else another's."""

    photo = _photo(result, name)
    truth = result.scene.truth
    if truth is not None and name in truth.cameras:
        camera = truth.cameras[name].resized(photo.width, photo.height)
        return Target("the truth", camera.intrinsics, camera.cam_from_world, truth.poses())
    others = sorted(
        (one for one in result.entries if one is not entry),
        key=lambda one: -one.metrics.get("run.registered", 0.0),
    )
    for one in (entry, *others):
        found = _own_target(one, photo, "its own" if one is entry else one.contender.label + "'s")
        if found is not None:
            return found
    return None


def _own_target(entry: Entry, photo: Photo, whose: str) -> Target | None:
    run = RunFolder(entry.root)
    if "run.registered" not in entry.metrics or photo.name not in run.poses:
        return None
    what = f"{whose} reconstruction with all photos"
    return Target(what, run.intrinsics()[photo.id], run.poses[photo.name], run.poses)


def _photo(result: SceneResult, name: str) -> Photo:
    return RunFolder(result.folder / "shared").photos[name]


def _measured(
    result: SceneResult, entry: Entry, name: str, target: Target, folder: Path, error: str
) -> dict[str, float]:
    """Quantity to value, from the disk where neither the run nor the camera has changed."""
    root = folder / _run_name(result.options, entry)
    nothing = {f"{what}_coverage": 0.0 for what in ("mesh", "cloud")}
    if error:
        return nothing
    manifest = read_manifest(root)
    stages = {} if manifest is None else {key: one.fingerprint for key, one in manifest.stages.items()}
    identity = [_FORMAT, stages, target.source, np.asarray(target.pose).tolist(), str(target.intrinsics)]
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    kept = folder / f"{root.name}.json"
    picture = folder / f"{root.name}.jpg"
    try:
        stored = parse_json(kept.read_text(encoding="utf-8"))
        if stored["key"] == key and picture.is_file():
            return {one: float("nan") if v is None else float(v) for one, v in stored["values"].items()}
    except (OSError, ValueError, KeyError):
        pass
    try:
        values, drawn = _predict(result, root, name, target)
    except (ReconError, ValueError) as problem:
        entry.warnings = (*entry.warnings, f"{name} could not be predicted: {problem}")
        return nothing
    write_bgr(picture, drawn[..., ::-1], 85)
    write_text(kept, json.dumps({"key": key, "values": finite(values)}, indent=1))
    return values


def _predict(
    result: SceneResult, root: Path, name: str, target: Target
) -> tuple[dict[str, float], UInt8[np.ndarray, "h w 3"]]:
    """Predict the left-out photo from the run without it; the values, and the mesh's picture."""
    photo = _photo(result, name)
    K, size = target.intrinsics.K, (photo.width, photo.height)
    cameras = {other: PinholeView(photo.id, other, K, pose, *size) for other, pose in target.poses.items()}
    cameras[name] = PinholeView(photo.id, name, K, target.pose, *size)
    seen, usable = _undistorted(result, photo, target.intrinsics)
    found = predict_from_run(root, cameras, {name: seen}, usable={name: usable})
    values: dict[str, float] = {}
    drawn = np.full_like(seen, 40)
    for what, predictions in (("mesh", found.mesh), ("cloud", found.cloud)):
        if name not in predictions:
            values[f"{what}_coverage"] = 0.0
            continue
        one = predictions[name]
        values[f"{what}_psnr"] = one.report.psnr
        values[f"{what}_psnr_whole"] = one.psnr_whole
        values[f"{what}_ssim"] = one.report.ssim
        values[f"{what}_coverage"] = one.report.coverage
        if what == "mesh":
            drawn = np.where(one.covered[..., None], one.picture, drawn)
    return values, drawn


def _undistorted(
    result: SceneResult, photo: Photo, intrinsics: Intrinsics
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    """The photo as the pinhole camera sees it, and which of its pixels may be used."""
    shared = RunFolder(result.folder / "shared")
    return undistort_photo(shared.rgb(photo), shared.mask(photo), intrinsics)


def pictures(result: SceneResult, folder: Path, width: int) -> list[dict[str, Any]]:
    """The left-out photos and what each contender's mesh says of them, as small JPEGs in ``folder``."""
    if not result.options.leave_out:
        return []
    found = []
    for number, name in enumerate(choose(result.photo_names, result.options.leave_out)):
        source = result.folder / FOLDER / _safe(name)
        photo, _ = _undistorted(result, _photo(result, name), _pinhole_of(result, name))
        panels: list[dict[str, Any]] = []
        size = (width, max(1, round(photo.shape[0] * width / photo.shape[1])))
        file = f"left{number}-photo.jpg"
        write_bgr(folder / file, cv2.resize(photo, size, interpolation=cv2.INTER_AREA)[..., ::-1])
        panels.append({"label": "photo", "file": file})
        for entry in result.entries:
            drawn = read_bgr(source / f"{_run_name(result.options, entry)}.jpg")
            if drawn is None:
                continue
            file = f"left{number}-{entry.contender.label}.jpg"
            write_bgr(folder / file, cv2.resize(drawn, size, interpolation=cv2.INTER_AREA))
            samples = entry.evaluation.samples.get("left_out.mesh_psnr")
            value = None if samples is None else samples.values.get(name)
            panels.append({"label": entry.contender.label, "file": file, "psnr": value})
        found.append({"photo": name, "panels": panels})
    return found


def _pinhole_of(result: SceneResult, name: str) -> Intrinsics:
    target = _target(result, result.entries[0], name)
    photo = _photo(result, name)
    if target is not None:
        return target.intrinsics
    return Intrinsics("SIMPLE_PINHOLE", (1.0, 0.0, 0.0), photo.width, photo.height)
