"""``recon export`` and ``recon import``: results in the formats of other programs, and theirs in COLMAP's."""

from __future__ import annotations

from pathlib import Path

import typer

from recon.cli.options import takes_options
from recon.errors import UsageError
from recon.exports.options import FORMATS, ExportOptions, ExportReport

_FORMATS_HELP = f"One of {', '.join(FORMATS)}; may be repeated."


@takes_options
def export(
    run: Path = typer.Argument(..., metavar="OUT", help="A workspace, or a folder with a COLMAP model."),
    to: list[str] = typer.Option(..., "--to", metavar="FORMAT", help=_FORMATS_HELP),
    out: Path | None = typer.Option(
        None, "--out", "-o", help="Folder of the export; OUT/exports/FORMAT by default."
    ),
    *,
    options: ExportOptions,
) -> None:
    """Write cameras, photos, points or mesh for other programs."""
    unknown = [name for name in to if name not in FORMATS]
    if unknown:
        raise UsageError(f"--to {unknown[0]}: it is one of {', '.join(FORMATS)}")
    if options.size not in ("working", "original"):
        raise UsageError(f"--size {options.size}: it is working or original")
    from recon.exports.exporting import run_export
    from recon.exports.source import open_run
    from recon.run.state import refuse_old

    refuse_old(run, "sparse/0")
    opened = open_run(run)
    for name in dict.fromkeys(to):
        target = run / "exports" / name if out is None else out if len(set(to)) == 1 else out / name
        print_report(name, run_export(opened, name, target, options))


def import_(
    kind: str = typer.Argument(
        ..., metavar="FORMAT", help="openmvg, nerfstudio, meshroom, bundler or colmap."
    ),
    source: Path = typer.Argument(..., metavar="DIR", help="The other program's folder, or its file."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder for the COLMAP model."),
    photos: Path | None = typer.Option(None, metavar="DIR", help="Where the photos are."),
) -> None:
    """Bring another program's reconstruction over, as a COLMAP model that all commands take."""
    from recon.exports.importing import run_import

    print_report(kind, run_import(kind, source, out, photos))


def print_report(kind: str, report: ExportReport) -> None:
    """Print what was written, and what the user should know about it."""
    for line in report.notes:
        typer.echo(f"note: {line}")
    typer.echo(f"{kind}: {report.what}" if kind else report.what)
    for path in report.files:
        typer.echo(f"  {path}")
