"""The command line. Nothing heavy is imported before a command runs, so that ``--help`` answers at once."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Sequence

import typer

from recon import __version__
from recon.cli.compare import compare
from recon.cli.datasets import datasets
from recon.cli.demo import demo
from recon.cli.doctor import doctor
from recon.cli.evaluate import evaluate
from recon.cli.evaluate_dense import evaluate_depth, evaluate_flow, evaluate_surface
from recon.cli.evaluate_semantic import evaluate_semantic
from recon.cli.export import export, import_
from recon.cli.georeference import georeference
from recon.cli.maps import contours, ortho, targets, volume
from recon.cli.match import match
from recon.cli.panoramas import panoramas
from recon.cli.reconstruct import WithExample, reconstruct
from recon.cli.render import render
from recon.cli.train import train
from recon.cli.view import view
from recon.errors import ReconError, UsageError

app = typer.Typer(
    name="recon",
    help="Photos in, mesh out: cameras, a dense point cloud and a mesh from dense correspondence fields.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command(cls=WithExample)(reconstruct)
app.command()(match)
app.command()(panoramas)
app.command()(doctor)
app.command()(demo)
evaluate.command("surface")(evaluate_surface)
evaluate.command("depth")(evaluate_depth)
evaluate.command("flow")(evaluate_flow)
evaluate.command("semantic")(evaluate_semantic)
app.add_typer(train)
app.add_typer(evaluate)
app.add_typer(datasets)
app.command()(export)
app.command(name="import")(import_)
app.command()(georeference)
app.command()(ortho)
app.command()(contours)
app.command()(volume)
app.command()(targets)
app.command()(render)
app.command()(compare)
app.command()(view)

WORKER = "recon-worker"
"""How the engine names its threads."""

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
"""What a full or a read-only disk answers."""


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


def main(arguments: Sequence[str] | None = None, program: str = "recon") -> int:
    """Run the command line; returns the exit code: 0 (fine), 1 (failed) or 2 (wrong usage)."""
    try:
        app(args=list(arguments) if arguments is not None else None, prog_name=program)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    except UsageError as error:
        return fail(str(error), 2)
    except ReconError as error:
        return fail(str(error), 1)
    except ImportError as error:
        return fail(f"{error}\n'recon doctor' says what is missing and how to mend it", 1)
    except OSError as error:
        if error.errno not in _DISK:
            raise
        where = error.filename or "a result, or a compiled kernel, cannot be written"
        return fail(f"{where}: {error.strerror}; free some space, or choose another --out", 1)
    except MemoryError:
        return fail("not enough memory; try --quality preview, or fewer --threads", 1)
    return 0


def fail(message: str, code: int) -> int:
    """Print an error and return its exit code; ends at once if workers still run, as they do after Ctrl-C."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    if any(one.name.startswith(WORKER) for one in threading.enumerate()):
        sys.stdout.flush()
        os._exit(code)
    return code
