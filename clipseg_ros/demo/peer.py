"""The demo's side of the topics: sends prompts, receives pictures and masks, with plain rclpy."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from numpy.typing import NDArray
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data
from rclpy.time import Time
from sensor_msgs.msg import Image
from std_msgs.msg import String

from clipseg_ros.images.conversion import image_to_rgb
from clipseg_ros.ros.interfaces import load_interfaces


class DemoFailure(RuntimeError):
    """A node refused something, or what should have come from it did not."""


@dataclass(frozen=True)
class Received:
    """An image that came over a topic.

    Attributes:
        pixels: uint8 of shape (H, W) or (H, W, 3).
        stamp: When its camera image was taken, nanoseconds of system time.
        arrival: When it arrived, nanoseconds of system time.
    """

    pixels: NDArray[np.uint8]
    stamp: int
    arrival: int

    @property
    def latency_ms(self) -> float:
        """Milliseconds from the camera to here."""
        return (self.arrival - self.stamp) / 1e6


class DemoPeer:
    """A node that asks ``/clipseg`` and steers ``/camera``.

    Args:
        check: Called while waiting; raises if waiting makes no sense any more.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._context = Context()
        rclpy.init(context=self._context)
        self._node = rclpy.create_node('clipseg_demo', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._prompt = self._node.create_publisher(String, '/clipseg/prompt', 1)
        self._clients: dict[str, Any] = {}
        self._trouble = ''
        self._node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self._scores: dict[int, dict[str, float]] = {}
        interfaces = load_interfaces()
        if interfaces is not None:
            self._node.create_subscription(
                interfaces.SegmentArray, '/clipseg/segments', self._on_segments, 10
            )

    @property
    def has_scores(self) -> bool:
        """Whether the node says scores: it needs messages that a plain pip install lacks."""
        return bool(self._node.count_publishers('/clipseg/segments'))

    def close(self) -> None:
        """Takes the node away, and its shared memory."""
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)
        # The executor holds on to entities between two spins; while it does, nothing is freed.
        del self._executor, self._node
        self._context.destroy()

    def wait_until_active(self, timeout: float) -> None:
        """Waits until the node has loaded its model.

        Raises:
            DemoFailure: If it says that it cannot, or has not after so many seconds.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self._trouble:
                raise DemoFailure(self._trouble)
            answer = self._call(GetState, '/clipseg/get_state', GetState.Request(), timeout)
            if answer.current_state.id == State.PRIMARY_STATE_ACTIVE:
                self._check_alone()
                return
            self._spin(0.2)
        raise DemoFailure(f'the node is not active after {timeout:.0f} s')

    def _check_alone(self) -> None:
        for topic in ('/image', '/clipseg/mask'):
            if (count := self._node.count_publishers(topic)) > 1:
                raise DemoFailure(
                    f'{count} nodes publish {topic} on this ROS_DOMAIN_ID: end the other ones, or '
                    'choose another domain (--domain)'
                )

    def show(self, seed: int, picture: NDArray[np.uint8], timeout: float = 30.0) -> None:
        """Has the camera show a scene, and waits until its picture arrives.

        Args:
            seed: The scene.
            picture: What it must look like, uint8 of shape (H, W, 3).
            timeout: Seconds to wait for it.

        Raises:
            DemoFailure: If the camera refuses, or shows something else.
        """
        value = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=seed)
        request = SetParameters.Request(parameters=[Parameter(name='seed', value=value)])
        result = self._call(SetParameters, '/camera/set_parameters', request, timeout).results[0]
        if not result.successful:
            raise DemoFailure(f'the camera refuses scene {seed}: {result.reason}')

        def is_shown(image: Received) -> bool:
            if image.pixels.shape != picture.shape:
                return False
            # The renderer may differ in its last bit between two processes.
            return float(np.abs(image.pixels.astype(np.int16) - picture).mean()) < 1.0

        self.receive('/image', 1, timeout, accept=is_shown, what=f'the picture of scene {seed}')

    def ask(self, prompt: str, timeout: float = 30.0) -> int:
        """Sends prompts over the topic and waits until they are what the node searches for.

        Args:
            prompt: One or several, separated by ``;``.
            timeout: Seconds to wait.

        Returns:
            The time from which on images are segmented by it, nanoseconds of system time.

        Raises:
            DemoFailure: If the node does not take them.
        """
        self._until(
            lambda: self._prompt.get_subscription_count() > 0, timeout, 'a subscriber of prompts'
        )
        self._prompt.publish(String(data=prompt))
        request = GetParameters.Request(names=['prompt'])
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            answer = self._call(GetParameters, '/clipseg/get_parameters', request, timeout)
            if answer.values[0].string_value == prompt:
                return time.time_ns()
            self._spin(0.02)
        raise DemoFailure(f'the node did not take the prompt {prompt!r} within {timeout:.0f} s')

    def receive(
        self,
        topic: str,
        count: int,
        timeout: float = 30.0,
        *,
        since: int = 0,
        accept: Callable[[Received], bool] = lambda image: True,
        what: str = '',
    ) -> list[Received]:
        """Receives images from a topic.

        Args:
            topic: The topic.
            count: How many to wait for.
            timeout: Seconds to wait for all of them.
            since: Only of camera images taken after this, nanoseconds of system time.
            accept: Which of them count.
            what: What the message calls them if they do not come.

        Raises:
            DemoFailure: If they do not come.
        """
        images: list[Received] = []

        def on_image(message: Image) -> None:
            image = _read(message)
            if image.stamp > since and accept(image):
                images.append(image)

        subscription = self._node.create_subscription(
            Image, topic, on_image, qos_profile_sensor_data
        )
        try:
            self._until(lambda: len(images) >= count, timeout, what or f'{count} images of {topic}')
        finally:
            self._node.destroy_subscription(subscription)
        return images[:count]

    def scores(self, stamp: int, timeout: float = 5.0) -> dict[str, float]:
        """Returns the score of each prompt for the image of a stamp.

        Raises:
            DemoFailure: If the node does not say it.
        """
        self._until(lambda: stamp in self._scores, timeout, 'the scores of a mask')
        return self._scores[stamp]

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        errors = [s.message for s in message.status if s.level >= DiagnosticStatus.ERROR]
        self._trouble = errors[0] if errors else ''

    def _on_segments(self, message: Any) -> None:
        stamp = Time.from_msg(message.header.stamp).nanoseconds
        self._scores[stamp] = {segment.name: segment.score for segment in message.segments}
        while len(self._scores) > 200:
            del self._scores[min(self._scores)]

    def _call(self, kind: Any, name: str, request: Any, timeout: float) -> Any:
        if name not in self._clients:
            self._clients[name] = self._node.create_client(kind, name)
        client = self._clients[name]
        self._until(client.service_is_ready, timeout, f'the service {name}')
        future = client.call_async(request)
        self._until(future.done, timeout, f'an answer of the service {name}')
        return future.result()

    def _until(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            self._spin(0.02)
            if time.monotonic() > deadline:
                raise DemoFailure(f'waited {timeout:.0f} s for {what}, and it did not come')

    def _spin(self, seconds: float) -> None:
        self._check()
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)


def _read(message: Image) -> Received:
    arrival = time.time_ns()
    pixels = image_to_rgb(message)
    stamp = Time.from_msg(message.header.stamp).nanoseconds
    return Received(pixels[..., 0] if message.encoding == 'mono8' else pixels, stamp, arrival)
