"""A model whose answer is a known function of the pixels, so that geometry shows."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from clipseg_model.model_card import ModelCard
from clipseg_model.segmenter import Segmenter
from clipseg_model.settings import SegmentSettings
from clipseg_model.zoom.refinement import Zoom

COLOURS = {'red': 0, 'green': 1, 'blue': 2}


class PixelModel(nn.Module):
    """Answers ``red``, ``green`` or ``blue`` with logits of 0.1 · (level - 127.5) of that channel.

    So a pixel is on at the threshold 0.5 where its level exceeds half.
    """

    shares_image_features = True

    def __init__(self) -> None:
        super().__init__()
        self.backbone = SimpleNamespace(
            patch_size=16, embed_dim=3, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
        )
        self.encoded: list[tuple[int, ...]] = []
        self.decoded: list[tuple[int, ...]] = []

    def encode_image(self, pixels: Tensor) -> Tensor:
        self.encoded.append(tuple(pixels.shape))
        return pixels

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        return torch.eye(3)[[COLOURS[text] for text in texts]]

    def encode_prompts(self, condition: Tensor) -> Tensor:
        return condition

    def decode(self, features: Tensor, condition: Tensor) -> Tensor:
        self.decoded.append(tuple(condition.shape))
        if condition.dim() == 2:
            return self.decode(features, condition[None])[0]
        return torch.einsum('bchw,bpc->bphw', features, condition) * 12.75


def pixel_segmenter(zoom: Zoom | None = None, input_size: int = 64, **card: Any) -> Segmenter:
    """A segmenter around the model."""
    made = ModelCard('pixels', 'pixels', {}, input_size, **card)
    return Segmenter(PixelModel(), made, 'cpu', SegmentSettings(zoom=zoom))  # type: ignore[arg-type]
