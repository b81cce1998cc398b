"""The thread pool: order, failures, bounded work."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon.core.parallel import Waiting, imap_ordered, map_ordered


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


@st.composite
def needs_of_items(draw: st.DrawFn) -> list[list[int]]:
    count = draw(st.integers(1, 25))
    return [draw(st.lists(st.integers(0, max(0, i - 1)), max_size=3 if i else 0)) for i in range(count)]


@given(needs_of_items(), st.integers(1, 4), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_an_item_begins_once_and_after_those_that_it_needs(
    needs: list[list[int]], parts: int, random: Random
) -> None:
    waiting = Waiting(len(needs), needs, parts)
    flying: set[int] = set()
    done: set[int] = set()
    while len(done) < len(needs):
        assert waiting.left == len(needs) - len(done) - len(flying)
        index = waiting.next(random.randrange(parts))
        if index is not None and (not flying or random.random() < 0.7):
            waiting.begin(index)
            assert index not in flying | done
            assert set(needs[index]) <= done
            flying.add(index)
        else:
            index = random.choice(sorted(flying))
            flying.remove(index)
            done.add(index)
            waiting.done(index)
    assert waiting.next() is None


def test_neighbours_go_to_one_and_the_last_ones_of_a_part_to_who_has_none() -> None:
    """Two steps of four items: each part does its own, in order; then it takes from the end of the other part."""
    waiting = Waiting(8, [(), (), (), (), (0,), (1,), (2,), (3,)], parts=2)
    taken = []
    for part in (0, 0, 1, 0, 1):
        index = waiting.next(part)
        assert index is not None
        waiting.begin(index)
        waiting.done(index)
        taken.append(index)
    assert taken == [0, 1, 2, 4, 3]
    assert [waiting.next(part) for part in (0, 1)] == [5, 6]
    waiting.begin(5)
    assert [waiting.next(part) for part in (0, 1)] == [7, 6]


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_go_on_as_soon_as_what_an_item_needs_is_done(threads: int) -> None:
    done: list[int] = []
    needs = [(), (), (), (), (0, 1), (1, 0), (2, 3), (3, 2)]

    def fn(x: int) -> int:
        assert set(needs[x]) <= set(done)
        time.sleep(0.002 * (4 - x if x < 4 else 1))
        done.append(x)
        return -x

    assert map_ordered(fn, range(8), threads, needs=needs) == [-x for x in range(8)]
