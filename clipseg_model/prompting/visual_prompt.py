"""From an example image and a mask to the prompt image that a CLIP image tower embeds.

CLIPSeg ("Visual Prompt Engineering", Table 2) compares how a picture and a mask can be combined so
that the tower sees the object; cropping around it, blurring the background and darkening it to
a tenth came out best. Every row of that table is a method here, by name. The paper does not say in
which order the three happen: its published code, which the released weights were trained by, treats
the background of the whole picture and crops last (``blur_10_crop``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from clipseg_model.errors import PromptError
from clipseg_model.images import check_image
from clipseg_model.model_card import ModelCard
from clipseg_model.prompts import check_mask

DEFAULT_METHOD = ModelCard.visual_method
"""Method of models whose card names none."""

MARGIN = 0.1
"""Context kept on each side of the object, as a share of its bounding box."""

LARGE_MARGIN = 0.5

BLUR = 3.0
"""Standard deviation of the background's Gaussian blur, in pixels of a prompt image of 352."""

DYE = (1.0, 0.2, 0.2)
"""Red, green and blue of a dyed object, as shares of its brightness."""

OUTLINE = (255, 0, 0)
OUTLINE_WIDTH = 5 / 352
"""Width of an outline, half of it on either side of the rim, as a share of the prompt image."""


@dataclass(frozen=True)
class Method:
    """One way to point at an object in a picture: a row of CLIPSeg's Table 2.

    Attributes:
        summary: What it does, in words.
        margin: Context kept on each side of the object, as a share of its bounding box's longer
            side; None keeps the whole picture, squeezed to a square.
        crops_last: Whether the background is treated before the crop, and each side of the bounding
            box has a margin of its own, which ends where the picture does.
        intensity: What is left of the background's brightness, 0…1.
        blur: Standard deviation of the background's Gaussian blur, in pixels of a prompt image of
            352 and in proportion for others; 0 for none.
        paint: ``dye`` for a red object on grey, ``outline`` for a red rim, or nothing.
        attention: How the attention of the image tower is restricted to the mask, one of
            :data:`clipseg_model.modeling.masked_attention.SCOPES`; nothing for methods of pixels.
    """

    summary: str
    margin: float | None = None
    crops_last: bool = False
    intensity: float = 1.0
    blur: float = 0.0
    paint: str = ''
    attention: str = ''


METHODS: dict[str, Method] = {
    'attention_cls_last': Method(
        'attention of the CLS token restricted to the mask, in the last layer',
        attention='cls_last',
    ),
    'attention_cls': Method(
        'attention of the CLS token restricted to the mask, in all layers', attention='cls'
    ),
    'attention_all': Method(
        'attention of all tokens restricted to the mask, in all layers', attention='all'
    ),
    'red_on_grey': Method('object dyed red, all else grey', paint='dye'),
    'red_outline': Method('red outline around the object', paint='outline'),
    'background_50': Method('background at 50 % intensity', intensity=0.5),
    'background_10': Method('background at 10 % intensity', intensity=0.1),
    'background_0': Method('background at 0 % intensity', intensity=0.0),
    'blur': Method('background blurred', blur=BLUR),
    'blur_10': Method('background blurred, at 10 % intensity', intensity=0.1, blur=BLUR),
    'crop_large': Method('cropped with a large context', margin=LARGE_MARGIN),
    'crop': Method('cropped', margin=MARGIN),
    'crop_blur': Method('cropped, background blurred', margin=MARGIN, blur=BLUR),
    'crop_10': Method('cropped, background at 10 % intensity', margin=MARGIN, intensity=0.1),
    'crop_blur_10': Method(
        'cropped, background blurred, at 10 % intensity', margin=MARGIN, intensity=0.1, blur=BLUR
    ),
    'blur_10_crop': Method(
        'background blurred, at 10 % intensity, then cropped, as the released weights were trained',
        margin=MARGIN,
        crops_last=True,
        intensity=0.1,
        blur=BLUR,
    ),
    'blur_1_50': Method(
        'background blurred by a pixel, at 50 % intensity, for the ablation of prompt images',
        intensity=0.5,
        blur=1.0,
    ),
}
"""How an object is made to stand out, by name, in the order of the paper's table; its last row as
the paper tells it, and as its published code does it; then what the ablation calls "highlight
mask"."""


def find_method(name: str) -> Method:
    """Return a method by its name; raise PromptError if there is none of that name."""
    if name not in METHODS:
        raise PromptError(
            f'There is no method {name!r} for visual prompts; there are {", ".join(METHODS)}'
        )
    return METHODS[name]


def visual_prompt(
    image: NDArray[np.uint8],
    mask: NDArray[np.bool_] | None,
    size: int,
    method: str = DEFAULT_METHOD,
    ground: tuple[float, float, float] = (0, 0, 0),
) -> NDArray[np.uint8]:
    """Make the prompt image of an example: (size, size, 3) uint8 RGB.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool or uint8, true on the example object; None takes the whole image as it is.
        size: Side of the prompt image, pixels.
        method: A key of :data:`METHODS`. Those of attention do not touch the pixels.
        ground: RGB that a background fades to, 0…255, and that fills what a crop shows beyond the
            image. Black, as the paper says; its published code works on normalised pixels, so there
            it is the mean that was subtracted.

    Raises:
        ImageError: The image is not (H, W, 3) uint8.
        PromptError: The method is unknown, or the mask is empty, of another size or type.
    """
    check_image(image, 'The image of a prompt')
    how = find_method(method)
    if mask is None:
        return _resize(image, size)
    inside = check_mask(mask, image)
    fill = np.array(ground, np.float32)
    if how.crops_last:
        return _crop_last(image, inside, size, how, fill)
    if how.margin is not None:
        image, inside = _crop_square(image, inside, how.margin, fill)
    square = _resize(image, size)
    alpha = _resize(inside.astype(np.float32), size)[:, :, None]
    if how.paint == 'dye':
        return _dyed(square, alpha)
    if how.paint == 'outline':
        return _outlined(square, alpha)
    if how.intensity == 1 and not how.blur:
        return square
    return _uint8(_fade(square, alpha, size, how, fill))


def box_mask(box: tuple[int, int, int, int], height: int, width: int) -> NDArray[np.bool_]:
    """Return the mask (height, width) bool of an example that is known by its bounding box.

    The box is (x, y, width, height) in pixels from the image's top left corner; what sticks out of
    the image is cut off.

    Raises:
        PromptError: The box has no area, or lies outside of the image.
    """
    x, y, across, down = box
    if across < 1 or down < 1:
        raise PromptError(
            f'The box {tuple(box)} has no area: (x, y, width, height) needs a width and a height '
            'of 1 px at least'
        )
    mask = np.zeros((height, width), bool)
    mask[max(y, 0) : max(y + down, 0), max(x, 0) : max(x + across, 0)] = True
    if not mask.any():
        raise PromptError(
            f'The box {tuple(box)}, read as (x, y, width, height), lies outside of its image, '
            f'which is {width} px wide and {height} px high'
        )
    return mask


def _fade(
    picture: NDArray[Any], alpha: NDArray[np.float32], size: int, how: Method, fill: NDArray[Any]
) -> NDArray[Any]:
    """Blur and darken what is not the object, alpha (H, W, 1); the blur is that of ``size``."""
    background = picture
    if how.blur:
        background = cv2.GaussianBlur(picture, (0, 0), max(how.blur / 352 * size, 0.1))
    faded = how.intensity * background + (1 - how.intensity) * fill
    return alpha * picture + (1 - alpha) * faded


def _crop_last(
    image: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    size: int,
    how: Method,
    fill: NDArray[np.float32],
) -> NDArray[np.uint8]:
    """Follow the published code, which crops a square picture of ``size`` that it has treated.

    That picture is as wide as the shorter side of the original, and the object is somewhere in it.
    """
    height, width = mask.shape
    scale = size / min(height, width)
    shape = max(round(width * scale), 1), max(round(height * scale), 1)
    picture = cv2.resize(image, shape, interpolation=cv2.INTER_LINEAR).astype(np.float32)
    inside = cv2.resize(mask.astype(np.uint8), shape, interpolation=cv2.INTER_NEAREST) > 0
    if not inside.any():  # The object is smaller than a pixel, and fell between them.
        inside = cv2.resize(mask.astype(np.float32), shape, interpolation=cv2.INTER_AREA) > 0
    faded = _fade(picture, inside[:, :, None].astype(np.float32), size, how, fill)
    assert how.margin is not None
    top, bottom = _widened(np.any(inside, axis=1), how.margin)
    left, right = _widened(np.any(inside, axis=0), how.margin)
    side = max(bottom - top, right - left)
    square = np.tile(fill, (side, side, 1))
    y, x = (side - bottom + top) // 2, (side - right + left) // 2
    square[y : y + bottom - top, x : x + right - left] = faded[top:bottom, left:right]
    resized: NDArray[Any] = cv2.resize(square, (size, size), interpolation=cv2.INTER_NEAREST)
    return _uint8(resized)


def _widened(inside: NDArray[Any], margin: float) -> tuple[int, int]:
    """Return the first and the end of what is inside, with a margin that stays in the picture."""
    first, end = int(inside.argmax()), len(inside) - int(inside[::-1].argmax())
    more = margin * (end - first)
    return int(max(first - more, 0)), int(min(end + more, len(inside)))


def _dyed(square: NDArray[np.uint8], alpha: NDArray[np.float32]) -> NDArray[np.uint8]:
    grey = cv2.cvtColor(square, cv2.COLOR_RGB2GRAY)[:, :, None].astype(np.float32)
    dyed = grey * np.array(DYE, np.float32)
    return _uint8(alpha * dyed + (1 - alpha) * grey)


def _outlined(square: NDArray[np.uint8], alpha: NDArray[np.float32]) -> NDArray[np.uint8]:
    # An object smaller than a pixel of the prompt image covers none of them to a half.
    inside = alpha[:, :, 0] >= min(0.5, float(alpha.max()))
    contours, _ = cv2.findContours(
        inside.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    width = max(1, round(OUTLINE_WIDTH * len(square)))
    drawn = cv2.drawContours(square, contours, -1, OUTLINE, width)
    return np.asarray(drawn, dtype=np.uint8)


def _crop_square(
    image: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    margin: float,
    fill: NDArray[np.float32],
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    longer = max(np.ptp(rows), np.ptp(columns)) + 1
    side = int(np.ceil(longer * (1 + 2 * margin)))
    height, width = mask.shape
    top = _start(int(rows[0]), int(rows[-1]), side, height)
    left = _start(int(columns[0]), int(columns[-1]), side, width)
    square = np.broadcast_to(_uint8(fill), (side, side, 3)).copy()
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
    """Place a window of a length: centred on first…last, inside the image if it fits."""
    start = (first + last + 1 - side) // 2
    if side <= length:
        return min(max(start, 0), length - side)
    return start


def _resize(array: NDArray[Any], size: int) -> NDArray[Any]:
    shrinking = min(array.shape[:2]) > size
    flag = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    resized: NDArray[Any] = cv2.resize(array, (size, size), interpolation=flag)
    return resized


def _uint8(values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    return np.asarray(values.round(), dtype=np.uint8)
