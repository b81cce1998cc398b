"""``recon render``: films and pictures of a result, without a display."""

from __future__ import annotations

from pathlib import Path

import typer

LAYERS = ("textured", "mesh", "dense", "sparse")


def render(
    scene: Path = typer.Argument(
        ..., metavar="OUT", help="A workspace, a COLMAP model's folder, or a .ply, .obj or .glb file."
    ),
    out: Path = typer.Option(
        ..., "--out", "-o", help="video.mp4, video.webm, picture.png or .jpg, or a folder for --stills."
    ),
    trajectory: str = typer.Option(
        "orbit",
        help="orbit, photos, front, oblique, top, or a FILE with poses (TUM text, transforms.json, a COLMAP model).",
    ),
    layer: str | None = typer.Option(
        None, help=f"What to draw: {', '.join(LAYERS)}; the first of these that is there by default."
    ),
    shaded: bool = typer.Option(False, "--shaded", help="Draw the mesh as grey clay."),
    cameras: bool = typer.Option(False, "--cameras", help="Draw the photos where they were taken."),
    stills: int | None = typer.Option(
        None, min=1, help="So many pictures, evenly along the way, instead of a video."
    ),
    at: float | None = typer.Option(
        None,
        min=0.0,
        max=1.0,
        help="Where on the way a single picture is taken; 0.5, the middle, by default.",
    ),
    size: str = typer.Option("960x540", metavar="WIDTHxHEIGHT", help="Of the pictures, pixels."),
    fps: float = typer.Option(30.0, min=1.0, max=240.0, help="Pictures per second of a video."),
    seconds: float | None = typer.Option(
        None, min=0.1, help="Length of a video; by default 8, and a second per photo on their way."
    ),
    background: str = typer.Option("white", help="white, black, or a colour as RRGGBB."),
    distance: float | None = typer.Option(
        None, min=0.2, help="Distance of an orbit over that of the photos: 1, with --cameras 1.8."
    ),
    samples: int = typer.Option(2, min=1, max=4, help="Rays per pixel and axis against jagged edges."),
    photos: Path | None = typer.Option(None, metavar="DIR", help="Where the photos are, if they moved."),
    threads: int | None = typer.Option(None, min=1, help="Pictures drawn at a time; all cores by default."),
) -> None:
    """Draw a film or pictures of a result, on any machine: no display, no GPU."""
    from recon.cli.rendering import RenderOptions, run_render

    options = RenderOptions(
        trajectory=trajectory,
        layer=layer,
        shaded=shaded,
        cameras=cameras,
        stills=stills,
        at=at,
        size=size,
        fps=fps,
        seconds=seconds,
        background=background,
        distance=distance,
        samples=samples,
        photos=photos,
        threads=threads,
    )
    report = run_render(scene, out, options)
    for line in report.notes:
        typer.echo(f"note: {line}")
    typer.echo(report.what)
    for path in report.files:
        typer.echo(f"  {path}")
