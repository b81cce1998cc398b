"""``recon export`` and ``recon import``: results in the formats of other programs, and theirs in COLMAP's."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import typer

from recon.errors import UsageError

FORMATS = (
    "colmap",
    "colmap-text",
    "nerfstudio",
    "openmvg",
    "openmvs",
    "bundler",
    "meshroom",
    "ply",
    "las",
    "obj",
    "glb",
)
_FORMATS_HELP = f"One of {', '.join(FORMATS)}; may be repeated."


def export(
    run: Path = typer.Argument(..., metavar="OUT", help="A workspace, or a folder with a COLMAP model."),
    to: list[str] = typer.Option(..., "--to", metavar="FORMAT", help=_FORMATS_HELP),
    out: Path | None = typer.Option(
        None, "--out", "-o", help="Folder of the export; OUT/exports/FORMAT by default."
    ),
    photos: Path | None = typer.Option(
        None, metavar="DIR", help="Where the photos are now, if they moved since the run."
    ),
    size: str = typer.Option(
        "working", help="working: photos as the run used them; original: at their full size."
    ),
    images: bool = typer.Option(True, "--images/--no-images", help="Write the photos into the export."),
    undistort: bool = typer.Option(False, help="Undistort the photos; cameras become pinholes."),
    georeferenced: bool = typer.Option(
        False, help="In the frame of OUT/georeference.json (see 'recon georeference')."
    ),
) -> None:
    """Write cameras, photos, points or mesh for other programs."""
    unknown = [name for name in to if name not in FORMATS]
    if unknown:
        raise UsageError(f"--to {unknown[0]}: it is one of {', '.join(FORMATS)}")
    if size not in ("working", "original"):
        raise UsageError(f"--size {size}: it is working or original")
    from recon.cli.exporting import ExportOptions, run_export

    chosen: Literal["working", "original"] = "working" if size == "working" else "original"
    options = ExportOptions(photos, chosen, images, undistort, georeferenced)
    for name in dict.fromkeys(to):
        target = run / "exports" / name if out is None else out if len(set(to)) == 1 else out / name
        report = run_export(run, name, target, options)
        for line in report.notes:
            typer.echo(f"note: {line}")
        typer.echo(f"{name}: {report.what}")
        for path in report.files:
            typer.echo(f"  {path}")


def import_(
    kind: str = typer.Argument(
        ..., metavar="FORMAT", help="openmvg, nerfstudio, meshroom, bundler or colmap."
    ),
    source: Path = typer.Argument(..., metavar="DIR", help="The other program's folder, or its file."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder for the COLMAP model."),
    photos: Path | None = typer.Option(None, metavar="DIR", help="Where the photos are."),
) -> None:
    """Bring another program's reconstruction over, as a COLMAP model that all commands take."""
    from recon.cli.importing import run_import

    report = run_import(kind, source, out, photos)
    for line in report.notes:
        typer.echo(f"note: {line}")
    typer.echo(f"{kind}: {report.what}")
    for path in report.files:
        typer.echo(f"  {path}")
