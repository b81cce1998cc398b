"""Objectives against plain twins, and training that learns."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from recon.errors import UsageError
from recon.hyperpixels.backbones import normalise
from recon.hyperpixels.losses import Annotations, matching_entropy, selection_loss, strong_loss, weak_loss
from recon.hyperpixels.training import Trainer, TrainingPair, TrainingSettings, nearest_cells
from tests.support.hyper_networks import batch, tiny_network


def test_strong_loss_is_the_weighted_cross_entropy() -> None:
    rng = np.random.default_rng(0)
    c = rng.random((2, 12, 15))
    pairs = [
        Annotations(torch.tensor([3, 7, 7]), torch.tensor([1, 14, 0]), torch.tensor([2.0, 30.0, 6.0]), 8.0),
        Annotations(torch.tensor([0]), torch.tensor([5]), torch.tensor([8.0]), 8.0),
    ]
    expected = []
    for rows, pair in zip(c, pairs, strict=True):
        total = 0.0
        for s, t, e in zip(pair.source.tolist(), pair.target.tolist(), pair.error.tolist(), strict=True):
            row = (rows[s] - rows[s].mean()) / rows[s].std(ddof=1)
            share = math.exp(row[t]) / np.exp(row).sum()
            total -= math.log(share) * ((e / 8) ** 2 if e <= 8 else 1)
        expected.append(total / len(pair.source))
    found = strong_loss([torch.from_numpy(m)[p.source] for m, p in zip(c, pairs, strict=True)], pairs)
    assert float(found) == pytest.approx(np.mean(expected), rel=1e-6)


def test_entropy_of_a_known_distribution() -> None:
    # One sharp match per cell has little entropy, equal matches have that of all squeezed cells.
    sharp = torch.eye(64)[None]
    flat = torch.ones(1, 64, 64)
    assert float(matching_entropy(flat, (8, 8), (8, 8))) == pytest.approx(math.log2(4), rel=1e-4)
    assert float(matching_entropy(sharp, (8, 8), (8, 8))) < 0.5
    both = torch.cat([sharp, flat])
    loss = weak_loss(both, torch.tensor([True, False]), (8, 8), (8, 8))
    sharp_entropy = float(matching_entropy(sharp, (8, 8), (8, 8)))
    assert float(loss) == pytest.approx(sharp_entropy / 2, rel=1e-4)
    # No negative pair: the entropy itself.
    assert float(weak_loss(flat, torch.tensor([True]), (8, 8), (8, 8))) == pytest.approx(2, rel=1e-4)


def test_selection_loss_ties_each_layer_to_the_rate() -> None:
    selection = torch.tensor([[1.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    assert float(selection_loss(selection, 0.5)) == pytest.approx(0.5)


@pytest.mark.parametrize("supervision", ["strong", "weak", "flow"])
def test_training_lowers_its_loss(supervision: str) -> None:
    rate = 0.1 if supervision == "weak" else 0.03
    settings = TrainingSettings(supervision, learning_rate=rate, hough=False)  # type: ignore[arg-type]
    trainer = Trainer(tiny_network(), settings)
    results = [trainer.step(batch()) for _ in range(30)]
    first = np.mean([r.loss for r in results[:5]])
    last = np.mean([r.loss for r in results[-5:]])
    assert last < 0.95 * first
    assert all(0 <= r.rate <= 1 and math.isfinite(r.loss) for r in results)


def test_training_leaves_the_backbone_alone() -> None:
    network = tiny_network()
    before = {k: v.clone() for k, v in network.backbone.state_dict().items()}
    trainer = Trainer(network, TrainingSettings())
    trainer.step(batch())
    assert all(torch.equal(before[k], v) for k, v in network.backbone.state_dict().items())
    with pytest.raises(UsageError, match="two pairs"):
        trainer.step(batch()[:1])


def test_a_trainer_goes_on_to_the_same_losses() -> None:
    def losses(stop: int | None) -> list[float]:
        trainer = Trainer(tiny_network(), TrainingSettings())
        found = []
        for step in range(6):
            if step == stop:
                state = {k: v.clone() for k, v in trainer.state().items()}
                torch.manual_seed(99)
                trainer = Trainer(tiny_network(), TrainingSettings())
                trainer.load_state(state)
            found.append(trainer.step(batch(seed=step)).loss)
        return found

    assert losses(None) == losses(3)


def test_nearest_cells() -> None:
    grid = tiny_network().grid(32, 40)
    points = np.array([[0.0, 0.0], [5.9, 6.1], [39.0, 31.0], [-3, 90]])
    assert nearest_cells(grid, points).tolist() == [0, 21, 79, 70]


def test_rows_at_points_are_those_of_the_whole_correlation() -> None:
    """Their values and their gradients, for layers coarser and finer than the grid."""
    network = tiny_network().double()
    a, b = (torch.randn(2, 3, 32, 40, generator=torch.Generator().manual_seed(s)).double() for s in (0, 1))
    cells = torch.tensor([0, 7, 41, 79])
    weight = torch.randn(4, 80, generator=torch.Generator().manual_seed(2)).double()
    found = []
    for whole in (True, False):
        network.zero_grad()
        grid = network.grid(32, 40)
        pair, _ = network.correlate_features(
            grid, grid, network.backbone.features(a), network.backbone.features(b), hard=False
        )
        rows = pair.full()[1][cells] if whole else pair.at_cells(1, cells)
        (rows * weight).sum().backward()
        gradients = [p.grad.clone() for p in network.gates.parameters() if p.grad is not None]
        found.append((rows.detach(), gradients))
    torch.testing.assert_close(found[0][0], found[1][0])
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other)


def by_hand(pair: TrainingPair, c: np.ndarray, columns: int, filtered: bool) -> tuple[float, float]:
    """Matching loss and share of correct points of one pair, step by step as the release has it, cells 4 px apart."""
    own, other = (np.maximum(c.max(axis, keepdims=True), 1e-30) for axis in (1, 0))
    seen = c * (c / own) * (c / other) if filtered else c
    at = 4.0 * np.stack([np.arange(len(c)) % columns, np.arange(len(c)) // columns], 1)
    reach = 0.1 * (40 if pair.length is None else pair.length)
    loss, good = 0.0, 0
    for here, there in zip(pair.source_points, pair.target_points, strict=True):
        near = [k for k in range(len(c)) if (np.abs(at[k] - here) <= 5).all()]
        moved = np.mean([here - at[k] + at[seen[k].argmax()] for k in near], 0)
        error = np.linalg.norm(moved - there)
        row = c[np.linalg.norm(at - here, axis=1).argmin()]
        row = (row - row.mean()) / (row.std(ddof=1) or 1)
        true = np.linalg.norm(at - there, axis=1).argmin()
        good += error <= reach
        loss += (np.log(np.exp(row).sum()) - row[true]) * ((error / reach) ** 2 if error <= reach else 1)
    return loss / len(pair.source_points), good / len(pair.source_points)


@pytest.mark.parametrize("length", [None, 17.0])
def test_points_are_easy_or_hard_after_the_mutual_filter_and_by_the_box(length: float | None) -> None:
    """The loss and the PCK that chooses the epoch, against a plain twin; without the filter both are others."""
    network = tiny_network()
    pairs = [replace(pair, length=length) for pair in batch(3, seed=4)]
    found = Trainer(network, TrainingSettings(hough=False)).validate(pairs)
    expected, unfiltered = [], []
    for pair in pairs:
        images = [
            normalise(torch.from_numpy(one).permute(2, 0, 1)[None].float() / 255)
            for one in (pair.source, pair.target)
        ]
        with torch.no_grad():
            c = network(*images, hough=False).correlation[0].double().numpy()
        expected.append(by_hand(pair, c, 10, filtered=True))
        unfiltered.append(by_hand(pair, c, 10, filtered=False))
    assert (found.matching, found.pck) == pytest.approx(tuple(np.mean(expected, 0)), rel=1e-4)
    assert not np.allclose(np.mean(expected, 0), np.mean(unfiltered, 0), rtol=1e-3)
