"""``recon georeference``: scale, orientation and place of a scene."""

from __future__ import annotations

from pathlib import Path

import typer

from recon.cli.options import takes_options
from recon.errors import UsageError
from recon.exports.options import GRAVITY, GeoreferenceOptions


@takes_options
def georeference(
    run: Path = typer.Argument(..., metavar="OUT", help="A workspace, or a folder with a COLMAP model."),
    *,
    options: GeoreferenceOptions,
) -> None:
    """Find the scene's scale, orientation and place, and write OUT/georeference.json.

    From control points if --control is given, from one length with --length, otherwise from
    the photos' GPS; --level finds nothing but where up is.
    The run's own results stay as they are; 'recon export --georeferenced' applies it.
    """
    if options.gravity not in GRAVITY:
        raise UsageError(f"--gravity {options.gravity}: it is one of {', '.join(GRAVITY)}")
    if (options.control is not None) + (options.length is not None) + options.level > 1:
        raise UsageError("--control, --length and --level exclude each other")
    if options.level and options.gravity == "none":
        raise UsageError("--level needs to know where up is: leave out --gravity none")
    if options.points is not None and options.length is None:
        raise UsageError("--points needs --length A,B=METRES")
    from recon.exports.georeferencing import run_georeference
    from recon.exports.source import open_run
    from recon.report.survey import update_report
    from recon.run.folder import REPORT
    from recon.run.state import refuse_old

    refuse_old(run, "sparse/0")
    opened = open_run(run)
    for line in run_georeference(opened, options):
        typer.echo(line)
    if update_report(opened):
        typer.echo(f"the report tells of it: {run / REPORT}")
