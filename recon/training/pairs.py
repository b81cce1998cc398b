"""Pairs that ``recon train`` learns from: keypoints of benchmarks, warps of photos, views with true depth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from recon.core.resize import resize_rgb
from recon.datasets.ground_truth import load_ground_truth
from recon.datasets.readers.common import IMAGE_SUFFIXES
from recon.datasets.semantic import BENCHMARKS, SemanticPair, load_pairs
from recon.errors import ReconError, UsageError
from recon.evaluation.semantic_benchmark import read_image, resized_points, square_length
from recon.hyperpixels.training import TrainingPair
from recon.synthetic.warps import random_warp, visible_positions
from recon.training.options import TrainingOptions

SIDE = 240
"""Both sides that images are brought to (the paper's)."""

POINTS = 40
"""Points drawn from known flow, per pair (benchmarks have about as many at most)."""


class PairSource(Protocol):
    """Pairs to train on."""

    described: str

    def __len__(self) -> int: ...

    def pair(self, index: int, epoch: int) -> TrainingPair:
        """A pair as an epoch sees it."""

    def validation(self) -> list[TrainingPair]:
        """Pairs that no epoch sees."""


class _Annotated:
    """Pairs of a benchmark's training and validation lists, brought to a square."""

    def __init__(self, benchmark: str, root: Path, seed: int) -> None:
        name = BENCHMARKS[benchmark].name if benchmark in BENCHMARKS else benchmark
        self._by_box = benchmark in BENCHMARKS and BENCHMARKS[benchmark].threshold == "box"
        self._pairs = load_pairs(benchmark, root, "trn")
        self._validation = load_pairs(benchmark, root, "val")
        self._seed = seed
        classes = ", ".join(sorted({pair.category for pair in self._pairs}))
        self.described = f"{name} ({classes}), {len(self._pairs)} training pairs"

    def __len__(self) -> int:
        return len(self._pairs)

    def pair(self, index: int, epoch: int) -> TrainingPair:
        pair = self._pairs[index]
        mirror = pair.flip or bool(np.random.default_rng((self._seed, epoch, index)).random() < 0.5)
        return square_pair(pair, mirror, self._by_box)

    def images(self) -> list[Path]:
        """The images of the training pairs."""
        return sorted({path for pair in self._pairs for path in (pair.source, pair.target)})

    def validation(self) -> list[TrainingPair]:
        return [square_pair(pair, False, self._by_box) for pair in self._validation[:200]]


def square_pair(pair: SemanticPair, mirror: bool, by_box: bool) -> TrainingPair:
    """A pair brought to ``SIDE``, both images mirrored if asked for; its length, if asked for, is the target box's.

    Mirroring both keeps points in correspondence; left and right parts of an object change their names in both.
    """
    images, points = [], []
    size = (SIDE, SIDE)
    for path, xy in ((pair.source, pair.source_points), (pair.target, pair.target_points)):
        rgb = read_image(path)
        shape = rgb.shape
        moved = resized_points(xy, shape, size)
        rgb = resize_rgb(rgb, SIDE, SIDE)
        if mirror:
            rgb = rgb[:, ::-1].copy()
            moved[:, 0] = SIDE - 1 - moved[:, 0]
        images.append(rgb)
        points.append(moved)
    length = square_length(pair, shape, "box", points[1]) if by_box else None
    return TrainingPair(images[0], images[1], points[0], points[1], pair.category, length)


class _KnownFlow:
    """Random warps of photos, and pairs of views of scenes with true depth."""

    def __init__(
        self, photos: Sequence[Path], scenes: Sequence[Path], seed: int, training_images: Sequence[Path] = ()
    ) -> None:
        self._photos: list[Path] = list(training_images)
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
        if training_images:
            parts.insert(0, f"warps of the {len(training_images)} training images")
        self.described = f"known flow: {', '.join(parts)} ({len(self)} pairs per epoch)"

    def __len__(self) -> int:
        return len(self._photos) + len(self._views)

    def pair(self, index: int, epoch: int) -> TrainingPair:
        rng = np.random.default_rng((self._seed, epoch, index))
        if index < len(self._photos):
            return _warped(self._photos[index], rng)
        return self._views[index - len(self._photos)].pair(rng)

    def validation(self) -> list[TrainingPair]:
        # Warps that no epoch draws: seeds of a length of their own.
        indices = range(0, len(self), max(1, len(self) // 40))
        return [
            _warped(self._photos[i], np.random.default_rng((self._seed, i)))
            if i < len(self._photos)
            else self._views[i - len(self._photos)].pair(np.random.default_rng((self._seed, i)))
            for i in indices
        ]


def _warped(path: Path, rng: np.random.Generator) -> TrainingPair:
    pair = random_warp(resize_rgb(read_image(path), SIDE, SIDE), rng)
    here, there = _draw(pair.position, (SIDE, SIDE), rng)
    if rng.random() < 0.5:
        return TrainingPair(pair.warped, pair.original, here, there, "")
    return TrainingPair(pair.original, pair.warped, there, here, "")


def _draw(
    position: np.ndarray, target: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Random pixels whose position in a target of (height, width) is known and inside, and that position."""
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
        truth = self._truth
        a, b = (self._a, self._b) if rng.random() < 0.5 else (self._b, self._a)
        depth_a, depth_b = truth.depth(a), truth.depth(b)
        position = visible_positions(depth_a, depth_b, truth.cameras[a], truth.cameras[b])
        here, there = _draw(position, depth_b.shape, rng)
        images = [resize_rgb(read_image(truth.images / name), SIDE, SIDE) for name in (a, b)]
        square = (SIDE, SIDE)
        return TrainingPair(
            images[0],
            images[1],
            resized_points(here, depth_a.shape, square),
            resized_points(there, depth_b.shape, square),
        )


def _scene_pairs(folder: Path) -> list[_View]:
    """Neighbouring photos, one and two apart, of a scene whose depth is known."""
    truth = load_ground_truth(folder)
    if truth.depth is None:
        raise ReconError(f"{folder}: this scene has no true depth; --scenes needs it")
    names = [name for name in sorted(truth.cameras) if truth.depth(name) is not None]
    pairs = [_View(truth, names[i], names[i + gap]) for gap in (1, 2) for i in range(len(names) - gap)]
    if not pairs:
        raise ReconError(f"{folder}: fewer than two photos have true depth")
    return pairs


class _Mixed:
    """Several kinds of pairs in one training; the first one's validation pairs count."""

    def __init__(self, parts: Sequence[PairSource]) -> None:
        self._parts = parts
        self.described = "; ".join(part.described for part in parts)

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    def pair(self, index: int, epoch: int) -> TrainingPair:
        for part in self._parts:
            if index < len(part):
                return part.pair(index, epoch)
            index -= len(part)
        raise IndexError(index)

    def validation(self) -> list[TrainingPair]:
        return self._parts[0].validation()


def training_data(options: TrainingOptions) -> PairSource:
    """Data that a training learns from; several kinds at once are mixed.

    Raises:
        UsageError, ReconError: a folder is not there, empty, or cannot be read.
    """
    parts: list[PairSource] = []
    images: list[Path] = []
    if options.root is not None and options.benchmark:
        annotated = _Annotated(options.benchmark, options.root, options.seed)
        if options.supervision != "flow":
            parts.append(annotated)
        if options.warps:
            images = annotated.images()
    if images or options.photos or options.scenes:
        parts.append(_KnownFlow(options.photos, options.scenes, options.seed, images))
    return parts[0] if len(parts) == 1 else _Mixed(parts)
