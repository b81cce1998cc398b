"""``recon ortho``, ``contours``, ``volume`` and ``targets``: maps, and what is taken from them or leads to them."""

from __future__ import annotations

from pathlib import Path

import typer

from recon.cli.export import print_report
from recon.cli.options import takes_options
from recon.maps.options import ContourOptions, OrthoOptions, TargetOptions, VolumeOptions


@takes_options
def ortho(
    run: Path = typer.Argument(..., metavar="OUT", help="A workspace, or a folder with a COLMAP model."),
    out: Path | None = typer.Option(None, "--out", "-o", help="Folder of the maps; OUT/maps by default."),
    *,
    options: OrthoOptions,
) -> None:
    """Make a surface model and a true orthophoto: GeoTIFFs, and a PNG with a world file.

    In the frame of OUT/georeference.json where there is one ('recon georeference' makes it), else level and in the
    run's own units.
    """
    from recon.exports.source import open_run
    from recon.maps.making import run_ortho
    from recon.run.folder import MAPS
    from recon.run.state import refuse_old

    refuse_old(run, "sparse/0", "dense/depth", "mesh/mesh.ply")
    print_report("", run_ortho(open_run(run), out or run / MAPS, options))


_RUN = "A run whose maps 'recon ortho' has made."


@takes_options
def contours(
    run: Path = typer.Argument(..., metavar="OUT", help=_RUN),
    maps: Path | None = typer.Option(None, metavar="DIR", help="Folder of the maps; OUT/maps by default."),
    out: Path | None = typer.Option(None, "--out", "-o", help="The file; contours.geojson beside the maps."),
    *,
    options: ContourOptions,
) -> None:
    """Draw contour lines of the surface model, as GeoJSON in the map's coordinates."""
    from recon.maps.contours import run_contours
    from recon.run.folder import MAPS, RunFolder

    folder = maps or run / MAPS
    print_report("", run_contours(RunFolder(run), folder, out or folder / "contours.geojson", options))


@takes_options
def volume(
    run: Path = typer.Argument(..., metavar="OUT", help=_RUN),
    maps: Path | None = typer.Option(None, metavar="DIR", help="Folder of the maps; OUT/maps by default."),
    *,
    options: VolumeOptions,
) -> None:
    """Measure volumes between the surface model and a base over polygons, with their uncertainty."""
    from recon.maps.volume import run_volume
    from recon.run.folder import MAPS, RunFolder

    for line in run_volume(RunFolder(run), maps or run / MAPS, options):
        typer.echo(line)


@takes_options
def targets(
    run: Path = typer.Argument(..., metavar="OUT", help="A workspace, or a folder with a COLMAP model."),
    *,
    options: TargetOptions,
) -> None:
    """Find coded targets (ArUco, AprilTag) in the photos and write them to OUT/marks.csv.

    'recon georeference OUT --control FILE' takes the marks from there.
    """
    from recon.exports.source import open_run
    from recon.maps.targets import run_targets
    from recon.run.state import refuse_old

    refuse_old(run, "sparse/0")
    print_report("", run_targets(open_run(run), options))
