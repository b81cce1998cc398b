"""Networks that start from their layers, calibrated gates, the region objective, and mixed pairs."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from test_hyper_network import Tiny, images, tiny_network
from test_hyper_training import batch

from recon.cli import main
from recon.datasets.semantic import divide
from recon.errors import ReconError, UsageError
from recon.hyperpixels.backbones import create_backbone
from recon.hyperpixels.checkpoint import as_tensors, checkpoint_bytes, network_of
from recon.hyperpixels.dhpf import DynamicHyperpixelFlow
from recon.hyperpixels.losses import region_loss
from recon.hyperpixels.safetensors import unpack
from recon.hyperpixels.start import partly_learned, start_from_layers
from recon.hyperpixels.training import Trainer, TrainingSettings
from recon.training import pairs as training_pairs
from recon.training.options import TrainingOptions
from recon.training.pairs import training_data


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


@pytest.fixture(scope="module")
def willow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """WILLOW with one class: windows of one texture, so that points correspond exactly."""
    root = tmp_path_factory.mktemp("data") / "WILLOW-ObjectClass"
    (root / "Car" / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.random((160, 200, 3)).astype(np.float32), (0, 0), 3)
    whole = (255 * (noise - noise.min()) / np.ptp(noise)).astype(np.uint8)
    points = rng.uniform([60, 50], [120, 100], (10, 2))
    entries = []
    for k in range(10):
        x, y = rng.integers(0, 40, 2)
        cv2.imwrite(str(root / "Car" / "images" / f"{k}.png"), whole[y : y + 120, x : x + 160])
        entries.append({"name": f"{k}.png", "width": 160, "height": 120, "kps": (points - (x, y)).tolist()})
    (root / "Car" / "keypoints.json").write_text(json.dumps({"images": entries}))
    return root


def test_warps_show_training_images_alone(willow: Path) -> None:
    data = training_data(TrainingOptions("strong", "willow", willow, warps=True))
    keypoints = training_data(TrainingOptions("strong", "willow", willow, warps=False))
    names = divide(sorted(willow.glob("Car/images/*.png")), "trn")
    assert len(data) == len(keypoints) + len(names)
    warps = training_data(TrainingOptions("flow", "willow", willow, warps=True))
    assert len(warps) == len(names) == 5
    # The last pairs of the mixture are the warps.
    pair, alone = data.pair(len(keypoints) + 1, 2), warps.pair(1, 2)
    assert np.array_equal(pair.source, alone.source)
    assert "warps of the 5 training images" in data.described


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    state = create_backbone("mobilenetv2").state_dict()
    torch.save(
        {key.replace("features_.", "features."): value for key, value in state.items()}, tmp_path / "b.pt"
    )
    return tmp_path / "b.pt"


def test_training_and_layer_search_from_the_outside(
    willow: Path,
    backbone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(training_pairs, "SIDE", 64)
    common = ["--benchmark", "willow", "--root", str(willow), "--weights", str(backbone)]
    options = (
        "--warps --start layers --candidates 2,3,4,5 --objective region --optimiser adam --mu 0.5 --epochs 1"
    )
    assert main(["train", "dhpf", "--out", str(tmp_path / "t"), *common, *options.split()]) == 0
    network = network_of(
        *_read((tmp_path / "t" / "dhpf.safetensors").read_bytes()), "file", _loaded(backbone)
    )
    assert network.candidates == (2, 3, 4, 5)
    assert not network.gates.rectified
    rows = (tmp_path / "t" / "log.csv").read_text().splitlines()
    assert len(rows) == 1 + (20 + 5) // 8 + 1
    capsys.readouterr()
    search = "--candidates 1,3,5 --beam 2 --depth 2 --limit 2 --cell 16"
    assert main(["train", "hpf", *common, *search.split()]) == 0
    out = capsys.readouterr().out
    assert "1 layers: PCK@0.1" in out
    layers = out.strip().splitlines()[-1].removeprefix("layers=").split(",")
    assert set(layers) <= {"1", "3", "5"}


def _read(content: bytes):  # type: ignore[no-untyped-def]
    arrays, metadata = unpack(content)
    return as_tensors(arrays), metadata


def _loaded(path: Path):  # type: ignore[no-untyped-def]
    backbone = create_backbone("mobilenetv2")
    backbone.load(torch.load(path, weights_only=True), str(path))
    return backbone


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--objective best", "--objective is paper or region"),
        ("--optimiser newton", "--optimiser is sgd or adam"),
        ("--supervision flow --warps", "--warps needs --benchmark"),
        ("--supervision weak --benchmark willow --root x --warps", "have no classes"),
    ],
)
def test_wrong_options_are_said(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        arguments
        if "--benchmark" in arguments or "flow" in arguments
        else f"{arguments} --benchmark willow --root x"
    )
    assert main(["train", "dhpf", "--out", "x", *words.split()]) == 2
    assert message in capsys.readouterr().err
