"""A log with one line every few seconds about what goes wrong with every frame."""

from __future__ import annotations

import threading
import time
from typing import Any


class ThrottledLog:
    """Logs what is new at once, and what repeats once in ``period`` seconds, with its count.

    rclpy throttles by the line of code that logs; this throttles by what happened, which ``key``
    names, so that a wrong encoding is not hidden by a wrong step a second ago. Thread-safe.
    """

    def __init__(self, logger: Any, period: float = 5.0) -> None:
        self._logger, self._period = logger, period
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[float, int]] = {}

    # Two lines that log, not one: rclpy refuses another severity from the same line of code.

    def warning(self, key: str, message: str) -> None:
        """Log a warning."""
        due = self._due(key, message)
        if due:
            self._logger.warning(due)

    def error(self, key: str, message: str) -> None:
        """Log an error."""
        due = self._due(key, message)
        if due:
            self._logger.error(due)

    def _due(self, key: str, message: str) -> str:
        """Return what to log now, empty where it is too soon."""
        now = time.monotonic()
        with self._lock:
            last, repeats = self._seen.get(key, (-self._period, 0))
            if now - last < self._period:
                self._seen[key] = (last, repeats + 1)
                return ''
            self._seen = {k: v for k, v in self._seen.items() if now - v[0] < 60 * self._period}
            self._seen[key] = (now, 0)
        return f'{message} ({repeats} more like it in between)' if repeats else message
