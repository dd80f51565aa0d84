"""Commands in a flood: the newest of each kind, in order, and not too often."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import clipseg_ros.prompts.paced_inbox as paced_inbox_module
from clipseg_ros.prompts.paced_inbox import PacedInbox


class Timer:
    def __init__(self, act: Any) -> None:
        self.act, self.running = act, True

    def cancel(self) -> None:
        self.running = False

    def reset(self) -> None:
        self.running = True

    def is_canceled(self) -> bool:
        return not self.running


class Node:
    """What an inbox needs of a node, with time that stands still."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.timers = 100.0, []  # type: ignore[var-annotated]
        clock = SimpleNamespace(monotonic=lambda: self.now)
        monkeypatch.setattr(paced_inbox_module, 'time', clock)

    def create_timer(self, period: float, act: Any, clock: Any = None) -> Timer:
        self.timers.append(Timer(act))
        return self.timers[-1]

    def destroy_timer(self, timer: Timer) -> None:
        self.timers.remove(timer)

    def later(self, seconds: float) -> None:
        """Lets time pass, and timers run."""
        self.now += seconds
        for timer in self.timers:
            if timer.running:
                timer.act()


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    return Node(monkeypatch)


@pytest.fixture
def inbox(node: Node) -> PacedInbox:
    made = PacedInbox(node)
    made.open()
    return made


def test_the_first_at_once_then_the_newest_when_its_time_has_come(
    node: Node, inbox: PacedInbox
) -> None:
    done: list[int] = []
    for number in range(10):
        inbox.put('text', lambda number=number: done.append(number), 0.25)
    assert done == [0]
    node.later(0.2)
    assert done == [0], 'not yet'
    node.later(0.1)
    assert done == [0, 9]
    node.later(0.1)
    assert not node.timers[0].running, 'nothing runs while nothing waits'
    node.later(0.2)
    inbox.put('text', lambda: done.append(10), 0.25)
    assert done == [0, 9, 10]


def test_a_topic_that_sends_too_fast_is_left_alone_for_a_moment(
    node: Node, inbox: PacedInbox
) -> None:
    gate, other, entity = inbox.gate('text'), inbox.gate('picture'), Timer(None)
    for group in (gate, other):
        group.add_entity(entity)
    assert inbox.gate('text') is gate
    inbox.put('text', lambda: None, 0.25)
    assert gate.can_execute(entity), 'one alone is no flood'
    inbox.put('text', lambda: None, 0.25)
    assert not gate.can_execute(entity)
    assert other.can_execute(entity), 'each topic by itself'
    node.later(0.02)
    assert gate.can_execute(entity)
    inbox.put('text', lambda: None, 0.25)
    node.later(0.02)
    inbox.put('text', lambda: None, 0.25)
    assert gate.can_execute(entity), 'fifty a second are none either'


def test_kinds_take_effect_in_the_order_in_which_they_came(node: Node, inbox: PacedInbox) -> None:
    done: list[str] = []
    inbox.put('text', lambda: done.append('first'), 0.05)
    for what in ('picture 1', 'text 1', 'mask 1', 'picture 2', 'mask 2'):
        inbox.put(what.split()[0], lambda what=what: done.append(what), 0.05)
    inbox.settle()
    assert done == ['first', 'text 1', 'picture 2', 'mask 2']
    inbox.settle()
    assert len(done) == 4


def test_what_is_dropped_does_nothing(node: Node, inbox: PacedInbox) -> None:
    done: list[str] = []
    inbox.put('text', lambda: done.append('first'), 1.0)
    for kind in ('text', 'picture', 'mask'):
        inbox.put(kind, lambda kind=kind: done.append(kind), 1.0)
    inbox.clear('text')
    node.later(2.0)
    assert done == ['first', 'picture', 'mask']
    inbox.put('text', lambda: done.append('late'), 1.0)
    inbox.clear()
    node.later(2.0)
    assert 'late' not in done
    inbox.close()
    assert node.timers == []
