"""From an image to what a model takes: resized as uint8, then normalised.

Bit for bit as Hugging Face's CLIPSeg processor does on a CPU, with torch or without.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from clipseg_model.features import ModelTraits
from clipseg_model.model_card import ModelCard
from clipseg_model.pixels.resizing import resize_antialiased

Resize = Callable[[NDArray[np.uint8], tuple[int, int]], NDArray[np.uint8]]
"""Resizes (H, W, 3) uint8 RGB to (3, h, w) uint8, given (h, w), with antialiasing."""


def input_shape(
    height: int, width: int, input_size: int, patch_size: int, resize: str = 'square'
) -> tuple[int, int]:
    """Return the (height, width) that an image is resized to before it enters a model.

    Args:
        height: Of the image.
        width: Of the image.
        input_size: Side of the square.
        patch_size: What both sides must be multiples of.
        resize: ``square``, or ``aspect`` for about the same area at about the image's proportions
            (at least two patches a side, and a longer side that keeps the area then).
    """
    if resize == 'square':
        return input_size, input_size
    proportion = math.sqrt(width / height)

    # The longer side of the same area where the shorter one is of two patches: what is narrower
    # than that would get more area, and so time, without an end.
    longest = max(2, (input_size // patch_size) ** 2 // 2)

    def side(length: float) -> int:
        return min(max(2, round(length / patch_size)), longest) * patch_size

    return side(input_size / proportion), side(input_size * proportion)


class Preprocessor:
    """Makes a model's input, of the card's size, normalised as the model was trained.

    Args:
        card: Its size and how images are brought to it.
        traits: Patches, mean and standard deviation.
        resize: What resizes.
    """

    def __init__(
        self, card: ModelCard, traits: ModelTraits, resize: Resize = resize_antialiased
    ) -> None:
        self._card, self._patch_size, self._resize = card, traits.patch_size, resize
        # Of 0…255. In this order and precision, Hugging Face's numbers come out bit for bit.
        levels = np.arange(256, dtype=np.float32)
        scale = np.float32(255)
        self._tables = [
            (levels - scale * np.float32(mean)) / (scale * np.float32(std))
            for mean, std in zip(traits.mean, traits.std, strict=True)
        ]

    def shape_of(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the model's input for an image of this height and width."""
        card = self._card
        return input_shape(height, width, card.input_size, self._patch_size, card.resize)

    def pixels(
        self, image: NDArray[np.uint8], shape: tuple[int, int] | None = None
    ) -> NDArray[np.float32]:
        """Resize and normalise (H, W, 3) uint8 RGB to (1, 3, h, w) float32.

        ``shape`` is (h, w); :meth:`shape_of` the image where None.
        """
        return self.normalise(self.resize(image, shape))

    def resize(
        self, image: NDArray[np.uint8], shape: tuple[int, int] | None = None
    ) -> NDArray[np.uint8]:
        """Resize (H, W, 3) uint8 RGB to (1, 3, h, w) uint8, with antialiasing.

        ``shape`` is as :meth:`pixels` takes it.
        """
        shape = self.shape_of(*image.shape[:2]) if shape is None else shape
        return self._resize(image, shape)[None]

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Normalise what :meth:`resize` made: float32 of the same shape."""
        normalised = np.empty(pixels.shape, np.float32)
        for images, results in zip(pixels, normalised, strict=True):
            for plane, table, result in zip(images, self._tables, results, strict=True):
                cv2.LUT(plane, table, dst=result)
        return normalised
