"""The layers of Hyperpixel Flow, found by beam search on a benchmark's pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from recon.cli.semantic import PAPER_SIDE, read_image, resized_points, square_tensor
from recon.errors import UsageError

if TYPE_CHECKING:
    import torch

    from recon.datasets.semantic import SemanticPair
    from recon.hyperpixels.dhpf import ImageFeatures
    from recon.hyperpixels.hpf import BeamResult

ALPHA = 0.1
"""PCK by which sets of layers are compared."""


def search_layers(
    benchmark: str,
    root: Path,
    *,
    split: str = "val",
    backbone: str = "mobilenetv2",
    weights: str = "",
    download: bool = False,
    candidates: str = "",
    beam: int = 4,
    depth: int = 8,
    limit: int = 0,
    cell: int = 4,
    progress: bool = False,
) -> BeamResult:
    """Sets of layers are scored by the PCK that Hyperpixel Flow reaches with them; features are computed once.

    Args:
        candidates: layers with commas; empty: all.
        limit: only that many pairs, evenly spread; 0: all.
        cell: distance of cells in pixels.

    Raises:
        UsageError, ReconError: what was asked for does not exist or cannot be read.
    """
    import numpy as np
    import torch
    from tqdm import tqdm

    from recon.datasets.semantic import BENCHMARKS, load_pairs
    from recon.evaluation.semantic import pck, reference_length
    from recon.hyperpixels.cells import match_cells, transfer_keypoints
    from recon.hyperpixels.hpf import HyperpixelFlow, beam_search
    from recon.matching.hyperpixel_matcher import parse_layers
    from recon.matching.hyperpixel_weights import load_backbone

    pairs = load_pairs(benchmark, root, split)  # type: ignore[arg-type]
    kind = BENCHMARKS[benchmark].threshold
    if not kind:
        raise UsageError(
            f"{BENCHMARKS[benchmark].name} has no keypoints that correspond, by which layers are found"
        )
    if limit and limit < len(pairs):
        pairs = [pairs[i] for i in np.linspace(0, len(pairs) - 1, limit).round().astype(int)]
    net = load_backbone(backbone, weights, download=download, matcher="hpf")
    allowed = parse_layers(candidates) or tuple(range(len(net.layers)))
    network = HyperpixelFlow(net, allowed, stretch=True)
    known: dict[Path, tuple[ImageFeatures, tuple[int, ...]]] = {}

    def features(path: Path) -> tuple[ImageFeatures, tuple[int, ...]]:
        if path not in known:
            rgb = read_image(path)
            tensor: torch.Tensor = square_tensor(rgb)
            known[path] = network.prepare(tensor, cell), rgb.shape
        return known[path]

    square = (PAPER_SIDE, PAPER_SIDE)

    def one(pair: SemanticPair, layers: tuple[int, ...]) -> float:
        (a, shape_a), (b, shape_b) = features(pair.source), features(pair.target)
        there, _ = match_cells(network.correlate(a, b, layers), mutual=False)
        found = transfer_keypoints(
            there, resized_points(pair.source_points, shape_a, square), whole_cells=True
        )
        truth = resized_points(pair.target_points, shape_b, square)
        sx, sy = PAPER_SIDE / shape_b[1], PAPER_SIDE / shape_b[0]
        box = pair.target_box
        scaled = box and (box[0] * sx, box[1] * sy, box[2] * sx, box[3] * sy)
        return pck(found, truth, reference_length(kind, square, scaled, truth), ALPHA)

    bar = tqdm(desc="sets of layers", unit="set", disable=not progress)

    def score(layers: tuple[int, ...]) -> float:
        with torch.inference_mode():
            mean = float(np.mean([one(pair, layers) for pair in pairs]))
        bar.update()
        bar.set_postfix_str(f"{','.join(map(str, layers))}: {mean:.3f}")
        return mean

    with bar:
        return beam_search(score, network.layers, beam=beam, depth=depth, base=network.layers)
