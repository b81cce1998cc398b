"""``recon evaluate``: one result against the truth, also when another tool made it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from recon.errors import ReconError, UsageError
from recon.run.state import refuse_old

if TYPE_CHECKING:
    from recon.evaluation.report import RunReport
    from recon.run.folder import RunFolder

evaluate = typer.Typer(
    name="evaluate",
    help="Compare results with ground truth: recon's own, or any on disk as COLMAP model, PLY or .flo.",
    no_args_is_help=True,
)

_RUN = "A workspace, or a folder with a COLMAP model."
_TRUTH = "The truth: a scene (cameras.json, or a benchmark's layout), or a folder with a COLMAP model."
_JSON = "Write the figures to this file too."
_SEED = "Seed of the sampling."


@evaluate.command("poses")
def evaluate_cameras(
    run: Path = typer.Argument(..., metavar="RUN", help=_RUN),
    truth: Path = typer.Option(..., help=_TRUTH),
    json_: Path | None = typer.Option(None, "--json", metavar="FILE", help=_JSON),
) -> None:
    """Camera errors after similarity alignment, plain and robust; area under the curve of relative poses."""
    refuse_old(run, "sparse/0")
    from recon.evaluation.run import evaluate_run
    from recon.evaluation.sources import read_truth
    from recon.run.folder import RunFolder

    files = RunFolder(run)
    if files.model_folder is None:
        raise ReconError(
            f"{run}: no COLMAP model (images.bin or images.txt) is here or in sparse/0; name its folder"
        )
    known = read_truth(truth)
    if not known.cameras:
        raise ReconError(f"{truth}: holds no cameras; name a cameras.json or a COLMAP model")
    report = evaluate_run(files, known, strict=True, parts=("poses", "two_view"))
    _tell(report, "poses", run, truth, json_)


@evaluate.command("matches")
def evaluate_pairs(
    run: Path = typer.Argument(
        ..., metavar="RUN", help="A workspace, a COLMAP database, or a folder with database.db."
    ),
    truth: Path = typer.Option(..., help=_TRUTH),
    json_: Path | None = typer.Option(None, "--json", metavar="FILE", help=_JSON),
    seed: int = typer.Option(0, min=0, help=_SEED),
) -> None:
    """Epipolar precision, endpoint error (where depth is known), coverage and number of matches."""
    refuse_old(run, "pairs.json", "database.db")
    from recon.evaluation.run import evaluate_run
    from recon.evaluation.sources import read_truth
    from recon.run.folder import RunFolder

    files = RunFolder(run.parent, database=run) if run.is_file() else RunFolder(run)
    if not files.named_pairs and not files.database_sizes:
        raise ReconError(
            f"{run}: neither pairs.json nor database.db is here; name a workspace or a COLMAP database"
        )
    known = read_truth(truth)
    if not known.cameras and not known.pairs:
        raise ReconError(
            f"{truth}: holds no cameras, so matches cannot be judged; name a cameras.json or COLMAP model"
        )
    report = evaluate_run(files, known, strict=True, seed=seed, parts=("matches", "two_view"))
    if not any(name.startswith("matches.") for name in report.metrics):
        raise ReconError(
            f"{run}: none of its pairs has matches and two known cameras; name the truth of this scene"
        )
    _tell(report, "matches", run, truth, json_)


@evaluate.command("surface")
def evaluate_points(
    run: Path = typer.Argument(
        ..., metavar="RUN", help="A workspace or folder of another tool, or a cloud or mesh."
    ),
    truth: Path = typer.Option(..., help="The truth: a scene with a scan or mesh, or the file of one."),
    cameras: Path | None = typer.Option(
        None, help="COLMAP model of the cameras that made RUN, to align it by; a workspace has its own."
    ),
    views: Path | None = typer.Option(
        None,
        help="True cameras (cameras.json or COLMAP model), where --truth is a file: for what can be judged.",
    ),
    what: str = typer.Option("all", help="points, mesh or all."),
    thresholds: str | None = typer.Option(
        None, metavar="A,B,…", help="Distances, in metres where the truth is, else in its units."
    ),
    scale: float = typer.Option(1.0, help="Multiply RUN's coordinates by this first."),
    json_: Path | None = typer.Option(None, "--json", metavar="FILE", help=_JSON),
    seed: int = typer.Option(0, min=0, help=_SEED),
) -> None:
    """Accuracy, completeness, F at several distances and chamfer distance of points and mesh."""
    refuse_old(run, "dense/points.ply", "mesh/mesh.ply")
    from dataclasses import replace

    from recon.evaluation.run import evaluate_run
    from recon.evaluation.sources import read_truth

    if what not in {"points", "mesh", "all"}:
        raise UsageError(f"--what {what}: choose points, mesh or all")
    if not (math.isfinite(scale) and scale > 0):
        raise UsageError(f"--scale {scale:g}: must be above 0")
    files = _surface_files(run, cameras, what, scale)
    known = read_truth(truth)
    if known.mesh is None and not known.points:
        raise ReconError(
            f"{truth}: holds neither a scan nor a mesh; name the file of one, and --views for its cameras"
        )
    if views is not None:
        known = replace(known, cameras=read_truth(views).cameras)
    limits = _numbers(thresholds)
    report = evaluate_run(
        files, known, strict=True, thresholds=limits, seed=seed, parts=("surfaces", "tracks")
    )
    if not any(name.startswith(("points.", "mesh.")) for name in report.metrics):
        raise ReconError(f"{run}: no surface could be judged: {'; '.join(report.notes) or 'there is none'}")
    _tell(report, "surface", run, truth, json_)


@evaluate.command("depth")
def evaluate_depth_maps(
    run: Path = typer.Argument(
        ...,
        metavar="RUN",
        help="A workspace, a COLMAP dense folder, or one depth map (.npz, .npy, .pfm, .bin).",
    ),
    truth: Path = typer.Option(..., help="The truth: a scene with depth maps, or one depth map."),
    scale: float = typer.Option(1.0, help="Multiply the depth of a single map by this first."),
    json_: Path | None = typer.Option(None, "--json", metavar="FILE", help=_JSON),
) -> None:
    """Errors of depth maps, photo by photo, with the share of pixels that they cover."""
    refuse_old(run, "dense/depth")
    from recon.evaluation.run import evaluate_run
    from recon.evaluation.sources import read_truth

    if run.is_file():
        _tell(_one_depth(run, truth, scale), "depth", run, truth, json_)
        return
    known = read_truth(truth)
    if known.depth is None:
        raise ReconError(f"{truth}: holds no depth maps; name a scene that has them")
    report = evaluate_run(run, known, strict=True, parts=("poses", "depth"))
    if "depth.coverage" not in report.metrics:
        reason = "; ".join(report.notes) or "no depth map of a photo with known depth was found"
        raise ReconError(f"{run}: no depth could be judged: {reason}")
    _tell(report, "depth", run, truth, json_)


@evaluate.command("flow")
def evaluate_fields(
    run: Path = typer.Argument(..., metavar="RUN", help="A .flo file, a folder of them, or a workspace."),
    truth: Path = typer.Option(
        ..., help="A .flo file, a folder of them, or (for a workspace) a scene with known flow."
    ),
    missing: str = typer.Option(
        "error", help="Where the truth is known and RUN is not: error, zero (no motion, an outlier) or skip."
    ),
    json_: Path | None = typer.Option(None, "--json", metavar="FILE", help=_JSON),
) -> None:
    """Endpoint and angular error and outlier rates of optical flow."""
    refuse_old(run, "pairs.json")
    if missing not in {"error", "zero", "skip"}:
        raise UsageError(f"--missing {missing}: choose error, zero or skip")
    for path in (run, truth):
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder")
    _tell(_flow_report(run, truth, missing), "flow", run, truth, json_)


@evaluate.command("run")
def evaluate_all(
    run: Path = typer.Argument(..., metavar="RUN", help=_RUN),
    truth: Path | None = typer.Option(None, help=_TRUTH + " Without it only what needs no truth is said."),
    thresholds: str | None = typer.Option(None, metavar="A,B,…", help="Distances for surfaces."),
    json_: Path | None = typer.Option(None, "--json", metavar="FILE", help=_JSON),
    seed: int = typer.Option(0, min=0, help=_SEED),
) -> None:
    """All that can be said of a run: with truth, without, and what it cost."""
    refuse_old(run)
    from recon.evaluation.run import evaluate_run
    from recon.evaluation.sources import read_truth

    known = None if truth is None else read_truth(truth)
    report = evaluate_run(run, known, thresholds=_numbers(thresholds), seed=seed)
    if not report.metrics:
        raise ReconError(f"{run}: nothing to judge is here: no cameras, points, mesh or manifest.json")
    _tell(report, "run", run, truth, json_)


@evaluate.command("scene")
def evaluate_rendered(
    run: Path = typer.Argument(..., metavar="RUN", help="A finished workspace."),
    scene: Path = typer.Option(..., help="A rendered scene: cameras.json and truth/mesh.ply."),
) -> None:
    """Cameras, points and mesh of a run against a rendered scene."""
    refuse_old(run)
    from recon.evaluation.scene import judge_scene

    report = judge_scene(scene, run)
    typer.echo(report.poses.text())
    for name, surface in (("points", report.cloud), ("mesh", report.mesh)):
        if surface is not None:
            typer.echo(f"{name}: {surface.text()}")


def _surface_files(run: Path, cameras: Path | None, what: str, scale: float) -> RunFolder:
    """The run with the surfaces that are asked for."""
    from recon.evaluation.sources import SURFACE_SUFFIXES, has_faces
    from recon.run.folder import RunFolder, find_cloud, find_mesh

    if not run.exists():
        raise UsageError(f"{run}: no such file or folder")
    if run.is_dir():
        cloud = find_cloud(run) if what in {"points", "all"} else None
        mesh = find_mesh(run) if what in {"mesh", "all"} else None
        if cloud is None and mesh is None:
            raise ReconError(
                f"{run}: no {'cloud or mesh' if what == 'all' else what} under the usual names; name the file itself"
            )
        own = cameras if cameras is not None else RunFolder(run).model_folder
        return RunFolder(run, model=own, cloud=cloud, mesh=mesh, scale=scale)
    if run.suffix.lower() not in SURFACE_SUFFIXES:
        raise UsageError(f"{run}: a surface is one of {', '.join(SURFACE_SUFFIXES)}")
    as_mesh = what == "mesh" or (what == "all" and has_faces(run))
    if as_mesh:
        return RunFolder(run.parent, model=cameras, mesh=run, scale=scale)
    return RunFolder(run.parent, model=cameras, cloud=run, scale=scale)


def _one_depth(run: Path, truth: Path, scale: float) -> RunReport:
    import numpy as np

    from recon.evaluation.depth import evaluate_depth, resize_truth_depth
    from recon.evaluation.report import RunReport
    from recon.io.depth_maps import read_depth_map

    if not truth.is_file():
        raise UsageError(f"{truth}: no such file; the truth of one depth map is one depth map")
    found, known = read_depth_map(run) * np.float32(scale), read_depth_map(truth)
    if not (known > 0).any():
        raise ReconError(f"{truth}: no depth is known in it; name another file")
    if not (found > 0).any():
        raise ReconError(f"{run}: no pixel has a depth; make it anew")
    if abs(found.shape[1] / found.shape[0] * known.shape[0] / known.shape[1] - 1) > 0.02:
        raise ReconError(
            f"{run} is {found.shape[::-1]} pixels and {truth} {known.shape[::-1]}: another picture"
        )
    known = resize_truth_depth(known, found.shape[1], found.shape[0])
    both = (known > 0) & (found > 0)
    ratio = float(np.median(found[both] / known[both])) if both.any() else 1.0
    if not 0.5 < ratio < 2.0:
        raise ReconError(
            f"{run}: its depths are {ratio:.4g} times those of {truth}: the units differ; give --scale {1 / ratio:.4g}"
        )
    report = evaluate_depth(found, known, (0.001, 0.005, 0.01, 0.05))
    metrics = {
        "depth.coverage": report.coverage,
        "depth.median_error": report.median,
        "depth.mean_error": report.mean,
        "depth.relative_error": report.relative,
    }
    for limit, share in report.within.items():
        metrics[f"depth.within_{100 * limit:g}pct_share"] = share
        metrics[f"depth.correct_{100 * limit:g}pct_share"] = report.correct[limit]
    return RunReport(metrics)


def _flow_report(run: Path, truth: Path, missing: str) -> RunReport:
    from recon.evaluation.report import RunReport
    from recon.evaluation.run import evaluate_run
    from recon.evaluation.sources import read_truth

    if run.is_file() and truth.is_file():
        pairs = {run.name: (run, truth)}
    elif run.is_dir() and (run / "manifest.json").is_file():
        known = read_truth(truth)
        if known.flow is None:
            raise ReconError(f"{truth}: holds no known flow between photos; name a scene that does")
        report = evaluate_run(run, known, strict=True, parts=("flow",))
        if "flow.endpoint_px" not in report.metrics:
            raise ReconError(f"{run}: has no dense field of a pair whose flow is known")
        return report
    elif run.is_dir() and truth.is_dir():
        ours = {path.relative_to(run).as_posix(): path for path in sorted(run.rglob("*.flo"))}
        theirs = {path.relative_to(truth).as_posix(): path for path in sorted(truth.rglob("*.flo"))}
        pairs = {name: (ours[name], theirs[name]) for name in ours if name in theirs}
        if not pairs:
            raise ReconError(
                f"{run} ({len(ours)} .flo files) and {truth} ({len(theirs)}) share no file name; both folders must be "
                "laid out alike"
            )
    else:
        raise UsageError(f"{run} and {truth}: name two .flo files, two folders, or a workspace and a scene")
    found = {name: _one_flow(a, b, missing) for name, (a, b) in pairs.items()}
    names = list(next(iter(found.values())))
    per_photo = {metric: {name: figures[metric] for name, figures in found.items()} for metric in names}
    metrics = {metric: sum(values.values()) / len(values) for metric, values in per_photo.items()}
    return RunReport(metrics, per_photo if len(found) > 1 else {})


def _one_flow(run: Path, truth: Path, missing: str) -> dict[str, float]:
    import numpy as np

    from recon.evaluation.flow import evaluate_flow, known_flow
    from recon.io.flo import read_flo

    found, known = read_flo(run), read_flo(truth)
    if found.shape != known.shape:
        raise ReconError(
            f"{run} is {found.shape[1]}x{found.shape[0]} pixels and {truth} {known.shape[1]}x{known.shape[0]}: "
            "name the flow of this pair at this size"
        )
    where = known_flow(known)
    if not where.any():
        raise ReconError(f"{truth}: no flow is known in it; name another file")
    gone = float((where & ~known_flow(found)).sum() / where.sum())
    if gone and missing == "error":
        kind = "NaN or infinite" if not np.isfinite(found).all() else "marked unknown"
        raise ReconError(
            f"{run}: {100 * gone:.3g}% of the pixels with known flow are {kind}; give --missing zero to count them as "
            "outliers, or --missing skip to leave them out"
        )
    if gone == 1 and missing == "skip":
        raise ReconError(f"{run}: no flow is known where that of {truth} is")
    report = evaluate_flow(found, known, missing="skip" if missing == "skip" else "zero")
    figures = {
        "flow.endpoint_px": report.endpoint,
        "flow.endpoint_median_px": report.median,
        "flow.angular_deg": report.angular,
        "flow.fl_outliers": report.fl,
    }
    figures |= {f"flow.outliers_{limit:g}px": rate for limit, rate in report.outliers.items()}
    figures["flow.missing_ratio"] = report.missing
    return figures


def _numbers(text: str | None) -> list[float] | None:
    """Distances from "0.01,0.02"."""
    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--thresholds {text}: give numbers with commas between them") from error
    if not all(math.isfinite(value) and value > 0 for value in values):
        raise UsageError(f"--thresholds {text}: every distance must be above 0")
    return values


def _tell(report: RunReport, what: str, run: Path, truth: Path | None, json_: Path | None) -> None:
    """Print the figures, with their confidence intervals, and write them where that is asked for."""
    intervals = report.intervals()
    width = max(len(name) for name in report.metrics)
    for name, value in report.metrics.items():
        line = f"{name:<{width}}  {value:.6g}"
        found = intervals.get(name)
        if found is not None and math.isfinite(found.low) and math.isfinite(found.high):
            line += f"  [{found.low:.4g}, {found.high:.4g}]"
        typer.echo(line)
    for note in report.notes:
        typer.echo(f"note: {note}")
    if json_ is None:
        return
    data = {
        "what": what,
        "run": str(run),
        "truth": None if truth is None else str(truth),
        "metrics": report.metrics,
        "intervals": {
            name: {"low": found.low, "high": found.high, "count": found.count}
            for name, found in intervals.items()
        },
        "per_photo": report.per_photo,
        "per_pair": {
            name: [{"a": a, "b": b, "value": value} for (a, b), value in values.items()]
            for name, values in report.per_pair.items()
        },
        "curves": {
            name: {"label": curve.label, "unit": curve.unit, "x": curve.x.tolist(), "y": curve.y.tolist()}
            for name, curve in report.curves.items()
        },
        "notes": list(report.notes),
    }
    _write_json(json_, data)


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    import json

    try:
        path.write_text(json.dumps(_finite(data), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise ReconError(f"{path}: cannot be written ({error.strerror}); choose another --json") from error


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null stands for what cannot be had, and for a miss."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(item) for item in value]
    return value
