"""What ClsCLIP's replaced CLS token is compared with: attention by channel, attention by place.

Wu et al., *[CLS] Token is All You Need for Zero-Shot Semantic Segmentation*, 2023, ablations. The
third of them, visual prompt tuning, is the option ``learned_tokens`` of
:class:`~clipseg_model.modeling.clsclip.ClsCLIP`.

The authors weigh the *output* of the image tower by both attentions (their section 4), which is the
block after its last: ``blocks: [12]`` of ViT-B/16. Other blocks are possible.

A guide changes the tokens that enter some blocks of the image tower, by the prompt.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn


class Guide(nn.Module, ABC):
    """Base of what tells the image tower of the prompt: one linear layer L_i a guided block.

    ``blocks`` are the numbers of the guided blocks, E is ``embed_dim`` and C ``token_width``.
    """

    def __init__(self, embed_dim: int, token_width: int, blocks: Sequence[int]) -> None:
        super().__init__()
        self.projections = nn.ModuleDict(
            {str(block): nn.Linear(embed_dim, token_width) for block in blocks}
        )

    def project(self, condition: Tensor, block: int) -> Tensor:
        """Map conditional vectors by L_i to a token each: (M, E) to (M, 1, C)."""
        projected: Tensor = self.projections[str(block)](condition)
        return projected.unsqueeze(1)

    @abstractmethod
    def forward(self, tokens: Tensor, condition: Tensor, block: int) -> Tensor:
        """Change the tokens (M, N, C), CLS first, that enter a block, by conditions (M, E)."""


class ChannelAttention(Guide):
    """The prompt weighs the channels, of all tokens alike: x ← x · 2σ(L_i t).

    Twice the sigmoid, so that a projection of zero leaves the frozen tower as it is.
    """

    def forward(self, tokens: Tensor, condition: Tensor, block: int) -> Tensor:
        """See :meth:`Guide.forward`."""
        return tokens * (2 * self.project(condition, block).sigmoid())


class SpatialAttention(Guide):
    """The prompt weighs the tokens by how well they fit it: x_j ← x_j · 2σ(⟨x_j, L_i t⟩ / √C)."""

    def forward(self, tokens: Tensor, condition: Tensor, block: int) -> Tensor:
        """See :meth:`Guide.forward`."""
        direction = self.project(condition, block).transpose(1, 2)
        fit = tokens @ direction * tokens.shape[-1] ** -0.5
        return tokens * (2 * fit.sigmoid())
