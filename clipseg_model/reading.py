"""From the logits of a model to results: competition, presence and thresholds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from clipseg_model.calibration import top_scores
from clipseg_model.errors import ClipsegError
from clipseg_model.model_card import ModelCard
from clipseg_model.prompting.competition import compete
from clipseg_model.prompts import Prompt
from clipseg_model.segmentation import PromptResult, Segmentation

__all__ = ['check_finite', 'read_logits']


def check_finite(logits: Tensor, model: str) -> None:
    """Make sure that the logits of a model are finite; waits for a GPU.

    Raises:
        ClipsegError: They are not.
    """
    if not math.isfinite(float(logits.sum())):
        raise ClipsegError(
            f'The model {model!r} gave logits that are not finite: its weights are damaged, or '
            'its precision is too low for them'
        )


def read_logits(
    logits: Tensor,
    prompts: Sequence[Prompt],
    threshold: float | None,
    size: tuple[int, int],
    card: ModelCard,
) -> Segmentation:
    """Make results of logits.

    Args:
        logits: (P, h, w) at the model's resolution, on any device.
        prompts: Their P prompts.
        threshold: Probability in (0, 1) for the prompts that have none of their own; the card's
            where None.
        size: Height and width of the image, pixels.
        card: The model's.

    Returns:
        A result for each prompt that is not negative, in their order.

    Raises:
        ClipsegError: The logits are not finite.
        PromptError: All prompts are negative.
    """
    check_finite(logits, card.name)
    default = card.threshold if threshold is None else threshold
    logits, asked = compete(logits, prompts, default, card.presence_threshold)
    height, width = size
    answers = zip(asked, top_scores(logits), logits.cpu().numpy(), strict=True)
    results = [
        PromptResult(
            prompt=prompt,
            threshold=default if prompt.threshold is None else prompt.threshold,
            score=score,
            presence=score >= prompt.present_from(card.presence_threshold),
            logits=array,
            height=height,
            width=width,
        )
        for prompt, score, array in answers
    ]
    return Segmentation(height, width, results, card.name)
