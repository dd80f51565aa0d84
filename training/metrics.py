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

    def add(self, probability: NDArray[np.float32], truth: NDArray[np.bool_]) -> None:
        """Adds one prediction.

        Args:
            probability: float (H, W), 0…1.
            truth: bool (H, W).

        Raises:
            ValueError: If the shapes differ.
        """
        if probability.shape != truth.shape:
            raise ValueError(
                f'probability {probability.shape} and truth {truth.shape} differ in shape'
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
