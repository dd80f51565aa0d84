"""Images that a camera sends and that do not arrive: how many of late, and why. No ROS in here.

The middleware's own count of lost messages tells them from images that were overwritten while this
node was busy, which is no fault: the newest counts. Rates tell nothing: a camera may be slow,
change its rate or stop.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable

from clipseg_ros.ros.share import profile_variable

_WINDOW = 4.0  # Seconds.
_LEAST = 2
_BEGINS, _ENDS = 0.2, 0.05  # Shares of the images sent.


class LossWatch:
    """Judges the losses of the last seconds.

    Args:
        clock: Returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.start()

    def start(self) -> None:
        """Begin anew."""
        self.total = self._before = 0
        self._clear()

    def resume(self, counts_from_zero: bool) -> None:
        """Go on after a pause, with a new subscription, whose losses may be counted from zero."""
        self._before = self.total if counts_from_zero else 0
        self._clear()

    def _clear(self) -> None:
        self._events: deque[tuple[float, int, int]] = deque()
        self._arrived = self._lost = 0
        self._lossy = False

    def arrive(self) -> None:
        """Take note of an image that came."""
        self._add(1, 0)

    def lose(self, total: int) -> None:
        """Take note of the number of images lost, as the middleware counts."""
        total += self._before
        if total > self.total:
            self._add(0, total - self.total)
            self.total = total

    def share(self) -> tuple[int, int] | None:
        """Return how many of how many images were lost of late; None while few or none are."""
        self._forget()
        sent = self._arrived + self._lost
        share = self._lost / sent if sent else 0.0
        if self._lossy:
            self._lossy = share > _ENDS
        else:
            self._lossy = self._lost >= _LEAST and share >= _BEGINS
        return (self._lost, sent) if self._lossy else None

    def _add(self, arrived: int, lost: int) -> None:
        self._events.append((self._clock(), arrived, lost))
        self._arrived += arrived
        self._lost += lost
        self._forget()

    def _forget(self) -> None:
        oldest = self._clock() - _WINDOW
        while self._events and self._events[0][0] < oldest:
            _, arrived, lost = self._events.popleft()
            self._arrived -= arrived
            self._lost -= lost


def explain_loss(
    share: tuple[int, int], topic: str, middleware: str, profile: str, exact: bool
) -> str:
    """Return one sentence on images that are lost, with the remedy.

    Args:
        share: How many of how many were lost.
        topic: Of the images.
        middleware: Identifier of the RMW implementation.
        profile: Path of the Fast DDS profile.
        exact: Whether all of them are known not to have arrived; else this node may have been too
            busy to take some.
    """
    lost, sent = share
    how = 'did not arrive' if exact else 'did not arrive, or came while this node was busy'
    said = f'images are lost on their way: {lost} of the last {sent} on {topic} {how}. '
    if 'fastrtps' in middleware:
        return (
            f'{said}By default Fast DDS has less shared memory than an image needs: start the '
            f"camera's process with {profile_variable(os.environ)}={profile} (between machines: a "
            'lower rate, or image_transport:=compressed)'
        )
    return (
        f'{said}Enlarge the buffers of {middleware}, lower the rate or size of the images, or use '
        'image_transport:=compressed'
    )
