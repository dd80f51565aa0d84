"""Metrics over classes, over samples, and over prompts and their presence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from training.metrics.pixels import BINS, PixelStatistics, index_of, intersection_and_union
from training.metrics.sums import Counts

#: The mask of an absent prompt counts as empty when a smaller share of the image is on.
EMPTY_SHARE = 0.001


@dataclass
class ClassStatistics(Counts):
    """Pixel statistics by class, for mIoU over classes (few-shot protocols)."""

    by_class: dict[int, PixelStatistics] = field(
        default_factory=lambda: defaultdict(PixelStatistics)
    )

    def merge(self, other: Counts) -> None:
        """Add the counts of other class statistics."""
        assert isinstance(other, ClassStatistics)
        for number, statistics in other.by_class.items():
            self.by_class[number].merge(statistics)

    def all_classes(self) -> PixelStatistics:
        """Return the sum over the classes, for IoU_FG, IoU_BIN (FB-IoU) and AP."""
        total = PixelStatistics()
        for statistics in self.by_class.values():
            total.merge(statistics)
        return total

    def mean_iou(self) -> NDArray[np.float64]:
        """Return mIoU at each threshold: the mean over classes of their IoU_FG.

        Raises:
            ValueError: Nothing was added.
        """
        if not self.by_class:
            raise ValueError('mIoU of no class: nothing was added')
        # Sorted, since a mean depends on the order in its last bit.
        return np.mean([s.iou_foreground() for _, s in sorted(self.by_class.items())], axis=0)


@dataclass
class SampleIous(Counts):
    """Mean IoU of samples at every threshold.

    CLIPSeg's published code calls this mIoU on PhraseCut, where each sample is a class of its own.
    Samples without foreground are left out.

    Attributes:
        sums: int64 (BINS + 1), of the IoUs in units of 2⁻³², so that sums do not depend on their
            order; enough for 2³¹ samples.
        samples: How many.
    """

    sums: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS + 1, np.int64))
    samples: int = 0

    def add(self, sample: PixelStatistics) -> None:
        """Add the statistics of one sample."""
        foreground = int(sample.foreground.sum())
        if not foreground:
            return
        union = foreground + sample.false_positives()
        self.sums += (sample.true_positives() << 32) // union
        self.samples += 1

    def mean_iou(self) -> NDArray[np.float64]:
        """Return the mean at each threshold.

        Raises:
            ValueError: Nothing was added.
        """
        if not self.samples:
            raise ValueError('mIoU of no sample: nothing with foreground was added')
        return self.sums / 2**32 / self.samples


@dataclass
class PromptStatistics(Counts):
    """IoU of single prompts and how well presence tells true prompts from false ones.

    Scores are kept as a histogram of :data:`BINS` + 1 levels, so memory does not grow with the
    data; scores of the same level count as ties.

    Attributes:
        present: Prompts that are true of their picture, by level of their score.
        absent: The others.
        ious: Prompts that are true of their picture, by the last level that their IoU is above,
            and 0 for those without IoU; for PhraseCut's accuracies.
        iou_sum: Sum of their IoUs in units of 2⁻³², so that sums do not depend on their order.
    """

    present: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS + 1, np.int64))
    absent: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS + 1, np.int64))
    ious: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS + 1, np.int64))
    iou_sum: int = 0

    def add(self, score: float, mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> None:
        """Add a prompt.

        Args:
            score: Predicted presence, 0…1.
            mask: bool (H, W), predicted.
            truth: bool (H, W); the prompt is absent where it is empty.

        Raises:
            ValueError: The score is not within 0…1.
        """
        if not 0 <= score <= 1:
            raise ValueError(f'presence is {score}, not within 0…1')
        level = int(score * BINS)
        if not truth.any():
            self.absent[level] += 1
            return
        self.present[level] += 1
        intersection, union = intersection_and_union(mask, truth)
        self.ious[max((intersection * BINS - 1) // union, 0)] += 1
        self.iou_sum += (intersection << 32) // union

    def mean_iou(self) -> float:
        """Return the mean IoU of true prompts (PhraseCut's mean IoU); NaN without any."""
        count = int(self.ious.sum())
        return self.iou_sum / 2**32 / count if count else float('nan')

    def accuracy(self, threshold: float) -> float:
        """Return the share of true prompts with more than this IoU (PhraseCut's Pr@t), or NaN."""
        count = int(self.ious.sum())
        return float(self.ious[index_of(threshold) :].sum() / count) if count else float('nan')

    def presence_auroc(self) -> float:
        """Return the AUROC of presence: ties count half; NaN without true or false prompts."""
        pairs = int(self.present.sum()) * int(self.absent.sum())
        if not pairs:
            return float('nan')
        below = self.absent.cumsum() - self.absent
        twice = int((self.present * (2 * below + self.absent)).sum())
        return twice / (2 * pairs)


@dataclass
class ConfusionMatrix(Counts):
    """Pixels by true and predicted class, for argmax over all classes (Pascal zero-shot).

    Attributes:
        counts: int64 (K, K), row: truth, column: prediction.
    """

    counts: NDArray[np.int64]

    @classmethod
    def of(cls, classes: int) -> ConfusionMatrix:
        """Return an empty matrix."""
        return cls(np.zeros((classes, classes), np.int64))

    def add(self, predicted: NDArray[np.integer], truth: NDArray[np.integer]) -> None:
        """Add a picture; pixels whose truth is no class (255) do not count.

        Args:
            predicted: Class of each pixel, (H, W).
            truth: The same.

        Raises:
            ValueError: Shapes differ, or a prediction is no class.
        """
        if predicted.shape != truth.shape:
            raise ValueError(
                f'prediction {predicted.shape} and truth {truth.shape} differ in shape'
            )
        classes = len(self.counts)
        known = (truth >= 0) & (truth < classes)
        guess = predicted[known].astype(np.int64)
        if guess.size and (guess.min() < 0 or guess.max() >= classes):
            raise ValueError(f'predictions {guess.min()} … {guess.max()} of {classes} classes')
        pairs = truth[known].astype(np.int64) * classes + guess
        self.counts += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)

    def ious(self) -> NDArray[np.float64]:
        """Return the IoU of each class; 0 for a class that is neither true nor predicted.

        JoEm's code, which CLIPSeg is measured with, counts those as 0 too.
        """
        hits = np.diag(self.counts)
        union = self.counts.sum(0) + self.counts.sum(1) - hits
        return hits / np.maximum(union, 1)

    def seen_unseen(self, unseen: list[int]) -> dict[str, float]:
        """Return mIoU over seen classes, unseen ones, both, and the harmonic mean of the two."""
        ious = self.ious()
        held_out = np.isin(np.arange(len(ious)), unseen)
        seen, new = float(ious[~held_out].mean()), float(ious[held_out].mean())
        harmonic = 2 * seen * new / (seen + new) if seen + new else 0.0
        return {'seen': seen, 'unseen': new, 'harmonic': harmonic, 'overall': float(ious.mean())}


def zero_shot_classes(
    probabilities: NDArray[np.float32], background: float = 3.0
) -> NDArray[np.int64]:
    """Return the class of each pixel from one map a class.

    Args:
        probabilities: float (K, H, W); class 0 is the background.
        background: Factor of its probability. CLIPSeg's code asks for "background" as a 21st
            phrase and takes three times its probability.

    Returns:
        int64 (H, W).
    """
    weighted = probabilities.astype(np.float64)
    weighted[0] *= background
    return weighted.argmax(0)


def absent_figures(areas: Sequence[float]) -> dict[str, float]:
    """Return the figures of absent prompts.

    Args:
        areas: Share of the image that is on, 0…1, by prompt; at least one.

    Returns:
        ``prompts``, ``area_on`` (the mean share), and ``kept_out`` (the share of prompts whose
        mask counts as empty, see :data:`EMPTY_SHARE`).
    """
    on = np.array(areas)
    return {
        'prompts': len(on),
        'area_on': float(on.mean()),
        'kept_out': float((on < EMPTY_SHARE).mean()),
    }
