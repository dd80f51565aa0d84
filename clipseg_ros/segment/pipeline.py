"""The way of a frame: a request goes to the model, and its result to the outputs, mask first."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.clock import Clock

from clipseg_model.cuda_streams import PendingSegmentation
from clipseg_model.outputs.frame_outputs import Scratch
from clipseg_model.regions import Box
from clipseg_model.segmentation import Segmentation
from clipseg_model.settings import SegmentSettings
from clipseg_model.video.steadying import Steadier
from clipseg_ros.outputs.publishers import SegmentOutputs
from clipseg_ros.outputs.result import (
    IN_SPACE,
    INSTANCES,
    FrameResult,
    Look,
    compute_pixels,
    write_image,
)
from clipseg_ros.outputs.things import ThingTracker, write_instances
from clipseg_ros.prompts.set import ActivePrompt, reported
from clipseg_ros.ros.timing import stamp_of
from clipseg_ros.segment.memory_relief import MemoryRelief
from clipseg_ros.segment.parameters import Settings
from clipseg_ros.segment.region import Roi, find_region

_OF_THINGS = IN_SPACE | {INSTANCES}


@dataclass(frozen=True)
class FrameRequest:
    """An image with everything that decides what is found in it.

    Attributes:
        header: Of the image.
        rgb: RGB uint8 (H, W, 3).
        prompts: The enabled prompts, negative ones included.
        settings: The parameters.
        region: The part that the model gets; None for all of it.
    """

    header: Any
    rgb: NDArray[np.uint8]
    prompts: tuple[ActivePrompt, ...]
    settings: Settings
    region: Box | None = None

    @classmethod
    def of(
        cls,
        message: Any,
        rgb: NDArray[np.uint8],
        prompts: tuple[ActivePrompt, ...],
        settings: Settings,
    ) -> FrameRequest:
        """Return the request for an image message.

        Raises:
            RegionError: The region of interest reaches out of the image.
        """
        region = find_region(settings.roi, *rgb.shape[:2])
        return cls(message.header, rgb, prompts, settings, region)

    @property
    def seen(self) -> NDArray[np.uint8]:
        """What the model gets, RGB uint8 (h, w, 3)."""
        return self.rgb if self.region is None else self.rgb[self.region.slices]


@dataclass(frozen=True)
class StartedFrame:
    """A frame that the model has got.

    Attributes:
        request: What it was asked for.
        answer: What it found; on a GPU it may still be under way there.
        started: When it got the image, seconds of ``time.perf_counter``.
    """

    request: FrameRequest
    answer: Segmentation | PendingSegmentation
    started: float


class SegmentationPipeline:
    """Makes results of requests and publishes them, in three steps that may run in three threads.

    Args:
        memory: The model.
        outputs: The publishers.
        clock: The node's.
        answer_by: How the model answers, by the parameters.

    Attributes:
        age: Seconds from the stamp of the last image to its mask, by the node's clock.
        model_seconds: Seconds that the model took for the last image, preprocessing included.
    """

    def __init__(
        self,
        memory: MemoryRelief,
        outputs: SegmentOutputs,
        clock: Clock,
        answer_by: Callable[[Settings], SegmentSettings] = attrgetter('segment_settings'),
    ) -> None:
        self.memory = memory
        self._answer_by = answer_by
        self.age = 0.0
        self.model_seconds = 0.0
        self._outputs, self._clock = outputs, clock
        self._steadier = Steadier()
        # How the frame before was read.
        self._reading: tuple[str | None, str | None, Roi | None] = (None, '', None)
        self._scratch = Scratch()
        self._tracker = ThingTracker()
        self._things_are_old = False

    def segment(self, request: FrameRequest) -> StartedFrame:
        """Segment a frame; on a GPU, start to.

        Raises:
            ClipsegError: The model refuses the image or a prompt.
        """
        settings = request.settings
        started = time.perf_counter()
        prompts = [entry.prompt for entry in request.prompts]
        answer = self.memory.segment(
            request.seen, prompts, settings.threshold, self._answer_by(settings)
        )
        if isinstance(answer, Segmentation):
            self.model_seconds = time.perf_counter() - started
        return StartedFrame(request, answer, started)

    def publish(self, frame: StartedFrame, segments_wait: bool = False) -> FrameResult:
        """Publish mask, labels, confidence, segments and instances, in this order.

        Return the result.

        Args:
            frame: Of :meth:`segment`, in the order of the images.
            segments_wait: Leave ``~/segments`` to somebody else.
        """
        request, outputs = frame.request, self._outputs
        prompts, found = reported(request.prompts), self._steady(frame)
        wanted = frozenset(outputs.wanted())
        pixels = compute_pixels(found, prompts, wanted, self._scratch)
        result = FrameResult(
            request.header,
            request.rgb,
            prompts,
            found,
            pixels,
            wanted,
            segments_wait,
            colours=request.settings.overlay_colors,
        )
        for name in ('mask', 'labels', 'confidence'):
            if name in wanted:
                write_image(name, result, outputs.open_image(name, result))
                outputs.publish_image(name)
            if name == 'mask':
                self.age = (self._clock.now().nanoseconds - stamp_of(result)) * 1e-9
        if 'segments' in wanted and not segments_wait:
            outputs.publish('segments', outputs.segment_array(result))
        if not wanted & _OF_THINGS:
            return result
        # In this thread, which sees every frame, and in their order.
        if self._things_are_old:
            self._things_are_old = False
            self._tracker.forget()
        settings = request.settings
        things = self._tracker.update(
            found, prompts, settings.detection_min_area, stamp_of(result) * 1e-9, settings.roi
        )
        if INSTANCES in wanted:
            write_instances(things, pixels.labels(), outputs.open_image(INSTANCES, result))
            outputs.publish_image(INSTANCES)
        return replace(result, things=things)

    def finish(self, result: FrameResult, settings: Settings) -> None:
        """Publish what costs more and can wait: PNG, colours, detections, overlay, probability."""
        outputs = self._outputs
        wanted = result.wanted
        if 'labels/compressed' in wanted:
            outputs.publish_png('labels', result.pixels.labels(), result)
        if 'mask/compressed' in wanted:
            # Memory of its own: that of the message is the next frame's already.
            mask = np.empty(result.rgb.shape[:2], np.uint8)
            write_image('mask', result, mask)
            outputs.publish_png('mask', mask, result)
        if 'labels/color' in wanted:
            write_image('labels/color', result, outputs.open_image('labels/color', result))
            outputs.publish_image('labels/color')
        if 'detections' in wanted:
            outputs.publish_detections(result, settings.detection_min_area)
        look = Look(settings.overlay_alpha, settings.overlay_legend)
        # The overlay is drawn once for both of its topics.
        for name, copy in (('overlay', 'overlay/compressed'), ('probability', '')):
            if name in wanted or copy in wanted:
                pixels = outputs.open_image(name, result)
                write_image(name, result, pixels, look)
                if name in wanted:
                    outputs.publish_image(name)
                if copy in wanted:
                    outputs.publish_jpeg(name, pixels, result, settings.outputs.jpeg_quality)

    def segment_once(self, request: FrameRequest) -> Segmentation:
        """Return what is found in an image by itself; call it where :meth:`segment` is called.

        It takes nothing from other frames, and leaves nothing to them.

        Raises:
            ClipsegError: As :meth:`segment`.
        """
        settings = request.settings
        answer = self.memory.segment(
            request.seen,
            [entry.prompt for entry in request.prompts],
            settings.threshold,
            replace(self._answer_by(settings), reuse_below=0.0),
        )
        if isinstance(answer, PendingSegmentation):
            answer = answer.result()
        return self._apply(Steadier(), request, answer)

    def forget_things(self) -> None:
        """Have the next frame's things get new ids; from any thread."""
        self._things_are_old = True

    def release_scratch(self) -> None:
        """Forget the memory that frames were computed in; a frame in work keeps its own."""
        self._scratch.clear()

    def _steady(self, frame: StartedFrame) -> Segmentation:
        """Wait for the answer, smooth it over the frames and decide on presence."""
        request, found = frame.request, frame.answer
        if isinstance(found, PendingSegmentation):
            found = found.result()
            self.model_seconds = time.perf_counter() - frame.started
        settings = request.settings
        reading = (settings.template, settings.visual_method, settings.roi)
        if reading != self._reading:
            self._reading = reading
            self._steadier.forget()
        return self._apply(self._steadier, request, found)

    def _apply(
        self, steadier: Steadier, request: FrameRequest, found: Segmentation
    ) -> Segmentation:
        if request.region is not None:
            found = found.within(request.region, *request.rgb.shape[:2])
        return steadier.apply(
            found,
            stamp_of(request) * 1e-9,
            request.seen,
            request.settings.steadying,
            self.memory.segmenter.card.presence_threshold,
        )
