"""CLIPSeg's decoder, told where patches and classes are near to what is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from clipseg_model.modeling.bundled.membership import sum_of_names
from clipseg_model.modeling.bundled.photo_clip import PhotoClip
from clipseg_model.modeling.decoder import CLIPSegDecoder
from clipseg_model.modeling.dense import Dense


class GuidedDecoder(CLIPSegDecoder):
    """CLIPSeg's decoder, told at each place how near patch and classes are to the prompt.

    Args:
        towers: Whose guides it reads; they keep the names of the classes.
        **options: See :class:`CLIPSegDecoder`.
    """

    GUIDES = 5

    def __init__(self, towers: PhotoClip, **options: Any) -> None:
        super().__init__(towers.token_width, towers.embed_dim, **options)
        self._towers = (towers,)  # In a tuple: not a module of the decoder.
        self.sharpness = nn.Parameter(torch.tensor(3.4))
        dim = self.options['dim']
        self.guides = nn.ModuleList(Dense(self.GUIDES, dim) for _ in self.blocks)
        for parameter in self.guides.parameters():
            nn.init.zeros_(parameter)

    def project(self, taps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """See :meth:`CLIPSegDecoder.project`; the guide stays behind the projected taps."""
        return (*super().project(taps[:-1]), taps[-1])

    def modulate(self, condition: Tensor) -> tuple[Tensor, ...]:
        """Compute FiLM's scale and shift, direction, weights of classes, nearness of names.

        Args:
            condition: (…, E).
        """
        towers = self._towers[0]
        meaning = functional.normalize(condition[..., -towers.meaning_dim :], dim=-1)
        nearness = meaning @ towers.name_meanings().to(meaning.dtype).T
        weights = (nearness * self.sharpness.exp()).softmax(-1)
        classes = sum_of_names(weights, towers.names_of_classes())
        direction = functional.normalize(condition, dim=-1)
        best = nearness.amax(-1, keepdim=True)
        return *super().modulate(condition), direction, classes, best

    def guide(self, hints: Tensor, modulation: Sequence[Tensor]) -> Tensor:
        """Measure how near each patch is to each prompt, in several ways, (B, P, N, GUIDES)."""
        _, _, direction, classes, best = modulation
        size = direction.shape[-1]
        similar = direction @ hints[..., :size].transpose(-1, -2)
        share = (classes @ hints[..., size:].transpose(-1, -2)).float()
        tall = (share + 1e-3).log() + 5
        flat = (share + 1e-6).sqrt() * 4
        sure = (best - 0.6) * 4
        return torch.stack([similar * 8, tall, flat, tall * sure, flat * sure], -1)

    def decode(
        self,
        projected: Sequence[Tensor],
        grid: tuple[int, int],
        modulation: Sequence[Tensor],
    ) -> Tensor:
        """See :meth:`CLIPSegDecoder.decode`."""
        *reduced, hints = projected
        scale, shift = modulation[:2]
        batch, prompts, _ = scale.shape
        guide = functional.pad(self.guide(hints, modulation).to(hints.dtype), (0, 0, 1, 0))
        state: Tensor | None = None
        for index, (tap, block) in enumerate(zip(reduced, self.blocks, strict=True)):
            state = tap.unsqueeze(1) if state is None else state + tap.unsqueeze(1)
            if index == self.cond_layer:
                state = torch.addcmul(shift.unsqueeze(2), scale.unsqueeze(2), state)
            if index >= self.cond_layer:
                state = state + self.guides[index](guide)
            shape = state.shape
            state = block(state.reshape(-1, *shape[2:])).view(shape)
        assert state is not None
        patches = state[:, :, 1:].reshape(batch * prompts, grid[0], grid[1], -1)
        logits = self.head(patches.permute(0, 3, 1, 2))
        return logits.view(batch, prompts, *logits.shape[-2:])
