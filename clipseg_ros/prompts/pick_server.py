"""A service and two topics that make a prompt of a part of the newest frame."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from sensor_msgs.msg import RegionOfInterest

from clipseg_model.errors import ClipsegError, PromptError
from clipseg_model.prompts import Prompt
from clipseg_ros.errors import ImageConversionError
from clipseg_ros.prompts.entry import PICTURE_PAUSE, PromptEntry
from clipseg_ros.prompts.pick import Picked, Place, pick
from clipseg_ros.prompts.requests import with_prompt
from clipseg_ros.prompts.set import EXAMPLE, ActivePrompt, key_of
from clipseg_ros.prompts.text import check_written
from clipseg_ros.ros.qos import QosWatch


@dataclass(frozen=True)
class PickFrame:
    """A frame to cut an example out of, (H, W, 3) uint8 RGB, and its age in seconds.

    ``labels`` returns its labels, (H, W) uint8; it is None if the frame was not segmented.
    """

    image: NDArray[np.uint8]
    age: float
    labels: Callable[[], NDArray[np.uint8]] | None = None


_MOST_WAITING = 16
"""Picks that wait for their frame, or its masks, at the same time; more are refused."""


class PickServer(PromptEntry):
    """``~/pick``, ``~/pick_point`` and ``~/pick_box``: make prompts of parts of a frame.

    Where nobody subscribes to an output, an image is waited for, and segmented for a point.

    Args:
        frame: Returns the frame, None where none has come yet, or raises a PromptError where none
            will; its argument says whether labels help.
        wait: Waits for it, and for its masks where its argument says so; raises a PromptError where
            those take too long.
        entry: As :class:`PromptEntry` takes them.
    """

    def __init__(
        self,
        frame: Callable[[bool], PickFrame | None],
        wait: Callable[[bool], Awaitable[PickFrame | None]],
        *entry: Any,
    ) -> None:
        super().__init__(*entry)
        self._frame, self._wait = frame, wait
        self._waiting = 0

    def open(self, watch: QosWatch) -> None:
        """Create the topics and the service."""
        self._subscribe(watch, Point, '~/pick_point', self._take_point, PICTURE_PAUSE)
        self._subscribe(watch, RegionOfInterest, '~/pick_box', self._take_box, PICTURE_PAUSE)
        if self._interfaces is not None:
            self._serve(self._interfaces.PickPrompt, 'pick', self._answer, several=True)

    def _pick(
        self,
        place: Place,
        frame: PickFrame,
        name: str | None = None,
        phrase: str | None = None,
        weight: float = 0.5,
    ) -> tuple[ActivePrompt, Picked, str]:
        """Make the prompt; return it, what was cut out, and both in words."""
        server = self._server
        labels = frame.labels() if place.is_point and frame.labels is not None else None
        picked = pick(place, frame.image, labels)
        example, name = picked.example, name or phrase or EXAMPLE
        prompt = Prompt(phrase, example.image, example.mask, name=name, weight=weight)
        server.replace(with_prompt(server.prompts.active, prompt))
        [entry] = [one for one in server.prompts.active if key_of(one.name) == key_of(prompt.label)]
        height, width = frame.image.shape[:2]
        said = (
            f'{entry.id} {entry.name!r} is {picked.how}: box {picked.box} of a frame of {width} × '
            f'{height} px that arrived {frame.age:.2f} s ago'
        )
        self._log.info('picked', said, each=True)
        return entry, picked, said

    def _take_point(self, message: Point) -> None:
        if not (np.isfinite(message.x) and np.isfinite(message.y)):
            raise PromptError(f'the point ({message.x}, {message.y}) is not finite')
        place = Place(int(np.floor(message.x)), int(np.floor(message.y)))
        self._take(place, 'pick_point')

    def _take(self, place: Place, topic: str) -> None:
        """Make the prompt of a place, now or when its frame is there."""
        frame = self._find_frame(place)
        if frame is not None:
            self._pick(place, frame)
        else:
            self._node.executor.create_task(self._pick_soon(place, topic))

    def _find_frame(self, place: Place) -> PickFrame | None:
        """Return the frame for a place; None where it, or its masks, have to be waited for."""
        frame = self._frame(place.is_point)
        lacks_masks = place.is_point and frame is not None and frame.labels is None
        return None if lacks_masks else frame

    async def _wait_for_frame(self, place: Place) -> PickFrame:
        if self._waiting >= _MOST_WAITING:
            raise PromptError(
                f'{self._waiting} picks wait for their frame, and no more are taken: try again '
                'when one is answered'
            )
        self._waiting += 1
        try:
            frame = await self._wait(place.is_point)
        finally:
            self._waiting -= 1
        if frame is None:
            raise PromptError(
                'there is no frame to cut from: no image arrived in time, /diagnostics says why'
            )
        return frame

    async def _pick_soon(self, place: Place, topic: str) -> None:
        """Make the prompt of a place that came by a topic, when its frame is there."""
        try:
            self._pick(place, await self._wait_for_frame(place))
        except (ClipsegError, ImageConversionError) as error:
            self._refuse(topic, error)

    def _take_box(self, message: RegionOfInterest) -> None:
        if not (message.width and message.height):
            raise PromptError(
                f'the box has width {message.width} and height {message.height}: give 1 px at '
                'least, or publish a point on ~/pick_point'
            )
        place = Place(message.x_offset, message.y_offset, message.width, message.height)
        self._take(place, 'pick_box')

    async def _answer(self, request: Any, response: Any) -> str:
        name, phrase = check_written(request.name, request.phrase)
        place = Place(request.x, request.y, request.width, request.height)
        frame = self._find_frame(place) or await self._wait_for_frame(place)
        entry, picked, said = self._pick(place, frame, name, phrase, request.weight)
        [response.prompt] = self._server.messages([entry])
        x, y, width, height = picked.box
        response.box = RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height)
        return said
