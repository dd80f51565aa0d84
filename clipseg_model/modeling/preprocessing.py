"""The first steps of :mod:`clipseg_model.pixels.preprocessing` by torch, on the CPU or on a GPU."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clipseg_model.features import ModelTraits


def resize_by_torch(image: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize (H, W, 3) uint8 RGB to (3, h, w) uint8 as Hugging Face's processor does."""
    # torch cannot share memory that is read-only or runs backwards.
    if not image.flags.writeable or not image.flags.c_contiguous:
        image = np.array(image, order='C')
    pixels = resize_tensor(torch.from_numpy(image).permute(2, 0, 1)[None], shape)
    return np.asarray(pixels[0].contiguous().numpy())


def resize_tensor(pixels: Tensor, shape: tuple[int, int]) -> Tensor:
    """Resize (B, 3, H, W) uint8 on any device to ``shape``, with antialiasing."""
    if tuple(pixels.shape[2:]) != shape:
        if pixels.device.type != 'cpu':
            # Only the CPU resizes uint8; this differs from it by less than a level.
            pixels = pixels.float()
        pixels = F.interpolate(pixels, size=shape, mode='bilinear', antialias=True)
        if pixels.is_floating_point():
            pixels = pixels.round_().clamp_(0, 255)
    return pixels


def normalise_tensor(pixels: Tensor, traits: ModelTraits) -> Tensor:
    """Normalise (B, 3, h, w) uint8, or what :func:`resize_tensor` made, to float32."""
    mean = (255 * torch.tensor(traits.mean)).view(1, 3, 1, 1).to(pixels.device)
    std = (255 * torch.tensor(traits.std)).view(1, 3, 1, 1).to(pixels.device)
    return pixels.float().sub_(mean).div_(std)
