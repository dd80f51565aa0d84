"""Memory for large results, and the values that parameters and buffers start with."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

ALIGNMENT = 64
"""Bytes: of a cache line, and of the widest vector."""


def empty(*shape: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Allocate a tensor that is not initialised, on a CPU in huge pages where the system has them.

    What torch allocates there comes from the kernel anew, page by page: the logits of 64 prompts at
    352 × 352 took 46 ms to touch on a virtual machine, and 1 ms as memory of numpy, which asks for
    huge pages.
    """
    if device.type != 'cpu':
        return torch.empty(shape, dtype=dtype, device=device)
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return torch.from_numpy(memory[start : start + size]).view(dtype).view(shape)


def noise(*shape: int) -> Tensor:
    """Return what parameters without a rule of their own start with: normal noise of 0.02."""
    # On the meta device, where models are only outlined, arithmetic imports sympy: 70 MB.
    if torch.get_default_device().type == 'meta':
        return torch.empty(shape)
    return torch.randn(shape) * 0.02


def identity(size: int) -> Tensor:
    """Return the identity matrix, (size, size)."""
    if torch.get_default_device().type == 'meta':
        return torch.empty(size, size)
    return torch.eye(size)
