"""Files that appear in their place complete, or not at all."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INCOMPLETE = ".incomplete"
"""Folder of a workspace in which things are built before they are renamed into their place."""


def sync_file(path: Path) -> None:
    """Flush a file's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Flush a directory's entries to the disk, where the system can do that."""
    with contextlib.suppress(OSError):  # Windows can't open a directory; network file systems may refuse
        sync_file(path)


def sync_tree(root: Path) -> None:
    """Flush a directory and everything below it to the disk."""
    for folder, _, names in os.walk(root):
        for name in names:
            sync_file(Path(folder, name))
        sync_directory(Path(folder))


@contextmanager
def atomic_path(
    target: Path, folder: Path | None = None, prefix: str = "writing-", durable: bool = True
) -> Iterator[Path]:
    """A temporary path in ``folder`` that is renamed to ``target`` when the block ends well.

    With ``durable`` the content is on the disk before the name is, so that a power cut leaves the old file or
    the new.
    """
    folder = folder or target.parent
    folder.mkdir(parents=True, exist_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{prefix}{os.getpid()}-{threading.get_ident()}-{target.name}"
    try:
        yield temporary
        if durable:
            sync_file(temporary)
        os.replace(temporary, target)
        if durable:
            sync_directory(target.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
