"""What the runtimes have in common that torch executes: numpy's arrays outside, tensors inside."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipseg_model.features import ImageFeatures, PromptFeatures
from clipseg_model.modeling.base import SegmentationModel, check_weights, traits_of
from clipseg_model.modeling.masked_attention import check_restrictable, masked_attention
from clipseg_model.modeling.preprocessing import normalise_tensor, resize_by_torch, resize_tensor
from clipseg_model.runtime.base import Floats, Runtime, memory_guard
from clipseg_model.runtime.devices import Device
from clipseg_model.runtime.tf32 import full_float32


class TorchRuntime(Runtime):
    """A runtime on tensors. It may change the model (move it, cast its weights).

    Beside numpy's arrays its methods take tensors that lie on :attr:`place` already.

    Attributes:
        place: :attr:`device`, as torch has it.
    """

    streams = True

    def __init__(
        self, model: SegmentationModel, device: Device | torch.device, precision: str = 'fp32'
    ) -> None:
        super().__init__(traits_of(model), _as_device(device), precision)
        self.place = torch.device(str(device))
        with memory_guard(self):
            self._model = model.to(self.place).eval()

    @property
    def model(self) -> SegmentationModel:
        """The torch model, in evaluation mode on :attr:`place`."""
        return self._model

    def resize(self, image: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
        """See :meth:`Runtime.resize`; bit for bit as Hugging Face does."""
        return resize_by_torch(image, shape)

    @torch.inference_mode()
    def prepare(self, pixels: Tensor, shape: tuple[int, int]) -> Tensor:
        """Resize and normalise (B, 3, H, W) uint8 on :attr:`place`, for :meth:`encode_image`."""
        return normalise_tensor(resize_tensor(pixels, shape), self.traits)

    @torch.inference_mode()
    def encode_image(self, pixels: Floats | Tensor) -> ImageFeatures:
        """See :meth:`Runtime.encode_image`."""
        return self._encode(self._tensor(pixels))

    @torch.inference_mode()
    def encode_prompts(self, condition: Floats | Tensor) -> PromptFeatures:
        """See :meth:`Runtime.encode_prompts`."""
        return self._prepare_prompts(self._tensor(condition))

    def decode(self, features: ImageFeatures, prompts: Floats | Tensor | PromptFeatures) -> Floats:
        """See :meth:`Runtime.decode`."""
        logits: Floats = self.decode_tensor(features, prompts).cpu().numpy()
        return logits

    @torch.inference_mode()
    def decode_tensor(
        self, features: ImageFeatures, prompts: Floats | Tensor | PromptFeatures
    ) -> Tensor:
        """Do as :meth:`decode`, and leave the logits on :attr:`place`: nothing waits for a GPU."""
        if not isinstance(prompts, PromptFeatures):
            prompts = self._prepare_prompts(self._tensor(prompts))
        return self._decode(features, prompts).float()

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Floats:
        """See :meth:`Runtime.embed_texts`."""
        with memory_guard(self):
            return _floats(self.model.embed_texts(texts))

    @torch.inference_mode()
    def embed_images(self, pixels: Floats | Tensor) -> Floats:
        """See :meth:`Runtime.embed_images`."""
        with memory_guard(self), full_float32(self.device):
            return _floats(self._embed_images(self._tensor(pixels)))

    def embed_masked(self, pixels: Floats | Tensor, masks: NDArray[np.bool_], scope: str) -> Floats:
        """See :meth:`Runtime.embed_masked`."""
        with masked_attention(self.model, torch.from_numpy(np.array(masks)), scope):
            return self.embed_images(pixels)

    def check_restrictable(self) -> None:
        """See :meth:`Runtime.check_restrictable`."""
        check_restrictable(self.model)

    def check_weights(self, name: str) -> None:
        """See :meth:`Runtime.check_weights`."""
        check_weights(self.model, name)

    @abstractmethod
    def _encode(self, pixels: Tensor) -> ImageFeatures:
        """Do the work of :meth:`encode_image`."""

    def _prepare_prompts(self, condition: Tensor) -> PromptFeatures:
        """Do the work of :meth:`encode_prompts`."""
        return PromptFeatures(condition)

    @abstractmethod
    def _decode(self, features: ImageFeatures, prompts: PromptFeatures) -> Tensor:
        """Do the work of :meth:`decode_tensor`."""

    def _embed_images(self, pixels: Tensor) -> Tensor:
        """Do the work of :meth:`embed_images`."""
        return self.model.embed_images(pixels)

    def _tensor(self, values: Any) -> Tensor:
        if isinstance(values, Tensor):
            return values.to(self.place)
        # torch cannot share memory that is read-only, or runs backwards.
        array = np.require(values, np.float32, ['C', 'W'])
        return torch.from_numpy(array).to(self.place)


def _as_device(device: Device | torch.device) -> Device:
    return device if isinstance(device, Device) else Device(device.type, device.index)


def _floats(values: Tensor) -> Floats:
    floats: Floats = values.float().cpu().numpy()
    return floats
