"""Training of Dynamic Hyperpixel Flow: folders, epochs, validation, checkpoints; it can be stopped and resumed."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from recon.errors import ReconError, UsageError
from recon.hyperpixels.backbones import normalise
from recon.hyperpixels.checkpoint import checkpoint_bytes
from recon.hyperpixels.dhpf import DynamicHyperpixelFlow
from recon.hyperpixels.safetensors import pack
from recon.hyperpixels.start import partly_learned, start_from_layers
from recon.hyperpixels.training import (
    LEARNING_RATE,
    StepResult,
    Trainer,
    TrainingPair,
    TrainingSettings,
    epoch_order,
)
from recon.io.files import atomic_path
from recon.matching.hyperpixel_matcher import checked_device, parse_layers
from recon.matching.hyperpixel_weights import load_backbone, load_network, read_tensors
from recon.training.options import TrainingOptions
from recon.training.pairs import PairSource, training_data

STATE, BEST, LOG = "last.safetensors", "dhpf.safetensors", "log.csv"

CALIBRATION = 100
"""Training pairs from which, with the validation pairs, the gates' thresholds are set after an epoch."""

START_IMAGES = 40
"""Images whose statistics transforms start from."""

_COLUMNS = ("epoch", "step", "split", "loss", "matching", "selection", "pck", "rate", "seconds")


def check_options(options: TrainingOptions) -> None:
    """Refuse options that contradict each other.

    Raises:
        UsageError: names the options.
    """
    supervision = options.supervision
    on_benchmark = bool(options.benchmark and options.root)
    if supervision not in ("strong", "weak", "flow"):
        raise UsageError(f"--supervision is strong, weak or flow, not {supervision!r}")
    if supervision != "flow" and not on_benchmark:
        raise UsageError(f"--supervision {supervision} needs --benchmark and --root")
    if options.objective not in ("paper", "region"):
        raise UsageError(f"--objective is paper or region, not {options.objective!r}")
    if options.optimiser not in ("sgd", "adam"):
        raise UsageError(f"--optimiser is sgd or adam, not {options.optimiser!r}")
    if options.warps and not on_benchmark:
        raise UsageError("--warps needs --benchmark and --root")
    others = options.photos or options.scenes or options.warps
    if supervision == "flow" and not others:
        raise UsageError("--supervision flow needs --photos, --scenes or --warps")
    if supervision == "weak" and others:
        raise UsageError("--photos, --scenes and --warps have no classes: they are for strong and flow")


def run_training(
    out: Path,
    options: TrainingOptions,
    progress: bool = False,
    network: DynamicHyperpixelFlow | None = None,
) -> None:
    """Train, or go on with the training that ``out`` holds.

    After each epoch the state is written, then the validation pairs are matched and the best network so far is kept
    (by the share of correct points; without validation pairs, the last one).

    Args:
        network: an untrained one to use instead of loading the backbone.

    Raises:
        UsageError, ReconError: what was asked for does not exist, cannot be read, or the folder holds another training.
    """
    checked_device(options.device)
    data = training_data(options)
    if len(data) < 2:
        raise ReconError(f"there are {len(data)} training pairs; two are needed at least")
    if network is None:
        network = _new_network(options, data)
    network.to(options.device)
    training = _Training(out, options, data, network, progress)
    steps = max(1, len(data) // options.batch)
    for epoch in range(training.trainer.step_count // steps, options.epochs):
        order = epoch_order(len(data), epoch, options.seed)
        training.learn(epoch, order, steps)
        training.judge(epoch, order)
        training.save()


def untrained_network(
    root: Path, candidates: str, mu: float, backbone: str = "mobilenetv2"
) -> DynamicHyperpixelFlow:
    """Prepare DHPF on WILLOW as ``--start layers`` begins, gates calibrated on training pairs: a baseline."""
    options = TrainingOptions(
        benchmark="willow", root=root, candidates=candidates, backbone=backbone, start="layers"
    )
    data = training_data(options)
    network = _new_network(options, data)
    trainer = Trainer(network, TrainingSettings(rate=mu))
    trainer.calibrate([data.pair(int(i), 0) for i in epoch_order(len(data), 0, 0)[:CALIBRATION]])
    return network.eval()


def _new_network(options: TrainingOptions, data: PairSource) -> DynamicHyperpixelFlow:
    torch.manual_seed(options.seed)
    start, weights, download = options.start, options.weights, options.download
    if start and start != "layers":
        if options.candidates:
            raise UsageError("--candidates cannot be changed of a checkpoint that training starts from")
        return load_network(start, options.backbone, weights, download=download)
    network = DynamicHyperpixelFlow(
        load_backbone(options.backbone, weights, download=download),
        parse_layers(options.candidates) or None,
        rectified=start != "layers",
    )
    if start == "layers":
        start_from_layers(network, _some_images(data))
    return network


def _some_images(data: PairSource) -> Iterator[Tensor]:
    """Normalised source images of training pairs, evenly spread."""
    for index in np.unique(np.linspace(0, len(data) - 1, START_IMAGES).round().astype(int)):
        rgb = torch.from_numpy(np.ascontiguousarray(data.pair(int(index), 0).source))
        yield normalise(rgb.permute(2, 0, 1)[None].float() / 255)


def _settings(options: TrainingOptions) -> TrainingSettings:
    rate = (
        options.learning_rate or LEARNING_RATE["adam" if options.optimiser == "adam" else options.supervision]
    )
    return TrainingSettings(
        options.supervision,  # type: ignore[arg-type]
        options.mu,
        rate,
        options.objective,  # type: ignore[arg-type]
        options.optimiser,  # type: ignore[arg-type]
        options.cell,
        seed=options.seed,
        mixed=options.mixed,
    )


class _Training:
    """A training under way: the trainer, its log, and the best score so far."""

    def __init__(
        self,
        out: Path,
        options: TrainingOptions,
        data: PairSource,
        network: DynamicHyperpixelFlow,
        progress: bool,
    ) -> None:
        self.out, self.options, self.data, self.progress = out, options, data, progress
        settings = _settings(options)
        self.identity = {
            "format": "recon-training-1",
            "settings": repr(settings),
            "backbone": network.backbone.name,
            "candidates": ",".join(map(str, network.candidates)),
            "data": data.described,
            "batch": str(options.batch),
            "pairs": str(len(data)),
            "share": repr(options.share),
        }
        transforms = network.gates.reduction_ffns
        self.origin = {key: value.clone() for key, value in transforms.state_dict().items()}
        self.trainer = Trainer(network, settings)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{out}: cannot be made a folder ({error})") from error
        self.log, self.best = _resume(out, self.trainer, self.identity)

    def learn(self, epoch: int, order: np.ndarray, steps: int) -> None:
        """Make the steps of one epoch."""
        batch = self.options.batch
        title = f"epoch {epoch + 1}/{self.options.epochs}"
        bar = tqdm(range(steps), desc=title, unit="step", disable=not self.progress)
        for index in bar:
            begun = time.perf_counter()
            chosen = order[index * batch : (index + 1) * batch]
            result = self.trainer.step([self.data.pair(int(i), epoch) for i in chosen])
            self._note(epoch, "train", result, begun)
            bar.set_postfix(loss=f"{result.loss:.3f}", pck=f"{result.pck:.2f}", rate=f"{result.rate:.2f}")

    def judge(self, epoch: int, order: np.ndarray) -> None:
        """Match the validation pairs and keep the network if it is the best so far."""
        options, network = self.options, self.trainer.network
        begun = time.perf_counter()
        held_out = self.data.validation()
        with partly_learned(network, self.origin, options.share):
            first = [self.data.pair(int(i), epoch) for i in order[:CALIBRATION]]
            self.trainer.calibrate([*first, *held_out])
            score = _validate(self.trainer, held_out, options.batch)
            if score is not None:
                self._note(epoch, "val", score, begun)
            value = score.pck if score is not None else float(epoch)
            if not value > self.best:  # NaN is never the best
                return
            self.best = value
            notes = {
                "trained_on": self.data.described,
                "supervision": options.supervision,
                "mu": repr(options.mu),
                "share": repr(options.share),
                "epoch": str(epoch + 1),
                "validation_pck": "" if score is None else f"{score.pck:.4f}",
            }
            content = checkpoint_bytes(network, notes, with_backbone=options.ship_backbone)
            _write_bytes(self.out / BEST, content)

    def save(self) -> None:
        """Write log and state, the log first: what the state does not know of is cut off when it is read again."""
        rows = [",".join(row) + "\n" for row in [list(_COLUMNS), *self.log]]
        _write_bytes(self.out / LOG, "".join(rows).encode())
        arrays = {key: value.numpy() for key, value in self.trainer.state().items()}
        _write_bytes(self.out / STATE, pack(arrays, {**self.identity, "best": repr(self.best)}))

    def _note(self, epoch: int, split: str, result: StepResult, begun: float) -> None:
        numbers = (result.loss, result.matching, result.selection, result.pck, result.rate)
        seconds = f"{time.perf_counter() - begun:.3f}"
        row = [str(epoch + 1), str(self.trainer.step_count), split]
        self.log.append([*row, *(repr(float(n)) for n in numbers), seconds])


def _write_bytes(path: Path, content: bytes) -> None:
    with atomic_path(path) as partial:
        partial.write_bytes(content)


def _resume(out: Path, trainer: Trainer, identity: dict[str, str]) -> tuple[list[list[str]], float]:
    """The log so far and the best validation score; the trainer gets its state."""
    path = out / STATE
    if not path.is_file():
        return [], float("-inf")
    tensors, metadata = read_tensors(path)
    different = [key for key, value in identity.items() if metadata.get(key) != value]
    if different:
        key = different[0]
        raise UsageError(
            f"{out}: holds a training with other {key} ({metadata.get(key)}; now {identity[key]}); take another "
            "folder, or the same command"
        )
    trainer.load_state(tensors)
    rows = []
    if (out / LOG).is_file():
        with (out / LOG).open(newline="", encoding="utf-8") as stream:
            rows = [row for row in list(csv.reader(stream))[1:] if int(row[1]) <= trainer.step_count]
    return rows, float(metadata.get("best", "-inf"))


def _validate(trainer: Trainer, pairs: list[TrainingPair], batch: int) -> StepResult | None:
    """The mean over all validation pairs, None without any."""
    if not pairs:
        return None
    parts = [pairs[i : i + batch] for i in range(0, len(pairs), batch)]
    results = [trainer.validate(part) for part in parts]
    weights = [len(part) for part in parts]

    def mean(name: str) -> float:
        return float(np.average([getattr(one, name) for one in results], weights=weights))

    return StepResult(mean("loss"), mean("matching"), mean("selection"), mean("pck"), mean("rate"))
