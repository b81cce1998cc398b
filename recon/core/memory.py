"""The machine's memory, and caches that stay within a part of it."""

from __future__ import annotations

import ctypes
import gc
import math
import mmap
import re
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, overload
from uuid import uuid4

import numpy as np

from recon.errors import UsageError

Item = TypeVar("Item")

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where a container's limit stands: control groups of version 2 and 1."""
MAPPED = 32 << 20
"""Arrays of so many bytes are mapped one by one: the most that glibc allows."""
KEPT_FREE = 128 << 20
"""Bytes that are free and stay with the process, for the next arrays."""
RARE_COLLECTIONS = 50_000
"""New objects after which Python looks for cycles, instead of 700. Compiling kernels makes millions of objects; looking
among them takes a seventh of its time."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h


def memory_size(text: str, option: str = "--memory") -> int:
    """The bytes that a text such as 8G, 1.5GB or 900M stands for.

    Raises:
        UsageError: it is no size, or less than 64 MB.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", text.strip(), re.IGNORECASE)
    size = int(float(match.group(1)) * _UNITS[match.group(2).upper()]) if match else 0
    if size < 64 << 20:
        raise UsageError(f"{option} {text}: it is a size of 64M or more, for example 8G or 900M")
    return size


def machine_memory() -> int:
    """Bytes that this process may use: what the machine has, or what its control group allows if that is less."""
    import psutil

    size = int(psutil.virtual_memory().total)
    for name in _LIMITS:
        try:
            text = Path(name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            size = min(size, int(text))
    return size


def peak_memory() -> int:
    """The most bytes that this process has had in memory since it began, as the system counts them; 0 where it does not
    tell."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
    return int(found.group(1)) << 10 if found else 0


class BoundedCache:
    """Things that can be made again, kept while they fit into a number of bytes; the oldest use goes first.

    Safe for threads. Two threads that ask for the same thing at once may both make it.
    """

    def __init__(self, limit: int) -> None:
        """Start empty.

        Args:
            limit: bytes of all things together.
        """
        self.limit = limit
        self.bytes = 0
        self._items: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Item], size: Callable[[Item], int]) -> Item:
        """The thing with a key, made where it is not there."""
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
                kept: Item = self._items[key][0]
                return kept
        made = make()
        bytes_of_it = size(made)
        with self._lock:
            if key not in self._items:
                self._items[key] = (made, bytes_of_it)
                self.bytes += bytes_of_it
            while self.bytes > self.limit and self._items:
                self.bytes -= self._items.popitem(last=False)[1][1]
        return made

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._items.clear()
            self.bytes = 0


class Lazy(Sequence[Item], Generic[Item]):
    """A sequence whose items are made when they are asked for."""

    def __init__(self, length: int, make: Callable[[int], Item]) -> None:
        self._length, self._make = length, make

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> Lazy[Item]: ...

    def __getitem__(self, index: int | slice) -> Item | Lazy[Item]:
        if isinstance(index, slice):
            chosen = range(self._length)[index]
            return Lazy(len(chosen), lambda i: self._make(chosen[i]))
        return self._make(range(self._length)[index])

    def __iter__(self) -> Iterator[Item]:
        return (self._make(index) for index in range(self._length))


class Scratch:
    """Arrays for the time of a block: in memory, or in a folder when they are large; then ``release`` frees the memory
    that the system holds of them, and reads it again where it is needed.

    Use as a context manager; the files go when the block ends.
    """

    def __init__(self, folder: Path | None = None, limit: int = 0) -> None:
        """Start without arrays.

        Args:
            folder: where files may be made; None keeps all in memory.
            limit: bytes of all arrays together that are kept in memory; -1 for none.
        """
        self._folder, self._limit = folder, limit
        self._files: list[tuple[Path, np.memmap[Any, Any]]] = []

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *_: object) -> None:
        for path, _array in self._files:
            path.unlink(missing_ok=True)
        self._files.clear()

    def arrays(self, length: int, kinds: Sequence[tuple[tuple[int, ...], type]]) -> list[np.ndarray]:
        """Arrays of zeros of one length whose items have the shapes and types of ``kinds``."""
        total = sum(length * math.prod(shape) * np.dtype(kind).itemsize for shape, kind in kinds)
        if self._folder is None or total <= self._limit:
            return [np.zeros((length, *shape), kind) for shape, kind in kinds]
        self._folder.mkdir(parents=True, exist_ok=True)
        made: list[np.ndarray] = []
        for shape, kind in kinds:
            path = self._folder / f"scratch-{uuid4().hex}"
            mapped = np.memmap(path, kind, "w+", shape=(length, *shape))
            self._files.append((path, mapped))
            made.append(mapped.view(np.ndarray))
        return made

    def release(self) -> None:
        """Let the system take back the memory of arrays that lie in files; what is in them stays."""
        release([array for _, array in self._files])

    def files(self) -> tuple[str, ...]:
        """Files of the arrays, in order, with all that was put into them; none of arrays in memory."""
        for _, array in self._files:
            array.flush()
        return tuple(str(path) for path, _ in self._files)


def release(arrays: Iterable[np.memmap[Any, Any]]) -> None:
    """Let the system take back the memory of mapped files; what is in them stays."""
    for array in arrays:
        mapping = getattr(array, "_mmap", None)
        if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapping.madvise(mmap.MADV_DONTNEED)


class Latest:
    """The thing that was made last, kept for those who ask for it again under the same key; safe for threads.

    Tasks of one kind share in it what a process needs for all of them: a matcher, an opened run.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key: Hashable = None
        self._made: Any = None

    def get(self, key: Hashable, make: Callable[[], Item]) -> Item:
        """The thing with a key; who asks while it is being made waits."""
        with self._lock:
            if key != self._key or self._made is None:
                self._key, self._made = None, None
                self._made, self._key = make(), key
            made: Item = self._made
            return made

    def clear(self) -> None:
        """Forget it."""
        with self._lock:
            self._key, self._made = None, None


def once(make: Callable[[], Item]) -> Callable[[], Item]:
    """A function that makes a thing when it is first called, and hands out the same one from then on; who calls while
    it is being made waits."""
    kept = Latest()
    return lambda: kept.get(True, make)


def give_memory_back(*, cycles: bool = True) -> None:
    """Hand freed memory back to the system: glibc would keep a gigabyte of it after a mesh.

    Args:
        cycles: look for objects first that hold each other only. It takes a tenth of a second; arrays do not.
    """
    if cycles:
        gc.collect()
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


def keep_for_arrays() -> None:
    """Have glibc take arrays below 32 MB from memory that was freed before, as it does by itself once one of that size
    was freed. Until then large arrays get new pages each time: building tracks first of all took a third more time."""
    option = _of_glibc("mallopt")
    if option is not None:
        for number, size in ((_MMAP_THRESHOLD, MAPPED), (_TRIM_THRESHOLD, KEPT_FREE)):
            option(number, size)


def _of_glibc(name: str) -> Any:
    """A function of the C library; None where it has none of this name."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
