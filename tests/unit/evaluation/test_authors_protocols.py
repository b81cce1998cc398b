"""The protocols of the releases, against plain twins."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from recon.evaluation.authors_protocols import DhpfProtocol, HpfProtocol, receptive_side
from recon.evaluation.semantic import reference_length
from recon.hyperpixels.backbones import create_backbone, normalise

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "hyperpixels"))
from tests.support.hyper_networks import Tiny, tiny_network


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors here are small: threads would cost more than they gain, most on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def texture(seed: int, width: int, height: int) -> np.ndarray:
    noise = np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return (255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)


def images() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    whole = texture(0, 430, 260)
    points = np.array([[60.0, 50.0], [150.5, 90.25], [2.0, 3.0], [290.0, 190.0], [-40.0, 10.0]])
    return whole[20:220, 10:340], whole[40:250, 40:345], points


def test_receptive_fields_are_those_of_the_release() -> None:
    resnet = create_backbone("resnet50")
    found = [receptive_side(resnet, layer) for layer in range(10)]
    assert found == [11, 19, 27, 35, 43, 59, 75, 91, 107, 139]


def hpf_by_hand(source: np.ndarray, target: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Hyperpixel Flow's evaluation step by step on the tiny backbone's layers 1 and 2 (4 px apart, fields of 7 px)."""
    backbone, boxes, features, sizes, ratios = Tiny(), [], [], [], []
    for rgb in (source, target):
        tensor = normalise(torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float() / 255)
        height, width = rgb.shape[:2]
        ratio = min(1.0, 300 / max(height, width))
        if ratio < 1:
            small = (int(height * ratio), int(width * ratio))
            tensor = torch.nn.functional.interpolate(tensor, small, mode="bilinear", align_corners=False)
        maps = backbone.features(tensor, {1, 2})
        rows, columns = maps[1].shape[-2:]
        upper = torch.nn.functional.interpolate(maps[2], (rows, columns), mode="bilinear", align_corners=True)
        hyper = torch.cat([maps[1], upper], 1)[0].flatten(1).T.double().numpy()
        at = 4.0 * np.stack([np.arange(rows * columns) % columns, np.arange(rows * columns) // columns], 1)
        box = np.concatenate([at - 3, at + 3], 1)
        h, w = tensor.shape[-2:]
        good = (box[:, :2] >= -4).all(1) & (box[:, 2] < w + 4) & (box[:, 3] < h + 4)
        boxes.append(box[good])
        features.append(hyper[good])
        sizes.append((w, h))
        ratios.append(ratio)
    a, b = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in features)
    votes = np.maximum(a @ b.T, 0) ** 3
    space = np.array(sizes[0]) + np.array(sizes[1])
    side = math.sqrt(space.prod() / 8192)
    bins = (space / side).astype(int) + 1
    here, there = boxes[0][:, :2] + 3, boxes[1][:, :2] + 3
    x, y = (((sizes[0][k] - here[:, None, k] + there[None, :, k]) / side).astype(int) for k in (0, 1))
    table = np.zeros((bins[1], bins[0]))
    np.add.at(table, (y, x), votes)
    line = np.exp(-((np.arange(7) - 3) ** 2) / (2 * (7 / 2 / 2.354) ** 2))
    kernel = np.outer(line, line) / line.sum() ** 2
    table = cv2.filter2D(table, -1, kernel, borderType=cv2.BORDER_CONSTANT)
    best = (votes * table[y, x]).argmax(1)
    out = []
    for point in points * ratios[0]:
        holds = (boxes[0][:, :2] <= point).all(1) & (point <= boxes[0][:, 2:]).all(1)
        out.append((point + there[best][holds] - here[holds]).mean(0) if holds.any() else np.full(2, np.nan))
    return np.array(out) / ratios[1]


def test_hpf_is_that_of_its_release() -> None:
    source, target, points = images()
    found, layers, _ = HpfProtocol(Tiny(), (2, 1))(source, target, points)
    assert layers == (1, 2)
    expected = hpf_by_hand(source, target, points)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert np.isnan(found[-1]).all()  # no receptive field holds it
    assert np.isfinite(found[:-1]).all()


def test_dhpf_is_that_of_its_release() -> None:
    """A square by Pillow's bilinear filter, the mutual filter, whole cells, points scaled without half a pixel."""
    source, target, points = images()
    points = points[:-1]
    network = tiny_network(stretch=True)
    found, layers, _ = DhpfProtocol(network)(source, target, points)
    squares = [Image.fromarray(one).resize((240, 240), Image.Resampling.BILINEAR) for one in (source, target)]
    tensors = [
        normalise(torch.from_numpy(np.array(one)).permute(2, 0, 1)[None].float() / 255) for one in squares
    ]
    with torch.no_grad():
        c = network(*tensors).correlation[0].numpy()
    own, other = (np.maximum(c.max(axis, keepdims=True), 1e-30) for axis in (1, 0))
    best = (c * (c / own) * (c / other)).argmax(1)
    at = 4.0 * np.stack([np.arange(3600) % 60, np.arange(3600) // 60], 1)
    expected = []
    for point in points * (240 / source.shape[1], 240 / source.shape[0]):
        near = (np.abs(at - point) <= 5).all(1)
        expected.append((point + at[best[near]] - at[near]).mean(0))
    expected = np.array(expected) / (240 / target.shape[1], 240 / target.shape[0])
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert layers


def test_the_padded_box_reaches_beyond_the_image() -> None:
    """DHPF's lists are padded to 40 points with -1 before the smallest is taken."""
    truth = np.array([[100.0, 30.0], [150.0, 60.0]])
    padded = np.vstack([truth, np.full((38, 2), -1.0)])
    expected = max(padded.max(0) - padded.min(0))
    assert reference_length("padded-box", (240, 240), (100, 30, 150, 60), truth) == expected == 151
    assert reference_length("box", (240, 240), None, truth) == pytest.approx(50)
