"""``recon georeference``: scale, orientation and place of a scene."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

import typer

from recon.errors import UsageError


def georeference(
    run: Path = typer.Argument(..., metavar="OUT", help="A workspace, or a folder with a COLMAP model."),
    control: Path | None = typer.Option(
        None, metavar="FILE", help="Control points: CSV with name, X, Y, Z, photo, x, y; one row a sighting."
    ),
    length: str | None = typer.Option(
        None, metavar="A,B=METRES", help="One known length, between two photos or two points of --points."
    ),
    points: Path | None = typer.Option(
        None, metavar="FILE", help="Points for --length: CSV with name, photo, x, y."
    ),
    level: bool = typer.Option(False, "--level", help="Only turn z up; the scale stays that of the run."),
    crs: str = typer.Option(
        "auto", help="GPS: utm (the default) or enu. Control points: EPSG:CODE, or nothing for a local frame."
    ),
    gravity: str = typer.Option(
        "auto", help="What says where up is, where it is needed: auto, exif, photos, plane or none."
    ),
    gps_error: float = typer.Option(5.0, min=0.001, help="What GPS errs by, metres, horizontally."),
    photos: Path | None = typer.Option(
        None, metavar="DIR", help="Where the photos are now, if they moved since the run."
    ),
    seed: int = typer.Option(0, min=0, help="Seed of the robust fit."),
) -> None:
    """Find the scene's scale, orientation and place, and write OUT/georeference.json.

    From control points if --control is given, from one length with --length, otherwise from
    the photos' GPS; --level finds nothing but where up is.
    The run's own results stay as they are; 'recon export --georeferenced' applies it.
    """
    kinds = ("auto", "exif", "photos", "plane", "none")
    if gravity not in kinds:
        raise UsageError(f"--gravity {gravity}: it is one of {', '.join(kinds)}")
    if (control is not None) + (length is not None) + level > 1:
        raise UsageError("--control, --length and --level exclude each other")
    if level and gravity == "none":
        raise UsageError("--level needs to know where up is: leave out --gravity none")
    if points is not None and length is None:
        raise UsageError("--points needs --length A,B=METRES")
    from recon.cli.georeferencing import GeoreferenceOptions, run_georeference

    options = GeoreferenceOptions(
        control,
        length,
        points,
        crs,
        cast(Literal["auto", "exif", "photos", "plane", "none"], gravity),
        gps_error,
        photos,
        seed,
        level,
    )
    for line in run_georeference(run, options):
        typer.echo(line)
