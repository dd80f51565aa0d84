"""ClsCLIP: the prompt takes the place of the CLS token in shallow blocks of CLIP's image tower.

Wu et al., *[CLS] Token is All You Need for Zero-Shot Semantic Segmentation*, 2023, equations
5 to 8. From there on every patch may attend to what is looked for, so that a small decoder on the
last block's patches is enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clipseg_model.modeling.backbone import Backbone, build_backbone
from clipseg_model.modeling.base import ImageFeatures, PromptFeatures, SegmentationModel
from clipseg_model.modeling.buffers import noise
from clipseg_model.modeling.clsclip_ablations import ChannelAttention, Guide, SpatialAttention
from clipseg_model.modeling.decoder import DecoderBlock, make_head

PROMPT_CHUNK = 8
"""Pairs of image and prompt that pass the tower at once without gradients: bounds the memory."""


class ClsReplacement(Guide):
    """The CLS token that enters block i is L_i of the text tower's output (eq. 5 to 8)."""

    def forward(self, tokens: Tensor, condition: Tensor, block: int) -> Tensor:
        """See :meth:`Guide.forward`."""
        return torch.cat([self.project(condition, block), tokens[:, 1:]], 1)


GUIDES: dict[str, type[Guide]] = {
    'cls': ClsReplacement,
    'channel': ChannelAttention,
    'spatial': SpatialAttention,
}


class ClsCLIPDecoder(nn.Module):
    """A linear layer, transformer layers among the patches, and a head.

    Args:
        token_width: Channels C of the patches.
        dim: Width D.
        num_layers: Transformer layers (paper: 2).
        num_heads: Attention heads.
        feedforward: Hidden width of the layers' two-layer network.
        head: ``plain`` or ``refined``, as CLIPSeg's.
        patch_size: Pixels a token covers in each direction.

    Raises:
        ValueError: The sizes do not fit together.
    """

    def __init__(
        self,
        token_width: int,
        dim: int = 64,
        num_layers: int = 2,
        num_heads: int = 4,
        feedforward: int = 2048,
        head: str = 'plain',
        patch_size: int = 16,
    ) -> None:
        super().__init__()
        self.options = {
            'dim': dim,
            'num_layers': num_layers,
            'num_heads': num_heads,
            'feedforward': feedforward,
            'head': head,
        }
        self.reduce = nn.Linear(token_width, dim)
        self.blocks = nn.ModuleList(
            DecoderBlock(dim, num_heads, feedforward) for _ in range(num_layers)
        )
        self.head = make_head(head, dim, patch_size)

    def forward(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """Map patches (M, gh·gw, C) to logits (M, gh·patch, gw·patch)."""
        state = self.reduce(patches)
        for block in self.blocks:
            state = block(state)
        state = state.transpose(1, 2).unflatten(2, grid)
        logits: Tensor = self.head(state)
        return logits[:, 0]


class ClsCLIP(SegmentationModel):
    """A frozen backbone whose image tower is conditioned on the prompt.

    Args:
        backbone: Gives tokens, runs blocks and embeds prompts.
        blocks: Blocks N1 ≤ i < N2 that the prompt enters before, 0-based, ascending; the number
            of blocks itself stands for what comes after the last (paper: 2, 3, 4).
        guidance: How it enters: ``cls`` replaces the CLS token; ``channel`` and ``spatial`` are
            the ablations :class:`~clipseg_model.modeling.clsclip_ablations.ChannelAttention` and
            :class:`~clipseg_model.modeling.clsclip_ablations.SpatialAttention`.
        learned_tokens: Tokens that are learned and join the others before the first block, the
            same for every image and prompt: visual prompt tuning (Jia et al. 2022, shallow).
        **decoder: Options of :class:`ClsCLIPDecoder`.

    Attributes:
        shares_image_features: Blocks before the first guided one run once for all prompts, the
            others for each; true only where no block comes after the prompt has entered.

    Raises:
        ValueError: If the blocks do not exist or are not ascending, or an option is unknown.
    """

    def __init__(
        self,
        backbone: Backbone,
        blocks: Sequence[int] = (2, 3, 4),
        guidance: str = 'cls',
        learned_tokens: int = 0,
        **decoder: Any,
    ) -> None:
        super().__init__(backbone)
        if guidance not in GUIDES:
            raise ValueError(f'guidance must be one of {sorted(GUIDES)}, not {guidance!r}')
        if list(blocks) != sorted(set(blocks)) or not blocks:
            raise ValueError(f'blocks must be ascending and distinct, not {list(blocks)}')
        # Nothing reads the CLS token after the last block.
        end = backbone.num_blocks - (guidance == 'cls')
        if blocks[0] < 0 or blocks[-1] > end:
            raise ValueError(
                f'blocks {list(blocks)} are not all in 0…{end}, where {guidance!r} guidance can '
                f'enter the {backbone.num_blocks} blocks of this backbone'
            )
        if learned_tokens < 0:
            raise ValueError(f'learned_tokens must be 0 or more, not {learned_tokens}')
        self.blocks = tuple(blocks)
        self.guidance = guidance
        self.shares_image_features = self.blocks[0] == backbone.num_blocks
        self.guide = GUIDES[guidance](backbone.embed_dim, backbone.token_width, self.blocks)
        self.learned_tokens: Tensor | None = None
        if learned_tokens:
            drawn = noise(learned_tokens, backbone.token_width)
            self.learned_tokens = nn.Parameter(drawn)
        self.decoder = ClsCLIPDecoder(
            backbone.token_width, patch_size=backbone.patch_size, **decoder
        )

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """Run the blocks before the prompt enters."""
        first = self.blocks[0]
        if self.learned_tokens is None:
            tokens, grid = self.backbone.tokens_before(pixels, first)
        else:
            tokens, grid = self.backbone.tokens_before(pixels, 0)
            learned = self.learned_tokens.to(tokens.dtype).expand(len(tokens), -1, -1)
            tokens = torch.cat([tokens[:, :1], learned, tokens[:, 1:]], 1)
            tokens = self.backbone.run_blocks(tokens, 0, first)
        return ImageFeatures([tokens], grid, pixels.shape[-2], pixels.shape[-1])

    def _decode(self, features: ImageFeatures, prompts: PromptFeatures) -> Tensor:
        batch, count, _ = prompts.condition.shape
        images = torch.arange(batch, device=prompts.condition.device).repeat_interleave(count)
        condition = prompts.condition.flatten(0, 1)
        tokens = features.taps[0][images]
        # Each guided block, and where the stretch of blocks ends that the next one begins.
        ends = (*self.blocks[1:], self.backbone.num_blocks)
        for block, end in zip(self.blocks, ends, strict=True):
            tokens = self.guide(tokens, condition, block)
            tokens = self.backbone.run_blocks(tokens, block, end)
        height, width = features.grid
        logits: Tensor = self.decoder(tokens[:, -height * width :], features.grid)
        return logits.view(batch, count, *logits.shape[-2:])

    def _pairs_at_once(self, features: ImageFeatures) -> int:
        return PROMPT_CHUNK

    def config(self) -> dict[str, Any]:
        """See :meth:`SegmentationModel.config`."""
        learned = 0 if self.learned_tokens is None else len(self.learned_tokens)
        return {
            'architecture': 'clsclip',
            'backbone': self.backbone.config(),
            'blocks': list(self.blocks),
            'guidance': self.guidance,
            'learned_tokens': learned,
            'decoder': dict(self.decoder.options),
        }


def build_clsclip(config: dict[str, Any]) -> ClsCLIP:
    """Build a model from :meth:`ClsCLIP.config`, weights random."""
    return ClsCLIP(
        build_backbone(config['backbone']),
        config['blocks'],
        config['guidance'],
        config['learned_tokens'],
        **config['decoder'],
    )
