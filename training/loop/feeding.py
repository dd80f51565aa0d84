"""Order and loading of the samples of each step.

The order is a function of seed and step alone and has no state, so a resumed run sees the samples
that it would have seen, with any number of loading processes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from training.datasets.samples import SampleSource, sample_rng
from training.loop.prompting import PromptBatch, PromptSettings, make_batch
from training.loop.stopping import leave_stopping_to_the_run

#: A sample in an epoch, and where a step finds it: (epoch, index).
Place = tuple[int, int]


@dataclass
class Order:
    """The order of the samples: a permutation of all of them in every epoch, end to end."""

    samples: int
    seed: int
    batch: int  #: samples of a step, of all processes together
    accumulate: int = 1  #: parts that each process computes a step in
    rank: int = 0  #: of this process
    processes: int = 1
    _permutations: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError('there are no samples to train on')
        parts = self.accumulate * self.processes
        if self.batch % parts:
            raise ValueError(
                f'batch_size {self.batch} cannot be divided among {self.processes} processes in '
                f'{self.accumulate} parts: make it a multiple of {parts}'
            )
        self.part = self.batch // parts

    def places(self, step: int) -> list[list[Place]]:
        """Return what this process computes in a step: ``accumulate`` lists of places."""
        first = step * self.batch + self.rank * self.part
        stride = self.processes * self.part
        return [
            [self._place(first + part * stride + row) for row in range(self.part)]
            for part in range(self.accumulate)
        ]

    def _place(self, position: int) -> Place:
        epoch, row = divmod(position, self.samples)
        if epoch not in self._permutations:
            # A batch may touch the end of one epoch and the beginning of the next.
            while len(self._permutations) > 2:
                self._permutations.pop(min(self._permutations))
            rng = np.random.default_rng([self.seed, epoch])
            self._permutations[epoch] = rng.permutation(self.samples)
        return epoch, int(self._permutations[epoch][row])


@dataclass
class Load:
    """A batch of samples, with pictures or with cached activations in place of them."""

    places: list[Place]
    batch: PromptBatch  #: images and supports are empty where there are activations
    skipped: Counter[str] = field(default_factory=Counter)  #: broken records by kind
    examples: dict[str, str] = field(default_factory=dict)  #: a message of each kind
    taps: list[Tensor] | None = None  #: (B, N, C) of each tap
    grid: tuple[int, int] = (0, 0)  #: (gh, gw), of tokens
    layers: list[int] = field(default_factory=list)  #: of taps; the model may read fewer
    texts: Tensor | None = None  #: embeddings (B, E) of the captions
    supports: Tensor | None = None  #: embeddings (B, E), zero where there is none

    def pin_memory(self) -> Load:
        """Pin the tensors; torch's loader calls this, so that copies to a GPU do not wait."""
        for holder in (self, self.batch):
            for name, value in vars(holder).items():
                if isinstance(value, Tensor):
                    setattr(holder, name, value.pin_memory())
        if self.taps is not None:
            self.taps = [tap.pin_memory() for tap in self.taps]
        return self


class Drawn(Protocol):
    """Source of samples for a loader: the pictures of a data set, or cached activations."""

    def load(self, place: Place) -> Load:
        """Make the sample of a place, a batch of one."""
        ...


class DrawnPictures:
    """Draws samples of a data set; seed, epoch and index decide all that is random about one."""

    def __init__(self, source: SampleSource, prompts: PromptSettings, seed: int) -> None:
        self.source = source
        self.prompts = prompts
        self.seed = seed

    def load(self, place: Place) -> Load:
        """See :meth:`Drawn.load`."""
        before = Counter(self.source.problems.counts)
        rng = sample_rng(self.seed, *place)
        sample = self.source.draw(place[1], rng)
        batch = make_batch([sample], self.prompts, rng)
        skipped = self.source.problems.counts - before
        examples = {kind: self.source.problems.examples[kind][-1] for kind in skipped}
        return Load([place], batch, skipped, examples)


def join(loads: Sequence[Load]) -> Load:
    """Make one batch of several."""
    first = loads[0]
    values: dict[str, Any] = {}
    for item in fields(PromptBatch):
        parts = [getattr(load.batch, item.name) for load in loads]
        if isinstance(parts[0], Tensor):
            values[item.name] = torch.cat(parts)
        else:
            values[item.name] = [value for part in parts for value in part]
    places = [place for load in loads for place in load.places]
    whole = Load(places, PromptBatch(**values))
    for load in loads:
        whole.skipped.update(load.skipped)
        whole.examples.update(load.examples)
    if first.taps is not None:
        layers = zip(*(load.taps or [] for load in loads), strict=True)
        whole.taps = [torch.cat(layer) for layer in layers]
        whole.grid, whole.layers = first.grid, first.layers
        whole.texts = torch.cat([load.texts for load in loads if load.texts is not None])
        whole.supports = torch.cat([load.supports for load in loads if load.supports is not None])
    return whole


class _Parts(Dataset[Load]):
    """The parts of the steps of a run, numbered from its first one, for torch's loader."""

    def __init__(self, drawn: Drawn, order: Order, steps: int) -> None:
        self.drawn, self.order, self.steps = drawn, order, steps

    def __len__(self) -> int:
        return self.steps * self.order.accumulate

    def __getitem__(self, number: int) -> Load:
        step, part = divmod(number, self.order.accumulate)
        return join([self.drawn.load(place) for place in self.order.places(step)[part]])


def feed(
    drawn: Drawn, order: Order, start: int, steps: int, workers: int, pin: bool = False
) -> Iterator[list[Load]]:
    """Yield the parts of each step from ``start`` on, up to ``steps``.

    ``workers`` processes load, or this one; ``pin`` puts batches into page-locked memory.
    """
    parts = range(start * order.accumulate, steps * order.accumulate)
    loader = DataLoader(
        _Parts(drawn, order, steps),
        sampler=parts,
        batch_size=None,
        num_workers=workers,
        pin_memory=pin,
        # Torch draws the seed of its workers from here, not from the generator of the run.
        generator=torch.Generator().manual_seed(0),
        worker_init_fn=leave_stopping_to_the_run,
    )
    loads = iter(loader)
    for _ in range(start, steps):
        yield list(islice(loads, order.accumulate))
