"""Segmentation metrics summed over a data set, as the CLIPSeg paper reports them (section 5)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import simpson

#: Thresholds run over 0, 1 / BINS, …, 1.
BINS = 200

#: Steps of recall at which the precision-recall curve is read for its integral.
RECALLS = 1001


@dataclass
class PixelStatistics:
    """Counts of pixels by predicted probability, for foreground and background apart.

    Everything that thresholding needs is in two histograms, so a data set of any size takes the
    same memory, and every threshold is evaluated at once.
    """

    foreground: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS + 1, np.int64))
    background: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS + 1, np.int64))
    samples: int = 0

    def add(
        self,
        probability: NDArray[np.float32],
        truth: NDArray[np.bool_],
        valid: NDArray[np.bool_] | None = None,
    ) -> None:
        """Adds one prediction.

        Args:
            probability: float (H, W), 0…1.
            truth: bool (H, W).
            valid: bool (H, W), pixels that count; all by default.

        Raises:
            ValueError: If the shapes differ, or a probability is no number in 0…1.
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
        self.samples += 1

    def merge(self, other: PixelStatistics) -> None:
        """Adds another's counts."""
        self.foreground += other.foreground
        self.background += other.background
        self.samples += other.samples

    def true_positives(self) -> NDArray[np.int64]:
        """Foreground pixels at or above each threshold."""
        return self.foreground[::-1].cumsum()[::-1]

    def false_positives(self) -> NDArray[np.int64]:
        """Background pixels at or above each threshold."""
        return self.background[::-1].cumsum()[::-1]

    def iou_foreground(self) -> NDArray[np.float64]:
        """IoU_FG at each threshold: summed intersection over summed union."""
        union = self.foreground.sum() + self.false_positives()
        return self.true_positives() / np.maximum(union, 1)

    def iou_background(self) -> NDArray[np.float64]:
        """IoU of the background at each threshold."""
        intersection = self.background.sum() - self.false_positives()
        missed = self.foreground.sum() - self.true_positives()
        return intersection / np.maximum(self.background.sum() + missed, 1)

    def iou_binary(self) -> NDArray[np.float64]:
        """IoU_BIN (FB-IoU) at each threshold: the mean of foreground and background."""
        return (self.iou_foreground() + self.iou_background()) / 2

    def best(self, curve: NDArray[np.float64]) -> tuple[float, float]:
        """Returns the best value of a curve over thresholds, and the threshold it is reached at.

        Args:
            curve: What :meth:`iou_foreground` or :meth:`iou_binary` returns.
        """
        index = int(curve.argmax())
        return float(curve[index]), index / BINS

    def precision_recall(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns precision and recall at each threshold; precision is 1 where nothing is on."""
        positives, false = self.true_positives(), self.false_positives()
        predicted = positives + false
        precision = np.where(predicted > 0, positives / np.maximum(predicted, 1), 1.0)
        return precision, positives / max(self.foreground.sum(), 1)

    def calibration_error(self, bins: int = 20) -> float:
        """Expected calibration error of pixels, 0…1 (Guo et al. 2017).

        Mean over pixels of |share that is foreground - mean predicted probability|, by ranges of
        probability. Probabilities count as the middle of their level, which is off by half a
        level, 1 / (2 BINS), at most.

        Args:
            bins: Ranges of equal width; they divide :data:`BINS`.

        Raises:
            ValueError: They do not.
        """
        if bins < 1 or BINS % bins:
            raise ValueError(f'{bins} ranges do not divide the {BINS} levels')
        middle = np.minimum((np.arange(BINS + 1) + 0.5) / BINS, 1.0)
        counts = self.foreground + self.background
        which = np.minimum(np.arange(BINS + 1) // (BINS // bins), bins - 1)
        true = np.bincount(which, self.foreground, bins)
        claimed = np.bincount(which, counts * middle, bins)
        return float(np.abs(true - claimed).sum() / max(counts.sum(), 1))

    def counts(self) -> NDArray[np.int64]:
        """Returns everything as one int64 array, for sums across processes."""
        return np.concatenate([self.foreground, self.background, [self.samples]])

    @classmethod
    def of_counts(cls, counts: NDArray[np.int64]) -> PixelStatistics:
        """Returns the statistics of what :meth:`counts` returned, perhaps summed."""
        foreground, background = counts[: BINS + 1], counts[BINS + 1 : -1]
        return cls(foreground.copy(), background.copy(), int(counts[-1]))

    def average_precision(self) -> float:
        """Area under precision over recall, 0…1, integrated by Simpson's rule.

        The rule is applied at equal steps of recall, between which the curve is taken as linear.
        On the uneven steps that thresholds give, its weights turn negative, and a curve with one
        long step (all that is found is found above one threshold) would come out below zero.
        """
        positives = self.true_positives()
        predicted = positives + self.false_positives()
        used = predicted > 0
        precision = np.append(positives[used] / predicted[used], 1.0)[::-1]
        recall = np.append(positives[used] / max(self.foreground.sum(), 1), 0.0)[::-1]
        # Of thresholds with equal recall keep the best.
        distinct, first = np.unique(recall, return_index=True)
        best = np.maximum.reduceat(precision, first)
        # What no threshold reaches has no precision.
        grid = np.linspace(0, 1, RECALLS)
        return float(simpson(np.interp(grid, distinct, best, right=0.0), x=grid))


def index_of(threshold: float) -> int:
    """Returns the index of the smallest evaluated threshold that is not below this one."""
    return int(np.clip(np.ceil(threshold * BINS - 1e-9), 0, BINS))
