"""``recon evaluate semantic``: semantic correspondence on the public benchmarks."""

from __future__ import annotations

from pathlib import Path

import typer

from recon.cli.options import takes_options
from recon.cli.signals import stoppable
from recon.evaluation.semantic_options import SemanticOptions


@takes_options
def evaluate_semantic(
    benchmark: str = typer.Option(..., help="pf-pascal, pf-willow, spair-71k, caltech-101 or willow."),
    root: Path = typer.Option(..., help="Folder of the benchmark, or the one that holds it."),
    gates: Path | None = typer.Option(
        None, metavar="FILE.png", help="Draw which layers the pairs select, by class (dhpf)."
    ),
    *,
    options: SemanticOptions,
) -> None:
    """PCK (or label transfer accuracy and IoU) on a benchmark: each class, the mean, time, selected layers."""
    with stoppable():
        from recon.evaluation.semantic_benchmark import run_benchmark

        report = run_benchmark(benchmark, root, options, progress=True)
    typer.echo(report.text())
    if gates is not None:
        from recon.render.gates import draw_gates

        draw_gates(report.scores, gates)
        typer.echo(f"gates: {gates}")
