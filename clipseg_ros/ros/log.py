"""A log that peers cannot flood: few lines about each thing that happens again and again."""

from __future__ import annotations

import threading
import time
from typing import Any

LONGEST = 1000
"""Most characters of a line: a peer may send a megabyte, and have it quoted."""

# Lines of a key in so many seconds, where each tells of something else: two in any second, though
# the times in the log are taken a moment before or after those here.
_BURST = 2
_BURST_PERIOD = 1.25
_SOON = 0.05  # Least seconds that a line waits for its turn.
_MOST_KEYS = 200


class ThrottledLog:
    """Logs what is new at once, and what repeats once in ``period`` seconds, with its count.

    rclpy throttles by the line of code that logs; this throttles by what happened, which ``key``
    names, so that a wrong encoding is not hidden by a wrong step a second ago. A key holds nothing
    that a peer chooses, who could then have a line for each message. Where each line tells of
    something else, as of refusals and of what somebody has changed, ``each`` lets two of a key pass
    in a second at most, the newest of which comes late rather than never: it tells what is true
    now. The same warning again waits as any other. Lines are cut at :data:`LONGEST`
    characters. Thread-safe.
    """

    def __init__(self, logger: Any, period: float = 5.0) -> None:
        self._logger, self._period = logger, period
        self._lock = threading.Lock()
        # When the last lines of a key passed, when one came, and lines that have not passed since.
        self._passed: dict[str, tuple[tuple[float, ...], float, int]] = {}
        # The last line of a key, and when it passed.
        self._last: dict[str, tuple[str, float]] = {}
        # The newest line of a key that had to wait, with how severe it is, and who lets it pass.
        self._waiting: dict[str, tuple[str, str]] = {}
        self._timer: threading.Timer | None = None

    # A line that logs for each severity: rclpy refuses another one from the same line of code.

    def info(self, key: str, message: str, each: bool = False) -> None:
        """Log a piece of information."""
        due = self._due(key, message, each)
        if due:
            self._logger.info(due)
            self._note(key)
        elif each:
            self._wait('info', key, message)

    def warning(self, key: str, message: str, each: bool = False, again: bool = False) -> None:
        """Log a warning; one that has come back says so ``again``, however soon that is."""
        due = self._due(key, message, each, once=not again)
        if due:
            self._logger.warning(due)
            self._note(key)
        elif each:
            self._wait('warning', key, message)

    def error(self, key: str, message: str, each: bool = False) -> None:
        """Log an error."""
        due = self._due(key, message, each)
        if due:
            self._logger.error(due)
            self._note(key)
        elif each:
            self._wait('error', key, message)

    def _due(self, key: str, message: str, each: bool, once: bool = False) -> str:
        """Return what to log now, empty where it is too soon."""
        most, period = (_BURST, _BURST_PERIOD) if each else (1, self._period)
        now = time.monotonic()
        message = cut(message)
        with self._lock:
            passed, _, repeats = self._passed.get(key, ((), now, 0))
            full = len(passed) >= most and now - passed[-most] < period
            said, at = self._last.get(key, ('', now))
            again = once and said == message and now - at < self._period
            passes = not full and not again
            if key not in self._passed and len(self._passed) >= _MOST_KEYS:
                self._forget()
            times = (*passed, now)[-_BURST:] if passes else passed
            self._passed[key] = times, now, 0 if passes else repeats + 1
            if passes:
                self._last[key] = message, now
                self._waiting.pop(key, None)
        if not passes:
            return ''
        return f'{message} ({repeats} more like it in between)' if repeats else message

    def _note(self, key: str) -> None:
        """Count from when a line has been written, which on a busy machine is later."""
        with self._lock:
            passed, came, repeats = self._passed.get(key, ((), 0.0, 0))
            if passed:
                self._passed[key] = (*passed[:-1], time.monotonic()), came, repeats

    def _wait(self, severity: str, key: str, message: str) -> None:
        """Let a line pass when it may, unless a newer one does before or it has just been said."""
        with self._lock:
            if self._last.get(key, ('',))[0] == cut(message):
                return
            self._waiting[key] = severity, message
            if self._timer is None:
                passed = self._passed[key][0]
                left = passed[0] + _BURST_PERIOD - time.monotonic() if passed else 0.0
                self._timer = threading.Timer(max(left, _SOON), self._let_pass)
                self._timer.daemon = True
                self._timer.start()

    def _let_pass(self) -> None:
        with self._lock:
            self._timer, waiting, self._waiting = None, self._waiting, {}
            for key in waiting:
                # It is said now, and is none of those in between.
                passed, came, repeats = self._passed.get(key, ((), time.monotonic(), 1))
                self._passed[key] = passed, came, max(0, repeats - 1)
        for key, (severity, message) in waiting.items():
            getattr(self, severity)(key, message, each=True)

    def _forget(self) -> None:
        """Keep the newer half: what was long ago is new where it comes again."""
        by_age = sorted(self._passed.items(), key=lambda item: item[1][1])
        self._passed = dict(by_age[_MOST_KEYS // 2 :])
        self._last = {key: last for key, last in self._last.items() if key in self._passed}


def cut(message: str, longest: int = LONGEST) -> str:
    """Return a message; of a longer one its beginning, and how long it was."""
    if len(message) <= longest:
        return message
    return f'{message[:longest]}… ({len(message)} characters)'
