"""EfficientNet-Lite0, batch norm folded in: its blocks, and the stem of the bundled models."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from clipseg_model.modeling.dense import convolve

# kernel, stride, expansion, output channels of EfficientNet-Lite0's blocks up to stride 16.
_LITE0_BLOCKS = (
    (3, 1, 1, 16),
    (3, 2, 6, 24),
    (3, 1, 6, 24),
    (5, 2, 6, 40),
    (5, 1, 6, 40),
    (3, 2, 6, 80),
    (3, 1, 6, 80),
    (3, 1, 6, 80),
    (5, 1, 6, 112),
    (5, 1, 6, 112),
    (5, 1, 6, 112),
)
_STRIDE8_BLOCK = 4
STEM_CHANNELS = 112 + 4 * 40
"""Channels of what :class:`Lite0Stem` gives."""


class _SameConv(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding for inputs of even size, then ReLU6.

    With a stride of 2 there is one more row and column of padding after the image than before. The
    kernel gets a row and a column of zeros in front instead: a copy of it, not of the image.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> None:
        before, after = (kernel - stride) // 2, (kernel - stride + 1) // 2
        super().__init__(inputs, outputs, kernel, stride, padding=after, groups=groups)
        self.symmetric = before == after

    def forward(self, inputs: Tensor) -> Tensor:
        weight = self.weight if self.symmetric else functional.pad(self.weight, (1, 0, 1, 0))
        return convolve(inputs, self, 'relu6', weight)


class Lite0Block(nn.Module):
    """An inverted residual without squeeze-and-excitation; batch norm is folded in."""

    def __init__(self, inputs: int, kernel: int, stride: int, expansion: int, outputs: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = nn.Conv2d(inputs, hidden, 1) if expansion > 1 else None
        self.depthwise = _SameConv(hidden, hidden, kernel, stride, groups=hidden)
        self.project = nn.Conv2d(hidden, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        hidden = inputs
        if self.expand is not None:
            hidden = convolve(hidden, self.expand, 'relu6')
        hidden = convolve(self.depthwise(hidden), self.project)
        return hidden + inputs if self.residual else hidden


class Lite0Stem(nn.Module):
    """EfficientNet-Lite0 up to stride 16 (Tan & Le 2019; Lite variants: Liu 2020).

    Frozen as built; training may thaw blocks of it.
    The features at stride 8 are added by space-to-depth, so that a token keeps some detail.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = _SameConv(3, 32, 3, 2, groups=1)
        blocks, channels = [], 32
        for kernel, stride, expansion, outputs in _LITE0_BLOCKS:
            blocks.append(Lite0Block(channels, kernel, stride, expansion, outputs))
            channels = outputs
        self.blocks = nn.ModuleList(blocks)
        self.requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map (B, 3, H, W) to features (B, 272, H / 16, W / 16)."""
        hidden = self.conv(pixels.contiguous(memory_format=torch.channels_last))
        fine = hidden
        for index, block in enumerate(self.blocks):
            hidden = block(hidden)
            if index == _STRIDE8_BLOCK:
                fine = hidden
        return torch.cat([hidden, functional.pixel_unshuffle(fine, 2)], 1)
