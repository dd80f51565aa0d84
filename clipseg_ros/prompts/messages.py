"""From the package's own messages to prompts and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipseg_model.errors import PromptError
from clipseg_model.images import MAX_PIXELS
from clipseg_model.prompts import Prompt
from clipseg_ros.errors import ImageConversionError
from clipseg_ros.images.conversion import image_to_rgb
from clipseg_ros.prompts.set import EXAMPLE, ActivePrompt, PromptRequest, key_of
from clipseg_ros.prompts.support_pair import SupportImage
from clipseg_ros.prompts.text import check_written

if TYPE_CHECKING:
    from sensor_msgs.msg import Image


def read_message(
    message: Any, pictures: Mapping[str, ActivePrompt], max_pixels: int = MAX_PIXELS
) -> PromptRequest:
    """Return the request that a ``clipseg_ros/Prompt`` makes.

    ``pictures`` are the active prompts that are :func:`~clipseg_ros.prompts.set.pictured`, and
    ``max_pixels`` is the most that a picture may have.

    Raises:
        PromptError: A field is wrong, or its picture or mask cannot be read.
    """
    name, phrase = check_written(message.name, message.phrase)
    label = name or phrase or EXAMPLE
    picture = _picture(message, label, phrase, pictures, max_pixels)
    prompt = Prompt(
        text=phrase,
        image=picture.image if picture is not None else None,
        mask=picture.mask if picture is not None else None,
        name=label if phrase is None else name,
        threshold=float(message.threshold) if message.threshold != 0.0 else None,
        weight=float(message.weight) if phrase is not None else 0.0,
        presence_threshold=(
            float(message.presence_threshold) if message.presence_threshold != 0.0 else None
        ),
        negative=bool(message.negative),
    )
    return PromptRequest(prompt, bool(message.enabled), int(message.id))


def write_messages(
    message_type: Any, active: Iterable[ActivePrompt], threshold: float, presence: float
) -> list[Any]:
    """Return ``clipseg_ros/Prompt`` messages of active prompts, without their pictures.

    ``threshold`` and ``presence`` are for prompts without thresholds of their own.
    """
    return [
        message_type(
            id=entry.id,
            name=entry.name,
            phrase=entry.prompt.text or '',
            threshold=_own(entry.prompt.threshold, threshold),
            presence_threshold=_own(entry.prompt.presence_threshold, presence),
            enabled=entry.enabled,
            negative=entry.prompt.negative,
            weight=weight_of(entry.prompt),
        )
        for entry in active
    ]


def weight_of(prompt: Prompt) -> float:
    """Return the share of the words: 1 without a picture, 0 without words."""
    if prompt.text is None:
        return 0.0
    return 1.0 if prompt.image is None else float(prompt.weight)


def mask_of(message: Image, max_pixels: int = MAX_PIXELS) -> NDArray[np.bool_]:
    """Return where an image is not 0, bool (H, W); raises an ImageConversionError."""
    return np.asarray(image_to_rgb(message, max_pixels).any(axis=2))


def _picture(
    message: Any,
    label: str,
    phrase: str | None,
    pictures: Mapping[str, ActivePrompt],
    max_pixels: int,
) -> SupportImage | None:
    """Return the message's own picture, or that of its name, or that of ``example``."""
    given = message.image.width > 0 or message.image.height > 0 or len(message.image.data) > 0
    if given:
        if phrase is not None and message.weight == 1.0:
            raise PromptError(
                f'prompt {label!r} has words, a picture and weight 1, which is the words alone: '
                'lower the weight (0.5 mixes both evenly), or leave the phrase or picture out'
            )
        return _read_picture(message, label, max_pixels)
    if len(message.mask.data) > 0:
        raise PromptError(f'prompt {label!r} has a mask and no picture: give the one it belongs to')
    if phrase is not None and message.weight == 1.0:
        return None
    known = pictures.get(key_of(label)) or pictures.get(EXAMPLE)
    if known is None or known.prompt.image is None:
        wish = 'is blank' if phrase is None else f'has weight {message.weight:g}'
        raise PromptError(
            f'prompt {label!r} {wish}, and there is no picture for it: give one with the prompt, '
            'publish ~/prompt_image before, or write a phrase and leave weight at 1'
        )
    return SupportImage(known.prompt.image, known.prompt.mask)


def _read_picture(message: Any, label: str, max_pixels: int) -> SupportImage:
    part = 'picture'
    try:
        image, mask = image_to_rgb(message.image, max_pixels), None
        part = 'mask'
        if message.mask.width > 0 or len(message.mask.data) > 0:
            mask = mask_of(message.mask, max_pixels)
    except ImageConversionError as error:
        raise PromptError(f'prompt {label!r}: its {part} cannot be read: {error}') from error
    return SupportImage(image, mask)


def _own(value: float | None, default: float) -> float:
    return float(default if value is None else value)
