"""Training of Dynamic Hyperpixel Flow, a step at a time.

Every random choice follows from the seed and the number of the step, so that a run that was stopped and one that was
not see the same pairs and the same noise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from recon.errors import UsageError
from recon.hyperpixels.backbones import normalise
from recon.hyperpixels.cells import CellMatches, mutual_filter, transfer_keypoints
from recon.hyperpixels.dhpf import DynamicHyperpixelFlow, geometric_scores
from recon.hyperpixels.gating import gumbel_noise
from recon.hyperpixels.grid import Grid
from recon.hyperpixels.losses import Annotations, region_loss, selection_loss, strong_loss, weak_loss

Supervision = Literal["strong", "weak", "flow"]

Objective = Literal["paper", "region"]
Optimiser = Literal["sgd", "adam"]

LEARNING_RATE: dict[str, float] = {"strong": 0.03, "weak": 0.1, "flow": 0.03, "adam": 5e-4}
"""Of SGD the paper's for keypoints and for image labels; known flow is trained as keypoints are."""

MOMENTUM = 0.5
"""Of SGD, the release's."""

FEATURE_MEMORY = 512 << 20
"""Bytes of backbone features of training images that are kept for later epochs."""

NEAR = 10.0
"""Pixels: deviation of the Gaussian round the truth in the region objective."""


@dataclass(frozen=True)
class TrainingSettings:
    """Constants of training.

    Attributes:
        supervision: strong (keypoints), weak (image labels), or flow (points drawn from known dense flow).
        rate: target selection rate mu of each layer.
        learning_rate: of the optimiser.
        objective: of points: the paper's weighted cross-entropy (``strong_loss``), or the share near the truth
            (``region_loss``).
        optimiser: stochastic gradient descent, as in the paper, or Adam.
        cell: distance of cells in pixels in training; coarser ones are quicker by its fourth power.
        alpha: a point counts as matched within this share of the pair's ``length``.
        hough: weigh correlations by regularized Hough matching, as at inference.
        mixed: half precision (bfloat16) where CUDA computes.
    """

    supervision: Supervision = "strong"
    rate: float = 0.5
    learning_rate: float = 0.03
    objective: Objective = "paper"
    optimiser: Optimiser = "sgd"
    cell: int = 4
    alpha: float = 0.1
    seed: int = 0
    hough: bool = True
    mixed: bool = False


@dataclass(frozen=True)
class TrainingPair:
    """A pair for training: images of one size and points (x, y) in their pixels that correspond.

    Attributes:
        category: of the object, for negative pairs; pairs of one category are positive.
        length: that a point's error is judged by, in pixels: the longer side of the target's box where the benchmark
            measures by it; None for the longer side of the image.
    """

    source: UInt8[np.ndarray, "h w 3"]
    target: UInt8[np.ndarray, "h w 3"]
    source_points: Float[np.ndarray, "n 2"]
    target_points: Float[np.ndarray, "n 2"]
    category: str = ""
    length: float | None = None


@dataclass(frozen=True)
class StepResult:
    """Report of a step: the loss and its parts, the share of correct points, and the mean selection rate."""

    loss: float
    matching: float
    selection: float
    pck: float
    rate: float


class Trainer:
    """A network, its optimiser, and the number of steps done.

    Args:
        network: on its device; its backbone stays as it is.
    """

    def __init__(self, network: DynamicHyperpixelFlow, settings: TrainingSettings) -> None:
        self.network = network
        self.settings = settings
        self.step_count = 0
        self._known: dict[bytes, dict[int, Tensor]] = {}
        self._held = 0
        self._parameters = dict(network.gates.named_parameters())
        parameters, rate = list(self._parameters.values()), settings.learning_rate
        self.optimiser: torch.optim.Optimizer = (
            torch.optim.Adam(parameters, rate)
            if settings.optimiser == "adam"
            else torch.optim.SGD(parameters, rate, MOMENTUM)
        )

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return next(iter(self._parameters.values())).device

    def step(self, batch: Sequence[TrainingPair]) -> StepResult:
        """One step of gradient descent.

        Raises:
            UsageError: fewer than two pairs (normalisation over the batch needs two), or images of different sizes.
        """
        if len(batch) < 2:
            raise UsageError("a training batch needs two pairs at least")
        self.network.train()
        self.network.gates.thresholds.zero_()
        result, loss = self._forward(batch, training=True)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.step_count += 1
        return result

    @torch.no_grad()
    def validate(self, batch: Sequence[TrainingPair]) -> StepResult:
        """Loss and matched points without noise and without learning."""
        self.network.eval()
        return self._forward(batch, training=False)[0]

    @torch.no_grad()
    def calibrate(self, pairs: Sequence[TrainingPair]) -> None:
        """Set the gates' thresholds so that each layer opens, without noise, for a share mu of these pairs.

        With noise the selection loss ties the rate to mu, without it gates of a rate above a half are nearly always
        open. The next step of training takes the thresholds away.
        """
        self.network.eval()
        gates, layers = self.network.gates, self.network.candidates
        gates.thresholds.zero_()
        lead: dict[int, list[float]] = {layer: [] for layer in layers}
        for pair in pairs:
            source, target = (
                {number: maps.mean((2, 3)) for number, maps in self._features([image]).items()}
                for image in (pair.source, pair.target)
            )
            for layer in layers:
                closed, opened = gates.relevance(layer, source[layer], target[layer])[0].tolist()
                lead[layer].append(opened - closed)
        for layer in layers:
            gates.thresholds[layer] = float(np.quantile(lead[layer], 1 - self.settings.rate))

    def _forward(self, batch: Sequence[TrainingPair], training: bool) -> tuple[StepResult, Tensor]:
        settings, device = self.settings, self.device
        shapes = {image.shape for pair in batch for image in (pair.source, pair.target)}
        if len(shapes) != 1:
            raise UsageError(f"images of a batch have different sizes: {sorted(shapes)}")
        height, width = next(iter(shapes))[:2]
        grid = self.network.grid(height, width, settings.cell)
        with torch.autocast("cuda", torch.bfloat16, enabled=settings.mixed and device.type == "cuda"):
            source = self._features([pair.source for pair in batch])
            target = self._features([pair.target for pair in batch])
        positive = torch.ones(len(batch), dtype=torch.bool)
        if settings.supervision == "weak" and training:
            # Each source against the next pair's target, where that is of another class.
            other = [(i + 1) % len(batch) for i in range(len(batch))]
            negative = [i for i, k in enumerate(other) if batch[i].category != batch[k].category]
            against = [other[i] for i in negative]
            source = {layer: torch.cat([maps, maps[negative]]) for layer, maps in source.items()}
            target = {layer: torch.cat([maps, maps[against]]) for layer, maps in target.items()}
            positive = torch.cat([positive, torch.zeros(len(negative), dtype=torch.bool)])
        noise = None
        if training:
            generator = torch.Generator().manual_seed(_seed(settings.seed, self.step_count))
            noise = gumbel_noise((len(positive), len(self.network.candidates), 2), generator, device)
        with torch.autocast("cuda", torch.bfloat16, enabled=settings.mixed and device.type == "cuda"):
            pair, selection = self.network.correlate_features(grid, grid, source, target, noise)
            weak = settings.supervision == "weak"
            # Keypoints need few rows with gradients; the rest serves Hough matching, which passes none on.
            with torch.set_grad_enabled(weak and torch.is_grad_enabled()):
                correlation = pair.full().float()
            scores = geometric_scores(pair, correlation) if settings.hough else None
            weighted = correlation if scores is None else correlation * scores
            # As at inference, points are matched after the mutual filter; the loss itself sees what comes before it.
            annotations = [
                annotate(mutual_filter(weighted[i : i + 1].detach())[0], grid, one, settings.alpha)
                for i, one in enumerate(batch)
            ]
            if weak:
                size = (grid.rows, grid.columns)
                matching = weak_loss(weighted, positive.to(device), size, size)
            else:
                rows = []
                for i, one in enumerate(annotations):
                    chosen = pair.at_cells(i, one.source).float()
                    rows.append(chosen if scores is None else chosen * scores[i, one.source])
                matching = (
                    strong_loss(rows, annotations)
                    if settings.objective == "paper"
                    else region_loss(rows, [_near(grid, one.target_points, NEAR).to(device) for one in batch])
                )
        selecting = selection_loss(selection, settings.rate)
        loss = matching + selecting
        errors = torch.cat([one.error / one.reach for one in annotations])
        return (
            StepResult(
                float(loss.detach()),
                float(matching.detach()),
                float(selecting.detach()),
                float((errors <= 1).float().mean()) if len(errors) else float("nan"),
                float(selection.detach().round().mean()),
            ),
            loss,
        )

    def _features(self, images: Sequence[UInt8[np.ndarray, "h w 3"]]) -> dict[int, Tensor]:
        """The backbone's layers of a batch; the backbone does not learn, so those of each image are kept."""
        keys = [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]
        wanted = {0, *self.network.candidates}
        batch = []
        for key, image in zip(keys, images, strict=True):
            # One at a time: rounding depends on what else is in a batch, and a resumed run has other images to make.
            layers = self._known.get(key) or self.network.backbone.features(
                _images([image], self.device), wanted
            )
            size = sum(one.numel() * one.element_size() for one in layers.values())
            if key not in self._known and self._held + size <= FEATURE_MEMORY:
                self._known[key] = layers
                self._held += size
            batch.append(layers)
        return {number: torch.cat([layers[number] for layers in batch]) for number in sorted(wanted)}

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, as named tensors on the CPU."""
        tensors = {f"gates.{k}": v.detach().cpu() for k, v in self.network.gates.state_dict().items()}
        for name, parameter in self._parameters.items():
            for kind, value in self.optimiser.state.get(parameter, {}).items():
                tensors[f"optimiser.{kind}.{name}"] = value.detach().cpu()
        tensors["step"] = torch.tensor(self.step_count)
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Go on from a ``state``.

        Raises:
            UsageError: it is of another network.
        """
        gates = {k.removeprefix("gates."): v for k, v in tensors.items() if k.startswith("gates.")}
        own = self.network.gates.state_dict()
        if set(gates) != set(own) or any(gates[k].shape != own[k].shape for k in own):
            raise UsageError("the training that should go on was of another network")
        self.network.gates.load_state_dict(gates)
        for key, value in tensors.items():
            if key.startswith("optimiser."):
                _, kind, name = key.split(".", 2)
                parameter = self._parameters[name]
                # Adam's count of steps stays on the CPU.
                place = "cpu" if value.dim() == 0 else parameter.device
                self.optimiser.state[parameter][kind] = value.to(place).clone()
        self.step_count = int(tensors["step"])


def annotate(
    correlation: Float[Tensor, "ns nt"], grid: Grid, pair: TrainingPair, alpha: float
) -> Annotations:
    """The points of a pair as cells, and how far the correlation's best matches move them from the truth."""
    device = correlation.device
    reach = alpha * (max(grid.width, grid.height) if pair.length is None else pair.length)
    if len(pair.source_points) == 0:
        empty = torch.zeros(0, dtype=torch.long, device=device)
        return Annotations(empty, empty, torch.zeros(0, device=device), reach)
    best = correlation.argmax(1).cpu().numpy()
    cells = np.arange(grid.cells)
    own = np.stack([cells % grid.columns, cells // grid.columns], 1)
    other = np.stack([best % grid.columns, best // grid.columns], 1)
    offset = ((other - own) * grid.step).astype(np.float32).reshape(grid.rows, grid.columns, 2)
    matches = CellMatches(grid, grid, best, offset, np.ones((grid.rows, grid.columns), np.float32))
    moved = transfer_keypoints(matches, pair.source_points)
    error = np.linalg.norm(moved - pair.target_points, axis=1)
    return Annotations(
        torch.from_numpy(nearest_cells(grid, pair.source_points)).to(device),
        torch.from_numpy(nearest_cells(grid, pair.target_points)).to(device),
        torch.from_numpy(error.astype(np.float32)).to(device),
        reach,
    )


def nearest_cells(grid: Grid, points: Float[np.ndarray, "n 2"]) -> np.ndarray:
    """Number of the cell nearest to each point (x, y), int64."""
    at = np.rint(np.asarray(points, np.float64) / grid.step).astype(np.int64)
    x = np.clip(at[:, 0], 0, grid.columns - 1)
    y = np.clip(at[:, 1], 0, grid.rows - 1)
    return np.asarray(y * grid.columns + x)


def _near(grid: Grid, points: Float[np.ndarray, "n 2"], width: float) -> Float[Tensor, "n nt"]:
    """Gaussians round points over the cells of a grid, 1 at the point."""
    at = torch.from_numpy(np.asarray(points, np.float32)).reshape(-1, 2)
    x, y = (torch.arange(count, dtype=torch.float32) * grid.step for count in (grid.columns, grid.rows))
    along_x, along_y = (
        torch.exp(-(line - at[:, k : k + 1]).square() / (2 * width**2)) for k, line in enumerate((x, y))
    )
    return (along_y[:, :, None] * along_x[:, None]).flatten(1)


def epoch_order(count: int, epoch: int, seed: int) -> np.ndarray:
    """The order in which an epoch sees its pairs."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def _images(images: Sequence[np.ndarray], device: torch.device) -> Tensor:
    stacked = torch.from_numpy(np.stack(images)).to(device)
    return normalise(stacked.permute(0, 3, 1, 2).float() / 255)


def _seed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> np.uint64(1))
