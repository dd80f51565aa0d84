"""From an image message to the outputs: what the worker's threads do with a frame."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from std_msgs.msg import Header

from clipseg_model.frame_outputs import FrameOutputs, Scratch
from clipseg_model.overlap import OverlappedSegmenter, PendingSegmentation
from clipseg_model.overlay import render_overlay
from clipseg_model.prompts import Prompt, fill_template
from clipseg_model.segmenter import Segmentation, Segmenter
from clipseg_ros.conversion import compressed_to_rgb, image_to_rgb
from clipseg_ros.prompt_set import ActivePrompt, PromptSet
from clipseg_ros.publishers import SegmentOutputs
from clipseg_ros.segment_parameters import Settings


@dataclass(frozen=True)
class FoundFrame:
    """What the thread of the model leaves for the one that publishes.

    Attributes:
        header: The image's own.
        rgb: The image, RGB uint8 (H, W, 3).
        segmentation: What the model found; on a GPU what is under way there.
        prompts: The prompts that it was asked for, in the order of its results.
        started: When the model got the image, seconds of ``time.perf_counter``.
    """

    header: Header
    rgb: NDArray[np.uint8]
    segmentation: Segmentation | PendingSegmentation
    prompts: tuple[ActivePrompt, ...]
    started: float


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
    """

    header: Header
    rgb: NDArray[np.uint8]
    prompts: tuple[ActivePrompt, ...]
    segmentation: Segmentation
    pixels: FrameOutputs
    wanted: frozenset[str]


def check_representable(segmenter: Segmenter, prompts: Iterable[Prompt]) -> None:
    """Makes sure that a model can read prompts; touches nothing that a running frame uses.

    Raises:
        PromptError: No word of one is known to the model, or it is too long for its text tower.
    """
    texts = [
        fill_template(segmenter.card.template, prompt.text)
        for prompt in prompts
        if prompt.text is not None
    ]
    if texts:
        with torch.inference_mode():
            segmenter.model.embed_texts(texts)


def overlap_on_gpu(segmenter: Segmenter) -> OverlappedSegmenter | None:
    """Returns what keeps several frames under way where the model is on a CUDA device."""
    if segmenter.device.type != 'cuda' or segmenter.zoom is not None:
        return None
    return OverlappedSegmenter(segmenter)


class SegmentationPipeline:
    """Segments frames and publishes what is subscribed to.

    Args:
        segmenter: The loaded model.
        prompts: What to search for; read at the start of every frame.
        outputs: Where to publish.
        settings: Returns the settings of now.
        now: Returns the node's time, nanoseconds.
        compressed: Whether frames are CompressedImage messages.
        overlapped: Runs the same model on a GPU with several frames under way; None to segment
            one frame after another.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        prompts: PromptSet,
        outputs: SegmentOutputs,
        settings: Callable[[], Settings],
        now: Callable[[], int],
        compressed: bool = False,
        overlapped: OverlappedSegmenter | None = None,
    ) -> None:
        self.segmenter = segmenter
        self.age = 0.0
        """Seconds from the stamp of the last image to its first output."""
        self.model_seconds = 0.0
        """What the model took for the last image, preprocessing and all."""
        self._scratch = Scratch()
        self._overlapped = overlapped
        self._prompts, self._outputs = prompts, outputs
        self._settings, self._now = settings, now
        self._to_rgb: Callable[[Any], NDArray[np.uint8]] = (
            compressed_to_rgb if compressed else image_to_rgb
        )

    def warm_up(self) -> None:
        """Runs the model once, so that the first frame is as fast as the others."""
        self.segmenter.warm_up(prompts=max(1, len(self._prompts.enabled)))

    def process(self, message: Any) -> FoundFrame | None:
        """Segments a frame.

        Returns:
            What :meth:`publish` takes; None where nothing was asked for or nobody listens.

        Raises:
            ImageConversionError: The message cannot be read.
            ClipsegError: The model refuses the image or a prompt.
        """
        prompts = self._prompts.enabled
        if not prompts or not self._outputs.wanted():
            return None
        rgb, threshold = self._to_rgb(message), self._settings().threshold
        wanted, started = [entry.prompt for entry in prompts], time.perf_counter()
        segmentation: Segmentation | PendingSegmentation
        if self._overlapped is not None:
            segmentation = self._overlapped.start(rgb, wanted, threshold)
        else:
            segmentation = self.segmenter.segment(rgb, wanted, threshold)
            self.model_seconds = time.perf_counter() - started
        return FoundFrame(message.header, rgb, segmentation, prompts, started)

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
        wanted = frozenset(outputs.wanted())
        # The overlay is made of the labels; these of nothing that is made here.
        others = {'segments', 'detections'}
        needed = {'labels' if name == 'overlay' else name for name in wanted - others}
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
        if 'segments' in wanted:
            outputs.publish_segments(segmentation, found.prompts, header)
        return SegmentedFrame(header, found.rgb, found.prompts, segmentation, pixels, wanted)

    def finish(self, frame: SegmentedFrame) -> None:
        """Publishes what costs more and can wait: detections, overlay and probability."""
        outputs, pixels = self._outputs, frame.pixels
        height, width = pixels.shape
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
            )
            outputs.publish_image('overlay')
        if 'probability' in frame.wanted:
            pixels.probability(outputs.open_image('probability', height, width, frame.header))
            outputs.publish_image('probability')
