"""Work spread over a pool of threads, results in order.

Threads, not processes: the kernels release the interpreter lock, so threads share the images without copying
them.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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


def map_ordered(
    fn: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    on_done: Callable[[], object] | None = None,
) -> list[Result]:
    """The list of ``fn`` over ``items`` in order; ``on_done`` is called in the worker after each item.

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
    pool = ThreadPoolExecutor(max_workers=min(threads, len(things)), thread_name_prefix=WORKER)
    wait_for_running = True
    try:
        futures = [pool.submit(work, item) for item in things]
        return _gather(futures)
    except KeyboardInterrupt:
        wait_for_running = False
        raise
    finally:
        pool.shutdown(wait=wait_for_running, cancel_futures=True)


def _gather(futures: list[Future[Result]]) -> list[Result]:
    """Results in order, but the first failure in time ends the wait."""
    from concurrent.futures import FIRST_EXCEPTION, wait

    done, _ = wait(futures, return_when=FIRST_EXCEPTION)
    for future in futures:
        if future in done and future.exception() is not None:
            future.result()
    return [future.result() for future in futures]
