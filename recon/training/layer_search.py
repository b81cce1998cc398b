"""The layers of Hyperpixel Flow, found by beam search on a benchmark's pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from recon.datasets.semantic import BENCHMARKS, SemanticPair, load_pairs
from recon.errors import UsageError
from recon.evaluation.semantic import pck
from recon.evaluation.semantic_benchmark import (
    SQUARE,
    evenly,
    read_image,
    resized_points,
    square_length,
    square_tensor,
)
from recon.hyperpixels.cells import match_cells, transfer_keypoints
from recon.hyperpixels.dhpf import ImageFeatures
from recon.hyperpixels.hpf import BeamResult, HyperpixelFlow, beam_search
from recon.matching.hyperpixel_matcher import parse_layers
from recon.matching.hyperpixel_weights import load_backbone
from recon.training.options import LayerSearchOptions

ALPHA = 0.1
"""PCK by which sets of layers are compared."""


def search_layers(
    benchmark: str, root: Path, options: LayerSearchOptions, progress: bool = False
) -> BeamResult:
    """Score sets of layers by the PCK that Hyperpixel Flow reaches with them; features are computed once.

    Raises:
        UsageError, ReconError: what was asked for does not exist or cannot be read.
    """
    pairs = load_pairs(benchmark, root, options.split)  # type: ignore[arg-type]
    kind = BENCHMARKS[benchmark].threshold
    if not kind:
        raise UsageError(
            f"{BENCHMARKS[benchmark].name} has no keypoints that correspond, by which layers are found"
        )
    pairs = evenly(pairs, options.limit)
    net = load_backbone(options.backbone, options.weights, download=options.download, matcher="hpf")
    allowed = parse_layers(options.candidates) or tuple(range(len(net.layers)))
    network = HyperpixelFlow(net, allowed, stretch=True)
    known: dict[Path, tuple[ImageFeatures, tuple[int, ...]]] = {}

    def features(path: Path) -> tuple[ImageFeatures, tuple[int, ...]]:
        if path not in known:
            rgb = read_image(path)
            known[path] = network.prepare(square_tensor(rgb), options.cell), rgb.shape
        return known[path]

    def one(pair: SemanticPair, layers: tuple[int, ...]) -> float:
        (a, shape_a), (b, shape_b) = features(pair.source), features(pair.target)
        there, _ = match_cells(network.correlate(a, b, layers), mutual=False)
        at = resized_points(pair.source_points, shape_a, SQUARE)
        found = transfer_keypoints(there, at, whole_cells=True)
        truth = resized_points(pair.target_points, shape_b, SQUARE)
        return pck(found, truth, square_length(pair, shape_b, kind, truth), ALPHA)

    bar = tqdm(desc="sets of layers", unit="set", disable=not progress)

    def score(layers: tuple[int, ...]) -> float:
        with torch.inference_mode():
            mean = float(np.mean([one(pair, layers) for pair in pairs]))
        bar.update()
        bar.set_postfix_str(f"{','.join(map(str, layers))}: {mean:.3f}")
        return mean

    with bar:
        return beam_search(score, network.layers, beam=options.beam, depth=options.depth, base=network.layers)
