"""What passes between a segmenter and what executes a model, in whatever arrays that works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ModelTraits:
    """What must be known of a model to give it images and prompts.

    Attributes:
        kind: Name of its class, for messages.
        patch_size: Side of a patch, pixels: both sides of an input are multiples of it.
        embed_dim: Size E of a conditional vector.
        mean: Per channel, of RGB in 0…1; what normalised pixels had subtracted.
        std: Per channel, of RGB in 0…1; what they were then divided by.
        shares_image_features: Whether one encoding of an image serves every prompt.
    """

    kind: str
    patch_size: int
    embed_dim: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    shares_image_features: bool = True


@dataclass(frozen=True)
class ImageFeatures:
    """What a decoder needs to know of one or more images, computed once for all prompts.

    The arrays are of the runtime that made them: tensors of torch, or numpy's.

    Attributes:
        taps: Token activations, each (B, N, C), CLS first and the gh · gw patches last, in the
            order of the model's layers; of an exported model the outputs of its encoder.
        grid: Token grid (gh, gw).
        height: Height of the model's input, pixels.
        width: Width of the model's input, pixels.
        projected: What the decoder makes of the taps before it hears of a prompt, where the
            features were made without gradients; gradients need it made afresh.
    """

    taps: list[Any]
    grid: tuple[int, int]
    height: int
    width: int
    projected: tuple[Any, ...] | None = None

    def select(self, images: Sequence[int]) -> ImageFeatures:
        """Return the features of some of the images, by their numbers in the batch."""
        numbers = list(images)
        projected = self.projected
        return replace(
            self,
            taps=[tap[numbers] for tap in self.taps],
            projected=None if projected is None else tuple(one[numbers] for one in projected),
        )


@dataclass(frozen=True)
class PromptFeatures:
    """What a decoder needs to know of some prompts, computed once for all images.

    Attributes:
        condition: Conditional vectors, (P, E) or (B, P, E).
        modulation: What the decoder makes of them before it sees an image (of FiLM: scale and
            shift), each with the prompts at the same axis.
    """

    condition: Any
    modulation: tuple[Any, ...] = ()

    def __len__(self) -> int:
        return int(self.condition.shape[-2])

    @classmethod
    def stack(cls, sets: Sequence[PromptFeatures]) -> PromptFeatures:
        """Join B sets of P prompts each, (P, E), to those of a batch of images, (B, P, E)."""
        modulations = zip(*(one.modulation for one in sets), strict=True)
        return cls(
            _stack([one.condition for one in sets]),
            tuple(_stack(list(parts)) for parts in modulations),
        )


def _stack(arrays: list[Any]) -> Any:
    if isinstance(arrays[0], np.ndarray):
        return np.stack(arrays)
    import torch

    return torch.stack(arrays)
