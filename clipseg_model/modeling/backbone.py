"""CLIP towers: image tokens at chosen blocks, image embeddings and text embeddings.

A backbone is frozen. The decoder reads the tokens after a few of its blocks, and is conditioned
on its text or image embeddings (CLIPSeg, Lüddecke and Ecker, CVPR 2022, section 3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipseg_model.errors import CheckpointError, ImageError, PromptError
from clipseg_model.modeling.open_clip_models import create_clip, speed_up

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@runtime_checkable
class Backbone(Protocol):
    """What a model needs of its CLIP towers; every implementation is also an ``nn.Module``.

    Attributes:
        token_width: Channels of an image token, C.
        embed_dim: Size of the joint embedding space, E.
        patch_size: Side of an image patch in pixels.
        num_blocks: Blocks of the image tower.
        mean: Per channel, of RGB in 0…1; what normalised pixels had subtracted.
        std: Per channel, of RGB in 0…1; what they were then divided by.
    """

    token_width: int
    embed_dim: int
    patch_size: int
    num_blocks: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def image_tokens(
        self, pixels: Tensor, layers: Sequence[int]
    ) -> tuple[list[Tensor], tuple[int, int]]:
        """Return token taps after the blocks ``layers`` (0-based), in that order, and the grid.

        Pixels are (B, 3, H, W), normalised, H and W multiples of the patch size. Taps come without
        a final LayerNorm, each (B, 1 + gh · gw, C) with the CLS token first, and the grid is (gh,
        gw). No block after the deepest of ``layers`` runs.

        Raises:
            ImageError: A side is no multiple of the patch size.
            ValueError: ``layers`` is empty or names a block that is not there.
        """
        ...

    def tokens_before(self, pixels: Tensor, block: int) -> tuple[Tensor, tuple[int, int]]:
        """Return tokens (B, 1 + gh · gw, C) as they enter a block, 0-based, and the token grid.

        The number of blocks stands for the end. Raises ImageError as :meth:`image_tokens`.
        """
        ...

    def run_blocks(self, tokens: Tensor, start: int, stop: int) -> Tensor:
        """Run tokens (M, N, C), any number N of them, through the blocks start ≤ i < stop."""
        ...

    def embed_images(self, pixels: Tensor) -> Tensor:
        """Return joint embeddings (B, E), not normalised, of pixels as in :meth:`image_tokens`."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Return joint embeddings (P, E), not normalised, of P texts.

        Raises:
            PromptError: A text has more tokens than the tower takes.
        """
        ...

    def config(self) -> dict[str, Any]:
        """Return, as JSON types, what :func:`build_backbone` makes the same towers of."""
        ...


def token_grid(pixels: Tensor, patch_size: int) -> tuple[int, int]:
    """Return the grid (gh, gw) of patches of a batch of images.

    Raises:
        ImageError: The batch is not (B, 3, H, W), or a side is no multiple of the patch size.
    """
    if pixels.ndim != 4 or pixels.shape[1] != 3:
        raise ImageError(f'The towers take pixels of shape (B, 3, H, W), not {tuple(pixels.shape)}')
    height, width = pixels.shape[2:]
    if height % patch_size or width % patch_size or not height or not width:
        raise ImageError(
            f'The towers take images whose sides are multiples of {patch_size} px, '
            f'not {width} × {height} (width × height): resize them first'
        )
    return height // patch_size, width // patch_size


def interpolate_positions(
    positions: Tensor, native: tuple[int, int], grid: tuple[int, int]
) -> Tensor:
    """Resample learned position embeddings (1 + nh · nw, C) to another token grid.

    Bicubic with ``align_corners=False``, as CLIPSeg does (paper, section 3); the row of the CLS
    token, the first, stays as it is, and the native grid is returned unchanged.

    Args:
        positions: CLS first.
        native: (nh, nw), the grid that they were learned on.
        grid: (gh, gw), the grid wanted; need not be square.

    Returns:
        (1 + gh · gw, C).
    """
    if native == grid:
        return positions
    spatial = positions[1:].T.reshape(1, -1, *native)
    resized = F.interpolate(spatial, size=grid, mode='bicubic', align_corners=False)
    return torch.cat([positions[:1], resized.flatten(2)[0].T])


class OpenClipBackbone(nn.Module):
    """The frozen towers of an `open_clip <https://github.com/mlfoundations/open_clip>`_ model.

    The weights are random unless a local file is named: nothing is ever fetched from a network.

    Args:
        architecture: Name of an open_clip architecture with a plain ViT and its own text tower,
            such as ``ViT-B-16-quickgelu`` (OpenAI's CLIP uses QuickGELU).
        pretrained: Local file with weights that open_clip can read, or None for random ones.
        mean: Normalisation of the pixels; ImageNet's, as CLIPSeg was trained with.
        std: The same.
        overrides: Entries that replace those of open_clip's model configuration (``vision_cfg``,
            ``text_cfg``, ``embed_dim``).
        n_tokens: Rows of the token grid, whatever the image's height: the patch convolution is
            resampled (bilinear, aligned corners) to patches of height / ``n_tokens`` pixels, as the
            option of this name in the official code does. None leaves it as it was trained.

    Raises:
        CheckpointError: The architecture is unknown or of another kind, or ``pretrained`` is not a
            readable file.
        ValueError: ``n_tokens`` is less than 1.
    """

    def __init__(
        self,
        architecture: str = 'ViT-B-16-quickgelu',
        pretrained: str | Path | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        overrides: Mapping[str, Any] | None = None,
        n_tokens: int | None = None,
    ) -> None:
        # It takes seconds to import, and small models do without it: where it is needed only.
        import open_clip

        super().__init__()
        if n_tokens is not None and n_tokens < 1:
            raise ValueError(f'n_tokens must be at least 1, not {n_tokens}')
        self.n_tokens = n_tokens
        self._architecture = architecture
        self._overrides = dict(overrides or {})
        self.model = create_clip(architecture, pretrained, self._overrides)
        visual = self.model.visual
        speed_up(visual.transformer.resblocks)
        self.token_width = int(visual.transformer.width)
        self.embed_dim = int(visual.output_dim)
        self.patch_size = int(visual.patch_size[0])
        self.num_blocks = len(visual.transformer.resblocks)
        self.context_length = int(self.model.context_length)
        self.mean = _triple(mean)
        self.std = _triple(std)
        self.tokenizer = open_clip.SimpleTokenizer(context_length=self.context_length)
        self.requires_grad_(False)
        self.eval()

    def config(self) -> dict[str, Any]:
        """See :meth:`Backbone.config`."""
        config = {
            'type': 'open_clip',
            'architecture': self._architecture,
            'mean': list(self.mean),
            'std': list(self.std),
            'overrides': self._overrides,
        }
        return config if self.n_tokens is None else {**config, 'n_tokens': self.n_tokens}

    def image_tokens(
        self, pixels: Tensor, layers: Sequence[int]
    ) -> tuple[list[Tensor], tuple[int, int]]:
        """See :meth:`Backbone.image_tokens`."""
        if not layers or not all(0 <= layer < self.num_blocks for layer in layers):
            raise ValueError(
                f'layers must name blocks 0 to {self.num_blocks - 1} of the image tower, '
                f'not {list(layers)}'
            )
        tokens, grid = self._embed_patches(pixels)
        wanted = frozenset(layers)
        taps: dict[int, Tensor] = {}
        for number, block in enumerate(self.model.visual.transformer.resblocks[: max(layers) + 1]):
            tokens = block(tokens)
            if number in wanted:
                taps[number] = tokens
        return [taps[layer] for layer in layers], grid

    def tokens_before(self, pixels: Tensor, block: int) -> tuple[Tensor, tuple[int, int]]:
        """See :meth:`Backbone.tokens_before`."""
        tokens, grid = self._embed_patches(pixels)
        return self.run_blocks(tokens, 0, block), grid

    def run_blocks(self, tokens: Tensor, start: int, stop: int) -> Tensor:
        """See :meth:`Backbone.run_blocks`."""
        for block in self.model.visual.transformer.resblocks[start:stop]:
            tokens = block(tokens)
        return tokens

    def embed_images(self, pixels: Tensor) -> Tensor:
        """See :meth:`Backbone.embed_images`: with the final LayerNorm and the projection."""
        visual = self.model.visual
        tokens, _ = self._embed_patches(pixels)
        tokens = visual.transformer(tokens)
        embedding: Tensor = visual.ln_post(tokens[:, 0]) @ visual.proj
        return embedding

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """See :meth:`Backbone.embed_texts`: of the end token, projected."""
        model = self.model
        if not texts:
            return model.token_embedding.weight.new_zeros(0, self.embed_dim)
        # One token more than the tower takes, so that open_clip's silent truncation shows.
        tokens = self.tokenizer(list(texts), context_length=self.context_length + 1)
        lengths = tokens.argmax(dim=-1) + 1
        longest = int(lengths.max())
        if longest > self.context_length:
            text = texts[int(lengths.argmax())]
            raise PromptError(
                f'A prompt is longer than the {self.context_length} tokens that the text tower '
                f'takes, shorten it: {text[:60]!r}'
            )
        # Attention is causal: padding behind the longest text has no effect and is cut off.
        tokens = tokens[:, :longest].to(model.token_embedding.weight.device)
        states = model.token_embedding(tokens) + model.positional_embedding[:longest]
        states = model.transformer(states, attn_mask=model.attn_mask[:longest, :longest])
        ends = model.ln_final(states[torch.arange(len(texts)), tokens.argmax(dim=-1)])
        embedding: Tensor = ends @ model.text_projection
        return embedding

    def _patch_side(self, pixels: Tensor) -> int:
        """Return the side of the patches that these images are cut into, pixels."""
        if self.n_tokens is None:
            return self.patch_size
        height = int(pixels.shape[-2])
        if not height or height % self.n_tokens:
            raise ImageError(
                f'The height of an image must be a multiple of n_tokens ({self.n_tokens}), '
                f'unlike {height}: resize it first'
            )
        return height // self.n_tokens

    def _embed_patches(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        visual = self.model.visual
        kernel = visual.conv1.weight
        side = self._patch_side(pixels)
        grid = token_grid(pixels, side)
        if side != self.patch_size:
            kernel = F.interpolate(kernel, (side, side), mode='bilinear', align_corners=True)
        patches = F.conv2d(pixels, kernel, stride=side).flatten(2).transpose(1, 2)
        cls = visual.class_embedding.expand(patches.shape[0], 1, -1)
        positions = interpolate_positions(visual.positional_embedding, visual.grid_size, grid)
        return visual.ln_pre(torch.cat([cls, patches], dim=1) + positions), grid


def build_backbone(config: Mapping[str, Any]) -> Backbone:
    """Build the towers that a configuration of :meth:`Backbone.config` describes, weights random.

    Raises:
        CheckpointError: The type is neither ``open_clip`` nor ``small_clip``, or an entry is
            missing, unknown or wrong.
    """
    arguments = dict(config)
    kind = arguments.pop('type', None)
    try:
        if kind == 'open_clip':
            return OpenClipBackbone(**arguments)
        if kind == 'small_clip':
            from clipseg_model.modeling.bundled.small_clip import SmallClip

            return SmallClip(**arguments)
        if kind == 'photo_clip':
            from clipseg_model.modeling.bundled.photo_clip import PhotoClip

            return PhotoClip(**arguments)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f'The configuration of a {kind!r} backbone is wrong: {error}'
        ) from error
    raise CheckpointError(
        f"A backbone's type must be 'open_clip', 'small_clip' or 'photo_clip', not {kind!r}: the "
        'checkpoint is damaged or was written by a newer version'
    )


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
