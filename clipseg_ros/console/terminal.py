"""What the page says is wrong, for who reads the terminal. No ROS in here."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from clipseg_ros.console.back_ends.base import Trouble
from clipseg_ros.ros.log import ThrottledLog

SETTLED = 2.0
"""Seconds that a trouble has to last before it is said, and has to be gone before its end is."""

_WORDS = {'error': 'Wrong', 'warning': 'Note'}

# Seconds and counts, which change while the trouble is the same; not digits within names.
_NUMBER = re.compile(r'(?<![\w/.-])\d[\d.,]*(?![\w/])')


@dataclass
class _Said:
    text: str
    level: str
    since: float
    last: float
    told: bool = False


class _Lines:
    """A logger whose lines go to people."""

    def __init__(self, say: Callable[[str], Any]) -> None:
        self.info = self.warning = self.error = say


class Terminal:
    """Says each trouble once when it begins and once when it ends, and each refusal.

    Hints on what to do next (of the level ``note``) are the page's alone.

    Args:
        say: Prints a line; may be called from any thread.
    """

    def __init__(self, say: Callable[[str], Any]) -> None:
        self._log = ThrottledLog(_Lines(say))
        self._known: dict[str, _Said] = {}

    def troubles(self, troubles: Iterable[Trouble], now: float | None = None) -> None:
        """Take note of what is wrong at a time of the monotonic clock, seconds; the present one."""
        now = time.monotonic() if now is None else now
        for one in troubles:
            if one.level not in _WORDS:
                continue
            key = _NUMBER.sub('#', one.text)
            known = self._known.setdefault(key, _Said(one.text, one.level, now, now))
            known.text, known.level, known.last = one.text, one.level, now
            if not known.told and now - known.since >= SETTLED:
                known.told = True
                self._say(key, f'{_WORDS[one.level]}: {one.text}')
        for key, known in list(self._known.items()):
            if now - known.last >= SETTLED:
                del self._known[key]
                if known.told:
                    # What was to be done has been done.
                    self._say(key, f'No longer: {known.text.partition(": ")[0]}')

    def _say(self, trouble: str, line: str) -> None:
        # A key for each trouble, so that several at once are all said; and one for its beginning
        # and end, so that the end does not come first.
        self._log.warning(trouble, _plain(line), each=True, again=True)

    def refused(self, error: object) -> None:
        """Say why something that a browser asked for was refused."""
        self._log.warning('refused', _plain(f'Refused: {error}'), each=True)


def _plain(text: str) -> str:
    """Return a text in one line that steers no terminal: browsers wrote some of it."""
    return ''.join(one if one.isprintable() else ' ' for one in text)
