"""``recon demo``: an embedded scene from photos to a judged mesh."""

from __future__ import annotations

from pathlib import Path

import typer

from recon.cli.results import list_results
from recon.cli.signals import stoppable
from recon.options import image_size


def demo(
    out: Path = typer.Option(
        Path("demo-output"), "--out", "-o", help="Folder for the scene and the results."
    ),
    quality: str = typer.Option("preview", help="preview, normal or high."),
    size: str = typer.Option(
        "640x480", metavar="WIDTHxHEIGHT", help="Size of the photos; other sizes than this one are rendered."
    ),
    threads: int | None = typer.Option(None, min=1, help="Threads to use; all cores by default."),
) -> None:
    """Reconstruct an embedded scene from its photos, and say how far the result is from the truth."""
    with stoppable():
        from recon import api
        from recon.evaluation.scene import judge_demo
        from recon.synthetic.presets import make_demo

        scene, run = out / "scene", out / "run"
        typer.echo(f"photos of a rendered façade, with the truth: {scene}")
        photos = make_demo(scene, size=image_size(size, "--size"))
        api.reconstruct(photos, run, quality=quality, intrinsics=scene / "cameras.json", threads=threads)
        typer.echo()
        typer.echo((run / "summary.txt").read_text(encoding="utf-8"))
        typer.echo(judge_demo(scene, run))
    typer.echo()
    typer.echo("Files to open:")
    typer.echo(f"  {photos}  (the photos)")
    list_results(run)
