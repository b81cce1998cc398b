"""``recon panoramas``: 360° panoramas cut into views that can be reconstructed."""

from __future__ import annotations

from pathlib import Path

import typer


def panoramas(
    photos: list[Path] = typer.Argument(..., metavar="PHOTOS...", help="Folder of 360° panoramas, or files."),
    out: Path = typer.Option(..., "--out", "-o", help="New folder for the views and their intrinsics."),
) -> None:
    """Cut 360° panoramas (equirectangular, 2:1) into perspective views with known intrinsics."""
    from recon.photos.panoramas import VIEWS, split_panoramas

    count = split_panoramas(photos, out)
    typer.echo(f"{VIEWS} views of each of {count} panorama{'s' * (count > 1)}; now run")
    typer.echo(f"  recon reconstruct {out} --out RESULT --intrinsics {out / 'cameras.json'}")
