"""The command line. Nothing heavy is imported before a command runs, so that ``--help`` answers at once."""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import typer

from recon import __version__
from recon.commands.compare import compare
from recon.commands.datasets import datasets
from recon.commands.evaluate import evaluate
from recon.commands.export import export, import_
from recon.commands.georeference import georeference
from recon.commands.render import render
from recon.commands.semantic import evaluate_semantic
from recon.commands.stopping import stoppable
from recon.commands.train import train
from recon.commands.view import view
from recon.errors import ReconError, UsageError

app = typer.Typer(
    name="recon",
    help="Photos in, mesh out: cameras, a dense point cloud and a mesh from dense correspondence fields.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
evaluate.command("semantic")(evaluate_semantic)
app.add_typer(train)
app.add_typer(evaluate)
app.add_typer(datasets)
app.command()(export)
app.command(name="import")(import_)
app.command()(georeference)
app.command()(render)
app.command()(compare)
app.command()(view)

WORKER = "recon-worker"
"""How the engine names its threads."""

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
"""What a full or a read-only disk answers."""

_RESULTS = (
    ("cameras, as COLMAP reads them", "sparse/0"),
    ("points", "dense/points.ply"),
    ("mesh", "mesh/mesh.ply"),
    ("pictures", "pictures"),
    ("report", "report.html"),
    ("figures", "summary.txt"),
    ("log", "run.log"),
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"recon {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", help="Print the version and end.", callback=_print_version, is_eager=True
    ),
) -> None:
    pass


@app.command()
def reconstruct(
    photos: Path = typer.Argument(
        ..., metavar="PHOTOS", help="Folder of photos; folders below it are searched too."
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
        )
    typer.echo(f"done in {summary.seconds:.1f} s; files to open:")
    _list_results(out)


@app.command()
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
    """What a matcher finds between photo A and photo B.

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


@app.command()
def doctor() -> None:
    """Say what is installed, what is missing, and how to mend it."""
    from recon.doctor import report

    text, healthy = report(Path.cwd())
    typer.echo(text)
    raise typer.Exit(0 if healthy else 1)


@app.command()
def demo(
    out: Path = typer.Option(
        Path("demo-output"), "--out", "-o", help="Folder for the scene and the results."
    ),
    quality: str = typer.Option("preview", help="preview, normal or high."),
    threads: int | None = typer.Option(None, min=1, help="Threads to use; all cores by default."),
) -> None:
    """Render an embedded scene, reconstruct it from its photos, and say how far the result is from the truth."""
    with stoppable():
        from recon import api
        from recon.datasets.demo import make_demo
        from recon.evaluation.scene import judge_demo

        scene, run = out / "scene", out / "run"
        typer.echo(f"rendering photos of a façade into {scene}")
        photos = make_demo(scene)
        api.reconstruct(photos, run, quality=quality, intrinsics=scene / "cameras.json", threads=threads)
        typer.echo()
        typer.echo((run / "summary.txt").read_text(encoding="utf-8"))
        typer.echo(judge_demo(scene, run))
    typer.echo()
    typer.echo("Files to open:")
    typer.echo(f"  {photos}  (the photos)")
    _list_results(run)


def main(arguments: Sequence[str] | None = None, program: str = "recon") -> int:
    """Run the command line; returns the exit code: 0 (fine), 1 (failed) or 2 (wrong usage)."""
    try:
        app(args=list(arguments) if arguments is not None else None, prog_name=program)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    except UsageError as error:
        return _fail(str(error), 2)
    except ReconError as error:
        return _fail(str(error), 1)
    except ImportError as error:
        return _fail(f"{error}\n'recon doctor' says what is missing and how to mend it", 1)
    except OSError as error:
        if error.errno not in _DISK:
            raise
        where = error.filename or "a result, or a compiled kernel, cannot be written"
        return _fail(f"{where}: {error.strerror}; free some space, or choose another --out", 1)
    except MemoryError:
        return _fail("not enough memory; try --quality preview, or fewer --threads", 1)
    return 0


def _fail(message: str, code: int) -> int:
    """Print an error and return its exit code; ends at once if workers still run, as they do after Ctrl-C."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    if any(one.name.startswith(WORKER) for one in threading.enumerate()):
        sys.stdout.flush()
        os._exit(code)
    return code


def _list_results(out: Path) -> None:
    """Print the results that are there."""
    for what, name in _RESULTS:
        path = out / name
        if path.exists():
            typer.echo(f"  {path}  ({what})")


if __name__ == "__main__":
    sys.exit(main())
