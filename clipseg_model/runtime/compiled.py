"""torch.compile: fused kernels, and on a GPU the whole network as a CUDA graph."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from clipseg_model.errors import RuntimeMissingError
from clipseg_model.features import ImageFeatures, PromptFeatures
from clipseg_model.modeling.base import SegmentationModel
from clipseg_model.runtime.base import memory_guard, require
from clipseg_model.runtime.devices import Device
from clipseg_model.runtime.eager import EagerRuntime
from clipseg_model.runtime.split import restore_features, shared_features
from clipseg_model.runtime.torch_compile import allow_shapes, share_graphs

_CPU_PROMPTS = 4
_GPU_PROMPTS = 64
_SHAPES = 64  # A camera, zoom and a few numbers of prompts make more than torch's limit.


class CompiledRuntime(EagerRuntime):
    """PyTorch, compiled for each shape when it first comes, which takes half a minute or more.

    On a CUDA device the compiled network is recorded as CUDA graphs, whose buffers the next call
    overwrites, so results are copied out of them. A graph is fixed to a number of prompts: prompts
    are padded to the next of a few numbers, see :func:`prompt_buckets`.
    """

    name = 'compile'
    precisions = ('fp32', 'bf16', 'fp16')
    # Left to those who ask for it: each number of images is compiled by itself.
    batches = False
    compiles_each_size = True

    def __init__(
        self, model: SegmentationModel, device: Device | torch.device, precision: str = 'fp32'
    ) -> None:
        _check_compiler(device)
        super().__init__(model, device, precision)
        self._graphs = self.device.type == 'cuda'
        options: dict[str, Any] = {'mode': 'reduce-overhead'} if self._graphs else {}
        self._encoder = torch.compile(self._taps, dynamic=False, **options)
        self._decoder = torch.compile(self._logits, dynamic=False, **options)

    def _encode(self, pixels: Tensor) -> ImageFeatures:
        with self._compiled():
            taps = self._own(self._encoder(pixels))
        height, width = pixels.shape[-2:]
        patch = self.traits.patch_size
        return ImageFeatures(taps, (height // patch, width // patch), height, width)

    def _prepare_prompts(self, condition: Tensor) -> PromptFeatures:
        # What it would share is compiled into the decoder.
        return PromptFeatures(condition)

    def _decode(self, features: ImageFeatures, prompts: PromptFeatures) -> Tensor:
        condition = prompts.condition
        if condition.dim() == 2:
            if (batch := features.taps[0].shape[0]) != 1:
                raise ValueError(f'a condition (P, E) is for one image, but there are {batch}')
            return self._decode(features, PromptFeatures(condition[None]))[0]
        size = (features.height, features.width)
        parts, start = [], 0
        with self._compiled():
            for taken, run in prompt_buckets(
                condition.shape[1], _GPU_PROMPTS if self._graphs else _CPU_PROMPTS
            ):
                chunk = condition[:, start : start + taken]
                if taken < run:
                    chunk = torch.cat([chunk, chunk[:, -1:].expand(-1, run - taken, -1)], 1)
                logits = self._decoder(features.taps, features.grid, size, chunk.contiguous())
                parts.append(self._own([logits])[0][:, :taken].float())
                start += taken
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def _taps(self, pixels: Tensor) -> list[Tensor]:
        return shared_features(self.model.encode_image(pixels))

    def _logits(
        self, taps: list[Tensor], grid: tuple[int, int], size: tuple[int, int], condition: Tensor
    ) -> Tensor:
        return self.model.decode(restore_features(taps, grid, size), condition)

    @contextmanager
    def _compiled(self) -> Iterator[None]:
        """Allow calls of compiled functions, in a ``with`` block."""
        if self._graphs:
            share_graphs()
        with memory_guard(self), self._cast(), allow_shapes(_SHAPES):
            yield

    def _own(self, tensors: list[Tensor]) -> list[Tensor]:
        """Return tensors that the next call does not overwrite."""
        return [tensor.clone() for tensor in tensors] if self._graphs else tensors


def prompt_buckets(prompts: int, most: int) -> list[tuple[int, int]]:
    """Split prompts into runs of (number, power of two up to ``most`` that it is padded to)."""
    runs = []
    while prompts > 0:
        taken = min(prompts, most)
        runs.append((taken, 1 << (taken - 1).bit_length()))
        prompts -= taken
    return runs


def _check_compiler(device: Device | torch.device) -> None:
    if device.type == 'cuda':
        require('triton', 'compile', None)
    elif not any(map(shutil.which, ('g++', 'clang++', 'c++'))):
        raise RuntimeMissingError(
            "The runtime 'compile' needs a C++ compiler on a CPU, and there is none: install one "
            '(apt install g++), or choose another runtime'
        )
