"""Images that are sent and do not reach the node, though others get them.

After a process was killed, the middleware of a new one may stay deaf for a minute: peers write to
shared memory that the old one left. The graph shows a camera then, and no image comes; a camera
that pauses looks the same. So another participant listens for a moment: what it gets is on the
wire. It is a process of its own, since the middleware ends one that has too little memory for it:

    python -m clipseg_ros.health.wire_watch TOPIC Image|CompressedImage SECONDS

exits with 0 where it has heard something, and with 3 where it has not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

LISTEN = 4.0
"""Seconds that the other participant listens: peers may take two of them to find it."""

_HEARD, _SILENT = 0, 3
_START = 60.0  # Seconds for the process to start and end, on a busy machine.
_SETTLE = 3.0  # Seconds for a new subscription to get an image.
_AGAIN = 30.0  # Seconds between two times that it is looked into.


def hears_images(message_type: str, topic: str, domain: int, seconds: float = LISTEN) -> bool:
    """Return whether another process gets a message on a topic within some seconds.

    Raises:
        OSError: It cannot be started.
        subprocess.TimeoutExpired: It does not end.
    """
    done = subprocess.run(
        [sys.executable, '-m', __name__, topic, message_type, f'{seconds:g}'],
        env={**os.environ, 'ROS_DOMAIN_ID': str(domain)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=seconds + _START,
        check=False,
    )
    return done.returncode == _HEARD


class WireWatch:
    """Finds out why no images come from a camera that is there; asked once a second.

    It subscribes anew first, which mends a subscription. If nothing has come then, it listens with
    a participant of its own.

    Args:
        renew: Subscribes to the images anew.
        listen: Waits some seconds, in a thread, for an image by another way; returns whether there
            was one.
        clock: Returns monotonic seconds.

    Attributes:
        fault: Whether images are on the wire, and not in the node.
    """

    def __init__(
        self,
        renew: Callable[[], None],
        listen: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._renew, self._listen, self._clock = renew, listen, clock
        self._pool = ThreadPoolExecutor(1, 'wire_watch')
        self._heard: Future[bool] | None = None
        self._next: Callable[[], None] | None = None
        self._due = 0.0
        self.fault = False

    def look(self, missing: bool) -> bool:
        """Take a step; return whether images are on the wire, and not in the node.

        ``missing`` says that images are wanted, a camera is there, and none has come for long.
        """
        if not missing:
            # What was heard meanwhile, the node has heard too.
            self._heard = self._next = None
            self.fault = False
        elif self._heard is not None:
            if self._heard.done():
                self.fault = self._heard.exception() is None and self._heard.result()
                self._heard, self._next, self._due = None, None, self._clock() + _AGAIN
        elif self._clock() >= self._due:
            step = self._next or self._subscribe_anew
            step()
        return self.fault

    def close(self) -> None:
        """Look no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _subscribe_anew(self) -> None:
        self._renew()
        self._next, self._due = self._begin_to_listen, self._clock() + _SETTLE

    def _begin_to_listen(self) -> None:
        self._heard = self._pool.submit(self._listen)


def explain_deafness(topic: str, seconds: float) -> str:
    """Return the sentence for a node that does not get what others get, with the remedy."""
    return (
        f'images arrive on {topic}, and none has reached this node for {seconds:.0f} s, by a new '
        'subscription either: its connection to the middleware is broken, as by shared memory that '
        'a killed process left. It may come back within a minute; else start the node again '
        '(exit_on_failure:=true has it end with status 1, for whoever respawns it)'
    )


def main(arguments: list[str]) -> int:
    """Listen; see the top of this module."""
    # Not at the top: the node has imported them long since, and this process needs little else.
    from sensor_msgs import msg

    from clipseg_ros.ros.peer import Peer
    from clipseg_ros.ros.qos import sensor_input

    topic, kind, seconds = arguments
    heard: list[Any] = []
    peer = Peer('clipseg_wire_probe')
    try:
        # Not deserialized: it only matters that there is one.
        peer.node.create_subscription(
            getattr(msg, kind), topic, heard.append, sensor_input(), raw=True
        )
        return _HEARD if peer.wait_until(lambda: heard, float(seconds)) else _SILENT
    finally:
        peer.close()


if __name__ == '__main__':
    raise SystemExit(main(sys.argv[1:]))
