"""Photos and matches of a COLMAP database, by SQL: pycolmap opens for writing and brings old files to its version."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt32

from recon.core.colmap import HALF_PIXEL
from recon.errors import ReconError
from recon.matching.types import SparseMatch

NamePair = tuple[str, str]

_PAIR_BASE = 2147483647
"""COLMAP numbers the pair of images i < j as i · (2^31 - 1) + j."""


def matches_from_database(
    path: Path, limit: int = 20_000, seed: int = 0
) -> Iterator[tuple[NamePair, SparseMatch, int]]:
    """Read the matches of a COLMAP database: the verified ones, or the raw ones where nothing was verified.

    Args:
        path: ``database.db``, or the folder that holds it.
        limit: a seeded sample is taken of more.
        seed: of the sample.

    Raises:
        ReconError: it cannot be read.
    """
    file = Path(path) / "database.db" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        return
    with _reading(file) as database:
        names = _names(database)
        keypoints = {
            int(number): np.frombuffer(data or b"", "<f4").reshape(rows, columns)[:, :2]
            - np.float32(HALF_PIXEL)
            for number, rows, columns, data in database.execute(
                "SELECT image_id, rows, cols, data FROM keypoints"
            )
        }
        table = "two_view_geometries"
        if not database.execute(f"SELECT COUNT(*) FROM {table} WHERE rows > 0").fetchone()[0]:
            table = "matches"
        for i, j, rows in _matches(database, table):
            if i not in keypoints or j not in keypoints:
                continue
            count = len(rows)
            if count > limit:
                rows = rows[np.sort(np.random.default_rng(seed).choice(count, limit, replace=False))]
            ends = [(names[i], keypoints[i][rows[:, 0]]), (names[j], keypoints[j][rows[:, 1]])]
            (name_a, xy_a), (name_b, xy_b) = sorted(ends, key=lambda end: end[0])
            yield (name_a, name_b), SparseMatch(xy_a, xy_b, np.ones(len(rows), np.float32)), count


def verified_rows_from_database(
    path: Path,
) -> tuple[dict[str, int], dict[NamePair, UInt32[np.ndarray, "n 2"]]]:
    """Read which keypoints of which photos match, after verification, in order of the photos' numbers.

    Args:
        path: ``database.db``; it is only read.

    Returns:
        Number of keypoints by photo; for each pair of photos the rows of its matches in the keypoints of either.

    Raises:
        ReconError: it cannot be read.
    """
    with _reading(path) as database:
        names = _names(database)
        sizes = database.execute("SELECT image_id, rows FROM keypoints")
        counts = {names[int(number)]: int(rows) for number, rows in sizes}
        found = {(names[i], names[j]): rows for i, j, rows in _matches(database, "two_view_geometries")}
    return counts, found


def photo_sizes_from_database(path: Path) -> dict[str, tuple[int, int]]:
    """Read width and height of every image of a COLMAP database, by name.

    Raises:
        ReconError: it cannot be read.
    """
    file = Path(path) / "database.db" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        return {}
    with _reading(file) as database:
        query = "SELECT name, width, height FROM images JOIN cameras ON images.camera_id = cameras.camera_id"
        return {str(name): (int(width), int(height)) for name, width, height in database.execute(query)}


def _names(database: sqlite3.Connection) -> dict[int, str]:
    return {int(number): str(name) for number, name in database.execute("SELECT image_id, name FROM images")}


def _matches(
    database: sqlite3.Connection, table: str
) -> Iterator[tuple[int, int, UInt32[np.ndarray, "n 2"]]]:
    query = f"SELECT pair_id, rows, data FROM {table} WHERE rows > 0 ORDER BY pair_id"
    for number, count, data in database.execute(query):
        i, j = divmod(int(number), _PAIR_BASE)
        yield i, j, np.frombuffer(data, "<u4").reshape(count, 2)


@contextmanager
def _reading(file: Path) -> Iterator[sqlite3.Connection]:
    """Open a database for reading; nothing is left beside it, as SQLite does beside one that COLMAP wrote.

    One beside which a log of unwritten pages lies is in use, or was when its program was killed: that log is read too.

    Raises:
        ReconError: the block cannot read it.
    """
    in_use = file.with_name(f"{file.name}-wal").exists()
    where = f"{file.resolve().as_uri()}?mode=ro{'' if in_use else '&immutable=1'}"
    try:
        with closing(sqlite3.connect(where, uri=True)) as database:
            yield database
    except (sqlite3.Error, ValueError, TypeError, IndexError, KeyError, OverflowError, MemoryError) as error:
        raise ReconError(f"{file}: not a COLMAP database that can be read ({error})") from error
