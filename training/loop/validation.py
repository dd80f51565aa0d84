"""Validation of a model during training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from training.datasets.samples import SampleSource, evenly_spread
from training.loop.feeding import Load
from training.loop.learner import Learner
from training.loop.prompting import PromptSettings, make_batch
from training.loop.settings import Validation
from training.metrics.pixels import BINS, PixelStatistics


@dataclass
class Measured:
    """The figures of a validation, and pictures, uint8 (H, 3 W, 3): image, truth, probability."""

    loss: float  #: mean binary cross-entropy
    iou_fg: float  #: at the best threshold, pixels summed over the samples
    threshold: float
    ap: float  #: average precision
    samples: int  #: in all processes
    pictures: list[NDArray[np.uint8]] = field(default_factory=list)

    def scalars(self) -> dict[str, float]:
        """Return the figures by name."""
        names = ('loss', 'iou_fg', 'threshold', 'ap')
        return {name: round(float(getattr(self, name)), 5) for name in names}


def better(measured: Measured, best: float | None, by: str) -> tuple[bool, float]:
    """Return whether it is better than the best so far, and its score, where more is better."""
    score = -measured.loss if by == 'loss' else float(getattr(measured, by))
    return best is None or score > best, score


class _Chunks(Dataset[Any]):
    """Validation samples, a few at a time; those that are broken or without a prompt are left."""

    def __init__(
        self,
        source: SampleSource,
        chunks: list[list[int]],
        prompts: PromptSettings,
        settings: Validation,
        seed: int,
    ) -> None:
        self.source, self.chunks, self.settings, self.seed = source, chunks, settings, seed
        # Both public implementations infer without a caption; images are not mixed with texts.
        self.prompts = prompts.model_copy(update={'template': 'plain', 'text_weight': (0.0, 0.0)})

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, number: int) -> Load | None:
        prompt, indices = self.settings.prompt, self.chunks[number]
        samples = list(self.source.each_with(prompt, self.seed, indices))
        if not samples:
            return None
        # With these prompts nothing is left to draw.
        return Load([], make_batch(samples, self.prompts, np.random.default_rng(0)))


class Validator:
    """Measures a learner on a split; each validation sees the same samples."""

    def __init__(
        self,
        settings: Validation,
        source: SampleSource,
        prompts: PromptSettings,
        batch: int,
        workers: int,
        seed: int,
    ) -> None:
        self.settings, self.source, self.prompts = settings, source, prompts
        self.batch, self.workers, self.seed = batch, workers, seed
        self.indices = evenly_spread(len(source), settings.samples)

    @torch.no_grad()
    def validate(self, learner: Learner, accelerator: Accelerator, pictures: int) -> Measured:
        """Validate on the split, spread over all processes; the figures are of all samples."""
        statistics = PixelStatistics()
        total = 0.0
        shown: list[NDArray[np.uint8]] = []
        for load in self._loads(accelerator):
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
                statistics.add(probability[row][on], truth[row].numpy()[on])
                if len(shown) < pictures:
                    shown.append(_picture(load, row, probability[row, 0]))
        sums = _reduced(statistics, total, accelerator)
        statistics, total = sums
        curve = statistics.iou_foreground()[1:BINS]
        best = int(np.argmax(curve))
        return Measured(
            loss=total / max(statistics.samples, 1),
            iou_fg=float(curve[best]),
            threshold=(1 + best) / BINS,
            ap=statistics.average_precision(),
            samples=statistics.samples,
            pictures=shown,
        )

    def _loads(self, accelerator: Accelerator) -> Iterator[Load]:
        mine = self.indices[accelerator.process_index :: accelerator.num_processes]
        chunks = [mine[start : start + self.batch] for start in range(0, len(mine), self.batch)]
        data = _Chunks(self.source, chunks, self.prompts, self.settings, self.seed)
        loader = DataLoader(
            data,
            batch_size=None,
            num_workers=self.workers,
            generator=torch.Generator().manual_seed(0),
        )
        return (load for load in loader if load is not None)


def _reduced(
    statistics: PixelStatistics, total: float, accelerator: Accelerator
) -> tuple[PixelStatistics, float]:
    """Sum over all processes; counts are integers, and so exact."""
    device = accelerator.device
    counts = np.concatenate([statistics.foreground, statistics.background, [statistics.samples]])
    summed = accelerator.reduce(torch.from_numpy(counts).to(device), 'sum').cpu().numpy()
    losses = accelerator.reduce(torch.tensor([total], dtype=torch.float64, device=device), 'sum')
    whole = PixelStatistics(summed[: BINS + 1], summed[BINS + 1 : -1], int(summed[-1]))
    return whole, float(losses[0])


def _picture(load: Load, row: int, probability: NDArray[np.float32]) -> NDArray[np.uint8]:
    image = (load.batch.images[row].permute(1, 2, 0).numpy() * 255).round()
    planes = (load.batch.masks[row, 0].numpy(), probability)
    grey = [np.repeat((255 * plane)[:, :, None], 3, 2) for plane in planes]
    return np.concatenate([image, *grey], 1).astype(np.uint8)
