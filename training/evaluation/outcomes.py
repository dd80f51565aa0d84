"""Keeps what came out for each sample: a line of a CSV file, and a mask in PhraseCut's form.

PhraseCut's own evaluator reads a folder with a PNG for each task, ``TASK_ID.png``, of the picture's
size, white on black.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray
from PIL import Image

from clipseg_model.errors import ClipsegError
from clipseg_model.files.atomic_files import replacing, write_atomically
from training.datasets.phrasecut import PhraseCut
from training.datasets.samples import Sample, SampleSource
from training.metrics.outcomes import Outcome


class OutcomeError(ClipsegError):
    """What came out cannot be kept as asked."""


@dataclass
class Outcomes:
    """What came out for the samples of this process.

    Attributes:
        source: Their data set; of PhraseCut, subsets are kept.
        predictions: Folder for masks as PNG; none where None.
        listed: The outcomes so far.

    Raises:
        OutcomeError: The data set has no task ids, which name the masks.
        DataError: It is PhraseCut, and the file with its counts is not usable.
    """

    source: SampleSource
    predictions: Path | None = None
    listed: list[Outcome] = field(default_factory=list)

    def __post_init__(self) -> None:
        if isinstance(self.source, PhraseCut):
            # Before hours of work, a file that is missing shows.
            self.source.ranks  # noqa: B018
        elif self.predictions is not None:
            raise OutcomeError(
                'masks are written in the form of PhraseCut, whose task ids name the files: '
                'leave --predictions out for other data sets'
            )
        if self.predictions is not None:
            self.predictions.mkdir(parents=True, exist_ok=True)

    def add(
        self,
        index: int,
        sample: Sample,
        mask: NDArray[np.bool_],
        truth: NDArray[np.bool_],
        valid: NDArray[np.bool_] | None,
        score: float,
    ) -> None:
        """Add a sample: its number, and mask, truth and what counts, bool (H, W)."""
        subsets: tuple[str, ...] = ()
        if isinstance(self.source, PhraseCut):
            subsets = tuple(self.source.subsets(index, float(truth.mean())))
        outcome = Outcome.of(
            mask,
            truth,
            valid,
            index=index,
            key=sample.key,
            phrase=sample.phrase,
            class_id=sample.class_id,
            score=min(score, 1.0),
            subsets=subsets,
        )
        self.listed.append(outcome)
        if self.predictions is not None:
            with replacing(self.predictions / f'{sample.key}.png') as path:
                Image.fromarray(mask.astype(np.uint8) * 255).save(path, format='PNG')

    def gathered(self, accelerator: Accelerator) -> list[Outcome]:
        """Return the outcomes of all processes in the order of the data set."""
        everything = self.listed
        if accelerator.num_processes > 1:
            everything = gather_object(self.listed)
        return sorted(everything, key=lambda outcome: outcome.index)


def write_csv(path: Path, outcomes: list[Outcome]) -> None:
    """Write a line for each sample."""
    rows: list[dict[str, Any]] = [outcome.row() for outcome in outcomes]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ['index'], lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())
