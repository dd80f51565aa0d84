"""From an image to what a model takes: resized as uint8, then normalised.

Bit for bit as Hugging Face's CLIPSeg processor does on a CPU.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clipseg_model.model_card import ModelCard
from clipseg_model.modeling.backbone import Backbone


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
    """Makes a model's input, of the card's size, normalised for the backbone, on the device."""

    def __init__(self, card: ModelCard, backbone: Backbone, device: torch.device) -> None:
        self._card, self._patch_size, self._device = card, backbone.patch_size, device
        # Of 0…255. In this order and precision, Hugging Face's numbers come out bit for bit.
        self._mean = (255 * torch.tensor(backbone.mean)).view(1, 3, 1, 1).to(device)
        self._std = (255 * torch.tensor(backbone.std)).view(1, 3, 1, 1).to(device)

    def shape_of(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the model's input for an image of this height and width."""
        card = self._card
        return input_shape(height, width, card.input_size, self._patch_size, card.resize)

    def pixels(self, image: NDArray[np.uint8], shape: tuple[int, int] | None = None) -> Tensor:
        """Resize and normalise (H, W, 3) uint8 RGB to (1, 3, h, w) float32 on the device.

        ``shape`` is (h, w); :meth:`shape_of` the image where None.
        """
        return self.normalise(self.resize(image, shape))

    def resize(self, image: NDArray[np.uint8], shape: tuple[int, int] | None = None) -> Tensor:
        """Resize (H, W, 3) uint8 RGB to (1, 3, h, w) uint8 on the CPU, with antialiasing.

        ``shape`` is as :meth:`pixels` takes it; where the image has it already, the result is a
        view.
        """
        # torch cannot share memory that is read-only or runs backwards.
        if not image.flags.writeable or not image.flags.c_contiguous:
            image = np.array(image, order='C')
        shape = self.shape_of(*image.shape[:2]) if shape is None else shape
        return self.resize_tensor(torch.from_numpy(image).permute(2, 0, 1)[None], shape)

    def resize_tensor(self, pixels: Tensor, shape: tuple[int, int]) -> Tensor:
        """Resize as :meth:`resize` does, of (B, 3, H, W) uint8 on any device."""
        if tuple(pixels.shape[2:]) != shape:
            if pixels.device.type != 'cpu':
                # Only the CPU resizes uint8; this differs from it by less than a level.
                pixels = pixels.float()
            pixels = F.interpolate(pixels, size=shape, mode='bilinear', antialias=True)
            if pixels.is_floating_point():
                pixels = pixels.round_().clamp_(0, 255)
        return pixels

    def normalise(self, pixels: Tensor) -> Tensor:
        """Normalise what :meth:`resize` made; float32, on the device."""
        return pixels.to(self._device).float().sub_(self._mean).div_(self._std)
