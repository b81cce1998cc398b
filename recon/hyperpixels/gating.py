"""Dynamic gates and feature transforms of Dynamic Hyperpixel Flow.

Source: J. Min, J. Lee, J. Ponce, M. Cho, "Learning to Compose Hypercolumns for Visual Correspondence", ECCV 2020,
sections 3.2 and 3.3. Modules carry the names of the authors' release, whose checkpoints therefore load as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

HIDDEN = 32
"""Channels of a gate's hidden layer."""

TEMPERATURE = 1.0
"""Of the softmax that stands in for the choice in the backward pass (the release's)."""

_TINY = 1e-10
"""Keeps logarithms of uniform numbers finite (the release's)."""


class LayerGates(nn.Module):
    """A gate and a feature transform for each candidate layer.

    Args:
        channels: of each candidate layer.
        transformed: channels after each layer's transform.
        rectified: a ReLU ends each transform, as the authors' do. Without, a transform can leave a layer as it is.
    """

    def __init__(
        self,
        channels: Sequence[int],
        transformed: Sequence[int],
        hidden: int = HIDDEN,
        *,
        rectified: bool = True,
    ) -> None:
        super().__init__()
        self.rectified = rectified
        self.reduction_ffns = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(c, t, 1, bias=False), nn.BatchNorm2d(t), nn.ReLU() if rectified else nn.Identity()
            )
            for c, t in zip(channels, transformed, strict=True)
        )
        self.gumbel_ffns = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(c, hidden, 1, bias=False),
                nn.BatchNorm2d(hidden),
                nn.ReLU(),
                nn.Conv2d(hidden, 2, 1, bias=False),
            )
            for c in channels
        )
        # What the open gate's logit must exceed the closed one's by; 0 in training and in the authors' checkpoints.
        self.thresholds: Tensor
        self.register_buffer("thresholds", torch.zeros(len(channels)), persistent=False)

    def train(self, mode: bool = True) -> LayerGates:
        """As in torch, but transforms without a ReLU keep the statistics that they started from."""
        super().train(mode)
        if not self.rectified:
            self.reduction_ffns.eval()
        return self

    def relevance(
        self, layer: int, pooled_source: Float[Tensor, "b c"], pooled_target: Float[Tensor, "b c"]
    ) -> Float[Tensor, "b 2"]:
        """Logits (closed, open) of a layer's gate, from the mean features of both images."""
        out: Tensor = self.gumbel_ffns[layer]((pooled_source + pooled_target)[:, :, None, None])
        return out[:, :, 0, 0] - self.thresholds[layer] * torch.tensor([0.0, 1.0], device=out.device)

    def transform(self, layer: int, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b t h w"]:
        """A layer after its 1×1 convolution, normalisation and, if rectified, ReLU."""
        return cast(Tensor, self.reduction_ffns[layer](features))


def gumbel_noise(
    shape: tuple[int, ...], generator: torch.Generator | None = None, device: torch.device | str = "cpu"
) -> Tensor:
    """Samples of the standard Gumbel distribution; drawn on the CPU, so that a seed means the same everywhere."""
    uniform = torch.rand(shape, generator=generator)
    return -torch.log(_TINY - torch.log(uniform + _TINY)).to(device)


def open_gates(
    relevance: Float[Tensor, "b 2"], noise: Float[Tensor, "b 2"] | None = None, *, hard: bool = True
) -> Float[Tensor, " b"]:
    """1 for an open gate, 0 for a closed one; backward, the gradient of the softmax (straight through).

    Args:
        relevance: logits.
        noise: Gumbel noise, added in training (Gumbel-max trick).
        hard: False gives the softmax itself, the relaxed choice.
    """
    logits = relevance if noise is None else relevance + noise
    soft = torch.softmax(logits / TEMPERATURE, 1)[:, 1]
    if not hard:
        return soft
    # Ties stay closed, as the release's argmax has it.
    chosen = (logits[:, 1] > logits[:, 0]).to(soft.dtype)
    return soft + (chosen - soft).detach()
