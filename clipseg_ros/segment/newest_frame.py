"""The newest image of the camera, kept for whoever points at something in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from clipseg_model.errors import PromptError
from clipseg_model.segmentation import Segmentation
from clipseg_ros.prompts.pick_server import PickFrame
from clipseg_ros.prompts.support_pair import stamp_of
from clipseg_ros.segment.pipeline import SegmentationPipeline

MAX_LAG = 0.5
"""Seconds by which the newest segmented frame may be older than the newest one and still be what
somebody points at."""


class NewestFrame:
    """Keeps the message that came last; nothing is converted before it is asked for.

    Args:
        pipeline: Returns the pipeline of now, None while the node is not configured.
    """

    def __init__(self, pipeline: Callable[[], SegmentationPipeline | None]) -> None:
        self._pipeline = pipeline
        self._newest: tuple[Any, float] | None = None

    @property
    def message(self) -> Any:
        """The image message that came last; None where none has."""
        newest = self._newest
        return None if newest is None else newest[0]

    def put(self, message: Any) -> None:
        """Takes an image message."""
        self._newest = (message, time.monotonic())

    def clear(self) -> None:
        """Forgets it."""
        self._newest = None

    def read(self, with_labels: bool) -> PickFrame:
        """Returns the newest frame.

        Args:
            with_labels: Take the newest one that was segmented instead, unless it lags behind by
                more than :data:`MAX_LAG`.

        Raises:
            PromptError: No image has come.
            ImageConversionError: It cannot be read.
        """
        newest, pipeline = self._newest, self._pipeline()
        if newest is None or pipeline is None:
            raise PromptError(
                'there is no frame to cut from: no image has arrived since the node was configured'
            )
        message, arrived = newest
        age, found = time.monotonic() - arrived, pipeline.last_found
        if with_labels and found is not None and isinstance(found.segmentation, Segmentation):
            lag = (stamp_of(message) - stamp_of(found)) * 1e-9
            if 0 <= lag <= MAX_LAG:
                ids = [entry.id for entry in found.prompts]
                segmentation = found.segmentation
                return PickFrame(found.rgb, age + lag, lambda: segmentation.labels(ids))
        return PickFrame(pipeline.to_rgb(message), age)
