from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from matcher_contract import DenseMatcherContract, run, textured

from recon.errors import ReconError, UsageError
from recon.hyperpixels.backbones import create_backbone
from recon.hyperpixels.checkpoint import checkpoint_bytes
from recon.hyperpixels.dhpf import DynamicHyperpixelFlow
from recon.matching import hyperpixel_weights
from recon.matching.hyperpixel_matcher import working_sizes
from recon.matching.registry import create_matcher
from recon.matching.types import Matcher, MatchImage


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
    @pytest.fixture
    def under_test(self, files: Path) -> Matcher:
        given: dict[str, Any] = {k: str(files / v) for k, v in self.files.items()}
        return create_matcher(self.matcher, **given, **self.settings)

    files: dict[str, str] = {}  # noqa: RUF012


class TestDhpf(_WithFiles):
    matcher = "dhpf"
    files = {"checkpoint": "dhpf.safetensors"}  # noqa: RUF012


class TestHpf(_WithFiles):
    matcher = "hpf"
    files = {"weights": "backbone.pt"}  # noqa: RUF012
    settings = {"layers": "3,6"}  # noqa: RUF012


class TestDhpfSiftFlow(_WithFiles):
    matcher = "dhpf-siftflow"
    files = {"checkpoint": "dhpf.safetensors"}  # noqa: RUF012
