"""Values of ONNX Runtime as tensors of torch, for which onnxruntime has no public name."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def as_tensor(value: Any) -> Tensor:
    """Return an ``onnxruntime.OrtValue`` as a tensor on its device, which shares its memory."""
    return torch.from_dlpack(value._ortvalue.to_dlpack())
