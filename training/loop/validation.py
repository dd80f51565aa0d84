"""Validation of a model during training.

Half of the prompts are for things that the pictures do not show, where the data set can tell and
its settings do not say otherwise: a threshold that is chosen on things that are there alone may be
so low that the model answers to anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from clipseg_model.calibration import top_scores
from training.datasets.samples import (
    BadRecord,
    DataError,
    Sample,
    SampleSource,
    evenly_spread,
)
from training.datasets.sources import SourceError, check_source, open_source
from training.loop.feeding import Load
from training.loop.learner import Learner
from training.loop.prompting import PromptSettings, make_batch
from training.loop.settings import Validation
from training.loop.stopping import StopRequest, leave_stopping_to_the_run
from training.metrics.outcomes import Outcome, gathered
from training.metrics.pixels import BINS, PixelStatistics
from training.metrics.sums import sum_over_processes


@dataclass
class Measured:
    """The figures of a validation, and pictures, uint8 (H, 3 W, 3): image, truth, probability."""

    loss: float  #: mean binary cross-entropy
    iou_fg: float  #: at the best threshold, pixels summed over the samples
    threshold: float
    ap: float  #: average precision
    samples: int  #: in all processes
    absent_area: float | None  #: share of pixels on for absent things; None: there are none
    pictures: list[NDArray[np.uint8]] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)  #: of each sample, at ``threshold``

    def scalars(self) -> dict[str, float]:
        """Return the figures by name."""
        names = ('loss', 'iou_fg', 'threshold', 'ap', 'absent_area')
        found = {name: getattr(self, name) for name in names}
        return {name: round(float(value), 5) for name, value in found.items() if value is not None}


def better(measured: Measured, best: float | None, by: str) -> tuple[bool, float]:
    """Return whether it is better than the best so far, and its score, where more is better."""
    score = -measured.loss if by == 'loss' else float(getattr(measured, by))
    return best is None or score > best, score


class _Chunks(Dataset[Any]):
    """Validation samples, a few at a time; those that are broken or without a prompt are left.

    ``chunks`` are indices, and whether they are of prompts for absent things.
    """

    def __init__(
        self,
        source: SampleSource,
        absent: SampleSource | None,
        chunks: list[tuple[list[int], bool]],
        prompts: PromptSettings,
        settings: Validation,
        seed: int,
    ) -> None:
        self.source, self.absent, self.chunks = source, absent, chunks
        self.settings, self.seed = settings, seed
        # Both public implementations infer without a caption; images are not mixed with texts.
        self.prompts = prompts.model_copy(update={'template': 'plain', 'text_weight': (0.0, 0.0)})

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, number: int) -> Load | None:
        prompt, (indices, of_absent) = self.settings.prompt, self.chunks[number]
        samples, places = [], []
        for index in indices:
            if of_absent:
                assert self.absent is not None
                found = absent_samples(self.absent, prompt, self.seed, [index])
            else:
                found = self.source.each_with(prompt, self.seed, [index])
            for sample in found:
                samples.append(sample)
                places.append((0, index))
        if not samples:
            return None
        # With these prompts nothing is left to draw.
        return Load(places, make_batch(samples, self.prompts, np.random.default_rng(0)))


def open_absent(data: Mapping[str, Any]) -> SampleSource | None:
    """Open the same samples, asked for classes or phrases that their pictures do not show.

    Returns:
        None where the data set cannot tell what they do not show.
    """
    if 'negatives' not in type(check_source(data)).model_fields:
        return None
    try:
        return open_source({**data, 'negatives': 1.0})
    except (SourceError, DataError):
        # One class alone, or classes whose absence the data set does not know.
        return None


def absent_samples(
    absent: SampleSource, prompt: Literal['text', 'image'], seed: int, indices: Iterable[int]
) -> Iterator[Sample]:
    """Yield those of the samples that ask for something that their picture does not show."""
    for index in indices:
        try:
            for sample in absent.each_with(prompt, seed, [index]):
                # Where a picture lacks nothing that is known, this is the sample of before again.
                if sample.negative:
                    yield sample
        except BadRecord:
            raise
        except DataError:
            # No false phrase is known for this picture, which is no fault of the data here.
            continue


class Validator:
    """Measures a learner on a split; each validation sees the same samples.

    Raises:
        DataError: The split has no sample, or cannot be read.
    """

    def __init__(
        self, settings: Validation, prompts: PromptSettings, batch: int, workers: int, seed: int
    ) -> None:
        self.settings, self.prompts = settings, prompts
        self.source = open_source(settings.data)
        # Settings may say themselves how many negatives there shall be.
        negatives: float = getattr(check_source(settings.data), 'negatives', 0.0)
        said = bool(negatives) or 'negatives' in settings.data
        self.absent = None if said else open_absent(settings.data)
        self.batch, self.workers, self.seed = batch, workers, seed
        wanted = settings.samples
        if wanted is not None and self.absent is not None:
            wanted = max(1, wanted // 2)
        self.indices = evenly_spread(len(self.source), wanted)

    @torch.no_grad()
    def validate(
        self, learner: Learner, accelerator: Accelerator, pictures: int, asked: StopRequest
    ) -> Measured | None:
        """Validate on the split, spread over all processes; the figures are of all samples.

        None where a process was asked to stop meanwhile: there is no time for the rest.
        """
        statistics, absent = PixelStatistics(), PixelStatistics()
        total = 0.0
        shown: list[NDArray[np.uint8]] = []
        counted_samples: list[_Counted] = []
        for load in self._loads(accelerator):
            if asked:
                break
            with accelerator.autocast():
                _, logits = learner(load)
            # Per sample, so that the figure does not depend on how they are batched.
            truth, valid = load.batch.masks >= 0.5, load.batch.valid
            logits = logits.cpu()
            losses = torch.nn.functional.binary_cross_entropy_with_logits(
                logits, load.batch.masks, reduction='none'
            )
            counted = valid.flatten(1).sum(1).clamp(min=1)
            total += float(((losses * valid).flatten(1).sum(1) / counted).sum())
            probability = logits.sigmoid().numpy()
            for row in range(len(probability)):
                on = valid[row].numpy()
                seen = probability[row][on], truth[row].numpy()[on]
                statistics.add(*seen)
                if not seen[1].any():
                    absent.add(*seen)
                counted_samples.append(_Counted.of(load, row, logits[row].numpy(), *seen))
                if len(shown) < pictures:
                    shown.append(_picture(load, row, probability[row, 0]))
        statistics, absent, total, stopped = _reduced(
            statistics, absent, total, bool(asked), accelerator
        )
        if stopped:
            return None
        curve = statistics.iou_foreground()[1:BINS]
        best = 1 + int(np.argmax(curve))
        area = absent.false_positives()[best] / max(int(absent.background.sum()), 1)
        return Measured(
            loss=total / max(statistics.samples, 1),
            iou_fg=float(curve[best - 1]),
            threshold=best / BINS,
            ap=statistics.average_precision(),
            samples=statistics.samples,
            absent_area=float(area) if absent.samples else None,
            pictures=shown,
            outcomes=gathered([one.outcome(best) for one in counted_samples], accelerator),
        )

    def _loads(self, accelerator: Accelerator) -> Iterator[Load]:
        kinds = (False,) if self.absent is None else (False, True)
        places = [(index, of_absent) for of_absent in kinds for index in self.indices]
        mine = places[accelerator.process_index :: accelerator.num_processes]
        chunks = []
        for kind in kinds:
            of_kind = [index for index, of_absent in mine if of_absent == kind]
            starts = range(0, len(of_kind), self.batch)
            chunks += [(of_kind[start : start + self.batch], kind) for start in starts]
        data = _Chunks(self.source, self.absent, chunks, self.prompts, self.settings, self.seed)
        loader = DataLoader(
            data,
            batch_size=None,
            num_workers=self.workers,
            generator=torch.Generator().manual_seed(0),
            worker_init_fn=leave_stopping_to_the_run,
        )
        shown = tqdm(
            loader, 'validation', leave=False, disable=not accelerator.is_main_process, unit='batch'
        )
        return (load for load in shown if load is not None)


@dataclass
class _Counted:
    """What came out for a sample, at every threshold: the best is known after the last sample."""

    known: dict[str, Any]
    counts: NDArray[np.int32]  #: (2, BINS + 1), of foreground and background

    @classmethod
    def of(
        cls,
        load: Load,
        row: int,
        logits: NDArray[np.float32],
        probability: NDArray[np.float32],
        truth: NDArray[np.bool_],
    ) -> _Counted:
        """Count the pixels of a row that count; logits are (1, S, S)."""
        one = PixelStatistics()
        one.add(probability, truth)
        number = int(load.batch.class_ids[row])
        known = {
            'index': load.places[row][1],
            'key': load.batch.keys[row],
            'phrase': load.batch.texts[row],
            'class_id': None if number < 0 else number,
            'score': min(top_scores(logits)[0], 1.0),
        }
        return cls(known, np.stack([one.foreground, one.background]).astype(np.int32))

    def outcome(self, threshold: int) -> Outcome:
        """Return it at one of the thresholds."""
        truth, others = (int(counts.sum()) for counts in self.counts)
        both, beside = (int(counts[threshold:].sum()) for counts in self.counts)
        return Outcome(
            **self.known,
            pixels=truth + others,
            truth=truth,
            mask=both + beside,
            intersection=both,
            union=truth + beside,
        )


def _reduced(
    statistics: PixelStatistics,
    absent: PixelStatistics,
    total: float,
    stopped: bool,
    accelerator: Accelerator,
) -> tuple[PixelStatistics, PixelStatistics, float, bool]:
    """Sum over all processes; counts are integers, and so exact."""
    first, second = (sum_over_processes(one, accelerator) for one in (statistics, absent))
    both = torch.tensor([total, stopped], dtype=torch.float64, device=accelerator.device)
    loss, stops = accelerator.reduce(both, 'sum').tolist()
    return first, second, loss, bool(stops)


def _picture(load: Load, row: int, probability: NDArray[np.float32]) -> NDArray[np.uint8]:
    image = (load.batch.images[row].permute(1, 2, 0).numpy() * 255).round()
    planes = (load.batch.masks[row, 0].numpy(), probability)
    grey = [np.repeat((255 * plane)[:, :, None], 3, 2) for plane in planes]
    return np.concatenate([image, *grey], 1).astype(np.uint8)
