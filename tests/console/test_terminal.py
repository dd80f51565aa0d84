"""What the console says in the terminal."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
from console_server import StandIn, served

from clipseg_ros.console import terminal
from clipseg_ros.console.back_ends.base import Trouble
from clipseg_ros.console.terminal import Terminal


def silence(seconds: int) -> Trouble:
    return Trouble(f'no image on /cam1/image for {seconds} s: is the camera running?')


def test_a_trouble_is_said_when_it_begins_and_when_it_ends() -> None:
    lines: list[str] = []
    said = Terminal(lines.append)
    for second in range(10):
        said.troubles([silence(second), Trouble('type what to look for', 'note')], float(second))
    assert lines == ['Wrong: no image on /cam1/image for 2 s: is the camera running?']
    # A moment without it is not its end.
    said.troubles([], 10.0)
    said.troubles([silence(11)], 11.0)
    assert len(lines) == 1
    said.troubles([], 14.0)
    assert lines[1:] == ['No longer: no image on /cam1/image for 11 s']
    # What is over at once is not said, and what comes back is.
    said.troubles([Trouble('the drops are many', 'warning')], 20.0)
    said.troubles([], 23.0)
    said.troubles([silence(2)], 30.0)
    said.troubles([silence(4)], 32.0)
    # It is the third line of this trouble within a second, and has to wait.
    wait_for(lambda: len(lines) > 2, lines)
    assert lines[2:] == ['Wrong: no image on /cam1/image for 4 s: is the camera running?']


def test_several_troubles_at_once_are_all_said() -> None:
    lines: list[str] = []
    said = Terminal(lines.append)
    for second in (0.0, 5.0):
        said.troubles([Trouble(f'nobody publishes on /cam{n}') for n in range(4)], second)
    assert lines == [f'Wrong: nobody publishes on /cam{n}' for n in range(4)]


def test_refusals_flood_no_terminal_and_do_not_steer_it() -> None:
    lines: list[str] = []
    said = Terminal(lines.append)
    for _ in range(50):
        said.refused('\x1b[2Ja.png cannot be\nread as an image')
    assert lines == ['Refused:  [2Ja.png cannot be read as an image']
    for number in range(500):
        said.refused(f'{number}.png ' + 'x' * 5000)
    assert len(lines) < 15
    assert max(map(len, lines)) < 1200


def wait_for(condition: Callable[[], bool], lines: list[str]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, lines
        time.sleep(0.02)


def test_the_console_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, 'SETTLED', 0.2)
    back_end = StandIn()
    with served(back_end) as (client, lines):
        # No browser looks.
        back_end.troubles = (Trouble('the model /srv/a.pt cannot be loaded: choose another'),)
        back_end.tell()
        wait_for(lambda: 'Wrong: the model /srv/a.pt cannot be loaded: choose another' in lines,
                 lines)  # fmt: skip
        back_end.troubles = ()
        wait_for(lambda: 'No longer: the model /srv/a.pt cannot be loaded' in lines, lines)
        _, _, answer = client.ask('/picture?name=a.png', 'POST', b'no picture')
        assert f'Refused: {json.loads(answer)["error"]}' in lines
        client.do('add', text='unreadable')
        assert lines[-1] == 'Refused: the model cannot read it: write another word'
        # The page gets no folders, and the terminal has them.
        assert client.do('choose', what='model', key='x')[1]['error'] == 'secret.pt is not there'
        # The third within a second, it comes late.
        wait_for(lambda: lines[-1] == 'Refused: /srv/somebody/models/secret.pt is not there', lines)
