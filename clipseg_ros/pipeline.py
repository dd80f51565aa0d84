"""From an image message to the outputs: what the worker's two threads do with a frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from std_msgs.msg import Header

from clipseg_model.overlay import render_overlay
from clipseg_model.prompts import Prompt, fill_template
from clipseg_model.segmenter import Segmentation, Segmenter
from clipseg_ros.conversion import compressed_to_rgb, image_to_rgb
from clipseg_ros.prompt_set import ActivePrompt, PromptSet
from clipseg_ros.publishers import SegmentOutputs
from clipseg_ros.segment_parameters import Settings


@dataclass(frozen=True)
class SegmentedFrame:
    """What the first thread leaves for the second.

    Attributes:
        header: The image's own.
        rgb: The image, RGB uint8 (H, W, 3).
        segmentation: What the model found.
        prompts: The prompts that it was asked for, in the order of its results.
        labels: Their label image, uint8 (H, W), where it was made already.
    """

    header: Header
    rgb: NDArray[np.uint8]
    segmentation: Segmentation
    prompts: tuple[ActivePrompt, ...]
    labels: NDArray[np.uint8] | None


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


class SegmentationPipeline:
    """Segments frames and publishes what is subscribed to.

    Args:
        segmenter: The loaded model.
        prompts: What to search for; read at the start of every frame.
        outputs: Where to publish.
        settings: Returns the settings of now.
        now: Returns the node's time, nanoseconds.
        compressed: Whether frames are CompressedImage messages.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        prompts: PromptSet,
        outputs: SegmentOutputs,
        settings: Callable[[], Settings],
        now: Callable[[], int],
        compressed: bool = False,
    ) -> None:
        self.segmenter = segmenter
        self.age = 0.0
        """Seconds from the stamp of the last image to its first output."""
        self._prompts, self._outputs = prompts, outputs
        self._settings, self._now = settings, now
        self._to_rgb: Callable[[Any], NDArray[np.uint8]] = (
            compressed_to_rgb if compressed else image_to_rgb
        )

    def warm_up(self) -> None:
        """Runs the model once, so that the first frame is as fast as the others."""
        self.segmenter.warm_up(prompts=max(1, len(self._prompts.enabled)))

    def process(self, message: Any) -> SegmentedFrame | None:
        """Segments a frame and publishes mask, labels, confidence and segments.

        The mask leaves before anything else is made.

        Returns:
            The frame for :meth:`finish`; None where nothing was asked for or nobody listens.

        Raises:
            ImageConversionError: The message cannot be read.
            ClipsegError: The model refuses the image or a prompt.
        """
        prompts, outputs = self._prompts.enabled, self._outputs
        if not prompts or not outputs.wanted():
            return None
        rgb, header = self._to_rgb(message), message.header
        segmentation = self.segmenter.segment(
            rgb, [entry.prompt for entry in prompts], self._settings().threshold
        )
        if outputs.wants('mask'):
            outputs.publish_image('mask', segmentation.mask(), header)
        stamp = header.stamp.sec * 1_000_000_000 + header.stamp.nanosec
        self.age = (self._now() - stamp) * 1e-9
        labels = None
        if outputs.wants('labels'):
            labels = segmentation.labels([entry.id for entry in prompts])
            outputs.publish_image('labels', labels, header)
        if outputs.wants('confidence'):
            outputs.publish_image('confidence', segmentation.confidence(), header)
        if outputs.wants('segments'):
            outputs.publish_segments(segmentation, prompts, header)
        return SegmentedFrame(header, rgb, segmentation, prompts, labels)

    def finish(self, frame: SegmentedFrame) -> None:
        """Publishes what costs more and can wait: probability and overlay."""
        outputs = self._outputs
        if outputs.wants('probability'):
            outputs.publish_image('probability', frame.segmentation.probability(), frame.header)
        if outputs.wants('overlay'):
            settings, labels = self._settings(), frame.labels
            if labels is None:
                labels = frame.segmentation.labels([entry.id for entry in frame.prompts])
            legend = [(entry.id, entry.name) for entry in frame.prompts]
            overlay = render_overlay(
                frame.rgb,
                labels,
                settings.overlay_alpha,
                legend if settings.overlay_legend else (),
            )
            outputs.publish_image('overlay', overlay, frame.header)
