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
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool

from clipseg_model.errors import PromptError
from clipseg_ros.errors import NodeTimeoutError
from clipseg_ros.images.conversion import image_to_array
from clipseg_ros.prompts.text import read_prompts
from clipseg_ros.ros.interfaces import load_interfaces
from clipseg_ros.ros.peer import Peer
from clipseg_ros.ros.qos import sensor_input
from clipseg_ros.ros.timing import stamp_of

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
        arrival: When the last of its outputs arrived, nanoseconds of this machine's clock.
        images: The outputs asked for, read only: ``mask`` (H, W) bool; ``labels`` (H, W) uint8, the
            prompts' ids; ``confidence`` (H, W) uint8, 0…255; ``probability`` (H, W) float32, 0…1;
            ``overlay`` (H, W, 3) uint8, RGB.
    """

    stamp: int
    frame_id: str
    arrival: int
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
        self._peer = Peer(f'clipseg_client_{os.getpid()}_{next(_numbers)}', domain_id)
        self._changed = self._peer.changed
        # Output → stamp → that output alone, of frames that arrived since the last call began to
        # wait; the last ones.
        self._arrived: dict[str, dict[int, Frame]] = {}
        # When prompts were last set, and the oldest stamps that arrived since then.
        self._set_at = 0
        self._since_set: list[int] = []
        self._diagnostics = DiagnosticStatus()
        self._peer.node.create_subscription(
            DiagnosticArray, '/diagnostics', self._on_diagnostics, 10
        )

    def __enter__(self) -> SegmentClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all subscriptions; the client cannot be used afterwards."""
        self._peer.close()

    @property
    def status(self) -> str:
        """What the node last said of itself in its diagnostics; empty before the first second."""
        return str(self._diagnostics.message)

    def set_prompts(self, prompts: str | Sequence[str], timeout: float | None = None) -> list[str]:
        """Make these prompts the active ones, and return their names.

        Waiting for outputs afterwards gives frames that were segmented with them.

        Args:
            prompts: ``mug; grass: short green grass``, or a list of such texts; empty stops.
            timeout: Seconds to wait for the node's answer.

        Raises:
            PromptError: The node refuses them; its reason is the message.
            NodeTimeoutError: There is no such node, or it does not answer.
        """
        value = prompts if isinstance(prompts, str) else list(prompts) or ''
        names = [prompt.label for prompt in read_prompts(value)]
        self._set_parameter('prompt', value, PromptError, timeout)
        with self._changed:
            self._set_at = time.time_ns()
            self._since_set.clear()
        return names

    def prompts(self, timeout: float | None = None) -> list[str]:
        """Return the names of the active prompts that have words, or raise a NodeTimeoutError."""
        value = self._peer.get_parameter(self.node, 'prompt', self._seconds(timeout))
        return [prompt.label for prompt in read_prompts(value or '')]

    def set_parameter(self, name: str, value: Any, timeout: float | None = None) -> None:
        """Set a parameter of the node, such as ``threshold``.

        Whole numbers are numbers, an empty list or None is the empty value of a text or a list, and
        numpy's types are taken.

        Raises:
            ValueError: The node refuses the value; its reason is the message.
            TypeError: The value is of no type that a parameter may have.
            NodeTimeoutError: There is no such node, or it does not answer.
        """
        self._set_parameter(name, value, ValueError, timeout)

    def enable(self, wish: bool = True, timeout: float | None = None) -> None:
        """Resume or pause the node, or raise a NodeTimeoutError."""
        self._call(SetBool, 'enable', SetBool.Request(data=wish), timeout)

    def wait_for(self, *outputs: str, timeout: float | None = None) -> Frame:
        """Wait for the next frame: one that arrives from now on, segmented with the prompts set.

        Frames stamped before the prompts were set are left out, except from the third on, for
        cameras that stamp by another clock. ``outputs`` are some of :data:`OUTPUTS`.

        Raises:
            ValueError: There is no such output.
            NodeTimeoutError: Nothing comes; the message says what the node says of itself.
        """
        unknown = set(outputs) - set(OUTPUTS)
        if unknown or not outputs:
            raise ValueError(
                f'{", ".join(sorted(unknown)) or "nothing"}: wait for some of {OUTPUTS}'
            )
        timeout = self._seconds(timeout)
        with self._changed:
            self._arrived = {name: {} for name in {*self._arrived, *outputs}}
            for name in outputs:
                self._subscribe(name)
            stamps = self._peer.wait_until(lambda: self._complete(outputs), timeout)
            if not stamps:
                raise NodeTimeoutError(self._why_nothing(outputs, timeout))
            parts = [self._arrived[name][max(stamps)] for name in outputs]
            images = {name: part[name] for name, part in zip(outputs, parts, strict=True)}
            arrival = max(part.arrival for part in parts)
            return Frame(parts[0].stamp, parts[0].frame_id, arrival, images)

    def wait_for_mask(self, timeout: float | None = None) -> NDArray[np.bool_]:
        """Wait for the next mask as :meth:`wait_for` does: (H, W) bool, where any prompt is."""
        return self.wait_for('mask', timeout=timeout)['mask']

    def masks(self, *names: str, timeout: float | None = None) -> dict[str, NDArray[np.bool_]]:
        """Return each prompt's mask in the newest frame: name → (H, W) bool, ordered by id.

        Does not subscribe. Unlike in ``labels``, masks of several prompts may overlap. Without
        names, it returns those of all prompts that are active and not negative.

        Raises:
            ImportError: The package's own messages are not built.
            NodeTimeoutError: There are no masks; the message says why.
        """
        interfaces = load_interfaces()
        if interfaces is None:
            raise ImportError('~/get_masks needs the messages of clipseg_ros: build them (colcon)')
        timeout = self._seconds(timeout)
        # The node answers before the client gives up, to say why.
        request = interfaces.GetMasks.Request(names=names, wait=0.8 * timeout)
        answer = self._call(interfaces.GetMasks, 'get_masks', request, timeout)
        if not answer.success:
            raise NodeTimeoutError(f'no masks of {self.node}: {answer.message}')
        return {entry.name: image_to_array(entry.mask) > 0 for entry in answer.masks}

    def _complete(self, outputs: Sequence[str]) -> set[int]:
        """Return the stamps of frames that have all outputs and are newer than the prompts."""
        stamps = set.intersection(*(set(self._arrived[name]) for name in outputs))
        if len(self._since_set) > _MAY_BE_OLD:
            old = self._since_set[:_MAY_BE_OLD]
            return stamps - {stamp for stamp in old if stamp < self._set_at}
        return {stamp for stamp in stamps if stamp >= self._set_at}

    def _subscribe(self, output: str) -> None:
        topic = f'{self.node}/{output}'
        if topic not in {subscription.topic_name for subscription in self._peer.node.subscriptions}:
            receive = self._receiver(output)
            self._peer.node.create_subscription(Image, topic, receive, sensor_input())

    def _receiver(self, name: str) -> Callable[[Image], None]:
        def receive(message: Image) -> None:
            arrival = time.time_ns()
            values = image_to_array(message)
            images = {name: values > 0 if name == 'mask' else values}
            frame = Frame(stamp_of(message), message.header.frame_id, arrival, images)
            with self._changed:
                frames = self._arrived[name]
                frames[frame.stamp] = frame
                while len(frames) > _KEPT:
                    del frames[min(frames)]
                since_set = sorted({*self._since_set, frame.stamp})
                self._since_set = since_set[: _MAY_BE_OLD + 1]
                self._changed.notify_all()

        return receive

    def _why_nothing(self, outputs: Sequence[str], timeout: float) -> str:
        waited = f'no {" and ".join(outputs)} of {self.node} within {timeout:g} s: '
        topics = [f'{self.node}/{name}' for name in outputs]
        silent = [topic for topic in topics if not self._peer.node.count_publishers(topic)]
        if silent:
            return (
                f'{waited}nobody publishes {silent[0]}; is the node running and '
                'configured, under this name, in this ROS_DOMAIN_ID?'
            )
        said = self.status or 'nothing of itself yet (/diagnostics)'
        return f'{waited}the node says: {said}'

    def _set_parameter(
        self, name: str, value: Any, error: type[Exception], timeout: float | None
    ) -> None:
        result = self._peer.set_parameter(self.node, name, value, self._seconds(timeout))
        if not result.successful:
            raise error(result.reason)

    def _call(self, kind: Any, name: str, request: Any, timeout: float | None) -> Any:
        return self._peer.call(kind, f'{self.node}/{name}', request, self._seconds(timeout))

    def _seconds(self, timeout: float | None) -> float:
        return self.timeout if timeout is None else timeout

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.startswith(f'{self.node.lstrip("/")}:'):
                self._diagnostics = status
