"""A line before something that serves one thread at a time, or several who want the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable

import pytest

from clipseg_ros.segment.turns import Turns


def run_together(*work: Callable[[], None]) -> None:
    threads = [threading.Thread(target=each, daemon=True) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def line_up(turns: Turns[str], asked: list[tuple[str, Hashable, int]]) -> list[list[str]]:
    """The calls that serve items which come one after the other while somebody has the turn."""
    calls: list[list[str]] = []
    threads = [
        threading.Thread(target=turns.together, args=(*each, calls.append), daemon=True)
        for each in asked
    ]
    with turns.mine():
        for number, thread in enumerate(threads, start=1):
            thread.start()
            while len(turns._waiting) < number:
                time.sleep(0.001)
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    return calls


def test_turns_go_round() -> None:
    turns: Turns[str] = Turns()
    order: list[str] = []
    ready = threading.Barrier(3)

    def work(name: str) -> None:
        ready.wait()
        for _ in range(6):
            with turns.mine():
                order.append(name)
                time.sleep(0.01)

    run_together(*(lambda name=name: work(name) for name in 'abc'))
    assert len(order) == 18
    # After the start, nobody comes again before the two others have been.
    for start in range(2, 15):
        assert len(set(order[start : start + 3])) == 3, order


def test_turns_survive_an_error() -> None:
    turns: Turns[str] = Turns()
    with pytest.raises(RuntimeError), turns.mine():
        raise RuntimeError('out of memory')
    with turns.mine():
        pass


def test_who_has_the_turn_may_ask_again() -> None:
    turns: Turns[str] = Turns()
    order: list[str] = []

    def twice() -> None:
        with turns.mine():
            with turns.mine():
                order.append('inner')
            time.sleep(0.05)
            order.append('outer')

    def other() -> None:
        while not order:
            time.sleep(0.001)
        with turns.mine():
            order.append('other')

    run_together(twice, other)
    assert order == ['inner', 'outer', 'other']


@pytest.mark.parametrize(
    ('asked', 'calls'),
    [
        ([('a', 1, 8), ('b', 1, 8), ('c', 1, 8)], [['a', 'b', 'c']]),
        # Another kind stays in the line, and is next although one behind it was served before.
        ([('a', 1, 8), ('b', 2, 8), ('c', 1, 8)], [['a', 'c'], ['b']]),
        ([('a', 1, 2), ('b', 1, 8), ('c', 1, 8)], [['a', 'b'], ['c']]),
        # Who wants to be alone is, and holds up nobody else.
        ([('a', 1, 8), ('b', 1, 1), ('c', 1, 8)], [['a', 'c'], ['b']]),
        ([('a', 1, 1), ('b', 1, 8), ('c', 1, 8)], [['a'], ['b', 'c']]),
        # The least of what those in a call take is the most of all of them.
        ([('a', 1, 8), ('b', 1, 2), ('c', 1, 8)], [['a', 'b'], ['c']]),
    ],
)
def test_those_who_wait_are_served_together(
    asked: list[tuple[str, Hashable, int]], calls: list[list[str]]
) -> None:
    assert line_up(Turns(), asked) == calls


def test_nobody_waits_for_who_is_not_there() -> None:
    calls: list[list[str]] = []
    Turns[str]().together('a', 1, 8, calls.append)
    assert calls == [['a']]


def test_an_error_that_serving_raises_frees_the_others() -> None:
    turns: Turns[str] = Turns()
    raised: list[str] = []

    def serve(items: list[str]) -> None:
        raise RuntimeError('stop')

    def ask(item: str) -> None:
        try:
            turns.together(item, 1, 8, serve)
        except RuntimeError:
            raised.append(item)

    threads = [threading.Thread(target=ask, args=(item,), daemon=True) for item in 'ab']
    with turns.mine():
        for number, thread in enumerate(threads, start=1):
            thread.start()
            while len(turns._waiting) < number:
                time.sleep(0.001)
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert raised == ['a']
    with turns.mine():
        pass


def test_many_threads_are_all_served_once() -> None:
    turns: Turns[int] = Turns()
    served: list[int] = []
    at_work = threading.Lock()

    def serve(items: list[int]) -> None:
        assert at_work.acquire(blocking=False)
        served.extend(items)
        at_work.release()

    def work(start: int) -> None:
        for item in range(start, start + 200):
            turns.together(item, item % 2, 3, serve)

    run_together(*(lambda start=start: work(start) for start in range(0, 1200, 200)))
    assert sorted(served) == list(range(1200))
