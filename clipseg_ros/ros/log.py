"""A log that peers cannot flood: few lines about each thing that happens again and again."""

from __future__ import annotations

import threading
import time
from typing import Any

LONGEST = 1000
"""Most characters of a line: a peer may send a megabyte, and have it quoted."""

_BURST = 8
_BURST_PERIOD = 1.0
_MOST_KEYS = 200


class ThrottledLog:
    """Logs what is new at once, and what repeats once in ``period`` seconds, with its count.

    rclpy throttles by the line of code that logs; this throttles by what happened, which ``key``
    names, so that a wrong encoding is not hidden by a wrong step a second ago. A key holds nothing
    that a peer chooses, who could then have a line for each message. Where each line tells of
    something else, as of refusals and of what somebody has changed, ``each`` lets eight of a key
    pass, and then one a second; the same warning again waits as any other. Lines are cut at
    :data:`LONGEST` characters. Thread-safe.
    """

    def __init__(self, logger: Any, period: float = 5.0) -> None:
        self._logger, self._period = logger, period
        self._lock = threading.Lock()
        # Lines that may pass, when that was so, and lines that did not since the last that did.
        self._buckets: dict[str, tuple[float, float, int]] = {}
        # The last line of a key, and when it passed.
        self._last: dict[str, tuple[str, float]] = {}

    # A line that logs for each severity: rclpy refuses another one from the same line of code.

    def info(self, key: str, message: str, each: bool = False) -> None:
        """Log a piece of information."""
        due = self._due(key, message, each)
        if due:
            self._logger.info(due)

    def warning(self, key: str, message: str, each: bool = False) -> None:
        """Log a warning."""
        due = self._due(key, message, each, once=True)
        if due:
            self._logger.warning(due)

    def error(self, key: str, message: str, each: bool = False) -> None:
        """Log an error."""
        due = self._due(key, message, each)
        if due:
            self._logger.error(due)

    def _due(self, key: str, message: str, each: bool, once: bool = False) -> str:
        """Return what to log now, empty where it is too soon."""
        most, period = (_BURST, _BURST_PERIOD) if each else (1, self._period)
        now = time.monotonic()
        message = cut(message)
        with self._lock:
            lines, before, repeats = self._buckets.get(key, (float(most), now, 0))
            lines = min(float(most), lines + (now - before) / max(period, 1e-9))
            said, at = self._last.get(key, ('', now))
            again = once and said == message and now - at < self._period
            passes = lines >= 1.0 and not again
            if key not in self._buckets and len(self._buckets) >= _MOST_KEYS:
                self._forget()
            self._buckets[key] = (lines - 1.0, now, 0) if passes else (lines, now, repeats + 1)
            if passes:
                self._last[key] = message, now
        if not passes:
            return ''
        return f'{message} ({repeats} more like it in between)' if repeats else message

    def _forget(self) -> None:
        """Keep the newer half: what was long ago is new where it comes again."""
        by_age = sorted(self._buckets.items(), key=lambda item: item[1][1])
        self._buckets = dict(by_age[_MOST_KEYS // 2 :])
        self._last = {key: last for key, last in self._last.items() if key in self._buckets}


def cut(message: str, longest: int = LONGEST) -> str:
    """Return a message; of a longer one its beginning, and how long it was."""
    if len(message) <= longest:
        return message
    return f'{message[:longest]}… ({len(message)} characters)'
