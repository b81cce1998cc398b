"""Photos and matches of a COLMAP database, by SQL: pycolmap opens for writing and brings old files to its version."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np

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
    database = _opened(file)
    try:
        names = {
            int(number): str(name) for number, name in database.execute("SELECT image_id, name FROM images")
        }
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
        query = f"SELECT pair_id, rows, data FROM {table} WHERE rows > 0 ORDER BY pair_id"
        for number, count, data in database.execute(query):
            i, j = divmod(int(number), _PAIR_BASE)
            rows = np.frombuffer(data, "<u4").reshape(count, 2)
            if i not in keypoints or j not in keypoints:
                continue
            if count > limit:
                rows = rows[np.sort(np.random.default_rng(seed).choice(count, limit, replace=False))]
            ends = [(names[i], keypoints[i][rows[:, 0]]), (names[j], keypoints[j][rows[:, 1]])]
            (name_a, xy_a), (name_b, xy_b) = sorted(ends, key=lambda end: end[0])
            yield (name_a, name_b), SparseMatch(xy_a, xy_b, np.ones(len(rows), np.float32)), int(count)
    except (sqlite3.Error, ValueError, TypeError, IndexError, KeyError, OverflowError, MemoryError) as error:
        raise ReconError(f"{file}: not a COLMAP database that can be read ({error})") from error
    finally:
        database.close()


def photo_sizes_from_database(path: Path) -> dict[str, tuple[int, int]]:
    """Read width and height of every image of a COLMAP database, by name.

    Raises:
        ReconError: it cannot be read.
    """
    file = Path(path) / "database.db" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        return {}
    database = _opened(file)
    try:
        query = "SELECT name, width, height FROM images JOIN cameras ON images.camera_id = cameras.camera_id"
        return {str(name): (int(width), int(height)) for name, width, height in database.execute(query)}
    except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:
        raise ReconError(f"{file}: not a COLMAP database that can be read ({error})") from error
    finally:
        database.close()


def _opened(file: Path) -> sqlite3.Connection:
    """Open a database for reading; nothing is left beside it, as SQLite does beside one that COLMAP wrote.

    One beside which a log of unwritten pages lies is in use, or was when its program was killed: that log is read too.
    """
    in_use = file.with_name(f"{file.name}-wal").exists()
    return sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro{'' if in_use else '&immutable=1'}", uri=True)
