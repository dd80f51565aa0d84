"""Inputs of a training step of the bundled model, on its device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from clipseg_model.modeling.bundled.small_clip import SmallClip
from clipseg_model.pixels.preprocessing import input_shape
from training.bundled.losses import noisy_words
from training.bundled.settings import Settings
from training.datasets.tabletop import Batch, object_share, token_classes


def draw_window(
    side: int, input_size: int, wide_share: float, rng: np.random.Generator
) -> tuple[slice, tuple[int, int]]:
    """Draw the rows of a square picture that are shown, and the input's (height, width).

    Cameras are mostly wider than high: some steps see a 4:3 strip, at about the same area. Both
    sides are multiples of 16.
    """
    if rng.random() >= wide_share:
        return slice(0, side), (input_size, input_size)
    rows = side * 3 // 4
    top = int(rng.integers(side - rows + 1))
    return slice(top, top + rows), input_shape(3, 4, input_size, 16, 'aspect')


def prepare(
    batch: Batch,
    towers: SmallClip,
    settings: Settings,
    window: tuple[slice, tuple[int, int]],
    generator: torch.Generator,
    device: torch.device,
) -> tuple[Tensor, ...]:
    """Return the arguments of :class:`~training.bundled.losses.JointTraining` for a batch."""
    pieces, word_mask = towers.text.tokenize(batch.texts + batch.more_texts + batch.support_texts)
    words = towers.text.words(pieces.to(device))
    rows, shape = window
    share = object_share(batch.ids[:, rows], (shape[0] // 16, shape[1] // 16))
    more_share = batch.more_objects.float() @ share.transpose(1, 2)
    support_shape = (batch.supports.shape[1], batch.supports.shape[2])
    same = torch.tensor([[a == b for b in batch.support_texts] for a in batch.support_texts])
    return (
        normalise(batch.images[:, rows].to(device), towers, shape),
        normalise(batch.supports.to(device), towers, support_shape),
        noisy_words(words, settings.word_noise, settings.word_dropout, generator),
        word_mask.to(device),
        resize_masks(batch.masks[:, :, rows].to(device), shape),
        batch.known.to(device),
        more_share.to(device),
        token_classes(share, batch.classes).to(device),
        same.to(device),
    )


def normalise(
    images: Tensor, backbone: SmallClip | type[SmallClip], shape: tuple[int, int]
) -> Tensor:
    """Resize uint8 (B, H, W, 3) to normalised float (B, 3, *shape)."""
    pixels = images.permute(0, 3, 1, 2)
    if pixels.shape[-2:] != shape:
        pixels = functional.interpolate(pixels, shape, mode='bilinear', antialias=True)
    mean = torch.tensor(backbone.mean, device=images.device).view(3, 1, 1)
    std = torch.tensor(backbone.std, device=images.device).view(3, 1, 1)
    return (pixels.float() / 255 - mean) / std


def resize_masks(masks: Tensor, shape: tuple[int, int]) -> Tensor:
    """Resize bool masks (B, P, H, W) to (B, P, *shape), a pixel set where half of it is."""
    if masks.shape[-2:] == shape:
        return masks
    return functional.interpolate(masks.float(), shape, mode='area') >= 0.5
