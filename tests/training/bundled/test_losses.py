"""Losses: what they reward, and what they leave alone."""

from __future__ import annotations

import pytest
import torch

from training.bundled.losses import (
    Alignment,
    TokenClasses,
    mask_loss,
    noisy_words,
    presence_loss,
)
from training.datasets.tabletop import NO_CLASS


def test_mask_loss_is_small_for_the_truth_and_large_for_its_opposite():
    masks = torch.zeros(1, 2, 8, 8, dtype=torch.bool)
    masks[0, 0, :4] = True
    logits = torch.where(masks, 12.0, -12.0)
    known = torch.ones(1, 2, dtype=torch.bool)
    bce, dice = mask_loss(logits, masks, known)
    assert bce < 1e-4
    assert dice < 1e-3
    bce, dice = mask_loss(-logits, masks, known)
    assert bce == pytest.approx(12, abs=1e-3)
    assert dice > 0.9


def test_unknown_prompts_do_not_count():
    masks = torch.zeros(1, 2, 4, 4, dtype=torch.bool)
    logits = torch.full((1, 2, 4, 4), -10.0)
    logits[0, 1] = 10.0
    bce, _ = mask_loss(logits, masks, torch.tensor([[True, False]]))
    assert bce < 1e-3


def test_absent_prompts_are_no_business_of_dice():
    masks = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    _, dice = mask_loss(torch.zeros(1, 1, 4, 4), masks, torch.ones(1, 1, dtype=torch.bool))
    assert dice == 0


def test_alignment_rewards_patches_that_agree_with_their_prompt():
    alignment = Alignment()
    condition = torch.eye(4)[None, :2]
    patches = torch.eye(4)[[0, 0, 1, 1]][None]
    share = torch.tensor([[[1.0, 1, 0, 0], [0, 0, 1, 1]]])
    known = torch.ones(1, 2, dtype=torch.bool)
    right = alignment(patches, condition, share, known)
    wrong = alignment(patches, condition.flip(1), share, known)
    assert right[0] < wrong[0]
    assert right[1] < wrong[1]


def test_classes_of_tokens_are_learned_from_tokens_that_have_one():
    torch.manual_seed(0)
    losses = TokenClasses(8)
    tokens = torch.randn(1, 3, 8)
    classes = torch.tensor([[[0, 1], [2, NO_CLASS], [NO_CLASS, NO_CLASS]]])
    loss = losses(tokens, classes)
    changed = tokens.clone()
    changed[0, 2] += 10
    assert losses(changed, classes) == loss
    changed[0, 1] += 10
    assert losses(changed, classes) != loss
    nothing = torch.full_like(classes, NO_CLASS)
    assert losses(tokens, nothing) == 0


def test_support_loss_ignores_rows_without_a_support_image():
    alignment = Alignment()
    images = torch.eye(4)[:2]
    same = torch.eye(2, dtype=torch.bool)
    spoiled = torch.stack([images[0], -images[1]])
    only_first = torch.tensor([True, False])
    assert alignment.supports(spoiled, images, same, torch.tensor([True, True])) > 2
    assert alignment.supports(spoiled, images, same, only_first) == alignment.supports(
        images, images, same, only_first
    )


def test_word_noise_is_reproducible_and_of_the_size_asked_for():
    words = torch.zeros(50, 10, 64)
    first = noisy_words(words, 0.5, 0.0, torch.Generator().manual_seed(1))
    second = noisy_words(words, 0.5, 0.0, torch.Generator().manual_seed(1))
    assert torch.equal(first, second)
    assert first.std().item() == pytest.approx(0.5, abs=0.01)


def test_word_dropout_blanks_whole_pieces():
    words = torch.ones(100, 10, 4)
    dropped = noisy_words(words, 0.0, 0.3, torch.Generator().manual_seed(1))
    blank = (dropped == 0).all(2)
    assert ((dropped == 1).all(2) | blank).all()
    assert blank.float().mean().item() == pytest.approx(0.3, abs=0.05)


def test_presence_counts_what_is_bright_on_the_thing_alone() -> None:
    logits = torch.full((1, 3, 64, 64), -4.0)
    logits[0, :2, :8, :8] = 5.0
    masks = torch.zeros(1, 3, 64, 64, dtype=torch.bool)
    masks[0, 0, :8, :8] = True
    masks[0, 1, 32:, 32:] = True

    def loss(*prompts: int) -> float:
        known = torch.zeros(1, 3, dtype=torch.bool)
        known[0, list(prompts)] = True
        return float(presence_loss(logits, masks, known))

    found, elsewhere, absent = loss(0), loss(1), loss(2)
    assert found < 0.02
    assert elsewhere > 3.5
    assert absent < 0.03
    assert loss(0, 1) == pytest.approx((found + elsewhere) / 2)
    assert loss() == 0
