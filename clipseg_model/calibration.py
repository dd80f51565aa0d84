"""From logits to decisions: probabilities, and how sure a model is that a thing is there."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

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


def top_scores(logits: NDArray[np.float32]) -> list[float]:
    """Score in 0…1 that each of P things is there: the mean of the top probabilities.

    The top of the logits (P, h, w), at model resolution, are :data:`TOP_SHARE` of the pixels and at
    least :data:`TOP_PIXELS`, so that a single stray pixel does not make a thing present and a small
    thing still counts. NaN counts as the highest.
    """
    scores = []
    for one in logits:
        flat = np.ravel(one)
        count = min(flat.size, max(TOP_PIXELS, math.ceil(TOP_SHARE * flat.size)))
        # A pixel is among the top only if its lot is among the lots with the highest maxima.
        lots = flat.reshape(math.gcd(flat.size, LOT), -1)
        if lots.shape[1] > count:
            best = np.argpartition(lots.max(axis=0), -count)[-count:]
            flat = lots[:, best].ravel()
        top = np.partition(flat, -count)[-count:]
        scores.append(float(sigmoid(top).mean(dtype=np.float64)))
    return scores
