"""The thread pool: order, failures, bounded work."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon.core.parallel import imap_ordered, map_ordered


@given(st.lists(st.integers(), max_size=30), st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_both_maps_agree_with_the_built_in_one(items: list[int], threads: int) -> None:
    def fn(x: int) -> int:
        time.sleep((x % 3) * 1e-4)  # so that later items end before earlier ones
        return x * x

    expected = list(map(fn, items))
    assert map_ordered(fn, items, threads) == expected
    assert list(imap_ordered(fn, items, threads)) == expected


def test_threads_really_work_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=20)
    assert map_ordered(lambda _: meeting.wait() >= 0, range(3), threads=3) == [True] * 3


@pytest.mark.parametrize("threads", [1, 3])
def test_the_failure_is_raised_and_what_has_not_begun_is_dropped(threads: int) -> None:
    begun = []

    def fn(x: int) -> int:
        begun.append(x)
        if x == 2:
            raise KeyError("two")
        time.sleep(0.01)
        return x

    with pytest.raises(KeyError, match="two"):
        map_ordered(fn, range(200), threads)
    assert len(begun) < 100
    seen = len(begun)
    time.sleep(0.05)
    assert len(begun) == seen  # nothing goes on behind the caller's back


def test_failure_does_not_wait_for_an_earlier_slow_item_to_be_asked_for() -> None:
    release = threading.Event()

    def fn(x: int) -> int:
        if x == 1:
            release.set()
            raise ValueError("one")
        assert release.wait(20)
        return x

    with pytest.raises(ValueError, match="one"):
        map_ordered(fn, range(2), threads=2)


def test_done_is_counted_once_per_item() -> None:
    count = []
    map_ordered(lambda x: x, range(50), 4, lambda: count.append(1))
    assert len(count) == 50


def test_imap_runs_only_a_little_ahead_of_its_consumer() -> None:
    taken = []

    def source() -> Iterator[int]:
        for index in range(1000):
            taken.append(index)
            yield index

    results = imap_ordered(lambda x: x, source(), threads=2, ahead=2)
    assert next(results) == 0
    assert len(taken) <= 5
    assert [next(results) for _ in range(10)] == list(range(1, 11))
    assert len(taken) <= 15
    results.close()  # type: ignore[attr-defined]
