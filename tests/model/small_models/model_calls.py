"""What a model is asked to do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from clipseg_model.segmenter import Segmenter


def with_card(segmenter: Segmenter, **changes: Any) -> Segmenter:
    return Segmenter(segmenter.model, replace(segmenter.card, **changes), 'cpu')


class Calls:
    """Counts what a model is asked to do."""

    def __init__(self, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
        self.images: list[tuple[int, ...]] = []
        self.texts: list[list[str]] = []
        self.prompt_images = 0
        self.decoded: list[int] = []
        model = segmenter.model
        encode, embed_texts = model.encode_image, model.embed_texts
        embed_images, decode = model.embed_images, model.decode

        def spy_encode(pixels: torch.Tensor) -> Any:
            self.images.append(tuple(pixels.shape))
            return encode(pixels)

        def spy_texts(texts: list[str]) -> torch.Tensor:
            self.texts.append(list(texts))
            return embed_texts(texts)

        def spy_images(pixels: torch.Tensor) -> torch.Tensor:
            self.prompt_images += len(pixels)
            return embed_images(pixels)

        def spy_decode(features: Any, condition: torch.Tensor) -> torch.Tensor:
            self.decoded.append(len(condition))
            return decode(features, condition)

        monkeypatch.setattr(model, 'encode_image', spy_encode)
        monkeypatch.setattr(model, 'embed_texts', spy_texts)
        monkeypatch.setattr(model, 'embed_images', spy_images)
        monkeypatch.setattr(model, 'decode', spy_decode)
