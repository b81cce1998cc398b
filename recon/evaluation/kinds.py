"""One kind of evidence of one result, as ``recon evaluate`` asks for it; results may be files of any program."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from recon.errors import ReconError, UsageError
from recon.evaluation.depth import DEPTH_LIMITS, evaluate_depth, resize_truth_depth
from recon.evaluation.flow import evaluate_flow, known_flow
from recon.evaluation.options import SurfaceOptions
from recon.evaluation.report import RunReport
from recon.evaluation.run import evaluate_run
from recon.evaluation.sources import SURFACE_SUFFIXES, has_faces, read_truth
from recon.io.depth_maps import read_depth_map
from recon.io.files import finite
from recon.io.flo import read_flo
from recon.io.manifest import MANIFEST
from recon.run.folder import RunFolder, find_cloud, find_mesh
from recon.run.state import old_results, refuse_old


def of_poses(run: Path, truth: Path) -> RunReport:
    """Judge the cameras of a run.

    Raises:
        ReconError: there are none, here or in the truth.
    """
    refuse_old(run, "sparse/0")
    files = RunFolder(run)
    if files.model_folder is None:
        raise ReconError(
            f"{run}: no COLMAP model (images.bin or images.txt) is here or in sparse/0; name its folder"
        )
    known = read_truth(truth)
    if not known.cameras:
        raise ReconError(f"{truth}: holds no cameras; name a cameras.json or a COLMAP model")
    return evaluate_run(files, known, strict=True, parts=("poses", "two_view"))


def of_matches(run: Path, truth: Path, seed: int) -> RunReport:
    """Judge the matches of a run, or of a COLMAP database.

    Raises:
        ReconError: there are none, or none whose cameras are known.
    """
    refuse_old(run, "pairs.json", "database.db")
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
    return report


def of_surface(run: Path, truth: Path, options: SurfaceOptions) -> RunReport:
    """Judge the points and the mesh of a run, or one file of them.

    Raises:
        UsageError: options that make no sense.
        ReconError: there is no surface, here or in the truth.
    """
    refuse_old(run, "dense/points.ply", "mesh/mesh.ply")
    if options.what not in {"points", "mesh", "all"}:
        raise UsageError(f"--what {options.what}: choose points, mesh or all")
    if not (math.isfinite(options.scale) and options.scale > 0):
        raise UsageError(f"--scale {options.scale:g}: must be above 0")
    files = _surface_files(run, options)
    known = read_truth(truth)
    if known.mesh is None and not known.points:
        raise ReconError(
            f"{truth}: holds neither a scan nor a mesh; name the file of one, and --views for its cameras"
        )
    if options.views is not None:
        known = replace(known, cameras=read_truth(options.views).cameras)
    report = evaluate_run(
        files,
        known,
        strict=True,
        thresholds=distances(options.thresholds),
        seed=options.seed,
        parts=("surfaces", "tracks"),
    )
    if not any(name.startswith(("points.", "mesh.")) for name in report.metrics):
        why = "; ".join(report.notes) or "there is none"
        raise ReconError(f"{run}: no surface could be judged against {truth}: {why}")
    return report


def of_depth(run: Path, truth: Path, scale: float) -> RunReport:
    """Judge the depth maps of a run, or a single one.

    Raises:
        ReconError: there are none, here or in the truth.
    """
    if run.is_file():
        return _of_one_depth(run, truth, scale)
    refuse_old(run, "dense/depth")
    known = read_truth(truth)
    if known.depth is None:
        raise ReconError(f"{truth}: holds no depth maps; name a scene that has them")
    report = evaluate_run(run, known, strict=True, parts=("poses", "depth"))
    if "depth.coverage" not in report.metrics:
        reason = "; ".join(report.notes) or "no depth map of a photo with known depth was found"
        raise ReconError(f"{run}: no depth could be judged: {reason}")
    return report


def of_flow(run: Path, truth: Path, missing: str) -> RunReport:
    """Judge optical flow: of a .flo file, of a folder of them, or of a run.

    Args:
        missing: where the truth is known and the flow is not: "error", "zero" or "skip".

    Raises:
        UsageError, ReconError: there is none, or it does not fit the truth.
    """
    if missing not in {"error", "zero", "skip"}:
        raise UsageError(f"--missing {missing}: choose error, zero or skip")
    for path in (run, truth):
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder")
    if run.is_dir() and (run / MANIFEST).is_file():
        return _of_run_flow(run, truth)
    found = {name: _of_one_flow(a, b, missing) for name, (a, b) in _flow_pairs(run, truth).items()}
    names = list(next(iter(found.values())))
    per_photo = {metric: {name: figures[metric] for name, figures in found.items()} for metric in names}
    metrics = {metric: sum(values.values()) / len(values) for metric, values in per_photo.items()}
    return RunReport(metrics, per_photo if len(found) > 1 else {})


def of_all(run: Path, truth: Path | None, thresholds: str | None, seed: int) -> RunReport:
    """Judge all that there is of a run: with truth, without, and what it cost; what is of an earlier state is noted.

    Raises:
        ReconError: there is nothing.
    """
    known = None if truth is None else read_truth(truth)
    report = evaluate_run(run, known, thresholds=distances(thresholds), seed=seed)
    if not report.metrics:
        raise ReconError(f"{run}: nothing to judge is here: no cameras, points, mesh or manifest.json")
    return replace(report, notes=(*old_results(run), *report.notes))


def distances(text: str | None) -> list[float] | None:
    """Read distances from "0.01,0.02".

    Raises:
        UsageError: one is no number above 0.
    """
    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--thresholds {text}: give numbers with commas between them") from error
    if not all(math.isfinite(value) and value > 0 for value in values):
        raise UsageError(f"--thresholds {text}: every distance must be above 0")
    return values


@dataclass(frozen=True)
class Judgement:
    """A report with what it is of, to be printed and written.

    Attributes:
        what: the kind of evidence.
        run, truth: what was compared.
    """

    what: str
    run: Path
    truth: Path | None
    report: RunReport

    def lines(self) -> list[str]:
        """The figures, with their confidence intervals, and the notes."""
        metrics, intervals = self.report.metrics, self.report.intervals()
        width = max(len(name) for name in metrics)
        lines = []
        for name, value in metrics.items():
            line = f"{name:<{width}}  {value:.6g}"
            found = intervals.get(name)
            if found is not None and math.isfinite(found.low) and math.isfinite(found.high):
                line += f"  [{found.low:.4g}, {found.high:.4g}]"
            lines.append(line)
        return [*lines, *(f"note: {note}" for note in self.report.notes)]

    def to_json(self) -> Any:
        """As JSON values; null for what cannot be had, and for a miss."""
        report = self.report
        return finite(
            {
                "what": self.what,
                "run": str(self.run),
                "truth": None if self.truth is None else str(self.truth),
                "metrics": report.metrics,
                "intervals": {
                    name: {"low": found.low, "high": found.high, "count": found.count}
                    for name, found in report.intervals().items()
                },
                "per_photo": report.per_photo,
                "per_pair": {
                    name: [{"a": a, "b": b, "value": value} for (a, b), value in values.items()]
                    for name, values in report.per_pair.items()
                },
                "curves": {
                    name: {"label": one.label, "unit": one.unit, "x": one.x.tolist(), "y": one.y.tolist()}
                    for name, one in report.curves.items()
                },
                "notes": list(report.notes),
            }
        )


def _surface_files(run: Path, options: SurfaceOptions) -> RunFolder:
    """The run with the surfaces that are asked for."""
    what, cameras, scale = options.what, options.cameras, options.scale
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


def _of_one_depth(run: Path, truth: Path, scale: float) -> RunReport:

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
    return RunReport(evaluate_depth(found, known, DEPTH_LIMITS).metrics())


def _of_run_flow(run: Path, truth: Path) -> RunReport:
    refuse_old(run, "pairs.json")
    known = read_truth(truth)
    if known.flow is None:
        raise ReconError(f"{truth}: holds no known flow between photos; name a scene that does")
    report = evaluate_run(run, known, strict=True, parts=("flow",))
    if "flow.endpoint_px" not in report.metrics:
        raise ReconError(f"{run}: has no dense field of a pair whose flow is known")
    return report


def _flow_pairs(run: Path, truth: Path) -> dict[str, tuple[Path, Path]]:
    """Flow and true flow by name."""
    if run.is_file() and truth.is_file():
        return {run.name: (run, truth)}
    if not (run.is_dir() and truth.is_dir()):
        raise UsageError(f"{run} and {truth}: name two .flo files, two folders, or a workspace and a scene")
    ours = {path.relative_to(run).as_posix(): path for path in sorted(run.rglob("*.flo"))}
    theirs = {path.relative_to(truth).as_posix(): path for path in sorted(truth.rglob("*.flo"))}
    pairs = {name: (ours[name], theirs[name]) for name in ours if name in theirs}
    if not pairs:
        raise ReconError(
            f"{run} ({len(ours)} .flo files) and {truth} ({len(theirs)}) share no file name; both folders must be "
            "laid out alike"
        )
    return pairs


def _of_one_flow(run: Path, truth: Path, missing: str) -> dict[str, float]:

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
