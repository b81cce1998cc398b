"""``recon train``: networks of the project, trained on data that the user names."""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from recon.commands.stopping import stoppable
from recon.errors import ReconError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from recon.hyperpixels.training import StepResult, Trainer, TrainingPair

train = typer.Typer(name="train", help="Train networks.", no_args_is_help=True)

SIDE = 240
"""Both sides that images are brought to (the paper's)."""

POINTS = 40
"""Points drawn from known flow, per pair (benchmarks have about as many at most)."""

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
        [], help="flow: folder of any photos, warped at random; may be repeated."
    ),
    scenes: list[Path] = typer.Option(
        [], help="flow: folder of a scene with true cameras and depth; may be repeated."
    ),
    backbone: str = typer.Option("mobilenetv2", help="mobilenetv2, resnet50 or resnet101."),
    weights: str = typer.Option("", help="ImageNet weights of the backbone: a file or folder."),
    download: bool = typer.Option(False, "--download", help="Fetch missing ImageNet weights, with checksum."),
    start: str = typer.Option("", help="Checkpoint to start from; empty: random gates and transforms."),
    epochs: int = typer.Option(20, min=1, help="Passes over the training pairs."),
    batch: int = typer.Option(8, min=2, help="Pairs per step."),
    learning_rate: float = typer.Option(0.0, min=0, help="Of SGD; 0: the paper's for the supervision."),
    mu: float = typer.Option(0.5, min=0, max=1, help="Target selection rate of each layer."),
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
    if supervision == "flow" and not (photos or scenes):
        raise UsageError("--supervision flow needs --photos or --scenes")
    with stoppable():
        run_training(
            out,
            supervision=supervision,
            benchmark=benchmark,
            root=root,
            photos=photos,
            scenes=scenes,
            backbone=backbone,
            weights=weights,
            download=download,
            start=start,
            epochs=epochs,
            batch=batch,
            learning_rate=learning_rate,
            mu=mu,
            seed=seed,
            device=device,
            mixed=mixed,
            ship_backbone=ship_backbone,
            progress=True,
        )
    typer.echo(f"checkpoint: {out / BEST}\nlog: {out / LOG}")


def run_training(
    out: Path,
    *,
    supervision: str = "strong",
    benchmark: str = "",
    root: Path | None = None,
    photos: Sequence[Path] = (),
    scenes: Sequence[Path] = (),
    backbone: str = "mobilenetv2",
    weights: str = "",
    download: bool = False,
    start: str = "",
    epochs: int = 20,
    batch: int = 8,
    learning_rate: float = 0.0,
    mu: float = 0.5,
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
    from recon.hyperpixels.training import LEARNING_RATE, Trainer, TrainingSettings, epoch_order
    from recon.matching.hyperpixel_matcher import checked_device
    from recon.matching.hyperpixel_weights import load_backbone, load_network

    checked_device(device)
    if network is None:
        torch.manual_seed(seed)
        if start:
            network = load_network(start, backbone, weights, download=download)
        else:
            network = DynamicHyperpixelFlow(load_backbone(backbone, weights, download=download))
    network.to(device)
    settings = TrainingSettings(
        supervision,  # type: ignore[arg-type]
        mu,
        learning_rate or LEARNING_RATE[supervision],
        seed=seed,
        mixed=mixed,
    )
    data = _data(supervision, benchmark, root, photos, scenes, seed)
    if len(data) < 2:
        raise ReconError(f"there are {len(data)} training pairs; two are needed at least")
    identity = {
        "format": "recon-training-1",
        "settings": repr(settings),
        "backbone": network.backbone.name,
        "batch": str(batch),
        "pairs": str(len(data)),
    }
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
        score = _validate(trainer, data.validation(), batch)
        if score is not None:
            log.append(_row(epoch, trainer.step_count, "val", score, time.perf_counter() - begun))
        value = score.pck if score is not None else float(epoch)
        if value > best:
            best = value
            notes = {
                "trained_on": data.described,
                "supervision": supervision,
                "mu": repr(mu),
                "epoch": str(epoch + 1),
                "validation_pck": "" if score is None else f"{score.pck:.4f}",
            }
            write_bytes(out / BEST, checkpoint_bytes(network, notes, with_backbone=ship_backbone))
        # The log first: what the state does not know of is cut off when it is read again.
        write_bytes(out / LOG, _table(log))
        arrays = {key: value.numpy() for key, value in trainer.state().items()}
        write_bytes(out / STATE, pack(arrays, {**identity, "best": repr(best)}))


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


class _Annotated:
    """Pairs of a benchmark's training and validation lists, brought to a square."""

    def __init__(self, benchmark: str, root: Path, seed: int) -> None:
        from recon.datasets.semantic import BENCHMARKS, load_pairs

        name = BENCHMARKS[benchmark].name if benchmark in BENCHMARKS else benchmark
        self._pairs = load_pairs(benchmark, root, "trn")
        self._validation = load_pairs(benchmark, root, "val")
        self._seed = seed
        self.described = f"{name}, {len(self._pairs)} training pairs"

    def __len__(self) -> int:
        return len(self._pairs)

    def pair(self, index: int, epoch: int) -> TrainingPair:
        import numpy as np

        pair = self._pairs[index]
        mirror = pair.flip or bool(np.random.default_rng((self._seed, epoch, index)).random() < 0.5)
        return _square(pair, mirror)

    def validation(self) -> list[TrainingPair]:
        return [_square(pair, False) for pair in self._validation[:200]]


def _square(pair: Any, mirror: bool) -> TrainingPair:
    """A pair brought to ``SIDE``, both images mirrored if asked for.

    Mirroring both keeps points in correspondence; left and right parts of an object change their names in both.
    """
    from recon.commands.semantic import read_image, resized_points
    from recon.hyperpixels.training import TrainingPair as Pair
    from recon.photos.resize import resize_rgb

    images, points = [], []
    for path, xy in ((pair.source, pair.source_points), (pair.target, pair.target_points)):
        rgb = read_image(path)
        moved = resized_points(xy, rgb.shape, (SIDE, SIDE))
        rgb = resize_rgb(rgb, SIDE, SIDE)
        if mirror:
            rgb = rgb[:, ::-1].copy()
            moved[:, 0] = SIDE - 1 - moved[:, 0]
        images.append(rgb)
        points.append(moved)
    return Pair(images[0], images[1], points[0], points[1], pair.category)


class _KnownFlow:
    """Random warps of photos, and pairs of views of scenes with true depth."""

    def __init__(self, photos: Sequence[Path], scenes: Sequence[Path], seed: int) -> None:
        from recon.datasets.readers.common import IMAGE_SUFFIXES

        self._photos: list[Path] = []
        for folder in photos:
            if not folder.is_dir():
                raise UsageError(f"{folder}: there is no folder of photos")
            found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
            if not found:
                raise ReconError(f"{folder}: holds no photos")
            self._photos += found
        self._views = [view for folder in scenes for view in _scene_pairs(folder)]
        self._seed = seed
        parts = [str(folder.name) for folder in (*photos, *scenes)]
        self.described = f"known flow: {', '.join(parts)} ({len(self)} pairs per epoch)"

    def __len__(self) -> int:
        return len(self._photos) + len(self._views)

    def pair(self, index: int, epoch: int) -> TrainingPair:
        import numpy as np

        rng = np.random.default_rng((self._seed, epoch, index))
        if index < len(self._photos):
            return _warped(self._photos[index], rng)
        return self._views[index - len(self._photos)].pair(rng)

    def validation(self) -> list[TrainingPair]:
        import numpy as np

        # Warps that no epoch draws: seeds of a length of their own.
        indices = range(0, len(self), max(1, len(self) // 40))
        return [
            _warped(self._photos[i], np.random.default_rng((self._seed, i)))
            if i < len(self._photos)
            else self._views[i - len(self._photos)].pair(np.random.default_rng((self._seed, i)))
            for i in indices
        ]


def _warped(path: Path, rng: np.random.Generator) -> TrainingPair:
    from recon.commands.semantic import read_image
    from recon.datasets.warps import random_warp
    from recon.hyperpixels.training import TrainingPair as Pair
    from recon.photos.resize import resize_rgb

    pair = random_warp(resize_rgb(read_image(path), SIDE, SIDE), rng)
    here, there = _draw(pair.position, (SIDE, SIDE), rng)
    if rng.random() < 0.5:
        return Pair(pair.warped, pair.original, here, there, "")
    return Pair(pair.original, pair.warped, there, here, "")


def _draw(
    position: np.ndarray, target: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Random pixels whose position in a target of (height, width) is known and inside, and that position."""
    import numpy as np

    inside = np.isfinite(position).all(-1)
    safe = np.where(inside[..., None], position, -1)
    inside &= (safe >= 0).all(-1) & (safe[..., 0] <= target[1] - 1) & (safe[..., 1] <= target[0] - 1)
    rows, columns = np.nonzero(inside)
    chosen = rng.permutation(len(rows))[:POINTS]
    here = np.stack([columns[chosen], rows[chosen]], 1).astype(np.float64)
    return here, position[rows[chosen], columns[chosen]].astype(np.float64)


class _View:
    """Two photos of a scene with true cameras and depth."""

    def __init__(self, truth: Any, a: str, b: str) -> None:
        self._truth, self._a, self._b = truth, a, b

    def pair(self, rng: np.random.Generator) -> TrainingPair:
        from recon.commands.semantic import read_image, resized_points
        from recon.datasets.warps import visible_positions
        from recon.hyperpixels.training import TrainingPair as Pair
        from recon.photos.resize import resize_rgb

        truth = self._truth
        a, b = (self._a, self._b) if rng.random() < 0.5 else (self._b, self._a)
        depth_a, depth_b = truth.depth(a), truth.depth(b)
        position = visible_positions(depth_a, depth_b, truth.cameras[a], truth.cameras[b])
        here, there = _draw(position, depth_b.shape, rng)
        images = [resize_rgb(read_image(truth.images / name), SIDE, SIDE) for name in (a, b)]
        square = (SIDE, SIDE)
        return Pair(
            images[0],
            images[1],
            resized_points(here, depth_a.shape, square),
            resized_points(there, depth_b.shape, square),
        )


def _scene_pairs(folder: Path) -> list[_View]:
    """Neighbouring photos, one and two apart, of a scene whose depth is known."""
    from recon.datasets.ground_truth import load_ground_truth

    truth = load_ground_truth(folder)
    if truth.depth is None:
        raise ReconError(f"{folder}: this scene has no true depth; --scenes needs it")
    names = [name for name in sorted(truth.cameras) if truth.depth(name) is not None]
    pairs = [_View(truth, names[i], names[i + gap]) for gap in (1, 2) for i in range(len(names) - gap)]
    if not pairs:
        raise ReconError(f"{folder}: fewer than two photos have true depth")
    return pairs


def _data(
    supervision: str,
    benchmark: str,
    root: Path | None,
    photos: Sequence[Path],
    scenes: Sequence[Path],
    seed: int,
) -> _Annotated | _KnownFlow:
    if supervision == "flow":
        return _KnownFlow(photos, scenes, seed)
    assert root is not None
    return _Annotated(benchmark, root, seed)
