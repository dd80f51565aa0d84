"""How the bundled models read a phrase: a small transformer on word-piece vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import BertWordPieceTokenizer
from torch import Tensor, nn
from torch.nn import functional

from clipseg_model.modeling.attention import attend
from clipseg_model.modeling.buffers import noise
from clipseg_model.modeling.bundled.word_pieces import tokenize, unpack_tokenizer
from clipseg_model.modeling.dense import Dense


class PreNormBlock(nn.Module):
    """A pre-norm transformer block with GELU (Dosovitskiy et al. 2021)."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(width)
        self.in_proj = Dense(width, 3 * width)
        self.out_proj = Dense(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.linear1 = Dense(width, 4 * width)
        self.linear2 = Dense(4 * width, width)

    def forward(self, tokens: Tensor, bias: Tensor | None = None) -> Tensor:
        """Map (M, N, C) to (M, N, C); ``bias`` is added to the attention scores."""
        sequences, length, width = tokens.shape
        qkv = self.in_proj(self.norm1(tokens))
        qkv = qkv.view(sequences, length, 3, self.num_heads, width // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attended = attend(query, key, value, bias).transpose(1, 2)
        tokens = tokens + self.out_proj(attended.reshape(sequences, length, width))
        return tokens + self.linear2(self.linear1(self.norm2(tokens), 'gelu'))


class TextTower(nn.Module):
    """A small transformer on a frozen table of word-piece vectors.

    The vocabulary travels inside the weights (zlib-compressed UTF-8, one piece a line, in a
    buffer of bytes), so that a checkpoint is one file.

    Args:
        vocabulary_size: Rows of the table.
        vocabulary_bytes: Length of the compressed vocabulary.
        word_dim: Columns of the table.
        width: Width of the transformer.
        num_blocks: Its depth.
        embed_dim: Size of the embedding.
        max_pieces: Most word pieces that a text may have.
    """

    def __init__(
        self,
        vocabulary_size: int,
        vocabulary_bytes: int,
        word_dim: int,
        width: int,
        num_blocks: int,
        embed_dim: int,
        max_pieces: int,
    ) -> None:
        super().__init__()
        self.max_pieces = max_pieces
        self.table: Tensor
        self.scale: Tensor
        self.vocabulary: Tensor
        self.register_buffer('table', torch.zeros(vocabulary_size, word_dim, dtype=torch.int8))
        self.register_buffer('scale', torch.ones(word_dim))
        self.register_buffer('vocabulary', torch.zeros(vocabulary_bytes, dtype=torch.uint8))
        self.reduce = nn.Linear(word_dim, width)
        self.start = nn.Parameter(noise(width))
        self.positions = nn.Parameter(noise(max_pieces + 1, width))
        self.blocks = nn.ModuleList(PreNormBlock(width, width // 32) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(width)
        self.proj = nn.Linear(width, embed_dim, bias=False)
        self._tokenizer: BertWordPieceTokenizer | None = None

    def tokenizer(self) -> BertWordPieceTokenizer:
        """Return the tokenizer of the vocabulary that the weights hold.

        Raises:
            CheckpointError: It is damaged.
        """
        if self._tokenizer is None:
            packed = self.vocabulary.cpu().numpy().tobytes()
            self._tokenizer = unpack_tokenizer(packed, len(self.table))
        return self._tokenizer

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Split texts into word pieces.

        Args:
            texts: P texts.

        Returns:
            Piece ids (P, T), zero-padded to the longest, and a mask (P, T) that is true on pieces.

        Raises:
            PromptError: If no piece of a text is known (another script, say), or there are too
                many.
        """
        tokens, mask = tokenize(self.tokenizer(), texts, self.max_pieces)
        return torch.from_numpy(tokens), torch.from_numpy(mask)

    def words(self, pieces: Tensor) -> Tensor:
        """Look up word-piece vectors: ids (P, T) to (P, T, word_dim), unit variance or so."""
        return self.table[pieces].to(self.scale.dtype) * self.scale

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        """Embed word vectors (P, T, word_dim) with their mask (P, T) as (P, E)."""
        return read_words(self, words, mask)


def read_words(tower: Any, words: Tensor, mask: Tensor) -> Tensor:
    """Run a text tower's transformer, and project what its first token has read.

    Args:
        tower: Has ``reduce``, ``start``, ``positions``, ``blocks``, ``norm`` and ``proj``.
        words: Word vectors (P, T, D).
        mask: bool (P, T), true on word pieces.

    Returns:
        (P, E).
    """
    tokens = tower.reduce(words)
    start = tower.start.to(tokens.dtype).expand(tokens.shape[0], 1, -1)
    tokens = torch.cat([start, tokens], 1) + tower.positions[: tokens.shape[1] + 1]
    bias = torch.zeros(mask.shape, device=tokens.device).masked_fill(~mask, -1e4)
    bias = functional.pad(bias, (1, 0))[:, None, None, :]
    for block in tower.blocks:
        tokens = block(tokens, bias)
    read: Tensor = tower.proj(tower.norm(tokens[:, 0]))
    return read
