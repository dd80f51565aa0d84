"""Writes the shards of a run: which samples, how much disk, and on from where it was."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from clipseg_model.files.atomic_files import write_atomically
from training.datasets import sources
from training.loop.feeding import Place
from training.loop.shards import ActivationsError, ShardWriter, description_of, shard_of, writing

ItemT = TypeVar('ItemT')


class _Items(Dataset[list[ItemT]]):
    def __init__(self, make: Callable[[Place], ItemT], batches: list[list[Place]]) -> None:
        self.make, self.batches = make, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> list[ItemT]:
        return [self.make(place) for place in self.batches[number]]


@dataclass
class Packing(Generic[ItemT]):
    """The shards of a run.

    Every epoch is another draw of each sample. Samples are in random order, since shards may be
    read from end to end, and neighbours in a data set are alike.

    Attributes:
        folder: Where to.
        kind: What they hold.
        made: What they are made of, for their description.
        samples: Of an epoch.
        epochs: Draws of each sample.
        seed: Of the draws.
        make: Makes an item of a place; in loading processes.
        write: Writes items that were made.
        size: Bytes that an item takes.
        shard_size: Samples of a shard.
        batch: Items that are written at once.
        part: Which part of how many of the shards to write.
        workers: Processes that make items.
    """

    folder: Path
    kind: str
    made: Mapping[str, Any]
    samples: int
    epochs: int
    seed: int
    make: Callable[[Place], ItemT]
    write: Callable[[ShardWriter, list[ItemT]], None]
    size: Callable[[ItemT], int]
    shard_size: int = 256
    batch: int = 16
    part: tuple[int, int] = (0, 1)
    workers: int = 0

    def run(self) -> None:
        """Write the shards that are missing.

        Raises:
            ActivationsError: The folder holds another run's, or the disk is too small.
        """
        counts = {'samples': self.samples, 'epochs': self.epochs, 'shard_size': self.shard_size}
        self._claim({**self.made, **counts, 'order': 'random'})
        in_order = [(epoch, index) for epoch in range(self.epochs) for index in range(self.samples)]
        shuffled = np.random.default_rng([self.seed, self.epochs]).permutation(len(in_order))
        places = [in_order[position] for position in shuffled]
        starts = range(0, len(places), self.shard_size)[self.part[0] :: self.part[1]]
        paths = {
            start: self.folder / shard_of(self.kind, start // self.shard_size) for start in starts
        }
        missing = [start for start in starts if not paths[start].exists()]
        left = sum(len(places[start : start + self.shard_size]) for start in missing)
        if left:
            check_room(self.folder, left, self.size(self.make(places[missing[0]])))
        with tqdm(total=sum(min(self.shard_size, len(places) - start) for start in starts)) as bar:
            for start in starts:
                mine = places[start : start + self.shard_size]
                if paths[start].exists():
                    bar.update(len(mine))
                    continue
                first = range(0, len(mine), self.batch)
                batches = [mine[place : place + self.batch] for place in first]
                loader = DataLoader(
                    _Items(self.make, batches), batch_size=None, num_workers=self.workers
                )
                with writing(paths[start]) as writer:
                    for items in loader:
                        self.write(writer, items)
                        bar.update(len(items))

    def _claim(self, made: Mapping[str, Any]) -> None:
        """Write down what the folder holds, or make sure that it holds just that."""
        path = self.folder / description_of(self.kind)
        if path.exists():
            earlier = json.loads(path.read_text(encoding='utf-8'))
            now = json.loads(json.dumps(made))
            # Earlier folders were described with the place of the data.
            if 'data' in earlier:
                earlier['data'] = sources.without_places(earlier['data'])
            if earlier != now:
                keys = sorted(earlier.keys() | now.keys())
                differ = [key for key in keys if earlier.get(key) != now.get(key)]
                raise ActivationsError(
                    f'{self.folder} holds {self.kind} of another run (its {", ".join(differ)} '
                    'differ): delete it, or write to another folder'
                )
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(made, indent=2))


def check_room(folder: Path, samples: int, one: int) -> None:
    """Say how much disk samples of ``one`` byte each take; ActivationsError if it is not free."""
    needed, free = samples * one, shutil.disk_usage(folder).free
    what = f'{samples:,} samples of {one / 1e6:.2f} MB take {needed / 1e9:,.1f} GB'
    if needed > free:
        raise ActivationsError(
            f'{what}, and {folder} has {free / 1e9:,.1f} GB free: make room, write to another '
            'folder, cache fewer --epochs or --layers, store 8 --bits, or share the shards between '
            'disks by --part'
        )
    print(f'{what} in {folder}, which has {free / 1e9:,.1f} GB free')


def packing_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of every command that writes the shards of a run."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', type=Path, help='YAML file of the run')
    parser.add_argument('folder', type=Path, help='where the shards go')
    parser.add_argument('--epochs', type=int, default=1, help='draws of each sample')
    parser.add_argument('--shard-size', type=int, default=256, help='samples of a shard')
    parser.add_argument('--part', default='0/1', metavar='I/N', help='this of N parts')
    parser.add_argument('--set', action='append', default=[], metavar='KEY=VALUE')
    return parser


def read_part(text: str) -> tuple[int, int]:
    """Read I/N, this of N parts, from a command line; SystemExit where it is something else."""
    try:
        number, count = (int(value) for value in text.split('/'))
        if not 0 <= number < count:
            raise ValueError
    except ValueError:
        raise SystemExit(f'--part is I/N with 0 ≤ I < N, such as 0/4, not {text}') from None
    return number, count
