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
from clipseg_model.modeling.bundled.lite0 import STEM_CHANNELS, Lite0Stem
from clipseg_model.modeling.bundled.text_tower import PreNormBlock, TextTower
from clipseg_model.modeling.dense import Dense


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
        self.register_buffer('feature_mean', torch.zeros(STEM_CHANNELS))
        self.register_buffer('whitening', identity(STEM_CHANNELS))
        self.stem_proj = Dense(STEM_CHANNELS, width)
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
        patches = features.permute(0, 2, 3, 1).reshape(features.shape[0], -1, features.shape[1])
        # Whitening takes differences of large numbers, so it runs in full precision.
        with torch.autocast(pixels.device.type, enabled=False):
            patches = (patches.float() - self.feature_mean) @ self.whitening
        patches = self.stem_proj(patches)
        tokens = torch.cat([self.cls.to(patches.dtype).expand(patches.shape[0], 1, -1), patches], 1)
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
