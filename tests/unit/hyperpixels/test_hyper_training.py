"""Objectives against plain twins, training that learns, and runs that are stopped."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from test_hyper_network import tiny_network

from recon.datasets.semantic import SemanticPair
from recon.datasets.types import true_camera
from recon.errors import ReconError, UsageError
from recon.hyperpixels.backbones import normalise
from recon.hyperpixels.losses import Annotations, matching_entropy, selection_loss, strong_loss, weak_loss
from recon.hyperpixels.training import Trainer, TrainingPair, TrainingSettings, nearest_cells
from recon.synthetic.warps import random_warp, visible_positions
from recon.training import pairs as training_pairs
from recon.training.dhpf import run_training
from recon.training.options import TrainingOptions


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


def photos(folder: Path) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(6):
        noise = cv2.GaussianBlur(rng.random((50, 60, 3)).astype(np.float32), (0, 0), 2)
        cv2.imwrite(str(folder / f"{k}.png"), 255 * (noise - noise.min()) / np.ptp(noise))
    return folder


def test_a_stopped_run_ends_like_an_undisturbed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = photos(tmp_path / "photos")
    monkeypatch.setattr(training_pairs, "SIDE", 48)
    same = TrainingOptions(supervision="flow", photos=(folder,), epochs=3, batch=2, seed=5)
    run_training(tmp_path / "whole", same, network=tiny_network())

    class Killed(BaseException):
        pass

    real = Trainer.step
    calls = []

    def dies(self: Trainer, pairs: list[TrainingPair]) -> object:
        calls.append(1)
        if len(calls) == 5:
            raise Killed
        return real(self, pairs)

    monkeypatch.setattr(Trainer, "step", dies)
    with pytest.raises(Killed):
        run_training(tmp_path / "part", same, network=tiny_network())
    monkeypatch.setattr(Trainer, "step", real)
    run_training(tmp_path / "part", same, network=tiny_network())

    def log(name: str) -> list[list[str]]:
        return [line.split(",")[:-1] for line in (tmp_path / name / "log.csv").read_text().splitlines()]

    assert log("whole") == log("part")
    assert len(log("whole")) == 1 + 3 * (3 + 1)  # a row per step and a validation per epoch
    for name in ("dhpf.safetensors", "last.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "part" / name).read_bytes()
    with pytest.raises(UsageError, match="other batch"):
        run_training(tmp_path / "part", replace(same, batch=3), network=tiny_network())


def test_nothing_to_train_on_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder, message in (("empty", "holds no photos"), ("nowhere", "no folder of photos")):
        with pytest.raises(ReconError, match=message):
            run_training(
                tmp_path / "out",
                TrainingOptions(supervision="flow", photos=(tmp_path / folder,)),
                network=tiny_network(),
            )


def test_a_warp_is_where_it_says() -> None:
    """The warped image, read at known places, shows the original's colours (up to the change of light)."""
    rng = np.random.default_rng(1)
    image = cv2.GaussianBlur(rng.random((80, 100, 3)).astype(np.float32), (0, 0), 3)
    image = (255 * (image - image.min()) / np.ptp(image)).astype(np.uint8)
    pair = random_warp(image, rng)
    inside = ((pair.position > 2) & (pair.position < (97, 77))).all(-1)
    assert inside.mean() > 0.5
    original = cv2.remap(
        pair.original.astype(np.float32), pair.position[..., 0], pair.position[..., 1], cv2.INTER_LINEAR
    )
    for channel in range(3):
        correlation = np.corrcoef(original[inside][:, channel], pair.warped[inside][:, channel])[0, 1]
        assert correlation > 0.97
    # It bends: no affine map fits it, and it is one to one.
    y, x = np.mgrid[0:80, 0:100]
    design = np.column_stack([x.ravel(), y.ravel(), np.ones(x.size)])
    flat = pair.position.reshape(-1, 2)
    rest = flat - design @ np.linalg.lstsq(design, flat, rcond=None)[0]
    assert 0.3 < np.abs(rest).max() < 40
    jacobian = np.gradient(pair.position[..., 0], axis=1) * np.gradient(pair.position[..., 1], axis=0)
    assert (jacobian > 0).mean() > 0.98


def test_rendered_views_see_a_plane_where_algebra_says() -> None:
    K = np.array([[50.0, 0, 31.5], [0, 50.0, 23.5], [0, 0, 1]])
    a = true_camera(64, 48, K, np.eye(3), np.zeros(3))
    b = true_camera(64, 48, K, np.eye(3), np.array([-0.2, 0.1, 0.0]))
    depth = np.full((48, 64), 2.0, np.float32)
    hidden = depth.copy()
    hidden[:, 40:] = 1.0  # something stands in front, for B
    found = visible_positions(depth, hidden, a, b)
    y, x = np.mgrid[0:48, 0:64]
    expected = np.stack([x - 5, y + 2.5], -1)
    seen = np.isfinite(found).all(-1)
    np.testing.assert_allclose(found[seen], expected[seen], atol=1e-4)
    inside = (expected[..., 0] >= 0) & (expected[..., 1] <= 47)
    assert (seen == (inside & (np.rint(expected[..., 0]) < 40))).all()


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


def test_a_pair_of_spair_is_judged_by_its_box(tmp_path: Path) -> None:
    """Scaled to the square each way, as in the release; a benchmark that measures by image keeps the image's side."""
    for name, (width, height) in (("a", (120, 80)), ("b", (200, 100))):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((height, width, 3), np.uint8))
    pair = SemanticPair(
        tmp_path / "a.png",
        tmp_path / "b.png",
        "cat",
        np.array([[10.0, 10.0]]),
        np.array([[20.0, 20.0]]),
        (0.0, 0.0, 50.0, 50.0),
        (10.0, 10.0, 60.0, 40.0),
    )
    assert training_pairs._square(pair, False, True).length == pytest.approx(
        max(50 * 240 / 200, 30 * 240 / 100)
    )
    assert training_pairs._square(pair, True, False).length is None
