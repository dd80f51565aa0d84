"""Loading the node's model, and checking what it can read."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from clipseg_model.modeling.masked_attention import check_restrictable
from clipseg_model.prompting.templates import fill_template, find_captions
from clipseg_model.prompting.visual_prompt import find_method
from clipseg_model.prompts import Prompt
from clipseg_model.segmenter import Segmenter
from clipseg_model.settings import SegmentSettings
from clipseg_ros.segment.parameters import Settings
from clipseg_ros.segment.shared_model import SharedSegmenter


def load_segmenter(settings: Settings, load: Callable[..., Segmenter]) -> Segmenter:
    """Load the model that the parameters name.

    Args:
        settings: The parameters.
        load: Takes the arguments of :func:`clipseg_model.registry.create_model`.

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
        segmenter.check_settings(SegmentSettings(reuse_below=settings.reuse_below))
    return segmenter


def check_representable(
    segmenter: Segmenter, prompts: Iterable[Prompt], settings: Settings
) -> None:
    """Make sure that a model can read prompts, without touching what a running frame uses.

    Raises:
        PromptError: The model knows no word of one, one is too long for its text tower, or it
            cannot use the visual method.
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
