"""``recon doctor``: the installation."""

from __future__ import annotations

from pathlib import Path

import typer


def doctor() -> None:
    """Say what is installed, what is missing, and how to mend it."""
    from recon.doctor import report

    text, healthy = report(Path.cwd())
    typer.echo(text)
    raise typer.Exit(0 if healthy else 1)
