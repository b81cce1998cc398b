"""Options of the trainings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recon.evaluation.semantic_options import BACKBONES, DOWNLOAD_HELP, LIMIT_HELP, WEIGHTS_HELP
from recon.options import option


@dataclass(frozen=True)
class TrainingOptions:
    """Options and data of the training of Dynamic Hyperpixel Flow."""

    supervision: str = option(
        "strong", "strong (keypoints), weak (image labels), or flow (known dense flow)."
    )
    benchmark: str = option("", "Benchmark to train on: willow, pf-pascal or spair-71k.")
    root: Path | None = option(None, "Its folder.")
    photos: tuple[Path, ...] = option(
        (), "flow, strong: folder of any photos, warped at random; may be repeated."
    )
    scenes: tuple[Path, ...] = option(
        (), "flow, strong: folder of a scene with true cameras and depth; may be repeated."
    )
    warps: bool = option(
        False,
        "flow, strong: warp the benchmark's training images too, each once per epoch.",
        flags=("--warps",),
    )
    backbone: str = option("mobilenetv2", f"{BACKBONES}.")
    weights: str = option("", WEIGHTS_HELP)
    download: bool = option(False, DOWNLOAD_HELP, flags=("--download",))
    start: str = option(
        "",
        "Checkpoint to start from; 'layers': transforms that leave each layer as it is; empty: random ones.",
    )
    candidates: str = option("", "Layers that may be selected, with commas; empty: all.")
    objective: str = option(
        "paper", "Of points: paper (weighted cross-entropy), or region (the share near the truth)."
    )
    optimiser: str = option("sgd", "sgd (the paper's) or adam.")
    cell: int = option(4, "Distance of cells in training, pixels; 8 is much faster.", min=1)
    epochs: int = option(20, "Passes over the training pairs.", min=1)
    batch: int = option(8, "Pairs per step.", min=2)
    learning_rate: float = option(
        0.0, "0: the paper's for the supervision with sgd, 0.0005 with adam.", min=0
    )
    mu: float = option(0.5, "Target selection rate of each layer.", min=0, max=1)
    share: float = option(
        1.0,
        "How far the checkpoint's transforms go from where they began to what was learned; less than 1 carries over "
        "better to other classes.",
        min=0,
        max=1,
    )
    seed: int = option(0, "Of all random choices.", min=0)
    device: str = option("cpu", "cpu or cuda.")
    mixed: bool = option(False, "Half precision (bfloat16) on cuda.", flags=("--mixed",))
    ship_backbone: bool = option(
        False,
        "Put the backbone's weights into the checkpoint, in half precision.",
        flags=("--ship-backbone",),
    )


@dataclass(frozen=True)
class LayerSearchOptions:
    """Options of the search for the layers of Hyperpixel Flow."""

    split: str = option("val", "trn, val or test; of pairs by which layers are chosen.")
    backbone: str = option("mobilenetv2", f"{BACKBONES}.")
    weights: str = option("", WEIGHTS_HELP)
    download: bool = option(False, DOWNLOAD_HELP, flags=("--download",))
    candidates: str = option("", "Layers that may be chosen, with commas; empty: all.")
    beam: int = option(4, "Sets that are kept of each size.", min=1)
    depth: int = option(8, "Most layers of a set.", min=1)
    limit: int = option(0, LIMIT_HELP, min=0)
    cell: int = option(4, "Distance of cells, pixels; 8 is much faster.", min=1)
