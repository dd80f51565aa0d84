"""How a call of a segmenter is to be answered, as one value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clipseg_model.errors import ReuseError
from clipseg_model.prompting.templates import find_captions
from clipseg_model.prompting.visual_prompt import find_method
from clipseg_model.prompts import Prompt
from clipseg_model.regions import Box
from clipseg_model.segmentation import Segmentation
from clipseg_model.video.still import MAX_REUSES, check_reuse

SegmentViews = Callable[[Sequence[Box], Sequence[Sequence[Prompt]]], list[NDArray[np.float32]]]
"""Given views of an image and the prompts of each, returns the logits (P, h, w) of each."""


class Refiner(Protocol):
    """Looks again at parts of an image, such as :class:`clipseg_model.zoom.refinement.Zoom`."""

    def refine(
        self,
        image: NDArray[np.uint8],
        found: Segmentation,
        segment_views: SegmentViews,
        presence_threshold: float,
    ) -> Segmentation:
        """Return what was found after a closer look.

        Args:
            image: (H, W, 3) uint8 RGB, the whole.
            found: What was found in the whole.
            segment_views: Segments parts of the image.
            presence_threshold: The model's, for prompts that have none of their own.
        """
        ...


@dataclass(frozen=True)
class SegmentSettings:
    """How a :class:`~clipseg_model.segmenter.Segmenter` answers a call.

    Attributes:
        template: What phrases are put into, a key of
            :data:`clipseg_model.prompting.templates.TEMPLATES` or a caption with one ``{}``; the
            card's where None.
        visual_method: How example images with masks become prompt images, a key of
            :data:`clipseg_model.prompting.visual_prompt.METHODS`; the card's where None.
        zoom: Looks closely at parts of each image; None not to.
        reuse_below: An approximation for a camera that stands still; 0 is off. While an image
            differs by less than this from the one that was encoded last (in levels of 255, see
            :func:`clipseg_model.video.still.picture_difference`), that encoding is reused, for
            other prompts too. The images must be of one camera: keep a segmenter for each, or call
            ``segmenter.still.forget()`` between.
        reuse_frames: Most images in a row that reuse an encoding, from 1.
        prompts_at_once: Most prompts that are decoded at once, None for no limit. A small number
            takes less memory and more time, for the same answers.

    Raises:
        PromptError: There is no such template or visual method.
        ReuseError: A value of reuse is out of range, or is combined with zoom.
    """

    template: str | None = None
    visual_method: str | None = None
    zoom: Refiner | None = None
    reuse_below: float = 0.0
    reuse_frames: int = MAX_REUSES
    prompts_at_once: int | None = None

    def __post_init__(self) -> None:
        if self.template is not None:
            find_captions(self.template)
        if self.visual_method is not None:
            find_method(self.visual_method)
        check_reuse(self.reuse_below, self.reuse_frames)
        if self.reuse_below and self.zoom is not None:
            raise ReuseError(
                'Zoom encodes parts of every image anew, so no encoding is reused with it: set '
                'reuse_below 0, or leave zoom out'
            )
