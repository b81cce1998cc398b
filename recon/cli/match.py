"""``recon match``: a matcher between two photos."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from recon.cli.signals import stoppable


def match(
    a: Path = typer.Argument(..., metavar="A", help="The source photo."),
    b: Path = typer.Argument(..., metavar="B", help="The target photo."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder for the arrays and the pictures."),
    matcher: str = typer.Option("siftflow", help="Name of the matcher."),
    max_size: int = typer.Option(640, min=16, help="Longest side of the images that are matched."),
    set_: list[str] = typer.Option(
        [], "--set", metavar="KEY=VALUE", help="Change one setting of the matcher; may be repeated."
    ),
    weights: Path | None = typer.Option(
        None, metavar="FOLDER", help="Where the weights of a learned matcher are, as --set weights=FOLDER."
    ),
) -> None:
    """Match photo A and photo B, and show what the matcher found.

    Of a dense matcher the flow (.npy and .flo), its picture, B's colours warped onto A, and the consistency mask; of a
    sparse one the matches (.npz) and a picture with lines.
    """
    with stoppable():
        from recon import api

        overrides = (*set_, *(() if weights is None else (f"weights={json.dumps(str(weights))}",)))
        written = api.match_files(a, b, out, matcher=matcher, max_size=max_size, overrides=overrides)
    typer.echo(written.in_words())
    for name in written.files:
        typer.echo(f"  {written.folder / name}")
