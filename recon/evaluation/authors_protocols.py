"""Keypoints transferred as the authors of each network do it, so that published figures can be compared.

Sources: the releases of Hyperpixel Flow (J. Min et al., ICCV 2019) and of Dynamic Hyperpixel Flow (J. Min et al., ECCV
2020), which prepare images, place points and leave out cells differently.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from recon.hyperpixels.backbones import Backbone, normalise
from recon.hyperpixels.cells import match_cells, transfer_keypoints
from recon.hyperpixels.correlation import PairCorrelation, hyperpixels
from recon.hyperpixels.dhpf import DynamicHyperpixelFlow
from recon.hyperpixels.grid import Grid
from recon.hyperpixels.hough import hough_matching
from recon.hyperpixels.hpf import POWER

HPF_SIDE = 300
"""Hyperpixel Flow: images with a longer side than this are brought to it, their aspect kept."""

DHPF_SIDE = 240
"""Dynamic Hyperpixel Flow: both sides that images are brought to."""


class DhpfProtocol:
    """Dynamic Hyperpixel Flow's: a square by antialiased bilinear sampling, points scaled without half a pixel."""

    def __init__(self, network: DynamicHyperpixelFlow, device: str = "cpu") -> None:
        self._network, self._device = network, device

    def __call__(
        self, source: UInt8[np.ndarray, "h w 3"], target: UInt8[np.ndarray, "h w 3"], points: np.ndarray
    ) -> tuple[np.ndarray, tuple[int, ...], float]:
        """Points in the target, the layers that were selected, and seconds."""
        size = (DHPF_SIDE, DHPF_SIDE)
        images = [
            _tensor(np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BILINEAR))).to(self._device)
            for one in (source, target)
        ]
        start = time.perf_counter()
        with torch.inference_mode():
            a, b = (self._network.prepare(image) for image in images)
            chosen = self._network.select(a, b)
            there = match_cells(self._network.correlate(a, b, chosen))[0]
        seconds = time.perf_counter() - start
        scale = [DHPF_SIDE / np.array(one.shape[1::-1]) for one in (source, target)]
        moved = transfer_keypoints(there, points * scale[0], whole_cells=True)
        return moved / scale[1], chosen, seconds


class HpfProtocol:
    """Hyperpixel Flow's: images of at most ``HPF_SIDE``, a grid at the resolution of the first chosen layer.

    Cells at the margin are left out; points are moved by the cells whose receptive field of that layer holds them.

    Args:
        pruned: leave out cells whose receptive field reaches out of the image by more than a cell; the release keeps
            them on Caltech-101 alone.
    """

    def __init__(
        self, backbone: Backbone, layers: Sequence[int], device: str = "cpu", *, pruned: bool = True
    ) -> None:
        self._backbone, self._layers, self._device = backbone, tuple(sorted(set(layers))), device
        self._pruned = pruned
        self._step = backbone.layers[self._layers[0]].stride
        self._reach = receptive_side(backbone, self._layers[0]) // 2

    def __call__(
        self, source: UInt8[np.ndarray, "h w 3"], target: UInt8[np.ndarray, "h w 3"], points: np.ndarray
    ) -> tuple[np.ndarray, tuple[int, ...], float]:
        """Points in the target (NaN for a point that no cell's receptive field holds), the layers, and seconds."""
        (a, ratio_a), (b, ratio_b) = (_at_most(_tensor(one), HPF_SIDE) for one in (source, target))
        start = time.perf_counter()
        with torch.inference_mode():
            confidence, grids = self._confidence(a.to(self._device), b.to(self._device))
        kept = [self._kept(grid) for grid in grids]
        best = confidence[kept[0]][:, kept[1]].argmax(1).cpu()
        seconds = time.perf_counter() - start
        own, other = (grid.centres()[rows].numpy() for grid, rows in zip(grids, kept, strict=True))
        moved = _moved(points * ratio_a, own, other[best.numpy()], self._reach)
        return moved / ratio_b, self._layers, seconds

    def _confidence(self, a: Tensor, b: Tensor) -> tuple[Float[Tensor, "ns nt"], list[Grid]]:
        grids = [Grid(one.shape[2], one.shape[3], self._step, stretch=True) for one in (a, b)]
        described = []
        for grid, image in zip(grids, (a, b), strict=True):
            maps = self._backbone.features(image, self._layers)
            described.append(
                hyperpixels(grid, [(self._backbone.layers[n].stride, maps[n]) for n in self._layers])
            )
        votes = PairCorrelation(described[0], described[1], POWER, epsilon=0.0).full()[0]
        # Cells that are left out do not vote either.
        for axis, grid in enumerate(grids):
            votes.index_fill_(axis, (~self._kept(grid)).nonzero()[:, 0].to(votes.device), 0.0)
        return votes * hough_matching(votes, grids[0], grids[1]), grids

    def _kept(self, grid: Grid) -> Tensor:
        """True for the cells that take part."""
        centres = grid.centres()
        if not self._pruned:
            return torch.ones(len(centres), dtype=torch.bool)
        low, high = centres - self._reach + self._step, centres + self._reach - self._step
        return (low >= 0).all(1) & (high < torch.tensor([grid.width, grid.height])).all(1)


def receptive_side(backbone: Backbone, layer: int) -> int:
    """Side in pixels of what a cell of a layer sees of the image (of a transformer, the side of its patch)."""
    side, jump = 1, 1
    for number, (make, _) in enumerate(backbone.blocks()):
        if number > layer:
            break
        for name, module in make.named_modules():
            if isinstance(module, nn.Conv2d | nn.MaxPool2d) and "downsample" not in name:
                kernel, stride = (
                    value[0] if isinstance(value, tuple) else value
                    for value in (module.kernel_size, module.stride)
                )
                side += (kernel - 1) * jump
                jump *= stride
    return side


def _moved(
    points: Float[np.ndarray, "n 2"],
    own: Float[np.ndarray, "k 2"],
    other: Float[np.ndarray, "k 2"],
    reach: int,
) -> Float[np.ndarray, "n 2"]:
    """Points moved by the mean offset of the cells whose box holds them; NaN without any."""
    found = np.full(points.shape, np.nan)
    for i, point in enumerate(points):
        holds = (np.abs(point - own) <= reach).all(1)
        if holds.any():
            found[i] = point + (other[holds] - own[holds]).mean(0)
    return found


def _at_most(image: Float[Tensor, "1 3 h w"], side: int) -> tuple[Float[Tensor, "1 3 h w"], float]:
    """The image with its longer side at most ``side`` (bilinear, not antialiased), and the ratio of sizes."""
    height, width = image.shape[-2:]
    if max(height, width) <= side:
        return image, 1.0
    # In single precision, as the release: it decides how a side is rounded down.
    ratio = np.float32(side) / np.float32(max(height, width))
    size = (int(np.float32(height) * ratio), int(np.float32(width) * ratio))
    return F.interpolate(image, size, mode="bilinear", align_corners=False), float(ratio)


def _tensor(rgb: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "1 3 h w"]:
    return normalise(torch.from_numpy(np.array(rgb)).permute(2, 0, 1)[None].float() / 255)
