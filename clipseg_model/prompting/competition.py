"""Negative prompts: distractors that compete for pixels and are never reported.

A model that is asked for a mug also lights up on a vase. Asked for the vase as well, it says which
of the two it is surer of. So where a negative prompt is over its own threshold, by so much are the
logits of all other prompts lowered there:

    l' = l − max(0, n − c)        n: the negative's logit, c: the logit of its threshold

With one threshold for both, l' > c holds exactly where l > c and l > n: the surer one wins. The
difference is continuous, so resizing it puts the border where both would have been resized to, and
whatever is made of the logits (mask, score, presence, confidence) has been through the competition.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from clipseg_model.calibration import logit, top_scores
from clipseg_model.errors import PromptError
from clipseg_model.prompts import Prompt


def compete(
    logits: NDArray[np.float32],
    prompts: Sequence[Prompt],
    threshold: float,
    presence_threshold: float,
) -> tuple[NDArray[np.float32], list[Prompt]]:
    """Let negative prompts lower the logits (P, h, w) of the others. An absent one lowers nothing.

    Args:
        logits: Of all prompts.
        prompts: As many.
        threshold: Probability for the negative prompts that have no threshold of their own.
        presence_threshold: Score from which on those without one of their own are present.

    Returns:
        Logits (Q, h, w) and the Q prompts that are not negative, in their order.

    Raises:
        PromptError: All prompts are negative.
    """
    if not any(prompt.negative for prompt in prompts):
        return logits, list(prompts)
    asked = [number for number, prompt in enumerate(prompts) if not prompt.negative]
    if not asked:
        raise PromptError(
            f'All {len(prompts)} prompts are negative, so there is nothing to report: add one '
            'that is not'
        )
    excess = np.zeros_like(logits[0])
    for number, (prompt, score) in enumerate(zip(prompts, top_scores(logits), strict=True)):
        if not prompt.negative or score < prompt.present_from(presence_threshold):
            continue
        cut = logit(threshold if prompt.threshold is None else prompt.threshold)
        np.maximum(excess, logits[number] - np.float32(cut), out=excess)
    return logits[asked] - excess, [prompts[number] for number in asked]
