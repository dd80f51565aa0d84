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
        self._usual: float | None = None
        self._due = 0.0

    def look(self, resident: Callable[[], int]) -> None:
        """Take a look at the memory; ``resident`` returns bytes."""
        now, size = self._clock(), resident()
        if self._usual is None or size < self._usual:
            self._usual = size
            self._due = now + _PERIOD
        elif size > self._usual * _SHARE and now >= self._due:
            self._release()
            # What is left is in use, as for more prompts or larger images.
            self._usual = resident()
            self._due = now + _PERIOD
