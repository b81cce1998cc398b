"""Dynamic Hyperpixel Flow: which layers describe a pair is decided by the pair itself.

Source: J. Min, J. Lee, J. Ponce, M. Cho, "Learning to Compose Hypercolumns for Visual Correspondence", ECCV 2020.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from recon.errors import UsageError
from recon.hyperpixels.backbones import Backbone
from recon.hyperpixels.correlation import Hyperpixels, PairCorrelation, hyperpixels
from recon.hyperpixels.gating import LayerGates, open_gates
from recon.hyperpixels.grid import Grid
from recon.hyperpixels.hough import hough_matching


class ImageFeatures:
    """Features that all pairs of one image share: the backbone's layers, and transforms of selected ones.

    Attributes:
        grid: the cells that layers are brought to.
        maps: output of each layer, by its number.
        pooled: its mean over the image.
    """

    def __init__(self, grid: Grid, maps: dict[int, Tensor]) -> None:
        self.grid = grid
        self.maps = maps
        self.pooled = {number: one.mean((2, 3)) for number, one in maps.items()}
        self._transformed: dict[int, Tensor] = {}
        self._lock = threading.Lock()

    def transformed(self, gates: LayerGates, layer: int) -> Tensor:
        """A layer's transform, computed when a pair first selects it."""
        with self._lock:
            if layer not in self._transformed:
                self._transformed[layer] = gates.transform(layer, self.maps[layer])
            return self._transformed[layer]


@dataclass(frozen=True)
class PairOutput:
    """Output of the network for a batch of pairs in training.

    Attributes:
        correlation: matching confidence of all cells.
        selection: 1 for selected layers, 0 for others, with the gates' gradient.
    """

    correlation: Float[Tensor, "b ns nt"]
    selection: Float[Tensor, "b layers"]


class DynamicHyperpixelFlow(nn.Module):
    """The network: a frozen backbone, and a gate and a transform for each of its layers.

    Args:
        backbone: with its weights.
        candidates: layers that may be selected; None for all. The backbone stops after the last of them.
        stretch: of the grids that ``grid`` makes (see ``Grid``).
        rectified: transforms end with a ReLU (see ``LayerGates``).
    """

    def __init__(
        self,
        backbone: Backbone,
        candidates: Sequence[int] | None = None,
        *,
        stretch: bool = False,
        rectified: bool = True,
    ) -> None:
        super().__init__()
        count = len(backbone.layers)
        self.candidates = tuple(range(count)) if candidates is None else tuple(sorted(set(candidates)))
        if not self.candidates or self.candidates[0] < 0 or self.candidates[-1] >= count:
            raise UsageError(
                f"{backbone.name} has layers 0 to {count - 1}; these were asked for: "
                f"{', '.join(map(str, self.candidates)) or 'none'}"
            )
        self.backbone = backbone
        self.stretch = stretch
        self.gates = LayerGates(
            [one.channels for one in backbone.layers], backbone.transformed_channels(), rectified=rectified
        )

    def grid(self, height: int, width: int, step: int = 4) -> Grid:
        """The cells of an image of this size."""
        return Grid(height, width, step, self.stretch)

    def prepare(self, image: Float[Tensor, "1 3 h w"], step: int = 4) -> ImageFeatures:
        """The features of one normalised image."""
        # Layer 0 stands in where no layer is selected.
        maps = self.backbone.features(image, {0, *self.candidates})
        return ImageFeatures(self.grid(image.shape[2], image.shape[3], step), maps)

    def select(self, source: ImageFeatures, target: ImageFeatures) -> tuple[int, ...]:
        """The layers whose gates open for this pair, without noise; layer 0 if none does."""
        chosen = []
        for layer in self.candidates:
            logits = self.gates.relevance(layer, source.pooled[layer], target.pooled[layer])
            if bool(logits[0, 1] > logits[0, 0]):
                chosen.append(layer)
        return tuple(chosen) or (0,)

    def describe(self, image: ImageFeatures, layers: Sequence[int], grid: Grid | None = None) -> Hyperpixels:
        """An image's hyperpixels of these layers; no other layer is transformed."""
        strides = self.backbone.layers
        return hyperpixels(
            grid or image.grid,
            [(strides[layer].stride, image.transformed(self.gates, layer)) for layer in layers],
        )

    def correlate(
        self, source: ImageFeatures, target: ImageFeatures, layers: Sequence[int] | None = None
    ) -> PairCorrelation:
        """Correlation of a pair on the layers that it selects (or on the given ones)."""
        chosen = self.select(source, target) if layers is None else layers
        return PairCorrelation(self.describe(source, chosen), self.describe(target, chosen))

    def forward(
        self,
        source: Float[Tensor, "b 3 h w"],
        target: Float[Tensor, "b 3 h w"],
        noise: Float[Tensor, "b layers 2"] | None = None,
        *,
        hard: bool = True,
        hough: bool = True,
        step: int = 4,
    ) -> PairOutput:
        """Matching confidence and layer selection of a batch of pairs, with gradients for gates and transforms.

        The geometric score is a constant factor in the backward pass, as in the release.

        Args:
            noise: Gumbel noise of every gate; None for none.
            hard: False weights layers by the gates' softmax instead of choosing.
            hough: multiply by the geometric score of regularized Hough matching.
        """
        wanted = {0, *self.candidates}
        maps_source = self.backbone.features(source, wanted)
        maps_target = self.backbone.features(target, wanted)
        pair, selection = self.correlate_features(
            self.grid(source.shape[2], source.shape[3], step),
            self.grid(target.shape[2], target.shape[3], step),
            maps_source,
            maps_target,
            noise,
            hard=hard,
        )
        correlation = pair.full()
        if hough:
            correlation = correlation * geometric_scores(pair, correlation)
        return PairOutput(correlation, selection)

    def correlate_features(
        self,
        grid_source: Grid,
        grid_target: Grid,
        source: dict[int, Tensor],
        target: dict[int, Tensor],
        noise: Float[Tensor, "b layers 2"] | None = None,
        *,
        hard: bool = True,
    ) -> tuple[PairCorrelation, Float[Tensor, "b layers"]]:
        """Correlation of a batch whose layers are known already, and the selection, both with gradients."""
        choices = []
        for index, layer in enumerate(self.candidates):
            logits = self.gates.relevance(layer, source[layer].mean((2, 3)), target[layer].mean((2, 3)))
            choices.append(open_gates(logits, None if noise is None else noise[:, index], hard=hard))
        selection = torch.stack(choices, 1)
        weights = list(selection.unbind(1))
        layers = list(self.candidates)
        if hard:
            none = (selection.detach().round().sum(1) == 0).to(selection.dtype)
            if bool(none.any()):
                if 0 in layers:
                    weights[layers.index(0)] = weights[layers.index(0)] + none
                else:
                    layers.append(0)
                    weights.append(none)
        described = []
        for grid, maps in ((grid_source, source), (grid_target, target)):
            parts = [
                (self.backbone.layers[layer].stride, self.gates.transform(layer, maps[layer]))
                for layer in layers
            ]
            described.append(hyperpixels(grid, parts, weights))
        return PairCorrelation(described[0], described[1]), selection


@torch.no_grad()
def geometric_scores(
    pair: PairCorrelation, correlation: Float[Tensor, "b ns nt"]
) -> Float[Tensor, "b ns nt"]:
    """Scores of regularized Hough matching of a batch, without gradients."""
    grids = pair.source.grid, pair.target.grid
    return torch.stack([hough_matching(one, *grids) for one in correlation.detach()])
