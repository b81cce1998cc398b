"""``recon evaluate``: one result against the truth."""

from __future__ import annotations

from pathlib import Path

import typer

from recon.errors import ReconError

evaluate = typer.Typer(name="evaluate", help="Compare results with ground truth.", no_args_is_help=True)


@evaluate.command("poses")
def evaluate_cameras(
    run: Path = typer.Argument(..., metavar="RUN", help="A workspace, or a folder with a COLMAP model."),
    truth: Path = typer.Option(..., help="True cameras: a cameras.json or a folder with a COLMAP model."),
) -> None:
    """Camera errors after similarity alignment."""
    from recon.evaluation.poses import evaluate_poses, poses_from_cameras_json, poses_from_colmap

    model = run / "sparse" / "0" if (run / "sparse" / "0").is_dir() else run
    true = poses_from_cameras_json(truth) if truth.suffix == ".json" else poses_from_colmap(truth)
    estimated = poses_from_colmap(model)
    if len(set(estimated) & set(true)) < 3:
        raise ReconError(
            f"{model} and {truth} share {len(set(estimated) & set(true))} photo names; three are needed to align them"
        )
    typer.echo(evaluate_poses(estimated, true).text())


@evaluate.command("scene")
def evaluate_run(
    run: Path = typer.Argument(..., metavar="RUN", help="A finished workspace."),
    scene: Path = typer.Option(..., help="A rendered scene: cameras.json and truth/mesh.ply."),
) -> None:
    """Cameras, points and mesh of a run against a rendered scene."""
    from recon.evaluation.scene import judge_scene

    report = judge_scene(scene, run)
    typer.echo(report.poses.text())
    for name, surface in (("points", report.cloud), ("mesh", report.mesh)):
        if surface is not None:
            typer.echo(f"{name}: {surface.text()}")
