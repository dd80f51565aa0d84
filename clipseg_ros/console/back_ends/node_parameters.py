"""Those parameters of a node that the page shows, as they are now."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from rcl_interfaces.msg import ParameterEvent
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import qos_profile_parameter_events

from clipseg_model.errors import ClipsegError
from clipseg_model.registry import get_card
from clipseg_ros.console.back_ends.messages import read_chosen
from clipseg_ros.errors import NodeTimeoutError
from clipseg_ros.ros.peer import Peer

_NAMES = ('threshold', 'presence_threshold', 'model', 'overlay_colors')
_TIMEOUT = 3.0


class NodeParameters:
    """Reads the parameters of a node, in a thread of its own, whenever they may have changed.

    Args:
        peer: What asks the node.
        changed: Called in that thread when they have been read.

    Attributes:
        thresholds: Of pixels and of scores, for prompts without their own; the model's where the
            parameters leave it to that.
        colours: Chosen colours, ``#rrggbb`` by the key of a name; replaced by who sets them.
    """

    def __init__(self, peer: Peer, changed: Callable[[], None]) -> None:
        self.thresholds = (0.5, 0.5)
        self.colours: dict[str, str] = {}
        self._peer, self._changed = peer, changed
        self._node = ''
        self._asked, self._closed = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name='console parameters', daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._peer.node.create_subscription(
            ParameterEvent, '/parameter_events', self._on_event, qos_profile_parameter_events
        )
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._closed = True
        self._asked.set()
        self._thread.join(5.0)

    def follow(self, node: str) -> None:
        """Read those of a node, by its full name."""
        self._node = node
        self.read_soon()

    def read_soon(self) -> None:
        """Read them again: the node may be another one under the same name."""
        self._asked.set()

    def _on_event(self, event: ParameterEvent) -> None:
        told = (*event.new_parameters, *event.changed_parameters)
        if event.node == self._node and any(one.name in _NAMES for one in told):
            self.read_soon()

    def _run(self) -> None:
        while True:
            self._asked.wait()
            self._asked.clear()
            if self._closed:
                return
            with suppress(NodeTimeoutError):
                self._read(self._node)

    def _read(self, node: str) -> None:
        before = self.colours
        request = GetParameters.Request(names=list(_NAMES))
        answer = self._peer.call(GetParameters, f'{node}/get_parameters', request, _TIMEOUT)
        values = map(parameter_value_to_python, answer.values)
        threshold, presence, model, colours = values
        if node != self._node or self.colours is not before:
            # What was read is of before.
            self.read_soon()
            return
        given: list[Any] = [None if value == -1.0 else value for value in (threshold, presence)]
        own = (0.5, 0.5)
        with suppress(ClipsegError):
            card = get_card(str(model))
            own = card.threshold, card.presence_threshold
        self.thresholds = (
            float(own[0] if given[0] is None else given[0]),
            float(own[1] if given[1] is None else given[1]),
        )
        self.colours = read_chosen(colours)
        self._changed()
