"""Semantic correspondence on the public benchmarks: methods and matchers, pair by pair."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from recon.core.resize import resize_rgb
from recon.datasets.semantic import BENCHMARKS, SemanticPair, load_pairs
from recon.errors import ReconError, UsageError
from recon.evaluation.authors_protocols import DhpfProtocol, HpfProtocol
from recon.evaluation.semantic import (
    PairScore,
    SemanticReport,
    intersection_over_union,
    label_transfer_accuracy,
    mask_of_outline,
    pck,
    reference_length,
)
from recon.evaluation.semantic_options import METHODS, SemanticOptions
from recon.features.dense_sift import build_ladder, describe
from recon.hyperpixels.backbones import normalise
from recon.hyperpixels.cells import CellMatches, match_cells, transfer_keypoints
from recon.hyperpixels.hpf import DEFAULT_LAYER, DEFAULT_LAYERS, HyperpixelFlow
from recon.matching.hyperpixel_matcher import checked_device, parse_layers
from recon.matching.hyperpixel_weights import load_backbone, load_network
from recon.matching.registry import create_matcher, matcher_settings
from recon.matching.types import DenseMatch, MatchImage, PairContext

PAPER_SIDE = 240
"""Both sides that images are brought to (the paper's)."""
SQUARE = (PAPER_SIDE, PAPER_SIDE)


def run_benchmark(
    benchmark: str, root: Path, options: SemanticOptions, progress: bool = False
) -> SemanticReport:
    """Score a method on a benchmark's pairs.

    Raises:
        UsageError, ReconError: what was asked for does not exist or cannot be read.
    """
    if options.threshold not in ("", "image", "box", "padded-box"):
        raise UsageError(f"--threshold is image, box or padded-box, not {options.threshold!r}")
    if options.protocol not in ("common", "authors"):
        raise UsageError(f"--protocol is common or authors, not {options.protocol!r}")
    if any(not 0 < one <= 1 for one in options.alpha):
        raise UsageError("--alpha is a share, more than 0 and at most 1")
    pairs = evenly(load_pairs(benchmark, root, options.split), options.limit)  # type: ignore[arg-type]
    kind = options.threshold or BENCHMARKS[benchmark].threshold
    transfer = _method(options, pruned=not any(pair.outlines for pair in pairs))
    # HPF's release measures on images that keep their aspect.
    square = not (options.protocol == "authors" and options.method == "hpf")
    scores = [
        _score(pair, transfer, kind, options.alpha, square)
        for pair in tqdm(pairs, desc=BENCHMARKS[benchmark].name, unit="pair", disable=not progress)
    ]
    method = options.method if options.protocol == "common" else f"{options.method} (authors' protocol)"
    return SemanticReport(BENCHMARKS[benchmark].name, method, tuple(scores))


def evenly(pairs: list[SemanticPair], limit: int) -> list[SemanticPair]:
    """At most ``limit`` pairs, evenly spread; all where the limit is 0."""
    if not limit or limit >= len(pairs):
        return pairs
    return [pairs[i] for i in np.linspace(0, len(pairs) - 1, limit).round().astype(int)]


_Transfer = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, tuple[int, ...], float]]
"""From source image, target image and source points: points in the target, selected layers, seconds."""


def _score(
    pair: SemanticPair, transfer: _Transfer, kind: str, alphas: tuple[float, ...], square: bool
) -> PairScore:
    source, target = read_image(pair.source), read_image(pair.target)
    if len(pair.source_points) == 0:
        raise ReconError(f"{pair.source.name} and {pair.target.name} share no annotated point")
    predicted, chosen, seconds = transfer(source, target, pair.source_points)
    height, width = target.shape[:2]
    if pair.outlines:
        predicted = predicted[np.isfinite(predicted).all(1)]
        found, truth = (mask_of_outline(one, width, height) for one in (predicted, pair.target_points))
        return PairScore(
            pair.category,
            {},
            label_transfer_accuracy(found, truth),
            intersection_over_union(found, truth),
            seconds,
            chosen,
        )
    if square:
        scale = (PAPER_SIDE / width, PAPER_SIDE / height)
        truth, found = pair.target_points * scale, predicted * scale
        length = square_length(pair, target.shape, kind, truth)
    else:
        truth, found = pair.target_points, predicted
        length = reference_length(kind, (width, height), pair.target_box, truth)
    values = {a: pck(found, truth, length, a) for a in alphas}
    return PairScore(pair.category, values, seconds=seconds, layers=chosen, variation=pair.variation)


def square_length(pair: SemanticPair, target: tuple[int, ...], kind: str, truth: np.ndarray) -> float:
    """Reference length of a pair's target; the papers measure on images brought to a square.

    Args:
        target: (height, width) of the target image.
        kind: "image" or "box".
        truth: the true points in the square.
    """
    sx, sy = PAPER_SIDE / target[1], PAPER_SIDE / target[0]
    box = pair.target_box
    scaled = box and (box[0] * sx, box[1] * sy, box[2] * sx, box[3] * sy)
    return reference_length(kind, SQUARE, scaled, truth)


def resized_points(points: np.ndarray, old: tuple[int, ...], new: tuple[int, ...]) -> np.ndarray:
    """Points of an image at another size; sizes are (height, width)."""
    scale = np.array([new[1] / old[1], new[0] / old[0]])
    return (points + 0.5) * scale - 0.5


def read_image(path: Path) -> np.ndarray:
    """RGB of an image file, (h, w, 3) uint8.

    Raises:
        ReconError: it cannot be read.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError) as error:
        raise ReconError(f"{path}: cannot be read as an image ({error})") from error


def square_tensor(rgb: np.ndarray) -> torch.Tensor:
    """An image brought to the paper's square and normalised, (1, 3, 240, 240)."""
    resized = np.array(resize_rgb(np.ascontiguousarray(rgb), *SQUARE))
    return normalise(torch.from_numpy(resized).permute(2, 0, 1)[None].float() / 255)


def _method(options: SemanticOptions, pruned: bool) -> _Transfer:
    method, device = options.method, options.device
    authors = options.protocol == "authors"
    if authors and method not in ("dhpf", "hpf"):
        raise UsageError(
            f"--protocol authors: {method} has no protocol of its authors; dhpf and hpf have one"
        )
    if method not in METHODS:
        return _dense(method, options)
    if method == "sift-nn":
        return _dense_sift
    checked_device(device)
    network: Any
    # One way for all, near to DHPF's: stretched layers, whole cells. The matcher differs: flow must be exact.
    if method == "dhpf":
        network = load_network(
            options.checkpoint, options.backbone, options.weights, download=options.download
        )
        network.requires_grad_(False).to(device)
        network.stretch = True
        if authors:
            return DhpfProtocol(network, device)
    else:
        name = options.backbone or "mobilenetv2"
        whole = load_backbone(name, options.weights, download=options.download, matcher=method)
        default = DEFAULT_LAYERS[name] if method.startswith("hpf") else (DEFAULT_LAYER[name],)
        network = HyperpixelFlow(whole.to(device), parse_layers(options.layers) or default, stretch=True)
        if authors:
            return HpfProtocol(whole, network.layers, device, pruned=pruned)

    def transfer(
        source: np.ndarray, target: np.ndarray, points: np.ndarray
    ) -> tuple[np.ndarray, tuple[int, ...], float]:
        images = [square_tensor(one).to(device) for one in (source, target)]
        start = time.perf_counter()
        with torch.inference_mode():
            a, b = (network.prepare(image) for image in images)
            chosen = network.select(a, b) if method == "dhpf" else network.layers
            correlation = network.correlate(a, b, chosen)
            there: CellMatches = match_cells(
                correlation, hough=method != "nn", mutual=method in ("dhpf", "hpf+mutual")
            )[0]
        seconds = time.perf_counter() - start
        at = resized_points(points, source.shape, SQUARE)
        moved = transfer_keypoints(there, at, whole_cells=True)
        return resized_points(moved, SQUARE, target.shape), chosen, seconds

    return transfer


SIFT_CELLS = (4, 8, 16, 32)
"""Sides in pixels of the cells of the dense SIFT baseline's descriptors, all compared at once. One size of cells, of
3 px (SIFT Flow's) to 60, finds fewer points on WILLOW's training pairs, and so do 8, 16, 32 and 6, 12, 24, 48."""

SIFT_STEP = 4
"""Pixels between the places of the target that the dense SIFT baseline compares."""


def _dense_sift(
    source: np.ndarray, target: np.ndarray, points: np.ndarray
) -> tuple[np.ndarray, tuple[int, ...], float]:
    """Each point goes to the place of the target whose dense SIFT descriptors are most like its own.

    Descriptors of several sizes, each the square root of its share in the sum (Arandjelović and Zisserman, CVPR 2012).
    """
    images = [resize_rgb(np.ascontiguousarray(one), PAPER_SIDE, PAPER_SIDE) for one in (source, target)]
    start = time.perf_counter()
    at = np.clip(np.rint(resized_points(points, source.shape, SQUARE)).astype(int), 0, PAPER_SIDE - 1)
    grid = np.mgrid[0:PAPER_SIDE:SIFT_STEP, 0:PAPER_SIDE:SIFT_STEP][::-1].reshape(2, -1).T
    own, other = (_sift_stack(image, places) for image, places in zip(images, (at, grid), strict=True))
    distance = (other**2).sum(1) - 2 * own @ other.T
    moved = grid[distance.argmin(1)].astype(np.float64)
    seconds = time.perf_counter() - start
    return resized_points(moved, SQUARE, target.shape), (), seconds


def _sift_stack(image: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Square roots of normalised descriptors of pixels (x, y) at all sizes, (n, 128 * sizes) float32."""
    ladder = build_ladder(image, largest=float(max(SIFT_CELLS)))
    parts = []
    for cell in SIFT_CELLS:
        sift = describe(ladder, np.full(image.shape[:2], cell, np.float32))
        chosen = sift[places[:, 1], places[:, 0]].astype(np.float32)
        parts.append(np.sqrt(chosen / np.maximum(chosen.sum(1, keepdims=True), 1)))
    return np.concatenate(parts, 1)


_MATCHER = "matcher:"
"""Before the name of a matcher that a method of the same name would hide."""


def _dense(method: str, options: SemanticOptions) -> _Transfer:
    """A dense matcher of the registry: points follow its flow, read between pixels. Options that it has go to it."""
    name = method.removeprefix(_MATCHER)
    given = {
        key: getattr(options, key) for key in ("backbone", "checkpoint", "weights", "layers", "download")
    }
    given = {key: value for key, value in given.items() if value}
    if options.device != "cpu":
        given["device"] = options.device
    known = matcher_settings(name).model_fields
    matcher = create_matcher(name, **{key: value for key, value in given.items() if key in known})
    if matcher.capabilities.kind != "dense":
        raise UsageError(
            f"--method {name}: a sparse matcher transfers no keypoints; take {', '.join(METHODS)} or a dense matcher"
        )

    def transfer(
        source: np.ndarray, target: np.ndarray, points: np.ndarray
    ) -> tuple[np.ndarray, tuple[int, ...], float]:
        images = [
            MatchImage(resize_rgb(np.ascontiguousarray(one), PAPER_SIDE, PAPER_SIDE))
            for one in (source, target)
        ]
        start = time.perf_counter()
        match = matcher.match(matcher.prepare(images[0]), matcher.prepare(images[1]), PairContext())
        seconds = time.perf_counter() - start
        assert isinstance(match, DenseMatch)
        at = resized_points(points, source.shape, SQUARE).astype(np.float32)
        x, y = (np.ascontiguousarray(np.clip(at[:, k], 0, PAPER_SIDE - 1))[None] for k in range(2))
        move = cv2.remap(match.a_to_b.flow, x, y, cv2.INTER_LINEAR)[0]
        notes = match.diagnostics.notes if match.diagnostics is not None else {}
        return resized_points(at + move, SQUARE, target.shape), tuple(notes.get("layers", ())), seconds

    return transfer
