"""What is trained of the bundled model behind its frozen features, and how."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from clipseg_model.modeling.bundled.photo_clip import CLASSES
from clipseg_model.modeling.bundled.text_tower import TextTower
from clipseg_model.modeling.clipseg import CLIPSeg
from training.bundled.cached import CachedBatch
from training.bundled.losses import Alignment, mask_loss, presence_loss


def dense(likely: Tensor, classes: Tensor) -> Tensor:
    """Return class probabilities (…, 1000) of the likeliest ones and their numbers."""
    full = likely.new_zeros(*likely.shape[:-1], CLASSES, dtype=torch.float32)
    return full.scatter_(-1, classes.long(), likely.float())


class CachedTraining(nn.Module):
    """Everything behind the frozen features, as one module whose forward gives the losses."""

    def __init__(self, model: CLIPSeg) -> None:
        super().__init__()
        self.model = model
        self.alignment = Alignment()

    def embed(self, texts: list[str], noise: float, dropout: float, small: float) -> Tensor:
        """Embed texts, each half of their embedding with noise of its own on the words."""
        towers: Any = self.model.backbone
        text = towers.text
        pieces, mask = text.tokenize(texts)
        words = text.words(pieces)
        keep = (torch.rand(words.shape[:2]) >= dropout).to(words).unsqueeze(2)
        own = (words + noise * torch.randn_like(words)) * keep
        own = TextTower.forward(text, own[..., : text.own_dim], mask)
        meaning = text.meaning(words + small * torch.randn_like(words), mask)
        return torch.cat([own, meaning * meaning.shape[-1] ** 0.5], -1)

    def distil(self, texts: list[str], vectors: Tensor) -> Tensor:
        """How far the meaning half is from what the sentence encoder says (1 − cosine)."""
        towers: Any = self.model.backbone
        text = towers.text
        pieces, mask = text.tokenize(texts)
        meaning = text.meaning(text.words(pieces), mask)
        return (1 - (meaning * vectors).sum(-1)).mean()

    def forward(
        self, batch: CachedBatch, noise: float, dropout: float, small: float
    ) -> dict[str, Tensor]:
        """Compute the losses of a batch by name."""
        model = self.model
        towers: Any = model.backbone
        fine, deep, likely, classes = batch.features
        size = len(batch.known)
        tokens, grid = towers.embed(
            fine.float().permute(0, 3, 1, 2), deep.float().permute(0, 3, 1, 2)
        )
        taps = towers.taps(tokens, grid, dense(likely, classes), deep.shape[1:3], model.layers)
        embedded = self.embed(batch.texts + batch.support_texts, noise, dropout, small)
        count = len(batch.texts)
        condition = embedded[:count].view(size, -1, embedded.shape[-1])
        losses = {}
        if batch.supports:
            fine, deep, likely, classes = batch.supports
            support_tokens, _ = towers.embed(
                fine.float().permute(0, 3, 1, 2), deep.float().permute(0, 3, 1, 2)
            )
            support = towers.embed_tokens(support_tokens, dense(likely, classes))
            condition = torch.cat([condition, support.unsqueeze(1)], 1)
            words = batch.support_texts
            same = torch.tensor([[one == other for other in words] for one in words])
            losses['support'] = self.alignment.supports(
                support, embedded[count:], same, batch.known[:, -1]
            )
        decoder = model.decoder
        logits = decoder.decode(decoder.project(taps), grid, decoder.modulate(condition)).float()
        bce, dice = mask_loss(logits, batch.masks, batch.known)
        share = functional.adaptive_avg_pool2d(batch.masks.float(), grid).flatten(2)
        scores = self.alignment.similarity(condition, taps[-1][..., : towers.embed_dim])
        pixelwise = functional.binary_cross_entropy_with_logits(
            scores, share, reduction='none', pos_weight=scores.new_tensor(4.0)
        )
        weight = batch.known.float()
        patch = (pixelwise.mean(2) * weight).sum() / weight.sum().clamp(min=1)
        presence = presence_loss(logits, batch.masks, batch.known)
        return {'bce': bce, 'dice': dice, 'patch': patch, 'presence': presence, **losses}
