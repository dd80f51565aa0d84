"""From logits to decisions: probabilities, and how sure a model is that a thing is there."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

TOP_SHARE = 0.003
TOP_PIXELS = 16
LOT = 16
"""Pixels that are looked at together: near the square root of one in ``TOP_SHARE``, which is
cheapest."""


def logit(probability: float) -> float:
    """Return the logit of a probability in (0, 1)."""
    return math.log(probability) - math.log1p(-probability)


def sigmoid(
    logits: NDArray[np.float32], out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Return the probabilities of logits of any shape, float32, without overflow; NaN stays NaN.

    They are written to ``out``, which may be ``logits`` itself; to a new array where None.
    """
    # Probabilities are 0 or 1 in float32 well before these bounds, and exp(80) still fits it.
    clipped = np.clip(logits, -80, 80, out=out)
    np.negative(clipped, out=clipped)
    np.exp(clipped, out=clipped)
    clipped += 1
    return np.reciprocal(clipped, out=clipped)


def top_scores(logits: Tensor) -> list[float]:
    """Score in 0…1 that each of P things is there: the mean of the top probabilities.

    The top of the logits (P, h, w), at model resolution, are :data:`TOP_SHARE` of the pixels and at
    least :data:`TOP_PIXELS`, so that a single stray pixel does not make a thing present and a small
    thing still counts.
    """
    flat = logits.flatten(1)
    count = min(flat.shape[1], max(TOP_PIXELS, math.ceil(TOP_SHARE * flat.shape[1])))
    # A pixel is among the top only if its lot is among the lots with the highest maxima.
    size = math.gcd(flat.shape[1], LOT)
    lots = flat.unflatten(1, (size, -1))
    if lots.shape[2] > count:
        best = lots.amax(1).topk(count, dim=1, sorted=False).indices
        flat = lots.gather(2, best.unsqueeze(1).expand(-1, size, -1)).flatten(1)
    top = flat.topk(count, dim=1, sorted=False).values
    scores: list[float] = top.float().sigmoid().mean(dim=1).tolist()
    return scores
