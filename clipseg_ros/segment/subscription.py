"""The subscription to the camera's images, which is there while somebody needs them.

Receiving images takes a tenth of a core at 720p and 30 Hz, whatever becomes of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from clipseg_ros.ros.callback_groups import forget_dead_entities
from clipseg_ros.ros.distributions import count_matched_publishers
from clipseg_ros.ros.qos import QosWatch, sensor_input
from clipseg_ros.ros.timing import create_steady_timer

_PERIOD = 0.1
# Seconds that images are still received after they were needed last: listeners come back.
_LINGER = 5.0
# Who publishes on these points at what the camera sees at that moment. Who calls a service waits
# for an image, and may keep a client without calling.
_TOPICS = ('~/pick_point', '~/pick_box')


class ImageSubscription:
    """Subscribes and unsubscribes, by looking ten times a second at who needs images.

    Args:
        node: The node.
        watch: Creates the subscription.
        message_type: Of the images.
        topic: Their resolved name.
        take: Gets each message, with rclpy's information on it.
        lose: Gets the number of images that the middleware has lost since ``opened``.
        needed: Whether somebody needs images, besides those who may point at one.
        opened: Called when images are received from now on.
        closed: Called when they are no longer.

    Attributes:
        counts_losses: Whether the middleware counts what it loses; see
            :meth:`~clipseg_ros.ros.qos.QosWatch.create_counting_subscription`.
    """

    def __init__(
        self,
        node: Any,
        watch: QosWatch,
        message_type: Any,
        topic: str,
        take: Callable[..., None],
        lose: Callable[[int], None],
        needed: Callable[[], bool],
        opened: Callable[[], None],
        closed: Callable[[], None],
    ) -> None:
        self._node, self._watch, self._message_type, self._topic = node, watch, message_type, topic
        self._take, self._lose = take, lose
        self._needed, self._opened, self._closed = needed, opened, closed
        self._topics = [node.resolve_topic_name(name) for name in _TOPICS]
        self._enabled = True
        self._claims = 0
        # A node that has just been configured is about to be used.
        self._needed_at = time.monotonic()
        self._subscription: Any = None
        self.counts_losses = False
        self._open()
        self._timer = create_steady_timer(node, _PERIOD, self.update)

    @property
    def is_open(self) -> bool:
        """Whether images are received."""
        return self._subscription is not None

    @property
    def enabled(self) -> bool:
        """Whether images are received where somebody needs them; may be set."""
        return self._enabled

    @enabled.setter
    def enabled(self, wish: bool) -> None:
        if wish and not self._enabled:
            self._needed_at = time.monotonic()
        self._enabled = wish
        self.update()

    def claim(self) -> None:
        """Receive images for somebody, even while disabled, until :meth:`release`.

        Both belong to the executor's thread.
        """
        self._claims += 1
        self.update()

    def release(self) -> None:
        """Take a claim back."""
        self._claims -= 1

    def publishers(self) -> int:
        """Return how many publishers the subscription has found."""
        return count_matched_publishers(self._node, self._subscription) if self.is_open else 0

    def update(self) -> None:
        """Subscribe or unsubscribe, as is needed now."""
        now = time.monotonic()
        if self._enabled and (self._claims > 0 or self._needed() or self._may_be_pointed_at()):
            self._needed_at = now
        wanted = self._claims > 0 or (self._enabled and now - self._needed_at <= _LINGER)
        if wanted and not self.is_open:
            self._open()
            self._opened()
        elif not wanted and self.is_open:
            self._close()
            self._closed()

    def renew(self) -> None:
        """Subscribe anew, if images are received: the subscription may be broken."""
        if self.is_open:
            self._close()
            self._open()

    def destroy(self) -> None:
        """Unsubscribe for good."""
        self._node.destroy_timer(self._timer)
        self._close()

    def _may_be_pointed_at(self) -> bool:
        return any(self._node.count_publishers(name) for name in self._topics)

    def _open(self) -> None:
        self._subscription, self.counts_losses = self._watch.create_counting_subscription(
            self._message_type, self._topic, self._take, sensor_input(), self._lose
        )

    def _close(self) -> None:
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None
            forget_dead_entities(self._node)
