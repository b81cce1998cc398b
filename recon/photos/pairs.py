"""Choice of the pairs of photos that are worth a look."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations, pairwise
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from jaxtyping import Float32, Int64, UInt8, UInt64

from recon.core.memory import Lazy
from recon.errors import UsageError
from recon.photos.films import FILM_SUFFIXES
from recon.photos.types import PhotoSet

Pair = tuple[int, int]
"""Photo ids (i, j) with i < j."""

PairsMode = Literal["auto", "exhaustive", "sequential", "retrieval", "file"]

_WORDS = 64
"""Size of the visual vocabulary: VLAD works with 64 words already (Jégou et al., CVPR 2010, table 2)."""
_REST = 1.0
"""A match that moves by less than this many pixels is at rest: interest points are found to within half a pixel."""
_REST_SHARE = 0.3
"""Of the matches of a pair; on a rendered turntable whose wall fills a quarter of the photos 0.32 and more."""
_TRAINING_DESCRIPTORS = 20_000
_DESCRIPTORS_PER_PHOTO = 1_500


def candidate_pairs(
    photo_set: PhotoSet,
    mode: PairsMode,
    descriptors: Sequence[UInt8[np.ndarray, "_ 128"]],
    *,
    exhaustive_limit: int,
    overlap: int,
    loop: bool,
    retrieved: int,
    seed: int,
    vocabulary: Callable[[], Float32[np.ndarray, "w 128"]] | None = None,
) -> list[Pair]:
    """Pairs of photos to look at, in order; with retrieval also neighbours in order, and along films.

    Args:
        mode: ``auto`` is exhaustive up to ``exhaustive_limit`` photos and retrieval beyond; not ``file``.
        descriptors: of the interest points of each photo; read by retrieval only.
        overlap, loop: as ``sequential_pairs`` and ``along_films`` take them.
        retrieved: candidates per photo.
        vocabulary: gives the words of retrieval; None for those of the descriptors themselves.
    """
    n = len(photo_set.photos)
    if mode == "auto":
        mode = "exhaustive" if n <= exhaustive_limit else "retrieval"
    if mode == "exhaustive":
        return list(exhaustive_pairs(n))
    if mode == "sequential":
        return list(sequential_pairs(n, overlap, loop))
    found = retrieval_pairs(descriptors, retrieved, seed, vocabulary)
    return sorted({*found, *pairwise(range(n)), *along_films(photo_set, overlap)})


def exhaustive_pairs(n: int) -> tuple[Pair, ...]:
    """Compute all pairs of n photos, in order."""
    return tuple(combinations(range(n), 2))


def sequential_pairs(n: int, overlap: int, loop: bool = False) -> tuple[Pair, ...]:
    """Compute the pairs of photos that are at most ``overlap`` apart in order.

    Args:
        n: number of photos.
        overlap: neighbours on each side, at least 1.
        loop: the last photo is followed by the first.

    Raises:
        UsageError: overlap below 1.
    """
    if overlap < 1:
        raise UsageError(f"sequential pairs need an overlap of at least 1, got {overlap}")
    found = set()
    for i in range(n):
        for step in range(1, overlap + 1):
            j = (i + step) % n if loop else i + step
            if j < n and j != i:
                found.add((min(i, j), max(i, j)))
    return tuple(sorted(found))


def retrieval_pairs(
    descriptors: Sequence[UInt8[np.ndarray, "_ 128"]],
    k: int,
    seed: int = 0,
    vocabulary: Callable[[], Float32[np.ndarray, "w 128"]] | None = None,
) -> tuple[Pair, ...]:
    """Compute, for each photo, the k photos that look most alike, as a set of pairs.

    A small vocabulary is trained on the photos' own descriptors (SciPy's k-means); each photo becomes a VLAD
    vector with intra-normalisation and signed square root (Jégou et al., CVPR 2010; Arandjelović & Zisserman,
    CVPR 2013, section 3.1); likeness is the cosine. Nothing is downloaded.

    Args:
        descriptors: per photo (n, 128) uint8 RootSIFT; may be empty, then the photo is in no pair. They are asked for
            several times, one photo at a time, so that they may be read when they are needed.
        k: candidates per photo; a pair is kept if either photo asks for it.
        seed: of what is drawn.
        vocabulary: gives the words; None for those of the descriptors (``visual_words``).
    """
    usable = [i for i, d in enumerate(descriptors) if len(d)]
    if len(usable) < 2:
        return ()
    words = visual_words(descriptors, seed) if vocabulary is None else vocabulary()
    vectors = vlad_vectors(Lazy(len(usable), lambda i: descriptors[usable[i]]), words, seed)
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -np.inf)
    found = set()
    for row, i in enumerate(usable):
        for column in np.argsort(-likeness[row], kind="stable")[: min(k, len(usable) - 1)]:
            j = usable[int(column)]
            found.add((min(i, j), max(i, j)))
    return tuple(sorted(found))


def visual_words(
    descriptors: Sequence[UInt8[np.ndarray, "_ 128"]], seed: int = 0
) -> Float32[np.ndarray, "w 128"]:
    """Train a small vocabulary on local descriptors (see ``retrieval_pairs``).

    Args:
        descriptors: per photo (n, 128) uint8; not all of them empty.
        seed: of what is drawn.
    """
    from scipy.cluster.vq import kmeans2

    numbers = [_mixed(_numbers(d, seed)[_drawn(d, seed)]) for d in descriptors]
    every = np.sort(np.concatenate(numbers))
    last = every[min(len(every), _TRAINING_DESCRIPTORS) - 1]
    training = np.concatenate(
        [_units(d[_drawn(d, seed)][mine <= last]) for d, mine in zip(descriptors, numbers, strict=True)]
    )
    count = min(_WORDS, max(1, len(training) // 8))
    chosen = np.concatenate([mine[mine <= last] for mine in numbers])
    start = training[np.sort(np.argsort(_mixed(chosen), kind="stable")[:count])]
    words = kmeans2(training, start, iter=8, minit="matrix", missing="warn")[0]
    return np.asarray(words, np.float32)


def vlad_vectors(
    descriptors: Sequence[UInt8[np.ndarray, "_ 128"]], words: Float32[np.ndarray, "w 128"], seed: int = 0
) -> Float32[np.ndarray, "n d"]:
    """Compute one unit vector per photo from its local descriptors (see ``retrieval_pairs``).

    The vector of a photo depends on its own descriptors and the words alone.

    Args:
        descriptors: per photo (n, 128) uint8, none empty.
        words: of the vocabulary.
        seed: of what is drawn.

    Returns:
        (photos, words · 128) float32.
    """
    half_squares = 0.5 * (words**2).sum(axis=1)
    out = np.zeros((len(descriptors), len(words), 128), np.float32)
    for i, d in enumerate(descriptors):
        f = _units(d[_drawn(d, seed)])
        nearest = np.argmax(f @ words.T - half_squares, axis=1)
        np.add.at(out[i], nearest, f - words[nearest])
    out = np.sign(out) * np.sqrt(np.abs(out))
    out /= np.maximum(np.linalg.norm(out, axis=2, keepdims=True), 1e-9)
    flat = out.reshape(len(out), -1)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)


def _units(descriptors: UInt8[np.ndarray, "n 128"]) -> Float32[np.ndarray, "n 128"]:
    f = descriptors.astype(np.float32)
    return f / np.maximum(np.linalg.norm(f, axis=1, keepdims=True), 1e-6)


def _drawn(descriptors: UInt8[np.ndarray, "n 128"], seed: int) -> Int64[np.ndarray, " m"]:
    """Rows of the descriptors that stand for a photo, the same ones whatever other photos there are."""
    return np.sort(np.argsort(_numbers(descriptors, seed), kind="stable")[:_DESCRIPTORS_PER_PHOTO])


def _numbers(descriptors: UInt8[np.ndarray, "n 128"], seed: int) -> UInt64[np.ndarray, " n"]:
    """A number for each descriptor that looks like a random one."""
    weights = np.random.default_rng(seed).integers(1 << 63, size=128, dtype=np.uint64)
    return _mixed(descriptors.astype(np.uint64) @ weights)


def _mixed(values: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """Numbers that look like random ones, and depend on one each (SplitMix64; Steele, Lea & Flood, OOPSLA 2014)."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)), np.uint64)


def pairs_at_rest(moves: Iterable[Float32[np.ndarray, "n 2"]]) -> int:
    """Count the pairs of photos of which a good part is at the very same place in both.

    So it is in nearly all pairs where an object turns before a background that stands still, or where the camera does
    not move at all; between other photos only now and then.

    Args:
        moves: of each pair, how far its matches move, pixels.
    """
    return sum(
        len(one) > 0 and float((np.linalg.norm(one, axis=1) < _REST).mean()) >= _REST_SHARE for one in moves
    )


def pairs_from_file(path: Path, names: Sequence[str]) -> tuple[Pair, ...]:
    """Read pairs of photo names, one pair a line; empty lines and lines that begin with # are skipped.

    Two names are separated by a tab, a comma or spaces; names that hold spaces or commas need the tab.

    Args:
        path: text file (UTF-8).
        names: the photos' names in order of their ids.

    Raises:
        UsageError: the file is missing, not text, or a line does not name two different photos of the set.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise UsageError(f"{path}: there is no such file; write one pair of photo names a line") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as text ({error})") from error
    ids = {name: i for i, name in enumerate(names)}
    found = set()
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        parts = _two_names(text)
        if len(parts) != 2:
            raise UsageError(f"{path}, line {number}: expected two photo names, got {text!r}")
        for name in parts:
            if name not in ids:
                raise UsageError(
                    f"{path}, line {number}: no photo is named {name!r}; names are relative to the "
                    f"photo folder, for example {names[0]!r}"
                    if names
                    else f"{path}, line {number}: no photo is named {name!r}"
                )
        i, j = ids[parts[0]], ids[parts[1]]
        if i == j:
            raise UsageError(f"{path}, line {number}: {parts[0]!r} is paired with itself")
        found.add((min(i, j), max(i, j)))
    if not found:
        raise UsageError(f"{path}: holds no pairs; write one pair of photo names a line")
    return tuple(sorted(found))


def _two_names(text: str) -> list[str]:
    for separator in ("\t", ","):
        if separator in text:
            return [part.strip() for part in text.split(separator)]
    return text.split()


def select_pairs(
    n: int, scores: Mapping[Pair, int], neighbours: int = 8, plausible: Iterable[Pair] = ()
) -> tuple[Pair, ...]:
    """Choose the pairs to match from the evidence of interest points.

    Kept are: a maximum spanning forest of the scores (nothing that evidence connects falls apart); the best
    ``neighbours`` pairs of each photo; and, where sparse evidence leaves photos unconnected, plausible pairs
    between the parts, nearest in order first, up to ``neighbours`` pairs a photo.

    Args:
        n: number of photos.
        scores: sparse matches per pair (i, j), i < j; pairs without evidence may be missing or 0.
        neighbours: pairs per photo, at least 1.
        plausible: pairs worth a dense look though sparse features found nothing.

    Returns:
        Sorted pairs; the same for the same input in any order.

    Raises:
        UsageError: neighbours below 1.
    """
    if neighbours < 1:
        raise UsageError(f"each photo needs at least one neighbour, got {neighbours}")
    ranked = sorted((pair for pair, score in scores.items() if score > 0), key=lambda p: (-scores[p], p))
    parent = list(range(n))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    chosen: set[Pair] = set()
    for i, j in ranked:  # Kruskal's spanning forest, best evidence first
        if root(i) != root(j):
            parent[root(i)] = root(j)
            chosen.add((i, j))
    taken = [0] * n
    best: set[Pair] = set()
    for i, j in ranked:
        if taken[i] < neighbours or taken[j] < neighbours:
            best.add((i, j))
        taken[i] += 1
        taken[j] += 1
    chosen |= best
    part = [root(i) for i in range(n)]
    degree = [0] * n
    for i, j in chosen:
        degree[i] += 1
        degree[j] += 1
    between = {(min(p), max(p)) for p in plausible if part[p[0]] != part[p[1]]}
    for i, j in sorted(between, key=lambda p: (p[1] - p[0], p)):
        # A bridge between two parts is kept even if its photos have their fill: without it they stay apart.
        bridges = root(i) != root(j)
        if bridges or (degree[i] < neighbours and degree[j] < neighbours):
            chosen.add((i, j))
            degree[i] += 1
            degree[j] += 1
            parent[root(i)] = root(j)
    return tuple(sorted(chosen))


def without_weak(scores: dict[Pair, int], share: float) -> dict[Pair, int]:
    """Pairs that are not far weaker than the best pairs of both their photos.

    A glance past a corner costs as much to match as a real overlap and tells nothing new.

    Args:
        scores: evidence of every pair.
        share: of the best pair's evidence that a pair needs.
    """
    best: dict[int, int] = {}
    for (i, j), score in scores.items():
        best[i], best[j] = max(best.get(i, 0), score), max(best.get(j, 0), score)
    return {(i, j): score for (i, j), score in scores.items() if score >= share * min(best[i], best[j])}


def along_films(photo_set: PhotoSet, overlap: int) -> list[Pair]:
    """Frames of one film that follow each other; retrieval finds where the film comes back to a place."""
    films: dict[str, list[int]] = {}
    for photo in photo_set.photos:
        folder = PurePosixPath(photo.name).parent
        if folder.suffix.lower() in FILM_SUFFIXES:
            films.setdefault(str(folder), []).append(photo.id)
    return [
        (frames[i], frames[j]) for frames in films.values() for i, j in sequential_pairs(len(frames), overlap)
    ]
