"""The bundled model's own little CLIP-like towers.

Image side: the first stages of EfficientNet-Lite0, which start from ImageNet weights, then a small
ViT. Text side: a frozen table of word-piece vectors distilled from a sentence encoder, then
a small transformer. Both end in one embedding space of ``embed_dim`` dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from clipseg_model.modeling.buffers import identity, noise
from clipseg_model.modeling.bundled.text_tower import PreNormBlock, TextTower
from clipseg_model.modeling.dense import Dense, convolve

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
_STEM_CHANNELS = 112 + 4 * 40


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


class _Lite0Block(nn.Module):
    """An inverted residual without squeeze-and-excitation; batch norm is folded in."""

    def __init__(self, inputs: int, kernel: int, stride: int, expansion: int, outputs: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = nn.Conv2d(inputs, hidden, 1) if expansion > 1 else None
        self.depthwise = _SameConv(hidden, hidden, kernel, stride, groups=hidden)
        self.project = nn.Conv2d(hidden, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, inputs: Tensor) -> Tensor:
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
            blocks.append(_Lite0Block(channels, kernel, stride, expansion, outputs))
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


class SmallClip(nn.Module):
    """A CLIP-like pair of towers of under four million parameters.

    Args:
        vocabulary_size: See :class:`TextTower`.
        vocabulary_bytes: See :class:`TextTower`.
        word_dim: See :class:`TextTower`.
        width: Width of the image tower's ViT.
        num_blocks: Its depth.
        grid: Side of the token grid that the position embeddings are learned for.
        embed_dim: Size E of the common embedding.
        text_width: Width of the text tower.
        text_blocks: Its depth.
        max_pieces: Longest text, in word pieces.
    """

    patch_size = 16
    # What EfficientNet-Lite was trained with: (pixel - 127) / 128, on 0…255.
    mean = (127 / 255,) * 3
    std = (128 / 255,) * 3

    def __init__(
        self,
        vocabulary_size: int,
        vocabulary_bytes: int,
        word_dim: int = 64,
        width: int = 192,
        num_blocks: int = 4,
        grid: int = 18,
        embed_dim: int = 256,
        text_width: int = 160,
        text_blocks: int = 2,
        max_pieces: int = 24,
    ) -> None:
        super().__init__()
        self.token_width = width
        self.embed_dim = embed_dim
        self.num_blocks = num_blocks
        self._options = {
            'vocabulary_size': vocabulary_size,
            'vocabulary_bytes': vocabulary_bytes,
            'word_dim': word_dim,
            'width': width,
            'num_blocks': num_blocks,
            'grid': grid,
            'embed_dim': embed_dim,
            'text_width': text_width,
            'text_blocks': text_blocks,
            'max_pieces': max_pieces,
        }
        self.stem = Lite0Stem()
        # The stem's channels differ in mean by hundreds and are strongly correlated: colour, for
        # one, lies in directions of little variance. Whitening them, with fixed statistics, is
        # what lets the layers behind learn in minutes.
        self.feature_mean: Tensor
        self.whitening: Tensor
        self.register_buffer('feature_mean', torch.zeros(_STEM_CHANNELS))
        self.register_buffer('whitening', identity(_STEM_CHANNELS))
        self.stem_proj = Dense(_STEM_CHANNELS, width)
        self.cls = nn.Parameter(noise(width))
        self.positions = nn.Parameter(noise(1 + grid * grid, width))
        self.blocks = nn.ModuleList(PreNormBlock(width, width // 32) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(width)
        self.proj = nn.Linear(width, embed_dim, bias=False)
        self.text = TextTower(
            vocabulary_size,
            vocabulary_bytes,
            word_dim,
            text_width,
            text_blocks,
            embed_dim,
            max_pieces,
        )

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments and the type, as plain JSON types."""
        return {'type': 'small_clip', **self._options}

    def image_tokens(
        self, pixels: Tensor, layers: Sequence[int]
    ) -> tuple[list[Tensor], tuple[int, int]]:
        """Encode images up to the deepest wanted block.

        Args:
            pixels: (B, 3, H, W), normalised with ``mean`` and ``std``; H, W multiples of 16.
            layers: Blocks to tap, 0-based, ascending.

        Returns:
            The activations after those blocks, each (B, 1 + gh·gw, C), CLS first, and the
            grid (gh, gw).

        Raises:
            ValueError: If H or W is not a multiple of 16.
        """
        tokens, grid = self.tokens_before(pixels, 0)
        taps = []
        for index, block in enumerate(self.blocks[: max(layers) + 1]):
            tokens = block(tokens)
            if index in layers:
                taps.append(tokens)
        return taps, grid

    def tokens_before(self, pixels: Tensor, block: int) -> tuple[Tensor, tuple[int, int]]:
        """Encode images up to where a block begins.

        Args:
            pixels: As :meth:`image_tokens` takes them.
            block: Number of the block, 0-based; the number of blocks stands for the end.

        Returns:
            Tokens (B, 1 + gh·gw, C), CLS first, and the grid (gh, gw).

        Raises:
            ValueError: If H or W is not a multiple of 16.
        """
        height, width = pixels.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f'the image tower needs a height and width divisible by {self.patch_size}, '
                f'not {height} × {width}'
            )
        features = self.stem(pixels)
        grid = (features.shape[-2], features.shape[-1])
        patches = features.permute(0, 2, 3, 1).reshape(len(features), -1, features.shape[1])
        # Whitening takes differences of large numbers, so it runs in full precision.
        with torch.autocast(pixels.device.type, enabled=False):
            patches = (patches.float() - self.feature_mean) @ self.whitening
        patches = self.stem_proj(patches)
        tokens = torch.cat([self.cls.to(patches.dtype).expand(len(patches), 1, -1), patches], 1)
        tokens = tokens + self._position_embedding(grid)
        return self.run_blocks(tokens, 0, block), grid

    def run_blocks(self, tokens: Tensor, start: int, stop: int) -> Tensor:
        """Run tokens (M, N, C), any number N of them, through the blocks start ≤ i < stop."""
        for block in self.blocks[start:stop]:
            tokens = block(tokens)
        return tokens

    def _position_embedding(self, grid: tuple[int, int]) -> Tensor:
        """Return the position embeddings (1 + gh·gw, C) interpolated to a grid."""
        side = self._options['grid']
        if grid == (side, side):
            return self.positions
        square = self.positions[1:].T.reshape(1, -1, side, side).float()
        resized = functional.interpolate(square, grid, mode='bicubic', align_corners=False)
        resized = resized[0].flatten(1).T.to(self.positions.dtype)
        return torch.cat([self.positions[:1], resized])

    def project(self, tokens: Tensor) -> Tensor:
        """Map tokens of the last block (…, C) into the embedding space (…, E)."""
        return self.proj(self.norm(tokens))

    def embed_images(self, pixels: Tensor) -> Tensor:
        """Embed normalised images (P, 3, H, W) by their CLS token as (P, E)."""
        taps, _ = self.image_tokens(pixels, [self.num_blocks - 1])
        return self.project(taps[0][:, 0])

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed P texts as (P, E).

        Raises:
            PromptError: If no word of a text is known.
        """
        pieces, mask = self.text.tokenize(texts)
        device = self.text.table.device
        pieces, mask = pieces.to(device), mask.to(device)
        return self.text(self.text.words(pieces), mask)
