"""``recon reconstruct``: photos in, mesh out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from recon.cli.options import takes_options
from recon.cli.results import list_results
from recon.cli.signals import stoppable
from recon.options import option

INPUT, COMMON = "Input", "Common options"
QUALITY, CAMERAS, OUTPUT, MACHINE = "Quality", "Cameras", "Output", "Machine"

EXAMPLE = """\
recon reconstruct needs photos and a folder for the results, for example

  recon reconstruct photos/ --out result/                      the usual quality
  recon reconstruct photos/ --out result/ --quality preview    a first look, in a fraction of the time
  recon reconstruct film.mp4 --out result/                     a film instead of photos

'recon reconstruct --help' has all options; 'recon demo' runs on a scene of its own."""


class WithExample(TyperCommand):
    """A command that shows examples when it gets no arguments; the exit code says that the call was wrong."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Print the examples and end where there are no arguments."""
        if not args:
            typer.echo(EXAMPLE, err=True)
            ctx.exit(2)
        return super().parse_args(ctx, args)


@dataclass(frozen=True)
class ReconstructOptions:
    """Options of a reconstruction, the common ones first."""

    quality: str = option("normal", "preview, normal or high.", panel=COMMON)
    recipe: str = option("siftflow", "A recipe of the folder 'pipelines', or the path of one.", panel=COMMON)
    masks: Path | None = option(
        None, "Folder of masks: name.png or name.jpg.png, white may be used.", panel=COMMON
    )
    frames: int | None = option(
        None, "Frames to take of each film; by default as many as its motion asks for.", min=2, panel=COMMON
    )
    intrinsics: str | None = option(
        None,
        "Known intrinsics: cameras.json, COLMAP's cameras.txt, or fx,fy,cx,cy for all.",
        metavar="SPEC",
        panel=COMMON,
    )
    stop_after: str | None = option(None, "Last stage to run.", metavar="STAGE", panel=COMMON)
    plan: bool = option(
        False,
        "Stop when the pairs are chosen, and say what the rest will cost.",
        flags=("--plan",),
        panel=COMMON,
    )
    threads: int | None = option(None, "Threads to use; all cores by default.", min=1, panel=COMMON)
    memory: str | None = option(
        None, "Memory to take, such as 8G; by default what the machine has.", metavar="SIZE", panel=COMMON
    )
    overrides: tuple[str, ...] = option(
        (),
        "Change one setting of the recipe; may be repeated.",
        flags=("--set",),
        metavar="SECTION.KEY=VALUE",
        panel=QUALITY,
    )
    strict: bool = option(
        False,
        "End with exit code 1 where the cameras are doubtful; without, it is a warning.",
        flags=("--strict",),
        panel=QUALITY,
    )
    camera_sharing: str | None = option(
        None,
        "Which photos share a camera: auto (by EXIF, size and folder; the default), single, per-photo.",
        panel=CAMERAS,
    )
    camera_model: str | None = option(
        None,
        "Lens of cameras that are not known: auto (the simplest model that the photos do not contradict; the default), "
        "or a COLMAP camera model such as SIMPLE_RADIAL, OPENCV or OPENCV_FISHEYE.",
        metavar="MODEL",
        panel=CAMERAS,
    )
    resume: bool = option(
        True, "Keep what an earlier run has finished.", flags=("--resume/--no-resume",), panel=OUTPUT
    )
    restart_from: str | None = option(
        None, "Compute this stage and all after it anew.", metavar="STAGE", panel=OUTPUT
    )
    workers: int | None = option(
        None,
        "Share the work among so many processes of this machine (needs the extra 'cluster').",
        min=1,
        panel=MACHINE,
    )
    cluster: str | None = option(
        None,
        "Share the work among the workers of a Dask scheduler that runs already.",
        metavar="ADDRESS",
        panel=MACHINE,
    )
    seed: int = option(0, "Seed of every random choice.", min=0, panel=MACHINE)


@takes_options
def reconstruct(
    photos: list[Path] = typer.Argument(
        ...,
        metavar="PHOTOS...",
        help="Folder of photos and films (searched with all below it), files, a film, or a text file of names.",
        rich_help_panel=INPUT,
    ),
    out: Path = typer.Option(
        ..., "--out", "-o", help="Workspace folder: everything goes there.", rich_help_panel=COMMON
    ),
    *,
    options: ReconstructOptions,
) -> None:
    """Reconstruct a scene from a folder of photos.

    The same command again resumes a run that was stopped.
    """
    with stoppable():
        from recon import api
        from recon.errors import ReconError
        from recon.io.manifest import KEPT
        from recon.sfm.trust import trust_in_words

        told = asdict(options)
        strict, plan = told.pop("strict"), told.pop("plan")
        if plan:
            told["stop_after"] = "pairs"
        summary = api.reconstruct(photos, out, **told)
    if plan:
        typer.echo(api.plan(out, options.workers or options.threads, options.memory))
        return
    kept = ", ".join(
        f"{one.name} {one.counts[KEPT]}" for one in summary.stages if one.counts.get(KEPT) and not one.skipped
    )
    if kept:
        typer.echo(f"kept of the run before: {kept}")
    typer.echo(f"done in {summary.seconds:.1f} s; files to open:")
    list_results(out)
    trust = api.trust(out)
    if strict and trust is not None and trust["verdict"] != "sound":
        raise ReconError(f"--strict: the cameras are {trust_in_words(trust)}")
