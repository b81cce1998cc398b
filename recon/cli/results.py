"""The results of a run that a person may want to open."""

from __future__ import annotations

from pathlib import Path

import typer

_RESULTS = (
    ("cameras, as COLMAP reads them", "sparse/0"),
    ("points", "dense/points.ply"),
    ("mesh", "mesh/mesh.ply"),
    ("pictures", "pictures"),
    ("report", "report.html"),
    ("figures", "summary.txt"),
    ("log", "run.log"),
)


def list_results(out: Path) -> None:
    """Print the results that are there and of the run's present state."""
    from recon.run.state import STAGE_OF, old_results

    for what, name in _RESULTS:
        path = out / name
        if path.exists() and not (name in STAGE_OF and old_results(out, [name])):
            typer.echo(f"  {path}  ({what})")
