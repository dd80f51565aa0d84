"""Loading the node's model, and checking what it can read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clipseg_model.cuda_streams import StreamableSegmenter
from clipseg_model.model_card import ModelCard
from clipseg_model.prompting.templates import find_captions
from clipseg_model.prompting.visual_prompt import find_method
from clipseg_model.prompts import Prompt
from clipseg_model.runtime.base import Runtime
from clipseg_model.segmentation import Segmentation
from clipseg_model.settings import SegmentSettings
from clipseg_model.video.still import StillDetector
from clipseg_ros.segment.parameters import Settings
from clipseg_ros.segment.shared_model import SharedSegmenter


class NodeSegmenter(StreamableSegmenter, Protocol):
    """What the node needs of a :class:`~clipseg_model.segmenter.Segmenter`, or a share in one."""

    card: ModelCard
    runtime: Runtime
    still: StillDetector

    def check_settings(self, settings: SegmentSettings) -> None:
        """See :meth:`clipseg_model.segmenter.Segmenter.check_settings`."""

    def warm_up(self, height: int = 480, width: int = 640, prompts: int = 1) -> None:
        """See :meth:`clipseg_model.segmenter.Segmenter.warm_up`."""

    def segment(
        self,
        image: NDArray[np.uint8],
        prompts: Sequence[str | Prompt],
        threshold: float | None = None,
        settings: SegmentSettings | None = None,
    ) -> Segmentation:
        """See :meth:`clipseg_model.segmenter.Segmenter.segment`."""

    def release_caches(self) -> None:
        """See :meth:`clipseg_model.segmenter.Segmenter.release_caches`."""


def load_segmenter(settings: Settings, load: Callable[..., NodeSegmenter]) -> NodeSegmenter:
    """Load the model that the parameters name; see :func:`clipseg_model.registry.create_model`.

    Raises:
        ClipsegError: The model cannot be loaded, or not with these parameters.
    """
    segmenter = load(
        settings.model,
        settings.device,
        settings.threads,
        settings.runtime,
        settings.precision,
        settings.exports,
    )
    if isinstance(segmenter, SharedSegmenter):
        segmenter.max_batch = settings.max_batch
    if settings.reuse_below:
        segmenter.check_settings(settings.segment_settings)
    return segmenter


def check_representable(
    segmenter: NodeSegmenter, prompts: Iterable[Prompt], settings: Settings
) -> None:
    """Make sure that a model can read prompts, without touching what a running frame uses.

    Raises:
        PromptError: The model knows no word of one, one is too long for its text tower, or it
            cannot use the visual method.
        DeviceMemoryError: There is not enough memory to find out.
    """
    captions = find_captions(settings.template or segmenter.card.template)
    texts = [
        caption.replace('{}', prompt.text)
        for prompt in prompts
        for caption in captions
        if prompt.text is not None
    ]
    if texts:
        segmenter.runtime.embed_texts(texts)
    if find_method(settings.visual_method or segmenter.card.visual_method).attention:
        segmenter.runtime.check_restrictable()
