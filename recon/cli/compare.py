"""``recon compare``: several matchers through one pipeline, one report."""

from __future__ import annotations

from pathlib import Path

import typer

from recon.cli.options import takes_options
from recon.cli.signals import stoppable
from recon.compare.options import Options
from recon.errors import ReconError, UsageError


@takes_options
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
    recipe: str = typer.Option("siftflow", help="The recipe that matchers are put into."),
    set_: list[str] = typer.Option(
        [],
        "--set",
        metavar="[LABEL:]SECTION.KEY=VALUE",
        help="Change one setting for all, or for one matcher; may be repeated.",
    ),
    masks: Path | None = typer.Option(None, help="Folder of masks, as for reconstruct."),
    *,
    options: Options,
) -> None:
    """Compare matchers by the cameras, points and mesh that they give, and by their cost.

    Each goes through the same pipeline with the same photos, pairs and settings. What is done stays: the same command
    again answers from what is on disk. Writes comparison.html, comparison.csv and comparison.json. Ends with exit code
    1 where every matcher failed.
    """
    from recon.compare.plan import contenders, find_scene

    chosen = contenders(matchers.split(","), set_, recipe)
    with stoppable():
        if options.sweep is not None:
            from recon.compare.sweep import compare_sweep, parse_sweep

            files = compare_sweep(
                parse_sweep(options.sweep, photos, options.sweep_photos, options.sweep_size, options.seed),
                chosen,
                options,
                out,
                typer.echo,
            )
        else:
            if not photos:
                raise UsageError("name the folder of photos or the data set to compare on, or give --sweep")
            from recon.compare.engine import compare_scene
            from recon.compare.report import write_comparison

            result = compare_scene(find_scene(photos, truth, masks), chosen, options, out, typer.echo)
            files = write_comparison([result], out)
    from recon.compare.summary import all_failed, summary

    typer.echo(summary(out / "comparison.json"))
    typer.echo("files to open:")
    for path in reversed(files):
        typer.echo(f"  {path}")
    if all_failed(out / "comparison.json"):
        raise ReconError("every matcher failed; why stands above and in the report")
