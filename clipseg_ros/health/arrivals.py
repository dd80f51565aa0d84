"""The camera's images as they arrive: the newest is kept, and those that were lost are counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipseg_ros.outputs.result import FrameResult
from clipseg_ros.prompts.pick_server import PickFrame
from clipseg_ros.prompts.set import ActivePrompt
from clipseg_ros.ros.timing import stamp_of

# Seconds by which the newest result may be older than the newest image and still be pointed at.
_MAX_LAG = 0.5


class NewestImage:
    """Keeps the message that came last and the newest result, for services that read them.

    Args:
        to_rgb: From a message to RGB uint8 (H, W, 3); called when a service asks for the image.

    Attributes:
        message: The message that came last.
        result: The newest result; None where the newest image was not segmented.
    """

    def __init__(self, to_rgb: Callable[[Any], NDArray[np.uint8]]) -> None:
        self.message: Any = None
        self.result: FrameResult | None = None
        self._to_rgb = to_rgb
        self._arrived = 0.0
        self._skipped: Any = None

    def put(self, message: Any) -> None:
        """Take an image message."""
        self.message, self._arrived, self._skipped = message, time.monotonic(), None

    def skip(self, message: Any) -> None:
        """Take note that a message is not segmented, because nobody asks or subscribes."""
        self.result, self._skipped = None, message

    def forget(self) -> None:
        """Forget the images: they are old, and others will not come for a while."""
        self.message = self.result = self._skipped = None

    def take_back(self, prompts: tuple[ActivePrompt, ...]) -> Any:
        """Return the newest message, once, if it is to be segmented once more, else None.

        It is if it was skipped, or segmented by other prompts; not while it is in work.
        """
        message, result = self.message, self.result
        if message is None:
            return None
        old = result is not None and result.header is message.header and result.prompts != prompts
        if not old and self._skipped is not message:
            return None
        self.result = self._skipped = None
        return message

    def read(self, with_labels: bool) -> PickFrame | None:
        """Return the newest image; with labels the newest that was segmented, if not too old.

        None where no image has come, or none since somebody last needed one.

        Raises:
            ImageConversionError: It cannot be read.
        """
        message, result = self.message, self.result
        if message is None:
            return None
        if with_labels and result is not None and 0 <= self._lag(result) <= _MAX_LAG:
            return self.frame_of(result)
        return PickFrame(self._to_rgb(message), self._age())

    def frame_of(self, result: FrameResult) -> PickFrame:
        """Return a result as a frame with labels, however old it is."""
        found, ids = result.segmentation, [entry.id for entry in result.prompts]
        age = self._age() + max(0.0, self._lag(result))
        return PickFrame(result.rgb, age, lambda: found.labels(ids))

    def _age(self) -> float:
        return time.monotonic() - self._arrived

    def _lag(self, result: FrameResult) -> float:
        """Return by how many seconds a result is older than the newest image."""
        message = self.message
        return 0.0 if message is None else (stamp_of(message) - stamp_of(result)) * 1e-9


class LostImages:
    """Counts the gaps in the sequence numbers of one publisher.

    Nothing else shows images that were overwritten in the middleware or lost on the way. A message
    does not tell its publisher, so nothing is counted while a topic has several.

    Attributes:
        count: Images that were lost since :meth:`start`.
    """

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Count from zero, from the next image on."""
        self.count = 0
        self._last: int | None = None

    def pause(self) -> None:
        """Count no gap up to the next image."""
        self._last = None

    def see(self, info: Mapping[str, Any], publishers: int) -> None:
        """Take note of an image that came, given rclpy's message info."""
        # None with a middleware that does not supply it.
        number = info['publication_sequence_number']
        if publishers != 1 or number is None:
            self._last = None
            return
        # A publisher that restarts begins with 1 again.
        if self._last is not None and number > self._last:
            self.count += number - self._last - 1
        self._last = number
