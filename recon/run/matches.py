"""Matches of pairs on disk: a Zarr group for a dense field, an ``.npz`` for point matches."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import zarr
from jaxtyping import Bool

from recon.core.memory import BoundedCache
from recon.core.resize import resize_points
from recon.errors import reading
from recon.io.files import read_arrays
from recon.matching.types import DenseMatch, FlowField, SparseMatch

Pair = tuple[int, int]

FLOWS = "flows.zarr"
MATCHES = "matches"
MATCHING = "matching.json"

AGAIN = "run again with --restart-from match"
"""What to do where matches are damaged."""

_MOST_BYTES = 2 << 30
"""Of one array of a pair."""

FLOW_STEP = 1 / 32
"""Flow on disk is a whole number of these (pixels): the error is at most 1/64 px, the range 1024 px."""

_ARRAYS = ("flow", "confidence", "consistent")

# Every stage reads the pairs anew. To open and read the six arrays of one costs more than to unpack them, so the last
# pairs that this process wrote or read stay in memory as they are on disk.
_recent = BoundedCache(32 << 20)


def forget_recent_matches() -> None:
    """Free the memory of the last pairs: for a stage that takes much of it and reads no pair."""
    _recent.clear()


def write_dense_match(path: Path, match: DenseMatch, seconds: float = 0.0) -> None:
    """Write both directions of a pair as one Zarr group, beside its place and then renamed into it.

    ``seconds`` is what the matcher needed; it is kept with the field.
    """
    # Two machines that work on one folder may have processes of the same number.
    beside = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    fields = {"a": (match.a_to_b, match.consistent_a), "b": (match.b_to_a, match.consistent_b)}
    shares = {
        f"consistent_share_{side}": float(consistent.mean()) for side, (_, consistent) in fields.items()
    }
    group = zarr.open_group(str(beside), mode="w-")  # "w" looks for what was there before
    # All at once: each change of one writes the group's file again.
    group.attrs.update({**shares, "seconds": float(seconds)})
    stored = {}
    for side, (field, consistent) in fields.items():
        steps = np.clip(np.rint(field.flow / FLOW_STEP), -32768, 32767).astype(np.int16)
        confidence = np.rint(np.clip(field.confidence, 0, 1) * 255).astype(np.uint8)
        stored[side] = (steps, confidence, np.array(consistent))
        for name, values in zip(_ARRAYS, stored[side], strict=True):
            array = zarr.open_array(
                str(beside / f"{name}_{side}"),
                mode="w-",
                shape=values.shape,
                chunks=values.shape,
                dtype=values.dtype,
            )
            array[...] = values
    try:
        os.replace(beside, path)
    except OSError:
        shutil.rmtree(beside)
        if not path.exists():  # else another worker, to which the pair was given as well, was faster
            raise
    else:
        for side, arrays in stored.items():
            _recent.get(_identity(path, side), partial(tuple, arrays), _bytes_of)


def save_sparse_match(path: Path, match: SparseMatch, seconds: float = 0.0) -> None:
    """Write the point matches of a pair, and the seconds that the matcher needed."""
    with path.open("wb") as stream:
        np.savez(stream, xy_a=match.xy_a, xy_b=match.xy_b, score=match.score, seconds=np.float64(seconds))


def read_sparse_match(path: Path) -> SparseMatch:
    """The point matches of a pair as a sparse matcher left them, at the photos' working size."""
    data = read_arrays(path, AGAIN)
    with reading(path, AGAIN):
        match = SparseMatch(data["xy_a"], data["xy_b"], data["score"])
        if not match.xy_a.shape == match.xy_b.shape == (len(match.score), 2):
            raise ValueError("its arrays are of different lengths")
        return match


@dataclass(frozen=True)
class Matching:
    """Result of the stage.

    Attributes:
        kind: "dense" or "sparse".
        repeatable: see ``recon.matching.types.Capabilities``.
        pairs: those that were matched; pairs on which the matcher failed are not among them.
        dense: name, settings, size and turning of the dense matcher, after a sparse one that of the densification.
    """

    matcher: str
    kind: str
    repeatable: bool
    pairs: tuple[Pair, ...]
    dense: Mapping[str, Any]


def read_zarr(path: Path) -> Any:
    """Read a Zarr array.

    Raises:
        ReconError: it is not there or damaged.
    """
    with reading(path, AGAIN):
        array = zarr.open_array(str(path), mode="r")
        if array.nbytes > _MOST_BYTES:
            raise ValueError(f"claims to hold {array.nbytes >> 20} MB")
        return array[...]


def zarr_shape(path: Path) -> tuple[int, ...]:
    """Shape of a Zarr array, whose values are not read.

    Raises:
        ReconError: it is not there or damaged.
    """
    with reading(path, AGAIN):
        return tuple(zarr.open_array(str(path), mode="r").shape)


def check_field(path: Path, flow: np.ndarray, *others: np.ndarray) -> None:
    """Check that the arrays of one direction fit together.

    Raises:
        ReconError: they do not.
    """
    with reading(path, AGAIN):
        if flow.ndim != 3 or flow.shape[2] != 2 or any(one.shape != flow.shape[:2] for one in others):
            raise ValueError("the arrays of the pair do not fit together")


def read_dense_match(path: Path) -> DenseMatch:
    """Both directions of a pair, as the stage left them (flow to within 1/64 px)."""

    (a_to_b, consistent_a), (b_to_a, consistent_b) = (_read_direction(path, side) for side in "ab")
    return DenseMatch(a_to_b, b_to_a, consistent_a, consistent_b)


class DirectedMatch(NamedTuple):
    """One direction of a pair.

    Attributes:
        field: from the photo to the other one.
        consistent: (h, w) where the way back agrees.
        target: (height, width) of the other photo at matching size.
    """

    field: FlowField
    consistent: Bool[np.ndarray, "h w"]
    target: tuple[int, int]


def read_directed_match(path: Path, *, forward: bool) -> DirectedMatch:
    """One direction of a pair as ``read_dense_match`` gives both: from A to B, or back."""
    height, width = zarr_shape(path / f"consistent_{'b' if forward else 'a'}")
    return DirectedMatch(*_read_direction(path, "a" if forward else "b"), (height, width))


def _read_direction(path: Path, side: str) -> tuple[FlowField, Bool[np.ndarray, "h w"]]:
    with reading(path, AGAIN):
        key = _identity(path, side)
    flow, confidence, consistent = _recent.get(key, lambda: _read_stored(path, side), _bytes_of)
    field = FlowField(
        flow.astype(np.float32) * np.float32(FLOW_STEP), confidence.astype(np.float32) / np.float32(255)
    )
    return field, consistent.astype(bool)


def _read_stored(path: Path, side: str) -> tuple[np.ndarray, ...]:
    """The arrays of one direction as they are on disk."""
    flow, confidence, consistent = (read_zarr(path / f"{name}_{side}") for name in _ARRAYS)
    check_field(path, flow, confidence)
    return flow, confidence, consistent


def _identity(path: Path, side: str) -> tuple[Any, ...]:
    """What changes when a pair's folder is another one, or when a file of one of its directions is."""
    parts = [part for name in _ARRAYS for part in sorted((path / f"{name}_{side}").rglob("*"))]
    states = [(part, part.stat()) for part in (path, *parts)]
    return (side, *((str(part), state.st_ino, state.st_mtime_ns, state.st_size) for part, state in states))


def _bytes_of(stored: tuple[np.ndarray, ...]) -> int:
    return sum(values.nbytes for values in stored)


class DenseMatches(Mapping[Pair, DenseMatch]):
    """The dense matches of some pairs, read when asked for, and changed by ``then``; the last ones stay in memory.

    Args:
        elsewhere: the folder of pairs whose matches are not in the common one.
    """

    def __init__(
        self,
        folder: Path,
        pairs: Iterable[Pair],
        then: Callable[[Pair, DenseMatch], DenseMatch] | None = None,
        in_memory: int = 64,
        elsewhere: Mapping[Pair, Path] | None = None,
    ) -> None:
        self._pairs = dict.fromkeys(pairs)
        places = elsewhere or {}

        def read(pair: Pair) -> DenseMatch:
            match = read_dense_match(places.get(pair, folder) / f"{pair[0]}_{pair[1]}")
            return match if then is None else then(pair, match)

        self._read = lru_cache(maxsize=in_memory)(read)

    def __getitem__(self, pair: Pair) -> DenseMatch:
        if pair not in self._pairs:
            raise KeyError(pair)
        return self._read(pair)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)


def sampled_dense_match(
    folder: Path,
    size_a: tuple[int, int],
    size_b: tuple[int, int],
    limit: int | None,
    seed: int,
) -> tuple[SparseMatch, int]:
    """The consistent pixels of A and where their flow points, as matches, and how many there are.

    Args:
        folder: Zarr group of the pair.
        size_a, size_b: (width, height) of the photos; positions are brought to these.
        limit: a seeded sample is taken of more.
    """

    consistent = read_zarr(folder / "consistent_a").astype(bool)
    flows, confidence = read_zarr(folder / "flow_a"), read_zarr(folder / "confidence_a")
    check_field(folder, flows, confidence, consistent)
    height, width = consistent.shape
    target_height, target_width = zarr_shape(folder / "consistent_b")
    index = np.flatnonzero(consistent)
    count = len(index)
    if limit is not None and count > limit:
        index = np.sort(np.random.default_rng(seed).choice(index, limit, replace=False))
    flow = flows.reshape(-1, 2)[index].astype(np.float64) * FLOW_STEP
    score = confidence.reshape(-1)[index].astype(np.float32) / np.float32(255)
    xy = np.stack([index % width, index // width], axis=1).astype(np.float64)
    here = resize_points(xy, (width, height), size_a)
    there = resize_points(xy + flow, (target_width, target_height), size_b)
    return SparseMatch(here.astype(np.float32), there.astype(np.float32), score), count


def sampled_sparse_match(path: Path, limit: int | None, seed: int) -> tuple[SparseMatch, int]:
    """The point matches of a pair, of more than ``limit`` a seeded sample, and how many there are.

    Raises:
        ReconError: the file is damaged.
    """
    match = read_sparse_match(path)
    count = len(match.xy_a)
    if limit is not None and count > limit:
        rows = np.sort(np.random.default_rng(seed).choice(count, limit, replace=False))
        match = SparseMatch(match.xy_a[rows], match.xy_b[rows], match.score[rows])
    return match, count


def no_matches() -> SparseMatch:
    """No matches at all."""
    none = np.zeros((0, 2), np.float32)
    return SparseMatch(none, none, np.zeros(0, np.float32))


@dataclass(frozen=True)
class PairOutcome:
    """Outcome of one pair.

    Attributes:
        failure: why there is no result; empty where there is one.
        matches: number of point matches; 0 for a dense field.
        shares: of the pixels of both photos that are consistent; empty for point matches.
        seconds: of the matcher alone: the match, and what it prepared for this pair.
    """

    pair: Pair
    failure: str = ""
    matches: int = 0
    shares: tuple[float, ...] = ()
    seconds: float = 0.0


def read_outcome(pair: Pair, path: Path) -> PairOutcome:
    """Read the result of one pair: a Zarr group or an ``.npz``."""
    if path.suffix == ".npz":
        data = read_arrays(path, AGAIN)
        with reading(path, AGAIN):
            return PairOutcome(pair, matches=len(data["score"]), seconds=float(data["seconds"]))
    with reading(path, AGAIN):
        attributes = zarr.open_group(str(path), mode="r").attrs
        return PairOutcome(
            pair,
            shares=(float(attributes["consistent_share_a"]), float(attributes["consistent_share_b"])),
            seconds=float(attributes["seconds"]),
        )
