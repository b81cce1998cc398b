"""A small backbone of one's own, networks on it, and pairs that they can learn from."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from recon.hyperpixels.backbones import Backbone, Layer
from recon.hyperpixels.dhpf import DynamicHyperpixelFlow
from recon.hyperpixels.training import TrainingPair


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors here are tiny: threads would cost more than they gain, most on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Tiny(Backbone):
    """A backbone of one's own is one class: three layers of strides 2, 4 and 8."""

    name = "tiny"
    layers = (Layer("a", 8, 2), Layer("b", 16, 4), Layer("c", 16, 8))
    published = ()
    reduction = 2

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.made = nn.ModuleList(
            nn.Conv2d(i, o, 3, 2, 1, bias=False) for i, o in ((3, 8), (8, 16), (16, 16))
        )
        for conv in self.made:
            conv.weight.data = torch.randn(conv.weight.shape, generator=generator) * 0.3
        self._freeze()

    def blocks(self):  # type: ignore[no-untyped-def]
        for conv in self.made:
            yield conv, nn.ReLU()


def tiny_network(**more: object) -> DynamicHyperpixelFlow:
    torch.manual_seed(1)
    network = DynamicHyperpixelFlow(Tiny(), **more)  # type: ignore[arg-type]
    return network.eval()


def images(count: int = 1, size: tuple[int, int] = (32, 40), seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def batch(count: int = 4, seed: int = 0) -> list[TrainingPair]:
    """Textures and their shifted copies, with points that correspond."""
    rng = np.random.default_rng(seed)
    pairs = []
    for k in range(count):
        whole = cv2.GaussianBlur(rng.random((56, 64, 3)).astype(np.float32), (0, 0), 2)
        whole = (255 * (whole - whole.min()) / np.ptp(whole)).astype(np.uint8)
        a, b = whole[8:40, 8:48].copy(), whole[4:36, 14:54].copy()
        points = rng.uniform([8, 2], [38, 26], (12, 2))
        pairs.append(TrainingPair(a, b, points, points + np.array([-6, 4]), f"class {k % 2}"))
    return pairs
