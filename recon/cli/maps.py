"""``recon ortho``: surface model and orthophoto."""

from __future__ import annotations

from pathlib import Path

import typer

from recon.cli.export import print_report
from recon.cli.options import takes_options
from recon.maps.options import OrthoOptions


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
