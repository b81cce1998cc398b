"""Networks that start from their layers, calibrated gates, the region objective, and mixed pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from recon.errors import ReconError, UsageError
from recon.hyperpixels.backbones import create_backbone
from recon.hyperpixels.checkpoint import as_tensors, checkpoint_bytes, network_of
from recon.hyperpixels.dhpf import DynamicHyperpixelFlow
from recon.hyperpixels.losses import region_loss
from recon.hyperpixels.safetensors import unpack
from recon.hyperpixels.start import partly_learned, start_from_layers
from recon.hyperpixels.training import Trainer, TrainingSettings
from tests.support.hyper_networks import Tiny, batch, images, tiny_network


class Whole(Tiny):
    """Transforms keep all channels."""

    reduction = 1


def test_transforms_start_as_the_layers_without_their_mean() -> None:
    network = DynamicHyperpixelFlow(Whole(), rectified=False).eval()
    seen = [images(seed=k) for k in range(3)]
    start_from_layers(network, seen)
    maps = [network.backbone.features(image) for image in seen]
    for layer in range(3):
        mean = torch.cat([m[layer].flatten(2) for m in maps], 2).mean((0, 2)).view(1, -1, 1, 1)
        found = network.gates.transform(layer, maps[0][layer])
        assert torch.allclose(found, maps[0][layer] - mean, atol=1e-4)
    # Statistics stay as they were set while the network trains.
    before = network.gates.transform(0, maps[0][0])
    network.train()
    assert torch.equal(network.gates.transform(0, maps[0][0]), before)


def test_a_part_of_what_was_learned_lies_between_start_and_end() -> None:
    network = DynamicHyperpixelFlow(Whole(), rectified=False).eval()
    start_from_layers(network, [images()])
    origin = {key: value.clone() for key, value in network.gates.reduction_ffns.state_dict().items()}
    maps = network.backbone.features(images(seed=1))[1]
    first = network.gates.transform(1, maps)
    with torch.no_grad():
        for parameter in network.gates.reduction_ffns.parameters():
            parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    last = network.gates.transform(1, maps)
    for share, expected in ((0.0, first), (1.0, last)):
        with partly_learned(network, origin, share):
            torch.testing.assert_close(network.gates.transform(1, maps), expected)
    convolution = network.gates.reduction_ffns[1][0].weight  # type: ignore[index]
    learned = convolution.clone()
    with partly_learned(network, origin, 0.25):
        torch.testing.assert_close(convolution, 0.75 * origin["1.0.weight"] + 0.25 * learned)
    assert torch.equal(network.gates.transform(1, maps), last)


def test_narrow_transforms_start_as_principal_components() -> None:
    network = DynamicHyperpixelFlow(Tiny(), rectified=False).eval()
    image = images(size=(64, 64))
    start_from_layers(network, [image])
    maps = network.backbone.features(image)[1]
    found = network.gates.transform(1, maps).detach()[0].flatten(1)
    covariance = np.cov(found.numpy(), bias=True)
    expected = np.linalg.eigvalsh(np.cov(maps[0].flatten(1).numpy(), bias=True))[::-1][:8]
    assert np.allclose(np.diag(covariance), expected, rtol=1e-3)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-3 * expected[0]


def test_a_start_from_layers_needs_images_and_linear_transforms() -> None:
    with pytest.raises(UsageError, match="ReLU"):
        start_from_layers(tiny_network(), [images()])
    with pytest.raises(UsageError, match="no image"):
        start_from_layers(tiny_network(rectified=False), [])


def test_calibrated_gates_open_for_the_rate() -> None:
    network = tiny_network(rectified=False)
    trainer = Trainer(network, TrainingSettings(rate=0.75))
    pairs = batch(12)
    trainer.calibrate(pairs)
    rate = np.mean([trainer.validate([pair]).rate for pair in pairs])
    assert rate == pytest.approx(0.75, abs=0.05)
    trainer.step(pairs[:2])
    assert not network.gates.thresholds.any()


def test_thresholds_and_kind_of_transform_are_in_the_checkpoint() -> None:
    network = DynamicHyperpixelFlow(create_backbone("mobilenetv2"), (7, 13), rectified=False).eval()
    network.gates.thresholds[13] = 0.625
    content = checkpoint_bytes(network, with_backbone=True)
    arrays, metadata = unpack(content)
    again = network_of(as_tensors(arrays), metadata, "file")
    assert not again.gates.rectified
    assert again.gates.thresholds.tolist() == network.gates.thresholds.tolist()
    with pytest.raises(ReconError, match="thresholds is damaged"):
        network_of(as_tensors(arrays), {**metadata, "thresholds": "1,x"}, "file")


def test_region_loss_is_the_share_near_the_truth() -> None:
    rng = np.random.default_rng(0)
    rows, near = rng.random((3, 9)), rng.random((3, 9))
    expected = 0.0
    for row, weight in zip(rows, near, strict=True):
        z = np.exp((row - row.mean()) / row.std(ddof=1))
        expected -= math.log((z / z.sum() * weight).sum() + 1e-6) / 3
    found = region_loss([torch.from_numpy(rows)], [torch.from_numpy(near)])
    assert float(found) == pytest.approx(expected, rel=1e-6)
    # Pairs without points count as 0.
    both = [torch.from_numpy(rows), torch.zeros(0, 9, dtype=torch.float64)]
    assert float(region_loss(both, [torch.from_numpy(near), both[1]])) == pytest.approx(
        expected / 2, rel=1e-6
    )


def test_adam_goes_on_to_the_same_losses() -> None:
    settings = TrainingSettings("flow", objective="region", optimiser="adam", learning_rate=1e-3, cell=8)
    whole = Trainer(tiny_network(rectified=False), settings)
    losses = [whole.step(batch(seed=k)).loss for k in range(6)]
    first = Trainer(tiny_network(rectified=False), settings)
    assert [first.step(batch(seed=k)).loss for k in range(3)] == losses[:3]
    second = Trainer(tiny_network(rectified=False), settings)
    second.load_state(first.state())
    assert [second.step(batch(seed=k)).loss for k in range(3, 6)] == losses[3:]
