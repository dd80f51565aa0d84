"""The counts of an evaluation on a data set, and all figures computed from them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from training.metrics.classes import ClassStatistics, PromptStatistics, SampleIous
from training.metrics.matting import MattingStatistics
from training.metrics.pixels import BINS, PixelStatistics, index_of
from training.metrics.sums import Counts

#: Figures that depend on a threshold.
CURVES = ('iou_fg', 'iou_bin', 'miou_samples', 'miou_classes')
#: Figures that do not.
SCALARS = ('ap', 'ap_published', 'calibration_error', 'presence_auroc')
#: Class of samples whose data set has no classes.
NO_CLASS = -1


@dataclass
class Tally(Counts):
    """Counts of everything that is reported.

    Attributes:
        threshold: Of the masks.
        classes: Pixels by class.
        samples: IoU of single samples at every threshold.
        prompts: IoU of single masks, and scores of presence.
        absent: Pixels of prompts that are not true of their picture.
        matting: Errors of mattes.
        skipped: Number of samples left out, by reason.
    """

    threshold: float
    classes: ClassStatistics = field(default_factory=ClassStatistics)
    samples: SampleIous = field(default_factory=SampleIous)
    prompts: PromptStatistics = field(default_factory=PromptStatistics)
    absent: PixelStatistics = field(default_factory=PixelStatistics)
    matting: MattingStatistics = field(default_factory=MattingStatistics)
    skipped: Counter[str] = field(default_factory=Counter)

    def add(
        self,
        probability: NDArray[np.float32],
        mask: NDArray[np.bool_],
        score: float,
        truth: NDArray[np.bool_],
        valid: NDArray[np.bool_] | None = None,
        class_id: int | None = None,
    ) -> None:
        """Add a sample.

        Args:
            probability: float (H, W), 0…1.
            mask: bool (H, W), the model's.
            score: Presence, 0…1.
            truth: bool (H, W).
            valid: bool (H, W), pixels that are evaluated; all by default.
            class_id: Class of the sample, if it has one.
        """
        one = PixelStatistics()
        one.add(probability, truth, valid)
        self.classes.by_class[NO_CLASS if class_id is None else class_id].merge(one)
        self.samples.add(one)
        if not one.foreground.any():
            self.absent.merge(one)
        counted = np.ones_like(truth) if valid is None else valid
        # By rounding, a mean of ones may be a little above 1.
        self.prompts.add(min(score, 1.0), mask & counted, truth & counted)

    def merge(self, other: Counts) -> None:
        """Add the counts of another tally."""
        assert isinstance(other, Tally)
        for name in ('classes', 'samples', 'prompts', 'absent', 'matting'):
            getattr(self, name).merge(getattr(other, name))
        self.skipped.update(other.skipped)

    def pixels(self) -> PixelStatistics:
        """Return the pixels of all samples."""
        return self.classes.all_classes()

    def curve(self, name: str) -> NDArray[np.float64]:
        """Return a figure at each threshold; NaN where there is nothing to measure.

        Args:
            name: One of :data:`CURVES`.
        """
        nothing = np.full(BINS + 1, np.nan)
        if name == 'iou_fg':
            return self.pixels().iou_foreground()
        if name == 'iou_bin':
            return self.pixels().iou_binary()
        if name == 'miou_samples':
            return self.samples.mean_iou() if self.samples.samples else nothing
        if name == 'miou_classes':
            has_classes = self.classes.by_class.keys() - {NO_CLASS}
            return self.classes.mean_iou() if has_classes else nothing
        raise ValueError(f'no figure {name!r}; there are {", ".join(CURVES)}')

    def best(self, name: str) -> tuple[float, float]:
        """Return the best value of a curve and its threshold, strictly between 0 and 1."""
        inner = self.curve(name)[1:BINS]
        if np.isnan(inner).all():
            return float('nan'), float('nan')
        index = int(inner.argmax())
        return float(inner[index]), (index + 1) / BINS

    def figure(self, name: str, at: float | Literal['best'] | None = None) -> float:
        """Return a figure.

        Args:
            name: One of :data:`CURVES` or :data:`SCALARS`, or ``matting.per_matte.sad`` and its
                like.
            at: Threshold for curves, ``best`` for the best one.

        Raises:
            ValueError: If there is no such figure, or the threshold of a curve is missing.
        """
        if name in CURVES:
            if at is None:
                raise ValueError(f'{name} needs a threshold')
            return self.best(name)[0] if at == 'best' else float(self.curve(name)[index_of(at)])
        if name == 'ap':
            return self.pixels().average_precision()
        if name == 'ap_published':
            return self.pixels().published_average_precision()
        if name == 'calibration_error':
            return self.pixels().calibration_error()
        if name == 'presence_auroc':
            return self.prompts.presence_auroc()
        group, _, rest = name.partition('.')
        means, _, error = rest.partition('.')
        if group == 'matting' and means in ('per_matte', 'per_expression'):
            return float(getattr(getattr(self.matting, means)(), error))
        raise ValueError(f'no figure {name!r}')

    def report(self, thresholds: Iterable[float] = ()) -> dict[str, Any]:
        """Return all figures, as JSON types.

        Args:
            thresholds: Further thresholds, beside that of the masks and the best of each figure.
        """
        pixels = self.pixels()
        wanted = sorted({self.threshold, *thresholds})
        found: dict[str, Any] = {
            'samples': pixels.samples,
            'absent': self.absent.samples,
            'skipped': dict(sorted(self.skipped.items())),
            'threshold': self.threshold,
            **{name: plain(self.figure(name)) for name in SCALARS},
            'mean_iou_of_masks': plain(self.prompts.mean_iou()),
            'accuracy_of_masks': {
                f'{limit:g}': plain(self.prompts.accuracy(limit))
                for limit in (0.5, 0.6, 0.7, 0.8, 0.9)
            },
            'best': {
                name: {'value': plain(self.best(name)[0]), 'threshold': plain(self.best(name)[1])}
                for name in CURVES
            },
            'at': {
                f'{level:g}': {name: plain(self.figure(name, level)) for name in CURVES}
                for level in wanted
            },
        }
        if self.absent.samples:
            area = self.absent.false_positives() / max(int(self.absent.background.sum()), 1)
            found['absent_area_on'] = {f'{x:g}': float(area[index_of(x)]) for x in wanted}
        if self.matting.mattes:
            found['matting'] = {
                'mattes': self.matting.mattes,
                'expressions': self.matting.expressions,
                'per_matte': asdict(self.matting.per_matte()),
                'per_expression': asdict(self.matting.per_expression()),
            }
        return found


def plain(value: float) -> float | None:
    """Return a number, or None for NaN, which JSON cannot express."""
    return None if math.isnan(value) else value
