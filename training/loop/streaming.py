"""Training from shards that are streamed one by one, for storage without random access.

Every loading process reads whole shards, one after the other, from a folder or a web server, and
shuffles what it holds. What a step sees is a function of seed, step, and the numbers of processes
and of loading processes, so a run can be resumed anywhere without reading what came before.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from training.loop import activations, packed_pictures
from training.loop.feeding import Load, join
from training.loop.prompting import PromptSettings
from training.loop.settings import Settings
from training.loop.shards import (
    COMMANDS,
    FAILURES,
    ActivationsError,
    description_of,
    open_place,
    pauses_of,
    read_shard,
    shard_of,
    to_load,
    unreachable,
)
from training.loop.stopping import leave_stopping_to_the_run

#: Samples that a loading process holds and shuffles, at 2.2 MB each for ViT-B/16 with three taps.
BUFFER = 64


@dataclass(frozen=True)
class Shards:
    """Shards in a folder or on a web server.

    Attributes:
        place: The folder or address.
        description: What they were made of.
        prompts: What becomes of pictures; None where they hold activations.
    """

    place: str
    description: Mapping[str, Any]
    prompts: PromptSettings | None = None

    @classmethod
    def at(cls, place: str, prompts: PromptSettings | None = None) -> Shards:
        """Read what was cached, or packed where there are prompts; or raise ActivationsError."""
        kind = activations.KIND if prompts is None else packed_pictures.KIND
        path = f'{place.rstrip("/")}/{description_of(kind)}'
        try:
            description = json.loads(_read_whole(path))
            shards = cls(place.rstrip('/'), description, prompts)
            assert len(shards.sizes()) > 0
        except (*FAILURES, ValueError, KeyError, TypeError, AssertionError) as error:
            if pauses_of(path) and isinstance(error, FAILURES):
                raise unreachable(path, str(error)) from error
            raise ActivationsError(
                f'{path} cannot be read ({error!r}): write the folder with '
                f'python -m {COMMANDS[kind]}'
            ) from error
        return shards

    @property
    def samples(self) -> int:
        """Number of samples of an epoch."""
        return int(self.description['samples'])

    def sizes(self) -> list[int]:
        """Return the number of samples of each shard."""
        total = self.samples * int(self.description['epochs'])
        size = int(self.description['shard_size'])
        return [min(size, total - start) for start in range(0, total, size)]

    def path(self, shard: int) -> str:
        """Return the file or address of a shard."""
        kind = activations.KIND if self.prompts is None else packed_pictures.KIND
        return f'{self.place}/{shard_of(kind, shard)}'

    def check(self, settings: Settings, config: Mapping[str, Any], frozen: str) -> None:
        """Raise ActivationsError, which says why, unless they are those that a run would make."""
        if self.prompts is None:
            activations.check_description(self.description, self.place, settings, config, frozen)
        else:
            packed_pictures.check(self.description, self.place, settings)

    def decode(self, sample: Mapping[str, Any]) -> Load:
        """Make a batch of one of a sample of :func:`training.loop.shards.read_shard`.

        Raises:
            ActivationsError: It is damaged.
        """
        if self.prompts is None:
            return to_load(sample, sample['__url__'])
        return packed_pictures.unpack(sample, sample['__url__'], self.prompts)


@dataclass
class ShardStream(IterableDataset[Load]):
    """An endless stream of the parts of steps.

    Each pass over the shards takes them in another order. They are dealt to the loading processes
    of all processes; one holds :data:`BUFFER` samples of those that it is dealt, and yields them
    in random order.
    """

    shards: Shards
    seed: int
    part: int  #: samples of a part
    rank: int = 0  #: of this process
    processes: int = 1
    start: int = 0  #: parts that this process has had already
    buffer: int = BUFFER  #: samples that are held

    def __iter__(self) -> Iterator[Load]:
        info = get_worker_info()
        number, count = (info.id, info.num_workers) if info is not None else (0, 1)
        # The loader asks its workers in turn, from the first: after a resume, that is another one.
        worker = (number + self.start) % count
        had = len(range(worker, self.start, count))
        samples = self.samples(self.rank * count + worker, self.processes * count, had * self.part)
        while True:
            yield join(list(islice(samples, self.part)))

    def samples(self, stream: int, streams: int, skip: int) -> Iterator[Load]:
        """Yield samples of one of the streams without an end, each a batch of one.

        Shards before the ``skip`` samples that are left out are not read.

        Raises:
            ActivationsError: There are fewer shards than streams, or one is damaged.
        """
        sizes = self.shards.sizes()
        if len(sizes) < streams:
            raise ActivationsError(
                f'{len(sizes)} shards cannot feed {streams} loading processes: set workers to '
                'less, or cache with a smaller --shard-size'
            )
        turn = 0
        while True:
            order = np.random.default_rng([self.seed, turn]).permutation(len(sizes))
            mine = [int(shard) for shard in order[stream::streams]]
            total = sum(sizes[shard] for shard in mine)
            if skip < total:
                yield from self._pass(mine, sizes, [self.seed, turn, stream], skip)
            skip = max(0, skip - total)
            turn += 1

    def _pass(
        self, mine: list[int], sizes: list[int], seed: list[int], skip: int
    ) -> Iterator[Load]:
        chunk, leave_out = divmod(skip, self.buffer)
        reading = self._read(mine, sizes, chunk * self.buffer)
        while held := list(islice(reading, self.buffer)):
            order = np.random.default_rng([*seed, chunk]).permutation(len(held))
            for position in order[leave_out:]:
                yield self.shards.decode(held[position])
            chunk, leave_out = chunk + 1, 0

    def _read(self, mine: list[int], sizes: list[int], first: int) -> Iterator[dict[str, Any]]:
        for shard in mine:
            if first < sizes[shard]:
                yield from read_shard(self.shards.path(shard), sizes[shard], first)
            first = max(0, first - sizes[shard])


def _read_whole(place: str) -> bytes:
    for pause in pauses_of(place):
        with suppress(*FAILURES), open_place(place) as file:
            return file.read()
        time.sleep(pause)
    with open_place(place) as file:
        return file.read()


def feed_stream(
    stream: ShardStream, start: int, steps: int, accumulate: int, workers: int, pin: bool
) -> Iterator[list[Load]]:
    """Yield the parts of each step, as :func:`training.loop.feeding.feed` does."""
    loader = DataLoader(
        replace(stream, start=start * accumulate),
        batch_size=None,
        num_workers=workers,
        pin_memory=pin,
        generator=torch.Generator().manual_seed(0),
        worker_init_fn=leave_stopping_to_the_run,
    )
    loads = iter(loader)
    for _ in range(start, steps):
        yield list(islice(loads, accumulate))
