"""Frames for who asks, without a node: who is answered when."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from clipseg_ros.outputs import on_demand
from clipseg_ros.outputs.on_demand import FramesOnDemand, FrameSource

HELD = 10  # Answers that a client holds with the default QoS of services.


class StandInTimer:
    canceled = False

    def reset(self) -> None:
        self.canceled = False

    def cancel(self) -> None:
        self.canceled = True

    def is_canceled(self) -> bool:
        return self.canceled


class StandInNode:
    """What frames on demand need of a node; the test calls their callback."""

    turn: Callable[[], None]

    def __init__(self) -> None:
        self.timer = StandInTimer()

    def create_guard_condition(self, callback: Callable[[], None]) -> None:
        self.turn = callback

    def create_timer(self, _: float, __: Callable[[], None], **___: Any) -> StandInTimer:
        return self.timer


def is_over(request: Coroutine[Any, Any, Any]) -> bool:
    try:
        request.send(None)
    except StopIteration:
        return True
    return False


def count_over(requests: list[Coroutine[Any, Any, Any]]) -> int:
    return sum(is_over(one) for one in requests)


def test_many_who_wait_are_answered_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(on_demand.time, 'monotonic', lambda: now)
    node, again = StandInNode(), []
    source = FrameSource('', '', (), None, None)
    frames = FramesOnDemand(node, lambda: source, lambda: again.append(now))
    open_ones = [frames.newest(60.0) for _ in range(16)]
    assert count_over(open_ones) == 0
    assert not node.timer.canceled
    assert len(again) == 16
    node.turn()
    assert count_over(open_ones) == 0, 'there is no frame yet'
    source = FrameSource('no image is segmented', '', (), None, None)
    answered = []
    while open_ones:
        node.turn()
        node.turn()  # Again for a new result, at the same time.
        left = [one for one in open_ones if not is_over(one)]
        answered.append(len(open_ones) - len(left))
        open_ones = left
        assert frames.asked == bool(left)
        now += 0.06
    assert sum(answered) == 16
    assert max(answered) <= HELD // 2, 'a client may be late for one turn'
    assert min(answered) > 0, 'each turn answers somebody'
    assert node.timer.canceled


def test_one_after_the_other_nobody_is_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_demand.time, 'monotonic', lambda: 100.0)
    node = StandInNode()
    source = FrameSource('', '', (), None, None)
    frames = FramesOnDemand(node, lambda: source, lambda: None)
    for _ in range(30):
        request = frames.newest(60.0)
        assert not is_over(request)
        source = FrameSource('no image is segmented', '', (), None, None)
        node.turn()
        assert is_over(request)
        source = FrameSource('', '', (), None, None)
