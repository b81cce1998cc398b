"""Hyperpixel Flow: one fixed set of layers for all pairs, found by beam search.

Source: J. Min, J. Lee, J. Ponce, M. Cho, "Hyperpixel Flow: Semantic Correspondence with Multi-layer Neural Features",
ICCV 2019. Layers are used as the backbone gives them; the cosine is cubed.

Where the release puts the grid at the resolution of the first chosen layer and leaves out cells whose receptive field
crosses the border, we keep the step that is asked for and all cells, since a dense field needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from recon.errors import UsageError
from recon.hyperpixels.backbones import Backbone
from recon.hyperpixels.correlation import PairCorrelation, hyperpixels
from recon.hyperpixels.dhpf import ImageFeatures
from recon.hyperpixels.grid import Grid

POWER = 3
"""Exponent of the cosine (the release's)."""

DEFAULT_LAYERS: dict[str, tuple[int, ...]] = {
    "resnet50": (2, 7, 11, 12, 13),
    "resnet101": (2, 17, 21, 22, 25, 26, 28),
    "mobilenetv2": (7, 13, 14, 15, 16),
    "efficientnet-lite0": (9, 10, 11, 15),
    "dinov2-vits14": (8, 9, 10, 11),
}
"""Layers by backbone: those of the HPF paper for PF-PASCAL (table 1); for MobileNetV2 some of its middle, which are a
start: ``beam_search`` finds better ones for given photos; for EfficientNet-Lite0 the best set of several layers that it
found on WILLOW's validation pairs; for DINOv2 its last third, not measured here."""

DEFAULT_LAYER: dict[str, int] = {
    "resnet50": 13,
    "resnet101": 30,
    "mobilenetv2": 13,
    "efficientnet-lite0": 11,
    "dinov2-vits14": 11,
}
"""A single layer by backbone, the last of stride 16: what a plain nearest neighbour search compares."""


class HyperpixelFlow:
    """A frozen backbone with fixed layers.

    Args:
        layers: numbers of layers of the backbone.

    Raises:
        UsageError: a layer does not exist, or there is none.
    """

    def __init__(self, backbone: Backbone, layers: Sequence[int], *, stretch: bool = False) -> None:
        count = len(backbone.layers)
        self.layers = tuple(sorted(set(layers)))
        if not self.layers or self.layers[0] < 0 or self.layers[-1] >= count:
            asked = ", ".join(map(str, layers)) or "none"
            raise UsageError(f"{backbone.name} has layers 0 to {count - 1}; these were asked for: {asked}")
        self.backbone = backbone
        self.stretch = stretch

    def prepare(self, image: Float[Tensor, "1 3 h w"], step: int = 4) -> ImageFeatures:
        """The chosen layers of one normalised image; the backbone stops after the last of them."""
        grid = Grid(image.shape[2], image.shape[3], step, self.stretch)
        return ImageFeatures(grid, self.backbone.features(image, self.layers))

    def correlate(
        self, source: ImageFeatures, target: ImageFeatures, layers: Sequence[int] | None = None
    ) -> PairCorrelation:
        """Correlation of a pair on the chosen layers, or on some of them."""
        chosen = self.layers if layers is None else layers
        described = [
            hyperpixels(
                one.grid, [(self.backbone.layers[number].stride, one.maps[number]) for number in chosen]
            )
            for one in (source, target)
        ]
        return PairCorrelation(described[0], described[1], POWER)


@dataclass(frozen=True)
class BeamStep:
    """The best sets of one size: (score, layers), best first."""

    kept: tuple[tuple[float, tuple[int, ...]], ...]


@dataclass(frozen=True)
class BeamResult:
    """Outcome of ``beam_search``: the best layers and their score, and what was kept at each depth."""

    layers: tuple[int, ...]
    score: float
    steps: tuple[BeamStep, ...]


def beam_search(
    score: Callable[[tuple[int, ...]], float],
    candidates: Iterable[int],
    *,
    beam: int = 4,
    depth: int = 8,
    base: Sequence[int] | None = None,
) -> BeamResult:
    """Search for the set of layers with the highest score, as the paper does (section 4.2).

    Starts with single base layers; each round adds one deeper layer than the shallowest to each of the ``beam`` best
    sets. Equal scores go to the smaller, then shallower set.

    Args:
        score: of a sorted set of layers, e.g. the PCK on validation pairs; higher is better.
        candidates: layers that may be added.
        beam: sets that are kept per size.
        depth: largest number of layers.
        base: layers to start from; None for the first ``beam`` candidates.

    Raises:
        UsageError: there is no candidate.
    """
    all_layers = sorted(set(candidates))
    starts = all_layers[:beam] if base is None else sorted(set(base))
    if not all_layers or not starts:
        raise UsageError("beam search needs at least one candidate layer")
    known: dict[tuple[int, ...], float] = {}

    def ranked(sets: Iterable[tuple[int, ...]]) -> tuple[tuple[float, tuple[int, ...]], ...]:
        for one in sets:
            if one not in known:
                known[one] = float(score(one))
        return tuple(sorted(((known[s], s) for s in sets), key=lambda entry: (-entry[0], entry[1]))[:beam])

    kept = ranked([(layer,) for layer in starts])
    steps = [BeamStep(kept)]
    for _ in range(1, depth):
        grown = {
            tuple(sorted((*layers, extra)))
            for _, layers in kept
            for extra in all_layers
            if extra not in layers and extra > layers[0]
        }
        if not grown:
            break
        kept = ranked(sorted(grown))
        steps.append(BeamStep(kept))
    best = min((entry for step in steps for entry in step.kept), key=lambda e: (-e[0], len(e[1]), e[1]))
    return BeamResult(best[1], best[0], tuple(steps))
