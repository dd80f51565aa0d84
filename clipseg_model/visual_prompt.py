"""From an example image and a mask to the prompt image that a CLIP image tower embeds.

CLIPSeg found ("Visual Prompt Engineering", and its table of variants) that an object is
understood best when the picture is cropped around it and its background is blurred and darkened
to a tenth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from clipseg_model.errors import PromptError
from clipseg_model.images import check_image

__all__ = ['DEFAULT_METHOD', 'METHODS', 'visual_prompt']

DEFAULT_METHOD = 'crop_blur_dark'

MARGIN = 0.1
"""Context kept on each side of the object, as a share of its bounding box's longer side."""

BACKGROUND_INTENSITY = 0.1
"""What is left of the background's brightness."""

BACKGROUND_BLUR = 3 / 352
"""Standard deviation of the background's Gaussian blur, as a share of the prompt image's side."""

Method = Callable[[NDArray[np.uint8], NDArray[np.bool_], int], NDArray[np.uint8]]


def visual_prompt(
    image: NDArray[np.uint8],
    mask: NDArray[np.bool_] | None,
    size: int,
    method: str = DEFAULT_METHOD,
) -> NDArray[np.uint8]:
    """Make the prompt image of an example.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool, true on the example object; None takes the whole image as it is.
        size: Side of the prompt image, pixels.
        method: A key of :data:`METHODS`.

    Returns:
        (size, size, 3) uint8 RGB.

    Raises:
        ImageError: The image is not (H, W, 3) uint8.
        PromptError: The method is unknown, or the mask is empty or of another size.
    """
    check_image(image, 'The image of a prompt')
    if method not in METHODS:
        raise PromptError(
            f'There is no method {method!r} for visual prompts; there are {", ".join(METHODS)}'
        )
    if mask is None:
        return _resize(image, size)
    if mask.shape != image.shape[:2]:
        raise PromptError(
            f"A prompt's mask must have its image's height and width {image.shape[:2]}, "
            f'not {mask.shape}'
        )
    if not mask.any():
        raise PromptError("A prompt's mask is empty: it must be non-zero on the example object")
    return METHODS[method](image, mask.astype(bool), size)


def crop(image: NDArray[np.uint8], mask: NDArray[np.bool_], size: int) -> NDArray[np.uint8]:
    """A square around the object with a little context; what lies outside the image is black."""
    return _resize(_crop_square(image, mask)[0], size)


def crop_blur_dark(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], size: int
) -> NDArray[np.uint8]:
    """As :func:`crop`, with the background blurred and darkened to a tenth."""
    square, inside = _crop_square(image, mask)
    square = _resize(square, size)
    alpha = _resize(inside.astype(np.float32), size)[:, :, None]
    background = cv2.GaussianBlur(square, (0, 0), max(BACKGROUND_BLUR * size, 0.1))
    mixed = alpha * square + (1 - alpha) * (BACKGROUND_INTENSITY * background)
    return np.asarray(mixed.round(), dtype=np.uint8)


METHODS: dict[str, Method] = {'crop_blur_dark': crop_blur_dark, 'crop': crop}
"""How the object is made to stand out, by name."""


def _crop_square(
    image: NDArray[np.uint8], mask: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    longer = max(np.ptp(rows), np.ptp(columns)) + 1
    side = int(np.ceil(longer * (1 + 2 * MARGIN)))
    height, width = mask.shape
    top = _start(int(rows[0]), int(rows[-1]), side, height)
    left = _start(int(columns[0]), int(columns[-1]), side, width)
    square = np.zeros((side, side, 3), np.uint8)
    inside = np.zeros((side, side), bool)
    # Negative where the square sticks out of the image.
    into_y, into_x = max(-top, 0), max(-left, 0)
    part = np.s_[max(top, 0) : top + side, max(left, 0) : left + side]
    pixels = image[part]
    target = np.s_[into_y : into_y + pixels.shape[0], into_x : into_x + pixels.shape[1]]
    square[target] = pixels
    inside[target] = mask[part]
    return square, inside


def _start(first: int, last: int, side: int, length: int) -> int:
    """Where a window of a length starts: centred on first…last, inside the image if it fits."""
    start = (first + last + 1 - side) // 2
    if side <= length:
        return min(max(start, 0), length - side)
    return start


def _resize(array: NDArray[Any], size: int) -> NDArray[Any]:
    shrinking = min(array.shape[:2]) > size
    flag = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    resized: NDArray[Any] = cv2.resize(array, (size, size), interpolation=flag)
    return resized
