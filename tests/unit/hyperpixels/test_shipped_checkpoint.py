"""The checkpoint that comes with the package: found with no download, no data folder and no cache of weights."""

from __future__ import annotations

import socket
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from recon.api import stages
from recon.cli import main
from recon.engine.recipe import load_recipe
from recon.hyperpixels.safetensors import unpack
from recon.matching.hyperpixel_weights import SHIPPED, load_backbone, load_network
from recon.matching.registry import create_matcher

FILE = SHIPPED / "dhpf-mobilenetv2.safetensors"


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the package: no RECON_DATA, an empty cache, and a network that refuses."""

    def refuse(*_: object) -> None:
        raise AssertionError("something asked for the network")

    monkeypatch.delenv("RECON_DATA", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(socket.socket, "connect", refuse)


def texture(seed: int) -> np.ndarray:
    noise = cv2.GaussianBlur(np.random.default_rng(seed).random((150, 190, 3)).astype(np.float32), (0, 0), 3)
    return (255 * (noise - noise.min()) / np.ptp(noise)).astype(np.uint8)


def test_match_needs_the_package_alone(tmp_path: Path) -> None:
    whole = texture(0)
    for name, (y, x) in (("a", (4, 6)), ("b", (12, 18))):
        cv2.imwrite(str(tmp_path / f"{name}.png"), whole[y : y + 128, x : x + 160])
    files = [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert main(["match", *files, "--out", str(tmp_path / "m"), "--matcher", "dhpf"]) == 0
    flow = np.load(next((tmp_path / "m").glob("*flow*.npy")))
    # B's window lies (12, 8) further to the right and down.
    error = np.linalg.norm(flow[24:-24, 24:-24] - np.array([-12, -8]), axis=-1)
    assert np.median(error) < 1


@pytest.mark.parametrize("recipe", ["dhpf", "dhpf-siftflow", "hpf"])
def test_recipes_need_the_package_alone(recipe: str) -> None:
    chosen = load_recipe(recipe, stages()).settings["match"].matcher  # type: ignore[attr-defined]
    assert chosen == recipe
    assert create_matcher(chosen) is not None


def test_it_is_small_and_says_what_it_learned_from() -> None:
    assert FILE.stat().st_size < 8_000_000
    _, metadata = unpack(FILE.read_bytes())
    assert metadata["backbone"] == "mobilenetv2"
    assert "WILLOW-ObjectClass (Car, Duck)" in metadata["trained_on"]
    assert 0 < float(metadata["mu"]) < 1


def test_its_backbone_serves_hpf_too() -> None:
    image = torch.randn(1, 3, 64, 80, generator=torch.Generator().manual_seed(0))
    one, other = load_backbone("mobilenetv2"), load_network("", "").backbone
    assert torch.equal(one.features(image)[16], other.features(image)[16])


def test_half_precision_leaves_the_backbone_as_it_was(shared_data: Path) -> None:
    """Against the published single precision weights, where they are at hand."""
    weights = shared_data / "weights" / "mobilenetv2_imagenet_bottleneck.pt"
    if not weights.is_file():
        pytest.skip(f"{weights} is not there")
    image = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    half, single = load_backbone("mobilenetv2"), load_backbone("mobilenetv2", str(weights))
    a, b = half.features(image)[13], single.features(image)[13]
    assert float((a - b).norm() / b.norm()) < 0.01


def test_different_pairs_select_different_layers(shared_data: Path) -> None:
    """And about mu of the candidates on WILLOW's validation pairs."""
    from recon.datasets.semantic import load_pairs
    from recon.evaluation.semantic_benchmark import read_image, square_tensor

    root = shared_data / "datasets" / "semantic_willow"
    if not root.is_dir():
        pytest.skip(f"{root} is not there")
    network = load_network("", "").requires_grad_(False)
    pairs = load_pairs("willow", root, "val")
    paths = {path for pair in pairs for path in (pair.source, pair.target)}
    known = {path: network.prepare(square_tensor(read_image(path))) for path in paths}
    chosen = [network.select(known[pair.source], known[pair.target]) for pair in pairs]
    rate = np.mean([len(one) for one in chosen]) / len(network.candidates)
    mu = float(unpack(FILE.read_bytes())[1]["mu"])
    assert abs(rate - mu) <= 0.05
    assert len(set(chosen)) >= 5
