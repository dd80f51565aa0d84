"""What the demo asks of the two nodes: scenes of the camera, masks and scores of the node."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from numpy.typing import NDArray
from sensor_msgs.msg import Image

from clipseg_model.errors import ClipsegError
from clipseg_ros.client import SegmentClient
from clipseg_ros.images.conversion import image_to_rgb
from clipseg_ros.ros.interfaces import load_interfaces
from clipseg_ros.ros.qos import sensor_input
from clipseg_ros.ros.timing import stamp_of


class DemoFailure(ClipsegError):
    """A node refused something, or what should have come from it did not."""


class DemoClient(SegmentClient):
    """A client of ``/clipseg`` that steers ``/camera`` too.

    While it waits it calls ``check``, which raises if waiting has become pointless.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        super().__init__(timeout=30.0)
        self._peer.check = check
        self._scores: dict[int, dict[str, float]] = {}
        interfaces = load_interfaces()
        if interfaces is not None:
            self._peer.node.create_subscription(
                interfaces.SegmentArray, f'{self.node}/segments', self._on_segments, 10
            )

    def wait_until_active(self, timeout: float) -> None:
        """Wait until the node is active; raises a DemoFailure if it cannot be, or not in time."""
        deadline = time.monotonic() + timeout
        state = None
        while state != State.PRIMARY_STATE_ACTIVE:
            if self._peer.wait_until(self._has_failed, 0.2):
                raise DemoFailure(self.status)
            if time.monotonic() > deadline:
                raise DemoFailure(f'the node is not active after {timeout:.0f} s')
            state = self._call(GetState, 'get_state', GetState.Request(), timeout).current_state.id
        for topic in ('/image', f'{self.node}/mask'):
            if (count := self._peer.node.count_publishers(topic)) > 1:
                raise DemoFailure(
                    f'{count} nodes publish {topic} on this ROS_DOMAIN_ID: end the other ones, or '
                    'choose another domain (--domain)'
                )

    def show(self, seed: int, picture: NDArray[np.uint8]) -> None:
        """Have the camera show a scene, and wait until its picture, uint8 (H, W, 3), arrives."""
        result = self._peer.set_parameter('/camera', 'seed', seed)
        if not result.successful:
            raise DemoFailure(f'the camera refuses scene {seed}: {result.reason}')

        def is_shown(message: Image) -> bool:
            shown = image_to_rgb(message)
            if shown.shape != picture.shape:
                return False
            # The renderer may differ in its last bit between two processes.
            return float(np.abs(shown.astype(np.int16) - picture).mean()) < 1.0

        failure = f'the picture of scene {seed} did not come from the camera'
        self._receive('/image', is_shown, failure)

    def overlay(self, since: int) -> NDArray[np.uint8]:
        """Return an overlay, RGB uint8 (H, W, 3), of an image stamped ``since`` ns or later.

        The subscription ends with the call: the node draws overlays as long as there is one.
        """
        topic = f'{self.node}/overlay'
        image = self._receive(topic, lambda m: stamp_of(m) >= since, f'{topic} did not come')
        return image_to_rgb(image)

    def score(self, stamp: int) -> float | None:
        """Return the score of the first prompt for an image; None where the node publishes none."""
        if not self._peer.node.count_publishers(f'{self.node}/segments'):
            return None
        if not self._peer.wait_until(lambda: stamp in self._scores, 5.0):
            raise DemoFailure('the scores of a mask did not come')
        return next(iter(self._scores[stamp].values()))

    def _receive(self, topic: str, accept: Callable[[Image], bool], failure: str) -> Image:
        """Return the first image of a topic that is accepted, or raise a DemoFailure."""
        accepted: list[Image] = []

        def receive(message: Image) -> None:
            if accept(message):
                accepted.append(message)

        subscription = self._peer.node.create_subscription(Image, topic, receive, sensor_input())
        try:
            if not self._peer.wait_until(lambda: accepted, self.timeout):
                raise DemoFailure(failure)
        finally:
            self._peer.node.destroy_subscription(subscription)
        return accepted[0]

    def _has_failed(self) -> bool:
        return bool(self._diagnostics.level >= DiagnosticStatus.ERROR)

    def _on_segments(self, message: Any) -> None:
        self._scores[stamp_of(message)] = {
            segment.name: segment.score for segment in message.segments
        }
        while len(self._scores) > 200:
            del self._scores[min(self._scores)]
