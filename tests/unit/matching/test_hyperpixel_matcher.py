from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
import torch

from recon.errors import ReconError, UsageError
from recon.hyperpixels.backbones import create_backbone
from recon.hyperpixels.checkpoint import checkpoint_bytes
from recon.hyperpixels.dhpf import DynamicHyperpixelFlow
from recon.matching import hyperpixel_weights
from recon.matching.hyperpixel_matcher import working_sizes
from recon.matching.registry import create_matcher
from recon.matching.types import Matcher, MatchImage
from tests.support.matcher_contract import DenseMatcherContract, run, textured
from tests.support.servers import Server


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in files of the layouts that are read: matching of like textures needs no training."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    backbone = create_backbone("mobilenetv2")
    names = {key: key.replace("features_.", "features.") for key in backbone.state_dict()}
    torch.save({names[k]: v for k, v in backbone.state_dict().items()}, folder / "backbone.pt")
    network = DynamicHyperpixelFlow(backbone)
    with torch.no_grad():
        # Open the gates of every layer up to stride 8.
        for number, gate in enumerate(network.gates.gumbel_ffns):
            gate[1].bias.fill_(1.0)
            gate[3].weight[1 if number < 7 else 0] = 1.0
            gate[3].weight[0 if number < 7 else 1] = -1.0
    (folder / "dhpf.safetensors").write_bytes(checkpoint_bytes(network.eval(), with_backbone=True))
    return folder


class _WithFiles(DenseMatcherContract):
    """The contract with settings that name files made for the test."""

    files: ClassVar[dict[str, str]]
    more: ClassVar[dict[str, Any]] = {}

    @pytest.fixture(autouse=True)
    def _settings(self, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        given = {key: str(files / name) for key, name in self.files.items()}
        monkeypatch.setattr(type(self), "settings", {**given, **self.more})

    @pytest.fixture
    def under_test(self, _settings: None) -> Matcher:
        return create_matcher(self.matcher, **self.settings)


class TestDhpf(_WithFiles):
    matcher = "dhpf"
    files = {"checkpoint": "dhpf.safetensors"}  # noqa: RUF012


class TestHpf(_WithFiles):
    matcher = "hpf"
    files = {"weights": "backbone.pt"}  # noqa: RUF012
    more = {"layers": "3,6"}  # noqa: RUF012


class TestDhpfSiftFlow(_WithFiles):
    matcher = "dhpf-siftflow"
    files = {"checkpoint": "dhpf.safetensors"}  # noqa: RUF012


def test_translation_and_size_of_photos_may_differ(files: Path) -> None:
    """B shows A at 0.8 of its size: flow in B's pixels, also across a level of the pyramid."""
    matcher = create_matcher("hpf", weights=str(files / "backbone.pt"), layers="3,6", size=128, border=8)
    a = textured(144, 192, seed=3)
    b = cv2.resize(a, (154, 115), interpolation=cv2.INTER_AREA)
    match = run(matcher, MatchImage(a), MatchImage(b))
    y, x = np.mgrid[0:144, 0:192]
    truth = np.stack([(x + 0.5) * 154 / 192 - 0.5 - x, (y + 0.5) * 115 / 144 - 0.5 - y], -1)
    error = np.linalg.norm(match.a_to_b.flow - truth, axis=-1)[24:-24, 24:-24]
    assert np.median(error) < 0.5
    assert (error < 2).mean() > 0.95
    assert match.diagnostics is not None
    assert match.diagnostics.notes["layers"] == [3, 6]


def test_sizes_halve_until_they_fit() -> None:
    assert working_sizes(640, 480, 320) == [(320, 240), (640, 480)]
    assert working_sizes(1024, 683, 320) == [(256, 171), (512, 342), (1024, 683)]
    assert working_sizes(320, 200, 320) == [(320, 200)]
    assert working_sizes(128, 96, 320) == [(160, 120)]
    assert working_sizes(10, 8, 320) == [(40, 32)]


@pytest.mark.parametrize("shape", [(40, 900), (700, 21)])
def test_extreme_shapes(files: Path, shape: tuple[int, int]) -> None:
    matcher = create_matcher("hpf", weights=str(files / "backbone.pt"), layers="3,6", subpixel=False)
    match = run(matcher, MatchImage(textured(*shape)), MatchImage(textured(64, 80)))
    assert match.a_to_b.flow.shape == (*shape, 2)
    assert np.isfinite(match.a_to_b.flow).all()


def test_what_is_missing_is_said(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECON_DATA", raising=False)
    monkeypatch.setattr(hyperpixel_weights, "SHIPPED", tmp_path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UsageError, match=r"no checkpoint of DHPF.*recon train dhpf.*'hpf'"):
        create_matcher("dhpf")
    with pytest.raises(UsageError, match=r"(?s)resnet101.*download\.pytorch\.org.*download=true"):
        create_matcher("hpf", backbone="resnet101")
    with pytest.raises(UsageError, match=r"nowhere\.pt"):
        create_matcher("dhpf", checkpoint=str(tmp_path / "nowhere.pt"))
    damaged = tmp_path / "dhpf.safetensors"
    damaged.write_bytes((files / "dhpf.safetensors").read_bytes()[:5000])
    with pytest.raises(ReconError, match=r"dhpf\.safetensors: cannot be read as weights.*cut short"):
        create_matcher("dhpf", checkpoint=str(damaged))
    other = tmp_path / "other.pt"
    other.write_bytes(b"not weights")
    with pytest.raises(ReconError, match=r"other\.pt.*damaged"):
        create_matcher("hpf", weights=str(other))
    with pytest.raises(ReconError, match=r"not the weights of resnet50.*missing"):
        create_matcher("hpf", backbone="resnet50", weights=str(files / "backbone.pt"))
    with pytest.raises(ReconError, match="made for the backbone mobilenetv2"):
        create_matcher("dhpf", checkpoint=str(files / "dhpf.safetensors"), backbone="resnet50")
    with pytest.raises(UsageError, match=r"layers 0 to 17.*99"):
        create_matcher("hpf", weights=str(files / "backbone.pt"), layers="2,99")
    with pytest.raises(UsageError, match="numbers with commas"):
        create_matcher("hpf", weights=str(files / "backbone.pt"), layers="two")
    with pytest.raises(UsageError, match="mobilenetv2"):
        create_matcher("hpf", backbone="alexnet")
    with pytest.raises(UsageError, match="device='tpu'"):
        create_matcher("hpf", device="tpu", weights=str(files / "backbone.pt"))
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="no CUDA"):
            create_matcher("hpf", device="cuda", weights=str(files / "backbone.pt"))


def test_a_download_is_held_to_its_checksum(server: Server, tmp_path: Path) -> None:
    """torch hub's file names carry the first digits of the checksum; a file with others is refused."""
    from recon.matching.weights import WeightsFile, fetch

    server.files["/published.pth"] = b"weights"
    published = f"{server.url}/published.pth"
    digest = "9b9af6945c95f1aa302a61acf75c9bd6"  # not that of the content
    with pytest.raises(ReconError, match=f"checksum.*{digest[:8]}"):
        fetch(WeightsFile("w.pth", published, digest[:8], 7), tmp_path / "hub")
    assert not (tmp_path / "hub" / "w.pth").exists()
    import hashlib

    right = hashlib.sha256(b"weights").hexdigest()[:8]
    assert fetch(WeightsFile("w.pth", published, right, 7), tmp_path / "hub").read_bytes() == b"weights"
