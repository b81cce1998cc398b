"""Readers of the benchmarks of semantic correspondence, in their official layouts.

Keypoints come out as the files have them. Annotations made in MATLAB count the centre of the top-left pixel as (1, 1),
not (0, 0); the published evaluations do not shift them, nor do we: it moves source and target alike, by a pixel.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64

from recon.errors import ReconError, UsageError
from recon.io.files import parse_json

Split = Literal["trn", "val", "test"]

PASCAL_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""Classes of PASCAL VOC in the order in which PF-PASCAL numbers them, from 1."""

WILLOW_POINTS = 10
"""Keypoints of each image of WILLOW-ObjectClass and PF-WILLOW."""


@dataclass(frozen=True)
class SemanticPair:
    """Two images of one class with points that correspond.

    Attributes:
        source, target: image files.
        category: of the object.
        source_points, target_points: (n, 2) float64 (x, y) in pixels of the files; row i corresponds to row i. For
            ``outlines`` they are the corners of the object's mask and do not correspond.
        source_box, target_box: (x0, y0, x1, y1) of the object; None where the benchmark has none.
        outlines: the points are outlines of masks (Caltech-101).
        flip: train on both images mirrored (PF-PASCAL's training list).
        variation: what SPair-71k says of the pair: viewpoint, scale, truncation, occlusion.
    """

    source: Path
    target: Path
    category: str
    source_points: Float64[np.ndarray, "n 2"]
    target_points: Float64[np.ndarray, "m 2"]
    source_box: tuple[float, float, float, float] | None = None
    target_box: tuple[float, float, float, float] | None = None
    outlines: bool = False
    flip: bool = False
    variation: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class SemanticBenchmark:
    """A benchmark: its name, what alpha is a share of, and how its pairs are read.

    Attributes:
        threshold: "image": the longer side of the target image; "box": the longer side of the target's box, or of the
            box round its keypoints where the benchmark has no other; "": there is no PCK.
        splits: that it has.
        read: from its folder and a split.
    """

    name: str
    card: str
    threshold: Literal["image", "box", ""]
    splits: tuple[Split, ...]
    read: Callable[[Path, Split], list[SemanticPair]]


def load_pairs(benchmark: str, root: Path, split: Split = "test") -> list[SemanticPair]:
    """Read the pairs of a split.

    Args:
        root: the benchmark's folder, or one that holds it under its official name.

    Raises:
        UsageError: no benchmark has that name, it has no such split, or the folder is not there.
        ReconError: a file is missing or damaged, points lie outside of their image's box by far, or the split is empty.
    """
    if benchmark not in BENCHMARKS:
        raise UsageError(f"no benchmark is named {benchmark!r}; there are: {', '.join(BENCHMARKS)}")
    entry = BENCHMARKS[benchmark]
    if split not in entry.splits:
        raise UsageError(f"{entry.name} has no split {split!r}; it has {', '.join(entry.splits)}")
    folder = root / entry.name if (root / entry.name).is_dir() else root
    if not folder.is_dir():
        raise UsageError(
            f"{root}: there is no folder; the card {entry.card!r} says where {entry.name} is from"
        )
    pairs = entry.read(folder, split)
    if not pairs:
        raise ReconError(f"{folder}: the split {split!r} of {entry.name} has no pairs")
    return pairs


def _rows(path: Path, least: int) -> Iterator[tuple[int, list[str]]]:
    """Rows of a table with a header, with their line numbers."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            for number, row in enumerate(csv.reader(stream), 1):
                if number == 1 or not row:
                    continue
                if len(row) < least:
                    raise ReconError(f"{path}: line {number} has {len(row)} fields, {least} were expected")
                yield number, row
    except FileNotFoundError as error:
        raise ReconError(f"{path}: this list of pairs is missing") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReconError(f"{path}: cannot be read: {error}") from error


def _numbers(path: Path, line: int, values: list[str]) -> Float64[np.ndarray, " n"]:
    try:
        array = np.array([float(value) for value in values], np.float64)
    except ValueError as error:
        raise ReconError(f"{path}: line {line}: {error}") from error
    if not np.isfinite(array).all():
        raise ReconError(f"{path}: line {line} has a number that is not finite")
    return array


def _image(path: Path, listed: Path) -> Path:
    if not path.is_file():
        raise ReconError(f"{path}: this image is missing; it is listed in {listed}")
    return path


def _whole(path: Path, line: int, value: str) -> int:
    try:
        return int(float(value))
    except ValueError as error:
        raise ReconError(f"{path}: line {line}: {value!r} is no number") from error


def _read_pf_pascal(folder: Path, split: Split) -> list[SemanticPair]:
    """PF-PASCAL: ``{trn,val,test}_pairs.csv``, ``JPEGImages/`` and ``Annotations/CLASS/NAME.mat`` (kps, bbox)."""
    table = folder / f"{split}_pairs.csv"
    pairs = []
    known: dict[Path, tuple[Any, Any]] = {}
    for line, row in _rows(table, 3):
        number = _whole(table, line, row[2])
        if not 1 <= number <= len(PASCAL_CLASSES):
            raise ReconError(f"{table}: line {line}: there is no class {number}")
        category = PASCAL_CLASSES[number - 1]
        images, points, boxes = [], [], []
        for name in row[:2]:
            base = name.rsplit("/", 1)[-1]
            images.append(_image(folder / "JPEGImages" / base, table))
            path = folder / "Annotations" / category / f"{Path(base).stem}.mat"
            if path not in known:
                known[path] = _mat(path, "kps", "bbox")
            kps, box = known[path]
            points.append(np.asarray(kps, np.float64).reshape(-1, 2))
            boxes.append(_box(np.asarray(box, np.float64).ravel(), path))
        if len(points[0]) != len(points[1]):
            raise ReconError(
                f"{table}: line {line}: {len(points[0])} keypoints on one image, {len(points[1])} on the other"
            )
        both = np.isfinite(points[0]).all(1) & np.isfinite(points[1]).all(1)
        flip = split == "trn" and len(row) > 3 and bool(_whole(table, line, row[3]))
        pairs.append(
            SemanticPair(
                images[0],
                images[1],
                category,
                points[0][both],
                points[1][both],
                boxes[0],
                boxes[1],
                flip=flip,
            )
        )
    return pairs


def _mat(path: Path, *keys: str) -> tuple[Any, ...]:
    from scipy.io import loadmat

    try:
        content = loadmat(str(path))
    except FileNotFoundError as error:
        raise ReconError(f"{path}: this annotation is missing") from error
    except Exception as error:
        raise ReconError(f"{path}: cannot be read as a MATLAB file ({error})") from error
    missing = [key for key in keys if key not in content]
    if missing:
        raise ReconError(f"{path}: holds no {' and no '.join(missing)}")
    return tuple(content[key] for key in keys)


def _box(values: Float64[np.ndarray, " n"], path: Path) -> tuple[float, float, float, float]:
    if len(values) < 4 or not np.isfinite(values[:4]).all():
        raise ReconError(f"{path}: its bounding box is not four numbers")
    x0, y0, x1, y1 = (float(value) for value in values[:4])
    return x0, y0, x1, y1


def _read_pf_willow(folder: Path, split: Split) -> list[SemanticPair]:  # noqa: ARG001
    """PF-WILLOW: ``test_pairs.csv`` with image names and 10 x and 10 y of each image; images in folders by class."""
    table = folder / "test_pairs.csv"
    pairs = []
    for line, row in _rows(table, 2 + 4 * WILLOW_POINTS):
        numbers = _numbers(table, line, row[2 : 2 + 4 * WILLOW_POINTS])
        source, target = (numbers[k * 20 : k * 20 + 20].reshape(2, WILLOW_POINTS).T for k in range(2))
        # Names start with the folder of the archive.
        names = [name.split("/", 1)[-1] if name.startswith("PF-dataset") else name for name in row[:2]]
        images = [_image(folder / name, table) for name in names]
        pairs.append(SemanticPair(images[0], images[1], images[0].parent.name, source, target))
    return pairs


def _read_spair(folder: Path, split: Split) -> list[SemanticPair]:
    """SPair-71k: ``Layout/large/SPLIT.txt``, ``PairAnnotation/SPLIT/*.json`` and ``JPEGImages/CLASS/``."""
    layout = folder / "Layout" / "large" / f"{split}.txt"
    try:
        names = [line.strip() for line in layout.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise ReconError(f"{layout}: this list of pairs is missing") from error
    pairs = []
    for name in names:
        # A colon is no part of a file's name everywhere: newer archives write an underscore.
        found = [
            path
            for path in (
                folder / "PairAnnotation" / split / f"{name}.json",
                folder / "PairAnnotation" / split / f"{name.replace(':', '_')}.json",
            )
            if path.is_file()
        ]
        if not found:
            raise ReconError(f"{folder / 'PairAnnotation' / split / name}.json: this annotation is missing")
        path = found[0]
        try:
            content = parse_json(path.read_text(encoding="utf-8"))
            category = str(content["category"])
            points = [np.asarray(content[key], np.float64).reshape(-1, 2) for key in ("src_kps", "trg_kps")]
            boxes = [_box(np.asarray(content[key], np.float64), path) for key in ("src_bndbox", "trg_bndbox")]
            images = [folder / "JPEGImages" / category / content[key] for key in ("src_imname", "trg_imname")]
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise ReconError(f"{path}: not a pair annotation of SPair-71k ({error!r})") from error
        if len(points[0]) != len(points[1]):
            raise ReconError(f"{path}: its images have different numbers of keypoints")
        variation = {
            key: int(content[key])
            for key in ("viewpoint_variation", "scale_variation", "truncation", "occlusion")
            if key in content
        }
        pairs.append(
            SemanticPair(
                _image(images[0], path),
                _image(images[1], path),
                category,
                points[0],
                points[1],
                boxes[0],
                boxes[1],
                variation=variation,
            )
        )
    return pairs


def _read_caltech(folder: Path, split: Split) -> list[SemanticPair]:  # noqa: ARG001
    """Caltech-101: ``test_pairs_caltech_with_category.csv`` (class number, outlines as text) and
    ``101_ObjectCategories/CLASS/``."""
    table = folder / "test_pairs_caltech_with_category.csv"
    pairs = []
    for line, row in _rows(table, 7):
        names = [name.split("/", 1)[-1] for name in row[:2]]
        images = [_image(folder / "101_ObjectCategories" / name, table) for name in names]
        outlines = []
        for xs, ys in ((row[3], row[4]), (row[5], row[6])):
            x, y = (_numbers(table, line, text.split(",")) for text in (xs, ys))
            if len(x) != len(y) or len(x) < 3:
                raise ReconError(f"{table}: line {line}: an outline has {len(x)} x and {len(y)} y")
            outlines.append(np.stack([x, y], 1))
        pairs.append(
            SemanticPair(images[0], images[1], images[0].parent.name, outlines[0], outlines[1], outlines=True)
        )
    return pairs


def read_willow_class(folder: Path) -> list[tuple[Path, Float64[np.ndarray, "10 2"]]]:
    """Images of one class of WILLOW-ObjectClass with their keypoints, by name.

    Two layouts are read: the official one (``NAME.png`` beside ``NAME.mat`` with pts_coord, 2×10), and images in
    ``images`` with a ``keypoints.json``.

    Raises:
        ReconError: annotations are missing, damaged, or outside of their image.
    """
    table = folder / "keypoints.json"
    found: list[tuple[Path, Float64[np.ndarray, "10 2"]]] = []
    if table.is_file():
        try:
            for entry in parse_json(table.read_text(encoding="utf-8"))["images"]:
                points = np.asarray(entry["kps"], np.float64)
                path = _image(folder / "images" / entry["name"], table)
                _inside(points, int(entry["width"]), int(entry["height"]), f"{table}: {entry['name']}")
                found.append((path, points))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise ReconError(f"{table}: not a table of keypoints ({error!r})") from error
    else:
        for annotation in sorted(folder.glob("*.mat")):
            (coordinates,) = _mat(annotation, "pts_coord")
            path = next(
                (p for p in (annotation.with_suffix(s) for s in (".png", ".jpg", ".jpeg")) if p.is_file()),
                annotation.with_suffix(".png"),
            )
            points = np.asarray(coordinates, np.float64)[:2].T
            _image(path, annotation)
            found.append((path, points))
    for path, points in found:
        if points.shape != (WILLOW_POINTS, 2) or not np.isfinite(points).all():
            raise ReconError(
                f"{path}: has {points.shape} annotated numbers, {WILLOW_POINTS} points were expected"
            )
    return sorted(found, key=lambda entry: entry[0].name)


_SLACK = 0.1
"""Annotated points may lie this share of the image's side outside of it (an object that is cut off)."""


def _inside(points: Float64[np.ndarray, "n 2"], width: int, height: int, where: str) -> None:
    size = np.array([width, height], np.float64)
    out = ((points < -_SLACK * size) | (points > (1 + _SLACK) * size)).any(axis=-1)
    if out.any():
        x, y = points[out][0]
        raise ReconError(
            f"{where}: {int(out.sum())} keypoints lie outside of the image of {width} x {height} pixels, for example "
            f"({x:.1f}, {y:.1f})"
        )


WILLOW_CLASSES = ("Car", "Duck", "Face", "Motorbike", "Winebottle")

WILLOW_SEED = 0
"""Of the random pairs and of the division of images."""

WILLOW_PAIRS = 100
"""Random pairs of each class and split."""


def _read_willow(folder: Path, split: Split) -> list[SemanticPair]:
    """WILLOW-ObjectClass has no list of pairs: ``WILLOW_PAIRS`` random pairs of each class that is there.

    Images are divided once: a half for training, a tenth for validation, the rest for test, so that no image is in two
    splits.
    """
    pairs = []
    for category in WILLOW_CLASSES:
        if not (folder / category).is_dir():
            continue
        images = divide(read_willow_class(folder / category), split)
        pairs += random_pairs(images, category, WILLOW_PAIRS)
    return pairs


def divide(images: list[Any], split: Split, seed: int = WILLOW_SEED) -> list[Any]:
    """The part of the images that belongs to a split: a half, a tenth (two at least), and the rest."""
    order = np.random.default_rng(seed).permutation(len(images))
    train = len(images) // 2
    val = train + max(2, len(images) // 10)
    part = {"trn": order[:train], "val": order[train:val], "test": order[val:]}[split]
    return [images[i] for i in sorted(part)]


def random_pairs(
    images: list[tuple[Path, Float64[np.ndarray, "n 2"]]], category: str, count: int, seed: int = WILLOW_SEED
) -> list[SemanticPair]:
    """Different ordered pairs of the images, at most ``count``, drawn with a seed."""
    every = [(a, b) for a in range(len(images)) for b in range(len(images)) if a != b]
    order = np.random.default_rng(seed).permutation(len(every))[:count]
    pairs = []
    for index in order:
        a, b = every[index]
        pairs.append(
            SemanticPair(
                images[a][0],
                images[b][0],
                category,
                images[a][1],
                images[b][1],
                _around(images[a][1]),
                _around(images[b][1]),
            )
        )
    return pairs


def _around(points: Float64[np.ndarray, "n 2"]) -> tuple[float, float, float, float]:
    x0, y0 = points.min(0)
    x1, y1 = points.max(0)
    return float(x0), float(y0), float(x1), float(y1)


BENCHMARKS: dict[str, SemanticBenchmark] = {
    "pf-pascal": SemanticBenchmark(
        "PF-PASCAL", "pf-pascal", "image", ("trn", "val", "test"), _read_pf_pascal
    ),
    "pf-willow": SemanticBenchmark("PF-WILLOW", "pf-willow", "box", ("test",), _read_pf_willow),
    "spair-71k": SemanticBenchmark("SPair-71k", "spair-71k", "box", ("trn", "val", "test"), _read_spair),
    "caltech-101": SemanticBenchmark("Caltech-101", "caltech-101", "", ("test",), _read_caltech),
    "willow": SemanticBenchmark(
        "WILLOW-ObjectClass", "willow", "image", ("trn", "val", "test"), _read_willow
    ),
}
"""Benchmarks by the names that ``recon evaluate semantic`` takes."""
