"""Towers for photographs: :class:`SmallClip` with a classifier and a sentence encoder's ear.

Beside what :class:`SmallClip` has, the frozen EfficientNet-Lite0 runs on to stride 32 and to its
1,000 ImageNet classes, at every place of the picture; and the text tower has a second half that
reads a phrase as a sentence encoder (MiniLM) does. Phrase and classes meet in the decoder
(:mod:`clipseg_model.modeling.bundled.guided`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from clipseg_model.modeling.buffers import identity, noise
from clipseg_model.modeling.bundled.lite0 import Lite0Block
from clipseg_model.modeling.bundled.membership import mean_of_names, tabulate
from clipseg_model.modeling.bundled.small_clip import SmallClip
from clipseg_model.modeling.bundled.text_tower import PreNormBlock, TextTower, read_words
from clipseg_model.modeling.dense import Dense, convolve

# kernel, stride, expansion, output channels of EfficientNet-Lite0 after stride 16. The first
# kernel is of 5 × 5 and has a row and a column of zeros in front, see _SameConv: stored with them,
# since ONNX's optimizer loses a weight that is padded in the graph.
_DEEP_BLOCKS = ((6, 2, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192), (3, 1, 6, 320))
_DEEP_INPUTS, _DEEP_CHANNELS, _HEAD_CHANNELS = 112, 320, 1280
CLASSES = 1000
"""Classes of ImageNet."""


class DeepStage(nn.Module):
    """EfficientNet-Lite0 from stride 16 to stride 32 and to ImageNet's classes; frozen."""

    def __init__(self) -> None:
        super().__init__()
        blocks, channels = [], _DEEP_INPUTS
        for kernel, stride, expansion, outputs in _DEEP_BLOCKS:
            blocks.append(Lite0Block(channels, kernel, stride, expansion, outputs))
            channels = outputs
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Conv2d(_DEEP_CHANNELS, _HEAD_CHANNELS, 1)
        # Rows of int8, each with its scale: a third of the stage's size in float16.
        self.classes: Tensor
        self.class_scale: Tensor
        self.class_bias: Tensor
        self.register_buffer('classes', torch.zeros(CLASSES, _HEAD_CHANNELS, dtype=torch.int8))
        self.register_buffer('class_scale', torch.ones(CLASSES))
        self.register_buffer('class_bias', torch.zeros(CLASSES))
        self.requires_grad_(False)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, 112 or more, h, w) to (B, 320, ⌈h / 2⌉, ⌈w / 2⌉)."""
        # A row and a column of zeros keep the last of the image's where there is an odd number.
        hidden = features[:, :_DEEP_INPUTS]
        hidden = torch.cat([hidden, torch.zeros_like(hidden[:, :, :1])], 2)
        hidden = torch.cat([hidden, torch.zeros_like(hidden[..., :1])], 3)
        for block in self.blocks:
            hidden = block(hidden)
        return hidden

    def probabilities(self, deep: Tensor, pooled: bool = False) -> Tensor:
        """Read features at every place of (B, 320, h, w) as classes.

        Returns:
            Probabilities (B, h · w, 1000), or (B, 1000) of whole pictures if ``pooled``.
        """
        hidden = convolve(deep, self.head, 'relu6').flatten(2).transpose(1, 2)
        if pooled:
            hidden = hidden.mean(1)
        weight = self.classes.to(hidden.dtype)
        scores = (hidden @ weight.T) * self.class_scale + self.class_bias
        return scores.float().softmax(-1).to(hidden.dtype)


class MeaningTower(nn.Module):
    """Reads word vectors as a sentence encoder would: a linear map, corrected by a transformer."""

    def __init__(self, word_dim: int, width: int, num_blocks: int, dim: int, pieces: int) -> None:
        super().__init__()
        self.direct = nn.Linear(word_dim, dim)
        self.reduce = nn.Linear(word_dim, width)
        self.start = nn.Parameter(noise(width))
        self.positions = nn.Parameter(noise(pieces + 1, width))
        self.blocks = nn.ModuleList(PreNormBlock(width, width // 32) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(width)
        self.proj = nn.Linear(width, dim, bias=False)
        nn.init.zeros_(self.proj.weight)

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        """Embed word vectors (P, T, D) with their mask (P, T) as vectors (P, dim) of length 1."""
        weight = mask.to(words.dtype).unsqueeze(2)
        mean = (words * weight).sum(1) / weight.sum(1)
        return functional.normalize(self.direct(mean) + read_words(self, words, mask), dim=-1)


class PhraseTower(TextTower):
    """A :class:`TextTower` whose embedding goes on with what a sentence encoder reads.

    Args:
        word_dim: Columns of the table; the tower proper reads the first ``own_dim`` of them.
        own_dim: See above.
        embed_dim: Size of the tower's own half of the embedding.
        meaning_dim: Size of the other half.
        meaning_width: Width of the transformer behind that.
        meaning_blocks: Its depth.
        **tower: See :class:`TextTower`.
    """

    def __init__(
        self,
        word_dim: int,
        own_dim: int,
        embed_dim: int,
        meaning_dim: int,
        meaning_width: int,
        meaning_blocks: int,
        **tower: int,
    ) -> None:
        super().__init__(word_dim=word_dim, embed_dim=embed_dim, **tower)
        self.own_dim = own_dim
        self.reduce = nn.Linear(own_dim, self.reduce.out_features)
        self.meaning = MeaningTower(
            word_dim, meaning_width, meaning_blocks, meaning_dim, self.max_pieces
        )

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        """Embed word vectors (P, T, word_dim) with their mask (P, T) as (P, E)."""
        own = super().forward(words[..., : self.own_dim], mask)
        meaning = self.meaning(words, mask)
        return torch.cat([own, meaning * meaning.shape[-1] ** 0.5], -1)


class PhotoClip(SmallClip):
    """See the module.

    Args:
        vocabulary_size: See :class:`TextTower`.
        vocabulary_bytes: See :class:`TextTower`.
        num_names: Names of classes, and of kinds that have classes under them.
        num_members: Pairs of such a name and a class under it.
        word_dim: Columns of the table of word pieces.
        own_dim: See :class:`PhraseTower`.
        meaning_dim: See :class:`PhraseTower`.
        meaning_width: See :class:`PhraseTower`.
        meaning_blocks: See :class:`PhraseTower`.
        **small: See :class:`SmallClip`; ``embed_dim`` is the size of the text tower's own half.
    """

    def __init__(
        self,
        vocabulary_size: int,
        vocabulary_bytes: int,
        num_names: int,
        num_members: int,
        word_dim: int = 128,
        own_dim: int = 64,
        meaning_dim: int = 256,
        meaning_width: int = 192,
        meaning_blocks: int = 2,
        **small: int,
    ) -> None:
        super().__init__(vocabulary_size, vocabulary_bytes, word_dim, **small)
        options = self._options
        own = self.embed_dim
        self.meaning_dim = meaning_dim
        self._options = {
            **options,
            'num_names': num_names,
            'num_members': num_members,
            'own_dim': own_dim,
            'meaning_dim': meaning_dim,
            'meaning_width': meaning_width,
            'meaning_blocks': meaning_blocks,
        }
        self.deep = DeepStage()
        self.deep_mean: Tensor
        self.deep_whitening: Tensor
        self.register_buffer('deep_mean', torch.zeros(_DEEP_CHANNELS))
        self.register_buffer('deep_whitening', identity(_DEEP_CHANNELS))
        self.deep_proj = Dense(_DEEP_CHANNELS, self.token_width)
        self.embed_dim = own + meaning_dim
        self.proj = nn.Linear(self.token_width, self.embed_dim, bias=False)
        self.text = PhraseTower(
            word_dim,
            own_dim,
            own,
            meaning_dim,
            meaning_width,
            meaning_blocks,
            vocabulary_size=vocabulary_size,
            vocabulary_bytes=vocabulary_bytes,
            width=options['text_width'],
            num_blocks=options['text_blocks'],
            max_pieces=options['max_pieces'],
        )
        # What the names mean, vectors of length 1, and which class is under which name.
        self.names: Tensor
        self.name_scale: Tensor
        self.members: Tensor
        self.register_buffer('names', torch.zeros(num_names, meaning_dim, dtype=torch.int8))
        self.register_buffer('name_scale', torch.ones(()))
        self.register_buffer('members', torch.zeros(num_members, 2, dtype=torch.int16))
        # Made of the members. No buffer: training would average it with those of other steps.
        self._table: Tensor | None = None
        #: Of the classifier's opinion in the embedding of a prompt image.
        self.class_gain = nn.Parameter(torch.tensor(1.0))

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments and the type, as plain JSON types."""
        return {**super().config(), 'type': 'photo_clip'}

    def name_meanings(self) -> Tensor:
        """Return what the names mean, (names, meaning_dim)."""
        return self.names.to(self.name_scale.dtype) * self.name_scale

    def names_of_classes(self) -> Tensor:
        """Return the names of each class, int16 (1000, most), filled up with their number.

        It is that of the members when they were loaded, or at the last :meth:`train` or ``eval``.
        """
        if self._table is None:
            self._table = tabulate(self.members, len(self.names), CLASSES)
        return self._table

    def train(self, mode: bool = True) -> PhotoClip:
        """See :class:`torch.nn.Module`; the table is made here, where all ways to load a model end.

        Its width depends on the members, so it cannot be made while a model is exported.
        """
        super().train(mode)
        self._table = None
        if not self.members.is_meta:
            self.names_of_classes()
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PhotoClip:
        super()._apply(fn, recurse)
        if self._table is not None:
            self._table = fn(self._table)
        return self

    def _load_from_state_dict(self, *words: Any) -> None:
        super()._load_from_state_dict(*words)
        self._table = None

    def image_tokens(
        self, pixels: Tensor, layers: Sequence[int]
    ) -> tuple[list[Tensor], tuple[int, int]]:
        """See :meth:`SmallClip.image_tokens`; behind the taps comes the guide.

        The guide (B, gh·gw, E + 1000) holds each patch in the embedding space and the
        probabilities of the classes there.
        """
        fine = self.stem(pixels)
        deep = self.deep(fine)
        tokens, grid = self.embed(fine, deep)
        return self.taps(tokens, grid, self.deep.probabilities(deep), deep.shape[-2:], layers), grid

    def taps(
        self,
        tokens: Tensor,
        grid: tuple[int, int],
        probabilities: Tensor,
        coarse: Sequence[int],
        layers: Sequence[int],
    ) -> list[Tensor]:
        """Run the blocks on tokens; see :meth:`image_tokens`.

        Args:
            tokens: (B, 1 + gh·gw, C).
            grid: (gh, gw).
            probabilities: Of the classes at each place of stride 32, (B, places, 1000).
            coarse: Rows and columns of those places.
            layers: Blocks to tap, 0-based, ascending.
        """
        found = []
        for index, block in enumerate(self.blocks):
            tokens = block(tokens)
            if index in layers:
                found.append(tokens)
        patches = functional.normalize(self.project(tokens[:, 1:]), dim=-1)
        classes = probabilities.unflatten(1, tuple(coarse))
        classes = classes.repeat_interleave(2, 1).repeat_interleave(2, 2)
        classes = classes[:, : grid[0], : grid[1]].flatten(1, 2)
        return [*found, torch.cat([patches, classes.to(patches.dtype)], -1)]

    def tokens_before(self, pixels: Tensor, block: int) -> tuple[Tensor, tuple[int, int]]:
        """See :meth:`SmallClip.tokens_before`."""
        fine = self.stem(pixels)
        tokens, grid = self.embed(fine, self.deep(fine))
        return self.run_blocks(tokens, 0, block), grid

    def embed(self, fine: Tensor, deep: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Make tokens of features.

        Args:
            fine: (B, 272, gh, gw), of :class:`~clipseg_model.modeling.bundled.lite0.Lite0Stem`.
            deep: (B, 320, ⌈gh / 2⌉, ⌈gw / 2⌉), of :class:`DeepStage`.

        Returns:
            Tokens (B, 1 + gh·gw, C), CLS first, and the grid (gh, gw).
        """
        grid = (fine.shape[-2], fine.shape[-1])
        # Whitening takes differences of large numbers, so it runs in full precision.
        with torch.autocast(fine.device.type, enabled=False):
            patches = fine.float().permute(0, 2, 3, 1).flatten(1, 2)
            patches = (patches - self.feature_mean) @ self.whitening
            coarse = deep.float().permute(0, 2, 3, 1)
            coarse = (coarse - self.deep_mean) @ self.deep_whitening
        coarse = self.deep_proj(coarse).permute(0, 3, 1, 2)
        coarse = functional.interpolate(coarse, scale_factor=2.0, mode='bilinear')
        coarse = coarse[:, :, : grid[0], : grid[1]].flatten(2).transpose(1, 2)
        patches = self.stem_proj(patches) + coarse
        tokens = torch.cat([self.cls.to(patches.dtype).expand(patches.shape[0], 1, -1), patches], 1)
        return tokens + self._position_embedding(grid), grid

    def embed_images(self, pixels: Tensor) -> Tensor:
        """Embed normalised images (P, 3, H, W) as (P, E): by their CLS token and their class."""
        fine = self.stem(pixels)
        deep = self.deep(fine)
        tokens, _ = self.embed(fine, deep)
        return self.embed_tokens(tokens, self.deep.probabilities(deep, pooled=True))

    def embed_tokens(self, tokens: Tensor, probabilities: Tensor) -> Tensor:
        """Embed, as :meth:`embed_images`, tokens (P, N, C) and class probabilities (P, 1000)."""
        own = self.project(self.run_blocks(tokens, 0, self.num_blocks)[:, 0])
        meanings = mean_of_names(self.name_meanings(), self.names_of_classes())
        meaning = probabilities.to(own.dtype) @ meanings.to(own.dtype)
        meaning = functional.normalize(meaning, dim=-1) * self.meaning_dim**0.5 * self.class_gain
        return own + functional.pad(meaning, (own.shape[-1] - self.meaning_dim, 0))
