"""PyTorch itself, operation by operation: the runtime that the others are measured against."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from clipseg_model.features import ImageFeatures, PromptFeatures
from clipseg_model.modeling.backbone import Backbone, OpenClipBackbone
from clipseg_model.modeling.base import SegmentationModel
from clipseg_model.modeling.bundled.small_clip import SmallClip
from clipseg_model.runtime.base import memory_guard
from clipseg_model.runtime.devices import Device
from clipseg_model.runtime.tf32 import full_float32
from clipseg_model.runtime.torch_runtime import TorchRuntime

_TYPES = {'bf16': torch.bfloat16, 'fp16': torch.float16}
_MULTIPLYING = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.MultiheadAttention)


class EagerRuntime(TorchRuntime):
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
        self, model: SegmentationModel, device: Device | torch.device, precision: str = 'fp32'
    ) -> None:
        super().__init__(model, device, precision)
        self._type = _TYPES.get(precision)
        if self._type is not None:
            _cast(self.model, self._type)

    def _encode(self, pixels: Tensor) -> ImageFeatures:
        with memory_guard(self), self._cast():
            return self.model.encode_image(pixels)

    def _prepare_prompts(self, condition: Tensor) -> PromptFeatures:
        with memory_guard(self), self._cast():
            return self.model.encode_prompts(condition)

    def _decode(self, features: ImageFeatures, prompts: PromptFeatures) -> Tensor:
        with memory_guard(self), self._cast():
            return self.model.decode(features, prompts)

    def _embed_images(self, pixels: Tensor) -> Tensor:
        with self._cast():
            return self.model.embed_images(pixels)

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
