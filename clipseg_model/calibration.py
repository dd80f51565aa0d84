"""From logits to decisions: scores, presence, and thresholds chosen on a validation split."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

__all__ = ['ThresholdCalibrator', 'best_presence_threshold', 'logit', 'sigmoid', 'top_scores']

TOP_SHARE = 0.001
TOP_PIXELS = 16


def logit(probability: float) -> float:
    """The logit of a probability in (0, 1)."""
    return math.log(probability) - math.log1p(-probability)


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities of logits, float32, without overflow; NaN stays NaN."""
    # Probabilities are 0 or 1 in float32 well before these bounds, and exp(80) still fits it.
    clipped = np.clip(logits, -80, 80)
    np.negative(clipped, out=clipped)
    np.exp(clipped, out=clipped)
    clipped += 1
    return np.reciprocal(clipped, out=clipped)


def top_scores(logits: Tensor) -> list[float]:
    """How sure a model is that a thing is there at all: the mean of the top probabilities.

    The top are :data:`TOP_SHARE` of the pixels and at least :data:`TOP_PIXELS`, so that a single
    stray pixel does not make a thing present and a small thing still counts.

    Args:
        logits: (P, h, w) at model resolution.

    Returns:
        P scores in 0…1.
    """
    flat = logits.flatten(1)
    count = min(flat.shape[1], max(TOP_PIXELS, math.ceil(TOP_SHARE * flat.shape[1])))
    top = torch.topk(flat, count, dim=1, sorted=False).values
    scores: list[float] = top.float().sigmoid().mean(dim=1).tolist()
    return scores


class ThresholdCalibrator:
    """Finds the threshold with the best intersection over union of the foreground.

    Pixels of all samples are summed up before the ratio is taken, as PhraseCut's IoU_FG does.

    Args:
        bins: Number of thresholds tried, evenly spaced in (0, 1).
    """

    def __init__(self, bins: int = 200) -> None:
        if bins < 2:
            raise ValueError(f'bins must be at least 2, not {bins}')
        self.bins = bins
        self._inside = np.zeros(bins, np.int64)
        self._outside = np.zeros(bins, np.int64)

    @property
    def thresholds(self) -> NDArray[np.float64]:
        """The thresholds tried, ascending: the lower edge of each bin but the first."""
        return np.arange(1, self.bins) / self.bins

    def add(self, logits: ArrayLike, truth: ArrayLike) -> None:
        """Count one sample.

        Args:
            logits: Any shape.
            truth: Bool, of the same shape.

        Raises:
            ValueError: The shapes differ.
        """
        values, inside = np.asarray(logits, np.float32).ravel(), np.asarray(truth, bool).ravel()
        if values.shape != inside.shape:
            raise ValueError(
                f'logits and truth must have one shape, not {np.shape(logits)} and '
                f'{np.shape(truth)}'
            )
        bins = np.minimum((sigmoid(values) * self.bins).astype(np.int64), self.bins - 1)
        self._inside += np.bincount(bins[inside], minlength=self.bins)
        self._outside += np.bincount(bins[~inside], minlength=self.bins)

    def curve(self) -> NDArray[np.float64]:
        """IoU_FG at each of :attr:`thresholds`."""
        hits = self._inside[::-1].cumsum()[::-1][1:]
        alarms = self._outside[::-1].cumsum()[::-1][1:]
        return hits / np.maximum(self._inside.sum() + alarms, 1)

    def best(self) -> tuple[float, float]:
        """The best threshold and its IoU_FG; the middle one of several that are equally good.

        Raises:
            ValueError: No foreground was counted.
        """
        if not self._inside.any():
            raise ValueError('No sample with any foreground was added')
        curve = self.curve()
        ties = np.flatnonzero(curve == curve.max())
        best = int(ties[len(ties) // 2])
        return float(self.thresholds[best]), float(curve[best])


def best_presence_threshold(scores: Sequence[float], present: Sequence[bool]) -> float:
    """The score that best separates prompts whose object is there from those whose is not.

    Best is the highest mean of the two rates of right answers; the middle between two scores is
    returned.

    Args:
        scores: Of :func:`top_scores`.
        present: Whether each prompt's object was there.

    Raises:
        ValueError: The lengths differ, or one of the two kinds is missing.
    """
    values, truth = np.asarray(scores, np.float64), np.asarray(present, bool)
    if values.shape != truth.shape or values.ndim != 1:
        raise ValueError(
            f'scores and present must be as long as each other, not {values.shape}, {truth.shape}'
        )
    if truth.all() or not truth.any():
        raise ValueError('Both present and absent prompts are needed')
    levels = np.unique(values)
    cuts = np.concatenate([[0.0], (levels[1:] + levels[:-1]) / 2])
    there, away = np.sort(values[truth]), np.sort(values[~truth])
    found = 1 - np.searchsorted(there, cuts) / len(there)
    rejected = np.searchsorted(away, cuts) / len(away)
    return float(cuts[int(np.argmax(found + rejected))])
