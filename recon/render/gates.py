"""Picture of the layers that the pairs of a benchmark select."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recon.errors import ReconError, UsageError
from recon.evaluation.semantic import PairScore


def draw_gates(scores: Sequence[PairScore], path: Path) -> None:
    """Draw a heat map of the layers that each pair selects, pairs in order of their class, and their rates by class.

    Args:
        path: of the picture; its ending says the format.

    Raises:
        UsageError: no pair selected a layer (the method has none).
        ReconError: the picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ordered = sorted(scores, key=lambda score: score.category)
    layers = sorted({layer for score in ordered for layer in score.layers})
    if not layers:
        raise UsageError("--gates: this method selects no layers; dhpf does")
    seen = np.array([[layer in score.layers for layer in layers] for score in ordered])
    names = np.array([score.category for score in ordered])
    classes = list(dict.fromkeys(names))
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    whole, rates = figure.subplots(1, 2, width_ratios=(3, 2))
    whole.imshow(seen.T, aspect="auto", cmap="Blues", vmin=0, vmax=1.3, interpolation="nearest")
    whole.set_yticks(range(len(layers)), layers)
    whole.set(
        xlabel=f"pair ({', then '.join(classes)})" if len(classes) < 4 else "pair, by class", ylabel="layer"
    )
    different = len({score.layers for score in ordered})
    whole.set_title(f"selected layers: {different} different sets for {len(ordered)} pairs")
    width = 0.8 / len(classes)
    for k, category in enumerate(classes):
        of = names == category
        if k:
            whole.axvline(int(np.argmax(of)) - 0.5, color="black", linewidth=1)
        places = np.arange(len(layers)) + width * (k - (len(classes) - 1) / 2)
        rates.bar(places, seen[of].mean(0), width, label=category)
    rates.axhline(seen.mean(), color="black", linewidth=1, linestyle=":", label=f"mean {seen.mean():.2f}")
    rates.set_xticks(range(len(layers)), layers)
    rates.set(xlabel="layer", ylabel="share of pairs that select it")
    figure.legend(loc="outside right upper", fontsize="small", frameon=False)
    try:
        figure.savefig(path, dpi=110)
    except (OSError, ValueError) as error:
        raise ReconError(f"{path}: cannot be written ({error}); give --gates a .png") from error
