"""Transforms that leave layers as they are: a network that matches as its backbone does before it has learned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from recon.errors import UsageError
from recon.hyperpixels.dhpf import DynamicHyperpixelFlow


@torch.no_grad()
def start_from_layers(network: DynamicHyperpixelFlow, images: Iterable[Float[Tensor, "1 3 h w"]]) -> None:
    """Set the transforms so that each takes the mean out of its layer and else keeps it.

    A transform with as many channels as its layer becomes the identity, one with fewer the projection on the layer's
    principal components over the images. The normalisation's statistics are the images' mean and 1, so that layers keep
    their weights relative to each other.

    Args:
        images: normalised; some tens are enough.

    Raises:
        UsageError: there is no image, or transforms end with a ReLU, which loses the layer's signs.
    """
    if network.gates.rectified:
        raise UsageError("transforms that end with a ReLU cannot start from the layers")
    count = 0
    sums: dict[int, Tensor] = {}
    squares: dict[int, Tensor] = {}
    values: dict[int, int] = {}
    for image in images:
        count += 1
        for layer, maps in network.backbone.features(image).items():
            flat = maps[0].flatten(1).double()
            sums[layer] = sums.get(layer, 0) + flat.sum(1)
            squares[layer] = squares.get(layer, 0) + flat @ flat.T
            values[layer] = values.get(layer, 0) + flat.shape[1]
    if count == 0:
        raise UsageError("transforms cannot start from the layers of no image")
    for layer, module in enumerate(network.gates.reduction_ffns):
        convolution, norm = (cast(nn.Sequential, module)[k] for k in range(2))
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        running_mean, running_var = norm.running_mean, norm.running_var
        assert running_mean is not None
        assert running_var is not None
        mean = sums[layer] / values[layer]
        kept, given = convolution.weight.shape[:2]
        if kept == given:
            projection = torch.eye(given, dtype=torch.float64, device=mean.device)
        else:
            covariance = squares[layer] / values[layer] - torch.outer(mean, mean)
            projection = torch.linalg.eigh(covariance)[1].flip(1)[:, :kept].T
        convolution.weight.copy_(projection[:, :, None, None])
        running_mean.copy_(projection @ mean)
        running_var.fill_(1 - norm.eps)
        norm.weight.fill_(1)
        norm.bias.zero_()


@contextmanager
def partly_learned(
    network: DynamicHyperpixelFlow, origin: Mapping[str, Tensor], share: float
) -> Iterator[None]:
    """Within, the transforms are between where they began and what was learned; after, what was learned again.

    Between the two, networks keep more of what they could do before (Wortsman et al., "Robust fine-tuning of zero-shot
    models", CVPR 2022). Gates are left as they were learned.

    Args:
        origin: ``network.gates.reduction_ffns.state_dict()`` from before training, copied.
        share: 1 for all that was learned, 0 for nothing.
    """
    transforms = network.gates.reduction_ffns
    learned = {key: value.clone() for key, value in transforms.state_dict().items()}
    mixed = {
        key: torch.lerp(origin[key].to(value), value, share) if value.is_floating_point() else value
        for key, value in learned.items()
    }
    transforms.load_state_dict(mixed)
    try:
        yield
    finally:
        transforms.load_state_dict(learned)
