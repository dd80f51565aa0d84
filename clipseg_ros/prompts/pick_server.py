"""A service and two topics for "that one there": they make an example of a part of a frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from sensor_msgs.msg import RegionOfInterest

from clipseg_model.errors import ClipsegError, PromptError
from clipseg_model.prompts import Prompt
from clipseg_ros.errors import ImageConversionError
from clipseg_ros.prompts.messages import write_messages
from clipseg_ros.prompts.pick import Picked, Place, pick
from clipseg_ros.prompts.server import PICTURE_PAUSE, PromptServer
from clipseg_ros.prompts.set import EXAMPLE, ActivePrompt
from clipseg_ros.prompts.text import check_written
from clipseg_ros.ros.interfaces import Interfaces
from clipseg_ros.ros.log import ThrottledLog
from clipseg_ros.ros.qos import QosWatch, command_input


@dataclass(frozen=True)
class PickFrame:
    """A frame that something may be cut out of.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        age: Seconds since it arrived.
        labels: Returns which prompt matches in it, (H, W) uint8; None where that is not known.
    """

    image: NDArray[np.uint8]
    age: float
    labels: Callable[[], NDArray[np.uint8]] | None = None


class PickServer:
    """Makes prompts of what somebody points at.

    Args:
        node: The node.
        interfaces: The package's own messages, where they are built.
        server: Has the prompts.
        frame: Returns the frame to cut from, given whether labels would help; raises a
            PromptError where there is none.
        log: For what is refused.
    """

    def __init__(
        self,
        node: Any,
        interfaces: Interfaces | None,
        server: PromptServer,
        frame: Callable[[bool], PickFrame],
        log: ThrottledLog,
    ) -> None:
        self._node, self._interfaces = node, interfaces
        self._server, self._frame, self._log = server, frame, log
        self._entities: list[tuple[Callable[[Any], Any], Any]] = []

    def open(self, watch: QosWatch) -> None:
        """Creates the topics and the service."""
        node = self._node
        for message_type, topic, callback in (
            (Point, '~/pick_point', self._on_point),
            (RegionOfInterest, '~/pick_box', self._on_box),
        ):
            subscription = watch.create_subscription(
                message_type, topic, callback, command_input(), self._server.inbox.gate(topic)
            )
            self._entities.append((node.destroy_subscription, subscription))
        if self._interfaces is not None:
            service = node.create_service(self._interfaces.PickPrompt, '~/pick', self._on_service)
            self._entities.append((node.destroy_service, service))

    def close(self) -> None:
        """Takes them away."""
        for destroy, entity in self._entities:
            destroy(entity)
        self._entities.clear()

    def _pick(
        self, place: Place, name: str | None = None, phrase: str | None = None, weight: float = 0.5
    ) -> tuple[ActivePrompt, Picked, str]:
        """Makes the prompt; returns it, what was cut out, and both in words."""
        frame = self._frame(place.is_point)
        labels = frame.labels() if place.is_point and frame.labels is not None else None
        picked = pick(place, frame.image, labels)
        example = picked.example
        prompt = Prompt(
            phrase, example.image, example.mask, name=name or phrase or EXAMPLE, weight=weight
        )
        entry = self._server.add(prompt)
        height, width = frame.image.shape[:2]
        return entry, picked, (
            f'{entry.id} {entry.name!r} is {picked.how}: box {picked.box} of a frame of {width} × '
            f'{height} px that arrived {frame.age:.2f} s ago'
        )  # fmt: skip

    def _on_point(self, message: Point) -> None:
        def place() -> Place:
            if not (np.isfinite(message.x) and np.isfinite(message.y)):
                raise PromptError(f'the point ({message.x}, {message.y}) is not finite')
            return Place(int(np.floor(message.x)), int(np.floor(message.y)))

        self._on_topic('~/pick_point', place)

    def _on_box(self, message: RegionOfInterest) -> None:
        def place() -> Place:
            if not (message.width and message.height):
                raise PromptError(
                    f'the box has width {message.width} and height {message.height}: give 1 px at '
                    'least, or publish a point on ~/pick_point'
                )
            return Place(message.x_offset, message.y_offset, message.width, message.height)

        self._on_topic('~/pick_box', place)

    def _on_topic(self, topic: str, place: Callable[[], Place]) -> None:
        what = topic.removeprefix('~/')

        def take() -> None:
            try:
                _, _, said = self._pick(place())
            except (ClipsegError, ImageConversionError) as error:
                reason = str(error)
                line = f'{what} refused, nothing changed: {reason}'
                self._log.warning(f'{what} {reason[:40]}', line)
                return
            self._node.get_logger().info(said)

        self._server.inbox.put(topic, take, PICTURE_PAUSE)

    def _on_service(self, request: Any, response: Any) -> Any:
        assert self._interfaces is not None
        try:
            name, phrase = check_written(request.name, request.phrase)
            place = Place(request.x, request.y, request.width, request.height)
            entry, picked, response.message = self._pick(place, name, phrase, request.weight)
        except (ClipsegError, ImageConversionError) as error:
            response.success, response.message = False, str(error)
            self._log.warning(f'pick {response.message[:40]}', f'pick refused: {error}')
            return response
        response.success = True
        [response.prompt] = write_messages(
            self._interfaces.Prompt,
            [entry],
            self._node.threshold(),
            self._node.presence_threshold(),
        )
        x, y, width, height = picked.box
        response.box = RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height)
        self._node.get_logger().info(response.message)
        return response
