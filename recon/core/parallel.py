"""Work spread over a pool of threads, results in order.

Threads, not processes: the kernels release the interpreter lock, so threads share the images without copying
them.
"""

from __future__ import annotations

import os
from bisect import insort
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

WORKER = "recon-worker"
"""Prefix of the names of the pool's threads."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def imap_ordered(
    fn: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int = 2
) -> Iterator[Result]:
    """Results of ``fn`` over ``items``, in the order of the items, as soon as each is there.

    At most ``threads * ahead`` items are in work or waiting to be fetched, so that a slow consumer bounds the
    memory. The first exception cancels what has not begun, waits for what runs, and is raised. On Ctrl-C
    nothing is waited for.

    Raises:
        Whatever ``fn`` raises, for the earliest item that failed.
    """
    if threads <= 1:
        for item in items:
            yield fn(item)
        return
    pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix=WORKER)
    waiting: deque[Future[Result]] = deque()
    wait_for_running = True
    try:
        for item in items:
            waiting.append(pool.submit(fn, item))
            if len(waiting) >= threads * max(1, ahead):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except KeyboardInterrupt:
        wait_for_running = False
        raise
    finally:
        pool.shutdown(wait=wait_for_running, cancel_futures=True)


class Waiting:
    """Items, by number, that are still to be begun; each may begin when those that it needs are done.

    They lie in parts of neighbours. Who does a part takes its items in order, and when none of them may begin, the last
    one of the part that has most: neighbours share what is read and prepared for them.
    """

    def __init__(self, count: int, needs: Sequence[Collection[int]] | None = None, parts: int = 1) -> None:
        """Begin with nothing done.

        Args:
            needs: of each item those that must be done before, all of which come before it. An item lies where the
                first of them lies.
        """
        self.left = count
        before: Sequence[Collection[int]] = [()] * count if needs is None else needs
        self._missing = [len(set(one)) for one in before]
        self._readers: dict[int, list[int]] = {}
        first = self._missing.count(0)
        self._part: list[int] = []
        # Negative numbers in ascending order: the end of a list is what is taken next.
        self._ready: list[list[int]] = [[] for _ in range(max(1, parts))]
        begun = 0
        for index, one in enumerate(before):
            if one:
                self._part.append(self._part[next(iter(one))])
                for other in set(one):
                    self._readers.setdefault(other, []).append(index)
            else:
                self._part.append(begun * len(self._ready) // first)
                begun += 1
                self._ready[self._part[index]].append(-index)
        for ready in self._ready:
            ready.reverse()

    def next(self, part: int = 0) -> int | None:
        """The item that who does a part takes now; None where nothing may begin."""
        own = self._ready[part % len(self._ready)]
        if own:
            return -own[-1]
        most = max(self._ready, key=len)
        return -most[0] if most else None

    def begin(self, index: int) -> None:
        """Take an item that ``next`` named."""
        ready = self._ready[self._part[index]]
        ready.pop(0 if ready[0] == -index else -1)
        self.left -= 1

    def done(self, index: int) -> None:
        """Let those begin that needed an item and nothing else any more."""
        for reader in self._readers.pop(index, ()):
            self._missing[reader] -= 1
            if not self._missing[reader]:
                insort(self._ready[self._part[reader]], -reader)


def map_ordered(
    fn: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    on_done: Callable[[], object] | None = None,
    needs: Sequence[Collection[int]] | None = None,
) -> list[Result]:
    """The list of ``fn`` over ``items`` in order; ``on_done`` is called in the worker after each item.

    Args:
        needs: as ``Waiting`` takes it.

    Raises:
        Whatever ``fn`` raises first; items that have not begun are then never begun.
    """

    def work(item: Item) -> Result:
        result = fn(item)
        if on_done is not None:
            on_done()
        return result

    things = list(items)
    if threads <= 1 or len(things) <= 1:
        return [work(item) for item in things]
    waiting = Waiting(len(things), needs)
    pool = ThreadPoolExecutor(max_workers=min(threads, len(things)), thread_name_prefix=WORKER)
    wait_for_running = True
    running: dict[Future[Result], int] = {}
    results: dict[int, Result] = {}
    try:
        while len(results) < len(things):
            while len(running) < 2 * threads and (index := waiting.next()) is not None:
                waiting.begin(index)
                running[pool.submit(work, things[index])] = index
            for future in sorted(wait(running, return_when=FIRST_COMPLETED).done, key=running.__getitem__):
                index = running.pop(future)
                results[index] = future.result()
                waiting.done(index)
        return [results[index] for index in range(len(things))]
    except KeyboardInterrupt:
        wait_for_running = False
        raise
    finally:
        pool.shutdown(wait=wait_for_running, cancel_futures=True)
