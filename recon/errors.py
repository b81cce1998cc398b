"""Errors that a user can act on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class ReconError(Exception):
    """Something is wrong with the input or the environment; the message says what to do (exit code 1)."""


class UsageError(ReconError):
    """The call itself is wrong: an unknown key, a value out of range, a file that is not there (exit code 2)."""


@contextmanager
def reading(path: Path | str, way_out: str = "") -> Iterator[None]:
    """Name the file in every error that its content causes while the block reads it.

    The readers of libraries raise nearly anything on a damaged file: ``KeyError``, ``zlib.error``, ``IndexError``,
    ``MemoryError`` where it claims to be large.

    Args:
        path: the file.
        way_out: what the user can do about it.

    Raises:
        ReconError: the block raised an exception of another kind.
    """
    way_out = f"; {way_out}" if way_out else ""
    try:
        yield
    except ReconError:
        raise
    except FileNotFoundError as error:
        raise ReconError(f"{path}: is not there{way_out}") from error
    except MemoryError as error:
        raise ReconError(
            f"{path}: claims to hold more than there is memory for; it is damaged{way_out}"
        ) from error
    except Exception as error:
        reason = str(error) or type(error).__name__
        reason = f"no {reason}" if isinstance(error, KeyError) else reason
        raise ReconError(f"{path}: cannot be read ({reason}){way_out}") from error
