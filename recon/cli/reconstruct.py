"""``recon reconstruct``: photos in, mesh out."""

from __future__ import annotations

from pathlib import Path

import typer

from recon.cli.results import list_results
from recon.cli.signals import stoppable


def reconstruct(
    photos: list[Path] = typer.Argument(
        ...,
        metavar="PHOTOS...",
        help="Folder of photos and films (searched with all below it), files, a film, or a text file of names.",
    ),
    out: Path = typer.Option(..., "--out", "-o", help="Workspace folder: everything goes there."),
    recipe: str = typer.Option("siftflow", help="A recipe of the folder 'pipelines', or the path of one."),
    quality: str = typer.Option("normal", help="preview, normal or high."),
    set_: list[str] = typer.Option(
        [], "--set", metavar="SECTION.KEY=VALUE", help="Change one setting of the recipe; may be repeated."
    ),
    intrinsics: str | None = typer.Option(
        None,
        metavar="SPEC",
        help="Known intrinsics: cameras.json, COLMAP's cameras.txt, or fx,fy,cx,cy for all.",
    ),
    masks: Path | None = typer.Option(
        None, help="Folder of masks: name.png or name.jpg.png, white may be used."
    ),
    camera_sharing: str | None = typer.Option(
        None,
        help="Which photos share a camera: auto (by EXIF, size and folder; the default), single, per-photo.",
    ),
    frames: int | None = typer.Option(
        None, min=2, help="Frames to take of each film; by default as many as its motion asks for."
    ),
    stop_after: str | None = typer.Option(None, metavar="STAGE", help="Last stage to run."),
    restart_from: str | None = typer.Option(
        None, metavar="STAGE", help="Compute this stage and all after it anew."
    ),
    threads: int | None = typer.Option(None, min=1, help="Threads to use; all cores by default."),
    seed: int = typer.Option(0, min=0, help="Seed of every random choice."),
    resume: bool = typer.Option(True, "--resume/--no-resume", help="Keep what an earlier run has finished."),
) -> None:
    """Reconstruct a scene from a folder of photos.

    The same command again resumes a run that was stopped.
    """
    with stoppable():
        from recon import api

        summary = api.reconstruct(
            photos,
            out,
            recipe=recipe,
            quality=quality,
            overrides=tuple(set_),
            intrinsics=intrinsics,
            masks=masks,
            stop_after=stop_after,
            restart_from=restart_from,
            threads=threads,
            seed=seed,
            resume=resume,
            camera_sharing=camera_sharing,
            frames=frames,
        )
    typer.echo(f"done in {summary.seconds:.1f} s; files to open:")
    list_results(out)
