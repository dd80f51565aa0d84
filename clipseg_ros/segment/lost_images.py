"""Images that a camera published and that never came: counted by the publisher's own numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class LostImages:
    """Counts the gaps in the numbers of one publisher.

    The middleware keeps the newest image alone; what is overwritten there, or lost on the way, is
    seen by nobody. Each publisher numbers its messages; whose number it is, is not told, so nothing
    is counted where a topic has several publishers.

    Attributes:
        count: Images that were lost since :meth:`start`.
    """

    def __init__(self) -> None:
        self.count = 0
        self._last: int | None = None

    def start(self) -> None:
        """Begins to count from zero, with the next image."""
        self.count = 0
        self._last = None

    def see(self, info: Mapping[str, Any], publishers: int) -> None:
        """Takes note of an image that came.

        Args:
            info: What ``rclpy`` tells of the message.
            publishers: How many there are on its topic.
        """
        # None where a middleware does not tell it.
        number = info['publication_sequence_number']
        if publishers != 1 or number is None:
            self._last = None
            return
        # A publisher that starts again begins with its numbers anew.
        if self._last is not None and number > self._last:
            self.count += number - self._last - 1
        self._last = number
