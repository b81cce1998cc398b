"""Files that appear in their place complete, or not at all."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_GROWTH = 1 << 16
"""Bytes, more than the buffers of the usual writers."""

INCOMPLETE = ".incomplete"
"""Folder of a workspace in which things are built before they are renamed into their place."""


def sync_file(path: Path) -> None:
    """Flush a file's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_growth(path: Path) -> None:
    """See that a file could still grow; it is left as it was.

    Libraries in C++ lose what does not fit on the disk without a word (Open3D and COLMAP do). A file that cannot even
    take the size of a writer's buffer more may be such a torso.

    Raises:
        OSError: it cannot grow, as the disk is full.
    """
    size = path.stat().st_size
    with path.open("r+b", buffering=0) as stream:
        try:
            stream.seek(size)
            data = memoryview(bytes(_GROWTH))
            while data:
                data = data[stream.write(data) :]
        except OSError as error:
            error.filename = str(path)
            raise
        finally:
            stream.truncate(size)


def sync_directory(path: Path) -> None:
    """Flush a directory's entries to the disk, where the system can do that."""
    with contextlib.suppress(OSError):  # Windows can't open a directory; network file systems may refuse
        sync_file(path)


def sync_tree(root: Path, check: bool = False) -> None:
    """Flush a directory and everything below it to the disk; with ``check``, ``check_growth`` of every file."""
    for folder, _, names in os.walk(root):
        for name in names:
            if check:
                check_growth(Path(folder, name))
            sync_file(Path(folder, name))
        sync_directory(Path(folder))


@contextmanager
def atomic_path(
    target: Path, folder: Path | None = None, prefix: str = "writing-", durable: bool = True
) -> Iterator[Path]:
    """A temporary path in ``folder`` that is renamed to ``target`` when the block ends well.

    With ``durable`` the content is on the disk before the name is, so that a power cut leaves the old file or
    the new, and a file that a library cut short on a full disk is refused.
    """
    folder = folder or target.parent
    folder.mkdir(parents=True, exist_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{prefix}{os.getpid()}-{threading.get_ident()}-{target.name}"
    try:
        yield temporary
        if durable:
            check_growth(temporary)
            sync_file(temporary)
        os.replace(temporary, target)
        if durable:
            sync_directory(target.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
