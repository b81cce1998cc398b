"""``recon evaluate``: one result against the truth, also when another tool made it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recon.errors import ReconError

if TYPE_CHECKING:
    from recon.evaluation.report import RunReport

evaluate = typer.Typer(
    name="evaluate",
    help="Compare results with ground truth: recon's own, or any on disk as COLMAP model, PLY or .flo.",
    no_args_is_help=True,
)

_RUN = "A workspace, or a folder with a COLMAP model."
_TRUTH = "The truth: a scene (cameras.json, or a benchmark's layout), or a folder with a COLMAP model."


def run_argument(help: str) -> typer.models.ArgumentInfo:
    """The argument that names what is judged."""
    return typer.Argument(metavar="RUN", help=help)


Run = Annotated[Path, run_argument(_RUN)]
Truth = Annotated[Path, typer.Option(help=_TRUTH)]
Json = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the figures to this file too.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the sampling.")]


@evaluate.command("poses")
def evaluate_poses(run: Run, truth: Truth, json_: Json = None) -> None:
    """Camera errors after similarity alignment, plain and robust; area under the curve of relative poses."""
    from recon.evaluation.kinds import of_poses

    tell("poses", run, truth, of_poses(run, truth), json_)


@evaluate.command("matches")
def evaluate_matches(
    run: Annotated[Path, run_argument("A workspace, a COLMAP database, or a folder with database.db.")],
    truth: Truth,
    json_: Json = None,
    seed: Seed = 0,
) -> None:
    """Epipolar precision, endpoint error (where depth is known), coverage and number of matches."""
    from recon.evaluation.kinds import of_matches

    tell("matches", run, truth, of_matches(run, truth, seed), json_)


@evaluate.command("run")
def evaluate_run(
    run: Run,
    truth: Annotated[
        Path | None, typer.Option(help=_TRUTH + " Without it only what needs no truth is said.")
    ] = None,
    thresholds: Annotated[str | None, typer.Option(metavar="A,B,…", help="Distances for surfaces.")] = None,
    json_: Json = None,
    seed: Seed = 0,
) -> None:
    """All that can be said of a run: with truth, without, and what it cost."""
    from recon.evaluation.kinds import of_all

    tell("run", run, truth, of_all(run, truth, thresholds, seed), json_)


@evaluate.command("scene")
def evaluate_scene(
    run: Annotated[Path, run_argument("A finished workspace.")],
    scene: Annotated[Path, typer.Option(help="A rendered scene: cameras.json and truth/mesh.ply.")],
) -> None:
    """Cameras, points and mesh of a run against a rendered scene."""
    from recon.evaluation.scene import judge_scene
    from recon.run.state import refuse_old

    refuse_old(run)
    report = judge_scene(scene, run)
    typer.echo(report.poses.text())
    for name, surface in (("points", report.cloud), ("mesh", report.mesh)):
        if surface is not None:
            typer.echo(f"{name}: {surface.text()}")


def tell(what: str, run: Path, truth: Path | None, report: RunReport, path: Path | None) -> None:
    """Print the figures, and write them where that is asked for."""
    from recon.evaluation.kinds import Judgement

    judgement = Judgement(what, run, truth, report)
    for line in judgement.lines():
        typer.echo(line)
    if path is None:
        return
    try:
        path.write_text(
            json.dumps(judgement.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    except OSError as error:
        raise ReconError(f"{path}: cannot be written ({error.strerror}); choose another --json") from error
