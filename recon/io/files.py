"""Files that appear in their place complete, or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from recon.errors import ReconError, reading

_SQLITE_SIDECARS = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a database while it is open, and leaves there when it is killed."""

_GROWTH = 1 << 16
"""Bytes, more than the buffers of the usual writers."""

_FLUSHES = 16
"""Files that are flushed to the disk at the same time."""

_MOST_BYTES = 3 << 30
"""Of the arrays of one file: four times the depth, normals and confidence of a photo of 60 megapixels."""

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
    files, folders = [], []
    for folder, _, names in os.walk(root):
        folders.append(Path(folder))
        files += [Path(folder, name) for name in names]
    if check:
        for path in files:
            check_growth(path)
    # Many at once: the disk takes those that wait together.
    with ThreadPoolExecutor(_FLUSHES) as pool:
        for flushed in (pool.map(sync_file, files), pool.map(sync_directory, folders)):
            deque(flushed, maxlen=0)


def file_sha256(path: Path | str) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def finite(value: Any) -> Any:
    """The same value with None where a number is not finite, for JSON that every reader takes."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(one) for one in value]
    return value


def read_texts(path: Path) -> dict[str, str]:
    """Read a JSON table of texts by name; empty where there is none that can be read."""
    try:
        stored = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(name): str(text) for name, text in stored.items()} if isinstance(stored, dict) else {}


def parse_json(text: str | bytes) -> Any:
    """The values of a JSON text.

    Raises:
        ValueError: it is none, or nested deeper than Python can follow.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_arrays(path: Path, way_out: str = "") -> dict[str, np.ndarray]:
    """Read all arrays of an ``.npz`` file.

    Args:
        path: the file.
        way_out: what the user can do where it is damaged.

    Raises:
        ReconError: it is not there, damaged, or unpacks to more than any of recon's files.
    """
    with reading(path, way_out), np.load(path) as data:
        size = sum(entry.file_size for entry in data.zip.infolist())
        if size > _MOST_BYTES:
            raise ReconError(
                f"{path}: unpacks to {size >> 20} MB; it is damaged" + (way_out and f"; {way_out}")
            )
        return {name: data[name] for name in data.files}


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


@dataclass
class AtomicFolder:
    """A folder in which every file appears complete, or not at all.

    Attributes:
        root: the folder.
        stage, fingerprint: who writes, and under which settings; they name the folders that survive a kill.
        written: paths below root that were put in place.
    """

    root: Path
    stage: str = ""
    fingerprint: str = ""
    written: list[str] = field(default_factory=list)

    def path(self, *parts: str) -> Path:
        """A path in the folder (not created)."""
        return self.root.joinpath(*parts)

    @contextmanager
    def writing(self, *parts: str) -> Iterator[Path]:
        """A path to write a file to; it is flushed and renamed into its place when the block ends well.

        The temporary path keeps the suffix, so that libraries that choose a format by it work. Of an SQLite
        database what a killed process left beside it goes too: SQLite would lay it over the new content.
        """
        target = self.path(*parts)
        with atomic_path(target, self.root / INCOMPLETE) as temporary:
            yield temporary
            for sidecar in _SQLITE_SIDECARS:
                target.with_name(target.name + sidecar).unlink(missing_ok=True)
        self._note(target)

    def write_bytes(self, name: str, data: bytes) -> Path:
        """Write a file atomically; returns its path."""
        with self.writing(name) as temporary:
            temporary.write_bytes(data)
        return self.path(name)

    def write_text(self, name: str, text: str) -> Path:
        """Write a UTF-8 text file atomically; returns its path."""
        return self.write_bytes(name, text.encode("utf-8"))

    def write_json(self, name: str, value: Any) -> Path:
        """Write a JSON file atomically; returns its path."""
        return self.write_text(name, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    def write_npz(self, name: str, /, compressed: bool = True, **arrays: np.ndarray) -> Path:
        """Write arrays into one .npz file atomically; returns its path."""
        with self.writing(name) as temporary, temporary.open("wb") as stream:
            if compressed:
                np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
            else:
                np.savez(stream, **arrays)  # type: ignore[arg-type]
        return self.path(name)

    @contextmanager
    def fresh_directory(self, name: str) -> Iterator[Path]:
        """An empty directory to fill; when the block ends well, it takes the place of ``name``.

        What was there before is removed only then. If the block fails, the old directory stays and the new
        one goes.
        """
        with self._directory(name, f"{name.replace('/', '_')}.new", keep=False) as directory:
            yield directory

    @contextmanager
    def resumable_directory(self, name: str) -> Iterator[Path]:
        """As ``fresh_directory``, but what is in it survives a kill while the stage's fingerprint stays.

        The stage looks what is there already and adds the rest. Each file must be written by ``write_into``
        (or be renamed into place in another way), so that a file that is there is complete.
        """
        built = f"{name.replace('/', '_')}.{self.stage}.{self.fingerprint[:16] or 'unnamed'}.partial"
        with self._directory(name, built, keep=True) as directory:
            yield directory

    @contextmanager
    def _directory(self, name: str, built: str, keep: bool) -> Iterator[Path]:
        target, building = self.path(name), self.root / INCOMPLETE / built
        if building.exists() and not keep:
            shutil.rmtree(building)
        building.mkdir(parents=True, exist_ok=True)
        try:
            yield building
        except BaseException:
            if not keep:
                shutil.rmtree(building, ignore_errors=True)
            raise
        for leftover in building.glob(".writing-*"):
            leftover.unlink()
        sync_tree(building, check=not keep)
        target.parent.mkdir(parents=True, exist_ok=True)
        old = self.root / INCOMPLETE / f"{built}.old"
        if old.exists():
            shutil.rmtree(old)
        if target.exists():
            os.replace(target, old)
        os.replace(building, target)
        shutil.rmtree(old, ignore_errors=True)
        self._note(target)

    @contextmanager
    def write_into(self, directory: Path, name: str) -> Iterator[Path]:
        """A path to write to that is then renamed to ``directory/name``, in a directory being built."""
        with atomic_path(directory / name, directory, prefix=".writing-", durable=False) as temporary:
            yield temporary

    def remove(self, *parts: str) -> None:
        """Remove a file or directory of the workspace if it is there."""
        target = self.path(*parts)
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)
        name = target.relative_to(self.root).as_posix()
        if name in self.written:
            self.written.remove(name)

    def _note(self, target: Path) -> None:
        name = target.relative_to(self.root).as_posix()
        if name not in self.written:
            self.written.append(name)
