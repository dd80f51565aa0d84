"""Linear layers and convolutions with their activation, by oneDNN where that is faster.

Where :func:`clipseg_model.modeling.onednn.onednn_serves` says so, oneDNN computes the product and
its activation in one. Anywhere else these are torch's own layers, bit for bit, and their state-dict
keys always are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from clipseg_model.modeling.onednn import QUICK, Packed, onednn_serves, pointwise_convolution


def _quick_gelu(inputs: Tensor) -> Tensor:
    return inputs * torch.sigmoid(QUICK * inputs)


#: What may follow a product, by name; ``quick_gelu`` is that of OpenAI's CLIP.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    'none': lambda inputs: inputs,
    'relu': functional.relu,
    'gelu': functional.gelu,
    'quick_gelu': _quick_gelu,
    'relu6': functional.relu6,
}


class Dense(nn.Linear):
    """``nn.Linear`` with an activation, by oneDNN where that is faster."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias=bias)
        self.packed = Packed()

    def forward(self, inputs: Tensor, activation: str = 'none') -> Tensor:
        """Map (…, K) to (…, N); ``activation`` is a key of :data:`ACTIVATIONS`."""
        if activation != 'quick_gelu' and onednn_serves(inputs, self.weight):
            return self.packed(inputs, self.weight, self.bias, activation)
        return ACTIVATIONS[activation](super().forward(inputs))

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.packed.clear()
        return super()._apply(fn, recurse)


class FeedForward(nn.Sequential):
    """Linear layer, activation, linear layer, as the blocks of open_clip have them.

    x · σ(a · x), OpenAI's QuickGELU, is silu(a · x) / a: a goes into the packed weights and bias of
    the first layer and 1 / a into the weights of the second, so that oneDNN can fuse it.
    """

    def __init__(self, layers: nn.Sequential, activation: str) -> None:
        """Take over the two linear layers around the activation, ``gelu`` or ``quick_gelu``."""
        super().__init__(OrderedDict(layers.named_children()))
        scale = QUICK if activation == 'quick_gelu' else 1.0
        self.fused = 'swish' if activation == 'quick_gelu' else 'gelu'
        self.packed = Packed(scale, scale), Packed(1 / scale, 1.0)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (…, K) to (…, K)."""
        layers: tuple[Any, ...] = tuple(self)
        first, _, second = layers
        if not onednn_serves(inputs, first.weight):
            return super().forward(inputs)
        hidden = self.packed[0](inputs, first.weight, first.bias, self.fused)
        return self.packed[1](hidden, second.weight, second.bias)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        for packed in self.packed:
            packed.clear()
        return super()._apply(fn, recurse)


def convolve(
    inputs: Tensor, conv: nn.Conv2d, activation: str = 'none', weight: Tensor | None = None
) -> Tensor:
    """Apply a convolution with zero padding to (B, C, H, W), and its activation.

    The activation is ``none``, ``relu`` or ``relu6``; ``weight`` is used in place of the
    convolution's own.
    """
    kernel = conv.weight if weight is None else weight
    if onednn_serves(inputs, kernel):
        return pointwise_convolution(inputs, kernel, conv, activation)
    return ACTIVATIONS[activation](
        functional.conv2d(
            inputs, kernel, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups
        )
    )
