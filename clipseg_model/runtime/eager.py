"""PyTorch itself, operation by operation: the runtime that the others are measured against."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from clipseg_model.modeling.backbone import Backbone, OpenClipBackbone
from clipseg_model.modeling.base import ImageFeatures, PromptFeatures, SegmentationModel
from clipseg_model.modeling.bundled.small_clip import SmallClip
from clipseg_model.runtime.base import Runtime, memory_guard
from clipseg_model.runtime.tf32 import full_float32

_TYPES = {'bf16': torch.bfloat16, 'fp16': torch.float16}
_MULTIPLYING = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.MultiheadAttention)


class EagerRuntime(Runtime):
    """PyTorch, eagerly. In fp32 it is exactly the model, on a GPU without TF32.

    In 16 bits the matrix products and convolutions are computed in that type, and everything
    between them (sums, norms, position embeddings, the whitening of the bundled model) as torch's
    autocast has it; their weights are cast once, so the model must not be used in float32 again.
    The text tower stays in float32: its embeddings are computed once and kept.
    """

    name = 'eager'
    precisions = ('fp32', 'bf16', 'fp16')
    batches = True

    def __init__(
        self, model: SegmentationModel, device: torch.device, precision: str = 'fp32'
    ) -> None:
        super().__init__(model, device, precision)
        self._type = _TYPES.get(precision)
        if self._type is not None:
            _cast(self.model, self._type)

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """See :meth:`Runtime.encode_image`."""
        with memory_guard(self), self._cast():
            return self.model.encode_image(pixels)

    def encode_prompts(self, condition: Tensor) -> PromptFeatures:
        """See :meth:`Runtime.encode_prompts`."""
        with memory_guard(self), self._cast():
            return self.model.encode_prompts(condition)

    def decode(self, features: ImageFeatures, prompts: Tensor | PromptFeatures) -> Tensor:
        """See :meth:`Runtime.decode`."""
        with memory_guard(self), self._cast():
            return self.model.decode(features, prompts).float()

    def embed_images(self, pixels: Tensor) -> Tensor:
        """Embed normalised prompt images (P, 3, H, W) as conditional vectors (P, E), float32."""
        with memory_guard(self), self._cast():
            return self.model.embed_images(pixels).float()

    def _cast(self) -> AbstractContextManager[object]:
        if self._type is None:
            return full_float32(self.device)
        return torch.autocast(self.device.type, self._type)


def _cast(model: SegmentationModel, dtype: torch.dtype) -> None:
    """Cast the weights that multiply, those of the text tower excepted."""
    text = _text_tower(model.backbone)
    spared = set() if text is None else set(text.modules())
    for module in model.modules():
        if isinstance(module, _MULTIPLYING) and module not in spared:
            for parameter in module.parameters():
                parameter.data = parameter.data.to(dtype)


def _text_tower(backbone: Backbone) -> nn.Module | None:
    if isinstance(backbone, OpenClipBackbone):
        text: nn.Module = backbone.model.transformer
        return text
    return backbone.text if isinstance(backbone, SmallClip) else None
