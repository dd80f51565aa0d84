"""Lines that had to wait: the newest comes late rather than never."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from clipseg_ros.ros.log import ThrottledLog


def test_the_newest_line_of_a_flood_is_said_in_the_end() -> None:
    lines: list[str] = []
    log = ThrottledLog(SimpleNamespace(info=lines.append))
    for number in range(100):
        log.info('state', f'state {number}', each=True)
    assert lines == ['state 0', 'state 1']
    deadline = time.monotonic() + 5
    while len(lines) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert lines[2:] == ['state 99 (97 more like it in between)']
    time.sleep(1.5)
    assert len(lines) == 3, 'once'


def test_no_second_of_a_flood_has_more_than_two_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither at its begin, nor after a pause, nor where lines wait for their turn."""
    now = 1000.0
    monkeypatch.setattr(time, 'monotonic', lambda: now)
    times: list[float] = []
    log = ThrottledLog(SimpleNamespace(info=lambda line: times.append(now)))
    monkeypatch.setattr(log, '_wait', lambda *line: None)
    for step in range(6000):
        now += 0.01 if step % 1000 else 5.0
        log.info('state', f'state {step}', each=True)
    assert len(times) > 40
    assert all(later - first > 1.0 for first, later in zip(times, times[2:], strict=False))


def test_what_has_just_been_said_does_not_wait() -> None:
    lines: list[str] = []
    log = ThrottledLog(SimpleNamespace(warning=lines.append))
    for _ in range(20):
        log.warning('state', 'the same', each=True)
    time.sleep(1.8)
    assert lines == ['the same']


def test_a_line_counts_from_when_it_has_been_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine that is a while after it was let pass."""
    now = 1000.0
    monkeypatch.setattr(time, 'monotonic', lambda: now)
    times: list[float] = []

    def write(line: str) -> None:
        nonlocal now
        now += 0.4
        times.append(now)

    log = ThrottledLog(SimpleNamespace(info=write))
    monkeypatch.setattr(log, '_wait', lambda *line: None)
    for step in range(1000):
        now += 0.01
        log.info('state', f'state {step}', each=True)
    assert len(times) > 5
    assert all(later - first > 1.0 for first, later in zip(times, times[2:], strict=False))
