"""``recon render``: films and pictures of a result, without a display."""

from __future__ import annotations

from pathlib import Path

import typer

from recon.cli.export import print_report
from recon.cli.options import takes_options
from recon.render.options import RenderOptions


@takes_options
def render(
    scene: Path = typer.Argument(
        ..., metavar="OUT", help="A workspace, a COLMAP model's folder, or a .ply, .obj or .glb file."
    ),
    out: Path = typer.Option(
        ..., "--out", "-o", help="video.mp4, video.webm, picture.png or .jpg, or a folder for --stills."
    ),
    *,
    options: RenderOptions,
) -> None:
    """Draw a film or pictures of a result, on any machine: no display, no GPU."""
    from recon.render.rendering import run_render

    print_report("", run_render(scene, out, options))
