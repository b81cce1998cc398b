"""Runs a comparison: every contender over one scene, judged by the same ruler."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from recon.compare.evaluation import (
    REPEATABILITY,
    evaluated,
    evaluated_repeatability,
    write_text,
)
from recon.compare.left_out import predict_left_out
from recon.compare.options import EACH, TRUE, Options
from recon.compare.plan import Contender, Scene
from recon.compare.results import (
    FIELDS,
    Entry,
    Log,
    SceneResult,
    add_samples,
    poses_in_words,
    poses_place,
    workspaces,
)
from recon.compare.running import Job, Outcome, run_job
from recon.errors import ReconError, UsageError
from recon.io.files import parse_json
from recon.io.manifest import StageRecord, read_manifest

RUNS = "runs"

SHARED_STAGES = "pairs"
"""What is done once, for all contenders: everything up to this stage."""

_COUNTS = {
    "run.registered": ("map", "registered"),
    "run.edges": ("verify", "edges"),
    "run.consistent_share": ("match", "consistent_share_median"),
    "run.tracks": ("tracks", "tracks"),
    "run.track_length": ("map", "mean_track_length"),
    "run.reprojection_px": ("map", "mean_reprojection_error_px"),
    "run.sparse_points": ("map", "points"),
    "run.points": ("fuse", "points"),
}


def compare_scene(
    scene: Scene, contenders: Sequence[Contender], options: Options, out: Path, say: Log = lambda _: None
) -> SceneResult:
    """Run and judge every contender on one scene; what is done already is not done again.

    Args:
        out: folder of this scene's workspaces and results.

    Raises:
        UsageError: settings that no run can be started with. ReconError: the photos cannot be used, or the truth
            is of another scene.
    """
    options = replace(options, labels=tuple(contender.label for contender in contenders))
    intrinsics = _intrinsics(scene, options, out)
    first = _job(scene, contenders[0], options, out / "shared", intrinsics, options.seed, (), out / FIELDS)
    _check_settings(scene, contenders, options, out, intrinsics)
    say(f"{scene.name}: photos, features and pairs, once for all")
    shared = Job(**{**first.arguments(), "stop_after": SHARED_STAGES})
    outcome = run_job(shared, isolate=options.isolate)
    if outcome.error:
        raise ReconError(outcome.error)
    names = _photo_names(out / "shared")
    _check_truth(scene, names)
    result = SceneResult(scene, options, out, [], photo_names=names)
    result.pair_count = len(parse_json((out / "shared" / "pairs.json").read_text(encoding="utf-8")))
    outcomes = _run_all(scene, contenders, options, out, intrinsics, result, say)
    for contender in contenders:
        result.entries.append(_judge(contender, outcomes[contender.label], scene, options, out, say))
    if options.leave_out:
        predict_left_out(result, intrinsics, say)
    return result


def run_folder(out: Path, label: str, options: Options, seed: int) -> Path:
    """The workspace of one run."""
    base = RUNS if options.poses == EACH else f"{RUNS}-{_folder_name(options.poses)}"
    name = label if seed == options.seed else f"{label}.seed-{seed}"
    return out / base / name


def _folder_name(poses: str) -> str:
    return "".join(c if c.isalnum() or c in "+-_." else "_" for c in poses.strip("./"))[-60:]


def _job(
    scene: Scene,
    contender: Contender,
    options: Options,
    root: Path,
    intrinsics: str | None,
    seed: int,
    more: Iterable[str],
    fields: Path,
) -> Job:
    return Job(
        photos=str(scene.photos),
        out=str(root),
        recipe=contender.recipe,
        overrides=("report.pictures=false", *contender.overrides, *more),  # the comparison draws its own
        quality=options.quality,
        intrinsics=intrinsics,
        masks=None if scene.masks is None else str(scene.masks),
        stop_after=options.stop_after,
        threads=options.threads,
        seed=seed,
        field_cache=str(fields),
    )


def _check_settings(
    scene: Scene, contenders: Sequence[Contender], options: Options, out: Path, intrinsics: str | None
) -> None:
    """A mistake in the settings is said before anything runs."""
    from recon.api import stages
    from recon.engine.recipe import load_recipe

    every = stages()
    if options.stop_after not in [stage.name for stage in every]:
        raise UsageError(f"--stop-after {options.stop_after}: there is no such stage")
    if options.poses == TRUE and (scene.truth is None or not scene.truth.cameras):
        raise UsageError(
            f"--poses {TRUE}: nothing is known of the cameras of {scene.name}; give --truth, or --poses {EACH}"
        )
    if options.poses not in (EACH, TRUE):
        labels = [contender.label for contender in contenders]
        if options.poses not in labels:
            from recon.datasets.given_cameras import read_cameras

            try:
                read_cameras(options.poses)
            except UsageError:
                raise UsageError(
                    f"--poses {options.poses}: say {EACH}, {TRUE}, one of {', '.join(labels)}, or a place with "
                    "cameras; there is no such place"
                ) from None
    for contender in contenders:
        job = _job(scene, contender, options, out, intrinsics, options.seed, (), out / FIELDS)
        try:
            load_recipe(job.recipe, every, job.quality, job.overrides)
        except UsageError as error:
            raise UsageError(
                f"{contender.label}: {error}\nA setting for one contender only is written LABEL:section.key=value"
            ) from None


def _run_all(
    scene: Scene,
    contenders: Sequence[Contender],
    options: Options,
    out: Path,
    intrinsics: str | None,
    result: SceneResult,
    say: Log,
) -> dict[str, list[Outcome]]:
    """All runs of all contenders; first those that others depend on."""
    reference = next((c for c in contenders if c.label == options.poses), None)
    ordered = [
        *([reference] if reference is not None else []),
        *(c for c in contenders if c is not reference),
    ]
    outcomes: dict[str, list[Outcome]] = {}
    result.poses_text = poses_in_words(options)
    for number, contender in enumerate(ordered, 1):
        seeds = 1 if contender.label in options.once else options.seeds
        for seed in range(options.seed, options.seed + seeds):
            root = run_folder(out, contender.label, options, seed)
            given = poses_place(
                scene, options, contender.label, lambda label: run_folder(out, label, options, options.seed)
            )
            more = (f"map.poses={json.dumps(given)}",) if given else ()
            # Every seed has fields of its own: read from another's, they would cost nothing.
            fields = out / (FIELDS if seed == options.seed else f"{FIELDS}.seed-{seed}")
            job = _job(scene, contender, options, root, intrinsics, seed, more, fields)
            which = f" (seed {seed})" if options.seeds > 1 else ""
            say(f"{scene.name}: {contender.label}{which}, {number} of {len(ordered)}")
            outcome = run_job(job, workspaces(out), isolate=options.isolate)
            if outcome.error:
                say(f"{scene.name}: {contender.label}{which} failed: {outcome.error}")
            elif outcome.before:
                say(f"{scene.name}: {contender.label}{which} was done before")
            outcomes.setdefault(contender.label, []).append(outcome)
            if contender is reference and outcome.error and seed == options.seed:
                raise ReconError(
                    f"--poses {contender.label}: its own run failed, so it has no cameras to give ({outcome.error}); "
                    f"choose another reference, or --poses {EACH}"
                )
    return outcomes


def _judge(
    contender: Contender,
    outcomes: Sequence[Outcome],
    scene: Scene,
    options: Options,
    out: Path,
    say: Log,
) -> Entry:
    entry = Entry(contender, outcomes[0].job.root, outcomes[0].error, adopted=outcomes[0].adopted)
    failures = [outcome.error for outcome in outcomes if outcome.error]
    if failures and not entry.error:
        entry.warnings = (f"{len(failures)} of {len(outcomes)} seeds failed: {failures[0]}",)
    found: list[dict[str, float]] = []
    for number, outcome in enumerate(outcomes):
        root = outcome.job.root
        records = _records(root)
        metrics = _counts(records)
        if records.get("match") is not None and records["match"].state == "done":
            kept = out / "judged" / f"{root.parent.name}-{root.name}.json"
            try:
                report = evaluated(root, scene, kept, seed=options.seed)
                metrics = {**report.metrics, **metrics}
                if number == 0:
                    entry.evaluation = report
            except (ReconError, ValueError) as error:
                say(f"{scene.name}: {contender.label} could not be judged: {error}")
                entry.warnings = (*entry.warnings, f"could not be judged: {error}")
        seconds = {n: r.seconds for n, r in records.items() if r.state == "done"}
        _charge_fields(root, metrics, records, seconds)
        found.append(metrics)
        if number == 0:
            entry.stage_seconds = seconds
            entry.failed_stage = next((n for n, r in records.items() if r.state == "failed"), "")
            entry.warnings = (
                *entry.warnings,
                *dict.fromkeys(text for r in records.values() if r.state == "done" for text in r.warnings),
            )
    _over_seeds(entry, found)
    matched = [
        one.job.root for one, metrics in zip(outcomes, found, strict=True) if "matches.count" in metrics
    ]
    if len(matched) > 1:
        kept = out / "judged" / f"{contender.label}-repeatability.json"
        values = evaluated_repeatability(matched, scene, kept, seed=options.seed)
        add_samples(entry, REPEATABILITY, values)
    return entry


def _charge_fields(
    root: Path, metrics: dict[str, float], records: Mapping[str, StageRecord], seconds: dict[str, float]
) -> None:
    """Dense fields that another contender's run left cost as much as if they had been computed here."""
    record = records.get("fields")
    if record is None or record.state != "done":
        return
    manifest = read_manifest(root)
    threads = 1 if manifest is None else int(manifest.run.get("threads", 1))
    counts = record.counts
    work = float(counts.get("seconds_per_pair", 0.0)) * float(counts.get("pairs", 0))
    alone = work / max(threads, 1)
    if alone > record.seconds:
        seconds["fields"] = alone
        for name, saved in (
            ("cost.seconds", alone - record.seconds),
            ("cost.cpu_seconds", work - record.cpu_seconds),
        ):
            if name in metrics:
                metrics[name] += max(0.0, saved)


def _over_seeds(entry: Entry, found: Sequence[Mapping[str, float]]) -> None:
    """Medians and ranges over the seeds."""
    if len(found) == 1:
        entry.metrics = dict(found[0])
        return
    for name in dict.fromkeys(name for metrics in found for name in metrics):
        values = [metrics[name] for metrics in found if name in metrics and not math.isnan(metrics[name])]
        if values:
            entry.metrics[name] = float(np.median(values))
            entry.spread[name] = (min(values), max(values))


def _records(root: Path) -> dict[str, StageRecord]:
    try:
        manifest = read_manifest(root)
    except ReconError:
        return {}
    return {} if manifest is None else dict(manifest.stages)


def _counts(records: Mapping[str, StageRecord]) -> dict[str, float]:
    found = {}
    for name, (stage, count) in _COUNTS.items():
        record = records.get(stage)
        if record is not None and record.state == "done" and count in record.counts:
            found[name] = float(record.counts[count])
    return found


def _photo_names(root: Path) -> tuple[str, ...]:
    from recon.run.folder import RunFolder

    return tuple(RunFolder(root).photos)


def _check_truth(scene: Scene, names: Sequence[str]) -> None:
    if scene.truth is None or not scene.truth.cameras:
        return
    known = scene.truth.cameras
    missing = [name for name in names if name not in known]
    if len(missing) == len(names):
        raise ReconError(
            f"{scene.truth_place}: the truth names none of the photos: it has {', '.join(sorted(known)[:3])}, the "
            f"photos are {', '.join(names[:3])}. Give the truth of this scene, or leave --truth out"
        )


def _intrinsics(scene: Scene, options: Options, out: Path) -> str | None:
    """Description of the intrinsics that the runs are given."""
    if options.intrinsics == "estimate":
        return None
    if options.intrinsics != "auto":
        return options.intrinsics
    if scene.truth is None or not scene.truth.cameras:
        return None

    cameras = {name: camera.intrinsics for name, camera in sorted(scene.truth.cameras.items())}
    if all(camera.model == "PINHOLE" for camera in cameras.values()):
        entries = [
            {
                "name": name,
                "width": camera.width,
                "height": camera.height,
                **dict(zip(("fx", "fy", "cx", "cy"), camera.params, strict=True)),
            }
            for name, camera in cameras.items()
        ]
        path = out / "intrinsics.json"
        _write_if_new(path, json.dumps({"images": entries}, indent=1) + "\n")
        return str(path)
    # COLMAP's text form has lens distortion; its pixels are half a pixel off from recon's.
    from recon.core.colmap import camera_from_intrinsics

    cameras_txt, images_txt = [], []
    for number, (name, intrinsics) in enumerate(cameras.items(), 1):
        camera = camera_from_intrinsics(intrinsics, number)
        numbers = " ".join(repr(float(v)) for v in camera.params)
        cameras_txt.append(f"{number} {camera.model.name} {camera.width} {camera.height} {numbers}")
        images_txt += [f"{number} 1 0 0 0 0 0 0 {number} {name}", ""]
    folder = out / "intrinsics"
    _write_if_new(folder / "images.txt", "\n".join(images_txt) + "\n")
    _write_if_new(folder / "cameras.txt", "\n".join(cameras_txt) + "\n")
    return str(folder / "cameras.txt")


def _write_if_new(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
