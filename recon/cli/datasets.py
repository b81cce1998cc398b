"""``recon datasets``: what public data there is, where it lies here, and how to get it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    pass

datasets = typer.Typer(
    name="datasets", help="Public scenes and benchmarks: list, describe, fetch.", no_args_is_help=True
)


@datasets.command("list")
def list_datasets() -> None:
    """All data sets that recon has a card of, and whether they are here."""
    from recon.datasets.cards import load_cards
    from recon.datasets.inventory import card_here, fetch_size

    rows = [("name", "here", "fetch", "ground truth")]
    root = _root()
    for card in load_cards().values():
        rows.append((card.name, card_here(card, root), fetch_size(card), card.ground_truth))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for row in rows:
        columns = [cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)]
        typer.echo("  ".join([*columns, row[3]]).rstrip())
    where = f"under {root / 'datasets'}" if root is not None else "nowhere: RECON_DATA is not set"
    typer.echo(f"\n'here' looks {where}")


@datasets.command("show")
def show_dataset(
    name: str = typer.Argument(..., metavar="NAME", help="Of the list; NAME/SCENE for one scene of several."),
) -> None:
    """One data set: origin, licence, what to cite, what is known, and what lies here."""
    from recon.datasets.cards import load_card
    from recon.datasets.inventory import card_here, describe_folder, fetch_size

    card = load_card(name)
    root = _root()
    rows = [
        ("name", card.name),
        ("origin", card.origin),
        ("licence", card.licence),
        ("cite", card.citation),
        ("truth", card.ground_truth),
        ("cameras", card.convention or "none"),
        ("fetch", fetch_size(card)),
        ("verified", card.verified),
        ("parts", ", ".join(card.parts)),
        ("scenes", ", ".join(card.scenes)),
        ("by hand", card.obtain),
        ("folder", str(card.target(root)) if root is not None else f"datasets/{card.path} below RECON_DATA"),
    ]
    for key, value in rows:
        if value:
            typer.echo(f"{key:<9}{value}")
    for role, where in card.layout.items():
        typer.echo(f"  {role:<9}{where}")
    if root is not None and not card.scenes and card.is_here(root):
        for line in describe_folder(card.target(root)):
            typer.echo(line)
    else:
        typer.echo("here     " + card_here(card, root))


@datasets.command("fetch")
def fetch_dataset(
    name: str = typer.Argument(..., metavar="NAME", help="Of the list; NAME/SCENE for one scene of several."),
    to: Path | None = typer.Option(None, help="Data root; RECON_DATA by default. It holds datasets/."),
    with_: list[str] = typer.Option(
        [], "--with", metavar="PART", help="Fetch this part too; may be repeated."
    ),
) -> None:
    """Download a data set; the same command again goes on where an earlier one stopped."""
    from recon.cli.signals import stoppable
    from recon.datasets.cards import data_root, load_card
    from recon.datasets.fetching import fetch
    from recon.datasets.ground_truth import complete_layout
    from recon.datasets.inventory import describe_folder
    from recon.io.download import ProgressBar

    card = load_card(name)
    root = to.expanduser() if to is not None else data_root()
    with stoppable(), ProgressBar() as bar:
        done = fetch(card, root, with_, bar)
        made = complete_layout(card, root)
    typer.echo(f"{card.name}: {len(done.downloaded)} downloaded, {len(done.kept)} here already")
    if done.unverified:
        typer.echo(
            f"not verified, as no checksum is known: {len(done.unverified)} of "
            f"{len(done.downloaded) + len(done.kept)} files"
        )
    for path in made:
        typer.echo(f"wrote {path}")
    typer.echo(f"licence: {card.licence}")
    typer.echo(f"cite: {card.citation}")
    for line in describe_folder(done.folder):
        typer.echo(line)


def _root() -> Path | None:
    from recon.datasets.cards import data_root
    from recon.errors import ReconError

    try:
        return data_root()
    except ReconError:
        return None
