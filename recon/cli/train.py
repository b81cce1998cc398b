"""``recon train``: networks of the project, trained on data that the user names."""

from __future__ import annotations

from pathlib import Path

import typer

from recon.cli.options import takes_options
from recon.cli.signals import stoppable
from recon.training.options import LayerSearchOptions, TrainingOptions

train = typer.Typer(name="train", help="Train networks.", no_args_is_help=True)


@train.callback()
def _group() -> None:
    pass


@train.command("dhpf")
@takes_options
def train_dhpf(
    out: Path = typer.Option(..., "--out", "-o", help="Folder of the training: logs, state, checkpoint."),
    *,
    options: TrainingOptions,
) -> None:
    """Train the gates and transforms of Dynamic Hyperpixel Flow. The same command again goes on where it stopped."""
    from recon.training.dhpf import BEST, LOG, check_options, run_training

    check_options(options)
    with stoppable():
        run_training(out, options, progress=True)
    typer.echo(f"checkpoint: {out / BEST}\nlog: {out / LOG}")


@train.command("hpf")
@takes_options
def train_hpf(
    benchmark: str = typer.Option(..., help="willow, pf-pascal or spair-71k."),
    root: Path = typer.Option(..., help="Its folder."),
    *,
    options: LayerSearchOptions,
) -> None:
    """Find the layers of Hyperpixel Flow by beam search; give them to the matcher as layers=..."""
    with stoppable():
        from recon.training.layer_search import search_layers

        found = search_layers(benchmark, root, options, progress=True)
    for step in found.steps:
        score, layers = step.kept[0]
        typer.echo(f"{len(layers)} layers: PCK@0.1 {score:.3f} with {','.join(map(str, layers))}")
    typer.echo(f"layers={','.join(map(str, found.layers))}")
