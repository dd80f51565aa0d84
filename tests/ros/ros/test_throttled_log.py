"""Lines that had to wait: the newest comes late rather than never."""

from __future__ import annotations

import time
from types import SimpleNamespace

from clipseg_ros.ros.log import ThrottledLog


def test_the_newest_line_of_a_flood_is_said_in_the_end() -> None:
    lines: list[str] = []
    log = ThrottledLog(SimpleNamespace(info=lines.append))
    for number in range(100):
        log.info('state', f'state {number}', each=True)
    assert lines == [f'state {number}' for number in range(8)]
    deadline = time.monotonic() + 5
    while len(lines) < 9 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert lines[8:] == ['state 99 (91 more like it in between)']
    time.sleep(1.2)
    assert len(lines) == 9, 'once'


def test_what_has_just_been_said_does_not_wait() -> None:
    lines: list[str] = []
    log = ThrottledLog(SimpleNamespace(warning=lines.append))
    for _ in range(20):
        log.warning('state', 'the same', each=True)
    time.sleep(1.5)
    assert lines == ['the same']
