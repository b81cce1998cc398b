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
    """Print the results that are there."""
    for what, name in _RESULTS:
        path = out / name
        if path.exists():
            typer.echo(f"  {path}  ({what})")
