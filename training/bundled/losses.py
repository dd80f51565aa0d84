"""The losses that train the bundled model's towers and decoder together."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from clipseg_model.calibration import TOP_PIXELS, TOP_SHARE
from clipseg_model.modeling.bundled.small_clip import SmallClip
from clipseg_model.modeling.clipseg import CLIPSeg
from training.datasets.tabletop import (
    CATEGORY_CLASSES,
    COLOUR_CLASSES,
    NO_CLASS,
    SURFACES,
)


def mask_loss(logits: Tensor, masks: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean binary cross-entropy of masks, and 1 - Dice.

    Args:
        logits: (B, P, H, W).
        masks: Truth, bool of the same shape; Dice leaves out empty ones.
        known: bool (B, P); other prompts do not count.
    """
    truth = masks.to(logits.dtype)
    pixelwise = functional.binary_cross_entropy_with_logits(logits, truth, reduction='none')
    weight = known.to(logits.dtype)
    bce = (pixelwise.mean((2, 3)) * weight).sum() / weight.sum().clamp(min=1)
    probability = logits.sigmoid()
    overlap = (probability * truth).sum((2, 3))
    total = probability.sum((2, 3)) + truth.sum((2, 3))
    present = weight * masks.flatten(2).any(2)
    dice = 1 - (2 * overlap + 1) / (total + 1)
    return bce, (dice * present).sum() / present.sum().clamp(min=1)


class Alignment(nn.Module):
    """Sigmoid losses that tie patches, regions and support images to texts (Zhai et al. 2023)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.3))
        self.bias = nn.Parameter(torch.tensor(-3.0))

    def similarity(self, left: Tensor, right: Tensor) -> Tensor:
        """Return scaled cosine similarities: (…, N, E) and (…, M, E) to (…, N, M)."""
        left = functional.normalize(left.float(), dim=-1)
        right = functional.normalize(right.float(), dim=-1)
        return self.scale.exp() * left @ right.transpose(-2, -1) + self.bias

    def forward(
        self, patches: Tensor, condition: Tensor, share: Tensor, known: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the patch–prompt and the region–prompt loss.

        Args:
            patches: Patch embeddings (B, N, E).
            condition: Prompt embeddings (B, P, E).
            share: Share of each patch that each prompt is true of, (B, P, N), 0…1.
            known: bool (B, P).
        """
        weight = known.float().unsqueeze(2)
        scores = self.similarity(condition, patches)
        pixelwise = functional.binary_cross_entropy_with_logits(
            scores, share, reduction='none', pos_weight=scores.new_tensor(4.0)
        )
        patch_loss = (pixelwise.mean(2, keepdim=True) * weight).sum() / weight.sum().clamp(min=1)

        area = share.sum(2, keepdim=True)
        regions = share @ patches.float() / area.clamp(min=1e-6)
        overlap = share @ share.transpose(1, 2) / area.clamp(min=1e-6)
        # A region wholly inside a prompt's truth matches it, one wholly outside does not.
        clear = (overlap > 0.9) | (overlap < 0.1)
        clear &= (area > 0.5) & (known.unsqueeze(1) & known.unsqueeze(2))
        region_scores = self.similarity(regions, condition)
        region = functional.binary_cross_entropy_with_logits(
            region_scores, (overlap > 0.5).float(), reduction='none'
        )
        region_loss = (region * clear).sum() / clear.sum().clamp(min=1)
        return patch_loss, region_loss

    def supports(self, images: Tensor, texts: Tensor, same: Tensor, known: Tensor) -> Tensor:
        """Tie support images (B, E) to texts (B, E); ``same`` (B, B) says which are of a kind."""
        scores = self.similarity(images, texts)
        loss = functional.binary_cross_entropy_with_logits(
            scores, same.to(scores.dtype), reduction='none'
        )
        weight = known.to(scores.dtype).unsqueeze(1).expand_as(loss)
        return (loss * weight).sum() / weight.sum().clamp(min=1)


def noisy_words(words: Tensor, noise: float, dropout: float, generator: torch.Generator) -> Tensor:
    """Perturb word vectors (P, T, D), so that unknown words are read by their neighbours.

    ``noise`` is a standard deviation; ``dropout``, the share of word pieces that are zeroed.
    """
    drawn = torch.randn(words.shape, generator=generator).to(words)
    keep = torch.rand(words.shape[:2], generator=generator).to(words) >= dropout
    return (words + noise * drawn) * keep.unsqueeze(2)


def presence_loss(logits: Tensor, masks: Tensor, known: Tensor) -> Tensor:
    """Cross-entropy of the score that tells whether a thing is there at all.

    The score is that of :func:`clipseg_model.calibration.top_scores`, but for a thing that is
    there its pixels alone count: what is bright elsewhere must not pass for it.

    Args:
        logits: (B, P, S, S).
        masks: Truth, bool (B, P, S, S).
        known: bool (B, P); false where there is no such prompt.
    """
    flat, truth = logits.flatten(2), masks.flatten(2)
    there = truth.any(2)
    outside = there.unsqueeze(2) & ~truth
    count = min(flat.shape[2], max(TOP_PIXELS, math.ceil(TOP_SHARE * flat.shape[2])))
    top = flat.masked_fill(outside, -30.0).topk(count, dim=2, sorted=False).values
    score = top.sigmoid().mean(2).clamp(1e-4, 1 - 1e-4)
    loss = -torch.where(there, score, 1 - score).log()
    weight = known.to(score.dtype)
    return (loss * weight).sum() / weight.sum().clamp(min=1)


class TokenClasses(nn.Module):
    """Say of each token which category and colour it shows: the towers learn faster by it."""

    #: Weight of tokens that show a surface: they are many and easy.
    SURFACE_WEIGHT = 0.1

    def __init__(self, width: int) -> None:
        super().__init__()
        self.category = nn.Linear(width, len(CATEGORY_CLASSES))
        self.colour = nn.Linear(width, len(COLOUR_CLASSES))

    def forward(self, tokens: Tensor, classes: Tensor) -> Tensor:
        """Return the sum of both cross-entropies of tokens (B, N, C) with classes (B, N, 2)."""
        surface = torch.zeros(len(CATEGORY_CLASSES), dtype=torch.bool, device=tokens.device)
        surface[[CATEGORY_CLASSES[name] for name in SURFACES]] = True
        total = tokens.new_zeros((), dtype=torch.float32)
        for index, head in enumerate((self.category, self.colour)):
            truth = classes[..., index]
            weight = torch.where(surface[classes[..., 0].clamp(min=0)], self.SURFACE_WEIGHT, 1.0)
            weight = weight * (truth != NO_CLASS)
            scores = head(tokens).float().flatten(0, 1)
            loss = functional.cross_entropy(
                scores, truth.flatten(), ignore_index=NO_CLASS, reduction='none'
            )
            total = total + (loss * weight.flatten()).sum() / weight.sum().clamp(min=1)
        return total


class JointTraining(nn.Module):
    """Give every loss of a CLIPSeg model on ``SmallClip`` whose last block is tapped, by name."""

    def __init__(self, model: CLIPSeg) -> None:
        super().__init__()
        if model.layers[-1] != model.backbone.num_blocks - 1:
            raise ValueError(
                f'the last of the layers {model.layers} must be the last block, '
                f'{model.backbone.num_blocks - 1}: the alignment losses read its patches'
            )
        self.model = model
        self.alignment = Alignment()
        self.classes = TokenClasses(model.backbone.token_width)

    @property
    def towers(self) -> SmallClip:
        """Towers of the model."""
        assert isinstance(self.model.backbone, SmallClip), type(self.model.backbone)
        return self.model.backbone

    def forward(
        self,
        images: Tensor,
        supports: Tensor,
        words: Tensor,
        word_mask: Tensor,
        masks: Tensor,
        known: Tensor,
        more_share: Tensor,
        classes: Tensor,
        same: Tensor,
    ) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        Args:
            images: Normalised pictures (B, 3, S, S).
            supports: Normalised prompt images (B, 3, s, s).
            words: Word vectors (B·T + B·X + B, L, D): the texts row by row, further texts for the
                alignment losses, then a text that names what each support image shows.
            word_mask: bool, the same without D.
            masks: Truth, bool (B, T + 1, S, S): of the texts, then of the support image.
            known: bool (B, T + 1): false where there is no such prompt.
            more_share: Share of each patch that the further texts are true of, (B, X, N).
            classes: Category and colour of each token, int64 (B, N, 2).
            same: bool (B, B): which support images show the same kind of thing.
        """
        model, backbone = self.model, self.towers
        batch, texts = len(images), masks.shape[1] - 1
        features = model.encode_image(images)
        patches = features.taps[-1][:, 1:]
        embedded = backbone.text(words, word_mask)
        prompts, more, named = embedded.split([batch * texts, more_share[..., 0].numel(), batch])
        prompts = prompts.view(batch, texts, -1)
        more = more.view(batch, more_share.shape[1], -1)
        support = backbone.embed_images(supports)
        condition = torch.cat([prompts, support.unsqueeze(1)], 1)
        logits = model.decode(features, condition).float()
        bce, dice = mask_loss(logits, masks, known)
        share = functional.adaptive_avg_pool2d(masks.float(), features.grid).flatten(2)
        patch, region = self.alignment(
            backbone.project(patches),
            torch.cat([condition, more], 1),
            torch.cat([share, more_share], 1),
            torch.cat([known, known.new_ones(more.shape[:2])], 1),
        )
        return {
            'bce': bce,
            'dice': dice,
            'patch': patch,
            'region': region,
            'support': self.alignment.supports(support, named, same, known[:, -1]),
            'classes': self.classes(backbone.norm(patches), classes),
        }
