"""Keeps what came out for each sample: a line of a CSV file, and a mask in PhraseCut's form.

PhraseCut's own evaluator reads a folder with a PNG for each task, ``TASK_ID.png``, of the picture's
size, white on black.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipseg_model.errors import ClipsegError
from clipseg_model.files.atomic_files import replacing
from training.datasets.phrasecut import PhraseCut
from training.datasets.phrasecut_files.subsets import COUNTS_FILE
from training.datasets.samples import Sample, SampleSource
from training.metrics.outcomes import Outcome


class OutcomeError(ClipsegError):
    """What came out cannot be kept as asked."""


@dataclass
class Outcomes:
    """What came out for the samples of this process.

    Attributes:
        source: Their data set.
        predictions: Folder for masks as PNG; none where None.
        subsets: Of PhraseCut, keep the subsets that a sample is in.
        listed: The outcomes so far.

    Raises:
        OutcomeError: The data set has no task ids, which name the masks.
        DataError: Subsets of PhraseCut are kept, and the file with its counts is not usable.
    """

    source: SampleSource
    predictions: Path | None = None
    subsets: bool = True
    listed: list[Outcome] = field(default_factory=list)

    def __post_init__(self) -> None:
        if isinstance(self.source, PhraseCut):
            if self.subsets:
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
        if self.subsets and isinstance(self.source, PhraseCut):
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


def has_counts(source: SampleSource) -> bool:
    """Return whether the subsets of a data set can be told: it is PhraseCut, with its counts."""
    return isinstance(source, PhraseCut) and (source.settings.folder / COUNTS_FILE).is_file()
