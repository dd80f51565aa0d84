"""Memory that a peak has left with the C library is given back to the system.

The C library keeps what is freed, up to 512 MB, which spares page faults with every frame. After a
storm of large messages that is memory which nobody uses. No ROS in here.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from clipseg_ros.process.tuning import release_freed_memory

_SHARE = 1.05
"""Above this share of the least memory so far, it is looked for what can be given back."""

_PERIOD = 15.0
"""Seconds between two times: buffers of frames are given back too, and have to be taken anew."""

_LONGEST_PERIOD = 300.0
"""The same where nothing could be given back, as where more prompts or larger images need it."""

_IN_VAIN = 0.99
"""Share of the memory above which nothing to speak of was given back."""


class MemoryWatch:
    """Gives freed memory back where the process has grown; asked once a second.

    Args:
        release: Gives back what is freed.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self,
        release: Callable[[], None] = release_freed_memory,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._release, self._clock = release, clock
        self._least: float | None = None
        # After the last time, and seconds until the next.
        self._left, self._period = 0.0, _PERIOD
        self._due = 0.0

    def look(self, resident: Callable[[], int]) -> None:
        """Take a look at the memory; ``resident`` returns bytes."""
        now, size = self._clock(), resident()
        if self._least is None or size < self._least:
            self._least = self._left = size
            self._period, self._due = _PERIOD, now + _PERIOD
        elif size > self._left * _SHARE and self._period > _PERIOD:
            # It has grown again.
            self._period, self._due = _PERIOD, min(self._due, now + _PERIOD)
        elif size > self._least * _SHARE and now >= self._due:
            self._release()
            # What is left may be in use now, and free a little later.
            self._left = resident()
            in_vain = self._left > _IN_VAIN * size
            self._period = min(2 * self._period, _LONGEST_PERIOD) if in_vain else _PERIOD
            self._due = now + self._period
