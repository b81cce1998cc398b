"""``recon compare``: several matchers through one pipeline, one report."""

from __future__ import annotations

from pathlib import Path

import typer

from recon.cli.signals import stoppable
from recon.errors import UsageError


def compare(
    photos: str = typer.Argument(
        "",
        metavar="PHOTOS_OR_DATASET",
        help="Folder of photos, folder of a scene with ground truth, or name of a data set. With --sweep: the kind of "
        "scene to render, or a mesh.",
        show_default=False,
    ),
    matchers: str = typer.Option(
        ...,
        metavar="A,B,...",
        help="Matchers or recipes, separated by commas; LABEL=NAME gives one another name.",
    ),
    out: Path = typer.Option(..., "--out", "-o", help="Folder for the runs and the report."),
    truth: str | None = typer.Option(
        None, help="Ground truth of a plain folder of photos: a scene's folder or a cameras.json."
    ),
    poses: str = typer.Option(
        "each",
        help="Whose cameras the densification uses: each (its own), gt (the true ones), the name of one of the "
        "matchers, or a place with cameras (a run, a COLMAP model, a cameras.json).",
    ),
    quality: str = typer.Option("normal", help="preview, normal or high."),
    recipe: str = typer.Option("siftflow", help="The recipe that matchers are put into."),
    set_: list[str] = typer.Option(
        [],
        "--set",
        metavar="[LABEL:]SECTION.KEY=VALUE",
        help="Change one setting for all, or for one matcher; may be repeated.",
    ),
    intrinsics: str = typer.Option(
        "auto",
        help="auto (the truth's, where it has cameras), estimate, or known ones as for reconstruct.",
    ),
    masks: Path | None = typer.Option(None, help="Folder of masks, as for reconstruct."),
    sweep: str | None = typer.Option(
        None,
        metavar="DIFFICULTY=V1,V2,...",
        help="Render a scene at each value of a difficulty and compare over them, for example zoom=1,2,3,4.",
    ),
    sweep_photos: int = typer.Option(6, min=3, help="Photos of each rendered scene."),
    sweep_size: str = typer.Option("480x360", metavar="WxH", help="Size of the rendered photos."),
    leave_out: int = typer.Option(
        0, min=0, metavar="N", help="Leave out N photos, one at a time, and predict them: needs no truth."
    ),
    seed: int = typer.Option(0, min=0, help="Seed of every random choice."),
    seeds: int = typer.Option(
        1, min=1, help="Runs per matcher, with seeds counted up; the spread is reported."
    ),
    stop_after: str = typer.Option(
        "mesh", metavar="STAGE", help="Last stage to run, for example map to compare cameras only."
    ),
    threads: int | None = typer.Option(None, min=1, help="Threads to use; all cores by default."),
    isolate: bool = typer.Option(
        True, "--isolate/--in-process", help="Each run in a process of its own, or all in this one."
    ),
) -> None:
    """Compare matchers by the cameras, points and mesh that they give, and by their cost.

    Each goes through the same pipeline with the same photos, pairs and settings. What is done stays: the same command
    again answers from what is on disk. Writes comparison.html, comparison.csv and comparison.json.
    """
    from recon.compare.plan import Options, contenders, find_scene

    chosen = contenders(matchers.split(","), set_, recipe)
    options = Options(
        quality=quality,
        poses=poses,
        intrinsics=intrinsics,
        seed=seed,
        seeds=seeds,
        leave_out=leave_out,
        threads=threads,
        stop_after=stop_after,
        isolate=isolate,
    )
    with stoppable():
        if sweep is not None:
            from recon.compare.sweep import compare_sweep, parse_sweep

            files = compare_sweep(
                parse_sweep(sweep, photos, sweep_photos, sweep_size, seed), chosen, options, out, typer.echo
            )
        else:
            if not photos:
                raise UsageError("name the folder of photos or the data set to compare on, or give --sweep")
            from recon.compare.engine import compare_scene
            from recon.compare.report import write_comparison

            result = compare_scene(find_scene(photos, truth, masks), chosen, options, out, typer.echo)
            files = write_comparison([result], out)
    from recon.compare.summary import summary

    typer.echo(summary(out / "comparison.json"))
    typer.echo("files to open:")
    for path in reversed(files):
        typer.echo(f"  {path}")
