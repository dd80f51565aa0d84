"""What came out for single samples, and PhraseCut's figures over subsets of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray

from clipseg_model.files.atomic_files import write_atomically
from training.metrics.pixels import intersection_and_union

#: IoU that a mask must be above for PhraseCut's Pr@t.
LIMITS = (0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Outcome:
    """A sample's mask against its truth, in pixels that count."""

    index: int  #: in its data set
    key: str
    phrase: str
    class_id: int | None
    score: float | None  #: presence, 0…1; None where classes compete for pixels
    pixels: int
    truth: int
    mask: int
    intersection: int
    union: int
    subsets: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        mask: NDArray[np.bool_],
        truth: NDArray[np.bool_],
        valid: NDArray[np.bool_] | None,
        **known: Any,
    ) -> Outcome:
        """Count pixels of a mask and a truth, bool (H, W), where ``valid`` is true, or all."""
        counted = np.ones_like(truth) if valid is None else valid
        mask, truth = mask & counted, truth & counted
        both, either = intersection_and_union(mask, truth)
        return cls(
            pixels=int(counted.sum()),
            truth=int(truth.sum()),
            mask=int(mask.sum()),
            intersection=both,
            union=either,
            **known,
        )

    @property
    def iou(self) -> float:
        """Return the IoU, 0…1; NaN where the thing is absent, and the mask knows."""
        return self.intersection / self.union if self.union else float('nan')

    def row(self) -> dict[str, Any]:
        """Return the columns of a table."""
        return {
            'index': self.index,
            'key': self.key,
            'phrase': self.phrase,
            'class': '' if self.class_id is None else self.class_id,
            'score': '' if self.score is None else round(self.score, 6),
            'pixels': self.pixels,
            'truth': self.truth,
            'mask': self.mask,
            'intersection': self.intersection,
            'union': self.union,
            'iou': round(self.iou, 6) if self.union else '',
            'subsets': ' '.join(self.subsets),
        }


def gathered(listed: list[Outcome], accelerator: Accelerator) -> list[Outcome]:
    """Return the outcomes of all processes in the order of the data set."""
    everything = listed if accelerator.num_processes == 1 else gather_object(listed)
    return sorted(everything, key=lambda outcome: outcome.index)


def write_csv(path: Path, outcomes: Iterable[Outcome]) -> None:
    """Write a line for each sample."""
    rows: list[dict[str, Any]] = [outcome.row() for outcome in outcomes]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ['index'], lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


def figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return PhraseCut's figures of outcomes whose thing is present; at least one.

    Returns:
        ``count``, ``mean_iou``, ``cumulative_iou`` (of summed pixels), and ``accuracy`` by limit:
        the share whose IoU is above it.
    """
    ious = np.array([outcome.intersection / outcome.union for outcome in outcomes])
    both = sum(outcome.intersection for outcome in outcomes)
    return {
        'count': len(outcomes),
        'mean_iou': float(ious.mean()),
        'cumulative_iou': both / sum(outcome.union for outcome in outcomes),
        'accuracy': {f'{limit:g}': float((ious > limit).mean()) for limit in LIMITS},
    }


def by_subset(outcomes: Iterable[Outcome]) -> dict[str, dict[str, Any]]:
    """Return the figures of each subset, sorted by name; of things that are present."""
    members: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        for name in outcome.subsets if outcome.truth else ():
            members.setdefault(name, []).append(outcome)
    return {name: figures(listed) for name, listed in sorted(members.items())}
