"""``recon train``: networks of the project, trained on data that the user names."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from recon.cli.signals import stoppable
from recon.cli.training_data import PairSource, training_data
from recon.errors import ReconError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from recon.hyperpixels.training import StepResult, Trainer, TrainingPair

train = typer.Typer(name="train", help="Train networks.", no_args_is_help=True)

STATE, BEST, LOG = "last.safetensors", "dhpf.safetensors", "log.csv"

_COLUMNS = ("epoch", "step", "split", "loss", "matching", "selection", "pck", "rate", "seconds")


@train.callback()
def _group() -> None:
    pass


@train.command("dhpf")
def train_dhpf(
    out: Path = typer.Option(..., "--out", "-o", help="Folder of the training: logs, state, checkpoint."),
    supervision: str = typer.Option(
        "strong", help="strong (keypoints), weak (image labels), or flow (known dense flow)."
    ),
    benchmark: str = typer.Option("", help="Benchmark to train on: willow, pf-pascal or spair-71k."),
    root: Path | None = typer.Option(None, help="Its folder."),
    photos: list[Path] = typer.Option(
        [], help="flow, strong: folder of any photos, warped at random; may be repeated."
    ),
    scenes: list[Path] = typer.Option(
        [], help="flow, strong: folder of a scene with true cameras and depth; may be repeated."
    ),
    warps: bool = typer.Option(
        False, "--warps", help="flow, strong: warp the benchmark's training images too, each once per epoch."
    ),
    backbone: str = typer.Option(
        "mobilenetv2", help="mobilenetv2, efficientnet-lite0, resnet50 or resnet101."
    ),
    weights: str = typer.Option("", help="ImageNet weights of the backbone: a file or folder."),
    download: bool = typer.Option(False, "--download", help="Fetch missing ImageNet weights, with checksum."),
    start: str = typer.Option(
        "",
        help="Checkpoint to start from; 'layers': transforms that leave each layer as it is; empty: random ones.",
    ),
    candidates: str = typer.Option("", help="Layers that may be selected, with commas; empty: all."),
    objective: str = typer.Option(
        "paper", help="Of points: paper (weighted cross-entropy), or region (the share near the truth)."
    ),
    optimiser: str = typer.Option("sgd", help="sgd (the paper's) or adam."),
    cell: int = typer.Option(4, min=1, help="Distance of cells in training, pixels; 8 is much faster."),
    epochs: int = typer.Option(20, min=1, help="Passes over the training pairs."),
    batch: int = typer.Option(8, min=2, help="Pairs per step."),
    learning_rate: float = typer.Option(
        0.0, min=0, help="0: the paper's for the supervision with sgd, 0.0005 with adam."
    ),
    mu: float = typer.Option(0.5, min=0, max=1, help="Target selection rate of each layer."),
    share: float = typer.Option(
        1.0,
        min=0,
        max=1,
        help="How far the checkpoint's transforms go from where they began to what was learned; less than 1 carries "
        "over better to other classes.",
    ),
    seed: int = typer.Option(0, min=0, help="Of all random choices."),
    device: str = typer.Option("cpu", help="cpu or cuda."),
    mixed: bool = typer.Option(False, "--mixed", help="Half precision (bfloat16) on cuda."),
    ship_backbone: bool = typer.Option(
        False, "--ship-backbone", help="Put the backbone's weights into the checkpoint, in half precision."
    ),
) -> None:
    """Train the gates and transforms of Dynamic Hyperpixel Flow. The same command again goes on where it stopped."""
    if supervision not in ("strong", "weak", "flow"):
        raise UsageError(f"--supervision is strong, weak or flow, not {supervision!r}")
    if supervision != "flow" and not (benchmark and root):
        raise UsageError(f"--supervision {supervision} needs --benchmark and --root")
    if objective not in ("paper", "region"):
        raise UsageError(f"--objective is paper or region, not {objective!r}")
    if optimiser not in ("sgd", "adam"):
        raise UsageError(f"--optimiser is sgd or adam, not {optimiser!r}")
    if warps and not (benchmark and root):
        raise UsageError("--warps needs --benchmark and --root")
    if supervision == "flow" and not (photos or scenes or warps):
        raise UsageError("--supervision flow needs --photos, --scenes or --warps")
    if supervision == "weak" and (photos or scenes or warps):
        raise UsageError("--photos, --scenes and --warps have no classes: they are for strong and flow")
    with stoppable():
        run_training(
            out,
            supervision=supervision,
            benchmark=benchmark,
            root=root,
            photos=photos,
            scenes=scenes,
            warps=warps,
            backbone=backbone,
            weights=weights,
            download=download,
            start=start,
            candidates=candidates,
            objective=objective,
            optimiser=optimiser,
            cell=cell,
            epochs=epochs,
            batch=batch,
            learning_rate=learning_rate,
            mu=mu,
            share=share,
            seed=seed,
            device=device,
            mixed=mixed,
            ship_backbone=ship_backbone,
            progress=True,
        )
    typer.echo(f"checkpoint: {out / BEST}\nlog: {out / LOG}")


@train.command("hpf")
def train_hpf(
    benchmark: str = typer.Option(..., help="willow, pf-pascal or spair-71k."),
    root: Path = typer.Option(..., help="Its folder."),
    split: str = typer.Option("val", help="trn, val or test; of pairs by which layers are chosen."),
    backbone: str = typer.Option(
        "mobilenetv2", help="mobilenetv2, efficientnet-lite0, resnet50 or resnet101."
    ),
    weights: str = typer.Option("", help="ImageNet weights of the backbone: a file or folder."),
    download: bool = typer.Option(False, "--download", help="Fetch missing ImageNet weights, with checksum."),
    candidates: str = typer.Option("", help="Layers that may be chosen, with commas; empty: all."),
    beam: int = typer.Option(4, min=1, help="Sets that are kept of each size."),
    depth: int = typer.Option(8, min=1, help="Most layers of a set."),
    limit: int = typer.Option(0, min=0, help="Only that many pairs, evenly spread; 0: all."),
    cell: int = typer.Option(4, min=1, help="Distance of cells, pixels; 8 is much faster."),
) -> None:
    """Find the layers of Hyperpixel Flow by beam search; give them to the matcher as layers=..."""
    from recon.cli.layer_search import search_layers

    with stoppable():
        found = search_layers(
            benchmark,
            root,
            split=split,
            backbone=backbone,
            weights=weights,
            download=download,
            candidates=candidates,
            beam=beam,
            depth=depth,
            limit=limit,
            cell=cell,
            progress=True,
        )
    for step in found.steps:
        score, layers = step.kept[0]
        typer.echo(f"{len(layers)} layers: PCK@0.1 {score:.3f} with {','.join(map(str, layers))}")
    typer.echo(f"layers={','.join(map(str, found.layers))}")


def run_training(
    out: Path,
    *,
    supervision: str = "strong",
    benchmark: str = "",
    root: Path | None = None,
    photos: Sequence[Path] = (),
    scenes: Sequence[Path] = (),
    warps: bool = False,
    backbone: str = "mobilenetv2",
    weights: str = "",
    download: bool = False,
    start: str = "",
    candidates: str = "",
    objective: str = "paper",
    optimiser: str = "sgd",
    cell: int = 4,
    epochs: int = 20,
    batch: int = 8,
    learning_rate: float = 0.0,
    mu: float = 0.5,
    share: float = 1.0,
    seed: int = 0,
    device: str = "cpu",
    mixed: bool = False,
    ship_backbone: bool = False,
    progress: bool = False,
    network: Any = None,
) -> None:
    """Train, or go on with the training that ``out`` holds.

    After each epoch the state is written, then the validation pairs are matched and the best network so far is kept
    (by the share of correct points; without validation pairs, the last one).

    Args:
        network: an untrained one to use instead of loading ``backbone``.

    Raises:
        UsageError, ReconError: what was asked for does not exist, cannot be read, or the folder holds another training.
    """
    import torch
    from tqdm import tqdm

    from recon.hyperpixels.checkpoint import checkpoint_bytes
    from recon.hyperpixels.dhpf import DynamicHyperpixelFlow
    from recon.hyperpixels.safetensors import pack
    from recon.hyperpixels.start import partly_learned, start_from_layers
    from recon.hyperpixels.training import LEARNING_RATE, Trainer, TrainingSettings, epoch_order
    from recon.matching.hyperpixel_matcher import checked_device, parse_layers
    from recon.matching.hyperpixel_weights import load_backbone, load_network

    checked_device(device)
    data = training_data(supervision, benchmark, root, photos, scenes, warps, seed)
    if len(data) < 2:
        raise ReconError(f"there are {len(data)} training pairs; two are needed at least")
    if network is None:
        torch.manual_seed(seed)
        if start and start != "layers":
            if candidates:
                raise UsageError("--candidates cannot be changed of a checkpoint that training starts from")
            network = load_network(start, backbone, weights, download=download)
        else:
            network = DynamicHyperpixelFlow(
                load_backbone(backbone, weights, download=download),
                parse_layers(candidates) or None,
                rectified=start != "layers",
            )
            if start == "layers":
                start_from_layers(network, _some_images(data))
    network.to(device)
    settings = TrainingSettings(
        supervision,  # type: ignore[arg-type]
        mu,
        learning_rate or LEARNING_RATE["adam" if optimiser == "adam" else supervision],
        objective,  # type: ignore[arg-type]
        optimiser,  # type: ignore[arg-type]
        cell,
        seed=seed,
        mixed=mixed,
    )
    identity = {
        "format": "recon-training-1",
        "settings": repr(settings),
        "backbone": network.backbone.name,
        "candidates": ",".join(map(str, network.candidates)),
        "data": data.described,
        "batch": str(batch),
        "pairs": str(len(data)),
        "share": repr(share),
    }
    transforms = network.gates.reduction_ffns
    origin = {key: value.clone() for key, value in transforms.state_dict().items()}
    trainer = Trainer(network, settings)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out}: cannot be made a folder ({error})") from error
    log, best = _resume(out, trainer, identity)
    steps = max(1, len(data) // batch)
    first = trainer.step_count // steps
    for epoch in range(first, epochs):
        order = epoch_order(len(data), epoch, seed)
        bar = tqdm(range(steps), desc=f"epoch {epoch + 1}/{epochs}", unit="step", disable=not progress)
        for index in bar:
            begun = time.perf_counter()
            chosen = order[index * batch : (index + 1) * batch]
            result = trainer.step([data.pair(int(i), epoch) for i in chosen])
            log.append(_row(epoch, trainer.step_count, "train", result, time.perf_counter() - begun))
            bar.set_postfix(loss=f"{result.loss:.3f}", pck=f"{result.pck:.2f}", rate=f"{result.rate:.2f}")
        begun = time.perf_counter()
        held_out = data.validation()
        with partly_learned(network, origin, share):
            trainer.calibrate([*(data.pair(int(i), epoch) for i in order[:CALIBRATION]), *held_out])
            score = _validate(trainer, held_out, batch)
            if score is not None:
                log.append(_row(epoch, trainer.step_count, "val", score, time.perf_counter() - begun))
            value = score.pck if score is not None else float(epoch)
            if value > best:
                best = value
                notes = {
                    "trained_on": data.described,
                    "supervision": supervision,
                    "mu": repr(mu),
                    "share": repr(share),
                    "epoch": str(epoch + 1),
                    "validation_pck": "" if score is None else f"{score.pck:.4f}",
                }
                write_bytes(out / BEST, checkpoint_bytes(network, notes, with_backbone=ship_backbone))
        # The log first: what the state does not know of is cut off when it is read again.
        write_bytes(out / LOG, _table(log))
        arrays = {key: value.numpy() for key, value in trainer.state().items()}
        write_bytes(out / STATE, pack(arrays, {**identity, "best": repr(best)}))


def untrained_network(root: Path, candidates: str, mu: float, backbone: str = "mobilenetv2") -> Any:
    """DHPF on WILLOW as ``--start layers`` begins, its gates' thresholds set from training pairs: a baseline."""
    import torch

    from recon.hyperpixels.dhpf import DynamicHyperpixelFlow
    from recon.hyperpixels.start import start_from_layers
    from recon.hyperpixels.training import Trainer, TrainingSettings, epoch_order
    from recon.matching.hyperpixel_matcher import parse_layers
    from recon.matching.hyperpixel_weights import load_backbone

    torch.manual_seed(0)
    network = DynamicHyperpixelFlow(load_backbone(backbone), parse_layers(candidates), rectified=False)
    data = training_data("strong", "willow", root, [], [], False, 0)
    start_from_layers(network, _some_images(data))
    trainer = Trainer(network, TrainingSettings(rate=mu))
    trainer.calibrate([data.pair(int(i), 0) for i in epoch_order(len(data), 0, 0)[:CALIBRATION]])
    return network.eval()


CALIBRATION = 100
"""Training pairs from which, with the validation pairs, the gates' thresholds are set after an epoch."""

START_IMAGES = 40
"""Images whose statistics transforms start from."""


def _some_images(data: PairSource) -> Iterator[Tensor]:
    """Normalised source images of training pairs, evenly spread."""
    import numpy as np
    import torch

    from recon.hyperpixels.backbones import normalise

    for index in np.unique(np.linspace(0, len(data) - 1, START_IMAGES).round().astype(int)):
        rgb = torch.from_numpy(np.ascontiguousarray(data.pair(int(index), 0).source))
        yield normalise(rgb.permute(2, 0, 1)[None].float() / 255)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that appears in its place complete, or not at all."""
    from recon.engine.files import atomic_path

    with atomic_path(path) as partial:
        partial.write_bytes(content)


def _row(epoch: int, step: int, split: str, result: StepResult, seconds: float) -> list[str]:
    numbers = (result.loss, result.matching, result.selection, result.pck, result.rate)
    return [str(epoch + 1), str(step), split, *(repr(float(n)) for n in numbers), f"{seconds:.3f}"]


def _table(rows: list[list[str]]) -> bytes:
    return "".join(",".join(row) + "\n" for row in [list(_COLUMNS), *rows]).encode()


def _resume(out: Path, trainer: Trainer, identity: dict[str, str]) -> tuple[list[list[str]], float]:
    """The log so far and the best validation score; the trainer gets its state."""
    from recon.matching.hyperpixel_weights import read_tensors

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
    import numpy as np

    from recon.hyperpixels.training import StepResult as Result

    results = [trainer.validate(pairs[i : i + batch]) for i in range(0, len(pairs), batch)]
    if not results:
        return None
    weights = [len(pairs[i : i + batch]) for i in range(0, len(pairs), batch)]

    def mean(name: str) -> float:
        return float(np.average([getattr(one, name) for one in results], weights=weights))

    return Result(mean("loss"), mean("matching"), mean("selection"), mean("pck"), mean("rate"))
