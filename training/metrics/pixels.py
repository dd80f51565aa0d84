"""Segmentation metrics summed over a data set, as the CLIPSeg paper reports them (section 5)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import simpson

from training.metrics.sums import Counts

#: Thresholds run over 0, 1 / BINS, …, 1.
BINS = 200

#: Thresholds of CLIPSeg's published code are every so many of these.
PUBLISHED_STEP = 4

#: For average precision, levels are steps of the logit: so many to each unit, up to this one. What
#: a model is unsure of lies close above 0, where equal steps of probability would tell too little.
LOGIT_STEPS = 64
MOST_LOGIT = 16
LEVELS = 2 * MOST_LOGIT * LOGIT_STEPS + 1


@dataclass
class PixelStatistics(Counts):
    """Histograms of predicted probability, of foreground and of background pixels.

    They hold all that thresholding needs: memory does not grow with the data, and every threshold
    is evaluated at once. ``foreground`` and ``background`` are by the thresholds,
    ``ranked_foreground`` and ``ranked_background`` by steps of the logit.
    """

    foreground: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS + 1, np.int64))
    background: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS + 1, np.int64))
    ranked_foreground: NDArray[np.int64] = field(default_factory=lambda: np.zeros(LEVELS, np.int64))
    ranked_background: NDArray[np.int64] = field(default_factory=lambda: np.zeros(LEVELS, np.int64))
    samples: int = 0

    def add(
        self,
        probability: NDArray[np.float32],
        truth: NDArray[np.bool_],
        valid: NDArray[np.bool_] | None = None,
    ) -> None:
        """Add one prediction.

        Args:
            probability: float (H, W), 0…1.
            truth: bool (H, W).
            valid: bool (H, W), pixels that are evaluated; all by default.

        Raises:
            ValueError: If the shapes differ, or a probability is not within 0…1.
        """
        shapes = {probability.shape, truth.shape} | ({valid.shape} if valid is not None else set())
        if len(shapes) > 1:
            raise ValueError(
                f'probability {probability.shape} and truth {truth.shape} differ in shape'
                + (f', or pixels that count {valid.shape}' if valid is not None else '')
            )
        if valid is not None:
            probability, truth = probability[valid], truth[valid]
        if probability.size and not (probability.min() >= 0 and probability.max() <= 1):
            raise ValueError(
                f'probabilities are {probability.min()} … {probability.max()}, not within 0…1'
            )
        level = np.clip(probability * BINS, 0, BINS).astype(np.int64)
        self.foreground += np.bincount(level[truth], minlength=BINS + 1)
        self.background += np.bincount(level[~truth], minlength=BINS + 1)
        rank = _ranks(probability)
        self.ranked_foreground += np.bincount(rank[truth], minlength=LEVELS)
        self.ranked_background += np.bincount(rank[~truth], minlength=LEVELS)
        self.samples += 1

    def true_positives(self) -> NDArray[np.int64]:
        """Return the number of foreground pixels at or above each threshold."""
        return self.foreground[::-1].cumsum()[::-1]

    def false_positives(self) -> NDArray[np.int64]:
        """Return the number of background pixels at or above each threshold."""
        return self.background[::-1].cumsum()[::-1]

    def iou_foreground(self) -> NDArray[np.float64]:
        """Return IoU_FG at each threshold: summed intersection over summed union."""
        union = self.foreground.sum() + self.false_positives()
        return self.true_positives() / np.maximum(union, 1)

    def iou_background(self) -> NDArray[np.float64]:
        """Return the IoU of the background at each threshold."""
        intersection = self.background.sum() - self.false_positives()
        missed = self.foreground.sum() - self.true_positives()
        return intersection / np.maximum(self.background.sum() + missed, 1)

    def iou_binary(self) -> NDArray[np.float64]:
        """Return IoU_BIN (FB-IoU) at each threshold: the mean of foreground and background."""
        return (self.iou_foreground() + self.iou_background()) / 2

    def calibration_error(self, bins: int = 20) -> float:
        """Return the expected calibration error of pixels, 0…1 (Guo et al. 2017).

        Mean over pixels of |share of foreground - mean predicted probability|, by ranges of
        probability. Probabilities are taken as the middle of their level, off by 1 / (2 BINS) at
        most.

        Args:
            bins: Number of ranges of equal width.

        Raises:
            ValueError: If :data:`BINS` is no multiple of ``bins``.
        """
        if bins < 1 or BINS % bins:
            raise ValueError(f'{bins} ranges do not divide the {BINS} levels')
        middle = np.minimum((np.arange(BINS + 1) + 0.5) / BINS, 1.0)
        counts = self.foreground + self.background
        which = np.minimum(np.arange(BINS + 1) // (BINS // bins), bins - 1)
        true = np.bincount(which, self.foreground, bins)
        claimed = np.bincount(which, counts * middle, bins)
        return float(np.abs(true - claimed).sum() / max(counts.sum(), 1))

    def average_precision(self) -> float:
        """Return the average precision, 0…1, as scikit-learn defines it.

        This is the sum over the levels, from the surest down, of what each adds to the recall times
        the precision there. Pixels of one level count as equally sure, which is the only difference
        from scikit-learn's figure of the single pixels.
        """
        positives = self.ranked_foreground[::-1].cumsum()
        predicted = positives + self.ranked_background[::-1].cumsum()
        precision = positives / np.maximum(predicted, 1)
        found = np.dot(self.ranked_foreground[::-1], precision)
        return float(found / max(self.ranked_foreground.sum(), 1))

    def published_average_precision(self) -> float:
        """Return the "AP" of CLIPSeg's published code, with which its tables were made.

        The code takes 49 thresholds, 0.02 … 0.98, adds 1 to each denominator, and applies Simpson's
        rule to the points as they lie. Two things keep this from being an area of 0…1. The curve
        begins at the recall of the threshold 0.98: what is surer does not count, and a predictor
        that is sure of everything gets nearly 0. And the rule fits a parabola through each three
        points: where one step of recall is much longer than the next, weights grow, or turn
        negative. Of points with equal recall, which that code keeps in no particular order, here
        the one with the best precision counts. With an even number of points, the mean of both
        places of the odd step is taken, as SciPy did then. Pixels at a threshold reach it here,
        and do not there. NaN where no pixel reaches 0.02.
        """
        every = np.arange(PUBLISHED_STEP, BINS, PUBLISHED_STEP)
        positives = self.true_positives()[every]
        predicted = positives + self.false_positives()[every]
        used = predicted > 0
        if not used.any():
            return float('nan')
        precision = positives[used] / (1 + predicted[used])
        recall = positives[used] / (1 + self.foreground.sum())
        distinct = np.unique(recall)
        best = np.array([precision[recall == value].max() for value in distinct])
        return _simpson_of_points(best, distinct)


def _ranks(probability: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the levels of average precision, 0 … LEVELS - 1, of probabilities."""
    with np.errstate(divide='ignore'):
        logit = np.log(probability) - np.log1p(-probability)
    steps = np.clip(logit, -MOST_LOGIT, MOST_LOGIT) * LOGIT_STEPS
    return np.rint(steps).astype(np.int64) + MOST_LOGIT * LOGIT_STEPS


def _simpson_of_points(y: NDArray[np.float64], x: NDArray[np.float64]) -> float:
    """Apply Simpson's rule to ascending points, as ``scipy.integrate.simps`` did until 2023."""
    if len(x) < 2:
        return 0.0
    if len(x) % 2:
        return float(simpson(y, x=x))

    def edge(first: int, last: int) -> float:
        return float((y[first] + y[last]) / 2 * (x[last] - x[first]))

    if len(x) == 2:
        return edge(0, 1)
    front = simpson(y[:-1], x=x[:-1]) + edge(-2, -1)
    back = edge(0, 1) + simpson(y[1:], x=x[1:])
    return float((front + back) / 2)


def intersection_and_union(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> tuple[int, int]:
    """Return the numbers of pixels of both masks, bool (H, W), and of either."""
    return int(np.count_nonzero(one & other)), int(np.count_nonzero(one | other))


def index_of(threshold: float) -> int:
    """Return the index of the smallest evaluated threshold that is not below this one."""
    return int(np.clip(np.ceil(threshold * BINS - 1e-9), 0, BINS))
