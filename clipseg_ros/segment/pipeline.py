"""From an image message to the outputs: what the worker's threads do with a frame."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from std_msgs.msg import Header

from clipseg_model.cuda_streams import PendingSegmentation, StreamedSegmenter
from clipseg_model.modeling.masked_attention import check_restrictable
from clipseg_model.outputs.frame_outputs import FrameOutputs, Scratch
from clipseg_model.outputs.overlay import render_overlay
from clipseg_model.outputs.palette import palette_with
from clipseg_model.prompting.templates import fill_template, find_captions
from clipseg_model.prompting.visual_prompt import find_method
from clipseg_model.prompts import Prompt
from clipseg_model.regions import Box
from clipseg_model.segmentation import Segmentation
from clipseg_model.segmenter import Segmenter
from clipseg_model.settings import SegmentSettings
from clipseg_model.video.steadying import Steadier
from clipseg_ros.images.conversion import image_to_rgb
from clipseg_ros.outputs.publishers import COMPRESSED_LABELS, SegmentOutputs
from clipseg_ros.prompts.set import ActivePrompt, PromptSet, reported
from clipseg_ros.prompts.support_pair import stamp_of
from clipseg_ros.segment.memory_relief import MemoryRelief
from clipseg_ros.segment.parameters import Settings
from clipseg_ros.segment.region import Roi, find_region

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoundFrame:
    """What the thread of the model leaves for the one that publishes.

    Attributes:
        header: The image's own.
        rgb: The image, RGB uint8 (H, W, 3).
        segmentation: What the model found; on a GPU what is under way there.
        prompts: The prompts that it was asked for and that are not negative, in the order of its
            results.
        started: When the model got the image, seconds of ``time.perf_counter``.
        settings: Those that it was given.
        region: The part of the image that the model got; None for all of it.
    """

    header: Header
    rgb: NDArray[np.uint8]
    segmentation: Segmentation | PendingSegmentation
    prompts: tuple[ActivePrompt, ...]
    started: float
    settings: Settings
    region: Box | None = None

    @property
    def seen(self) -> NDArray[np.uint8]:
        """What the model got, RGB uint8 (h, w, 3)."""
        return self.rgb if self.region is None else self.rgb[self.region.slices]


@dataclass(frozen=True)
class SegmentedFrame:
    """What the thread that publishes leaves for the one that makes what can wait.

    Attributes:
        header: The image's own.
        rgb: The image, RGB uint8 (H, W, 3).
        prompts: The prompts that were asked for.
        segmentation: What the model found for them.
        pixels: The outputs that were computed together.
        wanted: Names of the outputs that were subscribed to then.
        segments_wait: Whether ``~/segments`` has been left to who adds positions to it.
    """

    header: Header
    rgb: NDArray[np.uint8]
    prompts: tuple[ActivePrompt, ...]
    segmentation: Segmentation
    pixels: FrameOutputs
    wanted: frozenset[str]
    segments_wait: bool = False


class FrameTaker(Protocol):
    """Who makes more of segmented images, such as :class:`clipseg_ros.depth.stage.DepthStage`."""

    @property
    def takes_segments(self) -> bool:
        """Whether it publishes ``~/segments``."""

    def expect(self, header: Header) -> None:
        """Told of an image whose segmentation begins."""

    def put(self, frame: SegmentedFrame) -> None:
        """Given an image that was segmented."""


class FrameAsker(Protocol):
    """Who asks for single frames, such as :class:`clipseg_ros.outputs.masks.MaskServer`."""

    @property
    def asked(self) -> bool:
        """Whether it wants one now."""

    def notice(self) -> None:
        """Told that :attr:`SegmentationPipeline.last_found` is another one."""


def check_representable(
    segmenter: Segmenter, prompts: Iterable[Prompt], settings: Settings
) -> None:
    """Makes sure that a model can read prompts; touches nothing that a running frame uses.

    Raises:
        PromptError: No word of one is known to the model, or it is too long for its text tower, or
            the model cannot use the visual method.
        DeviceMemoryError: There is not enough memory to find out.
    """
    captions = find_captions(settings.template or segmenter.card.template)
    texts = [
        fill_template(caption, prompt.text)
        for prompt in prompts
        for caption in captions
        if prompt.text is not None
    ]
    if texts:
        with torch.inference_mode():
            segmenter.runtime.embed_texts(texts)
    if find_method(settings.visual_method).attention:
        check_restrictable(segmenter.model)


def stream_on_gpu(segmenter: Segmenter) -> StreamedSegmenter | None:
    """Return what pipelines frames where the model is on a CUDA device, else None."""
    return StreamedSegmenter(segmenter) if segmenter.device.type == 'cuda' else None


class SegmentationPipeline:
    """Segments frames and publishes what is subscribed to.

    Args:
        segmenter: The loaded model.
        prompts: What to search for; read at the start of every frame.
        outputs: Where to publish.
        settings: Returns the settings of now.
        now: Returns the node's time, nanoseconds.
        to_rgb: From a message to RGB uint8 (H, W, 3), such as an image backend has it.
        streamed: Runs the same model on a GPU with several frames under way; None to segment
            one frame after another.
        taker: Who makes points of the frames, if anybody.
        masks: Who may want a frame segmented though nobody subscribes.
        report: Told in one line where memory ran out and what was done.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        prompts: PromptSet,
        outputs: SegmentOutputs,
        settings: Callable[[], Settings],
        now: Callable[[], int],
        to_rgb: Callable[[Any], NDArray[np.uint8]] = image_to_rgb,
        streamed: StreamedSegmenter | None = None,
        taker: FrameTaker | None = None,
        masks: FrameAsker | None = None,
        report: Callable[[str], None] = _LOG.warning,
    ) -> None:
        self.segmenter = segmenter
        self.age = 0.0
        """Seconds from the stamp of the last image to its first output."""
        self.model_seconds = 0.0
        """What the model took for the last image, preprocessing and all."""
        self.last_found: FoundFrame | None = None
        """The newest frame that was segmented."""
        # The newest message, if it was passed over because nobody asked or listened.
        self._skipped: Any = None
        self._steadier = Steadier()
        # How prompts and the image were read for the frame before.
        self._reading: tuple[str | None, str, Roi | None] = (None, '', None)
        self._scratch = Scratch()
        self._taker, self._masks = taker, masks
        self.memory = MemoryRelief(segmenter, streamed, report)
        """Runs the model, and knows whether memory is short."""
        self._prompts, self._outputs = prompts, outputs
        self._settings, self._now = settings, now
        self.to_rgb = to_rgb
        """From a message to RGB uint8 (H, W, 3)."""

    def warm_up(self) -> None:
        """Runs the model once, so that the first frame is as fast as the others."""
        self.segmenter.warm_up(prompts=max(1, len(self._prompts.enabled)))

    def process(self, message: Any) -> FoundFrame | None:
        """Segments a frame.

        Returns:
            What :meth:`publish` takes; None where nothing was asked for or nobody listens.

        Raises:
            ImageConversionError: The message cannot be read.
            RegionError: The region of interest reaches out of the image.
            ClipsegError: The model refuses the image or a prompt.
        """
        prompts = self._prompts.enabled
        answered = reported(prompts)
        asked = self._masks is not None and self._masks.asked
        if not answered or not (asked or self._outputs.wanted()):
            self.last_found, self._skipped = None, message
            return None
        self._skipped = None
        if self._taker is not None:
            self._taker.expect(message.header)
        rgb, settings = self.to_rgb(message), self._settings()
        region = find_region(settings.roi, *rgb.shape[:2])
        seen = rgb if region is None else rgb[region.slices]
        wanted, started = [entry.prompt for entry in prompts], time.perf_counter()
        how = SegmentSettings(
            template=settings.template,
            visual_method=settings.visual_method,
            reuse_below=settings.reuse_below,
            reuse_frames=settings.reuse_frames,
        )
        segmentation = self.memory.segment(seen, wanted, settings.threshold, how)
        if isinstance(segmentation, Segmentation):
            self.model_seconds = time.perf_counter() - started
        return FoundFrame(
            message.header, rgb, segmentation, answered, started, settings, region
        )  # fmt: skip

    def take_back(self, message: Any) -> bool:
        """Whether a message is to be processed once more, for who asks what is active now.

        It is where it was passed over, or where it was asked for other prompts than those of now;
        not while it is in work. Said once.
        """
        found = self.last_found
        other = found is not None and found.header is message.header and (
            found.prompts != self._prompts.reported
        )  # fmt: skip
        if not other and self._skipped is not message:
            return False
        self.last_found = self._skipped = None
        return True

    def reuse_values(self) -> dict[str, str]:
        """Returns what ``/diagnostics`` says of reused encodings; nothing while that is off."""
        if not self._settings().reuse_below:
            return {}
        still = self.segmenter.still
        return {'reused': str(still.reused), 'reused_share': f'{still.share:.2f}'}

    def publish(self, found: FoundFrame) -> SegmentedFrame | None:
        """Publishes mask, labels, confidence and segments, and prepares the others.

        Returns:
            What :meth:`finish` takes; None where all prompts were taken back meanwhile, and
            nothing was published.
        """
        if not self._prompts.enabled:
            return None
        outputs, header, segmentation = self._outputs, found.header, found.segmentation
        if isinstance(segmentation, PendingSegmentation):
            segmentation = segmentation.result()
            self.model_seconds = time.perf_counter() - found.started
        if found.region is not None:
            segmentation = segmentation.within(found.region, *found.rgb.shape[:2])
        segmentation = self._steady(found, segmentation)
        if self._masks is not None:
            self._masks.notice()
        wanted = frozenset(outputs.wanted())
        # The overlay is made of the labels, points have their probability too, and the others are
        # of nothing that is made here.
        others = {'segments', 'detections'}
        instead = {'overlay': 'labels', COMPRESSED_LABELS: 'labels', 'points': 'confidence'}
        needed = {instead.get(name, name) for name in wanted - others}
        ids = [entry.id for entry in found.prompts]
        pixels = FrameOutputs(segmentation, ids, needed, self._scratch)
        height, width = pixels.shape
        for name in ('mask', 'labels', 'confidence'):
            if name in wanted:
                getattr(pixels, name)(outputs.open_image(name, height, width, header))
                outputs.publish_image(name)
            if name == 'mask':
                stamp = header.stamp.sec * 1_000_000_000 + header.stamp.nanosec
                self.age = (self._now() - stamp) * 1e-9
        wait = self._taker is not None and self._taker.takes_segments
        if 'segments' in wanted and not wait:
            outputs.publish_segments(segmentation, found.prompts, header)
        frame = SegmentedFrame(header, found.rgb, found.prompts, segmentation, pixels, wanted, wait)
        if self._taker is not None:
            self._taker.put(frame)
        return frame

    def _steady(self, found: FoundFrame, segmentation: Segmentation) -> Segmentation:
        """Smooths over frames and decides on presence, in the order of the frames."""
        settings, card = found.settings, self.segmenter.card
        reading = (settings.template, settings.visual_method, settings.roi)
        if reading != self._reading:
            self._reading = reading
            self._steadier.forget()
        segmentation = self._steadier.apply(
            segmentation,
            stamp_of(found) * 1e-9,
            found.seen,
            settings.steadying,
            card.presence_threshold,
        )
        self.last_found = replace(found, segmentation=segmentation)
        return segmentation

    def finish(self, frame: SegmentedFrame) -> None:
        """Publishes what costs more and can wait: PNGs, detections, overlay and probability."""
        outputs, pixels = self._outputs, frame.pixels
        height, width = pixels.shape
        if COMPRESSED_LABELS in frame.wanted:
            outputs.publish_compressed_labels(pixels.labels(), frame.header)
        if 'detections' in frame.wanted:
            outputs.publish_detections(
                frame.segmentation,
                frame.prompts,
                self._settings().detection_min_area,
                frame.header,
            )
        if 'overlay' in frame.wanted:
            settings = self._settings()
            legend = [(entry.id, entry.name) for entry in frame.prompts]
            render_overlay(
                frame.rgb,
                pixels.labels(),
                settings.overlay_alpha,
                legend if settings.overlay_legend else (),
                out=outputs.open_image('overlay', height, width, frame.header),
                palette=palette_with(settings.overlay_colors, legend),
            )
            outputs.publish_image('overlay')
        if 'probability' in frame.wanted:
            pixels.probability(outputs.open_image('probability', height, width, frame.header))
            outputs.publish_image('probability')
