"""A client of the node ``segment`` for scripts and notebooks: prompts in, numpy arrays out.

    from clipseg_ros.client import SegmentClient

    with SegmentClient() as clipseg:
        clipseg.set_prompts(['the mug', 'grass: short green grass'])
        mask = clipseg.wait_for_mask()          # (H, W) bool

It needs no node of its own around it, spins by itself, and works beside other nodes of a process.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.time import Time
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool

from clipseg_model.errors import PromptError
from clipseg_ros.errors import NodeTimeoutError
from clipseg_ros.images.conversion import image_to_array
from clipseg_ros.prompts.text import read_prompts
from clipseg_ros.ros.interfaces import load_interfaces
from clipseg_ros.ros.qos import sensor_input

OUTPUTS = ('mask', 'labels', 'confidence', 'probability', 'overlay')
"""What can be waited for."""

# When prompts change, the node may be publishing one image and segmenting another one with the
# prompts of before; it takes the new ones for the next.
_MAY_BE_OLD = 2
_KEPT = 8

_numbers = itertools.count()


@dataclass(frozen=True)
class Frame:
    """What the node found in one image.

    Attributes:
        stamp: Of the image, nanoseconds.
        frame_id: Of the image.
        images: Output → array: ``mask`` (H, W) bool; ``labels`` (H, W) uint8, the prompts' ids;
            ``confidence`` (H, W) uint8, 0…255; ``probability`` (H, W) float32, 0…1; ``overlay``
            (H, W, 3) uint8, RGB. Those that were asked for. Read only.
    """

    stamp: int
    frame_id: str
    images: dict[str, NDArray[Any]] = field(repr=False)

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self.images:
            raise KeyError(f'{name} was not asked for: wait_for({name!r}) brings it')
        return self.images[name]


class SegmentClient:
    """Talks to a running node.

    An output is subscribed to when it is first waited for, and from then on the node works on every
    image; close the client, or leave its ``with`` block, to end that.

    Args:
        node: Name of the node, with its namespace.
        timeout: Seconds that calls wait unless they say otherwise.
        domain_id: ROS domain; that of the environment where None.
    """

    def __init__(
        self, node: str = '/clipseg', timeout: float = 10.0, domain_id: int | None = None
    ) -> None:
        self.node = f'/{node.strip("/")}'
        self.timeout = timeout
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        name = f'clipseg_client_{os.getpid()}_{next(_numbers)}'
        self._ros = rclpy.create_node(name, context=self._context)
        self._changed = threading.Condition()
        # Output → stamp → array, of frames that arrived since somebody began to wait.
        self._arrived: dict[str, dict[int, NDArray[Any]]] = {}
        self._frames: dict[int, str] = {}
        # Since prompts were last set: when that was, and the stamps that came after.
        self._set_at = 0
        self._since_set: set[int] = set()
        self._status = ''
        self._subscriptions: list[Any] = [
            self._ros.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        ]
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._ros)
        self._thread = threading.Thread(target=self._spin, name=name, daemon=True)
        self._thread.start()

    def __enter__(self) -> SegmentClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all subscriptions; the client cannot be used afterwards."""
        self._executor.shutdown()
        self._thread.join(5)
        self._ros.destroy_node()
        self._context.try_shutdown()

    @property
    def status(self) -> str:
        """What the node last said of itself in its diagnostics; empty before the first second."""
        return self._status

    def set_prompts(self, prompts: str | Sequence[str], timeout: float | None = None) -> list[str]:
        """Makes these prompts the active ones, in place of the old ones.

        Waiting for outputs afterwards gives frames that were segmented with them.

        Args:
            prompts: ``mug; grass: short green grass``, or a list of such texts; empty stops.
            timeout: Seconds to wait for the node's answer.

        Returns:
            Their names.

        Raises:
            PromptError: The node refuses them; its reason is the message.
            NodeTimeoutError: There is no such node, or it does not answer.
        """
        value = prompts if isinstance(prompts, str) else list(prompts) or ''
        names = [prompt.label for prompt in read_prompts(value)]
        self._set_parameter('prompt', value, PromptError, timeout)
        with self._changed:
            self._set_at = int(self._ros.get_clock().now().nanoseconds)
            self._since_set.clear()
        return names

    def prompts(self, timeout: float | None = None) -> list[str]:
        """Returns the names of the active prompts that have words.

        Raises:
            NodeTimeoutError: There is no such node, or it does not answer.
        """
        request = GetParameters.Request(names=['prompt'])
        (value,) = self._call(GetParameters, 'get_parameters', request, timeout).values
        return [prompt.label for prompt in read_prompts(parameter_value_to_python(value) or '')]

    def set_parameter(self, name: str, value: Any, timeout: float | None = None) -> None:
        """Sets a parameter of the node, such as ``threshold``.

        Raises:
            ValueError: The node refuses the value; its reason is the message.
            NodeTimeoutError: There is no such node, or it does not answer.
        """
        self._set_parameter(name, value, ValueError, timeout)

    def enable(self, wish: bool = True, timeout: float | None = None) -> None:
        """Has the node go on, or pause.

        Raises:
            NodeTimeoutError: There is no such node, or it does not answer.
        """
        self._call(SetBool, 'enable', SetBool.Request(data=wish), timeout)

    def wait_for(self, *outputs: str, timeout: float | None = None) -> Frame:
        """Waits for the next frame: one that arrives from now on, segmented with the prompts set.

        Frames stamped before the prompts were set are left out, except from the third on, for
        cameras that stamp by another clock.

        Args:
            outputs: Some of :data:`OUTPUTS`, of one and the same image.
            timeout: Seconds to wait.

        Raises:
            ValueError: There is no such output.
            NodeTimeoutError: Nothing comes; the message says what the node says of itself.
        """
        unknown = set(outputs) - set(OUTPUTS)
        if unknown or not outputs:
            raise ValueError(
                f'{", ".join(sorted(unknown)) or "nothing"}: wait for some of {OUTPUTS}'
            )
        timeout = self.timeout if timeout is None else timeout
        with self._changed:
            self._arrived = {name: {} for name in {*self._arrived, *outputs}}
            self._frames.clear()
        self._subscribe(outputs)
        with self._changed:
            if not self._changed.wait_for(lambda: self._complete(outputs), timeout):
                raise NodeTimeoutError(self._why_nothing(outputs, timeout))
            stamp = max(self._complete(outputs))
            images = {name: self._arrived[name][stamp] for name in outputs}
            return Frame(stamp, self._frames[stamp], images)

    def wait_for_mask(self, timeout: float | None = None) -> NDArray[np.bool_]:
        """Waits for the next mask; as :meth:`wait_for`.

        Returns:
            (H, W) bool: where any prompt matches.

        Raises:
            NodeTimeoutError: None comes.
        """
        return self.wait_for('mask', timeout=timeout)['mask']

    def masks(self, *names: str, timeout: float | None = None) -> dict[str, NDArray[np.bool_]]:
        """Asks for the own mask of every prompt in the newest frame, without subscribing.

        Unlike in ``labels``, masks of several prompts may overlap. Needs the package's own
        messages, here and at the node.

        Args:
            names: Of the prompts; none for all that are active and not negative.
            timeout: Seconds to wait.

        Returns:
            Name → (H, W) bool, in the order of the ids.

        Raises:
            ImportError: The messages are not built.
            NodeTimeoutError: There are no masks; the message says why.
        """
        interfaces = load_interfaces()
        if interfaces is None:
            raise ImportError('~/get_masks needs the messages of clipseg_ros: build them (colcon)')
        timeout = self.timeout if timeout is None else timeout
        # The node answers before the client gives up, to say why.
        request = interfaces.GetMasks.Request(names=names, wait=0.8 * timeout)
        answer = self._call(interfaces.GetMasks, 'get_masks', request, timeout)
        if not answer.success:
            raise NodeTimeoutError(f'no masks of {self.node}: {answer.message}')
        return {entry.name: image_to_array(entry.mask) > 0 for entry in answer.masks}

    def _complete(self, outputs: Sequence[str]) -> set[int]:
        """Stamps of the frames that have all outputs and are not of before the prompts."""
        stamps = set.intersection(*(set(self._arrived[name]) for name in outputs))
        if len(self._since_set) > _MAY_BE_OLD:
            old = sorted(self._since_set)[:_MAY_BE_OLD]
            return stamps - {stamp for stamp in old if stamp < self._set_at}
        return {stamp for stamp in stamps if stamp >= self._set_at}

    def _subscribe(self, outputs: Sequence[str]) -> None:
        known = {subscription.topic_name for subscription in self._subscriptions}
        for name in outputs:
            topic = f'{self.node}/{name}'
            if topic in known:
                continue
            self._subscriptions.append(
                self._ros.create_subscription(Image, topic, self._receiver(name), sensor_input())
            )
            self._executor.wake()

    def _receiver(self, name: str) -> Callable[[Image], None]:
        def receive(message: Image) -> None:
            values = image_to_array(message)
            stamp = int(Time.from_msg(message.header.stamp).nanoseconds)
            with self._changed:
                frames = self._arrived[name]
                frames[stamp] = values > 0 if name == 'mask' else values
                self._frames[stamp] = message.header.frame_id
                self._since_set.add(stamp)
                while len(frames) > _KEPT:
                    del frames[min(frames)]
                self._changed.notify_all()

        return receive

    def _why_nothing(self, outputs: Sequence[str], timeout: float) -> str:
        waited = f'no {" and ".join(outputs)} of {self.node} within {timeout:g} s: '
        silent = [name for name in outputs if not self._ros.count_publishers(f'{self.node}/{name}')]
        if silent:
            return (
                f'{waited}nobody publishes {self.node}/{silent[0]}; is the node running and '
                'configured, under this name, in this ROS_DOMAIN_ID?'
            )
        said = self._status or 'nothing of itself yet (/diagnostics)'
        return f'{waited}the node says: {said}'

    def _set_parameter(
        self, name: str, value: Any, error: type[Exception], timeout: float | None
    ) -> None:
        message = Parameter(name, value=value).to_parameter_msg()
        request = SetParameters.Request(parameters=[message])
        (result,) = self._call(SetParameters, 'set_parameters', request, timeout).results
        if not result.successful:
            raise error(result.reason)

    def _call(self, kind: Any, name: str, request: Any, timeout: float | None) -> Any:
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        service = f'{self.node}/{name}'
        client = self._ros.create_client(kind, service)
        try:
            if not client.wait_for_service(max(0.0, deadline - time.monotonic())):
                raise NodeTimeoutError(
                    f'there is no service {service}: is the node running, under this name, in '
                    'this ROS_DOMAIN_ID?'
                )
            done = threading.Event()
            future = client.call_async(request)
            future.add_done_callback(lambda _: done.set())
            self._executor.wake()
            if not done.wait(max(0.0, deadline - time.monotonic())):
                raise NodeTimeoutError(f'{service} does not answer; the node may hang')
            return future.result()
        finally:
            self._ros.destroy_client(client)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.startswith(f'{self.node.lstrip("/")}:'):
                self._status = status.message

    def _spin(self) -> None:
        with suppress(ExternalShutdownException):
            self._executor.spin()
